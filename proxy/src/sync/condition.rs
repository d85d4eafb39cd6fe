//! [`Condition`].

use super::{Acquired, LockGuard, Party, lock_methods};
use crate::handle::{Object, debug, handle};
use crate::patience::{Patience, Wait, deadline_after};
use crate::session::SessionCore;
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::map::Segment;
use commonhold_ipc::segment::HEADER_BYTES;
use commonhold_ipc::sync::{self, condition};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A lock, and waiting for something that is changed under it: threads of any processes wait until another one notifies them. Made by
/// [`Session::condition`](crate::Session::condition) with a lock of its own, or by
/// [`Session::condition_with`](crate::Session::condition_with) for a lock that there is; then the condition keeps that alive.
///
/// Look at what you wait for in a loop, or with [`wait_for`](Self::wait_for): one may wake without having been notified, since others
/// come in between, and since the death of a waiter wakes the others. To notify nobody makes no system call.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// # let manager = commonhold::Manager::start()?;
/// let (jobs, changed) = (manager.list::<String>([])?, manager.condition()?);
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         let _guard = changed.lock()?.into_guard();
///         jobs.push("sweep")?;
///         changed.notify_one()
///     });
///     let guard = changed.lock()?.into_guard();
///     let (guard, _) = changed.wait_for(guard, || Ok(!jobs.is_empty()?), None)?;
///     assert_eq!(jobs.pop()?.unwrap(), "sweep");
///     drop(guard);
///     Ok(())
/// })
/// # }
/// ```
pub struct Condition {
    object: Arc<Object>,
    _of: PhantomData<()>,
}

handle!(Condition[], commonhold_ipc::catalog::Kind::Condition, "Condition");

impl Condition {
    /// Where its lock is.
    #[inline]
    fn lock_segment(&self) -> Result<(&SessionCore, &Segment)> {
        let (session, segment) = match self.object.companion()? {
            Some(lock) => lock.shared(Kind::Lock)?,
            None => self.object.shared(Kind::Condition)?,
        };
        Ok((session, segment))
    }

    #[inline]
    fn take(&self, wait: Wait) -> Result<Option<Acquired<LockGuard<'_>>>> {
        let (session, segment) = self.lock_segment()?;
        LockGuard::take(session, segment, wait)
    }

    fn words(&self) -> Result<(&SessionCore, sync::Lock<'_, Segment>)> {
        let (session, segment) = self.lock_segment()?;
        Ok((session, sync::Lock::new(segment, HEADER_BYTES)))
    }

    lock_methods!(LockGuard);

    #[inline]
    fn condition(&self) -> Result<(&SessionCore, condition::Condition<'_, Segment>)> {
        let (session, segment) = self.object.shared(Kind::Condition)?;
        Ok((session, condition::Condition::new(segment, HEADER_BYTES)))
    }

    /// Gives the lock back, sleeps until somebody notifies, and takes the lock again.
    ///
    /// # Errors
    /// `Refused` if the guard is of another lock; disconnected, at once, when the manager ends. The lock is given back then.
    pub fn wait<'c>(&'c self, guard: LockGuard<'c>) -> Result<Acquired<LockGuard<'c>>> {
        self.wait_until(guard, None).map(|(acquired, _)| acquired)
    }

    /// The same, but wakes after `timeout` at the latest: with `false` then.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout<'c>(&'c self, guard: LockGuard<'c>, timeout: Duration) -> Result<(Acquired<LockGuard<'c>>, bool)> {
        self.wait_until(guard, deadline_after(timeout))
    }

    /// Waits until `happened` says so, which is asked under the lock, first at once and then after each notification; `false`: it has not
    /// within `timeout`.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and those of `happened`.
    pub fn wait_for<'c>(
        &'c self,
        guard: LockGuard<'c>,
        mut happened: impl FnMut() -> Result<bool>,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<(Acquired<LockGuard<'c>>, bool)> {
        let deadline = deadline_after(timeout);
        let (mut guard, mut owner_died, mut on_time) = (guard, false, true);
        loop {
            let now = happened()?;
            if now || !on_time {
                let acquired = if owner_died { Acquired::OwnerDied(guard) } else { Acquired::Clean(guard) };
                return Ok((acquired, now));
            }
            let acquired;
            (acquired, on_time) = self.wait_until(guard, deadline)?;
            owner_died |= acquired.owner_died();
            guard = acquired.into_guard();
        }
    }

    fn wait_until<'c>(&'c self, guard: LockGuard<'c>, deadline: Option<Instant>) -> Result<(Acquired<LockGuard<'c>>, bool)> {
        let (lock_session, lock) = self.lock_segment()?;
        if !guard.is_of(lock) {
            let text = "a condition is waited for with a guard of its own lock: take that by the condition's `lock`";
            return Err(Error::new(ErrorKind::Refused, text));
        }
        let (session, condition) = self.condition()?;
        let notified = condition.wait(session.claim(), || drop(guard), &Patience::until(session, deadline)?)?;
        let acquired = LockGuard::take(lock_session, lock, Wait::Until(None))?;
        Ok((acquired.unwrap_or_else(|| unreachable!("there is no deadline")), notified))
    }

    /// Wakes one who waits, if anybody does; it may wake another that has not quite fallen asleep. Usually called under the lock: who
    /// looks at something under it and then waits cannot miss what is changed and notified under it.
    ///
    /// # Errors
    /// Disconnected, when the manager has ended.
    pub fn notify_one(&self) -> Result<()> {
        self.condition()?.1.notify_one();
        Ok(())
    }

    /// Wakes all who wait. Usually called under the lock.
    ///
    /// # Errors
    /// Disconnected, when the manager has ended.
    pub fn notify_all(&self) -> Result<()> {
        self.condition()?.1.notify_all();
        Ok(())
    }

    /// Who waits to be notified; of very many, some.
    ///
    /// # Errors
    /// Disconnected, when the manager has ended.
    pub fn waiters(&self) -> Result<Vec<Party>> {
        let (session, condition) = self.condition()?;
        Party::all(session, condition.roster().claims())
    }
}

/// Says who holds its lock.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.holder() {
            Ok(Some(holder)) => write!(f, "held by {holder}"),
            Ok(None) => f.write_str("free"),
            Err(error) => write!(f, "<{error}>"),
        }
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "Condition", &self.object, None)
    }
}
