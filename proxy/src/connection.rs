//! One of the two roads of calls (the other: `lane`): a socket that all threads of a session share.
//!
//! A caller writes its whole request under a lock, then waits for its reply. Of the waiting threads one reads the socket and
//! hands out what comes; the others sleep until theirs is there, or until the reader has what it wanted and it is theirs to
//! read. A reader looks for some microseconds before it sleeps, where that has lately paid off.

use crate::unpoisoned::lock;
use commonhold_ipc::arena::ALIVE;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::DESCRIPTORS_PER_MESSAGE_MAX;
use commonhold_ipc::liveness::is_alive;
use commonhold_ipc::map::ArenaReader;
use commonhold_ipc::pin::BLOCKS;
use commonhold_ipc::points;
use commonhold_ipc::socket::{Channel, Received, Spin};
use commonhold_ipc::sys::{peer_pidfd, wait_readable, wait_writable};
use commonhold_ipc::wire::reply::{Outcome, Status, common_reply, parse_error};
use commonhold_ipc::wire::{HEAD_BYTES, Head, Reader, malformed};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// A reply, taken apart.
#[derive(Debug)]
pub enum Reply {
    /// The version of the commit, and what its operation gave; nothing if it is enough to know that it happened.
    Done(u64, Outcome),
    /// What a call gave that gives several things.
    Several(Vec<Outcome>),
    /// A condition did not hold.
    Conflict,
}

impl Reply {
    /// Takes a reply's frame apart: `Err` is what the call failed with.
    #[inline(always)]
    pub fn parse(head: Head, payload: &[u8]) -> Result<Reply> {
        if head.code == Status::Done as u8
            && let Some((version, outcome)) = common_reply(payload)
        {
            return Ok(Reply::Done(version, outcome));
        }
        Self::parse_any(head, payload)
    }

    #[inline(never)]
    fn parse_any(head: Head, payload: &[u8]) -> Result<Reply> {
        let mut read = Reader::new(payload);
        match Status::from_code(head.code) {
            Some(Status::Conflict) => Ok(Reply::Conflict),
            Some(Status::Failed) => Err(parse_error(&mut read).unwrap_or_else(|| malformed("reply"))),
            Some(Status::Done) => {
                let version = read.u64().ok_or_else(|| malformed("reply"))?;
                let first = Outcome::parse(&mut read).ok_or_else(|| malformed("reply"))?;
                if read.is_empty() {
                    return Ok(Reply::Done(version, first));
                }
                let mut outcomes = vec![first];
                while !read.is_empty() {
                    outcomes.push(Outcome::parse(&mut read).ok_or_else(|| malformed("reply"))?);
                }
                Ok(Reply::Several(outcomes))
            }
            None => Err(malformed("reply")),
        }
    }

    /// The only outcome of a call that always succeeds or fails.
    pub fn outcome(self) -> Result<Outcome> {
        match self {
            Reply::Done(_, outcome) => Ok(outcome),
            Reply::Several(_) | Reply::Conflict => Err(malformed("reply")),
        }
    }

    /// All outcomes of a call that always succeeds or fails and gives several things, or one, or none.
    pub fn outcomes(self) -> Result<Vec<Outcome>> {
        match self {
            Reply::Done(_, Outcome::Nothing) => Ok(Vec::new()),
            Reply::Done(_, outcome) => Ok(vec![outcome]),
            Reply::Several(outcomes) => Ok(outcomes),
            Reply::Conflict => Err(malformed("reply")),
        }
    }

    /// Whether it lends something, which is to be acknowledged.
    #[inline(always)]
    pub fn lends(&self) -> bool {
        let lends = |outcome: &Outcome| matches!(outcome, Outcome::Lent(..) | Outcome::Existing(_));
        match self {
            Reply::Done(_, outcome) => lends(outcome),
            Reply::Several(outcomes) => outcomes.iter().any(lends),
            Reply::Conflict => false,
        }
    }
}

#[derive(Default)]
struct Inbox {
    /// Replies by lane that nobody has taken yet.
    replies: HashMap<u16, (Head, Vec<u8>)>,
    /// Somebody reads.
    reading: bool,
    waiting: usize,
    /// The connection is over.
    ended: bool,
}

