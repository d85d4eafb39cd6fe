//! Memory files: made by the manager, sealed at their full length, mapped by everybody.
//!
//! A memory file has its maximum as its length from the start and is sealed SHRINK|GROW|SEAL: nobody can cut it short under a
//! mapping (a SIGBUS for all), and no seal can be added later. What changes is which pages have memory behind them: [`back`] gives
//! them memory and reports a lack of it as an error, [`punch`] takes it away. Its inode has mode 0600 *before* it is first sent:
//! a new memory file is 0777, so that whoever got a read-only descriptor could open it again for writing.
//!
//! One that carries a single value from process to process is written first and then sealed against writing too ([`seal_content`]): it is
//! the same for ever, by the kernel's word, and its reader need not copy what it looks at (INV-35).
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::AtomicU32;

use memmap2::{Advice, MmapRaw};
use rustix::fs::{self, FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags, SeekFrom};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::error::{Error, ErrorKind, Result};

/// Nothing of the file changes any more: not a byte, not its length.
const CONTENT: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW);

/// A memory file of `len` bytes, without memory behind it yet, that can neither shrink nor grow. `name` is seen in `/proc/<pid>/maps`.
pub fn memfd_sealed(name: &str, len: u64) -> Result<OwnedFd> {
    let fd = memfd(name, len)?;
    fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        .map_err(|errno| Error::system(format!("could not seal the memory file {name:?}"), errno))?;
    Ok(fd)
}

/// The same without a seal, for who writes it and then [seals its content](seal_content).
pub fn memfd(name: &str, len: u64) -> Result<OwnedFd> {
    check_file_length(name, len)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Kernels before 6.3 do not know NOEXEC_SEAL; some later ones are set up to demand it.
        Err(Errno::INVAL) => fs::memfd_create(name, flags),
        made => made,
    }
    .map_err(|errno| Error::system(format!("could not make the memory file {name:?}"), errno))?;
    fs::fchmod(&fd, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| Error::system(format!("could not make the memory file {name:?} private (mode 0600)"), errno))?;
    fs::ftruncate(&fd, len).map_err(|errno| too_long(name, len, errno))?;
    Ok(fd)
}

/// Seals what is in a [memory file](memfd), for ever. `false`: it could be written still, by a mapping of somebody's or by a transfer
/// that the kernel has under way, and is not sealed; whoever gets it has to copy.
pub fn seal_content(fd: impl AsFd) -> bool {
    fs::fcntl_add_seals(fd, CONTENT | SealFlags::SEAL).is_ok()
}

/// Whether this is a memory file of just so many bytes of which none can change any more, whoever has made it (INV-35).
pub fn is_content_sealed(fd: impl AsFd, len: u64) -> bool {
    // In this order: the length of a sealed file stays.
    let is_sealed = fs::fcntl_get_seals(&fd).is_ok_and(|seals| seals.contains(CONTENT));
    is_sealed && fs::fstat(&fd).is_ok_and(|stat| stat.st_size as u64 == len)
}

/// Whether this is a memory file. No file of another kind knows of seals.
pub fn is_memory_file(fd: impl AsFd) -> bool {
    fs::fcntl_get_seals(fd).is_ok()
}

/// Whether there is memory behind as many bytes of a file as these: whether whoever has made it has written it, instead of leaving it to its readers
/// to find memory for it.
pub fn is_backed(fd: impl AsFd, len: u64) -> bool {
    fs::fstat(&fd).is_ok_and(|stat| u64::try_from(stat.st_blocks).is_ok_and(|blocks| blocks.saturating_mul(512) >= len))
}

/// Whether each page of a memory file of so many bytes has been written: whoever has made it can have found memory behind its end, too.
pub fn has_no_holes(fd: impl AsFd, len: u64) -> bool {
    len == 0 || fs::seek(fd, SeekFrom::Hole(0)).is_ok_and(|at| at >= len)
}

/// Whether this process may make a file of this length. Asked before the kernel is: it would answer with SIGXFSZ, which ends the process.
pub fn check_file_length(name: &str, len: u64) -> Result<()> {
    let limit = getrlimit(Resource::Fsize).current;
    if limit.is_some_and(|limit| limit < len) { Err(too_long(name, len, Errno::FBIG)) } else { Ok(()) }
}

#[cold]
fn too_long(name: &str, len: u64, errno: Errno) -> Error {
    let what = format!("could not give the memory file {name:?} a length of {len} bytes");
    match errno {
        Errno::FBIG => {
            Error::system(format!("{what}: past the limit on file sizes (RLIMIT_FSIZE, `ulimit -f`); raise it or ask for less"), errno)
        }
        Errno::NOMEM => Error::system(format!("{what}: there is no memory for its bookkeeping; ask for less"), errno),
        _ => Error::system(format!("{what}; ask for less"), errno),
    }
}

