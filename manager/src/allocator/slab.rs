//! Slabs: runs of pages cut into blocks of one size, with one bit and one birth date a block.
//!
//! Small blocks (up to 8 KiB) come in 63 classes of size, each in slabs of 64 KiB; a larger block is a slab of its own. The
//! smallest class has 4096 blocks a slab, so 64 words of 64 bits tell which blocks are free, and one more word, the summary,
//! tells which of those words have a free block: two `trailing_zeros` find the lowest free block. A fresh slab therefore
//! hands out ascending, adjacent offsets.
//!
//! A block's birth is the version that allocated it, kept as a distance of 32 bits from the slab's `born_base`. Distance 0
//! stands for "ancient": the birth is no longer known and reads as version 0, which is always safe, for it only lets more
//! pins hold the block and never fewer. A free block has the largest distance of all, so that who looks a block up need not
//! look at the bitmap as well. When a distance would not fit below that, the base moves up to 2³¹ versions behind, and blocks
//! born before that become ancient.
use super::pages::PAGE_BYTES;

/// Number of classes of small blocks.
pub(super) const CLASSES: usize = 63;
/// In place of a class: a slab of one large block.
pub(super) const LARGE: u8 = CLASSES as u8;
/// Largest block that shares a slab with others.
pub(super) const SMALL_BYTES_MAX: u64 = 8192;
/// Pages of a slab of small blocks.
pub(super) const SLAB_PAGES: u32 = 16;
/// No slab.
pub(super) const NONE: u32 = u32::MAX;

const SLAB_BYTES: u64 = SLAB_PAGES as u64 * PAGE_BYTES;
/// Lengths are looked up in steps of this: the smallest step between two classes.
const STEP: u64 = 8;
const BITS: u32 = u64::BITS;
/// In place of a birth's distance: the block is free.
const FREE: u32 = u32::MAX;
/// Versions behind the newest whose births stay exact when the base moves.
const EXACT_VERSIONS: u64 = 1 << 31;

/// Block size of each class: 16 to 128 in steps of 8, then each power of two in eight steps, up to 8192.
static SIZES: [u32; CLASSES] = sizes();
/// Class of each length, by the length in steps of 8, rounded up.
static CLASS_OF: [u8; (SMALL_BYTES_MAX / STEP + 1) as usize] = class_of_lengths();
/// The fewest bytes of blocks that fit in a slab, over all classes: what remains at its end is lost.
pub(super) const FILL_BYTES_MIN: u64 = fill_bytes_min();

const fn sizes() -> [u32; CLASSES] {
    let mut sizes = [0; CLASSES];
    let mut size: u32 = 16;
    let mut class = 0;
    while class < CLASSES {
        sizes[class] = size;
        // The eighth part of the power of two that is at or below the size.
        let step = (1 << size.ilog2()) / 8;
        size += if step < STEP as u32 { STEP as u32 } else { step };
        class += 1;
    }
    assert!(sizes[CLASSES - 1] as u64 == SMALL_BYTES_MAX);
    sizes
}

const fn class_of_lengths() -> [u8; (SMALL_BYTES_MAX / STEP + 1) as usize] {
    let sizes = sizes();
    let mut classes = [0; (SMALL_BYTES_MAX / STEP + 1) as usize];
    let mut class = 0;
    let mut at = 0;
    while at < classes.len() {
        if at as u64 * STEP > sizes[class] as u64 {
            class += 1;
        }
        classes[at] = class as u8;
        at += 1;
    }
    classes
}

const fn fill_bytes_min() -> u64 {
    let sizes = sizes();
    let mut fewest = SLAB_BYTES;
    let mut class = 0;
    while class < CLASSES {
        let size = sizes[class] as u64;
        let fill = SLAB_BYTES / size * size;
        if fill < fewest {
            fewest = fill;
        }
        class += 1;
    }
    fewest
}

/// The class of small blocks of at least `len` bytes, which is at most [`SMALL_BYTES_MAX`].
#[inline]
pub(super) fn class_of(len: u64) -> u8 {
    CLASS_OF[len.div_ceil(STEP) as usize]
}

