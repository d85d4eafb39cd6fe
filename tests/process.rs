//! Processes: what is given to them and what comes back, how they end, and what everybody sees then.
mod support;

use commonhold::{
    ChildProcess, Dict, Error, ErrorKind, List, Manager, Process, ResourceLimit, Shared, Stream, active_children, cpu_count,
    current_process, parent_process, wait,
};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::{Bomb, write_program};

commonhold::init_in_tests!();

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs until it is killed, or its parent ends.
fn idle() {
    let _ = parent_process().unwrap().wait(None);
}

/// A child that does nothing, and is killed with this value at the latest.
struct Idle(Process<()>);

impl Idle {
    fn spawn() -> Idle {
        Idle(Process::builder().daemon(true).spawn(idle, ()).unwrap())
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

#[derive(Shared, Clone, Debug, PartialEq)]
struct Order {
    what: String,
    parts: Vec<(u32, f64)>,
    note: Option<Box<Order>>,
}

#[derive(Shared, Debug, PartialEq)]
enum Refusal {
    TooMany(u64),
    Closed { why: String },
}

/// They may go to other threads, whatever their functions return.
const _: () = {
    const fn send_and_sync<T: Send + Sync + 'static>() {}
    send_and_sync::<Process<String>>();
    send_and_sync::<Process<Result<List<Order>, Refusal>>>();
    send_and_sync::<ChildProcess>();
    send_and_sync::<commonhold::ProcessBuilder>();
    send_and_sync::<commonhold::ParentProcess>();
};

// ---- What runs ----

fn nothing() {}

fn largest<T: Shared + Ord>(items: Vec<T>) -> Option<T> {
    items.into_iter().max()
}

fn of_array<const N: usize>(scale: u64) -> u64 {
    N as u64 * scale
}

mod inner {
    pub(super) fn same_name(n: u8) -> String {
        format!("inner {n}")
    }
}

fn same_name(n: u8) -> String {
    format!("outer {n}")
}

#[test]
fn functions_and_closures_of_every_kind_run() {
    Process::spawn(nothing, ()).unwrap().join().unwrap();
    assert_eq!(Process::spawn(largest::<String>, vec!["a".to_string(), "c".into(), "b".into()]).unwrap().join().unwrap().unwrap(), "c");
    assert_eq!(Process::spawn(largest::<u8>, Vec::<u8>::new()).unwrap().join().unwrap(), None);
    assert_eq!(Process::spawn(of_array::<7>, 3).unwrap().join().unwrap(), 21);
    assert_eq!(Process::spawn(inner::same_name, 1).unwrap().join().unwrap(), "inner 1");
    assert_eq!(Process::spawn(same_name, 2).unwrap().join().unwrap(), "outer 2");
    assert_eq!(Process::spawn(|x: i64| x * x, 5).unwrap().join().unwrap(), 25);
    fn apply<F: Fn(u32) -> u32 + Copy + Send + 'static>(function: F) -> u32 {
        Process::spawn(function, 20).unwrap().join().unwrap()
    }
    assert_eq!((apply(|n| n + 1), apply(|n| n + 2), apply(u32::count_ones)), (21, 22, 2));
}

#[test]
fn up_to_eight_arguments_travel_as_a_tuple_and_one_as_itself() {
    #[allow(clippy::too_many_arguments)]
    fn eight(a: u8, b: u16, c: u32, d: u64, e: String, f: Option<f32>, g: [i8; 3], h: (bool, char)) -> String {
        format!("{a} {b} {c} {d} {e} {f:?} {g:?} {h:?}")
    }
    let child = Process::spawn(eight, (1, 2, 3, 4, "five".to_string(), Some(6.5), [7, 8, 9], (true, 'x'))).unwrap();
    assert_eq!(child.join().unwrap(), "1 2 3 4 five Some(6.5) [7, 8, 9] (true, 'x')");
    assert_eq!(Process::spawn(|pair: (u8, u8)| pair.0 + pair.1, ((1, 2),)).unwrap().join().unwrap(), 3);
    assert_eq!(Process::spawn(|(): ()| 1, ((),)).unwrap().join().unwrap(), 1);
}

#[test]
fn types_of_ones_own_travel_both_ways() {
    let order = Order {
        what: "nails".into(),
        parts: vec![(3, 0.5), (4, 0.25)],
        note: Some(Box::new(Order { what: "soon".into(), parts: vec![], note: None })),
    };
    let child = Process::spawn(|order: Order, times: u32| vec![order; times as usize], (order.clone(), 3)).unwrap();
    assert_eq!(child.join().unwrap(), vec![order; 3]);
}

#[test]
fn a_result_may_be_a_result() {
    fn deliver(count: u64) -> Result<String, Refusal> {
        match count {
            0 => Err(Refusal::Closed { why: "holiday".into() }),
            n if n > 9 => Err(Refusal::TooMany(n)),
            n => Ok(format!("{n} boxes")),
        }
    }
    let outcome = |count: u64| Process::spawn(deliver, count).unwrap().join().unwrap();
    assert_eq!(outcome(3), Ok("3 boxes".to_string()));
    assert_eq!(outcome(30), Err(Refusal::TooMany(30)));
    assert_eq!(outcome(0), Err(Refusal::Closed { why: "holiday".into() }));
}

#[test]
fn our_own_error_is_a_result_too() {
    fn fails() -> commonhold::Result<u64> {
        std::fs::read("/does/not/exist").map_err(|error| Error::caused(ErrorKind::NotFound, "no input", error))?;
        Ok(1)
    }
    let child = Process::spawn(fails, ()).unwrap();
    let error = child.join().unwrap().unwrap_err();
    assert!(error.is_not_found() && format!("{error:?}").contains("caused by: No such file"), "{error:?}");
    assert_eq!(child.exit_code(), Some(0), "the function has returned");
}

#[test]
fn errors_arrive_where_there_are_no_descriptors_left() {
    let crowded = || -> (String, String) {
        let (reader, writer) = std::io::pipe().unwrap();
        let returns = || -> Result<(), String> {
            std::io::read_to_string(std::io::stdin()).unwrap();
            Err("in vain".into())
        };
        let returns = Process::builder().stdin(reader).spawn(returns, ()).unwrap();
        let fails = Process::builder().current_dir("/does/not/exist").spawn(nothing, ()).unwrap();
        let mut files = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            files.push(file);
        }
        drop(writer);
        // In place of the one that was just closed.
        files.extend(std::fs::File::open("/dev/null").ok());
        (returns.join().unwrap().unwrap_err(), fails.join().unwrap_err().to_string())
    };
    let (returned, failed) = Process::builder().limit(ResourceLimit::OpenFiles, 40).spawn(crowded, ()).unwrap().join().unwrap();
    assert!(returned == "in vain" && failed.contains("/does/not/exist"), "{returned}, {failed}");
}

