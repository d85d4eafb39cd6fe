//! A call in its host: the arguments that came, running its method or function, its answer.

use super::super::function::{not_of_its_commit, over_time, result_lost};
use super::super::line::{AHEAD, Line, seal};
use super::super::question::{Chain, in_chain};
use super::super::road::Road;
use super::Host;
use super::not_here;
use super::panics::{PanicReport, as_method};
use super::turns::{Door, Place, Turn, called_off, circle};
use crate::handle::Lent;
use crate::panics::caught;
use crate::payload::ids;
use crate::retry::Ticket;
use crate::session::{SessionCore, Stored};
use crate::transaction::{Transaction, run_alone};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::task::Entry;
use commonhold_ipc::value::{Shared, access, fingerprint, to_owned, with_scratch};
use commonhold_ipc::wire::remote::{Answer, Asked, range, write_result};
use commonhold_ipc::wire::reply::write_error;
use commonhold_ipc::wire::{HEAD_BYTES, Head, Reader, Words, buffers, malformed, put_bytes};
use rkyv::util::AlignedVec;
use rkyv::vec::ArchivedVec;
use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::sync::Arc;

/// How a method gets at its object.
#[doc(hidden)]
pub enum Access<'a, T> {
    /// With nobody else in it.
    Alone(&'a mut T),
    /// Maybe with others.
    Together(&'a T),
}

impl<T> Access<'_, T> {
    /// To look.
    pub fn get(&self) -> &T {
        match self {
            Access::Alone(object) => object,
            Access::Together(object) => object,
        }
    }

    /// To change.
    pub fn get_mut(&mut self) -> Result<&mut T> {
        match self {
            Access::Alone(object) => Ok(object),
            // Who dispatches asks `Remote::method` first.
            Access::Together(_) => Err(malformed("call")),
        }
    }
}

/// A call as its method sees it: arguments to take, a result to give.
#[doc(hidden)]
pub struct Incoming<'a> {
    session: &'a Arc<SessionCore>,
    asked: Asked<'a>,
    taken: usize,
    /// The answer's frame, from its head on.
    answer: Vec<u8>,
    /// What the result refers to.
    held: Vec<Stored>,
}

impl<'a> Incoming<'a> {
    fn new(session: &'a Arc<SessionCore>, asked: Asked<'a>) -> Self {
        let mut answer = buffers::take();
        answer.resize(HEAD_BYTES, 0);
        Incoming { session, asked, taken: 0, answer, held: Vec::new() }
    }

    fn archive(&mut self) -> Result<&'a [u8]> {
        let word = self.asked.ranges.iter().nth(self.taken).ok_or_else(|| malformed("call: an argument is missing"))?;
        self.taken += 1;
        self.asked.archives.get(range(word)).ok_or_else(|| malformed("call"))
    }

    /// The next argument.
    pub fn take<T: Shared>(&mut self) -> Result<T> {
        let archived = access::<T>(self.archive()?)?;
        Ok(to_owned::<T>(archived, Some(self.session.clone())))
    }

    /// The next argument, a text, where it lies.
    pub fn text(&mut self) -> Result<&'a str> {
        Ok(access::<String>(self.archive()?)?.as_str())
    }

    /// The next argument, bytes, where they lie.
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        access::<Vec<u8>>(self.archive()?).map(ArchivedVec::as_slice)
    }

    /// The answer, with this result.
    fn answered<T: Shared>(mut self, result: &T) -> Result<Answered> {
        self.finish(result)?;
        Ok((self.answer, self.held))
    }

    /// The result.
    pub fn finish<T: Shared>(&mut self, result: &T) -> Result<()> {
        with_scratch(|ser| {
            let range = ser.put::<T>(result)?;
            let ids = ids(self.session, ser.handles())?;
            let handles = Words::new(&ids).ok_or_else(|| malformed("result"))?;
            self.held = handles.iter().map(|id| Stored::new(self.session, id)).collect::<Result<_>>()?;
            write_result(&mut self.answer, handles, &ser.bytes()[range]);
            Ok(())
        })
    }
}

/// An answer's frame, and what its result refers to.
type Answered = (Vec<u8>, Vec<Stored>);

/// What came of a call: its answer's frame, and what is to be held until its client holds it.
pub(super) struct Outcome {
    answer: Vec<u8>,
    code: Answer,
    held: Vec<Stored>,
    /// It has been committed: whatever cannot be said of it, it was done.
    is_committed: bool,
}

impl Outcome {
    pub(super) fn failed(error: &Error) -> Self {
        let mut answer = vec![0; HEAD_BYTES];
        write_error(&mut answer, error);
        Outcome { answer, code: Answer::Failed, held: Vec::new(), is_committed: false }
    }

    fn panicked(report: &PanicReport) -> Self {
        let mut answer = vec![0; HEAD_BYTES];
        put_bytes(&mut answer, report.message.as_bytes());
        put_bytes(&mut answer, report.backtrace.as_bytes());
        Outcome { answer, code: Answer::Panicked, held: Vec::new(), is_committed: false }
    }

