//! The allocator of the arena: blocks named by their byte offset, within a budget of backed bytes.
//!
//! Three layers, each in its own file, and the checks of all invariants in another:
//! - `pages`: runs of whole pages, backed by the system in growing chunks and given back by [`Allocator::trim`];
//! - `slab`: a run of pages cut into blocks of one size, with a bitmap and each block's birth;
//! - `retired`: blocks that nothing refers to any more, but that pinned versions may still read.
//!
//! This file ties slabs to size classes and finds the slab of an offset. A small block (up to 8 KiB) comes from the first
//! slab in its class's list of slabs with free blocks; a larger one is a run of whole pages, kept as a slab of one block. A
//! slab that fills up leaves the list; one that gets a block back joins its end, so that the slab in use is used up before
//! another one is begun. A class keeps one empty slab, as a buffer against handing pages to and fro; further ones go back
//! to the pages.
//!
//! Blocks that nobody needs any more can be *set aside* instead of freed: the next allocations of their class take them, the
//! last one first, and nothing but their birth is written anew. Until then they count as allocated in every respect; what is
//! not taken is freed by [`Allocator::release_set_aside`]. So a stream of changes, each of which takes as much as an earlier one
//! has left, turns over the same blocks, and neither bitmaps nor lists of slabs change at all.
//!
//! Everything here is private memory of the manager. Nothing is ever written into the arena, so no process that maps the
//! arena can confuse the allocator, and it never touches a page that it did not have to.
//!
//! Invariants ([`Allocator::check`]): slabs and free runs tile the usable range; a page leads to its slab and to no other; a
//! slab is in its class's list exactly if it has a free block; at most one slab of a class is empty; what is set aside is
//! allocated, and set aside once; counters equal sums.
mod check;
mod pages;
mod retired;
mod slab;
#[cfg(test)]
mod tests;

use std::ops::Range;

use commonhold_ipc::error::{Error, ErrorKind};
use commonhold_ipc::limits::{ARENA_BYTES_MAX, BLOCK_BYTES_MAX};

pub use pages::Backing;
use pages::{PAGE_BYTES, Pages, Refusal};
pub use retired::{Pin, Retired, RetiredBlock};
use slab::{CLASSES, FILL_BYTES_MIN, LARGE, NONE, SLAB_PAGES, SMALL_BYTES_MAX, Slab, class_of};

/// Classes that one series of allocations after [`Allocator::reserve`] may touch.
const RESERVED_CLASSES: u32 = 32;

/// What an allocator holds, in bytes where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Sum of the sizes of allocated blocks, each rounded up to its class.
    pub allocated_bytes: u64,
    /// Number of allocated blocks.
    pub blocks: u64,
    /// Arena with memory behind it: the pages of slabs and free backed pages.
    pub backed_bytes: u64,
    /// Whole pages that are free and have memory behind them.
    pub free_backed_bytes: u64,
    /// The most that may ever have memory behind it.
    pub budget_bytes: u64,
    /// Private memory that the allocator's own records take, estimated.
    pub metadata_bytes: u64,
}

/// The slabs of one class.
#[derive(Clone, Copy)]
struct Class {
    /// First and last of the list of slabs that have a free block.
    first: u32,
    last: u32,
    /// The one slab in the list that has no allocated block.
    empty: u32,
}

/// Blocks set aside for which a class keeps room from one time to the next.
const ASIDE_KEPT: usize = 4 * 1024;

/// Allocates blocks in the arena. See the module's head.
pub struct Allocator<B> {
    pages: Pages<B>,
    slabs: Vec<Slab>,
    /// Numbers in `slabs` that are not in use.
    vacant: Vec<u32>,
    /// Page number → number of its slab, or [`NONE`]. Of a large block only the first page is entered.
    slab_of_page: Vec<u32>,
    classes: [Class; CLASSES],
    /// The numbers of the blocks of each class that are set aside.
    aside: [Vec<u64>; CLASSES],
    allocated_bytes: u64,
    blocks: u64,
    slab_heap_bytes: u64,
}

