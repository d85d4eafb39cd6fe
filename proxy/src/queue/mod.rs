//! [`Queue`], as its users see it. The protocol is in `ipc::queue`; here is how values get into items and out of them, and how one
//! waits.

#[cfg(feature = "async")]
mod awaited;
mod lease;
mod options;
mod parcel;
mod receive;
mod send;
mod unsent;

pub use lease::{DeadLetters, Lease};
pub use options::QueueOptions;
pub use receive::QueueIter;
pub use unsent::SendError;

use crate::handle::{Object, debug, handle};
use crate::patience::{Patience, deadline_after};
use crate::session::SessionCore;
use crate::wait::{Places, Source};
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::map::Segment;
use commonhold_ipc::queue::{self, Plan};
use commonhold_ipc::sync::Claim;
use commonhold_ipc::value::{Shared, text};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A queue: many senders, many receivers, in any processes that have the handle; first in, first out. Made by
/// [`Session::queue`](crate::Session::queue).
///
/// Sending and receiving touch shared memory alone: no call, no thread of ours, no system call unless somebody sleeps. What was
/// sent is there, whatever becomes of the sender; nothing is lost at its exit.
///
/// - **Full**: by the number of items, or by their bytes. [`send`](Self::send) waits, [`try_send`](Self::try_send) says no. Who sleeps in
///   `send` is woken when half of the queue is empty; until then it looks by itself, after 1 ms, 2 ms and so on up to 200 ms.
/// - **Errors keep the item**: `send` takes `&item` as well as `item`, and what is lent is never lost.
/// - **Close**: [`close`](Self::close) lets receivers take what is there; then `recv` returns `None`. Senders get an error of kind
///   [`Closed`](commonhold_ipc::error::ErrorKind::Closed).
/// - **Death**: a process killed at any instruction leaves a whole queue. An item that was being sent is there wholly or not at
///   all. One that [`recv`](Self::recv) was copying comes back, before all others; once `recv` has it, it is that process's, and
///   dies with it. One that is leased ([`lease`](Self::lease)) comes back at once.
/// - **The manager's death**: every call fails at once, sleepers included ([`Error::is_disconnected`](commonhold_ipc::error::Error::is_disconnected)).
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// let manager = commonhold::Manager::start()?;
/// let lines = manager.queue::<String>(1000)?;           // a handle: pass it to children
/// lines.send("first")?;                                 // borrowed or owned
/// lines.send("second".to_string())?;
/// assert_eq!(lines.len()?, 2);
/// lines.close()?;
/// assert_eq!(lines.recv()?.as_deref(), Some("first"));
/// assert_eq!(lines.recv()?.as_deref(), Some("second"));
/// assert_eq!(lines.recv()?, None);                      // closed and drained
/// assert!(lines.send("third").unwrap_err().is_closed());
/// # Ok(())
/// # }
/// ```
pub struct Queue<T: Shared> {
    object: Arc<Object>,
    _of: PhantomData<fn() -> T>,
}

handle!(Queue[T: Shared], commonhold_ipc::catalog::Kind::Queue, "Queue");

/// What a process knows of a queue.
struct Known {
    segment: Arc<Segment>,
    plan: Arc<Plan>,
}

/// A queue, ready for an operation by the calling thread.
pub(crate) struct Ready<'q> {
    session: &'q Arc<SessionCore>,
    known: &'q Known,
    id: u64,
    me: Claim,
}

impl<'q> Ready<'q> {
    #[inline(always)]
    fn queue(&self) -> queue::Queue<'q, Segment> {
        queue::Queue::new(&self.known.segment, &self.known.plan)
    }

    /// The error of sending into a closed queue.
    #[cold]
    fn closed(&self) -> Error {
        let text = format!("the queue, object {} at {}, is closed: nothing can be sent any more", self.id, self.session.address);
        Error::new(ErrorKind::Closed, text)
    }

    /// The error of waiting in vain for room in it.
    #[cold]
    fn stayed_full(&self, timeout: Duration) -> Error {
        stayed_full(&format!("the queue, object {} at {},", self.id, self.session.address), timeout)
    }

    /// The error of waiting in vain for an item or a dead letter; also in the queue of a pipe.
    #[cold]
    fn nothing_came(&self, what: &str, timeout: Duration) -> Error {
        let address = &self.session.address;
        let text =
            format!("no {what} came to object {} at {address} within {timeout:?}: wait longer, or see whether anybody sends", self.id);
        Error::new(ErrorKind::TimedOut, text)
    }
}

/// How long an operation may wait.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// Not at all.
    Now,
    /// To a moment; none: for ever.
    Then(Option<Instant>),
}

impl Until {
    fn after(timeout: Duration) -> Until {
        Until::Then(deadline_after(timeout))
    }
}

