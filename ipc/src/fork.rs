//! Has this process been forked off the one that made a handle? One load answers, at every entry and every drop.
//!
//! A forked child has copies of its parent's handles and mappings: using them would write into the parent's pins, lanes and locks.
//! So there is one page, private to the process, that the kernel wipes in a forked child (MADV_WIPEONFORK): it holds the number of
//! this process's *life*, and zero in a child. What belongs to a life keeps a [`Stamp`] and compares. A child that makes a connection
//! of its own begins a life with the next number, so that its own handles work while its parent's stay refused.
//!
//! | word on the page | meaning |
//! |---|---|
//! | 0 | forked off, and no connection made since |
//! | n | the n-th life in a line of forks; 1 in a process that was executed |
//!
//! A fork copies locks as well, and who held one is not in the child to give it back: what a whole process shares is [`PerLife`],
//! and what a forked child has no use for may be [`OneLife`].
//!
//! `vfork` and `posix_spawn` share memory with their parent until they execute something else; nothing is wiped, nothing needs to be.
#![allow(unsafe_code)] // Makes the page and keeps a pointer to it for ever: a reference of its own would cost a second load.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::error::{Error, ErrorKind, Result};

/// The word of the page; null before its first use. Written once, under the lock of [`MADE`].
static LIFE: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());
static MADE: OnceLock<()> = OnceLock::new();
/// The newest life of this process and of those it was forked off: not wiped.
static NEWEST: AtomicU32 = AtomicU32::new(1);

/// Says in which life of the process something was made.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The word of the page: found once, compared at every entry.
    life: &'static AtomicU32,
    number: u32,
}

impl PartialEq for Stamp {
    fn eq(&self, other: &Stamp) -> bool {
        self.number == other.number
    }
}

impl Eq for Stamp {}

impl Stamp {
    /// The life of this process; in a forked child, the beginning of a new one. For what makes a connection.
    pub fn now() -> Stamp {
        let life = life();
        // SYNC: Relaxed throughout: only numbers are compared, and a fork is a full stop between the writer and the child.
        let current = life.load(Ordering::Relaxed);
        if current != 0 {
            return Stamp { life, number: current };
        }
        let next = NEWEST.fetch_add(1, Ordering::Relaxed) + 1;
        // If it fails, another thread has begun it.
        let number = life.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed).map_or_else(|begun| begun, |_| next);
        Stamp { life, number }
    }

    /// Whether this is still the process in which the stamp was made.
    #[inline(always)]
    pub fn is_current(self) -> bool {
        self.life.load(Ordering::Relaxed) == self.number
    }

    /// An error of kind `UsedAfterFork` if this is a forked child.
    #[inline]
    pub fn check(self) -> Result<()> {
        if self.is_current() { Ok(()) } else { Err(used_after_fork()) }
    }
}

/// Something that a whole process shares, in a static: empty again in every life, behind a lock of that life's own. What a forked
/// child inherits stays where it is, locked by a thread of its parent's perhaps, and is never looked at.
///
/// ```
/// use commonhold_ipc::fork::PerLife;
///
/// static SEEN: PerLife<Vec<u32>> = PerLife::new();
/// SEEN.lock().push(1);
/// assert_eq!(*SEEN.lock(), [1]);
/// ```
pub struct PerLife<T> {
    own: OnceLock<(Stamp, Mutex<T>)>,
    /// That of the next life in the line of forks.
    next: OnceLock<Box<PerLife<T>>>,
}

impl<T> PerLife<T> {
    /// Nothing yet.
    #[expect(clippy::new_without_default, reason = "for statics, which a default cannot make")]
    pub const fn new() -> Self {
        PerLife { own: OnceLock::new(), next: OnceLock::new() }
    }
}

impl<T: Default> PerLife<T> {
    /// What this life has of it, locked; in a forked child, the beginning of a new life. A panic under the lock does not poison it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let mut here = self;
        loop {
            let (stamp, value) = here.own.get_or_init(|| (Stamp::now(), Mutex::default()));
            if stamp.is_current() {
                return value.lock().unwrap_or_else(PoisonError::into_inner);
            }
            here = here.next.get_or_init(|| Box::new(PerLife::new()));
        }
    }
}

/// Something behind a lock, for the one life in which it was made. In a forked child a thread of its parent's may have the lock, who is not
/// there to give it back; nobody waits for it there.
#[derive(Debug)]
pub struct OneLife<T> {
    stamp: Stamp,
    value: Mutex<T>,
}

impl<T: Default> Default for OneLife<T> {
    fn default() -> Self {
        OneLife { stamp: Stamp::now(), value: Mutex::default() }
    }
}