#[test]
fn arguments_and_results_of_any_size() {
    for len in [0, 1, (32 << 10) - 9, (32 << 10) - 8, 32 << 10, (32 << 10) + 1, 1 << 20, 64 << 20] {
        let mut bytes = vec![0u8; len];
        (0..len).step_by(4093).for_each(|at| bytes[at] = at as u8);
        let child = Process::spawn(|bytes: Vec<u8>| [&bytes[..], b"and back"].concat(), bytes.clone()).unwrap();
        let back = child.join().unwrap();
        assert!(back.strip_suffix(b"and back") == Some(&bytes[..]), "{len}");
    }
}

#[test]
fn a_child_can_end_before_anybody_reads_its_result() {
    let child = Process::spawn(|| vec![7u8; 8 << 20], ()).unwrap();
    // Only the process's end is waited for, by the descriptor that shows it.
    commonhold_ipc::sys::wait_readable(&[child.sentinel()], Some(Instant::now() + PATIENCE)).unwrap();
    assert!(!child.is_alive());
    assert_eq!(child.join().unwrap().len(), 8 << 20);
    assert_eq!(child.join().unwrap().len(), 8 << 20, "again");
}

fn archive_of<T: Shared>(value: &T) -> Vec<u8> {
    use commonhold_ipc::value::with_scratch;
    with_scratch(|ser| ser.put::<T>(value).map(|range| ser.bytes()[range].to_vec())).unwrap()
}

/// Says what it returns by a message of its own making, with a file that it tries to write over from then on. Sealed or not; a byte shorter
/// than said or not.
fn forge(is_sealed: bool, is_short: bool) -> Vec<u8> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let is_socket =
        |fd: &i32| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|file| file.to_string_lossy().starts_with("socket:"));
    let number = (3..64).find(is_socket).unwrap();
    let own = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let channel = commonhold_ipc::socket::Channel::from_fd(pidfd_getfd(&own, number, PidfdGetfdFlags::empty()).unwrap()).unwrap();
    let (archive, head) = (archive_of(&vec![7u8; 1 << 20]), archive_of(&NO_HANDLES));
    let there = &archive[..archive.len() - usize::from(is_short)];
    let file = std::fs::File::from(commonhold_ipc::sys::memfd("forged", there.len() as u64).unwrap());
    file.write_all_at(there, 0).unwrap();
    assert!(!is_sealed || commonhold_ipc::sys::seal_content(&file));
    let mut message = vec![3, 2, 0, 0];
    message.extend_from_slice(&(head.len() as u32).to_le_bytes());
    message.extend_from_slice(&(archive.len() as u64).to_le_bytes());
    message.extend_from_slice(&head);
    channel.send_all(&message, &[file.as_fd()], Instant::now() + PATIENCE).unwrap();
    // The parent is woken by it, and looks at it meanwhile.
    let written = (0..1000).filter(|_| file.write_all_at(&[9; 4096], 1 << 19).is_ok()).count();
    std::process::exit(if written == if is_sealed { 0 } else { 1000 } { 0 } else { 1 })
}

/// The head of a result without handles: none, of no managers.
type NoHandles = (Vec<(u64, u64)>, Vec<(u64, String, Option<Vec<u8>>)>);
const NO_HANDLES: NoHandles = (Vec::new(), Vec::new());

