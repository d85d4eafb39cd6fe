//! The manager that this program has started, as a process or a thread: waited for when the connection is over.

use commonhold_ipc::fork::PerLife;
use commonhold_ipc::socket::Channel;
use commonhold_ipc::sys::Spawned;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a drop waits for the manager's process, which ends as soon as it sees the connection's end.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Processes that did not end in time; looked at again when another one ends.
static LATE: PerLife<Vec<Spawned>> = PerLife::new();

/// A child process that is a manager of ours, and the leash that lets it go on when this end of it closes.
pub(crate) struct StartedProcess(Option<(Spawned, Channel)>);

impl StartedProcess {
    pub(crate) fn new(child: Spawned, leash: Channel) -> Self {
        StartedProcess(Some((child, leash)))
    }
}

impl Drop for StartedProcess {
    fn drop(&mut self) {
        let Some((child, leash)) = self.0.take() else { return };
        // One that is stopped would not see that the connection is over. Also if a process that was forked off this one has this end, too.
        leash.shut_down();
        let ended = child.wait(Some(Instant::now() + END_TIMEOUT));
        let mut late = LATE.lock();
        late.retain(|child| matches!(child.wait(Some(Instant::now())), Ok(None)));
        if let Ok(None) = ended {
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
