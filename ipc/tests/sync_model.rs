//! The sync words, run in every order that loom finds: one at a time under a lock, no wake-up lost, whoever dies wherever.
//!
//! The crate's own algorithms run on a model of a segment: loom's atomics, and a futex made of loom's mutex and condition. No
//! sleep here ever ends by its time, so a lost wake-up is a deadlock, which loom reports. Who dies stops between two steps, or his
//! wake-ups come to nothing; then the recovery runs. The canaries leave something out and must be caught.
//!
//! The real accesses are all SeqCst, so they happen in one order. Loom takes SeqCst for AcqRel, and when it decides what to try
//! in another order it forgets a load behind which the other thread loads before it exchanges. Both are avoided by loads that are
//! exchanges, too: those see the newest value, and all of them count.

use commonhold_ipc::error::Result;
use commonhold_ipc::liveness::Slept;
use commonhold_ipc::sync::barrier::Barrier;
use commonhold_ipc::sync::condition::Condition;
use commonhold_ipc::sync::event::Event;
use commonhold_ipc::sync::rwlock::RwLock;
use commonhold_ipc::sync::semaphore::Semaphore;
use commonhold_ipc::sync::{Claim, Eventcount, Half, LOCK_BYTES, Lock, Memory, Sleeper, Taken, Waiting, Word, wait_for_any};
use loom::model::Builder;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// A word, and what its owner has stored there without a fence and nobody else sees yet.
struct Word64(AtomicU64, Option<Mutex<Option<u64>>>);

impl Word64 {
    fn drain(&self) {
        let Some(buffer) = &self.1 else { return };
        let mut buffer = buffer.lock().unwrap();
        if let Some(stored) = buffer.take() {
            self.0.swap(stored, Ordering::SeqCst);
        }
    }
}

impl Word for Word64 {
    fn load(&self) -> u64 {
        self.0.fetch_or(0, Ordering::SeqCst)
    }

    fn swap(&self, new: u64) -> u64 {
        self.0.swap(new, Ordering::SeqCst)
    }

    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        self.0.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(|_| ())
    }

    fn store(&self, new: u64) {
        self.0.swap(new, Ordering::SeqCst);
    }

    fn set_relying(&self, new: u64) {
        let buffer = self.1.as_ref().expect("a word of a model about stores without fences");
        *buffer.lock().unwrap() = Some(new);
    }
}

struct Word32(usize, AtomicU32);

impl Half for Word32 {
    fn load(&self) -> u32 {
        self.1.fetch_or(0, Ordering::SeqCst)
    }

    fn compare_exchange(&self, old: u32, new: u32) -> Result<(), u32> {
        self.1.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(|_| ())
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
            words: words.iter().map(|at| (*at, Word64(AtomicU64::new(0), None))).collect(),
            halves: halves.iter().map(|at| (*at, Word32(*at, AtomicU32::new(0)))).collect(),
            sleepers: Mutex::new(Sleepers::default()),
            wakes: Condvar::new(),
        })
    }

    /// The first word is one that is stored to without a fence.
    fn with_buffer(words: &[usize], halves: &[usize]) -> Arc<Segment> {
        let Ok(mut segment) = Arc::try_unwrap(Self::new(words, halves)) else { unreachable!("nobody else has it yet") };
        segment.words[0].1.1 = Some(Mutex::new(None));
        Arc::new(segment)
    }

    /// What was stored without a fence is there for all to see.
    fn drain(&self) {
        self.words[0].1.drain();
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

/// The same, without the barrier that others rely on.
struct Careless<'s>(Patience<'s>);

