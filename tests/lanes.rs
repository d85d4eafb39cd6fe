//! Calls through shared memory: which road they take, at every size, from more threads than there are lanes, and what happens to callers
//! that wait when the manager is stopped or dies.
mod support;

use commonhold::{Batch, Dict, ErrorKind, List, Manager, Session};
use commonhold_ipc::lane::{IN_PLACE_BYTES, LANES};
use commonhold_ipc::limits::{INLINE_VALUE_BYTES_MAX, LANE_ROOM_BYTES, LANE_ROOM_KEPT_BYTES, SERIES_FAILURES_MAX};
use commonhold_ipc::socket::Channel;
use commonhold_ipc::sys;
use commonhold_ipc::wire::behind::VALUE_BYTES_MIN;
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

/// The same with several writes in one request: of values that stand behind it, and of others, with handles and without.
fn values_of_several_writes(manager: &Manager) {
    let dict: Dict<u64, Vec<u8>> = manager.dict([]).unwrap();
    let list = manager.list::<Vec<u8>>([]).unwrap();
    let referring: List<(List<u64>, Vec<u8>)> = manager.list([]).unwrap();
    let value = manager.value::<Vec<u8>>(vec![]).unwrap();
    let mark = manager.list([7u64]).unwrap();
    let (mut writer, small) = (manager.writer().unwrap(), manager.counter(i64::MAX).unwrap());
    let elements = || -> Vec<Vec<u8>> { list.iter().unwrap().map(|element| element.to_vec()).collect() };
    // An archive has 8 bytes beside those of its vector, and some more to be aligned.
    let sizes: Vec<usize> = [0, 100].into_iter().chain(VALUE_BYTES_MIN - 17..VALUE_BYTES_MIN + 2).chain([50_000, 65_000, 70_000]).collect();
    for n in 0..sizes.len() {
        let bytes =
            |at: usize| -> Vec<u8> { (0..sizes[(n * 7 + at * 5) % sizes.len()]).map(|byte| (byte % 251 + at) as u8 ^ n as u8).collect() };
        let all: Vec<Vec<u8>> = (0..9).map(bytes).collect();
        type Write<'w> = &'w dyn Fn(&Batch<'_>) -> commonhold::Result<()>;
        let writes: [Write<'_>; 4] = [
            &|batch| (0..2).try_for_each(|key| batch.insert(&dict, key, &all[key as usize])),
            &|batch| (2..4).try_for_each(|key| batch.insert(&dict, key, &all[key as usize])),
            &|batch| batch.extend(&list, &all[4..7]),
            &|batch| batch.push(&referring, (mark.clone(), all[7].clone())).and_then(|()| batch.set(&value, &all[8])),
        ];
        // Some at a time, so that they are worth it; or all.
        for some in writes.chunks(if n % 2 == 0 { 1 } else { 4 }) {
            manager.batch(|batch| some.iter().try_for_each(|write| write(batch))).unwrap();
        }
        let found: Vec<Vec<u8>> = (0..4).map(|key| dict.get(key).unwrap().unwrap().to_vec()).collect();
        assert!(found == all[..4] && elements() == all[4..7] && value.get().unwrap()[..] == all[8][..], "{n}");
        assert!(referring.pop().unwrap().unwrap().to_owned().1 == all[7]);
        // A transaction sees its own writes, and those of a refused one are not there.
        let counted = manager.transaction(|tx| {
            tx.insert(&dict, 1, &all[5])?;
            tx.insert(&dict, 2, &all[6])?;
            let [one, two] = [1, 2].map(|key| tx.get(&dict, key).map(|value| value.unwrap().len()));
            Ok((one?, two?))
        });
        assert_eq!(counted.unwrap(), (all[5].len(), all[6].len()));
        let refused = manager.batch(|batch| {
            (0..4).try_for_each(|key| batch.insert(&dict, key, &all[8]))?;
            batch.set_at(&list, 9_999, &all[8])
        });
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::OutOfRange);
        assert!(dict.get(1).unwrap().unwrap()[..] == all[5][..] && dict.get(3).unwrap().unwrap()[..] == all[3][..], "{n}");
        // Of a writer's writes each happens by itself, whatever becomes of those before it.
        list.clear().unwrap();
        let failing: Vec<u64> = (0..30)
            .filter_map(|at| {
                match at % 5 {
                    0 => writer.insert(&dict, at, &all[at as usize % 9]).map(|_| None),
                    1 => writer.set_at(&list, 9_999, &all[at as usize % 9]).map(Some),
                    2 => writer.push(&list, &all[at as usize % 9]).map(|_| None),
                    3 => writer.count(&small, 1).map(Some),
                    _ => writer.extend(&list, &all[..at as usize % 4]).map(|_| None),
                }
                .unwrap()
            })
            .collect();
        let failed: Vec<u64> = writer.failures().unwrap().into_iter().map(|(number, _)| number).collect();
        assert_eq!(failed, failing);
        let expected = (0..30).flat_map(|at: usize| match at % 5 {
            2 => &all[at % 9..at % 9 + 1],
            4 => &all[..at % 4],
            _ => &[],
        });
        assert!(elements().iter().eq(expected), "{n}");
        assert!((0..30).step_by(5).all(|at: u64| dict.get(at).unwrap().unwrap()[..] == all[at as usize % 9][..]), "{n}");
        list.clear().unwrap();
        list.extend(&all).unwrap();
        assert!(elements() == all);
        dict.clear().unwrap();
        list.clear().unwrap();
        dict.extend((0..9).map(|key| (key, &all[key as usize]))).unwrap();
        assert!((0..9).all(|key: u64| dict.get(key).unwrap().unwrap()[..] == all[key as usize][..]), "{n}");
        dict.clear().unwrap();
    }
    manager.audit().unwrap();
}

