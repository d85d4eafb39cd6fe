//! Who is killed in the middle of it, and what the others see.
use crate::support::{PATIENCE, PROMPT, Parent, Role, Watched, process_of, signal_to, stop, until};
use commonhold::{ErrorKind, Handle, Manager, current_manager};
use commonhold_ipc::points::{CLIENT_VARIABLE, HOST_VARIABLE};
use rustix::process::Signal;
use std::time::{Duration, Instant};

struct Ward {
    calls: u64,
    begun: commonhold::Counter,
}

#[commonhold::remote]
impl Ward {
    pub fn new(begun: commonhold::Counter) -> Self {
        Ward { calls: 0, begun }
    }
    pub fn call(&mut self) -> u64 {
        self.calls += 1;
        self.calls
    }
    /// A handle on something new, which its caller may never get to hold.
    pub fn slip(&mut self) -> commonhold::Result<commonhold::List<u64>> {
        self.calls += 1;
        current_manager()?.list([self.calls])
    }
    pub fn echo(&self, bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }
    pub fn hang(&self) {
        loop {
            std::thread::park();
        }
    }
    pub fn long(&mut self, ms: u64) -> commonhold::Result<u64> {
        self.begun.add(1)?;
        std::thread::sleep(Duration::from_millis(ms));
        self.calls += 1000;
        Ok(self.calls)
    }
}

pub fn host_of(manager: &Manager) -> Watched {
    let session = manager.sessions().unwrap().into_iter().find(|session| session.is_host).expect("there is a host");
    Watched::of(session.pid)
}

#[test]
fn role_caller() {
    let Some(mut parent) = Parent::of("deaths::role_caller") else { return };
    let ward: WardProxy = parent.hear_handle();
    let what = parent.hear();
    parent.say("calling");
    match what.as_str() {
        "hammer" => loop {
            ward.call().unwrap();
        },
        _ => {
            let _ = ward.long(400);
        }
    }
    parent.wait_for_end();
}

#[test]
fn a_caller_that_is_killed_leaves_the_object_to_the_others() {
    let manager = crate::manager();
    let begun = manager.counter(0).unwrap();
    let ward = manager.create(Ward::new, (begun.clone(),)).unwrap();
    for _ in 0..5 {
        let mut role = Role::start("deaths::role_caller");
        role.say(ward.token().unwrap());
        role.say("hammer");
        role.expect("calling");
        let before = ward.call().unwrap();
        until("it calls", || ward.call().unwrap() > before + 50);
        role.kill();
        ward.call().unwrap();
    }
    // A call that has begun is run to its end.
    let before = ward.call().unwrap();
    let mut role = Role::start("deaths::role_caller");
    role.say(ward.token().unwrap());
    role.say("long");
    role.expect("calling");
    until("the method runs", || begun.get().unwrap() == 1);
    role.kill();
    assert!(ward.call().unwrap() >= before + 1001);
    manager.audit().unwrap();
}

#[test]
fn a_manager_that_is_stopped_keeps_nobody_beyond_his_time() {
    let manager = crate::manager();
    let [one, other] = [(); 2].map(|()| manager.create(Ward::new, (manager.counter(0).unwrap(),)).unwrap());
    let hanging = one.call_async().hang().unwrap();
    // So that there is a line: for a new one the manager is needed.
    other.call().unwrap();
    let process = process_of(&manager);
    stop(process.pid);
    // Long enough for a look whether the host lives.
    let patience = Duration::from_millis(2_200);
    let (sender, heard) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| sender.send((hanging.get_timeout(patience), other.with_timeout(patience).hang())).unwrap());
        let heard = heard.recv_timeout(PATIENCE);
        signal_to(process.pid, Signal::CONT);
        let (ahead, plain) = heard.expect("both are back before the manager goes on");
        assert!(ahead.unwrap().is_none() && plain.unwrap_err().is_timed_out());
    });
}

