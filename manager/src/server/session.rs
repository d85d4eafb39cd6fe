//! One client process: its connection, and all that it holds here.
//!
//! Requests are gathered in a buffer and done one after the other; an upload's bytes go from the socket straight into the
//! arena. All that a session holds (references, uploads, lent versions, pins in its page) goes with it.

use super::TURN_BYTES;
use super::session_lanes::SessionLanes;
use crate::store::Store;
use crate::upload::{self, Upload, Uploads};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::handshake::Admission;
use commonhold_ipc::limits::{FRAME_BYTES_MAX, REPLIES_PENDING_BYTES_MAX, UPLOADS_PER_SESSION_MAX, VALUE_BYTES_MAX};
use commonhold_ipc::map::ArenaWriter;
use commonhold_ipc::pin::{BLOCKS, PinScan, Pinned};
use commonhold_ipc::poller::{Interest, Poller};
use commonhold_ipc::socket::{Channel, Received};
use commonhold_ipc::wire::{Call, HEAD_BYTES, Head, UPLOAD_HEAD_BYTES, UploadHead};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// An upload whose bytes are on their way.
struct Arriving {
    number: u64,
    /// Where they go; or why they are read and thrown away.
    target: Result<Upload>,
    len: u64,
    done: u64,
}

/// Bytes of either buffer that a session keeps when that is empty.
const KEPT_BYTES: usize = 2 * TURN_BYTES;

/// A session.
pub struct Session {
    number: u64,
    channel: Channel,
    process: OwnedFd,
    pins: Option<PinScan>,
    pid: u32,
    program: String,
    owner: bool,
    requests: Vec<u8>,
    /// Bytes of `requests` that are done.
    done: usize,
    arriving: Option<Arriving>,
    uploads: Uploads,
    answers: Vec<u8>,
    sent: usize,
    /// Descriptors that travel with the answers' bytes at these offsets.
    descriptors: VecDeque<(usize, Arc<OwnedFd>)>,
    interest: Interest,
    /// Objects it holds, and how often.
    held: HashMap<u64, u64>,
    /// For each lane that has been lent values, the call whose reply did it, and the version they are in; 0: that is over.
    lent: Vec<(u64, u64)>,
    /// It must wait until somebody else gives the writer's ticket back.
    pub waits_for_ticket: bool,
    /// Its lanes, if it has any.
    pub lanes: Option<SessionLanes>,
}

/// What a session has been given with its welcome, and what the manager watches its process by.
pub struct Given {
    /// A descriptor that becomes readable when the process ends.
    pub process: OwnedFd,
    /// Its page, if it reads.
    pub pins: Option<PinScan>,
    /// Its lanes, if it has any.
    pub lanes: Option<SessionLanes>,
}

/// What a session's buffer holds next.
pub enum Next {
    /// Not a whole request.
    Nothing,
    /// This request, whose payload is this long and begins at the offset.
    Request(Head, std::ops::Range<usize>),
    /// Something that no client of ours sends.
    Nonsense,
}

impl Session {
    /// The session of a client that has just been let in.
    pub fn new(number: u64, channel: Channel, given: Given, admission: &Admission, owner: bool) -> Self {
        let Given { process, pins, lanes } = given;
        Session {
            number,
            channel,
            process,
            pins,
            pid: if admission.peer.pid == 0 { admission.hello.pid } else { admission.peer.pid },
            program: admission.hello.program.clone(),
            owner,
            requests: Vec::new(),
            done: 0,
            arriving: None,
            uploads: Uploads::default(),
            answers: Vec::new(),
            sent: 0,
            descriptors: VecDeque::new(),
            interest: Interest::READ,
            held: HashMap::new(),
            lent: Vec::new(),
            waits_for_ticket: false,
            lanes,
        }
    }

    /// Its connection.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// A descriptor that becomes readable when the process ends.
    pub fn process(&self) -> &OwnedFd {
        &self.process
    }

    /// Its number, which no other session ever has.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its process, and the program that runs there.
    pub fn who(&self) -> (u32, &str) {
        (self.pid, &self.program)
    }