impl Waiting<Segment> for Careless<'_> {
    fn spin(&self, ready: &mut dyn FnMut() -> bool) -> bool {
        self.0.spin(ready)
    }

    fn sleep(&self, word: &Word32, expected: u32, most_ms: u64) -> Result<Slept> {
        self.0.sleep(word, expected, most_ms)
    }

    fn is_over(&self) -> bool {
        self.0.is_over()
    }

    fn is_long(&self) -> bool {
        self.0.is_long()
    }

    fn knows(&self, claim: Claim) -> Result<bool> {
        self.0.knows(claim)
    }
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

    /// What the kernel's barrier does: whatever each processor has stored by then is there for all to see, and whatever it loads then is
    /// what others have stored before.
    fn fence_others(&self) -> bool {
        self.segment.drain();
        true
    }

    fn is_over(&self) -> bool {
        false
    }

    fn is_long(&self) -> bool {
        self.is_long
    }

    fn knows(&self, _: Claim) -> Result<bool> {
        Ok(true)
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
    "canary_not_passed_on_an_item_lies_beside_a_sleeper",
    "canary_recovery_left_out_who_died_awake_took_the_wake_up_along",
    "canary_without_recovery_a_dead_holder_is_waited_for",
    "canary_without_the_barrier_a_lock_given_back_without_a_fence_is_waited_for",
    "canary_without_recovery_nobody_is_woken",
    "canary_without_recovery_a_dead_reader_is_waited_for",
    "canary_an_event_that_was_cleared_before_is_waited_for",
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

// ---- Several things ----

/// Two things, each an item that may be there and who waits for it.
const THINGS: [(usize, usize); 2] = [(0, 8), (16, 24)];

/// Sleeps on several words at once, as `futex_waitv` does: a sleeper that one of them has woken may be woken by others as well, until it
/// runs, and those wake-ups are gone.
struct Several<'s> {
    segment: &'s Segment,
    prepared: Vec<(usize, u32)>,
}

impl Sleeper for Several<'_> {
    fn clear(&mut self) {
        self.prepared.clear();
    }

    fn spin(&self, _: &mut dyn FnMut() -> bool) -> bool {
        false
    }

    fn sleep(&self, _: &mut dyn FnMut() -> bool) -> Result<()> {
        let mut sleepers = self.segment.sleepers.lock().unwrap();
        if self.prepared.iter().any(|(at, expected)| self.segment.half(*at).load() != *expected) {
            return Ok(());
        }
        let number = sleepers.next;
        sleepers.next += 1;
        sleepers.asleep.extend(self.prepared.iter().map(|(at, _)| (*at, number)));
        while sleepers.asleep.iter().filter(|(_, sleeper)| *sleeper == number).count() == self.prepared.len() {
            sleepers = self.segment.wakes.wait(sleepers).unwrap();
        }
        sleepers.asleep.retain(|(_, sleeper)| *sleeper != number);
        Ok(())
    }

    fn is_over(&self) -> bool {
        false
    }
}

/// Waits for either thing, and takes nothing. Which were ready.
fn wait_for_things(segment: &Segment, passes_on: bool) -> Vec<usize> {
    let mut sleeper = Several { segment, prepared: Vec::new() };
    let is_ready = |thing: usize| segment.word(THINGS[thing].0).load() != 0;
    let prepare = |thing: usize, sleeper: &mut Several<'_>| {
        let at = THINGS[thing].1;
        sleeper.prepared.push((at, Eventcount::new(segment, at).prepare()));
    };
    let pass_on = |thing: usize| {
        if passes_on {
            Eventcount::new(segment, THINGS[thing].1).notify_one();
        }
    };
    wait_for_any(THINGS.len(), &mut sleeper, is_ready, prepare, pass_on).unwrap()
}

/// Takes the item of a thing, waiting for it.
fn take_item(segment: &Segment, (item, events): (usize, usize)) {
    let (events, patience) = (Eventcount::new(segment, events), Patience { segment, is_long: false });
    loop {
        let prepared = events.prepare();
        if segment.word(item).compare_exchange(1, 0).is_ok() {
            return;
        }
        events.sleep(prepared, &patience, 0).unwrap();
    }
}

fn put_item(segment: &Segment, (item, events): (usize, usize)) {
    segment.word(item).swap(1);
    Eventcount::new(segment, events).notify_one();
}

