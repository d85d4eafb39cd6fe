//! Permits.
use crate::check;
use crate::segment::{Patience, Segment};
use commonhold_ipc::sync::semaphore::Semaphore;
use commonhold_ipc::sync::{Claim, Memory, Word};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

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

fn dead_holder(recovers: bool) {
    check(3, move || {
        let segment = semaphore_segment(1);
        acquire(&segment, 1, false);
        let waiter = thread::spawn({
            let segment = segment.clone();
            move || acquire(&segment, 2, false)
        });
        if recovers {
            Semaphore::new(&*segment, 0, 2).unwrap().recover(1);
        }
        waiter.join().unwrap();
    });
}

#[test]
fn a_dead_holders_permit_comes_back() {
    dead_holder(true);
}

#[test]
#[ignore = "ends in a deadlock: run by the test of all canaries"]
fn canary_without_recovery_a_dead_holders_permit_is_waited_for() {
    dead_holder(false);
}
