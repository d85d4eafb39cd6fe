//! Doing again what lost to another writer.

use crate::session::SessionCore;
use crate::write::{Committed, conflicts};
use commonhold_ipc::error::{Error, Result};
use commonhold_ipc::limits::{CONFLICTS_BEFORE_TICKET, TICKET_KEPT_US, TICKET_MS};
use commonhold_ipc::points;
use commonhold_ipc::wire::commit::CommitWriter;
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::run::RunMark;
use commonhold_ipc::wire::{Call, malformed};
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
    /// The manager's for it.
    number: u64,
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
        let mut ticket = Ticket { session: session.clone(), number: 0, since: Instant::now(), is_back: Cell::new(false) };
        let Outcome::Number(number) = session.call(&mut crate::request::Request::new(Call::Ticket), false)?.outcome()? else {
            return Err(malformed("reply"));
        };
        ticket.number = number;
        // Its time begins only now.
        session.gate.close();
        ticket.since = Instant::now();
        Ok(Some(ticket))
    }

    /// Whether it is new enough for one more attempt after this one. The others who write have waited for it since it was given.
    pub fn is_fresh(&self) -> bool {
        self.since.elapsed() < Duration::from_micros(TICKET_KEPT_US)
    }

    /// Commits what logic has come to, asked for on this line by the call of this number; `is_last`: and gives it back.
    pub fn commit_run(&self, commit: &mut CommitWriter, (line, number): (u64, u64), is_last: bool) -> Result<Committed> {
        points::host("logic: before its commit");
        let committed = self.session.commit_run(commit, RunMark { ticket: self.number, line, number, is_last });
        points::host("logic: committed, not answered");
        self.is_back.set(is_last && committed.is_ok());
        committed
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Else it is over its time, and the manager's ticket may be that other thread's.
        if self.session.gate.open() && !self.is_back.get() {
            self.session.tell(Call::TicketBack, &[self.number]);
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
/// way to ask whether the ticket's time is not over yet, and the ticket. Only a write that this process has made besides can make it try again.
///
/// A ticket that is `kept` from the last time is used, and left there again if the attempt has not given it back with its commit.
pub fn under_ticket<R>(
    session: &Arc<SessionCore>,
    kept: &mut Option<Ticket>,
    begun: impl FnOnce() -> Result<()>,
    over_time: impl Fn() -> Error,
    mut attempt: impl FnMut(&dyn Fn() -> bool, &Ticket) -> Result<Attempt<R>>,
) -> Result<R> {
    // A thread that runs logic has no ticket from elsewhere.
    let take = || Ticket::take(session).map(|ticket| ticket.expect("a thread has one ticket at a time"));
    let mut ticket = kept.take().map_or_else(take, Ok)?;
    let until = ticket.since + Duration::from_millis(TICKET_MS);
    begun()?;
    while Instant::now() < until {
        if let Attempt::Done(result) = attempt(&|| Instant::now() < until, &ticket)? {
            *kept = Some(ticket).filter(|ticket| !ticket.is_back.get());
            return Ok(result);
        }
        // Before the next one is asked for.
        drop(ticket);
        ticket = take()?;
    }
    Err(over_time())
}

impl SessionCore {
    /// Commits, standing back for a ticket of this process unless the caller has it.
    pub fn commit_with(&self, commit: &mut CommitWriter, ticket: HasTicket) -> Result<Committed> {
        if ticket.0 { self.commit_ungated(commit) } else { self.commit(commit) }
    }
}
