//! Lanes: calls through shared memory, where a socket would cost two wake-ups.
//!
//! A *lane* is one calling thread's way to the manager: its number is that of the thread's block in the session page. All lanes of a
//! session lie in one segment, made and sealed by the manager, which that session and the manager map and nobody else. A call is
//! what it is on the socket: a frame (`wire`), laid down in the lane's slot, its payload there or in the *room*; so is the reply.
//!
//! | | client | manager |
//! |---|---|---|
//! | 1 | writes the request into its slot, a large payload into room of its own, large values there *behind* it (`served`) | looks at the doorbells of the sessions it *watches* |
//! | 2 | sets the lane's bit in the doorbells | takes the bits, copies each request, and only then looks at what it says |
//! | 3 | unless it is watched, sends a frame that says nothing but "ring" | does what it is asked to, publishes |
//! | 4 | looks for the answer some microseconds, then sleeps on *answered* | writes the reply, stores *answered*; wakes who says that it sleeps |
//!
//! The manager maps doorbells and slots, and reads the room by `pread`: it holds no reference into memory that a client writes, no
//! hole of the room makes it allocate, and what it has copied stays as it was. A client that scribbles over its segment at any moment
//! makes nonsense of its own calls: it can lose its own answers, and nothing else. All zero is a state that every word may have.
//!
//! **Doorbell**, a bit for each lane, all in one cache line. 0: nothing; 1: posted. Set by the client, after the request is written
//! (fetch-or, SeqCst: also the fence of step 3); taken by the manager (swap, Acquire).
//!
//! | **watched** | meaning | client, having set its bit |
//! |---|---|---|
//! | 0 | the manager does not look here: it sleeps, or watches others | rings by the socket |
//! | 1, and the processor's number in the upper half | it looks, and looks once more after storing 0 | waits; does not spin if it runs there itself |
//! | 2 | the session is over | gives up |
//!
//! | **answered** | meaning |
//! |---|---|
//! | 0 | no answer yet |
//! | odd | the answer to the post with this mark stands in the slot |
//! | 2 | the session is over |
//!
//! **sleeping**: 1 from before its client sleeps on *answered* (an eventcount: the value it sleeps on was read before) until it is awake.
//!
//! **Post** and *stop watching* are each a store, a full fence, a load of the other's word: one of the two sees the other's. So are
//! *answer* and *sleep*. `tests/lane_model.rs` has both, with canaries. *Answered* is stored with Release, after the reply.
//!
//! **Death.** A client that dies before its bit is set has not called; after that, it is served whole or dropped with its session.
//! A caller sleeps on two words, its own and the manager's alive word (`liveness`). A caller that was torn away while it waited
//! leaves its lane in *quarantine*: until its last post is answered, its thread and its successors call by the socket.

mod calling;
mod served;

pub use calling::{CallingLanes, Posted, SMALL_REPLY_BYTES, Waited};
pub use served::{Answered, Request, ServedLanes, ValuesBehind};

use crate::limits::LANE_ROOM_BYTES;
use crate::map::Segment;
use crate::pin::BLOCKS;
use crate::sys::LARGE_PAGE_BYTES;
use crate::wire::HEAD_BYTES;
use std::sync::atomic::{AtomicU64, Ordering};

/// Lanes of a session, the shared one included, which has no slot in use.
pub const LANES: usize = BLOCKS;
/// Words of doorbells: one cache line.
pub const DOORBELL_WORDS: usize = 8;
/// Bytes of a slot: a page, so that only lanes in use take memory.
const SLOT_BYTES: usize = 4096;
/// Offset of the *watched* word, on a line of its own.
const WATCHED: usize = 64;
/// Where the room begins: behind the page of doorbells and the slots.
pub const ROOM: u64 = (SLOT_BYTES * (1 + LANES)) as u64;
/// Bytes of a segment.
pub const SEGMENT_BYTES: u64 = ROOM + LANE_ROOM_BYTES;

/// Within a slot: the reply's half.
const ANSWERED: usize = 0;
const SLEEPING: usize = 4;
const REPLY: usize = 8;
/// The request's half: head, where the payload is, and in the upper half the bytes of the values behind it, mark of the post and processor (upper half),
/// payload in place.
const REQUEST: usize = 2048;
const REQUEST_PAYLOAD: usize = REQUEST + 32;

/// Bytes of a payload that travels in its slot.
pub const IN_PLACE_BYTES: usize = SLOT_BYTES - REQUEST_PAYLOAD;
/// Bytes of a reply, its head included, that fits into its slot. Others go by the socket.
pub const REPLY_BYTES: usize = REQUEST - REPLY;
/// Code of a reply's head that says: it comes by the socket.
pub const BY_SOCKET: u8 = u8::MAX;

/// *watched*: the manager looks, on the processor whose number stands in the upper half.
const LOOKING: u64 = 1;
/// *watched* and *answered*: the session is over.
const OVER: u32 = 2;

const _: () = assert!(ROOM == 2 << 20 && SEGMENT_BYTES == 10 << 20);
const _: () = assert!(LANES <= 64 * DOORBELL_WORDS);
const _: () = assert!(REQUEST_PAYLOAD.is_multiple_of(8) && REPLY.is_multiple_of(8) && REPLY + HEAD_BYTES < REQUEST);
const _: () = assert!(ROOM.is_multiple_of(LARGE_PAGE_BYTES) && LANE_ROOM_BYTES >= LARGE_PAGE_BYTES);
const _: () = assert!(ROOM.is_multiple_of(4096) && LANE_ROOM_BYTES.is_multiple_of(64 << 10));
const _: () = assert!(REQUEST_PAYLOAD == REQUEST + HEAD_BYTES + 16);

