//! A pool's board: how one process, the owner, hands tasks to many workers, and gets results back.
//!
//! **One writer hands out.** Only the owner puts tasks up, under a lock of its own, and the workers end with it; so nothing here has to
//! outlive an owner that dies half-way. Workers may die at any instruction, and then exactly their one task is affected: a task lies in
//! a *slot*, and **the slot's state names the worker** that has it from the exchange on by which it was taken.
//!
//! | state of a slot | meaning | who may change it |
//! |---|---|---|
//! | 0 | the owner's: free, or being filled, or being read | the owner |
//! | position, *ready* | to be had, once the cell of that position says the slot | a worker, by exchange, to *taken*; the owner, by exchange, to 0 |
//! | position, worker, *taken* | the worker works on it | the worker, by exchange, to *done*; the owner, once that process is dead |
//! | position, worker, *done* | the results are there | the owner |
//!
//! Order comes from a ring of *cells*, slot numbers, which the owner writes. A worker looks at the cell of the head, and exchanges that
//! slot's state if it is *ready* with this very position: a position is never used twice, so whoever comes late changes nothing.
//! Then anybody advances the head. A task that was called off leaves its cell behind, which is passed over.
//!
//! A task may be several calls (a chunk). Each result is written behind the last, and then counted in the slot's *progress*, before the
//! next call begins. So whatever becomes of the worker, the owner knows which calls are done, and which one was running.
//!
//! | progress of a slot | meaning |
//! |---|---|
//! | bits 0–23 | calls that are done |
//! | bits 24–62 | bytes of their results |
//! | bit 63 | the results lie in the slot itself, not in its window |
//!
//! | phase of a worker | meaning | who writes it |
//! |---|---|---|
//! | 0 | it starts: has not looked for a task yet | the owner, before it starts one |
//! | 1 | busy | the worker |
//! | 2 | it looks for a task, or was woken to do so | the worker; the owner, by exchange for 3, which then wakes it |
//! | 3 | it sleeps, or is about to: having set this, it has looked once more | the worker |
//! | 4 | it takes no more tasks | the worker |
//! | + 8 | it shall take no more | the owner |
//!
//! **No wake-up is lost, and none is wasted.** The owner puts a task up, reads the head, then the phases, and wakes as many sleepers as
//! there are tasks beyond those who look. A worker is *busy* before it takes. So one that was seen looking takes after the owner's
//! look, and finds all that was put up before. Likewise back: a worker sets the slot's bit of the *bells*, then looks whether somebody
//! sleeps for it; who sleeps has announced it first and looked at the bells then.

mod layout;

pub use layout::{ARGUMENTS_INLINE_BYTES, CALLS_MAX, FILE_BASE, RESULTS_INLINE_BYTES, SEGMENT_BYTES, WINDOW_BYTES};

use crate::error::Result;
use crate::limits::{POOL_SLOTS, POOL_WORKERS_MAX};
use crate::points;
use crate::queue::Room;
use crate::sync::{Eventcount, Half, Word, scribbled};
use layout::{BELLS, CALLERS, CELLS, HEAD, KEEPER, QUIET, TAIL, cell, clock, phase, result_window, slot, window};
use rkyv::util::AlignedVec;

const READY: u64 = 1;
const TAKEN: u64 = 2;
const DONE: u64 = 3;
const KIND_MASK: u64 = 0xf;
const WORKER_SHIFT: u32 = 4;
const WORKER_MASK: u64 = 0xffff;
const POSITION_SHIFT: u32 = 20;

const STARTING: u32 = 0;
const BUSY: u32 = 1;
const LOOKING: u32 = 2;
const ASLEEP: u32 = 3;
const LEAVING: u32 = 4;
const PHASE_MASK: u32 = 7;
const LEAVE: u32 = 8;

// | clock of a worker whose calls have a time limit | meaning | who writes it |
// |---|---|---|
// | odd, or 0 | no call runs: another number each time | the worker, by exchange for what it wrote last |
// | even | a call runs that began then: nanoseconds of the monotonic clock | the worker, likewise |
// | all ones | condemned: it begins no call, and puts no result up, any more | the owner, by exchange for what it looked at |
//
// **A call is over, or its worker is condemned for it.** Both are exchanges for one number that is used once. So the worker is killed for no
// other call than the one that took too long, however late the owner comes.
const CONDEMNED: u64 = u64::MAX;