#[test]
fn a_child_that_forges_its_result_harms_nobody() {
    for (is_sealed, is_short) in [(true, false), (false, false), (true, true), (false, true)] {
        let child = Process::spawn(forge, (is_sealed, is_short)).unwrap();
        let result = child.join();
        // A message that cannot be read is an error before the child has ended.
        commonhold_ipc::sys::wait_readable(&[child.sentinel()], Some(Instant::now() + PATIENCE)).unwrap();
        if is_short {
            let error = result.unwrap_err();
            assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("cannot be read"), "{error}");
            continue;
        }
        // As it was when it came: sealed, or copied at some moment of the writing.
        let bytes = result.unwrap();
        assert_eq!(child.exit_code(), Some(0), "how often it could write: {is_sealed}");
        assert!(bytes.len() == 1 << 20 && bytes.iter().all(|byte| *byte == 7 || !is_sealed && *byte == 9));
        assert!(child.join().unwrap() == bytes, "again");
    }
}

// ---- Handles ----

fn managers() -> [Manager; 4] {
    let builder = || Manager::builder().capacity(64 << 20);
    [
        builder().start().unwrap(),
        builder().in_process().start().unwrap(),
        builder().authkey(*b"a key of the test's").start().unwrap(),
        builder().authkey(*b"another of its keys").in_process().start().unwrap(),
    ]
}

#[test]
fn handles_work_in_children() {
    fn work(numbers: List<u64>, totals: Dict<String, u64>) -> commonhold::Result<u64> {
        for number in numbers.iter()? {
            totals.add("sum", *number)?;
        }
        totals.insert("seen", numbers.len()? as u64)?;
        Ok(*totals.get("sum")?.unwrap())
    }
    for manager in managers() {
        let (numbers, totals) = (manager.list(0..10u64).unwrap(), manager.dict::<String, u64>([]).unwrap());
        let children: Vec<_> = (0..2).map(|_| Process::spawn(work, (numbers.clone(), totals.clone())).unwrap()).collect();
        children.iter().for_each(|child| assert!(child.join().unwrap().unwrap() >= 45));
        assert_eq!((*totals.get("sum").unwrap().unwrap(), *totals.get("seen").unwrap().unwrap()), (90, 10));
    }
}

#[test]
fn handles_of_several_managers_and_inside_of_values() {
    let [first, second, ..] = managers();
    let inner = second.list([1u64, 2]).unwrap();
    let shelf: Dict<String, List<u64>> = first.dict([]).unwrap();
    let own = first.list([3u64]).unwrap();
    shelf.insert("own", &own).unwrap();
    let child = Process::spawn(
        |shelf: Dict<String, List<u64>>, others: BTreeMap<String, List<u64>>| -> commonhold::Result<u64> {
            let own = shelf.get("own")?.unwrap().to_owned();
            Ok(own.iter()?.sum::<u64>() + others["inner"].iter()?.sum::<u64>())
        },
        (shelf, [("inner".to_string(), inner)].into()),
    );
    assert_eq!(child.unwrap().join().unwrap().unwrap(), 6);
}

#[test]
fn an_object_lives_until_the_child_has_it() {
    for manager in managers() {
        let list = manager.list(0..1000u64).unwrap();
        // The child is kept from reading its arguments until the parent's handle is long gone.
        let (reader, writer) = std::io::pipe().unwrap();
        let child = Process::builder().env("COMMONHOLD_TEST_LATE", "1").stdin(reader).spawn(
            |list: List<u64>| -> commonhold::Result<u64> {
                let mut word = String::new();
                std::io::stdin().read_to_string(&mut word)?;
                Ok(list.iter()?.sum())
            },
            list,
        );
        let child = child.unwrap();
        let deadline = Instant::now() + PATIENCE;
        while manager.stats().unwrap().sessions < 2 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        // Looks at the child's messages, and lets go of what was held for it.
        let _ = active_children();
        assert_eq!(manager.stats().unwrap().objects, 1);
        (&writer).write_all(b"go on").unwrap();
        drop(writer);
        assert_eq!(child.join().unwrap().unwrap(), 499_500);
        until("the list is gone", || manager.stats().unwrap().objects == 0);
        manager.audit().unwrap();
    }
}

#[test]
fn what_was_held_for_a_child_that_never_took_it_is_let_go() {
    let manager = Manager::builder().capacity(64 << 20).start().unwrap();
    let list = manager.list([1u64]).unwrap();
    let child = Process::builder().executable("/bin/true").spawn(|list: List<u64>| list.len().map(|len| len as u64), list).unwrap();
    assert_eq!(child.join().unwrap_err().kind(), ErrorKind::NotInitialised);
    until("the list is gone", || manager.stats().unwrap().objects == 0);
}

type Made = (List<u64>, Vec<Dict<String, u64>>);

fn a_list_and_the_seed(seed: Dict<String, u64>) -> commonhold::Result<Made> {
    Ok((seed.session()?.list([1, 2, 3])?, vec![seed]))
}

