//! A line's memory: frames between a client and a host of users' objects, where a socket would cost two wake-ups.
//!
//! A *line* is a pair of connected sockets, one end with a client, one with a host, which the manager has made (`server::hosts`). With it
//! comes a sealed memory file of its own, which those two map and nobody else: two *rings* of bytes, one for each direction. All frames
//! (`wire::remote`) then go through the rings, large ones piece by piece; the sockets only wake who sleeps, and end when a side ends.
//!
//! | | who sends | who receives |
//! |---|---|---|
//! | 1 | copies bytes to the ring's end, as many as there is room for | looks at *written* for some microseconds, if that has lately paid off |
//! | 2 | stores *written*; full fence | stores *looking* = 0; full fence; looks once more |
//! | 3 | looks at the other side's *looking*: if it sleeps and was not rung for in this sleep, sends a byte by the socket | sleeps on its socket |
//! | 4 | | stores *looking* = 1, copies bytes out; stores *read*, now and then |
//!
//! Who waits for room does the same, the other way round. It is told of room only if it says that it wants some: *read* is stored when
//! half a ring has been taken, and before a sleep, and then followed by a full fence and a look at *looking* as well.
//!
//! Each side writes three words, on lines of its own (and two that order nothing, *cpu* and *given up*: see `say_where` and `give_up`):
//!
//! | word | states | by whom, when |
//! |---|---|---|
//! | **written** | bytes ever sent | its writer, after the bytes (Release) |
//! | **read** | bytes ever received and copied | its reader, after the copy (Release) |
//! | **looking** | 4 *n*: it sleeps for the *n*th time, or is not there yet; bytes must be rung for | its reader, before it sleeps |
//! | | 1: it will look once more before it sleeps | its reader, when it is awake |
//! | | 4 *n* + 2: it sleeps for the *n*th time, and wants room as well | its reader, before it sleeps |
//!
//! A sleep is rung for once: the byte ends it, whenever its reader comes to run. Until then a row of answers would otherwise cost a system call
//! each, and where both share a processor that is most of them. What is written after the ring is seen by the look before the next sleep.
//! Of the two threads of a side that may ring, one that finds that the other has taken it upon itself relies on it, as both end together.
//!
//! All zero is the beginning. *Post* (2 and 3 of the left column) and *stop watching* (2 of the right one) are those of `lane`, with its
//! proof: one of the two sides sees the other's store. `tests/line_model.rs` runs this file's own code under loom, with canaries.
//!
//! **Foreign.** Each side keeps its own positions to itself, and stores them only to be seen. What the other side has stored is bounded by
//! them: *written* at most a ring ahead of what was received, *read* at most a ring behind what was sent; else the line is at its end.
//! Bytes are copied before they are looked at (INV-27). Who scribbles over a line spoils that line, which is its own.
//!
//! **Death.** A side that dies before its store of *written* has not sent; a frame of which only a part was sent is never looked at. Its
//! socket is closed by the kernel: who sleeps wakes, takes what was sent whole, and then sees the end. Who spins learns it when it goes
//! to sleep, some microseconds later. A side that is stopped delays who waits for it, as long as that one likes to wait.

use crate::error::{Error, ErrorKind, Result};
use crate::lane::{PostWords, post, stop_watching};
use crate::limits::LINE_RING_BYTES;
use crate::map::{Access, Segment};
use crate::points;
use crate::socket::{Channel, Received, Spin};
use crate::sys;
use rkyv::util::AlignedVec;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::Instant;

/// Offset of a side's words, each side's on cache lines of its own, two of which are fetched together.
const SIDE: usize = 128;
/// Within them.
const WRITTEN: usize = 0;
const READ: usize = 8;
const LOOKING: usize = 16;
const CPU: usize = 24;
const GIVEN_UP: usize = 32;
/// Where the first ring begins: behind the page of words.
const RINGS: usize = 4096;
/// Bytes of a line's memory.
pub const LINE_BYTES: u64 = (RINGS + 2 * LINE_RING_BYTES) as u64;

/// *looking*, its lowest bits: it sleeps, and wants bytes.
const WANTS_BYTES: u64 = 0;
/// It will look.
const WILL_LOOK: u64 = 1;
/// It sleeps, and wants room.
const WANTS_ROOM: u64 = 2;
/// These bits. Above them: which sleep.
const STATE: u64 = 3;
/// No sleep that was rung for.
const NONE: u64 = u64::MAX;

const _: () = assert!(LINE_RING_BYTES.is_power_of_two() && LINE_RING_BYTES.is_multiple_of(4096));

