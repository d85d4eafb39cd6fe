//! The commit that is being made, at the level of blocks: allocate, change, retire.
//!
//! Rules that everything above builds on:
//! - A block is written only by the commit that bore it ([`Memory::is_new`]); an older one is copied first (path copying).
//! - A block that the next version will not show is *retired*. If this commit bore it, nobody has ever seen it, and it is
//!   free at once; otherwise it waits until no pin lies in its life.
//! - A life ends one version *after* the block was taken out. Values that a reply lends (what `insert` replaced, what `pop`
//!   took) are pinned by the client in the version of the commit, which so holds them still. For the same reason a block
//!   with a value always waits, even if this commit bore it.
//! - An *attempt* (a request of several operations) can be taken back: its blocks are freed, its retirements forgotten.
//! - What a commit retires is only noted while it is made. Its birth and size are looked up when the answers have been given
//!   ([`Memory::settle`]), so that nobody waits for that, nor for the memory that it takes.

use crate::allocator::{Allocator, Backing, Pin, Retired, RetiredBlock, Usage};
use commonhold_ipc::error::{Error, Result};
use commonhold_ipc::map::{ArenaReader, ArenaWriter};
use commonhold_ipc::pin::Pinned;
use std::ops::Range;
use std::sync::Arc;

/// The memfd behind the arena, as the allocator sees it.
pub struct ArenaBacking(Arc<ArenaWriter>);

impl Backing for ArenaBacking {
    fn back(&mut self, range: Range<u64>) -> Result<()> {
        self.0.back(range)
    }

    fn populate(&mut self, range: Range<u64>) {
        self.0.populate(range);
    }

    fn punch(&mut self, range: Range<u64>) {
        // A failure leaves the pages with us, zeroed or not: they are backed again before they are used.
        let _ = self.0.punch(range);
    }
}

/// Room that path copies of one operation may need at the most.
const PATH_BYTES: u64 = 64 << 10;
/// Room for the catalog's path to one changed record.
const RECORD_PATH_BYTES: u64 = 4 << 10;
/// Room that only removals may use: a store that is full for everything else can still be emptied. As much as an operation
/// takes beside what it has asked for, if each of its blocks, of a dozen sizes, begins a slab of 64 KiB.
const REMOVAL_BYTES: u64 = 1 << 20;

#[cold]
fn no_room_for_change(bytes: u64, capacity: u64, error: Error) -> Error {
    if bytes > capacity {
        let text = format!(
            "a change of {bytes} B does not fit into a manager of {capacity} B, even if nothing else is there: give it more, with \
             `Manager::builder().capacity(…)`"
        );
        return Error::caused(error.kind(), text, error);
    }
    // Those of a value that has come beforehand are not in it: they have their block.
    let of_bytes = if bytes == 0 { String::new() } else { format!(" of {bytes} B") };
    Error::caused(error.kind(), format!("no room for a change{of_bytes} and for a removal after it: {error}"), error)
}

#[cold]
fn no_room_for_removal(error: Error) -> Error {
    Error::caused(error.kind(), format!("no room for a removal: {error}"), error)
}

/// Blocks of an attempt, or noted as retired, for which room is kept until the next ones.
const LISTED_KEPT: usize = 32 * 1024;

/// Blocks of the arena during a commit.
pub struct Memory {
    arena: Arc<ArenaWriter>,
    blocks: Allocator<ArenaBacking>,
    retired: Retired,
    /// Blocks that one version has retired, and that are not looked up yet.
    noted: Vec<u64>,
    /// The first version that does not show them.
    noted_at: u64,
    /// The version that is being made.
    version: u64,
    /// Whether it has born anything but values.
    has_new_nodes: bool,
    /// Bytes that publishing will need for the catalog.
    promised: u64,
    /// Whether an attempt is being made.
    attempting: bool,
    /// The blocks that it has allocated or taken over, with their births.
    attempted: Vec<(u64, u64)>,
}

impl Memory {
    /// Memory of a fresh arena, for making version `version`.
    pub fn new(arena: Arc<ArenaWriter>, budget_bytes: u64, version: u64) -> Self {
        let usable = commonhold_ipc::arena::BLOCKS..arena.reader().len();
        let blocks = Allocator::new(ArenaBacking(arena.clone()), usable, budget_bytes);
        Memory {
            arena,
            blocks,
            retired: Retired::new(),
            noted: Vec::new(),
            noted_at: version,
            version,
            has_new_nodes: false,
            promised: 0,
            attempting: false,
            attempted: Vec::new(),
        }
    }

    /// The arena, to write.
    #[inline]
    pub fn arena(&self) -> &ArenaWriter {
        &self.arena
    }

    /// The arena, to read.
    #[inline]
    pub fn reader(&self) -> &ArenaReader {
        self.arena.reader()
    }

