//! Deaths at every counted point of calls ahead and of logic: of who calls, of the host, of the manager. Everybody else gets an error at once, or goes on.
use crate::deaths::hosts_die;
use crate::support::{PATIENCE, Parent, Role, signal_to, state_of, until};
use commonhold::{Error, ErrorKind, List, Manager, Transaction};
use commonhold_ipc::points::{CLIENT_STOP_VARIABLE, CLIENT_VARIABLE, HOST_STOP_VARIABLE, MANAGER_VARIABLE};
use rustix::process::Signal;
use std::time::Duration;

struct Log {
    list: List<u64>,
}

#[commonhold::remote]
impl Log {
    pub fn new(list: List<u64>) -> Self {
        Log { list }
    }
    pub fn note(&mut self, number: u64, padding: Vec<u8>) -> commonhold::Result<Vec<u8>> {
        self.list.push(number)?;
        Ok(padding)
    }
    /// With a handle of the caller's.
    pub fn note_in(&mut self, list: List<u64>, number: u64) -> commonhold::Result<()> {
        list.push(number)
    }
    pub fn len(&self) -> u64 {
        self.list.len().unwrap_or(0) as u64
    }
}

fn append(tx: &Transaction<'_>, (list, number): (List<u64>, u64)) -> commonhold::Result<u64> {
    tx.push(&list, number)?;
    Ok(tx.len(&list)? as u64)
}

/// The same; the host that it ran in.
fn append_in(tx: &Transaction<'_>, (list, number): (List<u64>, u64)) -> commonhold::Result<u32> {
    tx.push(&list, number)?;
    Ok(std::process::id())
}

/// More than a line's ring holds.
fn padding() -> Vec<u8> {
    vec![7; 40_000]
}

/// What a caller does: calls ahead with the first four numbers from there on, logic with two more.
fn work(log: &LogProxy, list: &List<u64>, first: u64) -> commonhold::Result<()> {
    let one = log.call_async().note(first, padding())?;
    log.call_one_way().note(first + 1, vec![])?;
    log.call_one_way().note_in(list.clone(), first + 2)?;
    let four = log.call_async().note(first + 3, vec![])?;
    one.get()??;
    four.get()??;
    let manager = list.session()?;
    manager.run(append, (list.clone(), first + 4))?;
    manager.run(append, (list.clone(), first + 5)).map(drop)
}

#[test]
fn role_caller_that_dies() {
    let Some(mut parent) = Parent::of("points::role_caller_that_dies") else { return };
    let (log, list): (LogProxy, List<u64>) = (parent.hear_handle(), parent.hear_handle());
    work(&log, &list, parent.hear().parse().unwrap()).unwrap();
    parent.say("done");
}

#[test]
fn callers_may_die_at_every_point_of_calls_ahead_and_of_logic() {
    let manager = crate::manager();
    let list = manager.list::<u64>([]).unwrap();
    let log = manager.create(Log::new, (list.clone(),)).unwrap();
    let objects = manager.objects().unwrap().len();
    let mut points = 0;
    let all = loop {
        points += 1;
        let mut role = Role::start_with("points::role_caller_that_dies", |command| {
            command.env(CLIENT_VARIABLE, points.to_string());
        });
        role.say(log.token().unwrap());
        role.say(list.token().unwrap());
        role.say(100 * points);
        let said = role.hear();
        role.end();
        // The object is not busy for long, and the ticket is nobody's.
        log.len().unwrap();
        assert!(manager.run(append, (list.clone(), 0)).unwrap() >= points);
        until("what it was given is gone", || manager.objects().unwrap().len() == objects);
        if said.is_some() {
            break points;
        }
    };
    // What a caller had asked for ahead may be done later than it died, but in order, once, and nothing of it is left out.
    let noted = list.to_owned().unwrap();
    for point in 1..=all {
        let of_it: Vec<_> = noted.iter().copied().filter(|number| number / 100 == point).map(|number| number % 100).collect();
        assert!([0, 1, 2, 3, 4, 5].starts_with(&of_it) && (of_it.len() == 6 || point < all), "point {point} of {all}: {of_it:?}");
    }
    assert!(all > 10, "it has reached points");
    manager.audit().unwrap();
}

