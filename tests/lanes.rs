//! Calls through shared memory: which road they take, at every size, from more threads than there are lanes, and what happens to callers
//! that wait when the manager is stopped or dies.
mod support;

use commonhold::{Dict, ErrorKind, List, Manager, Session};
use commonhold_ipc::lane::{IN_PLACE_BYTES, LANES};
use commonhold_ipc::limits::{INLINE_VALUE_BYTES_MAX, LANE_ROOM_BYTES, LANE_ROOM_KEPT_BYTES};
use commonhold_ipc::socket::Channel;
use commonhold_ipc::sys;
use rustix::process::Signal;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::Instant;
use support::*;

commonhold::init_in_tests!();

fn numbers(manager: &Manager) -> Dict<u64, u64> {
    let none: [(u64, u64); 0] = [];
    manager.dict(none).unwrap()
}

fn lane_calls(manager: &Manager) -> u64 {
    manager.stats().unwrap().lane_calls
}

#[test]
fn commits_go_by_lanes_unless_they_shall_not() {
    let manager = Manager::start().unwrap();
    let dict = numbers(&manager);
    let before = lane_calls(&manager);
    for key in 0..10 {
        dict.insert(key, key).unwrap();
    }
    manager.batch(|batch| (0..5).try_for_each(|key| batch.insert(&dict, key, 1))).unwrap();
    manager.transaction(|tx| tx.insert(&dict, 1, 2)).unwrap();
    assert_eq!(lane_calls(&manager), before + 12);
    // A client that does not want them.
    let mut role = Role::start("role_without_lanes");
    role.say(manager.address());
    role.say(dict.token().unwrap());
    role.expect("done");
    assert_eq!((lane_calls(&manager), dict.len().unwrap()), (before + 12, 11));
}

#[test]
fn role_without_lanes() {
    let Some(mut parent) = Parent::of("role_without_lanes") else { return };
    let manager = Manager::builder().lanes(false).connect(&parent.hear()).unwrap();
    let dict: Dict<u64, u64> = parent.hear_handle();
    for number in 0..100 {
        dict.insert(77, number).unwrap();
    }
    assert!(manager.is_alive());
    parent.say("done");
}

#[test]
fn payloads_of_every_size_on_either_side_of_a_border() {
    let manager = Manager::builder().capacity(256 << 20).start().unwrap();
    let dict: Dict<u64, Vec<u8>> = manager.dict([(0u64, vec![])]).unwrap();
    let list: List<Vec<u8>> = manager.list([vec![0u8]]).unwrap();
    // The fifth: a part of a large value that goes by a lane; the last: the most that does.
    for border in [0, IN_PLACE_BYTES, 4096, INLINE_VALUE_BYTES_MAX, 128 << 10, 1 << 20, LANE_ROOM_BYTES as usize] {
        for bytes in border.saturating_sub(130)..border + 20 {
            if border >= INLINE_VALUE_BYTES_MAX && bytes % 13 != 0 {
                continue;
            }
            let value: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
            dict.insert(1, &value).unwrap();
            assert!(dict.get(1).unwrap().unwrap()[..] == value[..], "{bytes}");
            if bytes % 26 == 0 {
                assert!(dict.insert(1, &value[..bytes / 2]).unwrap().unwrap()[..] == value[..]);
                list.push(&value).unwrap();
                assert!(list.pop().unwrap().unwrap()[..] == value[..], "{bytes}");
            }
        }
    }
    let road = lane_calls(&manager);
    // More in one request than the room holds; and values that go by either road, in one commit.
    let large: Vec<u8> = vec![7; 60_000];
    manager.batch(|batch| (0..200).try_for_each(|key| batch.insert(&dict, key, &large))).unwrap();
    assert_eq!(lane_calls(&manager), road, "by the socket");
    let sizes = [1 << 20, LANE_ROOM_BYTES as usize + 1, 100, 100_000, 3 << 20];
    manager.batch(|batch| (0..5).try_for_each(|key| batch.insert(&dict, key, vec![key as u8; sizes[key as usize]]))).unwrap();
    for (key, size) in sizes.into_iter().enumerate() {
        let value = dict.get(key as u64).unwrap().unwrap();
        assert!(value.len() == size && value.iter().all(|byte| *byte == key as u8), "{key}");
    }
    manager.audit().unwrap();
}

