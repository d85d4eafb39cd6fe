//! Forked children and the hosts of their parents: errors that say so, and nothing else.
use crate::deaths::host_of;
use crate::support::{IdleChild, PATIENCE, Parent, Role, WELL, Watched, fork_an_idle_child, forked, signal_to, stop, until};
use commonhold::{Counter, ErrorKind, Manager, Transaction};
use rustix::process::Signal;

struct Bell;

#[commonhold::remote]
impl Bell {
    pub fn new() -> Self {
        Bell
    }
    pub fn ring(&self) {}
    pub fn hang(&self, begun: Counter) -> commonhold::Result<()> {
        begun.add(1)?;
        loop {
            std::thread::park();
        }
    }
    pub fn echo(&self, bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }
    pub fn fork(&self) -> u32 {
        fork_an_idle_child()
    }
}

#[test]
fn who_waits_for_a_host_hears_that_it_was_killed_though_a_forked_child_of_it_lives() {
    for lanes in [true, false] {
        let manager = Manager::builder().lanes(lanes).start().unwrap();
        let begun = manager.counter(0).unwrap();
        let bells: [_; 3] = std::array::from_fn(|_| manager.create(Bell::new, ()).unwrap());
        let host = host_of(&manager);
        let child = IdleChild::of(bells[0].fork().unwrap());
        let large = vec![1; 8 << 20];
        std::thread::scope(|scope| {
            let mut waiting = vec![
                scope.spawn(|| bells[0].hang(begun.clone()).map(drop)),
                scope.spawn(|| bells[1].call_async().hang(begun.clone())?.get().map(drop)),
            ];
            until("the methods run", || begun.get().unwrap() == 2);
            stop(host.pid);
            // These have no room, or wait for what has not begun.
            waiting.push(scope.spawn(|| bells[2].echo(large.clone()).map(drop)));
            waiting.push(scope.spawn(|| bells[2].call_async().echo(large.clone())?.get().map(drop)));
            let run = scope.spawn(|| manager.run(|_: &Transaction<'_>, (): ()| Ok(()), ()));
            signal_to(host.pid, Signal::KILL);
            for waiting in waiting {
                assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Died, "lanes: {lanes}");
            }
            // If it came after the end, a new host was started for it.
            assert!(run.join().unwrap().err().is_none_or(|error| error.kind() == ErrorKind::Died), "lanes: {lanes}");
        });
        assert!(!child.process.has_ended());
        bells[0].ring().unwrap_err();
        manager.audit().unwrap();
    }
}

#[test]
fn what_a_forked_child_runs_or_makes_is_refused() {
    for lanes in [true, false] {
        let manager = Manager::builder().lanes(lanes).start().unwrap();
        let nothing = |_: &Transaction<'_>, (): ()| Ok(());
        // So that there is a line that it could take for its own.
        manager.run(nothing, ()).unwrap();
        let bell = manager.create(Bell::new, ()).unwrap();
        bell.ring().unwrap();
        let ended = forked(|| {
            let said = [manager.run(nothing, ()), manager.create(Bell::new, ()).map(drop), bell.ring(), bell.call_async().ring().map(drop)];
            said.into_iter().all(|said| said.is_err_and(|error| error.kind() == ErrorKind::UsedAfterFork))
        });
        assert_eq!(ended, WELL, "lanes: {lanes}");
        manager.run(nothing, ()).unwrap();
    }
}

#[test]
fn role_that_leaves_a_child() {
    let Some(mut parent) = Parent::of("forks::role_that_leaves_a_child") else { return };
    let manager = Manager::in_process().unwrap();
    let _bell = manager.create(Bell::new, ()).unwrap();
    parent.say(host_of(&manager).pid);
    parent.say(fork_an_idle_child());
    parent.wait_for_end();
}

#[test]
fn a_host_ends_with_its_managers_process_though_a_forked_child_of_that_lives() {
    let mut role = Role::start("forks::role_that_leaves_a_child");
    let mut hear = || role.hear().unwrap().parse().unwrap();
    let (host, child) = (Watched::of(hear()), IdleChild::of(hear()));
    role.kill();
    assert!(host.end_within(PATIENCE).is_some());
    assert!(!child.process.has_ended());
}
