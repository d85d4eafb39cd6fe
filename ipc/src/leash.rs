//! The *leash* of daemonic children: a pipe to which nobody writes. It ends with the process that has started them, or when that executes
//! another program, and the kernel lets those of them that are stopped go on then (SIGCONT): by themselves they could not see that their
//! parent has ended. Who is stopped before it has taken its end up, in its first instants, is not helped by it.
//!
//! One pipe serves all children of a process. Each opens its end anew: whom the kernel signals belongs to the open file, which by a descriptor
//! that was only handed over all of them would share. A process that was forked off the parent holds the leash as well.

use crate::error::{Error, Result};
use crate::fork::PerLife;
use crate::sys;
use rustix::fs::{Mode, OFlags};
use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsRawFd, OwnedFd};

/// This process's leash; the writing end is what its children wait for the end of.
static OWN: PerLife<Option<(PipeReader, PipeWriter)>> = PerLife::new();

/// An end for a child that is to be started.
///
/// # Errors
/// `System` if there are no descriptors left.
pub fn new_end() -> Result<OwnedFd> {
    let failed = |error| Error::system("cannot make what lets a stopped child go on at this process's end", error);
    let mut own = OWN.lock();
    let (end, _) = match &mut *own {
        Some(leash) => leash,
        none => none.insert(std::io::pipe().map_err(failed)?),
    };
    end.try_clone().map(OwnedFd::from).map_err(failed)
}

/// Has this process go on when the process that has sent this end ends, for as long as what is returned is open. Where that cannot be had,
/// a process that is stopped when its parent ends stays so; nothing else depends on it. (A parent that has become another user since its first
/// daemon began has a pipe that its later children may not open.)
///
/// # Errors
/// `System` if the end cannot be opened anew, or the kernel sends no such signals.
pub fn take_up(end: OwnedFd) -> Result<OwnedFd> {
    // Without waiting: the parent may have ended meanwhile.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let own = rustix::fs::open(format!("/proc/self/fd/{}", end.as_raw_fd()), flags, Mode::empty())
        .map_err(|errno| Error::system("cannot open the end of a parent's leash", errno))?;
    sys::continue_at_end(&own)?;
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_of_one_pipe_and_each_is_opened_by_itself() {
        let [one, other] = [(); 2].map(|()| new_end().unwrap());
        let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        assert_eq!(inode(&one), inode(&other));
        let handed = one.try_clone().unwrap();
        let taken = take_up(one).unwrap();
        assert_eq!(inode(&taken), inode(&other));
        let is_async = |fd: &OwnedFd| rustix::fs::fcntl_getfl(fd).unwrap().bits() & libc::O_ASYNC as u32 != 0;
        assert!(is_async(&taken) && !is_async(&handed) && !is_async(&other));
    }
}
