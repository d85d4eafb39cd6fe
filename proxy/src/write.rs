//! Single operations: one commit of one operation, and what comes back of it.

use crate::connection::Reply;
use crate::guard::Ref;
use crate::lane::Standing;
use crate::payload::{Target, Value};
use crate::request::Request;
use crate::session::{SessionCore, Stored};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::value::{AsShared, Ser, Shared, access, to_owned, with_scratch};
use commonhold_ipc::wire::commit::{CommitWriter, Op, Values};
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::run::RunMark;
use commonhold_ipc::wire::{Call, Payload, malformed};
use std::sync::Arc;

/// What a commit of conditions came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// It happened.
    Done,
    /// Something that it depended on has changed: it did not happen.
    Conflict,
}

impl SessionCore {
    /// Commits one operation; `then` sees its outcome, and the version that lent values are in.
    #[inline]
    pub fn op_then<R>(&self, op: &Op<'_>, then: impl FnOnce(u64, Outcome) -> Result<R>) -> Result<R> {
        let mut request = Request::single(false);
        request.write_single(op);
        self.commit_then(&mut request, |reply| one(reply, then))
    }

    /// Commits one operation with a value, which has so many bytes `beside` it, those of its key; `then` as in [`op_then`](Self::op_then).
    pub fn op_with<'a, R>(
        &self,
        (value, ser): (&'a Value, &'a Ser),
        beside: usize,
        op: impl Fn(Payload<'a>) -> Op<'a>,
        then: impl FnOnce(u64, Outcome) -> Result<R>,
    ) -> Result<R> {
        match value.apart(self, ser, beside) {
            None => self.op_then(&op(value.payload(ser)), then),
            Some((payload, standing)) => self.op_standing_then(&op(payload), standing, then),
        }
    }

    /// The same of one whose outcome is of no interest.
    pub fn op_quietly_with<'a>(&self, (value, ser): (&'a Value, &'a Ser), beside: usize, op: impl Fn(Payload<'a>) -> Op<'a>) -> Result<()> {
        match value.apart(self, ser, beside) {
            None => self.op_quietly(&op(value.payload(ser))),
            Some((payload, standing)) => self.op_standing_quietly(&op(payload), standing),
        }
    }

    /// Puts an element, which has a block of its own, into a list.
    pub fn put_element(self: &Arc<Self>, list: u64, position: u64, value: &Value, ser: &Ser) -> Result<()> {
        let _stored = value.stored(self)?;
        let mut bytes = Vec::new();
        let splice = |bytes| Op::ListSplice { object: list, position, remove: 0, values: Values::Each(1, bytes) };
        match value.apart(self, ser, 0) {
            None => {
                value.payload(ser).write(&mut bytes);
                self.op_quietly(&splice(&bytes))
            }
            Some((payload, standing)) => {
                payload.write(&mut bytes);
                self.op_standing_quietly(&splice(&bytes), standing)
            }
        }
    }

    /// Commits one operation whose value stands in the room already.
    pub fn op_standing_then<R>(&self, op: &Op<'_>, value: Standing<'_>, then: impl FnOnce(u64, Outcome) -> Result<R>) -> Result<R> {
        self.op_standing(op, value, false, |reply| one(reply, then))
    }

    fn op_standing_quietly(&self, op: &Op<'_>, value: Standing<'_>) -> Result<()> {
        self.op_standing(op, value, true, |reply| one(reply, |_, _| Ok(())))
    }

    fn op_standing<R>(&self, op: &Op<'_>, value: Standing<'_>, quiet: bool, then: impl FnOnce(Reply) -> Result<R>) -> Result<R> {
        let mut request = Request::single(quiet);
        request.write_single(op);
        self.commit_standing(&request, value, then)
    }

    /// Commits one operation that lends nothing.
    pub fn op(&self, op: &Op<'_>) -> Result<Outcome> {
        self.op_then(op, |_, outcome| Ok(outcome))
    }

    /// Commits one operation whose outcome is of no interest.
    pub fn op_quietly(&self, op: &Op<'_>) -> Result<()> {
        let mut request = Request::single(true);
        request.write_single(op);
        self.commit_then(&mut request, |reply| one(reply, |_, _| Ok(())))
    }

    /// Commits operations under conditions, and is not kept out by a ticket of this process's own.
    pub fn commit_ungated(&self, commit: &mut CommitWriter) -> Result<Committed> {
        crate::inside::check(self)?;
        self.call_then(&mut Request::commit(commit).quiet(), true, committed)
    }

    /// The same of logic beside the data, under the ticket that the mark names or not at all.
    pub fn commit_run(&self, commit: &mut CommitWriter, mark: RunMark) -> Result<Committed> {
        self.call_then(&mut Request::commit(commit).of_run(mark).quiet(), true, committed)
    }

    /// Commits operations under conditions.
    pub fn commit(&self, commit: &mut CommitWriter) -> Result<Committed> {
        self.commit_then(&mut Request::commit(commit).quiet(), committed)
    }
}

