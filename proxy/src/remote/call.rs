//! The client's side of a call: arguments, the line it goes on, the answer.

use super::line::{AHEAD, Frame, Got, Line, seal, seal_on};
use super::pending::{Pending, Stream};
use crate::connection::disconnected;
use crate::handle::{Handle, Object};
use crate::payload::ids;
use crate::request::Request;
use crate::session::{SessionCore, Stored};
use crate::unpoisoned::lock;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::{REMOTE_DEPTH_MAX, REMOTE_LINES_KEPT_MAX};
use commonhold_ipc::line::Side;
use commonhold_ipc::points;
use commonhold_ipc::value::{AsShared, Ser, Shared, access, fingerprint, to_owned, with_scratch};
use commonhold_ipc::wire::remote::{Answer, Ask, Asked, REACH_MEMORY, parse_result, range_word};
use commonhold_ipc::wire::reply::parse_error;
use commonhold_ipc::wire::{Call, HEAD_BYTES, Reader, Words, buffers, malformed};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// How often a caller that waits looks whether the manager lives, should a stopped host keep its answer from it.
const LOOK: Duration = Duration::from_millis(1_000);

/// Where an object's methods run.
pub struct Home {
    host: u64,
    lines: Arc<Lines>,
    /// For calls ahead, once there was one.
    stream: Mutex<Option<Arc<Stream>>>,
}

impl Home {
    fn new(session: &SessionCore, host: u64) -> Self {
        Home { host, lines: session.remotes.lines(host, Use::Methods), stream: Mutex::default() }
    }
}

/// What a line is used for. Those for functions are kept apart: these take longer, and who waits at a line learns by that how long to look
/// before it sleeps. Quick methods would be waited for asleep. And lines for logic are read by one thread of the host.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Use {
    Methods,
    Functions,
    Logic,
}

/// Lines to a host without a call.
#[derive(Default)]
pub(super) struct Lines(Mutex<Vec<Line>>);

impl Lines {
    /// One that this process does not use.
    #[inline]
    fn take(&self) -> Option<Line> {
        lock(&self.0).pop()
    }

    /// One whose call is over.
    #[inline]
    pub(super) fn give(&self, line: Line) {
        let mut lines = lock(&self.0);
        if lines.len() < REMOTE_LINES_KEPT_MAX {
            lines.push(line);
        }
    }
}

/// What a session has with hosts.
#[derive(Default)]
pub struct Remotes {
    /// Lines without a call, by host and use.
    idle: Mutex<HashMap<(u64, Use), Arc<Lines>>>,
    /// Lines for calls ahead, by host, as long as an object or a result has them.
    streams: Mutex<HashMap<u64, Weak<Stream>>>,
    /// The host of this program, if it is known.
    pub(super) own_host: Mutex<Option<u64>>,
    /// Whether this program wants a host here though somebody else has started the manager.
    pub(super) invited: std::sync::atomic::AtomicBool,
}

impl Remotes {
    /// Lines to a host that this process has and does not use.
    pub(super) fn lines(&self, host: u64, used: Use) -> Arc<Lines> {
        lock(&self.idle).entry((host, used)).or_default().clone()
    }

    /// The line for calls ahead to a host, if there is one.
    fn stream(&self, host: u64) -> Option<Arc<Stream>> {
        lock(&self.streams).get(&host).and_then(Weak::upgrade).filter(|stream| !stream.has_ended())
    }

    /// The same, over this line if there is none yet; else the line is closed: another thread was quicker.
    fn stream_of(&self, session: &Arc<SessionCore>, host: u64, line: Line) -> Result<Arc<Stream>> {
        let mut streams = lock(&self.streams);
        if let Some(stream) = streams.get(&host).and_then(Weak::upgrade).filter(|stream| !stream.has_ended()) {
            return Ok(stream);
        }
        let stream = Arc::new(Stream::new(session.clone(), line)?);
        streams.insert(host, Arc::downgrade(&stream));
        Ok(stream)
    }

    /// A host is gone, and so are its lines.
    pub(super) fn forget(&self, host: u64) {
        lock(&self.streams).remove(&host);
        let lines = [Use::Methods, Use::Functions, Use::Logic].map(|used| lock(&self.idle).remove(&(host, used)));
        // Objects whose home it was keep what they have of it.
        lines.into_iter().flatten().for_each(|lines| lock(&lines.0).clear());
    }
}

/// A line to a host: one of these, or a new one.
pub(super) fn reach(session: &Arc<SessionCore>, host: u64, lines: &Lines) -> Result<Line> {
    match lines.take() {
        Some(line) => Ok(line),
        None => reach_anew(session, host, session.lane_road().is_some()),
    }
}

