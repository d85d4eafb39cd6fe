//! How pools end, and how they change their size.

use super::support::{PROMPT, Watched, until};
use super::{square, whose};
use commonhold::{ErrorKind, Event, Manager, Pool, Process, ResourceLimit, parent_process};
use std::collections::BTreeSet;
use std::time::Duration;

fn for_ever() {
    let _ = parent_process().unwrap().wait(None);
}

fn watched(pool: &Pool) -> Vec<Watched> {
    pool.pids().into_iter().map(Watched::of).collect()
}

fn all_end(workers: Vec<Watched>) {
    for worker in workers {
        assert!(worker.end_within(PROMPT).is_some(), "a worker is left");
    }
}

#[test]
fn a_closed_pool_does_what_was_asked_for_and_ends() {
    let manager = Manager::start().unwrap();
    let gate = manager.event().unwrap();
    let pool = Pool::new(2).unwrap();
    let pending: Vec<_> =
        (0..300).map(|n| pool.apply_async(|gate: Event, n: u64| gate.wait().map(|()| n), (gate.clone(), n)).unwrap()).collect();
    let workers = watched(&pool);
    assert_eq!(pool.join().unwrap_err().kind(), ErrorKind::Refused, "it is open");
    pool.close().unwrap();
    for refused in [
        pool.apply(square, 1).map(drop),
        pool.map(square, [1]).map(drop),
        pool.apply_async(square, 1).map(drop),
        pool.imap(square, [1]).map(drop),
        pool.resize(3),
    ] {
        assert!(refused.unwrap_err().is_closed());
    }
    assert!(!pool.join_timeout(Duration::from_millis(1)).unwrap());
    gate.set().unwrap();
    pool.join().unwrap();
    assert!(workers.iter().all(Watched::has_ended) && pool.pids().is_empty());
    assert!((0..).zip(pending).all(|(n, result)| result.is_ready() && result.get().unwrap().unwrap() == n));
    pool.close().unwrap();
    pool.join().unwrap();
    assert!(format!("{pool:?}").ends_with("closed>"), "{pool:?}");
}

#[test]
fn what_was_begun_before_the_close_may_go_on() {
    let pool = Pool::new(2).unwrap();
    let mut results = pool.imap(square, 0..1000).unwrap();
    assert_eq!(results.next().unwrap().unwrap(), 0);
    pool.close().unwrap();
    assert_eq!(results.map(Result::unwrap).sum::<i64>(), (0..1000).map(square).sum::<i64>());
    pool.join().unwrap();
}

#[test]
fn terminate_and_drop_end_everything_at_once() {
    for drops in [false, true] {
        let pool = Pool::new(2).unwrap();
        let pending: Vec<_> = (0..300).map(|_| pool.apply_async(for_ever, ()).unwrap()).collect();
        let mut results = pool.imap(|_: u64| for_ever(), 0..).unwrap();
        let workers = watched(&pool);
        let waits = std::thread::scope(|scope| {
            let waits = scope.spawn(|| pending[1].get());
            if drops {
                drop(pool);
            } else {
                pool.terminate().unwrap();
                pool.join().unwrap();
                assert!(pool.apply(square, 1).unwrap_err().is_closed());
                assert!(format!("{pool:?}").ends_with("ended>"), "{pool:?}");
            }
            waits.join().unwrap()
        });
        assert!(waits.unwrap_err().is_closed());
        assert!(workers.iter().all(Watched::has_ended));
        assert!(pending.iter().all(|result| result.is_ready() && result.get().unwrap_err().is_closed()));
        assert!(results.next().unwrap().unwrap_err().is_closed());
        assert!(results.count() < 100);
    }
}

#[test]
fn a_dropped_iterator_calls_off_what_has_not_begun() {
    let manager = Manager::start().unwrap();
    let calls = manager.counter(0).unwrap();
    let pool = Pool::builder().workers(1).look_ahead(100).build().unwrap();
    let mut results = pool.imap(|calls: commonhold::Counter, _: u64| calls.add(1), (0..).map(|n| (calls.clone(), n))).unwrap();
    results.next().unwrap().unwrap().unwrap();
    drop(results);
    pool.close().unwrap();
    pool.join().unwrap();
    assert!(calls.get().unwrap() <= 101);
}