/// A second descriptor of the same file, for reading only: what a client is given.
pub fn reopen_read_only(fd: impl AsFd) -> Result<OwnedFd> {
    let number = fd.as_fd().as_raw_fd();
    fs::open(format!("/proc/self/fd/{number}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| {
        let why = match errno {
            Errno::NOENT | Errno::NOTDIR => ": /proc is not mounted here, and is needed; mount it (containers do by default)",
            _ => "",
        };
        Error::system(format!("could not open the memory file of descriptor {number} a second time for reading only{why}"), errno)
    })
}

/// Gives the bytes of `range` memory, or says that there is none (kind [`ErrorKind::Full`]): afterwards no access to them can fail.
/// What already had memory keeps its content.
pub fn back(fd: impl AsFd, range: Range<u64>) -> Result<()> {
    let (start, len) = (range.start, range.end.saturating_sub(range.start));
    if len == 0 {
        return Ok(());
    }
    match retry_interrupted(|| fs::fallocate(&fd, FallocateFlags::empty(), start, len)) {
        Ok(()) => Ok(()),
        Err(errno @ (Errno::NOSPC | Errno::NOMEM | Errno::FBIG)) => Err(Error::caused(
            ErrorKind::Full,
            format!("the system has no memory for {len} bytes more of shared memory: free some, or give the manager a smaller budget"),
            std::io::Error::from(errno),
        )),
        Err(errno) => Err(Error::system(format!("could not back bytes {start}..{} of a memory file", range.end), errno)),
    }
}

/// Bytes of a large page: what one entry of the processor's page tables can map at once, and what one begins at a multiple of.
pub const LARGE_PAGE_BYTES: u64 = 2 << 20;

/// Gives the memory of the whole pages within `range` back to the system; they read as zeros from then on.
pub fn punch(fd: impl AsFd, range: Range<u64>) -> Result<()> {
    let (start, len) = (range.start, range.end.saturating_sub(range.start));
    if len == 0 {
        return Ok(());
    }
    retry_interrupted(|| fs::fallocate(&fd, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, start, len))
        .map_err(|errno| Error::system(format!("could not give bytes {start}..{} of a memory file back to the system", range.end), errno))
}

pub(super) fn retry_interrupted<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => continue,
            done => return done,
        }
    }
}

/// Leaves the mapping out of core dumps, which would otherwise be as large as the arena.
pub fn exclude_from_dumps(map: &MmapRaw) -> Result<()> {
    map.advise(Advice::DontDump).map_err(|error| Error::system("could not exclude a mapping from core dumps", error))
}

/// Leaves the mapping out of forked children: an access there is a SIGSEGV instead of a write into the parent's pins.
pub fn exclude_from_forks(map: &MmapRaw) -> Result<()> {
    map.advise(Advice::DontFork).map_err(|error| Error::system("could not exclude a mapping from forked children", error))
}

