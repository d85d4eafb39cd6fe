//! Every system call of commonhold, each behind a safe function.
//!
//! Seven rooms: here what needs `unsafe` (and what belongs beside it), in `sys/futex.rs` sleeping on words, in `sys/memory.rs` the memory
//! files, in `sys/large.rs` such in large pages, in `sys/barrier.rs` memory barriers in other processes, in `sys/machine.rs` what the machine has, in `sys/spawn.rs` how
//! processes are started. Most of it is rustix's; libc fills the gaps, nix has `posix_spawn`.
//!
//! | call | since Linux | without it |
//! |---|---|---|
//! | `futex_waitv` | 5.16 | sleeps end every 20 ms to look at the other words |
//! | `pidfd_open` | 5.3 | needed |
//! | `waitid` of a pidfd | 5.4 | how a process ended is unknown |
//! | `SO_PEERPIDFD` | 6.5 | `pidfd_open` of the peer's pid as it was at connect |
//! | `posix_spawn_file_actions_addclosefrom_np` | glibc 2.34 | what is open is listed before a process is started |
//! | `MADV_POPULATE_WRITE` | 5.14 | pages fault in one by one |
//! | `MADV_COLLAPSE` | 6.1 | the arena and files of values have small pages only, and a pool's results are copied |
//! | `MADV_POPULATE_READ` | 5.14 | what could be mapped is copied, see `map::Sealed` |
//! | open-file-description locks | 3.15 | needed |
//! | `membarrier`, global expedited | 4.16 | every reader fences itself, see `pin` |
//!
//! Futexes are never PRIVATE here: a private one wakes nobody in another process. Waiting and waking both work on read-only
//! mappings. Deadlines are moments of CLOCK_MONOTONIC, which is what [`Instant`] is made of; `None` is for ever.
#![allow(unsafe_code)] // The workspace's place for raw system calls: each is wrapped in a safe function.

mod barrier;
mod futex;
mod large;
mod machine;
mod memory;
mod spawn;

pub use barrier::{barrier_for_registered, has_barriers, is_single_threaded, register_for_barriers};
pub use futex::{WaitOutcome, futex_wait, futex_wait_any, futex_wait_either, futex_wake, futex_wake_all};
pub use large::{Front, LargeMapping, Pace};
pub(crate) use machine::cut_short;
pub use machine::{
    address_space_limit, allowed_cpus, copies_large_pages_whole, current_cpu, is_overflow_uid, leave_cpu, memory_budget_default,
    nofile_limit, own_cpus, own_uid, possible_cpus, process_name, raise_nofile_limit,
};
pub use memory::{
    LARGE_PAGE_BYTES, back, check_file_length, exclude_from_dumps, exclude_from_forks, has_no_holes, is_backed, is_content_sealed,
    is_memory_file, memfd, memfd_sealed, punch, reopen_read_only, seal_content, word_at,
};

pub use rustix::process::Signal;
pub use spawn::{End, HANDED, Plan, ResourceLimit, Spawned, Stream, run_on};

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use memmap2::MmapRaw;
use nix::spawn::PosixSpawnFileActions;
use rkyv::util::AlignedVec;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use crate::error::{Error, ErrorKind, Result};
use crate::limits::DESCRIPTORS_POLLED_MAX;

// ---------------------------------------------------------------------------------------------------------------------- words

/// See [`word_at`], its public name.
fn word_in_mapping(map: &MmapRaw, offset: usize) -> &AtomicU32 {
    let end = offset.checked_add(size_of::<AtomicU32>());
    assert!(end.is_some_and(|end| end <= map.len()), "the word at {offset} is not inside of a mapping of {} bytes", map.len());
    assert!(offset.is_multiple_of(align_of::<AtomicU32>()), "the word at {offset} is not aligned");
    // SAFETY: the four bytes lie inside of the mapping (asserted), which lives as long as the reference; mappings begin at a page,
    // so the word is aligned. Other processes change it, but only as an atomic; nobody has a plain reference into a `MmapRaw` (INV-31).
    unsafe { AtomicU32::from_ptr(map.as_mut_ptr().add(offset).cast()) }
}

