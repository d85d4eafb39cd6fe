//! Nothing is left behind: descriptors, threads, mappings, memory, processes, files.
//!
//! What a process has is counted in roles, which have it to themselves.
mod support;

use commonhold::{Dict, ErrorKind, List, Manager, Snapshot, Value};
use commonhold_ipc::socket::Channel;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;
use support::*;

commonhold::init_in_tests!();

/// What this process has: descriptors, threads, children, and mappings of shared memory.
fn belongings() -> [usize; 4] {
    let pid = std::process::id();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    [
        descriptors_of(pid),
        std::fs::read_dir("/proc/self/task").unwrap().count(),
        children_of(pid).len(),
        maps.lines().filter(|line| line.contains("commonhold-")).count(),
    ]
}

/// Nobody calls the manager meanwhile: `stats` would have it look.
#[test]
fn a_manager_that_was_full_gives_back_what_a_clear_has_left() {
    let manager = Manager::builder().capacity(64 << 20).start().unwrap();
    let dict: Dict<u64, Vec<u8>> = manager.dict([(0u64, vec![])]).unwrap();
    let full = (1..).find_map(|key| dict.insert(key, vec![7; 1_000_000]).err()).unwrap();
    assert_eq!(full.kind(), ErrorKind::Full, "{full}");
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", manager.pid())).unwrap().map(|entry| entry.unwrap().path());
    let is_arena =
        |path: &std::path::PathBuf| std::fs::read_link(path).is_ok_and(|link| link.to_string_lossy().contains("commonhold-arena"));
    let arena = descriptors.into_iter().find(is_arena).unwrap();
    let bytes = || 512 * std::fs::metadata(&arena).unwrap().blocks();
    assert!(bytes() > 50 << 20);
    dict.clear().unwrap();
    until("memory is given back to the system", || bytes() < 40 << 20);
    manager.audit().unwrap();
}

