//! Mappings of shared segments, and the only ways to touch their bytes.
//!
//! Views of memory that several processes map:
//! - [`Segment`]: a region that several sides may write: a session page, lanes, the state of a lock. Touched through atomics alone, but
//!   for a part that one client has to itself.
//! - [`ArenaReader`]: the arena as everybody sees it. Words are read by relaxed atomic loads, so a word that is being
//!   reused at this moment is a wrong number and never undefined behaviour; byte slices are handed out only for blocks of a
//!   pinned version, which nobody writes (INV-1, INV-2 in `docs/ARCHITECTURE.md`).
//! - [`ArenaWriter`]: the manager's own view: stores and copies by offset, no references at all (INV-3).
//! - [`Sealed`]: a file that the kernel lets nobody change any more: bytes as any others (INV-35).
//!
//! Readers treat an offset outside of the arena as pointing to zeros: a walk over damaged words ends at a null link, and a
//! value read from there fails its check. The writer asserts instead: a wrong offset there is a bug of ours.
#![allow(unsafe_code)] // raw loads and stores in mappings; each block argues from the numbered invariants

mod cell;
mod group;
mod sealed;

pub use cell::{Cell, Change};
pub use group::Group;
pub use sealed::Sealed;

use crate::error::{Error, Result};
use crate::fork::Stamp;
use crate::sys::{LargeMapping, Pace};
use memmap2::{MmapOptions, MmapRaw};
use rkyv::util::AlignedVec;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Which way a segment is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Loads only; a store would end the process.
    ReadOnly,
    /// Loads and stores.
    ReadWrite,
}

fn map(fd: &OwnedFd, len: u64, access: Access) -> Result<MmapRaw> {
    let file = File::from(fd.try_clone().map_err(|e| Error::system("cannot duplicate the descriptor of a shared segment", e))?);
    let mut options = MmapOptions::new();
    // What no address can count, the kernel refuses.
    options.len(usize::try_from(len).unwrap_or(usize::MAX));
    let mapped = match access {
        Access::ReadOnly => options.map_raw_read_only(&file),
        Access::ReadWrite => options.map_raw(&file),
    };
    mapped.map_err(|e| {
        Error::system(format!("cannot map {len} bytes of shared memory (is the limit on address space, `ulimit -v`, lower than that? give the manager a smaller `capacity`)"), e)
    })
}

/// Bytes of a line of the caches.
#[cfg(target_arch = "x86_64")]
const LINE_BYTES: usize = 64;

/// A region that several processes write: atomics only, each word always with the same width.
pub struct Segment {
    /// Taken apart by `drop` alone.
    raw: ManuallyDrop<MmapRaw>,
    /// Of a region that forked children do not have: whose it is.
    owner: Option<Stamp>,
}

impl Segment {
    /// Maps the first `len` bytes of a sealed memfd.
    pub fn map(fd: &OwnedFd, len: u64, access: Access) -> Result<Self> {
        Ok(Segment { raw: ManuallyDrop::new(map(fd, len, access)?), owner: None })
    }

    /// Keeps the region out of forked children: they must not write into their parent's pins and locks.
    pub fn keep_from_children(mut self) -> Result<Self> {
        crate::sys::exclude_from_forks(&self.raw)?;
        self.owner = Some(Stamp::now());
        Ok(self)
    }

    /// Keeps the region out of core dumps.
    pub fn keep_from_dumps(&self) -> Result<()> {
        crate::sys::exclude_from_dumps(&self.raw)
    }

