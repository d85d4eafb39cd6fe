//! Who dies in a pool, and what then.

use super::support::PATIENCE;
use super::support::{Bomb, PROMPT, Parent, Role, WELL, Watched, forked, signal_to, until};
use super::{square, whose};
use commonhold::{Array, Dict, Error, ErrorKind, List, Manager, Pool, Shared, current_process, parent_process};
use commonhold_ipc::sys;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What a call is to do to its process.
const DIE: u64 = 1_000_001;
const EXIT: u64 = 1_000_002;
const PANIC: u64 = 1_000_003;

fn perhaps(n: u64) -> u64 {
    match n {
        DIE => sys::kill_self(),
        EXIT => std::process::exit(7),
        PANIC => panic!("argument {n}"),
        _ => n + 1,
    }
}

#[test]
fn a_death_fails_exactly_its_call() {
    for chunk in [1, 4, 100] {
        let pool = Pool::builder().workers(2).chunk_size(chunk).build().unwrap();
        let mut input: Vec<u64> = (0..60).collect();
        for at in [0, 13, 14, 59] {
            input[at] = DIE;
        }
        (input[20], input[33]) = (EXIT, PANIC);
        let results = pool.map_all(perhaps, input.clone()).unwrap();
        for (n, (argument, result)) in input.into_iter().zip(results).enumerate() {
            match (argument, result) {
                (DIE, Err(error)) => {
                    let text = error.to_string();
                    assert!(error.is_died() && text.contains("was killed by signal 9 (SIGKILL)"), "{text}");
                    assert!(text.contains("PoolWorker-") && text.contains("perhaps"), "{text}");
                    assert!(text.ends_with(&format!("` on item {n} (counted from 0)")), "{text}");
                }
                (EXIT, Err(error)) => assert!(error.is_died() && error.to_string().contains("exit code 7"), "{error}"),
                (PANIC, Err(error)) => {
                    assert!(error.is_panic() && error.to_string().contains("argument 1000003"), "{error}");
                    assert!(error.to_string().contains("deaths.rs") && format!("{error:?}").contains("backtrace"), "{error:?}");
                }
                (argument, result) => assert_eq!(result.unwrap(), argument + 1, "{chunk} {n}"),
            }
        }
        assert_eq!(pool.map(perhaps, 0..10).unwrap().len(), 10, "and the pool goes on");
    }
}

#[test]
fn the_first_error_stops_what_has_not_begun() {
    fn count(done: Dict<String, u64>, n: u64) -> commonhold::Result<()> {
        done.add("calls", 1)?;
        perhaps(n);
        Ok(())
    }
    let manager = Manager::start().unwrap();
    for bad in [DIE, PANIC] {
        let done = manager.dict::<String, u64>([]).unwrap();
        let pool = Pool::builder().workers(1).chunk_size(1).build().unwrap();
        let input = (0..10_000).map(|n| (done.clone(), if n == 3 { bad } else { n }));
        let error = pool.map(count, input).unwrap_err();
        assert!(error.is_died() || error.is_panic());
        // What is in a worker's hands goes on.
        pool.close().unwrap();
        pool.join().unwrap();
        assert!(*done.get("calls").unwrap().unwrap() < 300);
    }
}