/// Uses a manager in many ways, then lets everything go.
fn live(manager: Manager) {
    let dict: Dict<String, Vec<u8>> = manager.dict([("a".to_owned(), vec![1; 100]), ("b".to_owned(), vec![2; 200_000])]).unwrap();
    let list: List<Dict<String, Vec<u8>>> = manager.list([dict.clone()]).unwrap();
    let snapshot: Snapshot = manager.snapshot().unwrap();
    let threads: Vec<_> = (0..3)
        .map(|i| {
            let (dict, snapshot) = (dict.clone(), snapshot.clone());
            std::thread::spawn(move || {
                dict.insert(i.to_string(), vec![i; 100_000]).unwrap();
                assert_eq!(dict.at(&snapshot).len(), 2);
                std::mem::forget(dict.get("a").unwrap());
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let inner = list.get(0).unwrap().unwrap().to_owned();
    assert!(inner == dict);
    let again: Dict<String, Vec<u8>> = dict.token().unwrap().open().unwrap();
    drop(dict.insert("a", vec![]).unwrap());
    drop((again, inner));
    manager.audit().unwrap();
}

#[test]
fn role_starter() {
    let Some(mut parent) = Parent::of("role_starter") else { return };
    type Start = fn() -> Manager;
    let named: Start = || Manager::open_or_start("leaks").unwrap();
    let ways: [Start; 3] = [|| Manager::start().unwrap(), || Manager::in_process().unwrap(), named];
    ways.iter().for_each(|start| live(start()));
    // What a failure leaves counts as well.
    assert!(Manager::connect("nobody").is_err());
    assert!(Manager::builder().executable("/bin/true").start().is_err());
    let before = belongings();
    for _ in 0..10 {
        ways.iter().for_each(|start| live(start()));
        assert!(Manager::connect("nobody").is_err());
        assert!(Manager::builder().executable("/bin/true").start().is_err());
        // The harness's own threads come and go.
        assert_eq!(belongings(), before);
    }
    let manager = Manager::connect("leaks").unwrap();
    let process = process_of(&manager);
    manager.shutdown().unwrap();
    assert!(process.end_within(PROMPT).is_some());
    parent.say("well");
}

#[test]
fn managers_come_and_go_and_leave_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut starter = Role::start_with("role_starter", |command| {
        command.env("COMMONHOLD_RUNTIME_DIR", directory.path().join("run")).env("TMPDIR", directory.path());
    });
    starter.expect("well");
    let run = directory.path().join("run");
    assert_eq!(files_in(directory.path()), std::slice::from_ref(&run));
    assert_eq!(files_in(&run), [] as [std::path::PathBuf; 0]);
}

/// Connects, uses an object, and goes as it is told.
#[test]
fn role_visitor() {
    let Some(mut parent) = Parent::of("role_visitor") else { return };
    let dict: Dict<u64, Vec<u8>> = parent.hear_handle();
    let _guard = dict.get(0).unwrap();
    dict.insert(1, vec![1; 100_000]).unwrap();
    parent.say("ready");
    parent.hear();
}

#[test]
fn clients_come_and_go_and_leave_nothing_in_the_manager() {
    let manager = Manager::start().unwrap();
    let dict: Dict<u64, Vec<u8>> = manager.dict([(0, vec![0]), (1, vec![1; 100_000])]).unwrap();
    let process = process_of(&manager);
    let maps = || std::fs::read_to_string(format!("/proc/{}/maps", process.pid)).unwrap().matches("commonhold-session").count();
    until("the look at the process is over", || manager.stats().unwrap().sessions == 1);
    let before = (descriptors_of(process.pid), maps(), manager.stats().unwrap());
    for round in 0..6 {
        let mut visitors: Vec<Role> = (0..2).map(|_| Role::start("role_visitor")).collect();
        for visitor in &mut visitors {
            visitor.say(dict.token().unwrap());
            visitor.expect("ready");
        }
        if round % 2 == 0 {
            visitors.iter_mut().for_each(Role::kill);
        }
    }
    for _ in 0..50 {
        drop(RawSession::connect(&manager, PATIENCE).unwrap());
        // These do not say a word.
        drop(Channel::connect(manager.address(), Instant::now() + PATIENCE).unwrap());
    }
    until("the manager has what it had", || {
        let stats = manager.stats().unwrap();
        (stats.sessions, descriptors_of(process.pid), maps()) == (1, before.0, before.1)
            && (stats.blocks, stats.retired_bytes) == (before.2.blocks, 0)
    });
    manager.audit().unwrap();
}

#[test]
fn memory_is_as_it_was_once_everything_is_removed() {
    let manager = Manager::start().unwrap();
    let base = manager.stats().unwrap();
    for _ in 0..3 {
        let numbers: Dict<u64, u64> = manager.dict((0..5_000u64).map(|key| (key, key))).unwrap();
        let texts: Dict<String, String> = manager.dict((0..500).map(|key: i32| (key.to_string(), "text ".repeat(key as usize)))).unwrap();
        let list: List<u64> = manager.list(0..20_000u64).unwrap();
        let large: List<Vec<u8>> = manager.list((0..20).map(|size: usize| vec![0; size * 50_000])).unwrap();
        let value: Value<String> = manager.value("x".repeat(100_000)).unwrap();
        let nested = manager.list([list.clone(), list.clone()]).unwrap();
        let _counter = manager.counter(5).unwrap();
        manager.publish("numbers", &numbers).unwrap();
        list.reverse().unwrap();
        drop(list.slice(5..5_000).unwrap());
        value.set("y").unwrap();
        for key in 0..500 {
            texts.remove(key.to_string()).unwrap();
        }
        large.clear().unwrap();
        assert!(manager.stats().unwrap().live_bytes > base.live_bytes);
        manager.audit().unwrap();
        assert!(manager.unpublish("numbers").unwrap());
        drop((numbers, texts, list, large, value, nested));
        // An object that refers to itself.
        let circle: List<List<u64>> = manager.list([manager.list([1u64]).unwrap()]).unwrap();
        let knot: Dict<u64, List<List<u64>>> = manager.dict([(1, circle.clone())]).unwrap();
        drop((circle, knot));
    }
    until("the arena is as it was", || {
        let now = manager.stats().unwrap();
        (now.objects, now.live_bytes, now.blocks, now.retired_bytes) == (0, base.live_bytes, base.blocks, 0)
    });
    until("memory is given back to the system", || manager.stats().unwrap().backed_bytes <= base.backed_bytes + (20 << 20));
    manager.audit().unwrap();
}
