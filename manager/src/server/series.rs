//! Doing a series: operations of which each is a commit by itself, whatever becomes of the others.
//!
//! They are done one after the other in one round, and so published together, or in several parts where one of them needs that. When what
//! has been done is a turn's work, or many have failed, the series is answered before its end and its client sends the rest again:
//! whoever floods the manager with long series has no more than its turn, as with single calls.

use super::calls::{Done, STEP_BYTES};
use super::{Server, TURN_BYTES};
use crate::store::Rejected;
use commonhold_ipc::limits::SERIES_FAILURES_MAX;
use commonhold_ipc::points;
use commonhold_ipc::wire::commit::Commit;
use commonhold_ipc::wire::series::Settled;
use commonhold_ipc::wire::whole;

/// Steps of work after which a series is answered.
const STEPS_MAX: usize = TURN_BYTES / STEP_BYTES;

impl Server {
    /// Does the operations of a series, as many as a turn has.
    pub(super) fn series(&mut self, index: usize, payload: &[u8]) -> Done {
        if self.waits_for_ticket(index) {
            return Done::Later;
        }
        let Ok(series) = whole(payload, "series", Commit::parse) else { return Done::Nonsense };
        // A series has no conditions.
        if series.conditions().next().is_some() {
            return Done::Nonsense;
        }
        let mut settled = Settled { tried: 0, failed: Vec::new() };
        let mut steps = 0;
        for single in series.singles() {
            let Ok(single) = single else { return Done::Nonsense };
            points::manager("series: before an operation");
            match self.apply(index, &single, false) {
                Some(Ok(())) => {}
                Some(Err(Rejected::Failed(error))) => settled.failed.push((settled.tried, self.explain_full(error))),
                // There are no conditions.
                None | Some(Err(Rejected::Nonsense | Rejected::Conflict)) => return Done::Nonsense,
            }
            settled.tried += 1;
            steps += self.store.work.spent() as usize;
            if steps >= STEPS_MAX || settled.failed.len() >= SERIES_FAILURES_MAX {
                break;
            }
        }
        self.effort = steps * STEP_BYTES;
        points::manager("series: applied, not published");
        self.outcomes.clear();
        settled.write(&mut self.outcomes);
        Done::Committed(self.store.version() + u64::from(self.store.has_unpublished()))
    }
}
