//! A line on which calls are made ahead: many under way at once, of any of the host's objects.
//!
//! One thread *leads*: it takes a call from the line and runs it itself, so that a row of quick calls costs no switch of threads. If a
//! method is still running after a tick of the *overseer* (`overseer`), another thread is given the lead and goes on with what follows; the
//! first one answers when it is done. So a method that blocks delays the calls behind it by some milliseconds at the most, and those of its
//! own object until it returns: they are done in the order in which they came. A call that was quick costs nothing of this, nor does one that
//! was thought slow because its thread had to stand back for another process: then the lead changes once.
//!
//! | a thread | does | then |
//! |---|---|---|
//! | leads, reading | takes a call; if its object is busy, lays it behind the others for it | runs it, leading on |
//! | leads, running | runs a method | answers, reads again |
//! | runs, another one leading | runs a method, then what was laid behind it | takes the lead if nobody has it, or waits for it, or ends |
//!
//! Before a call is begun, all that has come behind it is read, and lies here until it is taken up: so what the client calls off (`Ask::CallOff`) in
//! time is not begun, also if both lay in the ring of a host that was stopped. It is answered at once, and its chain waits for nobody any more; its
//! frame is dropped in its turn. One that waits at its object's door for a method of another line is woken, and answers itself.
//!
//! Calls that have come are done though their client may be gone by then: nobody waits for them any more, and nobody needs to.

use super::Registered;
use super::calls::{AtDoor, Outcome, answer_to, call};
use super::overseer::{Led, Seen};
use super::turns::{Door, Place, called_off, circle};
use crate::remote::line::{Frame, Got, SharedLine};
use crate::session::Stored;
use crate::unpoisoned::lock;
use commonhold_ipc::error::Result;
use commonhold_ipc::limits::{REMOTE_AHEAD_BYTES_MAX, REMOTE_AHEAD_SPARE_MAX, REMOTE_AHEAD_THREADS_MAX, REPLIES_PENDING_BYTES_MAX};
use commonhold_ipc::wire::remote::{Ask, Asked};
use commonhold_ipc::wire::{Head, buffers};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What a frame counts for as long as it lies here.
fn bytes_of(frame: &Frame) -> usize {
    frame.1.len() + size_of::<Frame>()
}

/// Whether somebody waits for its answer, who may call it off.
fn is_awaited(head: &Head) -> bool {
    !head.quiet && head.code == Ask::Call as u8
}

/// Where a call lies that can be called off.
enum Lies {
    /// With what has come.
    Here,
    /// Behind others of its object, and its chain waits for them at this door.
    Behind(u64, Arc<Door>),
    /// In its thread's hands, which waits at the door.
    AtDoor(Arc<Place>),
}

/// Of a call: its object, the chain that it is part of, and whether that is in the object.
#[derive(Clone, Copy)]
struct Of {
    object: u64,
    chain: u64,
    is_within: bool,
}

impl Of {
    fn parse((_, payload): &Frame) -> Option<Of> {
        let Asked { object, chain, within, .. } = Asked::parse(payload)?;
        Some(Of { object, chain, is_within: within.iter().any(|id| id == object) })
    }
}

#[derive(Default)]
struct State {
    /// What has come and is not taken up yet, and its bytes.
    come: VecDeque<Frame>,
    come_bytes: usize,
    /// Objects in which a call of this line runs, and the calls that wait behind it.
    busy: HashMap<u64, VecDeque<Frame>>,
    /// Bytes of all calls that wait behind others.
    behind_bytes: usize,
    /// Of both, and of those that wait at their object's door, by their numbers, what can be called off; one that is not there any more was.
    lying: HashMap<u64, Lies>,
    /// By the number of the answer that it went with.
    lent: HashMap<u64, Vec<Stored>>,
    /// The number of the call that the leader runs, counted from 1. None: it reads, or nobody leads.
    running: Option<u64>,
    /// The one that the overseer has seen last.
    seen: Option<u64>,
    begun: u64,
    /// Nobody leads.
    is_vacant: bool,
    /// Threads, and those of them that wait for the lead.
    threads: usize,
    spare: usize,
    is_over: bool,
}

