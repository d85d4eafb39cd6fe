//! Blocks that the newest version does not refer to any more, but that a pinned version may.
//!
//! A block lives in the versions `born..retired_at`. It may be freed when no pinned version lies in that interval. (To free
//! only what was retired before the oldest pin would be simpler, but then one stopped reader held all garbage made after it;
//! so it holds only what its own version refers to.)
//!
//! Blocks wait in two places:
//! - `fresh`: retired since the last [`Retired::reclaim`], grouped by the version that retired them, oldest first;
//! - `parked`: known to be held, each under one pin that holds it, the newest in its interval.
//!
//! `reclaim` empties `fresh`. Groups retired at or before the oldest pin are freed unseen; every other block is tested once
//! and freed or parked. A parked block is tested again only when the pin that it is parked under is gone: so a block costs
//! one test for every pin that held it, however many reclaims go by and however many blocks come and go meanwhile. Parking
//! under any one holder is enough: while it is there the block is held, whatever other pins do.
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::mem::take;

/// Fresh blocks and groups for which memory is kept from one reclaim to the next.
const FRESH_KEPT: usize = 16 * 1024;

/// A claim on versions. Pins are ordered by their version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pin {
    /// Exactly this version.
    At(u64),
    /// This version and all newer ones: a floor.
    From(u64),
}

impl Pin {
    /// The version pinned, the oldest one of a floor.
    pub fn version(self) -> u64 {
        match self {
            Pin::At(version) | Pin::From(version) => version,
        }
    }

    /// Whether a pinned version lies in `born..retired_at`.
    fn holds(self, born: u64, retired_at: u64) -> bool {
        match self {
            Pin::At(version) => born <= version && version < retired_at,
            Pin::From(version) => version < retired_at && born < retired_at,
        }
    }
}

impl Ord for Pin {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |pin: &Pin| (pin.version(), matches!(pin, Pin::From(_)));
        rank(self).cmp(&rank(other))
    }
}

impl PartialOrd for Pin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A block that waits to be freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetiredBlock {
    /// The allocator's number of it.
    pub number: u64,
    /// The version that allocated it, 0 if that is not known any more.
    pub born: u64,
    /// Its bytes, rounded up to its class.
    pub size: u64,
    /// The first version that does not refer to it.
    pub retired_at: u64,
}

struct Parked {
    blocks: Vec<RetiredBlock>,
    bytes: u64,
}

/// The retired blocks of one arena.
#[derive(Default)]
pub struct Retired {
    /// Blocks retired since the last reclaim, by ascending `retired_at`.
    fresh: Vec<RetiredBlock>,
    /// How many blocks of `fresh` each version retired, ascending.
    groups: Vec<(u64, usize)>,
    parked: BTreeMap<Pin, Parked>,
    /// An empty vector whose memory the next new pin's blocks use.
    spare: Vec<RetiredBlock>,
    /// The newest version that ever retired a block.
    newest: u64,
    held_bytes: u64,
    len: usize,
}

impl Retired {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds blocks that one version has retired: all have this `retired_at`.
    ///
    /// # Panics
    ///
    /// If that version is older than one of a call before, or a block was born after it was retired.
    #[inline]
    pub fn retire(&mut self, retired_at: u64, blocks: impl ExactSizeIterator<Item = RetiredBlock>) {
        assert!(self.newest <= retired_at, "blocks were retired in version {} already, now in {retired_at}", self.newest);
        self.newest = retired_at;
        let count = blocks.len();
        self.fresh.reserve(count);
        self.len += count;
        for block in blocks {
            debug_assert_eq!(block.retired_at, retired_at, "a group is of one version");
            assert!(block.born <= retired_at, "a block was retired before its birth");
            self.held_bytes += block.size;
            self.fresh.push(block);
        }
        match self.groups.last_mut() {
            Some((version, blocks)) if *version == retired_at => *blocks += count,
            _ => self.groups.push((retired_at, count)),
        }
    }

    /// Calls `free` with the number of every block that none of `pins` holds, and forgets the block. `pins` is ascending and
    /// without duplicates.
    pub fn reclaim(&mut self, pins: &[Pin], mut free: impl FnMut(u64)) {
        debug_assert!(pins.is_sorted_by(|a, b| a < b), "pins are ascending, without duplicates");
        let holders = Holders::new(pins);
        self.reclaim_parked(&holders, &mut free);
        self.reclaim_fresh(&holders, &mut free);
    }

    /// Tests the blocks whose pin is gone.
    fn reclaim_parked(&mut self, holders: &Holders, free: &mut impl FnMut(u64)) {
        let mut pins = holders.pins.iter().peekable();
        let mut gone = Vec::new();
        for &holder in self.parked.keys() {
            while pins.next_if(|&&pin| pin < holder).is_some() {}
            if pins.peek() != Some(&&holder) {
                gone.push(holder);
            }
        }
        for holder in gone {
            let parked = self.parked.remove(&holder).expect("it was just seen");
            let mut blocks = parked.blocks;
            for block in blocks.drain(..) {
                self.test(block, holders.latest_before(block.retired_at), holders, free);
            }
            if (self.spare.capacity()..=FRESH_KEPT).contains(&blocks.capacity()) {
                self.spare = blocks;
            }
        }
    }