    /// The version that is being made.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Makes sure that allocations of this sum, the path copies around them, publishing, and a removal after it will succeed.
    #[inline]
    pub fn reserve(&mut self, bytes: u64) -> Result<()> {
        let all = bytes + PATH_BYTES + self.promised + REMOVAL_BYTES;
        self.blocks.reserve(all).map_err(|error| no_room_for_change(bytes, self.blocks.usage().budget_bytes, error))
    }

    /// Makes sure that the path copies of a removal, and publishing, will succeed.
    #[inline]
    pub fn reserve_removal(&mut self) -> Result<()> {
        self.blocks.reserve(PATH_BYTES + self.promised).map_err(no_room_for_removal)
    }

    /// Publishing will write the records of this many objects. Every reservation includes that.
    #[inline]
    pub fn promise_records(&mut self, records: usize) {
        self.promised = RECORD_PATH_BYTES * records as u64;
    }

    /// A block of at least `len` bytes, its contents undefined.
    #[inline(always)]
    pub fn allocate(&mut self, len: u64) -> Result<u64> {
        self.has_new_nodes = true;
        self.allocate_value(len)
    }

    /// The same for a block that nothing else hangs below, so that nobody will ask whether it [is new](Self::is_new).
    #[inline(always)]
    pub fn allocate_value(&mut self, len: u64) -> Result<u64> {
        let offset = self.blocks.allocate(len, self.version)?;
        if self.attempting {
            self.attempted.push((offset, self.version));
        }
        Ok(offset)
    }

    /// Whether this commit has born any blocks of which [`is_new`](Self::is_new) would say so.
    #[inline(always)]
    pub fn has_new_nodes(&self) -> bool {
        self.has_new_nodes
    }

    /// Whether this commit bore the block, which is not one with a value alone: then nobody sees it yet.
    #[inline(always)]
    pub fn is_new(&self, offset: u64) -> bool {
        self.has_new_nodes && self.blocks.born(offset) == self.version
    }

    /// Bytes that a block has in truth.
    #[inline]
    pub fn size_of(&self, offset: u64) -> u64 {
        self.blocks.size_of(offset)
    }

    /// The next version will not show this block.
    #[inline]
    pub fn retire(&mut self, offset: u64) {
        if self.is_new(offset) { self.blocks.release(offset) } else { self.retire_value(offset) }
    }

    /// The same for a block with a value, which a reply may lend, or one that is known to be old.
    #[inline(always)]
    pub fn retire_value(&mut self, offset: u64) {
        let retired_at = self.version + 1;
        if self.noted_at != retired_at {
            // Those of a version that has been published.
            self.settle();
            self.noted_at = retired_at;
        }
        self.noted.push(offset);
    }

    /// Looks up what published versions have retired and nobody has looked up yet. At any time, but better late than before an answer.
    #[inline]
    pub fn settle(&mut self) {
        if !self.noted.is_empty() && self.noted_at <= self.version {
            let (blocks, retired_at) = (&self.blocks, self.noted_at);
            let known = self.noted.drain(..).map(|offset| {
                let (number, born, size) = blocks.look(offset);
                RetiredBlock { number, born, size, retired_at }
            });
            self.retired.retire(retired_at, known);
            self.noted.shrink_to(LISTED_KEPT);
        }
    }

    /// A block that was filled outside of any commit, an upload, becomes part of this one. Returns its birth.
    pub fn adopt(&mut self, offset: u64) -> u64 {
        let birth = self.blocks.born(offset);
        if self.attempting {
            self.attempted.push((offset, birth));
        }
        birth
    }

    /// Frees a block that no version has ever shown.
    pub fn discard(&mut self, offset: u64) {
        self.blocks.release(offset);
    }

    /// The block itself if it is new; else a new copy of its first `len` bytes, and the old one is retired.
    #[inline]
    pub fn writable(&mut self, offset: u64, len: u64) -> Result<u64> {
        if self.is_new(offset) { Ok(offset) } else { self.copy(offset, len) }
    }

    /// A new copy of an old block's first `len` bytes, and the old one is retired.
    #[inline(always)]
    pub fn copy(&mut self, old: u64, len: u64) -> Result<u64> {
        let copy = self.allocate(len)?;
        self.arena.copy_block(old, copy, len);
        self.retire_value(old);
        Ok(copy)
    }

    /// From now on until the end of the attempt, everything can be taken back. No change may be unpublished.
    pub fn begin_attempt(&mut self) {
        self.settle();
        debug_assert!(self.noted.is_empty() && self.attempted.is_empty());
        self.attempting = true;
    }

    /// Ends the attempt: it stays, or all its blocks are freed and nothing is retired.
    pub fn end_attempt(&mut self, keep: bool) {
        self.attempting = false;
        if !keep {
            self.noted.clear();
            for (offset, birth) in self.attempted.drain(..) {
                // A block may have been freed, and its place taken again, within the attempt.
                if self.blocks.is_block(offset) && self.blocks.born(offset) == birth {
                    self.blocks.release(offset);
                }
            }
        }
        self.attempted.clear();
        self.attempted.shrink_to(LISTED_KEPT);
    }