/// Such a line.
pub(super) struct Ahead {
    registered: Registered,
    line: SharedLine,
    state: Mutex<State>,
    changed: Condvar,
}

impl Ahead {
    /// Serves a line, of which this is the first frame. This thread may be let go before the line ends.
    pub(super) fn serve(registered: Registered, line: SharedLine, lent: HashMap<u64, Vec<Stored>>, first: Frame) {
        let state = Mutex::new(State { lent, threads: 1, ..State::default() });
        let ahead = Arc::new(Ahead { registered, line, state, changed: Condvar::new() });
        ahead.registered.host.overseer.watch(Arc::downgrade(&ahead) as _);
        ahead.read_on(Some(first));
        ahead.lead();
        lock(&ahead.state).threads -= 1;
    }

    /// Leads until the line is at its end, or another thread leads and this one is not needed.
    fn lead(self: &Arc<Self>) {
        while let Some(frame) = self.next() {
            match (Ask::from_code(frame.0.code), Of::parse(&frame)) {
                (Some(Ask::Taken), _) => {
                    let over = lock(&self.state).lent.remove(&frame.0.number);
                    drop(over);
                }
                (Some(Ask::Call), Some(of)) => {
                    let Some((number, frame)) = self.begin(of, frame) else { continue };
                    if !self.run(of.object, number, frame) {
                        break;
                    }
                    if !self.lead_on(number) {
                        return;
                    }
                }
                // Nonsense.
                _ => break,
            }
        }
        self.end();
    }

    /// The next frame. Whatever has come behind it is read before, so that nothing begins that was called off by then.
    fn next(&self) -> Option<Frame> {
        loop {
            let is_here = !lock(&self.state).come.is_empty();
            if is_here && self.line.kept() <= REPLIES_PENDING_BYTES_MAX {
                self.read_on(None);
            } else {
                match self.line.next(REPLIES_PENDING_BYTES_MAX, || None) {
                    Ok(Got::Frame(frame)) if is_here || self.line.may_have_come() || frame.0.code == Ask::CallOff as u8 => {
                        self.read_on(Some(frame));
                    }
                    Ok(Got::Frame(frame)) => return Some(frame),
                    Ok(Got::Nothing) => continue,
                    // What has come is done.
                    Ok(Got::Ended) | Err(_) if is_here => {}
                    Ok(Got::Ended) | Err(_) => return None,
                }
            }
            let mut state = lock(&self.state);
            while let Some(frame) = state.come.pop_front() {
                state.come_bytes -= bytes_of(&frame);
                if self.take_up(&mut state, &frame.0) {
                    return Some(frame);
                }
            }
        }
    }

    /// Reads what has come behind this frame, as much as may lie here.
    fn read_on(&self, first: Option<Frame>) {
        self.read_under(lock(&self.state), first);
    }

    /// The same under a lock that was taken before: as long as this thread is known to lead.
    fn read_under(&self, mut state: MutexGuard<'_, State>, first: Option<Frame>) {
        let mut called_off_now = Vec::new();
        let mut next = first;
        loop {
            if let Some(frame) = next.take() {
                called_off_now.extend(self.lay(&mut state, frame));
            }
            if state.come_bytes + state.behind_bytes > REMOTE_AHEAD_BYTES_MAX {
                break;
            }
            // A line that makes no sense is found so by whoever waits.
            let Ok(Some(frame)) = self.line.try_next() else { break };
            next = Some(frame);
        }
        drop(state);
        for head in called_off_now {
            self.answer(&head, Outcome::failed(&called_off()));
        }
    }

    /// Lays a frame to the others. Or it calls one off that lies there: the head of the answer to that one.
    fn lay(&self, state: &mut State, frame: Frame) -> Option<Head> {
        let head = frame.0;
        if head.code == Ask::CallOff as u8 {
            let lay = state.lying.remove(&head.number)?;
            // Who waits at a door answers himself, when he has left it.
            let is_answered_here = !matches!(lay, Lies::AtDoor(_));
            self.wait_no_more(lay);
            return is_answered_here.then_some(Head { quiet: false, ..head });
        }
        self.note(state, &head, Lies::Here);
        state.come_bytes += bytes_of(&frame);
        state.come.push_back(frame);
        None
    }