fn things() -> Arc<Segment> {
    Segment::new(&[THINGS[0].0, THINGS[1].0], &[THINGS[0].1, THINGS[1].1])
}

/// One waits for both things, one takes the first's item, and both things become ready.
fn waiter_and_taker(both: bool, passes_on: bool) {
    check(2, move || {
        let segment = things();
        let waiter = thread::spawn({
            let segment = segment.clone();
            move || wait_for_things(&segment, passes_on)
        });
        let taker = thread::spawn({
            let segment = segment.clone();
            move || take_item(&segment, THINGS[0])
        });
        if both {
            put_item(&segment, THINGS[1]);
        }
        put_item(&segment, THINGS[0]);
        taker.join().unwrap();
        if !both {
            // The item may be gone before the waiter looks: it waits on.
            put_item(&segment, THINGS[1]);
        }
        assert!(!waiter.join().unwrap().is_empty());
    });
}

#[test]
fn who_waits_for_several_things_keeps_nobody_asleep() {
    waiter_and_taker(false, true);
}

#[test]
fn a_wake_up_for_one_thing_that_went_to_who_was_woken_by_another_is_passed_on() {
    waiter_and_taker(true, true);
}

#[test]
#[ignore = "ends in a deadlock: run by the test of all canaries"]
fn canary_not_passed_on_an_item_lies_beside_a_sleeper() {
    waiter_and_taker(true, false);
}

/// One who waits is woken and dies before it passes on.
fn dying_waiter(recovers: bool) {
    check(2, move || {
        let segment = things();
        let waiter = thread::spawn({
            let segment = segment.clone();
            move || wait_for_things(&segment, false)
        });
        let taker = thread::spawn({
            let segment = segment.clone();
            move || take_item(&segment, THINGS[0])
        });
        put_item(&segment, THINGS[1]);
        put_item(&segment, THINGS[0]);
        waiter.join().unwrap();
        if recovers {
            THINGS.iter().for_each(|(_, events)| Eventcount::new(&*segment, *events).recover());
        }
        taker.join().unwrap();
    });
}

#[test]
fn a_waiter_that_dies_awake_is_made_up_for() {
    dying_waiter(true);
}

#[test]
#[ignore = "ends in a deadlock: run by the test of all canaries"]
fn canary_recovery_left_out_who_died_awake_took_the_wake_up_along() {
    dying_waiter(false);
}

// ---- Lock ----

fn lock_segment() -> Arc<Segment> {
    let words: Vec<usize> = (0..LOCK_BYTES).step_by(8).filter(|at| *at != 24).collect();
    Segment::new(&words, &[24, 28])
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
                    inside.swap(0, Ordering::Relaxed);
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
    exclusion(3, 2, false);
}

/// Looks and then writes, instead of exchanging.
#[test]
#[should_panic(expected = "two hold the lock")]
fn canary_a_lock_that_is_not_exchanged_is_held_by_two() {
    check(2, || {
        let segment = lock_segment();
        let inside = Arc::new(AtomicU64::new(0));
        let pass = |segment: &Segment, inside: &AtomicU64, session: u64| {
            if segment.word(0).load() == 0 {
                segment.word(0).swap(Claim::new(session, 0).word());
                assert_eq!(inside.swap(session, Ordering::Relaxed), 0, "two hold the lock");
                inside.swap(0, Ordering::Relaxed);
                segment.word(0).swap(0);
            }
        };
        let other = thread::spawn({
            let (segment, inside) = (segment.clone(), inside.clone());
            move || pass(&segment, &inside, 1)
        });
        pass(&segment, &inside, 2);
        other.join().unwrap();
    });
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
            Lock::new(&*segment, 0).recover(1, |_| true);
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
            Eventcount::new(&*segment, if is_long { 28 } else { 24 }).prepare();
            if is_long {
                segment.word(16).swap(dead.word());
            }
            let waiter = thread::spawn({
                let segment = segment.clone();
                move || {
                    take(&segment, 2, false);
                    Lock::new(&*segment, 0).release();
                }
            });
            Lock::new(&*segment, 0).release();
            Lock::new(&*segment, 0).recover(3, |_| true);
            waiter.join().unwrap();
            assert!(Lock::new(&*segment, 0).is_free());
        });
    }
}