// ------------------------------------------------------------------------------------------------------------- robust futexes

/// A robust list of one word, as the kernel reads it when the thread ends. The word need not lie in the list: the kernel finds it at
/// `futex_offset` from the entry, so that list and entry can be private memory and the shared page shows no address of ours.
#[repr(C)]
struct RobustList {
    /// The first entry, which leads back to this field, its own address.
    first: *const libc::c_void,
    futex_offset: libc::c_long,
    pending: *const libc::c_void,
    /// The entry: the address of the head.
    entry: *const libc::c_void,
}

const _: () = assert!(mem::offset_of!(RobustList, entry) == 3 * size_of::<usize>());

/// Runs `body` while this thread is bound to `word`: should the thread end meanwhile by whatever means (SIGKILL of the process
/// included), and the word then hold the thread's id, the kernel replaces it by `FUTEX_OWNER_DIED` (keeping `FUTEX_WAITERS`) and,
/// if `FUTEX_WAITERS` was set, wakes one sleeper. `body` gets the thread's id.
///
/// For a thread of its own: it replaces the thread's robust list, where the C library keeps its robust mutexes.
pub fn with_robust_word<R>(word: &AtomicU32, body: impl FnOnce(u32) -> R) -> Result<R> {
    /// Whatever way `body` ends, the kernel must forget addresses of this stack frame.
    struct Registered;
    impl Drop for Registered {
        fn drop(&mut self) {
            // SAFETY: a null head with the right size is "no list" (INV-34).
            unsafe { libc::syscall(libc::SYS_set_robust_list, ptr::null::<RobustList>(), 3 * size_of::<usize>()) };
        }
    }
    let mut list = RobustList { first: ptr::null(), futex_offset: 0, pending: ptr::null(), entry: ptr::null() };
    let list = &raw mut list;
    // SAFETY: `list` points to the local above. It is written through this pointer only, before the kernel knows it (INV-34).
    unsafe {
        (*list).entry = list.cast();
        (*list).first = (&raw const (*list).entry).cast();
        (*list).futex_offset = (word.as_ptr() as isize).wrapping_sub((*list).first as isize) as libc::c_long;
    }
    // SAFETY: the head, its one entry and the word all stay where they are and valid until `Registered` is dropped, before this
    // function returns or unwinds: head and entry are locals, the word is borrowed for longer. The kernel walks the list at this
    // thread's end only, and copes with any content (INV-34).
    let code = unsafe { libc::syscall(libc::SYS_set_robust_list, list, 3 * size_of::<usize>()) };
    if code != 0 {
        return Err(Error::system(
            "could not ask the kernel to announce this thread's death (set_robust_list); is a filter of system calls in the way?",
            io::Error::last_os_error(),
        ));
    }
    let registered = Registered;
    let result = body(rustix::thread::gettid().as_raw_nonzero().get() as u32);
    drop(registered);
    Ok(result)
}

// ------------------------------------------------------------------------------------------------------- processes and sockets

/// A descriptor that becomes readable when the process ends. The pid must not have been waited for yet, or it may be another's.
pub fn pidfd_open(pid: u32) -> Result<OwnedFd> {
    let no_such = |errno| Error::caused(ErrorKind::NotFound, format!("there is no process {pid} (any more)"), io::Error::from(errno));
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| no_such(Errno::SRCH))?;
    rustix::process::pidfd_open(raw, PidfdFlags::empty()).map_err(|errno| match errno {
        Errno::SRCH => no_such(errno),
        Errno::MFILE | Errno::NFILE => {
            Error::system(format!("there is no descriptor left for process {pid}: close some or raise `ulimit -n`"), errno)
        }
        _ => Error::system(format!("could not get a descriptor for process {pid} (pidfd_open, Linux 5.3)"), errno),
    })
}