/// Writes values of many sizes by every operation that brings one, with keys of many, and reads them.
fn values_behind(manager: &Manager) {
    let dict: Dict<Vec<u8>, Vec<u8>> = manager.dict([(vec![], vec![])]).unwrap();
    let (list, value, names) =
        (manager.list([vec![0u8]]).unwrap(), manager.value::<Vec<u8>>(vec![]).unwrap(), manager.namespace().unwrap());
    let referring: List<(List<u64>, Vec<u8>)> = manager.list([]).unwrap();
    let mark = manager.list([7u64]).unwrap();
    let sizes = [0, 8, 1000, 1023, 1024, 1025].into_iter().chain((1_850..2_050).step_by(11)).chain([4096, 20_000, 65_000]);
    for (n, len) in sizes.enumerate() {
        let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8 ^ n as u8).collect();
        for key_len in [0, 1, 100, 1_000, 1_900, 2_100, 5_000] {
            let key = vec![9; key_len];
            let old = dict.insert(&key, &bytes).unwrap().map(|old| old.to_vec());
            assert_eq!(old.is_some(), n > 0 || key_len == 0, "{len}, {key_len}");
            assert!(dict.get(&key).unwrap().unwrap()[..] == bytes[..], "{len}, {key_len}");
            // What is there already stays, and is lent.
            assert!(dict.get_or_insert(&key, vec![1u8; len + 1]).unwrap()[..] == bytes[..]);
        }
        list.push(&bytes).unwrap();
        list.insert(0, &bytes).unwrap();
        assert!(list.set(0, &bytes).unwrap()[..] == bytes[..]);
        assert!(list.get(0).unwrap().unwrap()[..] == bytes[..] && list.pop().unwrap().unwrap()[..] == bytes[..]);
        value.set(&bytes).unwrap();
        assert!(value.get().unwrap()[..] == bytes[..]);
        names.set::<Vec<u8>>("name", &bytes).unwrap();
        assert!(names.get::<Vec<u8>>("name").unwrap().unwrap()[..] == bytes[..]);
        referring.push((mark.clone(), bytes.clone())).unwrap();
        let last = referring.pop().unwrap().unwrap().to_owned();
        assert!(last.0.to_string() == "[7]" && last.1 == bytes);
        assert_eq!(list.set(9_999, &bytes).unwrap_err().kind(), ErrorKind::OutOfRange);
    }
    manager.audit().unwrap();
}

#[test]
fn values_behind_their_requests_are_what_they_were_on_every_road() {
    let manager = Manager::start().unwrap();
    let before = lane_calls(&manager);
    values_behind(&manager);
    assert!(lane_calls(&manager) > before);
    values_behind(&Manager::in_process().unwrap());
    let mut role = Role::start("role_values_by_the_socket");
    role.say(manager.address());
    let before = lane_calls(&manager);
    role.expect("done");
    assert_eq!(lane_calls(&manager), before);
}

#[test]
fn role_values_by_the_socket() {
    let Some(mut parent) = Parent::of("role_values_by_the_socket") else { return };
    values_behind(&Manager::builder().lanes(false).connect(&parent.hear()).unwrap());
    parent.say("done");
}

#[test]
fn more_threads_than_lanes() {
    let manager = Manager::start().unwrap();
    let dict = numbers(&manager);
    let threads = LANES as u64 + 50;
    let (first, second) = (Barrier::new(threads as usize), Barrier::new(threads as usize));
    std::thread::scope(|scope| {
        for number in 0..threads {
            let (dict, first, second) = (&dict, &first, &second);
            std::thread::Builder::new()
                .stack_size(128 << 10)
                .spawn_scoped(scope, move || {
                    dict.insert(number, 1).unwrap();
                    // All are there, each with its lane or without.
                    first.wait();
                    assert_eq!(*dict.insert(number, 2).unwrap().unwrap(), 1);
                    dict.add(u64::MAX, 1).unwrap();
                    second.wait();
                })
                .unwrap();
        }
    });
    assert_eq!(*dict.get(u64::MAX).unwrap().unwrap(), threads);
    assert_eq!(dict.len().unwrap() as u64, threads + 1);
    // Their lanes are to be had again.
    let before = lane_calls(&manager);
    std::thread::scope(|scope| {
        scope.spawn(|| dict.insert(0, 0).unwrap().is_some());
    });
    assert_eq!(lane_calls(&manager), before + 1);
    manager.audit().unwrap();
}

