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
        "the value holds a handle on object 1 of another manager: a container can refer to objects of its own manager only: make it there, or store its `token()`",
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
fn of_supervised_children_that_cannot_be_started_again() {
    let starts = std::sync::atomic::AtomicU32::new(0);
    let once = move |builder: commonhold::ProcessBuilder| match starts.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
        0 => builder,
        _ => builder.executable("/there/is/no/such"),
    };
    let mut supervisor = Supervisor::new(RestartStrategy::OneForOne).max_restarts(1, Duration::from_secs(600));
    supervisor.add(ChildSpec::new("crasher", exits, ()).configure(once)).unwrap();
    says(
        supervisor.run(drop),
        ErrorKind::Died,
        "the supervisor has given up: after 1 restarts within 600s crasher could not be started: cannot start /there/is/no/such. Mend what \
         they die of, or allow more by `max_restarts`",
    );
}

#[test]
fn of_managers_that_this_process_does_not_know() {
    let bytes = {
        let manager = Manager::in_process().unwrap();
        let list = manager.list([1u8]).unwrap();
        let mut ser = commonhold::__rt::Ser::buffer();
        ser.put::<List<u8>>(&list).unwrap();
        ser.bytes().to_vec()
    };
    let mut aligned = rkyv::util::AlignedVec::<16>::new();
    aligned.extend_from_slice(&bytes);
    let list = commonhold_ipc::value::to_owned::<List<u8>>(commonhold_ipc::value::access::<List<u8>>(&aligned).unwrap(), None);
    says(
        list.len(),
        ErrorKind::Disconnected,
        "this handle belongs to a manager that this process has no connection to: connect to it first",
    );
    says(
        Process::spawn(|_: List<u8>| (), list),
        ErrorKind::Disconnected,
        "a handle on object 1 of a manager that this process has no connection to cannot be passed on: connect to it first",
    );
}

/// What does not let itself be written.
struct Unwritable;

impl commonhold::AsShared<String> for Unwritable {
    type Back = ();

    fn back(self) {}

    fn write(&self, _: &mut commonhold::__rt::Ser) -> Result<(), commonhold::__rt::Fault> {
        Err(rkyv::rancor::Source::new(std::fmt::Error))
    }
}

#[test]
fn of_values_that_object() {
    let list = Manager::in_process().unwrap().list::<String>([]).unwrap();
    says(
        list.push(Unwritable),
        ErrorKind::TooLarge,
        "writing a `String` to shared memory: a text in it has more than 1073741823 bytes, the most that one may have (split it, or hand it over \
         as bytes, `Vec<u8>`), or a collection in it did not have as many elements as it claims",
    );
}

#[test]
fn of_requests_that_are_too_long() {
    let manager = Manager::in_process().unwrap();
    says(
        manager.open::<List<u8>>(&"x".repeat(65 << 20)),
        ErrorKind::TooLarge,
        "this request has 68157440 bytes, the most is 67108864: do it in several parts",
    );
    let list = manager.list::<Vec<u8>>([]).unwrap();
    let item = vec![0u8; 60_000];
    says(
        manager.batch(|batch| (0..1200).try_for_each(|_| batch.push(&list, &item))),
        ErrorKind::TooLarge,
        "a batch of more than 67108864 bytes cannot be sent at once: make several of it",
    );
    let counter = manager.counter(i64::MAX).unwrap();
    says(
        manager.transaction(|tx| tx.count(&counter, 1).and_then(|()| tx.count(&counter, i64::MAX))),
        ErrorKind::OutOfRange,
        "adding 9223372036854775807 to a counter is beyond what 64 bits hold: nothing was changed",
    );
}

#[test]
fn of_more_readers_than_can_be() {
    let manager = Manager::in_process().unwrap();
    let lock = manager.rw_lock().unwrap();
    let _reads: Vec<_> = (0..448).map(|_| lock.read().unwrap()).collect();
    says(lock.read().map(drop), ErrorKind::Full, "448 readers have this lock, the most that there can be: try again when one has left");
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