/// Which end of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// That of who calls.
    Client,
    /// That of the process where methods run.
    Host,
}

impl Side {
    /// The other one.
    pub const fn other(self) -> Side {
        match self {
            Side::Client => Side::Host,
            Side::Host => Side::Client,
        }
    }

    fn point(self, what: &str) {
        match self {
            Side::Client => points::client(what),
            Side::Host => points::host(what),
        }
    }
}

/// The memory of a line: shared memory, or a model of it.
pub trait LineWords {
    /// Bytes of a ring, a power of two.
    const RING: u64;
    /// Loads what a side has written (Acquire).
    fn written(&self, side: Side) -> u64;
    /// Stores it (Release).
    fn set_written(&self, side: Side, bytes: u64);
    /// Loads what a side has read (Acquire).
    fn read(&self, side: Side) -> u64;
    /// Stores it (Release).
    fn set_read(&self, side: Side, bytes: u64);
    /// Loads whether a side looks.
    fn looking(&self, side: Side) -> u64;
    /// Stores it.
    fn set_looking(&self, side: Side, looking: u64);
    /// A full fence.
    fn fence(&self);
    /// Copies bytes into the ring that a side writes, all of them before its end.
    fn copy_in(&self, side: Side, at: u64, bytes: &[u8]);
    /// Copies so many bytes out of it.
    fn copy_out(&self, side: Side, at: u64, len: usize, out: &mut AlignedVec<16>);
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Something to receive.
    Bytes,
    /// Room to send, or something to receive.
    RoomOrBytes,
    /// Room to send.
    Room,
}

/// One end of a line's memory. One thread at a time sends, and one receives or waits.
pub struct End<W> {
    words: W,
    side: Side,
    /// Bytes ever sent, received, and said to be received.
    written: AtomicU64,
    read: AtomicU64,
    told: AtomicU64,
    /// How often this side has slept, and the other side's last sleep that was rung for.
    sleeps: AtomicU64,
    rung: AtomicU64,
}

/// What came of sending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// So many bytes.
    pub count: usize,
    /// The other side must be rung for.
    pub must_ring: bool,
    /// It sleeps, whether it was rung for before or not.
    pub to_sleeper: bool,
}

/// What this side says, and what it looks for before it sleeps.
struct Saying<'e, W, S, R> {
    end: &'e End<W>,
    say: S,
    ready: R,
}

impl<W: LineWords, S: Fn(), R: Fn() -> bool> PostWords for Saying<'_, W, S, R> {
    #[inline(always)]
    fn set_bit(&self) {
        (self.say)();
        // SYNC: pairs with the fence between the other side's store of *looking* and its last look.
        self.end.words.fence();
    }

    #[inline(always)]
    fn watched(&self) -> u64 {
        self.end.words.looking(self.end.side.other())
    }

    fn set_watched(&self, watched: u64) {
        self.end.words.set_looking(self.end.side, watched);
    }

    fn fence(&self) {
        // SYNC: pairs with the fence between the other side's stores and its look at *looking*.
        self.end.words.fence();
    }

    fn is_rung(&self) -> bool {
        (self.ready)()
    }
}

impl<W: LineWords> End<W> {
    /// This side's end of fresh memory.
    pub fn new(words: W, side: Side) -> Self {
        let [written, read, told, sleeps] = Default::default();
        End { words, side, written, read, told, sleeps, rung: AtomicU64::new(NONE) }
    }

    /// Whether the other side, which says this, is to be rung for: who asks does so.
    #[inline]
    fn must_ring(&self, looking: u64) -> bool {
        looking & STATE != WILL_LOOK && self.rung.swap(looking, Ordering::Relaxed) != looking
    }

    /// Bytes that there is room for.
    #[inline]
    fn room(&self) -> Result<u64> {
        let under_way = self.written.load(Ordering::Relaxed).wrapping_sub(self.words.read(self.side.other()));
        W::RING.checked_sub(under_way).ok_or_else(corrupt)
    }

    /// Bytes that have come.
    #[inline]
    fn here(&self) -> Result<u64> {
        let here = self.words.written(self.side.other()).wrapping_sub(self.read.load(Ordering::Relaxed));
        if here <= W::RING { Ok(here) } else { Err(corrupt()) }
    }

