//! Event: a flag to wait for.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | *changes*: how often it was set or cleared; it is set when that is odd |
//! | 8 | 4 | eventcount |
//! | 16 | 256 | roster of those who wait, as far as it has room |
//!
//! Who waits and finds another number than when it came was waiting when the flag was set, even if it has been cleared since.

use super::{Claim, Eventcount, Memory, Roster, Waiting, Word};
use crate::error::Result;
use crate::limits::LOCK_LOOK_MS;
use crate::liveness::{Slept, disconnected};
use crate::points;

/// Bytes of an event.
pub const EVENT_BYTES: usize = 272;

const CHANGES: usize = 0;
const WAITERS: usize = 8;
const ROSTER: usize = 16;
const SLOTS: usize = 32;
const _: () = assert!(ROSTER + 8 * SLOTS == EVENT_BYTES);

/// The words at an offset, as an event.
pub struct Event<'m, M: Memory + ?Sized> {
    memory: &'m M,
    at: usize,
}

impl<'m, M: Memory + ?Sized> Event<'m, M> {
    /// The event at this offset.
    #[inline(always)]
    pub fn new(memory: &'m M, at: usize) -> Self {
        Event { memory, at }
    }

    #[inline(always)]
    fn changes(&self) -> &'m M::Word {
        self.memory.word(self.at + CHANGES)
    }

    /// Who waits for it to be set.
    pub fn waiters(&self) -> Eventcount<'m, M> {
        Eventcount::new(self.memory, self.at + WAITERS)
    }

    /// Those who wait, as far as the roster has room.
    pub fn roster(&self) -> Roster<'m, M> {
        Roster::new(self.memory, self.at + ROSTER, SLOTS)
    }

    /// Whether it is set.
    #[inline(always)]
    pub fn is_set(&self) -> bool {
        self.changes().load() & 1 == 1
    }

    /// How often it was set or cleared: odd while it is set. Another number than before: it was set meanwhile.
    #[inline(always)]
    pub fn change_count(&self) -> u64 {
        self.changes().load()
    }

    /// Makes it set, or not. Whether it was the other way before.
    pub fn change(&self, set: bool) -> bool {
        loop {
            let now = self.changes().load();
            if (now & 1 == 1) == set {
                return false;
            }
            if self.changes().compare_exchange(now, now.wrapping_add(1)).is_ok() {
                points::client("event: changed, nobody woken");
                if set {
                    self.waiters().notify_all();
                }
                return true;
            }
        }
    }

    /// Waits until it is set, or was; `false` if the time is over first.
    pub fn wait(&self, me: Claim, waiting: &impl Waiting<M>) -> Result<bool> {
        let first = self.changes().load();
        let happened = || first & 1 == 1 || self.changes().load() != first;
        if happened() || waiting.spin(&mut || happened()) {
            return Ok(true);
        }
        let slot = self.roster().enter(me);
        let happened = self.sleep(happened, waiting);
        if let Some(slot) = slot {
            self.roster().leave(slot);
        }
        happened
    }

    fn sleep(&self, happened: impl Fn() -> bool, waiting: &impl Waiting<M>) -> Result<bool> {
        loop {
            let prepared = self.waiters().prepare();
            if happened() {
                return Ok(true);
            }
            if waiting.is_over() {
                return Ok(false);
            }
            if self.waiters().sleep(prepared, waiting, LOCK_LOOK_MS)? == Slept::ManagerDied {
                return Err(disconnected());
            }
        }
    }

    /// A session is over: who sleeps looks again.
    pub fn recover(&self, session: u64) {
        self.roster().recover(session);
        self.waiters().recover();
    }
}