/// The same by a line that nobody has used yet, with memory or without.
fn reach_anew(session: &Arc<SessionCore>, host: u64, with_memory: bool) -> Result<Line> {
    let mut request = Request::new(Call::Reach);
    request.payload().push(if with_memory { REACH_MEMORY } else { 0 });
    request.payload().extend_from_slice(&host.to_le_bytes());
    let reached = session.call_for_descriptor(&mut request);
    match reached.and_then(|(_, end)| Line::new(end, with_memory.then_some(Side::Client))) {
        // What cannot be had or mapped is not needed.
        Err(error) if with_memory && error.kind() == ErrorKind::System => reach_anew(session, host, false),
        line => line,
    }
}

// ------------------------------------------------------------------------------------------------------------------- chains

/// What the calling thread is part of.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    pub(super) number: u64,
    /// Objects that it is in, 8 bytes each.
    pub(super) within: Vec<u8>,
}

thread_local! {
    static CHAIN: RefCell<Chain> = const { RefCell::new(Chain { number: 0, within: Vec::new() }) };
}

/// Runs `body` as part of a chain.
pub(super) fn in_chain<R>(chain: Chain, body: impl FnOnce() -> R) -> R {
    struct Back(Chain);
    impl Drop for Back {
        fn drop(&mut self) {
            if let Ok(ours) = CHAIN.try_with(|own| own.replace(std::mem::take(&mut self.0))) {
                buffers::give(ours.within);
            }
        }
    }
    let _back = Back(CHAIN.with(|own| own.replace(chain)));
    body()
}

/// Calls of this process that are no part of another one.
static CHAINS: AtomicU64 = AtomicU64::new(0);

/// The chain that a call of this thread is part of: that of the method that it runs, or a new one.
fn with_chain<R>(session: &SessionCore, body: impl FnOnce(u64, Words<'_>) -> Result<R>) -> Result<R> {
    CHAIN.with(|chain| {
        let chain = chain.borrow();
        let number = match chain.number {
            0 => session.number() << 32 | (CHAINS.fetch_add(1, Ordering::Relaxed) + 1) & 0xffff_ffff,
            number => number,
        };
        if chain.within.len() / 8 >= REMOTE_DEPTH_MAX {
            let text = format!("a call within {REMOTE_DEPTH_MAX} calls of methods, the most there may be");
            return Err(Error::new(ErrorKind::Deadlock, text));
        }
        body(number, Words::new(&chain.within).ok_or_else(|| malformed("chain"))?)
    })
}

// ---------------------------------------------------------------------------------------------------------------- arguments

/// The arguments of a call, on their way.
pub struct Arguments<'a> {
    ser: &'a mut Ser,
    ranges: Vec<u8>,
}

impl Arguments<'_> {
    /// The next one.
    pub fn push<T: Shared>(&mut self, value: impl AsShared<T>) -> Result<()> {
        let range = self.ser.put::<T>(&value)?;
        self.ranges.extend_from_slice(&range_word(&range).to_le_bytes());
        Ok(())
    }
}

/// What is asked, before its arguments.
pub(super) struct Question<'a> {
    pub(super) ask: Ask,
    pub(super) object: u64,
    pub(super) interface: u64,
    pub(super) method: u32,
    pub(super) name: &'a str,
}

/// A frame that asks, and what must be held until it is answered.
pub(super) struct Prepared {
    pub(super) bytes: Vec<u8>,
    pub(super) held: Vec<Stored>,
    ask: Ask,
}

