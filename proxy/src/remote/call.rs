//! The client's side of a call: which line it goes on, and the calls of an object's methods.

use super::answer::{host_gone, result, send, timed_out, wait};
use super::line::{HostProcess, Line};
use super::pending::{Pending, Stream};
use super::question::{Arguments, Chain, Prepared, Question, in_chain};
use crate::handle::{Handle, Object};
use crate::patience::deadline_after;
use crate::request::Request;
use crate::session::SessionCore;
use crate::unpoisoned::lock;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::REMOTE_LINES_KEPT_MAX;
use commonhold_ipc::line::Side;
use commonhold_ipc::points;
use commonhold_ipc::sys::pidfd_open;
use commonhold_ipc::value::{Shared, fingerprint};
use commonhold_ipc::wire::Call;
use commonhold_ipc::wire::remote::{Ask, REACH_MEMORY};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// Where an object's methods run.
pub struct Home {
    host: u64,
    lines: Arc<Lines>,
    /// For calls ahead, once there was one.
    stream: Mutex<Option<Arc<Stream>>>,
}

impl Home {
    fn new(session: &SessionCore, host: u64) -> Self {
        Home { host, lines: Remotes::of(session).lines(host, Use::Methods), stream: Mutex::default() }
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
    /// Hosts to which there are lines.
    processes: Mutex<HashMap<u64, Weak<HostProcess>>>,
    /// The host of this program, if it is known.
    pub(super) own_host: Mutex<Option<u64>>,
    /// The one before it, which this process has seen end. The manager may not have seen it yet.
    pub(super) ended_host: Mutex<Option<u64>>,
    /// Whether this program wants a host here though somebody else has started the manager.
    pub(super) invited: std::sync::atomic::AtomicBool,
}

impl Remotes {
    /// Those of a session.
    pub(super) fn of(session: &SessionCore) -> &Self {
        session.beside()
    }

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

    /// A host's process.
    ///
    /// # Errors
    /// `Died` if it has ended.
    fn process(&self, session: &SessionCore, host: u64) -> Result<Arc<HostProcess>> {
        if let Some(process) = lock(&self.processes).get(&host).and_then(Weak::upgrade) {
            return Ok(process);
        }
        let (pid, _) = session.who(host)?.ok_or_else(|| host_gone(session))?;
        // In another pid namespace than the manager's a process has another number.
        let own = session.who(session.number())?.map(|(pid, _)| pid);
        let process = if own == Some(std::process::id()) { pidfd_open(pid).ok() } else { None };
        let process = Arc::new(HostProcess { number: host, process });
        let mut processes = lock(&self.processes);
        processes.retain(|_, process| process.strong_count() > 0);
        processes.insert(host, Arc::downgrade(&process));
        Ok(process)
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
    let line = reached.and_then(|(id, end)| {
        let process = Remotes::of(session).process(session, host)?;
        Line::new(id, end, with_memory.then_some(Side::Client), Some(process))
    });
    match line {
        // What cannot be had or mapped is not needed.
        Err(error) if with_memory && error.kind() == ErrorKind::System => reach_anew(session, host, false),
        line => line,
    }
}

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
        self.object.found_out(|| Ok(Home::new(session, self.object.look()?.2.root)))
    }

    fn explain(&self, session: &SessionCore, host: u64, error: Error) -> Error {
        if error.kind() == ErrorKind::Died {
            Remotes::of(session).forget(host);
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
        let deadline = deadline_after(self.timeout);
        let home = self.home(session)?;
        let mut line = reach(session, home.host, &home.lines).map_err(|error| self.explain(session, home.host, error))?;
        let number = line.next_number();
        let frame = prepared.number(number)?;
        points::client("remote: before it asks");
        let sent = send(session, &mut line, frame, deadline).map_err(|error| self.explain(session, home.host, error))?;
        points::client("remote: asked");
        // A line that is dropped here is closed: its answer has nobody to go to.
        let frame = if sent { wait(session, &mut line, deadline) } else { Ok(None) };
        let Some(frame) = frame.map_err(|error| self.explain(session, home.host, error))? else {
            line.road().give_up();
            points::client("remote: given up");
            return Err(timed_out(self.timeout));
        };
        let is_ours = frame.0.number == number;
        let value = result(session, &frame, |bytes| drop(send(session, &mut line, bytes, None)));
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
        let known = lock(&home.stream).clone();
        if let Some(stream) = known.filter(|stream| !stream.has_ended()) {
            return Ok((session, stream));
        }
        // Nothing is locked here: to reach a host may take waiting for a value whose own code calls this object. Two who come
        // here at once get the same stream.
        // Its host may live though the line has ended: it had no thread for it, or one of the two has understood nothing.
        let stream = match Remotes::of(session).stream(home.host) {
            Some(stream) => stream,
            None => {
                let line = reach(session, home.host, &home.lines).map_err(|error| self.explain(session, home.host, error))?;
                Remotes::of(session).stream_of(session, home.host, line)?
            }
        };
        *lock(&home.stream) = Some(stream.clone());
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
