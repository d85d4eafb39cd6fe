//! The owner's side of a pool: what is handed out to whom, and what comes back.
//!
//! Everything is under one lock, which nobody holds while it waits, calls a manager, starts a process or reads large results. Who
//! waits for results does the work itself ([`Owner::collect`]); so a caller that looks finds its result as soon as it is there. The
//! *keeper*, a thread of the pool's own, does what must be done while nobody waits: it sees workers die, replaces them, ends those whose
//! call takes too long, and collects for those who wait for nothing (`keeper`).
//!
//! | a chunk of calls is | where | who moves it on |
//! |---|---|---|
//! | waiting for a slot | `backlog` | whoever frees a slot |
//! | handed out | `slots`, and on the board | a worker |
//! | being collected | with the collector, its slot's worker counted in `reading` | the collector |
//!
//! A worker's place is not given to another process while somebody reads what the last one has left.

use super::frames::{Elsewhere, Packing, Room, Space};
use super::handover::Receiver;
use super::job::{Callback, Job, Piece};
use super::settings::Settings;
use crate::process::Process;
use crate::unpoisoned::lock;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::fork::Stamp;
use commonhold_ipc::limits::{POOL_AHEAD_BYTES, POOL_SLOTS};
use commonhold_ipc::map::Segment;
use commonhold_ipc::pool::{Board, State as SlotState, Task};
use commonhold_ipc::sync::scribbled;
use commonhold_ipc::sys::ring_bell;
use rkyv::util::AlignedVec;
use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

/// Calls side by side, ready to be handed out.
pub(super) struct Chunk {
    pub(super) job: Arc<Job>,
    /// Number of the first of all its calls.
    pub(super) first: u64,
    /// All its calls.
    pub(super) calls: u32,
    /// How many of them are over.
    pub(super) over: u32,
    /// How often the next one has been begun in vain.
    pub(super) attempts: u32,
    pub(super) packing: Packing,
}

impl Chunk {
    fn rest(&self) -> u32 {
        self.calls - self.over
    }
}

/// A chunk that is on the board.
pub(super) struct HandedOut {
    pub(super) chunk: Chunk,
    /// Its position; none: the board has had no room yet.
    position: Option<u64>,
}

pub(super) struct State {
    pub(super) slots: Vec<Option<HandedOut>>,
    free: Vec<usize>,
    backlog: VecDeque<Chunk>,
    /// Slots that are filled and not on the board.
    unpublished: Vec<usize>,
    /// Collectors that read what the worker of a place has left.
    pub(super) reading: Vec<u32>,
    pub(super) hands: Vec<Option<Hand>>,
    /// How many workers there shall be.
    pub(super) wanted: usize,
    /// How many there have been.
    pub(super) started: u64,
    /// Jobs that are not finished, and those of them that nobody need wait for.
    pub(super) jobs: usize,
    pub(super) jobs_async: usize,
    /// Callers that wait, and those of them who want to be woken for every result.
    pub(super) waiting: usize,
    pub(super) waiting_closely: usize,
    pub(super) keeper_is_wanted: bool,
    /// The keeper looks at how long calls take.
    pub(super) keeper_times: bool,
    pub(super) closed: bool,
    /// Why nothing works any more.
    pub(super) broken: Option<Error>,
    /// The keeper has nothing more to do, and all workers are gone.
    pub(super) ended: bool,
    pub(super) callbacks: Vec<(Arc<Job>, Callback)>,
}

/// A worker, as its owner sees it.
pub(super) struct Hand {
    pub(super) process: Arc<Process<Result<()>>>,
    /// It was told to take no more tasks.
    pub(super) sent_away: bool,
    /// It was killed because a call took too long: the state of the slot that it had then.
    pub(super) condemned: Option<u64>,
    /// Since when its slot and its clock have shown this, and no call runs.
    pub(super) silent: Option<((u64, u64), Instant)>,
}

/// What the pool's handles, its jobs and its keeper share.
pub(super) struct Owner {
    pub(super) stamp: Stamp,
    pub(super) segment: Segment,
    pub(super) file: Arc<File>,
    pub(super) bell: OwnedFd,
    pub(super) settings: Settings,
    pub(super) state: Mutex<State>,
    pub(super) arguments: Mutex<Space>,
    pub(super) receiver: Mutex<Receiver>,
    pub(super) changed: Condvar,
}

