//! Doing again what lost to another writer.

use crate::session::SessionCore;
use crate::write::{Committed, conflicts};
use commonhold_ipc::error::{Error, Result};
use commonhold_ipc::limits::{CONFLICTS_BEFORE_TICKET, TICKET_KEPT_US, TICKET_MS};
use commonhold_ipc::wire::Call;
use commonhold_ipc::wire::commit::CommitWriter;
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Attempts after which even the holder of the ticket gives up: it is too slow for the ticket's time.
const ATTEMPTS_MAX: u32 = 256;

/// What one attempt came to.
pub enum Attempt<R> {
    /// Done.
    Done(R),
    /// Something has changed meanwhile: again.
    Conflict,
}

/// Whether an attempt runs under the writer's ticket, and so need not stand back for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HasTicket(pub bool);

/// The writer's ticket, given back when dropped: also when the attempt panics.
pub struct Ticket {
    session: Arc<SessionCore>,
    since: Instant,
    /// The manager has taken it back with a commit.
    is_back: Cell<bool>,
}

impl Ticket {
    /// Asks for the ticket; none if the calling thread has it already, further out.
    fn take(session: &Arc<SessionCore>) -> Result<Option<Self>> {
        if !session.gate.close() {
            return Ok(None);
        }
        let mut ticket = Ticket { session: session.clone(), since: Instant::now(), is_back: Cell::new(false) };
        session.call(&mut crate::request::Request::new(Call::Ticket), false)?;
        // Its time begins only now.
        session.gate.close();
        ticket.since = Instant::now();
        Ok(Some(ticket))
    }

    /// Whether it is new enough for one more attempt after this one. The others who write have waited for it since it was given.
    pub fn is_fresh(&self) -> bool {
        self.since.elapsed() < Duration::from_micros(TICKET_KEPT_US)
    }

    /// Commits, and so gives it back.
    pub fn commit_last(&self, commit: &mut CommitWriter) -> Result<Committed> {
        let committed = self.session.commit_last(commit);
        self.is_back.set(committed.is_ok());
        committed
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Else it is over its time, and the manager's ticket may be that other thread's.
        if self.session.gate.open() && !self.is_back.get() {
            self.session.tell(Call::TicketBack, &[]);
        }
    }
}

/// Runs `attempt` until it is done. After a few conflicts under the writer's ticket, so that nobody starves.
pub fn until_done<R>(session: &Arc<SessionCore>, mut attempt: impl FnMut(HasTicket) -> Result<Attempt<R>>) -> Result<R> {
    for _ in 0..CONFLICTS_BEFORE_TICKET {
        if let Attempt::Done(result) = attempt(HasTicket(false))? {
            return Ok(result);
        }
    }
    for _ in CONFLICTS_BEFORE_TICKET..ATTEMPTS_MAX {
        let _ticket = Ticket::take(session)?;
        if let Attempt::Done(result) = attempt(HasTicket(true))? {
            return Ok(result);
        }
    }
    Err(conflicts(ATTEMPTS_MAX))
}

/// Runs `attempt` under the writer's ticket from the beginning: nobody else commits meanwhile, so it is done at once. It is given a
/// way to ask whether the ticket's time is not over yet, and the ticket, unless the calling thread has it already, further out. Only a write
/// that this process has made besides can make it try again.
///
/// A ticket that is `kept` from the last time is used, and left there again if the attempt has not given it back with its commit.
pub fn under_ticket<R>(
    session: &Arc<SessionCore>,
    kept: &mut Option<Ticket>,
    begun: impl FnOnce() -> Result<()>,
    over_time: impl Fn() -> Error,
    mut attempt: impl FnMut(&dyn Fn() -> bool, Option<&Ticket>) -> Result<Attempt<R>>,
) -> Result<R> {
    let mut ticket = match kept.take() {
        None => Ticket::take(session)?,
        ticket => ticket,
    };
    let since = ticket.as_ref().map_or_else(Instant::now, |ticket| ticket.since);
    let until = since + Duration::from_millis(TICKET_MS);
    begun()?;
    while Instant::now() < until {
        if let Attempt::Done(result) = attempt(&|| Instant::now() < until, ticket.as_ref())? {
            *kept = ticket.filter(|ticket| !ticket.is_back.get());
            return Ok(result);
        }
        if ticket.take().is_some() {
            ticket = Ticket::take(session)?;
        }
    }
    Err(over_time())
}

impl SessionCore {
    /// Commits, standing back for a ticket of this process unless the caller has it.
    pub fn commit_with(&self, commit: &mut CommitWriter, ticket: HasTicket) -> Result<Committed> {
        if ticket.0 { self.commit_ungated(commit) } else { self.commit(commit) }
    }
}