    /// Whether what is wanted is there. What makes no sense is: whoever looks finds out.
    #[inline]
    pub fn is_ready(&self, wanted: Wanted) -> bool {
        let bytes = || !matches!(self.here(), Ok(0));
        let room = || !matches!(self.room(), Ok(0));
        match wanted {
            Wanted::Bytes => bytes(),
            Wanted::Room => room(),
            Wanted::RoomOrBytes => bytes() || room(),
        }
    }

    /// Sends as many bytes as there is room for.
    ///
    /// # Errors
    /// `Corrupt` if the other side's words make no sense.
    #[inline]
    pub fn send(&self, bytes: &[u8]) -> Result<Sent> {
        let (count, looking) = self.leave(bytes)?;
        if count == 0 {
            return Ok(Sent::default());
        }
        Ok(Sent { count, must_ring: self.must_ring(looking), to_sleeper: looking & STATE != WILL_LOOK })
    }

    /// The same for what need not be seen before something else is: how many, and what the other side's *looking* says.
    #[inline]
    pub fn leave(&self, bytes: &[u8]) -> Result<(usize, u64)> {
        let count = bytes.len().min(self.room()? as usize);
        if count == 0 {
            return Ok((0, WILL_LOOK));
        }
        let written = self.written.load(Ordering::Relaxed);
        let at = written & (W::RING - 1);
        let first = count.min((W::RING - at) as usize);
        self.words.copy_in(self.side, at, &bytes[..first]);
        if first < count {
            self.words.copy_in(self.side, 0, &bytes[first..count]);
        }
        let written = written.wrapping_add(count as u64);
        self.written.store(written, Ordering::Relaxed);
        self.side.point("line: before it is written");
        let looking = post(&Saying { end: self, say: || self.words.set_written(self.side, written), ready: || false });
        self.side.point("line: written");
        Ok((count, looking))
    }

    /// Copies at most so many bytes behind what `out` has: how many, and whether the other side must be told that there is room.
    ///
    /// # Errors
    /// `Corrupt` if the other side's words make no sense.
    #[inline]
    pub fn receive(&self, most: usize, out: &mut AlignedVec<16>) -> Result<(usize, bool)> {
        let count = most.min(self.here()? as usize);
        let read = self.read.load(Ordering::Relaxed);
        let at = read & (W::RING - 1);
        let first = count.min((W::RING - at) as usize);
        self.words.copy_out(self.side.other(), at, first, out);
        if first < count {
            self.words.copy_out(self.side.other(), 0, count - first, out);
        }
        let read = read.wrapping_add(count as u64);
        self.read.store(read, Ordering::Relaxed);
        let is_due = read.wrapping_sub(self.told.load(Ordering::Relaxed)) >= W::RING / 2;
        Ok((count, is_due && self.tell()))
    }

    /// Says what has been received. Whether the other side sleeps until it hears of it.
    fn tell(&self) -> bool {
        let read = self.read.load(Ordering::Relaxed);
        if self.told.load(Ordering::Relaxed) == read {
            return false;
        }
        self.told.store(read, Ordering::Relaxed);
        let looking = post(&Saying { end: self, say: || self.words.set_read(self.side, read), ready: || false });
        looking & STATE == WANTS_ROOM && self.must_ring(looking)
    }

    /// Says that this side will sleep: whether it may, and whether the other one must be told of room first.
    pub fn fall_asleep(&self, wanted: Wanted) -> (bool, bool) {
        let must_ring = self.tell();
        let sleep = self.sleeps.fetch_add(1, Ordering::Relaxed) + 1;
        let looking = sleep << 2 | if wanted == Wanted::Bytes { WANTS_BYTES } else { WANTS_ROOM };
        let is_ready = stop_watching(&Saying { end: self, say: || {}, ready: || self.is_ready(wanted) }, looking);
        self.side.point("line: about to sleep");
        (!is_ready, must_ring)
    }

    /// Says that this side is awake.
    pub fn awake(&self) {
        self.words.set_looking(self.side, WILL_LOOK);
    }
}

#[cold]
fn corrupt() -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "the memory of a line to a host makes no sense: the process at its other end has written nonsense; connect anew",
    )
}

// ------------------------------------------------------------------------------------------------------------- shared memory

const fn word(side: Side, word: usize) -> usize {
    SIDE * (1 + side as usize) + word
}

const fn ring(side: Side) -> usize {
    RINGS + LINE_RING_BYTES * side as usize
}

impl LineWords for Segment {
    const RING: u64 = LINE_RING_BYTES as u64;

    #[inline(always)]
    fn written(&self, side: Side) -> u64 {
        // SYNC: pairs with the Release in `set_written`: the bytes are there.
        self.word(word(side, WRITTEN)).load(Ordering::Acquire)
    }