// ---- RwLock ----

/// With the slots that two readers take.
/// Given back without a fence: what was stored reaches the others at some later time, which a thread of its own decides on.
fn given_back_without_a_fence(heirs: bool, barrier: bool) {
    check(3, move || {
        let words: Vec<usize> = (0..LOCK_BYTES).step_by(8).filter(|at| *at != 24).collect();
        let segment = Segment::with_buffer(&words, &[24, 28]);
        assert!(Lock::new(&*segment, 0).try_take(Claim::new(1, 1)).is_some());
        let waiter = thread::spawn({
            let segment = segment.clone();
            move || {
                let (lock, me) = (Lock::new(&*segment, 0), Claim::new(2, 2));
                let patience = Patience { segment: &segment, is_long: heirs };
                let taken = if barrier { lock.take(me, &patience) } else { lock.take(me, &Careless(patience)) };
                assert!(taken.unwrap().is_some());
                lock.release();
            }
        });
        let processor = thread::spawn({
            let segment = segment.clone();
            move || segment.drain()
        });
        Lock::new(&*segment, 0).release_relying();
        processor.join().unwrap();
        // At the latest when the thread is taken off its processor.
        segment.drain();
        waiter.join().unwrap();
        assert!(Lock::new(&*segment, 0).is_free());
    });
}

#[test]
fn who_gives_back_without_a_fence_is_made_up_for() {
    given_back_without_a_fence(false, true);
}

#[test]
fn so_is_who_hands_over_to_an_heir() {
    given_back_without_a_fence(true, true);
}

#[test]
#[ignore = "ends in a deadlock: run by the test of all canaries"]
fn canary_without_the_barrier_a_lock_given_back_without_a_fence_is_waited_for() {
    given_back_without_a_fence(false, false);
}

fn rwlock_segment() -> Arc<Segment> {
    let words: Vec<usize> = (0..LOCK_BYTES).step_by(8).filter(|at| *at != 24).chain([288, 304]).chain((320..352).step_by(8)).collect();
    Segment::new(&words, &[24, 28, 296])
}

fn begin_to_read(segment: &Segment, session: u64) -> usize {
    let (lock, me) = (RwLock::new(segment, 0), Claim::new(session, session as u32));
    lock.try_read(me).unwrap_or_else(|| {
        let taken = lock.writer().take(me, &Patience { segment, is_long: false }).unwrap().unwrap();
        lock.read(me, taken).unwrap()
    })
}

fn write(segment: &Segment, session: u64) -> Taken {
    let (lock, me, patience) = (RwLock::new(segment, 0), Claim::new(session, session as u32), Patience { segment, is_long: false });
    let taken = lock.writer().try_take(me).unwrap_or_else(|| lock.writer().take(me, &patience).unwrap().unwrap());
    if lock.has_readers() {
        assert!(lock.drain(me, taken, &patience).unwrap());
    }
    taken
}

#[test]
fn a_writer_is_alone() {
    check(2, || {
        let segment = rwlock_segment();
        let readers = Arc::new(AtomicU64::new(0));
        let reader = thread::spawn({
            let (segment, readers) = (segment.clone(), readers.clone());
            move || {
                let slot = begin_to_read(&segment, 1);
                assert!(readers.fetch_add(1, Ordering::Relaxed) < 100, "a writer is there");
                readers.fetch_sub(1, Ordering::Relaxed);
                RwLock::new(&*segment, 0).leave(slot);
            }
        });
        write(&segment, 2);
        assert_eq!(readers.fetch_add(100, Ordering::Relaxed), 0, "a reader is there");
        readers.fetch_sub(100, Ordering::Relaxed);
        RwLock::new(&*segment, 0).writer().release();
        reader.join().unwrap();
    });
}

