//! Commits of this process stand back while one of its threads has the writer's ticket.

use crate::connection::this_thread;
use commonhold_ipc::fork::OneLife;
use commonhold_ipc::limits::TICKET_MS;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Keeps the other threads of this process back while one of them has the writer's ticket: the manager gives the ticket to
/// a session, not to a thread.
///
/// The thread that has it may write besides, in the body of its transaction. The others wait no longer than a ticket is
/// good for at the manager, so that whoever waits for one of them under the ticket is not waited for in turn. To let one
/// through too early or too late costs a conflict and nothing else.
///
/// In a forked child it stands open: what comes to it there is refused behind it.
#[derive(Default)]
pub struct Gate {
    /// Whether there is a holder: what every commit looks at.
    closed: AtomicBool,
    holder: OneLife<Option<Holder>>,
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

    /// Returns when no other thread has the ticket, or its time is over; at once in a forked child, with nothing.
    fn wait(&self) -> Option<MutexGuard<'_, Option<Holder>>> {
        let mut holder = self.holder.lock()?;
        while let Some(Holder { thread, until }) = *holder
            && thread != this_thread()
        {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            holder = self.opened.wait_timeout(holder, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(holder)
    }

    /// Makes the calling thread the holder, or lengthens its time; `false` if it has been the holder before.
    pub fn close(&self) -> bool {
        let Some(mut holder) = self.wait() else { return true };
        let was_ours = holder.is_some_and(|holder| holder.thread == this_thread());
        *holder = Some(Holder { thread: this_thread(), until: Instant::now() + Duration::from_millis(TICKET_MS) });
        self.closed.store(true, Ordering::Relaxed);
        !was_ours
    }

    /// Lets the others through, unless another thread has become the holder meanwhile: then `false`.
    pub fn open(&self) -> bool {
        let Some(mut holder) = self.holder.lock() else { return false };
        let is_ours = holder.is_some_and(|holder| holder.thread == this_thread());
        if is_ours {
            *holder = None;
            self.closed.store(false, Ordering::Relaxed);
            self.opened.notify_all();
        }
        is_ours
    }
}
