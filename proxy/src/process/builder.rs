//! [`ProcessBuilder`]: how a process is to be.

use super::ROLE;
use super::children::{ChildProcess, Process};
use super::family;
use super::identity::{current_process, next_place};
use super::message::{HANDED_MAX, Kind, Packed, send};
use super::orders::{Orders, Settings};
use super::parcel::{Parcel, entrust};
use super::task::{Task, assert_no_captures, entry};
use commonhold_ipc::boot::Start;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::leash;
use commonhold_ipc::points;
use commonhold_ipc::sys::{ResourceLimit, Signal, Stream, pidfd_open};
use commonhold_ipc::task::Build;
use commonhold_ipc::value::Shared;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Says how a process is to be, then starts it. Made by [`Process::builder`].
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// use commonhold::{Process, current_process};
///
/// fn greet(whom: String) -> String {
///     format!("{} says {} to {whom}", current_process().name(), std::env::var("GREETING").unwrap())
/// }
///
/// let child = Process::builder().name("worker").env("GREETING", "hello").spawn(greet, "ada".to_string())?;
/// assert_eq!(child.join()?, "worker says hello to ada");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
#[must_use = "a builder does nothing before `spawn`"]
pub struct ProcessBuilder {
    name: Option<String>,
    daemon: bool,
    executable: Option<PathBuf>,
    only_these: bool,
    /// Variables to set, or to leave out.
    environment: BTreeMap<OsString, Option<OsString>>,
    streams: [Stream; 3],
    settings: Settings,
    handed: Vec<OwnedFd>,
}

impl Process<()> {
    /// Runs a function in a process of its own. `arguments` is a tuple of up to eight, or the one value.
    ///
    /// # Errors
    /// `NotInitialised` if `main` has not called `init` first; `Refused` in a program with rights beyond its user's (set-user-ID), which
    /// never starts itself; `System` if no process can be started; `Disconnected` for a handle whose manager is gone; `TooLarge`. What goes wrong in the process itself, [`join`](Process::join) tells.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// use commonhold::Process;
    /// fn area(width: f64, height: f64) -> f64 { width * height }
    /// let square = Process::spawn(|x: i64| x * x, 5)?;
    /// let area = Process::spawn(area, (2.0, 3.0))?;
    /// assert_eq!((square.join()?, area.join()?), (25, 6.0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn spawn<F, A, M>(function: F, arguments: A) -> Result<Process<F::Output>>
    where
        F: Task<A, M>,
        A: Shared,
        F::Output: Shared,
        M: 'static,
    {
        const { assert_no_captures::<F>() };
        Process::builder().start(function, arguments)
    }

    /// Says how a process is to be.
    pub fn builder() -> ProcessBuilder {
        ProcessBuilder::default()
    }
}

impl ProcessBuilder {
    /// Its name, for people. By default `Process-1`, `Process-2` and so on. Lists of processes show its first 15 bytes.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// A daemonic process ends when this one does, however it ends: it is killed. Others go on.
    pub fn daemon(mut self, daemon: bool) -> Self {
        self.daemon = daemon;
        self
    }

