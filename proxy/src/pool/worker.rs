//! A worker's life: takes tasks off the board, calls, puts the results there.

use super::frames::{Elsewhere, FRAMES_BYTES_MAX, Frames, Handing, Kind, Packing, Room, Space};
use super::handover::Sender;
use crate::panics::{caught, shielded};
use crate::process::{PanicReport, Task, handed, panic_report, panicked, unpack};
use crate::session::Stored;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::{POOL_LARGE_PAGES_AGAIN, POOL_LARGE_PAGES_BYTES, POOL_LOOK_MS, POOL_PASSED_MAX, POOL_SEALED_BYTES};
use commonhold_ipc::map::{Access, Segment};
use commonhold_ipc::points;
use commonhold_ipc::pool::{Board, Progress, SEGMENT_BYTES, Took};
use commonhold_ipc::socket::{Sent, Spin};
use commonhold_ipc::sys::{futex_wait, kill_self, monotonic_ns, ring_bell};
use commonhold_ipc::task::{Entry, Runner};
use commonhold_ipc::value::Shared;
use rkyv::util::AlignedVec;
use std::any::Any;
use std::fmt::Display;
use std::fs::File;
use std::marker::PhantomData;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A function to be called first in every worker: its entry, a hash of its name, its arguments' frames.
pub(super) type Initializer = (u64, u64, Vec<u8>);

/// What a pool's initializer may return: nothing, or whether it has failed.
#[diagnostic::on_unimplemented(
    message = "a pool's initializer cannot return `{Self}`",
    note = "it returns nothing, or `Result<(), E>` with an error that can be shown: what it makes for the tasks, it leaves in a static"
)]
pub trait InitializerResult {
    #[doc(hidden)]
    fn begun(self) -> Result<()>;
}

impl InitializerResult for () {
    fn begun(self) -> Result<()> {
        Ok(())
    }
}

impl<E: Display + 'static> InitializerResult for Result<(), E> {
    fn begun(self) -> Result<()> {
        // An error of ours keeps its kind.
        self.map_err(|error| (&error as &dyn Any).downcast_ref::<Error>().cloned().unwrap_or_else(|| Error::other(&error)))
    }
}

/// Calls a function with each of a task's arguments.
struct Each<A, M>(PhantomData<fn(A, M)>);

impl<F, A, M> Runner<F> for Each<A, M>
where
    F: Task<A, M>,
    A: Shared,
    F::Output: Shared,
{
    fn run(function: F, passage: &mut dyn Any) {
        let worker = passage.downcast_mut::<Worker>().expect("a pool's function runs in a worker");
        worker.each(|arguments: A| function.call(arguments));
    }
}

/// Calls an initializer, and sees whether it failed.
struct First<A, M>(PhantomData<fn(A, M)>);

impl<F, A, M> Runner<F> for First<A, M>
where
    F: Task<A, M>,
    A: Shared,
    F::Output: InitializerResult,
{
    fn run(function: F, passage: &mut dyn Any) {
        let worker = passage.downcast_mut::<Worker>().expect("a pool's function runs in a worker");
        worker.each(|arguments: A| function.call(arguments).begun());
    }
}

/// What names an initializer to a pool's workers.
pub(super) fn first_entry<F, A, M>(function: F) -> &'static Entry
where
    F: Task<A, M>,
    A: Shared,
    F::Output: InitializerResult,
    M: 'static,
{
    Entry::of::<F, First<A, M>>(function)
}

/// What names a function to a pool's workers.
pub(super) fn entry<F, A, M>(function: F) -> &'static Entry
where
    F: Task<A, M>,
    A: Shared,
    F::Output: Shared,
    M: 'static,
{
    Entry::of::<F, Each<A, M>>(function)
}

/// What a worker has put up and the owner has not taken yet.
struct Lent {
    slot: usize,
    /// The slot's state until then.
    state: u64,
    regions: Vec<u64>,
    handed_over: usize,
    /// Keeps the objects of handles in it.
    held: Vec<Stored>,
}

/// Where large results are put.
struct Results {
    space: Space,
    /// None: nobody receives.
    sender: Option<Sender>,
    /// Wakes the keeper.
    bell: Arc<OwnedFd>,
    /// Files that were handed over and whose tasks the owner has not taken back.
    handed_over: usize,
    /// Results that are copied before another file is tried in large pages: there were none.
    without_large_pages: u32,
}