#[test]
fn handles_come_back_in_results() {
    for manager in managers() {
        let made: Dict<String, u64> = manager.dict([]).unwrap();
        let child = Process::spawn(a_list_and_the_seed, made.clone()).unwrap();
        let (list, dicts) = child.join().unwrap().unwrap();
        assert_eq!(list.to_owned().unwrap(), [1, 2, 3]);
        assert!(dicts[0] == made);
        assert_eq!(child.exit_code(), Some(0));
        drop((child, list));
        until("the list is gone", || {
            let _ = active_children();
            manager.stats().unwrap().objects == 1
        });
    }
}

#[test]
fn a_child_whose_handles_nobody_takes_ends_nevertheless() {
    let manager = Manager::builder().capacity(64 << 20).start().unwrap();
    let seed = manager.list([1u64]).unwrap();
    let child = Process::spawn(|list: List<u64>| list, seed).unwrap();
    let watched = (*child).clone();
    drop(child);
    commonhold_ipc::sys::wait_readable(&[watched.sentinel()], Some(Instant::now() + PATIENCE)).unwrap();
    assert!(!watched.is_alive());
}

#[test]
fn a_handle_of_a_manager_that_is_gone_cannot_be_passed_on() {
    let manager = Manager::builder().capacity(64 << 20).start().unwrap();
    let list = manager.list([1u64]).unwrap();
    manager.shutdown().unwrap();
    assert!(Process::spawn(|list: List<u64>| list.is_empty().is_ok(), list).unwrap_err().is_disconnected());
}

// ---- Who is who ----

#[test]
fn names_and_parents() {
    fn describe() -> (String, u32, String, u32, bool) {
        let parent = parent_process().unwrap();
        (current_process().name().into(), current_process().pid(), parent.name().into(), parent.pid(), parent.is_alive())
    }
    let child = Process::spawn(describe, ()).unwrap();
    let name = child.name().to_owned();
    assert!(name.strip_prefix("Process-").is_some_and(|number| number.parse::<u64>().is_ok()), "{name}");
    assert_eq!(child.join().unwrap(), (name.clone(), child.pid(), "MainProcess".into(), std::process::id(), true));
    assert_ne!(Process::spawn(nothing, ()).unwrap().name(), name);

    let grandchild = Process::spawn(|| Process::spawn(describe, ()).unwrap().join().unwrap(), ()).unwrap();
    let (grandchild_name, _, parent_name, parent_pid, _) = grandchild.join().unwrap();
    assert_eq!((parent_name.as_str(), parent_pid), (grandchild.name(), grandchild.pid()));
    assert_eq!(grandchild_name, format!("{parent_name}:1"));

    let named = Process::builder().name("weaver").spawn(describe, ()).unwrap();
    assert_eq!((named.name(), named.join().unwrap().0.as_str()), ("weaver", "weaver"));
    assert!(parent_process().is_none());
    assert_eq!((current_process().name(), current_process().pid()), ("MainProcess", std::process::id()));
}

#[test]
fn active_children_are_those_that_have_not_ended() {
    let (ended, runs) = (Process::spawn(nothing, ()).unwrap(), Idle::spawn());
    ended.join().unwrap();
    let active: Vec<ChildProcess> = active_children();
    assert!(active.contains(&runs.0) && !active.contains(&ended));
    runs.0.kill().unwrap();
    runs.0.wait(None).unwrap();
    assert!(!active_children().contains(&runs.0));
}

#[test]
fn a_child_sees_no_children_of_its_parent() {
    let idle = Idle::spawn();
    assert_eq!(Process::spawn(|| active_children().len() as u64, ()).unwrap().join().unwrap(), 0);
    assert!(idle.0.is_alive());
}

// ---- How they end ----

#[test]
fn a_panic_arrives_with_message_place_and_backtrace() {
    fn fails(n: u64) -> u64 {
        assert!(n < 3, "n is {n}");
        n
    }
    let (mut reader, writer) = std::io::pipe().unwrap();
    let child = Process::builder().name("Ada").stderr(writer).spawn(fails, 5).unwrap();
    let error = child.join().unwrap_err();
    assert!(error.is_panic() && error.kind() == ErrorKind::Panicked);
    let text = error.to_string();
    assert!(text.contains("n is 5") && text.contains("tests/process.rs:") && text.contains("fails") && text.contains("Ada"), "{text}");
    let backtrace = std::error::Error::source(&error).unwrap().to_string();
    assert!(backtrace.starts_with("its backtrace:\n"), "{backtrace}");
    assert!(backtrace.contains("process::a_panic_arrives_with_message_place_and_backtrace::fails"), "{backtrace}");
    assert_eq!(child.exit_code(), Some(101));
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert!(said.contains(&format!("Ada (pid {}) panicked at tests/process.rs:", child.pid())) && said.contains("n is 5"), "{said}");
}

