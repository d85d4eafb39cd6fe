//! Named blocks of shared memory, as other programs know them: files in `/dev/shm`, which `shm_open` and Python's `SharedMemory` open.
//!
//! Such a file outlives everybody, so whoever makes one must see that it goes, and the kernel does not help: a process that is killed
//! leaves it behind. Therefore managers make them, and write down what they make, in the user's runtime directory:
//!
//! | file | holds | lives |
//! |---|---|---|
//! | `.<device>-<inode>.shm`, in hex | the block's name; locked by its manager | as long as the block has its name; after a SIGKILL it stays, without its lock |
//!
//! A block is made without a name (`O_TMPFILE`) and given all its memory; then it is written down; then it gets its name, in one step,
//! which fails if the name is taken. So at whatever instruction the manager is killed, either nothing is left, or a record that nobody
//! has locked. [`sweep`] takes such records: a file at that name goes if it is the very file of the record, by device and inode; one
//! that another program has made there meanwhile stays. Managers sweep before they make a block, and named ones when they start. A
//! record is only touched under its lock, and counts only if it is still the file at its path, as with names of managers.
//!
//! Between a look at which file has a name and its removal another program could give the name to a file of its own. There is no call
//! that removes a name only if it leads to a certain file, so that one would lose its name: those who share names must agree on who
//! unlinks them, here as with `shm_unlink`.

use super::{FileId, LOCK_TRIES_MAX, RuntimeDir, file_at};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{NAME_BYTES_MAX, NAMES_LISTED_MAX, SEGMENT_BYTES_MAX};
use crate::{points, sys};
use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where `shm_open` has its files.
const DIRECTORY: &str = "/dev/shm";

/// Whether a block can have this name: 1 to 200 bytes, no `/`, no control characters, no dot at the start.
pub fn check_name(name: &str) -> Result<()> {
    let wrong = |kind, why: String| Err(Error::new(kind, format!("a block of shared memory cannot have the name {name:?}: {why}")));
    match () {
        () if name.is_empty() => wrong(ErrorKind::OutOfRange, "it is empty".into()),
        () if name.len() > NAME_BYTES_MAX => {
            wrong(ErrorKind::TooLarge, format!("it has {} bytes, and a name has at most {NAME_BYTES_MAX}", name.len()))
        }
        () if name.starts_with('.') => wrong(ErrorKind::OutOfRange, "it begins with a dot".into()),
        () => match name.chars().find(|c| *c == '/' || c.is_control()) {
            Some('/') => wrong(ErrorKind::OutOfRange, "it holds a slash; write it without the one that `shm_open` has at its front".into()),
            Some(c) => wrong(ErrorKind::OutOfRange, format!("it holds {c:?}")),
            None => Ok(()),
        },
    }
}

