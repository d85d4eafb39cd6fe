//! A manager that has nothing to do uses no processor, whatever state its clients have left it in.
#![allow(unsafe_code)] // sets a limit of another process

use commonhold::Manager;
use commonhold_ipc::socket::Channel;
use std::time::{Duration, Instant};

commonhold::init_in_tests!();

/// The manager's process: the only child of this one.
fn child() -> u32 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let children = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap()).collect::<String>();
    children.trim().parse().expect("one child")
}

/// Processor time that a process has used, and how often it has slept.
fn used(pid: u32) -> (u64, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap(), sleeps.trim().parse().unwrap())
}

/// The same, within a time from now.
fn uses_in(pid: u32, time: Duration) -> (u64, u64) {
    let before = used(pid);
    std::thread::sleep(time);
    let after = used(pid);
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn an_idle_manager_uses_no_processor() {
    let manager = Manager::start().unwrap();
    let pid = child();
    let dict = manager.dict((0..10_000u64).map(|i| (i, i.to_string()))).unwrap();
    let inner = manager.list([1u64]).unwrap();
    let outer = manager.list([inner.clone()]).unwrap();
    drop(inner);
    let snapshot = manager.snapshot().unwrap();
    dict.clear().unwrap();
    drop(outer);
    // It looks for the pin that holds all this a few times more, at longer and longer intervals, up to five seconds.
    std::thread::sleep(Duration::from_secs(7));
    let (ticks, sleeps) = uses_in(pid, Duration::from_secs(3));
    assert!(ticks <= 1 && sleeps == 0, "with a pin: {ticks} ticks, {sleeps} sleeps");
    drop(snapshot);
    drop(dict);
    std::thread::sleep(Duration::from_secs(1));
    let (ticks, sleeps) = uses_in(pid, Duration::from_secs(3));
    assert!(ticks <= 1 && sleeps == 0, "with nothing: {ticks} ticks, {sleeps} sleeps");

    // Out of descriptors, with clients that wait in the queue.
    unsafe extern "C" {
        fn prlimit(pid: i32, resource: i32, new: *const [u64; 2], old: *mut [u64; 2]) -> i32;
    }
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
    let mut old = [0; 2];
    // SAFETY: RLIMIT_NOFILE is 7; both structures are of two words.
    assert_eq!(unsafe { prlimit(pid as i32, 7, &[open, open], &mut old) }, 0);
    let deadline = || Instant::now() + Duration::from_secs(5);
    let waiting: Vec<Channel> = (0..3).map(|_| Channel::connect(manager.address(), deadline()).unwrap()).collect();
    let (ticks, _) = uses_in(pid, Duration::from_secs(2));
    assert!(ticks <= 20, "out of descriptors: {ticks} ticks in two seconds");
    drop(waiting);
    // SAFETY: as above.
    unsafe { prlimit(pid as i32, 7, &[old[0], open], std::ptr::null_mut()) };
}
