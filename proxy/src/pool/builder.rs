//! [`PoolBuilder`]: how a pool is to be.

use super::Pool;
use super::assert_no_captures;
use super::frames::{Packing, Space};
use super::handover::Receiver;
use super::keeper::keep;
use super::owner::{Owner, State};
use super::settings::{FirstCall, Settings};
use super::worker::{InitializerResult, first_entry};
use crate::process::{Task, cpu_count};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::fork::Stamp;
use commonhold_ipc::limits::{POOL_FILE_BYTES, POOL_WORKERS_MAX};
use commonhold_ipc::map::{Access, Segment};
use commonhold_ipc::pool::{FILE_BASE, SEGMENT_BYTES};
use commonhold_ipc::sys::{bell, memfd_sealed};
use commonhold_ipc::value::Shared;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Says how a pool is to be, then starts it. Made by [`Pool::builder`].
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// use commonhold::{Pool, current_process};
/// use std::time::Duration;
///
/// fn whose(_: u32) -> String {
///     current_process().name().to_string()
/// }
///
/// let pool = Pool::builder()
///     .workers(1)
///     .name("crunch")
///     .max_tasks_per_child(2)
///     .retries(1)
///     .task_time_limit(Duration::from_secs(60))
///     .build()?;
/// let names = pool.imap(whose, 0..4)?.collect::<commonhold::Result<Vec<_>>>()?;
/// assert_eq!(names, ["crunch-1", "crunch-1", "crunch-2", "crunch-2"]);
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
#[must_use = "a builder does nothing before `build`"]
pub struct PoolBuilder {
    workers: Option<usize>,
    name: Option<String>,
    initializer: Option<Result<FirstCall>>,
    settings: Partial,
}

impl fmt::Debug for PoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, workers) = (self.name.as_deref().unwrap_or("PoolWorker"), self.workers);
        f.debug_struct("PoolBuilder").field("name", &name).field("workers", &workers).finish_non_exhaustive()
    }
}

/// What is as it is given.
#[derive(Default)]
struct Partial {
    calls_most: Option<u64>,
    retries: u32,
    time_limit: Option<Duration>,
    chunk_size: Option<u64>,
    look_ahead: Option<u64>,
    cpus: Option<Vec<u32>>,
    one_cpu_each: bool,
    environment: Vec<(OsString, OsString)>,
}

impl PoolBuilder {
    /// How many workers; by default [`cpu_count`].
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// What its workers' names begin with: `name-1`, `name-2` and so on. By default `PoolWorker`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// A function that every worker calls first, before its tasks. If it panics, or returns an `Err`, the worker ends, and after
    /// three in a row the pool gives up, with that as its error.
    pub fn initializer<F, A, M>(mut self, function: F, arguments: A) -> Self
    where
        F: Task<A, M>,
        A: Shared,
        F::Output: InitializerResult,
        M: 'static,
    {
        const { assert_no_captures::<F>() };
        let entry = first_entry::<F, A, M>(function);
        let mut packing = Packing::default();
        let packed = packing.add_whole(&arguments).and_then(|()| entry.offset());
        self.initializer = Some(packed.map(|function| FirstCall { function, name: entry.name_hash(), packing }));
        self
    }

    /// After so many calls a worker ends, and another takes its place: for functions that leak.
    pub fn max_tasks_per_child(mut self, calls: u64) -> Self {
        self.settings.calls_most = Some(calls);
        self
    }

    /// How often a call is tried again whose worker died; by default not at all. It may have had effects before its worker died, and
    /// has them again. What returned, or panicked, is not tried again.
    pub fn retries(mut self, retries: u32) -> Self {
        self.settings.retries = retries;
        self
    }

    /// The longest that a call may take. Its worker is then killed, and the call fails with an error of kind
    /// [`TimedOut`](commonhold_ipc::error::ErrorKind::TimedOut), or is tried again.
    pub fn task_time_limit(mut self, limit: Duration) -> Self {
        self.settings.time_limit = Some(limit);
        self
    }

    /// How many calls a worker is given at a time. By default [`map`](Pool::map) makes four chunks for each worker if it knows the length
    /// of its input, or larger and larger ones if it does not; [`imap`](Pool::imap) gives them out one by one.
    pub fn chunk_size(mut self, calls: u64) -> Self {
        self.settings.chunk_size = Some(calls);
        self
    }