pub(crate) fn path_of(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// The file that has a name now.
pub fn file_of(name: &str) -> Result<Option<FileId>> {
    super::inode_of(&path_of(name))
}

/// A block that a manager knows.
#[derive(Debug)]
pub struct NamedBlock {
    name: String,
    id: FileId,
    bytes: u64,
    /// Whether we have made it.
    made: bool,
    /// Keeps the file, and so its inode's number, from going to another.
    _file: OwnedFd,
    /// Of one that we have made, while it has its name.
    record: Option<Record>,
}

impl NamedBlock {
    /// Makes a block of zeros with all its memory, and gives it this name.
    pub fn create(directory: &RuntimeDir, name: &str, bytes: u64) -> Result<NamedBlock> {
        check_name(name)?;
        if !(1..=SEGMENT_BYTES_MAX).contains(&bytes) {
            let text = format!("a block of {bytes} bytes cannot be made for the name {name:?}: it has 1 to {SEGMENT_BYTES_MAX}");
            return Err(Error::new(ErrorKind::OutOfRange, text));
        }
        // A leftover may have the name. If it cannot be swept, that shows when the name is given.
        let _ = sweep(directory);
        let file = make_file(name, bytes)?;
        let stat = fs::fstat(&file).map_err(|errno| Error::system(format!("could not examine the new block {name:?}"), errno))?;
        let id = FileId::of(&stat);
        let record = Record::make(directory, name, id)?;
        points::manager("named block: recorded, without its name");
        let mut block = NamedBlock { name: name.to_owned(), id, bytes, made: true, record: Some(record), _file: file };
        let unnamed = format!("/proc/self/fd/{}", block._file.as_raw_fd());
        if let Err(errno) = fs::linkat(CWD, unnamed, CWD, path_of(name), AtFlags::SYMLINK_FOLLOW) {
            block.record.take().map_or(Ok(()), Record::remove)?;
            return Err(match errno {
                Errno::EXIST => {
                    let text = format!("there is a block of shared memory named {name:?} already: open it, or choose another name");
                    Error::new(ErrorKind::AlreadyExists, text)
                }
                errno => Error::system(format!("could not give a block of shared memory the name {name:?} in {DIRECTORY}"), errno),
            });
        }
        points::manager("named block: named");
        Ok(block)
    }

    /// The block that has this name, whoever made it.
    pub fn open(name: &str) -> Result<NamedBlock> {
        check_name(name)?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = fs::open(path_of(name), flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT => Error::new(
                ErrorKind::NotFound,
                format!("there is no block of shared memory named {name:?}: make it first, or look for another name"),
            ),
            Errno::ACCESS | Errno::PERM => Error::caused(
                ErrorKind::Refused,
                format!(
                    "the block of shared memory {name:?} is another user's, who does not let this one write to it: choose another name"
                ),
                std::io::Error::from(errno),
            ),
            errno => Error::system(format!("could not open the block of shared memory {name:?}"), errno),
        })?;
        let stat = fs::fstat(&file).map_err(|errno| Error::system(format!("could not examine the block {name:?}"), errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_size <= 0 {
            let text = format!("{name:?} has no bytes: whoever makes it has not given it a length yet; try again");
            return Err(Error::new(ErrorKind::NotFound, text));
        }
        Ok(NamedBlock { name: name.to_owned(), id: FileId::of(&stat), bytes: stat.st_size as u64, made: false, record: None, _file: file })
    }

    /// Its name, whether it still has it or not.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which file it is.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Its bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of memory that its maker answers for: none, of somebody else's.
    pub fn own_bytes(&self) -> u64 {
        if self.made { self.bytes } else { 0 }
    }

    /// Takes the name away, if it is this block's. Who has mapped it keeps it.
    pub fn unlink(&mut self) -> Result<bool> {
        let unlinked = unlink_if(&self.name, self.id)?;
        self.record.take().map_or(Ok(()), Record::remove)?;
        Ok(unlinked)
    }
}

impl Drop for NamedBlock {
    fn drop(&mut self) {
        if self.record.is_some() {
            // What cannot be taken away now, the next who sweeps takes.
            let _ = self.unlink();
        }
    }
}

/// A file without a name, with all its memory.
fn make_file(name: &str, bytes: u64) -> Result<OwnedFd> {
    sys::check_file_length(name, bytes)?;
    let file = fs::open(DIRECTORY, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR).map_err(|errno| {
        Error::system(
            format!("could not make a block of shared memory in {DIRECTORY}: is it mounted, a tmpfs, and open to this user?"),
            errno,
        )
    })?;
    fs::ftruncate(&file, bytes)
        .map_err(|errno| Error::system(format!("could not give the block {name:?} a length of {bytes} bytes: ask for less"), errno))?;
    sys::back(&file, 0..bytes).map_err(|error| match error.kind() {
        ErrorKind::Full => {
            let text =
                format!("{DIRECTORY} has no room for the {bytes} bytes of the block {name:?}: remove some there, or mount it larger");
            Error::caused(ErrorKind::Full, text, error)
        }
        _ => error,
    })?;
    Ok(file)
}

/// Removes a name if it leads to this file.
fn unlink_if(name: &str, id: FileId) -> Result<bool> {
    if file_of(name)? != Some(id) {
        return Ok(false);
    }
    match fs::unlink(path_of(name)) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(Error::system(format!("could not remove the block of shared memory {name:?} from {DIRECTORY}"), errno)),
    }
}

/// A block, written down.
#[derive(Debug)]
struct Record {
    directory: RuntimeDir,
    file_name: String,
    file: File,
}

impl Record {
    fn make(directory: &RuntimeDir, name: &str, id: FileId) -> Result<Record> {
        let file_name = format!(".{:x}-{:x}.shm", id.device, id.inode);
        let failed = |errno| Error::system(format!("could not write down a block in {}", directory.path.display()), errno);
        for _ in 0..LOCK_TRIES_MAX {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = fs::openat(&*directory.fd, &file_name, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
            // A sweep may have it for a moment: it cannot know yet whose it will be.
            if !sys::try_lock_file(&file)? || !is_at(directory, &file_name, &file)? {
                continue;
            }
            let mut record = Record { directory: directory.clone(), file_name, file: File::from(file) };
            // There may be one of a file of long ago that had the same number.
            let written = record.file.set_len(0).and_then(|()| record.file.write_all(name.as_bytes()));
            written.map_err(|error| {
                Error::system(format!("could not write down the block {name:?} in {}", directory.path.display()), error)
            })?;
            return Ok(record);
        }
        Err(Error::new(ErrorKind::Conflict, format!("the record of the block {name:?} keeps being swept away: try again")))
    }

    /// The block has no name any more.
    fn remove(self) -> Result<()> {
        match fs::unlinkat(&*self.directory.fd, &self.file_name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::system(format!("could not remove {}", self.directory.path.join(&self.file_name).display()), errno)),
        }
    }
}

/// Whether a file is still the one at its path.
fn is_at(directory: &RuntimeDir, name: &str, file: impl AsFd) -> Result<bool> {
    let ours = fs::fstat(file).map_err(|errno| Error::system("could not examine the record of a block", errno))?;
    Ok(file_at(&*directory.fd, OsStr::new(name))?.is_some_and(|found| FileId::of(&found) == FileId::of(&ours)))
}

/// The file that a record is named after.
fn recorded(file_name: &str) -> Option<FileId> {
    let (device, inode) = file_name.strip_prefix('.')?.strip_suffix(".shm")?.split_once('-')?;
    Some(FileId { device: u64::from_str_radix(device, 16).ok()?, inode: u64::from_str_radix(inode, 16).ok()? })
}

/// Removes the blocks whose managers were killed. How many names went.
pub fn sweep(directory: &RuntimeDir) -> Result<usize> {
    let failed =
        |error| Error::system(format!("could not look for the leftovers of killed managers in {}", directory.path.display()), error);
    let mut swept = 0;
    for entry in std::fs::read_dir(&directory.path).map_err(failed)?.take(2 * NAMES_LISTED_MAX) {
        let file_name = entry.map_err(failed)?.file_name();
        let Some((file_name, id)) = file_name.to_str().and_then(|name| Some((name, recorded(name)?))) else { continue };
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // Its manager may have ended meanwhile.
        let Ok(file) = fs::openat(&*directory.fd, file_name, flags, Mode::empty()) else { continue };
        if !sys::try_lock_file(&file)? || !is_at(directory, file_name, &file)? {
            continue;
        }
        let mut record = Record { directory: directory.clone(), file_name: file_name.to_owned(), file: File::from(file) };
        let mut name = String::new();
        let read = (&mut record.file).take(NAME_BYTES_MAX as u64 + 1).read_to_string(&mut name);
        // One without a name was never finished: then the block has none either.
        if read.is_ok() && check_name(&name).is_ok() && unlink_if(&name, id)? {
            swept += 1;
        }
        record.remove()?;
    }
    Ok(swept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, RuntimeDir) {
        let temporary = tempfile::tempdir().unwrap();
        let directory = RuntimeDir::at(&temporary.path().join("run")).unwrap();
        (temporary, directory)
    }

    fn records(directory: &RuntimeDir) -> usize {
        std::fs::read_dir(directory.path()).unwrap().count()
    }

    fn unique(what: &str) -> String {
        format!("commonhold-test-{}-{what}", std::process::id())
    }

    #[test]
    fn a_block_has_a_name_while_it_lives() {
        let (_temporary, directory) = directory();
        let name = unique("lives");
        let block = NamedBlock::create(&directory, &name, 5000).unwrap();
        assert_eq!((std::fs::metadata(path_of(&name)).unwrap().len(), records(&directory)), (5000, 1));
        let error = NamedBlock::create(&directory, &name, 1).unwrap_err();
        assert_eq!((error.kind(), records(&directory)), (ErrorKind::AlreadyExists, 1), "{error}");
        let same = NamedBlock::open(&name).unwrap();
        assert_eq!((same.id(), same.bytes(), same.own_bytes()), (block.id(), 5000, 0));
        assert_eq!(sweep(&directory).unwrap(), 0, "its manager lives");
        drop(same);
        assert_eq!(file_of(&name).unwrap(), Some(block.id()), "who has only opened it does not take its name away");
        drop(block);
        assert_eq!((file_of(&name).unwrap(), records(&directory)), (None, 0));
        assert_eq!(NamedBlock::open(&name).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn leftovers_are_swept_and_nothing_else() {
        let (_temporary, directory) = directory();
        let (name, other) = (unique("left"), unique("other"));
        // Both while they live: who makes one sweeps.
        let mut blocks = [&name, &other].map(|name| NamedBlock::create(&directory, name, 100).unwrap());
        // What a killed manager leaves: the file, the record, and no lock.
        blocks.iter_mut().for_each(|block| drop(block.record.take().map(|record| record.file)));
        // Somebody else has the other name by now. (The block's file is still open: its number is not given to another one.)
        std::fs::remove_file(path_of(&other)).unwrap();
        std::fs::write(path_of(&other), b"theirs").unwrap();
        std::fs::write(directory.path().join(".0-0.shm"), "").unwrap();
        std::fs::write(directory.path().join(".1-1.shm"), "../../etc/passwd").unwrap();
        std::fs::write(directory.path().join("unrelated.lock"), "").unwrap();
        assert_eq!(sweep(&directory).unwrap(), 1);
        assert_eq!(file_of(&name).unwrap(), None);
        assert_eq!(std::fs::read(path_of(&other)).unwrap(), b"theirs");
        assert_eq!(records(&directory), 1, "only what is not ours");
        std::fs::remove_file(path_of(&other)).unwrap();
    }

    #[test]
    fn names_are_checked() {
        for name in ["", "a/b", "/a", ".a", "a\nb", &"x".repeat(201)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        for name in ["psm_4f1c2d", "wnsm_1", "größe", &"x".repeat(200)] {
            check_name(name).unwrap();
        }
        assert_eq!(recorded(".1a-ff.shm"), Some(FileId { device: 26, inode: 255 }));
        assert!(["x.shm", ".1.shm", ".g-1.shm", ".1-1.lock"].into_iter().all(|name| recorded(name).is_none()));
    }

    #[test]
    fn no_room_is_an_error() {
        let (_temporary, directory) = directory();
        let error = NamedBlock::create(&directory, &unique("huge"), 1 << 42).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Full | ErrorKind::System), "{error}");
        assert_eq!((file_of(&unique("huge")).unwrap(), records(&directory)), (None, 0));
        assert_eq!(NamedBlock::create(&directory, "x", 0).unwrap_err().kind(), ErrorKind::OutOfRange);
    }
}