#[test]
fn threads_come_and_go() {
    let manager = Manager::start().unwrap();
    let dict = numbers(&manager);
    let before = lane_calls(&manager);
    let threads = 2 * LANES as u64;
    for number in 0..threads {
        let dict = dict.clone();
        std::thread::spawn(move || drop(dict.insert(number, number).unwrap())).join().unwrap();
    }
    assert_eq!(lane_calls(&manager), before + threads);
}

/// How often clients have rung, and how often callers were woken.
fn wakeups(manager: &Manager) -> [u64; 2] {
    let stats = manager.stats().unwrap();
    [stats.lane_rings, stats.lane_wakeups]
}

/// Starts a manager that is stopped, and eight callers that wait for it, asleep. Returns how many versions their calls have made, the manager,
/// and its count of wake-ups before them.
fn with_sleeping_callers(then: impl FnOnce(u32), check: impl Fn(commonhold::Result<u64>) + Sync) -> (u64, Manager, [u64; 2]) {
    let manager = Manager::start().unwrap();
    let dict = numbers(&manager);
    dict.insert(0, 0).unwrap();
    let woken = wakeups(&manager);
    let process = process_of(&manager);
    signal_to(process.pid, Signal::STOP);
    until("the manager stands still", || state_of(process.pid) == Some('T'));
    let before = manager.version();
    let (sender, tids) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let (sender, dict, check) = (sender.clone(), &dict, &check);
            scope.spawn(move || {
                sender.send(sys::thread_id() as i32).unwrap();
                check(dict.add(0, 1));
            });
        }
        for tid in tids.iter().take(8) {
            until("a caller sleeps on its lane", || sleeps_in(std::process::id(), tid) == Some(FUTEX_WAITV));
        }
        then(process.pid);
    });
    (manager.version() - before, manager, woken)
}

/// Number of the system call in which callers sleep: the same on all kinds of machine.
const FUTEX_WAITV: i64 = 449;

#[test]
fn callers_of_a_stopped_manager_sleep_until_it_goes_on() {
    let (versions, manager, before) =
        with_sleeping_callers(|pid| signal_to(pid, Signal::CONT), |sum| assert!((1..=8).contains(&sum.unwrap())));
    // All were posted while it stood still, their lanes are in one word of the doorbells: it finds all at once or none yet.
    assert_eq!(versions, 1, "requests that are found together are one commit");
    let [rings, wakeups] = wakeups(&manager);
    assert_eq!(wakeups - before[1], 8, "who sleeps is woken once");
    // As it was stopped it watched them or slept, and stood so for all of them.
    assert!([0, 8].contains(&(rings - before[0])), "{} rings", rings - before[0]);
}

#[test]
fn a_hot_loop_wakes_nobody() {
    if sys::own_cpus().len() == 1 {
        return println!("on one processor one side of a call always sleeps");
    }
    let manager = Manager::start().unwrap();
    let dict = numbers(&manager);
    // Both must have a processor all the while. The first call may find the manager asleep, and then its own caller be.
    until("twenty calls in a row that wake nobody", || {
        let before = wakeups(&manager);
        (0..20).for_each(|key| drop(dict.insert(key, key).unwrap()));
        wakeups(&manager).iter().zip(before).all(|(after, before)| after - before <= 1)
    });
}

#[test]
fn memory_of_a_session_and_of_a_lane() {
    let manager = Manager::start().unwrap();
    let mut role = Role::start("role_with_a_room");
    role.say(manager.address());
    role.expect("done");
}

