//! Units: the room for payloads that do not fit into their item.
//!
//! A payload lies in a chain of units, wherever there are free ones: so there is no fragmentation, and no lock for finding room. Each
//! unit has a word in a table of its own, so that looking for free ones does not touch the payloads:
//!
//! | bits | what |
//! |---|---|
//! | 0–31 | 0: no memory behind it yet; 1: free; 2 + item: that item's, and so its owner's |
//! | 32–63 | 1 + the next unit of the chain; 0: the last |
//!
//! | from | to | who |
//! |---|---|---|
//! | no memory | free | the manager, which has put memory behind it |
//! | free | an item's | the item's owner, by exchange |
//! | an item's | free | the item's owner, while the item is *busy* |

use super::plan::{BACKED_UNITS, Plan};
use super::{Queue, Room, nonsense, too_large};
use crate::error::Result;
use crate::points;
use crate::sync::Word;
use rkyv::util::AlignedVec;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes of a unit.
pub const UNIT_BYTES: usize = 1024;
/// A free unit.
pub const FREE: u64 = 1;
const NEXT_SHIFT: u32 = 32;
/// More units than that are counted before they are claimed: else two senders who both find half of what they need could go on
/// claiming and giving back.
const COUNTED_FIRST: usize = 64;

/// The owner's half of a unit's word.
#[inline(always)]
fn owned(index: u32) -> u64 {
    u64::from(index) + 2
}

/// An item that is being filled.
#[derive(Debug)]
pub struct Filling {
    pub(super) index: u32,
    pub(super) len: usize,
    /// 1 + the first unit; 0: inline.
    pub(super) first: u32,
    /// Bytes to come.
    pub(super) left: usize,
    /// The unit that is being filled, and how far.
    unit: u32,
    at: usize,
    /// The number under which the manager keeps what the payload's handles refer to.
    pub ticket: u64,
}

impl Filling {
    pub(super) fn inline(index: u32, len: usize) -> Filling {
        Filling { index, len, first: 0, left: len, unit: 0, at: 0, ticket: 0 }
    }

    pub(super) fn chain(index: u32, len: usize, first: u32) -> Filling {
        Filling { index, len, first, left: len, unit: first - 1, at: 0, ticket: 0 }
    }

    /// Whether all of the payload is there.
    pub fn is_full(&self) -> bool {
        self.left == 0
    }
}

