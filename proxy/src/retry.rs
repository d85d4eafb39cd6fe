//! Doing again what lost to another writer.

use crate::session::SessionCore;
use crate::write::conflicts;
use commonhold_ipc::error::Result;
use commonhold_ipc::limits::CONFLICTS_BEFORE_TICKET;
use commonhold_ipc::wire::Call;
use std::sync::{Arc, PoisonError};

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

/// Runs `attempt` until it is done. After a few conflicts under the writer's ticket, so that nobody starves.
pub fn until_done<R>(session: &Arc<SessionCore>, mut attempt: impl FnMut(HasTicket) -> Result<Attempt<R>>) -> Result<R> {
    for _ in 0..CONFLICTS_BEFORE_TICKET {
        if let Attempt::Done(result) = attempt(HasTicket(false))? {
            return Ok(result);
        }
    }
    for _ in CONFLICTS_BEFORE_TICKET..ATTEMPTS_MAX {
        let _gate = session.ticket.write().unwrap_or_else(PoisonError::into_inner);
        session.call(&mut crate::request::Request::new(Call::Ticket), false)?;
        let result = attempt(HasTicket(true));
        session.tell(Call::TicketBack, &[]);
        if let Attempt::Done(result) = result? {
            return Ok(result);
        }
    }
    Err(conflicts(ATTEMPTS_MAX))
}

impl SessionCore {
    /// Commits, standing back for a ticket of this process unless the caller has it.
    pub fn commit_with(&self, commit: &commonhold_ipc::wire::commit::CommitWriter, ticket: HasTicket) -> Result<crate::write::Committed> {
        if ticket.0 { self.commit_ungated(commit) } else { self.commit(commit) }
    }
}