impl<B: Backing> Allocator<B> {
    /// An allocator of the bytes `usable` (page aligned, no memory behind any of them yet), which never has more than
    /// `budget_bytes` (rounded down to whole pages) backed at a time.
    ///
    /// # Panics
    ///
    /// If `usable` is not page aligned or ends past [`ARENA_BYTES_MAX`].
    pub fn new(backing: B, usable: Range<u64>, budget_bytes: u64) -> Self {
        assert!(usable.start.is_multiple_of(PAGE_BYTES) && usable.end.is_multiple_of(PAGE_BYTES), "the arena is whole pages");
        assert!(usable.start <= usable.end && usable.end <= ARENA_BYTES_MAX, "the arena's length is within its limit");
        let budget = budget_bytes.min(ARENA_BYTES_MAX) / PAGE_BYTES;
        let usable = (usable.start / PAGE_BYTES) as u32..(usable.end / PAGE_BYTES) as u32;
        Allocator {
            pages: Pages::new(backing, usable, budget as u32),
            slabs: Vec::new(),
            vacant: Vec::new(),
            slab_of_page: Vec::new(),
            classes: [Class { first: NONE, last: NONE, empty: NONE }; CLASSES],
            aside: [const { Vec::new() }; CLASSES],
            allocated_bytes: 0,
            blocks: 0,
            slab_heap_bytes: 0,
        }
    }

    /// Allocates a block of at least `len` bytes, whose contents are undefined, and returns its offset: a multiple of 8, and
    /// of 16 if the block's size is one. `version` is what [`born`](Self::born) then tells.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Full`] if the budget or the arena's length is reached, [`ErrorKind::TooLarge`] above
    /// [`BLOCK_BYTES_MAX`], or what [`Backing::back`] gave, with its kind. Nothing is allocated then.
    #[inline(always)]
    pub fn allocate(&mut self, len: u64, version: u64) -> Result<u64, Error> {
        let (class, at) = if len <= SMALL_BYTES_MAX {
            let class = class_of(len);
            if let Some(number) = self.aside[class as usize].pop() {
                return Ok(self.slabs[(number >> 32) as usize].bear_again(number as u32, version));
            }
            match self.classes[class as usize].first {
                NONE => (class, self.add_small(class, len)?),
                first => (class, first),
            }
        } else {
            (LARGE, self.add_large(len)?)
        };
        let slab = &mut self.slabs[at as usize];
        let was_empty = slab.used == 0;
        let offset = slab.take(version);
        self.allocated_bytes += u64::from(slab.size);
        self.blocks += 1;
        if class != LARGE {
            if slab.is_full() {
                self.unlink(at);
            }
            if was_empty {
                self.classes[class as usize].empty = NONE;
            }
        }
        Ok(offset)
    }

    /// Frees a block. Its bytes stay as they are until it is allocated again or its pages are punched.
    ///
    /// # Panics
    ///
    /// If no allocated block starts at `offset`.
    #[inline]
    pub fn release(&mut self, offset: u64) {
        let (number, ..) = self.look(offset);
        self.give((number >> 32) as u32, number as u32);
    }

    /// Frees the block of this number, see [`look`](Self::look).
    ///
    /// # Panics
    ///
    /// If there is no such block.
    #[inline]
    pub fn release_number(&mut self, number: u64) {
        let (at, index) = ((number >> 32) as u32, number as u32);
        if !self.slabs.get(at as usize).is_some_and(|slab| slab.has(index)) {
            not_a_block(number);
        }
        self.give(at, index);
    }

    /// Sets the block of this number aside, for the next allocation of its class; a block of whole pages is freed.
    ///
    /// # Panics
    ///
    /// If there is no such block.
    #[inline]
    pub fn set_aside(&mut self, number: u64) {
        let (at, index) = ((number >> 32) as u32, number as u32);
        match self.slabs.get(at as usize).filter(|slab| slab.has(index)) {
            Some(slab) if slab.class == LARGE => self.give(at, index),
            Some(slab) => self.aside[slab.class as usize].push(number),
            None => not_a_block(number),
        }
    }