#[test]
fn a_dead_reader_keeps_nobody_out() {
    check(2, || {
        let segment = rwlock_segment();
        begin_to_read(&segment, 1);
        let writer = thread::spawn({
            let segment = segment.clone();
            move || {
                assert!(!write(&segment, 2).owner_died);
                RwLock::new(&*segment, 0).writer().release();
            }
        });
        RwLock::new(&*segment, 0).recover(1);
        writer.join().unwrap();
    });
}

#[test]
#[ignore = "ends in a deadlock: run by the test of all canaries"]
fn canary_without_recovery_a_dead_reader_is_waited_for() {
    check(2, || {
        let segment = rwlock_segment();
        begin_to_read(&segment, 1);
        write(&segment, 2);
    });
}

// ---- Semaphore ----

/// One permit, of two that there can be.
fn semaphore_segment(free: u64) -> Arc<Segment> {
    let words: Vec<usize> = (0..304).step_by(8).filter(|at| *at != 24).collect();
    let segment = Segment::new(&words, &[24, 28]);
    segment.word(0).swap(2);
    segment.word(8).swap(free);
    (free as usize..2).for_each(|slot| {
        segment.word(288 + 8 * slot).swap(3);
    });
    segment
}

fn acquire(segment: &Segment, session: u64, is_long: bool) -> usize {
    let (semaphore, me) = (Semaphore::new(segment, 0, 2).unwrap(), Claim::new(session, session as u32));
    semaphore.try_take(me).unwrap_or_else(|| semaphore.take(me, &Patience { segment, is_long }).unwrap().unwrap())
}