    /// Copies bytes into a part that the caller has to itself: nobody else maps it, or a word in the segment says that it is the
    /// caller's.
    #[inline]
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len());
        // SAFETY: in bounds (checked); `bytes` is private memory, so they do not overlap. Nobody has a reference into a segment but
        // to atomics, which nobody uses in this part; other processes read it by system calls alone (INV-26), or while a word names
        // them as its owner (INV-25). Against who breaks that a raw copy promises nothing about its bytes (INV-31).
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.raw.as_mut_ptr().add(offset), bytes.len()) }
    }

    /// The same past this processor's caches, for bytes that only another one will read: it does not wait until it owns the lines
    /// that the other one has read before. Whoever sees what this thread stores afterwards sees them, as if they had been copied.
    pub fn stream_in(&self, offset: usize, bytes: &[u8]) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
            self.check(offset, bytes.len());
            let (first, rest) = bytes.split_at(bytes.len().min(offset.next_multiple_of(LINE_BYTES) - offset));
            let (lines, last) = rest.as_chunks::<LINE_BYTES>();
            self.copy_in(offset, first);
            let to = offset + first.len();
            for (at, line) in lines.iter().enumerate() {
                // SAFETY: in bounds (checked), each at a multiple of 16: a mapping begins at a page, `to` is a multiple of a line if there are any, and a
                // line has four of them. The fence below comes before any other access of ours to them. Otherwise as in `copy_in` (INV-31).
                unsafe {
                    let from = line.as_ptr().cast::<__m128i>();
                    let target = self.raw.as_mut_ptr().add(to + LINE_BYTES * at).cast::<__m128i>();
                    (0..4).for_each(|quarter| _mm_stream_si128(target.add(quarter), _mm_loadu_si128(from.add(quarter))));
                }
            }
            self.copy_in(to + LINE_BYTES * lines.len(), last);
            // SYNC: orders these stores, which nothing else does, before what says that the bytes are there.
            // SAFETY: a fence has no preconditions; every processor of this kind has it (INV-31).
            unsafe { _mm_sfence() }
        }
        #[cfg(not(target_arch = "x86_64"))]
        self.copy_in(offset, bytes);
    }

    /// The word at a byte offset, which must be a multiple of 8 inside of the segment.
    #[inline]
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.raw.len(), "segment offset {offset} of {}", self.raw.len());
        // SAFETY: in bounds and aligned (asserted); the memory is mapped as long as `self`, sealed against shrinking, and
        // everybody touches it through atomics alone (INV-20, INV-31).
        unsafe { AtomicU64::from_ptr(self.raw.as_mut_ptr().add(offset).cast()) }
    }

    /// Its first words, which it must have.
    #[inline(always)]
    pub fn first_words<const N: usize>(&self) -> &[AtomicU64; N] {
        self.words().first_chunk().expect("a segment of this length")
    }

    /// All whole words of the region.
    #[inline(always)]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: as in `word`, for all of them: a mapping begins at a page, so at a multiple of 8 (INV-31).
        unsafe { std::slice::from_raw_parts(self.raw.as_mut_ptr().cast(), self.raw.len() / 8) }
    }

    /// Brings the cache line of an offset to where this processor can write it.
    #[inline(always)]
    pub fn prefetch_to_write(&self, offset: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            let address = self.raw.as_mut_ptr().wrapping_add(offset);
            // SAFETY: a prefetch has no effect but on caches, for any address (INV-31). Processors that do not know this one skip it.
            unsafe { std::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags, readonly)) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = offset;
    }

    /// Everything from a byte offset on, as atomics of one width: a multiple of 8 inside of the segment. If its end is within the last
    /// of them, what is behind that end is there, too, and nobody else's.
    #[inline(always)]
    pub fn cells<C: Cell>(&self, offset: usize) -> &[C] {
        let bytes = self.raw.len();
        assert!(offset.is_multiple_of(8) && offset <= bytes, "segment offset {offset} of {bytes}");
        // SAFETY: a `Cell` is an atomic integer (nothing else is one), for which all bits are valid, and which is as aligned as wide: a
        // mapping begins at a page, and `offset` is a multiple of 8. It is in bounds, since a mapping ends at a page as well, so at a
        // multiple of 8 that is not before `bytes`. Otherwise as in `word` (INV-31).
        unsafe { std::slice::from_raw_parts(self.raw.as_mut_ptr().add(offset).cast(), (bytes - offset).div_ceil(size_of::<C>())) }
    }

    /// The 32-bit word at a byte offset, which must be a multiple of 4 inside of the segment: what sleepers wait on.
    #[inline]
    pub fn half(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.raw.len(), "segment offset {offset} of {}", self.raw.len());
        // SAFETY: as in `word` (INV-31).
        unsafe { AtomicU32::from_ptr(self.raw.as_mut_ptr().add(offset).cast()) }
    }

    /// Its bytes.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.raw.len()
    }

    /// Copies bytes out, behind what is in `out`. They are foreign, and private from then on.
    #[inline]
    pub fn copy_out(&self, offset: usize, len: usize, out: &mut AlignedVec<16>) {
        self.check(offset, len);
        out.reserve(len);
        let have = out.len();
        // SAFETY: in bounds (checked) here, reserved there, and the two do not overlap; as in `copy_in`. All bytes up to
        // the new length are initialised (INV-31).
        unsafe {
            std::ptr::copy_nonoverlapping(self.raw.as_mut_ptr().add(offset), out.as_mut_ptr().add(have), len);
            out.set_len(have + len);
        }
    }

    /// The same for bytes that need no alignment.
    pub fn copy_out_plain(&self, offset: usize, len: usize, out: &mut Vec<u8>) {
        self.check(offset, len);
        out.reserve(len);
        let have = out.len();
        // SAFETY: as in `copy_out` (INV-31).
        unsafe {
            std::ptr::copy_nonoverlapping(self.raw.as_mut_ptr().add(offset), out.as_mut_ptr().add(have), len);
            out.set_len(have + len);
        }
    }

    /// Copies so many bytes out.
    #[inline(always)]
    pub fn copy_out_to<const N: usize>(&self, offset: usize, out: &mut [u8; N]) {
        self.check(offset, N);
        // SAFETY: in bounds (checked), and the two do not overlap; as in `copy_in` (INV-31).
        unsafe { std::ptr::copy_nonoverlapping(self.raw.as_mut_ptr().add(offset), out.as_mut_ptr(), N) }
    }

    #[inline(always)]
    fn check(&self, offset: usize, len: usize) {
        let bytes = self.raw.len();
        assert!(offset <= bytes && len <= bytes - offset, "{len} bytes at {offset} of a segment of {bytes}");
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // In a forked child the region is not there, and something else may be in its place by now.
        if self.owner.is_none_or(Stamp::is_current) {
            // SAFETY: dropped here and nowhere else, and not touched afterwards (INV-31).
            unsafe { ManuallyDrop::drop(&mut self.raw) }
        }
    }
}