#[test]
fn role_whose_host_dies_under_logic() {
    let Some(mut parent) = Parent::of("points::role_whose_host_dies_under_logic") else { return };
    let manager = crate::manager();
    let list = manager.list::<u64>([]).unwrap();
    // Two callers, so that one's logic waits while the other's runs, and the ticket is kept for it.
    let caller = |first: u64| {
        let (mut done, mut hosts, mut lost, mut died) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for number in first..first + 3 {
            match manager.run(append_in, (list.clone(), number)) {
                Ok(host) => {
                    done.push(number);
                    hosts.push(host);
                }
                Err(error) if error.kind() == ErrorKind::ResultLost => {
                    let text = "this has been done beside the manager, whole, but its result is lost: the host process ended before it could \
                                bring it. Look at what it has changed, and do not do it again";
                    assert_eq!(error.to_string(), text);
                    lost.push(number);
                }
                Err(error) if error.is_died() || error.is_timed_out() => died += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        (done, hosts, lost, died)
    };
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| caller(1));
        (caller(11), one.join().unwrap())
    });
    let noted = list.to_owned().unwrap();
    let lost: Vec<_> = [one.2, two.2].concat();
    let mut done: Vec<_> = one.0.iter().chain(&two.0).chain(&lost).copied().collect();
    done.sort_unstable();
    let mut sorted = noted.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, done, "what is said to be done is, once, and nothing else: {noted:?}, the results of {lost:?} lost");
    // Nobody is kept waiting by a ticket whose holder is gone.
    list.push(99).unwrap();
    manager.audit().unwrap();
    // A host that dies behind an answer, when nobody has called yet, is missed by nobody: the next call has a new one.
    let hosts: Vec<_> = one.1.iter().chain(&two.1).collect();
    let several = hosts.windows(2).any(|two| two[0] != two[1]);
    parent.say(match (lost.len(), one.3 + two.3, several) {
        (0, 0, false) => "done",
        (0, ..) => "died",
        _ => "lost",
    });
}

#[test]
fn hosts_may_die_at_every_point_of_logic_that_waits_for_each_other() {
    hosts_die("points::role_whose_host_dies_under_logic", 8);
}

/// Whose host stops where it is told: what was asked for first comes to this.
#[test]
fn role_whose_host_stops_under_logic() {
    let Some(mut parent) = Parent::of("points::role_whose_host_stops_under_logic") else { return };
    let manager = crate::manager();
    let list = manager.list::<u64>([]).unwrap();
    // It is there before anything is asked of it that comes to a point.
    manager.run(|_: &Transaction<'_>, (): ()| Ok(()), ()).unwrap();
    let host = host_of(&manager).unwrap();
    let (sender, ended) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| sender.send(manager.run(append, (list.clone(), 7))).unwrap());
        until("the host stands still", || state_of(host) == Some('T'));
        if parent.hear() == "kill" {
            signal_to(host, Signal::KILL);
            let error = ended.recv().unwrap().unwrap_err();
            let is_done = !list.is_empty().unwrap();
            assert_eq!(error.kind(), if is_done { ErrorKind::ResultLost } else { ErrorKind::Died }, "{error}");
            // Nothing comes later, and nobody is kept waiting.
            list.push(8).unwrap();
            assert_eq!(list.len().unwrap(), 1 + usize::from(is_done));
            manager.audit().unwrap();
            return parent.say(if is_done { "done" } else { "undone" });
        }
        // Others go on, once its ticket is over.
        list.push(1).unwrap();
        let noted = list.to_owned().unwrap();
        // If it is done, for longer than its caller's patience; else until that is over.
        let patience = if noted.contains(&7) { Duration::from_secs(4) } else { PATIENCE };
        let said = match ended.recv_timeout(patience) {
            Ok(Ok(_)) => panic!("a stopped host has answered"),
            Ok(Err(error)) => {
                assert!(error.is_timed_out(), "{error:?}");
                assert_eq!(error.to_string().matches("it has left no trace, and will leave none").count(), 1, "{error}");
                assert_eq!(noted, [1]);
                signal_to(host, Signal::CONT);
                "undone"
            }
            Err(_) => {
                assert_eq!(noted, [7, 1], "it is waited for because it is done");
                signal_to(host, Signal::CONT);
                assert_eq!(ended.recv().unwrap().unwrap(), 1);
                "done"
            }
        };
        // It goes on in either case, in the same host, and nothing comes later.
        assert_eq!(manager.run(append, (list.clone(), 8)).unwrap(), noted.len() as u64 + 1);
        assert_eq!(host_of(&manager), Some(host));
        assert_eq!(list.to_owned().unwrap(), [&noted[..], &[8]].concat());
        manager.audit().unwrap();
        parent.say(said);
    });
}

#[test]
fn of_a_host_that_stops_or_dies_at_its_commit_it_is_known_what_became_of_it() {
    for (point, comes_to) in [("logic: before its commit", "undone"), ("logic: committed, not answered", "done")] {
        for fate in ["kill", "go on"] {
            let mut role = Role::start_with("points::role_whose_host_stops_under_logic", |command| {
                command.env(HOST_STOP_VARIABLE, point);
            });
            role.say(fate);
            assert_eq!(role.hear().as_deref(), Some(comes_to), "{point}, {fate}");
            role.end();
        }
    }
}

/// The process of the manager's host.
fn host_of(manager: &Manager) -> Option<u32> {
    manager.sessions().ok()?.into_iter().find(|session| session.is_host).map(|session| session.pid)
}

