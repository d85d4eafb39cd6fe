//! Barriers.
use crate::check;
use crate::segment::{Patience, Segment};
use commonhold_ipc::error::Result;
use commonhold_ipc::sync::barrier::Barrier;
use commonhold_ipc::sync::{Memory, Word};
use loom::sync::Arc;
use loom::thread;

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

fn dead_party(recovers: bool) {
    check(3, move || {
        let segment = barrier_segment();
        let waiter = thread::spawn({
            let segment = segment.clone();
            move || pass(&segment, 1)
        });
        // It arrives, and dies.
        let patience = Patience { segment: &segment, is_long: false };
        let _ = Barrier::new(&*segment, 0, 2).unwrap().arrive(2, &patience);
        if recovers {
            Barrier::new(&*segment, 0, 2).unwrap().recover(2, true);
        }
        // Unless the last one to come was the one who lives.
        assert!(waiter.join().unwrap().is_ok_and(|leads| leads) || segment.word(0).load() >> 48 & 1 == 1);
    });
}

#[test]
fn a_dead_party_breaks_the_barrier() {
    dead_party(true);
}

#[test]
#[ignore = "ends in a deadlock: run by the test of all canaries"]
fn canary_without_recovery_a_dead_party_is_waited_for() {
    dead_party(false);
}