impl<T: Shared> Queue<T> {
    #[inline(always)]
    fn ready(&self) -> Result<Ready<'_>> {
        let id = self.object.id();
        let (session, known) = self.object.local(|session| {
            let segment = session.segment(id, Kind::Queue)?;
            let plan = Arc::new(Plan::of(&*segment, segment.bytes())?);
            Ok(Known { segment, plan })
        })?;
        Ok(Ready { session, known, id, me: session.claim() })
    }

    /// Closes the queue: nothing can be sent any more; what is in it can still be received. Whether it was open.
    ///
    /// # Errors
    /// Disconnected, when the manager has ended; `Corrupt` if a process has written over the queue's words. The same holds for every
    /// other method.
    pub fn close(&self) -> Result<bool> {
        self.ready()?.queue().close()
    }

    /// Whether the queue is closed.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn is_closed(&self) -> Result<bool> {
        self.ready()?.queue().is_closed()
    }

    /// Items that wait. Those that are leased do not count. Others may send and receive meanwhile.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn len(&self) -> Result<usize> {
        Ok(self.ready()?.queue().len() as usize)
    }

    /// Whether no item waits.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.ready()?.queue().is_empty())
    }

    /// Whether as many items wait as may. There may be no room for the bytes of another before that.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn is_full(&self) -> Result<bool> {
        Ok(self.ready()?.queue().is_full())
    }

    /// How many items may wait.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn capacity(&self) -> Result<usize> {
        Ok(self.ready()?.known.plan.capacity() as usize)
    }

    /// Says that one item that this process has received is done: for a queue that was made [`joinable`](QueueOptions::joinable).
    /// It is for what [`recv`](Self::recv) and its kin took; [`ack`](crate::Lease::ack) of a lease says it already. The items of a process
    /// that has ended count as done.
    ///
    /// # Errors
    /// `OutOfRange` if everything is done that this process has received.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = commonhold::Manager::start()?;
    /// use commonhold::QueueOptions;
    /// use std::time::Duration;
    ///
    /// let jobs = manager.queue_with::<u32>(QueueOptions::new().capacity(10).joinable())?;
    /// jobs.send(7)?;
    /// let _job = jobs.recv()?;
    /// assert!(!jobs.join_timeout(Duration::from_millis(1))?);
    /// jobs.task_done()?;
    /// jobs.join()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn task_done(&self) -> Result<()> {
        let ready = self.ready()?;
        if !ready.known.plan.is_joinable() {
            let text = "this queue does not count what is done: make it with `queue_with(QueueOptions::new().joinable())`";
            return Err(Error::new(ErrorKind::Refused, text));
        }
        if ready.queue().task_done(ready.me)? {
            return Ok(());
        }
        let text = "task_done was called more often than this process has received items: call it once for each (an acknowledged lease is already counted)";
        Err(Error::new(ErrorKind::OutOfRange, text))
    }

    /// Waits until nothing waits in the queue and nobody works on anything: all received, all leases acknowledged, and, if the queue
    /// is [`joinable`](QueueOptions::joinable), all received items done. Dead letters do not count.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn join(&self) -> Result<()> {
        self.join_until(None).map(drop)
    }

    /// The same for so long at the most. `false`: it is not finished.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn join_timeout(&self, timeout: Duration) -> Result<bool> {
        self.join_until(deadline_after(timeout))
    }

    fn join_until(&self, deadline: Option<Instant>) -> Result<bool> {
        let ready = self.ready()?;
        let queue = ready.queue();
        let waiting = Patience::until(ready.session, deadline)?;
        let finished = queue.wait(&queue.finish(), &waiting, || Ok((!queue.is_unfinished()).then_some(())))?;
        Ok(finished.is_some())
    }

    /// Items and units of memory in anybody's hands or waiting: for tests, which expect none at the end.
    #[doc(hidden)]
    pub fn in_use(&self) -> Result<(u64, u64)> {
        let queue = self.ready()?.queue();
        Ok((queue.items_in_use(), queue.units_in_use()))
    }
}

/// Ready when an item can be received, or there never will be one.
impl<T: Shared> Source for Queue<T> {
    fn is_ready(&self) -> bool {
        // What fails would fail in `recv`, which says why.
        self.ready().and_then(|ready| ready.queue().is_receivable(ready.me)).unwrap_or(true)
    }

    fn prepare<'w>(&'w self, places: &mut Places<'w>) {
        if let Ok(ready) = self.ready()
            && let Ok(alive) = ready.session.alive_word()
        {
            let events = ready.queue().items();
            let prepared = events.prepare();
            places.add_word(events.word(), prepared, alive);
        }
    }

    fn pass_on(&self) {
        if let Ok(ready) = self.ready() {
            ready.queue().items().notify_one();
        }
    }

    fn is_in_memory(&self) -> bool {
        true
    }
}

impl<T: Shared> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, text::<Self>(), &self.object, self.len().ok().map(|len| len as u64))
    }
}

/// The error of waiting in vain for room.
#[cold]
pub(crate) fn stayed_full(what: &str, timeout: Duration) -> Error {
    let text = format!("{what} stayed full for {timeout:?}: wait longer, or see who receives, and how fast");
    Error::new(ErrorKind::TimedOut, text)
}