const CALLS_BITS: u32 = 24;
const IN_SLOT: u64 = 1 << 63;
const STOPS: u64 = 1 << 63;

const _: () = assert!(CALLS_MAX < 1 << CALLS_BITS && POOL_WORKERS_MAX as u64 <= WORKER_MASK && POOL_SLOTS <= 1 << 16);

/// What a slot's state says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The owner's.
    Free,
    /// To be taken.
    Ready,
    /// This worker's.
    Taken(usize),
    /// This worker's results.
    Done(usize),
}

/// What an attempt to take a task came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    /// The task in this slot is the worker's.
    Task(usize),
    /// There is none now.
    Nothing,
    /// The worker shall take no more.
    Leave,
}

/// What a slot holds for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Where the function's entry lies.
    pub function: u64,
    /// A hash of its name.
    pub name: u64,
    /// Calls of the task.
    pub calls: u32,
    /// The first of them that is to be done.
    pub first: u32,
    /// Bytes of the arguments of all calls.
    pub arguments: u32,
    /// Whether a call that fails is the last.
    pub stops: bool,
}

/// What is left to do when a task is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The slot's state, until the owner has taken the results.
    pub state: u64,
    /// Whether the owner's keeper is to be told.
    pub tell_keeper: bool,
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Calls that are done, from the task's first on.
    pub calls: u32,
    /// Bytes of their results.
    pub bytes: u32,
    /// Where these are.
    pub in_slot: bool,
}

/// The words of a segment, as a pool's board.
pub struct Board<'m, M: Room + ?Sized> {
    memory: &'m M,
}

impl<'m, M: Room + ?Sized> Board<'m, M> {
    /// The board in this memory, which begins as zeros.
    #[inline(always)]
    pub fn new(memory: &'m M) -> Self {
        Board { memory }
    }