    /// A call lies here from now on.
    fn note(&self, state: &mut State, head: &Head, lies: Lies) {
        if is_awaited(head)
            // Of two with one number, which is nonsense, one counts as called off.
            && let Some(before) = state.lying.insert(head.number, lies)
        {
            self.wait_no_more(before);
        }
    }

    /// It is taken up now. `false`: it was called off.
    fn take_up(&self, state: &mut State, head: &Head) -> bool {
        if !is_awaited(head) {
            return true;
        }
        match state.lying.remove(&head.number) {
            None => return false,
            // It has been let in.
            Some(Lies::AtDoor(_)) => {}
            Some(lay) => self.wait_no_more(lay),
        }
        true
    }

    fn wait_no_more(&self, lay: Lies) {
        match lay {
            Lies::Here => {}
            Lies::Behind(chain, door) => self.registered.host.waits.wait_no_more(chain, &door),
            Lies::AtDoor(place) => place.call_off(),
        }
    }

    /// Begins a call: its number. None: it waits behind another one of its object, or is answered.
    fn begin(&self, of: Of, frame: Frame) -> Option<(u64, Frame)> {
        let mut state = lock(&self.state);
        if state.busy.contains_key(&of.object) {
            let Ok(lies) = self.wait_behind(of, &frame.0) else {
                drop(state);
                self.answer(&frame.0, Outcome::failed(&circle()));
                return None;
            };
            self.note(&mut state, &frame.0, lies);
            state.behind_bytes += bytes_of(&frame);
            state.busy.entry(of.object).or_default().push_back(frame);
            // Too much: nothing is read until some of it is done. What others answer meanwhile has nobody else to send it.
            while state.behind_bytes > REMOTE_AHEAD_BYTES_MAX && !state.is_over {
                drop(state);
                if self.line.send_kept().is_err() {
                    break;
                }
                state = lock(&self.state);
            }
            return None;
        }
        state.busy.insert(of.object, VecDeque::new());
        state.begun += 1;
        let number = state.begun;
        state.running = Some(number);
        // Under the lock: an overseer that goes to sleep looks at us after it has said so.
        self.registered.host.overseer.wake();
        drop(state);
        Some((number, frame))
    }

    /// Says that a call waits behind others of its object.
    ///
    /// # Errors
    /// `Deadlock` if they wait for it.
    fn wait_behind(&self, of: Of, head: &Head) -> Result<Lies> {
        if of.is_within {
            return Err(circle());
        }
        let host = &self.registered.host;
        // For one that is not answered nobody waits.
        let Some(slot) = host.object(of.object).filter(|_| !head.quiet) else { return Ok(Lies::Here) };
        host.waits.wait_behind(of.chain, slot.door())?;
        Ok(Lies::Behind(of.chain, slot.door().clone()))
    }

    /// Runs a call, and then what was laid behind it. `false`: the host ends.
    fn run(&self, object: u64, number: u64, mut frame: Frame) -> bool {
        let host = &self.registered.host;
        loop {
            let outcome = call(host, self.line.road(), &frame.0, &frame.1, Some(&Running { ahead: self, number }));
            if host.ending.load(Ordering::Relaxed) {
                return false;
            }
            if let Some(outcome) = outcome {
                self.answer(&frame.0, outcome);
            }
            let Some(next) = self.behind(object) else { return true };
            frame = next;
        }
    }

    /// The next call of those behind the one that ran. None: the object is not busy any more.
    fn behind(&self, object: u64) -> Option<Frame> {
        let mut state = lock(&self.state);
        while let Some(frame) = state.busy.get_mut(&object).and_then(VecDeque::pop_front) {
            let is_awaited = state.behind_bytes > REMOTE_AHEAD_BYTES_MAX;
            state.behind_bytes -= bytes_of(&frame);
            if is_awaited {
                let _ = self.line.poke();
            }
            if self.take_up(&mut state, &frame.0) {
                return Some(frame);
            }
        }
        state.busy.remove(&object);
        None
    }

