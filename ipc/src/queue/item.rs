//! An item's words.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | state, see the head of `queue` |
//! | 8 | 8 | claim of who published it last: whose it is if no cell says that it was published |
//! | 16 | 4 | bytes of the payload |
//! | 20 | 4 | how often it has been leased; the highest bit: it was delivered, and is not done |
//! | 24 | 4 | 1 + its first unit, or 0: the payload is here |
//! | 28 | 4 | zeros |
//! | 32 | 8 | number under which the manager keeps what its handles refer to, or 0 |
//! | 40 | 88 | the payload, if it is no longer than that |

use super::{Queue, Room};
use crate::sync::{Claim, FLAGS, Word};

/// Bytes of an item.
pub const ITEM_BYTES: usize = 128;
/// Where a short payload lies.
pub const INLINE: usize = 40;
/// How long it may be.
pub const INLINE_BYTES: usize = ITEM_BYTES - INLINE;
const OWNER: usize = 8;
const LEN: usize = 16;
const FIRST: usize = 24;
const TICKET: usize = 32;

/// No memory behind it.
pub const ABSENT: u64 = 0;
/// Free: a claim's bit that no claim has alone, since sessions are numbered from 1.
pub const FREE: u64 = 1 << 2;
/// Flags of a claim; none: busy.
pub const TAKEN: u64 = 1;
/// As above.
pub const LEASED: u64 = 2;
const PUBLISHED: u64 = 3;
const _: () = assert!(PUBLISHED == FLAGS);
const RING_SHIFT: u32 = 2;
const POSITION_SHIFT: u32 = 4;
/// The mark of an item that was delivered, and is not done.
const DELIVERED: u64 = 1 << 63;
const ATTEMPTS_SHIFT: u32 = 32;

/// The state of an item that is published in a ring.
#[inline(always)]
pub fn published(ring: usize, position: u64) -> u64 {
    PUBLISHED | (ring as u64) << RING_SHIFT | position << POSITION_SHIFT
}

/// What a state says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Or there is no memory behind it.
    Free,
    Busy(Claim),
    Taken(Claim),
    Leased(Claim),
    /// In this ring, at this position (without its highest bits).
    Published(usize, u64),
}

impl State {
    pub fn of(word: u64) -> State {
        match (word & FLAGS, Claim::of(word)) {
            _ if word == FREE => State::Free,
            (PUBLISHED, _) => State::Published((word >> RING_SHIFT & 3) as usize, word >> POSITION_SHIFT),
            (TAKEN, Some(claim)) => State::Taken(claim),
            (LEASED, Some(claim)) => State::Leased(claim),
            (_, Some(claim)) => State::Busy(claim),
            (_, None) => State::Free,
        }
    }
}

impl<'m, M: Room + ?Sized> Queue<'m, M> {
    #[inline(always)]
    pub(super) fn state(&self, index: u32) -> &'m M::Word {
        self.memory.word(self.plan.item(index))
    }

    #[inline(always)]
    pub(super) fn owner(&self, index: u32) -> &'m M::Word {
        self.memory.word(self.plan.item(index) + OWNER)
    }

    #[inline(always)]
    fn len_word(&self, index: u32) -> &'m M::Word {
        self.memory.word(self.plan.item(index) + LEN)
    }

    /// Length and first unit, as they stand there.
    #[inline(always)]
    pub(super) fn head(&self, index: u32) -> (usize, u32) {
        let first = self.memory.word(self.plan.item(index) + FIRST).load();
        ((self.len_word(index).load() as u32) as usize, first as u32)
    }

    /// Writes the head of an item that is being filled: no attempts yet.
    #[inline(always)]
    pub(super) fn write_head(&self, index: u32, len: usize, first: u32, ticket: u64) {
        self.len_word(index).set(len as u64);
        self.memory.word(self.plan.item(index) + FIRST).set(first.into());
        self.memory.word(self.plan.item(index) + TICKET).set(ticket);
    }

    /// The number under which the manager keeps what the item's handles refer to; 0: it has none.
    #[inline(always)]
    pub fn ticket(&self, index: u32) -> u64 {
        self.memory.word(self.plan.item(index) + TICKET).load()
    }

    pub(super) fn attempts(&self, index: u32) -> u32 {
        ((self.len_word(index).load() & !DELIVERED) >> ATTEMPTS_SHIFT) as u32
    }

    pub(super) fn raise_attempts(&self, index: u32) -> u32 {
        let attempts = self.attempts(index).wrapping_add(1) & !(1 << 31);
        let len = self.len_word(index).load() as u32;
        self.len_word(index).set(u64::from(attempts) << ATTEMPTS_SHIFT | u64::from(len));
        attempts
    }

    pub(super) fn is_delivered(&self, index: u32) -> bool {
        self.len_word(index).load() & DELIVERED != 0
    }

    pub(super) fn mark_delivered(&self, index: u32) {
        self.len_word(index).set(self.len_word(index).load() | DELIVERED);
    }

    pub(super) fn unmark_delivered(&self, index: u32) {
        self.len_word(index).set(self.len_word(index).load() & !DELIVERED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_apart() {
        let claim = Claim::new(7, 9);
        assert_eq!((State::of(ABSENT), State::of(FREE)), (State::Free, State::Free));
        assert_ne!(Claim::new(1, 1).word(), FREE);
        assert_eq!(State::of(claim.word()), State::Busy(claim));
        assert_eq!(State::of(claim.word() | TAKEN), State::Taken(claim));
        assert_eq!(State::of(claim.word() | LEASED), State::Leased(claim));
        for (ring, position) in [(0, 0), (1, 5), (2, (1 << 60) - 1)] {
            assert_eq!(State::of(published(ring, position)), State::Published(ring, position));
        }
    }
}
