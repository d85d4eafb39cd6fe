//! Waiting, and serving lanes: which sessions' doorbells are looked at, their requests in turn, and their answers.
//!
//! While the manager is awake it looks at the doorbells of the sessions that have called lately, which are *watched*; others ring by
//! their socket, and are watched from then on. Before it sleeps it stops watching, and looks once more. How long it looks depends on whether
//! those whom it has answered last were awake: then they will soon call again, else they must wake up first. If they run on
//! its own processor it sleeps at once, and goes elsewhere if that goes on. A round takes what it finds
//! at once, so that it becomes one commit; answers are published after the commit is.
//!
//! Fairness: a session's lanes are served in turn, from the one after the last; no more than a turn's bytes of one session in a round,
//! or of work that counts as many; and the sockets are looked at whenever the lanes have had so many bytes, or some rounds without any.
//! A request that waits for the writer's ticket waits in its slot, and is copied again when its time has come.

use super::calls::{Done, REQUEST_BYTES_MIN, write_answer};
use super::session::Session;
use super::session_lanes::SessionLanes;
use super::{Connection, Server, TURN_BYTES};
use commonhold_ipc::error::Result;
use commonhold_ipc::lane::Request;
use commonhold_ipc::limits::{SESSIONS_WATCHED_MAX, VALUE_BYTES_MAX};
use commonhold_ipc::points;
use commonhold_ipc::socket::{Company, Peer, Spins};
use commonhold_ipc::sys;
use commonhold_ipc::wire::{Call, Head, PART_HEAD_BYTES, PartHead};

/// Bytes of requests that lanes are served before the sockets are looked at again.
const UNLOOKED_BYTES_MAX: usize = 64 << 10;
/// Looks at doorbells between two looks at the sockets, while nothing happens: a microsecond or so.
const LOOKS_PER_POLL: u32 = 64;
/// Rounds in which a watched session has not called, others having done so, before it is not watched any more.
const ROUNDS_WITHOUT_CALL_MAX: u64 = 512;
/// Bytes of the buffers for requests and replies that are kept for the next ones.
const BUFFER_KEPT_BYTES: usize = 2 << 20;

/// An answer that is ready and waits for the commit to be published. Not in its slot: its caller looks there, and would take the cache line
/// back before its mark can be stored.
struct Answer {
    index: usize,
    lane: u16,
    mark: u32,
    /// Its caller runs on the manager's own processor.
    here: bool,
    /// Where in the replies it ends; it begins where the one before it ends.
    end: usize,
}

/// The sessions whose doorbells are looked at, and the answers of this round.
#[derive(Default)]
pub struct LaneWatch {
    /// Connections, and the round in which each has called last.
    watched: Vec<(usize, u64)>,
    round: u64,
    /// Requests are left that can be done at once.
    left: bool,
    /// Bytes served since the last look at the sockets.
    unlooked: usize,
    request: Vec<u8>,
    replies: Vec<u8>,
    answers: Vec<Answer>,
    /// Of those whom the manager has answered since it last waited, the one whose next call is worth most to wait for.
    met: Option<Peer>,
    company: Company,
    /// The processor that it ran on in this round, which the sessions are told.
    cpu: u32,
    /// Calls served since the manager began.
    pub calls: u64,
    /// Times that a client rang for one, the manager not watching it.
    pub rings: u64,
    /// Callers woken for their answers.
    pub wakeups: u64,
}

impl LaneWatch {
    /// Whether anybody is watched.
    pub fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// Whether a watched session has posted something.
    #[inline]
    pub fn is_rung(&self, connections: &[Option<Connection>]) -> bool {
        self.watched.iter().any(|(index, _)| lanes(connections, *index).is_some_and(|lanes| lanes.served.is_rung()))
    }

    /// Whether there are requests to do.
    #[inline]
    pub fn has_work(&self, connections: &[Option<Connection>]) -> bool {
        self.left || self.is_rung(connections)
    }

    /// Whether the sockets have waited long enough.
    #[inline]
    pub fn owes_a_look(&self) -> bool {
        self.unlooked >= UNLOOKED_BYTES_MAX
    }

    /// The sockets have been looked at.
    pub fn looked(&mut self) {
        self.unlooked = 0;
    }