    #[inline(always)]
    fn at(&self, at: usize) -> &'m M::Word {
        self.memory.word(at)
    }

    // ---- The owner's side ----

    /// Fills a free slot.
    pub fn fill(&self, number: usize, task: &Task, arguments: &[u8]) {
        let at = slot(number);
        // SYNC: relaxed, like all of a slot's content: the state, set behind it, publishes it.
        self.at(at + layout::FUNCTION).store(task.function);
        self.at(at + layout::NAME).store(task.name);
        let stops = if task.stops { STOPS } else { 0 };
        self.at(at + layout::ARGUMENTS).store(u64::from(task.arguments) | stops);
        let place = if arguments.len() <= ARGUMENTS_INLINE_BYTES { at + layout::ARGUMENTS_INLINE } else { window(number) };
        self.memory.put(place, arguments);
    }

    /// Puts the task of a filled slot up, from call `first` on. Its position; none if the ring is full of what was called off.
    pub fn publish(&self, number: usize, calls: u32, first: u32) -> Option<u64> {
        let tail = self.at(TAIL).load();
        if tail.wrapping_sub(self.at(HEAD).load()) >= CELLS {
            self.pass_over(tail);
            if tail.wrapping_sub(self.at(HEAD).load()) >= CELLS {
                return None;
            }
        }
        let at = slot(number);
        self.at(at + layout::CALLS).store(u64::from(first) << 32 | u64::from(calls));
        self.at(at + layout::PROGRESS).store(0);
        // SYNC: Release, pairs with the exchange of whoever takes it.
        self.at(at).set(tail << POSITION_SHIFT | READY);
        self.at(cell(tail)).set(number as u64);
        // SYNC: SeqCst: before the looks of `wake`, and seen by a sleeper's last look (`is_idle`).
        self.at(TAIL).swap(tail.wrapping_add(1));
        Some(tail)
    }

    /// Advances the head over what was called off.
    fn pass_over(&self, tail: u64) {
        let mut head = self.at(HEAD).load();
        while head != tail && !self.is_ready(head) {
            let _ = self.at(HEAD).compare_exchange(head, head.wrapping_add(1));
            head = head.wrapping_add(1);
        }
    }

    fn is_ready(&self, position: u64) -> bool {
        let number = self.at(cell(position)).load() as usize;
        number < POOL_SLOTS && self.at(slot(number)).load() == position << POSITION_SHIFT | READY
    }

    /// Wakes as many of the first `workers` as there are tasks beyond those who look for one.
    #[inline]
    pub fn wake(&self, workers: usize) {
        // The head first: see the module's head.
        let mut open = self.pending();
        let phases = || (0..workers).map(|worker| self.memory.half(phase(worker)));
        for word in phases() {
            if open == 0 {
                return;
            }
            open -= u64::from(word.load() == LOOKING);
        }
        for word in phases() {
            if open == 0 {
                return;
            }
            if word.load() == ASLEEP && word.compare_exchange(ASLEEP, LOOKING).is_ok() {
                self.memory.wake(word, 1);
                open -= 1;
            }
        }
    }

    /// Tasks that nobody has taken, and cells of those that were called off.
    #[inline]
    pub fn pending(&self) -> u64 {
        let head = self.at(HEAD).load();
        self.at(TAIL).load().wrapping_sub(head).min(CELLS)
    }

    /// Calls a task off that nobody has taken. Whether it was so.
    pub fn call_off(&self, number: usize, position: u64) -> bool {
        self.at(slot(number)).compare_exchange(position << POSITION_SHIFT | READY, 0).is_ok()
    }

    /// What a slot's state says.
    #[inline]
    pub fn state(&self, number: usize) -> State {
        let word = self.at(slot(number)).load();
        let worker = (word >> WORKER_SHIFT & WORKER_MASK) as usize;
        match word & KIND_MASK {
            READY => State::Ready,
            TAKEN => State::Taken(worker),
            DONE => State::Done(worker),
            _ => State::Free,
        }
    }

    /// The whole word of a slot's state: another one for every time that it is handed out.
    #[inline]
    pub fn state_word(&self, number: usize) -> u64 {
        self.at(slot(number)).load()
    }

    /// Takes a slot back: its worker is done with it, or dead.
    #[inline]
    pub fn free(&self, number: usize) {
        self.at(slot(number)).swap(0);
    }

    /// How far a slot's task is.
    #[inline]
    pub fn progress(&self, number: usize) -> Progress {
        let word = self.at(slot(number) + layout::PROGRESS).load();
        let calls = (word & ((1 << CALLS_BITS) - 1)) as u32;
        Progress { calls, bytes: (word >> CALLS_BITS) as u32 & u32::MAX >> 1, in_slot: word & IN_SLOT != 0 }
    }

    /// Copies the results of a slot that is done.
    ///
    /// # Errors
    /// `Corrupt` if there are more bytes than have room.
    pub fn results(&self, number: usize, progress: &Progress, out: &mut AlignedVec<16>) -> Result<()> {
        let (at, room) = match progress.in_slot {
            true => (slot(number) + layout::RESULTS_INLINE, RESULTS_INLINE_BYTES),
            false => (result_window(number), WINDOW_BYTES),
        };
        let bytes = progress.bytes as usize;
        if bytes > room {
            return Err(nonsense());
        }
        self.memory.get(at, bytes, out);
        Ok(())
    }

    /// Whether the words say what can be said of a task that was put up at this position: that it waits, and was not passed over; that
    /// somebody has it, or has done it. For looks now and then, in case another process has written over the board.
    pub fn is_sane(&self, number: usize, position: u64) -> bool {
        let head = self.at(HEAD).load();
        let word = self.at(slot(number)).load();
        let passed_over = head.wrapping_sub(position).cast_signed() > 0;
        let is_open = word & KIND_MASK == READY;
        let is_right =
            word >> POSITION_SHIFT == position << POSITION_SHIFT >> POSITION_SHIFT && matches!(word & KIND_MASK, READY | TAKEN | DONE);
        is_right && !(is_open && passed_over)
    }

    /// Rings the bell of a task that is done, in case its worker has not.
    pub fn ring_for(&self, number: usize) {
        let bells = self.at(BELLS + 8 * (number / 64));
        let mut rung = bells.load();
        while let Err(now) = bells.compare_exchange(rung, rung | 1 << (number % 64)) {
            rung = now;
        }
    }

    /// Whether any bell has rung.
    #[inline]
    pub fn has_rung(&self) -> bool {
        (0..POOL_SLOTS / 64).any(|word| self.at(BELLS + 8 * word).load() != 0)
    }

    /// Whether this slot's bell has rung.
    #[inline]
    pub fn has_rung_for(&self, number: usize) -> bool {
        self.at(BELLS + 8 * (number / 64)).load() & 1 << (number % 64) != 0
    }

    /// Silences the bells, and says whose they were.
    pub fn silence(&self, mut rung: impl FnMut(usize)) {
        for word in 0..POOL_SLOTS / 64 {
            let bells = self.at(BELLS + 8 * word);
            if bells.load() == 0 {
                continue;
            }
            let mut bits = bells.swap(0);
            while bits != 0 {
                rung(word * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }

    /// Where the owner's threads sleep.
    #[inline(always)]
    pub fn callers(&self) -> Eventcount<'m, M> {
        Eventcount::new(self.memory, CALLERS)
    }

    /// Sleepers are to be woken only while no more than so many tasks are pending.
    pub fn wake_below(&self, pending: u64) {
        self.at(QUIET).swap(!pending);
    }

    /// Whether a worker shall ring for the keeper, once.
    pub fn set_keeper(&self, wanted: bool) {
        self.at(KEEPER).swap(u64::from(wanted));
    }

    /// A place on the board is for a new worker; its predecessor is dead.
    pub fn open_place(&self, worker: usize) {
        self.change_phase(worker, |_| STARTING);
        self.at(clock(worker)).swap(0);
    }

    /// Whether a worker has not come so far as to look for a task.
    pub fn is_starting(&self, worker: usize) -> bool {
        self.memory.half(phase(worker)).load() & PHASE_MASK == STARTING
    }

    /// Tells a worker to take no more tasks.
    pub fn send_away(&self, worker: usize) {
        self.change_phase(worker, |word| word | LEAVE);
        self.wake_worker(worker);
    }

    /// Wakes a worker, whatever it sleeps for.
    pub fn wake_worker(&self, worker: usize) {
        self.memory.wake(self.memory.half(phase(worker)), 1);
    }

    /// Whether a worker takes no more tasks.
    pub fn is_leaving(&self, worker: usize) -> bool {
        self.memory.half(phase(worker)).load() & PHASE_MASK == LEAVING
    }

    /// What a worker's clock shows.
    pub fn clock(&self, worker: usize) -> u64 {
        self.at(clock(worker)).load()
    }

    /// Condemns a worker whose clock still shows this: it gets no further. Whether it is so.
    pub fn condemn(&self, worker: usize, shown: u64) -> bool {
        self.at(clock(worker)).compare_exchange(shown, CONDEMNED).is_ok()
    }

    // ---- A worker's side ----

    fn change_phase(&self, worker: usize, change: impl Fn(u32) -> u32) -> u32 {
        let half = self.memory.half(phase(worker));
        loop {
            let word = half.load();
            // Fails only when the other of the two who write it does.
            if half.compare_exchange(word, change(word)).is_ok() {
                return word;
            }
        }
    }

    fn enter(&self, worker: usize, to: u32) -> bool {
        self.change_phase(worker, |word| word & LEAVE | to) & LEAVE != 0
    }

    /// The worker is up, and busy.
    pub fn begin(&self, worker: usize) {
        self.enter(worker, BUSY);
    }

    /// Takes the next task. The worker is busy before.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn take(&self, worker: usize) -> Result<Took> {
        if self.memory.half(phase(worker)).load() & LEAVE != 0 {
            return Ok(Took::Leave);
        }
        loop {
            let head = self.at(HEAD).load();
            let ahead = self.at(TAIL).load().wrapping_sub(head);
            if ahead == 0 {
                return Ok(Took::Nothing);
            }
            if ahead > CELLS {
                // A head from before it was advanced by others, or nonsense.
                if self.at(HEAD).load() == head {
                    return Err(nonsense());
                }
                continue;
            }
            let number = self.at(cell(head)).load() as usize;
            if number >= POOL_SLOTS {
                return Err(nonsense());
            }
            let ready = head << POSITION_SHIFT | READY;
            let mine = head << POSITION_SHIFT | (worker as u64) << WORKER_SHIFT | TAKEN;
            let state = self.at(slot(number));
            let taken = state.load() == ready && state.compare_exchange(ready, mine).is_ok();
            points::client("pool: task taken, its cell is there");
            let _ = self.at(HEAD).compare_exchange(head, head.wrapping_add(1));
            if taken {
                points::client("pool: task taken");
                return Ok(Took::Task(number));
            }
        }
    }

    /// The worker looks for a task.
    pub fn look(&self, worker: usize) {
        self.enter(worker, LOOKING);
    }

    /// Whether there is nothing that a worker should get up for.
    #[inline]
    pub fn is_idle(&self, worker: usize) -> bool {
        self.at(TAIL).load() == self.at(HEAD).load() && self.memory.half(phase(worker)).load() & LEAVE == 0
    }

    /// The worker is about to sleep. If [`is_idle`](Self::is_idle) then still says so, it sleeps while its half word is what comes back.
    pub fn lie_down(&self, worker: usize) -> (&'m M::Half, u32) {
        self.enter(worker, ASLEEP);
        (self.memory.half(phase(worker)), ASLEEP)
    }

    /// The worker takes no more tasks. Its half word, to wait on, and what it holds.
    pub fn leave(&self, worker: usize) -> (&'m M::Half, u32) {
        let told = self.enter(worker, LEAVING);
        (self.memory.half(phase(worker)), LEAVING | if told { LEAVE } else { 0 })
    }

    /// The task of a slot that the worker has, and its arguments.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn task(&self, number: usize, arguments: &mut AlignedVec<16>) -> Result<Task> {
        let at = slot(number);
        let (calls, len) = (self.at(at + layout::CALLS).load(), self.at(at + layout::ARGUMENTS).load());
        let (len, stops) = (len & !STOPS, len & STOPS != 0);
        let (calls, first) = (calls as u32, (calls >> 32) as u32);
        if len > WINDOW_BYTES as u64 || calls > CALLS_MAX || first > calls {
            return Err(nonsense());
        }
        let len = len as usize;
        let place = if len <= ARGUMENTS_INLINE_BYTES { at + layout::ARGUMENTS_INLINE } else { window(number) };
        self.memory.get(place, len, arguments);
        let (function, name) = (self.at(at + layout::FUNCTION).load(), self.at(at + layout::NAME).load());
        Ok(Task { function, name, calls, first, arguments: len as u32, stops })
    }

    /// Sets a worker's clock from what the worker has set it to last. `false`: it is condemned.
    pub fn set_clock(&self, worker: usize, last: u64, new: u64) -> bool {
        self.at(clock(worker)).compare_exchange(last, new).is_ok()
    }

    /// Writes the results of one more call behind those of the others, and counts it. `alone`: it is the task's only one.
    pub fn add_result(&self, number: usize, progress: &mut Progress, results: &[u8], alone: bool) {
        progress.in_slot = alone && results.len() <= RESULTS_INLINE_BYTES;
        let place = if progress.in_slot { slot(number) + layout::RESULTS_INLINE } else { result_window(number) };
        self.memory.put(place + progress.bytes as usize, results);
        points::client("pool: result written, not counted");
        progress.calls += 1;
        progress.bytes += results.len() as u32;
        let flag = if progress.in_slot { IN_SLOT } else { 0 };
        // SYNC: Release, pairs with the load in `progress`.
        self.at(slot(number) + layout::PROGRESS).set(flag | u64::from(progress.bytes) << CALLS_BITS | u64::from(progress.calls));
    }

    /// Room for further results of a task.
    pub fn results_left(progress: &Progress) -> usize {
        WINDOW_BYTES - progress.bytes as usize
    }

    /// The worker is done with the task in a slot.
    ///
    /// # Errors
    /// `Corrupt` if the slot says that it is not the worker's.
    pub fn finish(&self, worker: usize, number: usize) -> Result<Finished> {
        let state = self.at(slot(number));
        let word = state.load();
        let done = word & !KIND_MASK | DONE;
        if self.state(number) != State::Taken(worker) || state.compare_exchange(word, done).is_err() {
            return Err(nonsense());
        }
        points::client("pool: task done, no bell has rung");
        self.ring_for(number);
        points::client("pool: bell rung, nobody woken");
        if self.pending() <= !self.at(QUIET).load() {
            self.callers().notify_all();
        }
        let keeper = self.at(KEEPER);
        Ok(Finished { state: done, tell_keeper: keeper.load() != 0 && keeper.compare_exchange(1, 0).is_ok() })
    }
}

#[cold]
fn nonsense() -> crate::error::Error {
    scribbled("pool")
}
