//! Calls ahead: many at once on one line to a host, to any of its objects, whose results are fetched later, by any thread.
//!
//! Of the threads that wait, for results or for room, one reads the line and hands out what comes; the others sleep. Who reads also sends
//! what there was no room for (`SharedLine`): so neither side can wait for the other for ever.

use super::answer::{LOOK, call_off, host_gone, result, taken};
use super::line::{Frame, Got, Line, SharedLine};
use super::question::Prepared;
#[cfg(feature = "async")]
use crate::panics::shielded;
use crate::patience::deadline_after;
use crate::session::{SessionCore, Stored};
use crate::unpoisoned::lock;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::points;
use commonhold_ipc::value::Shared;
use commonhold_ipc::wire::remote::{Answer, parse_result};
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
#[cfg(feature = "async")]
use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

/// A call that is not answered yet, or not fetched.
enum Waiting {
    /// With what its arguments refer to.
    Asked(Vec<Stored>),
    /// The same, and nobody wants the answer.
    Forgotten(Vec<Stored>),
    /// Here.
    Answered(Frame),
}

#[derive(Default)]
struct Inbox {
    waiting: HashMap<u64, Waiting>,
    reading: bool,
    sleeping: usize,
    /// All that has come was read, and nothing more comes.
    ended: bool,
    /// Nothing more can be sent. What has come may still be here to be read.
    closed: bool,
    number: u64,
    /// Calls under way whose answers nobody wants.
    forgotten: usize,
    /// Since when it has not been looked whether the host lives.
    looked: Option<Instant>,
    /// What the host said before it ended the line, if it did.
    refusal: Option<Frame>,
    #[cfg(feature = "async")]
    awaited: Awaited,
}

/// Answers that futures await, by number; and whether a thread waits for them.
#[cfg(feature = "async")]
#[derive(Default)]
struct Awaited {
    wakers: HashMap<u64, Waker>,
    attended: bool,
}

impl Inbox {
    /// Takes an answer that is here.
    fn take(&mut self, number: u64) -> Option<Frame> {
        match self.waiting.remove(&number)? {
            Waiting::Answered(frame) => Some(frame),
            other => {
                self.waiting.insert(number, other);
                None
            }
        }
    }
}

/// A line for calls ahead to one host.
pub struct Stream {
    session: Arc<SessionCore>,
    line: SharedLine,
    inbox: Mutex<Inbox>,
    arrived: Condvar,
}

impl Stream {
    /// On this line.
    pub(super) fn new(session: Arc<SessionCore>, line: Line) -> Result<Self> {
        Ok(Stream { session, line: line.shared()?, inbox: Mutex::default(), arrived: Condvar::new() })
    }

    /// Whether it is of no use any more.
    pub(super) fn has_ended(&self) -> bool {
        let inbox = lock(&self.inbox);
        inbox.ended || inbox.closed
    }

    /// Sends a call; its number.
    pub(super) fn ask(&self, mut prepared: Prepared, quiet: bool) -> Result<u64> {
        self.catch_up();
        let number = {
            let mut inbox = lock(&self.inbox);
            if inbox.ended || inbox.closed {
                return Err(self.gone(&inbox));
            }
            inbox.number += 1;
            let number = inbox.number;
            if !quiet {
                inbox.waiting.insert(number, Waiting::Asked(std::mem::take(&mut prepared.held)));
            }
            number
        };
        let sent = prepared.number_ahead(number, quiet).and_then(|bytes| self.say(bytes));
        sent.inspect_err(|_| self.forget_unsent(number))?;
        Ok(number)
    }

    /// Sends a frame, and waits until there was room for it.
    fn say(&self, bytes: &[u8]) -> Result<()> {
        if self.line.post(bytes).is_err() {
            let mut inbox = lock(&self.inbox);
            inbox.closed = true;
            return Err(self.gone(&inbox));
        }
        self.until(None, |_| (self.line.kept() == 0).then_some(())).map(drop)
    }

    /// Reads answers that have come and nobody wants, without waiting, so that they do not pile up where nobody waits for others.
    fn catch_up(&self) {
        let mut forgotten = lock(&self.inbox).forgotten;
        while forgotten > 0 {
            // A line that has ended is told to whoever uses it.
            let _ = self.until(Some(Instant::now()), |inbox| (inbox.forgotten == 0).then_some(()));
            let left = lock(&self.inbox).forgotten;
            if left >= forgotten {
                return;
            }
            forgotten = left;
        }
    }

