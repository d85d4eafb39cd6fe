//! Conditions.
use crate::check;
use crate::lock::take;
use crate::segment::{Patience, Segment};
use commonhold_ipc::sync::condition::Condition;
use commonhold_ipc::sync::{Claim, LOCK_BYTES, Lock, Memory, Word};
use loom::thread;

/// One waits for a word that another changes under the lock; `keeps`: it has the lock until it is ready to sleep.
fn wait_for_change(keeps: bool) {
    check(2, move || {
        let words: Vec<usize> = (0..LOCK_BYTES).step_by(8).filter(|at| *at != 24).chain([320, 328, 336, 1000]).collect();
        let segment = Segment::new(&words, &[24, 28, 288]);
        let waiter = thread::spawn({
            let segment = segment.clone();
            move || {
                take(&segment, 1, false);
                while segment.word(1000).load() == 0 {
                    let release = || Lock::new(&*segment, 0).release();
                    let patience = Patience { segment: &segment, is_long: false };
                    let (condition, me) = (Condition::new(&*segment, 0), Claim::new(1, 1));
                    let notified = if keeps {
                        condition.wait(me, release, &patience)
                    } else {
                        release();
                        condition.wait(me, || (), &patience)
                    };
                    assert!(notified.unwrap());
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

#[test]
fn no_notification_under_the_lock_is_lost() {
    wait_for_change(true);
}

#[test]
#[ignore = "ends in a deadlock: run by the test of all canaries"]
fn canary_to_give_the_lock_back_before_preparing_loses_the_notification() {
    wait_for_change(false);
}
