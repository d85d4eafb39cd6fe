//! The sync words, run in every order that loom finds: one at a time under a lock, no wake-up lost, whoever dies wherever.
//!
//! The crate's own algorithms run on a model of a segment: loom's atomics, and a futex made of loom's mutex and condition. No
//! sleep here ever ends by its time, so a lost wake-up is a deadlock, which loom reports. Who dies stops between two steps, or his
//! wake-ups come to nothing; then the recovery runs. The canaries leave something out and must be caught.
//!
//! Loom takes SeqCst accesses for AcqRel ones, so the model has full fences where the real ones are SeqCst.

use commonhold_ipc::error::Result;
use commonhold_ipc::liveness::Slept;
use commonhold_ipc::sync::{Claim, Eventcount, Half, LOCK_BYTES, Lock, Memory, Taken, Waiting, Word};
use loom::model::Builder;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

struct Word64(AtomicU64);

impl Word for Word64 {
    fn load(&self) -> u64 {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::SeqCst)
    }

    fn swap(&self, new: u64) -> u64 {
        let old = self.0.swap(new, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        old
    }

    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        let done = self.0.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(|_| ());
        fence(Ordering::SeqCst);
        done
    }
}

struct Word32(usize, AtomicU32);

impl Half for Word32 {
    fn load(&self) -> u32 {
        fence(Ordering::SeqCst);
        self.1.load(Ordering::SeqCst)
    }

    fn compare_exchange(&self, old: u32, new: u32) -> Result<(), u32> {
        let done = self.1.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(|_| ());
        fence(Ordering::SeqCst);
        done
    }
}

#[derive(Default)]
struct Sleepers {
    /// Word and number of each, in the order in which they fell asleep.
    asleep: Vec<(usize, u64)>,
    next: u64,
}

/// A segment of loom's, with the words that a model uses.
struct Segment {
    words: Vec<(usize, Word64)>,
    halves: Vec<(usize, Word32)>,
    sleepers: Mutex<Sleepers>,
    wakes: Condvar,
}

impl Segment {
    fn new(words: &[usize], halves: &[usize]) -> Arc<Segment> {
        Arc::new(Segment {
            words: words.iter().map(|at| (*at, Word64(AtomicU64::new(0)))).collect(),
            halves: halves.iter().map(|at| (*at, Word32(*at, AtomicU32::new(0)))).collect(),
            sleepers: Mutex::new(Sleepers::default()),
            wakes: Condvar::new(),
        })
    }
}

impl Memory for Segment {
    type Word = Word64;
    type Half = Word32;

    fn word(&self, at: usize) -> &Word64 {
        &self.words.iter().find(|(here, _)| *here == at).unwrap_or_else(|| panic!("the model has no word at {at}")).1
    }

    fn half(&self, at: usize) -> &Word32 {
        &self.halves.iter().find(|(here, _)| *here == at).unwrap_or_else(|| panic!("the model has no half word at {at}")).1
    }

    fn wake(&self, word: &Word32, count: u32) -> usize {
        let mut sleepers = self.sleepers.lock().unwrap();
        let mut left = count as usize;
        let before = sleepers.asleep.len();
        sleepers.asleep.retain(|(at, _)| {
            let woken = *at == word.0 && left > 0;
            left -= usize::from(woken);
            !woken
        });
        let woken = before - sleepers.asleep.len();
        drop(sleepers);
        if woken > 0 {
            self.wakes.notify_all();
        }
        woken
    }
}

/// One whose process dies before it can wake anybody.
struct Dying<'s>(&'s Segment);

impl Memory for Dying<'_> {
    type Word = Word64;
    type Half = Word32;

    fn word(&self, at: usize) -> &Word64 {
        self.0.word(at)
    }

    fn half(&self, at: usize) -> &Word32 {
        self.0.half(at)
    }

    fn wake(&self, _: &Word32, _: u32) -> usize {
        1
    }
}

/// A caller whose patience is over at once, or never.
struct Patience<'s> {
    segment: &'s Segment,
    is_long: bool,
}

