//! Who this process is, and whose child.

use crate::patience::deadline_after;
use crate::wait::{Places, Source, is_readable};
use commonhold_ipc::error::Result;
use commonhold_ipc::sys::wait_readable;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a process that was started as a child has been told about itself. Empty in the main process.
static OWN: OnceLock<Own> = OnceLock::new();
/// Children that this process has started so far.
static STARTED: AtomicU64 = AtomicU64::new(0);

pub(super) struct Own {
    pub(super) name: String,
    pub(super) place: String,
    pub(super) parent: Parent,
    pub(super) daemon: bool,
}

pub(super) struct Parent {
    pub(super) name: String,
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
}

/// Says who this process is: once, at its beginning.
pub(super) fn become_child(own: Own) -> &'static Own {
    OWN.get_or_init(|| own)
}

/// Whether this process ends with its parent.
pub(super) fn is_daemon() -> bool {
    OWN.get().is_some_and(|own| own.daemon)
}

/// The place of this process's next child among all: `3` for the main process's third, `3:1` for that one's first.
pub(super) fn next_place() -> String {
    let number = STARTED.fetch_add(1, Ordering::Relaxed) + 1;
    match OWN.get() {
        Some(own) => format!("{}:{number}", own.place),
        None => number.to_string(),
    }
}

/// This process, as [`current_process`] gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentProcess {
    name: &'static str,
    pid: u32,
}

impl CurrentProcess {
    /// `MainProcess`, or the name that its parent has given it: `Process-1`, `Process-2` and so on, their children `Process-1:1`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

/// This process.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// use commonhold::{Process, current_process};
/// assert_eq!(current_process().name(), "MainProcess");
/// let child = Process::spawn(|| current_process().name().to_string(), ())?;
/// assert_eq!(child.join()?, "Process-1");
/// # Ok(())
/// # }
/// ```
pub fn current_process() -> CurrentProcess {
    CurrentProcess { name: OWN.get().map_or("MainProcess", |own| &own.name), pid: std::process::id() }
}

/// The process that has started this one, as [`parent_process`] gives it.
#[derive(Clone, Copy)]
pub struct ParentProcess(&'static Parent);

impl ParentProcess {
    /// Its name.
    pub fn name(&self) -> &'static str {
        &self.0.name
    }

    /// Its process id; another process's if it has ended and that one has got its number.
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// Whether it lives.
    pub fn is_alive(&self) -> bool {
        !matches!(self.wait(Duration::ZERO), Ok(true))
    }

    /// Sleeps until it has ended, however it ends. `false`: it still lives after `timeout`.
    ///
    /// # Errors
    /// `System` if this process cannot wait.
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<bool> {
        let deadline = deadline_after(timeout);
        Ok(wait_readable(&[self.sentinel()], deadline)? != 0)
    }

    /// [`wait`](Self::wait) for its end that is awaited, in any executor. With the feature `async`.
    ///
    /// # Errors
    /// `System` if this process cannot wait.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// use commonhold::{Process, parent_process};
    /// // A child that is not daemonic, and yet ends when its parent has.
    /// let child = Process::spawn(|| pollster::block_on(parent_process().unwrap().wait_async()), ())?;
    /// assert!(child.is_alive());
    /// # child.kill()?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "async")]
    pub fn wait_async(&self) -> impl Future<Output = Result<()>> + Send + Unpin + use<> {
        use crate::awaiting::{Key, Place};
        use std::task::Poll;
        let (parent, mut place) = (*self, None);
        std::future::poll_fn(move |context| {
            if parent.wait(Duration::ZERO)? {
                place = None;
                return Poll::Ready(Ok(()));
            }
            Place::keep(&mut place, Key::Parent, context.waker(), || std::sync::Arc::new(parent))?;
            Poll::Pending
        })
    }

    /// A descriptor that becomes readable when it ends.
    pub fn sentinel(&self) -> BorrowedFd<'static> {
        self.0.pidfd.as_fd()
    }
}

/// Ready when it has ended.
impl Source for ParentProcess {
    fn is_ready(&self) -> bool {
        is_readable(self.sentinel())
    }

    fn prepare<'w>(&'w self, places: &mut Places<'w>) {
        places.add_descriptor(self.sentinel());
    }
}

/// Becomes readable when it ends: see [`ParentProcess::sentinel`].
impl AsFd for ParentProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sentinel()
    }
}

impl std::fmt::Debug for ParentProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<ParentProcess {} pid {}>", self.name(), self.pid())
    }
}

/// The process that has started this one by [`Process`](super::Process); none in the main process.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// use commonhold::{Process, parent_process};
/// assert!(parent_process().is_none());
/// let child = Process::spawn(|| parent_process().unwrap().pid(), ())?;
/// assert_eq!(child.join()?, std::process::id());
/// # Ok(())
/// # }
/// ```
pub fn parent_process() -> Option<ParentProcess> {
    OWN.get().map(|own| ParentProcess(&own.parent))
}

/// How many processes can really run at the same time: processors that this one may use, by its affinity mask and by the quota of
/// its control groups (both versions); at least 1.
///
/// ```
/// assert!(commonhold::cpu_count() >= 1);
/// ```
pub fn cpu_count() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
