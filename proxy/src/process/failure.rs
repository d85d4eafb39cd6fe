//! Failures of children that nobody joins: somebody has to tell them, and once.
//!
//! A child's failure goes to its parent like a result. Whether anybody there wants to know it shows when the [`Process`] is joined, or dropped.
//! So the child sends a descriptor with it, the *right* to tell: of all who try to take it, one gets it. Who takes it writes a line on its
//! own standard error.
//!
//! | a child | and its handle is dropped | who tells |
//! |---|---|---|
//! | returns an error, could not begin, or its result cannot be sent | before | the child: it finds its socket at its end when it has said so |
//! | | later | the parent, there |
//! | | in the same moment | whoever of them takes the right |
//! | dies, or exits with another code than 0, before its function returns | before or later | the parent, as soon as it sees both: there, or when it next starts a child or asks for its children |
//!
//! Not told: what was joined, or, of a death, seen by [`exit_code`](super::ChildProcess::exit_code); a panic, which the child has said when it
//! happened; an end by a signal that the parent has sent; what a daemonic child does that ends because its parent does.
//!
//! [`Process`]: super::Process

use super::identity::{is_daemon, parent_process};
use super::message::{Kind, Packed, send};
use commonhold_ipc::error::Result;
use commonhold_ipc::limits::PROCESS_DAEMON_TELLS_MS;
use commonhold_ipc::socket::{Channel, Received};
use commonhold_ipc::sys::{bell, ring_bell, silence_bell};
use commonhold_ipc::value::Shared;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// The right to tell of a failure. There may be several descriptors of it, in several processes.
pub(super) struct Right(OwnedFd);

impl Right {
    /// None if there are no descriptors left: then whoever finds that nobody else does tells it, at the worst both.
    fn new() -> Option<Right> {
        let right = bell().ok()?;
        ring_bell(&right);
        Some(Right(right))
    }

    /// One that came with a message.
    pub(super) fn of(fds: Vec<OwnedFd>) -> Option<Right> {
        fds.into_iter().next().map(Right)
    }

    /// Takes it. Whether it was still there.
    pub(super) fn take(self) -> bool {
        silence_bell(&self.0)
    }
}

/// Says of a failure to the parent: a child's part.
pub(super) fn admit<H: Shared>(channel: &Channel, kind: Kind, head: &H) -> (Result<()>, Option<Right>) {
    let right = Right::new();
    let fds: Vec<_> = right.iter().map(|right| right.0.as_fd()).collect();
    let sent = send(channel, kind, head, &Packed::Inline(Vec::new()), &fds);
    drop(fds);
    (sent, right)
}

/// Tells a failure that was said to the parent, if that will not: a child's part.
pub(super) fn tell_unless_heard(channel: &Channel, right: Option<Right>, failure: &str) {
    let Some(parent) = parent_process() else { return };
    if !is_let_go(channel) && parent.is_alive() {
        return;
    }
    // What it needs may have gone before its parent goes.
    if is_daemon() && parent.wait(Duration::from_millis(PROCESS_DAEMON_TELLS_MS)).unwrap_or(true) {
        return;
    }
    if right.is_none_or(Right::take) {
        let own = super::current_process();
        tell(&format!("{} (pid {}) {failure}", own.name(), own.pid()));
    }
}

/// Whether the parent has said that it wants nothing more.
fn is_let_go(channel: &Channel) -> bool {
    let mut rest = [0; 64];
    loop {
        match channel.receive(&mut rest) {
            Ok(Received::Bytes(_)) => {}
            Ok(Received::Ended) => return true,
            Ok(Received::Nothing) | Err(_) => return false,
        }
    }
}

/// Tells a failure: as one line, and one piece.
pub(super) fn tell(failure: &str) {
    let line = format!("{}; nobody has joined it\n", failure.replace('\n', " "));
    let _ = std::io::stderr().write_all(line.as_bytes());
}