impl<T> OneLife<T> {
    /// What there is of it, locked; none in a forked child. A panic under the lock does not poison it.
    #[inline]
    pub fn lock(&self) -> Option<MutexGuard<'_, T>> {
        self.stamp.is_current().then(|| self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether this process was executed, or forked before it used commonhold for the first time; not forked off one that had used it.
#[inline]
pub fn in_original_process() -> bool {
    life().load(Ordering::Relaxed) == 1
}

/// An error of kind `UsedAfterFork` unless [`in_original_process`].
#[inline]
pub fn check() -> Result<()> {
    if in_original_process() { Ok(()) } else { Err(used_after_fork()) }
}

#[inline]
fn life() -> &'static AtomicU32 {
    // SYNC: pairs with the Release store in `make`.
    let word = LIFE.load(Ordering::Acquire);
    if word.is_null() {
        return make();
    }
    // SAFETY: what `make` stored is aligned and stays mapped for ever, in forked children too (INV-17).
    unsafe { &*word }
}

#[cold]
fn make() -> &'static AtomicU32 {
    MADE.get_or_init(|| {
        let word = wiped_page().unwrap_or_else(cleared_word);
        // SAFETY: both give an aligned word that lives for ever; nobody else knows it yet (INV-17).
        unsafe { (*word).store(1, Ordering::Relaxed) };
        // SYNC: pairs with the Acquire load in `life`.
        LIFE.store(word, Ordering::Release);
    });
    // SAFETY: stored above or by another thread before; see `life` (INV-17).
    unsafe { &*LIFE.load(Ordering::Acquire) }
}

/// A page that the kernel wipes in a forked child; `None` where it cannot (before Linux 4.14).
fn wiped_page() -> Option<*mut AtomicU32> {
    let len = rustix::param::page_size();
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing (INV-34).
    let page = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) }.ok()?;
    // SAFETY: this changes what a fork does to the page just made, whose content nobody relies on yet (INV-34).
    let wiped = unsafe { rustix::mm::madvise(page, len, Advice::LinuxWipeOnFork) };
    match wiped {
        Ok(()) => Some(page.cast()),
        Err(_) => {
            // SAFETY: the page just made, to which there is no other pointer (INV-34).
            let _ = unsafe { rustix::mm::munmap(page, len) };
            None
        }
    }
}

/// The same by the C library, which calls us in a child of its `fork` (but not of a bare `clone`).
fn cleared_word() -> *mut AtomicU32 {
    static WORD: AtomicU32 = AtomicU32::new(1);
    extern "C" fn clear() {
        WORD.store(0, Ordering::Relaxed);
    }
    // SAFETY: the handler is async-signal-safe: one store. That it cannot be registered for lack of memory leaves a child
    // unprotected, in a process that is about to fail anyway, on a kernel below the floor (INV-34).
    unsafe { libc::pthread_atfork(None, None, Some(clear)) };
    (&raw const WORD).cast_mut()
}

#[cold]
fn used_after_fork() -> Error {
    Error::new(
        ErrorKind::UsedAfterFork,
        "this handle was made before a fork(), and the forked child may not use it: make a new connection in the child, \
         or start the child by commonhold::Process or std::process::Command instead of fork()",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forks; the child only runs `child` (which must not allocate, lock or panic) and leaves with its code.
    fn exit_code_of_fork(child: impl FnOnce() -> i32) -> i32 {
        // SAFETY: the child touches atomics only and leaves by `_exit`, without running anything of the test harness's (INV-34).
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            let code = child();
            // SAFETY: ends the child at once (INV-34).
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: waits for the child just made; the status is ours (INV-34).
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert!(libc::WIFEXITED(status));
        libc::WEXITSTATUS(status)
    }

    #[test]
    fn a_forked_child_knows_that_it_is_one() {
        assert!(in_original_process());
        check().unwrap();
        assert_eq!(exit_code_of_fork(|| if in_original_process() { 1 } else { 42 }), 42);
        assert!(in_original_process());
    }

    #[test]
    fn stamps_hold_in_their_own_life_only() {
        let ours = Stamp::now();
        assert!(ours.is_current() && ours == Stamp::now());
        let code = exit_code_of_fork(|| {
            let before = ours.is_current();
            let theirs = Stamp::now();
            i32::from(before)
                | i32::from(ours.is_current()) << 1
                | i32::from(!theirs.is_current()) << 2
                | i32::from(in_original_process()) << 3
        });
        assert_eq!(code, 0);
        ours.check().unwrap();
    }

    #[test]
    fn a_grandchild_is_neither_its_parent_nor_its_grandparent() {
        let ours = Stamp::now();
        let code = exit_code_of_fork(|| {
            let childs = Stamp::now();
            exit_code_of_fork(|| {
                let wiped = !ours.is_current() && !childs.is_current();
                let own = Stamp::now();
                i32::from(!(wiped && own != childs && own != ours && !childs.is_current()))
            })
        });
        assert_eq!(code, 0);
    }

    #[test]
    fn what_a_parent_has_locked_keeps_no_child_waiting() {
        static SHARED: PerLife<u32> = PerLife::new();
        let (mut ours, own) = (SHARED.lock(), OneLife::<u32>::default());
        let locked = own.lock();
        *ours = 5;
        // (Unlike the others, this child allocates, which the C library sees to. It is ended if it waits for the lock.)
        let code = exit_code_of_fork(|| {
            // SAFETY: no preconditions (INV-34).
            unsafe { libc::alarm(20) };
            let childs = std::mem::replace(&mut *SHARED.lock(), 7);
            // Free, and empty again in each life; or nobody's.
            let shared = childs as i32 | exit_code_of_fork(|| *SHARED.lock() as i32) << 1 | i32::from(*SHARED.lock() != 7) << 2;
            shared | i32::from(own.lock().is_some()) << 3
        });
        assert_eq!((code, *ours, locked.as_deref()), (0, 5, Some(&0)));
    }

    #[test]
    fn the_error_says_what_to_do() {
        let error = used_after_fork();
        assert_eq!(error.kind(), ErrorKind::UsedAfterFork);
        assert!(error.to_string().contains("new connection"), "{error}");
    }
}