    /// Who it is, in words.
    pub fn describe(&self) -> String {
        format!("{} (pid {})", self.program, self.pid)
    }

    /// Whether the manager ends with it.
    pub fn is_owner(&self) -> bool {
        self.owner
    }

    /// Reads what has come, as much as fits into one turn. `false`: the session is over.
    pub fn read(&mut self, arena: &ArenaWriter, buffer: &mut [u8]) -> bool {
        if self.arriving.is_some() {
            return self.read_upload(arena, buffer);
        }
        if self.done > 0 {
            self.requests.drain(..self.done);
            self.requests.shrink_to(KEPT_BYTES);
            self.done = 0;
        }
        let start = self.requests.len();
        // A frame may be longer than a turn; more is read only if the frame in front is not whole.
        if start >= FRAME_BYTES_MAX + HEAD_BYTES || (start >= TURN_BYTES && !matches!(self.next(), Next::Nothing)) {
            return true;
        }
        match self.channel.receive(buffer) {
            Ok(Received::Bytes(count)) => self.requests.extend_from_slice(&buffer[..count]),
            Ok(Received::Nothing) => {}
            Ok(Received::Ended) | Err(_) => return false,
        }
        true
    }

    /// Takes more of an upload from the socket into its block.
    fn read_upload(&mut self, arena: &ArenaWriter, buffer: &mut [u8]) -> bool {
        let Some(arriving) = &mut self.arriving else { return true };
        let left = (arriving.len - arriving.done).min(TURN_BYTES as u64 * 4);
        let received = match &arriving.target {
            Ok(upload) => arena.receive(&self.channel, upload.block + upload.prefix + arriving.done, left),
            Err(_) => {
                let most = buffer.len().min(left as usize);
                match self.channel.receive(&mut buffer[..most]) {
                    Ok(Received::Bytes(count)) => Ok(count),
                    Ok(Received::Nothing) => Err(std::io::ErrorKind::WouldBlock.into()),
                    Ok(Received::Ended) => Ok(0),
                    Err(_) => return false,
                }
            }
        };
        match received {
            Ok(0) => false,
            Ok(count) => {
                arriving.done += count as u64;
                true
            }
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }

    /// What is to be done next.
    pub fn next(&self) -> Next {
        let bytes = &self.requests[self.done..];
        let Some(head) = Head::parse(bytes) else { return Next::Nothing };
        let Some(call) = Call::from_code(head.code) else { return Next::Nonsense };
        let start = self.done + HEAD_BYTES;
        let whole = if call == Call::Upload { UPLOAD_HEAD_BYTES } else { head.len as usize };
        if call != Call::Upload && head.len as usize > FRAME_BYTES_MAX {
            return Next::Nonsense;
        }
        if bytes.len() < HEAD_BYTES + whole { Next::Nothing } else { Next::Request(head, start..start + whole) }
    }

    /// Whether requests wait to be done here (and not for the ticket, or for answers to be read).
    pub fn has_requests(&self) -> bool {
        !self.waits_for_ticket && self.arriving.is_none() && !matches!(self.next(), Next::Nothing)
    }

    /// The bytes of a request that [`next`](Self::next) named. They are taken out for as long as it is being done.
    pub fn take_requests(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.requests)
    }

    /// Puts them back.
    pub fn put_requests_back(&mut self, requests: Vec<u8>) {
        self.requests = requests;
    }

    /// The request that ended here in the buffer is done.
    pub fn finish(&mut self, end: usize) {
        self.done = end;
        if self.done == self.requests.len() {
            self.requests.clear();
            self.requests.shrink_to(KEPT_BYTES);
            self.done = 0;
        }
    }

    /// Bytes of the value that an upload's head announces; 0 if it makes no sense.
    pub fn upload_bytes(&self, payload: std::ops::Range<usize>) -> u64 {
        UploadHead::parse(&self.requests[payload]).map_or(0, |upload| upload.len.min(VALUE_BYTES_MAX))
    }