/// Large arguments are put where all threads of the owner put theirs.
pub(super) struct Arguments<'c>(pub(super) &'c Owner);

impl Room for Arguments<'_> {
    fn take(&mut self, bytes: u64) -> Result<u64> {
        lock(&self.0.arguments).take(bytes)
    }

    fn give_back(&mut self, at: u64) {
        lock(&self.0.arguments).give_back(at);
    }

    fn file(&self) -> Arc<File> {
        self.0.file.clone()
    }
}

/// What became of a chunk that is taken off the board.
struct Collected {
    slot: usize,
    chunk: Chunk,
    worker: usize,
    /// Why the call that was running will have no result.
    failure: Option<Error>,
    /// No call of it was running: its worker was ended for another one.
    untouched: bool,
}

impl State {
    pub(super) fn new(wanted: usize) -> State {
        State {
            slots: (0..POOL_SLOTS).map(|_| None).collect(),
            // The last one is used next, and so the lowest: what has memory already is used again.
            free: (0..POOL_SLOTS).rev().collect(),
            backlog: VecDeque::new(),
            unpublished: Vec::new(),
            reading: vec![0; wanted],
            hands: (0..wanted).map(|_| None).collect(),
            wanted,
            started: 0,
            jobs: 0,
            jobs_async: 0,
            waiting: 0,
            waiting_closely: 0,
            keeper_is_wanted: false,
            keeper_times: false,
            closed: false,
            broken: None,
            ended: false,
            callbacks: Vec::new(),
        }
    }

    /// Whether nothing is to be done any more.
    pub(super) fn is_done(&self) -> bool {
        self.closed && self.jobs == 0 && self.backlog.is_empty() && self.free.len() == POOL_SLOTS
    }

    fn check(&self) -> Result<()> {
        match &self.broken {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }
}

impl Owner {
    pub(super) fn board(&self) -> Board<'_, Segment> {
        Board::new(&self.segment)
    }

    /// Begins a job.
    ///
    /// # Errors
    /// `UsedAfterFork`, `Closed`, or why the pool does not work any more.
    pub(super) fn begin(&self, job: &Job) -> Result<()> {
        self.stamp.check()?;
        let mut state = lock(&self.state);
        state.check()?;
        if state.closed {
            return Err(Error::new(ErrorKind::Closed, "the pool is closed: it takes no more tasks"));
        }
        state.jobs += 1;
        state.jobs_async += usize::from(job.is_async);
        self.tune(&mut state);
        Ok(())
    }

    fn end(&self, state: &mut State, job: &Job) {
        if !job.is_over_now() {
            return;
        }
        state.jobs -= 1;
        state.jobs_async -= usize::from(job.is_async);
        if state.is_done() {
            ring_bell(&self.bell);
        }
    }

    /// A job that was begun is over for its caller: what it has not begun is called off.
    pub(super) fn finish(&self, job: &Arc<Job>) {
        if !self.stamp.is_current() {
            return;
        }
        let is_complete = job.is_complete();
        job.cancel();
        let mut state = lock(&self.state);
        let over = if is_complete { Vec::new() } else { self.call_off(&mut state, job) };
        self.end(&mut state, job);
        self.tune(&mut state);
        drop(state);
        self.let_go(over);
    }

    /// Takes what a job has not begun away from the workers. What comes back is let go of without the lock.
    #[must_use]
    fn call_off(&self, state: &mut State, job: &Arc<Job>) -> Vec<Chunk> {
        let (mine, others) = std::mem::take(&mut state.backlog).into_iter().partition(|chunk| Arc::ptr_eq(&chunk.job, job));
        state.backlog = others;
        let mut over: Vec<Chunk> = Vec::from_iter::<VecDeque<Chunk>>(mine);
        for slot in 0..POOL_SLOTS {
            let is_open = |handed: &HandedOut| {
                Arc::ptr_eq(&handed.chunk.job, job) && handed.position.is_none_or(|position| self.board().call_off(slot, position))
            };
            if let Some(handed) = state.slots[slot].take_if(|handed| is_open(handed)) {
                state.unpublished.retain(|other| *other != slot);
                state.free.push(slot);
                over.push(handed.chunk);
            }
        }
        self.refill(state);
        over
    }