#[test]
fn calls_are_tried_again_if_that_is_asked_for_and_no_more_often() {
    fn at_third(tries: List<u64>, n: u64) -> commonhold::Result<u64> {
        tries.push(n)?;
        if tries.count(n)? < 3 {
            sys::kill_self();
        }
        Ok(n)
    }
    let manager = Manager::start().unwrap();
    let tries = manager.list::<u64>([]).unwrap();
    let pool = Pool::builder().workers(2).chunk_size(4).retries(2).build().unwrap();
    let results = pool.map(at_third, (0..10).map(|n| (tries.clone(), n))).unwrap();
    assert_eq!(results.into_iter().map(Result::unwrap).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    assert_eq!(tries.len().unwrap(), 30);
    let pool = Pool::builder().workers(2).retries(1).build().unwrap();
    let again = manager.list::<u64>([]).unwrap();
    assert!(pool.apply(at_third, (again.clone(), 1)).unwrap_err().is_died());
    assert_eq!(again.len().unwrap(), 2);
    // What panics has had its say.
    assert!(pool.apply(perhaps, PANIC).unwrap_err().is_panic());
}

#[test]
fn a_panic_that_leaves_what_must_not_be_dropped_costs_its_call_alone() {
    fn unless_zero(n: u64) -> u32 {
        if n == 0 {
            std::panic::panic_any(Bomb);
        }
        std::process::id()
    }
    let pool = Pool::new(1).unwrap();
    let worker = pool.apply(unless_zero, 1).unwrap();
    let error = pool.apply(unless_zero, 0).unwrap_err();
    assert!(error.is_panic() && error.to_string().contains("no text"), "{error}");
    assert_eq!(pool.apply(unless_zero, 2).unwrap(), worker);
}

/// Panics when it is dropped in a worker.
#[derive(Shared, Debug)]
struct Touchy {
    worker: u32,
}

impl Drop for Touchy {
    fn drop(&mut self) {
        assert!(parent_process().is_none(), "it is dropped");
    }
}

#[test]
fn a_result_that_panics_where_it_is_dropped_is_brought_and_its_worker_stays() {
    let pool = Pool::new(1).unwrap();
    let touchy = |_: u32| Touchy { worker: std::process::id() };
    let workers = pool.map(touchy, 0..3).unwrap();
    assert!(workers.iter().all(|touchy| [touchy.worker] == *pool.pids()), "{workers:?}");
}

#[test]
fn idle_workers_that_are_killed_are_replaced() {
    let pool = Pool::new(2).unwrap();
    for _ in 0..3 {
        // They are up.
        while pool.map(whose, 0..20).unwrap().into_iter().collect::<BTreeSet<_>>().len() < 2 {}
        let before = pool.pids();
        before.iter().for_each(|pid| signal_to(*pid, Signal::KILL));
        until("others are there", || pool.pids().len() == 2 && pool.pids().iter().all(|pid| !before.contains(pid)));
        assert_eq!(pool.apply(square, 5).unwrap(), 25);
    }
}

#[test]
fn a_call_that_takes_too_long_is_ended() {
    fn maybe_forever(n: u64) -> u64 {
        match n {
            3 => loop {
                std::thread::park();
            },
            // Stopped, which the process cannot notice.
            5 => sys::stop_self(),
            _ => {}
        }
        n
    }
    let limit = Duration::from_millis(300);
    for chunk in [1, 10] {
        let pool = Pool::builder().workers(2).chunk_size(chunk).task_time_limit(limit).build().unwrap();
        let results = pool.map_all(maybe_forever, 0..10).unwrap();
        for (n, result) in (0..).zip(results) {
            match n {
                3 | 5 => assert!(result.unwrap_err().is_timed_out()),
                _ => assert_eq!(result.unwrap(), n),
            }
        }
    }
}

/// A call that was late is tried again like one whose worker died, and each try has all its time.
#[test]
fn late_calls_are_tried_again_if_that_is_asked_for() {
    fn late_at_first(tries: List<u64>, quick_from: u64) -> commonhold::Result<u64> {
        tries.push(0)?;
        if (tries.len()? as u64) < quick_from {
            parent_process().unwrap().wait(None)?;
        }
        Ok(tries.len()? as u64)
    }
    let manager = Manager::start().unwrap();
    let pool = Pool::builder().workers(1).task_time_limit(Duration::from_millis(300)).retries(2).build().unwrap();
    let tries = manager.list::<u64>([]).unwrap();
    assert_eq!(pool.apply(late_at_first, (tries.clone(), 3)).unwrap().unwrap(), 3);
    tries.clear().unwrap();
    assert!(pool.apply(late_at_first, (tries.clone(), 9)).unwrap_err().is_timed_out());
    assert_eq!(tries.len().unwrap(), 3);
}

/// The keeper has nothing to do for a while, and sleeps; then a call takes too long.
#[test]
fn a_pool_that_was_idle_ends_a_late_call_too() {
    let limit = Duration::from_millis(20);
    let pool = Pool::builder().workers(1).task_time_limit(limit).build().unwrap();
    for _ in 0..3 {
        assert_eq!(pool.apply(square, 3).unwrap(), 9);
        let idle = Instant::now();
        until("it has been idle", || idle.elapsed() > 3 * limit);
        let late = pool.apply(|| parent_process().unwrap().wait(None).map(drop), ());
        assert!(late.unwrap_err().is_timed_out());
    }
}

/// Calls that end just when their time is over, each before one that is short: the short one is never blamed.
#[test]
fn no_call_is_blamed_for_the_one_before_it() {
    const LIMIT_NS: u64 = 4_000_000;
    const CALLS: u64 = 100;
    static BEGAN: OnceLock<Array<u64>> = OnceLock::new();
    fn keep(began: Array<u64>) {
        began.get(0).unwrap();
        BEGAN.set(began).unwrap();
    }
    fn to_the_limit(n: u64) {
        let began = sys::monotonic_ns();
        BEGAN.get().unwrap().set(n as usize, began).unwrap();
        // (A little longer each time: the owner needs a while to come.)
        while n.is_multiple_of(2) && sys::monotonic_ns() - began < LIMIT_NS + n % 64 * 4_000 {}
    }
    let manager = Manager::start().unwrap();
    for chunk in [1, 8] {
        let began = manager.array::<u64>(CALLS as usize).unwrap();
        let limit = Duration::from_nanos(LIMIT_NS);
        let pool = Pool::builder().workers(1).chunk_size(chunk).task_time_limit(limit).initializer(keep, began.clone()).build().unwrap();
        for (n, result) in (0..).zip(pool.imap(to_the_limit, 0..CALLS).unwrap()) {
            let Err(error) = result else { continue };
            assert!(error.is_timed_out(), "{error}");
            // 0: it was kept from its first line for all its time.
            let (seen, began) = (sys::monotonic_ns(), began.get(n).unwrap());
            assert!(began == 0 || seen - began >= LIMIT_NS, "call {n} is said to have taken too long after {} ns", seen - began);
        }
    }
}

#[test]
fn an_initializer_is_called_once_in_each_worker() {
    fn remember(starts: List<String>) {
        starts.push(current_process().name().to_owned()).unwrap();
    }
    let manager = Manager::start().unwrap();
    let starts = manager.list::<String>([]).unwrap();
    let pool = Pool::builder().workers(2).initializer(remember, starts.clone()).max_tasks_per_child(5).chunk_size(2).build().unwrap();
    assert_eq!(pool.map(square, 0..50).unwrap().len(), 50);
    pool.close().unwrap();
    pool.join().unwrap();
    let names: Vec<String> = starts.to_owned().unwrap();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    assert!(names.len() >= 10, "{names:?}");
}

#[test]
fn a_dying_initializer_is_reported_after_few_tries() {
    fn refuses(starts: List<u64>, how: u64) {
        starts.push(how).unwrap();
        perhaps(how);
    }
    let manager = Manager::start().unwrap();
    for how in [DIE, EXIT, PANIC] {
        let starts = manager.list::<u64>([]).unwrap();
        let pool = Pool::builder().workers(2).initializer(refuses, (starts.clone(), how)).build().unwrap();
        let error = pool.map(square, 0..10).unwrap_err();
        assert!(error.to_string().contains("in a row have ended before their first task"), "{error}");
        assert_eq!(error.is_panic(), how == PANIC, "{error:?}");
        if how == PANIC {
            assert!(
                error.to_string().contains("the pool's initializer panicked") && error.to_string().contains("argument 1000003"),
                "{error}"
            );
        }
        assert!(pool.apply(square, 1).is_err() && pool.resize(3).is_err());
        pool.close().unwrap();
        pool.join().unwrap();
        assert!(starts.len().unwrap() <= 6, "{starts}");
    }
}

#[test]
fn the_owners_death_ends_the_workers() {
    let mut owner = Role::start("deaths::role_owner");
    let pids: Vec<u32> = owner.hear().unwrap().split(' ').map(|pid| pid.parse().unwrap()).collect();
    let workers: Vec<Watched> = pids.into_iter().map(Watched::of).collect();
    assert_eq!(workers.len(), 3);
    owner.kill();
    for worker in workers {
        assert!(worker.end_within(PROMPT).is_some(), "a worker has outlived its owner");
    }
}

/// Has a pool whose workers are busy, idle, and stopped.
#[test]
fn role_owner() {
    let Some(mut parent) = Parent::of("deaths::role_owner") else { return };
    let pool = Pool::new(3).unwrap();
    while pool.map(whose, 0..30).unwrap().into_iter().collect::<BTreeSet<_>>().len() < 3 {}
    let busy = pool.apply_async(|| parent_process().unwrap().wait(None).map(drop), ()).unwrap();
    parent.say(pool.pids().iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
    let _ = busy.get();
}

#[test]
fn a_panicking_owner_leaves_no_workers() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let owner = std::thread::spawn(move || {
        let pool = Pool::new(2).unwrap();
        let busy = pool.apply_async(|| parent_process().unwrap().wait(None).map(drop), ()).unwrap();
        let workers: Vec<Watched> = pool.pids().into_iter().map(Watched::of).collect();
        sender.send((busy, workers)).unwrap();
        let input = (0..).map(|n| if n < 500 { n } else { panic!("the input panics") });
        pool.for_each(square, input).unwrap();
    });
    let (busy, workers) = receiver.recv_timeout(PATIENCE).unwrap();
    assert!(owner.join().is_err());
    assert_eq!(busy.get().unwrap_err().kind(), ErrorKind::Closed);
    for worker in workers {
        assert!(worker.end_within(PROMPT).is_some());
    }
}

/// Workers die at each of their points, again and again: every call is done, or fails by a death, and whoever waits gets an answer.
#[test]
fn workers_die_at_every_point() {
    fn call(calls: List<u64>, n: u64) -> commonhold::Result<List<u64>> {
        calls.push(n)?;
        Ok(calls)
    }
    let manager = Manager::start().unwrap();
    // Of each call, whether it was done; and whether all workers have lived.
    let outcome = |point: u64, retries: u32, chunk: u64| -> Result<(Vec<bool>, bool), Error> {
        let calls = manager.list::<u64>([]).unwrap();
        let pool = Pool::builder()
            .workers(2)
            .chunk_size(chunk)
            .retries(retries)
            .initializer(|| (), ())
            .env(commonhold_ipc::points::CLIENT_VARIABLE, point.to_string())
            .build()
            .unwrap();
        let first = pool.pids();
        let results = pool.map_all(call, (0..6).map(|n| (calls.clone(), n)))?;
        let mut done = Vec::new();
        for (n, result) in (0..).zip(results) {
            let times = calls.count(n).unwrap() as u32;
            match result {
                Ok(list) => {
                    assert!(list.unwrap() == calls && times >= 1, "point {point}: {n} has a result and was not called");
                    done.push(true);
                }
                Err(error) => {
                    assert!(error.is_died(), "point {point}: {error:?}");
                    done.push(false);
                }
            }
            assert!(times <= retries + 1, "point {point}: {n} was called {times} times");
        }
        Ok((done, pool.pids() == first))
    };
    for (retries, chunk) in [(0, 4), (1, 1)] {
        let (mut hopeless, mut partly, mut alive) = (0, 0, 0);
        for point in 1.. {
            match outcome(point, retries, chunk) {
                Ok((done, lived)) if done.iter().all(|done| *done) => alive = if lived { alive + 1 } else { 0 },
                Ok(_) => partly += 1,
                Err(error) => {
                    assert!(error.to_string().contains("in a row"), "{error}");
                    hopeless += 1;
                }
            }
            // No worker comes to so many.
            if alive > 2 {
                println!("{} points", point - 3);
                break;
            }
        }
        assert!(hopeless > 3 && partly > 10, "{hopeless} {partly}");
    }
}

#[test]
fn a_time_limit_past_all_clocks_is_none() {
    let pool = Pool::builder().workers(1).task_time_limit(Duration::MAX).build().unwrap();
    assert_eq!(pool.apply(square, 2).unwrap(), 4);
    // The keeper looks at the limit while it starts another worker.
    signal_to(pool.pids()[0], Signal::KILL);
    assert_eq!(pool.map(square, 3..5).unwrap(), [9, 16]);
    pool.close().unwrap();
    pool.join().unwrap();
}

#[test]
fn a_forked_child_may_not_use_its_parents_pool() {
    Role::start("deaths::role_forker").expect(WELL);
}

fn for_ever(_: u64) -> u64 {
    loop {
        std::thread::park();
    }
}

/// Forks, in a process without other tests.
#[test]
fn role_forker() {
    let Some(mut parent) = Parent::of("deaths::role_forker") else { return };
    let pool = Pool::new(1).unwrap();
    let is_refused = |error: Error| error.kind() == ErrorKind::UsedAfterFork;
    // With room for more of its input.
    let mut results = pool.imap(square, 0..).unwrap();
    assert_eq!(results.next().unwrap().unwrap(), 0);
    assert_eq!(forked(|| results.by_ref().find_map(Result::err).is_some_and(is_refused)), WELL);
    drop(results);
    // What is there already, a child may look at.
    let pending = pool.apply_async(for_ever, 1).unwrap();
    let mut results = pool.imap(square, 0..).unwrap();
    let ended = forked(|| {
        let refused = [
            pool.apply(square, 2).map(drop),
            pool.map(square, 0..3).map(drop),
            pool.map_async(square, 0..3).map(drop),
            pool.apply_async(square, 2).map(drop),
            pool.imap(square, 0..3).map(drop),
            pool.close(),
            pool.terminate(),
            pool.join(),
            pool.resize(2),
            pending.wait(None).map(drop),
        ];
        let of_iterator = results.by_ref().find_map(Result::err);
        drop(pool);
        drop((pending, results));
        refused.into_iter().all(|result| result.is_err_and(is_refused)) && of_iterator.is_some_and(is_refused)
    });
    parent.say(ended);
}
