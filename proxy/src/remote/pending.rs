//! Calls ahead: many on one line, whose results are fetched later, by any thread.
//!
//! Of the threads that wait for results one reads the line and hands out what comes; the others sleep. Who finds no room to send
//! reads, too: so neither side can wait for the other for ever.

use super::call::{Prepared, host_gone, lock, result};
use super::line::{Frame, Got, Incoming, Line, Road};
use crate::connection::disconnected;
use crate::session::{SessionCore, Stored};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::socket::Spin;
use commonhold_ipc::value::Shared;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a reader looks whether the manager lives, and a sleeper whether there is a reader.
const LOOK: Duration = Duration::from_millis(1_000);

/// A call that is not answered yet, or not fetched.
enum Waiting {
    /// With what its arguments refer to.
    Asked(Vec<Stored>),
    /// The same, and nobody wants the answer.
    Forgotten(#[allow(dead_code)] Vec<Stored>),
    /// Here.
    Answered(Frame),
}

#[derive(Default)]
struct Inbox {
    waiting: HashMap<u64, Waiting>,
    reading: bool,
    sleeping: usize,
    ended: bool,
    number: u64,
}

/// A line for calls ahead to one object.
pub struct Stream {
    session: Arc<SessionCore>,
    road: Arc<Road>,
    writing: Mutex<()>,
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    incoming: Mutex<Incoming>,
}

impl Stream {
    /// On this line.
    pub(super) fn new(session: Arc<SessionCore>, line: Line) -> Self {
        let (road, incoming) = line.split();
        let (writing, inbox, arrived) = (Mutex::new(()), Mutex::default(), Condvar::new());
        Stream { session, road, writing, inbox, arrived, incoming: Mutex::new(incoming) }
    }

    /// Sends a call; its number.
    pub(super) fn ask(&self, mut prepared: Prepared, quiet: bool) -> Result<u64> {
        let _right = lock(&self.writing);
        let number = {
            let mut inbox = lock(&self.inbox);
            if inbox.ended {
                return Err(host_gone(&self.session));
            }
            inbox.number += 1;
            let number = inbox.number;
            if !quiet {
                inbox.waiting.insert(number, Waiting::Asked(std::mem::take(&mut prepared.held)));
            }
            number
        };
        let mut bytes = prepared.number_ahead(number, quiet)?;
        while !bytes.is_empty() {
            match self.road.send(bytes) {
                Ok(0) => self.make_room()?,
                Ok(count) => bytes = &bytes[count..],
                Err(_) => {
                    self.end();
                    return Err(host_gone(&self.session));
                }
            }
        }
        Ok(number)
    }

    /// Waits for room to send, and reads meanwhile.
    fn make_room(&self) -> Result<()> {
        loop {
            let (readable, writable) = self.road.wait_either(&mut Spin::new(), Some(Instant::now() + LOOK))?;
            if writable {
                return Ok(());
            }
            if !self.session.is_alive() {
                self.end();
                return Err(disconnected());
            }
            if readable {
                self.read(Some(Instant::now()))?;
            }
        }
    }

    fn end(&self) {
        lock(&self.inbox).ended = true;
        self.arrived.notify_all();
    }

    /// Reads what comes, unless another thread does: then it sleeps until that one has something.
    fn read(&self, deadline: Option<Instant>) -> Result<()> {
        let look = Instant::now() + LOOK;
        let until = deadline.map_or(look, |deadline| deadline.min(look));
        let mut inbox = lock(&self.inbox);
        if inbox.ended {
            return Ok(());
        }
        if inbox.reading {
            inbox.sleeping += 1;
            let left = until.saturating_duration_since(Instant::now());
            inbox = self.arrived.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0;
            inbox.sleeping -= 1;
            return Ok(());
        }
        inbox.reading = true;
        drop(inbox);
        let got = lock(&self.incoming).wait(&self.road, || Some(until));
        let mut inbox = lock(&self.inbox);
        inbox.reading = false;
        let mut over = None;
        match got {
            Ok(Got::Frame(frame)) => match inbox.waiting.get_mut(&frame.0.number) {
                Some(waiting @ Waiting::Asked(_)) => over = Some(std::mem::replace(waiting, Waiting::Answered(frame))),
                _ => over = inbox.waiting.remove(&frame.0.number),
            },
            Ok(Got::Nothing) => inbox.ended |= !self.session.is_alive(),
            Ok(Got::Ended) | Err(_) => inbox.ended = true,
        }
        let wake = inbox.sleeping > 0;
        drop(inbox);
        // Lets go of objects, which is said on the manager's connection: not under our lock.
        drop(over);
        if wake {
            self.arrived.notify_all();
        }
        Ok(())
    }