    /// Frees what chunks take that will not be handed out any more. Not under a lock: objects that only they held are let go of, which
    /// is said to managers, and a manager that is stopped may keep who says it waiting.
    pub(super) fn let_go(&self, chunks: impl IntoIterator<Item = Chunk>) {
        for chunk in chunks {
            let mut arguments = (!chunk.packing.regions.is_empty()).then(|| lock(&self.arguments));
            for at in &chunk.packing.regions {
                arguments.iter_mut().for_each(|arguments| arguments.give_back(*at));
            }
            drop(arguments);
        }
    }

    /// Hands a chunk out, or keeps it until there is room. Its job was begun.
    ///
    /// # Errors
    /// Why the pool does not work any more.
    pub(super) fn submit(&self, chunk: Chunk) -> Result<()> {
        let mut state = lock(&self.state);
        if let Err(error) = state.check() {
            drop(state);
            self.let_go([chunk]);
            return Err(error);
        }
        if state.backlog.is_empty()
            && let Some(slot) = state.free.pop()
        {
            self.hand_out(&mut state, slot, chunk);
        } else {
            state.backlog.push_back(chunk);
        }
        Ok(())
    }

    fn hand_out(&self, state: &mut State, slot: usize, mut chunk: Chunk) {
        let bytes = std::mem::take(&mut chunk.packing.bytes);
        let (function, name) = chunk.job.function;
        let (calls, stops, arguments) = (chunk.calls, chunk.job.stops, bytes.len() as u32);
        let task = Task { function, name, calls, first: 0, arguments, stops };
        self.board().fill(slot, &task, &bytes);
        self.put_up(state, slot, chunk);
    }

    /// Puts what is in a slot on the board, from the first call on that is not over.
    fn put_up(&self, state: &mut State, slot: usize, chunk: Chunk) {
        let position = self.board().publish(slot, chunk.calls, chunk.over);
        if position.is_none() {
            state.unpublished.push(slot);
        }
        state.slots[slot] = Some(HandedOut { chunk, position });
        if self.settings.time_limit.is_some() && !std::mem::replace(&mut state.keeper_times, true) {
            ring_bell(&self.bell);
        }
        self.board().wake(state.hands.len());
    }

    /// Hands out what has waited for room.
    fn refill(&self, state: &mut State) {
        for slot in std::mem::take(&mut state.unpublished) {
            if let Some(handed) = state.slots[slot].take() {
                self.put_up(state, slot, handed.chunk);
            }
        }
        while !state.backlog.is_empty() {
            let Some(slot) = state.free.pop() else { return };
            let Some(chunk) = state.backlog.pop_front() else { return };
            self.hand_out(state, slot, chunk);
        }
    }

    /// Takes what is done off the board, and brings it to those who have asked for it. Whether there was anything.
    pub(super) fn collect(&self) -> bool {
        let board = self.board();
        let mut collected = Vec::new();
        {
            let mut state = lock(&self.state);
            let State { slots, reading, .. } = &mut *state;
            board.silence(|slot| {
                if let SlotState::Done(worker) = board.state(slot)
                    && worker < reading.len()
                    && let Some(handed) = slots[slot].take()
                {
                    reading[worker] += 1;
                    collected.push(Collected { slot, chunk: handed.chunk, worker, failure: None, untouched: false });
                }
            });
        }
        let any = !collected.is_empty();
        self.settle(collected);
        any
    }

    /// Takes what a worker has left that is dead off the board. `failure` says why a call has no result. One that was `condemned` while a slot's
    /// state was this has begun nothing of a task that it took later.
    pub(super) fn recover(&self, place: usize, condemned: Option<u64>, mut failure: impl FnMut(&Chunk, u32) -> Error) {
        let board = self.board();
        let mut collected = Vec::new();
        {
            let mut state = lock(&self.state);
            let State { slots, reading, .. } = &mut *state;
            for (slot, handed) in slots.iter_mut().enumerate() {
                let is_taken = match board.state(slot) {
                    SlotState::Taken(worker) if worker == place => true,
                    SlotState::Done(worker) if worker == place => false,
                    _ => continue,
                };
                let untouched = is_taken && condemned.is_some_and(|had| had != board.state_word(slot));
                if let Some(HandedOut { chunk, .. }) = handed.take() {
                    reading[place] += 1;
                    let done = board.progress(slot).calls;
                    let failure = (is_taken && !untouched && done < chunk.rest()).then(|| failure(&chunk, done));
                    collected.push(Collected { slot, chunk, worker: place, failure, untouched });
                }
            }
        }
        self.settle(collected);
    }

