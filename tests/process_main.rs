//! Processes of a program with a `main` of its own: the ends of parents, stolen waits, storms, forks, deaths at counted points.
//!
//! Without a harness. Started with the name of a role, this is the program that a check looks at.
#[path = "support/mod.rs"]
mod support;

use commonhold::{
    ChildSpec, ChildrenGuard, ErrorKind, List, Manager, Pool, Process, Queue, ResourceLimit, RestartStrategy, Stream, Supervisor,
    SupervisorEvent, active_children, current_process, parent_process,
};
use commonhold_ipc::points::CLIENT_VARIABLE;
use rustix::process::{Signal, WaitOptions, waitpid};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{ControlGroup, PATIENCE, PROMPT, WELL, Watched, files_in, forked, signal_to, until};

fn main() {
    let begun = std::env::args().nth(1).filter(|role| role == "says-before-init");
    if begun.is_some() {
        println!("before");
    }
    commonhold::init();
    match std::env::args().nth(1).as_deref() {
        Some("says-before-init") => says_before_init(),
        Some("daemons") => daemons(std::env::args().nth(2).unwrap().parse().unwrap()),
        Some("orphan") => orphan(),
        Some("litter") => litter(),
        Some("guard") => guard(),
        Some("thief") => thief(),
        Some("ignored") => ignored(),
        Some("storm") => storm_of_processes(std::env::args().nth(2).unwrap().parse().unwrap()),
        Some("confined") => storm_in_little_memory(),
        Some("dies") => dies_on_the_way(),
        Some("privileged") => privileged(),
        Some("fails") => fails(&std::env::args().nth(2).unwrap()),
        Some("counts-processors") => {
            wait_for_word();
            println!("{}", commonhold::cpu_count());
        }
        Some("leaves-a-failure") => leaves_a_failure(),
        Some("ends-before-its-daemon") => ends_before_its_daemon(),
        Some("lets-go") => lets_go_at_the_same_moment(),
        Some("without-init") => println!("it went on"),
        // Words of a harness, which there is none of.
        _ => checks(),
    }
}

