//! Failures that nobody joins: they are told, once.
use super::*;

/// What a role says on standard error, with its children, line by line. Backtraces' lines are not asked for.
pub fn said_by(command: &mut Command) -> Vec<String> {
    let output = command.env_remove("RUST_BACKTRACE").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap().lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[derive(commonhold::Shared, Debug)]
pub enum Shortage {
    Nails { wanted: u64 },
}

/// Waits until nobody writes to its standard input any more.
pub fn wait_for_word() {
    std::io::read_to_string(std::io::stdin()).unwrap();
}

pub fn returns_an_error() -> commonhold::Result<u64> {
    wait_for_word();
    Err(commonhold::Error::caused(ErrorKind::NotFound, "no input,\nnone at all", std::io::Error::other("the disk is gone")))
}

pub fn returns_its_own() -> Result<(), Shortage> {
    wait_for_word();
    Err(Shortage::Nails { wanted: 7 })
}

pub fn raises(signal: i32) {
    wait_for_word();
    let signal = Signal::from_named_raw(signal).unwrap();
    rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
    endure();
}

pub fn exits(code: i32) {
    wait_for_word();
    std::process::exit(code)
}

pub fn panics() {
    wait_for_word();
    panic!("so it is");
}

/// What is done with a child that is to fail: its handle is dropped before or after it has ended, or it is joined.
pub enum Way {
    DroppedBefore,
    DroppedAfter,
    Joined,
    /// Its end is seen by its exit code.
    Seen,
}

pub fn see_fail<T: commonhold::Shared>(way: &str, spawn: impl FnOnce(commonhold::ProcessBuilder) -> commonhold::Result<Process<T>>) {
    let way = match way {
        "before" => Way::DroppedBefore,
        "after" => Way::DroppedAfter,
        "joined" => Way::Joined,
        _ => Way::Seen,
    };
    let (reader, writer) = std::io::pipe().unwrap();
    let child = spawn(Process::builder().name("Ada").limit(ResourceLimit::Core, 0).stdin(reader)).unwrap();
    let sentinel = child.sentinel().try_clone_to_owned().unwrap();
    let ended = || commonhold_ipc::sys::wait_readable(&[std::os::fd::AsFd::as_fd(&sentinel)], Some(Instant::now() + PATIENCE)).unwrap();
    match way {
        Way::DroppedBefore => {
            drop(child);
            drop(writer);
            assert_eq!(ended(), 1);
        }
        _ => {
            drop(writer);
            assert_eq!(ended(), 1);
            match way {
                Way::Joined => drop(child.join()),
                Way::Seen => assert!(child.exit_code().is_some()),
                _ => {}
            }
            drop(child);
        }
    }
    assert!(active_children().is_empty() && active_children().is_empty());
}

/// Role: has a child fail, in a way `what@how`.
pub fn fails(how: &str) {
    let (what, way) = how.split_once('@').unwrap();
    match what {
        "error" => see_fail(way, |builder| builder.spawn(returns_an_error, ())),
        "own" => see_fail(way, |builder| builder.spawn(returns_its_own, ())),
        "usr1" => see_fail(way, |builder| builder.spawn(raises, 10)),
        "exit-3" => see_fail(way, |builder| builder.spawn(exits, 3)),
        "exit-0" => see_fail(way, |builder| builder.spawn(exits, 0)),
        "panic" => see_fail(way, |builder| builder.spawn(panics, ())),
        "nowhere" => see_fail(way, |builder| builder.current_dir("/does/not/exist").spawn(wait_for_word, ())),
        "true" => see_fail(way, |builder| builder.executable("/bin/true").spawn(wait_for_word, ())),
        "well" => see_fail(way, |builder| builder.spawn(|| Ok::<u64, Shortage>(1), ())),
        "killed" | "terminated" => {
            let child = Process::builder().name("Ada").spawn(endure, ()).unwrap();
            if what == "killed" { child.kill() } else { child.terminate() }.unwrap();
            if way == "after" {
                child.wait(None).unwrap();
            }
            drop(child);
            until("it is gone", || active_children().is_empty());
        }
        _ => panic!("{what}"),
    }
}

pub fn failures_are_told() {
    // What is said, without the number of the process, and whether that depends on how it is seen.
    let error = "returned an error: no input, none at all (NotFound); caused by: the disk is gone";
    let said = [
        ("error", error),
        ("own", "returned an error: Nails { wanted: 7 }"),
        ("usr1", "was killed by signal 10 (SIGUSR1) before its function returned"),
        ("exit-3", "ended with exit code 3 before its function returned"),
        ("nowhere", "cannot make /does/not/exist the current directory"),
        ("true", "ended with exit code 0 before it began"),
    ];
    for (what, text) in said {
        for way in ["before", "after", "joined", "seen"] {
            let lines = said_by(role("fails").arg(format!("{what}@{way}")));
            // An exit code says all there is to say of a death, and nothing of an error.
            if way == "joined" || way == "seen" && ["usr1", "exit-3", "true"].contains(&what) {
                assert_eq!(lines, [] as [String; 0], "{what}@{way}");
                continue;
            }
            let [line] = &lines[..] else { panic!("{what}@{way}: {lines:?}") };
            assert!(
                line.starts_with("Ada (pid ") && line.contains(text) && line.ends_with("; nobody has joined it"),
                "{what}@{way}: {line}"
            );
        }
    }
    for what in ["exit-0", "well", "killed", "terminated"] {
        for way in ["before", "after"] {
            assert_eq!(said_by(role("fails").arg(format!("{what}@{way}"))), [] as [String; 0], "{what}@{way}");
        }
    }
    for way in ["before", "after", "joined"] {
        let lines = said_by(role("fails").arg(format!("panic@{way}")));
        assert!(lines.len() == 2 && lines[0].contains("panicked at") && lines[1] == "so it is", "{way}: {lines:?}");
    }
}

pub const MANY: u64 = 16;

/// Role: children fail in the moment in which their handles are dropped.
pub fn lets_go_at_the_same_moment() {
    let (reader, writer) = std::io::pipe().unwrap();
    let fail = |n: u64| -> Result<(), String> {
        wait_for_word();
        Err(format!("number {n}."))
    };
    let spawn = |n| Process::builder().stdin(reader.try_clone().unwrap()).spawn(fail, n).unwrap();
    let children: Vec<_> = (0..MANY).map(spawn).collect();
    drop(writer);
    for child in children {
        drop(child);
        std::thread::yield_now();
    }
    until("all are gone", || active_children().is_empty());
}

pub fn failures_are_told_once() {
    for _ in 0..3 {
        let lines = said_by(&mut role("lets-go"));
        assert_eq!(lines.len() as u64, MANY, "{lines:?}");
        for n in 0..MANY {
            assert_eq!(lines.iter().filter(|line| line.contains(&format!("\"number {n}.\""))).count(), 1, "{n}: {lines:?}");
        }
    }
}

/// Role: its manager ends, so its daemon fails, and then it ends itself.
pub fn ends_before_its_daemon() {
    let manager = Manager::builder().capacity(64 << 20).start().unwrap();
    let (jobs, done) = (manager.queue::<u64>(10).unwrap(), manager.event().unwrap());
    let serve = |jobs: Queue<u64>, begun: commonhold::Event| -> commonhold::Result<()> {
        begun.set()?;
        loop {
            jobs.recv()?;
        }
    };
    drop(Process::builder().daemon(true).spawn(serve, (jobs, done.clone())).unwrap());
    done.wait().unwrap();
}

pub fn daemons_that_end_with_their_parent_tell_nothing() {
    for _ in 0..3 {
        assert_eq!(said_by(&mut role("ends-before-its-daemon")), [] as [String; 0]);
    }
}

/// Role: leaves a child behind that fails when it has ended.
pub fn leaves_a_failure() {
    let fail = || -> Result<(), String> {
        parent_process().unwrap().wait(None).unwrap();
        Err("left alone".into())
    };
    // It is not dropped.
    std::mem::forget(Process::builder().name("Ada").stdout(Stream::Null).spawn(fail, ()).unwrap());
}

pub fn failures_behind_the_parents_end_are_told() {
    let lines = said_by(&mut role("leaves-a-failure"));
    assert!(
        matches!(&lines[..], [line] if line.starts_with("Ada (pid ") && line.contains("returned an error: \"left alone\"; ")),
        "{lines:?}"
    );
}