/// No mapping is shorter, so that a few words can be looked for with one look at its end.
const MAPPING_BYTES_MIN: u64 = 512;

#[derive(Clone)]
struct Span {
    raw: Arc<LargeMapping>,
    base: NonNull<u8>,
    len: u64,
    /// Offset of the last whole word.
    last_word: u64,
}

// SAFETY: the pointer is into a mapping that `raw` keeps; what it points to is shared between processes anyway, and is
// reached through atomics, or through slices of blocks that nobody writes (INV-1, INV-20).
unsafe impl Send for Span {}
// SAFETY: as above (INV-1, INV-20).
unsafe impl Sync for Span {}

impl Span {
    /// The first `len` bytes of a memory file.
    fn map(fd: &OwnedFd, len: u64, access: Access) -> Result<Self> {
        assert!(len >= MAPPING_BYTES_MIN, "an arena is at least a page");
        let raw = LargeMapping::shared(fd, len, access == Access::ReadWrite)?;
        let base = NonNull::new(raw.start()).expect("a mapping is not at address zero");
        Ok(Span { raw: Arc::new(raw), base, len, last_word: (len - 8) & !7 })
    }

    #[inline(always)]
    fn covers(&self, offset: u64, len: u64) -> bool {
        offset <= self.len && len <= self.len - offset
    }

    /// The address of `offset`, which must lie inside.
    #[inline(always)]
    fn at(&self, offset: u64) -> *mut u8 {
        debug_assert!(offset <= self.len);
        // SAFETY: every caller has checked `covers` (INV-31).
        unsafe { self.base.as_ptr().add(offset as usize) }
    }
}

/// The arena, read.
#[derive(Clone)]
pub struct ArenaReader {
    span: Span,
}

impl ArenaReader {
    /// Maps the whole arena read-only.
    pub fn map(fd: &OwnedFd, len: u64) -> Result<Self> {
        Ok(ArenaReader { span: Span::map(fd, len, Access::ReadOnly)? })
    }

    /// The arena's length in bytes, backed or not.
    pub fn len(&self) -> u64 {
        self.span.len
    }

