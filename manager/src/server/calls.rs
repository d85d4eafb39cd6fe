//! Doing requests: from a frame to its answer.

use super::session::{Next, Session};
use super::{Connection, Server, TURN_BYTES, token, token_of};
use crate::objects::gone;
use crate::store::Rejected;
use commonhold_ipc::block::Place;
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::NAME_BYTES_MAX;
use commonhold_ipc::points;
use commonhold_ipc::wire::commit::Commit;
use commonhold_ipc::wire::reply::{LENT_REPLY_BYTES, Outcome, Status, lent_payload, write_error};
use commonhold_ipc::wire::{Call, HEAD_BYTES, Head, NewObject, Reader, Words, whole};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Outcomes for which room is kept from one call to the next.
const OUTCOMES_KEPT: usize = 1024;

/// What a small request counts as in a turn: its work, not its bytes.
pub(super) const REQUEST_BYTES_MIN: usize = 4 << 10;
/// Bytes that a step of work counts as in a turn: a turn is some milliseconds, whatever it is made of.
pub(super) const STEP_BYTES: usize = 8;

/// What doing a request came to.
pub(super) enum Done {
    /// A commit has been done, which made this version: answer with its outcomes, which the server has.
    Committed(u64),
    /// Answer this, of a call that made no version.
    Answer(Vec<Outcome>),
    /// Answer with the bytes of a segment, and its descriptor.
    Attached(Arc<OwnedFd>, u64),
    /// A condition did not hold.
    Conflict,
    /// It could not be done.
    Failed(Error),
    /// The answer comes later, or there is none.
    NoAnswer,
    /// The bytes make no sense: the session is over.
    Nonsense,
    /// It is another's turn: leave the request where it is.
    Later,
}

impl From<Result<Vec<Outcome>>> for Done {
    fn from(result: Result<Vec<Outcome>>) -> Self {
        match result {
            Ok(outcomes) => Done::Answer(outcomes),
            Err(error) => Done::Failed(error),
        }
    }
}

/// Bytes of the frame that lends one value without handles.
const LENT_FRAME_BYTES: usize = HEAD_BYTES + LENT_REPLY_BYTES;

/// The answer to a request as a frame, if it lends one value without handles: by far the most common.
#[inline]
fn lent_answer(session: &mut Session, head: &Head, done: &Done, committed: &mut Vec<Outcome>) -> Option<[u8; LENT_FRAME_BYTES]> {
    let Done::Committed(version) = *done else { return None };
    let [Outcome::Lent(place, handles)] = &committed[..] else { return None };
    if !handles.is_empty() {
        return None;
    }
    session.lend(head.lane, head.number, version);
    let frame = lent_reply(head, version, place);
    committed.clear();
    Some(frame)
}

/// Appends the answer to a request to `answers`, as a frame, with the outcomes of the commit if it was one. Whether there is an answer.
pub(super) fn write_answer(session: &mut Session, head: &Head, done: Done, committed: &mut Vec<Outcome>, answers: &mut Vec<u8>) -> bool {
    if let Some(frame) = lent_answer(session, head, &done, committed) {
        answers.extend_from_slice(&frame);
        return true;
    }
    let start = answers.len();
    let mut begin = |version: u64| {
        // The head's room, and the version.
        let mut front = [0; HEAD_BYTES + 8];
        front[HEAD_BYTES..].copy_from_slice(&version.to_le_bytes());
        answers.extend_from_slice(&front);
    };
    let status = match done {
        Done::Committed(version) => {
            begin(version);
            let mut lends = false;
            for outcome in committed.drain(..) {
                lends |= matches!(outcome, Outcome::Lent(..) | Outcome::Existing(_));
                outcome.write(answers);
            }
            if lends {
                session.lend(head.lane, head.number, version);
            }
            committed.shrink_to(OUTCOMES_KEPT);
            Status::Done
        }
        Done::Answer(outcomes) => {
            begin(0);
            outcomes.iter().for_each(|outcome| outcome.write(answers));
            Status::Done
        }
        Done::Attached(descriptor, bytes) => {
            session.send_descriptor(start, descriptor);
            begin(0);
            Outcome::Number(bytes).write(answers);
            Status::Done
        }
        Done::Conflict => {
            answers.extend_from_slice(&[0; HEAD_BYTES]);
            Status::Conflict
        }
        Done::Failed(error) => {
            answers.extend_from_slice(&[0; HEAD_BYTES]);
            write_error(answers, &error);
            Status::Failed
        }
        Done::NoAnswer | Done::Nonsense | Done::Later => return false,
    };
    let len = (answers.len() - start - HEAD_BYTES) as u32;
    let head = Head { len, code: status as u8, quiet: false, lane: head.lane, number: head.number };
    answers[start..start + HEAD_BYTES].copy_from_slice(&head.to_bytes());
    true
}

