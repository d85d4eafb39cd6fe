//! Items into values.

use super::parcel::Parcel;
use super::{Queue, Ready, Until};
use crate::patience::Patience;
use crate::session::Stored;
use commonhold_ipc::error::Result;
use commonhold_ipc::limits::QUEUE_INBOX_BYTES_KEPT_MAX;
use commonhold_ipc::points;
use commonhold_ipc::queue::{How, Took};
use commonhold_ipc::value::{Shared, access, to_owned};
use rkyv::util::AlignedVec;
use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::time::Duration;

thread_local! {
    /// Where items are copied to, before they are looked at.
    static INBOX: Cell<AlignedVec<16>> = Cell::default();
}

/// An item that was taken, and is to be delivered or handed out.
pub(super) enum Next<R> {
    /// One.
    Item(R),
    /// The queue is closed, and there will never be one.
    Drained,
    /// There is none now, or was none in time.
    Nothing,
}

/// An item that was taken and is the queue's still: dropped, because something failed or the item's own code has panicked, it goes back.
struct InHands<'r, 'q> {
    ready: &'r Ready<'q>,
    index: u32,
}

impl InHands<'_, '_> {
    /// It is not to go back.
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for InHands<'_, '_> {
    fn drop(&mut self) {
        // Of a session that is over the manager takes everything back.
        if self.ready.session.is_usable() {
            let _ = self.ready.queue().give_back(self.ready.me, self.index);
        }
    }
}

impl Ready<'_> {
    /// Takes an item, waiting for it.
    #[inline(always)]
    pub(super) fn take(&self, how: How, until: Until) -> Result<Next<u32>> {
        match self.queue().take(self.me, how)? {
            Took::Item(index) => Ok(Next::Item(index)),
            Took::Drained => Ok(Next::Drained),
            Took::Nothing => self.await_item(how, until),
        }
    }

    #[inline(never)]
    fn await_item(&self, how: How, until: Until) -> Result<Next<u32>> {
        let queue = self.queue();
        let attempt = || {
            Ok(match queue.take(self.me, how)? {
                Took::Item(index) => Some(Next::Item(index)),
                Took::Drained => Some(Next::Drained),
                Took::Nothing => None,
            })
        };
        let Until::Then(deadline) = until else { return Ok(Next::Nothing) };
        let events = if how == How::DeadLetter { queue.dead_letters() } else { queue.items() };
        let waiting = Patience::until(self.session, deadline)?;
        Ok(queue.wait(&events, &waiting, attempt)?.unwrap_or(Next::Nothing))
    }

    /// Copies a taken item's archive, takes the item out of the queue unless it is on lease, and makes a value of it, whose handles are bound.
    #[inline]
    pub(super) fn unpack<T: Shared>(&self, index: u32, how: How) -> Result<T> {
        let queue = self.queue();
        let item = InHands { ready: self, index };
        let ticket = queue.ticket(index);
        let mut bytes = INBOX.try_with(Cell::take).unwrap_or_default();
        bytes.clear();
        let value = match queue.read(index, &mut bytes).and_then(|()| access::<T>(&bytes)) {
            Ok(archived) => self.hold(ticket).and_then(|held| {
                let (leased, parcel) = if how == How::Lease {
                    (Some(item), None)
                } else {
                    // From here on it is this process's, and lost if its own code panics.
                    item.keep();
                    if how == How::DeadLetter { queue.drop_taken(self.me, index) } else { queue.deliver(self.me, index) }?;
                    (None, Parcel::of(self, ticket))
                };
                let session = if T::FLAT { None } else { self.session.pins.owner() };
                let value = to_owned::<T>(archived, session);
                leased.into_iter().for_each(InHands::keep);
                drop(held);
                drop(parcel);
                Ok(value)
            }),
            Err(error) => {
                // It is as unreadable for everybody else.
                item.keep();
                let _ = queue.drop_taken(self.me, index);
                drop(Parcel::of(self, ticket));
                Err(error)
            }
        };
        if bytes.capacity() <= QUEUE_INBOX_BYTES_KEPT_MAX {
            let _ = INBOX.try_with(|inbox| inbox.set(bytes));
        }
        value
    }

    /// Holds what the handles of a taken item refer to.
    #[inline]
    fn hold(&self, ticket: u64) -> Result<Vec<Stored>> {
        let Some(parcel) = Parcel::of(self, ticket) else { return Ok(Vec::new()) };
        let held = parcel.unpack();
        parcel.keep();
        held
    }

    /// Receives an item.
    #[inline(always)]
    pub(super) fn receive<T: Shared>(&self, how: How, until: Until) -> Result<Next<T>> {
        Ok(match self.take(how, until)? {
            Next::Item(index) => {
                points::client("queue: item taken");
                if how == How::Receive
                    && let Some(short) = self.queue().read_short(index)
                    && let Ok(archived) = access::<T>(short.bytes())
                {
                    self.queue().deliver_short(self.me, index)?;
                    points::client("queue: item received");
                    return Ok(Next::Item(to_owned::<T>(archived, None)));
                }
                return self.receive_in_steps(index, how);
            }
            Next::Drained => Next::Drained,
            Next::Nothing => Next::Nothing,
        })
    }

