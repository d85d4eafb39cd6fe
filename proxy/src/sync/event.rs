//! [`Event`].

use super::{Party, Patience, deadline_after};
use crate::handle::{Object, debug, handle};
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
