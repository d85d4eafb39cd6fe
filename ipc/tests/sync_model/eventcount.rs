//! The numbers that sleepers wait at: no notification is lost, also by who dies.
use crate::check;
use crate::segment::{Dying, Patience, Segment};
use commonhold_ipc::sync::{Eventcount, Memory, Word};
use loom::thread;

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
