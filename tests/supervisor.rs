//! Supervision: who is started again and who is not, in which order, how often; and that all ends with its supervisor.

use commonhold::{
    ChildProcess, ChildSpec, Error, ErrorKind, Manager, Process, Queue, Restart, RestartStrategy, Shared, Supervisor, SupervisorEvent,
    SupervisorStopper, current_process, parent_process,
};
use rustix::process::Signal;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

commonhold::init_in_tests!();

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// They may go to other threads.
const _: () = {
    const fn send<T: Send + 'static>() {}
    const fn send_and_sync<T: Send + Sync + 'static>() {}
    send::<Supervisor>();
    send::<ChildSpec>();
    send_and_sync::<SupervisorStopper>();
    send_and_sync::<SupervisorEvent>();
};

/// Runs until it is ended.
fn idle() {
    let _ = parent_process().unwrap().wait(None);
}

/// Ends in a way.
fn end(way: u8) -> Result<(), String> {
    match way {
        0 => Ok(()),
        1 => Err("no input".into()),
        2 => panic!("out of luck"),
        3 => std::process::exit(3),
        _ => {
            rustix::process::kill_process(rustix::process::getpid(), Signal::KILL).unwrap();
            idle();
            Ok(())
        }
    }
}

fn quiet(spec: ChildSpec) -> ChildSpec {
    spec.configure(|builder| builder.stderr(commonhold::Stream::Null))
}

fn signal(child: &ChildProcess, signal: Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(child.pid() as i32).unwrap(), signal).unwrap();
}

