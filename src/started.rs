//! The manager that this program has started, as a process or a thread: waited for when the connection is over.

use commonhold_ipc::sys;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a drop waits for the manager's process, which ends as soon as it sees the connection's end.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Processes that did not end in time; looked at again when another one ends.
static LATE: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// A child process that is a manager of ours.
pub(crate) struct StartedProcess {
    child: Option<Child>,
    ended: Option<OwnedFd>,
}

impl StartedProcess {
    pub(crate) fn new(child: Child) -> Self {
        // Without it (before Linux 5.3) the end is waited for by `wait` alone.
        let ended = sys::pidfd_open(child.id()).ok();
        StartedProcess { child: Some(child), ended }
    }
}

impl Drop for StartedProcess {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let Some(ended) = &self.ended {
            let _ = sys::wait_readable(&[ended.as_fd()], Some(Instant::now() + END_TIMEOUT));
        }
        let mut late = LATE.lock().unwrap_or_else(PoisonError::into_inner);
        late.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        // Whoever waits for any child may have been quicker: then there is nothing left to wait for.
        if let Ok(None) = child.try_wait() {
            late.push(child);
        }
    }
}

/// A thread that is a manager of ours.
pub(crate) struct StartedThread(pub(crate) Option<JoinHandle<()>>);

impl Drop for StartedThread {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}