    /// Whether the arena has no bytes at all (it never is).
    pub fn is_empty(&self) -> bool {
        self.span.len == 0
    }

    /// A word of those that every arena has, for there is nothing shorter.
    #[inline(always)]
    pub fn head_word<const OFFSET: u64>(&self) -> &AtomicU64 {
        const { assert!(OFFSET.is_multiple_of(8) && OFFSET + 8 <= MAPPING_BYTES_MIN) };
        // SAFETY: in bounds, since no arena is shorter (asserted when it was mapped), and aligned (asserted); as in `load`. Nobody here stores
        // to it (INV-31).
        unsafe { AtomicU64::from_ptr(self.span.at(OFFSET).cast()) }
    }

    /// The same of 32 bits, for futex calls.
    #[inline(always)]
    pub fn head_half<const OFFSET: u64>(&self) -> &AtomicU32 {
        const { assert!(OFFSET.is_multiple_of(4) && OFFSET + 4 <= MAPPING_BYTES_MIN) };
        // SAFETY: as in `head_word` (INV-31).
        unsafe { AtomicU32::from_ptr(self.span.at(OFFSET).cast()) }
    }

    /// The word that `offset` lies in; 0 outside of the arena.
    #[inline(always)]
    pub fn word(&self, offset: u64) -> u64 {
        self.load(offset, Ordering::Relaxed)
    }

    /// The word at `offset`, loaded with an ordering of the caller's.
    #[inline(always)]
    pub fn load(&self, offset: u64, ordering: Ordering) -> u64 {
        if offset > self.span.last_word {
            return 0;
        }
        // SAFETY: in bounds (checked) and made a multiple of 8. An atomic load of shared memory is defined whoever writes it (INV-31).
        unsafe { AtomicU64::from_ptr(self.span.at(offset & !7).cast()).load(ordering) }
    }

    /// `N` words from `offset` on, with one look at the bounds; zeros outside of the arena.
    #[inline(always)]
    pub fn words<const N: usize>(&self, offset: u64) -> [u64; N] {
        const { assert!(8 * (N as u64) <= MAPPING_BYTES_MIN) };
        if offset > self.span.last_word - 8 * (N as u64 - 1) {
            return [0; N];
        }
        std::array::from_fn(|i| {
            // SAFETY: the last word begins at `last_word` or before it (checked); as in `load` (INV-31).
            unsafe { AtomicU64::from_ptr(self.span.at((offset & !7) + 8 * i as u64).cast()).load(Ordering::Relaxed) }
        })
    }

    /// The 32-bit word at `offset` for futex calls; `None` outside of the arena.
    #[inline]
    pub fn half_word(&self, offset: u64) -> Option<&AtomicU32> {
        (offset & 3 == 0 && self.span.covers(offset, 4)).then(|| {
            // SAFETY: in bounds and aligned (checked), mapped as long as `self`. Nobody here stores to it: readers only
            // load it and name it to the kernel, which may wait on and wake words of read-only mappings (INV-31).
            unsafe { AtomicU32::from_ptr(self.span.at(offset).cast()) }
        })
    }

    /// `len` bytes of a block that a pin holds; empty if that is outside of the arena.
    ///
    /// The block must be reachable from the version that the caller has pinned (INV-2): then nobody writes it for as long
    /// as the pin. All callers are the walks of this crate (`index`, `sequence`, `catalog`), which start at a pinned root,
    /// and the values that a reply lends.
    #[inline]
    pub fn bytes<'p>(&self, offset: u64, len: u64) -> &'p [u8] {
        if !self.span.covers(offset, len) {
            return &[];
        }
        // SAFETY: in bounds (checked). INV-1: a block of a published version is never written again while a pin lies in its
        // life. INV-4: the guard that `'p` comes from keeps both the pin and this mapping (INV-31).
        unsafe { std::slice::from_raw_parts(self.span.at(offset), len as usize) }
    }