    /// Tests the blocks that no reclaim has seen yet.
    fn reclaim_fresh(&mut self, holders: &Holders, free: &mut impl FnMut(u64)) {
        let (mut fresh, mut groups) = (take(&mut self.fresh), take(&mut self.groups));
        let mut blocks = fresh.drain(..);
        for (retired_at, count) in groups.drain(..) {
            let latest = holders.latest_before(retired_at);
            for block in blocks.by_ref().take(count) {
                match latest {
                    None => self.forget(block, free),
                    latest => self.test(block, latest, holders, free),
                }
            }
        }
        drop(blocks);
        fresh.shrink_to(FRESH_KEPT);
        groups.shrink_to(FRESH_KEPT);
        (self.fresh, self.groups) = (fresh, groups);
    }

    /// Parks or frees a block. `latest` is the newest pin before the block was retired.
    #[inline]
    fn test(&mut self, block: RetiredBlock, latest: Option<Pin>, holders: &Holders, free: &mut impl FnMut(u64)) {
        let holder = latest.into_iter().chain(holders.floor).find(|pin| pin.holds(block.born, block.retired_at));
        match holder {
            Some(pin) => {
                let spare = &mut self.spare;
                let parked = self.parked.entry(pin).or_insert_with(|| Parked { blocks: take(spare), bytes: 0 });
                parked.bytes += block.size;
                parked.blocks.push(block);
            }
            None => self.forget(block, free),
        }
    }

    #[inline]
    fn forget(&mut self, block: RetiredBlock, free: &mut impl FnMut(u64)) {
        self.held_bytes -= block.size;
        self.len -= 1;
        free(block.number);
    }

    /// Number of blocks that were retired and not freed yet.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether every retired block has been freed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the blocks that were retired and not freed yet.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Bytes of the blocks that the last reclaim found held by a pin at or from `version`. A block that several pins hold
    /// counts for the newest of them only.
    pub fn held_by(&self, version: u64) -> u64 {
        self.parked.range(Pin::At(version)..=Pin::From(version)).map(|(_, parked)| parked.bytes).sum()
    }

    /// The oldest pinned version that the last reclaim found to hold a block.
    pub fn oldest_holder(&self) -> Option<u64> {
        self.parked.keys().next().map(|pin| pin.version())
    }

    /// All blocks that were retired and not freed yet, in no particular order.
    pub fn blocks(&self) -> impl Iterator<Item = RetiredBlock> + '_ {
        self.parked.values().flat_map(|parked| &parked.blocks).chain(&self.fresh).copied()
    }
}

/// The pins of one reclaim.
struct Holders<'a> {
    pins: &'a [Pin],
    /// The lowest floor. Whatever is retired after it is held.
    floor: Option<Pin>,
}

impl<'a> Holders<'a> {
    fn new(pins: &'a [Pin]) -> Self {
        Holders { pins, floor: pins.iter().copied().find(|pin| matches!(pin, Pin::From(_))) }
    }

