//! Processes: a function of this program, run in a process of its own.
//!
//! | | parent | child |
//! |---|---|---|
//! | 1 | has managers keep what handles among the arguments name, for who has a socket's end; starts this program again (see `ipc::boot`) | |
//! | 2 | sends an end of its leash to a daemon (`ipc::leash`), then these ends, then its orders: which function, what build, name, settings, arguments; with its own pidfd | `init` takes the socket, and reads them |
//! | 3 | | compares the build; becomes what it was told to; reads the arguments, with sessions of its own, and holds what they name |
//! | 4 | | shuts the ends down; says that it has *begun*, and calls the function |
//! | 5 | | says what it has *returned*, and before that if it is *unhappy* with it, an error; or that it *panicked*, or why it *failed* to begin |
//! | 6 | reads it, holds what handles in it name, says that it has *taken* them | waits for that, if there are any, and exits |
//!
//! Nobody waits for anybody in steps 1 and 2: what does not fit into the socket at once goes into a memory file. No thread watches
//! over children: what they say is read when the parent next asks for one of them, starts another, or joins them. A child's end is
//! its pidfd's, its result comes through the socket; so somebody else's `waitpid` costs nothing but the exit code.
//!
//! A failure that nobody joins is told by one of them, see `failure`. On top of that, [`supervise`] starts children again when they end.
//!
//! Who writes what: each side its end of the socket; the parent's view of a child is under one lock (`children`).
mod archive;
mod builder;
mod children;
mod failure;
mod family;
mod identity;
mod message;
mod orders;
mod parcel;
mod run;
mod supervise;
mod task;

pub(crate) use archive::{Archive, Fresh, write_sealed};
pub use builder::ProcessBuilder;
pub use children::{ChildProcess, Process};
pub use family::{ChildrenGuard, active_children, join_children};
pub use identity::{CurrentProcess, ParentProcess, cpu_count, current_process, parent_process};
pub(crate) use parcel::{Label, hold, label_of, unpack};
pub use run::run;
pub(crate) use run::{PanicReport, handed, panic_report, panicked};
pub use supervise::{ChildSpec, Outcome, Restart, RestartStrategy, Supervisor, SupervisorEvent, SupervisorStopper};
pub use task::Task;

/// The role in which a child is started.
pub const ROLE: &str = "process";