    /// The same for many bytes: without the copy that is looked at before it is copied once more.
    fn receive_bytes<T: Shared>(&self, index: u32, how: How) -> Result<Option<T>> {
        let mut value: Option<T> = None;
        if let Some(place) = (&mut value as &mut dyn Any).downcast_mut::<Option<Vec<u8>>>()
            && how == How::Receive
            && let Ok(Some(bytes)) = self.queue().read_bytes(index)
        {
            self.queue().deliver(self.me, index)?;
            points::client("queue: item received");
            *place = Some(bytes);
        }
        Ok(value)
    }

    /// The same for an item that has been taken, whatever it is.
    #[inline(never)]
    fn receive_in_steps<T: Shared>(&self, index: u32, how: How) -> Result<Next<T>> {
        if let Some(value) = self.receive_bytes(index, how)? {
            return Ok(Next::Item(value));
        }
        let value = self.unpack(index, how)?;
        points::client("queue: item received");
        Ok(Next::Item(value))
    }
}

impl<T: Shared> Queue<T> {
    /// Receives the next item, waiting for it. `None`: the queue is closed and drained, that is, no item waits and none can come
    /// back from anybody who has leased it.
    ///
    /// Should this process be killed before `recv` has the whole item, the item comes back, before all others. Afterwards it is
    /// this process's alone.
    ///
    /// # Errors
    /// Disconnected, when the manager has ended; `Corrupt` if a process has written over the queue's words, or over the item.
    #[inline]
    pub fn recv(&self) -> Result<Option<T>> {
        match self.ready()?.receive(How::Receive, Until::Then(None))? {
            Next::Item(item) => Ok(Some(item)),
            Next::Drained | Next::Nothing => Ok(None),
        }
    }

    /// Receives the next item if there is one now. `None` does not say whether the queue is closed.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    #[inline]
    pub fn try_recv(&self) -> Result<Option<T>> {
        match self.ready()?.receive(How::Receive, Until::Now)? {
            Next::Item(item) => Ok(Some(item)),
            Next::Drained | Next::Nothing => Ok(None),
        }
    }

    /// Receives the next item, waiting for so long at the most. `None`: the queue is closed and drained.
    ///
    /// # Errors
    /// `TimedOut` if none came; else as [`recv`](Self::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<T>> {
        let ready = self.ready()?;
        match ready.receive(How::Receive, Until::after(timeout))? {
            Next::Item(item) => Ok(Some(item)),
            Next::Drained => Ok(None),
            Next::Nothing => Err(ready.nothing_came("item", timeout)),
        }
    }

    /// Receives up to `most` items: waits for the first, and takes the others that are there. Empty: the queue is closed and drained.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), if that happens with the first; else it shows the next time.
    pub fn recv_many(&self, most: usize) -> Result<Vec<T>> {
        let mut items = Vec::new();
        if most == 0 {
            return Ok(items);
        }
        items.extend(self.recv()?);
        while !items.is_empty() && items.len() < most {
            match self.try_recv() {
                Ok(Some(item)) => items.push(item),
                _ => break,
            }
        }
        Ok(items)
    }

    /// Receives item after item, waiting for each, until the queue is closed and drained.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = commonhold::Manager::start()?;
    /// let numbers = manager.queue::<u64>(10)?;
    /// numbers.send_many([1, 2, 3])?;
    /// numbers.close()?;
    /// assert_eq!(numbers.iter().sum::<commonhold::Result<u64>>()?, 6);
    /// # Ok(())
    /// # }
    /// ```
    pub fn iter(&self) -> QueueIter<'_, T> {
        QueueIter { queue: Some(self) }
    }
}

impl<'q, T: Shared> IntoIterator for &'q Queue<T> {
    type Item = Result<T>;
    type IntoIter = QueueIter<'q, T>;

    fn into_iter(self) -> QueueIter<'q, T> {
        self.iter()
    }
}

/// Items as they come. Ends when the queue is closed and drained, or after an error.
pub struct QueueIter<'q, T: Shared> {
    queue: Option<&'q Queue<T>>,
}

impl<T: Shared> fmt::Debug for QueueIter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.queue {
            Some(queue) => write!(f, "<QueueIter of {queue:?}>"),
            None => f.write_str("<QueueIter at its end>"),
        }
    }
}

impl<T: Shared> Iterator for QueueIter<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        let next = self.queue?.recv().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.queue = None;
        }
        next
    }
}

impl<T: Shared> std::iter::FusedIterator for QueueIter<'_, T> {}