    /// Brings the cache line at `offset` nearer, ahead of its use.
    #[inline(always)]
    pub fn prefetch(&self, offset: u64) {
        #[cfg(target_arch = "x86_64")]
        {
            let address = self.span.base.as_ptr().wrapping_add(offset as usize).cast();
            // SAFETY: a prefetch has no effect but on caches, for any address, in the arena or not (INV-31).
            unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = offset;
    }
}

/// The arena, written: the manager's alone.
pub struct ArenaWriter {
    reader: ArenaReader,
    fd: OwnedFd,
    large_pages: Pace,
}

impl ArenaWriter {
    /// Maps the whole arena for writing.
    pub fn map(fd: OwnedFd, len: u64) -> Result<Self> {
        let reader = ArenaReader { span: Span::map(&fd, len, Access::ReadWrite)? };
        Ok(ArenaWriter { reader, fd, large_pages: Pace::new(true) })
    }

    /// The same, with small pages only.
    pub fn without_large_pages(self) -> Self {
        ArenaWriter { large_pages: Pace::new(false), ..self }
    }

    /// The same memory, read.
    #[inline(always)]
    pub fn reader(&self) -> &ArenaReader {
        &self.reader
    }

    /// The memfd behind it.
    pub fn descriptor(&self) -> &OwnedFd {
        &self.fd
    }

    /// Gives a range of pages memory, all of it or none, so that touching them cannot fail: pages that have none, in large ones where
    /// they fill such.
    pub fn back(&self, range: std::ops::Range<u64>) -> Result<()> {
        self.reader.span.raw.back(&self.fd, range.clone(), &self.large_pages);
        let backed = crate::sys::back(&self.fd, range.clone());
        if backed.is_err() {
            // What has become large pages is not taken back by the call that failed.
            let _ = self.punch(range);
        }
        backed
    }

    /// Gives the memory of a range of pages back to the system.
    pub fn punch(&self, range: std::ops::Range<u64>) -> Result<()> {
        crate::sys::punch(&self.fd, range)
    }

    #[inline(always)]
    fn check(&self, offset: u64, len: u64) {
        assert!(self.reader.span.covers(offset, len), "arena offset {offset} + {len} is outside of {}", self.reader.span.len);
    }

    /// Sees that this many words begin at `offset`, aligned: with one look at the arena's end.
    #[inline(always)]
    fn check_words<const N: usize>(&self, offset: u64) {
        const { assert!(N > 0 && 8 * (N as u64) <= MAPPING_BYTES_MIN) };
        let last = self.reader.span.last_word - 8 * (N as u64 - 1);
        assert!(offset <= last && offset.is_multiple_of(8), "{N} words at arena offset {offset} are unaligned or end behind {last}");
    }

    /// A word that readers look at while it changes.
    #[inline(always)]
    pub fn atomic(&self, offset: u64) -> &AtomicU64 {
        self.check_words::<1>(offset);
        // SAFETY: in bounds and aligned (checked), mapped as long as `self`; everybody touches it through atomics (INV-20, INV-31).
        unsafe { AtomicU64::from_ptr(self.reader.span.at(offset).cast()) }
    }

    /// A 32-bit word that readers wait on.
    #[inline]
    pub fn atomic_half(&self, offset: u64) -> &AtomicU32 {
        self.check(offset, 4);
        assert!(offset.is_multiple_of(4));
        // SAFETY: as in `atomic` (INV-31).
        unsafe { AtomicU32::from_ptr(self.reader.span.at(offset).cast()) }
    }

    /// Stores a word into a block that no published version reaches.
    #[inline(always)]
    pub fn store(&self, offset: u64, word: u64) {
        self.atomic(offset).store(word, Ordering::Relaxed);
    }

    /// Stores words side by side into a block that no published version reaches.
    #[inline(always)]
    pub fn store_words<const N: usize>(&self, offset: u64, words: [u64; N]) {
        self.check_words::<N>(offset);
        self.store_each(offset, N as u64, |i| words[i as usize]);
    }

    /// Stores the same word `count` times, side by side, into a block that no published version reaches.
    #[inline]
    pub fn fill_words(&self, offset: u64, count: u64, word: u64) {
        self.check(offset, count.saturating_mul(8));
        assert!(offset.is_multiple_of(8));
        self.store_each(offset, count, |_| word);
    }