    /// Reads the results of chunks, delivers them, and hands out again what is left of the chunks.
    fn settle(&self, collected: Vec<Collected>) {
        if collected.is_empty() {
            return;
        }
        let mut settled = Vec::with_capacity(collected.len());
        let mut ready = Vec::new();
        for mut one in collected {
            for piece in self.pieces(&mut one) {
                let (finished, callback) = one.chunk.job.deliver(piece);
                if finished {
                    ready.push((one.chunk.job.clone(), callback));
                }
            }
            settled.push(one);
        }
        let mut over = Vec::new();
        let mut state = lock(&self.state);
        for Collected { slot, chunk, worker, .. } in settled {
            state.reading[worker] -= 1;
            if chunk.rest() > 0 && !chunk.job.is_cancelled() && state.broken.is_none() {
                self.put_up(&mut state, slot, chunk);
            } else {
                if chunk.rest() > 0
                    && let Some(error) = &state.broken
                {
                    // Whoever gave the pool up did not see it.
                    let (finished, callback) = chunk.job.fail(error);
                    ready.extend(finished.then(|| (chunk.job.clone(), callback)));
                }
                self.board().free(slot);
                state.free.push(slot);
                over.push(chunk);
            }
            if self.board().is_leaving(worker) {
                self.board().wake_worker(worker);
            }
            if state.hands[worker].is_none() {
                // The keeper waits for this place.
                ring_bell(&self.bell);
            }
        }
        over.extend(self.done(&mut state, ready));
        self.refill(&mut state);
        if state.is_done() {
            ring_bell(&self.bell);
        }
        let ended = state.ended;
        drop(state);
        if ended {
            self.clear_up();
            self.call_back();
        }
        self.board().callers().notify_all();
        self.let_go(over);
    }

    /// Jobs are finished. What comes back is let go of without the lock.
    #[must_use]
    fn done(&self, state: &mut State, ready: Vec<(Arc<Job>, Option<Callback>)>) -> Vec<Chunk> {
        let mut over = Vec::new();
        for (job, callback) in ready {
            if job.is_async {
                // Of others the caller says when they are over.
                if !job.is_complete() {
                    over.extend(self.call_off(state, &job));
                }
                self.end(state, &job);
            }
            if let Some(callback) = callback {
                state.callbacks.push((job, callback));
                ring_bell(&self.bell);
            }
        }
        self.tune(state);
        over
    }

    /// What has come of a chunk: the results that are there, and the failure of the call that was running.
    fn pieces(&self, one: &mut Collected) -> Vec<Piece> {
        let chunk = &mut one.chunk;
        let progress = self.board().progress(one.slot);
        let mut pieces = Vec::with_capacity(1);
        let function = chunk.job.entry.name();
        let calls = progress.calls.min(chunk.rest());
        if calls > 0 {
            let mut frames = AlignedVec::new();
            let first = chunk.first + u64::from(chunk.over);
            pieces.push(match self.board().results(one.slot, &progress, &mut frames) {
                Ok(()) => {
                    let who = |number| format!("`{function}` in a pool's worker{}", chunk.job.on_item(number));
                    let elsewhere = Elsewhere { file: &self.file, receiver: Some(&self.receiver) };
                    Piece::read(first, calls, frames, elsewhere, who)
                }
                Err(error) => Piece::failed(first, calls, &error),
            });
            chunk.over += calls;
            chunk.attempts = 0;
        } else if one.failure.is_none() && !one.untouched {
            // Done, and nothing was done: no worker of ours writes that.
            one.failure = Some(scribbled("pool"));
            chunk.attempts = u32::MAX;
        }
        if let Some(failure) = one.failure.take() {
            if chunk.attempts < self.settings.retries {
                chunk.attempts += 1;
            } else {
                pieces.push(Piece::failed(chunk.first + u64::from(chunk.over), 1, &failure));
                chunk.over += 1;
                chunk.attempts = 0;
            }
        }
        pieces
    }

