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
//! Calls that have come are done though their client may be gone by then: nobody waits for them any more, and nobody needs to.

use super::Registered;
use super::calls::{Outcome, answer_to, call};
use super::overseer::{Led, Seen};
use super::turns::{Door, circle};
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

/// A call that waits behind others of its object, and the chain that waits with it, at which door.
struct Queued {
    frame: Frame,
    waits: Option<(u64, Arc<Door>)>,
}

impl Queued {
    /// What it counts for.
    fn bytes(&self) -> usize {
        self.frame.1.len() + size_of::<Queued>()
    }
}

/// Calls of one object that wait for the one that runs.
type Behind = VecDeque<Queued>;

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
    /// Objects in which a call of this line runs.
    busy: HashMap<u64, Behind>,
    /// Bytes of all calls that wait behind others.
    behind_bytes: usize,
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
        ahead.lead(Some(first));
        lock(&ahead.state).threads -= 1;
    }

    /// Leads until the line is at its end, or another thread leads and this one is not needed.
    fn lead(self: &Arc<Self>, mut first: Option<Frame>) {
        while let Some(frame) = first.take().or_else(|| self.next()) {
            match (Ask::from_code(frame.0.code), Of::parse(&frame)) {
                (Some(Ask::Taken), _) => {
                    let over = lock(&self.state).lent.remove(&frame.0.number);
                    drop(over);
                }
                (Some(Ask::Call), Some(of)) => {
                    let Some((number, frame)) = self.begin(of, frame) else { continue };
                    if !self.run(of.object, frame) {
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

    /// The next frame.
    fn next(&self) -> Option<Frame> {
        loop {
            match self.line.next(REPLIES_PENDING_BYTES_MAX, || None) {
                Ok(Got::Frame(frame)) => return Some(frame),
                Ok(Got::Nothing) => {}
                Ok(Got::Ended) | Err(_) => return None,
            }
        }
    }

    /// Begins a call: its number. None: it waits behind another one of its object, or is answered.
    fn begin(&self, of: Of, frame: Frame) -> Option<(u64, Frame)> {
        let mut state = lock(&self.state);
        if state.busy.contains_key(&of.object) {
            let Ok(waits) = self.wait_behind(of, &frame.0) else {
                drop(state);
                self.answer(&frame.0, Outcome::failed(&circle()));
                return None;
            };
            let queued = Queued { frame, waits };
            state.behind_bytes += queued.bytes();
            state.busy.entry(of.object).or_default().push_back(queued);
            // Too much: nothing is read until some of it is done.
            while state.behind_bytes > REMOTE_AHEAD_BYTES_MAX && !state.is_over {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            return None;
        }
        state.busy.insert(of.object, Behind::new());
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
    fn wait_behind(&self, of: Of, head: &Head) -> Result<Option<(u64, Arc<Door>)>> {
        if of.is_within {
            return Err(circle());
        }
        let host = &self.registered.host;
        // For one that is not answered nobody waits.
        let Some(slot) = host.object(of.object).filter(|_| !head.quiet) else { return Ok(None) };
        host.waits.wait_behind(of.chain, slot.door())?;
        Ok(Some((of.chain, slot.door().clone())))
    }

    /// Runs a call, and then what was laid behind it. `false`: the host ends.
    fn run(&self, object: u64, mut frame: Frame) -> bool {
        let host = &self.registered.host;
        loop {
            let outcome = call(host, self.line.road(), &frame.0, &frame.1);
            if host.ending.load(Ordering::Relaxed) {
                return false;
            }
            if let Some(outcome) = outcome {
                self.answer(&frame.0, outcome);
            }
            let mut state = lock(&self.state);
            let Some(queued) = state.busy.get_mut(&object).and_then(VecDeque::pop_front) else {
                state.busy.remove(&object);
                return true;
            };
            if state.behind_bytes > REMOTE_AHEAD_BYTES_MAX {
                self.changed.notify_all();
            }
            state.behind_bytes -= queued.bytes();
            drop(state);
            if let Some((chain, door)) = queued.waits {
                host.waits.wait_no_more(chain, &door);
            }
            frame = queued.frame;
        }
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
                ahead.lead(None);
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
        // Lets go of objects, which is said on the manager's connection: not under our lock.
        drop(lent);
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