    /// Begins an upload, with the part of it that is in the buffer already. `false`: nonsense.
    pub fn begin_upload(&mut self, head: &Head, payload: std::ops::Range<usize>, store: &mut Store) -> bool {
        let Some(upload) = UploadHead::parse(&self.requests[payload.clone()]) else { return false };
        if upload.len != u64::from(head.len).saturating_sub(UPLOAD_HEAD_BYTES as u64) || upload.len > VALUE_BYTES_MAX {
            return false;
        }
        let target = self.upload_target(&upload, store);
        let here = (self.requests.len() - payload.end).min(upload.len as usize);
        if let Ok(target) = &target {
            let bytes = &self.requests[payload.end..payload.end + here];
            store.memory.arena().copy_in(target.block + target.prefix, bytes);
        }
        self.arriving = Some(Arriving { number: head.number, target, len: upload.len, done: here as u64 });
        self.finish(payload.end + here);
        true
    }

    /// A block for an upload, or why there is none.
    pub fn upload_target(&self, upload: &UploadHead, store: &mut Store) -> Result<Upload> {
        if self.uploads.len() >= UPLOADS_PER_SESSION_MAX {
            let text = format!("more than {UPLOADS_PER_SESSION_MAX} large values in one request: send fewer at a time");
            return Err(Error::new(ErrorKind::Full, text));
        }
        upload::begin(&mut store.memory, upload.prefix, upload.len, upload.handles.into())
    }

    /// If an upload is on its way: whether it has arrived whole, and so is ready for its commit.
    pub fn settle_upload(&mut self, store: &mut Store) -> bool {
        match &self.arriving {
            None => true,
            Some(arriving) if arriving.done < arriving.len => false,
            Some(_) => {
                if let Some(arrived) = self.arriving.take() {
                    self.uploads.add(arrived.number, arrived.target, &mut store.memory);
                }
                true
            }
        }
    }

    /// The uploads, while a commit is done.
    pub fn uploads(&mut self) -> &mut Uploads {
        &mut self.uploads
    }

    /// Whether the session holds an object.
    pub fn holds(&self, id: u64) -> bool {
        self.held.contains_key(&id)
    }

    /// How often the session holds an object.
    pub fn held_times(&self, id: u64) -> u64 {
        self.held.get(&id).copied().unwrap_or(0)
    }

    /// How many objects it holds, and how often in all.
    pub fn holdings(&self) -> (usize, u64) {
        (self.held.len(), self.held.values().sum())
    }

    /// The session holds an object once more.
    pub fn hold(&mut self, id: u64) {
        *self.held.entry(id).or_default() += 1;
    }

    /// The session lets an object go once; whether it held it.
    pub fn let_go(&mut self, id: u64) -> bool {
        let Some(count) = self.held.get_mut(&id) else { return false };
        *count -= 1;
        if *count == 0 {
            self.held.remove(&id);
        }
        true
    }

    /// A call of a lane has begun: what the one before lent is over.
    #[inline]
    pub fn begin_call(&mut self, lane: u16) {
        if let Some((_, version)) = self.lent.get_mut(usize::from(lane)) {
            *version = 0;
        }
    }

    /// The reply to a call lends values of this version.
    #[inline]
    pub fn lend(&mut self, lane: u16, call: u64, version: u64) {
        let lane = usize::from(lane);
        if lane >= BLOCKS {
            // No client of ours has such a lane, and nobody could acknowledge what it was lent.
            return;
        }
        if lane >= self.lent.len() {
            self.lent.resize(lane + 1, (0, 0));
        }
        self.lent[lane] = (call, version);
    }

    /// What the session pins: lent versions that are not acknowledged, then what its page says.
    pub fn pins(&mut self, newest: u64, found: &mut Vec<Pinned>) {
        let Some(page) = &self.pins else { return };
        // First the acknowledgements, then the pins that were made before them.
        for (lane, (call, version)) in (0..).zip(&mut self.lent).filter(|(_, (_, version))| *version != 0) {
            if page.acknowledged(lane) < *call {
                found.push(Pinned::At(*version));
            } else {
                *version = 0;
            }
        }
        page.scan(newest, |pin| found.push(pin));
    }

