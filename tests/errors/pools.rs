//! Of pools and supervisors.

use super::support::{signal_to, until};
use super::{ErrorKind, Process, says};
use commonhold::{ChildSpec, Pool, RestartStrategy, Supervisor};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use std::time::Duration;

fn square(n: u64) -> u64 {
    n * n
}

fn wait_for_ever() {
    loop {
        std::thread::park();
    }
}

fn fails_to_begin() -> commonhold::Result<()> {
    Err(commonhold::Error::other("no licence"))
}

#[test]
fn of_builders() {
    says(Pool::new(0), ErrorKind::OutOfRange, "a pool of 0 workers cannot be: from 1 to {…}");
    says(
        Pool::builder().max_tasks_per_child(0).build(),
        ErrorKind::OutOfRange,
        "a pool with a max_tasks_per_child of 0 would do nothing: 1 is the least",
    );
    says(Pool::builder().chunk_size(0).build(), ErrorKind::OutOfRange, "a pool with a chunk_size of 0 would do nothing: 1 is the least");
    says(Pool::builder().look_ahead(0).build(), ErrorKind::OutOfRange, "a pool with a look_ahead of 0 would do nothing: 1 is the least");
    says(Pool::builder().cpus([]).build(), ErrorKind::OutOfRange, "a pool's workers cannot run on no processor at all: name one, or none");
}

#[test]
fn of_initializers() {
    let pool = Pool::builder().workers(1).initializer(fails_to_begin, ()).build().unwrap();
    says(pool.apply(square, 3), ErrorKind::Other, "3 workers of the pool in a row have ended before their first task: {…}no licence");
}

#[test]
fn of_workers_that_die_one_after_another() {
    let pool = Pool::new(1).unwrap();
    let gives_up = loop {
        if let Err(error) = pool.apply(square, 3) {
            break error;
        }
        // It has begun, and has nothing to do. (It may have done its call before the pool has written down who it is.)
        until("the worker is known", || !pool.pids().is_empty());
        let worker = pool.pids()[0];
        signal_to(worker, Signal::KILL);
        until("the worker is gone", || !pool.pids().contains(&worker));
    };
    says(
        Err::<(), _>(gives_up),
        ErrorKind::Died,
        "64 workers of the pool in a row have died without a task, the last one so: PoolWorker-64 (pid {…}) {…}SIGKILL{…}; find out what ends them, then make a new pool",
    );
}

/// Has a pool whose only worker dies when there is no descriptor for another one.
fn pool_without_descriptors() -> commonhold::Result<u64> {
    let most = 64;
    // The pool's own lie above, so that none becomes free below with its worker's end.
    let _others: Vec<_> = (0..most).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    let pool = Pool::new(1)?;
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: getrlimit(Resource::Nofile).maximum }).unwrap();
    signal_to(pool.pids()[0], Signal::KILL);
    pool.apply(square, 3)
}

/// Has a pool whose owner may open nothing more, not even in place of what it has kept in reserve.
fn pool_that_gets_no_descriptors() -> commonhold::Result<u64> {
    let most = 64;
    let _others: Vec<_> = (0..most).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    let pool = Pool::new(1)?;
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: getrlimit(Resource::Nofile).maximum }).unwrap();
    let lost = pool.apply(|n: u64| vec![n; 5 << 20], 3);
    // What needs none comes as before.
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
    lost.map(|words| words.len() as u64)
}

#[test]
fn of_results_whose_descriptors_are_lost() {
    says(
        Process::spawn(pool_that_gets_no_descriptors, ()).unwrap().join().unwrap(),
        ErrorKind::System,
        "`{…}` in a pool's worker: the descriptor that a result of a pool's worker came with was lost: this process has no room for another; close some or raise `ulimit -n`{…}",
    );
}

#[test]
fn of_workers_that_cannot_be_replaced() {
    says(
        Process::spawn(pool_without_descriptors, ()).unwrap().join().unwrap(),
        ErrorKind::System,
        "the pool has no workers left, and no other can be started: {…}`ulimit -n`{…}",
    );
}

#[test]
fn of_ends() {
    let pool = Pool::new(1).unwrap();
    says(pool.join(), ErrorKind::Refused, "the pool is open, and will not end: `close` it first, or `terminate` it");
    let pending = pool.apply_async(wait_for_ever, ()).unwrap();
    assert_eq!(pending.get_timeout(Duration::from_millis(1)).unwrap(), None);
    pool.terminate().unwrap();
    says(pending.get(), ErrorKind::Closed, "the pool was terminated before this was done");
    says(pool.apply(square, 3), ErrorKind::Closed, "the pool was terminated before this was done");
    let pool = Pool::new(1).unwrap();
    pool.close().unwrap();
    says(pool.apply(square, 3), ErrorKind::Closed, "the pool is closed: it takes no more tasks");
    says(pool.resize(2), ErrorKind::Closed, "the pool is closed, and its workers end: it gets no others");
}