    /// Stores words where the caller has seen that they are in bounds and aligned.
    #[inline(always)]
    fn store_each(&self, offset: u64, count: u64, word: impl Fn(u64) -> u64) {
        for i in 0..count {
            // SAFETY: as in `atomic`: all `count` words are in bounds and aligned, as the two callers above have checked (INV-31).
            unsafe { AtomicU64::from_ptr(self.reader.span.at(offset + 8 * i).cast()) }.store(word(i), Ordering::Relaxed);
        }
    }

    /// Copies bytes into a block that no published version reaches.
    #[inline(always)]
    pub fn copy_in(&self, offset: u64, bytes: &[u8]) {
        if let Ok(word) = <[u8; 8]>::try_from(bytes)
            && offset.is_multiple_of(8)
        {
            // Most keys and many values: not worth a call.
            return self.store(offset, u64::from_ne_bytes(word));
        }
        self.check(offset, bytes.len() as u64);
        // SAFETY: in bounds (checked). INV-3: the manager writes only blocks born in the commit it is making, to which no
        // reference exists anywhere. `bytes` is private memory or another block (INV-31).
        unsafe { std::ptr::copy(bytes.as_ptr(), self.reader.span.at(offset), bytes.len()) }
    }

    /// Copies a block's bytes to another block.
    #[inline(always)]
    pub fn copy_block(&self, from: u64, to: u64, len: u64) {
        self.check(from.max(to), len);
        // SAFETY: both in bounds (checked); the target as in `copy_in`; `copy` allows overlap (INV-31).
        unsafe { std::ptr::copy(self.reader.span.at(from), self.reader.span.at(to), len as usize) }
    }

    /// Sets a range to zeros.
    #[inline]
    pub fn zero(&self, offset: u64, len: u64) {
        self.check(offset, len);
        // SAFETY: as in `copy_in` (INV-31).
        unsafe { std::ptr::write_bytes(self.reader.span.at(offset), 0, len as usize) }
    }

    /// Receives bytes from a stream socket straight into a block that no published version reaches, without waiting.
    ///
    /// Returns the number of bytes, 0 at the end of the stream; `WouldBlock` when nothing is there.
    pub fn receive(&self, from: impl AsFd, offset: u64, len: u64) -> std::io::Result<usize> {
        self.check(offset, len);
        // SAFETY: in bounds (checked); the target as in `copy_in`: the kernel writes there, and nobody refers to it. The slice
        // is of bytes that may be uninitialised, and lives for this call only (INV-31).
        let target = unsafe { std::slice::from_raw_parts_mut(self.reader.span.at(offset).cast(), len as usize) };
        crate::sys::receive_uninit(from, target)
    }

    /// Copies bytes of a file straight into a block that no published version reaches. `false`: the file has fewer, or cannot be read.
    pub fn read_file(&self, from: impl AsFd, at: u64, offset: u64, len: u64) -> bool {
        self.check(offset, len);
        // SAFETY: as in `receive` (INV-31).
        let target = unsafe { std::slice::from_raw_parts_mut(self.reader.span.at(offset).cast(), len as usize) };
        crate::sys::read_uninit_at(from, at, target)
    }

    /// Touches a range of pages ahead of their use, so that a commit does not pay for their first touch. Best effort.
    pub fn populate(&self, range: std::ops::Range<u64>) {
        self.check(range.start, range.end - range.start);
        self.reader.span.raw.populate_for_writing(range.start as usize..range.end as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{LARGE_PAGE_BYTES, memfd_sealed, reopen_read_only};

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_streamed_in_is_there_and_nothing_else_is_touched() {
        let (fd, len) = (memfd_sealed("test-streamed", 4096).unwrap(), 4096);
        crate::sys::back(&fd, 0..len as u64).unwrap();
        let segment = Segment::map(&fd, len as u64, Access::ReadWrite).unwrap();
        let bytes: Vec<u8> = (1..=250).cycle().take(len + 16).collect();
        for (offset, count) in
            (0..130).flat_map(|offset| (0..200).map(move |count| (offset, count))).chain([(0, len), (63, len - 63), (len, 0)])
        {
            segment.copy_in(0, &vec![0; len]);
            let bytes = &bytes[count % 16..][..count];
            segment.stream_in(offset, bytes);
            let mut found = Vec::new();
            segment.copy_out_plain(0, len, &mut found);
            let is_as_before = |range: std::ops::Range<usize>| found[range].iter().all(|byte| *byte == 0);
            assert!(is_as_before(0..offset) && is_as_before(offset + count..len), "{count} bytes at {offset}");
            assert_eq!(&found[offset..offset + count], bytes, "{count} bytes at {offset}");
        }
        for (offset, count) in [(len - 99, 100), (len, 1), (usize::MAX, 1), (usize::MAX - 70, 71)] {
            let streamed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| segment.stream_in(offset, &bytes[..count])));
            assert!(streamed.is_err(), "{count} bytes at {offset}");
        }
    }