    /// Frees all blocks that are set aside.
    pub fn release_set_aside(&mut self) {
        for class in 0..CLASSES {
            let mut numbers = std::mem::take(&mut self.aside[class]);
            numbers.drain(..).for_each(|number| self.release_number(number));
            numbers.shrink_to(ASIDE_KEPT);
            self.aside[class] = numbers;
        }
    }

    #[inline(always)]
    fn give(&mut self, at: u32, index: u32) {
        let slab = &mut self.slabs[at as usize];
        let was_full = slab.is_full();
        slab.give(index);
        self.allocated_bytes -= u64::from(slab.size);
        self.blocks -= 1;
        if slab.used == 0 {
            self.emptied(at, was_full);
        } else if was_full {
            self.link_last(at);
        }
    }

    /// The version that allocated the block at `offset`. 0 stands for any version that is too long ago to tell.
    ///
    /// # Panics
    ///
    /// If no allocated block starts at `offset`.
    #[inline]
    pub fn born(&self, offset: u64) -> u64 {
        self.look(offset).1
    }

    /// The number by which the block is found again without a search, and what [`born`](Self::born) and [`size_of`](Self::size_of)
    /// say, with one look.
    ///
    /// # Panics
    ///
    /// If no allocated block starts at `offset`.
    #[inline(always)]
    pub fn look(&self, offset: u64) -> (u64, u64, u64) {
        match self.find(offset) {
            Some(found) => found,
            None => not_a_block(offset),
        }
    }

    /// Where the block of this number starts.
    pub fn offset_of(&self, number: u64) -> u64 {
        self.slabs[(number >> 32) as usize].offset_of(number as u32)
    }

    /// Bytes of the block at `offset`: the length it was allocated with, rounded up to its class.
    ///
    /// # Panics
    ///
    /// If no allocated block starts at `offset`.
    #[inline]
    pub fn size_of(&self, offset: u64) -> u64 {
        self.look(offset).2
    }

    /// Whether an allocated block starts exactly at `offset`, which may be any number.
    pub fn is_block(&self, offset: u64) -> bool {
        self.find(offset).is_some()
    }

    /// Sees to it that any series of allocations, in up to 32 different classes, whose sizes (rounded up to their classes)
    /// add up to at most `bytes` cannot fail, as long as nothing else is allocated in between and nothing is trimmed.
    ///
    /// What it takes is one run of free backed pages. A run keeps in one piece while pages are taken from its end, so it
    /// suffices that it is as long as all pages that the series may take: `bytes`, enlarged by what is lost at the ends of
    /// slabs (at most 9.4 %), and for each class one slab that the series does not fill.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate).
    #[inline]
    pub fn reserve(&mut self, bytes: u64) -> Result<(), Error> {
        let pages = reserved_pages(bytes);
        if pages <= u64::from(self.pages.longest_warm()) { Ok(()) } else { self.reserve_slowly(bytes, pages) }
    }

    /// Gives memory back to the system until at most `keep_bytes` of free pages have memory behind them. The slabs that
    /// classes keep empty count as free pages. What [`reserve`](Self::reserve) promised is void.
    pub fn trim(&mut self, keep_bytes: u64) {
        self.drop_empty_slabs();
        self.pages.trim((keep_bytes / PAGE_BYTES).min(u64::from(u32::MAX)) as u32);
    }

    /// What is held, in constant time.
    pub fn usage(&self) -> Usage {
        let records =
            self.slabs.capacity() * size_of::<Slab>() + (self.vacant.capacity() + self.slab_of_page.capacity()) * size_of::<u32>();
        let aside = self.aside.iter().map(Vec::capacity).sum::<usize>() * size_of::<u64>();
        Usage {
            allocated_bytes: self.allocated_bytes,
            blocks: self.blocks,
            backed_bytes: u64::from(self.pages.backed()) * PAGE_BYTES,
            free_backed_bytes: u64::from(self.pages.warm()) * PAGE_BYTES,
            budget_bytes: u64::from(self.pages.budget()) * PAGE_BYTES,
            metadata_bytes: (records + aside) as u64 + self.slab_heap_bytes + self.pages.metadata_bytes(),
        }
    }

