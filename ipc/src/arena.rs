//! The arena's first pages: what stands at fixed offsets, and how a version is read from them.
//!
//! | offset | bytes | what | written |
//! |---|---|---|---|
//! | 0 | 8 | magic | once |
//! | 8 | 8 | layout version | once |
//! | 16 | 8 | arena length | once |
//! | 24 | 8 | manager id, random, not 0 | once |
//! | 32 | 8 | hash seed, random | once |
//! | 40 | 8 | hash mask, all ones but in tests | once |
//! | 64 | 8 | **version**: the number of the newest published version | one store a commit |
//! | 128 | 4 | alive word, see `liveness` | at start and end |
//! | 4096 | 64 × 128 | roots: the record of version *v* in slot *v* mod 64 | before *v* is published |
//! | 12288 | 1024 × 16 | watch words, see [`watch_offset`] | after *v* is published |
//! | 28672 | … | blocks | |
//!
//! A root record: version, catalog root, catalog height, number of objects, and behind them the *latest* record: an object's
//! that counts in place of the catalog's. So a commit that changes one object again and again leaves the catalog as it is.
//! A root record is a sequence lock of its own: the manager clears the version word, writes the rest, sets the version word; a reader takes the record only if the word says its
//! version both before and after. Slot *v* is written again at version *v* + 64; a reader that was that slow pins anew.
//!
//! SIGKILL of the manager anywhere: before the store of *version* the newest version is still the one before, and its
//! record stands in another slot; after it the record is whole. No step in between is visible.

use crate::catalog::Root;
use crate::map::{ArenaReader, ArenaWriter};
use std::sync::atomic::{Ordering, fence};

/// `COMMONHD` in the first word of an arena.
pub const MAGIC: u64 = u64::from_le_bytes(*b"COMMONHD");
/// Number of the layouts in `docs/LAYOUT.md`; compared in the handshake.
pub const LAYOUT_VERSION: u16 = 4;

/// Offset of the manager's id.
pub const MANAGER_ID: u64 = 24;
/// Offset of the hash seed.
pub const HASH_SEED: u64 = 32;
/// Offset of the hash mask.
pub const HASH_MASK: u64 = 40;
/// Offset of the number of the newest published version.
pub const VERSION: u64 = 64;
/// Offset of the alive word.
pub const ALIVE: u64 = 128;
const ROOTS: u64 = 4096;
const ROOT_SLOTS: u64 = 64;
const ROOT_BYTES: u64 = 128;
/// Offset of the latest record within a root record: a cache line of its own.
const LATEST: u64 = 64;
const WATCH: u64 = 12_288;
/// Number of watch words: objects are hashed on them by their slot.
pub const WATCH_SLOTS: u64 = 1024;
const WATCH_BYTES: u64 = 16;
/// Where blocks begin.
pub const BLOCKS: u64 = 28_672;

const _: () = {
    assert!(ROOTS + ROOT_SLOTS * ROOT_BYTES <= WATCH);
    assert!(WATCH + WATCH_SLOTS * WATCH_BYTES <= BLOCKS);
    assert!(BLOCKS.is_multiple_of(4096));
};

/// Number of the newest published version.
// SYNC: Acquire pairs with the Release store in `publish`: who sees the number sees every block of that version.
#[inline(always)]
pub fn version(arena: &ArenaReader) -> u64 {
    arena.head_word::<VERSION>().load(Ordering::Acquire)
}

/// The root of a version that the caller has announced and found to be current; `None` if its record has been reused since.
#[inline]
pub fn root_of(arena: &ArenaReader, version: u64) -> Option<Root> {
    let at = ROOTS + (version % ROOT_SLOTS) * ROOT_BYTES;
    // SYNC: Acquire pairs with the Release store of the version word in `write_root`.
    if arena.load(at, Ordering::Acquire) != version {
        return None;
    }
    let [catalog, height, objects] = arena.words(at + 8);
    let latest = arena.words(at + LATEST);
    let root = Root { version, catalog, height: height as u32, objects, latest };
    // SYNC: pairs with the Release fence in `write_root`: if any field above came from a later record, the word below has
    // at least been cleared.
    fence(Ordering::Acquire);
    (arena.word(at) == version).then_some(root)
}

/// Writes a root record into its slot. Not yet visible: see [`publish`].
pub fn write_root(arena: &ArenaWriter, root: &Root) {
    let at = ROOTS + (root.version % ROOT_SLOTS) * ROOT_BYTES;
    arena.atomic(at).store(0, Ordering::Relaxed);
    // SYNC: pairs with the Acquire fence in `root_of`.
    fence(Ordering::Release);
    arena.store(at + 8, root.catalog);
    crate::points::manager("commit: in the middle of the root record");
    arena.store(at + 16, u64::from(root.height));
    arena.store(at + 24, root.objects);
    arena.store_words(at + LATEST, root.latest);
    // SYNC: Release pairs with the first load in `root_of`.
    arena.atomic(at).store(root.version, Ordering::Release);
}

/// Makes a version the current one: the one store that a commit consists of for everybody else.
pub fn publish(arena: &ArenaWriter, version: u64) {
    // SYNC: Release pairs with the Acquire load in `version`.
    arena.atomic(VERSION).store(version, Ordering::Release);
}

/// Writes the words that stand for the arena's whole life.
pub fn write_header(arena: &ArenaWriter, manager: u64, hash_seed: u64, hash_mask: u64) {
    arena.store(8, u64::from(LAYOUT_VERSION));
    arena.store(16, arena.reader().len());
    arena.store(MANAGER_ID, manager);
    arena.store(HASH_SEED, hash_seed);
    arena.store(HASH_MASK, hash_mask);
    arena.store(0, MAGIC);
}

/// The hash that an arena's header asks for.
pub fn key_hash(arena: &ArenaReader) -> crate::index::KeyHash {
    crate::index::KeyHash::new(arena.word(HASH_SEED), arena.word(HASH_MASK))
}

/// Offset of the watch words of an object.
///
/// | offset | bytes | what |
/// |---|---|---|
/// | 0 | 8 | *touched*: version of the last commit that changed an object that hashes here |
/// | 8 | 4 | *sequence*: what sleepers wait on; changed by every such commit while armed, and by disarming |
/// | 12 | 4 | *armed*: 1 while the manager wakes sleepers here |
///
/// An eventcount: a client reads *sequence*, then sees that it is armed (or asks the manager to arm it and starts again),
/// then sees that nothing has changed, and sleeps as long as *sequence* is what it read. A change or a disarming in between
/// changes *sequence*, so no wake-up is lost. The manager disarms a word that nobody has slept on for a while.
pub fn watch_offset(object: u64) -> u64 {
    WATCH + (crate::catalog::slot_of(object) % WATCH_SLOTS) * WATCH_BYTES
}

/// Offset of *sequence* within the watch words.
pub const WATCH_SEQUENCE: u64 = 8;
/// Offset of *armed* within the watch words.
pub const WATCH_ARMED: u64 = 12;