impl Room for Results {
    fn take(&mut self, bytes: u64) -> Result<u64> {
        self.space.take(bytes)
    }

    fn give_back(&mut self, at: u64) {
        self.space.give_back(at);
    }

    fn file(&self) -> Arc<File> {
        self.space.file()
    }

    fn hands_over(&mut self, len: u64) -> Handing {
        if len < POOL_SEALED_BYTES || self.handed_over >= POOL_PASSED_MAX || self.sender.is_none() {
            return Handing::Not;
        }
        if self.space.is_cold(len) {
            return Handing::Anyway;
        }
        if len < POOL_LARGE_PAGES_BYTES {
            return Handing::Not;
        }
        match self.without_large_pages {
            0 => Handing::InLargePages,
            left => {
                self.without_large_pages = left - 1;
                Handing::Not
            }
        }
    }

    fn has_no_large_pages(&mut self) {
        self.without_large_pages = POOL_LARGE_PAGES_AGAIN;
    }

    fn hand_over(&mut self, file: BorrowedFd<'_>, len: u64) -> Option<u64> {
        match self.sender.as_mut()?.send(file, len) {
            Ok(number) => {
                self.handed_over += 1;
                return Some(number);
            }
            // Another result is not written twice for it.
            Err(Sent::Never) => self.sender = None,
            Err(_) => {
                // Others have filled the socket: the next results are not written for nothing, too.
                self.without_large_pages = POOL_LARGE_PAGES_AGAIN;
                ring_bell(&self.bell);
            }
        }
        None
    }
}

/// The task at hand.
struct Current {
    /// Where its results go; none: into `outcome`.
    slot: Option<usize>,
    arguments: AlignedVec<16>,
    calls: u32,
    first: u32,
    /// Whether a call that fails is the last.
    stops: bool,
    progress: Progress,
    outcome: Vec<u8>,
    regions: Vec<u64>,
    handed_over: usize,
    held: Vec<Stored>,
}

/// Where bodies are that are not with their frames: nothing is handed over to a worker.
fn own(file: &File) -> Elsewhere<'_> {
    Elsewhere { file, receiver: None }
}

struct Worker {
    place: usize,
    segment: Segment,
    file: Arc<File>,
    bell: Arc<OwnedFd>,
    results: Results,
    lent: Vec<Lent>,
    /// Calls that it may still make; none: any number.
    left: Option<u64>,
    /// What its clock shows, if its calls have a time limit.
    clock: Option<u64>,
    current: Current,
    packing: Packing,
    known: Option<(u64, u64, &'static Entry)>,
    spin: Spin,
}

/// What a worker's process runs.
///
/// It has this place on the board, is the so-many-th of its pool, and has this key for what it hands over.
pub(super) fn work(
    place: u32,
    number_and_key: (u64, u64),
    calls_most: Option<u64>,
    timed: bool,
    initializer: Option<Initializer>,
) -> Result<()> {
    let mut worker = Worker::new(place as usize, number_and_key, calls_most, timed)?;
    if let Some(initializer) = initializer {
        worker.initialise(initializer)?;
    }
    worker.run()
}

impl Worker {
    fn new(place: usize, (number, key): (u64, u64), left: Option<u64>, timed: bool) -> Result<Worker> {
        let mut handed = handed().into_iter();
        let (Some(file), Some(bell), Some(queue)) = (handed.next(), handed.next(), handed.next()) else {
            return Err(Error::new(ErrorKind::System, "a pool's worker did not get its descriptors: raise `ulimit -n`"));
        };
        let segment = Segment::map(&file, SEGMENT_BYTES, Access::ReadWrite)?.keep_from_children()?;
        let (file, bell) = (Arc::new(File::from(file)), Arc::new(bell));
        let progress = Progress { calls: 0, bytes: 0, in_slot: false };
        let current = Current {
            slot: None,
            arguments: AlignedVec::new(),
            calls: 0,
            first: 0,
            stops: false,
            progress,
            outcome: Vec::new(),
            regions: Vec::new(),
            handed_over: 0,
            held: Vec::new(),
        };
        Ok(Worker {
            place,
            segment,
            results: Results {
                space: Space::new(file.clone(), place as u64 + 1),
                sender: Some(Sender::new(queue, number, key)),
                bell: bell.clone(),
                handed_over: 0,
                without_large_pages: 0,
            },
            file,
            bell,
            lent: Vec::new(),
            left,
            clock: timed.then_some(0),
            current,
            packing: Packing::default(),
            known: None,
            spin: Spin::new(),
        })
    }