    /// All allocated blocks, ascending, as (offset, size, born).
    pub fn blocks(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        let starts = |&(page, &at): &(usize, &u32)| at != NONE && self.slabs[at as usize].first_page as usize == page;
        self.slab_of_page.iter().enumerate().filter(starts).flat_map(|(_, &at)| self.slabs[at as usize].blocks())
    }

    /// What [`look`](Self::look) says of the allocated block that starts at `offset`, if one does.
    #[inline(always)]
    fn find(&self, offset: u64) -> Option<(u64, u64, u64)> {
        let &at = self.slab_of_page.get(usize::try_from(offset / PAGE_BYTES).ok()?)?;
        let slab = self.slabs.get(at as usize)?;
        let (index, born) = slab.look(offset)?;
        Some((u64::from(at) << 32 | u64::from(index), born, slab.size.into()))
    }

    #[cold]
    fn add_small(&mut self, class: u8, len: u64) -> Result<u32, Error> {
        let first_page = self.take_pages(SLAB_PAGES).map_err(|refusal| self.explain(refusal, SLAB_PAGES, &one_block(len)))?;
        let at = self.add_slab(Slab::new(first_page, SLAB_PAGES, class));
        self.link_last(at);
        Ok(at)
    }

    #[cold]
    fn add_large(&mut self, len: u64) -> Result<u32, Error> {
        if len > BLOCK_BYTES_MAX {
            return Err(too_large(len));
        }
        let pages = len.div_ceil(PAGE_BYTES) as u32;
        let first_page = self.take_pages(pages).map_err(|refusal| self.explain(refusal, pages, &one_block(len)))?;
        Ok(self.add_slab(Slab::new(first_page, pages, LARGE)))
    }

    /// Takes pages; if there are none, also those of slabs that are kept empty.
    fn take_pages(&mut self, pages: u32) -> Result<u32, Refusal> {
        match self.pages.take(pages) {
            Err(_) if self.drop_empty_slabs() => self.pages.take(pages),
            outcome => outcome,
        }
    }

    #[cold]
    fn reserve_slowly(&mut self, bytes: u64, pages: u64) -> Result<(), Error> {
        let pages = u32::try_from(pages).unwrap_or(u32::MAX);
        match self.pages.ensure_warm(pages) {
            Err(_) if self.drop_empty_slabs() => self.pages.ensure_warm(pages),
            outcome => outcome,
        }
        .map_err(|refusal| self.explain(refusal, pages, &format!("blocks of {bytes} B in all")))
    }

    /// The error of a request that got no pages. What is used and what was asked for are both in it, so that its figures add up.
    #[cold]
    fn explain(&self, refusal: Refusal, pages: u32, what: &str) -> Error {
        let bytes = |pages: u32| u64::from(pages) * PAGE_BYTES;
        let wanted = format!("{} B in one piece, for {what}, are not to be had", bytes(pages));
        let used = format!("{} B of the capacity of {} B are used", bytes(self.pages.used()), bytes(self.pages.budget()));
        match refusal {
            Refusal::Budget if pages > self.pages.budget() => {
                let text = format!("{wanted}: {used}, and it is more than the capacity; raise `capacity`");
                Error::new(ErrorKind::Full, text)
            }
            Refusal::Budget => {
                let text = format!("{wanted}: {used}; raise `capacity`, remove entries, or end readers that hold old versions");
                Error::new(ErrorKind::Full, text)
            }
            Refusal::Length => {
                let usable = self.pages.usable();
                let (addresses, longest) = (bytes(usable.end - usable.start), bytes(self.pages.longest_free()));
                let text = format!(
                    "{wanted}: {used}, and of {addresses} B of addresses the longest free piece has {longest} B; raise `capacity`, or \
                     remove entries"
                );
                Error::new(ErrorKind::Full, text)
            }
            Refusal::Backing(error) => {
                let text = format!(
                    "{wanted}: the system gave no memory for it, and {used}; free memory on this machine, or lower `capacity` to what \
                     it can give"
                );
                Error::caused(error.kind(), text, error)
            }
        }
    }

