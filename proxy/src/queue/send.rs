//! Values into items.

use super::parcel::Parcel;
use super::{Queue, Ready, SendError, Until};
use crate::patience::Patience;
use crate::request::Request;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::map::Segment;
use commonhold_ipc::points;
use commonhold_ipc::queue::{self, Begun, Filling, Plan, Region, Sent};
use commonhold_ipc::value::{AsShared, Ser, Shared, with_scratch};
use commonhold_ipc::wire::Call;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Archives above this are not put together in private memory first, but written into the item.
const STREAMED_BYTES: u64 = 64 << 10;

/// How often an attempt asks for more memory, before somebody else must have taken all of it.
const GROWTHS: u32 = 8;

/// An item that is being filled; thrown away unless it is published.
struct Draft {
    segment: Arc<Segment>,
    plan: Arc<Plan>,
    filling: Option<Filling>,
}

impl Draft {
    fn queue(&self) -> queue::Queue<'_, Segment> {
        queue::Queue::new(&self.segment, &self.plan)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let queue = queue::Queue::new(&*self.segment, &self.plan);
        self.filling.as_mut().map_or(Ok(()), |filling| queue.fill(filling, bytes))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(filling) = self.filling.take() {
            // The words make no sense, then: somebody else will notice.
            let _ = self.queue().cancel(filling);
        }
    }
}

/// What an item is filled with.
trait Content {
    fn len(&self) -> usize;
    /// All of it, if it fits into an item.
    fn short(&self) -> Option<&[u8]> {
        None
    }
    fn fill(&self, ready: &Ready<'_>, filling: Filling) -> Result<Filling>;
}

impl Content for &[u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    #[inline(always)]
    fn short(&self) -> Option<&[u8]> {
        queue::Queue::<Segment>::is_short(<[u8]>::len(self)).then_some(self)
    }

    #[inline]
    fn fill(&self, ready: &Ready<'_>, mut filling: Filling) -> Result<Filling> {
        ready.queue().fill(&mut filling, self)?;
        Ok(filling)
    }
}

/// A value too large to be put together twice.
struct Streamed<'a, T: Shared, A: AsShared<T>> {
    value: &'a A,
    len: usize,
    _of: std::marker::PhantomData<fn() -> T>,
}

impl<T: Shared, A: AsShared<T>> Content for Streamed<'_, T, A> {
    fn len(&self) -> usize {
        self.len
    }

    fn fill(&self, ready: &Ready<'_>, filling: Filling) -> Result<Filling> {
        let (segment, plan) = (ready.known.segment.clone(), ready.known.plan.clone());
        let draft = Rc::new(RefCell::new(Draft { segment, plan, filling: Some(filling) }));
        let sink = draft.clone();
        let mut stream = Ser::stream(Box::new(move |bytes| sink.borrow_mut().write(bytes).map_err(std::io::Error::other)));
        stream.put::<T>(self.value)?;
        let written = stream.finish()?;
        drop(stream);
        let filling = draft.borrow_mut().filling.take();
        match filling {
            Some(filling) if filling.is_full() && written == self.len as u64 => Ok(filling),
            filling => {
                draft.borrow_mut().filling = filling;
                let text = format!("a value changed while it was sent: it had {} bytes first and {written} then", self.len);
                Err(Error::new(ErrorKind::Other, text))
            }
        }
    }
}

