//! Calls that are called off: not run if they have not begun, run to their end if they have, and nobody is left waiting.
use crate::support::{PATIENCE, Parent, Role, signal_to, stop, until};
use commonhold::{ErrorKind, List, Manager, Queue};
use commonhold_ipc::points::CLIENT_VARIABLE;
use rustix::process::Signal;

struct Desk {
    done: Vec<u64>,
}

#[commonhold::remote]
impl Desk {
    pub fn new() -> Self {
        Desk { done: Vec::new() }
    }
    pub fn note(&mut self, number: u64) -> u64 {
        self.done.push(number);
        number
    }
    /// With a handle of the caller's.
    pub fn note_all(&mut self, number: u64, _padding: Vec<u8>, _list: List<u64>) -> u64 {
        self.note(number)
    }
    /// Says that it has begun, and waits for a word.
    pub fn wait(&mut self, begun: Queue<u64>, word: Queue<u64>) -> u64 {
        begun.send(0).unwrap();
        let word = word.recv().unwrap().unwrap();
        self.note(word)
    }
    pub fn done(&self) -> Vec<u64> {
        self.done.clone()
    }
}

fn desk(manager: &Manager) -> (DeskProxy, Queue<u64>, Queue<u64>) {
    (manager.create(Desk::new, ()).unwrap(), manager.queue(8).unwrap(), manager.queue(8).unwrap())
}

#[test]
fn what_has_not_begun_is_not_run_and_what_has_is_run_to_its_end() {
    let manager = crate::manager();
    let (desk, begun, word) = desk(&manager);
    let first = desk.call_async().wait(begun.clone(), word.clone()).unwrap();
    begun.recv().unwrap();
    let calls: Vec<_> = (1..=6u64).map(|number| desk.call_async().note(number).unwrap()).collect();
    for (number, call) in (1u64..).zip(&calls) {
        if number % 2 == 0 {
            call.cancel().unwrap();
            call.cancel().unwrap();
        }
    }
    // At once, though their object is still busy; and it is said once.
    for call in calls.iter().skip(1).step_by(2) {
        assert!(call.wait(PATIENCE).unwrap());
        let error = call.get_timeout(PATIENCE).unwrap_err();
        assert!(error.is_cancelled() && error.to_string().contains("was not run"), "{error:?}");
        assert_eq!(call.cancel().unwrap_err().kind(), ErrorKind::Closed);
    }
    assert!(!calls[0].is_ready().unwrap());
    first.cancel().unwrap();
    word.send(7).unwrap();
    assert_eq!(first.get().unwrap(), 7);
    // One that is answered stays so.
    assert!(calls[0].wait(PATIENCE).unwrap());
    calls[0].cancel().unwrap();
    assert_eq!(calls[0].get_timeout(PATIENCE).unwrap(), Some(1));
    // Those ahead of it are waited for: a call that is not made ahead may come in before them.
    assert!(calls[2].wait(PATIENCE).unwrap() && calls[4].wait(PATIENCE).unwrap());
    assert_eq!(desk.done().unwrap(), [7, 1, 3, 5]);
    manager.audit().unwrap();
}

#[test]
fn a_host_that_was_stopped_finds_calls_and_their_calling_off_in_one() {
    let manager = crate::manager();
    let list = manager.list([1u64]).unwrap();
    let mut wanted = Vec::new();
    for round in 0..6u64 {
        // The line's very first calls, and then those of a line in use.
        let desks = [manager.create(Desk::new, ()).unwrap(), manager.create(Desk::new, ()).unwrap()];
        let host = manager.sessions().unwrap().into_iter().find(|session| session.is_host).unwrap().pid;
        stop(host);
        let calls: Vec<_> = (0..40u64)
            .map(|number| match number % 10 {
                5 => desks[0].call_async().note_all(number, vec![7; 100 * round as usize], list.clone()).unwrap(),
                _ => desks[number as usize / 20].call_async().note(number).unwrap(),
            })
            .collect();
        for (number, call) in calls.iter().enumerate() {
            if number % 3 != 0 {
                call.cancel().unwrap();
            }
        }
        signal_to(host, Signal::CONT);
        wanted.clear();
        for (number, call) in (0u64..).zip(calls) {
            match call.get() {
                Ok(result) => {
                    assert_eq!((result, number % 3), (number, 0));
                    wanted.push(number);
                }
                Err(error) => assert!(error.is_cancelled() && number % 3 != 0, "{number}: {error:?}"),
            }
        }
        let mut done = [desks[0].done().unwrap(), desks[1].done().unwrap()].concat();
        done.sort_unstable();
        assert_eq!(done, wanted, "round {round}");
    }
    manager.audit().unwrap();
}

/// A desk in which a method called from another line runs, and one beside it in the same host.
fn busy_desk(manager: &Manager) -> (DeskProxy, DeskProxy, Queue<u64>, std::thread::JoinHandle<u64>) {
    let (desk, begun, word) = desk(manager);
    let other = manager.create(Desk::new, ()).unwrap();
    let waits = std::thread::spawn({
        let (desk, begun, word) = (desk.clone(), begun.clone(), word.clone());
        move || desk.wait(begun, word).unwrap()
    });
    begun.recv().unwrap();
    (desk, other, word, waits)
}