    /// The newest pin of a version before `retired_at`: if it is exact and does not hold a block retired then, no exact pin
    /// does, for older ones are still further before the block's birth.
    #[inline]
    fn latest_before(&self, retired_at: u64) -> Option<Pin> {
        let before = self.pins.partition_point(|pin| pin.version() < retired_at);
        before.checked_sub(1).map(|last| self.pins[last])
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    impl Retired {
        fn retire_at(&mut self, offset: u64, born: u64, size: u64, retired_at: u64) {
            self.retire(retired_at, std::iter::once(RetiredBlock { number: offset, born, size, retired_at }));
        }
    }

    fn naively_held(block: &RetiredBlock, pins: &[Pin]) -> bool {
        (block.born..block.retired_at).any(|version| {
            pins.iter().any(|pin| match *pin {
                Pin::At(at) => at == version,
                Pin::From(floor) => floor <= version,
            })
        })
    }

    fn pin() -> impl Strategy<Value = Pin> {
        prop_oneof![4 => (0..40_u64).prop_map(Pin::At), 1 => (0..60_u64).prop_map(Pin::From)]
    }

    /// One round: how far versions move, how old each block retired is, and the pins of the reclaim that follows.
    type Round = (Vec<(u64, u64)>, Vec<Pin>);

    fn round() -> impl Strategy<Value = Round> {
        let pins = btree_set(pin(), 0..5).prop_map(|pins| pins.into_iter().collect());
        (vec((0..3_u64, 0..12_u64), 0..8), pins)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn frees_exactly_what_no_pin_holds(rounds in vec(round(), 1..20)) {
            let mut retired = Retired::new();
            let mut model: Vec<RetiredBlock> = Vec::new();
            let mut version = 0;
            let mut offset = 0;
            for (blocks, pins) in rounds {
                for (step, age) in blocks {
                    version += step;
                    offset += 64;
                    // Age 11 stands for a birth that is not known.
                    let born = if age == 11 { 0 } else { version.saturating_sub(age) };
                    retired.retire_at(offset, born, offset % 320, version);
                    model.push(RetiredBlock { number: offset, born, size: offset % 320, retired_at: version });
                }
                let mut freed = Vec::new();
                retired.reclaim(&pins, |offset| freed.push(offset));
                freed.sort_unstable();
                let (held, free): (Vec<_>, Vec<_>) = model.into_iter().partition(|block| naively_held(block, &pins));
                model = held;
                prop_assert_eq!(freed, free.iter().map(|block| block.number).collect::<Vec<_>>());
                let mut listed: Vec<_> = retired.blocks().collect();
                listed.sort_unstable_by_key(|block| block.number);
                prop_assert_eq!(&listed, &model);
                prop_assert_eq!(retired.len(), model.len());
                prop_assert_eq!(retired.is_empty(), model.is_empty());
                prop_assert_eq!(retired.held_bytes(), model.iter().map(|block| block.size).sum::<u64>());
                let versions: std::collections::BTreeSet<_> = pins.iter().map(|pin| pin.version()).collect();
                prop_assert_eq!(retired.held_bytes(), versions.iter().map(|&version| retired.held_by(version)).sum::<u64>());
                prop_assert!(retired.oldest_holder().is_none_or(|version| versions.contains(&version)));
                prop_assert_eq!(retired.oldest_holder().is_none(), model.is_empty());
            }
            retired.reclaim(&[], |_| ());
            prop_assert!(retired.is_empty() && retired.held_bytes() == 0);
        }
    }

    #[test]
    fn one_old_pin_holds_its_version_and_nothing_newer() {
        const OLD: u64 = 1000;
        let mut retired = Retired::new();
        // Ten blocks of the pinned version, retired one by one while a million newer ones come and go, each pinned for a
        // while by a reader of the newest version.
        let mut freed = 0_u64;
        for step in 0..1_000_000_u64 {
            let version = OLD + 2 + step;
            if step % 100_000 == 0 {
                retired.retire_at(8 * step, OLD - step / 100_000, 64, version);
            }
            retired.retire_at(1 << 40 | step, version - 1, 128, version);
            if step % 10 == 9 {
                retired.reclaim(&[Pin::At(OLD), Pin::At(version - 3)], |offset| {
                    assert!(offset >= 1 << 40, "a block of the pinned version was freed");
                    freed += 1;
                });
                assert!(retired.len() <= 11 && retired.held_by(OLD) <= 10 * 64);
            }
        }
        assert!(freed >= 1_000_000 - 1);
        retired.reclaim(&[Pin::At(OLD)], |_| freed += 1);
        assert_eq!((retired.len(), retired.held_by(OLD), retired.held_bytes()), (10, 640, 640));
        assert_eq!((freed, retired.oldest_holder()), (1_000_000, Some(OLD)));
        assert!(retired.fresh.capacity() <= 2 * FRESH_KEPT && retired.parked[&Pin::At(OLD)].blocks.capacity() <= 16);
        retired.reclaim(&[Pin::At(OLD + 1)], |_| freed += 1);
        assert_eq!(freed, 1_000_010 - 10, "a block retired after OLD + 1 is in its version too");
        retired.reclaim(&[], |_| freed += 1);
        assert_eq!((freed, retired.len(), retired.oldest_holder()), (1_000_010, 0, None));
    }

    #[test]
    fn a_parked_block_is_not_looked_at_while_its_pin_is_there() {
        let mut retired = Retired::new();
        for offset in 0..100 {
            retired.retire_at(offset, 0, 16, 10);
        }
        retired.reclaim(&[Pin::At(3), Pin::At(7)], |_| unreachable!());
        assert_eq!((retired.held_by(3), retired.held_by(7)), (0, 1600));
        let blocks = retired.parked[&Pin::At(7)].blocks.as_ptr();
        retired.reclaim(&[Pin::At(7), Pin::From(12)], |_| unreachable!());
        assert_eq!(retired.parked[&Pin::At(7)].blocks.as_ptr(), blocks);
        retired.reclaim(&[Pin::From(2)], |_| unreachable!());
        assert_eq!((retired.held_by(2), retired.held_by(7), retired.oldest_holder()), (1600, 0, Some(2)));
    }

    #[test]
    fn a_block_born_and_retired_in_one_version_is_held_by_nobody() {
        let mut retired = Retired::new();
        retired.retire_at(64, 5, 16, 5);
        let mut freed = Vec::new();
        retired.reclaim(&[Pin::From(0), Pin::At(4), Pin::At(5)], |offset| freed.push(offset));
        assert_eq!(freed, [64]);
    }

    #[test]
    #[should_panic(expected = "already")]
    fn versions_do_not_go_back() {
        let mut retired = Retired::new();
        retired.retire_at(64, 1, 16, 5);
        retired.retire_at(128, 1, 16, 4);
    }
}