/// Offset of a lane's slot.
const fn slot(lane: u16) -> usize {
    SLOT_BYTES * (1 + lane as usize)
}

/// `count` words of a segment from a byte offset on.
#[inline]
fn words(segment: &Segment, offset: usize, count: usize) -> &[AtomicU64] {
    &segment.words()[offset / 8..offset / 8 + count]
}

/// The words of a post: shared memory, or a model of it.
pub trait PostWords {
    /// Sets the lane's bit. A full fence stands behind it.
    fn set_bit(&self);
    /// Loads *watched*.
    fn watched(&self) -> u64;
    /// Stores *watched*.
    fn set_watched(&self, watched: u64);
    /// A full fence.
    fn fence(&self);
    /// Whether any bit is set.
    fn is_rung(&self) -> bool;
}

/// The client's half: sets the bit, and returns what *watched* says then.
#[inline(always)]
pub fn post(words: &impl PostWords) -> u64 {
    words.set_bit();
    words.watched()
}

/// The manager's half: will not look any more, for this reason. Whether something has been posted meanwhile.
#[inline(always)]
pub fn stop_watching(words: &impl PostWords, watched: u64) -> bool {
    words.set_watched(watched);
    words.fence();
    words.is_rung()
}

/// The words of an answer: shared memory, or a model of it.
pub trait AnswerWords {
    /// Stores *answered*, the reply being written.
    fn set_answered(&self);
    /// Whether *answered* is no longer what it was.
    fn is_answered(&self) -> bool;
    /// Stores *sleeping*.
    fn set_sleeping(&self);
    /// Loads *sleeping*.
    fn is_sleeping(&self) -> bool;
    /// A full fence.
    fn fence(&self);
}

/// The client's half: says that it will sleep. Whether it still may: the kernel asks once more.
#[inline(always)]
pub fn begin_sleep(words: &impl AnswerWords) -> bool {
    words.set_sleeping();
    words.fence();
    !words.is_answered()
}

/// The manager's half: answers. Whether somebody must be woken.
#[inline(always)]
pub fn answer(words: &impl AnswerWords) -> bool {
    words.set_answered();
    words.fence();
    words.is_sleeping()
}

/// Stores bytes into words that the other side reads.
#[inline]
fn store_bytes(words: &[AtomicU64], bytes: &[u8]) {
    let (chunks, rest) = bytes.as_chunks();
    // Four at a time: a loop of atomic stores is not unrolled by itself.
    let (fours, ones) = chunks.as_chunks::<4>();
    let (word_fours, _) = words.as_chunks::<4>();
    for (chunks, words) in fours.iter().zip(word_fours) {
        (0..4).for_each(|at| words[at].store(u64::from_le_bytes(chunks[at]), Ordering::Relaxed));
    }
    for (chunk, word) in ones.iter().zip(words.iter().skip(4 * fours.len())) {
        word.store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
    }
    if let (false, Some(word)) = (rest.is_empty(), words.get(chunks.len())) {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        word.store(u64::from_le_bytes(last), Ordering::Relaxed);
    }
}

/// Words that are copied at a time: a loop over atomics is not unrolled by itself.
const RUN_WORDS: usize = 4;
/// Their bytes.
const RUN_BYTES: usize = 8 * RUN_WORDS;
const _: () = assert!(IN_PLACE_BYTES.is_multiple_of(RUN_BYTES));

/// Copies whole runs of words out that the other side may be writing.
#[inline]
fn load_runs(words: &[AtomicU64], bytes: &mut [u8]) {
    let ((words, _), (runs, _)) = (words.as_chunks::<RUN_WORDS>(), bytes.as_chunks_mut::<RUN_BYTES>());
    for (run, words) in runs.iter_mut().zip(words) {
        let (run, _) = run.as_chunks_mut();
        (0..RUN_WORDS).for_each(|at| run[at] = words[at].load(Ordering::Relaxed).to_le_bytes());
    }
}

/// Copies bytes out of words that the other side may be writing. Always in its caller's place: for a small reply's length, which is known there,
/// six loads are left of it.
#[inline(always)]
fn load_bytes(words: &[AtomicU64], bytes: &mut [u8]) {
    let (chunks, rest) = bytes.as_chunks_mut();
    let whole = chunks.len();
    let (fours, ones) = chunks.as_chunks_mut::<4>();
    let (word_fours, _) = words.as_chunks::<4>();
    let ones_from = 4 * fours.len();
    for (chunks, words) in fours.iter_mut().zip(word_fours) {
        (0..4).for_each(|at| chunks[at] = words[at].load(Ordering::Relaxed).to_le_bytes());
    }
    for (chunk, word) in ones.iter_mut().zip(words.iter().skip(ones_from)) {
        *chunk = word.load(Ordering::Relaxed).to_le_bytes();
    }
    if let (false, Some(word)) = (rest.is_empty(), words.get(whole)) {
        let word = word.load(Ordering::Relaxed).to_le_bytes();
        rest.copy_from_slice(&word[..rest.len()]);
    }
}

#[cfg(test)]
mod tests;