/// What has been cut off is taken apart little by little: a commit for which there is no room meanwhile is done once more after making some, with
/// its values.
#[test]
fn values_behind_a_commit_that_is_done_twice() {
    let manager = Manager::builder().capacity(16 << 20).start().unwrap();
    let (dict, many) = (manager.dict::<u64, Vec<u8>>([]).unwrap(), manager.dict::<u64, [u8; 64]>([]).unwrap());
    let list = manager.list::<Vec<u8>>([]).unwrap();
    let mut writer = manager.writer().unwrap();
    for round in 0..4u64 {
        let value = |key: u64| vec![(round * 7 + key) as u8; 60_000];
        many.extend((0..85_000).map(|key| (key, [7; 64]))).unwrap();
        many.clear().unwrap();
        if round % 2 == 0 {
            manager.batch(|batch| (0..90).try_for_each(|key| batch.insert(&dict, key, value(key)))).unwrap();
            assert!((0..90).all(|key| dict.get(key).unwrap().unwrap()[..] == value(key)[..]), "{round}");
        } else {
            // Those of a write that is tried again, behind the one of another.
            for key in 0..45 {
                writer.insert(&dict, key + 1_000, &value(key)[..33_000]).unwrap();
                writer.extend(&list, (0..2).map(|at| value(2 * key + at).split_off(20_000))).unwrap();
            }
            writer.flush().unwrap();
            assert!((0..90).all(|at| list.get(at as usize).unwrap().unwrap()[..] == value(at)[20_000..]), "{round}");
            assert!((0..45).all(|key| dict.get(key + 1_000).unwrap().unwrap()[..] == value(key)[..33_000]), "{round}");
            list.clear().unwrap();
        }
        dict.clear().unwrap();
    }
    manager.audit().unwrap();
}

/// A series is answered before its end when many of its writes have failed; what is left goes again, with its values.
#[test]
fn large_values_behind_many_writes_that_fail() {
    let manager = Manager::start().unwrap();
    let (dict, small) = (manager.dict::<u64, Vec<u8>>([]).unwrap(), manager.counter(i64::MAX).unwrap());
    let mut writer = manager.writer().unwrap();
    for round in 0..20u64 {
        let value = |key: u64| vec![(round * 3 + key) as u8; 33_000];
        let failing: Vec<u64> = (0..SERIES_FAILURES_MAX * 2).map(|_| writer.count(&small, 1).unwrap()).collect();
        (0..3).for_each(|key| assert!(writer.insert(&dict, key, value(key)).is_ok()));
        let failed: Vec<u64> = writer.failures().unwrap().into_iter().map(|(number, _)| number).collect();
        assert_eq!(failed, failing);
        assert!((0..3).all(|key| dict.get(key).unwrap().unwrap()[..] == value(key)[..]), "{round}");
    }
    manager.audit().unwrap();
}