/// The frame that lends one value without handles.
#[inline]
fn lent_reply(head: &Head, version: u64, place: &Place) -> [u8; LENT_FRAME_BYTES] {
    let mut frame = [0; LENT_FRAME_BYTES];
    let head = Head { len: LENT_REPLY_BYTES as u32, code: Status::Done as u8, quiet: false, lane: head.lane, number: head.number };
    frame[..HEAD_BYTES].copy_from_slice(&head.to_bytes());
    frame[HEAD_BYTES..].copy_from_slice(&lent_payload(version, place));
    frame
}

impl Server {
    /// Does the requests that a session has sent, for one turn.
    pub(super) fn work(&mut self, index: usize) {
        let mut turn = 0;
        loop {
            let Some(Some(Connection::Session(session))) = self.connections.get_mut(index) else { return };
            if !session.settle_upload(&mut self.store) || session.waits_for_ticket {
                return;
            }
            if session.is_stuffed() {
                break;
            }
            let (head, payload) = match session.next() {
                Next::Nothing => break,
                Next::Nonsense => return self.close(index),
                Next::Request(head, payload) => (head, payload),
            };
            let bytes = (HEAD_BYTES + payload.len()).max(REQUEST_BYTES_MIN);
            turn += bytes;
            if turn > TURN_BYTES && turn > bytes {
                self.put_off(index);
                break;
            }
            if head.code == Call::Upload as u8 {
                let bytes = session.upload_bytes(payload.clone());
                if self.store.memory.reserve(bytes).is_err() {
                    self.make_room();
                }
                let Some(Some(Connection::Session(session))) = self.connections.get_mut(index) else { return };
                if !session.begin_upload(&head, payload, &mut self.store) {
                    return self.close(index);
                }
                continue;
            }
            let requests = session.take_requests();
            let done = self.call(index, &head, &requests[payload.clone()]);
            turn += self.take_effort();
            let Some(Some(Connection::Session(session))) = self.connections.get_mut(index) else { return };
            session.put_requests_back(requests);
            match done {
                Done::Later => {
                    session.waits_for_ticket = true;
                    self.tickets.note_who_waits();
                    break;
                }
                Done::Nonsense => return self.close(index),
                done => {
                    session.finish(payload.end);
                    self.answer(index, &head, done);
                }
            }
        }
        let Some(Some(Connection::Session(session))) = self.connections.get_mut(index) else { return };
        if !session.adjust_reading(&self.poller, token_of(token::CHANNEL, index)) {
            self.close(index);
        }
    }

    /// A session goes on with its requests in the next round: once, however often it is put off.
    pub(super) fn put_off(&mut self, index: usize) {
        if !self.unfinished.contains(&index) {
            self.unfinished.push_back(index);
        }
    }

    pub(super) fn answer(&mut self, index: usize, head: &Head, done: Done) {
        let Some(Some(Connection::Session(session))) = self.connections.get_mut(index) else { return };
        let mut answers = std::mem::take(session.answers());
        let answered = write_answer(session, head, done, &mut self.outcomes, &mut answers);
        *session.answers() = answers;
        if answered && self.unanswered.last() != Some(&index) {
            self.unanswered.push(index);
        }
    }

    /// What the last request counts as, in bytes of its session's turn, beside its own: a short one may be long work.
    pub(super) fn take_effort(&mut self) -> usize {
        std::mem::take(&mut self.effort)
    }

