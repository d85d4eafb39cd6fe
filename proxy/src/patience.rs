//! How a caller waits for what is in memory: until when, how long it looks before it sleeps, and what it looks at then.

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
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

thread_local!(static SPIN: RefCell<Spin> = RefCell::new(Spin::new()));

/// A moment so far away; none if there is no time-out, or one whose end no clock will ever show.
pub fn deadline_after(timeout: impl Into<Option<Duration>>) -> Option<Instant> {
    Instant::now().checked_add(timeout.into()?)
}

/// How long a caller waits.
#[derive(Clone, Copy)]
pub enum Wait {
    /// Not at all.
    Not,
    /// Until then; for ever if it is never.
    Until(Option<Instant>),
}

/// Looks at why something could not be had at once. If that is a reservation that this thread has seen before, so long ago that
/// whoever it is for will not come, takes it away: who only tries must not be kept out by one who is stopped.
#[cold]
pub fn try_again<P: Prize>(prize: &P, me: Claim, segment: &Segment) -> Option<P::Taken> {
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
pub fn spin(ready: &mut dyn FnMut() -> bool) -> bool {
    // Not while the thread's storage is being torn down.
    SPIN.try_with(|spin| spin.try_borrow_mut().is_ok_and(|mut spin| spin.wait(&mut *ready))).unwrap_or(false)
}

/// How a caller waits for what is in a segment.
pub struct Patience<'s> {
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

    fn knows(&self, claim: Claim) -> Result<Option<bool>> {
        Ok(self.session.is_over(claim.session())?.map(|over| !over))
    }
}