type Check = (&'static str, fn());

fn checks() {
    let checks: [Check; 23] = [
        ("daemons end with their parent, others do not", daemons_end_with_their_parent),
        ("daemons do not end with the thread that started them", daemons_outlive_their_thread),
        ("a child sees its parent end", a_child_sees_its_parent_end),
        ("a parent that is killed leaves no file behind", no_file_is_left),
        ("a guard waits for children", a_guard_waits),
        ("what stands before init runs in children, too", before_init),
        ("somebody else's wait costs only the exit code", a_stolen_wait),
        ("an ignored SIGCHLD costs only the exit code", an_ignored_signal),
        ("failures that nobody joins are told", failures_are_told),
        ("failures that nobody joins are told once", failures_are_told_once),
        ("a daemon that ends with its parent tells nothing", daemons_that_end_with_their_parent_tell_nothing),
        ("a failure behind the parent's end is told", failures_behind_the_parents_end_are_told),
        ("processors of a control group", processors_of_a_group),
        ("200 children at once", many_at_once),
        ("storms end in errors", storms_end_in_errors),
        ("a storm of more processes than there may be", storms_at_the_limit_of_processes),
        ("a storm in a memory control group", storms_in_a_memory_group),
        ("forked children", forked_children),
        ("children killed at every point", children_die_everywhere),
        ("parents killed at every point leave nothing behind", parents_die_everywhere),
        ("lines of children are whole", whole_lines),
        ("runners of checks one by one find them", checks_one_by_one),
        ("a program with rights beyond its user's", rights_beyond),
    ];
    // As the standard harness has it, also for runners that have each check in a process of its own.
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| words.iter().any(|other| other == word);
    let wanted = words.iter().find(|word| !word.starts_with('-') && *word != "terse");
    if has("--list") {
        let checks = checks.iter().filter(|_| !has("--ignored"));
        return checks.for_each(|(name, _)| println!("{name}: test"));
    }
    let is_wanted = |name: &str| wanted.is_none_or(|wanted| if has("--exact") { name == wanted } else { name.contains(wanted.as_str()) });
    for (name, check) in checks {
        if is_wanted(name) {
            let begin = Instant::now();
            check();
            println!("{name}: ok, {:.1} s", begin.elapsed().as_secs_f64());
        }
    }
    assert!(active_children().is_empty(), "{:?}", active_children());
}

/// This program in a role.
fn role(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(name).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Goes on whatever its parent does.
fn endure() {
    loop {
        std::thread::park();
    }
}

// ---- The end of a parent ----

/// Role: starts so many daemons and another child, says their numbers, and waits for its end.
fn daemons(count: usize) {
    for daemon in (0..count).map(|_| true).chain([false]) {
        let child = Process::builder().daemon(daemon).stdout(Stream::Null).spawn(endure, ()).unwrap();
        println!("{}", child.pid());
    }
    endure();
}

fn daemons_end_with_their_parent() {
    let kills = [1, 8].into_iter().flat_map(|count| std::iter::repeat_n((count, Signal::KILL), 5));
    let mut figures = BTreeMap::<(usize, i32), Vec<Duration>>::new();
    for (count, signal) in kills.chain([(3, Signal::TERM), (3, Signal::USR1)]) {
        let mut parent = role("daemons").arg(count.to_string()).spawn().unwrap();
        let lines = BufReader::new(parent.stdout.take().unwrap()).lines().take(count + 1);
        let mut children: Vec<Watched> = lines.map(|line| Watched::of(line.unwrap().parse().unwrap())).collect();
        let other = children.pop().unwrap();
        let begin = Instant::now();
        signal_to(parent.id(), signal);
        for daemon in &children {
            daemon.end_within(PATIENCE).expect("a daemon ends with its parent");
        }
        let took = begin.elapsed();
        parent.wait().unwrap();
        assert!(took < PROMPT);
        figures.entry((count, signal.as_raw())).or_default().push(took);
        assert!(!other.has_ended(), "who is no daemon goes on");
        other.kill();
    }
    for ((count, signal), mut took) in figures {
        took.sort_unstable();
        println!(
            "  from signal {signal} to the parent until the last of {count} daemons had ended: {:?} (the median of {})",
            took[took.len() / 2],
            took.len()
        );
    }
}

fn daemons_outlive_their_thread() {
    let spawn = || Process::builder().daemon(true).spawn(endure, ()).unwrap();
    let child = std::thread::spawn(spawn).join().unwrap();
    // It has come to its function, and so has long begun to watch over its parent.
    assert_eq!(Process::spawn(|| 1, ()).unwrap().join().unwrap(), 1);
    assert_eq!(child.join_timeout(Duration::from_millis(100)).unwrap(), None);
    child.kill().unwrap();
    child.wait(None).unwrap();
}

/// Role: leaves a child behind that says what it sees of its parent.
fn orphan() {
    let watch = || {
        let parent = parent_process().unwrap();
        println!("{} {}", parent.pid(), parent.is_alive());
        let ended = parent.wait(None).unwrap();
        println!("{ended} {} {}", parent.is_alive(), parent.wait(Duration::ZERO).unwrap());
    };
    Process::spawn(watch, ()).unwrap();
    endure();
}

fn a_child_sees_its_parent_end() {
    for signal in [Signal::KILL, Signal::TERM] {
        let mut parent = role("orphan").spawn().unwrap();
        // Its end is the child's, who has it as well.
        let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_eq!(lines.next().unwrap(), format!("{} true", parent.id()));
        signal_to(parent.id(), signal);
        parent.wait().unwrap();
        assert_eq!(lines.collect::<Vec<_>>(), ["true false true"]);
    }
}

/// Role: has everything that might leave something behind, and waits for its end.
fn litter() {
    let manager = Manager::builder().capacity(64 << 20).start().unwrap();
    let (jobs, list) = (manager.queue::<u64>(10).unwrap(), manager.list([vec![7u8; 1 << 20]]).unwrap());
    let hold = |jobs: Queue<u64>, list: List<Vec<u8>>, large: Vec<u8>| {
        let _guard = list.get(0).unwrap();
        println!("{} {}", current_process().pid(), large.len());
        jobs.recv().unwrap();
    };
    let child = Process::builder().daemon(true).spawn(hold, (jobs, list, vec![1; 1 << 20])).unwrap();
    let _ = child.join();
}

fn no_file_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let mut parent = role("litter");
    for variable in ["TMPDIR", "XDG_RUNTIME_DIR", "COMMONHOLD_RUNTIME_DIR"] {
        parent.env(variable, directory.path());
    }
    let mut parent = parent.spawn().unwrap();
    let line = BufReader::new(parent.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let (pid, len) = line.split_once(' ').unwrap();
    assert_eq!(len, "1048576");
    let child = Watched::of(pid.parse().unwrap());
    signal_to(parent.id(), Signal::KILL);
    parent.wait().unwrap();
    child.end_within(PATIENCE).expect("a daemon ends with its parent");
    assert_eq!(files_in(directory.path()), Vec::<std::path::PathBuf>::new());
}

/// Role: its children say something when it itself is done.
fn guard() {
    let _guard = ChildrenGuard::new();
    let (reader, writer) = std::io::pipe().unwrap();
    let late = || {
        std::io::read_to_string(std::io::stdin()).unwrap();
        println!("child");
    };
    drop(Process::builder().stdin(reader).spawn(late, ()).unwrap());
    Process::builder().daemon(true).spawn(endure, ()).unwrap();
    println!("main");
    drop(writer);
}

fn a_guard_waits() {
    let mut parent = role("guard").spawn().unwrap();
    assert!(parent.wait().unwrap().success());
    let mut said = String::new();
    parent.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "main\nchild\n");
}

/// Role: with a line before `init`.
fn says_before_init() {
    let child = Process::spawn(|| println!("function"), ()).unwrap();
    child.join().unwrap();
    println!("after");
}

fn before_init() {
    let output = role("says-before-init").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "before\nbefore\nfunction\nafter\n");
}