/// One slab. A record without pages is vacant.
pub(super) struct Slab {
    pub(super) first_page: u32,
    pub(super) pages: u32,
    /// Bytes of a block.
    pub(super) size: u32,
    /// 2³² / size, rounded up, to divide by a multiplication; 0 for a large block, whose only index is 0.
    reciprocal: u32,
    capacity: u32,
    /// Blocks that are allocated.
    pub(super) used: u32,
    /// Neighbours in the list of the class's slabs that have free blocks.
    pub(super) before: u32,
    pub(super) after: u32,
    pub(super) class: u8,
    /// Bit w: word w of `free` is not 0.
    summary: u64,
    /// Bit i: block i is free.
    free: Box<[u64]>,
    born_base: u64,
    /// Distance of each block's birth from `born_base`; 0: ancient; [`FREE`] if it has none.
    born: Box<[u32]>,
}

impl Slab {
    /// A slab with all its blocks free.
    pub(super) fn new(first_page: u32, pages: u32, class: u8) -> Self {
        let (size, capacity, reciprocal) = if class == LARGE {
            ((u64::from(pages) * PAGE_BYTES) as u32, 1, 0)
        } else {
            let size = SIZES[class as usize];
            (size, SLAB_BYTES as u32 / size, (1_u64 << 32).div_ceil(u64::from(size)) as u32)
        };
        let mut free = vec![u64::MAX; capacity.div_ceil(BITS) as usize].into_boxed_slice();
        if !capacity.is_multiple_of(BITS) {
            free[(capacity / BITS) as usize] = (1 << (capacity % BITS)) - 1;
        }
        let summary = u64::MAX >> (BITS - free.len() as u32);
        let born = vec![FREE; capacity as usize].into_boxed_slice();
        Slab { first_page, pages, size, reciprocal, capacity, used: 0, before: NONE, after: NONE, class, summary, free, born_base: 0, born }
    }

    /// A record that can be used again.
    pub(super) fn vacant() -> Self {
        Slab {
            first_page: 0,
            pages: 0,
            size: 0,
            reciprocal: 0,
            capacity: 0,
            used: 0,
            before: NONE,
            after: NONE,
            class: LARGE,
            summary: 0,
            free: Box::default(),
            born_base: 0,
            born: Box::default(),
        }
    }

    /// Bytes of the bitmap and the births, which the record only points to.
    pub(super) fn heap_bytes(&self) -> u64 {
        self.free.len() as u64 * 8 + self.born.len() as u64 * 4
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.used == self.capacity
    }

    /// Pages by which this slab is found. A large block is only ever looked for at its start.
    pub(super) fn lookup_pages(&self) -> u32 {
        if self.class == LARGE { 1 } else { self.pages }
    }

    #[inline]
    fn start(&self) -> u64 {
        u64::from(self.first_page) * PAGE_BYTES
    }

    /// Allocates the lowest free block and returns its offset. There is one.
    #[inline(always)]
    pub(super) fn take(&mut self, version: u64) -> u64 {
        if self.used == 0 {
            // No birth to remember: the first block's is then at distance 1.
            self.born_base = version.saturating_sub(1);
        }
        let word = self.summary.trailing_zeros();
        let bits = &mut self.free[word as usize];
        let index = word * BITS + bits.trailing_zeros();
        *bits &= *bits - 1;
        if *bits == 0 {
            self.summary &= self.summary - 1;
        }
        self.used += 1;
        self.born[index as usize] = self.distance_of(version);
        self.offset_of(index)
    }

    /// An allocated block changes hands: it is as if it had been freed and allocated by this version. Returns its offset.
    #[inline(always)]
    pub(super) fn bear_again(&mut self, index: u32, version: u64) -> u64 {
        self.born[index as usize] = self.distance_of(version);
        self.offset_of(index)
    }