    /// The version has been published: what it does not show is retired, and the next version begins.
    pub fn advance(&mut self) {
        debug_assert!(!self.attempting);
        self.version += 1;
        self.has_new_nodes = false;
    }

    /// Frees what is retired and not held by these pins.
    pub fn reclaim(&mut self, pins: &mut Vec<Pinned>) {
        self.reclaim_aside(pins);
        self.release_all();
    }

    /// Sets aside, for the next commits, what is retired and not held by these pins. What the last time has left is freed.
    pub fn reclaim_aside(&mut self, pins: &mut Vec<Pinned>) {
        self.settle();
        self.release_all();
        pins.sort_unstable_by_key(|pin| match pin {
            Pinned::At(v) => (*v, false),
            Pinned::From(v) => (*v, true),
        });
        pins.dedup();
        let pins: Vec<Pin> = pins
            .iter()
            .map(|pin| match pin {
                Pinned::At(v) => Pin::At(*v),
                Pinned::From(v) => Pin::From(*v),
            })
            .collect();
        let Memory { blocks, retired, .. } = self;
        retired.reclaim(&pins, |number| blocks.set_aside(number));
    }

    /// Frees what is set aside.
    pub fn release_all(&mut self) {
        self.blocks.release_set_aside();
    }

    /// Bytes that are retired and not free yet, but for what is only noted.
    pub fn retired_bytes(&self) -> u64 {
        self.retired.held_bytes()
    }

    /// Number of blocks that are retired and not free yet, but for what is only noted.
    pub fn retired_blocks(&self) -> usize {
        self.retired.len()
    }

    /// Gives free memory back to the system, but for this much.
    pub fn trim(&mut self, keep_bytes: u64) {
        self.blocks.trim(keep_bytes);
    }

    /// What is used.
    pub fn usage(&self) -> Usage {
        self.blocks.usage()
    }

    /// Every block there is: offset, size, version that bore it. For the audit.
    pub fn all_blocks(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        self.blocks.blocks()
    }

    /// Every block that waits for its pins to go. For the audit.
    pub fn all_retired(&self) -> impl Iterator<Item = u64> + '_ {
        self.retired.blocks().map(|block| self.blocks.offset_of(block.number)).chain(self.noted.iter().copied())
    }

    /// Checks the allocator's own books.
    pub fn check(&self) -> Result<(), String> {
        self.blocks.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonhold_ipc::sys;

    #[test]
    fn small_blocks_are_taken_again_or_freed_later_and_large_ones_at_once() {
        let len = 64 << 20;
        let arena = ArenaWriter::map(sys::memfd_sealed("test-arena", len).unwrap(), len).unwrap();
        let mut memory = Memory::new(Arc::new(arena), len, 2);
        let blocks: Vec<u64> = [64, 512, 1 << 20, 64].iter().map(|bytes| memory.allocate(*bytes).unwrap()).collect();
        let held = memory.allocate(64).unwrap();
        memory.advance();
        blocks.iter().chain([&held]).for_each(|block| memory.retire(*block));
        memory.advance();
        memory.settle();
        let used = |memory: &Memory| (memory.usage().blocks, memory.retired_blocks());
        memory.reclaim_aside(&mut vec![Pinned::At(3)]);
        assert_eq!(used(&memory), (5, 5), "all of them are seen in version 3");
        memory.reclaim_aside(&mut Vec::new());
        assert_eq!(used(&memory), (4, 0));
        // The last one first, born in the version that takes it; a block of another size is none of them.
        assert_eq!(memory.allocate(60).unwrap(), held);
        let other = memory.allocate(128).unwrap();
        assert!(memory.is_new(held) && [blocks[0], blocks[1], blocks[3]].iter().all(|block| *block != other));
        assert_eq!(used(&memory), (5, 0));
        // What is left of one reclaim goes with the next.
        memory.reclaim_aside(&mut Vec::new());
        assert_eq!(used(&memory), (2, 0));
        memory.check().unwrap();
    }

    #[test]
    fn room_for_removals_can_be_used_up() {
        let len = 8 << 20;
        let arena = ArenaWriter::map(sys::memfd_sealed("test-arena", len).unwrap(), len).unwrap();
        let mut memory = Memory::new(Arc::new(arena), len, 2);
        memory.reserve_removal().unwrap();
        let full = std::iter::repeat_with(|| memory.allocate(256 << 10).and_then(|_| memory.reserve_removal())).find_map(Result::err);
        let error = full.expect("it is used up");
        assert_eq!(error.kind(), commonhold_ipc::error::ErrorKind::Full);
        assert!(error.to_string().starts_with("no room for a removal: "), "{error}");
    }
}