impl<'m, M: Room + ?Sized> Queue<'m, M> {
    #[inline(always)]
    pub(super) fn unit_word(&self, unit: u32) -> &'m M::Word {
        self.memory.word(self.plan.unit_words + 8 * unit as usize)
    }

    /// Units that have memory behind them.
    #[inline(always)]
    pub fn backed_units(&self) -> u32 {
        self.memory.word(BACKED_UNITS).load().min(self.plan.units.into()) as u32
    }

    /// Claims a chain of units for an item of the caller's, and says 1 + the first of them; none if there is no room now.
    pub(super) fn claim_units(&self, index: u32, len: usize) -> Result<Option<u32>> {
        let wanted = len.div_ceil(UNIT_BYTES);
        if wanted > self.plan.units as usize {
            return Err(too_large(len, self.plan.units));
        }
        let backed = self.backed_units();
        let is_large = wanted > COUNTED_FIRST;
        if wanted > backed as usize || (is_large && !self.has_free_units(backed, wanted)) {
            return Ok(None);
        }
        // Large ones from the first free unit on: what was freed a moment ago is still in the caches.
        let cursor = self.plan.unit_cursor.load(Relaxed);
        let start = if is_large || cursor >= backed { 0 } else { cursor };
        let (mut first, mut last, mut count) = (0, 0, 0);
        for unit in (start..backed).chain(0..start) {
            let word = self.unit_word(unit);
            if word.load() != FREE || word.compare_exchange(FREE, owned(index)).is_err() {
                continue;
            }
            if first == 0 {
                first = unit + 1;
                points::client("queue: a unit claimed");
            } else {
                self.unit_word(last).set(u64::from(unit + 1) << NEXT_SHIFT | owned(index));
            }
            last = unit;
            count += 1;
            if count == wanted {
                if !is_large {
                    self.plan.unit_cursor.store(unit + 1, Relaxed);
                }
                points::client("queue: all units claimed");
                return Ok(Some(first));
            }
        }
        self.free_units(index, first)?;
        self.space().notify_all();
        Ok(None)
    }

    fn has_free_units(&self, backed: u32, wanted: usize) -> bool {
        (0..backed).filter(|unit| self.unit_word(*unit).load() == FREE).take(wanted).count() == wanted
    }

    /// Copies the next bytes of the payload in. What is more than was asked for is left out.
    #[inline]
    pub fn fill(&self, filling: &mut Filling, bytes: &[u8]) -> Result<()> {
        let bytes = &bytes[..bytes.len().min(filling.left)];
        if filling.first == 0 {
            let at = self.plan.item(filling.index) + super::item::INLINE + (filling.len - filling.left);
            self.memory.put(at, bytes);
            filling.left -= bytes.len();
            return Ok(());
        }
        self.fill_units(filling, bytes)
    }

    fn fill_units(&self, filling: &mut Filling, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if filling.at == UNIT_BYTES {
                filling.unit = self.next_unit(filling.index, filling.unit)?.ok_or_else(nonsense)?;
                filling.at = 0;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(UNIT_BYTES - filling.at));
            self.memory.put(self.plan.unit(filling.unit) + filling.at, now);
            filling.at += now.len();
            filling.left -= now.len();
            bytes = rest;
        }
        Ok(())
    }

    /// The unit after one of an item's.
    #[inline]
    fn next_unit(&self, index: u32, unit: u32) -> Result<Option<u32>> {
        let word = self.unit_word(unit).load();
        let next = (word >> NEXT_SHIFT) as u32;
        if word as u32 != owned(index) as u32 || next > self.plan.units {
            return Err(nonsense());
        }
        Ok(next.checked_sub(1))
    }

    /// Copies a payload out.
    pub(super) fn read_units(&self, index: u32, len: usize, first: u32, out: &mut AlignedVec<16>) -> Result<()> {
        if len.div_ceil(UNIT_BYTES) > self.plan.units as usize || first > self.plan.units {
            return Err(nonsense());
        }
        out.reserve(len);
        let mut next = first.checked_sub(1);
        let mut left = len;
        while left > 0 {
            let unit = next.ok_or_else(nonsense)?;
            next = self.next_unit(index, unit)?;
            let now = left.min(UNIT_BYTES);
            self.memory.get(self.plan.unit(unit), now, out);
            left -= now;
        }
        Ok(())
    }

    /// Frees a chain of an item that the caller has. `first` as it stands there: 0 for none.
    pub(super) fn free_units(&self, index: u32, first: u32) -> Result<()> {
        if first > self.plan.units {
            return Err(nonsense());
        }
        let mut next = first.checked_sub(1);
        while let Some(unit) = next {
            // Ends: a unit that has been freed is not the item's any more.
            next = self.next_unit(index, unit)?;
            match next {
                Some(_) => self.unit_word(unit).set(FREE),
                // SYNC: orders the frees before the look for sleepers.
                None => drop(self.unit_word(unit).swap(FREE)),
            }
        }
        Ok(())
    }

    /// Frees all units of these items: for a recovery, which believes no chain.
    pub(super) fn free_all_units_of(&self, is_one: impl Fn(u32) -> bool) {
        for unit in 0..self.backed_units() {
            let word = self.unit_word(unit).load();
            if let Some(index) = (word as u32).checked_sub(2)
                && is_one(index)
            {
                self.unit_word(unit).set(FREE);
            }
        }
    }

    /// The manager has put memory behind units up to this number.
    pub(super) fn back_units(&self, backed: u32) {
        for unit in self.backed_units()..backed {
            let _ = self.unit_word(unit).compare_exchange(0, FREE);
        }
        self.memory.word(BACKED_UNITS).swap(backed.into());
    }

    /// Units that belong to an item.
    pub fn units_in_use(&self) -> u64 {
        (0..self.backed_units()).filter(|unit| self.unit_word(*unit).load() as u32 >= 2).count() as u64
    }
}

impl Plan {
    /// Where a unit lies. The number is bounded by the caller.
    #[inline(always)]
    fn unit(&self, unit: u32) -> usize {
        self.units_at + unit as usize * UNIT_BYTES
    }
}
