//! Memory files in large pages, and mappings that begin where these do.
//!
//! A large page of a file is mapped by one entry of the page tables where it begins, in memory as in the file, at a multiple of its size; a mapping that
//! the kernel places lies anywhere. So the kernel is asked where there is room, and then for the place within that where a large page can begin. It is an
//! accelerator: if another thread is quicker, or addresses are short, the mapping lies elsewhere, and has small pages. Most are short-lived, and one after
//! another: the place of the last one is asked for first, and is free then.
//!
//! **Large pages come by collapsing** (`MADV_COLLAPSE`): a small page is made at the beginning of each, and the kernel puts it and the nothing behind it into a
//! large one, whatever the system's settings for shared memory are, short of `deny`. The kernel first collects what all processors hold back of their own,
//! and waits for that: some microseconds, but as long as it takes where a process of real-time priority leaves none of its time to others. So all pages
//! of a range are collapsed at once, and after a collapse that took long, or was refused, the next ones are left out, ever more of them ([`Pace`]).
//!
//! A fresh file's first bytes get their memory in large pages, and are written where they are mapped: one touch each, where a call would look for 512
//! small pages. They are there before anybody writes, so no write can fail for want of memory. The last page is large if at least half of it will be used:
//! a file takes at most twice its length.

use super::memory::{LARGE_PAGE_BYTES, is_backed, retry_interrupted};
use crate::error::{Error, Result};
use crate::limits::{LARGE_PAGE_MS_MAX, LARGE_PAGES_MS_MAX, LARGE_PAGES_PAUSE_MAX};
use rustix::fs::{self, FallocateFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use std::ffi::c_void;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

const LARGE_PAGE: usize = LARGE_PAGE_BYTES as usize;

/// Where a short-lived one was last.
static LAST: AtomicUsize = AtomicUsize::new(0);

/// When this process asks for large pages of fresh files.
static FRONTS: Pace = Pace::new(true);

/// How many of a file's bytes are worth large pages.
fn worth_large_pages(len: u64) -> u64 {
    let pages = len / LARGE_PAGE_BYTES + u64::from(len % LARGE_PAGE_BYTES >= LARGE_PAGE_BYTES / 2);
    pages * LARGE_PAGE_BYTES
}

/// Addresses that nobody else has, with a file behind them from its first byte on. They may reach behind the file's end.
pub struct LargeMapping {
    base: *mut c_void,
    len: usize,
}

// SAFETY: these are addresses, of which any thread may have some mapped and unmapped; who looks at what is there argues for it (INV-31).
unsafe impl Send for LargeMapping {}
// SAFETY: as above (INV-31).
unsafe impl Sync for LargeMapping {}

impl LargeMapping {
    /// Maps the first `len` bytes, mostly for as long as a process lives, and leaves them out of core dumps, which would otherwise be as large as they are.
    pub fn shared(fd: impl AsFd, len: u64, writable: bool) -> Result<LargeMapping> {
        let access = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // What no address can count, the kernel refuses.
        let mapping = LargeMapping::map(fd.as_fd(), usize::try_from(len).unwrap_or(usize::MAX), access, MapFlags::SHARED).map_err(|errno| {
            Error::system(
                format!(
                    "cannot map {len} bytes of shared memory (is the limit on address space, `ulimit -v`, lower than that? give the manager a \
                     smaller `capacity`)"
                ),
                errno,
            )
        })?;
        mapping
            .advise(0..mapping.len, Advice::LinuxDontDump)
            .map_err(|errno| Error::system("could not exclude a mapping from core dumps", errno))?;
        Ok(mapping)
    }

    /// Maps the first `len` bytes for reading, each page present from then on. Private, which is the same for who only reads: kernels before 6.7
    /// refuse a shared mapping of a file that is sealed against writing. `None`: it cannot be mapped so, or there is no memory behind it.
    pub fn to_read(fd: impl AsFd, len: u64) -> Option<LargeMapping> {
        let mapping = LargeMapping::briefly(fd.as_fd(), len, ProtFlags::READ, MapFlags::PRIVATE)?;
        mapping.advise(0..len as usize, Advice::LinuxPopulateRead).ok()?;
        Some(mapping)
    }

    /// Leaves it out of forked children.
    pub fn keep_from_children(&self) -> Result<()> {
        self.advise(0..self.len, Advice::LinuxDontFork)
            .map_err(|errno| Error::system("could not exclude a mapping from forked children", errno))
    }

    /// Where the file's first byte is.
    pub fn start(&self) -> *mut u8 {
        self.base.cast()
    }

    /// Puts writable page-table entries in place ahead of use. Only an accelerator, of kernels from 5.14 on, for what has memory: a lack of it may be
    /// the cgroup's kill.
    pub fn populate_for_writing(&self, range: Range<usize>) {
        let _ = self.advise(range, Advice::LinuxPopulateWrite);
    }

    /// Gives those parts of a range that a large page fills one each, if it is time to ask for such, and if the kernel has as many. `false`: not all have one,
    /// and some may have a small page at their beginning. It is meant for parts without memory: what others have is copied.
    pub fn back(&self, fd: impl AsFd, range: Range<u64>, pace: &Pace) -> bool {
        let (start, end) = (range.start.next_multiple_of(LARGE_PAGE_BYTES), range.end - range.end % LARGE_PAGE_BYTES);
        if start >= end || !self.suits() {
            return false;
        }
        // Where there is nothing at all the kernel makes no large page of it.
        let begin = |at| retry_interrupted(|| fs::fallocate(&fd, FallocateFlags::empty(), at, 1)).is_ok();
        let pages = (end - start) / LARGE_PAGE_BYTES;
        pace.ask(pages, || (start..end).step_by(LARGE_PAGE).all(begin) && self.collapse(start as usize..end as usize))
    }

    /// Makes large pages of small ones, which keep what is in them. `false`: there are not enough of them, or the kernel (before 6.1) cannot.
    fn collapse(&self, range: Range<usize>) -> bool {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: within the mapping (asserted). Only what memory is behind these addresses changes, not what any of them says (INV-34).
        unsafe { libc::madvise(self.base.byte_add(range.start), range.len(), libc::MADV_COLLAPSE) == 0 }
    }

    fn advise(&self, mut range: Range<usize>, advice: Advice) -> rustix::io::Result<()> {
        assert!(range.start <= range.end && range.end <= self.len);
        range.start -= range.start % rustix::param::page_size();
        // SAFETY: within the mapping (asserted). None of the advice above changes what is there (INV-34).
        unsafe { madvise(self.base.byte_add(range.start), range.len(), advice) }
    }

    /// Whether large pages of the file are mapped as such.
    fn suits(&self) -> bool {
        self.base.addr().is_multiple_of(LARGE_PAGE)
    }

    /// A mapping of whole large pages that is not kept for long.
    fn briefly(fd: BorrowedFd<'_>, len: u64, access: ProtFlags, flags: MapFlags) -> Option<LargeMapping> {
        let len = usize::try_from(len).ok()?.checked_next_multiple_of(LARGE_PAGE)?;
        let last = LAST.load(Relaxed);
        if last > 0 {
            let mapping = LargeMapping::map_near(last, fd, len, access, flags).ok()?;
            if mapping.suits() {
                return Some(mapping);
            }
        }
        let mapping = LargeMapping::map(fd, len, access, flags).ok()?;
        LAST.store(if mapping.suits() { mapping.base.addr() } else { 0 }, Relaxed);
        Some(mapping)
    }

    fn map(fd: BorrowedFd<'_>, len: usize, access: ProtFlags, flags: MapFlags) -> rustix::io::Result<LargeMapping> {
        let none = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel takes addresses that nobody has (INV-34).
        let room = |len| unsafe { mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), none) }.map(|base| LargeMapping { base, len });
        // Given back here: it was to find out where there is room. Without it (addresses are short, or locked) anywhere is near enough.
        let place =
            len.checked_add(LARGE_PAGE).and_then(|len| room(len).ok()).map_or(0, |room| room.base.addr().next_multiple_of(LARGE_PAGE));
        LargeMapping::map_near(place, fd, len, access, flags)
    }

    /// Maps a file at a place if that is free, and else elsewhere.
    fn map_near(place: usize, fd: BorrowedFd<'_>, len: usize, access: ProtFlags, flags: MapFlags) -> rustix::io::Result<LargeMapping> {
        // SAFETY: without FIXED the kernel takes addresses that nobody has (INV-34).
        let base = unsafe { mmap(ptr::without_provenance_mut(place), len, access, flags, fd, 0) }?;
        Ok(LargeMapping { base, len })
    }
}

