//! Logic beside the data: lines for it are read by one thread, which runs what comes one after the other.
//!
//! Only one piece of logic runs at a time, as it has the writer's ticket. With a thread for each line, the one whose caller asks would be
//! woken to wait for the ticket, and woken again to have it. So a line goes to the thread that *leads* when logic is asked for on it for
//! the first time. That looks at all of them, runs what it finds, and answers where it has come from. If something else has come by the time of the
//! commit, the ticket is kept for that, for a while (`TICKET_KEPT_US`); else it goes back with the commit.
//!
//! While logic runs, the other lines lie in the state. If it is still running after a tick or two of the overseer, they get
//! another thread that leads, which at worst waits for the ticket in its turn. So logic that blocks keeps its line and its
//! thread, and the others wait no longer than its ticket is good for.
//!
//! | a thread | does | then |
//! |---|---|---|
//! | leads, looking | has all lines; takes a call | puts the others into the state, runs it |
//! | leads, running | runs a call, answers | takes the lines back, looks again |
//! | runs, another one leading | the same | gives its line to that one, and ends |
//! | leads, without a line | | ends: the next line's thread leads |
//!
//! A line whose client has not taken its whole answer, and each beyond `LOGIC_LINES_MAX`, has a thread of its own (`serve`).

use super::Registered;
use super::calls::{Follow, Row, answer_to, refuse, run};
use super::overseer::{Led, Overseer, Seen};
use crate::remote::line::{Frame, Line};
use crate::retry::Ticket;
use crate::session::Stored;
use crate::unpoisoned::lock;
use commonhold_ipc::error::Result;
use commonhold_ipc::limits::LOGIC_LINES_MAX;
use commonhold_ipc::socket::{Channel, Spin};
use commonhold_ipc::sys::wait_readable;
use commonhold_ipc::wire::buffers;
use commonhold_ipc::wire::remote::Ask;
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, Once};

/// A line that is served.
pub(super) struct Served {
    pub(super) registered: Registered,
    pub(super) line: Line,
    /// By the number of the answer that it went with.
    pub(super) lent: HashMap<u64, Vec<Stored>>,
    /// Its client is gone: there is what has come, and no more.
    pub(super) is_over: bool,
}

#[derive(Default)]
struct State {
    /// Lines that whoever leads has not got in its hands.
    lines: Vec<Served>,
    /// All lines, with those that are in somebody's hands.
    count: usize,
    leads: bool,
    /// The number of the call that the leader runs, counted from 1. None: it looks, or nobody leads.
    running: Option<u64>,
    /// The one that the overseer has seen last.
    seen: Option<u64>,
    begun: u64,
}

/// The lines for logic of a host.
pub(super) struct Logic {
    state: Mutex<State>,
    /// Wakes the leader: there are more lines.
    poked: (Channel, Channel),
    overseer: Arc<Overseer>,
    is_watched: Once,
    /// What a thread does that has a line of its own.
    serve: fn(Served),
}

impl Logic {
    /// `serve`: what a thread does that has a line of its own.
    pub(super) fn new(overseer: &Arc<Overseer>, serve: fn(Served)) -> Result<Arc<Self>> {
        let (poked, overseer) = (Channel::pair()?, overseer.clone());
        Ok(Arc::new(Logic { state: Mutex::default(), poked, overseer, is_watched: Once::new(), serve }))
    }

    /// Takes a line over, of which this is the first frame; back, if there are too many.
    pub(super) fn take(self: &Arc<Self>, served: Served, first: Frame) -> Option<(Served, Frame)> {
        self.is_watched.call_once(|| self.overseer.watch(Arc::downgrade(self) as _));
        let mut state = lock(&self.state);
        if state.count >= LOGIC_LINES_MAX {
            return Some((served, first));
        }
        state.count += 1;
        let is_led = std::mem::replace(&mut state.leads, true);
        drop(state);
        if !is_led {
            self.lead(Some((served, first)));
            return None;
        }
        // Done here, once: the leader reads what comes after it.
        let served = self.answer(served, first, &mut None);
        if self.give(lock(&self.state), served) {
            self.lead(None);
        }
        None
    }

    /// Gives a line to whoever leads: that is the caller from now on, if nobody does.
    fn give(&self, mut state: MutexGuard<'_, State>, served: Option<Served>) -> bool {
        put_back(&mut state, served);
        let is_led = std::mem::replace(&mut state.leads, true);
        drop(state);
        if is_led {
            // 0: it has not looked at the last ones yet, and will.
            let _ = self.poked.1.send(&[0]);
        }
        !is_led
    }

    /// Leads until there is no line, or another thread leads.
    fn lead(self: &Arc<Self>, mut first: Option<(Served, Frame)>) {
        let mut spin = Spin::new();
        let mut lines = Vec::new();
        let mut kept = None;
        loop {
            let next = first.take().or_else(|| {
                self.gather(&mut lines);
                self.next(&mut lines)
            });
            let Some((served, frame)) = next else {
                // Nobody is to wait for a ticket that is of no use.
                kept = None;
                if self.retire(&mut lines) {
                    return;
                }
                self.wait(&mut lines, &mut spin);
                continue;
            };
            let number = self.begin(&mut lines);
            let served = self.answer(served, frame, &mut kept);
            kept = kept.filter(Ticket::is_fresh);
            if !self.lead_on(number, served) {
                return;
            }
        }
    }

    /// Takes the lines into the leader's hands.
    fn gather(&self, lines: &mut Vec<Served>) {
        lines.append(&mut lock(&self.state).lines);
    }