    /// Enters a slab under a number and its pages into the look-up.
    fn add_slab(&mut self, slab: Slab) -> u32 {
        let pages = slab.first_page as usize..(slab.first_page + slab.lookup_pages()) as usize;
        self.slab_heap_bytes += slab.heap_bytes();
        let at = match self.vacant.pop() {
            Some(at) => {
                self.slabs[at as usize] = slab;
                at
            }
            None => {
                self.slabs.push(slab);
                (self.slabs.len() - 1) as u32
            }
        };
        if self.slab_of_page.len() < pages.end {
            self.slab_of_page.resize(pages.end, NONE);
        }
        self.slab_of_page[pages].fill(at);
        at
    }

    /// Gives the pages of a slab without blocks, which is in no list, back.
    fn drop_slab(&mut self, at: u32) {
        let slab = std::mem::replace(&mut self.slabs[at as usize], Slab::vacant());
        self.slab_heap_bytes -= slab.heap_bytes();
        self.slab_of_page[slab.first_page as usize..(slab.first_page + slab.lookup_pages()) as usize].fill(NONE);
        self.vacant.push(at);
        self.pages.give(slab.first_page, slab.pages);
    }

    /// A slab has lost its last block. Its class keeps it, at the list's end, unless it keeps one already.
    #[inline(never)]
    fn emptied(&mut self, at: u32, was_full: bool) {
        let number = self.slabs[at as usize].class;
        if number == LARGE {
            return self.drop_slab(at);
        }
        let class = &mut self.classes[number as usize];
        let keep = class.empty == NONE;
        if keep {
            class.empty = at;
            if class.last == at {
                return;
            }
        }
        if !was_full {
            self.unlink(at);
        }
        if keep { self.link_last(at) } else { self.drop_slab(at) }
    }

    /// Gives the slabs that are kept empty back. Returns whether there were any.
    fn drop_empty_slabs(&mut self) -> bool {
        let mut any = false;
        for class in 0..CLASSES {
            let at = std::mem::replace(&mut self.classes[class].empty, NONE);
            if at != NONE {
                self.unlink(at);
                self.drop_slab(at);
                any = true;
            }
        }
        any
    }

    #[inline(never)]
    fn link_last(&mut self, at: u32) {
        let class = &mut self.classes[self.slabs[at as usize].class as usize];
        let before = std::mem::replace(&mut class.last, at);
        if before == NONE {
            class.first = at;
        } else {
            self.slabs[before as usize].after = at;
        }
        let slab = &mut self.slabs[at as usize];
        (slab.before, slab.after) = (before, NONE);
    }

    #[inline(never)]
    fn unlink(&mut self, at: u32) {
        let &Slab { class, before, after, .. } = &self.slabs[at as usize];
        let class = &mut self.classes[class as usize];
        match before {
            NONE => class.first = after,
            before => self.slabs[before as usize].after = after,
        }
        match after {
            NONE => class.last = before,
            after => self.slabs[after as usize].before = before,
        }
    }
}

/// Pages of the run that keeps the promise of [`Allocator::reserve`].
///
/// A class of which the series takes b bytes, with f bytes of blocks in a slab, takes at most b / f + 1 slabs.
#[inline]
fn reserved_pages(bytes: u64) -> u64 {
    let with_slab_ends = bytes.min(ARENA_BYTES_MAX) * u64::from(SLAB_PAGES);
    with_slab_ends.div_ceil(FILL_BYTES_MIN) + u64::from(RESERVED_CLASSES * SLAB_PAGES)
}

#[cold]
#[inline(never)]
fn not_a_block(offset: u64) -> ! {
    panic!(
        "the allocator was given the offset {offset:#x}, where no allocated block starts: a block was freed twice, or an offset is wrong"
    )
}

fn one_block(len: u64) -> String {
    format!("a block of {len} B")
}

#[cold]
fn too_large(len: u64) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        format!("allocating a block of {len} B failed: a block has at most {BLOCK_BYTES_MAX} B; split the value into several"),
    )
}
