//! How managers begin, are found, and end.
mod support;

use commonhold::{Dict, ErrorKind, Handle, List, Manager};
use rustix::process::Signal;
use std::process::Command;
use std::time::{Duration, Instant};
use support::*;

commonhold::init_in_tests!();

/// A directory for named managers, in which those that are left over are ended.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    /// The directory itself: its parent is the temporary one.
    fn run(&self) -> std::path::PathBuf {
        self.0.path().join("run")
    }

    /// A role whose named managers are here.
    fn start(&self, role: &str) -> Role {
        Role::start_with(role, |command| {
            command.env("COMMONHOLD_RUNTIME_DIR", self.run());
        })
    }

    fn files(&self) -> Vec<std::path::PathBuf> {
        files_in(&self.run())
    }

    /// Connects by path: the environment of the test's own process says nothing of this place.
    fn connect(&self, name: &str) -> Manager {
        Manager::connect(self.run().join(format!("{name}.sock")).to_str().unwrap()).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for file in self.files() {
            if file.extension().is_some_and(|extension| extension == "sock")
                && let Ok(manager) = Manager::connect(file.to_str().unwrap())
            {
                let _ = manager.shutdown();
            }
        }
    }
}

/// Does what it is told with managers of names.
#[test]
fn role_user() {
    let Some(mut parent) = Parent::of("role_user") else { return };
    let mut manager = None;
    let mut dict: Option<Dict<String, u64>> = None;
    loop {
        let line = parent.hear();
        let words: Vec<&str> = line.split(' ').collect();
        let done: commonhold::Result<String> = (|| {
            let there = || manager.as_ref().ok_or_else(|| commonhold::Error::other("not connected"));
            Ok(match words[..] {
                ["open_or_start", name] => {
                    manager = Some(Manager::open_or_start(name)?);
                    String::new()
                }
                ["open_or_start", name, "idle", ms] => {
                    let timeout = if ms == "for-ever" { Duration::MAX } else { Duration::from_millis(ms.parse().unwrap()) };
                    manager = Some(Manager::builder().idle_timeout(timeout).open_or_start(name)?);
                    String::new()
                }
                ["open_or_start", name, "key", key] => {
                    manager = Some(Manager::builder().authkey(key).open_or_start(name)?);
                    String::new()
                }
                ["connect", name] => {
                    manager = Some(Manager::connect(name)?);
                    String::new()
                }
                ["connect", name, "key", key] => {
                    manager = Some(Manager::builder().authkey(key).connect(name)?);
                    String::new()
                }
                ["add"] => {
                    let made = there()?.open_or_create("dict", |m| m.dict([("a".to_owned(), 0u64)]))?;
                    made.add("a", 1)?;
                    let id = made.id();
                    dict = Some(made);
                    id.to_string()
                }
                ["process"] => there()?.pid().to_string(),
                ["leave"] => {
                    dict = None;
                    manager = None;
                    String::new()
                }
                ["shutdown"] => {
                    there()?.shutdown()?;
                    String::new()
                }
                ["list"] => format!("{:?}", commonhold::list_managers()?),
                ["wait"] => {
                    parent.say("waiting");
                    let dict = dict.as_ref().unwrap();
                    let mut seen = dict.version()?;
                    dict.wait_for_change(&mut seen, None)?;
                    String::new()
                }
                _ => panic!("{words:?}"),
            })
        })();
        match done {
            Ok(text) => parent.say(format!("ok {text}")),
            Err(error) => parent.say(format!("{:?} {error}", error.kind())),
        }
    }
}

/// Tells a role what to do; returns what it says, without the `ok`.
fn tell(role: &mut Role, line: &str) -> String {
    role.say(line);
    let answer = role.hear().unwrap();
    answer.strip_prefix("ok ").unwrap_or_else(|| panic!("{line}: {answer}")).to_owned()
}

/// The same for what must fail, with this kind.
fn fails(role: &mut Role, line: &str, kind: ErrorKind) {
    role.say(line);
    let answer = role.hear().unwrap();
    assert!(answer.starts_with(&format!("{kind:?} ")), "{line}: {answer}");
}

fn daemon_of(role: &mut Role) -> Watched {
    Watched::of(tell(role, "process").parse().unwrap())
}