impl Waiting<Segment> for Patience<'_> {
    fn spin(&self, _: &mut dyn FnMut() -> bool) -> bool {
        false
    }

    fn sleep(&self, word: &Word32, expected: u32, _: u64) -> Result<Slept> {
        let mut sleepers = self.segment.sleepers.lock().unwrap();
        if word.load() != expected {
            return Ok(Slept::Woken);
        }
        let number = sleepers.next;
        sleepers.next += 1;
        sleepers.asleep.push((word.0, number));
        while sleepers.asleep.contains(&(word.0, number)) {
            sleepers = self.segment.wakes.wait(sleepers).unwrap();
        }
        Ok(Slept::Woken)
    }

    fn is_over(&self) -> bool {
        false
    }

    fn is_long(&self) -> bool {
        self.is_long
    }

    fn doubt(&self, _: Claim) -> Result<()> {
        Ok(())
    }
}

fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    // Most mistakes of such protocols show with two or three switches; without a bound the model takes hours.
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// A deadlock ends loom's process, so each canary has one of its own.
#[test]
fn canaries_end_in_a_deadlock() {
    for canary in CANARIES {
        let arguments = ["--exact", canary, "--ignored", "--test-threads=1", "--nocapture"];
        let ended = std::process::Command::new(std::env::current_exe().unwrap()).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success() && said.contains("deadlock; threads"), "{canary}: {said}");
    }
}

const CANARIES: &[&str] = &[
    "canary_without_recovery_a_dead_notifier_leaves_sleepers",
    "canary_to_look_before_preparing_loses_the_notification",
    "canary_without_recovery_a_dead_holder_is_waited_for",
    "canary_without_recovery_nobody_is_woken",
];

// ---- Eventcount ----

const FLAG: usize = 0;
const EVENTS: usize = 8;

/// What a sleeper, or a notifier, leaves out.
#[derive(Clone, Copy, PartialEq)]
enum LeftOut {
    Nothing,
    /// Looks, then prepares, then sleeps.
    LookAfterPreparing,
    /// Dies between raising the number and waking.
    Waking,
}

fn wait_for_flag(segment: &Segment, left_out: LeftOut) {
    let (events, patience) = (Eventcount::new(segment, EVENTS), Patience { segment, is_long: false });
    loop {
        if left_out == LeftOut::LookAfterPreparing {
            if segment.word(FLAG).load() == 1 {
                return;
            }
            let prepared = events.prepare();
            events.sleep(prepared, &patience, 0).unwrap();
            continue;
        }
        let prepared = events.prepare();
        if segment.word(FLAG).load() == 1 {
            return;
        }
        events.sleep(prepared, &patience, 0).unwrap();
    }
}