    fn memory_bytes(fd: &OwnedFd) -> u64 {
        512 * rustix::fs::fstat(fd).unwrap().st_blocks as u64
    }

    /// Bytes of the mapping at this address that are mapped in large pages.
    pub(super) fn large_bytes(base: usize) -> u64 {
        let all = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut of_mapping = all.lines().skip_while(|line| !line.starts_with(&format!("{base:x}-")));
        let line = of_mapping.find_map(|line| line.strip_prefix("ShmemPmdMapped:")).expect("a mapping says how it is mapped");
        1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    }

    fn arena(len: u64) -> (ArenaWriter, ArenaReader) {
        let fd = memfd_sealed("test-large-pages", len).unwrap();
        let reading = reopen_read_only(&fd).unwrap();
        (ArenaWriter::map(fd, len).unwrap(), ArenaReader::map(&reading, len).unwrap())
    }

    #[test]
    fn memory_in_large_pages_comes_holds_and_goes_as_in_small_ones() {
        let (writer, reader) = arena(16 * MIB);
        // Three of them, with small ones before and behind.
        writer.back(MIB..9 * MIB).unwrap();
        assert_eq!(memory_bytes(writer.descriptor()), 8 * MIB);
        for at in (MIB..9 * MIB).step_by(4096) {
            assert_eq!(reader.word(at), 0);
            writer.store(at, at);
        }
        assert!((MIB..9 * MIB).step_by(4096).all(|at| reader.word(at) == at));
        // From within one of them to within another.
        writer.punch(3 * MIB..5 * MIB).unwrap();
        // What is left of a large page may be a page that somebody in the kernel looks at just now: then it goes the next time.
        let mut tries = 0;
        while memory_bytes(writer.descriptor()) > 6 * MIB && tries < 1000 {
            std::thread::yield_now();
            writer.punch(3 * MIB..5 * MIB).unwrap();
            tries += 1;
        }
        assert_eq!(memory_bytes(writer.descriptor()), 6 * MIB);
        assert!((3 * MIB..5 * MIB).step_by(4096).all(|at| reader.word(at) == 0));
        assert!((MIB..3 * MIB).chain(5 * MIB..9 * MIB).step_by(4096).all(|at| reader.word(at) == at));
        writer.punch(0..16 * MIB).unwrap();
        assert_eq!(memory_bytes(writer.descriptor()), 0);
        assert_eq!(reader.word(6 * MIB), 0);
    }

    #[test]
    fn an_arena_is_there_from_its_first_byte_to_its_last_wherever_there_is_room() {
        let _in_the_way: Vec<_> = (1..6).map(|pages| MmapOptions::new().len(4096 * 37 * pages).map_anon().unwrap()).collect();
        let arenas: Vec<_> = (0..6).map(|more| arena(4 * MIB + 4096 * 101 * more)).collect();
        for (writer, reader) in &arenas {
            writer.back(0..reader.len()).unwrap();
            for at in [0, 4096, reader.len() - 8] {
                writer.store(at, at + 1);
                assert_eq!(reader.word(at), at + 1);
            }
        }
    }

    #[test]
    fn readers_map_in_large_pages_what_came_in_such() {
        let (writer, reader) = arena(8 * MIB);
        writer.back(0..8 * MIB).unwrap();
        let written = large_bytes(writer.reader.span.base.as_ptr().addr());
        assert_eq!((reader.word(MIB), reader.word(5 * MIB)), (0, 0));
        let read = large_bytes(reader.span.base.as_ptr().addr());
        // Not where the kernel has none or makes none.
        assert!(read == if written == 0 { 0 } else { 2 * LARGE_PAGE_BYTES }, "{written} B, {read} B");
    }
}
