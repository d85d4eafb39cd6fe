//! Doing again what lost to another writer.

use crate::connection::this_thread;
use crate::session::SessionCore;
use crate::write::{Committed, conflicts};
use commonhold_ipc::error::{Error, Result};
use commonhold_ipc::limits::{CONFLICTS_BEFORE_TICKET, TICKET_KEPT_US, TICKET_MS};
use commonhold_ipc::wire::Call;
use commonhold_ipc::wire::commit::CommitWriter;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
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

/// Keeps the other threads of this process back while one of them has the writer's ticket: the manager gives the ticket to
/// a session, not to a thread.
///
/// The thread that has it may write besides, in the body of its transaction. The others wait no longer than a ticket is
/// good for at the manager, so that whoever waits for one of them under the ticket is not waited for in turn. To let one
/// through too early or too late costs a conflict and nothing else.
#[derive(Default)]
pub struct Gate {
    /// Whether there is a holder: what every commit looks at.
    closed: AtomicBool,
    holder: Mutex<Option<Holder>>,
    opened: Condvar,
}

#[derive(Clone, Copy)]
struct Holder {
    thread: usize,
    until: Instant,
}

impl Gate {
    /// Waits while another thread has the ticket.
    #[inline]
    pub fn pass(&self) {
        if self.closed.load(Ordering::Relaxed) {
            drop(self.wait());
        }
    }

    /// Returns when no other thread has the ticket, or its time is over.
    fn wait(&self) -> MutexGuard<'_, Option<Holder>> {
        let mut holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(Holder { thread, until }) = *holder
            && thread != this_thread()
        {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            holder = self.opened.wait_timeout(holder, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        holder
    }

    /// Makes the calling thread the holder, or lengthens its time; `false` if it has been the holder before.
    fn close(&self) -> bool {
        let mut holder = self.wait();
        let was_ours = holder.is_some_and(|holder| holder.thread == this_thread());
        *holder = Some(Holder { thread: this_thread(), until: Instant::now() + Duration::from_millis(TICKET_MS) });
        self.closed.store(true, Ordering::Relaxed);
        !was_ours
    }

    /// Lets the others through, unless another thread has become the holder meanwhile: then `false`.
    fn open(&self) -> bool {
        let mut holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        let is_ours = holder.is_some_and(|holder| holder.thread == this_thread());
        if is_ours {
            *holder = None;
            self.closed.store(false, Ordering::Relaxed);
            self.opened.notify_all();
        }
        is_ours
    }
}

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