    /// Why there is no line any more.
    fn gone(&self, inbox: &Inbox) -> Error {
        let said = inbox.refusal.as_ref().and_then(|frame| result::<()>(&self.session, frame, |_| {}).err());
        said.unwrap_or_else(|| host_gone(&self.session))
    }

    /// Waits for what `look` finds, reading what comes unless another thread does: then it sleeps until that one has something. `None`:
    /// not until the deadline, but it has looked once at least.
    fn until<T>(&self, deadline: Option<Instant>, mut look: impl FnMut(&mut Inbox) -> Option<T>) -> Result<Option<T>> {
        if !self.session.is_ours() {
            // A forked child has neither the line's memory nor the threads that may hold our lock.
            self.session.check()?;
        }
        let mut inbox = lock(&self.inbox);
        let mut is_over = false;
        loop {
            if let Some(found) = look(&mut inbox) {
                return Ok(Some(found));
            }
            if inbox.ended {
                return Err(self.gone(&inbox));
            }
            if is_over {
                return Ok(None);
            }
            let now = Instant::now();
            is_over = deadline.is_some_and(|deadline| deadline <= now);
            let until = deadline.map_or(now + LOOK, |deadline| deadline.min(now + LOOK));
            if !inbox.reading {
                inbox = self.read(inbox, now, until);
            } else if !is_over {
                inbox.sleeping += 1;
                inbox = self.arrived.wait_timeout(inbox, until.saturating_duration_since(now)).unwrap_or_else(PoisonError::into_inner).0;
                inbox.sleeping -= 1;
            }
        }
    }

    /// Reads what comes until then, a frame at the most.
    fn read<'a>(&'a self, mut inbox: MutexGuard<'a, Inbox>, now: Instant, until: Instant) -> MutexGuard<'a, Inbox> {
        inbox.reading = true;
        let is_due = now.saturating_duration_since(*inbox.looked.get_or_insert(now)) >= LOOK;
        drop(inbox);
        let mut got = self.line.next(usize::MAX, || Some(until));
        let is_nothing = matches!(got, Ok(Got::Nothing));
        let is_alive = !is_nothing || self.session.is_alive();
        let is_over = is_nothing && is_due && self.line.host().is_some_and(|host| host.has_ended(&self.session));
        if is_over {
            // What it has said before is read, one after the other.
            got = self.line.try_next().map(|frame| frame.map_or(Got::Ended, Got::Frame));
        }
        let mut inbox = lock(&self.inbox);
        if is_nothing && is_due && !is_over {
            inbox.looked = None;
        }
        inbox.reading = false;
        let (mut over, mut unwanted) = (Vec::new(), None);
        match got {
            Ok(Got::Frame(frame)) => match inbox.waiting.remove(&frame.0.number) {
                Some(Waiting::Asked(held)) => {
                    over = held;
                    inbox.waiting.insert(frame.0.number, Waiting::Answered(frame));
                }
                Some(Waiting::Forgotten(held)) => {
                    inbox.forgotten -= 1;
                    (over, unwanted) = (held, Some(frame));
                }
                // Nothing was asked, or it was answered before: a host without a thread for us says so, else it is nonsense.
                Some(Waiting::Answered(_)) | None => (inbox.ended, inbox.refusal) = (true, Some(frame)),
            },
            Ok(Got::Nothing) => inbox.ended |= !is_alive,
            Ok(Got::Ended) | Err(_) => inbox.ended = true,
        }
        if inbox.sleeping > 0 {
            self.arrived.notify_all();
        }
        if !over.is_empty() || unwanted.is_some() {
            // Lets go of objects, which is said on the manager's connection: not under our lock.
            drop(inbox);
            drop(over);
            unwanted.iter().for_each(|frame| self.let_go(frame));
            inbox = lock(&self.inbox);
        }
        inbox
    }

    /// Waits for an answer, which stays. `false`: it is not here at the deadline.
    fn wait(&self, number: u64, deadline: Option<Instant>) -> Result<bool> {
        let here = self.until(deadline, |inbox| match inbox.waiting.get(&number) {
            Some(Waiting::Answered(_)) => Some(Ok(true)),
            Some(_) => None,
            None => Some(Err(given())),
        });
        here?.unwrap_or(Ok(false))
    }

    /// Waits for an answer, and takes it. `None`: it is not here at the deadline.
    fn fetch(&self, number: u64, deadline: Option<Instant>) -> Result<Option<Frame>> {
        let frame = self.until(deadline, |inbox| match inbox.waiting.contains_key(&number) {
            true => inbox.take(number).map(Ok),
            false => Some(Err(given())),
        });
        frame?.transpose()
    }