#[test]
fn a_backtrace_comes_unless_the_environment_says_that_there_shall_be_none() {
    fn fails() {
        panic!("here");
    }
    for (own, library, comes) in [
        (None, None, true),
        (Some("1"), None, true),
        (Some("full"), Some("1"), true),
        (Some("0"), None, false),
        (Some("0"), Some("1"), true),
        (None, Some("0"), false),
        (Some("1"), Some("0"), false),
    ] {
        let mut builder = Process::builder().stderr(Stream::Null).env_remove("RUST_BACKTRACE").env_remove("RUST_LIB_BACKTRACE");
        for (name, value) in [("RUST_BACKTRACE", own), ("RUST_LIB_BACKTRACE", library)] {
            builder = value.into_iter().fold(builder, |builder, value| builder.env(name, value));
        }
        let error = builder.spawn(fails, ()).unwrap().join().unwrap_err();
        assert!(error.is_panic() && error.to_string().ends_with("here"), "{error}");
        let source = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(source.is_some_and(|source| source.contains("::fails")), comes, "{own:?} {library:?}: {error:?}");
        assert_eq!(format!("{error:?}").contains("; caused by: its backtrace:"), comes, "{error:?}");
    }
}

#[test]
fn a_panic_that_says_very_much_is_cut() {
    let verbose = || -> () { panic!("{}", "\u{e4}".repeat(4 << 20)) };
    let error = Process::builder().stderr(Stream::Null).spawn(verbose, ()).unwrap().join().unwrap_err();
    let text = error.to_string();
    assert!(error.is_panic() && text.len() < 1 << 20 && text.ends_with("(8388608 bytes in all)"), "{:?} {}", error.kind(), text.len());
}

#[test]
fn panics_that_say_no_text_and_panics_of_other_threads() {
    let odd = Process::builder().stderr(Stream::Null).spawn(|| -> () { std::panic::panic_any(5u8) }, ()).unwrap();
    assert!(odd.join().unwrap_err().to_string().contains("no text"));
    // Such as the function has caught itself are its own business.
    let caught = Process::builder().stderr(Stream::Null).spawn(|| std::panic::catch_unwind(|| panic!("inner")).is_err(), ()).unwrap();
    assert!(caught.join().unwrap());
    let threads = Process::builder().stderr(Stream::Null).spawn(|| std::thread::spawn(|| panic!("a thread")).join().is_err(), ()).unwrap();
    assert!(threads.join().unwrap());
    let hooked = |what: String| -> u8 {
        std::panic::set_hook(Box::new(|_| {}));
        panic!("{what}, hooked")
    };
    let hooked = Process::spawn(hooked, "mine".to_string()).unwrap().join().unwrap_err();
    assert!(hooked.is_panic() && hooked.to_string().contains("mine, hooked"), "{hooked}");
}

/// Panics when it is dropped: in the child, for the parent gets none.
#[derive(Shared, Debug)]
struct Touchy {
    why: String,
}

impl Drop for Touchy {
    fn drop(&mut self) {
        panic!("{}", self.why);
    }
}

#[test]
fn a_panic_is_told_whatever_it_leaves_and_if_the_result_is_dropped_with_it() {
    let bomb = Process::builder().stderr(Stream::Null).spawn(|| -> () { std::panic::panic_any(Bomb) }, ()).unwrap();
    let error = bomb.join().unwrap_err();
    assert!(error.is_panic() && error.to_string().contains("no text"), "{error}");
    let dropped = Process::builder().stderr(Stream::Null).spawn(|why| Touchy { why }, "it was touched".to_string()).unwrap();
    let error = dropped.join().unwrap_err();
    assert!(error.is_panic() && error.to_string().contains("it was touched"), "{error}");
    assert_eq!(dropped.exit_code(), Some(101));
}

#[test]
fn exit_is_that_code_and_a_signal_that_signal() {
    for code in [0, 1, 3, 101, 255] {
        let child = Process::spawn(|code: i32| -> () { std::process::exit(code) }, code).unwrap();
        let error = child.join().unwrap_err();
        assert!(error.is_died() && error.to_string().contains(&format!("exit code {code} before its function returned")), "{error}");
        assert_eq!(child.exit_code(), Some(code));
    }
    fn raise(signal: i32) {
        commonhold::Process::spawn(nothing, ()).unwrap().join().unwrap();
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
        idle();
    }
    for (signal, name) in [(9, "SIGKILL"), (15, "SIGTERM"), (10, "SIGUSR1"), (11, "SIGSEGV"), (6, "SIGABRT")] {
        let child = Process::builder().limit(ResourceLimit::Core, 0).spawn(raise, signal).unwrap();
        let error = child.join().unwrap_err();
        assert!(error.is_died() && error.to_string().contains(name), "{error}");
        assert_eq!(child.exit_code(), Some(-signal));
    }
    let aborts = Process::builder().limit(ResourceLimit::Core, 0).spawn(|| -> () { std::process::abort() }, ()).unwrap();
    assert!(aborts.join().unwrap_err().to_string().contains("SIGABRT"));
}

#[test]
fn terminate_kill_and_interrupt() {
    type Way = fn(&ChildProcess) -> commonhold::Result<()>;
    // Who is started in the background of a script ignores interrupts, and so do its children: then there is nothing to see.
    let ignored = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = ignored.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let is_interruptible = u64::from_str_radix(ignored.trim(), 16).unwrap() & 0b10 == 0;
    let ways: [(Way, i32); 3] = [(ChildProcess::terminate, -15), (ChildProcess::kill, -9), (ChildProcess::interrupt, -2)];
    for (way, code) in &ways[..if is_interruptible { 3 } else { 2 }] {
        let child = Idle::spawn();
        assert!(child.0.is_alive() && child.0.exit_code().is_none());
        assert_eq!(child.0.join_timeout(Duration::ZERO).unwrap(), None);
        way(&child.0).unwrap();
        assert!(child.0.join().unwrap_err().is_died());
        assert_eq!((child.0.exit_code(), child.0.is_alive()), (Some(*code), false));
        way(&child.0).unwrap();
    }
}

