//! Supervision: children that are started again when they end, within limits, as Erlang's users know it.
//!
//! A [`Supervisor`] is a value of the process that makes it. It has no thread: what it does, it does within the calls of its methods, on
//! their caller's thread. Its whole state is its own; what it knows of a child it knows from [`ChildProcess`](super::ChildProcess).
//!
//! - [`spec`]: what is supervised, and how: [`ChildSpec`].
//! - [`event`]: what is said about it.
//! - [`supervisor`]: the machine. At any time it either *watches* (sleeps until a child ends) or has a *plan*: some children to stop, one
//!   after the other from the last to the first, then some to start, or the end. A plan goes on across steps, so that no step takes longer
//!   than its caller has allowed; what ends meanwhile and is no part of the plan is looked at after it.
//!
//! If this process dies in any of this, its children die with it: they are daemonic.
mod event;
mod spec;
mod supervisor;

pub use event::SupervisorEvent;
pub use spec::{ChildSpec, Outcome, Restart, RestartStrategy};
pub use supervisor::{Supervisor, SupervisorStopper};
