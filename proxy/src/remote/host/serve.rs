//! A line's thread: takes a call, has it run, answers.

use super::super::line::{AHEAD, Got};
use super::ahead::Ahead;
use super::calls::{answer_to, call, run};
use super::logic::Served;
use commonhold_ipc::limits::REPLIES_PENDING_BYTES_MAX;
use commonhold_ipc::wire::buffers;
use commonhold_ipc::wire::remote::Ask;
use std::sync::atomic::Ordering;

/// Serves a line until its client, or this host, ends; or until calls are made ahead on it, or logic is to run, which is served in another way.
pub(super) fn serve(mut served: Served) {
    let host = served.registered.host.clone();
    while let Ok(Got::Frame((head, mut payload))) = served.line.wait_sending(REPLIES_PENDING_BYTES_MAX) {
        if Ask::from_code(head.code) == Some(Ask::Logic) {
            match host.logic.take(served, (head, payload)) {
                None => return,
                Some((back, (_, same))) => (served, payload) = (back, same),
            }
        }
        let Served { line, lent, .. } = &mut served;
        let outcome = match Ask::from_code(head.code) {
            Some(Ask::Taken) => {
                lent.remove(&head.number);
                continue;
            }
            Some(Ask::Call) if head.lane == AHEAD => {
                let Served { registered, line, lent, .. } = served;
                if let Ok(line) = line.shared() {
                    Ahead::serve(registered, line, lent, (head, payload));
                }
                return;
            }
            Some(Ask::Call) => {
                let outcome = call(&host, line.road(), &head, &payload, None);
                line.reuse(payload);
                outcome
            }
            Some(Ask::Run | Ask::Logic) => run(&host, line, &head, payload, None).0,
            // Nonsense; nothing lies here that could be called off.
            Some(Ask::CallOff) | None => return,
        };
        if host.ending.load(Ordering::Relaxed) {
            return;
        }
        let Some(outcome) = outcome else { return };
        let Some((answer, held)) = answer_to(&head, outcome) else { continue };
        if !held.is_empty() {
            lent.insert(head.number, held);
        }
        if line.post(&answer).is_err() {
            return;
        }
        buffers::give(answer);
    }
}