    /// How many items [`imap`](Pool::imap) takes from its input beyond those whose results it has given. By default 64, or eight for
    /// each worker if that is more.
    pub fn look_ahead(mut self, items: u64) -> Self {
        self.settings.look_ahead = Some(items);
        self
    }

    /// The processors that its workers may run on, by their numbers from 0.
    pub fn cpus(mut self, cpus: impl IntoIterator<Item = u32>) -> Self {
        self.settings.cpus = Some(cpus.into_iter().collect());
        self
    }

    /// Each worker runs on one of the processors alone, in turn: of [`cpus`](Self::cpus), or of those that this process may use.
    pub fn one_cpu_each(mut self) -> Self {
        self.settings.one_cpu_each = true;
        self
    }

    /// Sets a variable of its workers' environment, which otherwise is this process's.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.settings.environment.push((name.into(), value.into()));
        self
    }

    /// Starts the pool.
    ///
    /// # Errors
    /// `OutOfRange` for no workers, too many, or a setting of 0; what [`Process::spawn`](crate::process::Process::spawn) fails with if a
    /// worker cannot be started: then none is left. What goes wrong in the workers, its calls tell.
    pub fn build(self) -> Result<Pool> {
        let workers = self.workers.unwrap_or_else(cpu_count);
        check_workers(workers)?;
        let Partial { calls_most, retries, time_limit, chunk_size, look_ahead, mut cpus, one_cpu_each, environment } = self.settings;
        for (what, number) in [("max_tasks_per_child", calls_most), ("chunk_size", chunk_size), ("look_ahead", look_ahead)] {
            if number == Some(0) {
                return Err(Error::new(ErrorKind::OutOfRange, format!("a pool with a {what} of 0 would do nothing: 1 is the least")));
            }
        }
        if one_cpu_each && cpus.is_none() {
            cpus = Some(commonhold_ipc::sys::own_cpus());
        }
        if cpus.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::new(ErrorKind::OutOfRange, "a pool's workers cannot run on no processor at all: name one, or none"));
        }
        let name = self.name.unwrap_or_else(|| "PoolWorker".to_owned());
        let initializer = self.initializer.transpose()?;
        let settings =
            Settings { name, initializer, calls_most, retries, time_limit, chunk_size, look_ahead, cpus, one_cpu_each, environment };
        start(workers, settings)
    }
}

pub(super) fn check_workers(workers: usize) -> Result<()> {
    if (1..=POOL_WORKERS_MAX).contains(&workers) {
        return Ok(());
    }
    let text = format!("a pool of {workers} workers cannot be: from 1 to {POOL_WORKERS_MAX}");
    Err(Error::new(ErrorKind::OutOfRange, text))
}

fn start(workers: usize, settings: Settings) -> Result<Pool> {
    let owner = Arc::new(owner(workers, settings)?);
    if let Err(error) = owner.start_all() {
        owner.bury_all();
        return Err(error);
    }
    let mut pool = Pool { owner: owner.clone(), keeper: None };
    let keeper = std::thread::Builder::new().name("commonhold-pool".into()).spawn(move || keep(&owner));
    // If there is none, the pool's drop ends the workers.
    pool.keeper = Some(keeper.map_err(|error| Error::system("cannot start the thread that looks after a pool's workers", error))?);
    Ok(pool)
}

/// A pool in which nobody works yet.
pub(super) fn owner(workers: usize, settings: Settings) -> Result<Owner> {
    let parts = POOL_WORKERS_MAX as u64 + 1;
    let file: OwnedFd = memfd_sealed("commonhold-pool", FILE_BASE + parts * POOL_FILE_BYTES)?;
    let segment = Segment::map(&file, SEGMENT_BYTES, Access::ReadWrite)?.keep_from_children()?;
    segment.keep_from_dumps()?;
    let file = Arc::new(File::from(file));
    Ok(Owner {
        stamp: Stamp::now(),
        segment,
        bell: bell()?,
        settings,
        state: Mutex::new(State::new(workers)),
        arguments: Mutex::new(Space::new(file.clone(), 0)),
        file,
        receiver: Mutex::new(Receiver::new()?),
        changed: Condvar::new(),
    })
}