    /// Where a block starts.
    #[inline]
    pub(super) fn offset_of(&self, index: u32) -> u64 {
        self.start() + u64::from(index) * u64::from(self.size)
    }

    /// Whether this block is allocated.
    #[inline]
    pub(super) fn has(&self, index: u32) -> bool {
        self.born.get(index as usize).is_some_and(|distance| *distance != FREE)
    }

    /// Frees an allocated block.
    #[inline]
    pub(super) fn give(&mut self, index: u32) {
        let word = index / BITS;
        self.free[word as usize] |= 1 << (index % BITS);
        self.summary |= 1 << word;
        self.used -= 1;
        self.born[index as usize] = FREE;
    }

    /// Index and birth of the allocated block that starts exactly at `offset`, which lies on a page of this slab's lookup.
    #[inline(always)]
    pub(super) fn look(&self, offset: u64) -> Option<(u32, u64)> {
        let within = (offset - self.start()) as u32;
        let index = self.quotient(within);
        let distance = *self.born.get(index as usize)?;
        (distance != FREE && index * self.size == within).then(|| (index, self.birth(distance)))
    }

    /// `within` / `size` for `within` < 2¹⁶. The reciprocal is too large by less than size / 2³², hence the product by less
    /// than 2¹⁶ · 2¹³ / 2³² < 1 / size: never enough to reach the next integer.
    #[inline]
    fn quotient(&self, within: u32) -> u32 {
        ((u64::from(within) * u64::from(self.reciprocal)) >> 32) as u32
    }

    /// The version that allocated this block; 0 if it is not known any more.
    #[inline]
    pub(super) fn born(&self, index: u32) -> u64 {
        self.birth(self.born[index as usize])
    }

    #[inline(always)]
    fn birth(&self, distance: u32) -> u64 {
        if distance == 0 { 0 } else { self.born_base + u64::from(distance) }
    }

    #[inline(always)]
    fn distance_of(&mut self, version: u64) -> u32 {
        // A version at or before the base cannot be told: ancient.
        let distance = version.saturating_sub(self.born_base);
        if distance < u64::from(FREE) { distance as u32 } else { self.rebase(version) }
    }

    /// Moves the base up to 2³¹ versions before `version`, whose distance this returns.
    #[cold]
    fn rebase(&mut self, version: u64) -> u32 {
        let base = version - EXACT_VERSIONS;
        let moved = base - self.born_base;
        for distance in self.born.iter_mut().filter(|distance| **distance != FREE) {
            // Births at or before the new base become 0: ancient.
            *distance = u64::from(*distance).saturating_sub(moved) as u32;
        }
        self.born_base = base;
        EXACT_VERSIONS as u32
    }

    /// The allocated blocks, ascending, as (offset, size, born).
    pub(super) fn blocks(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        (0..self.capacity).filter(|index| self.has(*index)).map(|index| (self.offset_of(index), self.size.into(), self.born(index)))
    }

