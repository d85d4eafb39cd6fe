//! Of what a program does wrong by itself: waits for itself, mixes managers, asks for what cannot be.

use super::{ErrorKind, List, Manager, Process, says};
use commonhold::{ChildSpec, Pool, RestartStrategy, Supervisor};
use std::time::Duration;

#[test]
fn of_barriers_and_conditions() {
    let manager = Manager::in_process().unwrap();
    let barrier = manager.barrier(2).unwrap();
    says(
        barrier.wait_timeout(Duration::from_millis(1)),
        ErrorKind::TimedOut,
        "the other parties did not come in time, and the barrier is broken now: `reset` it to go on",
    );
    says(
        barrier.wait(),
        ErrorKind::Broken,
        "the barrier is broken: a party has died, has waited too long, or somebody has aborted or reset it; `reset` it to go on",
    );
    let (condition, other) = (manager.condition().unwrap(), manager.lock().unwrap());
    let guard = other.lock().unwrap().into_guard();
    says(
        condition.wait(guard).map(drop),
        ErrorKind::Refused,
        "a condition is waited for with a guard of its own lock: take that by the condition's `lock`",
    );
    let lock = manager.rw_lock().unwrap();
    let _reads = lock.read().unwrap();
    says(
        lock.write().map(drop),
        ErrorKind::Deadlock,
        "this thread reads under this lock and would wait for itself: drop its guard before it writes",
    );
}

#[test]
fn of_numbers_and_handles() {
    let (manager, elsewhere) = (Manager::in_process().unwrap(), Manager::in_process().unwrap());
    let dict = manager.dict([("a".to_string(), 250u8)]).unwrap();
    says(
        manager.transaction(|tx| tx.add(&dict, "a", 10)),
        ErrorKind::OutOfRange,
        "adding to this number would take it out of its type's range: nothing was changed",
    );
    let lists = manager.list::<List<u8>>([]).unwrap();
    says(
        lists.push(elsewhere.list([1u8]).unwrap()),
        ErrorKind::Refused,
        "the value holds a handle on object 1 of another manager: a container can refer to objects of its own manager only",
    );
    #[allow(clippy::reversed_empty_ranges)] // That is the mistake.
    let backwards = 5..2;
    says(
        manager.shared_bytes(10).unwrap().read(backwards),
        ErrorKind::OutOfRange,
        "the range 5..2 of a block begins behind its end: give its start first",
    );
}

fn parks() {
    loop {
        std::thread::park();
    }
}

fn square(n: u64) -> u64 {
    n * n
}

fn exits() {
    std::process::exit(3)
}

#[test]
fn of_children_that_cannot_be_or_still_are() {
    says(
        Process::builder().env("A", "b\0c").spawn(parks, ()).and_then(|child| child.join()),
        ErrorKind::OutOfRange,
        "{…} has a zero byte in it, so no process can get it",
    );
    let child = Process::builder().daemon(true).spawn(parks, ()).unwrap();
    says(
        child.close(),
        ErrorKind::Refused,
        "{…} (pid {…}, running `{…}parks`) still runs: `join` it first, or `kill` it; or drop it, and it goes on by itself",
    );
    let mut supervisor = Supervisor::new(RestartStrategy::OneForOne).max_restarts(1, Duration::from_secs(600));
    supervisor.add(ChildSpec::new("crasher", exits, ())).unwrap();
    says(
        supervisor.run(drop),
        ErrorKind::Died,
        "the supervisor has given up: after 1 restarts within 600s {…}crasher{…}. Mend what they die of, or allow more by `max_restarts`",
    );
}

#[test]
fn of_callbacks_that_wait() {
    let pool = std::sync::Arc::new(Pool::new(1).unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    let within = pool.clone();
    pool.apply_async(square, 3).unwrap().then(move |_| tell.send(within.apply(square, 4)).unwrap());
    says(
        told.recv().unwrap(),
        ErrorKind::Deadlock,
        "a callback of a pool cannot wait for the pool's results: it runs on the thread that brings them",
    );
}