/// The reply to a commit of one operation without conditions.
#[inline(always)]
fn one<R>(reply: Reply, then: impl FnOnce(u64, Outcome) -> Result<R>) -> Result<R> {
    match reply {
        Reply::Done(version, outcome) => then(version, outcome),
        Reply::Several(_) | Reply::Conflict => Err(malformed("reply")),
    }
}

fn committed(reply: Reply) -> Result<Committed> {
    Ok(match reply {
        Reply::Done(..) | Reply::Several(_) => Committed::Done,
        Reply::Conflict => Committed::Conflict,
    })
}

/// A guard on what a reply lends, or on what it brought.
#[inline(always)]
pub fn lent<'g, T: Shared>(session: &'g Arc<SessionCore>, version: u64, outcome: Outcome) -> Result<Option<Ref<'g, T>>> {
    let (place, handles) = match outcome {
        Outcome::Nothing | Outcome::Something => return Ok(None),
        Outcome::Bytes(bytes) => return Ref::of_copy(session, &bytes).map(Some),
        Outcome::Number(_) | Outcome::Text(_) => return Err(malformed("reply")),
        Outcome::Existing(place) => (place, Vec::new()),
        Outcome::Lent(place, handles) => (place, handles),
    };
    // The manager counts this session as a holder of what the value refers to: until the guard goes.
    let kept = if handles.is_empty() { None } else { Some(taken(session, handles)) };
    let guard: Ref<'g, T> = match session.pins.pin_lent(version) {
        Some(hold) => Ref::new(session, &place, hold)?,
        // Guards on as many versions as a thread can hold: a copy, while the manager still lends it.
        None => Ref::of_copy(session, session.arena.bytes(place.offset, place.len))?,
    };
    Ok(Some(match kept {
        Some(kept) => guard.keeping(kept),
        None => guard,
    }))
}

fn taken(session: &Arc<SessionCore>, handles: Vec<u64>) -> Vec<Stored> {
    handles.into_iter().map(|id| Stored::taken(session, id)).collect()
}

/// Encodes a key and hands its bytes over.
#[inline]
pub fn with_key<K: Shared, R>(key: &impl AsShared<K>, then: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
    if let Some(short) = key.short() {
        return then(short.bytes());
    }
    with_scratch(|ser| {
        let range = ser.put::<K>(key)?;
        then(&ser.bytes()[range])
    })
}

/// Encodes a key and a value for a dict with this alignment.
#[inline]
pub fn with_entry<K: Shared, V: Shared, R>(
    session: &Arc<SessionCore>,
    align: u8,
    key: &impl AsShared<K>,
    value: &impl AsShared<V>,
    then: impl FnOnce(&[u8], &Value, &Ser) -> Result<R>,
) -> Result<R> {
    with_scratch(|ser| {
        if let Some(short) = key.short() {
            let target = Target::Entry { key_len: short.bytes().len() as u64, align: align.into() };
            let value = Value::encode::<V>(session, ser, value, target)?;
            let done = then(short.bytes(), &value, ser);
            return discard_unless(done, session, &value);
        }
        let range = ser.put::<K>(key)?;
        let target = Target::Entry { key_len: range.len() as u64, align: align.into() };
        let value = Value::encode::<V>(session, ser, value, target)?;
        let done = then(&ser.bytes()[range], &value, ser);
        discard_unless(done, session, &value)
    })
}

/// Encodes an element or a value.
pub fn with_element<T: Shared, R>(
    session: &Arc<SessionCore>,
    value: &impl AsShared<T>,
    then: impl FnOnce(&Value, &Ser) -> Result<R>,
) -> Result<R> {
    with_scratch(|ser| {
        let value = Value::encode::<T>(session, ser, value, Target::Element)?;
        let done = then(&value, ser);
        discard_unless(done, session, &value)
    })
}

/// The value, to compare others with, in whatever form it came.
pub fn with_value<T: Shared, R>(session: &SessionCore, value: &impl AsShared<T>, then: impl FnOnce(&T) -> Result<R>) -> Result<R> {
    if let Some(value) = value.value() {
        return then(value);
    }
    let mut ser = Ser::buffer();
    let range = ser.put::<T>(value)?;
    then(&to_owned::<T>(access::<T>(&ser.bytes()[range])?, session.pins.owner()))
}

/// A commit that was never sent does not use up its upload: the manager must hear that nobody will.
#[inline]
fn discard_unless<R>(done: Result<R>, session: &SessionCore, value: &Value) -> Result<R> {
    if let (Err(error), Some(number)) = (&done, value.upload())
        && !error.is_disconnected()
    {
        session.tell(Call::Discard, &[number]);
    }
    done
}

/// The error of giving up on a commit that always loses.
pub fn conflicts(times: u32) -> Error {
    let text =
        format!("other writers changed what this depends on {times} times in a row, though it had the writer's ticket: make it shorter");
    Error::new(ErrorKind::Conflict, text)
}
