//! Pins: how a reader keeps the version it reads from being reclaimed.
//!
//! Each session has a page that its client and the manager map. The client writes it, the manager only reads it, with
//! suspicion: whatever stands there can delay a reclaim of the session's own making, and cause none.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | *blocks used*: the manager looks at no block beyond |
//! | 8 | 8 | *floor*: 0, or: this version and all newer ones are pinned |
//! | 16 | 8 | *left*: 1 when nothing will ever be read under these pins again |
//! | 24 | 8 | *relies*: 1 when the client leaves step 3 to the manager, see `pin::fence` |
//! | 128 × (1 + b) | 120 | 15 pin words of block *b*: 0, or a pinned version |
//! | … + 120 | 8 | *acknowledged* of lane *b*: the last call whose lent values the client has pinned or does not want |
//!
//! Pins count until the page's owner has left or its process has ended, not just until its connection ends: guards may
//! outlive a connection that broke, and nobody can take them back.
//!
//! A block belongs to one thread (and is then its lane, too), to a writer, which only wants the lane, or to the table itself for pins
//! that travel between threads.
//!
//! **Pin word.** States: 0 free; *v* pinned. Only its owner writes it.
//!
//! | | who | step | |
//! |---|---|---|---|
//! | 1 | reader | load *version* → v | |
//! | 2 | reader | store v into a free word | announce |
//! | 3 | reader | full fence, or the manager's in its place: see `pin::fence` | |
//! | 4 | reader | load *version* again; unless it is v, back to 2 with the newer one | re-check |
//! | a | manager | store *version* = v + 1 | publish |
//! | b | manager | full fence | |
//! | c | manager | load all pin words | scan |
//!
//! Of the two fences one comes first. If 3 precedes b, the scan sees the pin. If b precedes 3, the re-check sees v + 1. So a
//! block that version v shows and v + 1 does not is freed only if nobody holds v. Announcing after the check, without a
//! re-check, loses this (the canary in `tests/pin_model.rs`). Unpinning is a store of 0, Release, so that all reads are over.
//!
//! A second guard of a thread on the same version shares the word, by a count in private memory. When a thread's 15 words
//! are taken by 15 different versions, pins come from shared blocks, and when the page is full, from the floor.

use crate::arena;
use crate::catalog::Root;
use crate::error::{Error, ErrorKind, Result};
use crate::map::{Access, ArenaReader, Segment};
mod fence;
mod hold;
mod scan;
mod word;

use fence::{Announcement, FencedAnnouncement};
pub use hold::{Hold, OwnLane, OwnedPin, Pin};
pub use scan::{PinScan, Pinned};
use word::WordState;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// Bytes of a session page.
pub const PAGE_BYTES: u64 = 65_536;
const BLOCK_BYTES: usize = 128;
/// Pin words of a block.
pub const WORDS: usize = 15;
/// Blocks of a page, and so lanes of a session.
pub const BLOCKS: usize = PAGE_BYTES as usize / BLOCK_BYTES - 1;
/// The lane that all threads share who have none of their own.
pub const SHARED_LANE: u16 = 0;
const BLOCKS_USED: usize = 0;
const FLOOR: usize = 8;
const LEFT: usize = 16;
const RELIES: usize = 24;

fn word_offset(block: usize, word: usize) -> usize {
    BLOCK_BYTES * (1 + block) + 8 * word
}

/// Words of a page.
const PAGE_WORDS: usize = PAGE_BYTES as usize / 8;
/// Those before block 0.
const HEAD_WORDS: usize = BLOCK_BYTES / 8;
/// So that a block and a word of it, one behind the other, are the number of a word of the page.
const _: () = assert!(BLOCK_BYTES == 8 << PLACE_BITS);

fn acknowledged_offset(lane: usize) -> usize {
    word_offset(lane, WORDS)
}

/// The words that announcing a version works on: shared memory, or a model of it.
pub trait PinWords {
    /// Loads the number of the newest version.
    fn current(&self) -> u64;
    /// Stores a version into the reader's word.
    fn announce(&self, version: u64);
    /// A full fence, or a fence for the compiler alone if the manager's scan brings its own into this thread.
    fn fence(&self);
}

