//! Locks and their kin, as their users see them. The words are in `ipc::sync`; here is who calls, how one waits, and guards.

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
use commonhold_ipc::limits::{LOCK_PATIENCE_MS, LOCK_RESERVATION_MS};
use commonhold_ipc::liveness::{Slept, sleep_until};
use commonhold_ipc::map::Segment;
use commonhold_ipc::socket::Spin;
use commonhold_ipc::sync::turns::{Obstacle, Prize, RESERVED};
use commonhold_ipc::sync::{Claim, Waiting};
use commonhold_ipc::sys::barrier_for_registered;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

thread_local!(static SPIN: RefCell<Spin> = RefCell::new(Spin::new()));

/// A moment so far away; none if no clock will ever show it.
pub(crate) fn deadline_after(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// How long a caller waits.
#[derive(Clone, Copy)]
pub(crate) enum Wait {
    /// Not at all.
    Not,
    /// Until then; for ever if it is never.
    Until(Option<Instant>),
}

/// Looks at why something could not be had at once. If that is a reservation that this thread has seen before, so long ago that
/// whoever it is for will not come, takes it away: who only tries must not be kept out by one who is stopped.
#[cold]
fn try_again<P: Prize>(prize: &P, me: Claim, segment: &Segment) -> Option<P::Taken> {
    thread_local!(static SEEN: Cell<Option<(usize, Obstacle, Instant)>> = const { Cell::new(None) });
    let here = std::ptr::from_ref(segment).addr();
    let obstacle = prize.obstacle().ok().filter(|obstacle| obstacle.word & RESERVED != 0)?;
    match SEEN.get() {
        Some((there, seen, since)) if (there, seen) == (here, obstacle) => {
            if since.elapsed() < Duration::from_millis(LOCK_RESERVATION_MS) {
                return None;
            }
            SEEN.set(None);
            prize.revoke(obstacle);
            prize.try_take(me)
        }
        _ => {
            SEEN.set(Some((here, obstacle, Instant::now())));
            None
        }
    }
}

/// Looks again and again for a while, if that is likely to pay. Whether it has become `ready`.
pub(crate) fn spin(ready: &mut dyn FnMut() -> bool) -> bool {
    // Not while the thread's storage is being torn down.
    SPIN.try_with(|spin| spin.try_borrow_mut().is_ok_and(|mut spin| spin.wait(&mut *ready))).unwrap_or(false)
}

/// How a caller waits for what is in a segment.
pub(crate) struct Patience<'s> {
    session: &'s SessionCore,
    alive: &'s AtomicU32,
    since: Instant,
    deadline: Option<Instant>,
}

impl<'s> Patience<'s> {
    /// Waits from now on, until the deadline at the longest.
    pub fn until(session: &'s SessionCore, deadline: Option<Instant>) -> Result<Self> {
        Ok(Patience { session, alive: session.alive_word()?, since: Instant::now(), deadline })
    }
}

impl Waiting<Segment> for Patience<'_> {
    fn spin(&self, ready: &mut dyn FnMut() -> bool) -> bool {
        spin(ready)
    }

    fn spin_apart(&self, apart_ns: u64, ready: &mut dyn FnMut() -> bool) -> bool {
        let spin = |spin: &RefCell<Spin>| spin.try_borrow_mut().is_ok_and(|mut spin| spin.wait_apart(apart_ns, &mut *ready));
        SPIN.try_with(spin).unwrap_or(false)
    }

    fn sleep(&self, word: &AtomicU32, expected: u32, most_ms: u64) -> Result<Slept> {
        let slice = Instant::now() + Duration::from_millis(most_ms);
        let slept = sleep_until(word, expected, self.alive, Some(self.deadline.map_or(slice, |deadline| deadline.min(slice))))?;
        self.session.check()?;
        Ok(slept)
    }

    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    fn fence_others(&self) -> bool {
        !self.session.has_barriers() || barrier_for_registered().is_ok()
    }

    fn is_long(&self) -> bool {
        self.since.elapsed() >= Duration::from_millis(LOCK_PATIENCE_MS)
    }

    fn knows(&self, claim: Claim) -> Result<bool> {
        Ok(self.session.who(claim.session())?.is_some())
    }
}

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
        fn take_lock(&self, wait: $crate::sync::Wait) -> Result<Option<Acquired<LockGuard<'_>>>> {
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
            let taken = self.take_lock($crate::sync::Wait::Until(None))?;
            taken.map_or_else(|| unreachable!("there is no deadline"), Ok)
        }

        /// Takes the lock if nobody has it.
        ///
        /// # Errors
        /// Disconnected, when the manager has ended.
        pub fn try_lock(&self) -> Result<Option<Acquired<LockGuard<'_>>>> {
            self.take_lock($crate::sync::Wait::Not)
        }

        /// Takes the lock, or returns `None` when it has waited for `timeout`.
        ///
        /// # Errors
        /// As [`lock`](Self::lock).
        pub fn lock_timeout(&self, timeout: Duration) -> Result<Option<Acquired<LockGuard<'_>>>> {
            self.take_lock($crate::sync::Wait::Until($crate::sync::deadline_after(timeout)))
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