impl Drop for LargeMapping {
    fn drop(&mut self) {
        // SAFETY: mapped by the kernel for this value, which alone has these addresses; nobody who borrows from it is there any more (INV-34).
        let _ = unsafe { munmap(self.base, self.len) };
    }
}

/// When large pages are asked for, by one who needs some again and again.
pub struct Pace {
    /// How often they are left out before the next try; for ever.
    left_out: AtomicU32,
    /// How often they were, the last time.
    pause: AtomicU32,
}

impl Pace {
    /// At once; or never.
    pub const fn new(ever: bool) -> Pace {
        Pace { left_out: AtomicU32::new(if ever { 0 } else { u32::MAX }), pause: AtomicU32::new(0) }
    }

    /// Calls `ask`, for so many pages, if it is time for it. It says whether there were any.
    fn ask(&self, pages: u64, ask: impl FnOnce() -> bool) -> bool {
        match self.left_out.load(Relaxed) {
            0 => {
                let begun = Instant::now();
                let had_any = ask();
                self.note(had_any, pages, begun.elapsed());
                had_any
            }
            u32::MAX => false,
            left => {
                self.left_out.store(left - 1, Relaxed);
                false
            }
        }
    }

    fn note(&self, had_any: bool, pages: u64, took: Duration) {
        let was_quick = took <= Duration::from_millis(LARGE_PAGES_MS_MAX.saturating_add(LARGE_PAGE_MS_MAX.saturating_mul(pages)));
        let pause = if had_any && was_quick { 0 } else { (2 * self.pause.load(Relaxed)).clamp(1, LARGE_PAGES_PAUSE_MAX) };
        self.pause.store(pause, Relaxed);
        self.left_out.store(pause, Relaxed);
    }
}