#[test]
fn one_has_the_permit() {
    for is_long in [false, true] {
        check(2, move || {
            let segment = semaphore_segment(1);
            let inside = Arc::new(AtomicU64::new(0));
            let threads: Vec<_> = (1..=2)
                .map(|session| {
                    let (segment, inside) = (segment.clone(), inside.clone());
                    thread::spawn(move || {
                        let permit = acquire(&segment, session, is_long);
                        assert_eq!(inside.swap(session, Ordering::Relaxed), 0, "two have the permit");
                        inside.swap(0, Ordering::Relaxed);
                        Semaphore::new(&*segment, 0, 2).unwrap().release(permit);
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(Semaphore::new(&*segment, 0, 2).unwrap().available(), 1);
        });
    }
}

#[test]
fn a_signal_reaches_who_waits() {
    check(3, || {
        let segment = semaphore_segment(0);
        let waiter = thread::spawn({
            let segment = segment.clone();
            move || {
                let permit = acquire(&segment, 1, false);
                Semaphore::new(&*segment, 0, 2).unwrap().consume(permit);
            }
        });
        assert!(Semaphore::new(&*segment, 0, 2).unwrap().add());
        waiter.join().unwrap();
        assert_eq!(Semaphore::new(&*segment, 0, 2).unwrap().available(), 0);
    });
}

#[test]
fn a_dead_holders_permit_comes_back() {
    check(3, || {
        let segment = semaphore_segment(1);
        acquire(&segment, 1, false);
        let waiter = thread::spawn({
            let segment = segment.clone();
            move || acquire(&segment, 2, false)
        });
        Semaphore::new(&*segment, 0, 2).unwrap().recover(1);
        waiter.join().unwrap();
    });
}

// ---- Event ----

#[test]
#[ignore = "ends in a deadlock: run by the test of all canaries"]
fn canary_an_event_that_was_cleared_before_is_waited_for() {
    check(6, || {
        let segment = Segment::new(&[0, 16], &[8]);
        let event = Event::new(&*segment, 0);
        let other = thread::spawn({
            let segment = segment.clone();
            move || {
                let event = Event::new(&*segment, 0);
                event.change(true);
                event.change(false)
            }
        });
        if event.is_set() {
            assert!(event.wait(Claim::new(1, 0), &Patience { segment: &segment, is_long: false }).unwrap());
        }
        assert!(other.join().unwrap());
    });
}

#[test]
fn an_event_wakes_who_waits() {
    check(3, || {
        let segment = Segment::new(&[0, 16], &[8]);
        let waiter = thread::spawn({
            let segment = segment.clone();
            move || Event::new(&*segment, 0).wait(Claim::new(1, 0), &Patience { segment: &segment, is_long: false }).unwrap()
        });
        Event::new(&*segment, 0).change(true);
        assert!(waiter.join().unwrap());
    });
}

// ---- Condition ----

#[test]
fn no_notification_under_the_lock_is_lost() {
    check(2, || {
        let words: Vec<usize> = (0..LOCK_BYTES).step_by(8).filter(|at| *at != 24).chain([320, 328, 336, 1000]).collect();
        let segment = Segment::new(&words, &[24, 28, 288]);
        let waiter = thread::spawn({
            let segment = segment.clone();
            move || {
                take(&segment, 1, false);
                while segment.word(1000).load() == 0 {
                    let release = || Lock::new(&*segment, 0).release();
                    let patience = Patience { segment: &segment, is_long: false };
                    assert!(Condition::new(&*segment, 0).wait(Claim::new(1, 1), release, &patience).unwrap());
                    take(&segment, 1, false);
                }
                Lock::new(&*segment, 0).release();
            }
        });
        take(&segment, 2, false);
        segment.word(1000).swap(1);
        Lock::new(&*segment, 0).release();
        Condition::new(&*segment, 0).notify_one();
        waiter.join().unwrap();
    });
}

// ---- Barrier ----

/// The bits of a barrier's state but for how many rounds went well.
const WITHOUT_CALM: u64 = (1 << 50) - 1;

fn barrier_segment() -> Arc<Segment> {
    let segment = Segment::new(&[0, 16, 64, 72], &[8]);
    segment.word(16).swap(2);
    segment
}

fn pass(segment: &Segment, session: u64) -> Result<bool> {
    let (barrier, patience) = (Barrier::new(segment, 0, 2)?, Patience { segment, is_long: false });
    let arrival = barrier.arrive(session, &patience)?;
    if arrival.leads {
        barrier.open(arrival)?
    } else {
        barrier.wait(arrival, &patience)?
    }
    Ok(arrival.leads)
}

#[test]
fn parties_pass_together() {
    check(2, || {
        let segment = barrier_segment();
        let other = thread::spawn({
            let segment = segment.clone();
            move || pass(&segment, 1).unwrap()
        });
        let leads = pass(&segment, 2).unwrap();
        assert!(leads != other.join().unwrap(), "one leads");
        assert_eq!(segment.word(0).load() & WITHOUT_CALM, 1);
    });
}

#[test]
fn parties_pass_round_after_round() {
    check(1, || {
        let segment = barrier_segment();
        let other = thread::spawn({
            let segment = segment.clone();
            move || assert_eq!((0..2).filter(|_| pass(&segment, 1).is_ok()).count(), 2)
        });
        assert_eq!((0..2).filter(|_| pass(&segment, 2).is_ok()).count(), 2);
        other.join().unwrap();
        assert_eq!(segment.word(0).load() & WITHOUT_CALM, 2);
    });
}

#[test]
fn a_dead_party_breaks_the_barrier() {
    check(3, || {
        let segment = barrier_segment();
        let waiter = thread::spawn({
            let segment = segment.clone();
            move || pass(&segment, 1)
        });
        // It arrives, and dies.
        let patience = Patience { segment: &segment, is_long: false };
        let _ = Barrier::new(&*segment, 0, 2).unwrap().arrive(2, &patience);
        Barrier::new(&*segment, 0, 2).unwrap().recover(2, true);
        // Unless the last one to come was the one who lives.
        assert!(waiter.join().unwrap().is_ok_and(|leads| leads) || segment.word(0).load() >> 48 & 1 == 1);
    });
}