struct Incoming {
    spin: Spin,
    /// What has come and is no whole frame yet.
    bytes: Vec<u8>,
    /// What the socket fills.
    buffer: Box<[u8]>,
}

/// Bytes that are taken from the socket at a time. Replies are small: values are read in place.
const BUFFER_BYTES: usize = 16 << 10;

/// How often a caller that waits looks whether the manager lives.
const LOOK_MS: u64 = 1_000;

/// A connection to a manager.
pub struct Connection {
    channel: Channel,
    /// Where the manager's alive word is: its socket may outlive it, in a process that was forked off it.
    arena: ArenaReader,
    writing: Mutex<()>,
    /// The thread that is in the middle of a frame whose bytes come from a value's own code; 0: none.
    streaming: AtomicUsize,
    /// What that code wanted to tell the manager meanwhile.
    told: Mutex<Vec<u8>>,
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    incoming: Mutex<Incoming>,
    /// Those that came with replies, see `take_descriptor`.
    descriptors: Mutex<Vec<OwnedFd>>,
    ended: AtomicBool,
    questions: Mutex<Questions>,
}

/// Questions that nobody waits long for.
#[derive(Default)]
struct Questions {
    /// How many were asked.
    asked: u64,
    /// What the last one is about, if it is not answered yet.
    under_way: Option<u64>,
}

/// What their answers are known by: no thread's lane.
const QUESTIONS_LANE: u16 = u16::MAX;
const _: () = assert!(BLOCKS <= QUESTIONS_LANE as usize);

pub use commonhold_ipc::liveness::disconnected;

/// The error of a call whose reply will never come. `changes`: what it has changed is not known.
pub fn no_reply(changes: bool) -> Error {
    if changes { outcome_unknown() } else { disconnected() }
}

fn in_the_middle() -> Error {
    Error::new(
        ErrorKind::Refused,
        "a call to the manager from within the code that writes a value, while that value is on its way over the same connection: nothing was done; make such calls before or after (reading is no call)",
    )
}

pub(crate) fn outcome_unknown() -> Error {
    Error::new(
        ErrorKind::OutcomeUnknown,
        "the manager ended after this call was sent and before it was answered: whether it took effect is not known; connect to a new manager, and look there before doing it again",
    )
}

/// A number that the calling thread has alone, also while its storage is being torn down.
pub fn this_thread() -> usize {
    thread_local!(static PLACE: u8 = const { 0 });
    PLACE.with(|place| std::ptr::from_ref(place).addr())
}

impl Connection {
    /// Over a channel that has been through its handshake, to the manager of this arena.
    pub fn new(channel: Channel, arena: ArenaReader) -> Self {
        Connection {
            channel,
            arena,
            writing: Mutex::new(()),
            streaming: AtomicUsize::new(0),
            told: Mutex::default(),
            inbox: Mutex::default(),
            arrived: Condvar::new(),
            incoming: Mutex::new(Incoming { spin: Spin::new(), bytes: Vec::new(), buffer: vec![0; BUFFER_BYTES].into() }),
            descriptors: Mutex::default(),
            ended: AtomicBool::new(false),
            questions: Mutex::default(),
        }
    }

    /// The socket's end tells of the manager's, unless a process that was forked off the manager's has its end of the socket,
    /// too. So nobody waits for it without a look at the alive word now and then.
    fn next_look(&self) -> Instant {
        Instant::now() + Duration::from_millis(LOOK_MS)
    }

    /// The process at the other end, as of the connect: the manager's, unless it is this one that made both ends. Its end can be waited for.
    ///
    /// # Errors
    /// If there is no descriptor for it.
    pub fn peer_process(&self) -> Result<OwnedFd> {
        peer_pidfd(&self.channel)
    }

    /// The manager's alive word.
    pub fn alive(&self) -> Option<&AtomicU32> {
        self.arena.half_word(ALIVE)
    }

    fn manager_lives(&self) -> bool {
        // SYNC: as in `SessionCore::is_alive`.
        self.alive().is_some_and(|word| is_alive(word.load(Ordering::Acquire)))
    }