#[test]
fn of_eight_that_open_or_start_at_once_one_starts() {
    let place = Place::new();
    let mut users: Vec<Role> = (0..8).map(|_| place.start("role_user")).collect();
    users.iter_mut().for_each(|user| user.say("open_or_start weather"));
    users.iter_mut().for_each(|user| user.expect("ok "));
    users.iter_mut().for_each(|user| user.say("add"));
    let ids: Vec<String> = users.iter_mut().map(|user| user.hear().unwrap()).collect();
    assert!(ids.iter().all(|id| *id == ids[0] && id.starts_with("ok ")), "{ids:?}");
    let daemons: Vec<String> = users.iter_mut().map(|user| tell(user, "process")).collect();
    assert!(daemons.iter().all(|pid| *pid == daemons[0]), "{daemons:?}");
    let manager = place.connect("weather");
    let dict: Dict<String, u64> = manager.open("dict").unwrap();
    assert_eq!(*dict.get("a").unwrap().unwrap(), 8);
    assert_eq!(manager.stats().unwrap().sessions, 9);
    assert_eq!(place.files().len(), 2, "{:?}", place.files());
    assert_eq!(tell(&mut users[0], "list"), r#"[("weather", true)]"#);
    manager.audit().unwrap();
    let daemon = daemon_of(&mut users[0]);
    assert_ne!(daemon.pid, std::process::id());
    drop(users);
    until("only we are connected", || manager.stats().unwrap().sessions == 1);
    assert!(!daemon.has_ended(), "it outlives who started it");
    manager.shutdown().unwrap();
    assert!(daemon.end_within(PROMPT).is_some());
    assert_eq!(place.files(), [] as [std::path::PathBuf; 0]);
}

#[test]
fn a_name_that_nobody_has_is_not_found() {
    let place = Place::new();
    let mut user = place.start("role_user");
    fails(&mut user, "connect nobody", ErrorKind::NotFound);
    fails(&mut user, "connect @commonhold-nobody", ErrorKind::NotFound);
    fails(&mut user, "connect /nowhere/at/all", ErrorKind::NotFound);
    fails(&mut user, "connect a/b", ErrorKind::OutOfRange);
    assert_eq!(tell(&mut user, "list"), "[]");
}

#[test]
fn leftovers_of_a_killed_daemon_are_replaced() {
    let place = Place::new();
    let mut users = [place.start("role_user"), place.start("role_user")];
    for _ in 0..3 {
        for user in &mut users {
            tell(user, "open_or_start weather");
            tell(user, "add");
        }
        let daemon = daemon_of(&mut users[0]);
        daemon.kill();
        assert_eq!(place.files().len(), 2, "leftovers");
        assert_eq!(tell(&mut users[0], "list"), r#"[("weather", false)]"#);
        fails(&mut users[1], "add", ErrorKind::Disconnected);
        fails(&mut users[1], "connect weather", ErrorKind::NotFound);
        // All at once again.
        users.iter_mut().for_each(|user| user.say("open_or_start weather"));
        users.iter_mut().for_each(|user| user.expect("ok "));
        let [a, b] = &mut users;
        assert_eq!(tell(a, "process"), tell(b, "process"));
    }
    tell(&mut users[0], "shutdown");
}

#[test]
fn a_shutdown_is_seen_by_all() {
    let place = Place::new();
    let mut users = [place.start("role_user"), place.start("role_user"), place.start("role_user")];
    for user in &mut users {
        tell(user, "open_or_start weather");
        tell(user, "add");
    }
    let daemon = daemon_of(&mut users[0]);
    users[1].say("wait");
    users[1].expect("waiting");
    tell(&mut users[0], "shutdown");
    let answer = users[1].hear().unwrap();
    assert!(answer.starts_with("Disconnected "), "{answer}");
    fails(&mut users[2], "add", ErrorKind::Disconnected);
    assert!(daemon.end_within(PROMPT).is_some());
    assert_eq!(place.files(), [] as [std::path::PathBuf; 0]);
    fails(&mut users[2], "connect weather", ErrorKind::NotFound);
    tell(&mut users[2], "open_or_start weather");
    tell(&mut users[2], "shutdown");
}

#[test]
fn a_daemon_with_an_idle_timeout_ends_when_nobody_is_left() {
    let place = Place::new();
    let mut user = place.start("role_user");
    tell(&mut user, "open_or_start weather idle 150");
    let daemon = daemon_of(&mut user);
    assert!(daemon.end_within(Duration::from_millis(600)).is_none(), "somebody is connected");
    tell(&mut user, "add");
    tell(&mut user, "leave");
    let took = daemon.end_within(PATIENCE).expect("it ends");
    println!("ended after {took:?}");
    assert!(took < PROMPT, "{took:?}");
    assert_eq!(place.files(), [] as [std::path::PathBuf; 0]);
}

#[test]
fn an_idle_timeout_can_be_as_short_or_long_as_anybody_says() {
    let place = Place::new();
    let mut user = place.start("role_user");
    for ms in ["for-ever", "18446744073709551615", "2592000000"] {
        tell(&mut user, &format!("open_or_start weather idle {ms}"));
        let daemon = daemon_of(&mut user);
        tell(&mut user, "add");
        tell(&mut user, "leave");
        tell(&mut user, "connect weather");
        assert_eq!(daemon_of(&mut user).pid, daemon.pid, "it has stayed");
        tell(&mut user, "shutdown");
        daemon.end_within(PATIENCE).expect("it ends");
    }
    tell(&mut user, "open_or_start weather idle 0");
    let daemon = daemon_of(&mut user);
    tell(&mut user, "add");
    tell(&mut user, "leave");
    daemon.end_within(PATIENCE).expect("it ends");
}

#[test]
fn a_daemon_whose_socket_is_removed_ends() {
    for removed in ["weather.sock", "weather.lock"] {
        let place = Place::new();
        let mut user = place.start("role_user");
        tell(&mut user, "open_or_start weather");
        let daemon = daemon_of(&mut user);
        std::fs::remove_file(place.run().join(removed)).unwrap();
        let took = daemon.end_within(PATIENCE).expect("it ends");
        println!("{removed}: ended after {took:?}");
        assert!(took < PROMPT, "{took:?}");
        fails(&mut user, "add", ErrorKind::Disconnected);
        tell(&mut user, "open_or_start weather");
        tell(&mut user, "add");
        tell(&mut user, "shutdown");
    }
    let place = Place::new();
    let mut user = place.start("role_user");
    tell(&mut user, "open_or_start weather");
    let daemon = daemon_of(&mut user);
    std::fs::remove_dir_all(place.run()).unwrap();
    assert!(daemon.end_within(PROMPT).is_some());
}

#[test]
fn an_authkey_lets_in_who_knows_it() {
    let place = Place::new();
    let mut user = place.start("role_user");
    tell(&mut user, "open_or_start weather key 0123456789");
    let mut other = place.start("role_user");
    fails(&mut other, "connect weather", ErrorKind::Refused);
    fails(&mut other, "connect weather key 012345678X", ErrorKind::Refused);
    fails(&mut other, "connect weather key short", ErrorKind::OutOfRange);
    fails(&mut other, "open_or_start weather", ErrorKind::Refused);
    tell(&mut other, "connect weather key 0123456789");
    assert_eq!(tell(&mut user, "add"), tell(&mut other, "add"));
    // Who is connected proves it as anybody else does, when connecting again.
    for process in [&mut user, &mut other] {
        fails(process, "connect weather", ErrorKind::Refused);
        fails(process, "connect weather key 012345678X", ErrorKind::Refused);
        fails(process, "open_or_start weather", ErrorKind::Refused);
        tell(process, "connect weather key 0123456789");
    }
    // One that demands none is not trusted by who has one.
    tell(&mut other, "leave");
    tell(&mut other, "open_or_start open");
    fails(&mut other, "connect open key 0123456789", ErrorKind::Refused);
    tell(&mut other, "connect open");
    let mut third = place.start("role_user");
    fails(&mut third, "connect open key 0123456789", ErrorKind::Refused);
    tell(&mut other, "shutdown");
    tell(&mut user, "shutdown");
}

#[test]
fn a_token_of_a_manager_that_has_ended_is_refused() {
    let manager = Manager::start().unwrap();
    let list: List<u64> = manager.list([1u64]).unwrap();
    let token = list.token().unwrap();
    drop((list, manager));
    assert!(token.open::<List<u64>>().unwrap_err().is_not_found());
}

// Programs that do not begin as they should. (For one that does not call `init`: tests/no_init.rs.)

#[test]
fn a_program_that_does_not_reach_init_is_an_error() {
    for program in ["/bin/true", "/nowhere/at/all", "/bin/false"] {
        let start = Instant::now();
        let error = Manager::builder().executable(program).start().unwrap_err();
        println!("{program}: {error:?} after {:?}", start.elapsed());
        assert_eq!(error.kind(), ErrorKind::System, "{error:?}");
        assert!(start.elapsed() < PROMPT, "{program}: {:?}", start.elapsed());
        match program {
            "/bin/true" => assert!(error.to_string().contains("exit code 0") && error.to_string().contains("init()"), "{error}"),
            "/bin/false" => assert!(error.to_string().contains("exit code 1"), "{error}"),
            _ => assert!(error.to_string().contains(program), "{error}"),
        }
    }
}

/// A program that is not ours and stays.
fn script(directory: &std::path::Path, line: &str) -> std::path::PathBuf {
    let path = directory.join("program");
    write_program(&path, format!("#!/bin/sh\n{line}\n"));
    path
}

#[test]
fn a_program_that_goes_on_as_something_else_is_ended() {
    let directory = tempfile::tempdir().unwrap();
    let program = script(directory.path(), "echo $$ > \"$0.pid\"; exec bash -c 'eval \"exec ${COMMONHOLD_BOOT##*:}<&-\"; exec sleep 300'");
    let error = Manager::builder().executable(&program).start().unwrap_err();
    assert!(error.to_string().contains("another program"), "{error}");
    let pid = std::fs::read_to_string(directory.path().join("program.pid")).unwrap();
    assert!(!std::path::Path::new("/proc").join(pid.trim()).exists());
}

#[test]
#[ignore = "waits for the time-out of 20 seconds"]
fn a_program_that_says_nothing_is_ended_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let program = script(directory.path(), "exec sleep 300");
    let start = Instant::now();
    let error = Manager::builder().executable(&program).start().unwrap_err();
    println!("{error:?} after {:?}", start.elapsed());
    assert!(error.to_string().contains("another program"), "{error}");
}

// After the manager's death.

#[test]
fn what_is_held_stays_readable_when_the_manager_is_killed() {
    let manager = Manager::start().unwrap();
    let dict: Dict<String, Vec<u64>> = manager.dict((0..100u64).map(|i| (i.to_string(), vec![i; 100]))).unwrap();
    let list = manager.list(["x".repeat(100_000)]).unwrap();
    let (guard, snapshot) = (dict.get("7").unwrap().unwrap(), manager.snapshot().unwrap());
    let old = dict.insert("8", vec![0]).unwrap().unwrap();
    let text = list.get(0).unwrap().unwrap();
    let iter = dict.iter().unwrap();
    process_of(&manager).kill();
    assert!(!manager.is_alive());
    assert_eq!(guard.to_owned(), [7; 100]);
    assert_eq!(old.to_owned(), [8; 100]);
    assert_eq!(text.len(), 100_000);
    assert_eq!(dict.at(&snapshot).len(), 100);
    assert!((0..100u64).all(|i| dict.at(&snapshot).get(i.to_string()).unwrap().to_owned() == [i; 100]));
    assert_eq!(iter.count(), 100);
    let clone = snapshot.clone();
    let in_thread = std::thread::scope(|scope| scope.spawn(|| list.at(&clone).len()).join().unwrap());
    assert_eq!(in_thread, 1);
    for error in [
        dict.get("7").map(|_| ()).unwrap_err(),
        dict.insert("7", vec![]).map(|_| ()).unwrap_err(),
        dict.len().map(|_| ()).unwrap_err(),
        manager.snapshot().map(|_| ()).unwrap_err(),
        manager.stats().map(|_| ()).unwrap_err(),
        manager.transaction(|tx| tx.insert(&dict, "7", vec![])).unwrap_err(),
        manager.batch(|batch| batch.remove(&dict, "7")).unwrap_err(),
        dict.wait_for_change(&mut 0, None).map(|_| ()).unwrap_err(),
    ] {
        assert!(error.is_disconnected() && !error.is_outcome_unknown(), "{error:?}");
    }
    assert!(!format!("{manager:?} {dict:?} {list} {snapshot:?}").is_empty());
    manager.shutdown().unwrap();
}

/// Starts a manager in a process group of its own, ignores the interrupt itself, and goes on.
#[test]
fn role_interrupted() {
    let Some(mut parent) = Parent::of("role_interrupted") else { return };
    let manager = Manager::start().unwrap();
    let list = manager.list([1u64]).unwrap();
    parent.say(manager.address());
    loop {
        parent.hear();
        list.push(1u64).unwrap();
        parent.say(list.len().unwrap());
    }
}

#[test]
fn an_interrupt_ends_the_program_and_only_then_its_manager() {
    for ignored in [true, false] {
        let mut role = Role::start_with("role_interrupted", |command| {
            use std::os::unix::process::CommandExt;
            command.process_group(0);
            if ignored {
                // The shell's way of saying that a program shall not be interrupted.
                let program = command.get_program().to_owned();
                let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
                let envs: Vec<_> = command.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
                *command = Command::new("/bin/sh");
                command.args(["-c", "trap '' INT; exec \"$0\" \"$@\""]).arg(program).args(args).envs(envs);
                command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).process_group(0);
            }
        });
        let address = role.hear().unwrap();
        let manager = Manager::connect(&address).unwrap();
        let process = process_of(&manager);
        let group = rustix::process::Pid::from_raw(role.pid() as i32).unwrap();
        rustix::process::kill_process_group(group, Signal::INT).unwrap();
        if ignored {
            for len in 2..10 {
                role.say("go on");
                role.expect(&len.to_string());
            }
            assert!(!process.has_ended());
            manager.audit().unwrap();
            // Also if somebody interrupts the manager itself.
            for signal in [Signal::INT, Signal::HUP, Signal::PIPE] {
                signal_to(process.pid, signal);
            }
            role.say("go on");
            role.expect("10");
        }
        drop(role);
        assert!(process.end_within(PROMPT).is_some());
    }
}

