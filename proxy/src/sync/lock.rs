//! [`Lock`] and its guard.

use super::{Party, lock_methods};
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

/// How a lock was got.
#[derive(Debug)]
#[must_use = "the guard inside is the lock: dropped here, it is given back here"]
pub enum Acquired<G> {
    /// The last holder gave it back.
    Clean(G),
    /// The last holder's process ended while it held the lock: what the lock protects may be half done. The next one who takes
    /// it will not be told again.
    OwnerDied(G),
}

impl<G> Acquired<G> {
    pub(crate) fn new(taken: Taken, guard: G) -> Self {
        if taken.owner_died { Acquired::OwnerDied(guard) } else { Acquired::Clean(guard) }
    }

    /// The guard, however it was got.
    pub fn into_guard(self) -> G {
        match self {
            Acquired::Clean(guard) | Acquired::OwnerDied(guard) => guard,
        }
    }

    /// Whether the last holder died with it.
    pub fn owner_died(&self) -> bool {
        matches!(self, Acquired::OwnerDied(_))
    }
}

/// Mutual exclusion among threads of any processes that have the handle. Made by [`Session::lock`](crate::Session::lock).
///
/// - A process that is killed while it holds the lock does not keep it: within milliseconds the next one gets it, and is told
///   ([`Acquired::OwnerDied`]). That is the kernel's word; there is no time-out that could be wrong. A panic under the lock only
///   drops the guard, and nobody is told.
/// - Taking a free lock and giving it back makes no system call. Who waits looks for some microseconds, then sleeps.
/// - Newcomers may be quicker than those who sleep, until one of these has waited for 2 ms: then it comes next. So nobody starves.
/// - Not reentrant: a thread that takes it twice gets an error of kind [`Deadlock`](commonhold_ipc::error::ErrorKind::Deadlock).
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// use commonhold::{Acquired, Manager};
///
/// let manager = Manager::start()?;
/// let lock = manager.lock()?;                           // a handle: pass it to children, store it in a dict
/// match lock.lock()? {
///     Acquired::Clean(guard) => drop(guard),
///     Acquired::OwnerDied(guard) => drop(guard),        // the last holder was killed inside; decide, then go on
/// }
/// let guard = lock.lock()?.into_guard();                // for those who do not care
/// assert!(lock.holder()?.is_some_and(|holder| holder.pid == std::process::id()));
/// drop(guard);
/// assert_eq!(lock.with(|| 5)?, 5);
/// # Ok(())
/// # }
/// ```
pub struct Lock {
    object: Arc<Object>,
    _of: PhantomData<()>,
}

handle!(Lock[], commonhold_ipc::catalog::Kind::Lock, "Lock");

impl Lock {
    #[inline(always)]
    fn take(&self, wait: Wait) -> Result<Option<Acquired<LockGuard<'_>>>> {
        let (session, segment) = self.object.shared(Kind::Lock)?;
        LockGuard::take(session, segment, wait)
    }

    fn words(&self) -> Result<(&SessionCore, sync::Lock<'_, Segment>)> {
        let (session, segment) = self.object.shared(Kind::Lock)?;
        Ok((session, sync::Lock::new(segment, HEADER_BYTES)))
    }

    lock_methods!(LockGuard);

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
impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.holder() {
            Ok(Some(holder)) => write!(f, "held by {holder}"),
            Ok(None) => f.write_str("free"),
            Err(error) => write!(f, "<{error}>"),
        }
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "Lock", &self.object, None)
    }
}

/// The lock, held: given back when this is dropped. Stays on its thread.
#[must_use = "the lock is given back when this is dropped"]
pub struct LockGuard<'l> {
    session: &'l SessionCore,
    segment: &'l Segment,
    _on_its_thread: PhantomData<*const ()>,
}

impl<'l> LockGuard<'l> {
    /// Takes the lock at the beginning of a segment.
    #[inline(always)]
    pub(crate) fn take(session: &'l SessionCore, segment: &'l Segment, wait: Wait) -> Result<Option<Acquired<Self>>> {
        let (lock, me) = (sync::Lock::new(segment, HEADER_BYTES), session.claim());
        let taken = match (lock.try_take(me), wait) {
            (Some(taken), _) => Some(taken),
            (None, Wait::Not) => try_again(&lock, me, segment),
            (None, Wait::Until(deadline)) => lock.take(me, &Patience::until(session, deadline)?)?,
        };
        Ok(taken.map(|taken| Acquired::new(taken, LockGuard { session, segment, _on_its_thread: PhantomData })))
    }

    /// Whether this is a guard of the lock in this segment.
    pub(super) fn is_of(&self, segment: &Segment) -> bool {
        std::ptr::eq(self.segment, segment)
    }
}

impl Drop for LockGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // A forked child has a copy of the guard, and neither the lock nor its words.
        if self.session.is_ours() {
            let lock = sync::Lock::new(self.segment, HEADER_BYTES);
            if self.session.pins.is_registered() { lock.release_relying() } else { lock.release() }
        }
    }
}

impl fmt::Debug for LockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockGuard")
    }
}
