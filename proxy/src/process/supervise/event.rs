//! [`SupervisorEvent`]: what a supervisor says.

use commonhold_ipc::error::Error;
use std::fmt;

/// What has happened under a [`Supervisor`](super::Supervisor), in the order in which it has. `Display` says it in a sentence.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SupervisorEvent {
    /// A child was started for the first time.
    Started {
        /// Its name.
        name: String,
        /// Its process id.
        pid: u32,
    },
    /// A child has ended, and not because the supervisor wanted it to.
    Ended {
        /// Its name.
        name: String,
        /// Its process id.
        pid: u32,
        /// None: its function has returned, and no error. Else what it died of, or what it has returned.
        why: Option<Error>,
    },
    /// A child was ended by the supervisor: with others that depend on each other, or with the supervisor itself.
    Stopped {
        /// Its name.
        name: String,
        /// Its process id.
        pid: u32,
        /// Whether it had to be killed: it was asked to end, and had not when its time was over.
        killed: bool,
    },
    /// A child was started again.
    Restarted {
        /// Its name.
        name: String,
        /// Its process id from now on.
        pid: u32,
        /// How often it has been started again so far.
        restarts: u64,
    },
    /// A child could not be started again. That counts as a restart; the next try follows at once.
    NotStarted {
        /// Its name.
        name: String,
        /// What was in the way.
        why: Error,
    },
    /// There were more restarts than the limit allows; all children have been ended. Nothing happens after this.
    GaveUp {
        /// What [`run`](super::Supervisor::run) and [`step`](super::Supervisor::step) fail with from now on: it names the last to end.
        why: Error,
    },
}

impl fmt::Display for SupervisorEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SupervisorEvent::Started { name, pid } => write!(f, "{name} (pid {pid}) was started"),
            SupervisorEvent::Ended { name, pid, why: None } => write!(f, "{name} (pid {pid}) has ended: its function has returned"),
            // They say of whom they speak.
            SupervisorEvent::Ended { why: Some(why), .. } | SupervisorEvent::GaveUp { why } => why.fmt(f),
            SupervisorEvent::Stopped { name, pid, killed: false } => write!(f, "{name} (pid {pid}) was stopped"),
            SupervisorEvent::Stopped { name, pid, killed: true } => write!(f, "{name} (pid {pid}) did not end in time, and was killed"),
            SupervisorEvent::Restarted { name, pid, restarts } => write!(f, "{name} (pid {pid}) was started again (restart {restarts})"),
            SupervisorEvent::NotStarted { name, why } => write!(f, "{name} could not be started again: {why}"),
        }
    }
}