    fn of(done: Result<Result<Answered>, PanicReport>) -> Self {
        match done {
            Ok(Ok((answer, held))) => Outcome { answer, code: Answer::Done, held, is_committed: false },
            Ok(Err(error)) => Outcome::failed(&error),
            Err(report) => Outcome::panicked(&report),
        }
    }
}

/// The answer's frame, and what its client must hold before it is let go. None: there is to be no answer.
pub(super) fn answer_to(head: &Head, outcome: Outcome) -> Option<Answered> {
    let Outcome { mut answer, code, held, is_committed } = outcome;
    if head.quiet {
        if code == Answer::Panicked {
            // Its caller does not want to know. Whoever reads the host's output may.
            let _ = writeln!(io::stderr(), "commonhold-host: {}", panic_text(&answer));
        }
        return None;
    }
    if seal(&mut answer, code as u8, false, head.number).is_err() {
        let text = "the result is larger than a call can bring: put it into a container, and give a handle back";
        let error = Error::new(ErrorKind::TooLarge, text);
        answer = Outcome::failed(&if is_committed { result_lost(error) } else { error }).answer;
        let _ = seal(&mut answer, Answer::Failed as u8, false, head.number);
    }
    Some((answer, held))
}

/// The words of a panic's answer.
fn panic_text(answer: &[u8]) -> String {
    let text = answer.get(HEAD_BYTES..).and_then(|payload| Reader::new(payload).bytes());
    String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
}

/// Tells a client why it is not served.
pub(super) fn refuse(mut line: Line, text: &str) {
    let mut answer = Outcome::failed(&Error::new(ErrorKind::Full, text)).answer;
    if seal(&mut answer, Answer::Failed as u8, false, 0).is_ok() {
        let _ = line.post(&answer);
    }
}

/// Who hears that a call is called off while it waits at its object's door.
pub(super) trait AtDoor {
    /// It waits there from now on.
    fn wait(&self, head: &Head, place: &Arc<Place>);

    /// It has waited, and begins. `false`: it was called off.
    fn begin(&self, head: &Head) -> bool;
}

/// Runs a method. None: the line is of no use.
pub(super) fn call(host: &Arc<Host>, road: &Road, head: &Head, payload: &[u8], at_door: Option<&dyn AtDoor>) -> Option<Outcome> {
    let asked = Asked::parse(payload)?;
    match try_call(host, road, head, asked, at_door) {
        Ok(outcome) => outcome,
        Err(error) => Some(Outcome::failed(&error)),
    }
}

fn try_call(host: &Arc<Host>, road: &Road, head: &Head, asked: Asked<'_>, at_door: Option<&dyn AtDoor>) -> Result<Option<Outcome>> {
    let slot = host.object(asked.object).ok_or_else(|| not_here(asked.object))?;
    let (name, alone) = slot.method(asked.interface, asked.method)?;
    if asked.within.iter().any(|id| id == asked.object) {
        return Err(circle());
    }
    // Until the method's own handles hold for themselves.
    let arguments = asked.handles.iter().map(|id| Stored::new(host.core(), id)).collect::<Result<Vec<_>>>()?;
    let turn = match slot.door().try_enter(asked.chain, alone) {
        Some(turn) => turn,
        None => wait_at_door(host, slot.door(), head, (asked.chain, alone), at_door)?,
    };
    // Of who died nothing is said: they are looked for where it has taken long.
    if head.lane != AHEAD && (road.is_given_up() || turn.waited && road.has_hung_up()) {
        return Ok(None);
    }
    slot.check()?;
    let mut within = buffers::take();
    within.extend_from_slice(asked.within.bytes());
    within.extend_from_slice(&asked.object.to_le_bytes());
    let mut incoming = Incoming::new(host.core(), asked);
    let done =
        in_chain(Chain { number: asked.chain, within }, || as_method(|| slot.call(asked.interface, (asked.method, name), &mut incoming)));
    drop(turn);
    drop(arguments);
    Ok(Some(Outcome::of(done.map(|done| done.map(|()| (incoming.answer, incoming.held))))))
}

/// Waits until a call is let into its object.
fn wait_at_door<'s>(
    host: &Host,
    door: &'s Arc<Door>,
    head: &Head,
    (chain, alone): (u64, bool),
    at_door: Option<&dyn AtDoor>,
) -> Result<Turn<'s>> {
    let place = Arc::new(Place::at(door));
    if let Some(at_door) = at_door {
        at_door.wait(head, &place);
    }
    let turn = door.wait(&host.waits, chain, alone, &place);
    if at_door.is_some_and(|at_door| !at_door.begin(head)) {
        return Err(called_off());
    }
    turn
}

