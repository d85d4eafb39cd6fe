//! Condition: who waits for something gives a lock back, sleeps, and has the lock again when it wakes.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 288 | [lock](super::lock), unless it was made with a lock that is an object of its own |
//! | 288 | 4 | eventcount |
//! | 320 | 256 | roster of those who wait, as far as it has room |
//!
//! A waiter prepares to sleep before it gives the lock back, so who changes something under the lock and notifies afterwards
//! reaches it. It may wake without having been notified: when another waiter's process, which may have been the one that was
//! notified, has died.

use super::{Claim, Eventcount, LOCK_BYTES, Memory, Roster, Waiting};
use crate::error::Result;
use crate::limits::LOCK_LOOK_MS;
use crate::liveness::{Slept, disconnected};
use crate::points;

/// Bytes of a condition.
pub const CONDITION_BYTES: usize = ROSTER + 8 * SLOTS;

const WAITERS: usize = LOCK_BYTES;
const ROSTER: usize = LOCK_BYTES + 32;
const SLOTS: usize = 32;

/// The words at an offset, as a condition.
pub struct Condition<'m, M: Memory + ?Sized> {
    memory: &'m M,
    at: usize,
}

impl<'m, M: Memory + ?Sized> Condition<'m, M> {
    /// The condition at this offset.
    #[inline(always)]
    pub fn new(memory: &'m M, at: usize) -> Self {
        Condition { memory, at }
    }

    fn waiters(&self) -> Eventcount<'m, M> {
        Eventcount::new(self.memory, self.at + WAITERS)
    }

    /// Those who wait, as far as the roster has room.
    pub fn roster(&self) -> Roster<'m, M> {
        Roster::new(self.memory, self.at + ROSTER, SLOTS)
    }

    /// Sleeps until somebody notifies, after having given the lock back by `release`. `false`: the time is over.
    pub fn wait(&self, me: Claim, release: impl FnOnce(), waiting: &impl Waiting<M>) -> Result<bool> {
        let slot = self.roster().enter(me);
        let prepared = self.waiters().prepare();
        points::client("condition: before the lock is given back");
        release();
        let notified = self.sleep(prepared, waiting);
        if let Some(slot) = slot {
            self.roster().leave(slot);
        }
        notified
    }

    fn sleep(&self, prepared: u32, waiting: &impl Waiting<M>) -> Result<bool> {
        loop {
            match self.waiters().sleep(prepared, waiting, LOCK_LOOK_MS)? {
                Slept::Woken => return Ok(true),
                Slept::ManagerDied => return Err(disconnected()),
                Slept::TimedOut if waiting.is_over() => return Ok(false),
                Slept::TimedOut => {}
            }
        }
    }

    /// Wakes one who waits, if anybody does.
    pub fn notify_one(&self) {
        self.waiters().notify_one();
    }

    /// Wakes all who wait.
    pub fn notify_all(&self) {
        self.waiters().notify_all();
    }

    /// A session is over: who waits looks again.
    pub fn recover(&self, session: u64) {
        self.roster().recover(session);
        self.waiters().recover();
    }
}
