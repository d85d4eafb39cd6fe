//! What a manager does for queues, and for the pipes that are made of them.

use super::calls::Done;
use super::{Connection, Server};
use crate::objects::gone;
use crate::store::parcels;
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::Result;
use commonhold_ipc::queue::Region;
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::{Call, NewObject, Words};
use std::time::Instant;

impl Server {
    /// What the handles in a queue's items refer to.
    pub(super) fn parcel(&mut self, index: usize, call: Call, payload: &[u8]) -> Done {
        let Some((queue, mut words)) = Words::new(payload).and_then(parcels::parse) else { return Done::Nonsense };
        let Some(Some(Connection::Session(session))) = self.connections.get_mut(index) else { return Done::Nonsense };
        if !session.holds(queue) {
            return if call == Call::Forget { Done::NoAnswer } else { Done::Failed(gone(queue)) };
        }
        let done = match call {
            Call::Pack => self.store.pack(queue, words, session.number()).map(|number| vec![Outcome::Number(number)]),
            Call::Unpack => self.store.unpack(queue, words.next().unwrap_or_default(), session.number()).map(|ids| {
                ids.iter().for_each(|id| session.hold(*id));
                ids.into_iter().map(Outcome::Number).collect()
            }),
            _ => {
                words.for_each(|number| self.store.forget_parcel(queue, number));
                return Done::NoAnswer;
            }
        };
        done.into()
    }

    /// More memory for a queue.
    pub(super) fn grow(&mut self, index: usize, payload: &[u8]) -> Done {
        let words: Option<[u64; 3]> = Words::new(payload).and_then(|words| words.iter().collect::<Vec<_>>().try_into().ok());
        let Some((id, region, wanted)) = words.and_then(|[id, code, wanted]| Some((id, Region::from_code(code)?, wanted))) else {
            return Done::Nonsense;
        };
        let Some(Some(Connection::Session(session))) = self.connections.get(index) else { return Done::Nonsense };
        if !session.holds(id) {
            return Done::Failed(gone(id));
        }
        match self.store.segments.grow(id, region, wanted, Instant::now()) {
            Ok(()) => Done::Answer(Vec::new()),
            Err(error) => Done::Failed(error),
        }
    }

    /// An end of a pipe is made of queues that the session holds: at its end they are closed.
    pub(super) fn may_join(&self, index: usize, new: &NewObject<'_>) -> Result<()> {
        let Some(Some(Connection::Session(session))) = self.connections.get(index) else { return Ok(()) };
        let is_strange = |queue: &u64| *queue != 0 && !session.holds(*queue);
        match new.parameters.iter().find(is_strange).filter(|_| new.kind == Kind::PipeEnd as u8) {
            Some(queue) => Err(gone(queue)),
            None => Ok(()),
        }
    }
}