    /// Compares bitmap, births, summary and count.
    pub(super) fn check(&self) -> Result<(), String> {
        let is_free = |index: usize| self.free[index / BITS as usize] >> (index % BITS as usize) & 1 == 1;
        if let Some(index) = (0..self.born.len()).find(|&index| is_free(index) != (self.born[index] == FREE)) {
            return Err(format!(
                "slab of class {} at page {}: block {index} is free in its bitmap or by its birth alone",
                self.class, self.first_page
            ));
        }
        let free: u32 = self.free.iter().map(|bits| bits.count_ones()).sum();
        let beyond = !self.capacity.is_multiple_of(BITS) && self.free[(self.capacity / BITS) as usize] >> (self.capacity % BITS) != 0;
        let summary = self.free.iter().enumerate().fold(0, |summary, (word, &bits)| summary | (u64::from(bits != 0) << word));
        if beyond || summary != self.summary || free + self.used != self.capacity {
            return Err(format!(
                "slab of class {} at page {}: {free} free bits and {} used blocks of {}, summary {:#x} where {summary:#x} is right",
                self.class, self.first_page, self.used, self.capacity, self.summary
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_the_steps_that_the_module_promises() {
        let mut expected = Vec::new();
        for (from, to, step) in
            [(16, 128, 8), (144, 256, 16), (288, 512, 32), (576, 1024, 64), (1152, 2048, 128), (2304, 4096, 256), (4608, 8192, 512)]
        {
            expected.extend((from..=to).step_by(step));
        }
        assert_eq!(SIZES.to_vec(), expected);
        for len in 0..=SMALL_BYTES_MAX {
            let class = class_of(len) as usize;
            assert!(u64::from(SIZES[class]) >= len);
            assert!(class == 0 || u64::from(SIZES[class - 1]) < len, "{len} fits a smaller class");
        }
        assert_eq!(FILL_BYTES_MIN, 9 * 6656);
    }

    #[test]
    fn the_reciprocal_divides_exactly() {
        for class in 0..LARGE {
            let slab = Slab::new(0, SLAB_PAGES, class);
            for within in 0..SLAB_BYTES as u32 {
                assert_eq!(slab.quotient(within), within / slab.size);
            }
        }
    }

    #[test]
    fn a_fresh_slab_hands_out_adjacent_blocks_and_then_is_full() {
        for class in 0..LARGE {
            let mut slab = Slab::new(3, SLAB_PAGES, class);
            for index in 0..slab.capacity {
                assert_eq!(slab.take(7), 3 * PAGE_BYTES + u64::from(index * slab.size));
                assert_eq!(slab.born(index), 7);
            }
            assert!(slab.is_full());
            slab.check().unwrap();
            slab.give(slab.capacity / 2);
            slab.give(0);
            assert_eq!(slab.take(8), 3 * PAGE_BYTES);
            slab.check().unwrap();
        }
    }

    #[test]
    fn a_jump_of_versions_makes_old_births_ancient_and_keeps_recent_ones() {
        let mut slab = Slab::new(0, SLAB_PAGES, 0);
        let births = [5, 6, (1 << 31) + 7, (1 << 32) + 2];
        for version in births {
            slab.take(version);
        }
        assert_eq!([0, 1, 2, 3].map(|index| slab.born(index)), births);
        // 2³² + 3 is at distance 2³² − 1 of the base, which is 4: the base moves to 2³¹ + 3.
        slab.take((1 << 32) + 3);
        assert_eq!([0, 1, 2, 3, 4].map(|index| slab.born(index)), [0, 0, births[2], births[3], (1 << 32) + 3]);
        slab.check().unwrap();
        slab.take(1 << 60);
        slab.take((1 << 60) + 1);
        assert_eq!([2, 3, 4, 5, 6].map(|index| slab.born(index)), [0, 0, 0, 1 << 60, (1 << 60) + 1]);
        // A version before the base is not told.
        slab.take(3);
        assert_eq!(slab.born(7), 0);
        slab.take(u64::MAX);
        assert_eq!([5, 8].map(|index| slab.born(index)), [0, u64::MAX]);
    }

    #[test]
    fn version_zero_is_ancient_and_an_emptied_slab_forgets_its_base() {
        let mut slab = Slab::new(0, SLAB_PAGES, 0);
        slab.take(0);
        assert_eq!(slab.born(0), 0);
        slab.take(1);
        assert_eq!(slab.born(1), 1);
        slab.give(0);
        slab.give(1);
        slab.take(1 << 40);
        slab.take((1 << 40) + u64::from(u32::MAX) - 2);
        assert_eq!([0, 1].map(|index| slab.born(index)), [1 << 40, (1 << 40) + u64::from(u32::MAX) - 2]);
        assert_eq!(slab.born_base, (1 << 40) - 1);
        assert_eq!(slab.bear_again(0, (1 << 40) + u64::from(u32::MAX)), 0);
        assert_eq!([0, 1].map(|index| slab.born(index)), [(1 << 40) + u64::from(u32::MAX), (1 << 40) + u64::from(u32::MAX) - 2]);
        slab.check().unwrap();
    }
}
