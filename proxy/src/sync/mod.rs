//! Locks and their kin, as their users see them. The words are in `ipc::sync`; here is who calls, and guards.

mod barrier;
mod condition;
mod event;
mod lock;
mod rlock;
mod rwlock;
mod semaphore;

pub use barrier::Barrier;
pub use condition::Condition;
pub use event::Event;
pub use lock::{Acquired, Lock, LockGuard};
pub use rlock::{RLock, RLockGuard};
pub use rwlock::{ReadGuard, RwLock, WriteGuard};
pub use semaphore::{BoundedSemaphore, Permit, Semaphore};

use crate::session::SessionCore;
use commonhold_ipc::error::Result;
use commonhold_ipc::sync::Claim;
use std::fmt;

/// A thread of some process, as one that holds something or waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Party {
    /// Its process, as the manager sees it.
    pub pid: u32,
    /// The process's program.
    pub program: String,
    /// The thread's number, as its own process sees it.
    pub thread: u32,
    /// The thread's name, if it has one and this process may look.
    pub thread_name: Option<String>,
}

impl Party {
    /// Whose claim it is; none if that session is over.
    pub(crate) fn of(session: &SessionCore, claim: Claim) -> Result<Option<Party>> {
        let thread = claim.thread();
        Ok(session.who(claim.session())?.map(|(pid, program)| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/comm")).ok();
            Party { pid, program, thread, thread_name: name.map(|name| name.trim_end().to_owned()) }
        }))
    }

    /// Those of them who are still there.
    fn all(session: &SessionCore, claims: impl Iterator<Item = Claim>) -> Result<Vec<Party>> {
        claims.filter_map(|claim| Party::of(session, claim).transpose()).collect()
    }
}

/// `program (pid 12, thread 13 "name")`
impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}, thread {}", self.program, self.pid, self.thread)?;
        match &self.thread_name {
            Some(name) => write!(f, " {name:?})"),
            None => f.write_str(")"),
        }
    }
}

/// The ways to take what has a holder, for a type with `take` and `words`.
macro_rules! lock_methods {
    ($guard:ident) => {
        /// Takes the lock, waiting for as long as it takes.
        ///
        /// # Errors
        /// `Deadlock` if this thread would wait for itself; `Corrupt` if a process has written over the lock's words; disconnected, at
        /// once, when the manager ends.
        #[inline]
        pub fn lock(&self) -> Result<Acquired<$guard<'_>>> {
            let taken = self.take(Wait::Until(None))?;
            taken.map_or_else(|| unreachable!("there is no deadline"), Ok)
        }

        /// Takes the lock if nobody has it.
        ///
        /// # Errors
        /// Disconnected, when the manager has ended.
        #[inline]
        pub fn try_lock(&self) -> Result<Option<Acquired<$guard<'_>>>> {
            self.take(Wait::Not)
        }

        /// Takes the lock, or returns `None` when it has waited for `timeout`.
        ///
        /// # Errors
        /// As [`lock`](Self::lock).
        pub fn lock_timeout(&self, timeout: Duration) -> Result<Option<Acquired<$guard<'_>>>> {
            self.take(Wait::Until(deadline_after(timeout)))
        }

        /// Runs `body` under the lock, whatever became of the last holder.
        ///
        /// # Errors
        /// As [`lock`](Self::lock).
        pub fn with<R>(&self, body: impl FnOnce() -> R) -> Result<R> {
            let _guard = self.lock()?.into_guard();
            Ok(body())
        }

        /// Who has the lock now.
        ///
        /// # Errors
        /// Disconnected, when the manager has ended.
        pub fn holder(&self) -> Result<Option<Party>> {
            let (session, lock) = self.words()?;
            lock.holder()?.map_or(Ok(None), |claim| Party::of(session, claim))
        }
    };
}
use lock_methods;

/// The ways to take the lock that stands at the beginning of a block of memory, for a type with `object`.
macro_rules! block_lock_methods {
    ($kind:ident, $what:literal) => {
        fn take_lock(&self, wait: $crate::patience::Wait) -> Result<Option<Acquired<LockGuard<'_>>>> {
            let (session, segment) = self.object.shared(Kind::$kind)?;
            LockGuard::take(session, segment, wait)
        }

        #[doc = concat!("Takes the ", $what, "'s own lock, waiting for as long as it takes. It keeps out those who take it, too, and nobody else.")]
        /// It is a [`Lock`](crate::Lock) like others: without a system call while nobody else wants it, and given back when its holder dies.
        ///
        /// # Errors
        /// `Deadlock` if this thread has it already; `Corrupt` if a process has written over the lock's words; disconnected, at once, when
        /// the manager ends.
        pub fn lock(&self) -> Result<Acquired<LockGuard<'_>>> {
            let taken = self.take_lock($crate::patience::Wait::Until(None))?;
            taken.map_or_else(|| unreachable!("there is no deadline"), Ok)
        }

        /// Takes the lock if nobody has it.
        ///
        /// # Errors
        /// Disconnected, when the manager has ended.
        pub fn try_lock(&self) -> Result<Option<Acquired<LockGuard<'_>>>> {
            self.take_lock($crate::patience::Wait::Not)
        }

        /// Takes the lock, or returns `None` when it has waited for `timeout`.
        ///
        /// # Errors
        /// As [`lock`](Self::lock).
        pub fn lock_timeout(&self, timeout: Duration) -> Result<Option<Acquired<LockGuard<'_>>>> {
            self.take_lock($crate::patience::Wait::Until($crate::patience::deadline_after(timeout)))
        }

        /// Runs `body` under the lock. It is given how the lock was got: after a holder's death what is in here may be half written.
        ///
        /// # Errors
        /// As [`lock`](Self::lock), and `body`'s own.
        ///
        /// ```
        /// # commonhold::init_in_tests!();
        /// # fn main() -> commonhold::Result<()> {
        /// # let manager = commonhold::Manager::start()?;
        /// let pair = manager.array([10u64, 20])?;
        /// let sum = pair.with_lock(|held| {
        ///     if held.owner_died() {
        ///         pair.fill(15)?;                           // whoever was killed in here: make it whole again
        ///     }
        ///     pair.set(0, pair.get(0)? - 1)?;
        ///     pair.set(1, pair.get(1)? + 1)?;
        ///     Ok(pair.get(0)? + pair.get(1)?)               // nobody who takes the lock sees anything else
        /// })?;
        /// assert_eq!(sum, 30);
        /// # Ok(())
        /// # }
        /// ```
        pub fn with_lock<R>(&self, body: impl FnOnce(&Acquired<LockGuard<'_>>) -> Result<R>) -> Result<R> {
            body(&self.lock()?)
        }

        /// Who has the lock now.
        ///
        /// # Errors
        /// Disconnected, when the manager has ended.
        pub fn lock_holder(&self) -> Result<Option<Party>> {
            let (session, segment) = self.object.shared(Kind::$kind)?;
            let holder = commonhold_ipc::sync::Lock::new(segment, commonhold_ipc::segment::HEADER_BYTES).holder()?;
            holder.map_or(Ok(None), |claim| Party::of(session, claim))
        }
    };
}
pub(crate) use block_lock_methods;
