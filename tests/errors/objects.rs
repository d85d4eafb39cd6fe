//! Of objects of one's own, of pipes, semaphores and other things with two sides.

use super::{ClerkProxy, ErrorKind, Manager, says};
use commonhold::{Event, Transaction};
use std::time::Duration;

struct Doorman;

#[commonhold::remote]
impl Doorman {
    pub fn new() -> Self {
        Doorman
    }
    pub fn wait(&self, door: Event) -> commonhold::Result<()> {
        door.wait()
    }
}

#[test]
fn of_calls_that_wait_and_of_results_that_were_given() {
    let manager = Manager::start().unwrap();
    let (doorman, door) = (manager.create(Doorman::new, ()).unwrap(), manager.event().unwrap());
    let pending = doorman.call_async().wait(door.clone()).unwrap();
    let shortly = Duration::from_millis(1);
    assert!(!pending.is_ready().unwrap() && !pending.wait(shortly).unwrap() && pending.get_timeout(shortly).unwrap().is_none());
    says(
        doorman.with_timeout(shortly).wait(door.clone()).map(drop),
        ErrorKind::TimedOut,
        "the call was not answered within 1ms: if its method had begun, it is run to its end; else it is not run",
    );
    door.set().unwrap();
    assert!(pending.wait(None).unwrap() && pending.is_ready().unwrap());
    pending.get_timeout(Duration::ZERO).unwrap().expect("it is here").unwrap();
    let given = "the result of this call was given already: it can be had once";
    says(pending.get_timeout(shortly).map(drop), ErrorKind::Closed, given);
    says(pending.wait(None), ErrorKind::Closed, given);
    says(pending.is_ready(), ErrorKind::Closed, given);
    says(pending.get().map(drop), ErrorKind::Closed, given);
}

#[test]
fn of_logic_beside_the_data() {
    let manager = Manager::start().unwrap();
    let loops = |_: &Transaction<'_>, (): ()| -> commonhold::Result<()> {
        loop {
            std::thread::park();
        }
    };
    says(
        manager.run(loops, ()),
        ErrorKind::TimedOut,
        "what runs beside the manager may take 200 ms, and its host has said nothing for 2200 ms: it has left no trace, and will leave none; \
         is the host stopped?",
    );
    let dies = |_: &Transaction<'_>, (): ()| -> commonhold::Result<()> { std::process::exit(3) };
    says(
        manager.run(dies, ()),
        ErrorKind::Died,
        "the host process, in which this ran, ended before it was done: it has left no trace; do it again, a new host is started for it",
    );
    let panics = |_: &Transaction<'_>, (): ()| -> commonhold::Result<()> { panic!("out of ink") };
    says(manager.run(panics, ()), ErrorKind::Panicked, "{…}panicked at tests/errors/objects.rs:{…}: out of ink");
}

#[test]
fn of_types_that_are_others() {
    let manager = Manager::start().unwrap();
    let doorman = manager.create(Doorman::new, ()).unwrap();
    manager.publish("doorman", &doorman).unwrap();
    says(
        manager.open::<ClerkProxy>("doorman").map(drop),
        ErrorKind::WrongType,
        "\"doorman\" was made as remote Doorman {wait(&self, Event) -> {…}}, not as remote Clerk {fail(&mut self) -> (), leave(&mut self) -> ()}: open it with the type that it was made with, or, if that has changed since, shut its manager down, or use a new name",
    );
}

#[test]
fn of_signals_that_nobody_takes() {
    let manager = Manager::in_process().unwrap();
    let semaphore = manager.semaphore(0).unwrap();
    let many = (0..70_000).find_map(|_| semaphore.release().err()).expect("there is a most");
    says(
        Err::<(), _>(many),
        ErrorKind::Full,
        "this semaphore has as many permits as it can have: are the signals that it counts never taken?",
    );
}