/// The aligned word at `offset` of a mapping, which every process that maps it may change at any time.
///
/// # Panics
/// If the word is not wholly inside of the mapping, or not aligned: a bug of the caller's.
pub fn word_at(map: &MmapRaw, offset: usize) -> &AtomicU32 {
    super::word_in_mapping(map, offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    const MIB: u64 = 1 << 20;

    fn allocated(fd: &OwnedFd) -> u64 {
        fs::fstat(fd).unwrap().st_blocks as u64 * 512
    }

    #[test]
    fn a_memory_file_is_private_sealed_and_empty() {
        let fd = memfd_sealed("test-arena", 64 * MIB).unwrap();
        let stat = fs::fstat(&fd).unwrap();
        assert_eq!((stat.st_mode & 0o7777, stat.st_size as u64, stat.st_blocks), (0o600, 64 * MIB, 0));
        assert!(fs::ftruncate(&fd, 0).is_err());
        assert!(fs::ftruncate(&fd, 128 * MIB).is_err());
        assert!(fs::fcntl_add_seals(&fd, SealFlags::FUTURE_WRITE).is_err());
        assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn memory_comes_by_backing_and_goes_by_punching() {
        let fd = memfd_sealed("test-backing", 64 * MIB).unwrap();
        back(&fd, 0..4 * MIB).unwrap();
        assert_eq!(allocated(&fd), 4 * MIB);
        punch(&fd, MIB..3 * MIB).unwrap();
        assert_eq!(allocated(&fd), 2 * MIB);
        back(&fd, 5..5).unwrap();
        punch(&fd, 5..5).unwrap();
    }

    #[test]
    fn sealed_content_stays_whatever_anybody_tries() {
        let fd = memfd("test-content", 3 * 4096).unwrap();
        rustix::io::pwrite(&fd, b"written", 4096).unwrap();
        let writing = memmap2::MmapOptions::new().map_raw(&fd).unwrap();
        assert!(!seal_content(&fd) && !is_content_sealed(&fd, 3 * 4096), "it is mapped for writing");
        drop(writing);
        assert!(seal_content(&fd) && is_content_sealed(&fd, 3 * 4096));
        assert!(!is_content_sealed(&fd, 4096) && !is_content_sealed(&fd, 4 * 4096), "another length");
        // Its maker, with the very descriptor that it was made by.
        assert!(rustix::io::pwrite(&fd, b"again", 4096).is_err());
        assert!(fs::ftruncate(&fd, 0).is_err() && fs::ftruncate(&fd, 4 * 4096).is_err());
        assert!(back(&fd, 0..4 * 4096).is_err() && punch(&fd, 0..4096).is_err());
        assert!(memmap2::MmapOptions::new().map_raw(&fd).is_err());
        let mut bytes = [0; 7];
        rustix::io::pread(&fd, &mut bytes, 4096).unwrap();
        assert_eq!(&bytes, b"written");
    }

    #[test]
    fn what_was_never_written_has_no_memory() {
        let fd = memfd("test-backed", 3 * 4096).unwrap();
        assert!(is_memory_file(&fd) && !is_memory_file(fs::open("/", fs::OFlags::RDONLY, Mode::empty()).unwrap()));
        assert!(is_backed(&fd, 0) && !is_backed(&fd, 1));
        rustix::io::pwrite(&fd, &[7; 2 * 4096], 0).unwrap();
        assert!(is_backed(&fd, 2 * 4096) && !is_backed(&fd, 2 * 4096 + 1) && !is_backed(&fd, u64::MAX));
        rustix::io::pwrite(&fd, &[7], 3 * 4096 - 1).unwrap();
        assert!(is_backed(&fd, 3 * 4096) && has_no_holes(&fd, 3 * 4096) && has_no_holes(&fd, 0));
        // As much memory as it is long, all of it behind its end.
        let fd = memfd("test-holes", 3 * 4096).unwrap();
        fs::fallocate(&fd, FallocateFlags::KEEP_SIZE, 4 * 4096, 3 * 4096).unwrap();
        assert!(is_backed(&fd, 3 * 4096) && !has_no_holes(&fd, 3 * 4096) && !has_no_holes(&fd, 1));
        rustix::io::pwrite(&fd, &[7; 2 * 4096], 0).unwrap();
        assert!(has_no_holes(&fd, 2 * 4096) && !has_no_holes(&fd, 2 * 4096 + 1));
    }

    #[test]
    fn no_seal_may_be_missing() {
        let all = [SealFlags::WRITE, SealFlags::SHRINK, SealFlags::GROW, SealFlags::FUTURE_WRITE];
        for set in 0..1 << all.len() {
            let fd = memfd("test-seals", 4096).unwrap();
            let seals = (0..all.len()).filter(|n| set & 1 << n != 0).fold(SealFlags::SEAL, |seals, n| seals | all[n]);
            fs::fcntl_add_seals(&fd, seals).unwrap();
            assert_eq!(is_content_sealed(&fd, 4096), set & 7 == 7, "{seals:?}");
        }
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(!is_content_sealed(&file, file.metadata().unwrap().len()), "no memory file");
    }

    #[test]
    fn a_length_past_everything_is_an_error() {
        let error = memfd_sealed("test-huge", u64::MAX / 2 + 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::System);
        assert!(error.to_string().contains("test-huge"), "{error}");
    }

    #[test]
    fn the_read_only_descriptor_cannot_write() {
        let fd = memfd_sealed("test-read-only", MIB).unwrap();
        back(&fd, 0..MIB).unwrap();
        let reader = reopen_read_only(&fd).unwrap();
        assert!(rustix::io::write(&reader, b"x").is_err());
        assert!(memmap2::MmapOptions::new().map_raw(&reader).is_err());
        assert!(back(&reader, 0..4096).is_err());
        assert!(punch(&reader, 0..4096).is_err());

        let writing = memmap2::MmapOptions::new().map_raw(&fd).unwrap();
        let reading = memmap2::MmapOptions::new().map_raw_read_only(&reader).unwrap();
        word_at(&writing, 8).store(7, Relaxed);
        assert_eq!(word_at(&reading, 8).load(Relaxed), 7);
    }

    #[test]
    fn mappings_take_advice() {
        let fd = memfd_sealed("test-advice", MIB).unwrap();
        let map = memmap2::MmapOptions::new().map_raw(&fd).unwrap();
        exclude_from_dumps(&map).unwrap();
        exclude_from_forks(&map).unwrap();
    }

    #[test]
    #[should_panic(expected = "not inside")]
    fn a_word_past_the_end_is_a_bug() {
        let map = memmap2::MmapOptions::new().map_raw(&memfd_sealed("test-word", 4096).unwrap()).unwrap();
        word_at(&map, 4096);
    }
}