    pub(super) fn call(&mut self, index: usize, head: &Head, payload: &[u8]) -> Done {
        let Some(call) = Call::from_code(head.code) else { return Done::Nonsense };
        // What is not answered is no call of the lane's: any thread may send it, while another reads what this lane was lent.
        if !call.is_one_way()
            && let Some(Some(Connection::Session(session))) = self.connections.get_mut(index)
        {
            session.begin_call(head.lane);
        }
        match call {
            Call::Commit => self.commit(index, head, payload),
            Call::RunCommit => self.run_commit(index, head, payload),
            Call::Settle => self.settle(index, payload),
            Call::Series => self.series(index, payload),
            Call::Create => match whole(payload, "description of an object", NewObject::parse) {
                Ok(new) => self.create(index, &new).into(),
                Err(_) => Done::Nonsense,
            },
            Call::Retain => self.with_id(payload, |server, id| server.hold(index, id).into()),
            Call::Release | Call::Entrust => match Words::new(payload) {
                Some(ids) if call == Call::Entrust => self.entrust(index, ids),
                Some(ids) => self.release(index, ids),
                None => Done::Nonsense,
            },
            Call::Discard => match (Words::new(payload), self.connections.get_mut(index)) {
                (Some(numbers), Some(Some(Connection::Session(session)))) => {
                    numbers.iter().for_each(|number| session.uploads().discard(number, &mut self.store.memory));
                    Done::NoAnswer
                }
                _ => Done::Nonsense,
            },
            Call::Publish => self.publish_name(payload),
            Call::Lookup => self.lookup(index, payload),
            Call::Unpublish => match std::str::from_utf8(payload) {
                Ok(name) => Done::Answer(vec![if self.store.unname(name) { Outcome::Something } else { Outcome::Nothing }]),
                Err(_) => Done::Nonsense,
            },
            Call::Arm => self.with_id(payload, |server, id| {
                server.store.arm(id);
                Done::Answer(Vec::new())
            }),
            Call::Ticket => self.take_ticket(index, head, None),
            Call::TicketBack => self.with_id(payload, |server, number| {
                server.tickets.give_back(index, number);
                Done::NoAnswer
            }),
            Call::Stats => Done::Answer(vec![Outcome::Text(self.stats())]),
            Call::Audit => self.audit(),
            Call::Names => Done::Answer(vec![Outcome::Text(self.names())]),
            Call::Shutdown => self.shut_down(),
            Call::Attach => self.with_id(payload, |server, id| server.attach(index, id)),
            Call::Who => self.with_id(payload, |server, number| Done::Answer(server.who(number))),
            Call::Grow => self.grow(index, payload),
            Call::Pack | Call::Unpack | Call::Forget => self.parcel(index, call, payload),
            Call::Host => self.become_host(index, payload),
            Call::FindHost => self.find_host(payload),
            Call::Reach => self.reach(index, payload),
            Call::Offer => self.offer_types(index, payload),
            Call::Objects => self.with_id(payload, |server, from| Done::Answer(vec![Outcome::Text(server.objects(from))])),
            Call::Block | Call::Unlink => self.with_id(payload, |server, id| server.block(index, call, id)),
            Call::Sessions => Done::Answer(vec![Outcome::Text(self.session_lines())]),
            Call::Ring if payload.is_empty() => {
                self.lane_watch.rings += 1;
                self.watch(index);
                Done::NoAnswer
            }
            Call::Ring | Call::Upload | Call::Part => Done::Nonsense,
        }
    }

    fn shut_down(&mut self) -> Done {
        self.ending = true;
        Done::Answer(Vec::new())
    }

    fn with_id(&mut self, payload: &[u8], then: impl FnOnce(&mut Self, u64) -> Done) -> Done {
        match whole(payload, "id", Reader::u64) {
            Ok(id) => then(self, id),
            Err(_) => Done::Nonsense,
        }
    }

