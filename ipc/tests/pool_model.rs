//! The pool's board, run in every order that loom finds, with workers that die before any of their writes: every task is done once, or its death
//! is seen; nobody writes where another reads; and no worker sleeps past a task.
//!
//! The crate's own algorithm runs on the segment of `mortal`. The canaries break the exchange by which a task is taken, or
//! by which a worker is condemned, or let a worker sleep without its last look, and must be caught.

mod mortal;

use commonhold_ipc::pool::{Board, Progress, State, Task, Took};
use commonhold_ipc::sync::{Half, Memory};
use loom::thread;
use mortal::{Fate, Segment, check, in_thread};
use rkyv::util::AlignedVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32 as Count, Ordering::Relaxed};

type Process = mortal::Process<()>;

/// Slots, and workers, of the model.
const SLOTS: usize = 2;
const WORKERS: usize = 2;

/// Where everything lies, as `ipc::pool::layout` has it.
const PHASES: usize = 8192;
const SLOTS_AT: usize = 24576;
const SLOT_BYTES: usize = 512;

fn new_segment() -> Arc<Segment> {
    let slots = || (0..SLOTS).map(|slot| SLOTS_AT + slot * SLOT_BYTES);
    let words = [0, 64, 128, 136, 192, 200, 208, 216].into_iter();
    let words = words.chain((0..WORKERS).map(|worker| PHASES + 64 * worker + 8));
    let words = words.chain((512..544).step_by(8)).chain(slots().flat_map(|at| (at..at + 48).step_by(8)));
    let halves = [256].into_iter().chain((0..WORKERS).map(|worker| PHASES + 64 * worker));
    Segment::new(words, halves, slots().flat_map(|at| [at + 64, at + 256]), true)
}

impl Process {
    fn board(&self) -> Board<'_, Process> {
        Board::new(self)
    }
}

/// The owner puts a number up in a slot.
fn put_up(owner: &Process, slot: usize, number: u8) -> u64 {
    let task = Task { function: 1, name: 2, calls: 1, first: 0, arguments: 16, stops: false };
    owner.board().fill(slot, &task, &[number; 16]);
    let position = owner.board().publish(slot, 1, 0).expect("there is room");
    owner.board().wake(WORKERS);
    position
}

/// A worker does the next task, if there is one: its result is ten more.
fn work(process: &Process, worker: usize) -> bool {
    let board = process.board();
    let Took::Task(slot) = board.take(worker).unwrap() else { return false };
    let mut arguments = AlignedVec::new();
    let task = board.task(slot, &mut arguments).unwrap();
    assert_eq!((task.function, task.name, task.calls, task.first, arguments.len()), (1, 2, 1, 0, 16));
    let mut progress = Progress { calls: 0, bytes: 0, in_slot: false };
    board.add_result(slot, &mut progress, &[arguments[0] + 10; 16], true);
    board.finish(worker, slot).unwrap();
    true
}

/// What the owner finds in a slot: the result, or that its worker was in the middle.
fn look(owner: &Process, slot: usize) -> Option<u8> {
    let board = owner.board();
    let progress = board.progress(slot);
    match board.state(slot) {
        State::Done(_) => {
            let mut result = AlignedVec::new();
            board.results(slot, &progress, &mut result).unwrap();
            assert_eq!((progress.calls, progress.in_slot), (1, true));
            Some(result[0])
        }
        _ => None,
    }
}

fn two_workers(fate: Fate) {
    check(2, move || {
        let segment = new_segment();
        let owner = Process::new(&segment, Fate::Lives);
        put_up(&owner, 0, 7);
        let other = in_thread(&segment, fate, |process| work(process, 0));
        let mine = work(&Process::new(&segment, fate), 1);
        let other = other.join().unwrap().unwrap();
        assert!(mine != other, "one of two does the task, not {}", if mine { "both" } else { "none" });
        assert_eq!(look(&owner, 0), Some(17));
    });
}

#[test]
fn one_of_two_workers_does_the_task() {
    two_workers(Fate::Lives);
}

#[test]
#[should_panic]
fn canary_without_an_exchange_both_do_it() {
    two_workers(Fate::IsSloppy);
}

/// The owner hands out, sees what is done by the bells, frees, and hands out again, while a worker takes.
#[test]
fn what_is_done_is_seen_by_its_bell_and_its_slot_used_again() {
    check(2, || {
        let segment = new_segment();
        let owner = Process::new(&segment, Fate::Lives);
        put_up(&owner, 0, 1);
        let worker = in_thread(&segment, Fate::Lives, |process| u32::from(work(process, 0)) + u32::from(work(process, 0)));
        let mut seen = Vec::new();
        owner.board().silence(|slot| seen.push(slot));
        let second = if seen == [0] {
            assert_eq!(look(&owner, 0), Some(11), "a bell rings when all is there");
            owner.board().free(0);
            put_up(&owner, 0, 2);
            0
        } else {
            put_up(&owner, 1, 2);
            1
        };
        let done = worker.join().unwrap().unwrap();
        let rest = (0..2).map(|_| u32::from(work(&Process::new(&segment, Fate::Lives), 1))).sum::<u32>();
        assert_eq!(done + rest, 2);
        assert_eq!(look(&owner, second), Some(12));
        assert!(owner.board().has_rung_for(second));
    });
}

/// Called off while a worker takes: one of the two.
#[test]
fn a_task_is_called_off_or_taken() {
    check(3, || {
        let segment = new_segment();
        let owner = Process::new(&segment, Fate::Lives);
        let position = put_up(&owner, 0, 1);
        let worker = in_thread(&segment, Fate::Lives, |process| work(process, 0));
        let called_off = owner.board().call_off(0, position);
        let done = worker.join().unwrap().unwrap();
        assert!(called_off != done);
        // What was called off is passed over, and its slot is the owner's.
        if called_off {
            put_up(&owner, 0, 5);
            assert!(work(&Process::new(&segment, Fate::Lives), 1));
        }
        assert_eq!(look(&owner, 0), Some(if called_off { 15 } else { 11 }));
    });
}