/// Steps 1 to 4 of the table: returns a version that is pinned from now on.
#[inline(always)]
pub fn announce(words: &impl PinWords) -> u64 {
    let mut version = words.current();
    loop {
        words.announce(version);
        words.fence();
        let newer = words.current();
        if newer == version {
            return version;
        }
        version = newer;
    }
}

/// Private knowledge of one block: which words are taken, for which version, how often. Only its owner changes it.
#[derive(Default)]
#[repr(align(64))]
struct BlockState {
    /// The word that was used last: most often the one that is wanted again.
    recent: AtomicU32,
    /// See `fence`.
    fences: AtomicU32,
    /// One more than there are words, so that no index of a place's bits is out of bounds.
    words: [WordState; 1 << PLACE_BITS],
}

impl BlockState {
    /// Says which block this is.
    fn number(&self, block: u32, mark: u32) {
        for (word, state) in (0..).zip(&self.words) {
            state.place.store(block << PLACE_BITS | word | mark, Ordering::Relaxed);
        }
    }

    /// The word that was used last.
    #[inline(always)]
    fn recent(&self) -> &WordState {
        &self.words[self.recent.load(Ordering::Relaxed) as usize % (1 << PLACE_BITS)]
    }

    /// The first word that satisfies `condition`.
    fn find(&self, condition: impl Fn(&WordState) -> bool) -> Option<&WordState> {
        self.words[..WORDS].iter().find(|word| condition(word))
    }
}

#[derive(Default)]
struct Shared {
    /// Blocks that no thread has, to be used again first.
    returned: Vec<u32>,
    next_block: u32,
    /// Blocks whose thread has gone while words of them were taken.
    orphans: Vec<u32>,
    /// Blocks for pins that are no thread's. The first is also the shared lane.
    travelling: Vec<u32>,
}

/// A session's pins, as its client sees them.
pub struct PinTable {
    page: Segment,
    arena: ArenaReader,
    id: u64,
    blocks: Box<[BlockState]>,
    /// The floor's count. Changed under the lock.
    floor: WordState,
    stamp: crate::fork::Stamp,
    fencing: fence::Fencing,
    shared: Mutex<Shared>,
    owner: OnceLock<Weak<dyn Any + Send + Sync>>,
    this: Weak<PinTable>,
}

/// A thread's claims on blocks, one for each table it has used.
struct Claims {
    list: RefCell<Vec<(u64, u32, Weak<PinTable>)>>,
}

impl Drop for Claims {
    fn drop(&mut self) {
        RECENT.set((0, 0));
        for (_, block, table) in self.list.take() {
            // In a forked child the blocks are the parent's, and the table's lock may be held for ever.
            if let Some(table) = table.upgrade().filter(|table| table.stamp.is_current()) {
                table.give_back(block);
            }
        }
    }
}

thread_local! {
    static CLAIMS: Claims = const { Claims { list: RefCell::new(Vec::new()) } };
    /// The table used last and the thread's block in it.
    static RECENT: Cell<(u64, u32)> = const { Cell::new((0, 0)) };
}

/// Bits of a place that are the word in its block.
const PLACE_BITS: u32 = 4;
const _: () = assert!(WORDS <= 1 << PLACE_BITS);
/// Where the floor is, counted as all words are: around the page's end.
const FLOOR_PLACE: u32 = TRAVELLING | (PAGE_WORDS - HEAD_WORDS + FLOOR / 8) as u32;
const TRAVELLING: u32 = 1 << 31;