/// Stops a process, and waits until it stands still: of two signals that are on their way the lower number comes first.
fn halt(child: &ChildProcess) {
    signal(child, Signal::STOP);
    let begin = Instant::now();
    let stands_still = || std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap().contains(") T ");
    while !stands_still() {
        assert!(begin.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
}

/// A supervisor with idle children `a`, `b`, `c`, …, whose starts have been read.
fn idlers(strategy: RestartStrategy, policies: &[Restart]) -> Supervisor {
    let mut supervisor = Supervisor::new(strategy).max_restarts(100, PATIENCE);
    for (name, policy) in ["a", "b", "c", "d"].iter().zip(policies) {
        supervisor.add(ChildSpec::new(*name, idle, ()).restart(*policy)).unwrap();
        assert!(told(&mut supervisor).starts_with(&format!("started {name}")));
    }
    supervisor
}

fn child(supervisor: &Supervisor, name: &str) -> ChildProcess {
    supervisor.children().into_iter().find(|child| child.name() == name).unwrap()
}

fn names(supervisor: &Supervisor) -> String {
    supervisor.children().iter().map(|child| child.name().to_owned()).collect()
}

fn next(supervisor: &mut Supervisor) -> SupervisorEvent {
    supervisor.step(PATIENCE).unwrap().expect("something happens")
}

/// The next event in short: what, who.
fn told(supervisor: &mut Supervisor) -> String {
    match next(supervisor) {
        SupervisorEvent::Started { name, .. } => format!("started {name}"),
        SupervisorEvent::Ended { name, why: None, .. } => format!("returned {name}"),
        SupervisorEvent::Ended { name, why: Some(_), .. } => format!("failed {name}"),
        SupervisorEvent::Stopped { name, killed: false, .. } => format!("stopped {name}"),
        SupervisorEvent::Stopped { name, killed: true, .. } => format!("killed {name}"),
        SupervisorEvent::Restarted { name, restarts, .. } => format!("restarted {name} {restarts}"),
        SupervisorEvent::NotStarted { name, .. } => format!("not started {name}"),
        SupervisorEvent::GaveUp { .. } => "gave up".into(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn tells(supervisor: &mut Supervisor, expected: &[&str]) {
    let got: Vec<String> = expected.iter().map(|_| told(supervisor)).collect();
    assert_eq!(got, expected);
}

/// Nothing is left to do, and nothing happens.
#[track_caller]
fn is_over(supervisor: &mut Supervisor) {
    assert!(supervisor.step(None).unwrap().is_none() && !supervisor.is_running() && supervisor.children().is_empty());
}

fn has_ended(child: &ChildProcess) {
    assert!(commonhold_ipc::sys::wait_readable(&[child.as_fd()], Some(Instant::now() + PATIENCE)).unwrap() != 0);
}

// ---- Who is started again ----

#[test]
fn what_ends_how_is_started_again_or_not() {
    let reasons = ["", "returned an error: \"no input\"", "out of luck", "exit code 3", "SIGKILL"];
    let kinds = [ErrorKind::Other, ErrorKind::Other, ErrorKind::Panicked, ErrorKind::Died, ErrorKind::Died];
    for policy in [Restart::Permanent, Restart::Transient, Restart::Temporary] {
        for way in 0..5u8 {
            let mut supervisor = Supervisor::new(RestartStrategy::OneForOne).max_restarts(2, PATIENCE);
            supervisor.add(quiet(ChildSpec::new("worker", end, way).restart(policy))).unwrap();
            tells(&mut supervisor, &["started worker"]);
            let pid = child(&supervisor, "worker").pid();
            let ended = next(&mut supervisor);
            let SupervisorEvent::Ended { name, pid: whose, why } = &ended else { panic!("{ended:?}") };
            assert_eq!((name.as_str(), *whose), ("worker", pid));
            match why {
                None => assert!(way == 0 && ended.to_string().contains("has returned"), "{ended}"),
                Some(why) => {
                    let text = ended.to_string();
                    assert!(why.kind() == kinds[way as usize] && text.contains(reasons[way as usize]), "{text}");
                    assert!(text.starts_with(&format!("worker (pid {pid}, running `supervisor::end`)")), "{text}");
                }
            }
            let again = policy == Restart::Permanent || policy == Restart::Transient && way != 0;
            if again {
                tells(&mut supervisor, &["restarted worker 1"]);
            } else {
                is_over(&mut supervisor);
            }
        }
    }
}

#[test]
fn each_start_gets_the_same_arguments_and_name() {
    fn work(jobs: Queue<u64>, done: Queue<(String, u64)>) -> commonhold::Result<()> {
        while let Some(job) = jobs.recv()? {
            done.send((current_process().name().to_owned(), job))?;
            if job % 2 == 1 {
                std::process::exit(1);
            }
        }
        Ok(())
    }
    let manager = Manager::builder().capacity(64 << 20).start().unwrap();
    let (jobs, done) = (manager.queue::<u64>(100).unwrap(), manager.queue_unbounded::<(String, u64)>().unwrap());
    jobs.send_many(0..10u64).unwrap();
    jobs.close().unwrap();
    let mut supervisor = Supervisor::new(RestartStrategy::OneForOne).max_restarts(5, PATIENCE);
    supervisor.add(ChildSpec::new("w", work, (jobs, done.clone())).restart(Restart::Transient)).unwrap();
    let (mut deaths, mut restarts) = (0, 0);
    supervisor
        .run(|event| match event {
            SupervisorEvent::Ended { why: Some(_), .. } => deaths += 1,
            SupervisorEvent::Restarted { restarts: so_far, .. } => restarts = so_far,
            _ => {}
        })
        .unwrap();
    assert_eq!((deaths, restarts), (5, 5));
    drop(supervisor);
    done.close().unwrap();
    let done: Vec<(String, u64)> = done.iter().map(Result::unwrap).collect();
    assert_eq!(done, (0..10).map(|n| ("w".to_string(), n)).collect::<Vec<_>>());
    manager.audit().unwrap();
}

#[test]
fn types_of_results_that_are_outcomes() {
    #[derive(Shared, Debug)]
    enum Trouble {
        Weather { degrees: i32 },
    }
    let mut supervisor = Supervisor::new(RestartStrategy::OneForOne);
    let trouble = |degrees: i32| if degrees > 30 { Err(Trouble::Weather { degrees }) } else { Ok(degrees) };
    supervisor.add(ChildSpec::new("own", trouble, 31).restart(Restart::Temporary)).unwrap();
    tells(&mut supervisor, &["started own"]);
    assert!(next(&mut supervisor).to_string().contains("Weather { degrees: 31 }"));
    let ours = || -> commonhold::Result<u64> { Err(Error::caused(ErrorKind::NotFound, "no file", Error::other("the disk is empty"))) };
    supervisor.add(ChildSpec::new("ours", ours, ()).restart(Restart::Temporary)).unwrap();
    tells(&mut supervisor, &["started ours"]);
    let text = next(&mut supervisor).to_string();
    assert!(text.contains("no file") && text.contains("the disk is empty"), "{text}");
    is_over(&mut supervisor);
}

// ---- Limits ----

#[test]
fn at_one_restart_too_many_it_gives_up() {
    for most in [0, 1, 3] {
        let mut supervisor = Supervisor::new(RestartStrategy::OneForOne).max_restarts(most, PATIENCE);
        supervisor.add(ChildSpec::new("first", idle, ())).unwrap();
        supervisor.add(ChildSpec::new("second", idle, ())).unwrap();
        supervisor.add(ChildSpec::new("mortal", end, 3)).unwrap();
        tells(&mut supervisor, &["started first", "started second", "started mortal"]);
        for restart in 1..=most {
            tells(&mut supervisor, &["failed mortal", &format!("restarted mortal {restart}")]);
        }
        tells(&mut supervisor, &["failed mortal", "stopped second", "stopped first"]);
        let SupervisorEvent::GaveUp { why } = next(&mut supervisor) else { panic!("it gives up") };
        let text = why.to_string();
        assert!(text.contains(&format!("given up: after {most} restarts within 60s mortal (pid ")), "{text}");
        assert!(text.contains("exit code 3") && text.contains("max_restarts"), "{text}");
        assert!(std::error::Error::source(&why).unwrap().to_string().contains("exit code 3"));
        for _ in 0..2 {
            let error = supervisor.step(None).unwrap_err();
            assert!(error.is_died() && error.to_string() == text, "{error}");
        }
        assert!(!supervisor.is_running() && supervisor.children().is_empty());
        assert_eq!(supervisor.add(ChildSpec::new("late", idle, ())).unwrap_err().kind(), ErrorKind::Refused);
        supervisor.shutdown().unwrap();
        assert!(supervisor.run(drop).unwrap_err().is_died());
    }
}

#[test]
fn restarts_of_long_ago_do_not_count() {
    let mut supervisor = Supervisor::new(RestartStrategy::OneForOne).max_restarts(1, Duration::from_nanos(1));
    supervisor.add(ChildSpec::new("w", end, 3)).unwrap();
    tells(&mut supervisor, &["started w"]);
    for restart in 1..=8 {
        tells(&mut supervisor, &["failed w", &format!("restarted w {restart}")]);
    }
}

#[test]
fn what_cannot_be_started_again_counts() {
    let starts = Arc::new(AtomicUsize::new(0));
    let counted = starts.clone();
    let mut supervisor = Supervisor::new(RestartStrategy::OneForOne).max_restarts(3, PATIENCE);
    supervisor
        .add(ChildSpec::new("w", end, 3).configure(move |builder| match counted.fetch_add(1, Ordering::Relaxed) {
            0 | 2 => builder,
            _ => builder.executable("/does/not/exist"),
        }))
        .unwrap();
    tells(&mut supervisor, &["started w", "failed w", "not started w", "restarted w 1", "failed w", "not started w"]);
    let SupervisorEvent::GaveUp { why } = next(&mut supervisor) else { panic!("it gives up") };
    assert!(why.to_string().contains("w could not be started") && why.to_string().contains("/does/not/exist"), "{why}");
    assert_eq!(starts.load(Ordering::Relaxed), 4);

    // One that never comes as far as `init`.
    let mut supervisor = Supervisor::new(RestartStrategy::OneForOne).max_restarts(1, PATIENCE);
    supervisor.add(ChildSpec::new("w", idle, ()).configure(|builder| builder.executable("/bin/true"))).unwrap();
    let error = supervisor.run(drop).unwrap_err();
    assert!(error.is_died() && error.to_string().contains("commonhold::init()"), "{error}");
}

#[test]
fn one_that_cannot_be_started_at_all_is_not_added() {
    let mut supervisor = idlers(RestartStrategy::OneForOne, &[Restart::Permanent]);
    let missing = ChildSpec::new("b", idle, ()).configure(|builder| builder.executable("/does/not/exist"));
    assert_eq!(supervisor.add(missing).unwrap_err().kind(), ErrorKind::System);
    assert_eq!(supervisor.add(ChildSpec::new("a", idle, ())).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(names(&supervisor), "a");
    supervisor.add(ChildSpec::new("b", idle, ())).unwrap();
    assert_eq!(names(&supervisor), "ab");
}

// ---- With whom ----

#[test]
fn one_for_one_leaves_the_others_alone() {
    let mut supervisor = idlers(RestartStrategy::OneForOne, &[Restart::Permanent; 3]);
    let before = supervisor.children();
    before[1].kill().unwrap();
    tells(&mut supervisor, &["failed b", "restarted b 1"]);
    let after = supervisor.children();
    assert!(after[0] == before[0] && after[2] == before[2] && after[1] != before[1]);
    assert!(supervisor.step(Duration::ZERO).unwrap().is_none());
}

#[test]
fn one_for_all_stops_from_the_last_and_starts_from_the_first() {
    let mut supervisor =
        idlers(RestartStrategy::OneForAll, &[Restart::Permanent, Restart::Permanent, Restart::Temporary, Restart::Permanent]);
    child(&supervisor, "b").kill().unwrap();
    tells(&mut supervisor, &["failed b", "stopped d", "stopped c", "stopped a", "restarted a 1", "restarted b 1", "restarted d 1"]);
    assert!(supervisor.step(Duration::ZERO).unwrap().is_none());
    assert_eq!(names(&supervisor), "abd", "who is temporary is forgotten");
    supervisor.add(ChildSpec::new("c", idle, ()).restart(Restart::Temporary)).unwrap();
    tells(&mut supervisor, &["started c"]);
    // Its death is its own affair.
    child(&supervisor, "c").kill().unwrap();
    tells(&mut supervisor, &["failed c"]);
    assert_eq!(names(&supervisor), "abd");
}

#[test]
fn one_for_all_also_starts_those_that_had_returned() {
    let mut supervisor = Supervisor::new(RestartStrategy::OneForAll);
    supervisor.add(ChildSpec::new("short", end, 0).restart(Restart::Transient)).unwrap();
    supervisor.add(ChildSpec::new("long", idle, ())).unwrap();
    tells(&mut supervisor, &["started short", "started long", "returned short"]);
    child(&supervisor, "long").kill().unwrap();
    tells(&mut supervisor, &["failed long", "restarted short 1", "restarted long 1", "returned short"]);
}

#[test]
fn rest_for_one_takes_those_after_it_along() {
    let mut supervisor = idlers(RestartStrategy::RestForOne, &[Restart::Permanent; 4]);
    let first = child(&supervisor, "a");
    child(&supervisor, "b").kill().unwrap();
    tells(&mut supervisor, &["failed b", "stopped d", "stopped c", "restarted b 1", "restarted c 1", "restarted d 1"]);
    assert!(child(&supervisor, "a") == first);
    child(&supervisor, "d").kill().unwrap();
    tells(&mut supervisor, &["failed d", "restarted d 2"]);
    child(&supervisor, "a").kill().unwrap();
    let all = ["failed a", "stopped d", "stopped c", "stopped b", "restarted a 1", "restarted b 2", "restarted c 2", "restarted d 3"];
    tells(&mut supervisor, &all);
}

#[test]
fn who_dies_while_others_are_stopped_is_seen_in_its_turn() {
    let mut supervisor = Supervisor::new(RestartStrategy::RestForOne).max_restarts(10, PATIENCE);
    for name in ["a", "b", "c", "d"] {
        supervisor.add(ChildSpec::new(name, idle, ()).shutdown(None)).unwrap();
    }
    tells(&mut supervisor, &["started a", "started b", "started c", "started d"]);
    let slow = child(&supervisor, "d");
    halt(&slow);
    child(&supervisor, "b").kill().unwrap();
    tells(&mut supervisor, &["failed b"]);
    // It is asked, is not killed, and keeps the plan waiting: but no step.
    assert!(supervisor.step(Duration::ZERO).unwrap().is_none() && supervisor.step(Duration::from_millis(20)).unwrap().is_none());
    assert!(slow.is_alive() && supervisor.is_running());
    child(&supervisor, "c").kill().unwrap();
    child(&supervisor, "a").kill().unwrap();
    ["a", "c"].iter().for_each(|name| has_ended(&child(&supervisor, name)));
    assert!(supervisor.step(Duration::ZERO).unwrap().is_none());
    signal(&slow, Signal::CONT);
    tells(&mut supervisor, &["stopped d", "failed c", "restarted b 1", "restarted c 1", "restarted d 1"]);
    let rest = ["failed a", "stopped d", "stopped c", "stopped b", "restarted a 1", "restarted b 2", "restarted c 2", "restarted d 2"];
    tells(&mut supervisor, &rest);
}

#[test]
fn whoever_is_killed_whenever_each_child_starts_and_ends_by_turns() {
    let mut random = 7u64;
    let mut below = move |most: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % most
    };
    for strategy in [RestartStrategy::OneForOne, RestartStrategy::OneForAll, RestartStrategy::RestForOne] {
        let mut supervisor = idlers(strategy, &[Restart::Permanent; 4]);
        let (mut runs, mut killed) = ([true; 4], Vec::new());
        let mut hear = |event: SupervisorEvent| {
            let (name, starts) = match &event {
                SupervisorEvent::Restarted { name, .. } => (name, true),
                SupervisorEvent::Ended { name, .. } | SupervisorEvent::Stopped { name, .. } => (name, false),
                other => panic!("{other}"),
            };
            let place = "abcd".find(name.as_str()).unwrap();
            assert_ne!(std::mem::replace(&mut runs[place], starts), starts, "{strategy:?}: {event}");
        };
        for _ in 0..12 {
            let children = supervisor.children();
            // None, while all of them are stopped.
            for _ in 0..(below(2) + 1).min(children.len() as u64) {
                let unlucky = &children[below(children.len() as u64) as usize];
                unlucky.kill().unwrap();
                killed.push(unlucky.clone());
            }
            for _ in 0..below(6) {
                if let Some(event) = supervisor.step(Duration::ZERO).unwrap() {
                    hear(event);
                }
            }
        }
        // A restart is over when all run again, and none that was killed.
        while names(&supervisor) != "abcd" || supervisor.children().iter().any(|child| killed.contains(child)) {
            hear(next(&mut supervisor));
        }
        while let Some(event) = supervisor.step(Duration::ZERO).unwrap() {
            hear(event);
        }
        assert_eq!(runs, [true; 4]);
        assert!(supervisor.children().iter().all(ChildProcess::is_alive));
    }
}

// ---- Ends ----

#[test]
fn shutdown_goes_backwards_and_kills_who_does_not_come() {
    let mut supervisor = Supervisor::new(RestartStrategy::OneForOne);
    let graces = [Some(Duration::from_millis(20)), None, Some(Duration::ZERO), Some(PATIENCE)];
    for (name, grace) in ["a", "b", "c", "d"].into_iter().zip(graces) {
        supervisor.add(ChildSpec::new(name, idle, ()).shutdown(grace)).unwrap();
    }
    let children = supervisor.children();
    // Asked in vain, until its time is over.
    halt(&children[0]);
    supervisor.shutdown().unwrap();
    let started = ["started a", "started b", "started c", "started d"];
    tells(&mut supervisor, &[&started[..], &["stopped d", "killed c", "stopped b", "killed a"]].concat());
    is_over(&mut supervisor);
    assert_eq!(children.iter().map(|child| child.exit_code().unwrap()).collect::<Vec<_>>(), [-9, -15, -9, -15]);
    assert_eq!(supervisor.add(ChildSpec::new("late", idle, ())).unwrap_err().kind(), ErrorKind::Refused);
    supervisor.shutdown().unwrap();
    supervisor.run(drop).unwrap();
}

#[test]
fn one_is_asked_only_when_the_one_after_it_has_ended() {
    let mut supervisor = Supervisor::new(RestartStrategy::OneForOne);
    for name in ["a", "b"] {
        supervisor.add(ChildSpec::new(name, idle, ()).shutdown(None)).unwrap();
    }
    tells(&mut supervisor, &["started a", "started b"]);
    let [first, second] = [child(&supervisor, "a"), child(&supervisor, "b")];
    halt(&second);
    supervisor.stopper().unwrap().stop().unwrap();
    assert!(supervisor.step(Duration::from_millis(20)).unwrap().is_none());
    assert!(first.is_alive() && second.is_alive());
    // Nobody is added to what ends.
    assert_eq!(supervisor.add(ChildSpec::new("c", idle, ())).unwrap_err().kind(), ErrorKind::Refused);
    signal(&second, Signal::CONT);
    tells(&mut supervisor, &["stopped b", "stopped a"]);
    is_over(&mut supervisor);
}

#[test]
fn dropping_it_ends_its_children() {
    let supervisor = idlers(RestartStrategy::OneForOne, &[Restart::Permanent; 3]);
    let children = supervisor.children();
    drop(supervisor);
    assert!(children.iter().all(|child| !child.is_alive() && child.exit_code() == Some(-15)));

    let children = std::sync::Mutex::new(Vec::new());
    let panics = std::panic::catch_unwind(|| {
        let supervisor = idlers(RestartStrategy::OneForOne, &[Restart::Permanent; 2]);
        *children.lock().unwrap() = supervisor.children();
        panic!("on the way");
    });
    assert!(panics.is_err());
    let children = children.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    assert!(children.len() == 2 && children.iter().all(|child| !child.is_alive()));
}

#[test]
fn a_stopper_ends_a_run_from_anywhere() {
    let mut supervisor = idlers(RestartStrategy::OneForAll, &[Restart::Permanent; 3]);
    let stopper = supervisor.stopper().unwrap();
    let children = supervisor.children();
    let runs = std::thread::spawn(move || {
        let mut events = Vec::new();
        supervisor.run(|event| events.push(event.to_string())).map(|()| events)
    });
    stopper.clone().stop().unwrap();
    stopper.stop().unwrap();
    let events = runs.join().unwrap().unwrap();
    let expected: Vec<String> = children.iter().rev().map(|child| format!("{} (pid {}) was stopped", child.name(), child.pid())).collect();
    assert_eq!(events, expected);
    stopper.stop().unwrap();

    // From within, at the third restart.
    let mut supervisor = Supervisor::new(RestartStrategy::OneForOne).max_restarts(10, PATIENCE);
    let stopper = supervisor.stopper().unwrap();
    supervisor.add(ChildSpec::new("w", end, 3)).unwrap();
    let mut most = 0;
    supervisor
        .run(|event| {
            if let SupervisorEvent::Restarted { restarts, .. } = event {
                most = restarts;
                if restarts == 3 {
                    stopper.stop().unwrap();
                }
            }
        })
        .unwrap();
    // It may have died once more before it was stopped; but it was not started again.
    assert_eq!(most, 3);
    is_over(&mut supervisor);
}

#[test]
fn an_empty_one_has_nothing_to_do() {
    let mut supervisor = Supervisor::new(RestartStrategy::RestForOne);
    is_over(&mut supervisor);
    supervisor.run(drop).unwrap();
    supervisor.add(ChildSpec::new("a", end, 0).restart(Restart::Temporary)).unwrap();
    assert!(supervisor.is_running());
    supervisor.run(drop).unwrap();
    is_over(&mut supervisor);
    supervisor.shutdown().unwrap();
    is_over(&mut supervisor);
    assert_eq!(format!("{supervisor:?}"), "<Supervisor RestForOne, 0 children, 0 running, stopped>");
}

/// A supervisor that is a child itself: says its children's process ids, and supervises.
fn branch(pids: Queue<u32>) -> commonhold::Result<()> {
    let mut supervisor = Supervisor::new(RestartStrategy::OneForOne);
    for name in ["leaf-1", "leaf-2"] {
        supervisor.add(ChildSpec::new(name, idle, ()))?;
    }
    pids.send_many(supervisor.children().iter().map(ChildProcess::pid))?;
    supervisor.run(drop)
}

#[test]
fn a_tree_of_them_ends_from_its_root() {
    let manager = Manager::builder().capacity(64 << 20).start().unwrap();
    let pids = manager.queue::<u32>(100).unwrap();
    let watched = || {
        let pid = pids.recv().unwrap().unwrap();
        commonhold_ipc::sys::pidfd_open(pid).unwrap()
    };
    let gone = |leaf: std::os::fd::OwnedFd| {
        assert!(commonhold_ipc::sys::wait_readable(&[leaf.as_fd()], Some(Instant::now() + PATIENCE)).unwrap() != 0);
    };
    let mut supervisor = Supervisor::new(RestartStrategy::OneForOne);
    supervisor.add(ChildSpec::new("branch", branch, pids.clone())).unwrap();
    tells(&mut supervisor, &["started branch"]);
    let leaves = [watched(), watched()];
    child(&supervisor, "branch").kill().unwrap();
    tells(&mut supervisor, &["failed branch", "restarted branch 1"]);
    leaves.into_iter().for_each(gone);
    let leaves = [watched(), watched()];
    drop(supervisor);
    leaves.into_iter().for_each(gone);
    // And if the process with the root is killed.
    let root = Process::spawn(
        |pids: Queue<u32>| {
            let mut supervisor = Supervisor::new(RestartStrategy::OneForOne);
            supervisor.add(ChildSpec::new("branch", branch, pids))?;
            supervisor.run(drop)
        },
        pids.clone(),
    )
    .unwrap();
    let leaves = [watched(), watched()];
    root.kill().unwrap();
    leaves.into_iter().for_each(gone);
    assert!(root.join().unwrap_err().is_died());
}