/// Nobody else would let it go on: it is nobody's child any more, and in a session of its own.
#[test]
fn a_manager_that_is_stopped_ends_with_its_program_and_with_its_last_handle() {
    let mut role = Role::start("role_interrupted");
    let process = process_of(&Manager::connect(&role.hear().unwrap()).unwrap());
    let _doomed = Doomed(&process);
    stop(process.pid);
    role.kill();
    assert!(process.end_within(PATIENCE).is_some(), "its program was killed");

    let manager = Manager::start().unwrap();
    let (list, process) = (manager.list([1u64]).unwrap(), process_of(&manager));
    let _doomed = Doomed(&process);
    stop(process.pid);
    let (sender, caller) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        // Whose call ends with the manager, if not by an answer.
        let doomed = Doomed(&process);
        let call = scope.spawn(|| {
            sender.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            list.push(2).unwrap();
        });
        let caller = caller.recv().unwrap();
        until("the call waits for its answer", || sleeps_in(std::process::id(), caller).is_some());
        drop(manager.clone());
        assert_eq!(state_of(process.pid), Some('T'), "nothing but its owner's end lets it go on");
        signal_to(process.pid, Signal::CONT);
        call.join().unwrap();
        std::mem::forget(doomed);
    });
    assert_eq!(list.len().unwrap(), 2);
    stop(process.pid);
    drop((list, manager));
    assert!(process.has_ended(), "who drops the last handle waits for it");
}

#[test]
fn a_manager_in_this_process_serves_others_and_ends_with_its_last_handle() {
    let manager = Manager::in_process().unwrap();
    assert_eq!(process_of(&manager).pid, std::process::id());
    let list: List<u64> = manager.list([1u64, 2]).unwrap();
    let address = manager.address().to_string();
    let mut user = Role::start("role_user");
    tell(&mut user, &format!("connect {address}"));
    tell(&mut user, "add");
    let dict: Dict<String, u64> = manager.open("dict").unwrap();
    assert_eq!(*dict.get("a").unwrap().unwrap(), 1);
    drop(manager);
    assert_eq!(list.len().unwrap(), 2);
    drop((list, dict));
    fails(&mut user, "add", ErrorKind::Disconnected);
    assert!(!is_bound(&address));
}