/// What a function of the program is run with in a host.
#[doc(hidden)]
pub struct Passage {
    host: Arc<Host>,
    /// The line that it was asked for on: its number, and what carries it.
    line: u64,
    road: Arc<Road>,
    head: Head,
    payload: AlignedVec<16>,
    row: RefCell<Option<Row>>,
    /// What it has come to is committed.
    is_committed: Cell<bool>,
    done: Option<Result<Answered>>,
}

/// For logic that runs one after the other.
pub(super) struct Row {
    /// The ticket, kept from the last one.
    pub(super) kept: Option<Ticket>,
    /// Where it comes from.
    pub(super) from: Arc<dyn Follow>,
}

/// Where logic comes from.
pub(super) trait Follow: Send + Sync {
    /// Whether another call waits while one runs.
    fn is_next(&self) -> bool;
}

impl Passage {
    /// The host.
    pub(in crate::remote) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Runs `body` with the arguments that came, and leaves its result.
    pub(in crate::remote) fn carry<A: Shared, R: Shared>(&mut self, body: impl FnOnce(&Self, A) -> Result<R>) {
        self.done = Some(self.incoming::<A>().and_then(|mut incoming| {
            // Until the arguments' own handles hold for themselves.
            let held = incoming.asked.handles.iter().map(|id| Stored::new(self.host.core(), id)).collect::<Result<Vec<_>>>()?;
            let arguments = incoming.take::<A>()?;
            drop(held);
            let result = body(self, arguments)?;
            incoming.answered(&result)
        }));
    }

    /// The same for what is over soon: what the arguments refer to is the caller's to hold meanwhile. Without it, it is gone, and so is
    /// whoever would want a result.
    pub(in crate::remote) fn carry_lent<A: Shared, R: Shared>(&mut self, body: impl FnOnce(&Self, A) -> Result<R>) {
        self.done = Some(self.incoming::<A>().and_then(|mut incoming| {
            let (_lent, arguments) = Lent::by(self.host.core(), || incoming.take::<A>())?;
            let result = body(self, arguments)?;
            incoming.answered(&result)
        }));
    }

    fn incoming<A: Shared>(&self) -> Result<Incoming<'_>> {
        let asked = Asked::parse(&self.payload).ok_or_else(|| malformed("call"))?;
        if asked.interface != fingerprint::<A>() {
            return Err(malformed("call: its arguments are of another type"));
        }
        Ok(Incoming::new(self.host.core(), asked))
    }

    /// Runs `body` in a transaction under the writer's ticket, once its time has begun.
    pub(in crate::remote) fn transaction<R>(&self, body: impl FnMut(&Transaction<'_>) -> Result<R>) -> Result<R> {
        let begun = || {
            let mut frame = [0; HEAD_BYTES];
            seal(&mut frame, Answer::Begun as u8, false, self.head.number)?;
            // A line without an answer under way has room for a head. Its caller is not woken: it looks for this when it gets impatient.
            self.road.leave(&frame).map(drop)
        };
        let mut row = self.row.take();
        let (mut kept, from) = row.as_mut().map_or((None, None), |row| (row.kept.take(), Some(row.from.clone())));
        let is_next = || from.as_ref().is_some_and(|from| from.is_next());
        let asked = (self.line, self.head.number);
        let done = run_alone(self.host.core(), (asked, &self.is_committed), &mut kept, is_next, begun, over_time, body);
        self.row.replace(row.map(|row| Row { kept, ..row }));
        done
    }
}

/// Runs a function of the program. None: the line is of no use.
pub(super) fn run(host: &Arc<Host>, line: &Line, head: &Head, payload: AlignedVec<16>, row: Option<Row>) -> (Option<Outcome>, Option<Row>) {
    let Some(asked) = Asked::parse(&payload) else { return (None, row) };
    let chain = Chain { number: asked.chain, within: asked.within.bytes().to_vec() };
    let entry = match Entry::at(asked.object, asked.name) {
        Ok(entry) => entry,
        Err(error) => return (Some(Outcome::failed(&error)), row),
    };
    let (road, row) = (line.road().clone(), RefCell::new(row));
    let is_committed = Cell::new(false);
    let mut passage = Passage { host: host.clone(), line: line.id(), road, head: *head, payload, row, is_committed, done: None };
    let ran = in_chain(chain, || as_method(|| caught(|| entry.run(&mut passage), |payload| PanicReport::of(payload, entry.name()))));
    let is_committed = passage.is_committed.get();
    let outcome = match ran.map(|()| passage.done.unwrap_or_else(|| Err(malformed("call")))) {
        Ok(Err(error)) if is_committed => Outcome::failed(&result_lost(error)),
        Ok(Err(error)) => Outcome::failed(&not_of_its_commit(error)),
        Err(report) if is_committed => Outcome::failed(&result_lost(report.error())),
        Err(report) => Outcome::panicked(&report),
        Ok(done) => Outcome::of(Ok(done)),
    };
    (Some(Outcome { is_committed, ..outcome }), passage.row.into_inner())
}