    /// Before a sleep: nobody is watched any more. `false`: something has been posted, and nothing has changed.
    pub fn stop(&mut self, connections: &[Option<Connection>]) -> bool {
        let mut rung = false;
        for (index, _) in &self.watched {
            rung |= lanes(connections, *index).is_some_and(|lanes| lanes.served.stop_watching());
        }
        if rung {
            self.watched.iter().filter_map(|(index, _)| lanes(connections, *index)).for_each(|lanes| lanes.served.watch(self.cpu));
        } else {
            self.watched.clear();
        }
        !rung
    }

    /// Tells the watched sessions which processor they are watched from, if that has changed.
    #[inline]
    fn say_where(&mut self, connections: &[Option<Connection>]) {
        let cpu = sys::current_cpu();
        if cpu != self.cpu {
            self.cpu = cpu;
            self.watched.iter().filter_map(|(index, _)| lanes(connections, *index)).for_each(|lanes| lanes.served.watch(cpu));
        }
    }

    /// A connection is over.
    pub fn forget(&mut self, index: usize) {
        self.watched.retain(|(watched, _)| *watched != index);
    }

    /// Sessions that have not called for long, while others have, must ring again.
    fn thin_out(&mut self, connections: &[Option<Connection>], rounds_max: u64) {
        let (round, cpu) = (self.round, self.cpu);
        self.watched.retain(|(index, last)| {
            let Some(lanes) = lanes(connections, *index) else { return false };
            if round - last < rounds_max || lanes.has_backlog() {
                return true;
            }
            let rung = lanes.served.stop_watching();
            if rung {
                lanes.served.watch(cpu);
            }
            rung
        });
    }
}

fn lanes(connections: &[Option<Connection>], index: usize) -> Option<&SessionLanes> {
    match connections.get(index) {
        Some(Some(Connection::Session(session))) => session.lanes.as_ref(),
        _ => None,
    }
}

impl Server {
    /// Returns when there is something to do.
    pub(super) fn wait(&mut self) -> Result<()> {
        let lanes_have_work = self.lane_watch.has_work(&self.connections);
        if lanes_have_work && !self.lane_watch.owes_a_look() {
            return Ok(());
        }
        if lanes_have_work || !self.unfinished.is_empty() || self.store_has_work() {
            self.lane_watch.looked();
            self.poller.look()?;
            return Ok(());
        }
        let mut failed = None;
        let Server { poller, spin, lane_spins, lane_watch, connections, .. } = self;
        let mut met = lane_watch.met.take().unwrap_or(Peer::Asleep);
        if lane_watch.company.part() {
            // What it has learnt was of another place.
            (met, *lane_spins) = (met.max(Peer::Asleep), Spins::of_server());
        }
        let spins = lane_spins.with_peer(met);
        let mut look = || {
            poller.look().unwrap_or_else(|error| {
                failed = Some(error);
                true
            })
        };
        let mut looks = 0u32;
        let ready = if lane_watch.is_empty() {
            spin.wait(look)
        } else {
            spins.is_some_and(|spins| {
                spins.wait_in_memory(|| {
                    looks += 1;
                    if lane_watch.is_rung(connections) {
                        return true;
                    }
                    // The sockets are asked by a system call.
                    looks.is_multiple_of(LOOKS_PER_POLL) && look()
                })
            })
        };
        if let Some(error) = failed {
            return Err(error);
        }
        if ready || (!lane_watch.is_empty() && poller.look()?) {
            return Ok(());
        }
        self.before_sleep();
        if self.lane_watch.stop(&self.connections) {
            let deadline = self.next_deadline();
            self.poller.wait(deadline)?;
        }
        Ok(())
    }

    fn session(&mut self, index: usize) -> Option<&mut Session> {
        match self.connections.get_mut(index) {
            Some(Some(Connection::Session(session))) => Some(session),
            _ => None,
        }
    }

    fn lanes(&mut self, index: usize) -> Option<&mut SessionLanes> {
        self.session(index)?.lanes.as_mut()
    }

    /// Looks at a session's doorbells from now on.
    pub(super) fn watch(&mut self, index: usize) {
        let Some(lanes) = lanes(&self.connections, index) else { return };
        let (round, cpu) = (self.lane_watch.round, self.lane_watch.cpu);
        match self.lane_watch.watched.iter_mut().find(|(watched, _)| *watched == index) {
            Some((_, last)) => *last = round,
            None => {
                lanes.served.watch(cpu);
                self.lane_watch.watched.push((index, round));
                let mut rounds = ROUNDS_WITHOUT_CALL_MAX;
                while self.lane_watch.watched.len() > SESSIONS_WATCHED_MAX && rounds > 1 {
                    rounds /= 2;
                    self.lane_watch.thin_out(&self.connections, rounds);
                }
            }
        }
    }

