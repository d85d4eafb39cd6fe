//! Of processes that end or were forked: what becomes of their handles and calls.

use super::support::{WELL, forked, process_of, signal_to, sleeps_in, state_of, until};
use super::{ErrorKind, Manager, Process, matches, says};
use commonhold_ipc::sys;
use rustix::process::Signal;

/// Whether a forked child is told so. In a process of its own, which does nothing else.
fn is_told_in_a_fork() -> bool {
    let manager = Manager::in_process().unwrap();
    let list = manager.list([1u8]).unwrap();
    let expected = "this handle was made before a fork(), and the forked child may not use it: make a new connection in the child, \
                    or start the child by commonhold::Process or std::process::Command instead of fork()";
    let told = |result: commonhold::Result<usize>| {
        result.is_err_and(|error| error.kind() == ErrorKind::UsedAfterFork && matches(expected, &error.to_string()))
    };
    forked(|| told(list.len()) && told(list.push(2).map(|()| 0)) && told(manager.names().map(|names| names.len()))) == WELL
}

#[test]
fn of_handles_in_a_forked_child() {
    assert!(Process::spawn(is_told_in_a_fork, ()).unwrap().join().unwrap());
}

#[test]
fn of_calls_whose_answer_never_comes() {
    let manager = Manager::start().unwrap();
    let list = manager.list([1u8]).unwrap();
    let process = process_of(&manager);
    signal_to(process.pid, Signal::STOP);
    until("the manager stands still", || state_of(process.pid) == Some('T'));
    let (sender, tid) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| {
            sender.send(sys::thread_id() as i32).unwrap();
            list.push(2)
        });
        let tid = tid.recv().unwrap();
        until("the call waits for its answer", || sleeps_in(std::process::id(), tid).is_some());
        signal_to(process.pid, Signal::KILL);
        says(
            call.join().unwrap(),
            ErrorKind::OutcomeUnknown,
            "the manager ended after this call was sent and before it was answered: whether it took effect is not known; connect to a new \
             manager, and look there before doing it again",
        );
    });
}