    /// Whether the leader has nothing to lead, and so leads no more.
    fn retire(&self, lines: &mut [Served]) -> bool {
        let mut state = lock(&self.state);
        let is_over = lines.is_empty() && state.lines.is_empty();
        if is_over {
            state.leads = false;
        }
        is_over
    }

    /// The next call that has come, and its line, from the one on that has waited longest.
    fn next(&self, lines: &mut Vec<Served>) -> Option<(Served, Frame)> {
        let mut at = 0;
        while at < lines.len() {
            let served = &mut lines[at];
            match served.line.try_next() {
                Ok(Some(frame)) => match Ask::from_code(frame.0.code) {
                    Some(Ask::Logic) => return Some((lines.remove(at), frame)),
                    Some(Ask::Taken) => {
                        served.lent.remove(&frame.0.number);
                        at += 1;
                        continue;
                    }
                    // Nonsense.
                    _ => {}
                },
                Ok(None) if !served.is_over => {
                    at += 1;
                    continue;
                }
                Ok(None) | Err(_) => {}
            }
            drop(lines.remove(at));
            lock(&self.state).count -= 1;
        }
        None
    }

    /// Waits until something has come on one of the lines, or there are more of them.
    fn wait(&self, lines: &mut [Served], spin: &mut Spin) {
        if spin.wait_in_memory(|| lines.iter().any(|served| served.line.has_come())) {
            return;
        }
        // Each says so, and then looks. From one on which something has come none needs to.
        let may_sleep = lines.iter().all(|served| served.line.fall_asleep());
        let descriptors: Vec<BorrowedFd<'_>> =
            std::iter::once(self.poked.0.as_fd()).chain(lines.iter().map(|served| served.line.as_fd())).collect();
        let readable = if may_sleep { wait_readable(&descriptors, None) } else { Ok(0) };
        let has_failed = readable.is_err();
        let readable = readable.unwrap_or(0);
        if readable & 1 != 0 {
            let _ = self.poked.0.receive(&mut [0; 64]);
        }
        for (n, served) in (1..).zip(lines) {
            let goes_on = served.line.awake(readable >> n & 1 != 0);
            served.is_over |= has_failed || !matches!(goes_on, Ok(true));
        }
    }

    /// A call begins: the other lines lie in the state meanwhile.
    fn begin(&self, lines: &mut Vec<Served>) -> u64 {
        let mut state = lock(&self.state);
        lines.append(&mut state.lines);
        std::mem::swap(&mut state.lines, lines);
        state.begun += 1;
        state.running = Some(state.begun);
        // Under the lock: an overseer that goes to sleep looks at us after it has said so.
        self.overseer.wake();
        state.begun
    }

    /// Runs a call and answers it. None: its line is at its end, or has got a thread of its own.
    fn answer(self: &Arc<Self>, mut served: Served, (head, payload): Frame, kept: &mut Option<Ticket>) -> Option<Served> {
        let host = served.registered.host.clone();
        let row = Row { kept: kept.take(), from: self.clone() };
        let (outcome, row) = run(&host, &served.line, &head, payload, Some(row));
        *kept = row.and_then(|row| row.kept);
        if host.ending.load(Ordering::Relaxed) {
            return None;
        }
        let (answer, held) = answer_to(&head, outcome?)?;
        if !held.is_empty() {
            served.lent.insert(head.number, held);
        }
        served.line.post(&answer).ok()?;
        buffers::give(answer);
        if served.line.is_caught_up() {
            return Some(served);
        }
        thread_for(served, self.serve);
        None
    }

    /// After a call: whether this thread leads on. If another one does, that gets its line.
    fn lead_on(&self, number: u64, served: Option<Served>) -> bool {
        let mut state = lock(&self.state);
        if state.running != Some(number) {
            return self.give(state, served);
        }
        state.running = None;
        put_back(&mut state, served);
        true
    }
}

/// Has a line served by a thread of its own. Where there is none to be had, its client hears so.
pub(super) fn thread_for(served: Served, serve: fn(Served)) {
    // A thread that cannot be had drops what it was to run: so it gets its line only when it is there.
    let (give, take) = std::sync::mpsc::channel();
    match std::thread::Builder::new().name("line".into()).spawn(move || take.recv().map(serve)) {
        Ok(_) => drop(give.send(served)),
        Err(_) => {
            let text = "the host has no thread for another caller: raise its limits (`ulimit -u`, `ulimit -v`, pids.max), or let some calls end first";
            refuse(served.line, text);
        }
    }
}

/// A call is over. None: so is its line, for us.
fn put_back(state: &mut State, served: Option<Served>) {
    match served {
        Some(served) => state.lines.push(served),
        None => state.count -= 1,
    }
}

impl Follow for Logic {
    fn is_next(&self) -> bool {
        lock(&self.state).lines.iter().any(|served| served.line.has_come())
    }
}

impl Led for Logic {
    /// If the leader runs the call of the last look, another thread leads from now on.
    fn look(self: Arc<Self>) -> Seen {
        let mut state = lock(&self.state);
        let (running, seen) = (state.running, state.seen);
        state.seen = running;
        match running {
            Some(_) if running == seen => {
                let logic = self.clone();
                // It waits for our lock. Without a thread, the others wait for this call.
                if std::thread::Builder::new().name("line".into()).spawn(move || logic.lead(None)).is_ok() {
                    state.running = None;
                }
                Seen::Slow
            }
            Some(_) => Seen::Call,
            None => Seen::Nothing,
        }
    }
}