/// Those of many writes together go by a lane, as long as the room holds them.
#[test]
fn large_values_of_a_batch_ride_its_lane() {
    let manager = Manager::start().unwrap();
    let dict: Dict<u64, Vec<u8>> = manager.dict([]).unwrap();
    let before = manager.stats().unwrap();
    manager.batch(|batch| (0..100).try_for_each(|key| batch.insert(&dict, key, vec![key as u8; 60_000]))).unwrap();
    let now = manager.stats().unwrap();
    assert_eq!((now.lane_calls - before.lane_calls, now.version - before.version), (1, 1));
    assert!((0..100).all(|key| dict.get(key).unwrap().unwrap()[..] == vec![key as u8; 60_000][..]));
}

#[test]
fn values_behind_their_requests_are_what_they_were_on_every_road() {
    let manager = Manager::start().unwrap();
    let before = lane_calls(&manager);
    values_behind(&manager);
    values_of_several_writes(&manager);
    assert!(lane_calls(&manager) > before);
    values_behind(&Manager::in_process().unwrap());
    values_of_several_writes(&Manager::in_process().unwrap());
    let mut role = Role::start("role_values_by_the_socket");
    role.say(manager.address());
    let before = lane_calls(&manager);
    role.expect("done");
    assert_eq!(lane_calls(&manager), before);
}

#[test]
fn role_values_by_the_socket() {
    let Some(mut parent) = Parent::of("role_values_by_the_socket") else { return };
    let manager = Manager::builder().lanes(false).connect(&parent.hear()).unwrap();
    values_behind(&manager);
    values_of_several_writes(&manager);
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
    let segment = lanes_of_this_process();
    let bytes = || 512 * std::fs::metadata(&segment).unwrap().blocks();
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

/// The memory of the lanes of this process, which has one session.
fn lanes_of_this_process() -> PathBuf {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().map(|file| file.unwrap().path());
    let is_lanes = |file: &PathBuf| std::fs::read_link(file).is_ok_and(|name| name.to_string_lossy().contains("commonhold-lanes"));
    let mut segments: Vec<PathBuf> = files.filter(is_lanes).collect();
    assert_eq!(segments.len(), 1, "one session");
    segments.remove(0)
}

/// Whether the room of a client's lanes comes to lie in a large page when it is used again and again.
fn room_grows_into_a_large_page(may_be_large: bool) -> bool {
    let manager = Manager::builder().large_pages(may_be_large).start().unwrap();
    let mut role = Role::start("role_that_fills_its_room");
    role.say(manager.address());
    role.hear().unwrap() == "large"
}

#[test]
fn a_room_that_is_used_again_and_again_lies_in_a_large_page() {
    assert!(!room_grows_into_a_large_page(false), "it must not");
    // One may be refused, because something in the kernel looks at a page just then. But not each time.
    let mut tries = (0..10)
        .map(|_| (sys::copies_large_pages_whole() && has_large_pages(8 * sys::LARGE_PAGE_BYTES), room_grows_into_a_large_page(true)));
    assert!(tries.any(|(has_any, grows)| grows || !has_any));
}

#[test]
fn role_that_fills_its_room() {
    let Some(mut parent) = Parent::of("role_that_fills_its_room") else { return };
    let manager = Manager::connect(&parent.hear()).unwrap();
    let dict: Dict<u64, Vec<u8>> = manager.dict([(0u64, vec![])]).unwrap();
    let memory = std::fs::File::open(lanes_of_this_process()).unwrap();
    let bytes = || 512 * memory.metadata().unwrap().blocks();
    let insert = |number: u64| {
        let value: Vec<u8> = (0..40_000 + number).map(|at| (at * (number + 1)) as u8).collect();
        dict.insert(0, &value[..]).unwrap();
        assert_eq!(*dict.get(0).unwrap().unwrap(), value, "{number}");
    };
    (0..10).for_each(insert);
    let before = bytes();
    assert!(before < 100_000, "{before} bytes for one payload at a time");
    // Three times as many bytes as it takes: if it was refused once, it is left out once.
    (10..1_400).for_each(insert);
    let after = bytes();
    // No more than that page, which stays.
    assert!(after == before || (sys::LARGE_PAGE_BYTES..before + sys::LARGE_PAGE_BYTES).contains(&after), "{after} bytes");
    parent.say(if after == before { "small" } else { "large" });
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
