//! The lock: one has it, whoever dies where.
use crate::check;
use crate::segment::{Careless, Dying, Patience, Segment};
use commonhold_ipc::sync::{Claim, Eventcount, LOCK_BYTES, Lock, Memory, Taken, Word};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

fn lock_segment() -> Arc<Segment> {
    let words: Vec<usize> = (0..LOCK_BYTES).step_by(8).filter(|at| *at != 24).collect();
    Segment::new(&words, &[24, 28])
}

pub fn take(segment: &Segment, session: u64, is_long: bool) -> Taken {
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