    #[inline(always)]
    fn set_written(&self, side: Side, bytes: u64) {
        // SYNC: pairs with the Acquire in `written`: the bytes before it.
        self.word(word(side, WRITTEN)).store(bytes, Ordering::Release);
    }

    #[inline(always)]
    fn read(&self, side: Side) -> u64 {
        // SYNC: pairs with the Release in `set_read`: the copy is made, its place may be written.
        self.word(word(side, READ)).load(Ordering::Acquire)
    }

    #[inline(always)]
    fn set_read(&self, side: Side, bytes: u64) {
        // SYNC: pairs with the Acquire in `read`: the copy before it.
        self.word(word(side, READ)).store(bytes, Ordering::Release);
    }

    #[inline(always)]
    fn looking(&self, side: Side) -> u64 {
        self.word(word(side, LOOKING)).load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn set_looking(&self, side: Side, looking: u64) {
        self.word(word(side, LOOKING)).store(looking, Ordering::Relaxed);
    }

    #[inline(always)]
    fn fence(&self) {
        // SYNC: with itself on the other side, see `Saying`.
        fence(Ordering::SeqCst);
    }

    #[inline]
    fn copy_in(&self, side: Side, at: u64, bytes: &[u8]) {
        Segment::copy_in(self, ring(side) + at as usize, bytes);
    }

    #[inline]
    fn copy_out(&self, side: Side, at: u64, len: usize, out: &mut AlignedVec<16>) {
        Segment::copy_out(self, ring(side) + at as usize, len, out);
    }
}

/// What a wait came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// What was wanted is there.
    Ready,
    /// Nothing of it until the deadline.
    Nothing,
    /// The other side is gone, and has left nothing.
    Ended,
}

/// The memory for a new line, to be sent to both of its sides.
pub fn line_memory() -> Result<OwnedFd> {
    let file = sys::memfd_sealed("commonhold-line", LINE_BYTES)?;
    sys::back(&file, 0..LINE_BYTES)?;
    Ok(file)
}

/// One end of a line with memory. One thread at a time sends, and one receives or waits.
pub struct LineEnd {
    end: End<Segment>,
    socket: Channel,
    /// Whether the other side slept when this one sent last.
    to_sleeper: AtomicBool,
}

impl LineEnd {
    /// This side's end: the memory that came with the socket.
    pub fn map(memory: &OwnedFd, socket: Channel, side: Side) -> Result<LineEnd> {
        let segment = Segment::map(memory, LINE_BYTES, Access::ReadWrite)?.keep_from_children()?;
        segment.keep_from_dumps()?;
        Ok(LineEnd { end: End::new(segment, side), socket, to_sleeper: AtomicBool::new(false) })
    }

    /// Its socket.
    pub fn socket(&self) -> &Channel {
        &self.socket
    }

    fn ring(&self) -> Result<()> {
        // 0: it has not looked at the last ones yet, and will.
        self.socket.send(&[0]).map(drop)
    }

    /// Says which processor this thread sends on: 1 more than its number. A hint.
    #[inline(always)]
    fn say_where(&self) {
        self.end.words.word(word(self.end.side, CPU)).store(1 + u64::from(sys::current_cpu()), Ordering::Relaxed);
    }

    /// Whether the other side, when it sent last, ran on the processor that this thread runs on: then it cannot go on while we look.
    #[inline]
    pub fn peer_is_here(&self) -> bool {
        self.end.words.word(word(self.end.side.other(), CPU)).load(Ordering::Relaxed) == 1 + u64::from(sys::current_cpu())
    }

    /// Says that this side waits for nothing any more: what it has asked and has not begun is not to be run. It closes its socket then.
    ///
    /// The other side looks right before it runs something, at a word beside *written*, so that this costs no system call each time; and finds
    /// it also if it was stopped meanwhile. Nothing is ordered by the word: who gives up at the moment of that look is one whose call has
    /// begun. It stays 1, and whatever else may be written there means the same.
    pub fn give_up(&self) {
        self.end.words.word(word(self.end.side, GIVEN_UP)).store(1, Ordering::Relaxed);
    }

    /// Whether the other side has said so.
    #[inline]
    pub fn is_given_up(&self) -> bool {
        self.end.words.word(word(self.end.side.other(), GIVEN_UP)).load(Ordering::Relaxed) != 0
    }

    /// Which side this is.
    pub fn side(&self) -> Side {
        self.end.side
    }

