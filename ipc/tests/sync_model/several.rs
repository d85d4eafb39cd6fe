//! One who waits for several things at once passes a wake-up on that he does not need.
use crate::check;
use crate::segment::{Patience, Segment};
use commonhold_ipc::error::Result;
use commonhold_ipc::sync::{Eventcount, Half, Memory, Sleeper, Word, wait_for_any};
use loom::sync::Arc;
use loom::thread;

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
