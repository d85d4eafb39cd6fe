//! Readers and writers.
use crate::check;
use crate::segment::{Patience, Segment};
use commonhold_ipc::sync::rwlock::RwLock;
use commonhold_ipc::sync::{Claim, LOCK_BYTES, Taken};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

/// With the slots that two readers take.
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