    /// Whether the connection is known to be over.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// The connection is known to be over.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        lock(&self.inbox).ended = true;
        self.arrived.notify_all();
    }

    /// Gives the connection up: both sides see its end.
    pub fn abandon(&self) {
        self.channel.shut_down();
        self.end();
    }

    /// The right to write. Frames that belong together are written under one.
    ///
    /// # Errors
    /// `Refused` if the calling thread is in the middle of a frame: it would wait for itself.
    pub fn begin_writing(&self) -> Result<MutexGuard<'_, ()>> {
        self.check_between_frames()?;
        Ok(lock(&self.writing))
    }

    /// An error of kind `Refused` if the calling thread is in the middle of a frame.
    pub fn check_between_frames(&self) -> Result<()> {
        if self.is_streaming_here() { Err(in_the_middle()) } else { Ok(()) }
    }

    /// Whether the calling thread is in the middle of a frame.
    #[inline]
    pub fn is_streaming_here(&self) -> bool {
        // Only the thread itself stores its own number.
        self.streaming.load(Ordering::Relaxed) == this_thread()
    }

    /// Runs a value's own code, which writes bytes of a frame. The caller has the right to write. What that code tells the manager
    /// meanwhile, by dropping a handle for example, is sent when the frame is whole.
    pub fn stream<R>(&self, write: impl FnOnce() -> Result<R>) -> Result<R> {
        struct Streaming<'c>(&'c Connection);
        impl Drop for Streaming<'_> {
            fn drop(&mut self) {
                self.0.streaming.store(0, Ordering::Relaxed);
            }
        }
        self.streaming.store(this_thread(), Ordering::Relaxed);
        let streaming = Streaming(self);
        let written = write()?;
        drop(streaming);
        self.write(&std::mem::take(&mut *lock(&self.told)))?;
        Ok(written)
    }

    /// Sends a request that is not answered, now or when the frame that this thread is in the middle of is whole.
    pub fn tell(&self, frame: &[u8]) -> Result<()> {
        if self.is_streaming_here() {
            lock(&self.told).extend_from_slice(frame);
            return Ok(());
        }
        self.send(frame)
    }

    /// Writes bytes; the caller has the right to.
    pub fn write(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.channel.send(bytes) {
                Ok(0) => {
                    if !wait_writable(&self.channel, Some(self.next_look()))? && !self.manager_lives() {
                        self.end();
                        return Err(disconnected());
                    }
                }
                Ok(count) => bytes = &bytes[count..],
                Err(_) => {
                    self.end();
                    return Err(disconnected());
                }
            }
        }
        Ok(())
    }

    /// Sends a request.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let _right = self.begin_writing()?;
        let (first, rest) = frame.split_at(points::first_part(frame.len()));
        points::client("request: before it is sent");
        self.write(first)?;
        points::client("request: in the middle of it");
        self.write(rest)?;
        points::client("request: sent");
        Ok(())
    }

    /// Sends a request and waits for its reply. `changes`: if the reply never comes, its effect is unknown.
    pub fn call(&self, lane: u16, frame: &[u8], changes: bool) -> Result<Reply> {
        if self.has_ended() {
            return Err(disconnected());
        }
        self.send(frame)?;
        self.receive(lane, changes)
    }

    /// Waits for the reply to a request that has been sent on a lane, on whatever road.
    pub fn receive(&self, lane: u16, changes: bool) -> Result<Reply> {
        let Some((head, payload)) = self.wait_for(lane, None)? else { return Err(no_reply(changes)) };
        points::client("reply: here");
        Reply::parse(head, &payload)
    }

    /// Asks what nobody waits long for, about something, by the frame that it is given a lane and a number for: `None` if there is no answer by then,
    /// as from a manager that is stopped or busy with something large, or if another thread asks. Who asks the same again then hears the answer
    /// to that. Only one question is under way: else answers that came too late would pile up, as nobody reads who calls by other roads, and the
    /// manager takes no more calls from who does not take its answers.
    pub fn ask<'f>(&self, about: u64, frame: impl FnOnce(u16, u64) -> Result<&'f [u8]>, deadline: Instant) -> Result<Option<Reply>> {
        let mut questions = match self.questions.try_lock() {
            Ok(questions) => questions,
            Err(TryLockError::Poisoned(questions)) => questions.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(None),
        };
        if let Some(asked_about) = questions.under_way {
            let Some((head, payload)) = self.hear(deadline)? else { return Ok(None) };
            questions.under_way = None;
            if asked_about == about {
                return Reply::parse(head, &payload).map(Some);
            }
        }
        {
            let right = self.writing.try_lock();
            if self.is_streaming_here() || matches!(right, Err(TryLockError::WouldBlock)) {
                return Ok(None);
            }
            let frame = frame(QUESTIONS_LANE, questions.asked + 1)?;
            match self.channel.send(frame) {
                Ok(0) => return Ok(None),
                Ok(count) => self.write(&frame[count..])?,
                Err(_) => self.end(),
            }
            questions.asked += 1;
            questions.under_way = Some(about);
        }
        let Some((head, payload)) = self.hear(deadline)? else { return Ok(None) };
        questions.under_way = None;
        Reply::parse(head, &payload).map(Some)
    }

    /// The answer to the question that is under way.
    fn hear(&self, deadline: Instant) -> Result<Option<(Head, Vec<u8>)>> {
        match self.wait_for(QUESTIONS_LANE, Some(deadline))? {
            None if self.has_ended() => Err(disconnected()),
            heard => Ok(heard),
        }
    }

    /// The descriptor that came with a reply. Of such calls only one may be under way at a time.
    pub fn take_descriptor(&self) -> Option<OwnedFd> {
        lock(&self.descriptors).drain(..).next_back()
    }

    /// The next reply on a lane; `None` if the connection ends before it, or at the deadline.
    fn wait_for(&self, lane: u16, deadline: Option<Instant>) -> Result<Option<(Head, Vec<u8>)>> {
        let mut inbox = lock(&self.inbox);
        loop {
            if let Some(reply) = inbox.replies.remove(&lane) {
                return Ok(Some(reply));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if inbox.ended || left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            if inbox.reading {
                inbox.waiting += 1;
                inbox = match left {
                    None => self.arrived.wait(inbox).unwrap_or_else(PoisonError::into_inner),
                    Some(left) => self.arrived.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0,
                };
                inbox.waiting -= 1;
                continue;
            }
            inbox.reading = true;
            drop(inbox);
            let read = self.read(deadline);
            inbox = lock(&self.inbox);
            inbox.reading = false;
            match read {
                Ok(frames) => inbox.replies.extend(frames.into_iter().map(|(head, payload)| (head.lane, (head, payload)))),
                Err(_) => {
                    inbox.ended = true;
                    self.ended.store(true, Ordering::Relaxed);
                }
            }
            if inbox.waiting > 0 {
                // Whose reply it is, and who reads on.
                self.arrived.notify_all();
            }
        }
    }

    /// Waits for bytes and takes the whole frames out of them, at least one unless the deadline passes.
    fn read(&self, deadline: Option<Instant>) -> Result<Vec<(Head, Vec<u8>)>> {
        let Incoming { spin, bytes, buffer } = &mut *lock(&self.incoming);
        let (mut frames, mut descriptors) = (Vec::new(), Vec::new());
        while frames.is_empty() {
            let mut received = Ok(Received::Nothing);
            let ready = spin.wait(|| {
                received = self.channel.receive_with_fds(buffer, &mut descriptors, DESCRIPTORS_PER_MESSAGE_MAX);
                !matches!(received, Ok(Received::Nothing))
            });
            if !ready {
                let look = deadline.map_or(self.next_look(), |deadline| deadline.min(self.next_look()));
                let came = wait_readable(&[self.channel.as_fd()], Some(look))? != 0;
                let alive = came || self.manager_lives();
                received = self.channel.receive_with_fds(buffer, &mut descriptors, DESCRIPTORS_PER_MESSAGE_MAX);
                if !alive && matches!(received, Ok(Received::Nothing)) {
                    return Err(disconnected());
                }
            }
            match received? {
                Received::Bytes(count) => bytes.extend_from_slice(&buffer[..count]),
                Received::Nothing if deadline.is_some_and(|deadline| deadline <= Instant::now()) => break,
                Received::Nothing => continue,
                Received::Ended => return Err(disconnected()),
            }
            let mut done = 0;
            while let Some(head) = Head::parse(&bytes[done..]) {
                let end = done + HEAD_BYTES + head.len as usize;
                if end > bytes.len() {
                    break;
                }
                frames.push((head, bytes[done + HEAD_BYTES..end].to_vec()));
                done = end;
            }
            bytes.drain(..done);
        }
        if !descriptors.is_empty() {
            lock(&self.descriptors).append(&mut descriptors);
        }
        Ok(frames)
    }
}
