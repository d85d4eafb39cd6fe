//! Files that nobody can change any more, read where they are.
//!
//! Bytes that another process may still write must be copied before they are looked at: they could change between the check and the use.
//! A memory file that is sealed against writing, shrinking and growing cannot, whoever has made it and whatever they hold: the kernel sets
//! that seal only when nobody has the file mapped for writing and no transfer into it is under way, refuses every write, hole and new
//! length from then on, and takes no seal back (INV-35). So a foreign value in one is checked and taken apart in the mapping itself.
//!
//! One thing could still go wrong at a touch: pages that have never been written have no memory behind them, and if the system has none
//! either, the touch ends the process. So all of them are touched ahead, by a call that says whether it could be done. They stay then: making a
//! hole is a write.
//!
//! A longer one is mapped where large pages fit, in which it has been written where there are any (`sys::Front`): one touch each then.
//!
//! Each of them is a mapping, of which a process has only so many; so there is a most ([`SEALED_MAPPINGS_MAX`]), and what is beyond has to be read.

use crate::limits::SEALED_MAPPINGS_MAX;
use crate::sys::{LARGE_PAGE_BYTES, LargeMapping, is_content_sealed};
use memmap2::{Advice, Mmap, MmapOptions};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many there are.
static MAPPED: AtomicUsize = AtomicUsize::new(0);

/// One of as many as there may be, until it is dropped.
struct Place(&'static AtomicUsize);

impl Place {
    fn take(taken: &'static AtomicUsize) -> Option<Place> {
        // Dropped at once if it was one too many.
        let (before, place) = (taken.fetch_add(1, Ordering::Relaxed), Place(taken));
        (before < SEALED_MAPPINGS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The bytes of a file that never change. They begin at a page's start.
pub struct Sealed {
    map: Mapping,
    _place: Place,
}

enum Mapping {
    Anywhere(Mmap),
    /// Where large pages fit, of a file of so many bytes.
    ForLargePages(LargeMapping, usize),
}

impl Sealed {
    /// Maps a memory file of `len` bytes. `None` if it is not sealed, has another length, or cannot be mapped here: then it must be read.
    pub fn map(fd: impl AsFd, len: u64) -> Option<Sealed> {
        let fd = fd.as_fd();
        if !is_content_sealed(fd, len) {
            return None;
        }
        let place = Place::take(&MAPPED)?;
        let bytes = usize::try_from(len).ok()?;
        if len >= LARGE_PAGE_BYTES / 2 {
            let map = Mapping::ForLargePages(LargeMapping::to_read(fd, len)?, bytes);
            return Some(Sealed { map, _place: place });
        }
        let mut options = MmapOptions::new();
        options.len(bytes);
        // Private, which is the same for who only reads: kernels before 6.7 refuse a shared mapping of a file that is sealed so.
        // SAFETY: all that it needs is that the file does not change while it is mapped: this one cannot, it has been asked for its seals
        // and its length just now, by this very descriptor (INV-35). It is read-only, and as long as the file.
        let map = unsafe { options.map_copy_read_only(fd.as_raw_fd()) }.ok()?;
        map.advise(Advice::PopulateRead).ok()?;
        Some(Sealed { map: Mapping::Anywhere(map), _place: place })
    }
}

impl Deref for Sealed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.map {
            Mapping::Anywhere(map) => map,
            // SAFETY: so many bytes of a file are mapped, as long as `self`. It is just as long, and does not change: it was asked for its seals and
            // its length right before it was mapped, by the same descriptor (INV-35).
            Mapping::ForLargePages(map, len) => unsafe { std::slice::from_raw_parts(map.start(), *len) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::large_bytes;
    use super::*;
    use crate::sys::{Front, is_backed, memfd, memfd_sealed, reopen_read_only, seal_content};
    use std::fs::File;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::FileExt;

    /// A file with these bytes, not sealed.
    fn written(bytes: &[u8]) -> OwnedFd {
        let file = File::from(memfd("test-sealed", bytes.len() as u64).unwrap());
        file.write_all_at(bytes, 0).unwrap();
        file.into()
    }

    #[test]
    fn it_is_the_file_to_its_last_byte() {
        for len in [1, 4095, 4096, 4097, (1 << 20) - 1, 1 << 20, (2 << 20) + 1, 3 << 20] {
            let bytes: Vec<u8> = (0..len).map(|at| at as u8 ^ (at >> 8) as u8).collect();
            let fd = written(&bytes);
            assert!(seal_content(&fd));
            let reader = reopen_read_only(&fd).unwrap();
            let map = Sealed::map(&fd, len as u64).unwrap();
            drop(fd);
            assert!(map[..] == bytes[..] && map.as_ptr().addr().is_multiple_of(4096), "{len}");
            assert!(Sealed::map(&reader, len as u64).unwrap()[..] == bytes[..], "{len}");
        }
    }

    #[test]
    fn what_was_written_in_large_pages_is_mapped_in_such_and_the_same() {
        for len in [1 << 20, (2 << 20) + 8, (3 << 20) - 1, 3 << 20, 5 << 20] {
            let bytes: Vec<u8> = (0..len).map(|at| at as u8 ^ (at >> 12) as u8).collect();
            let file = File::from(memfd("test-sealed", len as u64).unwrap());
            let Some(mut front) = Front::of(&file, len as u64) else { return };
            let mut in_front = 0;
            for (at, chunk) in (0u64..).step_by(70_000).zip(bytes.chunks(70_000)) {
                let count = front.put(at, chunk);
                file.write_all_at(&chunk[count..], at + count as u64).unwrap();
                in_front += count as u64;
            }
            drop(front);
            assert!(seal_content(&file) && is_backed(&file, len as u64));
            let map = Sealed::map(&file, len as u64).unwrap();
            assert!(map[..] == bytes[..], "{len}");
            assert_eq!(large_bytes(map.as_ptr().addr()), in_front.next_multiple_of(LARGE_PAGE_BYTES), "{len}");
        }
    }

    #[test]
    fn what_may_change_is_not_mapped() {
        let fd = written(&[7; 5000]);
        assert!(Sealed::map(&fd, 5000).is_none(), "no seal");
        assert!(Sealed::map(memfd_sealed("test-sealed", 5000).unwrap(), 5000).is_none(), "sealed for another use");
        assert!(seal_content(&fd));
        for len in [0, 4999, 5001, 8192, u64::MAX] {
            assert!(Sealed::map(&fd, len).is_none(), "{len}");
        }
        let none = memfd("test-sealed", 0).unwrap();
        assert!(seal_content(&none));
        assert!(Sealed::map(&none, 0).is_none_or(|map| map.is_empty()));
    }

    #[test]
    fn there_are_only_so_many() {
        static TAKEN: AtomicUsize = AtomicUsize::new(0);
        let mut places: Vec<_> = std::iter::from_fn(|| Place::take(&TAKEN)).take(SEALED_MAPPINGS_MAX + 1).collect();
        assert_eq!(places.len(), SEALED_MAPPINGS_MAX);
        assert!(Place::take(&TAKEN).is_none() && Place::take(&TAKEN).is_none());
        places.pop();
        assert!(Place::take(&TAKEN).is_some());
        drop(places);
        assert_eq!(TAKEN.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn pages_that_were_never_written_are_there_when_it_is() {
        let fd = memfd("test-sealed", 1 << 20).unwrap();
        assert!(seal_content(&fd));
        let map = Sealed::map(&fd, 1 << 20).unwrap();
        assert_eq!(rustix::fs::fstat(&fd).unwrap().st_blocks * 512, 1 << 20);
        assert!(map.iter().all(|byte| *byte == 0));
    }
}
