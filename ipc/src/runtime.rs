//! Where named managers are found: a directory of the user's own, with a socket and a lock file for each name.
//!
//! The directory is `$COMMONHOLD_RUNTIME_DIR` if set, else `$XDG_RUNTIME_DIR/commonhold` if that variable names a private directory of
//! ours, else `/tmp/commonhold-<uid>`. It must belong to us and be closed to others (0700), or it is an error: in a directory that
//! somebody else can write, a name would lead to whomever they like.
//!
//! | file | holds | lives |
//! |---|---|---|
//! | `<name>.lock` | the name; locked by the manager | until the manager ends in order; after a SIGKILL it stays, without its lock |
//! | `<name>.sock` | the socket | the same; whoever gets the lock may remove it, because nobody can be listening |
//!
//! A name too long for a socket's address (107 bytes with the directory) gets files named by its hash: `.<32 hex digits>`, which no
//! name can be, since names do not begin with a dot. The lock file tells the name.
//!
//! **The lock** is the kernel's, on the open file, and goes with the process. A file can be locked after it was unlinked by its last
//! holder, when another already has a new one; so a lock counts only if its file is still the one at the path. Files are unlinked
//! only by a holder of the lock that counts.
pub mod blocks;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::limits::{NAME_BYTES_MAX, NAMES_LISTED_MAX, SOCKET_ADDRESS_BYTES_MAX};
use crate::socket::Address;
use crate::sys;

/// The environment variable that overrides where named managers are found. Ignored in programs with more rights than their user.
pub const RUNTIME_DIR_VARIABLE: &str = "COMMONHOLD_RUNTIME_DIR";

/// Tries at a lock whose file keeps being replaced: each means that another manager has just ended in order.
const LOCK_TRIES_MAX: usize = 1000;

/// The directory of this user's named managers: checked, and held open, so that it stays the one that was checked.
#[derive(Clone, Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    fd: Arc<OwnedFd>,
}

impl RuntimeDir {
    /// The directory that the environment says, made if there is none.
    pub fn open() -> Result<RuntimeDir> {
        let variable = |name| match sys::is_secure_execution() {
            true => None,
            false => std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from),
        };
        if let Some(path) = variable(RUNTIME_DIR_VARIABLE) {
            return RuntimeDir::at(&path);
        }
        RuntimeDir::find(variable("XDG_RUNTIME_DIR").as_deref(), Path::new("/tmp"))
    }

    /// This directory, made if there is none (its parent must be there).
    pub fn at(path: &Path) -> Result<RuntimeDir> {
        let path = std::path::absolute(path).map_err(|error| Error::system(format!("{} is not a path", path.display()), error))?;
        RuntimeDir::make_and_check(CWD, path.as_os_str(), path.clone())
    }

    fn find(xdg: Option<&Path>, temporary: &Path) -> Result<RuntimeDir> {
        // The specification has relative paths ignored; and who has someone else's, as after `su`, gets the other place.
        if let Some(xdg) = xdg.filter(|path| path.is_absolute())
            && let Ok(parent) = open_directory(CWD, xdg.as_os_str(), OFlags::empty())
            && fs::fstat(&parent).is_ok_and(|stat| is_private(&stat))
        {
            return RuntimeDir::make_and_check(&parent, OsStr::new("commonhold"), xdg.join("commonhold"));
        }
        RuntimeDir::at(&temporary.join(format!("commonhold-{}", sys::own_uid())))
    }

    fn make_and_check(parent: impl AsFd, name: &OsStr, path: PathBuf) -> Result<RuntimeDir> {
        let shown = path.display();
        match fs::mkdirat(&parent, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => {
                let what = format!("could not make the directory {shown} for named managers");
                return Err(Error::system(format!("{what}: set {RUNTIME_DIR_VARIABLE} to one that can be made"), errno));
            }
        }
        let fd = open_directory(parent, name, OFlags::NOFOLLOW).map_err(|errno| match errno {
            Errno::LOOP | Errno::NOTDIR => Error::caused(
                ErrorKind::Refused,
                format!("{shown}, the place of named managers, is not a directory (a symbolic link will not do): remove it"),
                std::io::Error::from(errno),
            ),
            _ => Error::system(format!("could not open {shown}, the directory of named managers"), errno),
        })?;
        let stat = fs::fstat(&fd).map_err(|errno| Error::system(format!("could not examine {shown}"), errno))?;
        if stat.st_uid != sys::own_uid() {
            let what = format!("{shown}, the directory of named managers, belongs to user {} and we are {}", stat.st_uid, sys::own_uid());
            let why = format!("whoever made it could pose as our managers; have it removed, or set {RUNTIME_DIR_VARIABLE} to another");
            return Err(Error::new(ErrorKind::Refused, format!("{what}: {why}")));
        }
        if !is_private(&stat) {
            let mode = stat.st_mode & 0o7777;
            let what = format!("{shown}, the directory of named managers, has mode {mode:04o}, so others can reach into it");
            return Err(Error::new(ErrorKind::Refused, format!("{what}: look at what is in it, then `chmod 700` it")));
        }
        Ok(RuntimeDir { path, fd: Arc::new(fd) })
    }

    /// Its path, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the manager of this name listens.
    pub fn address_of(&self, name: &str) -> Result<Address> {
        Ok(Address::Path(self.path.join(format!("{}.sock", self.stem_of(name)?))))
    }

    /// The names that have files here, and whether a process holds each (a manager, or one that is just starting it). In order.
    pub fn list(&self) -> Result<Vec<(String, bool)>> {
        let failed = |error| Error::system(format!("could not list the named managers in {}", self.path.display()), error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed)?.take(2 * NAMES_LISTED_MAX) {
            let file_name = entry.map_err(failed)?.file_name();
            let Some(stem) = file_name.to_str().and_then(|file| file.strip_suffix(".lock")) else { continue };
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            // It may have ended meanwhile.
            let Ok(fd) = fs::openat(&*self.fd, &file_name, flags, Mode::empty()) else { continue };
            let held = sys::is_file_locked(&fd)?;
            let name = if stem.starts_with('.') { read_name(fd) } else { Some(stem.to_owned()) };
            // Files that are not ours, or not yet written.
            let Some(name) = name.filter(|name| self.stem_of(name).is_ok_and(|expected| expected == stem)) else { continue };
            names.push((name, held));
        }
        names.sort();
        Ok(names)
    }

    /// The first part of a name's file names.
    fn stem_of(&self, name: &str) -> Result<String> {
        check_name(name)?;
        let room = SOCKET_ADDRESS_BYTES_MAX.saturating_sub(self.path.as_os_str().len() + "/.sock".len());
        if name.len() <= room {
            return Ok(name.to_owned());
        }
        let hash = Sha256::digest(name.as_bytes());
        let stem = hash[..16].iter().fold(".".to_owned(), |text, byte| text + &format!("{byte:02x}"));
        if stem.len() <= room {
            return Ok(stem);
        }
        let what = format!("the directory {} is too long for the address of a socket in it", self.path.display());
        Err(Error::new(ErrorKind::TooLarge, format!("{what}: set {RUNTIME_DIR_VARIABLE} to a shorter one")))
    }
}