#[test]
fn role_that_dies_at_a_point() {
    let Some(mut parent) = Parent::of("deaths::role_that_dies_at_a_point") else { return };
    let ward: WardProxy = parent.hear_handle();
    let first = ward.call().unwrap();
    let slip = ward.slip().unwrap().unwrap();
    assert_eq!(*slip.get(0).unwrap().unwrap(), first + 1);
    ward.call_one_way().call().unwrap();
    ward.call_async().call().unwrap().get().unwrap();
    // Given up at once: it may have begun by then.
    let hasty = ward.with_timeout(Duration::ZERO).call();
    assert!(hasty.is_ok() || hasty.unwrap_err().is_timed_out());
    parent.say("done");
}

#[test]
fn callers_may_die_at_every_point() {
    let manager = crate::manager();
    let begun = manager.counter(0).unwrap();
    let ward = manager.create(Ward::new, (begun.clone(),)).unwrap();
    let before = ward.call().unwrap();
    let objects = manager.objects().unwrap().len();
    for point in 1.. {
        let mut role = Role::start_with("deaths::role_that_dies_at_a_point", |command| {
            command.env(CLIENT_VARIABLE, point.to_string());
        });
        role.say(ward.token().unwrap());
        let said = role.hear();
        role.end();
        let after = ward.call().unwrap();
        // Five calls at the most, each at the most once, and what was asked ahead maybe later; and ours.
        assert!((point..=6 * point).contains(&(after - before)), "point {point}: from {before} to {after}");
        until("what it was given is gone", || manager.objects().unwrap().len() == objects);
        if said.is_some() {
            assert!(point > 5, "it has reached points");
            break;
        }
    }
    manager.audit().unwrap();
}

#[test]
fn role_whose_host_dies_at_a_point() {
    let Some(mut parent) = Parent::of("deaths::role_whose_host_dies_at_a_point") else { return };
    let manager = crate::manager();
    let kept = manager.list([1u64]).unwrap();
    let run = || -> commonhold::Result<()> {
        let ward = manager.create(Ward::new, (manager.counter(0)?,))?;
        assert_eq!(ward.call()?, 1);
        ward.slip()??.len()?;
        ward.call_one_way().call()?;
        assert_eq!(ward.call_async().call()?.get()?, 4);
        let logic = |tx: &commonhold::Transaction<'_>, kept: commonhold::List<u64>| tx.set_at(&kept, 0, 1 + tx.len(&kept)? as u64);
        let ran = manager.run(logic, kept.clone());
        // What is said to be done has left its trace, and nothing else has.
        let is_said = ran.as_ref().map_or_else(|error| error.kind() == ErrorKind::ResultLost, |()| true);
        assert_eq!(*kept.get(0)?.unwrap() == 2, is_said, "{ran:?}");
        ran?;
        let called_off = ward.call_async().call()?;
        called_off.cancel()?;
        match called_off.get() {
            Ok(calls) => assert_eq!(calls, 5),
            Err(error) if error.is_cancelled() => {}
            Err(error) => return Err(error),
        }
        // More than a ring holds, in both directions.
        assert_eq!(ward.echo(vec![7; 50_000])?.len(), 50_000);
        Ok(())
    };
    let done = run();
    let said = match &done {
        Ok(()) => "done",
        Err(error) if error.kind() == ErrorKind::ResultLost => "lost",
        // (Logic whose host is kept from its processor for long is over its time.)
        Err(error) if error.is_died() || error.is_timed_out() => "died",
        Err(error) => panic!("{error:?}"),
    };
    kept.push(2).unwrap();
    manager.audit().unwrap();
    parent.say(said);
}

/// Plays a role again and again, whose host dies at its first point, its second, …, until none of its points is left; there are more than `least`.
pub fn hosts_die(role: &str, least: u64) {
    for point in 1.. {
        let mut role = Role::start_with(role, |command| {
            command.env(HOST_VARIABLE, point.to_string());
        });
        let said = role.hear();
        role.end();
        match said.as_deref() {
            Some("died" | "lost") => {}
            Some("done") => {
                // By sockets there are few.
                assert!(point > least || crate::by_socket(), "it has reached points");
                break;
            }
            other => panic!("point {point}: {other:?}"),
        }
    }
}