#[test]
fn a_stopped_child_is_alive_and_joins_time_out() {
    let child = Process::spawn(|| 5, ()).unwrap();
    let stopped = Idle::spawn();
    let pid = rustix::process::Pid::from_raw(stopped.0.pid() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    assert_eq!(stopped.0.join_timeout(Duration::from_millis(50)).unwrap(), None);
    assert!(stopped.0.is_alive() && stopped.0.exit_code().is_none());
    assert_eq!(child.join().unwrap(), 5);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    assert!(stopped.0.is_alive());
    stopped.0.kill().unwrap();
    assert!(stopped.0.join_timeout(PATIENCE).unwrap_err().is_died());
}

#[test]
fn close_is_for_what_has_ended() {
    let child = Process::spawn(nothing, ()).unwrap();
    child.join().unwrap();
    child.close().unwrap();
    let idle = Process::builder().daemon(true).spawn(idle, ()).unwrap();
    let watched = (*idle).clone();
    assert_eq!(idle.close().unwrap_err().kind(), ErrorKind::Refused);
    assert!(watched.is_alive());
    watched.kill().unwrap();
}

#[test]
fn several_are_waited_for_at_once() {
    let (a, b) = (Idle::spawn(), Idle::spawn());
    assert_eq!(wait(&[&a.0, &b.0], Duration::ZERO).unwrap(), []);
    assert_eq!(wait(&[], None).unwrap(), []);
    let c = Process::spawn(|| 7u8, ()).unwrap();
    assert_eq!(wait(&[&a.0, &c, &b.0], None).unwrap(), [1]);
    b.0.kill().unwrap();
    until("both have ended", || wait(&[&a.0, &c, &b.0], None).unwrap() == [1, 2]);
    assert_ne!(commonhold_ipc::sys::wait_readable(&[c.as_fd()], None).unwrap(), 0);
}

#[test]
fn a_process_can_be_joined_by_several_threads() {
    let child = Process::spawn(|| "for all".to_string(), ()).unwrap();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| child.join().unwrap())).collect();
        threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), "for all"));
    });
}

/// A handle of a manager that lets nobody in but this process.
fn out_of_reach() -> List<u64> {
    Manager::builder().capacity(64 << 20).sessions_max(1).start().unwrap().list([1]).unwrap()
}

#[test]
fn a_child_whose_result_cannot_be_held_ends_all_the_same() {
    let child = Process::builder().daemon(true).spawn(out_of_reach, ()).unwrap();
    let error = child.join_timeout(PATIENCE).map(|joined| joined.map(drop)).unwrap_err();
    assert_eq!((error.kind(), child.exit_code()), (ErrorKind::Refused, Some(0)), "{error}");
}

#[test]
fn a_program_without_init_is_an_error_at_once() {
    for (program, code) in [("/bin/true", 0), ("/bin/false", 1)] {
        let child = Process::builder().executable(program).stdout(Stream::Null).spawn(nothing, ()).unwrap();
        let error = child.join().unwrap_err();
        assert_eq!((error.kind(), child.exit_code()), (ErrorKind::NotInitialised, Some(code)));
        let told = format!(
            "exit code {code} before it began: it is this program started again, whose `main` must begin with `commonhold::init()`, and \
             nothing may end it before"
        );
        assert!(error.to_string().contains(&told), "{error}");
    }
    // One that is killed before.
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    write_program(&program, "#!/bin/sh\nkill -9 $$\n");
    let child = Process::builder().executable(&program).spawn(nothing, ()).unwrap();
    let error = child.join().unwrap_err();
    assert!(error.is_died() && error.to_string().contains("SIGKILL) before it began"), "{error}");
    // One that the system's loader gives up.
    write_program(&program, "#!/bin/sh\nexit 127\n");
    let error = Process::builder().executable(&program).spawn(nothing, ()).unwrap().join().unwrap_err();
    assert!(error.is_died(), "{error}");
    let told = "ended with exit code 127: the system could not load it; is its memory limited too tightly?";
    assert!(error.to_string().ends_with(told), "{error}");
    let missing = Process::builder().executable("/does/not/exist").spawn(nothing, ()).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::System);
}

#[test]
fn a_copy_of_the_program_runs_its_functions_if_its_build_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("copy");
    let mut bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    write_program(&copy, &bytes);
    let joined = Process::builder().executable(&copy).spawn(|x: u8| x + 1, 1).unwrap().join();
    // Another build.
    let id = &commonhold_ipc::task::Build::own().id;
    if !id.is_empty() {
        let at = bytes.windows(id.len()).position(|window| window == id).unwrap();
        bytes[at] ^= 1;
    }
    write_program(&copy, bytes);
    let error = Process::builder().executable(&copy).spawn(nothing, ()).unwrap().join().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let told = "this executable is another program, or another build, than the one whose function `process::nothing` it is to run: start the very \
                same executable";
    assert!(error.to_string().ends_with(told), "{error}");
    if commonhold_ipc::task::Build::own().id.is_empty() {
        assert_eq!(joined.unwrap_err().kind(), ErrorKind::Refused);
    } else {
        assert_eq!(joined.unwrap(), 2);
    }
}