/// A descriptor that becomes readable when the process at the other end of the socket (as of its connect) ends.
pub fn peer_pidfd(socket: impl AsFd) -> Result<OwnedFd> {
    /// `SO_PEERPIDFD` of most architectures; the libc crate has no name for it yet.
    const SO_PEERPIDFD: libc::c_int = 77;
    match socket_option::<libc::c_int>(socket.as_fd(), SO_PEERPIDFD) {
        // SAFETY: the kernel has just installed this descriptor for us, nobody else owns it (INV-34).
        Ok(raw) if raw >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(raw) }),
        Ok(_) | Err(Errno::NOPROTOOPT) => pidfd_open(peer_credentials(socket)?.pid),
        // The peer is dead and waited for.
        Err(errno @ (Errno::SRCH | Errno::INVAL | Errno::NODATA)) => Err(Error::caused(
            ErrorKind::NotFound,
            "the process at the other end of the socket has ended, and was waited for",
            io::Error::from(errno),
        )),
        Err(errno) => Err(Error::system("could not get a descriptor for the process at the other end of a socket", errno)),
    }
}

/// Who is at the other end of a socket, as of its connect (or listen).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Its process id; 0 if it lives in a pid namespace that we do not see.
    pub pid: u32,
    /// Its user; the overflow uid if that user has no number in our user namespace.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// Who is at the other end of the socket, by the kernel's word.
pub fn peer_credentials(socket: impl AsFd) -> Result<PeerCredentials> {
    // Not rustix's: it declares the pid non-zero, but the kernel says 0 for a process of a namespace that is hidden from us.
    let credentials: libc::ucred = socket_option(socket.as_fd(), libc::SO_PEERCRED)
        .map_err(|errno| Error::system("could not ask who is at the other end of a socket (SO_PEERCRED)", errno))?;
    Ok(PeerCredentials { pid: credentials.pid.cast_unsigned(), uid: credentials.uid, gid: credentials.gid })
}

/// A value that the kernel may fill in with any bytes.
trait PlainOption: Copy {}
impl PlainOption for libc::c_int {}
impl PlainOption for libc::ucred {}

fn socket_option<T: PlainOption>(socket: BorrowedFd<'_>, option: libc::c_int) -> Result<T, Errno> {
    let mut value = mem::MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, the size of `value`, and `len` itself; both live on our stack (INV-34).
    let code = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value.as_mut_ptr().cast(), &raw mut len) };
    match code {
        // SAFETY: all bytes were zero before and any bytes are a valid value of these types of plain integers (INV-33).
        0 => Ok(unsafe { value.assume_init() }),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
    }
}