#[test]
fn hosts_may_die_at_every_point() {
    hosts_die("deaths::role_whose_host_dies_at_a_point", 5);
}

#[test]
fn a_host_that_is_stopped_is_waited_for_as_long_as_one_likes() {
    let manager = crate::manager();
    let ward = manager.create(Ward::new, (manager.counter(0).unwrap(),)).unwrap();
    assert_eq!(ward.call().unwrap(), 1);
    let host = manager.sessions().unwrap().into_iter().find(|session| session.is_host).unwrap().pid;
    for round in 2..6 {
        stop(host);
        for _ in 0..3 {
            assert!(ward.with_timeout(Duration::from_millis(30)).call().unwrap_err().is_timed_out());
        }
        let large = ward.with_timeout(Duration::from_millis(30)).echo(vec![7; 1_000_000]);
        assert!(large.unwrap_err().is_timed_out());
        // Nobody else is delayed.
        assert_eq!(manager.list([1u64]).unwrap().len().unwrap(), 1);
        // Who still waits when it goes on has his answer.
        let patient = std::thread::spawn({
            let ward = ward.with_timeout(PATIENCE);
            move || ward.echo(vec![7; 100]).unwrap().len()
        });
        signal_to(host, Signal::CONT);
        assert_eq!(patient.join().unwrap(), 100);
        // None of those that were given up is run, though the host finds them in its lines.
        assert_eq!(ward.call().unwrap(), round);
    }
}

#[test]
fn a_host_that_is_killed_is_an_error_for_its_objects_alone() {
    let manager = crate::manager();
    let begun = manager.counter(0).unwrap();
    let ward = manager.create(Ward::new, (begun.clone(),)).unwrap();
    manager.publish("ward", &ward).unwrap();
    let waiting = {
        let ward = ward.clone();
        std::thread::spawn(move || ward.long(60_000).unwrap_err())
    };
    until("the method runs", || begun.get().unwrap() == 1);
    let ahead = ward.call_async().call().unwrap();
    let killed = Instant::now();
    host_of(&manager).kill();
    let error = waiting.join().unwrap();
    assert!(error.is_died(), "{error:?}");
    assert!(ahead.get().unwrap_err().is_died());
    assert!(killed.elapsed() < PROMPT);
    assert!(ward.call().unwrap_err().is_died());
    assert!(manager.open::<WardProxy>("ward").unwrap().call().unwrap_err().is_died());
    begun.add(1).unwrap();
    let new = manager.create(Ward::new, (begun,)).unwrap();
    manager.publish_over("ward", &new).unwrap();
    assert_eq!(manager.open::<WardProxy>("ward").unwrap().call().unwrap(), 1);
    let dead = manager.objects().unwrap().into_iter().find(|object| object.id == ward.id()).unwrap();
    assert_eq!(dead.host, None);
    manager.audit().unwrap();
}

#[test]
fn the_managers_death_ends_hosts_and_calls() {
    let manager = crate::manager();
    let begun = manager.counter(0).unwrap();
    let ward = manager.create(Ward::new, (begun.clone(),)).unwrap();
    let host = host_of(&manager);
    let waiting = {
        let ward = ward.clone();
        std::thread::spawn(move || ward.long(60_000).unwrap_err())
    };
    until("the method runs", || begun.get().unwrap() == 1);
    let ahead = ward.call_async().call().unwrap();
    let killed = Instant::now();
    process_of(&manager).kill();
    let error = waiting.join().unwrap();
    assert!(error.is_disconnected(), "{error:?}");
    assert!(killed.elapsed() < PROMPT, "{:?}", killed.elapsed());
    assert!(ahead.get().unwrap_err().is_disconnected());
    assert!(ward.call().unwrap_err().is_disconnected());
    // Its method does not hold it up for ever.
    assert!(host.end_within(PATIENCE).is_some());
}
