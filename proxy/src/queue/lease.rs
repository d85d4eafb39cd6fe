//! [`Lease`]: an item that comes back unless it is acknowledged.

use super::parcel::Parcel;
use super::receive::Next;
use super::{Queue, Ready, Until};
use commonhold_ipc::error::Result;
use commonhold_ipc::points;
use commonhold_ipc::queue::How;
use commonhold_ipc::sync::Claim;
use commonhold_ipc::value::Shared;
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

/// An item that somebody works on. It goes back into the queue, before all that wait there, when this is dropped or its process
/// ends; [`ack`](Self::ack) takes it out for good. See [`Queue::lease`].
///
/// Derefs to the item. `Send`, so that another thread may acknowledge.
#[must_use = "dropped without `ack`, the item goes back into the queue"]
pub struct Lease<T: Shared> {
    queue: Queue<T>,
    index: u32,
    /// Whose claim stands in the item's state.
    me: Claim,
    attempt: u32,
    item: Option<T>,
}

impl<T: Shared> Lease<T> {
    /// The item is done: it leaves the queue for good. Returns it. In a [`joinable`](crate::QueueOptions::joinable) queue too that is all:
    /// [`task_done`](Queue::task_done) is for what `recv` took.
    ///
    /// # Errors
    /// Disconnected, when the manager has ended.
    pub fn ack(mut self) -> Result<T> {
        points::client("lease: before it is acknowledged");
        let ready = self.queue.ready()?;
        let ticket = ready.queue().ticket(self.index);
        ready.queue().drop_taken(self.me, self.index)?;
        drop(Parcel::of(&ready, ticket));
        points::client("lease: acknowledged");
        self.item.take().map_or_else(|| unreachable!("only `ack` takes it"), Ok)
    }

    /// How often the item has been handed out, this time included: 1 for the first.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}

impl<T: Shared> Deref for Lease<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.item.as_ref().unwrap_or_else(|| unreachable!("only `ack` takes it"))
    }
}

impl<T: Shared> Drop for Lease<T> {
    fn drop(&mut self) {
        // In a forked child the lease is the parent's; when the manager is gone, so is the queue. `ready` says both.
        if self.item.is_some()
            && let Ok(ready) = self.queue.ready()
        {
            points::client("lease: before it comes back");
            let _ = ready.queue().give_back(self.me, self.index);
        }
    }
}

impl<T: Shared + fmt::Debug> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("item", &self.item).field("attempt", &self.attempt).finish()
    }
}

impl<T: Shared> Queue<T> {
    /// Takes the next item on lease, waiting for it. `None`: the queue is closed and drained.
    ///
    /// The item comes back at once if this process ends, or drops the [`Lease`], before it acknowledges; and if code of its own panics
    /// where it is unpacked, such as a key's `Hash`. So work is done at least once, by whomever; twice, if a worker was killed between
    /// doing and acknowledging it. A queue made with [`attempts_max`](super::QueueOptions::attempts_max) sets items aside that keep
    /// killing their workers.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = commonhold::Manager::start()?;
    /// let urls = manager.queue::<String>(100)?;
    /// urls.send("http://a")?;
    /// let lease = urls.lease()?.unwrap();
    /// assert_eq!((lease.as_str(), lease.attempt()), ("http://a", 1));
    /// drop(lease);                                          // or the process is killed
    /// let lease = urls.lease()?.unwrap();
    /// assert_eq!(lease.attempt(), 2);
    /// lease.ack()?;
    /// assert!(urls.is_empty()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn lease(&self) -> Result<Option<Lease<T>>> {
        match self.lease_until(Until::Then(None))? {
            Next::Item(lease) => Ok(Some(lease)),
            Next::Drained | Next::Nothing => Ok(None),
        }
    }

    /// The same if there is an item now. `None` does not say whether the queue is closed.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn try_lease(&self) -> Result<Option<Lease<T>>> {
        match self.lease_until(Until::Now)? {
            Next::Item(lease) => Ok(Some(lease)),
            Next::Drained | Next::Nothing => Ok(None),
        }
    }

    /// The same, waiting for so long at the most. `None`: the queue is closed and drained.
    ///
    /// # Errors
    /// `TimedOut` if no item came; else as [`recv`](Self::recv).
    pub fn lease_timeout(&self, timeout: Duration) -> Result<Option<Lease<T>>> {
        match self.lease_until(Until::after(timeout))? {
            Next::Item(lease) => Ok(Some(lease)),
            Next::Drained => Ok(None),
            Next::Nothing => Err(self.ready()?.nothing_came("item", timeout)),
        }
    }

    fn lease_until(&self, until: Until) -> Result<Next<Lease<T>>> {
        let ready: Ready<'_> = self.ready()?;
        Ok(match ready.take(How::Lease, until)? {
            Next::Item(index) => {
                points::client("lease: taken, its attempt not counted");
                let attempt = ready.queue().count_attempt(index);
                points::client("lease: its attempt counted");
                let item = ready.unpack(index, How::Lease);
                Next::Item(Lease { queue: self.clone(), index, me: ready.me, attempt, item: Some(item?) })
            }
            Next::Drained => Next::Drained,
            Next::Nothing => Next::Nothing,
        })
    }

    /// The items that came back too often, if the queue was made with [`attempts_max`](super::QueueOptions::attempts_max).
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = commonhold::Manager::start()?;
    /// use commonhold::QueueOptions;
    /// let jobs = manager.queue_with::<u32>(QueueOptions::new().attempts_max(2))?;
    /// jobs.send(7)?;
    /// drop(jobs.lease()?);
    /// drop(jobs.lease()?);
    /// assert!(jobs.is_empty()?);
    /// assert_eq!(jobs.dead_letters().try_recv()?, Some(7));
    /// # Ok(())
    /// # }
    /// ```
    pub fn dead_letters(&self) -> DeadLetters<T> {
        DeadLetters { queue: self.clone() }
    }
}

/// What came back too often. See [`Queue::dead_letters`].
pub struct DeadLetters<T: Shared> {
    queue: Queue<T>,
}

impl<T: Shared> fmt::Debug for DeadLetters<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<DeadLetters of {:?}>", self.queue)
    }
}

impl<T: Shared> DeadLetters<T> {
    /// Takes one if there is one now.
    ///
    /// # Errors
    /// As [`Queue::recv`].
    pub fn try_recv(&self) -> Result<Option<T>> {
        match self.queue.ready()?.receive(How::DeadLetter, Until::Now)? {
            Next::Item(item) => Ok(Some(item)),
            Next::Drained | Next::Nothing => Ok(None),
        }
    }

    /// Takes one, waiting for so long at the most.
    ///
    /// # Errors
    /// `TimedOut` if none came; else as [`Queue::recv`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T> {
        let ready = self.queue.ready()?;
        match ready.receive(How::DeadLetter, Until::after(timeout))? {
            Next::Item(item) => Ok(item),
            Next::Drained | Next::Nothing => Err(ready.nothing_came("dead letter", timeout)),
        }
    }

    /// How many there are.
    ///
    /// # Errors
    /// As [`Queue::close`].
    pub fn len(&self) -> Result<usize> {
        Ok(self.queue.ready()?.queue().dead_len() as usize)
    }

    /// Whether there are none.
    ///
    /// # Errors
    /// As [`Queue::close`].
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
}
