//! Sending and receiving that is awaited: see `awaiting`.

use super::receive::Next;
use super::{Queue, SendError, Until};
use crate::awaiting::{Key, Place};
use crate::handle::Handle;
use crate::wait::{Places, Source};
use commonhold_ipc::error::Result;
use commonhold_ipc::limits::LOCK_LOOK_MS;
use commonhold_ipc::queue::How;
use commonhold_ipc::value::{AsShared, Shared};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Room in a queue: ready when its eventcount is another than before an attempt that found none, and when it is time to look all the same
/// (INV-22). Whether there is room for an item only an attempt to send it can say.
struct Room {
    queue: Queue<()>,
    seen: u32,
    look: Instant,
}

impl Room {
    fn new(queue: Queue<()>, seen: u32) -> Self {
        Room { queue, seen, look: Instant::now() + Duration::from_millis(LOCK_LOOK_MS) }
    }
}

impl Source for Room {
    fn is_ready(&self) -> bool {
        // What fails would fail in `send`, which says why.
        let is_told = self.queue.ready().map_or(true, |ready| ready.queue().any_room().word().load(Ordering::Relaxed) != self.seen);
        is_told || self.look <= Instant::now()
    }

    fn prepare<'w>(&'w self, places: &mut Places<'w>) {
        if let Ok(ready) = self.queue.ready()
            && let Ok(alive) = ready.session.alive_word()
        {
            places.add_word(ready.queue().any_room().word(), self.seen, alive);
        }
    }

    fn is_in_memory(&self) -> bool {
        true
    }
}

/// Where one who sends waits for room.
struct Sender {
    place: Option<Place>,
    queue: Queue<()>,
}

/// Who was woken for room that it does not take wakes somebody else.
impl Drop for Sender {
    fn drop(&mut self) {
        if self.place.take().is_some_and(|place| place.was_woken())
            && let Ok(ready) = self.queue.ready()
        {
            ready.queue().any_room().notify_one();
        }
    }
}

impl<T: Shared> Queue<T> {
    /// The same queue, whatever its items.
    fn untyped(&self) -> Queue<()> {
        Queue::from_object(self.object.clone())
    }

    /// [`recv`](Self::recv) that is awaited, in any executor. With the feature `async`.
    ///
    /// Dropped before it is ready, it has taken nothing: an item is taken in the very poll that returns it. So it can stand in a
    /// `select`. Of many that await one queue an item wakes all, in all tasks, and one of them gets it.
    ///
    /// # Errors
    /// As [`recv`](Self::recv); `System` if this process can start no thread to wait for it.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// use commonhold::{Manager, Process, Queue, SendError};
    ///
    /// let manager = Manager::start()?;
    /// let results = manager.queue::<String>(10)?;
    /// let child = Process::spawn(|results: Queue<String>| results.send("done").map_err(SendError::into_error), results.clone())?;
    /// pollster::block_on(async {                            // or within tokio, smol, a GUI's loop …
    ///     assert_eq!(results.recv_async().await?.as_deref(), Some("done"));
    ///     child.join_async().await?
    /// })
    /// # }
    /// ```
    pub fn recv_async(&self) -> impl Future<Output = Result<Option<T>>> + Send + Unpin {
        let mut place = None;
        poll_fn(move |context| self.poll_recv(&mut place, context))
    }

    pub(crate) fn poll_recv(&self, place: &mut Option<Place>, context: &Context<'_>) -> Poll<Result<Option<T>>> {
        let polled = self.ready().and_then(|ready| ready.receive(How::Receive, Until::Now));
        let polled = match polled {
            Ok(Next::Item(item)) => Ok(Some(item)),
            Ok(Next::Drained) => Ok(None),
            Ok(Next::Nothing) => {
                let key = Key::Items(self.object.manager(), self.object.id());
                match Place::keep(place, key, context.waker(), || Arc::new(self.untyped())) {
                    Ok(()) => return Poll::Pending,
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        *place = None;
        Poll::Ready(polled)
    }

    /// [`send`](Self::send) that is awaited, in any executor: it waits while the queue is full. With the feature `async`.
    ///
    /// Dropped before it is ready, it has not sent. Pass `&item` to keep the item in such a case: only errors give it back.
    ///
    /// # Errors
    /// As [`send`](Self::send); `System` if this process can start no thread to wait for it.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = commonhold::Manager::start()?;
    /// let lines = manager.queue::<String>(1)?;
    /// pollster::block_on(async {
    ///     lines.send_async("first").await?;
    ///     std::thread::scope(|scope| {
    ///         scope.spawn(|| lines.recv());
    ///         pollster::block_on(lines.send_async("second"))       // when the first is taken
    ///     })?;
    ///     assert_eq!(lines.recv_async().await?.as_deref(), Some("second"));
    ///     Ok(())
    /// })
    /// # }
    /// ```
    ///
    /// # Panics
    /// If it is polled again after it was ready.
    pub fn send_async<A: AsShared<T>>(&self, item: A) -> impl Future<Output = Result<(), SendError<A::Back>>> {
        let mut sender = Sender { place: None, queue: self.untyped() };
        let mut unsent = Some(item);
        poll_fn(move |context| {
            let item = unsent.take().expect("a future is not polled again after it was ready");
            let polled = self.poll_send(&item, &mut sender.place, context);
            if polled.is_pending() {
                unsent = Some(item);
                return Poll::Pending;
            }
            // It has taken what it was woken for, or never can.
            sender.place = None;
            polled.map_err(|error| SendError::new(error, item.back()))
        })
    }

    fn poll_send(&self, item: &impl AsShared<T>, place: &mut Option<Place>, context: &Context<'_>) -> Poll<Result<()>> {
        if self.send_until(item, Until::Now)? {
            return Poll::Ready(Ok(()));
        }
        let ready = self.ready()?;
        let seen = ready.queue().any_room().prepare();
        // Once more: what was freed before is not announced.
        if self.send_until(item, Until::Now)? {
            return Poll::Ready(Ok(()));
        }
        let key = Key::Room(self.object.manager(), self.object.id(), seen);
        Place::keep(place, key, context.waker(), || Arc::new(Room::new(self.untyped(), seen)))?;
        Poll::Pending
    }
}
