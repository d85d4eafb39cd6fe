//! A line: frames between a client and a host, by whatever road.

use super::road::{Road, gone};
use crate::session::SessionCore;
use crate::unpoisoned::lock;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::REMOTE_FRAME_BYTES_MAX;
use commonhold_ipc::line::{Side, Waited, Wanted};
use commonhold_ipc::socket::{Channel, Company, Received, Spin};
use commonhold_ipc::sys::wait_readable;
use commonhold_ipc::wire::{HEAD_BYTES, Head, malformed};
use rkyv::util::AlignedVec;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Bytes that are taken from the socket at a time.
const BUFFER_BYTES: usize = 16 << 10;
/// Bytes of the largest payload whose memory is used again for the next one.
const SPARE_BYTES_MAX: usize = 64 << 10;

/// A frame: its head, and its payload at a multiple of 16, as archives need it.
pub type Frame = (Head, AlignedVec<16>);

/// What waiting for a frame came to.
pub enum Got {
    /// This.
    Frame(Frame),
    /// Nothing until the deadline.
    Nothing,
    /// The other side is gone.
    Ended,
}

/// Puts frames together of what comes.
pub struct Incoming {
    /// How it waits for a side that is awake.
    spin: Spin,
    /// And for one that had to be woken: kept apart, or a few sleeps would teach both sides to sleep for ever.
    spin_rung: Spin,
    /// A host's thread goes elsewhere if its callers run on its processor.
    company: Company,
    /// What was taken from the socket.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Of a frame that is not whole yet.
    head: AlignedVec<16>,
    payload: AlignedVec<16>,
    /// Memory for the next one.
    spare: AlignedVec<16>,
}

impl Incoming {
    /// Nothing has come yet.
    pub fn new() -> Self {
        let (head, payload, spare) = Default::default();
        Incoming {
            spin: Spin::new(),
            spin_rung: Spin::new(),
            company: Company::new(),
            buffer: Box::default(),
            start: 0,
            end: 0,
            head,
            payload,
            spare,
        }
    }

    /// The next whole frame of what has come.
    ///
    /// # Errors
    /// `Corrupt` if it is longer than any may be.
    #[inline]
    pub fn take(&mut self, road: &Road) -> Result<Option<Frame>> {
        let Incoming { buffer, start, end, head, payload, spare, .. } = self;
        // Memory comes with the bytes: what a head claims is only a claim.
        let mut get = |most: usize, out: &mut AlignedVec<16>| match road {
            Road::Memory(memory) => memory.receive(most, out).map(drop),
            Road::Socket(_) => {
                let here = most.min(*end - *start);
                out.extend_from_slice(&buffer[*start..*start + here]);
                *start += here;
                Ok(())
            }
        };
        if head.len() < HEAD_BYTES {
            get(HEAD_BYTES - head.len(), head)?;
        }
        let Some(whole) = Head::parse(head) else { return Ok(None) };
        let len = whole.len as usize;
        if len > REMOTE_FRAME_BYTES_MAX {
            return Err(malformed("call"));
        }
        if payload.len() < len {
            get(len - payload.len(), payload)?;
        }
        if payload.len() < len {
            return Ok(None);
        }
        head.clear();
        Ok(Some((whole, std::mem::replace(payload, std::mem::take(spare)))))
    }

    /// A payload that is not needed any more.
    fn reuse(&mut self, mut payload: AlignedVec<16>) {
        if payload.capacity() <= SPARE_BYTES_MAX {
            payload.clear();
            // If the next frame has begun, it has taken the last spare one.
            if self.payload.capacity() == 0 { self.payload = payload } else { self.spare = payload }
        }
    }

