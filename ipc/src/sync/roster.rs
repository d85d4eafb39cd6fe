//! Roster: slots with claims, of those who wait, read or hold one of several.
//!
//! | slot | meaning | who writes it |
//! |---|---|---|
//! | 0 | free | the owner, or the manager for a dead one |
//! | claim, with flags of the kind's | taken | the owner, by exchange of 0 |

use super::{Claim, Memory, Word};

/// Slots side by side.
pub struct Roster<'m, M: Memory + ?Sized> {
    memory: &'m M,
    at: usize,
    slots: usize,
}

impl<'m, M: Memory + ?Sized> Roster<'m, M> {
    /// So many slots at an offset.
    #[inline(always)]
    pub fn new(memory: &'m M, at: usize, slots: usize) -> Self {
        Roster { memory, at, slots }
    }

    /// The word of a slot.
    #[inline(always)]
    pub fn slot(&self, index: usize) -> &'m M::Word {
        self.memory.word(self.at + 8 * index)
    }

    /// Takes a free slot, from a place on that is likely to be the caller's alone; none if all are taken.
    pub fn enter(&self, claim: Claim) -> Option<usize> {
        let first = claim.thread() as usize % self.slots;
        let places = (first..self.slots).chain(0..first);
        places.into_iter().find(|index| self.slot(*index).load() == 0 && self.slot(*index).compare_exchange(0, claim.word()).is_ok())
    }

    /// Frees a slot that the caller has.
    pub fn leave(&self, index: usize) {
        self.slot(index).swap(0);
    }

    /// The claims in the slots.
    pub fn claims(&self) -> impl Iterator<Item = Claim> + '_ {
        (0..self.slots).filter_map(|index| Claim::of(self.slot(index).load()))
    }

    /// Frees the slots of a session that is over.
    pub fn recover(&self, session: u64) {
        for index in 0..self.slots {
            let slot = self.slot(index);
            let word = slot.load();
            if Claim::is_of(word, session) {
                // Nobody but its owner changes it, and that is gone.
                let _ = slot.compare_exchange(word, 0);
            }
        }
    }
}