    fn board(&self) -> Board<'_, Segment> {
        Board::new(&self.segment)
    }

    /// Calls the initializer.
    fn initialise(&mut self, (function, name, arguments): Initializer) -> Result<()> {
        points::client("pool: before the initializer");
        // What comes of it is for this process alone.
        let (left, sender) = (self.left.take(), self.results.sender.take());
        self.current.arguments.extend_from_slice(&arguments);
        (self.current.calls, self.current.first) = (1, 0);
        self.entry(function, name)?.run(self);
        (self.left, self.results.sender) = (left, sender);
        let mut frames = AlignedVec::<16>::new();
        frames.extend_from_slice(&std::mem::take(&mut self.current.outcome));
        let (kind, body) = Frames::new(&frames, own(&self.file)).value(&mut Vec::new())?;
        let outcome = match kind {
            Kind::Value | Kind::Label => unpack::<Result<()>>(body.bytes(&frames))?,
            Kind::Panic => Err(panicked("the pool's initializer", unpack::<PanicReport>(body.bytes(&frames))?)),
            Kind::Failed => Err(unpack::<Error>(body.bytes(&frames))?),
        };
        self.current.held.clear();
        std::mem::take(&mut self.current.regions).into_iter().for_each(|at| self.results.give_back(at));
        outcome
    }

    fn run(mut self) -> Result<()> {
        points::client("pool: worker up");
        self.board().begin(self.place);
        while self.left != Some(0) {
            self.sweep();
            points::client("pool: before it takes a task");
            match self.board().take(self.place)? {
                Took::Task(slot) => self.task(slot)?,
                Took::Nothing => self.idle()?,
                Took::Leave => break,
            }
        }
        points::client("pool: before it leaves");
        self.leave()
    }

    /// Looks for a task for a while, then sleeps until there is one.
    fn idle(&mut self) -> Result<()> {
        let board = Board::new(&self.segment);
        board.look(self.place);
        if !self.spin.wait_in_memory(|| !board.is_idle(self.place)) {
            let (word, asleep) = board.lie_down(self.place);
            points::client("pool: about to sleep");
            if board.is_idle(self.place) {
                futex_wait(word, asleep, Some(Instant::now() + Duration::from_millis(POOL_LOOK_MS)))?;
            }
        }
        board.begin(self.place);
        Ok(())
    }

    /// Stays until the owner holds what is named in the last results.
    fn leave(&mut self) -> Result<()> {
        loop {
            self.sweep();
            let (word, value) = self.board().leave(self.place);
            if self.lent.iter().all(|lent| lent.held.is_empty()) {
                return Ok(());
            }
            futex_wait(word, value, Some(Instant::now() + Duration::from_millis(POOL_LOOK_MS)))?;
        }
    }

    /// Lets go of what the owner has taken.
    fn sweep(&mut self) {
        if self.lent.is_empty() {
            return;
        }
        let (board, results) = (Board::new(&self.segment), &mut self.results);
        self.lent.retain(|lent| {
            let there = board.state_word(lent.slot) == lent.state;
            if !there {
                lent.regions.iter().for_each(|at| results.give_back(*at));
                results.handed_over -= lent.handed_over;
            }
            there
        });
    }