impl Ready<'_> {
    /// Sends, or finds the queue full (`None`).
    #[inline(always)]
    fn attempt(&self, content: &impl Content, ticket: u64) -> Result<Option<()>> {
        if let Some(payload) = content.short() {
            match self.queue().send_short(self.me, payload, ticket)? {
                Sent::Done => return Ok(Some(())),
                Sent::Full => return Ok(None),
                Sent::Closed => return Err(self.closed()),
                Sent::Grow(region, wanted) => self.grow(region, wanted)?,
            }
        }
        self.attempt_in_steps(content, ticket)
    }

    #[inline(never)]
    fn attempt_in_steps(&self, content: &impl Content, ticket: u64) -> Result<Option<()>> {
        let queue = self.queue();
        for _ in 0..GROWTHS {
            match queue.begin(self.me, content.len())? {
                Begun::Filling(mut filling) => {
                    filling.ticket = ticket;
                    let filling = content.fill(self, filling)?;
                    points::client("queue: item filled");
                    match queue.publish(self.me, filling)? {
                        Sent::Done => return Ok(Some(())),
                        Sent::Closed => return Err(self.closed()),
                        Sent::Full | Sent::Grow(..) => return Ok(None),
                    }
                }
                Begun::Not(Sent::Closed) => return Err(self.closed()),
                Begun::Not(Sent::Grow(region, wanted)) => self.grow(region, wanted)?,
                Begun::Not(Sent::Full | Sent::Done) => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Asks the manager for memory.
    #[cold]
    fn grow(&self, region: Region, wanted: u64) -> Result<()> {
        let mut request = Request::new(Call::Grow);
        [self.id, region as u64, wanted].iter().for_each(|word| request.payload().extend_from_slice(&word.to_le_bytes()));
        self.session.call(&mut request, true).map(drop)
    }

    /// Sends what may hold handles.
    #[inline]
    fn send_with(&self, content: &impl Content, handles: &[(u64, u64)], until: Until) -> Result<bool> {
        if handles.is_empty() {
            return self.send(content, 0, until);
        }
        let parcel = Parcel::pack(self, handles)?;
        let sent = self.send(content, parcel.number(), until)?;
        if sent {
            parcel.keep();
        }
        Ok(sent)
    }

    #[inline]
    fn send(&self, content: &impl Content, ticket: u64, until: Until) -> Result<bool> {
        if self.attempt(content, ticket)?.is_some() {
            return Ok(true);
        }
        match until {
            Until::Now => Ok(false),
            Until::Then(deadline) => {
                let queue = self.queue();
                let waiting = Patience::until(self.session, deadline)?;
                let sent = queue.wait_for_room(&waiting, || self.attempt(content, ticket))?;
                Ok(sent.is_some())
            }
        }
    }
}

impl<T: Shared> Queue<T> {
    /// Sends an item: `T`, `&T`, or a borrowed form of it such as `&str`. Waits while the queue is full.
    ///
    /// When this returns, the item is in the queue, whatever happens to this process.
    ///
    /// # Errors
    /// `Closed`; `TooLarge` if the item would not fit into an empty queue; `Full` if the manager has no memory for it of what its capacity
    /// leaves to queues; disconnected, when the manager has ended. An item that was given away is in the error: [`SendError::into_item`].
    #[inline]
    pub fn send<A: AsShared<T>>(&self, item: A) -> Result<(), SendError<A::Back>> {
        match self.send_until(&item, Until::Then(None)) {
            Ok(_) => Ok(()),
            Err(error) => Err(SendError::new(error, item.back())),
        }
    }

    /// Sends an item if there is room now. `Ok(Err(item))`: the queue is full, and here the item is back.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = commonhold::Manager::start()?;
    /// let lines = manager.queue::<String>(1)?;
    /// assert!(lines.try_send("first")?.is_ok());
    /// if let Err(line) = lines.try_send("second".to_string())? {
    ///     println!("no room for {line}");                   // it is ours again
    /// }
    /// # assert_eq!(lines.len()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn try_send<A: AsShared<T>>(&self, item: A) -> Result<std::result::Result<(), A>, SendError<A::Back>> {
        match self.send_until(&item, Until::Now) {
            Ok(true) => Ok(Ok(())),
            Ok(false) => Ok(Err(item)),
            Err(error) => Err(SendError::new(error, item.back())),
        }
    }

    /// Sends an item, waiting for so long at the most.
    ///
    /// # Errors
    /// `TimedOut` if the queue stays full; else as [`send`](Self::send).
    pub fn send_timeout<A: AsShared<T>>(&self, item: A, timeout: Duration) -> Result<(), SendError<A::Back>> {
        match self.send_until(&item, Until::after(timeout)) {
            Ok(true) => Ok(()),
            Ok(false) => {
                let error = self.ready().map_or_else(|error| error, |ready| ready.stayed_full(timeout));
                Err(SendError::new(error, item.back()))
            }
            Err(error) => Err(SendError::new(error, item.back())),
        }
    }

    /// Sends all items, one after the other; others may come between them. Waits while the queue is full.
    ///
    /// # Errors
    /// As [`send`](Self::send), for the first that cannot be sent; those before it are in the queue. Pass `&mut iterator` to keep those
    /// behind it.
    pub fn send_many<A: AsShared<T>>(&self, items: impl IntoIterator<Item = A>) -> Result<(), SendError<A::Back>> {
        items.into_iter().try_for_each(|item| self.send(item))
    }

    #[inline]
    pub(crate) fn send_until(&self, item: &impl AsShared<T>, until: Until) -> Result<bool> {
        let ready = self.ready()?;
        if let Some(short) = item.short() {
            return ready.send(&short.bytes(), 0, until);
        }
        with_scratch(|ser| match ser.put_up_to::<T>(item, STREAMED_BYTES)? {
            Some(range) => ready.send_with(&&ser.bytes()[range], ser.handles(), until),
            None => {
                let mut count = Ser::count();
                count.put::<T>(item)?;
                let len = count.written() as usize;
                ready.send_with(&Streamed { value: item, len, _of: std::marker::PhantomData }, count.handles(), until)
            }
        })
    }
}