fn open_directory(parent: impl AsFd, name: &OsStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    fs::openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | flags, Mode::empty())
}

fn is_private(stat: &Stat) -> bool {
    stat.st_uid == sys::own_uid() && stat.st_mode & 0o777 == 0o700
}

fn read_name(fd: OwnedFd) -> Option<String> {
    let mut name = String::new();
    File::from(fd).take(NAME_BYTES_MAX as u64 + 1).read_to_string(&mut name).ok()?;
    Some(name)
}

/// Whether a manager can have this name: 1 to 200 bytes, no `/`, no control characters, no dot at the start.
pub fn check_name(name: &str) -> Result<()> {
    let wrong = |kind, why: String| Err(Error::new(kind, format!("a manager cannot have the name {name:?}: {why}")));
    if name.is_empty() {
        return wrong(ErrorKind::OutOfRange, "it is empty".into());
    }
    if name.len() > NAME_BYTES_MAX {
        return wrong(ErrorKind::TooLarge, format!("it has {} bytes, and a name has at most {NAME_BYTES_MAX}", name.len()));
    }
    if name.starts_with('.') {
        return wrong(ErrorKind::OutOfRange, "it begins with a dot".into());
    }
    match name.chars().find(|c| *c == '/' || c.is_control()) {
        Some(c) => wrong(ErrorKind::OutOfRange, format!("it holds {c:?}")),
        None => Ok(()),
    }
}