#[test]
fn who_waits_at_the_door_behind_another_line_is_called_off_at_once() {
    let manager = crate::manager();
    let (desk, other, word, waits) = busy_desk(&manager);
    let at_door = desk.call_async().note(1).unwrap();
    // Taken up after it: so it stands at the door. What comes behind it lies there.
    assert_eq!(other.call_async().note(1).unwrap().get().unwrap(), 1);
    let behind = [2, 3].map(|number| desk.call_async().note(number).unwrap());
    behind[0].cancel().unwrap();
    assert!(!at_door.is_ready().unwrap() && !behind[1].is_ready().unwrap());
    at_door.cancel().unwrap();
    at_door.cancel().unwrap();
    for call in [at_door, behind.into_iter().next().unwrap()] {
        let error = call.get_timeout(PATIENCE).unwrap_err();
        assert!(error.is_cancelled() && error.to_string().contains("was not run"), "{error:?}");
    }
    assert!(!waits.is_finished(), "its method still runs");
    let last = desk.call_async().note(4).unwrap();
    word.send(7).unwrap();
    assert_eq!((waits.join().unwrap(), last.get().unwrap()), (7, 4));
    assert_eq!(desk.done().unwrap(), [7, 3, 4]);
    manager.audit().unwrap();
}

#[test]
fn a_door_that_opens_while_it_is_called_off_has_one_outcome() {
    let manager = crate::manager();
    for round in 0..20u64 {
        let (desk, other, word, waits) = busy_desk(&manager);
        let at_door = desk.call_async().note(1).unwrap();
        if round % 2 == 0 {
            assert_eq!(other.call_async().note(1).unwrap().get().unwrap(), 1);
        }
        // All of it at once for the host, which was stopped.
        let host = manager.sessions().unwrap().into_iter().find(|session| session.is_host).unwrap().pid;
        stop(host);
        word.send(7).unwrap();
        at_door.cancel().unwrap();
        signal_to(host, Signal::CONT);
        assert_eq!(waits.join().unwrap(), 7);
        let done = match at_door.get() {
            Ok(number) => vec![7, number],
            Err(error) => {
                assert!(error.is_cancelled(), "{error:?}");
                vec![7]
            }
        };
        assert_eq!(desk.done().unwrap(), done, "round {round}");
    }
    manager.audit().unwrap();
}

#[test]
fn who_is_given_up_at_the_door_is_not_run() {
    let manager = crate::manager();
    let (desk, _, word, waits) = busy_desk(&manager);
    let error = desk.with_timeout(std::time::Duration::from_millis(1)).note(1).unwrap_err();
    assert!(error.is_timed_out() && error.to_string().contains("else it is not run"), "{error:?}");
    word.send(7).unwrap();
    assert_eq!(waits.join().unwrap(), 7);
    assert_eq!((desk.note(2).unwrap(), desk.done().unwrap()), (2, vec![7, 2]));
    manager.audit().unwrap();
}

#[test]
fn who_calls_off_and_goes_leaves_nothing_behind() {
    let manager = crate::manager();
    let (desk, begun, word) = desk(&manager);
    let objects = manager.objects().unwrap().len();
    let first = desk.call_async().wait(begun.clone(), word.clone()).unwrap();
    begun.recv().unwrap();
    for number in 0..500u64 {
        let list = manager.list([number]).unwrap();
        let call = desk.call_async().note_all(number, vec![7; 1000], list).unwrap();
        call.cancel().unwrap();
    }
    // Read in order: with the last one all others are called off.
    let last = desk.call_async().note(500).unwrap();
    last.cancel().unwrap();
    assert!(last.get().unwrap_err().is_cancelled());
    word.send(7).unwrap();
    assert_eq!(first.get().unwrap(), 7);
    // Whoever calls ahead next reads what came of those that nobody waits for.
    until("what their arguments referred to is gone", || {
        desk.call_async().done().unwrap().get().unwrap();
        manager.objects().unwrap().len() == objects
    });
    assert_eq!(desk.done().unwrap(), [7]);
    manager.audit().unwrap();
}

#[test]
fn role_that_dies_calling_off() {
    let Some(mut parent) = Parent::of("cancel::role_that_dies_calling_off") else { return };
    let desk: DeskProxy = parent.hear_handle();
    let (begun, word): (Queue<u64>, Queue<u64>) = (parent.hear_handle(), parent.hear_handle());
    let first = desk.call_async().wait(begun, word.clone()).unwrap();
    let second = desk.call_async().note(20).unwrap();
    second.cancel().unwrap();
    // Read before the first one ends, or in one with its end.
    let second = second.get();
    assert!(second.is_err_and(|error| error.is_cancelled()));
    word.send(1).unwrap();
    assert_eq!(first.get().unwrap(), 1);
    parent.say("done");
}

#[test]
fn callers_may_die_at_every_point_of_calling_off() {
    let manager = crate::manager();
    let objects = manager.objects().unwrap().len();
    for point in 1.. {
        let (desk, begun, word) = desk(&manager);
        let mut role = Role::start_with("cancel::role_that_dies_calling_off", |command| {
            command.env(CLIENT_VARIABLE, point.to_string());
        });
        for token in [desk.token(), begun.token(), word.token()] {
            role.say(token.unwrap());
        }
        let said = role.hear();
        role.end();
        if said.is_some() {
            assert_eq!(desk.done().unwrap(), [1]);
            assert!(point > 20, "it has reached points");
            break;
        }
        // The one that has begun gets its word, if it has not; each is run once at the most.
        word.send(1).unwrap();
        assert!([&[][..], &[1], &[1, 20]].contains(&&desk.done().unwrap()[..]), "point {point}");
        drop((desk, begun, word));
        until("nothing is left of it", || manager.objects().unwrap().len() == objects);
    }
    manager.audit().unwrap();
}