/// Waits until one of the descriptors is readable, at its end or in error: bit n of the answer stands for descriptor n. 0: the
/// deadline passed.
pub fn wait_readable(fds: &[BorrowedFd<'_>], deadline: Option<Instant>) -> Result<u64> {
    assert!(fds.len() <= DESCRIPTORS_POLLED_MAX, "{} descriptors at once; the maximum is {DESCRIPTORS_POLLED_MAX}", fds.len());
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    poll(&mut polled, deadline)?;
    let ready = polled.iter().enumerate().filter(|(_, fd)| !fd.revents().is_empty());
    Ok(ready.fold(0, |bits, (n, _)| bits | 1 << n))
}

/// The same for any number of descriptors. `false`: the deadline passed.
pub fn wait_readable_any(fds: &[BorrowedFd<'_>], deadline: Option<Instant>) -> Result<bool> {
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    poll(&mut polled, deadline)?;
    Ok(polled.iter().any(|fd| !fd.revents().is_empty()))
}

/// Waits until the descriptor takes bytes, is at its end or in error. `false`: the deadline passed.
pub fn wait_writable(fd: impl AsFd, deadline: Option<Instant>) -> Result<bool> {
    let mut polled = [PollFd::new(&fd, PollFlags::OUT)];
    poll(&mut polled, deadline)?;
    Ok(!polled[0].revents().is_empty())
}

/// The same, or until the other descriptor can be read, for as long as it takes.
pub fn wait_writable_or_readable(fd: impl AsFd, other: impl AsFd) -> Result<()> {
    poll(&mut [PollFd::new(&fd, PollFlags::OUT), PollFd::new(&other, PollFlags::IN)], None)
}

/// Whether the other side of a stream socket has closed it.
pub fn has_hung_up(fd: impl AsFd) -> Result<bool> {
    let mut polled = [PollFd::new(&fd, PollFlags::empty())];
    poll(&mut polled, Some(Instant::now()))?;
    Ok(polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR))
}

/// Waits until there are bytes to read or room to write, or the deadline: (readable, writable). An end is both.
pub fn wait_either(fd: impl AsFd, deadline: Option<Instant>) -> Result<(bool, bool)> {
    let mut polled = [PollFd::new(&fd, PollFlags::IN | PollFlags::OUT)];
    poll(&mut polled, deadline)?;
    let found = polled[0].revents();
    let over = found.intersects(PollFlags::HUP | PollFlags::ERR);
    Ok((over || found.contains(PollFlags::IN), over || found.contains(PollFlags::OUT)))
}

fn poll(polled: &mut [PollFd<'_>], deadline: Option<Instant>) -> Result<()> {
    loop {
        let left = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
        });
        match rustix::event::poll(polled, left.as_ref()) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(Error::system("could not wait for descriptors", errno)),
        }
    }
}

/// Makes this process the leader of a session of its own, so that no terminal reaches it. Harmless if it is one already.
pub fn setsid() -> Result<()> {
    match rustix::process::setsid() {
        // EPERM: this process already leads a group, which is what a shell's job is.
        Ok(_) | Err(Errno::PERM) => Ok(()),
        Err(errno) => Err(Error::system("could not leave the terminal's session (setsid)", errno)),
    }
}

/// Ignores what is meant for others (SIGHUP, SIGINT: the app's terminal) and what comes back as an error anyway (SIGXFSZ, SIGPIPE).
/// For managers and hosts. Programs that they execute inherit it.
pub fn ignore_signals() -> Result<()> {
    ignore(&[libc::SIGHUP, libc::SIGINT, libc::SIGXFSZ, libc::SIGPIPE])
}

/// Ignores what Rust's runtime ignores, as it does at the beginning of `main`: for what runs before that.
pub fn ignore_broken_pipes() -> Result<()> {
    ignore(&[libc::SIGPIPE])
}

fn ignore(signals: &[libc::c_int]) -> Result<()> {
    for &signal in signals {
        // SAFETY: ignoring a signal runs no code of ours (INV-34).
        if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(Error::system(format!("could not ignore signal {signal}"), io::Error::last_os_error()));
        }
    }
    Ok(())
}

/// Whether this program runs with more rights than whoever started it (set-user-id and the like): environment variables are then
/// an attacker's.
pub fn is_secure_execution() -> bool {
    // SAFETY: reads the auxiliary vector, which the kernel wrote before the program began (INV-34).
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

// ----------------------------------------------------------------------------------------------------------------- file locks

/// Locks the whole file for the holder of this descriptor, if nobody else holds a lock: `false` if somebody does. The kernel drops
/// the lock with the last copy of the descriptor, so at the process's death at the latest.
///
/// These are locks of the open file (`F_OFD_SETLK`), because only they can be asked about without being taken: see
/// [`is_file_locked`].
pub fn try_lock_file(file: impl AsFd) -> Result<bool> {
    let mut whole = whole_file();
    // SAFETY: the kernel reads the structure, which lives on our stack; the file is open (INV-34).
    let code = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw mut whole) };
    if code == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        error => Err(Error::system("could not lock a file; does its file system have locks?", error)),
    }
}