    pub(super) fn commit(&mut self, index: usize, head: &Head, payload: &[u8]) -> Done {
        if self.waits_for_ticket(index) {
            return Done::Later;
        }
        let Ok(commit) = whole(payload, "commit", Commit::parse) else { return Done::Nonsense };
        self.outcomes.clear();
        points::manager("call: before it is applied");
        let Some(applied) = self.apply(index, &commit, !head.quiet) else { return Done::Nonsense };
        self.effort = self.store.work.spent() as usize * STEP_BYTES;
        points::manager("call: applied, not published");
        match applied {
            // The version that is being made, if this changed anything: published before the answer is sent.
            Ok(()) => {
                if self.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Lent(_, handles) if !handles.is_empty())) {
                    self.hand_over(index);
                }
                Done::Committed(self.store.version() + u64::from(self.store.has_unpublished()))
            }
            // What could not be read to its end does not get so far as to lose, or to fail.
            Err(_) if !commit.is_whole() => Done::Nonsense,
            Err(Rejected::Nonsense) => Done::Nonsense,
            Err(Rejected::Conflict) => Done::Conflict,
            Err(Rejected::Failed(error)) => Done::Failed(self.explain_full(error)),
        }
    }

    /// Applies a commit, if need be after making room; its outcomes, if they are wanted, are appended to ours. `None`: there is no such
    /// session.
    #[inline]
    pub(super) fn apply(&mut self, index: usize, commit: &Commit<'_>, wanted: bool) -> Option<Result<(), Rejected>> {
        let Some(Some(Connection::Session(session))) = self.connections.get_mut(index) else { return None };
        let uploads = session.uploads();
        uploads.begin_commit();
        let applied = self.store.apply(commit, uploads, wanted.then_some(&mut self.outcomes));
        if applied.is_ok() && uploads.is_empty() { Some(applied) } else { self.applied(index, commit, wanted, applied) }
    }

    /// After a commit that has been refused, or that may have named uploads.
    fn applied(
        &mut self,
        index: usize,
        commit: &Commit<'_>,
        wanted: bool,
        mut applied: Result<(), Rejected>,
    ) -> Option<Result<(), Rejected>> {
        if matches!(&applied, Err(Rejected::Failed(error)) if error.kind() == ErrorKind::Full) {
            applied = self.apply_again(index, commit, wanted, applied);
        }
        let Some(Some(Connection::Session(session))) = self.connections.get_mut(index) else { return None };
        let uploads = session.uploads();
        if !uploads.is_empty() {
            // Whatever became of it: what it named is used up.
            commit.uploads().for_each(|number| uploads.discard(number, &mut self.store.memory));
        }
        Some(applied)
    }

    /// Does a commit once more for which there was no room, after making some; unless it has used up an upload, as an attempt may. Values
    /// behind its request are still there.
    fn apply_again(&mut self, index: usize, commit: &Commit<'_>, wanted: bool, applied: Result<(), Rejected>) -> Result<(), Rejected> {
        self.make_room();
        let Some(Some(Connection::Session(session))) = self.connections.get_mut(index) else { return applied };
        let uploads = session.uploads();
        if !commit.uploads().all(|number| uploads.look(number).is_ok()) {
            return applied;
        }
        uploads.begin_commit_again();
        self.store.apply(commit, uploads, wanted.then_some(&mut self.outcomes))
    }

    /// What the values refer to that a call took out goes over to its session: else it would be gone with the value.
    #[cold]
    fn hand_over(&mut self, index: usize) {
        for outcome in &self.outcomes {
            let Outcome::Lent(_, handles) = outcome else { continue };
            let Some(Some(Connection::Session(session))) = self.connections.get_mut(index) else { return };
            for id in handles {
                if self.store.retain(*id).is_ok() {
                    session.hold(*id);
                }
            }
        }
    }

    /// Before a request is refused for lack of memory: what is cut off and not yet taken apart, and what no pin holds, is room.
    pub(super) fn make_room(&mut self) {
        self.store.publish();
        self.reclaim(false);
        while self.store.rest() {}
        self.reclaim(false);
    }

    /// If memory is full because a pin holds it, says whose.
    pub(super) fn explain_full(&mut self, error: Error) -> Error {
        if error.kind() != ErrorKind::Full {
            return error;
        }
        let held = self.store.memory.retired_bytes();
        match self.oldest_pin() {
            Some((version, who)) if held > 0 => {
                let text = format!("{error}; {held} bytes are held by readers of older versions, the oldest (version {version}) in {who}");
                Error::caused(ErrorKind::Full, text, error)
            }
            _ => error,
        }
    }

    fn create(&mut self, index: usize, new: &NewObject<'_>) -> Result<Vec<Outcome>> {
        let is_remote = new.kind == Kind::Remote as u8;
        let host = if is_remote { Some(self.host_who_makes(index)?.to_le_bytes()) } else { None };
        let new = &NewObject { parameters: host.as_ref().and_then(|host| Words::new(host)).unwrap_or(new.parameters), ..*new };
        self.may_join(index, new)?;
        let id = match self.store.create(new) {
            Err(error) if error.kind() == ErrorKind::Full => {
                self.make_room();
                self.store.create(new)?
            }
            made => made?,
        };
        if let Some(Some(Connection::Session(session))) = self.connections.get_mut(index) {
            session.hold(id);
        }
        Ok(vec![Outcome::Number(id)])
    }

    fn hold(&mut self, index: usize, id: u64) -> Result<Vec<Outcome>> {
        self.store.retain(id)?;
        if let Some(Some(Connection::Session(session))) = self.connections.get_mut(index) {
            session.hold(id);
            self.store.segments.holds(id, session.number(), true);
        }
        Ok(Vec::new())
    }

    fn attach(&mut self, index: usize, id: u64) -> Done {
        let Some(Some(Connection::Session(session))) = self.connections.get(index) else { return Done::Nonsense };
        if !session.holds(id) {
            return Done::Failed(gone(id));
        }
        match self.store.segments.attach(id, session.number()) {
            Ok((descriptor, bytes)) => Done::Attached(descriptor, bytes),
            Err(error) => Done::Failed(error),
        }
    }

    /// What is asked about a named block, or done to it.
    fn block(&mut self, index: usize, call: Call, id: u64) -> Done {
        let Some(Some(Connection::Session(session))) = self.connections.get(index) else { return Done::Nonsense };
        if !session.holds(id) {
            return Done::Failed(gone(id));
        }
        let Some(block) = self.store.segments.block(id) else {
            let text = format!("object {id} is no block of named memory");
            return Done::Failed(Error::new(ErrorKind::WrongType, text));
        };
        if call == Call::Unlink {
            return block.unlink().map(|was| vec![if was { Outcome::Something } else { Outcome::Nothing }]).into();
        }
        let [device, inode] = block.id().words();
        let numbers = [device, inode, block.bytes()].map(Outcome::Number).into_iter();
        Done::Answer(numbers.chain([Outcome::Text(block.name().to_owned())]).collect())
    }

    /// The process of a session, and its program; nothing if it is over.
    fn who(&self, number: u64) -> Vec<Outcome> {
        let sessions = self.connections.iter().flatten().filter_map(|connection| match connection {
            Connection::Session(session) | Connection::Lingering(session) => Some(session),
            Connection::Greeting { .. } | Connection::Luggage(_) => None,
        });
        let found = sessions.into_iter().find(|session| session.number() == number).map(|session| session.who());
        found.map_or(vec![Outcome::Nothing], |(pid, program)| vec![Outcome::Number(pid.into()), Outcome::Text(program.to_owned())])
    }

    fn release(&mut self, index: usize, ids: Words<'_>) -> Done {
        let Some(Some(Connection::Session(session))) = self.connections.get_mut(index) else { return Done::Nonsense };
        for id in ids.iter() {
            if session.let_go(id) {
                self.store.release(id);
                self.store.segments.holds(id, session.number(), session.holds(id));
            }
        }
        Done::NoAnswer
    }

    fn publish_name(&mut self, payload: &[u8]) -> Done {
        let mut read = Reader::new(payload);
        let (Some(id), Some(replace)) = (read.u64(), read.u8()) else { return Done::Nonsense };
        let Ok(name) = std::str::from_utf8(read.rest()) else { return Done::Nonsense };
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            let text = format!("a name of {} bytes cannot be given: names have 1 to {NAME_BYTES_MAX} bytes", name.len());
            return Done::Failed(Error::new(ErrorKind::OutOfRange, text));
        }
        self.store.name(name, id, replace != 0).map(|()| Vec::new()).into()
    }

    fn lookup(&mut self, index: usize, payload: &[u8]) -> Done {
        let Ok(name) = std::str::from_utf8(payload) else { return Done::Nonsense };
        let Some(id) = self.store.lookup(name) else {
            let known: Vec<_> = self.store.names().take(8).map(|(name, _)| format!("{name:?}")).collect();
            let known = if known.is_empty() { "it has no named objects yet".to_owned() } else { format!("there are {}", known.join(", ")) };
            let text = format!("this manager has no object named {name:?}: {known}");
            return Done::Failed(Error::new(ErrorKind::NotFound, text));
        };
        if let Some(Some(Connection::Session(session))) = self.connections.get_mut(index) {
            session.hold(id);
        }
        Done::Answer(vec![Outcome::Number(id)])
    }

    fn audit(&mut self) -> Done {
        self.effort = TURN_BYTES;
        self.store.publish();
        self.store.memory.release_all();
        let uploads: Vec<u64> = self
            .connections
            .iter()
            .flatten()
            .filter_map(|connection| match connection {
                Connection::Session(session) => Some(session.upload_blocks()),
                Connection::Greeting { .. } | Connection::Lingering(_) | Connection::Luggage(_) => None,
            })
            .flatten()
            .collect();
        match self.store.audit(uploads.into_iter()) {
            Ok(()) => Done::Answer(vec![Outcome::Text(String::new())]),
            Err(what) => Done::Answer(vec![Outcome::Text(what)]),
        }
    }
}
