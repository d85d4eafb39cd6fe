//! Semaphore: permits, of which each that is held says who holds it.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | permits that there can be: slots |
//! | 8 | 8 | *used*: all slots beyond are absent |
//! | 16 | 272 | [turns](super::turns) |
//! | 288 | 8 × permits | slots |
//!
//! | slot | meaning | who writes it |
//! |---|---|---|
//! | 0 | free | who gives the permit back |
//! | ABSENT | no permit: consumed for good, or not made yet | who consumed it |
//! | claim | held | its taker, by exchange of a free slot |
//! | claim + RESERVED | free, but for that waiter | who gave it back |
//!
//! A permit is one word, so it is never half taken. What the dead held is free again. A permit that was *consumed* is nobody's: it
//! comes back only when somebody adds one.

use super::turns::{DIED, Obstacle, Prize, RESERVED, TURNS_BYTES, Turns};
use super::{Claim, FLAGS, Memory, Roster, Waiting, Word, scribbled};
use crate::error::Result;
use crate::points;

/// Bytes of a semaphore without its slots.
pub const SEMAPHORE_BYTES: usize = SLOTS;

/// Offset of the number of permits that there can be.
pub const PERMITS: usize = 0;
/// Offset of the number of slots that are not all absent.
pub const USED: usize = 8;
const TURNS: usize = 16;
const SLOTS: usize = TURNS + TURNS_BYTES;

/// What a slot without a permit holds.
pub const ABSENT: u64 = FLAGS;

/// The words at an offset, as a semaphore.
pub struct Semaphore<'m, M: Memory + ?Sized> {
    memory: &'m M,
    at: usize,
    permits: usize,
}

impl<'m, M: Memory + ?Sized> Semaphore<'m, M> {
    /// The semaphore at this offset, with room for no more than `slots_max`; an error if it says that it has more.
    #[inline(always)]
    pub fn new(memory: &'m M, at: usize, slots_max: usize) -> Result<Self> {
        let permits = memory.word(at + PERMITS).load();
        if permits > slots_max as u64 {
            return Err(scribbled("semaphore"));
        }
        Ok(Semaphore { memory, at, permits: permits as usize })
    }

    #[inline(always)]
    fn slot(&self, index: usize) -> &'m M::Word {
        self.memory.word(self.at + SLOTS + 8 * index)
    }

    #[inline(always)]
    fn used(&self) -> usize {
        (self.memory.word(self.at + USED).load() as usize).min(self.permits)
    }

    #[inline(always)]
    fn turns(&self) -> Turns<'m, M> {
        Turns::new(self.memory, self.at + TURNS)
    }

    /// Those who wait, as far as the roster has room.
    pub fn roster(&self) -> Roster<'m, M> {
        self.turns().roster()
    }

    /// Takes a permit if one is free: its number.
    #[inline]
    pub fn try_take(&self, me: Claim) -> Option<usize> {
        let used = self.used();
        // From a place on that is likely to be the caller's alone.
        let first = if used == 0 { 0 } else { me.thread() as usize % used };
        (first..used).chain(0..first).find(|index| {
            let slot = self.slot(*index);
            let word = slot.load();
            (word == 0 || word == me.word() | RESERVED) && slot.compare_exchange(word, me.word()).is_ok()
        })
    }

    /// Takes a permit, or waits for one; none if the time is over first.
    #[cold]
    pub fn take(&self, me: Claim, waiting: &impl Waiting<M>) -> Result<Option<usize>> {
        self.turns().take(self, me, waiting)
    }

    /// Gives a permit back. The caller has it.
    #[inline]
    pub fn release(&self, permit: usize) {
        self.turns().release(|free| {
            self.slot(permit).swap(free);
        });
    }

    /// A permit that the caller has is gone for good.
    pub fn consume(&self, permit: usize) {
        self.slot(permit).swap(ABSENT);
    }

    /// One more permit. `false`: there are as many as there can be.
    pub fn add(&self) -> bool {
        let mut added = false;
        self.turns().release(|free| {
            added = (0..self.permits).any(|index| {
                if self.slot(index).load() != ABSENT {
                    return false;
                }
                // First: a permit beyond would be found by nobody, should this process die in between.
                self.raise_used(index as u64 + 1);
                points::client("semaphore: before a permit is added");
                self.slot(index).compare_exchange(ABSENT, free).is_ok()
            });
        });
        added
    }

    fn raise_used(&self, least: u64) {
        let used = self.memory.word(self.at + USED);
        let mut now = used.load();
        while now < least {
            match used.compare_exchange(now, least) {
                Ok(()) => return,
                Err(other) => now = other,
            }
        }
    }

    /// Permits that nobody holds.
    pub fn available(&self) -> usize {
        (0..self.used()).filter(|index| self.slot(*index).load() == 0).count()
    }

    /// Who holds permits: one claim for each.
    pub fn holders(&self) -> Vec<Claim> {
        let words = (0..self.used()).map(|index| self.slot(index).load());
        words.filter(|word| *word & FLAGS == 0).filter_map(Claim::of).collect()
    }

    /// A session is over: the permits that it held are free.
    pub fn recover(&self, session: u64) {
        for index in 0..self.used() {
            let word = self.slot(index).load();
            if Claim::is_of(word, session) {
                let _ = self.slot(index).compare_exchange(word, 0);
            }
        }
        self.turns().recover(session);
    }
}

impl<M: Memory + ?Sized> Prize for Semaphore<'_, M> {
    type Taken = usize;

    fn try_take(&self, me: Claim) -> Option<usize> {
        Semaphore::try_take(self, me)
    }

    fn obstacle(&self) -> Result<Obstacle> {
        let words = (0..self.used()).map(|index| Obstacle { index, word: self.slot(index).load() });
        let mut held = Obstacle { index: 0, word: 0 };
        for obstacle in words.filter(|obstacle| obstacle.word != ABSENT) {
            let sound = obstacle.word & DIED == 0 && Claim::of(obstacle.word).is_none_or(|claim| claim.session() != 0);
            if !sound {
                return Err(scribbled("semaphore"));
            }
            if obstacle.word & RESERVED != 0 {
                return Ok(obstacle);
            }
            held = obstacle;
        }
        Ok(held)
    }

    fn disclaim(&self, me: Claim) -> bool {
        let mine = me.word() | RESERVED;
        let slots = (0..self.used()).map(|index| self.slot(index)).filter(|slot| slot.load() == mine);
        slots.filter(|slot| slot.compare_exchange(mine, 0).is_ok()).count() > 0
    }

    fn revoke(&self, obstacle: Obstacle) {
        let _ = self.slot(obstacle.index).compare_exchange(obstacle.word, 0);
    }
}