    /// Waits for an answer, which stays. `false`: it is not here at the deadline.
    fn wait(&self, number: u64, deadline: Option<Instant>) -> Result<bool> {
        loop {
            {
                let inbox = lock(&self.inbox);
                match inbox.waiting.get(&number) {
                    Some(Waiting::Answered(_)) => return Ok(true),
                    _ if inbox.ended => return Err(host_gone(&self.session)),
                    _ => {}
                }
            }
            self.session.check()?;
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                // One look at least.
                self.read(deadline)?;
                return Ok(matches!(lock(&self.inbox).waiting.get(&number), Some(Waiting::Answered(_))));
            }
            self.read(deadline)?;
        }
    }

    fn fetch(&self, number: u64) -> Option<Frame> {
        match lock(&self.inbox).waiting.remove(&number) {
            Some(Waiting::Answered(frame)) => Some(frame),
            _ => None,
        }
    }

    /// Nobody wants the answer to a call any more.
    pub(super) fn forget(&self, number: u64) {
        let mut inbox = lock(&self.inbox);
        let over = match inbox.waiting.get_mut(&number) {
            Some(Waiting::Asked(held)) => {
                let held = std::mem::take(held);
                inbox.waiting.insert(number, Waiting::Forgotten(held));
                None
            }
            _ => inbox.waiting.remove(&number),
        };
        drop(inbox);
        drop(over);
    }

    /// Tells the host something short.
    fn say(&self, bytes: &[u8]) -> Result<()> {
        let _right = lock(&self.writing);
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.road.send(rest)? {
                0 => self.make_room()?,
                count => rest = &rest[count..],
            }
        }
        Ok(())
    }
}

/// The result of a call that was made ahead. Dropped, the result is not wanted; the call is done all the same.
///
/// ```
/// # commonhold::init_in_tests!();
/// # use commonhold::Manager;
/// struct Tally { hits: u64 }
/// #[commonhold::remote]
/// impl Tally {
///     pub fn new() -> Self { Tally { hits: 0 } }
///     pub fn hit(&mut self, n: u64) -> u64 { self.hits += n; self.hits }
/// }
/// # fn main() -> commonhold::Result<()> {
/// let manager = Manager::start()?;
/// let tally = manager.create(Tally::new, ())?;
/// let first = tally.call_async().hit(1)?;
/// let second = tally.call_async().hit(2)?;      // in order, without waiting for the first
/// assert_eq!((first.get()?, second.get()?), (1, 3));
/// # Ok(())
/// # }
/// ```
pub struct Pending<R> {
    stream: Arc<Stream>,
    number: u64,
    _of: PhantomData<fn() -> R>,
}

impl<R: Shared> Pending<R> {
    pub(super) fn new(stream: Arc<Stream>, number: u64) -> Self {
        Pending { stream, number, _of: PhantomData }
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// As the call itself.
    pub fn get(self) -> Result<R> {
        self.stream.wait(self.number, None)?;
        let frame = self.stream.fetch(self.number).ok_or_else(|| host_gone(&self.stream.session))?;
        result(&self.stream.session, &frame, |bytes| drop(self.stream.say(bytes)))
    }

    /// Waits for the result, so long at the most.
    ///
    /// # Errors
    /// `TimedOut`, and the pending result is lost: use [`wait`](Self::wait) to wait again. Else as the call itself.
    pub fn get_timeout(self, timeout: Duration) -> Result<R> {
        if self.wait(timeout)? {
            return self.get();
        }
        Err(Error::new(ErrorKind::TimedOut, format!("the call was not answered within {timeout:?}: it is run all the same")))
    }

    /// Waits until the result is here, so long at the most. Whether it is.
    ///
    /// # Errors
    /// As the call itself, if there is no result to come.
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        self.stream.wait(self.number, Instant::now().checked_add(timeout))
    }

    /// Whether the result is here.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn is_ready(&self) -> Result<bool> {
        self.wait(Duration::ZERO)
    }
}

impl<R> Drop for Pending<R> {
    fn drop(&mut self) {
        if self.stream.session.is_ours() {
            self.stream.forget(self.number);
        }
    }
}

impl<R> fmt::Debug for Pending<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Pending call {}>", self.number)
    }
}