    /// Sets a variable of its environment, which otherwise is this process's.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.into(), Some(value.into()));
        self
    }

    /// Leaves a variable out of its environment.
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.environment.insert(name.into(), None);
        self
    }

    /// Gives it an empty environment, but for what is set from here on.
    pub fn env_clear(mut self) -> Self {
        self.only_these = true;
        self.environment.clear();
        self
    }

    /// The directory that its function begins in.
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.settings.current_dir = Some(directory.into().into_os_string().into_vec());
        self
    }

    /// Its standard input: a file, one end of a [`std::io::pipe`], [`Stream::Null`]; by default this process's.
    pub fn stdin(mut self, stream: impl Into<Stream>) -> Self {
        self.streams[0] = stream.into();
        self
    }

    /// Its standard output, likewise.
    pub fn stdout(mut self, stream: impl Into<Stream>) -> Self {
        self.streams[1] = stream.into();
        self
    }

    /// Its standard error, likewise.
    pub fn stderr(mut self, stream: impl Into<Stream>) -> Self {
        self.streams[2] = stream.into();
        self
    }

    /// The most that it may use of something. It sets the limit itself, before its function is called.
    pub fn limit(mut self, limit: ResourceLimit, most: u64) -> Self {
        self.settings.limits.push((limit, most));
        self
    }

    /// The processors that it may run on, by their numbers from 0.
    pub fn cpus(mut self, cpus: impl IntoIterator<Item = u32>) -> Self {
        self.settings.cpus = Some(cpus.into_iter().collect());
        self
    }

    /// The program that is started, instead of this one by way of `/proc/self/exe`: another file of the very same build, whose `main`
    /// begins with `init`.
    pub fn executable(mut self, path: impl Into<PathBuf>) -> Self {
        self.executable = Some(path.into());
        self
    }

    /// Hands it descriptors, at the most [`HANDED_MAX`], which it finds by [`handed`](super::run::handed).
    pub(crate) fn hand(mut self, descriptors: Vec<OwnedFd>) -> Self {
        assert!(descriptors.len() <= HANDED_MAX, "as many as a message has room for");
        self.handed = descriptors;
        self
    }

    /// Runs a function in a process that is so. See [`Process::spawn`].
    ///
    /// # Errors
    /// As there; and `OutOfRange` for text with a zero byte in it. A directory, limit or processor that it cannot have is
    /// [`join`](Process::join)'s error.
    pub fn spawn<F, A, M>(self, function: F, arguments: A) -> Result<Process<F::Output>>
    where
        F: Task<A, M>,
        A: Shared,
        F::Output: Shared,
        M: 'static,
    {
        const { assert_no_captures::<F>() };
        self.start(function, arguments)
    }

    pub(super) fn start<F, A, M>(self, function: F, arguments: A) -> Result<Process<F::Output>>
    where
        F: Task<A, M>,
        A: Shared,
        F::Output: Shared,
        M: 'static,
    {
        let entry = entry::<F, A, M>(function);
        let offset = entry.offset()?;
        let Parcel { value, label, held } = Parcel::pack(&arguments)?;
        let luggage = entrust(&label)?;
        drop((arguments, held));
        points::client("process: before it is started");
        let place = next_place();
        let name = self.name.unwrap_or_else(|| format!("Process-{place}"));
        let mut environment: BTreeMap<_, _> = if self.only_these { BTreeMap::new() } else { std::env::vars_os().collect() };
        for (name, value) in self.environment {
            match value {
                Some(value) => environment.insert(name, value),
                None => environment.remove(&name),
            };
        }
        if let Some(name) = environment.keys().find(|name| name.is_empty() || name.as_encoded_bytes()[1..].contains(&b'=')) {
            return Err(Error::new(ErrorKind::OutOfRange, format!("{name:?} cannot be the name of an environment variable")));
        }
        let parent_pidfd = pidfd_open(std::process::id())?;
        let leash = self.daemon.then(leash::new_end).transpose()?;
        let start = Start {
            program: self.executable.as_deref(),
            role: ROLE,
            arguments: std::env::args_os().collect(),
            environment: environment.into_iter().collect(),
            streams: self.streams,
        };
        let (spawned, channel) = start.start()?;
        points::client("process: before it gets its orders");
        let orders = Orders {
            offset,
            function: entry.name().to_owned(),
            build: Build::own().clone(),
            name: name.clone(),
            place,
            parent: current_process().name().to_owned(),
            daemon: self.daemon,
            settings: self.settings,
            label,
        };
        let fds: Vec<_> = std::iter::once(&parent_pidfd).chain(&self.handed).map(AsFd::as_fd).collect();
        let nothing = Packed::Inline(Vec::new());
        let luggage_fds = luggage.iter().map(|end| (Kind::Luggage, end.as_fd()));
        let mut first = leash.iter().map(|end| (Kind::Leash, end.as_fd())).chain(luggage_fds);
        let sent = first.try_for_each(|(kind, end)| send(&channel, kind, &(), &nothing, &[end]));
        match sent.and_then(|()| send(&channel, Kind::Orders, &orders.into_wire(), &value, &fds)) {
            // It is dead already: that shows at its join.
            Err(error) if !error.is_disconnected() => {
                let _ = spawned.signal(Signal::KILL).and_then(|_| spawned.wait(None));
                return Err(error);
            }
            _ => {}
        }
        // From here on it is the child's alone: its death, too, is seen by the managers.
        drop(luggage);
        points::client("process: started");
        let child = ChildProcess::new(spawned, channel, name, self.daemon, entry.name());
        family::add(&child);
        Ok(Process::of(child))
    }
}