    fn entry(&mut self, function: u64, name: u64) -> Result<&'static Entry> {
        match self.known {
            Some((known, hash, entry)) if (known, hash) == (function, name) => Ok(entry),
            _ => {
                let entry = Entry::at_hash(function, name)?;
                self.known = Some((function, name, entry));
                Ok(entry)
            }
        }
    }

    /// Turns the clock on, to a later number. A worker that is condemned ends here: the owner kills it anyway.
    fn turn_clock(&mut self, next: impl FnOnce(u64) -> u64) {
        let Some(last) = self.clock else { return };
        let next = next(last);
        if !self.board().set_clock(self.place, last, next) {
            kill_self();
        }
        self.clock = Some(next);
    }

    fn task(&mut self, slot: usize) -> Result<()> {
        // What is said of this task is not said of the last one.
        self.turn_clock(|last| (last | 1) + 2);
        let current = &mut self.current;
        current.arguments.clear();
        let task = Board::new(&self.segment).task(slot, &mut current.arguments)?;
        (current.slot, current.calls, current.first, current.stops) = (Some(slot), task.calls, task.first, task.stops);
        current.progress = Progress { calls: 0, bytes: 0, in_slot: false };
        match self.entry(task.function, task.name) {
            Ok(entry) => entry.run(self),
            Err(error) => self.put(Err(error)),
        }
        let finished = self.board().finish(self.place, slot)?;
        if finished.tell_keeper {
            ring_bell(&self.bell);
        }
        points::client("pool: task done, everybody told");
        let Current { regions, handed_over, held, .. } = &mut self.current;
        let (regions, handed_over, held) = (std::mem::take(regions), std::mem::take(handed_over), std::mem::take(held));
        if !(regions.is_empty() && held.is_empty()) || handed_over > 0 {
            self.lent.push(Lent { slot, state: finished.state, regions, handed_over, held });
        }
        Ok(())
    }

    /// Calls a function with each of the arguments at hand, until there is no room for another result.
    fn each<A: Shared, R: Shared>(&mut self, call: impl Fn(A) -> R) {
        let (arguments, file) = (std::mem::take(&mut self.current.arguments), self.file.clone());
        let mut frames = Frames::new(&arguments, own(&file));
        for number in 0..self.current.calls {
            if number < self.current.first {
                if let Err(error) = frames.skip() {
                    self.put(Err(error));
                    break;
                }
                continue;
            }
            let room = Board::<Segment>::results_left(&self.current.progress) >= FRAMES_BYTES_MAX;
            if self.left == Some(0) || !room {
                break;
            }
            self.left = self.left.map(|left| left - 1);
            let outcome = self.call(&mut frames, &call);
            let (failed, is_whole) = (!matches!(outcome, Ok(Kind::Value)), frames.is_whole());
            self.put(outcome);
            if !is_whole || failed && self.current.stops {
                break;
            }
        }
        self.current.arguments = arguments;
    }

    /// One call: what is to be put up, or why there is nothing.
    fn call<A: Shared, R: Shared>(&mut self, frames: &mut Frames<'_>, call: &impl Fn(A) -> R) -> Result<Kind> {
        self.packing.bytes.clear();
        points::client("pool: before it reads its arguments");
        let mut held = Vec::new();
        let (_, body) = frames.value(&mut held)?;
        let arguments = unpack::<A>(body.bytes(frames.all()))?;
        // The handles among them hold for themselves from here on.
        drop((held, body));
        self.turn_clock(|last| (monotonic_ns() & !1).max((last | 1) + 1));
        points::client("pool: before the call");
        let returned = caught(|| call(arguments), panic_report);
        points::client("pool: after the call");
        self.turn_clock(|last| last | 1);
        let added = returned.and_then(|result| {
            let added = caught(|| self.packing.add(&result, &mut self.results), panic_report);
            // It has been packed by now: a panic is reported by its hook alone.
            shielded(|| drop(result));
            // What was packed of it is not brought.
            added.inspect_err(|_| self.packing = Packing::default())
        });
        match added {
            Ok(added) => added.map(|()| Kind::Value),
            Err(report) => self.packing.add_other(Kind::Panic, &report, &mut self.results).map(|()| Kind::Panic),
        }
    }

    /// Puts up what was packed, or the error because of which there is nothing.
    fn put(&mut self, outcome: Result<Kind>) {
        if let Err(error) = outcome {
            self.packing = Packing::default();
            if self.packing.add_other(Kind::Failed, &error, &mut self.results).is_err() {
                // Its causes took too much room, and there is none.
                let short = Error::new(error.kind(), "the result of a call could not be brought to the pool's owner");
                self.packing = Packing::default();
                let _ = self.packing.add_other(Kind::Failed, &short, &mut self.results);
            }
        }
        let current = &mut self.current;
        current.regions.append(&mut self.packing.regions);
        current.handed_over += std::mem::take(&mut self.packing.handed_over);
        current.held.append(&mut self.packing.held);
        match current.slot {
            Some(slot) => {
                let alone = current.calls == 1;
                Board::new(&self.segment).add_result(slot, &mut current.progress, &self.packing.bytes, alone);
            }
            None => current.outcome = std::mem::take(&mut self.packing.bytes),
        }
    }
}