/// The beginning of a fresh memory file, in large pages, and mapped for its one writer.
pub struct Front {
    mapping: LargeMapping,
    len: usize,
}

impl Front {
    /// Of a file that has this length, and no memory yet, and that nobody else has. `None`: it is too short for large pages, or the kernel has none, or
    /// (before 6.1) makes none. It may be shorter than the file: the rest has no memory yet.
    pub fn of(fd: impl AsFd, len: u64) -> Option<Front> {
        let (fd, wanted) = (fd.as_fd(), worth_large_pages(len));
        if wanted == 0 {
            return None;
        }
        let mapping = LargeMapping::briefly(fd, wanted, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)?;
        // (Asked once more: a touch of what has no memory could end the process, and a system's large pages may be others.)
        let is_there = mapping.back(fd, 0..wanted, &FRONTS) && is_backed(fd, wanted);
        is_there.then(|| Front { mapping, len: wanted.min(len) as usize })
    }

    /// Writes bytes to their place in the file, as many as lie in this part of it: how many these are.
    pub fn put(&mut self, at: u64, bytes: &[u8]) -> usize {
        let Some(room) = usize::try_from(at).ok().and_then(|at| self.len.checked_sub(at)) else { return 0 };
        let count = bytes.len().min(room);
        // SAFETY: `at + count` is at most `len`, which is within the mapping, and has memory. `bytes` is memory of this process's own, and nobody has a
        // reference to any of the mapping (INV-31).
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.mapping.base.cast::<u8>().add(at as usize), count) };
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{memfd, seal_content};
    use std::os::fd::OwnedFd;

    const MIB: u64 = 1 << 20;

    fn memory_bytes(fd: &OwnedFd) -> u64 {
        fs::fstat(fd).unwrap().st_blocks as u64 * 512
    }

    #[test]
    fn large_pages_are_at_least_half_used() {
        for (len, worth) in [(0, 0), (MIB - 1, 0), (MIB, 2), (2 * MIB, 2), (3 * MIB - 1, 2), (3 * MIB, 4), (40 * MIB + 8, 40)] {
            assert_eq!(worth_large_pages(len), worth * MIB, "{len}");
        }
    }

    #[test]
    fn a_front_is_written_up_to_its_end_and_takes_no_more_memory_than_its_pages() {
        for len in [MIB, 2 * MIB + 5, 3 * MIB - 1, 3 * MIB + 1] {
            let fd = memfd("test-front", len).unwrap();
            let Some(mut front) = Front::of(&fd, len) else { return };
            let end = front.len as u64;
            assert!(end <= len && memory_bytes(&fd) <= 2 * len, "{len}");
            assert_eq!((front.put(0, &[1; 100]), front.put(end - 10, &[2; 100])), (100, 10));
            assert_eq!((front.put(end, &[3; 100]), front.put(end + 1, &[3; 100]), front.put(u64::MAX, &[3; 100])), (0, 0, 0));
            let mut bytes = [0; 100];
            let read = rustix::io::pread(&fd, &mut bytes[..], end - 10).unwrap();
            assert!(read >= 10);
            assert_eq!((&bytes[..10], fs::fstat(&fd).unwrap().st_size as u64), (&[2; 10][..], len));
            assert!(!seal_content(&fd), "it is mapped for writing");
            drop(front);
            assert!(seal_content(&fd));
        }
    }

    #[test]
    fn what_was_refused_or_slow_is_left_out_ever_longer_and_what_is_off_for_ever() {
        let tried = |pace: &Pace, times: u32, answer: bool| {
            let mut asked = 0;
            (0..times).for_each(|_| {
                pace.ask(1, || (asked += 1, answer).1);
            });
            asked
        };
        let pace = Pace::new(true);
        assert_eq!(tried(&pace, 10, true), 10);
        // 1, 2, 4, … are left out between.
        assert_eq!([tried(&pace, 1, false), tried(&pace, 1, false), tried(&pace, 1, false)], [1, 0, 1]);
        assert_eq!([tried(&pace, 2, false), tried(&pace, 1, false), tried(&pace, 4, false), tried(&pace, 1, true)], [0, 1, 0, 1]);
        assert_eq!(tried(&pace, 5, true), 5);
        tried(&pace, 100_000, false);
        assert!((1..=2).contains(&tried(&pace, LARGE_PAGES_PAUSE_MAX + 1, false)));
        let slow = Pace::new(true);
        for (pages, millis, left_out) in [(1, 15, 0), (1, 16, 1), (20, 110, 0), (20, 111, 1), (u64::MAX, u64::MAX / 2, 0)] {
            slow.note(true, pages, Duration::from_millis(millis));
            assert_eq!(slow.left_out.load(Relaxed), left_out, "{pages} pages in {millis} ms");
        }
        assert_eq!(tried(&Pace::new(false), 100_000, true), 0);
    }

    #[test]
    fn what_has_no_large_pages_has_no_front() {
        assert!(Front::of(memfd("test-front", MIB - 1).unwrap(), MIB - 1).is_none());
        assert!(Front::of(fs::open("/proc/self/exe", fs::OFlags::RDONLY, fs::Mode::empty()).unwrap(), 4 * MIB).is_none());
        assert!(LargeMapping::to_read(memfd("test-front", 0).unwrap(), 0).is_none());
        assert!(LargeMapping::to_read(memfd("test-front", MIB).unwrap(), 4 * MIB).is_none(), "there is nothing behind its end");
        assert!(LargeMapping::to_read(memfd("test-front", MIB).unwrap(), u64::MAX).is_none());
    }

    #[test]
    fn mappings_begin_where_large_pages_do_however_many_there_are() {
        let fd = memfd("test-front", 5 * MIB).unwrap();
        let mappings: Vec<_> = (0..9).map(|_| LargeMapping::to_read(&fd, 5 * MIB).unwrap()).collect();
        let mut starts: Vec<_> = mappings.iter().map(|mapping| mapping.start().addr()).collect();
        starts.sort_unstable();
        assert!(starts.iter().all(|start| start.is_multiple_of(LARGE_PAGE)));
        assert!(starts.windows(2).all(|two| two[1] - two[0] >= 6 << 20));
    }
}
