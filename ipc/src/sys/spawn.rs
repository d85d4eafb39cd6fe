//! Starting another process, waiting for its end, and setting up the own one as a parent asked.
//!
//! Processes are started by `posix_spawn`, which shares memory with its parent until the new program runs: a fork would first copy the
//! page tables of a large parent, and may not be had at all where memory is promised strictly. A new process has the three standard
//! streams and the one descriptor that it is handed; everything else is closed before its program begins, also what this process has
//! open without close-on-exec: a shell's `3>log`, what some library opens. glibc 2.34 does that in the new process, so nothing can come
//! between. What is older is told before what there is to close: something that another thread opens at this moment gets through.
//!
//! A process is known by its pidfd, so that no signal and no wait can meet another process that has got its number. Somebody else
//! may have waited for it, or SIGCHLD may be ignored: then how it ended is [`End::Unknown`].
use std::ffi::{CString, OsString};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, Signal, WaitId, WaitIdOptions, getrlimit, setrlimit, waitid};
use rustix::thread::CpuSet;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::{close_from, open_null, pidfd_open, wait_readable};

/// What one of the standard streams of a new process is.
#[derive(Debug, Default)]
pub enum Stream {
    /// This process's own.
    #[default]
    Inherit,
    /// Empty, or a place where everything vanishes.
    Null,
    /// A file, a pipe, a socket.
    Fd(OwnedFd),
}

impl<T: Into<OwnedFd>> From<T> for Stream {
    fn from(fd: T) -> Self {
        Stream::Fd(fd.into())
    }
}

/// Number of the descriptor that a new process is handed.
pub const HANDED: i32 = 3;

/// A process to be started.
pub struct Plan<'a> {
    /// The program's file.
    pub program: &'a Path,
    /// Its arguments, from the name that it is called by.
    pub arguments: Vec<OsString>,
    /// Its environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Input, output, errors.
    pub streams: [Stream; 3],
    /// The descriptor that it is handed, by the number [`HANDED`].
    pub handed: OwnedFd,
}

impl Plan<'_> {
    /// Starts it.
    ///
    /// # Errors
    /// `System` if the program cannot be executed, or if there are no processes, descriptors or memory left for it.
    pub fn spawn(self) -> Result<Spawned> {
        self.spawn_closing(close_others)
    }

    /// The same with either way to close what it is not given.
    pub(super) fn spawn_closing(self, close_others: impl FnOnce(&mut PosixSpawnFileActions) -> Result<()>) -> Result<Spawned> {
        let failed = |errno: nix::Error| {
            let cure = match errno {
                nix::Error::EAGAIN => ": the limit on processes is reached (`ulimit -u`, or pids.max of the control group)",
                nix::Error::ENOMEM => ": there is no memory left for another process",
                _ => "",
            };
            let error = std::io::Error::from_raw_os_error(errno as i32);
            Error::system(format!("cannot start {}{cure}", self.program.display()), error)
        };
        let mut actions = PosixSpawnFileActions::init().map_err(failed)?;
        let mut sources = Vec::new();
        for (number, stream) in (0..).zip(&self.streams) {
            let source = match stream {
                Stream::Inherit => continue,
                Stream::Null => aside(open_null()?.as_fd())?,
                Stream::Fd(fd) => aside(fd.as_fd())?,
            };
            sources.push((source, number));
        }
        sources.push((aside(self.handed.as_fd())?, HANDED));
        for (source, number) in &sources {
            actions.add_dup2(source.as_raw_fd(), *number).map_err(failed)?;
        }
        close_others(&mut actions)?;
        let arguments: Vec<CString> = self.arguments.iter().map(|text| c_string(text.as_bytes())).collect::<Result<_>>()?;
        let variable = |(name, value): &(OsString, OsString)| c_string(&[name.as_bytes(), b"=", value.as_bytes()].concat());
        let environment: Vec<CString> = self.environment.iter().map(variable).collect::<Result<_>>()?;
        let pid = posix_spawn(self.program, &actions, &attributes().map_err(failed)?, &arguments, &environment).map_err(failed)?;
        Spawned::of(pid.as_raw().cast_unsigned())
    }
}

/// As the standard library starts programs: no signal is blocked, and SIGPIPE, which Rust's runtime ignores, ends them.
fn attributes() -> nix::Result<PosixSpawnAttr> {
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_sigmask(&SigSet::empty())?;
    let mut defaults = SigSet::empty();
    defaults.add(nix::sys::signal::Signal::SIGPIPE);
    attributes.set_sigdefault(&defaults)?;
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF)?;
    Ok(attributes)
}

/// Has a new process close all but what it is given.
pub(super) fn close_others(actions: &mut PosixSpawnFileActions) -> Result<()> {
    close_from(actions, HANDED + 1).map_or_else(|| close_what_is_open(actions), |closed| closed.map_err(not_kept))
}

/// The same by what is open here now.
pub(super) fn close_what_is_open(actions: &mut PosixSpawnFileActions) -> Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd").map_err(not_kept)? {
        match entry.map_err(not_kept)?.file_name().to_string_lossy().parse() {
            // A number at which there is nothing any more does no harm; one that is beyond the limit on numbers is not taken.
            Ok(number) if number > HANDED => match actions.add_close(number) {
                Ok(()) | Err(nix::Error::EBADF) => {}
                Err(errno) => return Err(not_kept(errno)),
            },
            _ => {}
        }
    }
    Ok(())
}

fn not_kept(error: impl Into<std::io::Error>) -> Error {
    Error::system("cannot keep from a new process what this one has open", error)
}

/// A copy of a descriptor whose number is none that a new process begins with, close-on-exec.
fn aside(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, HANDED + 1).map_err(|errno| Error::system("cannot copy a descriptor for a new process", errno))
}

fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|error| {
        let text = format!("{:?} has a zero byte in it, so no process can get it", String::from_utf8_lossy(bytes));
        Error::caused(ErrorKind::OutOfRange, text, error)
    })
}

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It returned, or called `exit`, with this code.
    Code(i32),
    /// A signal killed it.
    Signal(i32),
    /// Somebody else has waited for it, or SIGCHLD is ignored here.
    Unknown,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Code(code) => write!(f, "ended with exit code {code}"),
            End::Signal(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(name) => write!(f, "was killed by signal {signal} ({})", name.as_str()),
                Err(_) => write!(f, "was killed by signal {signal}"),
            },
            End::Unknown => f.write_str("has ended; how, is unknown, because something else in this program has waited for it"),
        }
    }
}

/// A process that this one has started. Dropping it neither ends it nor waits for it.
#[derive(Debug)]
pub struct Spawned {
    pid: u32,
    pidfd: OwnedFd,
    end: Mutex<Option<End>>,
}

impl Spawned {
    fn of(pid: u32) -> Result<Spawned> {
        let looks = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let is_strange = |pidfd: &OwnedFd| matches!(waitid(WaitId::PidFd(pidfd.as_fd()), looks), Err(Errno::CHILD));
        match pidfd_open(pid) {
            Ok(pidfd) if !is_strange(&pidfd) => Ok(Spawned { pid, pidfd, end: Mutex::new(None) }),
            Err(error) if !error.is_not_found() => {
                // Nobody could wait for its end: it must not begin.
                if let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed()) {
                    let _ = rustix::process::kill_process(pid, Signal::KILL);
                    let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
                }
                Err(error)
            }
            // It is gone and somebody has waited for it; the number may already be another's. What is at its end is readable.
            _ => Ok(Spawned { pid, pidfd: open_null()?, end: Mutex::new(Some(End::Unknown)) }),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal. `false`: it has ended.
    pub fn signal(&self, signal: Signal) -> Result<bool> {
        if self.known_end().is_some() {
            return Ok(false);
        }
        match rustix::process::pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(errno) => Err(Error::system(format!("cannot send signal {} to process {}", signal.as_raw(), self.pid), errno)),
        }
    }

    fn known_end(&self) -> Option<End> {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its end. `None`: it still runs at the deadline; with a deadline in the past it is only looked at. The first who
    /// sees the end clears the process away.
    pub fn wait(&self, deadline: Option<Instant>) -> Result<Option<End>> {
        if let Some(end) = self.known_end() {
            return Ok(Some(end));
        }
        if wait_readable(&[self.pidfd.as_fd()], deadline)? == 0 {
            return Ok(None);
        }
        let mut known = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            // It has ended, so this takes no longer than a debugger's own wait for it, if there is one.
            let seen = match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => End::Code(code),
                    (_, Some(signal)) => End::Signal(signal),
                    _ => End::Unknown,
                },
                _ => End::Unknown,
            };
            *known = Some(seen);
        }
        Ok(*known)
    }
}

/// Readable when the process has ended.
impl AsFd for Spawned {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

// ---------------------------------------------------------------------------------------------------- what a parent has asked for

/// Something that a process may use only so much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResourceLimit {
    /// Bytes of address space.
    AddressSpace,
    /// Bytes of a core dump; 0: none.
    Core,
    /// Seconds of processor time; then it is killed.
    CpuTime,
    /// Bytes of the heap and private mappings.
    Data,
    /// Bytes of the files that it writes.
    FileSize,
    /// Number of the highest open descriptor, and one more.
    OpenFiles,
    /// Processes and threads of its user.
    Processes,
    /// Bytes of the main thread's stack.
    Stack,
}

impl ResourceLimit {
    /// All of them; their places here are what travels.
    pub const ALL: [ResourceLimit; 8] = [
        ResourceLimit::AddressSpace,
        ResourceLimit::Core,
        ResourceLimit::CpuTime,
        ResourceLimit::Data,
        ResourceLimit::FileSize,
        ResourceLimit::OpenFiles,
        ResourceLimit::Processes,
        ResourceLimit::Stack,
    ];

    fn resource(self) -> Resource {
        match self {
            ResourceLimit::AddressSpace => Resource::As,
            ResourceLimit::Core => Resource::Core,
            ResourceLimit::CpuTime => Resource::Cpu,
            ResourceLimit::Data => Resource::Data,
            ResourceLimit::FileSize => Resource::Fsize,
            ResourceLimit::OpenFiles => Resource::Nofile,
            ResourceLimit::Processes => Resource::Nproc,
            ResourceLimit::Stack => Resource::Stack,
        }
    }

    /// Sets this process's limit, for good if it is lower than it was.
    pub fn set(self, most: u64) -> Result<()> {
        let maximum = getrlimit(self.resource()).maximum;
        let limit = Rlimit { current: Some(most), maximum: Some(maximum.map_or(most, |maximum| maximum.min(most))) };
        let limit = Rlimit { current: limit.maximum, ..limit };
        setrlimit(self.resource(), limit).map_err(|errno| Error::system(format!("cannot set the limit {self:?} to {most}"), errno))
    }
}

/// Lets this thread, and those it starts from now on, run on these processors only.
pub fn run_on(cpus: &[u32]) -> Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        let index = *cpu as usize;
        if index >= CpuSet::MAX_CPU {
            return Err(Error::new(ErrorKind::OutOfRange, format!("processor {cpu} is beyond the highest, {}", CpuSet::MAX_CPU - 1)));
        }
        set.set(index);
    }
    rustix::thread::sched_setaffinity(None, &set).map_err(|errno| {
        Error::system(format!("cannot run on the processors {cpus:?}; are there such, and may this process use them?"), errno)
    })
}