    /// The requests of a session that waited for something may be done now.
    pub(super) fn wake_lanes(&mut self, index: usize) {
        let Some(lanes) = self.lanes(index) else { return };
        lanes.take_waiting();
        if lanes.has_backlog() {
            self.lane_watch.left = true;
            self.watch(index);
        }
    }

    /// Whether requests of a session wait for the writer's ticket.
    pub(super) fn lanes_wait(&self, index: usize) -> bool {
        lanes(&self.connections, index).is_some_and(|lanes| !lanes.waiting.is_empty())
    }

    /// Does what has been posted, of every watched session a turn.
    pub(super) fn serve_lanes(&mut self) {
        self.lane_watch.left = false;
        if self.lane_watch.is_empty() {
            return;
        }
        self.lane_watch.round += 1;
        self.lane_watch.say_where(&self.connections);
        let unlooked = self.lane_watch.unlooked;
        let mut at = 0;
        while let Some((index, _)) = self.lane_watch.watched.get(at).copied() {
            self.serve_lanes_of(index, at);
            // Its session may have ended.
            at += usize::from(self.lane_watch.watched.get(at).is_some_and(|(watched, _)| *watched == index));
        }
        if self.lane_watch.unlooked == unlooked {
            // Doorbells that bring nothing: whoever rings them all the time must not keep the others' sockets waiting.
            self.lane_watch.unlooked += REQUEST_BYTES_MIN;
        }
        if self.lane_watch.round.is_multiple_of(ROUNDS_WITHOUT_CALL_MAX) {
            self.lane_watch.thin_out(&self.connections, ROUNDS_WITHOUT_CALL_MAX);
        }
    }

    fn serve_lanes_of(&mut self, index: usize, at: usize) {
        let mut turn = 0;
        loop {
            let Some(session) = self.session(index) else { return };
            let stuffed = session.is_stuffed();
            let Some(lanes) = &mut session.lanes else { return };
            // Taken in any case: a bit that stood would count as work that can be done.
            if turn == 0 {
                lanes.take_rung();
            }
            if stuffed {
                // Goes on when its client has read what was sent to it.
                return;
            }
            if turn >= TURN_BYTES {
                self.lane_watch.left |= lanes.has_backlog();
                return;
            }
            let Some(lane) = lanes.next() else { return };
            let Some(request) = lanes.served.request(lane) else { return self.close(index) };
            let round = self.lane_watch.round;
            if let Some((_, last)) = self.lane_watch.watched.get_mut(at) {
                *last = round;
            }
            self.lane_watch.company.meet(request.cpu == self.lane_watch.cpu);
            let done = self.do_request(index, &request);
            let bytes = (request.head.len as usize).max(REQUEST_BYTES_MIN) + request.values_len as usize + self.take_effort();
            turn += bytes;
            self.lane_watch.unlooked += bytes;
            match done {
                Done::Nonsense => return self.close(index),
                Done::Later => {
                    self.tickets.note_who_waits();
                    if let Some(lanes) = self.lanes(index) {
                        lanes.waiting.add(lane);
                    }
                }
                done => self.answer_lane(index, &request, done),
            }
        }
    }

    fn do_request(&mut self, index: usize, request: &Request) -> Done {
        points::manager("lane: a request is taken");
        match Call::from_code(request.head.code) {
            Some(call @ (Call::Commit | Call::RunCommit | Call::Series)) if request.values_len == 0 => self.do_commit(index, request, call),
            Some(call @ (Call::Commit | Call::RunCommit | Call::Series)) => self.commit_with_values(index, request, call),
            // Nothing else brings values.
            _ if request.values_len > 0 => Done::Nonsense,
            Some(Call::Ticket) if request.head.len == 0 => {
                let Some(session) = self.session(index) else { return Done::Nonsense };
                session.begin_call(request.head.lane);
                self.take_ticket(index, &request.head, Some(*request))
            }
            Some(Call::Part) => self.part(index, request),
            _ => Done::Nonsense,
        }
    }

    #[inline(always)]
    fn do_commit(&mut self, index: usize, request: &Request, call: Call) -> Done {
        let mut payload = std::mem::take(&mut self.lane_watch.request);
        let Some(session) = self.session(index) else { return Done::Nonsense };
        session.begin_call(request.head.lane);
        let copied = session.lanes.as_ref().and_then(|lanes| lanes.served.copy_payload(request, usize::MAX, &mut payload));
        let done = match (copied, call) {
            (None, _) => Done::Nonsense,
            (Some(payload), Call::Series) => self.series(index, payload),
            (Some(payload), Call::RunCommit) => self.run_commit(index, &request.head, payload),
            (Some(payload), _) => self.commit(index, &request.head, payload),
        };
        if payload.capacity() <= BUFFER_KEPT_BYTES {
            self.lane_watch.request = payload;
        }
        done
    }

