//! [`RLock`] and its guard.

use super::{Acquired, Party, lock_methods};
use crate::handle::{Object, debug, handle};
use crate::patience::{Patience, Wait, deadline_after, try_again};
use crate::session::SessionCore;
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::Result;
use commonhold_ipc::map::Segment;
use commonhold_ipc::segment::HEADER_BYTES;
use commonhold_ipc::sync::{self, Taken};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// A [`Lock`](crate::Lock) that the thread that holds it may take again: it is free when all of that thread's guards are dropped.
/// Made by [`Session::rlock`](crate::Session::rlock).
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// # let manager = commonhold::Manager::start()?;
/// let lock = manager.rlock()?;
/// let outer = lock.lock()?.into_guard();
/// let inner = lock.lock()?.into_guard();                // a Lock would say `Deadlock`
/// drop(outer);
/// assert!(lock.holder()?.is_some());
/// drop(inner);
/// assert!(lock.holder()?.is_none());
/// # Ok(())
/// # }
/// ```
pub struct RLock {
    object: Arc<Object>,
    _of: PhantomData<()>,
}

handle!(RLock[], commonhold_ipc::catalog::Kind::RLock, "RLock");

impl RLock {
    #[inline(always)]
    fn take(&self, wait: Wait) -> Result<Option<Acquired<RLockGuard<'_>>>> {
        let (session, segment) = self.object.shared(Kind::RLock)?;
        let (lock, me) = (sync::Lock::new(segment, HEADER_BYTES), session.claim());
        if lock.is_held_by(me) {
            lock.enter_again();
            return Ok(Some(Acquired::Clean(RLockGuard { session, segment, _on_its_thread: PhantomData })));
        }
        let taken: Option<Taken> = match (lock.try_take(me), wait) {
            (Some(taken), _) => Some(taken),
            (None, Wait::Not) => try_again(&lock, me, segment),
            (None, Wait::Until(deadline)) => lock.take(me, &Patience::until(session, deadline)?)?,
        };
        Ok(taken.map(|taken| {
            lock.enter_first();
            Acquired::new(taken, RLockGuard { session, segment, _on_its_thread: PhantomData })
        }))
    }

    fn words(&self) -> Result<(&SessionCore, sync::Lock<'_, Segment>)> {
        let (session, segment) = self.object.shared(Kind::RLock)?;
        Ok((session, sync::Lock::new(segment, HEADER_BYTES)))
    }

    lock_methods!(RLockGuard);

    /// Who sleeps until they get it; of very many, some.
    ///
    /// # Errors
    /// Disconnected, when the manager has ended.
    pub fn waiters(&self) -> Result<Vec<Party>> {
        let (session, lock) = self.words()?;
        Party::all(session, lock.roster().claims())
    }
}

/// Says who holds it.
impl fmt::Display for RLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.holder() {
            Ok(Some(holder)) => write!(f, "held by {holder}"),
            Ok(None) => f.write_str("free"),
            Err(error) => write!(f, "<{error}>"),
        }
    }
}

impl fmt::Debug for RLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "RLock", &self.object, None)
    }
}

/// The lock, held once more: given back when the last one of the thread is dropped. Stays on its thread.
#[must_use = "the lock is given back when this is dropped"]
pub struct RLockGuard<'l> {
    session: &'l SessionCore,
    segment: &'l Segment,
    _on_its_thread: PhantomData<*const ()>,
}

impl Drop for RLockGuard<'_> {
    fn drop(&mut self) {
        // A forked child has a copy of the guard, and neither the lock nor its words.
        if self.session.is_ours() {
            sync::Lock::new(self.segment, HEADER_BYTES).leave();
        }
    }
}

impl fmt::Debug for RLockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RLockGuard")
    }
}