// ---- Waits that others have made ----

/// Role: something else waits for the children before the library does.
fn thief() {
    let steal = || waitpid(None, WaitOptions::empty()).unwrap();
    let result = Process::spawn(|| 5, ()).unwrap();
    steal();
    assert_eq!((result.join().unwrap(), result.exit_code(), result.is_alive()), (5, None, false));
    let killed = Process::spawn(endure, ()).unwrap();
    killed.kill().unwrap();
    steal();
    let error = killed.join().unwrap_err();
    assert!(error.to_string().contains("how, is unknown"), "{error}");
    assert_eq!((killed.exit_code(), killed.is_alive()), (None, false));
    killed.kill().unwrap();
}

/// Role: nobody waits for anybody.
fn ignored() {
    let manager = Manager::builder().capacity(64 << 20).start().unwrap();
    let list = manager.list([1u64]).unwrap();
    assert_eq!(Process::spawn(|list: List<u64>| list.len().unwrap() as u64, list).unwrap().join().unwrap(), 1);
    assert!(Process::builder().stderr(Stream::Null).spawn(|| -> () { panic!("so") }, ()).unwrap().join().unwrap_err().is_panic());
    for _ in 0..20 {
        Process::spawn(|| (), ()).unwrap().join().unwrap();
        let error = Process::builder().executable("/bin/true").spawn(|| (), ()).unwrap().join().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotInitialised);
    }
}

fn a_stolen_wait() {
    assert!(role("thief").stdout(Stdio::inherit()).status().unwrap().success());
}

fn an_ignored_signal() {
    let program = std::env::current_exe().unwrap();
    let status = Command::new("env").args(["--ignore-signal=CHLD".as_ref(), program.as_os_str(), "ignored".as_ref()]).status().unwrap();
    assert!(status.success());
}

// ---- Failures that nobody joins ----