impl PinTable {
    /// A table on a session's page, for reading this arena.
    pub fn new(page: &OwnedFd, arena: ArenaReader) -> Result<Arc<Self>> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let page = Segment::map(page, PAGE_BYTES, Access::ReadWrite)?.keep_from_children()?;
        // Block 0 is the table's own: for pins that travel, and as the lane of threads that have none.
        page.word(BLOCKS_USED).store(1, Ordering::Release);
        let blocks: Box<[BlockState]> = (0..BLOCKS).map(|_| BlockState::default()).collect();
        (0..).zip(&blocks).for_each(|(number, block)| block.number(number, if number == 0 { TRAVELLING } else { 0 }));
        Ok(Arc::new_cyclic(|this| PinTable {
            page,
            arena,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            blocks,
            floor: WordState { place: AtomicU32::new(FLOOR_PLACE), ..WordState::default() },
            stamp: crate::fork::Stamp::now(),
            fencing: fence::Fencing::default(),
            owner: OnceLock::new(),
            shared: Mutex::new(Shared { next_block: 1, travelling: vec![0], ..Shared::default() }),
            this: this.clone(),
        }))
    }

    /// The arena that this table's pins are for.
    #[inline]
    pub fn arena(&self) -> &ArenaReader {
        &self.arena
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calling thread's block, claimed at its first use; `None` when there are none left.
    #[inline]
    fn block(&self) -> Option<u32> {
        let (table, block) = RECENT.get();
        if table == self.id { Some(block) } else { self.find_block() }
    }

    #[cold]
    fn find_block(&self) -> Option<u32> {
        // While the thread's storage is being torn down there are no claims any more: such late pins travel.
        CLAIMS
            .try_with(|claims| {
                let mut list = claims.list.borrow_mut();
                let known = list.iter().find(|(table, ..)| *table == self.id).map(|(_, block, _)| *block);
                let block = known.or_else(|| {
                    list.retain(|(.., table)| table.strong_count() > 0);
                    let block = self.claim()?;
                    list.push((self.id, block, self.this.clone()));
                    Some(block)
                })?;
                RECENT.set((self.id, block));
                Some(block)
            })
            .ok()
            .flatten()
    }

    fn claim(&self) -> Option<u32> {
        let mut shared = self.lock();
        Self::adopt_orphans(&mut shared, &self.blocks);
        if let Some(block) = shared.returned.pop() {
            return Some(block);
        }
        if shared.next_block as usize >= BLOCKS {
            return None;
        }
        let block = shared.next_block;
        shared.next_block += 1;
        // Before the first pin in it: the manager must know of the block to see it.
        self.page.word(BLOCKS_USED).store(u64::from(shared.next_block), Ordering::Release);
        Some(block)
    }

    fn is_empty(state: &BlockState) -> bool {
        // SYNC: Acquire pairs with the Release in `unpin`: the words were cleared before the count was.
        state.words.iter().all(|word| word.count.load(Ordering::Acquire) == 0)
    }

    fn adopt_orphans(shared: &mut Shared, blocks: &[BlockState]) {
        let (empty, still): (Vec<u32>, Vec<u32>) = shared.orphans.drain(..).partition(|block| Self::is_empty(&blocks[*block as usize]));
        shared.returned.extend(empty);
        shared.orphans = still;
    }

    fn give_back(&self, block: u32) {
        // In a forked child somebody may have held the lock for ever.
        if !self.stamp.is_current() {
            return;
        }
        let mut shared = self.lock();
        // A guard that was forgotten, or lives in another thread-local, keeps its word: the block waits until it is clear.
        if Self::is_empty(&self.blocks[block as usize]) { shared.returned.push(block) } else { shared.orphans.push(block) }
    }

    /// The private side of the word that a place names.
    fn word_state(&self, place: u32) -> &WordState {
        let (block, word) = ((place & !TRAVELLING) >> PLACE_BITS, place % (1 << PLACE_BITS));
        if place == FLOOR_PLACE { &self.floor } else { &self.blocks[block as usize].words[word as usize] }
    }

    /// The word of the page that a place names.
    #[inline(always)]
    fn shared_word(&self, place: u32) -> &AtomicU64 {
        // Without the mark, which is above all numbers of words.
        &self.page.first_words::<PAGE_WORDS>()[(HEAD_WORDS + place as usize) % PAGE_WORDS]
    }

    /// Pins the newest version for the calling thread, with its root.
    #[inline]
    pub fn pin(&self) -> Pin<'_> {
        loop {
            let (hold, version) = self.hold();
            // Without a root, its record has been reused: 64 commits since the announcement. Again, with a newer version.
            if let Some(root) = arena::root_of(&self.arena, version) {
                return Pin { hold, root };
            }
        }
    }

    /// Pins the newest version for the calling thread, and returns its number.
    #[inline(always)]
    pub fn hold(&self) -> (Hold<'_>, u64) {
        let (word, version) = self.take_recent().unwrap_or_else(|| self.take_another());
        (Hold::new(self, word), version)
    }

    /// The way of almost every read: the word that the thread used last is free and needs no fence, or has the newest version.
    #[inline(always)]
    fn take_recent(&self) -> Option<(&WordState, u64)> {
        let (table, block) = RECENT.get();
        if table != self.id {
            return None;
        }
        let state = self.blocks.get(block as usize)?;
        let word = state.recent();
        if !word.is_free() {
            let version = arena::version(&self.arena);
            return (word.version.load(Ordering::Relaxed) == version).then(|| (word.hold(), version));
        }
        if !self.fencing.is_managers() {
            return None;
        }
        let version = announce(&Announcement { table: self, word: self.shared_word(word.place()) });
        word.version.store(version, Ordering::Relaxed);
        word.count.store(1, Ordering::Relaxed);
        Some((word, version))
    }

    #[inline(never)]
    fn take_another(&self) -> (&WordState, u64) {
        self.block().and_then(|block| self.take_word(block)).unwrap_or_else(|| {
            let (word, root) = self.take_travelling();
            (word, root.version)
        })
    }

    /// Holds the newest version in a block that the caller owns; `None` if all its words are taken by other versions.
    fn take_word(&self, block: u32) -> Option<(&WordState, u64)> {
        let state = &self.blocks[block as usize];
        let version = arena::version(&self.arena);
        let word = match state.find(|word| word.holds(version)) {
            Some(word) => word,
            None => {
                let word = state.find(WordState::is_free)?;
                let to = Announcement { table: self, word: self.shared_word(word.place()) };
                word.version.store(announce(&FencedAnnouncement { to, state: Some(state) }), Ordering::Relaxed);
                word
            }
        };
        state.recent.store(word.place() % (1 << PLACE_BITS), Ordering::Relaxed);
        Some((word.hold(), word.version.load(Ordering::Relaxed)))
    }

    /// Pins the newest version for nobody in particular: the pin may travel between threads.
    #[cold]
    pub fn pin_travelling(&self) -> Pin<'_> {
        let (word, root) = self.take_travelling();
        Pin { hold: Hold::new(self, word), root }
    }

    fn take_travelling(&self) -> (&WordState, Root) {
        let mut shared = self.lock();
        let mut tried = 0;
        loop {
            // The newest block most likely has room.
            for &block in shared.travelling[tried..].iter().rev() {
                while let Some((word, version)) = self.take_word(block) {
                    if let Some(root) = arena::root_of(&self.arena, version) {
                        return (word, root);
                    }
                    self.release(word);
                }
            }
            tried = shared.travelling.len();
            drop(shared);
            let more = self.claim();
            shared = self.lock();
            match more {
                Some(block) => {
                    self.blocks[block as usize].number(block, TRAVELLING);
                    shared.travelling.push(block);
                }
                None => return self.take_floor(&shared),
            }
        }
    }

    /// The last resort: one word for all further pins, that holds its version and everything newer.
    fn take_floor(&self, _shared: &MutexGuard<'_, Shared>) -> (&WordState, Root) {
        loop {
            if self.floor.is_free() {
                let to = Announcement { table: self, word: self.page.word(FLOOR) };
                announce(&FencedAnnouncement { to, state: None });
            }
            // Newer versions than the floor are held, so any current version will do.
            if let Some(root) = arena::root_of(&self.arena, arena::version(&self.arena)) {
                return (self.floor.hold(), root);
            }
        }
    }

    /// Pins a version that the manager lends with a reply, and so keeps alive until [`acknowledge`](Self::acknowledge).
    #[inline]
    pub fn pin_lent(&self, version: u64) -> Option<Hold<'_>> {
        let (block, _shared) = match self.block() {
            Some(block) => (block, None),
            None => (0, Some(self.lock())),
        };
        let state = &self.blocks[block as usize];
        let recent = state.recent();
        let word = if recent.is_free() || recent.holds(version) {
            recent
        } else {
            state.find(|word| word.holds(version)).or_else(|| state.find(WordState::is_free))?
        };
        if word.is_free() {
            word.version.store(version, Ordering::Relaxed);
            // SYNC: visible to the manager before the acknowledgement, which is a Release store later in this thread.
            self.shared_word(word.place()).store(version, Ordering::Release);
        }
        Some(Hold::new(self, word.hold()))
    }

    /// The calling thread's lane, and a lock if it is the shared one.
    #[inline]
    pub fn lane(&self) -> u16 {
        self.block().map_or(SHARED_LANE, |block| block as u16)
    }

    /// Tells the manager that the values lent by this call of a lane are pinned, or not wanted.
    #[inline]
    pub fn acknowledge(&self, lane: u16, call: u64) {
        // SYNC: Release pairs with the Acquire in `PinScan::acknowledged`.
        self.page.word(acknowledged_offset(lane.into())).store(call, Ordering::Release);
    }

    /// One more hold on a word that is no thread's.
    #[cold]
    #[inline(never)]
    fn hold_shared(&self, word: &WordState) {
        let _shared = self.lock();
        word.hold();
    }

    /// One hold less on a word that is no thread's.
    #[cold]
    #[inline(never)]
    fn unpin_shared(&self, word: &WordState) {
        // In a forked child somebody may hold the lock for ever.
        if self.stamp.is_current() {
            let _shared = self.lock();
            self.release(word);
        }
    }

    /// One hold less on a word.
    #[inline(always)]
    fn release(&self, word: &WordState) {
        let left = word.count.load(Ordering::Relaxed).wrapping_sub(1);
        // In a forked child the page is not mapped, and the words are the parent's. The counts are its own copy.
        if left == 0 && self.stamp.is_current() {
            // SYNC: Release pairs with the Acquire in `PinScan::scan`.
            self.shared_word(word.place()).store(0, Ordering::Release);
        }
        word.count.store(left, Ordering::Release);
    }

    /// Number of this table in its process, never used again.
    #[inline]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Says once whose table this is.
    pub fn set_owner(&self, owner: Weak<dyn Any + Send + Sync>) {
        // Only the first word counts.
        let _ = self.owner.set(owner);
    }

    /// Whose table this is, if that still lives: what handles in a value are given as their session.
    pub fn owner(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.owner.get()?.upgrade()
    }

    /// An error if this process was forked off the one that the table belongs to.
    #[inline]
    pub fn check_process(&self) -> Result<()> {
        self.stamp.check()
    }

    /// How many pins this process holds, for tests and introspection.
    pub fn held(&self) -> u64 {
        let words = self.blocks.iter().flat_map(|block| &block.words).chain([&self.floor]);
        words.map(|word| u64::from(word.count.load(Ordering::Relaxed))).sum()
    }
}

impl Drop for PinTable {
    fn drop(&mut self) {
        // In a forked child the page is not mapped.
        if self.stamp.is_current() {
            // SYNC: Release pairs with the Acquire in `PinScan::may_be_read_under`. Whatever was read was borrowed from this table.
            self.page.word(LEFT).store(1, Ordering::Release);
        }
    }
}

/// Tells the manager that nothing is read under the pins of a page that could not be put to use: else it would keep the page for as
/// long as this process lives.
pub fn give_up(page: &OwnedFd) {
    // Written, not mapped: that may be what failed. If this fails too, the page stays until this process ends.
    let _ = rustix::io::pwrite(page, &1u64.to_ne_bytes(), LEFT as u64);
}

/// Shows that a page is as long as the layout says.
pub fn check_page(len: u64) -> Result<()> {
    if len == PAGE_BYTES {
        Ok(())
    } else {
        Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "a session page has {PAGE_BYTES} bytes, and the manager has sent one of {len}: use the same version of commonhold in both"
            ),
        ))
    }
}

#[cfg(test)]
mod tests;