    /// Whether its client's readers are to be fenced before [`pins`](Self::pins).
    pub fn relies_on_manager(&self) -> bool {
        self.pins.as_ref().is_some_and(PinScan::relies_on_manager)
    }

    /// Whether its client may still read under pins, though the connection is over.
    pub fn may_read(&self) -> bool {
        self.pins.as_ref().is_some_and(PinScan::may_be_read_under)
    }

    /// Room for a reply.
    pub fn answers(&mut self) -> &mut Vec<u8> {
        &mut self.answers
    }

    /// A descriptor travels with the answers' byte at this offset.
    pub fn send_descriptor(&mut self, at: usize, descriptor: Arc<OwnedFd>) {
        self.descriptors.push_back((at, descriptor));
    }

    /// Whether so many answers wait to be read that no more requests are taken.
    pub fn is_stuffed(&self) -> bool {
        self.answers.len() - self.sent > REPLIES_PENDING_BYTES_MAX
    }

    /// Sends what there is room for, and says what to wake up for. `false`: the session is over.
    pub fn flush(&mut self, poller: &Poller, token: u64) -> bool {
        while self.sent < self.answers.len() {
            let here = self.descriptors.front().filter(|(at, _)| *at == self.sent);
            let next = self.descriptors.get(usize::from(here.is_some()));
            let bytes = &self.answers[self.sent..next.map_or(self.answers.len(), |(at, _)| *at)];
            let sent = match here {
                Some((_, descriptor)) => self.channel.send_with_fds(bytes, &[descriptor.as_fd()]),
                None => self.channel.send(bytes),
            };
            match sent {
                Ok(0) => break,
                Ok(count) => {
                    if here.is_some() {
                        self.descriptors.pop_front();
                    }
                    self.sent += count;
                }
                Err(_) => return false,
            }
        }
        if self.sent == self.answers.len() {
            self.answers.clear();
            self.answers.shrink_to(KEPT_BYTES);
            self.sent = 0;
        } else if self.sent > REPLIES_PENDING_BYTES_MAX {
            self.answers.drain(..self.sent);
            self.descriptors.iter_mut().for_each(|(at, _)| *at -= self.sent);
            self.sent = 0;
        }
        self.adjust(poller, token)
    }

    /// Tells the poller what the session waits for, once what could be sent has been. `false`: that failed, and the session is over.
    fn adjust(&mut self, poller: &Poller, token: u64) -> bool {
        self.wait_for(Interest { write: self.sent < self.answers.len(), ..self.reading() }, poller, token)
    }

    /// The same before that: answers that nobody has tried to send are no reason to wait for room.
    pub fn adjust_reading(&mut self, poller: &Poller, token: u64) -> bool {
        self.wait_for(self.reading(), poller, token)
    }

    /// Whether it is waited for what it says: not while it has answers to take first, or waits for the ticket.
    pub fn is_read(&self) -> bool {
        self.interest.read
    }

    fn reading(&self) -> Interest {
        Interest { read: !self.is_stuffed() && !self.waits_for_ticket, ..self.interest }
    }

    fn wait_for(&mut self, wanted: Interest, poller: &Poller, token: u64) -> bool {
        if wanted != self.interest {
            self.interest = wanted;
            return poller.modify(self.channel.as_fd(), token, wanted).is_ok();
        }
        true
    }

    /// The session is over: all it held goes.
    pub fn end(&mut self, store: &mut Store) {
        for (id, count) in self.held.drain() {
            (0..count).for_each(|_| store.release(id));
        }
        if let Some(Arriving { target: Ok(upload), .. }) = self.arriving.take() {
            store.memory.discard(upload.block);
        }
        self.uploads.clear(&mut store.memory);
        if let Some(lanes) = self.lanes.take() {
            lanes.end();
        }
    }

    /// Blocks of uploads that no commit has used yet. For the audit.
    pub fn upload_blocks(&self) -> impl Iterator<Item = u64> + '_ {
        let arriving = self.arriving.iter().filter_map(|arriving| arriving.target.as_ref().ok()).map(|upload| upload.block);
        self.uploads.blocks().chain(arriving)
    }
}