#[test]
fn of_callbacks() {
    let pool = std::sync::Arc::new(Pool::new(1).unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    let within = pool.clone();
    pool.apply_async(square, 3).unwrap().then(move |_| tell.send(within.join()).unwrap());
    says(told.recv().unwrap(), ErrorKind::Deadlock, "a callback of a pool cannot wait for the pool's end: it runs on a thread of it");
}

#[test]
fn of_tasks() {
    let pool = Pool::builder().workers(1).task_time_limit(Duration::from_millis(50)).build().unwrap();
    // One call has no number.
    let late = "PoolWorker-{…} (pid {…}) was ended while it ran `errors::pools::wait_for_ever`: longer than 50ms";
    says(pool.apply(wait_for_ever, ()), ErrorKind::TimedOut, late);
    let pool = Pool::builder().workers(1).chunk_size(4).build().unwrap();
    let exit = |code: i32| -> u64 { std::process::exit(code) };
    let died = "PoolWorker-{…} (pid {…}) {…} exit code 7 while it ran `{…}`";
    says(pool.apply(exit, 7), ErrorKind::Died, died);
    let of_many = pool.map_all(|n: u64| if n == 20 { std::process::exit(7) } else { n }, 18..30).unwrap();
    says(of_many.into_iter().nth(2).unwrap(), ErrorKind::Died, &format!("{died} on item 2 (counted from 0)"));
    let panics = |n: u64| -> u64 { panic!("out of {n}") };
    says(pool.apply(panics, 5), ErrorKind::Panicked, "`{…}` in a pool's worker panicked at {…}: out of 5");
}

/// Whichever way items go to workers: who reads the error knows which of them it was, and be it the only one.
#[test]
fn of_items() {
    fn at_five(n: u64) -> u64 {
        if n == 5 { panic!("out of {n}") } else { n }
    }
    let panicked = |item: u64| format!("`{{…}}` in a pool's worker on item {item} (counted from 0) panicked at {{…}}: out of 5");
    // In chunks of one and of more, at a chunk's beginning, within it, and at its end.
    for (chunk, first) in [(1, 5), (1, 3), (4, 5), (4, 3), (4, 2), (4, 1), (100, 0)] {
        let pool = Pool::builder().workers(2).chunk_size(chunk).build().unwrap();
        let says = |error| says::<u64>(Err(error), ErrorKind::Panicked, &panicked(5 - first));
        let of = |results: Vec<commonhold::Result<u64>>| results.into_iter().find_map(Result::err).unwrap();
        let items = || first..10;
        says(pool.map(at_five, items()).unwrap_err());
        says(pool.map_async(at_five, items()).unwrap().get().unwrap_err());
        says(pool.starmap(|n: u64, _: u64| at_five(n), items().map(|n| (n, 0))).unwrap_err());
        says(pool.for_each(|n: u64| _ = at_five(n), items()).unwrap_err());
        says(of(pool.map_all(at_five, items()).unwrap()));
        says(of(pool.imap(at_five, items()).unwrap().collect()));
        says(of(pool.imap_unordered(at_five, items()).unwrap().collect()));
    }
    let pool = Pool::new(1).unwrap();
    says(pool.map(at_five, [5]), ErrorKind::Panicked, &panicked(0));
}

#[test]
fn of_supervisors() {
    let mut supervisor = Supervisor::new(RestartStrategy::OneForOne);
    supervisor.add(ChildSpec::new("sweeper", wait_for_ever, ())).unwrap();
    says(
        supervisor.add(ChildSpec::new("sweeper", wait_for_ever, ())),
        ErrorKind::AlreadyExists,
        "there is a supervised child sweeper already: give this one another name",
    );
    supervisor.shutdown().unwrap();
    says(
        supervisor.add(ChildSpec::new("other", wait_for_ever, ())),
        ErrorKind::Refused,
        "other cannot be supervised: the supervisor has been stopped, or has given up; make a new one",
    );
}

#[test]
fn of_children_that_are_killed() {
    let child = Process::spawn(wait_for_ever, ()).unwrap();
    child.kill().unwrap();
    says(child.join(), ErrorKind::Died, "{…} (pid {…}, running `{…}wait_for_ever`) {…}SIGKILL{…}");
}