    fn answer(&self, head: &Head, outcome: Outcome) {
        let Some((answer, held)) = answer_to(head, outcome) else { return };
        if !held.is_empty() {
            let mut state = lock(&self.state);
            if !state.is_over {
                state.lent.insert(head.number, held);
            }
        }
        // Who is gone needs no answer.
        let _ = self.line.post(&answer);
        buffers::give(answer);
    }

    /// After a call: whether this thread leads on. If another one does, it waits until the lead is free.
    fn lead_on(self: &Arc<Self>, number: u64) -> bool {
        let mut state = lock(&self.state);
        if state.running == Some(number) {
            state.running = None;
            return true;
        }
        self.wait_for_lead(state)
    }

    /// Waits until nobody leads. `false`: the line is at its end, or enough threads wait.
    fn wait_for_lead(&self, mut state: MutexGuard<'_, State>) -> bool {
        loop {
            if state.is_over {
                return false;
            }
            if state.is_vacant {
                state.is_vacant = false;
                return true;
            }
            if state.spare >= REMOTE_AHEAD_SPARE_MAX {
                return false;
            }
            state.spare += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.spare -= 1;
        }
    }

    /// Gives the lead to another thread, if the leader still runs this call.
    fn give_lead_away(self: &Arc<Self>, number: u64) {
        let mut state = lock(&self.state);
        let has_thread = state.spare > 0 || state.threads < REMOTE_AHEAD_THREADS_MAX;
        if state.running != Some(number) || !has_thread {
            return;
        }
        (state.running, state.is_vacant) = (None, true);
        if state.spare > 0 {
            // Nobody waits for anything else while the leader runs a method.
            self.changed.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let ahead = self.clone();
        let follow = move || {
            if ahead.wait_for_lead(lock(&ahead.state)) {
                ahead.lead();
            }
            lock(&ahead.state).threads -= 1;
        };
        if std::thread::Builder::new().name("line".into()).spawn(follow).is_err() {
            // As it was, unless the call is over and its thread leads on.
            let mut state = lock(&self.state);
            state.threads -= 1;
            if std::mem::take(&mut state.is_vacant) {
                state.running = Some(number);
            }
        }
    }

    /// The line is at its end. Calls that have come are done.
    fn end(&self) {
        self.line.shut_down();
        let mut state = lock(&self.state);
        state.is_over = true;
        let lent = std::mem::take(&mut state.lent);
        self.changed.notify_all();
        drop(state);
        let _ = self.line.poke();
        // Lets go of objects, which is said on the manager's connection: not under our lock.
        drop(lent);
    }
}

/// A call that runs, or would if its object let it in, and what the leader's call is numbered if that is it.
struct Running<'a> {
    ahead: &'a Ahead,
    number: u64,
}

impl AtDoor for Running<'_> {
    fn wait(&self, head: &Head, place: &Arc<Place>) {
        self.ahead.note(&mut lock(&self.ahead.state), head, Lies::AtDoor(place.clone()));
    }

    fn begin(&self, head: &Head) -> bool {
        let state = lock(&self.ahead.state);
        if state.running == Some(self.number) && self.ahead.line.kept() <= REPLIES_PENDING_BYTES_MAX {
            self.ahead.read_under(state, None);
        } else {
            drop(state);
        }
        self.ahead.take_up(&mut lock(&self.ahead.state), head)
    }
}

impl Led for Ahead {
    /// If the leader runs the call of the last look, the lead is given away.
    fn look(self: Arc<Self>) -> Seen {
        let mut state = lock(&self.state);
        let (running, seen) = (state.running, state.seen);
        state.seen = running;
        drop(state);
        match running {
            Some(number) if running == seen => {
                self.give_lead_away(number);
                Seen::Slow
            }
            Some(_) => Seen::Call,
            None => Seen::Nothing,
        }
    }
}