#[test]
fn role_with_a_room() {
    let Some(mut parent) = Parent::of("role_with_a_room") else { return };
    let manager = Manager::connect(&parent.hear()).unwrap();
    let files = std::fs::read_dir("/proc/self/fd").unwrap().map(|file| file.unwrap().path());
    let is_lanes = |file: &PathBuf| std::fs::read_link(file).is_ok_and(|name| name.to_string_lossy().contains("commonhold-lanes"));
    let segments: Vec<PathBuf> = files.filter(is_lanes).collect();
    assert_eq!(segments.len(), 1, "one session");
    let bytes = || 512 * std::fs::metadata(&segments[0]).unwrap().blocks();
    let dict: Dict<u64, Vec<u8>> = manager.dict([(0u64, vec![])]).unwrap();
    // A page for the session, and one for each lane that has been used.
    let page = 4096;
    dict.insert(0, &[]).unwrap();
    assert_eq!(bytes(), 2 * page);
    let all = Barrier::new(8);
    std::thread::scope(|scope| {
        (0..8).for_each(|key| {
            let (dict, all) = (&dict, &all);
            scope.spawn(move || {
                dict.insert(key, &[1]).unwrap();
                all.wait();
            });
        });
    });
    let lanes = 10 * page;
    assert_eq!(bytes(), lanes);
    // A large payload, once: of the room's memory stays what always does.
    let (calls, value) = (lane_calls(&manager), vec![7; 60_000]);
    let large = || manager.batch(|batch| (0..100).try_for_each(|key| batch.insert(&dict, key, &value))).unwrap();
    large();
    assert_eq!(bytes(), lanes + LANE_ROOM_KEPT_BYTES);
    // Where that is a habit, all of it stays: not more than there is.
    (0..3).for_each(|_| large());
    assert!((lanes + 6_000_000..=lanes + LANE_ROOM_BYTES).contains(&bytes()), "{} bytes", bytes());
    // And goes with the habit.
    (0..70).for_each(|_| drop(dict.insert(1, &value[..3000]).unwrap()));
    assert_eq!(bytes(), lanes + LANE_ROOM_KEPT_BYTES);
    assert_eq!(lane_calls(&manager), calls + 74, "all by lanes");
    parent.say("done");
}

#[test]
fn callers_of_a_manager_that_is_killed_wake() {
    let (versions, ..) = with_sleeping_callers(
        |pid| signal_to(pid, Signal::KILL),
        |sum| assert!(matches!(sum.unwrap_err().kind(), ErrorKind::OutcomeUnknown | ErrorKind::Disconnected)),
    );
    assert_eq!(versions, 0);
}

#[test]
fn on_one_processor() {
    let mut role = Role::start("role_on_one_processor");
    role.expect("done");
}

#[test]
fn role_on_one_processor() {
    let Some(mut parent) = Parent::of("role_on_one_processor") else { return };
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let first = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap();
    let mut one = rustix::thread::CpuSet::new();
    one.set(first);
    rustix::thread::sched_setaffinity(None, &one).unwrap();
    // Both sides: the manager inherits it.
    let manager = Manager::start().unwrap();
    let dict = numbers(&manager);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..500).for_each(|_| assert!(dict.add(0, 1).unwrap() > 0)));
        }
    });
    assert_eq!(*dict.get(0).unwrap().unwrap(), 4_000);
    parent.say("done");
}

#[test]
fn a_thousand_sessions_leave_nothing() {
    let manager = Manager::start().unwrap();
    let dict = numbers(&manager);
    let process = process_of(&manager);
    let open = |rounds: u64| {
        for number in 0..rounds {
            let channel = Channel::connect(manager.address(), Instant::now() + PATIENCE).unwrap();
            let session = Session::greet(channel, manager.address().clone(), None).unwrap();
            let own = session.dict([(number, number)]).unwrap();
            own.insert(1, 1).unwrap();
        }
        until("sessions are gone", || manager.stats().unwrap().sessions == 1);
    };
    open(50);
    let (descriptors, memory) = (descriptors_of(process.pid), resident_kib(process.pid));
    open(950);
    assert!(dict.is_empty().unwrap());
    assert_eq!((descriptors_of(process.pid), manager.stats().unwrap().lingering), (descriptors, 0));
    let grown = resident_kib(process.pid).saturating_sub(memory);
    assert!(grown < 4096, "{grown} KiB more");
}

/// Memory of a process, in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