#[test]
fn another_program_of_ours_is_refused() {
    // A test of another file: it calls `init`, and has other functions.
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let others = std::fs::read_dir(deps).unwrap().filter_map(Result::ok).map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("methods-") && path.extension().is_none()
    });
    // The newest: builds of long ago lie there, too.
    let Some(other) = others.max_by_key(|path| path.metadata().and_then(|is| is.modified()).ok()) else { return };
    let error = Process::builder().executable(other).spawn(nothing, ()).unwrap().join().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("another build"), "{error}");
}

// ---- What they are given ----

#[test]
fn environment_directory_and_streams() {
    let look = |name: String| std::env::var(name).ok();
    let with = || Process::builder().env("COMMONHOLD_TEST_A", "a b=c");
    assert_eq!(with().spawn(look, "COMMONHOLD_TEST_A".to_string()).unwrap().join().unwrap().unwrap(), "a b=c");
    assert_eq!(with().env_remove("PATH").spawn(look, "PATH".to_string()).unwrap().join().unwrap(), None);
    let names = with().env_clear().env("ONLY", "1").spawn(|| std::env::vars().map(|(name, _)| name).collect::<Vec<_>>(), ());
    assert_eq!(names.unwrap().join().unwrap(), ["ONLY"]);
    for name in ["", "A=B", "A\0B"] {
        assert_eq!(Process::builder().env(name, "").spawn(nothing, ()).unwrap_err().kind(), ErrorKind::OutOfRange, "{name:?}");
    }

    let directory = || std::env::current_dir().unwrap().to_string_lossy().into_owned();
    assert_eq!(Process::builder().current_dir("/").spawn(directory, ()).unwrap().join().unwrap(), "/");
    let nowhere = Process::builder().current_dir("/does/not/exist").spawn(directory, ()).unwrap().join().unwrap_err();
    assert!(nowhere.kind() == ErrorKind::System && nowhere.to_string().contains("/does/not/exist"), "{nowhere}");

    let (input, mut to) = std::io::pipe().unwrap();
    let (mut from, output) = std::io::pipe().unwrap();
    let echo = || {
        let line = std::io::read_to_string(std::io::stdin()).unwrap();
        println!("{}", line.to_uppercase());
        eprintln!("and {line}");
    };
    let child = Process::builder().stdin(input).stdout(output.try_clone().unwrap()).stderr(output).spawn(echo, ()).unwrap();
    to.write_all(b"hello").unwrap();
    drop(to);
    let mut said = String::new();
    from.read_to_string(&mut said).unwrap();
    assert_eq!(said, "HELLO\nand hello\n");
    child.join().unwrap();
    let empty = Process::builder().stdin(Stream::Null).spawn(|| std::io::read_to_string(std::io::stdin()).unwrap(), ()).unwrap();
    assert_eq!(empty.join().unwrap(), "");
}

#[test]
fn arguments_of_the_program_are_the_childs_too() {
    let arguments: Vec<String> = std::env::args().collect();
    assert_eq!(Process::spawn(|| std::env::args().collect::<Vec<_>>(), ()).unwrap().join().unwrap(), arguments);
}

#[test]
fn output_nobody_reads_does_not_kill_a_child() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = Process::builder()
        .stdout(writer)
        .spawn(|| writeln!(std::io::stdout(), "to nobody").and_then(|()| std::io::stdout().flush()).is_err(), ());
    assert!(child.unwrap().join().unwrap(), "an error, and no SIGPIPE");
}

/// What this process may use of something; none: any amount.
fn limit_of(limit: ResourceLimit) -> Option<u64> {
    use rustix::process::{Resource, getrlimit};
    let resource = match limit {
        ResourceLimit::AddressSpace => Resource::As,
        ResourceLimit::Core => Resource::Core,
        ResourceLimit::CpuTime => Resource::Cpu,
        ResourceLimit::Data => Resource::Data,
        ResourceLimit::FileSize => Resource::Fsize,
        ResourceLimit::OpenFiles => Resource::Nofile,
        ResourceLimit::Processes => Resource::Nproc,
        ResourceLimit::Stack => Resource::Stack,
        other => panic!("{other:?} is not tested"),
    };
    getrlimit(resource).current
}