#[test]
fn role_whose_manager_dies() {
    let Some(mut parent) = Parent::of("points::role_whose_manager_dies") else { return };
    let begun = || -> commonhold::Result<(Manager, List<u64>, LogProxy)> {
        let manager = crate::manager_or_error()?;
        let list = manager.list::<u64>([])?;
        let log = manager.create(Log::new, (list.clone(),))?;
        Ok((manager, list, log))
    };
    let (manager, list, log) = match begun() {
        Ok(begun) => begun,
        Err(error) => return parent.say(format!("not begun: {error}")),
    };
    let dies_with_it = |error: Error| assert!(error.is_disconnected() || error.kind() == ErrorKind::ResultLost, "{error:?}");
    parent.say(format!("{}", host_of(&manager).unwrap_or(0)));
    let all = || -> commonhold::Result<()> {
        work(&log, &list, 1)?;
        // Two at once.
        std::thread::scope(|scope| {
            let other = scope.spawn(|| manager.run(append, (list.clone(), 21)));
            let own = manager.run(append, (list.clone(), 22));
            other.join().unwrap().and(own)
        })?;
        Ok(())
    };
    match all() {
        Ok(()) => parent.say("done"),
        Err(error) => {
            dies_with_it(error);
            // Whatever is asked now.
            dies_with_it(log.call_one_way().note(5, vec![]).and_then(|()| log.note(6, vec![])).unwrap_err());
            dies_with_it(log.call_async().note(7, vec![]).and_then(|pending| pending.get()).unwrap_err());
            dies_with_it(manager.run(append, (list.clone(), 23)).unwrap_err());
            parent.say("died");
        }
    }
}

#[test]
fn managers_may_die_at_every_point_while_hosts_serve_calls_ahead_and_logic() {
    let mut deaths = 0;
    // From where the manager and the host have begun, which others kill.
    let mut point = 1;
    loop {
        let mut role = Role::start_with("points::role_whose_manager_dies", |command| {
            command.env(MANAGER_VARIABLE, point.to_string());
        });
        let first = role.hear().unwrap();
        let Ok(host) = first.parse::<u32>() else {
            role.end();
            point += 8;
            continue;
        };
        let said = role.hear();
        role.end();
        until("the host has ended", || state_of(host).is_none_or(|state| matches!(state, 'Z' | 'X')));
        match said.as_deref() {
            Some("died") => deaths += 1,
            Some("done") => break,
            other => panic!("point {point}: {other:?}"),
        }
        point += 1;
    }
    println!("{deaths} managers have died");
    assert!(deaths > 10, "{deaths}");
}

/// What is said of 7, whose caller is stopped somewhere.
#[test]
fn role_that_is_stopped_while_it_asks() {
    let Some(mut parent) = Parent::of("points::role_that_is_stopped_while_it_asks") else { return };
    let list: List<u64> = parent.hear_handle();
    let manager = list.session().unwrap();
    manager.run(append, (list.clone(), 1)).unwrap();
    parent.say("ready");
    parent.hear();
    let said = match manager.run(append, (list, 7)) {
        Ok(_) => "done".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    };
    parent.say(said);
}

/// The next thing that a role says, unless it stands still before.
fn said_or_stands_still(role: &mut Role) -> Option<String> {
    let mut said = None;
    until("it stands still, or says something", || {
        said = said.take().or_else(|| role.has_said());
        said.is_some() || state_of(role.pid()) == Some('T')
    });
    said
}

/// A caller may have written what it asks, and be told that it has not: only its ring came too late. So the host may have done it, and died.
#[test]
fn who_asks_a_host_that_dies_meanwhile_has_it_done_once() {
    let mut found = 0;
    for point in 1.. {
        let manager = crate::manager();
        let list = manager.list::<u64>([]).unwrap();
        manager.run(append, (list.clone(), 0)).unwrap();
        let host = host_of(&manager).unwrap();
        let mut role = Role::start_with("points::role_that_is_stopped_while_it_asks", |command| {
            command.env(CLIENT_STOP_VARIABLE, point.to_string());
        });
        role.say(list.token().unwrap());
        if said_or_stands_still(&mut role).is_none() {
            // Before that.
            role.kill();
            continue;
        }
        // From now on the host is to be rung for.
        until("the host sleeps", || {
            let threads = std::fs::read_dir(format!("/proc/{host}/task")).unwrap();
            threads.flatten().all(|thread| std::fs::read_to_string(thread.path().join("stat")).is_ok_and(|stat| stat.contains(") S ")))
        });
        role.say("go");
        let said = said_or_stands_still(&mut role);
        let stands_still = said.is_none();
        // For this one it looks at all lines, and finds what is there.
        manager.run(append, (list.clone(), 2)).unwrap();
        found += usize::from(stands_still && list.to_owned().unwrap().contains(&7));
        signal_to(host, Signal::KILL);
        until("the manager has seen it", || host_of(&manager) != Some(host));
        manager.run(append, (list.clone(), 3)).unwrap();
        if stands_still {
            role.signal(Signal::CONT);
        }
        let said = said.or_else(|| role.hear()).unwrap();
        role.kill();
        let times = list.to_owned().unwrap().iter().filter(|number| **number == 7).count();
        match said.as_str() {
            "done" | "ResultLost" => assert_eq!(times, 1, "point {point}: {said}"),
            "Died" | "TimedOut" => assert_eq!(times, 0, "point {point}"),
            other => panic!("point {point}: {other}"),
        }
        if !stands_still {
            break;
        }
    }
    assert!(found > 0, "a host has found what nobody has rung for");
}
