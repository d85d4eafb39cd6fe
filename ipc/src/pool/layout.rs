//! Where everything of a pool lies in its memory file.
//!
//! | offset | bytes | what | written |
//! |---|---|---|---|
//! | 0 | 8 | tail: position of the next task | by the owner |
//! | 64 | 8 | head: position of the first task that nobody has taken, or before it | by all, by exchange |
//! | 128 | 8 | sleepers are to be woken while no more tasks than this, inverted, are pending | by the owner |
//! | 136 | 8 | 1: the keeper is to be told of the next task that is done | by the owner; by workers, to 0 |
//! | 192 | 32 | bells: one bit for each slot | by workers; by the owner, to 0 |
//! | 256 | 4 | eventcount of the owner's threads | by them, and by workers |
//! | 512 | 4096 | cells: slot numbers | by the owner |
//! | 8192 | 64 each | workers: phase (4 bytes), at 8 when the running call began | by the worker; the phase by the owner, too |
//! | 24576 | 512 each | slots | see below |
//! | 155648 | 64 KiB each | windows: arguments of a slot | by the owner, while the slot is its |
//! | … | 64 KiB each | windows: results of a slot | by its worker |
//! | [`FILE_BASE`] | 64 GiB each | not mapped: large arguments, and large results of each worker | by the owner; by that worker |
//!
//! | offset in a slot | bytes | what |
//! |---|---|---|
//! | 0 | 8 | state |
//! | 8 | 8 | progress |
//! | 16, 24 | 8, 8 | the function's entry, a hash of its name |
//! | 32 | 8 | calls, and in the upper half the first that is to be done |
//! | 40 | 8 | bytes of the arguments; bit 63: a call that fails is the last |
//! | 64 | 192 | the arguments, if they fit |
//! | 256 | 256 | the results, if there is one and it fits |

use crate::limits::{POOL_SLOTS, POOL_WORKERS_MAX};

pub(super) const TAIL: usize = 0;
pub(super) const HEAD: usize = 64;
pub(super) const QUIET: usize = 128;
pub(super) const KEEPER: usize = 136;
pub(super) const BELLS: usize = 192;
pub(super) const CALLERS: usize = 256;
const CELLS_AT: usize = 512;
const WORKERS: usize = 8192;
const WORKER_BYTES: usize = 64;
const SLOTS: usize = WORKERS + POOL_WORKERS_MAX * WORKER_BYTES;
const SLOT_BYTES: usize = 512;
const WINDOWS: usize = SLOTS + POOL_SLOTS * SLOT_BYTES;
const RESULT_WINDOWS: usize = WINDOWS + POOL_SLOTS * WINDOW_BYTES;

/// Cells of the ring: those of as many tasks as there are slots, and as many that were called off.
pub(super) const CELLS: u64 = 2 * POOL_SLOTS as u64;

pub(super) const PROGRESS: usize = 8;
pub(super) const FUNCTION: usize = 16;
pub(super) const NAME: usize = 24;
pub(super) const CALLS: usize = 32;
pub(super) const ARGUMENTS: usize = 40;
pub(super) const ARGUMENTS_INLINE: usize = 64;
pub(super) const RESULTS_INLINE: usize = 256;

/// Arguments of this size lie in their slot.
pub const ARGUMENTS_INLINE_BYTES: usize = RESULTS_INLINE - ARGUMENTS_INLINE;
/// A result of this size, if it is a task's only one, lies in its slot.
pub const RESULTS_INLINE_BYTES: usize = SLOT_BYTES - RESULTS_INLINE;
/// Room for a task's arguments, and for its results.
pub const WINDOW_BYTES: usize = 64 << 10;
/// Calls of one task: the shortest arguments take 16 bytes.
pub const CALLS_MAX: u32 = (WINDOW_BYTES / 16) as u32;
/// Bytes that are mapped.
pub const SEGMENT_BYTES: u64 = (RESULT_WINDOWS + POOL_SLOTS * WINDOW_BYTES) as u64;
/// Where what is not mapped begins.
pub const FILE_BASE: u64 = SEGMENT_BYTES;

const _: () = assert!(CELLS_AT + 8 * CELLS as usize <= WORKERS && BELLS + POOL_SLOTS / 8 <= CALLERS && POOL_SLOTS.is_multiple_of(64));
const _: () = assert!(SLOTS == 24576 && WINDOWS == 155_648 && SEGMENT_BYTES.is_multiple_of(4096));

pub(super) fn cell(position: u64) -> usize {
    CELLS_AT + 8 * (position % CELLS) as usize
}

pub(super) fn phase(worker: usize) -> usize {
    WORKERS + worker * WORKER_BYTES
}

pub(super) fn clock(worker: usize) -> usize {
    phase(worker) + 8
}

pub(super) fn slot(number: usize) -> usize {
    SLOTS + number * SLOT_BYTES
}

pub(super) fn window(number: usize) -> usize {
    WINDOWS + number * WINDOW_BYTES
}

pub(super) fn result_window(number: usize) -> usize {
    RESULT_WINDOWS + number * WINDOW_BYTES
}