#[test]
fn workers_are_replaced_after_so_many_calls() {
    fn twice(n: u64) -> (u32, u64) {
        (std::process::id(), n)
    }
    for chunk in [1, 2, 5] {
        let pool = Pool::builder().workers(2).max_tasks_per_child(3).chunk_size(chunk).build().unwrap();
        let results = pool.map(twice, 0..40).unwrap();
        let mut calls = std::collections::BTreeMap::<u32, u32>::new();
        for (expected, (pid, n)) in (0..).zip(results) {
            assert_eq!(n, expected);
            *calls.entry(pid).or_default() += 1;
        }
        assert!(calls.values().all(|calls| *calls <= 3) && calls.len() >= 14, "{calls:?}");
    }
}

#[test]
fn a_pool_grows_and_shrinks_under_load() {
    let pool = Pool::builder().workers(1).chunk_size(1).build().unwrap();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| (0..20).map(|_| pool.map(square, 0..400).unwrap().len()).sum::<usize>());
        for workers in [4, 2, 5, 1, 3] {
            pool.resize(workers).unwrap();
            until("there are so many", || pool.pids().len() == workers);
        }
        assert_eq!(load.join().unwrap(), 8000);
    });
    while pool.map(whose, 0..40).unwrap().into_iter().collect::<BTreeSet<_>>().len() < 3 {}
    assert_eq!(pool.workers(), 3);
}

/// A pool in a process whose limits are tight: an error at once, or work with fewer.
#[test]
fn what_the_system_refuses_is_an_error() {
    fn start(workers: u64) -> commonhold::Result<i64> {
        let before = commonhold::active_children().len();
        let pool = Pool::new(workers as usize).inspect_err(|_| assert_eq!(commonhold::active_children().len(), before))?;
        pool.apply(square, 3)
    }
    let few = |limit, most: u64, workers: u64| Process::builder().limit(limit, most).spawn(start, workers).unwrap().join().unwrap();
    assert_eq!(few(ResourceLimit::OpenFiles, 64, 2).unwrap(), 9);
    let error = few(ResourceLimit::OpenFiles, 24, 30).unwrap_err();
    assert!(error.kind() == ErrorKind::System && error.to_string().contains("ulimit -n"), "{error}");
    let error = few(ResourceLimit::FileSize, 1 << 20, 2).unwrap_err();
    assert!(error.kind() == ErrorKind::System && error.to_string().contains("ulimit -f"), "{error}");
}

/// The workers die, and no others can be started: whoever waits is told so.
#[test]
fn a_pool_that_cannot_replace_its_workers_says_so() {
    fn exhaust() -> (bool, String) {
        let pool = Pool::new(1).unwrap();
        pool.apply(square, 1).unwrap();
        let mut open = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            open.push(file);
        }
        let died = pool.apply(|| -> () { commonhold_ipc::sys::kill_self() }, ()).unwrap_err();
        let error = pool.apply(square, 2).unwrap_err();
        drop(open);
        (died.is_died(), error.to_string())
    }
    let (died, error) = Process::builder().limit(ResourceLimit::OpenFiles, 64).spawn(exhaust, ()).unwrap().join().unwrap();
    assert!(died && error.contains("no workers left") && error.contains("ulimit -n"), "{error}");
}

#[test]
fn pools_leave_nothing_behind() {
    let descriptors = || super::support::descriptors_of(std::process::id());
    fn leaves() -> (u64, u64) {
        let descriptors = || super::support::descriptors_of(std::process::id()) as u64;
        drop(Pool::new(2).unwrap());
        let before = descriptors();
        for _ in 0..5 {
            let pool = Pool::new(2).unwrap();
            pool.map(square, 0..10).unwrap();
        }
        // A process that was started last is cleared away when the next is asked for.
        assert!(commonhold::active_children().is_empty());
        (before, descriptors())
    }
    assert!(descriptors() > 0);
    let (before, after) = Process::spawn(leaves, ()).unwrap().join().unwrap();
    assert!(after <= before, "{before} {after}");
    let pool = Pool::new(1).unwrap();
    let workers = watched(&pool);
    drop(pool);
    all_end(workers);
}