/// Most writes of a worker that does one task.
const WRITES: u32 = 10;

/// One dies before its `writes`-th write, beside another that lives. The owner knows what became of each task.
#[test]
fn a_dying_worker_takes_one_task_with_it_or_none() {
    for writes in 0..WRITES {
        check(1, move || {
            let segment = new_segment();
            let owner = Process::new(&segment, Fate::Lives);
            put_up(&owner, 0, 1);
            put_up(&owner, 1, 2);
            let doomed = in_thread(&segment, Fate::Writes(writes), |process| work(process, 0));
            let living = Process::new(&segment, Fate::Lives);
            let mine = u32::from(work(&living, 1)) + u32::from(work(&living, 1));
            let died = doomed.join().unwrap().is_none();
            // It may have left a head that nobody has advanced.
            let rest = u32::from(work(&living, 1));
            let states = [0, 1].map(|slot| owner.board().state(slot));
            let of_the_dead = states.iter().filter(|state| matches!(state, State::Taken(0) | State::Done(0))).count() as u32;
            assert_eq!(mine + rest + of_the_dead, 2, "{states:?}");
            assert!(of_the_dead <= 1 && (died || of_the_dead == 0 || states.contains(&State::Done(0))), "{states:?}");
            for (slot, state) in states.into_iter().enumerate() {
                match state {
                    State::Done(_) => assert_eq!(look(&owner, slot), Some(slot as u8 + 11)),
                    // Its result may be there, and counts then.
                    State::Taken(0) => assert!(owner.board().progress(slot).calls <= 1),
                    other => panic!("slot {slot} is {other:?}"),
                }
            }
        });
    }
}

/// A worker looks, lies down, looks once more (unless it is careless). Whether it would sleep.
fn falls_asleep(process: &Process, worker: usize, careless: bool) -> bool {
    let board = process.board();
    board.look(worker);
    if !board.is_idle(worker) {
        board.begin(worker);
        return false;
    }
    let (word, asleep) = board.lie_down(worker);
    (careless || board.is_idle(worker)) && Half::load(word) == asleep
}

fn sleeper(careless: bool) {
    check(3, move || {
        let segment = new_segment();
        let owner = Process::new(&segment, Fate::Lives);
        let worker = in_thread(&segment, Fate::Lives, move |process| falls_asleep(process, 0, careless));
        put_up(&owner, 0, 1);
        let asleep = worker.join().unwrap().unwrap();
        // Who was woken finds its word changed: the kernel does not let it sleep.
        let board = owner.board();
        let (word, is_woken) = (owner.half(PHASES), |word| Half::load(word) != 3);
        assert!(!asleep || is_woken(word) || board.pending() == 0, "a worker sleeps beside a task");
    });
}

#[test]
fn no_worker_sleeps_past_a_task() {
    sleeper(false);
}

#[test]
#[should_panic(expected = "a worker sleeps beside a task")]
fn canary_without_its_last_look_a_worker_sleeps_past_a_task() {
    sleeper(true);
}

/// One looks and takes the first task just when the second is put up: the other one, asleep, is woken for it.
#[test]
fn a_looker_that_finds_one_task_is_not_counted_on_for_another() {
    check(2, || {
        let segment = new_segment();
        let owner = Process::new(&segment, Fate::Lives);
        let sleeper = Process::new(&segment, Fate::Lives);
        sleeper.board().lie_down(1);
        Process::new(&segment, Fate::Lives).board().look(0);
        let looker = in_thread(&segment, Fate::Lives, |process| {
            // It has seen that there is something.
            while process.board().is_idle(0) {
                thread::yield_now();
            }
            process.board().begin(0);
            work(process, 0)
        });
        put_up(&owner, 0, 1);
        put_up(&owner, 1, 2);
        assert!(looker.join().unwrap().unwrap());
        let woken = Half::load(sleeper.half(PHASES + 64)) != 3;
        assert!(woken || owner.board().pending() == 0, "a task waits, and nobody was woken for it");
    });
}

/// A worker does two calls, by its clock; the owner comes to condemn it for the first one, as late as it likes.
fn late(fate: Fate) {
    check(3, move || {
        let segment = new_segment();
        let owner = Process::new(&segment, fate);
        assert!(owner.board().set_clock(0, 0, 1000), "the first call has begun long ago");
        let over = Arc::new(Count::new(0));
        let worker = in_thread(&segment, Fate::Lives, {
            let over = over.clone();
            move |process| {
                let board = process.board();
                let mut clock = 1000;
                for (call, begins) in [(1, 1002), (2, 1004)] {
                    if !board.set_clock(0, clock, clock | 1) {
                        return;
                    }
                    over.store(call, Relaxed);
                    clock |= 1;
                    if !board.set_clock(0, clock, begins) {
                        return;
                    }
                    clock = begins;
                }
            }
        });
        let condemned = owner.board().clock(0) == 1000 && owner.board().condemn(0, 1000);
        worker.join().unwrap();
        let over = over.load(Relaxed);
        assert_eq!(over, if condemned { 0 } else { 2 }, "a worker is ended for a call that was over");
    });
}

#[test]
fn a_late_call_is_over_or_its_worker_is_condemned() {
    late(Fate::Lives);
}

#[test]
#[should_panic(expected = "a worker is ended for a call that was over")]
fn canary_an_owner_that_looks_and_then_kills_ends_another_call() {
    late(Fate::IsSloppy);
}