#[test]
fn limits_and_processors() {
    fn open_files() -> u64 {
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap()
    }
    assert_eq!(Process::builder().limit(ResourceLimit::OpenFiles, 50).spawn(open_files, ()).unwrap().join().unwrap(), 50);
    for limit in ResourceLimit::ALL {
        let current = |at: u64| limit_of(ResourceLimit::ALL[at as usize]);
        let at = ResourceLimit::ALL.iter().position(|other| *other == limit).unwrap() as u64;
        // Below what is usual, and enough for a child that does nothing.
        let most = limit_of(limit).unwrap_or(1 << 40).min(1 << 40).saturating_sub(1);
        assert_eq!(Process::builder().limit(limit, most).spawn(current, at).unwrap().join().unwrap(), Some(most), "{limit:?}");
    }
    let mine = rustix::thread::sched_getaffinity(None).unwrap();
    let cpu = (0..1024).find(|cpu| mine.is_set(*cpu)).unwrap() as u32;
    assert_eq!(Process::builder().cpus([cpu]).spawn(|| cpu_count() as u64, ()).unwrap().join().unwrap(), 1);
    for none in [vec![], vec![1023], vec![1 << 20]] {
        let error = Process::builder().cpus(none).spawn(nothing, ()).unwrap().join().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::System | ErrorKind::OutOfRange) && error.to_string().contains("processor"), "{error}");
    }
    let hungry = Process::builder().limit(ResourceLimit::AddressSpace, 256 << 20).limit(ResourceLimit::Core, 0).stderr(Stream::Null);
    let error = hungry.spawn(|| vec![1u8; 1 << 30].len() as u64, ()).unwrap().join().unwrap_err();
    assert!(error.is_died() && error.to_string().contains("SIGABRT"), "{error}");
}

/// What a C library or a shell leaves behind: a file that is open without close-on-exec, by a low number and by a high one.
fn accident() -> [OwnedFd; 2] {
    let low = rustix::fs::memfd_create("accident", rustix::fs::MemfdFlags::empty()).unwrap();
    let high = rustix::io::fcntl_dupfd_cloexec(&low, 500).unwrap();
    rustix::io::fcntl_setfd(&high, rustix::io::FdFlags::empty()).unwrap();
    [low, high]
}

/// What a process has open.
fn open_in(pid: u32) -> Vec<String> {
    let link = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read_link(entry.unwrap().path());
    let text = |link: std::io::Result<PathBuf>| link.map_or_else(|_| "gone".into(), |to| to.to_string_lossy().into_owned());
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| text(link(entry))).collect()
}

#[test]
fn descriptors_are_not_inherited_by_accident() {
    let _accident = accident();
    let manager = Manager::builder().capacity(64 << 20).start().unwrap();
    let _list = manager.list([1u64]).unwrap();
    let _idle = Idle::spawn();
    let child = Process::builder().stdin(Stream::Null).stdout(Stream::Null).stderr(Stream::Null);
    let open = child.spawn(|| open_in(std::process::id()), ()).unwrap().join().unwrap();
    // The standard streams; its socket, its parent's pidfd; and the directory that is read.
    assert_eq!(open.len(), 6, "{open:?}");
    for (what, count) in [("/dev/null", 3), ("socket:", 1), ("pidfd", 1), ("memfd", 0)] {
        assert_eq!(open.iter().filter(|to| to.contains(what)).count(), count, "{what}: {open:?}");
    }
}

struct Clerk;

#[commonhold::remote]
impl Clerk {
    pub fn new() -> Self {
        Clerk
    }
    pub fn pid(&self) -> u32 {
        std::process::id()
    }
}

/// Not by a child, and not by any other process that is started, some of which outlive who starts them.
#[test]
fn nobody_inherits_descriptors_by_accident() {
    fn start_everybody() -> commonhold::Result<()> {
        let _accident = accident();
        assert_eq!(open_in(std::process::id()).iter().filter(|to| to.contains("accident")).count(), 2);
        let child = Idle::spawn();
        let pool = commonhold::Pool::new(1)?;
        let own = Manager::builder().capacity(64 << 20).start()?;
        // It ends by itself if this fails.
        let named = Manager::builder().capacity(64 << 20).idle_timeout(Duration::from_secs(1)).open_or_start("named")?;
        let host_of = |manager: &Manager| manager.create(Clerk::new, ())?.pid();
        let everybody = [
            ("a child", child.0.pid()),
            ("a worker", pool.pids()[0]),
            ("a manager", support::process_of(&own).pid),
            ("its host", host_of(&own)?),
            ("a named manager", support::process_of(&named).pid),
            ("its host", host_of(&named)?),
        ];
        for (who, pid) in everybody {
            let open = open_in(pid);
            assert!(open.iter().all(|to| !to.contains("accident")), "{who} has {open:?}");
        }
        named.shutdown()
    }
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("run");
    Process::builder().env("COMMONHOLD_RUNTIME_DIR", directory).spawn(start_everybody, ()).unwrap().join().unwrap().unwrap();
}

/// As cargo-nextest runs tests, and as somebody does who wants one of them.
#[test]
fn each_test_may_have_a_process_of_its_own() {
    let names = ["names_and_parents", "functions_and_closures_of_every_kind_run", "a_handle_of_a_manager_that_is_gone_cannot_be_passed_on"];
    let run = |name| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--nocapture"]).env("NEXTEST", "1").env("NEXTEST_EXECUTION_MODE", "process-per-test");
        command.stdout(std::process::Stdio::piped()).spawn().unwrap()
    };
    for child in names.map(run) {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    }
}

/// Looks until it is so.
#[track_caller]
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::yield_now();
    }
}
