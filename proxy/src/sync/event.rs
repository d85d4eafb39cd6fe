//! [`Event`].

use super::Party;
use crate::handle::{Object, debug, handle};
use crate::patience::{Patience, deadline_after};
use crate::session::SessionCore;
use crate::wait::{Places, Source};
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::Result;
use commonhold_ipc::map::Segment;
use commonhold_ipc::segment::HEADER_BYTES;
use commonhold_ipc::sync::event;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A flag that threads of any processes can wait for. Made by [`Session::event`](crate::Session::event), not set.
///
/// Setting it wakes everybody who waits, even if it is cleared right afterwards. Without waiters no operation makes a system call.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// # let manager = commonhold::Manager::start()?;
/// use std::time::Duration;
/// let ready = manager.event()?;
/// assert!(!ready.wait_timeout(Duration::from_millis(1))?);
/// std::thread::scope(|scope| {
///     scope.spawn(|| ready.set());
///     ready.wait()
/// })?;
/// assert!(ready.is_set()?);
/// ready.clear()?;
/// assert_eq!(ready.to_string(), "not set");
/// # Ok(())
/// # }
/// ```
pub struct Event {
    object: Arc<Object>,
    _of: PhantomData<()>,
}

handle!(Event[], commonhold_ipc::catalog::Kind::Event, "Event");

impl Event {
    #[inline(always)]
    fn words(&self) -> Result<(&SessionCore, event::Event<'_, Segment>)> {
        let (session, segment) = self.object.shared(Kind::Event)?;
        Ok((session, event::Event::new(segment, HEADER_BYTES)))
    }

    /// Sets it and wakes who waits. Whether it was not set before.
    ///
    /// # Errors
    /// Disconnected, when the manager has ended; so for all methods.
    pub fn set(&self) -> Result<bool> {
        Ok(self.words()?.1.change(true))
    }

    /// Makes it not set. Whether it was set before.
    pub fn clear(&self) -> Result<bool> {
        Ok(self.words()?.1.change(false))
    }

    /// Whether it is set.
    #[inline]
    pub fn is_set(&self) -> Result<bool> {
        Ok(self.words()?.1.is_set())
    }

    /// Waits until it is set.
    pub fn wait(&self) -> Result<()> {
        self.wait_until(None).map(|_| ())
    }

    /// Waits until it is set; `false` if that has not been after `timeout`.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        self.wait_until(deadline_after(timeout))
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<bool> {
        let (session, event) = self.words()?;
        if event.is_set() {
            return Ok(true);
        }
        event.wait(session.claim(), &Patience::until(session, deadline)?)
    }

    /// [`wait`](Self::wait) that is awaited, in any executor. With the feature `async`. As there, it ends when the event is set, even if it
    /// is cleared right afterwards; it waits from its first poll on.
    ///
    /// # Errors
    /// Disconnected, when the manager ends; `System` if this process can start no thread to wait for it.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = commonhold::Manager::start()?;
    /// use commonhold::{Event, Process};
    /// let ready = manager.event()?;
    /// let _child = Process::spawn(|ready: Event| ready.set(), ready.clone())?;
    /// pollster::block_on(ready.wait_async())
    /// # }
    /// ```
    #[cfg(feature = "async")]
    pub fn wait_async(&self) -> impl Future<Output = Result<()>> + Send + Unpin {
        use crate::awaiting::{Key, Place};
        use std::task::Poll;
        let (mut first, mut place) = (None, None);
        std::future::poll_fn(move |context| {
            let now = self.words()?.1.change_count();
            let seen = *first.get_or_insert(now);
            if seen != now || now & 1 == 1 {
                place = None;
                return Poll::Ready(Ok(()));
            }
            let key = Key::Event(self.object.manager(), self.object.id(), seen);
            Place::keep(&mut place, key, context.waker(), || Arc::new(Change { event: self.clone(), seen }))?;
            Poll::Pending
        })
    }

    /// Who sleeps until it is set; of very many, some.
    pub fn waiters(&self) -> Result<Vec<Party>> {
        let (session, event) = self.words()?;
        Party::all(session, event.roster().claims())
    }
}

/// Ready while it is set.
impl Source for Event {
    fn is_ready(&self) -> bool {
        self.is_set().unwrap_or(true)
    }

    fn prepare<'w>(&'w self, places: &mut Places<'w>) {
        if let Ok((session, event)) = self.words()
            && let Ok(alive) = session.alive_word()
        {
            let waiters = event.waiters();
            let prepared = waiters.prepare();
            places.add_word(waiters.word(), prepared, alive);
        }
    }

    fn is_in_memory(&self) -> bool {
        true
    }
}

/// Ready when an event has changed.
#[cfg(feature = "async")]
struct Change {
    event: Event,
    seen: u64,
}

#[cfg(feature = "async")]
impl Source for Change {
    fn is_ready(&self) -> bool {
        self.event.words().map_or(true, |(_, event)| event.change_count() != self.seen)
    }

    fn prepare<'w>(&'w self, places: &mut Places<'w>) {
        self.event.prepare(places);
    }

    fn is_in_memory(&self) -> bool {
        true
    }
}

/// `set` or `not set`.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_set() {
            Ok(true) => f.write_str("set"),
            Ok(false) => f.write_str("not set"),
            Err(error) => write!(f, "<{error}>"),
        }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "Event", &self.object, None)
    }
}
