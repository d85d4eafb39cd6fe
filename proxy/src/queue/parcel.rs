//! Handles in items: the manager keeps what they refer to alive until the receiver holds it. See `manager::store::parcels`.

use super::Ready;
use crate::request::Request;
use crate::session::Stored;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::points;
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::{Call, malformed};

/// A parcel that is forgotten when this is dropped: its item was not sent, or is gone for good.
pub(super) struct Parcel<'r, 'q> {
    ready: &'r Ready<'q>,
    number: u64,
}

impl<'r, 'q> Parcel<'r, 'q> {
    /// Has the manager keep what these handles refer to.
    pub fn pack(ready: &'r Ready<'q>, handles: &[(u64, u64)]) -> Result<Self> {
        if let Some((_, id)) = handles.iter().find(|(manager, _)| *manager != ready.session.manager()) {
            let text = format!(
                "the item holds a handle on object {id} of another manager: a queue can refer to objects of its own manager only: make it \
                 there, or send its `token()`"
            );
            return Err(Error::new(ErrorKind::Refused, text));
        }
        let mut request = Request::new(Call::Pack);
        let words = std::iter::once(ready.id).chain(handles.iter().map(|(_, id)| *id));
        words.for_each(|word| request.payload().extend_from_slice(&word.to_le_bytes()));
        let Outcome::Number(number) = ready.session.call(&mut request, true)?.outcome()? else { return Err(malformed("reply")) };
        points::client("queue: parcel packed");
        Ok(Parcel { ready, number })
    }

    /// The parcel of an item that is there already.
    pub fn of(ready: &'r Ready<'q>, number: u64) -> Option<Self> {
        // Not made for nothing: it would be forgotten.
        (number != 0).then(|| Parcel { ready, number })
    }

    /// What the item carries.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its item is in the queue: it stays.
    pub fn keep(self) {
        std::mem::forget(self);
    }

    /// Holds what is in it, until what comes back is dropped.
    pub fn unpack(&self) -> Result<Vec<Stored>> {
        let mut request = Request::new(Call::Unpack);
        [self.ready.id, self.number].iter().for_each(|word| request.payload().extend_from_slice(&word.to_le_bytes()));
        let outcomes = match self.ready.session.call(&mut request, true) {
            Ok(reply) => reply.outcomes()?,
            // The handles will say so, when they are used.
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        points::client("queue: parcel unpacked");
        let taken = |outcome| match outcome {
            Outcome::Number(id) => Ok(Stored::taken(self.ready.session, id)),
            _ => Err(malformed("reply")),
        };
        outcomes.into_iter().map(taken).collect()
    }
}

impl Drop for Parcel<'_, '_> {
    fn drop(&mut self) {
        points::client("queue: parcel not forgotten");
        self.ready.session.tell(Call::Forget, &[self.ready.id, self.number]);
    }
}
