//! Where everything of a queue lies in its segment: computed once from what the queue was made with, and kept in private memory, since
//! the segment is foreign.
//!
//! | offset | bytes | what | written |
//! |---|---|---|---|
//! | 64 | 32 | capacity, units, most attempts (0: any number), 1 if what is done is counted | at its making |
//! | 96, 104 | 8, 8 | items and units that may be claimed: those with lower numbers | by the manager |
//! | 112 | 8 | 1: closed, as far as it has been told | by who closes it |
//! | 128 | 16 | eventcounts: items, room, the end of all work, dead letters | by sleepers and who wakes them |
//! | 144, 152 | 8, 8 | items and units that have memory behind them: no fewer | by the manager |
//! | 160 | 4 | eventcount: room, for those who must know of any | by sleepers and who wakes them |
//! | 192, 256 | 8, 8 | tail and head of the ring | by all |
//! | 320, 328 | 8, 8 | tail and head of what came back | by all |
//! | 384, 392 | 8, 8 | tail and head of the dead letters | by all |
//! | 512 | … | cells of the three rings, 8 bytes each | by all |
//! | page | … | the units' words, 8 bytes each | by all |
//! | page | … | items, 128 bytes each | by their owners |
//! | page | … | units, 1024 bytes each | by their items' owners |

use super::item::{self, ITEM_BYTES};
use super::nonsense;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{QUEUE_BYTES_MAX, QUEUE_CAPACITY_MAX, QUEUE_IN_HANDS_MAX, QUEUE_IN_HANDS_MIN};
use crate::segment::Shape;
use crate::sync::{Memory, Word};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64};

const PARAMETERS: usize = 64;
pub(super) const OPEN: [usize; 2] = [96, 104];
pub(super) const BACKED: [usize; 2] = [144, 152];
pub(super) const CLOSED: usize = 112;
pub(super) const EVENTS: usize = 128;
pub(super) const ANY_ROOM: usize = 160;
const TAIL: usize = 192;
const HEAD: usize = 256;
const RETURNED_ENDS: usize = 320;
const DEAD_ENDS: usize = 384;
const CELLS: usize = 512;
const PAGE: usize = 4096;

/// The ring of items that wait.
pub(super) const MAIN: usize = 0;
/// Of items that came back.
pub(super) const RETURNED: usize = 1;
/// Of items that came back too often.
pub(super) const DEAD: usize = 2;

/// Items that have memory behind them from the start: 16 KiB.
const ITEMS_AT_FIRST: u32 = 128;
/// Least units that are given memory at a time: 64 KiB.
const UNITS_AT_FIRST: u64 = 64;

/// Bytes of a unit.
pub(super) const UNIT_BYTES: usize = 1024;

/// What a queue is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Items that may wait.
    pub capacity: u64,
    /// Bytes of their payloads, but for those that fit into their items.
    pub bytes_max: u64,
    /// How often an item may be leased before it is a dead letter; 0: any number of times.
    pub attempts_max: u64,
    /// Whether an item counts as unfinished until its receiver says that it is done.
    pub joinable: bool,
}

impl Parameters {
    /// As words.
    pub fn words(&self) -> [u64; 4] {
        [self.capacity, self.bytes_max.div_ceil(UNIT_BYTES as u64), self.attempts_max, u64::from(self.joinable)]
    }

    /// Sees that such a queue can be.
    ///
    /// # Errors
    /// `OutOfRange`.
    pub fn check(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::new(ErrorKind::OutOfRange, text));
        if !(1..=QUEUE_CAPACITY_MAX).contains(&self.capacity) {
            return refuse(format!("a queue for {} items cannot be made: from 1 to {QUEUE_CAPACITY_MAX}", self.capacity));
        }
        if self.bytes_max > QUEUE_BYTES_MAX {
            return refuse(format!("a queue of {} bytes cannot be made: the most is {QUEUE_BYTES_MAX}", self.bytes_max));
        }
        if self.attempts_max >= 1 << 31 {
            return refuse(format!("an item cannot have {} attempts: the most is 2147483647", self.attempts_max));
        }
        Ok(())
    }
}

/// Where a ring lies.
#[derive(Debug)]
pub(super) struct RingPlan {
    pub tail: usize,
    pub head: usize,
    pub cells: usize,
    /// The ring has 2 to the power of this cells.
    pub bits: u32,
}

