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
//! | free | no memory | the manager, by exchange, before it takes the memory away |
//! | free | an item's | the item's owner, by exchange |
//! | an item's | free | the item's owner, while the item is *busy* |

use super::plan::{Region, UNIT_BYTES};
use super::{Queue, Room, nonsense, too_large};
use crate::error::Result;
use crate::points;
use crate::sync::Word;
use rkyv::util::AlignedVec;
use std::sync::atomic::Ordering::Relaxed;

/// A free unit.
pub const FREE: u64 = 1;
const NEXT_SHIFT: u32 = 32;
/// More units than that are claimed from the first free one on: what was freed a moment ago is still in the caches.
const LARGE: usize = 64;

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

    /// Claims a chain of units for an item of the caller's, and says 1 + the first of them; none if there is no room now.
    ///
    /// They are counted first, in the order in which they are claimed: else two senders who both find half of what they need could go on
    /// claiming and giving back. And who gives back tells all who wait for room, so that one who waits for it would wake itself, for ever.
    pub(super) fn claim_units(&self, index: u32, len: usize) -> Result<Option<u32>> {
        let wanted = len.div_ceil(UNIT_BYTES);
        if wanted > self.plan.units as usize {
            return Err(too_large(len, self.plan.units));
        }
        let open = self.open(Region::Units);
        let is_large = wanted > LARGE;
        let cursor = self.plan.unit_cursor.load(Relaxed);
        let start = if is_large || cursor >= open { 0 } else { cursor };
        let units = || (start..open).chain(0..start);
        let is_free = |unit: &u32| self.unit_word(*unit).load() == FREE;
        if wanted > open as usize || units().filter(is_free).take(wanted).count() < wanted {
            return Ok(None);
        }
        let (mut first, mut last, mut count) = (0, 0, 0);
        for unit in units() {
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
        self.tell_all_room();
        Ok(None)
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
            let start = self.plan.unit(filling.unit) + filling.at;
            let mut room = UNIT_BYTES - filling.at;
            // Units that lie side by side are filled in one go.
            while room < bytes.len() && self.next_unit(filling.index, filling.unit)? == Some(filling.unit + 1) {
                filling.unit += 1;
                room += UNIT_BYTES;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            self.memory.put(start, now);
            filling.at = UNIT_BYTES - (room - now.len());
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
        self.check_len(len, first)?;
        out.reserve(len);
        self.for_each_run(index, len, first, |at, len| self.memory.get(at, len, out))
    }

    /// The bytes of an item that the caller has taken, and that is the archive of bytes: these first, then at most three zeros, then where
    /// they begin (4) and how many they are (4). None if it is short, or something else. They are copied to where they stay.
    pub fn read_bytes(&self, index: u32) -> Result<Option<Vec<u8>>> {
        let (len, first) = self.head(index);
        if super::Queue::<M>::is_short(len) {
            return Ok(None);
        }
        self.check_len(len, first)?;
        let mut bytes = Vec::with_capacity(len);
        self.for_each_run(index, len, first, |at, len| self.memory.get_plain(at, len, &mut bytes))?;
        let Some((_, root)) = bytes.split_last_chunk::<8>() else { return Ok(None) };
        let [a, b, c, d, e, f, g, h] = *root;
        let (start, count) = (i32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]) as usize);
        let root = len - 8;
        let is_archive = root as i64 + i64::from(start) == 0 && count <= root && root - count < 4;
        bytes.truncate(count);
        Ok(is_archive.then_some(bytes))
    }

    fn check_len(&self, len: usize, first: u32) -> Result<()> {
        let is_sound = len.div_ceil(UNIT_BYTES) <= self.plan.units as usize && first <= self.plan.units;
        if is_sound { Ok(()) } else { Err(nonsense()) }
    }

    /// Calls `each` with the places and lengths of what lies side by side of a payload.
    fn for_each_run(&self, index: u32, len: usize, first: u32, mut each: impl FnMut(usize, usize)) -> Result<()> {
        let mut next = first.checked_sub(1);
        let mut left = len;
        while left > 0 {
            let start = next.ok_or_else(nonsense)?;
            let (mut last, mut run) = (start, left.min(UNIT_BYTES));
            next = self.next_unit(index, last)?;
            while run < left && next == Some(last + 1) {
                last += 1;
                run = left.min(run + UNIT_BYTES);
                next = self.next_unit(index, last)?;
            }
            each(self.plan.unit(start), run);
            left -= run;
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

    /// Units that belong to an item.
    pub fn units_in_use(&self) -> u64 {
        (0..self.backed_units()).filter(|unit| self.unit_word(*unit).load() as u32 >= 2).count() as u64
    }
}