/// Whether somebody holds the lock of this file, through another opening of it than this one.
pub fn is_file_locked(file: impl AsFd) -> Result<bool> {
    let mut whole = whole_file();
    // SAFETY: the kernel reads and writes the structure, which lives on our stack; the file is open (INV-34).
    let code = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_GETLK, &raw mut whole) };
    if code != 0 {
        return Err(Error::system("could not ask who has locked a file", io::Error::last_os_error()));
    }
    Ok(whole.l_type != libc::F_UNLCK as libc::c_short)
}

fn whole_file() -> libc::flock {
    // SAFETY: a structure of integers, for which zeros are valid: from the start to the end, and no pid, as these locks demand (INV-33).
    let mut whole: libc::flock = unsafe { mem::zeroed() };
    whole.l_type = libc::F_WRLCK as libc::c_short;
    whole.l_whence = libc::SEEK_SET as libc::c_short;
    whole
}

/// Ends the thread, and nothing else, without a way back: how a robust word's owner dies in a test.
#[cfg(test)]
fn end_thread() {
    // SAFETY: what the thread owns is leaked, which is safe; nobody joins it (INV-34).
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

#[cfg(test)]
mod tests;

/// Receives from a stream socket into memory that nobody refers to, without waiting. Descriptors that come along are closed.
pub fn receive_uninit(socket: impl AsFd, target: &mut [std::mem::MaybeUninit<u8>]) -> std::io::Result<usize> {
    loop {
        // A plain receive: the kernel discards descriptors that have no room to arrive in.
        match rustix::net::recv(&socket, &mut *target, rustix::net::RecvFlags::DONTWAIT) {
            Ok((_, received)) => return Ok(received),
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Reads bytes at an offset of a file into memory that nobody refers to. `false`: there are fewer, or they cannot be read.
pub fn read_uninit_at(file: impl AsFd, at: u64, target: &mut [mem::MaybeUninit<u8>]) -> bool {
    let mut done = 0;
    while done < target.len() {
        match rustix::io::pread(&file, &mut target[done..], at + done as u64) {
            Ok((read, _)) if !read.is_empty() => done += read.len(),
            Err(Errno::INTR) => {}
            _ => return false,
        }
    }
    true
}

/// Reads bytes at an offset of a file. `false`: there are fewer, or they cannot be read.
pub fn read_at(file: impl AsFd, at: u64, target: &mut [u8]) -> bool {
    let mut done = 0;
    while done < target.len() {
        match rustix::io::pread(&file, &mut target[done..], at + done as u64) {
            Ok(0) => return false,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}

/// So many bytes at an offset of a file, private from then on. `None`: there are fewer, or they cannot be read.
pub fn read_aligned_at(file: impl AsFd, at: u64, len: usize) -> Option<AlignedVec<16>> {
    let mut bytes = AlignedVec::with_capacity(len);
    // SAFETY: so many bytes are reserved, and nobody else has them; whether they are initialised their type does not say (INV-33).
    let room = unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), len) };
    if !read_uninit_at(file, at, room) {
        return None;
    }
    // SAFETY: all of them have been read, so they are initialised (INV-33).
    unsafe { bytes.set_len(len) };
    Some(bytes)
}

/// The number of the calling thread, which no other thread of this machine has while it lives.
pub fn thread_id() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get() as u32
}

/// Nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// A bell: a descriptor that becomes readable when it is [rung](ring_bell), by whatever process, until it is [silenced](silence_bell).
pub fn bell() -> Result<OwnedFd> {
    let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
    rustix::event::eventfd(0, flags).map_err(|errno| Error::system("cannot make a descriptor to be woken by", errno))
}

/// Rings a bell. One that rings already stays as it is.
pub fn ring_bell(bell: impl AsFd) {
    let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
}

/// Silences a bell. Whether it had been rung.
pub fn silence_bell(bell: impl AsFd) -> bool {
    rustix::io::read(bell, &mut [0u8; 8]).is_ok()
}

/// Ends this process by SIGKILL, at this instruction: for tests of what the others see then.
pub fn kill_self() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

/// Has a process that will be started close everything from a number on, before its program begins. None: this C library cannot.
pub(crate) fn close_from(actions: &mut PosixSpawnFileActions, first: i32) -> Option<nix::Result<()>> {
    type AddCloseFrom = unsafe extern "C" fn(*mut libc::posix_spawn_file_actions_t, libc::c_int) -> libc::c_int;
    // Looked up and not linked, or no program would start where there is none.
    // SAFETY: the name ends with a zero, and the handle is one that is always there (INV-34).
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"posix_spawn_file_actions_addclosefrom_np".as_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: a function of this name has this signature, in every C library that has one (INV-34).
    let add = unsafe { mem::transmute::<*mut libc::c_void, AddCloseFrom>(found) };
    // SAFETY: nix's type is the C library's, transparently, and was initialised when it was made; nobody else has it meanwhile (INV-34).
    match unsafe { add(ptr::from_mut(actions).cast(), first) } {
        0 => Some(Ok(())),
        code => Some(Err(nix::Error::from_raw(code))),
    }
}

/// Has the kernel send this process SIGCONT when the other end of a socket or pipe closes, or says something. One that is stopped goes
/// on; to one that is not, this signal does nothing.
pub fn continue_at_end(end: impl AsFd) -> Result<()> {
    /// The same on all architectures; the libc crate has no name for it where glibc is.
    const F_SETSIG: libc::c_int = 10;
    let end = end.as_fd().as_raw_fd();
    let asks = [
        (libc::F_SETOWN, rustix::process::getpid().as_raw_nonzero().get()),
        (F_SETSIG, libc::SIGCONT),
        (libc::F_SETFL, libc::O_NONBLOCK | libc::O_ASYNC),
    ];
    for (ask, number) in asks {
        // SAFETY: the descriptor is open, and these three take a number, no address (INV-34).
        if unsafe { libc::fcntl(end, ask, number) } == -1 {
            return Err(Error::system("could not ask for a signal at the end of a socket or pipe", io::Error::last_os_error()));
        }
    }
    Ok(())
}

/// Stops this process by SIGSTOP, until somebody lets it go on: for tests as well. The calling thread stops here: of a signal to the process
/// another thread would be told first.
pub fn stop_self() {
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
}

/// Takes a variable out of the environment, so that this process's own children do not see it. A program with rights beyond its
/// user's never listens to it.
pub fn take_variable(name: &str) -> Option<String> {
    if is_secure_execution() {
        return None;
    }
    let value = std::env::var(name).ok()?;
    // SAFETY: called at the very beginning of `main`, or before it: no other thread is there that could read the environment (INV-34).
    unsafe { std::env::remove_var(name) };
    Some(value)
}

/// Takes over a socket that this process was handed when it was started, by its number: close-on-exec from now on. None if there is
/// no socket of that number.
pub fn take_socket(number: i32) -> Option<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return None;
    }
    // SAFETY: the descriptor is only looked at; one that is not open is answered by an error (INV-34).
    let handed = unsafe { BorrowedFd::borrow_raw(number) };
    let stat = rustix::fs::fstat(handed).ok()?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Socket {
        return None;
    }
    rustix::io::fcntl_setfd(handed, rustix::io::FdFlags::CLOEXEC).ok()?;
    // SAFETY: it is open, and was opened for whoever reads the variable that names it, which is only once (INV-34).
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Standard error goes nowhere from now on, and the root directory is the current one: for a process that outlives its session.
pub fn leave_terminal() -> Result<()> {
    let nothing = open_null()?;
    rustix::stdio::dup2_stderr(&nothing).map_err(|error| Error::system("cannot close the standard error", error))?;
    std::env::set_current_dir("/").map_err(|error| Error::system("cannot leave the current directory", error))
}

pub(crate) fn open_null() -> Result<OwnedFd> {
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()).map_err(|error| Error::system("cannot open /dev/null", error))
}

/// The name under which this process shows in lists of processes: 15 bytes count.
pub fn set_process_name(name: &std::ffi::CStr) {
    // A wrong name hurts nobody.
    let _ = rustix::thread::set_name(name);
}