/// What grows while a queue is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// Its items.
    Items,
    /// Its units.
    Units,
}

impl Region {
    /// The region of a code, as it travels.
    pub fn from_code(code: u64) -> Option<Region> {
        [Region::Items, Region::Units].into_iter().find(|region| *region as u64 == code)
    }
}

/// Where everything lies, and this process's own hints.
#[derive(Debug)]
pub struct Plan {
    parameters: [u64; 4],
    pub(super) items: u32,
    pub(super) units: u32,
    rings: [RingPlan; 3],
    pub(super) unit_words: usize,
    pub(super) items_at: usize,
    pub(super) units_at: usize,
    /// Where to look next for a free item, and for a free unit.
    pub(super) item_cursor: AtomicU32,
    pub(super) unit_cursor: AtomicU32,
    /// The head of the ring as it was seen last.
    pub(super) head_seen: AtomicU64,
}

impl Plan {
    /// The plan of a queue made with these words.
    ///
    /// # Errors
    /// `OutOfRange`.
    pub fn new(words: [u64; 4]) -> Result<Plan> {
        let [capacity, units, attempts_max, joinable] = words;
        let bytes_max = units.saturating_mul(UNIT_BYTES as u64);
        Parameters { capacity, bytes_max, attempts_max, joinable: joinable != 0 }.check()?;
        let in_hands = capacity.clamp(QUEUE_IN_HANDS_MIN, QUEUE_IN_HANDS_MAX);
        // A page holds 32 items.
        let items = (capacity + in_hands).next_multiple_of(32);
        Ok(Plan::with(words, items as u32, PAGE))
    }

    /// The same with so many items: for models, which need very few.
    #[doc(hidden)]
    pub fn with(parameters: [u64; 4], items: u32, page: usize) -> Plan {
        let bits = |most: u64| (most + 1).next_power_of_two().trailing_zeros();
        let (main, side) = (bits(parameters[0]), bits(items.into()));
        let returned = CELLS + (8 << main);
        let dead = returned + (8 << side);
        let unit_words = (dead + (8 << side)).next_multiple_of(page);
        let units = parameters[1] as u32;
        let items_at = (unit_words + 8 * units as usize).next_multiple_of(page);
        let units_at = (items_at + ITEM_BYTES * items as usize).next_multiple_of(page);
        Plan {
            parameters,
            items,
            units,
            rings: [
                RingPlan { tail: TAIL, head: HEAD, cells: CELLS, bits: main },
                RingPlan { tail: RETURNED_ENDS, head: RETURNED_ENDS + 8, cells: returned, bits: side },
                RingPlan { tail: DEAD_ENDS, head: DEAD_ENDS + 8, cells: dead, bits: side },
            ],
            unit_words,
            items_at,
            units_at,
            item_cursor: AtomicU32::new(0),
            unit_cursor: AtomicU32::new(0),
            head_seen: AtomicU64::new(0),
        }
    }

    /// The plan of the queue in a segment of so many bytes.
    ///
    /// # Errors
    /// `Corrupt` if what stands there is no queue of that size.
    pub fn of(segment: &impl Memory, bytes: usize) -> Result<Plan> {
        let words = std::array::from_fn(|n| segment.word(PARAMETERS + 8 * n).load());
        let plan = Plan::new(words).map_err(|_| nonsense())?;
        if plan.bytes() == bytes { Ok(plan) } else { Err(nonsense()) }
    }

    /// What the segment of a new queue is like.
    pub fn shape(&self) -> Shape {
        let mut words: Vec<(usize, u64)> = self.parameters.iter().enumerate().map(|(n, word)| (PARAMETERS + 8 * n, *word)).collect();
        let items = self.at_first(Region::Items);
        words.extend([(OPEN[0], items), (BACKED[0], items)]);
        words.extend((0..items as u32).map(|index| (self.item(index), item::FREE)));
        let backed = [0..self.unit_words as u64, self.range(Region::Items, 0, items)];
        Shape { backed: backed.into(), ..Shape::whole(self.bytes() as u64, words) }
    }

    /// Bytes of the segment.
    pub fn bytes(&self) -> usize {
        self.units_at + self.units as usize * UNIT_BYTES
    }