/// Which file a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Device and inode.
    pub fn words(self) -> [u64; 2] {
        [self.device, self.inode]
    }

    /// What [`words`](Self::words) gave.
    pub fn of_words([device, inode]: [u64; 2]) -> FileId {
        FileId { device, inode }
    }

    fn of(stat: &Stat) -> FileId {
        FileId { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// The file at this path, without following a link there; `None` if there is none. A manager whose socket is no longer the file it
/// made cannot be found by anyone and should end.
pub fn inode_of(path: &Path) -> Result<Option<FileId>> {
    file_at(CWD, path.as_os_str()).map(|stat| stat.as_ref().map(FileId::of))
}

fn file_at(directory: impl AsFd, name: &OsStr) -> Result<Option<Stat>> {
    match fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(Error::system(format!("could not examine {}", name.display()), errno)),
    }
}

/// The right to be the manager of a name. Lost with the process, or by a drop: the files then stay, as leftovers for the next.
#[derive(Debug)]
pub struct NameLock {
    directory: RuntimeDir,
    stem: String,
    file: File,
}

impl NameLock {
    /// The lock of the name, unless another process (or another part of this one) holds it.
    pub fn try_acquire(directory: &RuntimeDir, name: &str) -> Result<Option<NameLock>> {
        let stem = directory.stem_of(name)?;
        let file_name = format!("{stem}.lock");
        for _ in 0..LOCK_TRIES_MAX {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = fs::openat(&*directory.fd, &file_name, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| {
                Error::system(format!("could not open the lock file {}", directory.path.join(&file_name).display()), errno)
            })?;
            if !sys::try_lock_file(&fd)? {
                return Ok(None);
            }
            let lock = NameLock { directory: directory.clone(), stem: stem.clone(), file: File::from(fd) };
            if lock.is_current()? {
                lock.write_name(name)?;
                return Ok(Some(lock));
            }
            // Its last holder has removed it between our opening and our locking: there may be a new one.
        }
        Err(Error::new(ErrorKind::Conflict, format!("the lock file of the name {name:?} keeps being replaced: try again")))
    }

    /// Whether the file we have locked is still the one that others will find.
    pub fn is_current(&self) -> Result<bool> {
        let ours = fs::fstat(&self.file).map_err(|errno| Error::system("could not examine a lock file", errno))?;
        let found = file_at(&*self.directory.fd, OsStr::from_bytes(format!("{}.lock", self.stem).as_bytes()))?;
        Ok(found.is_some_and(|found| FileId::of(&found) == FileId::of(&ours)))
    }

    /// Where the holder of this lock listens.
    pub fn address(&self) -> Address {
        Address::Path(self.directory.path.join(self.socket_name()))
    }

    /// Removes the socket that a killed manager of this name has left; `false` if there is none.
    pub fn remove_leftover_socket(&self) -> Result<bool> {
        let name = self.socket_name();
        let Some(stat) = file_at(&*self.directory.fd, OsStr::new(&name))? else { return Ok(false) };
        let shown = self.directory.path.join(&name);
        if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
            let what = format!("{} is in the way of a manager's socket and is none itself", shown.display());
            return Err(Error::new(ErrorKind::AlreadyExists, format!("{what}: look at it, then remove it")));
        }
        self.unlink(&name)
    }

    /// The manager's orderly end: nothing stays in the file system. What is no longer ours is left alone.
    pub fn remove(self) -> Result<()> {
        if self.is_current()? {
            self.remove_leftover_socket()?;
            self.unlink(&format!("{}.lock", self.stem))?;
        }
        // Only now does the lock go: whoever waits for this file finds that it is not at its path any more.
        Ok(())
    }

    fn socket_name(&self) -> String {
        format!("{}.sock", self.stem)
    }

    fn unlink(&self, name: &str) -> Result<bool> {
        match fs::unlinkat(&*self.directory.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(Error::system(format!("could not remove {}", self.directory.path.join(name).display()), errno)),
        }
    }

    fn write_name(&self, name: &str) -> Result<()> {
        let written = self.file.set_len(0).and_then(|()| (&self.file).write_all(name.as_bytes()));
        written.map_err(|error| Error::system(format!("could not write the lock file of the name {name:?}"), error))
    }
}

#[cfg(test)]
mod tests;

/// A descriptor that becomes readable when something in a directory is removed or renamed: for a manager that wants to know when
/// its own socket is gone. [`drain`](DirectoryWatch::drain) it, then look.
pub struct DirectoryWatch {
    inotify: OwnedFd,
}

impl DirectoryWatch {
    /// Watches the directory of a manager's socket.
    pub fn new(directory: &Path) -> Result<Self> {
        use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
        let failed = |errno| Error::system(format!("cannot watch the directory {}", directory.display()), errno);
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
        add_watch(&inotify, directory, WatchFlags::DELETE | WatchFlags::MOVE | WatchFlags::DELETE_SELF).map_err(failed)?;
        Ok(DirectoryWatch { inotify })
    }

    /// Takes what has been reported.
    pub fn drain(&self) {
        let mut buffer = [0u8; 4096];
        while rustix::io::read(&self.inotify, &mut buffer).is_ok_and(|bytes| bytes > 0) {}
    }
}

impl std::os::fd::AsFd for DirectoryWatch {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