    /// Looks whether the board still says what it can say. If another process has written over it, nothing works any more: that is
    /// told, where otherwise everybody would wait.
    pub(super) fn look_over(&self) {
        let board = self.board();
        let sane = {
            let mut state = lock(&self.state);
            if !state.unpublished.is_empty() {
                // Workers have passed over what kept the board full since, and told nobody.
                self.refill(&mut state);
            }
            let handed_out = state.slots.iter().enumerate().filter_map(|(slot, handed)| Some((slot, handed.as_ref()?.position?)));
            let mut sane = true;
            for (slot, position) in handed_out {
                sane &= board.is_sane(slot, position);
                if let SlotState::Done(_) = board.state(slot) {
                    board.ring_for(slot);
                }
            }
            board.wake(state.hands.len());
            sane
        };
        if !sane {
            self.give_up(&scribbled("pool"));
        }
    }

    /// Has something done when a job is finished: by the keeper, or here and now, if that has ended.
    pub(super) fn call_back_when(&self, job: &Arc<Job>, callback: Callback) {
        let Some(callback) = job.when_finished(callback) else { return };
        let mut state = lock(&self.state);
        if state.ended {
            drop(state);
            return callback(job);
        }
        state.callbacks.push((job.clone(), callback));
        drop(state);
        ring_bell(&self.bell);
    }

    /// Nothing works any more: everything that was asked for fails with this error.
    pub(super) fn give_up(&self, error: &Error) {
        let mut state = lock(&self.state);
        if state.broken.is_some() {
            return;
        }
        state.broken = Some(error.clone());
        let mut chunks: Vec<Chunk> = std::mem::take(&mut state.backlog).into();
        for slot in 0..POOL_SLOTS {
            if let Some(handed) = state.slots[slot].take() {
                // A worker that has it goes on until it is killed.
                self.board().free(slot);
                state.free.push(slot);
                chunks.push(handed.chunk);
            }
        }
        state.unpublished.clear();
        let mut ready = Vec::new();
        for chunk in &chunks {
            let (finished, callback) = chunk.job.fail(error);
            if finished {
                ready.push((chunk.job.clone(), callback));
            }
        }
        chunks.extend(self.done(&mut state, ready));
        drop(state);
        ring_bell(&self.bell);
        self.changed.notify_all();
        self.board().callers().notify_all();
        self.let_go(chunks);
    }