    /// Takes what is there of the socket, all of what it brought before having been taken. `None`: its end; else whether there was
    /// anything.
    fn fill(&mut self, socket: &Channel) -> Result<Option<bool>> {
        debug_assert_eq!(self.start, self.end);
        if self.buffer.is_empty() {
            self.buffer = vec![0; BUFFER_BYTES].into();
        }
        Ok(match socket.receive(&mut self.buffer)? {
            Received::Bytes(count) => {
                (self.start, self.end) = (0, count);
                Some(true)
            }
            Received::Nothing => Some(false),
            Received::Ended => None,
        })
    }

    /// Waits for something to take, or until `other` can be read, which is nothing.
    #[inline]
    fn more(&mut self, road: &Road, deadline: impl Fn() -> Option<Instant>, other: Option<BorrowedFd<'_>>) -> Result<Waited> {
        let socket = match road {
            Road::Memory(end) => {
                let mut here = end.peer_is_here();
                if end.side() == Side::Host {
                    self.company.meet(here);
                    if self.company.part() {
                        // What it has learnt was of another place.
                        (here, self.spin, self.spin_rung) = (false, Spin::new(), Spin::new());
                    }
                }
                let spin = match (here, end.to_sleeper()) {
                    (true, _) => None,
                    (false, true) => Some(&mut self.spin_rung),
                    (false, false) => Some(&mut self.spin),
                };
                return end.wait_or(Wanted::Bytes, spin, deadline, other);
            }
            Road::Socket(socket) => socket,
        };
        let mut filled = Ok(Some(false));
        let mut spin = std::mem::take(&mut self.spin);
        let ready = spin.wait(|| {
            filled = self.fill(socket);
            !matches!(filled, Ok(Some(false)))
        });
        self.spin = spin;
        if !ready {
            let both = [socket.as_fd(), other.unwrap_or(socket.as_fd())];
            if wait_readable(&both[..1 + usize::from(other.is_some())], deadline())? & 1 == 0 {
                return Ok(Waited::Nothing);
            }
            filled = self.fill(socket);
        }
        Ok(if filled?.is_some() { Waited::Ready } else { Waited::Ended })
    }

    /// Waits for the next frame: looks for some microseconds first, where that has lately paid off. The deadline is asked for only then.
    #[inline]
    pub fn wait(&mut self, road: &Road, deadline: impl Fn() -> Option<Instant>, other: Option<BorrowedFd<'_>>) -> Result<Got> {
        loop {
            if let Some(frame) = self.take(road)? {
                return Ok(Got::Frame(frame));
            }
            match self.more(road, &deadline, other)? {
                Waited::Ready => {}
                Waited::Nothing => return Ok(Got::Nothing),
                Waited::Ended => return Ok(Got::Ended),
            }
        }
    }
}

/// One end of a line, for whoever has it alone.
pub struct Line {
    /// The manager's number for it.
    id: u64,
    road: Arc<Road>,
    incoming: Incoming,
    /// How it waits for room.
    spin: Spin,
    /// What the other side has not taken yet.
    outbox: Outbox,
    /// Number of the last call.
    number: u64,
    /// Whose other end it is, at a client's.
    host: Option<Arc<HostProcess>>,
}

/// A host, to a client that waits for it.
pub struct HostProcess {
    /// Its session with the manager.
    pub number: u64,
    /// None: it cannot be had, or the manager knows it by a process id that is another one's here.
    pub process: Option<OwnedFd>,
}

impl HostProcess {
    /// Whether it has ended. The kernel says so, and only if it cannot be asked the manager: that may be stopped, and keep who waits from his answer.
    pub fn has_ended(&self, session: &SessionCore) -> bool {
        match &self.process {
            Some(process) => !matches!(wait_readable(&[process.as_fd()], Some(Instant::now())), Ok(0)),
            None => matches!(session.is_over(self.number), Ok(Some(true))),
        }
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.road.socket().as_fd()
    }
}