/// What a role says on standard error, with its children, line by line. Backtraces' lines are not asked for.
fn said_by(command: &mut Command) -> Vec<String> {
    let output = command.env_remove("RUST_BACKTRACE").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap().lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[derive(commonhold::Shared, Debug)]
enum Shortage {
    Nails { wanted: u64 },
}

/// Waits until nobody writes to its standard input any more.
fn wait_for_word() {
    std::io::read_to_string(std::io::stdin()).unwrap();
}

fn returns_an_error() -> commonhold::Result<u64> {
    wait_for_word();
    Err(commonhold::Error::caused(ErrorKind::NotFound, "no input,\nnone at all", std::io::Error::other("the disk is gone")))
}

fn returns_its_own() -> Result<(), Shortage> {
    wait_for_word();
    Err(Shortage::Nails { wanted: 7 })
}

fn raises(signal: i32) {
    wait_for_word();
    let signal = Signal::from_named_raw(signal).unwrap();
    rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
    endure();
}

fn exits(code: i32) {
    wait_for_word();
    std::process::exit(code)
}

fn panics() {
    wait_for_word();
    panic!("so it is");
}

/// What is done with a child that is to fail: its handle is dropped before or after it has ended, or it is joined.
enum Way {
    DroppedBefore,
    DroppedAfter,
    Joined,
    /// Its end is seen by its exit code.
    Seen,
}

fn see_fail<T: commonhold::Shared>(way: &str, spawn: impl FnOnce(commonhold::ProcessBuilder) -> commonhold::Result<Process<T>>) {
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
fn fails(how: &str) {
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

fn failures_are_told() {
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

const MANY: u64 = 16;

/// Role: children fail in the moment in which their handles are dropped.
fn lets_go_at_the_same_moment() {
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

fn failures_are_told_once() {
    for _ in 0..3 {
        let lines = said_by(&mut role("lets-go"));
        assert_eq!(lines.len() as u64, MANY, "{lines:?}");
        for n in 0..MANY {
            assert_eq!(lines.iter().filter(|line| line.contains(&format!("\"number {n}.\""))).count(), 1, "{n}: {lines:?}");
        }
    }
}

/// Role: its manager ends, so its daemon fails, and then it ends itself.
fn ends_before_its_daemon() {
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

fn daemons_that_end_with_their_parent_tell_nothing() {
    for _ in 0..3 {
        assert_eq!(said_by(&mut role("ends-before-its-daemon")), [] as [String; 0]);
    }
}

/// Role: leaves a child behind that fails when it has ended.
fn leaves_a_failure() {
    let fail = || -> Result<(), String> {
        parent_process().unwrap().wait(None).unwrap();
        Err("left alone".into())
    };
    // It is not dropped.
    std::mem::forget(Process::builder().name("Ada").stdout(Stream::Null).spawn(fail, ()).unwrap());
}

fn failures_behind_the_parents_end_are_told() {
    let lines = said_by(&mut role("leaves-a-failure"));
    assert!(
        matches!(&lines[..], [line] if line.starts_with("Ada (pid ") && line.contains("returned an error: \"left alone\"; ")),
        "{lines:?}"
    );
}

fn processors_of_a_group() {
    let group = match ControlGroup::of_processors(1) {
        Ok(group) => group,
        Err(why) => return println!("  skipped: {why}"),
    };
    let mut counts = role("counts-processors").stdin(Stdio::piped()).spawn().unwrap();
    group.take(counts.id());
    let output = {
        drop(counts.stdin.take());
        counts.wait_with_output().unwrap()
    };
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "1\n");
}

// ---- Many ----

fn many_at_once() {
    let manager = Manager::builder().capacity(64 << 20).start().unwrap();
    let list = manager.list::<u64>([]).unwrap();
    let push = |list: List<u64>, n: u64| list.push(n).map(|_| n);
    let children: Vec<_> = (0..200).map(|n| Process::spawn(push, (list.clone(), n)).unwrap()).collect();
    let sum: u64 = children.iter().map(|child| child.join().unwrap().unwrap()).sum();
    assert_eq!((sum, list.len().unwrap()), (199 * 200 / 2, 200));
    drop(children);
    manager.audit().unwrap();
}

/// Starts children until none can be started any more, or `most` of them; ends them. How many there were, and why no more.
fn storm(most: u64) -> (u64, Option<commonhold::Error>) {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    // The first child leaves nothing open that the others do not.
    let before = open();
    let (mut children, mut refused) = (Vec::new(), None);
    for _ in 0..most {
        match Process::builder().daemon(true).stdout(Stream::Null).stderr(Stream::Null).spawn(endure, ()) {
            Ok(child) => children.push(child),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let count = children.len() as u64;
    for child in children {
        child.kill().unwrap();
        assert!(child.join().is_err());
    }
    assert_eq!((active_children().len(), open()), (0, before), "something is left");
    (count, refused)
}

/// Role: as a user who may have so many processes.
fn storm_of_processes(most: u64) {
    ResourceLimit::Processes.set(most).unwrap();
    let (count, refused) = storm(1000);
    let refused = refused.unwrap();
    assert!(count < 1000 && refused.kind() == ErrorKind::System && refused.to_string().contains("ulimit -u"), "{count}: {refused}");
    assert_eq!(Process::spawn(|| 5, ()).unwrap().join().unwrap(), 5, "later it goes on");
}

/// Threads of this user, which are what the limit on processes counts.
fn threads_of_mine() -> u64 {
    use std::os::unix::fs::MetadataExt;
    let own = rustix::process::geteuid().as_raw();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).map(|entry| entry.path().join("task"));
    // (Some end meanwhile.)
    let mine = processes.filter(|tasks| tasks.metadata().is_ok_and(|is| is.uid() == own));
    mine.map(|tasks| std::fs::read_dir(tasks).map_or(0, Iterator::count) as u64).sum()
}

fn storms_at_the_limit_of_processes() {
    const MORE: u64 = 24;
    let mut storm = role("storm");
    if rustix::process::geteuid().is_root() {
        // The limit does not hold for root. This one has no other process, also none of a run of these tests beside this one.
        let somebody = 60_000 + std::process::id() % 5_000;
        storm.arg(MORE.to_string()).uid(somebody).gid(somebody).current_dir("/");
        match storm.status() {
            Ok(status) => assert!(status.success()),
            Err(error) => println!("  skipped: another user cannot run this program here: {error}"),
        }
    } else {
        assert!(storm.arg((threads_of_mine() + MORE).to_string()).status().unwrap().success());
    }
}

fn storms_end_in_errors() {
    let descriptors = Process::builder().limit(ResourceLimit::OpenFiles, 64).spawn(|| storm(100), ()).unwrap();
    let (count, refused) = descriptors.join().unwrap();
    let refused = refused.unwrap();
    assert!((10..60).contains(&count) && refused.kind() == ErrorKind::System, "{count}: {refused:?}");
    let memory = |least: u64| {
        let big = Process::builder().stderr(Stream::Null).spawn(|bytes: Vec<u8>| bytes.len() as u64, vec![1; 32 << 20]);
        let outcome = big.and_then(|child| child.join());
        outcome.is_err() || outcome.is_ok_and(|len| len >= least)
    };
    for bytes in [48 << 20, 96 << 20, 192 << 20] {
        let small = Process::builder().limit(ResourceLimit::AddressSpace, bytes).limit(ResourceLimit::Core, 0).stderr(Stream::Null);
        match small.spawn(memory, 32 << 20).unwrap().join() {
            Ok(fine) => assert!(fine),
            Err(error) => println!("  with {} MiB of addresses: {error}", bytes >> 20),
        }
    }
}

const GROUP_MIB: u64 = 96;

/// Takes so much memory. Whoever takes much is the first to be killed for want of it.
fn eat(mib: u64) -> u64 {
    if mib > 4 {
        std::fs::write("/proc/self/oom_score_adj", "1000").unwrap();
    }
    let bytes = vec![1u8; (mib as usize) << 20];
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

/// Role: in a group that has no room for what its children take.
fn storm_in_little_memory() {
    wait_for_word();
    let quiet = || Process::builder().daemon(true).stdout(Stream::Null).stderr(Stream::Null);
    // Those that take too much are killed, by name; those beside them are not.
    let meals = [2, 2 * GROUP_MIB, 2, 2 * GROUP_MIB, 2];
    for (mib, child) in meals.map(|mib| (mib, quiet().spawn(eat, mib).unwrap())) {
        match child.join() {
            Ok(eaten) => assert!(mib == 2 && eaten == mib << 20),
            Err(error) => assert!(mib > 2 && error.is_died() && error.to_string().contains("SIGKILL"), "{mib}: {error}"),
        }
    }
    // So it is in a pool: its workers are replaced.
    let pool = commonhold::Pool::new(2).unwrap();
    let outcomes = pool.map_all(eat, meals).unwrap();
    for (mib, outcome) in meals.into_iter().zip(outcomes) {
        match outcome {
            Ok(eaten) => assert!(mib == 2 && eaten == mib << 20),
            Err(error) => assert!(mib > 2 && error.is_died() && error.to_string().contains("SIGKILL"), "{mib}: {error}"),
        }
    }
    assert_eq!(pool.apply(eat, 2).unwrap(), 2 << 20);
    drop(pool);
    // Together they take too much.
    let eat_and_stay = |mib: u64| {
        eat(mib);
        endure();
    };
    let storm: Vec<_> = (0..20).map(|_| quiet().spawn(eat_and_stay, GROUP_MIB / 6)).collect();
    let started = storm.iter().flatten().count();
    until("one was killed for want of memory", || started < 6 || storm.iter().flatten().any(|child| child.exit_code() == Some(-9)));
    for child in storm {
        match child {
            Ok(child) => assert!(child.kill().is_ok() && child.join().unwrap_err().is_died()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::System, "{error}"),
        }
    }
    assert!(active_children().is_empty());
}

fn storms_in_a_memory_group() {
    let group = match ControlGroup::of_memory(GROUP_MIB << 20) {
        Ok(group) => group,
        Err(why) => return println!("  skipped: {why}"),
    };
    let mut confined = role("confined").stdin(Stdio::piped()).spawn().unwrap();
    group.take(confined.id());
    drop(confined.stdin.take());
    assert!(confined.wait().unwrap().success());
    until("nobody is left in the group", || group.is_empty());
}

fn whole_lines() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let fail = |n: u64| -> () { panic!("{}", n.to_string().repeat(400)) };
    let spawn = |n| Process::builder().stderr(writer.try_clone().unwrap()).spawn(fail, n).unwrap();
    let children: Vec<_> = (0..10).map(spawn).collect();
    drop(writer);
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    children.iter().for_each(|child| assert!(child.join().unwrap_err().is_panic()));
    for n in 0..10 {
        let line = n.to_string().repeat(400);
        assert_eq!(said.lines().filter(|said| **said == *line).count(), 1, "{n} in {said}");
    }
}

/// As cargo-nextest does it.
fn checks_one_by_one() {
    let run = |words: &[&str]| {
        let output = Command::new(std::env::current_exe().unwrap()).args(words).env("NEXTEST", "1").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let listed = run(&["--list", "--format", "terse"]);
    assert!(listed.lines().all(|line| line.ends_with(": test")) && listed.contains("\na guard waits for children: test\n"), "{listed}");
    assert_eq!(run(&["--list", "--format", "terse", "--ignored"]), "");
    let said = run(&["--exact", "a guard waits for children", "--nocapture"]);
    assert!(said.lines().count() == 1 && said.starts_with("a guard waits for children: ok"), "{said}");
}

// ---- Forks ----

fn forked_children() {
    let manager = Manager::builder().capacity(64 << 20).start().unwrap();
    let list = manager.list([1u64, 2]).unwrap();
    let child = Process::builder()
        .daemon(true)
        .spawn(
            |list: List<u64>| {
                endure();
                list
            },
            list,
        )
        .unwrap();
    let in_fork = || {
        let refused = |result: commonhold::Result<()>| result.is_err_and(|error| error.kind() == ErrorKind::UsedAfterFork);
        let all =
            refused(child.kill()) && refused(child.terminate()) && refused(child.join().map(drop)) && refused(child.wait(None).map(drop));
        // Its own are its own.
        let own = Process::spawn(|x: u64| x * x, 5).is_ok_and(|own| active_children().len() == 1 && own.join().is_ok_and(|n| n == 25));
        all && own && child.is_alive() && child.exit_code().is_none() && active_children().is_empty()
    };
    assert_eq!(forked(in_fork), WELL);
    assert!(child.is_alive());
    child.kill().unwrap();
    assert!(child.join().is_err_and(|error| error.is_died()));
    // A supervisor, too.
    let mut supervisor = Supervisor::new(RestartStrategy::OneForOne);
    supervisor.add(ChildSpec::new("kept", endure, ())).unwrap();
    let (stopper, kept) = (supervisor.stopper().unwrap(), supervisor.children());
    let in_fork = || {
        let refused = |result: commonhold::Result<()>| result.is_err_and(|error| error.kind() == ErrorKind::UsedAfterFork);
        let all = refused(supervisor.step(None).map(drop))
            && refused(supervisor.add(ChildSpec::new("more", endure, ())))
            && refused(supervisor.shutdown())
            && refused(stopper.stop());
        drop(std::mem::replace(&mut supervisor, Supervisor::new(RestartStrategy::OneForOne)));
        all && supervisor.step(None).is_ok_and(|event| event.is_none())
    };
    assert_eq!(forked(in_fork), WELL);
    assert!(matches!(supervisor.step(None), Ok(Some(SupervisorEvent::Started { .. }))));
    assert!(supervisor.step(Duration::ZERO).unwrap().is_none() && kept[0].is_alive());
    drop(supervisor);
    assert_eq!(kept[0].exit_code(), Some(-15));
    // One that a fork holds the socket of: its end is seen nevertheless.
    let forks = || -> () {
        assert_eq!(
            forked(|| {
                let _ = Command::new("true").status();
                true
            }),
            WELL
        );
        std::process::exit(4)
    };
    let child = Process::spawn(forks, ()).unwrap();
    assert!(child.join().is_err());
    assert_eq!(child.exit_code(), Some(4));
}

// ---- Deaths on the way ----

fn work(list: List<u64>, fails: bool) -> commonhold::Result<List<u64>> {
    list.push(1)?;
    if fails { Err(commonhold::Error::other("in vain")) } else { Ok(list) }
}

fn children_die_everywhere() {
    let manager = Manager::builder().capacity(64 << 20).start().unwrap();
    let list = manager.list::<u64>([]).unwrap();
    for fails in [false, true] {
        die_everywhere(&manager, &list, fails);
    }
    drop(list);
    let _ = active_children();
    until("nothing is held any more", || manager.stats().unwrap().objects == 0);
}

fn die_everywhere(manager: &Manager, list: &List<u64>, fails: bool) {
    for point in 1.. {
        let begin = Instant::now();
        let builder = Process::builder().env(CLIENT_VARIABLE, point.to_string()).stderr(Stream::Null);
        let child = builder.spawn(work, (list.clone(), fails)).unwrap();
        let outcome = child.join();
        assert!(begin.elapsed() < PATIENCE);
        let is_right = |outcome: &commonhold::Result<List<u64>>| match outcome {
            Ok(same) => !fails && same == list,
            Err(error) => fails && error.to_string() == "in vain",
        };
        match (outcome, child.exit_code()) {
            (Err(error), Some(-9)) => assert!(error.is_died(), "{error}"),
            // After its result has been sent.
            (Ok(outcome), Some(-9)) => assert!(is_right(&outcome)),
            (Ok(outcome), Some(0)) => {
                println!("  {} points", point - 1);
                assert!(point > 15 && is_right(&outcome));
                break;
            }
            (outcome, code) => panic!("at point {point}: {outcome:?}, {code:?}"),
        }
        drop(child);
        manager.audit().unwrap();
    }
}

/// Role: has daemonic children, a manager and a pool of its own, and memory shared with all of them, until it dies.
fn dies_on_the_way() {
    let manager = Manager::builder().capacity(64 << 20).start().unwrap();
    let (list, jobs) = (manager.list::<u64>([]).unwrap(), manager.queue::<u64>(10).unwrap());
    // What the others themselves do is not counted.
    let start = || Process::builder().daemon(true).env_remove(CLIENT_VARIABLE).spawn(work, (list.clone(), false)).unwrap();
    let children: Vec<_> = (0..2).map(|_| start()).collect();
    let pool = Pool::builder().workers(1).env(CLIENT_VARIABLE, "never").build().unwrap();
    let count = |bytes: Vec<u8>, jobs: Queue<u64>| jobs.send(bytes.len() as u64).map_err(commonhold::SendError::into_error);
    pool.apply(count, (vec![7; 1 << 20], jobs.clone())).unwrap().unwrap();
    assert_eq!(jobs.recv().unwrap(), Some(1 << 20));
    for child in children {
        child.join().unwrap().unwrap();
    }
    println!("done");
}

/// Runs a program in a shell that ends when all do who have the program's output. What they have said; how the program ended; and what they
/// have left in `/dev/shm`, which they have for themselves, if there may be such a thing.
fn run_to_the_last(program: &mut Command, alone: bool) -> Vec<String> {
    let mut shell = if alone { Command::new("unshare") } else { Command::new("sh") };
    let (before, after) = if alone { ("mount -t tmpfs none /dev/shm && ", "; ls -A /dev/shm") } else { ("", "") };
    if alone {
        shell.args(["--map-root-user", "--mount", "sh"]);
    }
    shell.args(["-c", &format!(r#"{before}{{ "$0" "$@"; echo "ended $?"; }} | cat{after}"#)]);
    shell.arg(program.get_program()).args(program.get_args()).stdin(Stdio::null()).stderr(Stdio::null());
    for (name, value) in program.get_envs() {
        shell.env(name, value.unwrap());
    }
    let output = shell.output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn parents_die_everywhere() {
    let alone = Command::new("unshare").args(["--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/dev/shm"]).output();
    let alone = alone.is_ok_and(|output| output.status.success());
    match alone {
        true => assert_eq!(run_to_the_last(Command::new("touch").arg("/dev/shm/left"), true), ["ended 0", "left"]),
        false => println!("  (nobody can have a /dev/shm for himself here: what is left there is not seen)"),
    }
    let directory = tempfile::tempdir().unwrap();
    for point in 1.. {
        let mut parent = role("dies");
        parent.env(CLIENT_VARIABLE, point.to_string());
        for variable in ["TMPDIR", "XDG_RUNTIME_DIR", "COMMONHOLD_RUNTIME_DIR"] {
            parent.env(variable, directory.path());
        }
        let begin = Instant::now();
        let said = run_to_the_last(&mut parent, alone);
        assert!(begin.elapsed() < PATIENCE);
        assert_eq!(files_in(directory.path()), Vec::<std::path::PathBuf>::new(), "at point {point}");
        if said == ["done", "ended 0"] {
            println!("  {} points", point - 1);
            assert!(point > 20, "{point}");
            break;
        }
        // By the signal. It may have been on its way out.
        assert_eq!(said.iter().filter(|line| *line != "done").collect::<Vec<_>>(), ["ended 137"], "at point {point}");
    }
}

// ---- Rights beyond the user's ----

/// Role: starts itself again, unless it was.
fn privileged() {
    if std::env::var_os("AGAIN").is_some() {
        return println!("its main was run again");
    }
    let child = Process::builder().env("AGAIN", "1").spawn(|| 5, ());
    let Err(error) = child else { return println!("it was started") };
    println!("{:?}: {error}", error.kind());
    println!("{:?}", Manager::start().map_or_else(|error| error.kind(), |_| ErrorKind::Other));
}

/// Such a program does not listen to its environment: started again it would run its `main`, and start itself again.
fn rights_beyond() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let directory = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o755)).tempdir().unwrap();
    let program = directory.path().join("privileged");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    if chown(&program, Some(65_534), None).is_err() {
        return println!("  (only root can make one)");
    }
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).unwrap();
    let ended = Command::new(&program).arg("privileged").output().unwrap();
    let said = String::from_utf8(ended.stdout).unwrap();
    let why = "a program with rights beyond its user's (set-user-ID, capabilities of its file) does not start itself again: it would have \
               to take orders from its environment; use a manager in this process, or connect to one";
    assert_eq!(said, format!("Refused: {why}\nRefused\n"), "{}", String::from_utf8_lossy(&ended.stderr));
}