    /// No more jobs are taken.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        self.tune(&mut state);
        ring_bell(&self.bell);
    }

    /// Gives it another number of workers.
    pub(super) fn resize(&self, workers: usize) -> Result<()> {
        let mut state = lock(&self.state);
        state.check()?;
        if state.closed {
            return Err(Error::new(ErrorKind::Closed, "the pool is closed, and its workers end: it gets no others"));
        }
        state.wanted = workers;
        let places = workers.max(state.hands.len());
        state.hands.resize_with(places, || None);
        state.reading.resize(places, 0);
        drop(state);
        ring_bell(&self.bell);
        Ok(())
    }

    /// Calls of a job that are done in tasks that are not.
    pub(super) fn running(&self, job: &Arc<Job>) -> u64 {
        let state = lock(&self.state);
        let mine = |handed: &&HandedOut| Arc::ptr_eq(&handed.chunk.job, job);
        let slots = state.slots.iter().enumerate().filter_map(|(slot, handed)| Some((slot, handed.as_ref().filter(mine)?)));
        slots.map(|(slot, handed)| u64::from(self.board().progress(slot).calls.min(handed.chunk.rest()))).sum()
    }

    /// Whether another chunk of a job should be handed out now.
    pub(super) fn has_room(&self, on_their_way: u64) -> bool {
        if on_their_way == 0 {
            return true;
        }
        let state = lock(&self.state);
        !state.free.is_empty() && state.backlog.is_empty() && lock(&self.arguments).in_use() < POOL_AHEAD_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::super::builder::owner;
    use super::super::worker::entry;
    use super::*;
    use commonhold_ipc::pool::Took;
    use commonhold_ipc::sys::silence_bell;

    fn settings() -> Settings {
        Settings {
            name: "tried".to_owned(),
            initializer: None,
            calls_most: None,
            retries: 0,
            time_limit: None,
            chunk_size: None,
            look_ahead: None,
            cpus: None,
            one_cpu_each: false,
            environment: Vec::new(),
        }
    }

    fn job(calls: u64) -> Arc<Job> {
        let job = Job::new(entry::<_, (u64,), _>(|number: u64| number), false, false).unwrap();
        job.set_total(calls);
        job
    }

    fn chunk(job: &Arc<Job>, calls: u32) -> Chunk {
        let packing = Packing { bytes: vec![0; 16], ..Packing::default() };
        Chunk { job: job.clone(), first: 0, calls, over: 0, attempts: 0, packing }
    }

    /// Has a worker of this place take the next task. `None`: there is none for it.
    fn take(owner: &Owner, place: usize) -> Option<usize> {
        owner.board().open_place(place);
        owner.board().begin(place);
        match owner.board().take(place).unwrap() {
            Took::Task(slot) => Some(slot),
            Took::Nothing | Took::Leave => None,
        }
    }

    /// Has the worker of the first place do one call of the next task, and no more of it: where that is.
    fn do_one(owner: &Owner) -> usize {
        let (board, slot) = (owner.board(), take(owner, 0).unwrap());
        board.add_result(slot, &mut board.progress(slot), &[], true);
        board.finish(0, slot).unwrap();
        slot
    }

    /// Its place is not taken while its results are read, and nothing else tells the keeper when that is over: a pool without other workers would stand
    /// still for ever.
    #[test]
    fn the_keeper_is_told_of_a_place_whose_results_are_read_whether_there_is_more_to_do_or_not() {
        let (owner, job) = (owner(1, settings()).unwrap(), job(2));
        owner.begin(&job).unwrap();
        owner.submit(chunk(&job, 2)).unwrap();
        for left in [1, 0] {
            // A worker that may do one call does it, leaves, and has been buried when somebody collects.
            do_one(&owner);
            silence_bell(&owner.bell);
            assert!(owner.collect() && job.is_finished() == (left == 0));
            assert!(lock(&owner.state).reading == [0] && silence_bell(&owner.bell), "{left} calls are left");
        }
    }

    #[test]
    fn a_pool_that_is_given_up_fails_what_is_just_being_collected() {
        let (owner, job) = (owner(1, settings()).unwrap(), job(2));
        owner.begin(&job).unwrap();
        owner.submit(chunk(&job, 2)).unwrap();
        let slot = do_one(&owner);
        // In the collector's hands, with one call of two done.
        let chunk = lock(&owner.state).slots[slot].take().unwrap().chunk;
        lock(&owner.state).reading[0] += 1;
        owner.give_up(&Error::other("ended"));
        assert!(!job.is_finished(), "nobody knows of it but who collects");
        owner.settle(vec![Collected { slot, chunk, worker: 0, failure: None, untouched: false }]);
        assert!(job.is_finished() && lock(&job.gathered).error.as_ref().is_some_and(|error| error.to_string().contains("ended")));
        assert_eq!(lock(&owner.state).free.len(), POOL_SLOTS);
    }

    #[test]
    fn the_keeper_runs_what_is_to_be_done_before_it_ends() {
        let (owner, job) = (owner(1, settings()).unwrap(), job(0));
        owner.close();
        let is_done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let its = is_done.clone();
        owner.state.lock().unwrap().callbacks.push((job, Box::new(move |_| its.store(true, std::sync::atomic::Ordering::Relaxed))));
        std::thread::scope(|scope| scope.spawn(|| super::super::keeper::keep(&owner)).join().unwrap());
        assert!(is_done.load(std::sync::atomic::Ordering::Relaxed) && lock(&owner.state).ended);
    }

    #[test]
    fn what_the_board_had_no_room_for_is_put_up_when_workers_have_passed_over_the_rest() {
        let (owner, first) = (owner(2, settings()).unwrap(), job(1));
        let submit = |job: &Arc<Job>| {
            owner.begin(job).unwrap();
            owner.submit(chunk(job, 1)).unwrap();
        };
        submit(&first);
        // Called off, they stay on the board until a worker passes.
        while lock(&owner.state).unpublished.is_empty() {
            let job = job(1);
            submit(&job);
            if lock(&owner.state).unpublished.is_empty() {
                owner.finish(&job);
            }
        }
        let waiting = lock(&owner.state).unpublished[0];
        assert!(take(&owner, 0).is_some() && take(&owner, 1).is_none());
        owner.look_over();
        assert_eq!(take(&owner, 1), Some(waiting));
    }
}
