//! How the owner's threads wait: for what they have asked for, doing the work themselves.
//!
//! Who waits looks at the bells, collects what is there, and otherwise sleeps on the board's eventcount. Workers wake sleepers at each task
//! that is done, or, if all of them wait for many results, only while few tasks are left. They tell the keeper only if nobody waits.

use super::job::Job;
use super::owner::{Owner, State};
use crate::unpoisoned::lock;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::{POOL_LOOK_MS, POOL_SLOTS};
use commonhold_ipc::liveness::Slept;
use commonhold_ipc::map::Segment;
use commonhold_ipc::socket::Spin;
use commonhold_ipc::sync::{Claim, Waiting};
use commonhold_ipc::sys::{WaitOutcome, futex_wait, ring_bell};
use std::cell::{Cell, RefCell};
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

thread_local! {
    static SPIN: RefCell<Spin> = RefCell::new(Spin::new());
    /// Whether this is the keeper, which must not wait for what it alone can bring about.
    pub(super) static IS_KEEPER: Cell<bool> = const { Cell::new(false) };
}

/// Sleeps to a moment. Who waits for a pool looks by itself before.
struct Sleeper(Instant);

impl Waiting<Segment> for Sleeper {
    fn spin(&self, ready: &mut dyn FnMut() -> bool) -> bool {
        ready()
    }

    fn sleep(&self, word: &AtomicU32, expected: u32, _most_ms: u64) -> Result<Slept> {
        Ok(match futex_wait(word, expected, Some(self.0))? {
            WaitOutcome::TimedOut => Slept::TimedOut,
            _ => Slept::Woken,
        })
    }

    fn is_over(&self) -> bool {
        self.0 <= Instant::now()
    }

    fn is_long(&self) -> bool {
        false
    }

    fn knows(&self, _claim: Claim) -> Result<Option<bool>> {
        Ok(Some(true))
    }
}

/// How a caller waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// For whatever comes next.
    Close,
    /// For many results: it need not be woken for each.
    Wide,
}

impl Owner {
    /// Says to the workers what the owner wants to be woken for.
    pub(super) fn tune(&self, state: &mut State) {
        let wanted = state.waiting == 0 && (state.jobs_async > 0 || state.closed && state.jobs == 0);
        if wanted != state.keeper_is_wanted {
            state.keeper_is_wanted = wanted;
            self.want_keeper(wanted);
        }
    }

    fn want_keeper(&self, wanted: bool) {
        self.board().set_keeper(wanted);
        if wanted && self.board().has_rung() {
            // What was done before it was wanted.
            ring_bell(&self.bell);
        }
    }

    /// The keeper may have been told: it wants to be told again, if it is still wanted. Whether it is.
    pub(super) fn rearm(&self) -> bool {
        let state = lock(&self.state);
        if state.keeper_is_wanted {
            self.want_keeper(true);
        }
        state.keeper_is_wanted
    }

    fn wait_begins(&self, patience: Patience, by: isize) {
        let mut state = lock(&self.state);
        state.waiting = state.waiting.wrapping_add_signed(by);
        if patience == Patience::Close {
            state.waiting_closely = state.waiting_closely.wrapping_add_signed(by);
        }
        let below = if state.waiting_closely == 0 && state.waiting > 0 { POOL_SLOTS as u64 / 2 } else { u64::MAX };
        self.board().wake_below(below);
        self.tune(&mut state);
    }

    /// # Errors
    /// `Deadlock` on the keeper.
    pub(super) fn may_wait(&self) -> Result<()> {
        if IS_KEEPER.get() {
            let text = "a callback of a pool cannot wait for the pool's results: it runs on the thread that brings them";
            return Err(Error::new(ErrorKind::Deadlock, text));
        }
        Ok(())
    }

    /// Waits until a job has had another arrival than `seen`, or the deadline: `false`.
    ///
    /// # Errors
    /// `Deadlock` on the keeper; `UsedAfterFork`.
    pub(super) fn wait(&self, job: &Job, seen: u64, patience: Patience, deadline: Option<Instant>) -> Result<bool> {
        self.stamp.check()?;
        if job.arrivals() != seen {
            return Ok(true);
        }
        self.may_wait()?;
        self.wait_begins(patience, 1);
        let come = self.wait_for(job, seen, patience, deadline);
        self.wait_begins(patience, -1);
        come
    }

    fn wait_for(&self, job: &Job, seen: u64, patience: Patience, deadline: Option<Instant>) -> Result<bool> {
        let board = self.board();
        let ready = || board.has_rung() || job.arrivals() != seen;
        loop {
            if patience == Patience::Close {
                // Not while the thread's storage is being torn down.
                let _ = SPIN.try_with(|spin| spin.try_borrow_mut().is_ok_and(|mut spin| spin.wait_in_memory(ready)));
            }
            self.collect();
            if job.arrivals() != seen {
                return Ok(true);
            }
            let prepared = board.callers().prepare();
            if ready() {
                continue;
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Ok(false);
            }
            let look = now + Duration::from_millis(POOL_LOOK_MS);
            let until = deadline.map_or(look, |deadline| deadline.min(look));
            if board.callers().sleep(prepared, &Sleeper(until), POOL_LOOK_MS)? == Slept::TimedOut {
                self.look_over();
            }
        }
    }
}