    /// Items that may wait.
    #[inline(always)]
    pub fn capacity(&self) -> u64 {
        self.parameters[0]
    }

    /// How often an item may be leased before it is a dead letter; 0: any number of times.
    #[inline(always)]
    pub fn attempts_max(&self) -> u64 {
        self.parameters[2]
    }

    /// Whether an item counts as unfinished until its receiver says that it is done.
    #[inline(always)]
    pub fn is_joinable(&self) -> bool {
        self.parameters[3] != 0
    }

    /// Where an item lies. The number is bounded by the caller.
    #[inline(always)]
    pub(super) fn item(&self, index: u32) -> usize {
        self.items_at + index as usize * ITEM_BYTES
    }

    /// Where a unit lies. The number is bounded by the caller.
    #[inline(always)]
    pub(super) fn unit(&self, unit: u32) -> usize {
        self.units_at + unit as usize * UNIT_BYTES
    }

    #[inline(always)]
    pub(super) fn ring(&self, which: usize) -> &RingPlan {
        &self.rings[which]
    }

    /// Items or units that have memory behind them from the start.
    pub fn at_first(&self, region: Region) -> u64 {
        match region {
            Region::Items => self.items.min(ITEMS_AT_FIRST).into(),
            Region::Units => 0,
        }
    }

    /// How many items or units should have memory, if so many are wanted: rounded to what fills pages.
    pub fn growth(&self, region: Region, wanted: u64) -> u64 {
        match region {
            Region::Items => wanted.next_multiple_of(u64::from(ITEMS_AT_FIRST)).min(self.items.into()),
            Region::Units => wanted.next_multiple_of(UNITS_AT_FIRST).min(self.units.into()),
        }
    }

    /// The bytes of items or units from one number up to another, both of which [`growth`](Self::growth) has rounded.
    pub fn range(&self, region: Region, from: u64, to: u64) -> Range<u64> {
        let (start, each) = match region {
            Region::Items => (self.items_at, ITEM_BYTES),
            Region::Units => (self.units_at, UNIT_BYTES),
        };
        let at = |number: u64| (start as u64 + number * each as u64).next_multiple_of(PAGE as u64).min(self.bytes() as u64);
        at(from)..at(to)
    }

    /// The bytes of the words that go with them, but are not in them.
    pub fn words_range(&self, region: Region, from: u64, to: u64) -> Range<u64> {
        let at = |number: u64| (self.unit_words as u64 + 8 * number).next_multiple_of(PAGE as u64);
        match region {
            Region::Items => 0..0,
            Region::Units => at(from)..at(to),
        }
    }
}

const _: () = assert!(QUEUE_BYTES_MAX / (UNIT_BYTES as u64) < u32::MAX as u64 - 2, "a unit's word names any unit");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overlaps_and_everything_fits() {
        for capacity in [1, 2, 63, 64, 65, 1000, 131_071, QUEUE_CAPACITY_MAX] {
            for bytes_max in [0, 1, 1 << 20, QUEUE_BYTES_MAX] {
                let plan = Plan::new(Parameters { capacity, bytes_max, attempts_max: 0, joinable: false }.words()).unwrap();
                let [main, returned, dead] = &plan.rings;
                assert!(1 << main.bits > capacity && 1 << returned.bits > u64::from(plan.items));
                assert!(main.cells + (8 << main.bits) <= returned.cells && returned.cells + (8 << returned.bits) <= dead.cells);
                assert!(dead.cells + (8 << dead.bits) <= plan.unit_words);
                assert!(plan.unit_words + 8 * plan.units as usize <= plan.items_at);
                assert!(plan.items_at + ITEM_BYTES * plan.items as usize <= plan.units_at);
                assert!(plan.items as u64 >= capacity + 64);
                assert!(plan.units as u64 * 1024 >= bytes_max);
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for words in [[0, 1, 0, 0], [QUEUE_CAPACITY_MAX + 1, 1, 0, 0], [1, QUEUE_BYTES_MAX, 0, 0], [1, u64::MAX, 0, 0], [1, 1, 1 << 31, 0]]
        {
            assert_eq!(Plan::new(words).unwrap_err().kind(), ErrorKind::OutOfRange);
        }
    }
}
