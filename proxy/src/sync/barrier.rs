//! [`Barrier`].

use crate::handle::{Object, debug, handle};
use crate::patience::{Patience, deadline_after};
use crate::session::SessionCore;
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::Result;
use commonhold_ipc::map::Segment;
use commonhold_ipc::segment::HEADER_BYTES;
use commonhold_ipc::sync::barrier::{self, BARRIER_BYTES};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So many parties, threads of any processes, that wait for each other, round after round. Made by
/// [`Session::barrier`](crate::Session::barrier).
///
/// A round is *broken* when somebody waits too long, aborts or resets it, and when a party dies: one that waits, or one that was
/// there the last time and still had the barrier. All who wait get an error of kind [`Broken`](commonhold_ipc::error::ErrorKind::Broken) then, and
/// so does everybody who comes later, until a [`reset`](Self::reset).
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// # let manager = commonhold::Manager::start()?;
/// use std::sync::atomic::{AtomicU32, Ordering};
/// let (barrier, opened) = (manager.barrier(3)?, AtomicU32::new(0));
/// std::thread::scope(|scope| {
///     for _ in 0..3 {
///         scope.spawn(|| {
///             barrier.wait_with(|| { opened.fetch_add(1, Ordering::Relaxed); }).unwrap();
///             assert_eq!(opened.load(Ordering::Relaxed), 1);    // one of them did it, before anybody passed
///         });
///     }
/// });
/// # Ok(())
/// # }
/// ```
pub struct Barrier {
    object: Arc<Object>,
    _of: PhantomData<()>,
}

handle!(Barrier[], commonhold_ipc::catalog::Kind::Barrier, "Barrier");

/// Breaks a round whose leader does not come to its end. If it was reset meanwhile, the round that others wait in is not the leader's.
struct Unfinished<'b> {
    barrier: barrier::Barrier<'b, Segment>,
    round: u64,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.barrier.break_round(Some(self.round));
    }
}

impl Barrier {
    fn words(&self) -> Result<(&SessionCore, barrier::Barrier<'_, Segment>)> {
        let (session, segment) = self.object.shared(Kind::Barrier)?;
        let slots_max = (segment.bytes() - HEADER_BYTES - BARRIER_BYTES) / 8;
        Ok((session, barrier::Barrier::new(segment, HEADER_BYTES, slots_max)?))
    }

    /// Waits until all parties have come. Each of a round gets another number, from 0 to one less than there are parties.
    ///
    /// # Errors
    /// `Broken`, see [`Barrier`]; `Corrupt` if a process has written over its words; disconnected, at once, when the manager ends.
    pub fn wait(&self) -> Result<usize> {
        self.wait_until(|| {}, None)
    }

    /// The same; but if the others have not come after `timeout`, the barrier is broken.
    ///
    /// # Errors
    /// `TimedOut`, and as [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<usize> {
        self.wait_until(|| {}, deadline_after(timeout))
    }

    /// The same; and the last one to come does `action` before anybody passes. All parties should bring the same. If it panics, the
    /// barrier is broken.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_with(&self, action: impl FnOnce()) -> Result<usize> {
        self.wait_until(action, None)
    }

    fn wait_until(&self, action: impl FnOnce(), deadline: Option<Instant>) -> Result<usize> {
        let (session, barrier) = self.words()?;
        let patience = Patience::until(session, deadline)?;
        let arrival = barrier.arrive(session.number(), &patience)?;
        if !arrival.leads {
            barrier.wait(arrival, &patience)?;
            return Ok(arrival.index);
        }
        let unfinished = Unfinished { barrier, round: arrival.round };
        action();
        unfinished.barrier.open(arrival)?;
        std::mem::forget(unfinished);
        Ok(arrival.index)
    }

    /// How many must come.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn parties(&self) -> Result<usize> {
        Ok(self.words()?.1.parties())
    }

    /// How many have come and wait.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn waiting(&self) -> Result<usize> {
        Ok(self.words()?.1.arrived().count())
    }

    /// Whether it is broken.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn is_broken(&self) -> Result<bool> {
        Ok(self.words()?.1.is_broken())
    }

    /// Breaks it: who waits, and who comes later, gets an error.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn abort(&self) -> Result<()> {
        self.words()?.1.break_round(None);
        Ok(())
    }

    /// Makes it whole and empty again. Who waits gets an error.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn reset(&self) -> Result<()> {
        self.words()?.1.reset();
        Ok(())
    }
}

/// How many of how many wait.
impl fmt::Display for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words() {
            Ok((_, barrier)) if barrier.is_broken() => f.write_str("broken"),
            Ok((_, barrier)) => write!(f, "{} of {} wait", barrier.arrived().count(), barrier.parties()),
            Err(error) => write!(f, "<{error}>"),
        }
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "Barrier", &self.object, None)
    }
}