fn eventcount(sleepers: usize, all: bool, left_out: LeftOut, recovers: bool) {
    check(if sleepers == 1 { 4 } else { 2 }, move || {
        let segment = Segment::new(&[FLAG], &[EVENTS]);
        let threads: Vec<_> = (0..sleepers)
            .map(|_| {
                let segment = segment.clone();
                thread::spawn(move || {
                    wait_for_flag(&segment, left_out);
                    // What one is woken for serves the next one, too.
                    Eventcount::new(&*segment, EVENTS).notify_one();
                })
            })
            .collect();
        segment.word(FLAG).swap(1);
        match left_out {
            LeftOut::Waking if all => Eventcount::new(&Dying(&segment), EVENTS).notify_all(),
            LeftOut::Waking => Eventcount::new(&Dying(&segment), EVENTS).notify_one(),
            _ if all => Eventcount::new(&*segment, EVENTS).notify_all(),
            _ => Eventcount::new(&*segment, EVENTS).notify_one(),
        }
        if recovers {
            Eventcount::new(&*segment, EVENTS).recover();
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn no_notification_is_lost() {
    eventcount(1, false, LeftOut::Nothing, false);
    eventcount(1, true, LeftOut::Nothing, false);
}

#[test]
fn no_notification_of_two_is_lost() {
    eventcount(2, false, LeftOut::Nothing, false);
    eventcount(2, true, LeftOut::Nothing, false);
}

#[test]
fn a_notifier_that_dies_is_made_up_for() {
    eventcount(1, false, LeftOut::Waking, true);
    eventcount(2, true, LeftOut::Waking, true);
}

#[test]
#[ignore = "ends in a deadlock: run by the test of all canaries"]
fn canary_without_recovery_a_dead_notifier_leaves_sleepers() {
    eventcount(1, true, LeftOut::Waking, false);
}

#[test]
#[ignore = "ends in a deadlock: run by the test of all canaries"]
fn canary_to_look_before_preparing_loses_the_notification() {
    eventcount(1, true, LeftOut::LookAfterPreparing, false);
}

// ---- Lock ----

fn lock_segment() -> Arc<Segment> {
    let words: Vec<usize> = (0..LOCK_BYTES).step_by(8).filter(|at| *at != 16).collect();
    Segment::new(&words, &[16, 20])
}

fn take(segment: &Segment, session: u64, is_long: bool) -> Taken {
    let (lock, me) = (Lock::new(segment, 0), Claim::new(session, session as u32));
    lock.try_take(me).unwrap_or_else(|| lock.take(me, &Patience { segment, is_long }).unwrap().unwrap())
}

/// Each takes the lock, and is alone then.
fn exclusion(takers: u64, preemptions: usize, is_long: bool) {
    check(preemptions, move || {
        let segment = lock_segment();
        let inside = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (1..=takers)
            .map(|session| {
                let (segment, inside) = (segment.clone(), inside.clone());
                thread::spawn(move || {
                    assert!(!take(&segment, session, is_long).owner_died);
                    assert_eq!(inside.swap(session, Ordering::Relaxed), 0, "two hold the lock");
                    inside.store(0, Ordering::Relaxed);
                    Lock::new(&*segment, 0).release();
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(Lock::new(&*segment, 0).is_free());
    });
}

#[test]
fn one_holds_the_lock() {
    exclusion(2, 3, false);
}

#[test]
fn one_of_three_holds_the_lock() {
    exclusion(3, 1, false);
}

#[test]
fn the_heir_gets_the_lock() {
    exclusion(2, 3, true);
}

/// Where the holder dies.
#[derive(Clone, Copy, PartialEq)]
enum Dies {
    Holding,
    /// It has given the lock back and woken nobody.
    BeforeWaking,
}

fn death(dies: Dies, is_long: bool, recovers: bool) {
    check(3, move || {
        let segment = lock_segment();
        take(&segment, 1, false);
        let waiter = thread::spawn({
            let segment = segment.clone();
            move || {
                let taken = take(&segment, 2, is_long);
                Lock::new(&*segment, 0).release();
                taken
            }
        });
        if dies == Dies::BeforeWaking {
            Lock::new(&Dying(&segment), 0).release();
        }
        if recovers {
            Lock::new(&*segment, 0).recover(1);
        }
        assert_eq!(waiter.join().unwrap().owner_died, dies == Dies::Holding);
        assert!(Lock::new(&*segment, 0).is_free());
    });
}

#[test]
fn a_dead_holder_is_reported() {
    death(Dies::Holding, false, true);
    death(Dies::Holding, true, true);
}

#[test]
fn a_holder_that_dies_before_waking_is_made_up_for() {
    death(Dies::BeforeWaking, false, true);
    death(Dies::BeforeWaking, true, true);
}

#[test]
#[ignore = "ends in a deadlock: run by the test of all canaries"]
fn canary_without_recovery_a_dead_holder_is_waited_for() {
    death(Dies::Holding, false, false);
}

#[test]
#[ignore = "ends in a deadlock: run by the test of all canaries"]
fn canary_without_recovery_nobody_is_woken() {
    death(Dies::BeforeWaking, false, false);
}

/// A waiter that was woken, or named the heir, dies before it takes the lock: another one waits.
#[test]
fn a_dead_waiter_takes_no_wake_up_along() {
    for is_long in [false, true] {
        check(2, move || {
            let segment = lock_segment();
            take(&segment, 1, false);
            // It sleeps, is to inherit, and will never wake up.
            let dead = Claim::new(3, 3);
            Eventcount::new(&*segment, if is_long { 20 } else { 16 }).prepare();
            if is_long {
                segment.word(8).swap(dead.word());
            }
            let waiter = thread::spawn({
                let segment = segment.clone();
                move || {
                    take(&segment, 2, false);
                    Lock::new(&*segment, 0).release();
                }
            });
            Lock::new(&*segment, 0).release();
            Lock::new(&*segment, 0).recover(3);
            waiter.join().unwrap();
            assert!(Lock::new(&*segment, 0).is_free());
        });
    }
}
