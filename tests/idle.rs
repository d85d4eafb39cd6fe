//! A manager that has nothing to do uses no processor, whatever state its clients have left it in; nor does a host.
#![allow(unsafe_code)] // sets a limit of another process

use commonhold::{Manager, Snapshot};
use commonhold_ipc::socket::Channel;
use std::time::{Duration, Instant};

commonhold::init_in_tests!();

/// Processor time that processes have used, and how often their threads have slept.
fn used(pids: &[u32]) -> (u64, u64) {
    let of_thread = |thread: &std::path::Path| {
        let stat = std::fs::read_to_string(thread.join("stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let status = std::fs::read_to_string(thread.join("status")).unwrap();
        let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap(), sleeps.trim().parse::<u64>().unwrap())
    };
    let threads = pids.iter().flat_map(|pid| std::fs::read_dir(format!("/proc/{pid}/task")).unwrap());
    threads.map(|thread| of_thread(&thread.unwrap().path())).fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1))
}

/// The same, within a time from now.
fn uses_in(pids: &[u32], time: Duration) -> (u64, u64) {
    let before = used(pids);
    std::thread::sleep(time);
    let after = used(pids);
    (after.0 - before.0, after.1 - before.1)
}

struct Bell(u64);

#[commonhold::remote]
impl Bell {
    pub fn new() -> Self {
        Bell(0)
    }
    pub fn ring(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// A manager and its host, and the processes of both. The host has a line that is kept for the next call, and one for calls ahead.
fn scene() -> (Manager, BellProxy, [u32; 2]) {
    let manager = Manager::start().unwrap();
    let bell = manager.create(Bell::new, ()).unwrap();
    assert_eq!((bell.ring().unwrap(), bell.call_async().ring().unwrap().get().unwrap()), (1, 2));
    let host = manager.sessions().unwrap().into_iter().find(|session| session.is_host).unwrap().pid;
    let pids = [manager.pid(), host];
    (manager, bell, pids)
}

/// What there was is gone, but for what a pin holds.
fn come_and_gone(manager: &Manager) -> Snapshot {
    let dict = manager.dict((0..10_000u64).map(|i| (i, i.to_string()))).unwrap();
    let inner = manager.list([1u64]).unwrap();
    let outer = manager.list([inner.clone()]).unwrap();
    drop(inner);
    let snapshot = manager.snapshot().unwrap();
    dict.clear().unwrap();
    drop(outer);
    snapshot
}

#[test]
fn an_idle_manager_uses_no_processor() {
    let (manager, _bell, pids) = scene();
    drop(come_and_gone(&manager));
    std::thread::sleep(Duration::from_secs(1));
    let (ticks, sleeps) = uses_in(&pids, Duration::from_secs(3));
    assert!(ticks <= 1 && sleeps == 0, "with nothing: {ticks} ticks, {sleeps} sleeps");
}

#[test]
fn nor_does_one_that_keeps_what_a_pin_holds() {
    let (manager, _bell, pids) = scene();
    let _snapshot = come_and_gone(&manager);
    // It looks for the pin that holds all this a few times more, at longer and longer intervals, up to five seconds.
    std::thread::sleep(Duration::from_secs(7));
    let (ticks, sleeps) = uses_in(&pids, Duration::from_secs(3));
    assert!(ticks <= 1 && sleeps == 0, "with a pin: {ticks} ticks, {sleeps} sleeps");
}

#[test]
fn one_that_is_out_of_descriptors_tries_again_now_and_then() {
    unsafe extern "C" {
        fn prlimit(pid: i32, resource: i32, new: *const [u64; 2], old: *mut [u64; 2]) -> i32;
    }
    let manager = Manager::start().unwrap();
    let pid = manager.pid();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
    let mut old = [0; 2];
    // SAFETY: RLIMIT_NOFILE is 7; both structures are of two words.
    assert_eq!(unsafe { prlimit(pid as i32, 7, &[open, open], &mut old) }, 0);
    // Clients that wait in the queue.
    let deadline = || Instant::now() + Duration::from_secs(5);
    let waiting: Vec<Channel> = (0..3).map(|_| Channel::connect(manager.address(), deadline()).unwrap()).collect();
    let (ticks, _) = uses_in(&[pid], Duration::from_secs(2));
    assert!(ticks <= 20, "out of descriptors: {ticks} ticks in two seconds");
    drop(waiting);
    // SAFETY: as above.
    unsafe { prlimit(pid as i32, 7, &[old[0], open], std::ptr::null_mut()) };
}