impl Prepared {
    /// Puts a frame together.
    pub(super) fn new(
        session: &Arc<SessionCore>,
        question: &Question<'_>,
        write: impl FnOnce(&mut Arguments<'_>) -> Result<()>,
    ) -> Result<Self> {
        with_scratch(|ser| {
            let mut arguments = Arguments { ser, ranges: buffers::take() };
            write(&mut arguments)?;
            let Arguments { ser, ranges: range_words } = arguments;
            let handles = ids(session, ser.handles())?;
            let (Some(ranges), Some(handles)) = (Words::new(&range_words), Words::new(&handles)) else { return Err(malformed("call")) };
            let held = handles.iter().map(|id| Stored::new(session, id)).collect::<Result<_>>()?;
            let mut bytes = buffers::take();
            bytes.resize(HEAD_BYTES, 0);
            with_chain(session, |chain, within| {
                let Question { object, interface, method, name, .. } = *question;
                Asked { object, interface, method, chain, within, name, handles, ranges, archives: ser.bytes() }.write(&mut bytes);
                Ok(())
            })?;
            buffers::give(range_words);
            Ok(Prepared { bytes, held, ask: question.ask })
        })
    }

    /// Gives it its number.
    pub(super) fn number(&mut self, number: u64) -> Result<&[u8]> {
        seal(&mut self.bytes, self.ask as u8, false, number)?;
        Ok(&self.bytes)
    }

    /// The same for a call ahead. `quiet`: it is not to be answered.
    pub(super) fn number_ahead(&mut self, number: u64, quiet: bool) -> Result<&[u8]> {
        seal_on(&mut self.bytes, self.ask as u8, quiet, AHEAD, number)?;
        Ok(&self.bytes)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        buffers::give(std::mem::take(&mut self.bytes));
    }
}

// -------------------------------------------------------------------------------------------------------------------- answers

/// The frame by which a client says that it holds what an answer had handles on.
pub(super) fn taken(number: u64) -> Result<[u8; HEAD_BYTES]> {
    let mut frame = [0; HEAD_BYTES];
    seal(&mut frame, Ask::Taken as u8, true, number)?;
    Ok(frame)
}

/// The result of a call. `say` sends the host what the answer asks for; one that is gone does not need it.
pub(super) fn result<R: Shared>(session: &Arc<SessionCore>, (head, payload): &Frame, say: impl FnOnce(&[u8])) -> Result<R> {
    let mut read = Reader::new(payload);
    match Answer::from_code(head.code) {
        Some(Answer::Done) => {
            let (handles, archive) = parse_result(payload).ok_or_else(|| malformed("result"))?;
            let held = handles.iter().map(|id| Stored::new(session, id)).collect::<Result<Vec<_>>>();
            // Its host holds them until it is told: they are gone if it is.
            let held = held.map_err(|error| if error.kind() == ErrorKind::NotFound { host_gone(session) } else { error })?;
            let value = to_owned::<R>(access::<R>(archive)?, Some(session.clone()));
            points::client("remote: answered, not yet taken");
            if !held.is_empty() {
                say(&taken(head.number)?);
                points::client("remote: taken");
            }
            Ok(value)
        }
        Some(Answer::Failed) => Err(parse_error(&mut read).unwrap_or_else(|| malformed("result"))),
        Some(Answer::Panicked) => {
            let mut text = || Some(String::from_utf8_lossy(read.bytes()?).into_owned());
            let (message, backtrace) = text().zip(text()).ok_or_else(|| malformed("result"))?;
            Err(Error::caused(ErrorKind::Panicked, message, Error::other(format!("its backtrace:\n{backtrace}"))))
        }
        Some(Answer::Begun) | None => Err(malformed("result")),
    }
}

/// The error of a call whose host is gone.
pub(super) fn host_gone(session: &SessionCore) -> Error {
    if !session.is_alive() {
        return disconnected();
    }
    let text = "the host process, where the object's methods run, has ended, and its objects with it: whether a call that was under \
                way took effect is lost with them. Make a new object; the manager's own are not touched";
    Error::new(ErrorKind::Died, text)
}

/// Waits for a frame, and looks whether the manager lives now and then.
pub(super) fn wait(session: &SessionCore, line: &mut Line, deadline: Option<Instant>) -> Result<Option<Frame>> {
    let until = || {
        let look = Instant::now() + LOOK;
        Some(deadline.map_or(look, |deadline| deadline.min(look)))
    };
    loop {
        match line.wait(until)? {
            Got::Frame(frame) => return Ok(Some(frame)),
            Got::Ended => return Err(host_gone(session)),
            Got::Nothing if !session.is_alive() => return Err(disconnected()),
            Got::Nothing if deadline.is_some_and(|deadline| deadline <= Instant::now()) => return Ok(None),
            Got::Nothing => {}
        }
    }
}

/// The deadline that a time-out of now means; none if it is later than any clock shows.
pub(super) fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    let timeout = timeout?;
    Instant::now().checked_add(timeout)
}

/// The error of a call that took too long.
pub(super) fn timed_out(timeout: Option<Duration>) -> Error {
    let text = format!(
        "the call was not answered within {:?}: if its method had begun, it is run to its end; else it is not run",
        timeout.unwrap_or_default()
    );
    Error::new(ErrorKind::TimedOut, text)
}

// --------------------------------------------------------------------------------------------------------------------- caller

/// What a proxy calls methods with: an object, and how long a call may take.
#[derive(Clone)]
pub struct Caller {
    object: Arc<Object>,
    timeout: Option<Duration>,
}

impl Caller {
    /// A caller of an object, which waits as long as it takes.
    pub fn new(object: Arc<Object>) -> Self {
        Caller { object, timeout: None }
    }