    /// A commit or series that brings values: its operations may copy them, while this is done.
    #[inline(never)]
    fn commit_with_values(&mut self, index: usize, request: &Request, call: Call) -> Done {
        let Some(session) = self.session(index) else { return Done::Nonsense };
        let values = session.lanes.as_ref().and_then(|lanes| lanes.served.values_behind(request));
        session.uploads().set_behind(values);
        let done = self.do_commit(index, request, call);
        if let Some(session) = self.session(index) {
            session.uploads().set_behind(None);
        }
        done
    }

    /// Copies a part of a large value into the value's block.
    fn part(&mut self, index: usize, request: &Request) -> Done {
        let Some(Some(Connection::Session(session))) = self.connections.get(index) else { return Done::Nonsense };
        let Some(lanes) = &session.lanes else { return Done::Nonsense };
        let mut buffer = Vec::new();
        let head = lanes.served.copy_payload(request, PART_HEAD_BYTES, &mut buffer).and_then(PartHead::parse);
        let (Some(PartHead { upload, from }), Head { number, len, .. }) = (head, request.head) else { return Done::Nonsense };
        let bytes = u64::from(len) - PART_HEAD_BYTES as u64;
        if from == 0 && self.store.memory.reserve(upload.len.min(VALUE_BYTES_MAX)).is_err() {
            self.make_room();
        }
        let Some(Some(Connection::Session(session))) = self.connections.get_mut(index) else { return Done::Nonsense };
        if from == 0 {
            let target = session.upload_target(&upload, &mut self.store);
            if !session.uploads().begin_in_parts(number, upload.len, target, &mut self.store.memory) {
                return Done::Nonsense;
            }
        }
        // What cannot be read, or is not what comes next, goes with the session.
        let Some(place) = session.uploads().place_of_part(number, from, bytes) else { return Done::Nonsense };
        if let (Some(place), Some(lanes)) = (place, &session.lanes)
            && !lanes.served.copy_to_arena(request, PART_HEAD_BYTES as u64, self.store.memory.arena(), place)
        {
            return Done::Nonsense;
        }
        points::manager("lane: a part of a large value is copied");
        session.uploads().add_part(number, bytes, &mut self.store.memory);
        Done::Answer(Vec::new())
    }

    pub(super) fn answer_lane(&mut self, index: usize, request: &Request, done: Done) {
        let Some(Some(Connection::Session(session))) = self.connections.get_mut(index) else { return };
        if write_answer(session, &request.head, done, &mut self.outcomes, &mut self.lane_watch.replies) {
            let end = self.lane_watch.replies.len();
            self.lane_watch.answers.push(Answer {
                index,
                lane: request.head.lane,
                mark: request.mark,
                here: request.cpu == self.lane_watch.cpu,
                end,
            });
        }
    }

    /// Gives the answers of this round, whose commit has been published.
    pub(super) fn answer_lanes(&mut self) {
        if self.lane_watch.answers.is_empty() {
            return;
        }
        self.lane_watch.calls += self.lane_watch.answers.len() as u64;
        points::manager("round: published, lanes not answered");
        let mut start = 0;
        for answer in self.lane_watch.answers.drain(..) {
            let reply = &self.lane_watch.replies[start..answer.end];
            start = answer.end;
            let Some(Some(Connection::Session(session))) = self.connections.get_mut(answer.index) else { continue };
            let Some(lanes) = &session.lanes else { continue };
            let answered = lanes.served.answer(answer.lane, answer.mark, reply);
            self.lane_watch.wakeups += u64::from(answered.slept);
            let caller = match answered.slept {
                _ if answer.here => Peer::Here,
                true => Peer::Asleep,
                false => Peer::Awake,
            };
            self.lane_watch.met = self.lane_watch.met.max(Some(caller));
            if !answered.fits {
                session.answers().extend_from_slice(reply);
                self.unanswered.push(answer.index);
            }
        }
        self.lane_watch.replies.clear();
        if self.lane_watch.replies.capacity() > BUFFER_KEPT_BYTES {
            self.lane_watch.replies = Vec::new();
        }
    }
}