impl Line {
    /// Over this end, with the manager's number for it; `side`: which side of its memory, if it has any; `host`: at a client's end.
    pub fn new(id: u64, end: OwnedFd, side: Option<Side>, host: Option<Arc<HostProcess>>) -> Result<Self> {
        let road = Arc::new(Road::new(end, side)?);
        Ok(Line { id, road, incoming: Incoming::new(), spin: Spin::new(), outbox: Outbox::default(), number: 0, host })
    }

    /// The host at its other end, at a client's.
    pub fn host(&self) -> Option<&Arc<HostProcess>> {
        self.host.as_ref()
    }

    /// The manager's number for it: no other line has it, and both its ends know it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What carries it, to be shut down by somebody else.
    pub fn road(&self) -> &Arc<Road> {
        &self.road
    }

    /// The next call's number.
    pub fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Sends bytes, and waits for room until the deadline: how many. It is asked for only if there is none.
    #[inline]
    pub fn send(&mut self, bytes: &[u8], deadline: impl Fn() -> Option<Instant>) -> Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.road.send(&bytes[sent..])? {
                0 if !self.road.wait_writable(&mut self.spin, deadline())? => break,
                count => sent += count,
            }
        }
        Ok(sent)
    }

    /// Sends a frame, or keeps what there is no room for, to be sent while the next one is awaited.
    pub fn post(&mut self, bytes: &[u8]) -> Result<()> {
        self.outbox.post(&self.road, bytes)
    }

    /// Waits for the next frame, and sends meanwhile what was kept. Beyond `kept_max` bytes of that nothing is read.
    pub fn wait_sending(&mut self, kept_max: usize) -> Result<Got> {
        while self.outbox.kept() > 0 {
            let readable = if self.outbox.kept() > kept_max {
                self.road.wait_writable(&mut self.spin, None)?;
                false
            } else {
                if let Some(frame) = self.incoming.take(&self.road)? {
                    return Ok(Got::Frame(frame));
                }
                self.road.wait_either(&mut self.spin, None)?.0
            };
            self.outbox.flush(&self.road)?;
            if readable
                && let Road::Socket(socket) = &*self.road
                && self.incoming.fill(socket)?.is_none()
            {
                return Ok(Got::Ended);
            }
        }
        self.wait(|| None)
    }

    /// Waits for the next frame.
    #[inline]
    pub fn wait(&mut self, deadline: impl Fn() -> Option<Instant>) -> Result<Got> {
        self.incoming.wait(&self.road, deadline, None)
    }

    /// The next frame, if all of it has come.
    #[inline]
    pub fn try_next(&mut self) -> Result<Option<Frame>> {
        self.incoming.take(&self.road)
    }

    /// Whether something has come, be it a part of a frame. A socket is not looked at for that.
    pub fn has_come(&self) -> bool {
        match &*self.road {
            Road::Memory(end) => end.is_ready(Wanted::Bytes),
            Road::Socket(_) => self.incoming.start < self.incoming.end,
        }
    }

    /// Whether the other side has taken all that was posted.
    pub fn is_caught_up(&self) -> bool {
        self.outbox.kept() == 0
    }

    /// Before a sleep until its descriptor can be read, for whoever waits for several: whether it may sleep, or something has come. In either case
    /// [`awake`](Self::awake) comes next.
    pub fn fall_asleep(&self) -> bool {
        match &*self.road {
            Road::Memory(end) => end.fall_asleep(),
            Road::Socket(_) => !self.has_come(),
        }
    }

    /// After it; `is_readable`: what became of the descriptor. `false`: the other side is gone, and what it has sent is there.
    ///
    /// # Errors
    /// If the descriptor cannot be read.
    pub fn awake(&mut self, is_readable: bool) -> Result<bool> {
        match &*self.road {
            Road::Memory(end) => end.awake(is_readable),
            Road::Socket(socket) => Ok(!is_readable || self.incoming.fill(socket)?.is_some()),
        }
    }

    /// A frame's payload that is not needed any more: its memory is used again.
    pub fn reuse(&mut self, payload: AlignedVec<16>) {
        self.incoming.reuse(payload);
    }

    /// Makes it one that several threads use.
    pub fn shared(self) -> Result<SharedLine> {
        let Line { road, incoming, outbox, host, .. } = self;
        let (spin, poked) = (Mutex::new(Spin::new()), Channel::pair()?);
        Ok(SharedLine { road, incoming: Mutex::new(incoming), outbox: Mutex::new(outbox), spin, poked, host })
    }
}