    /// The object.
    pub fn object(&self) -> &Arc<Object> {
        &self.object
    }

    /// The same with a time-out.
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Caller { object: self.object.clone(), timeout: Some(timeout) }
    }

    /// Where the object's methods run. No call is made for that: its record says so.
    fn home(&self, session: &SessionCore) -> Result<&Home> {
        match self.object.remote().get() {
            Some(home) => Ok(home),
            None => {
                let host = self.object.look()?.2.root;
                Ok(self.object.remote().get_or_init(|| Home::new(session, host)))
            }
        }
    }

    fn explain(&self, session: &SessionCore, host: u64, error: Error) -> Error {
        if error.kind() == ErrorKind::Died {
            session.remotes.forget(host);
        }
        error
    }

    fn question<'a, P: Handle>(&self, method: u32) -> Question<'a> {
        Question { ask: Ask::Call, object: self.object.id(), interface: fingerprint::<P>(), method, name: "" }
    }

    /// Calls a method of the proxy type `P`, and waits for its result.
    ///
    /// # Errors
    /// `Panicked` if the method panicked, now or in an earlier call; `Died` if its host has ended; `Deadlock` if the call would wait for
    /// itself; `TimedOut`; `Disconnected` if the manager has ended.
    pub fn call<P: Handle, R: Shared>(&self, method: u32, write: impl FnOnce(&mut Arguments<'_>) -> Result<()>) -> Result<R> {
        let session = self.object.ready()?;
        let mut prepared = Prepared::new(session, &self.question::<P>(method), write)?;
        let deadline = deadline(self.timeout);
        let home = self.home(session)?;
        let mut line = reach(session, home.host, &home.lines).map_err(|error| self.explain(session, home.host, error))?;
        let number = line.next_number();
        let frame = prepared.number(number)?;
        points::client("remote: before it asks");
        let sent = line.send(frame, deadline).map_err(|_| self.explain(session, home.host, host_gone(session)))?;
        points::client("remote: asked");
        // A line that is dropped here is closed: its answer has nobody to go to.
        let frame = if sent { wait(session, &mut line, deadline) } else { Ok(None) };
        let frame = frame.map_err(|error| self.explain(session, home.host, error))?.ok_or_else(|| timed_out(self.timeout))?;
        let is_ours = frame.0.number == number;
        let value = result(session, &frame, |bytes| drop(line.send(bytes, None)));
        if is_ours {
            line.reuse(frame.1);
            home.lines.give(line);
        }
        value
    }

    /// The stream to the object's host, for calls ahead.
    fn stream(&self) -> Result<(&Arc<SessionCore>, Arc<Stream>)> {
        let session = self.object.ready()?;
        let home = self.home(session)?;
        let mut known = lock(&home.stream);
        if let Some(stream) = known.as_ref().filter(|stream| !stream.has_ended()) {
            return Ok((session, stream.clone()));
        }
        // Its host may live though the line has ended: it had no thread for it, or one of the two has understood nothing.
        let stream = match session.remotes.stream(home.host) {
            Some(stream) => stream,
            None => {
                let line = reach(session, home.host, &home.lines).map_err(|error| self.explain(session, home.host, error))?;
                session.remotes.stream_of(session, home.host, line)?
            }
        };
        *known = Some(stream.clone());
        Ok((session, stream))
    }

    /// Calls a method and returns at once: the result is fetched later. Calls ahead of clones of one handle are done in order.
    ///
    /// # Errors
    /// As [`call`](Self::call), as far as they show at once.
    pub fn call_async<P: Handle, R: Shared>(
        &self,
        method: u32,
        write: impl FnOnce(&mut Arguments<'_>) -> Result<()>,
    ) -> Result<Pending<R>> {
        let (session, stream) = self.stream()?;
        let prepared = Prepared::new(session, &self.question::<P>(method), write)?;
        let number = stream.ask(prepared, false)?;
        Ok(Pending::new(stream, number))
    }

    /// Calls a method and does not want to know what comes of it.
    ///
    /// # Errors
    /// As [`call`](Self::call), as far as they show at once.
    pub fn call_one_way<P: Handle>(&self, method: u32, write: impl FnOnce(&mut Arguments<'_>) -> Result<()>) -> Result<()> {
        let (session, stream) = self.stream()?;
        // No part of the chain that it is made in, which does not wait for it.
        let prepared = in_chain(Chain::default(), || Prepared::new(session, &self.question::<P>(method), write))?;
        let quiet = prepared.held.is_empty();
        let number = stream.ask(prepared, quiet)?;
        if !quiet {
            // What the arguments refer to is held until the host has answered that it does.
            stream.forget(number);
        }
        Ok(())
    }
}