    /// Sends as many bytes as there is room for; 0 if there is none.
    ///
    /// # Errors
    /// `Disconnected` if the other side sleeps no more, being gone; `Corrupt`.
    #[inline]
    pub fn send(&self, bytes: &[u8]) -> Result<usize> {
        self.say_where();
        let sent = self.end.send(bytes)?;
        if sent.must_ring {
            self.ring()?;
        }
        if sent.count > 0 {
            self.to_sleeper.store(sent.to_sleeper, Ordering::Relaxed);
        }
        Ok(sent.count)
    }

    /// Leaves bytes for the other side, as many as there is room for: it sees them when it looks next, and is not woken for them.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn leave(&self, bytes: &[u8]) -> Result<usize> {
        self.say_where();
        self.end.leave(bytes).map(|(count, _)| count)
    }

    /// Whether the other side slept when this one sent last. What it says next takes a wake-up longer: whether it pays to look for that is
    /// another question than whether it pays where nobody sleeps.
    #[inline]
    pub fn to_sleeper(&self) -> bool {
        self.to_sleeper.load(Ordering::Relaxed)
    }

    /// Copies what has come behind what `out` has, at most so many bytes.
    ///
    /// # Errors
    /// `Corrupt`.
    #[inline]
    pub fn receive(&self, most: usize, out: &mut AlignedVec<16>) -> Result<usize> {
        let (count, must_ring) = self.end.receive(most, out)?;
        if must_ring {
            // Who is gone needs no room.
            let _ = self.ring();
        }
        Ok(count)
    }

    /// Whether what is wanted is there.
    #[inline]
    pub fn is_ready(&self, wanted: Wanted) -> bool {
        self.end.is_ready(wanted)
    }

    /// Says that this side will sleep until something comes, for whoever waits for several lines at once: whether it may, or something is there.
    /// In either case [`awake`](Self::awake) comes next.
    pub fn fall_asleep(&self) -> bool {
        self.sleepy(Wanted::Bytes)
    }

    /// Says that this side is awake; `is_readable`: its socket, so that there are rings to be taken, or its end. `false`: the other side is gone,
    /// and what it has sent before is there.
    ///
    /// # Errors
    /// If the socket cannot be read.
    pub fn awake(&self, is_readable: bool) -> Result<bool> {
        self.end.awake();
        Ok(!is_readable || self.socket.receive(&mut [0; 64])? != Received::Ended)
    }

    fn sleepy(&self, wanted: Wanted) -> bool {
        let (may_sleep, must_ring) = self.end.fall_asleep(wanted);
        if must_ring {
            let _ = self.ring();
        }
        may_sleep
    }

    /// Waits for what is wanted: looks for some microseconds first, where that has lately paid off. The deadline is asked for only then.
    #[inline]
    pub fn wait(&self, wanted: Wanted, spin: &mut Spin, deadline: impl FnOnce() -> Option<Instant>) -> Result<Waited> {
        self.wait_or(wanted, Some(spin), deadline, None)
    }

    /// The same, but at once asleep without a spin; or until `other` can be read: that is `Nothing`, as a deadline is.
    #[inline]
    pub fn wait_or(
        &self,
        wanted: Wanted,
        spin: Option<&mut Spin>,
        deadline: impl FnOnce() -> Option<Instant>,
        other: Option<BorrowedFd<'_>>,
    ) -> Result<Waited> {
        if spin.map_or_else(|| self.end.is_ready(wanted), |spin| spin.wait_in_memory(|| self.end.is_ready(wanted))) {
            return Ok(Waited::Ready);
        }
        self.sleep(wanted, deadline(), other)
    }

    #[cold]
    fn sleep(&self, wanted: Wanted, deadline: Option<Instant>, other: Option<BorrowedFd<'_>>) -> Result<Waited> {
        let both = [self.socket.as_fd(), other.unwrap_or(self.socket.as_fd())];
        let descriptors = &both[..1 + usize::from(other.is_some())];
        loop {
            let may_sleep = self.sleepy(wanted);
            let slept = if may_sleep { sys::wait_readable(descriptors, deadline) } else { Ok(0) };
            let has_ended = !self.awake(slept.is_ok())?;
            let readable = slept?;
            let is_over = may_sleep && (readable == 0 || readable & 2 != 0);
            // Last of all: what was sent before the end is there.
            if self.end.is_ready(wanted) {
                return Ok(Waited::Ready);
            }
            if has_ended || is_over {
                return Ok(if has_ended { Waited::Ended } else { Waited::Nothing });
            }
        }
    }
}

#[cfg(test)]
mod tests;