    /// Takes an answer if it is here; has `waker` called when it is.
    #[cfg(feature = "async")]
    fn poll(self: &Arc<Self>, number: u64, waker: &Waker) -> Poll<Result<Frame>> {
        // As whoever waits, for no time: what has come is read, and a forked child gets no further.
        match self.until(Some(Instant::now()), |inbox| inbox.take(number)) {
            Ok(None) => {}
            Ok(Some(frame)) => return Poll::Ready(Ok(frame)),
            Err(error) => return Poll::Ready(Err(error)),
        }
        let waker = waker.clone();
        let mut inbox = lock(&self.inbox);
        // Another thread may have read it between.
        if let Some(frame) = inbox.take(number) {
            return Poll::Ready(Ok(frame));
        }
        if inbox.ended {
            return Poll::Ready(Err(self.gone(&inbox)));
        }
        if !inbox.waiting.contains_key(&number) {
            return Poll::Ready(Err(given()));
        }
        if !inbox.awaited.attended {
            let stream = self.clone();
            let attends = std::thread::Builder::new().name("commonhold-calls".into()).spawn(move || stream.attend());
            if let Err(error) = attends {
                return Poll::Ready(Err(Error::system("could not start the thread that awaits answers of objects", error)));
            }
            inbox.awaited.attended = true;
        }
        let before = inbox.awaited.wakers.insert(number, waker);
        drop(inbox);
        drop(before);
        Poll::Pending
    }

    /// What a thread does as long as futures await answers on this line: it waits as every thread does, and wakes them.
    #[cfg(feature = "async")]
    fn attend(&self) {
        loop {
            let ready = self.until(None, |inbox| {
                let Inbox { awaited, waiting, .. } = inbox;
                let is_here = |number: &u64, _: &mut Waker| matches!(waiting.get(number), Some(Waiting::Answered(_)));
                let ready: Vec<_> = awaited.wakers.extract_if(is_here).map(|(_, waker)| waker).collect();
                awaited.attended = !awaited.wakers.is_empty();
                (!ready.is_empty() || !awaited.attended).then_some((ready, awaited.attended))
            });
            let (ready, goes_on) = match ready {
                Ok(found) => found.unwrap_or_default(),
                Err(_) => {
                    // Each of them hears why.
                    let awaited = std::mem::take(&mut lock(&self.inbox).awaited);
                    (awaited.wakers.into_values().collect(), false)
                }
            };
            for waker in ready {
                // A panic of an executor's was reported by its hook; the others have their turn.
                shielded(|| waker.wake());
            }
            if !goes_on {
                return;
            }
        }
    }

    /// A call was not sent.
    fn forget_unsent(&self, number: u64) {
        let over = lock(&self.inbox).waiting.remove(&number);
        drop(over);
    }

    /// Nobody wants this answer: its host need not hold any longer what it has handles on.
    fn let_go(&self, (head, payload): &Frame) {
        let is_done = Answer::from_code(head.code) == Some(Answer::Done);
        if is_done
            && parse_result(payload).is_some_and(|(handles, _)| handles.iter().next().is_some())
            && let Ok(bytes) = taken(head.number)
        {
            // A host that is gone holds nothing.
            let _ = self.line.post(&bytes);
        }
    }

    /// Says that a call is not to be begun, if it has not.
    fn call_off(&self, number: u64) -> Result<()> {
        if !self.session.is_ours() {
            // A forked child has not the line's memory.
            self.session.check()?;
        }
        match lock(&self.inbox).waiting.get(&number) {
            Some(Waiting::Asked(_)) => {}
            Some(_) => return Ok(()),
            None => return Err(given()),
        }
        points::client("remote: before it calls off");
        self.say(&call_off(number)?)?;
        points::client("remote: called off");
        Ok(())
    }

    /// Nobody wants the answer to a call any more.
    pub(super) fn forget(&self, number: u64) {
        let mut inbox = lock(&self.inbox);
        let over = match inbox.waiting.get_mut(&number) {
            Some(Waiting::Asked(held)) => {
                let held = std::mem::take(held);
                inbox.waiting.insert(number, Waiting::Forgotten(held));
                inbox.forgotten += 1;
                None
            }
            _ => inbox.waiting.remove(&number),
        };
        #[cfg(feature = "async")]
        let waker = inbox.awaited.wakers.remove(&number);
        drop(inbox);
        #[cfg(feature = "async")]
        drop(waker);
        if let Some(Waiting::Answered(frame)) = &over {
            self.let_go(frame);
        }
        drop(over);
    }
}

