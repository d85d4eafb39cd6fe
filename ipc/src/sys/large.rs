//! Mappings that begin where large pages do, and fresh files in such.
//!
//! A large page of a file is mapped by one entry of the page tables where it begins, in memory as in the file, at a multiple of its size; a mapping that
//! the kernel places lies anywhere. So addresses are reserved first, and the file is mapped within them at such a place; the rest is let go of, for a process
//! may have only so many mappings. Most are short-lived, and one after another: the place of the last one is asked for first, and is free then.
//!
//! A fresh file's first bytes get their memory in large pages, and are written where they are mapped: one touch each, where a call would look for 512
//! small pages. They are there before anybody writes, so no write can fail for want of memory. The last page is large if at least half of it will be used:
//! a file takes at most twice its length.

use super::memory::{LARGE_PAGE_BYTES, is_backed, retry_interrupted};
use rustix::fs::{self, FallocateFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use std::ffi::c_void;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const LARGE_PAGE: usize = LARGE_PAGE_BYTES as usize;

/// Where such a mapping was last.
static LAST: AtomicUsize = AtomicUsize::new(0);

/// How many of a file's bytes are worth large pages.
fn worth_large_pages(len: u64) -> u64 {
    let pages = len / LARGE_PAGE_BYTES + u64::from(len % LARGE_PAGE_BYTES >= LARGE_PAGE_BYTES / 2);
    pages * LARGE_PAGE_BYTES
}

/// Addresses that nobody else has, with a file behind them from its first byte on: whole large pages, which may reach behind the file's end.
pub struct LargeMapping {
    base: *mut c_void,
    len: usize,
}

// SAFETY: these are addresses, of which any thread may have some mapped and unmapped; who looks at what is there argues for it (INV-31).
unsafe impl Send for LargeMapping {}
// SAFETY: as above (INV-31).
unsafe impl Sync for LargeMapping {}

impl LargeMapping {
    /// Maps the first `len` bytes for reading, each page present from then on. Private, which is the same for who only reads: kernels before 6.7
    /// refuse a shared mapping of a file that is sealed against writing. `None`: it cannot be mapped so, or there is no memory behind it.
    pub fn to_read(fd: impl AsFd, len: u64) -> Option<LargeMapping> {
        let mapping = LargeMapping::map(fd.as_fd(), len, ProtFlags::READ, MapFlags::PRIVATE)?;
        // SAFETY: within the mapping, which is longer. What is there stays what it is (INV-34).
        unsafe { madvise(mapping.base, len as usize, Advice::LinuxPopulateRead) }.ok()?;
        Some(mapping)
    }

    /// Where the file's first byte is.
    pub fn start(&self) -> *const u8 {
        self.base.cast_const().cast()
    }

    fn map(fd: BorrowedFd<'_>, len: u64, access: ProtFlags, flags: MapFlags) -> Option<LargeMapping> {
        let len = usize::try_from(len).ok()?.checked_next_multiple_of(LARGE_PAGE).filter(|len| *len > 0)?;
        let map_at = |hint: usize, flags: MapFlags| {
            // SAFETY: without FIXED the kernel takes addresses that nobody has; with it they are the caller's own, see below (INV-34).
            unsafe { mmap(ptr::without_provenance_mut(hint), len, access, flags, fd, 0) }.ok().map(|base| LargeMapping { base, len })
        };
        // (Dropped at once if it lies elsewhere.)
        let last = LAST.load(Relaxed);
        if last > 0
            && let Some(mapping) = map_at(last, flags).filter(|mapping| mapping.base.addr().is_multiple_of(LARGE_PAGE))
        {
            return Some(mapping);
        }
        let reserved = len.checked_add(LARGE_PAGE)?;
        // SAFETY: the kernel takes addresses that nobody has (INV-34).
        let start =
            unsafe { mmap_anonymous(ptr::null_mut(), reserved, ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE) }.ok()?;
        let before = start.addr().next_multiple_of(LARGE_PAGE) - start.addr();
        // Within what is reserved. If it fails, a part of that may be somebody else's by now: none of it is unmapped any more.
        let mapping = map_at(start.addr() + before, flags | MapFlags::FIXED)?;
        for (from, to) in [(0, before), (before + len, reserved)] {
            if from < to {
                drop(LargeMapping { base: start.wrapping_byte_add(from), len: to - from });
            }
        }
        LAST.store(mapping.base.addr(), Relaxed);
        Some(mapping)
    }
}

impl Drop for LargeMapping {
    fn drop(&mut self) {
        // SAFETY: mapped by the kernel for this value, which alone has these addresses; nobody who borrows from it is there any more (INV-34).
        let _ = unsafe { munmap(self.base, self.len) };
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
        let mapping = LargeMapping::map(fd, wanted, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)?;
        let mut backed = 0;
        while backed < wanted {
            // Where there is nothing at all the kernel makes no large page of it.
            let is_begun = retry_interrupted(|| fs::fallocate(fd, FallocateFlags::empty(), backed, 1)).is_ok();
            let base = mapping.base.wrapping_byte_add(backed as usize);
            // SAFETY: within the mapping, which is as long as wanted. Only what memory is behind it changes, not what it says (INV-34).
            if !is_begun || unsafe { libc::madvise(base, LARGE_PAGE, libc::MADV_COLLAPSE) } != 0 {
                break;
            }
            backed += LARGE_PAGE_BYTES;
        }
        // (Asked once more: a touch of what has no memory could end the process, and a system's large pages may be others.)
        let is_there = backed > 0 && is_backed(fd, backed);
        is_there.then(|| Front { mapping, len: backed.min(len) as usize })
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
