//! Doing again what lost to another writer.

use crate::session::SessionCore;
use crate::write::conflicts;
use commonhold_ipc::error::Result;
use commonhold_ipc::limits::{CONFLICTS_BEFORE_TICKET, TICKET_MS};
use commonhold_ipc::wire::Call;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
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

/// Runs `attempt` until it is done. After a few conflicts under the writer's ticket, so that nobody starves.
pub fn until_done<R>(session: &Arc<SessionCore>, mut attempt: impl FnMut(HasTicket) -> Result<Attempt<R>>) -> Result<R> {
    for _ in 0..CONFLICTS_BEFORE_TICKET {
        if let Attempt::Done(result) = attempt(HasTicket(false))? {
            return Ok(result);
        }
    }
    for _ in CONFLICTS_BEFORE_TICKET..ATTEMPTS_MAX {
        let ticket = Ticket::take(session)?;
        let result = attempt(HasTicket(true))?;
        drop(ticket);
        if let Attempt::Done(result) = result {
            return Ok(result);
        }
    }
    Err(conflicts(ATTEMPTS_MAX))
}

/// Who of this process's threads has the writer's ticket: the manager gives it to the whole session. The others' commits wait
/// at the gate, as those of other sessions wait at the manager, and for as long at the most.
#[derive(Default)]
pub struct Gate {
    /// Whether there is a holder. Looked at without the lock, by every commit.
    closed: AtomicBool,
    holder: Mutex<Option<Holder>>,
    opened: Condvar,
}

#[derive(Clone, Copy, PartialEq)]
struct Holder {
    thread: ThreadId,
    until: Instant,
}

impl Gate {
    fn holder(&self) -> MutexGuard<'_, Option<Holder>> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while another thread has the ticket. A commit that has passed just before does no harm: the holder tries again.
    #[inline]
    pub fn pass(&self) {
        if self.closed.load(Ordering::Relaxed) {
            drop(self.wait_for_turn());
        }
    }

    #[cold]
    fn wait_for_turn(&self) -> MutexGuard<'_, Option<Holder>> {
        let mut holder = self.holder();
        while let Some(Holder { thread, until }) = *holder {
            let left = until.saturating_duration_since(Instant::now());
            if thread == std::thread::current().id() || left.is_zero() {
                break;
            }
            holder = self.opened.wait_timeout(holder, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        holder
    }
}

/// The writer's ticket of the calling thread. Given back when dropped, also by a panic.
struct Ticket<'s> {
    session: &'s SessionCore,
    /// None within another attempt of this thread that has the ticket already.
    held: Option<Holder>,
}

impl<'s> Ticket<'s> {
    fn take(session: &'s SessionCore) -> Result<Self> {
        let thread = std::thread::current().id();
        let time = || Holder { thread, until: Instant::now() + Duration::from_millis(TICKET_MS) };
        let mut holder = session.gate.wait_for_turn();
        if holder.is_some_and(|holder| holder.thread == thread) {
            return Ok(Ticket { session, held: None });
        }
        session.gate.closed.store(true, Ordering::Relaxed);
        *holder = Some(time());
        let mut ticket = Ticket { session, held: *holder };
        drop(holder);
        session.call(&mut crate::request::Request::new(Call::Ticket), false)?;
        // Its time begins now, unless another thread has lost patience.
        let mut holder = session.gate.holder();
        if *holder == ticket.held {
            *holder = Some(time());
            ticket.held = *holder;
        }
        drop(holder);
        Ok(ticket)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.held.is_none() {
            return;
        }
        let mut holder = self.session.gate.holder();
        if *holder == self.held {
            *holder = None;
            self.session.gate.closed.store(false, Ordering::Relaxed);
            self.session.tell(Call::TicketBack, &[]);
            self.session.gate.opened.notify_all();
        }
    }
}

impl SessionCore {
    /// Commits, standing back for a ticket of this process unless the caller has it.
    pub fn commit_with(&self, commit: &commonhold_ipc::wire::commit::CommitWriter, ticket: HasTicket) -> Result<crate::write::Committed> {
        if ticket.0 { self.commit_ungated(commit) } else { self.commit(commit) }
    }
}