/// What the other side has no room for yet.
#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    /// So many of them are sent.
    sent: usize,
    /// It takes nothing any more.
    is_closed: bool,
}

impl Outbox {
    fn kept(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Sends a frame, or keeps what there is no room for.
    fn post(&mut self, road: &Road, bytes: &[u8]) -> Result<()> {
        let sent = if self.kept() == 0 { road.send(bytes)? } else { 0 };
        self.bytes.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    /// Sends what there is room for now.
    fn flush(&mut self, road: &Road) -> Result<()> {
        while self.kept() > 0 {
            match road.send(&self.bytes[self.sent..])? {
                0 => return Ok(()),
                sent => self.sent += sent,
            }
        }
        self.bytes.clear();
        self.bytes.shrink_to(SPARE_BYTES_MAX);
        self.sent = 0;
        Ok(())
    }

    /// Nothing more is sent.
    fn close(&mut self) {
        *self = Outbox { is_closed: true, ..Outbox::default() };
    }
}

/// One end of a line that several threads use: all of them send, and one at a time reads. What there is no room for is kept, and sent by who
/// reads: only that one ever waits, so neither side can wait for the other for ever, as long as there is somebody who reads.
pub struct SharedLine {
    road: Arc<Road>,
    incoming: Mutex<Incoming>,
    outbox: Mutex<Outbox>,
    /// How the reader waits for room.
    spin: Mutex<Spin>,
    /// Wakes the reader: he looks what has been kept.
    poked: (Channel, Channel),
    host: Option<Arc<HostProcess>>,
}

impl SharedLine {
    /// Sends a frame, or keeps what there is no room for: then the reader is woken.
    ///
    /// # Errors
    /// If the other side is gone. From then on nothing is kept.
    pub fn post(&self, bytes: &[u8]) -> Result<()> {
        let mut outbox = lock(&self.outbox);
        if outbox.is_closed {
            return Err(gone());
        }
        outbox.post(&self.road, bytes).inspect_err(|_| outbox.close())?;
        if outbox.kept() > 0 {
            drop(outbox);
            self.poke()?;
        }
        Ok(())
    }

    /// Wakes the reader.
    pub fn poke(&self) -> Result<()> {
        // 0: it has not looked at the last ones yet, and will.
        self.poked.1.send(&[0]).map(drop)
    }

    /// For the one who reads: whether there may be something to be read without waiting. A socket is not looked at for that.
    pub fn may_have_come(&self) -> bool {
        !matches!(&*self.road, Road::Memory(end) if !end.is_ready(Wanted::Bytes))
    }

    /// For the one who reads: the next frame, if all of it has come.
    pub fn try_next(&self) -> Result<Option<Frame>> {
        let mut incoming = lock(&self.incoming);
        loop {
            match (incoming.take(&self.road)?, &*self.road) {
                // The end is found by whoever waits.
                (None, Road::Socket(socket)) if incoming.fill(socket)? == Some(true) => {}
                (frame, _) => return Ok(frame),
            }
        }
    }

    /// Bytes that are kept. None are once the other side is gone.
    pub fn kept(&self) -> usize {
        lock(&self.outbox).kept()
    }

    /// What carries it.
    pub fn road(&self) -> &Arc<Road> {
        &self.road
    }

    /// The host at its other end, at a client's.
    pub fn host(&self) -> Option<&Arc<HostProcess>> {
        self.host.as_ref()
    }

    /// Ends it for both sides.
    pub fn shut_down(&self) {
        self.road.shut_down();
    }

    /// Bytes that were kept, and those that still are.
    fn flush(&self) -> (usize, usize) {
        let mut outbox = lock(&self.outbox);
        let had = outbox.kept();
        if outbox.flush(&self.road).is_err() {
            // What has come before the end is still to be read.
            outbox.close();
        }
        (had, outbox.kept())
    }

    /// For the one who reads, as long as it must not read on: sends what is kept, until it is poked. It may return before, for nothing.
    pub fn send_kept(&self) -> Result<()> {
        let (_, kept) = self.flush();
        let poked = self.poked.0.as_fd();
        if kept == 0 {
            wait_readable(&[poked], None)?;
        } else if self.road.wait_writable_or(poked).is_err() {
            // As in `flush`.
            lock(&self.outbox).close();
        }
        self.poked.0.receive(&mut [0; 64]).map(drop)
    }

    /// For the one who reads: the next frame. Sends meanwhile what is kept; beyond `kept_max` bytes of that nothing is read. `Nothing`: the
    /// deadline, or some of what was kept is sent, or there is something new.
    pub fn next(&self, kept_max: usize, deadline: impl Fn() -> Option<Instant>) -> Result<Got> {
        let mut incoming = lock(&self.incoming);
        let (had, kept) = self.flush();
        if kept <= kept_max
            && let Some(frame) = incoming.take(&self.road)?
        {
            return Ok(Got::Frame(frame));
        }
        if kept < had {
            return Ok(Got::Nothing);
        }
        if kept == 0 {
            let got = incoming.wait(&self.road, deadline, Some(self.poked.0.as_fd()))?;
            if let Got::Nothing = got {
                self.poked.0.receive(&mut [0; 64])?;
            }
            return Ok(got);
        }
        if kept > kept_max {
            if self.road.wait_writable(&mut lock(&self.spin), deadline()).is_err() {
                // As in `flush`.
                lock(&self.outbox).close();
            }
            return Ok(Got::Nothing);
        }
        let (readable, _) = self.road.wait_either(&mut lock(&self.spin), deadline())?;
        if readable
            && let Road::Socket(socket) = &*self.road
            && incoming.fill(socket)?.is_none()
        {
            return Ok(Got::Ended);
        }
        Ok(Got::Nothing)
    }
}

/// Lane of calls that are made ahead, and so are done though nobody may wait for them any more.
pub const AHEAD: u16 = 1;

/// The whole bytes of a frame, of which `bytes` has room for a head and then the payload.
pub fn seal(bytes: &mut [u8], code: u8, quiet: bool, number: u64) -> Result<()> {
    seal_on(bytes, code, quiet, 0, number)
}

/// The same on a lane.
pub fn seal_on(bytes: &mut [u8], code: u8, quiet: bool, lane: u16, number: u64) -> Result<()> {
    let len = bytes.len() - HEAD_BYTES;
    if len > REMOTE_FRAME_BYTES_MAX {
        let text = format!("a call or result of {len} bytes, the most is {REMOTE_FRAME_BYTES_MAX}: pass large values in containers");
        return Err(Error::new(ErrorKind::TooLarge, text));
    }
    let head = Head { len: len as u32, code, quiet, lane, number };
    bytes[..HEAD_BYTES].copy_from_slice(&head.to_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_is_too_long_is_not_sent() {
        // Nobody touches them: they take no memory.
        let mut bytes = vec![0; HEAD_BYTES + REMOTE_FRAME_BYTES_MAX + 1];
        let error = seal(&mut bytes, 1, false, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        let told = format!(
            "a call or result of {} bytes, the most is {REMOTE_FRAME_BYTES_MAX}: pass large values in containers",
            REMOTE_FRAME_BYTES_MAX + 1
        );
        assert_eq!(error.to_string(), told);
    }
}