#[cold]
fn given() -> Error {
    Error::new(ErrorKind::Closed, "the result of this call was given already: it can be had once")
}

/// The result of a call that was made ahead. Dropped, the result is not wanted; the call is done all the same (as what a pool was asked is), unless
/// it was called off before by [`cancel`](Self::cancel).
///
/// Objects that the arguments or the result of such a call refer to live until its answer has come and this process looks: when it next calls
/// ahead or waits for such a result in the same host, or has dropped its handles there. So no more is kept than is under way. Where results
/// are never wanted, `call_one_way` keeps nothing.
///
/// It is given once: what is asked of it behind that, by whatever method, is an error of kind `Closed`. (What a pool gives can be got again.)
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
        let frame = self.stream.fetch(self.number, None)?;
        self.result(&frame.ok_or_else(given)?)
    }

    fn result(&self, frame: &Frame) -> Result<R> {
        result(&self.stream.session, frame, |bytes| drop(self.stream.say(bytes)))
    }

    /// The same, but gives up after a while: `None`, and the result can be asked for again.
    ///
    /// # Errors
    /// As the call itself; `Closed` if it was given already.
    pub fn get_timeout(&self, timeout: Duration) -> Result<Option<R>> {
        let frame = self.stream.fetch(self.number, deadline_after(timeout))?;
        frame.map(|frame| self.result(&frame)).transpose()
    }

    /// Calls it off: if its method has not begun, it is not run, and the result is an error of kind `Cancelled`, at once. A method that has
    /// begun is run to its end, and the result is what it returns; drop this if nobody wants it. So the result says which of the two it was.
    ///
    /// When this returns the host has been told, also if it is stopped at the moment: it reads what it has been told before it begins what
    /// lies there. Only for what waits for its object, in which another method runs, this is not sure: if that method ends while the host reads this, the
    /// call may begin all the same. If so much lies in the host that it reads no more (16 MiB of calls, 1,024 methods that block, or 1 MiB of
    /// results that nobody fetches), this waits as a call does.
    ///
    /// # Errors
    /// As the call itself, if the host cannot be told; `Closed` if the result was given already.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # use commonhold::Manager;
    /// # struct Tally { hits: u64 }
    /// # #[commonhold::remote]
    /// # impl Tally {
    /// #     pub fn new() -> Self { Tally { hits: 0 } }
    /// #     pub fn hit(&mut self, n: u64) -> u64 { self.hits += n; self.hits }
    /// # }
    /// # fn main() -> commonhold::Result<()> {
    /// let manager = Manager::start()?;
    /// let tally = manager.create(Tally::new, ())?;
    /// let hits = tally.call_async().hit(3)?;
    /// hits.cancel()?;
    /// match hits.get() {
    ///     Ok(hits) => assert_eq!(hits, 3),                         // it had begun
    ///     Err(error) => assert!(error.is_cancelled(), "{error}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel(&self) -> Result<()> {
        self.stream.call_off(self.number)
    }

    /// Waits until the result is here. `false`: it is not after `timeout`; `None` waits for as long as it takes.
    ///
    /// # Errors
    /// As the call itself, if there is no result to come; `Closed` if it was given already.
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<bool> {
        self.stream.wait(self.number, deadline_after(timeout))
    }

    /// Whether the result is here.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn is_ready(&self) -> Result<bool> {
        self.wait(Duration::ZERO)
    }
}

/// The result, awaited in any executor, with the feature `async`. Errors as those of [`get`](Pending::get); `Closed` once it has been
/// given.
///
/// ```
/// # commonhold::init_in_tests!();
/// # use commonhold::Manager;
/// # struct Tally { hits: u64 }
/// # #[commonhold::remote]
/// # impl Tally {
/// #     pub fn new() -> Self { Tally { hits: 0 } }
/// #     pub fn hit(&mut self, n: u64) -> u64 { self.hits += n; self.hits }
/// # }
/// # fn main() -> commonhold::Result<()> {
/// let manager = Manager::start()?;
/// let tally = manager.create(Tally::new, ())?;
/// let hits = pollster::block_on(async { tally.call_async().hit(3)?.await })?;
/// assert_eq!(hits, 3);
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "async")]
impl<R: Shared> Future for Pending<R> {
    type Output = Result<R>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<R>> {
        self.stream.poll(self.number, context.waker()).map(|frame| self.result(&frame?))
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
