//! Limits of the system and of the manager: what does not fit is an error, and what fits goes on.
mod support;

use commonhold::{Dict, ErrorKind, Manager, Process, ResourceLimit};
use commonhold_ipc::limits::LANE_ROOM_BYTES;
use commonhold_ipc::socket::Channel;
use commonhold_ipc::sys::LARGE_PAGE_BYTES;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::*;

commonhold::init_in_tests!();

/// Inserts until the manager is full; returns how many values it took.
fn fill(dict: &Dict<u64, Vec<u8>>, bytes: usize) -> u64 {
    for key in 0.. {
        if let Err(error) = dict.insert(key, vec![key as u8; bytes]) {
            assert_eq!(error.kind(), ErrorKind::Full, "{error:?}");
            return key;
        }
    }
    unreachable!()
}

#[test]
fn a_full_budget_is_an_error_and_what_is_removed_makes_room() {
    for bytes in [100, 5_000, 100_000] {
        let manager = Manager::builder().capacity(16 << 20).start().unwrap();
        let dict: Dict<u64, Vec<u8>> = manager.dict([(0, vec![])]).unwrap();
        let list = manager.list([0u64; 10]).unwrap();
        let base = manager.stats().unwrap();
        let taken = fill(&dict, bytes);
        manager.audit().unwrap();
        assert!(taken * bytes as u64 > 4 << 20, "{taken} values of {bytes} bytes");
        let full = manager.stats().unwrap();
        assert!(full.backed_bytes <= full.budget_bytes, "{full:?}");
        // A batch is refused as a whole.
        let error =
            manager.batch(|batch| (0..200u64).try_for_each(|key| batch.insert(&dict, 1_000_000 + key, vec![0; 60_000]))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        assert_eq!(dict.len().unwrap() as u64, taken);
        assert!((0..taken).all(|key| dict.get(key).unwrap().unwrap().len() == bytes));
        for key in 0..taken / 2 {
            assert!(dict.remove(key).unwrap().is_some());
        }
        assert!(fill(&dict, bytes) > 0);
        dict.clear().unwrap();
        until("what was removed is free", || manager.stats().unwrap().live_bytes <= base.live_bytes + 1024);
        assert_eq!(list.len().unwrap(), 10);
        manager.audit().unwrap();
    }
}

/// Holds a snapshot.
#[test]
fn role_holder() {
    let Some(mut parent) = Parent::of("role_holder") else { return };
    let dict: Dict<u64, Vec<u8>> = parent.hear_handle();
    let manager = Manager::connect(&dict.token().unwrap().address().to_string()).unwrap();
    let _snapshot = manager.snapshot().unwrap();
    parent.say("ready");
    parent.wait_for_end();
}

#[test]
fn a_budget_that_a_reader_fills_is_an_error_that_names_it() {
    let manager = Manager::builder().capacity(16 << 20).start().unwrap();
    let dict: Dict<u64, Vec<u8>> = manager.dict((0..100u64).map(|key| (key, vec![0u8; 100_000]))).unwrap();
    let mut holder = Role::start("role_holder");
    holder.say(dict.token().unwrap());
    holder.expect("ready");
    let error = (0..100u64).find_map(|key| dict.insert(key, vec![1u8; 100_000]).err()).expect("two versions do not fit");
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(error.to_string().contains(" bytes are held by readers of older versions, the oldest (version "), "{error}");
    assert!(error.to_string().contains(&format!("(pid {})", holder.pid())), "{error}");
    holder.kill();
    until("there is room again", || dict.insert(99, vec![1u8; 100_000]).is_ok());
    manager.audit().unwrap();
}

/// Connects to a manager whose arena does not fit in its address space, and goes on.
#[test]
fn role_cramped() {
    let Some(mut parent) = Parent::of("role_cramped") else { return };
    let address = parent.hear();
    limit(Resource::As, address_space() + (16 << 20));
    for _ in 0..20 {
        assert_eq!(Manager::connect(&address).unwrap_err().kind(), ErrorKind::System);
    }
    parent.say("tried");
    parent.wait_for_end();
}

#[test]
fn a_client_that_cannot_map_the_arena_leaves_nothing_in_the_manager() {
    let manager = Manager::start().unwrap();
    let process = process_of(&manager);
    until("the look at the process is over", || manager.stats().unwrap().sessions == 1);
    let before = descriptors_of(process.pid);
    let mut cramped = Role::start("role_cramped");
    cramped.say(manager.address());
    cramped.expect("tried");
    // It lives on.
    until("its sessions are over", || manager.stats().unwrap().sessions == 1 && descriptors_of(process.pid) == before);
    manager.audit().unwrap();
}

/// Bytes of address space that this process uses.
fn address_space() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
}

fn limit(resource: Resource, most: u64) {
    setrlimit(resource, Rlimit { current: Some(most), maximum: getrlimit(resource).maximum }).unwrap();
}

/// Starts and uses managers in little address space. Says how many attempts went well.
#[test]
fn role_narrow() {
    let Some(mut parent) = Parent::of("role_narrow") else { return };
    let used = address_space();
    for mib in [4096u64, 1024, 512, 256, 128, 96, 64, 48, 32, 24, 16, 12, 8, 4] {
        limit(Resource::As, used + (mib << 20));
        for capacity in [None, Some(64 << 20), Some(8 << 20)] {
            let mut builder = Manager::builder();
            if let Some(capacity) = capacity {
                builder = builder.capacity(capacity);
            }
            let outcome = builder.start().and_then(|manager| {
                let dict: Dict<u64, Vec<u8>> = manager.dict([(1, vec![1; 100])])?;
                for key in 0..20 {
                    match dict.insert(key, vec![1; 100_000]) {
                        Err(error) if error.kind() != ErrorKind::Full => return Err(error),
                        _ => {}
                    }
                }
                manager.audit()
            });
            parent.say(match outcome {
                Ok(()) => format!("ok {mib} {capacity:?}"),
                Err(error) => format!("error {mib} {capacity:?}: {error:?}"),
            });
        }
    }
    parent.say("end");
}

#[test]
fn little_address_space_is_an_error() {
    let mut narrow = Role::start("role_narrow");
    let (mut well, mut failed) = (0, 0);
    loop {
        let line = narrow.hear().expect("the program itself does not crash");
        println!("{line}");
        match line.split(' ').next().unwrap() {
            "ok" => well += 1,
            "error" => failed += 1,
            _ => break,
        }
    }
    assert!(well > 0 && failed > 0, "{well} {failed}");
}

/// Starts managers, and connects to one, with so few descriptors.
#[test]
fn role_without_descriptors() {
    let Some(mut parent) = Parent::of("role_without_descriptors") else { return };
    let address = parent.hear();
    let own = || std::fs::read_dir("/proc/self/fd").unwrap().count() as u64 - 1;
    let used = own();
    let (mut connected, mut started) = (0, 0);
    for more in 0..24 {
        limit(Resource::Nofile, used + more);
        let outcome = Manager::connect(&address).and_then(|manager| manager.list([1u64]).map(|list| list.len()));
        match outcome {
            Ok(len) => connected += len.unwrap(),
            Err(error) => assert_eq!(error.kind(), ErrorKind::System, "{error:?}"),
        }
        match Manager::start().and_then(|manager| manager.list([1u64]).map(|list| list.len())) {
            Ok(len) => started += len.unwrap(),
            Err(error) => assert_eq!(error.kind(), ErrorKind::System, "{error:?}"),
        }
        limit(Resource::Nofile, used + 100);
        assert_eq!(own(), used, "descriptors leak with {more} allowed");
    }
    parent.say(format!("{} {}", connected > 0, started > 0));
}

#[test]
fn too_few_descriptors_are_an_error() {
    let manager = Manager::start().unwrap();
    let mut role = Role::start("role_without_descriptors");
    role.say(manager.address());
    role.expect("true true");
    role.end();
    until("all sessions have ended", || manager.stats().unwrap().sessions == 1);
    manager.audit().unwrap();
}

/// Starts a manager that may have 40 descriptors.
#[test]
fn role_frugal() {
    let Some(mut parent) = Parent::of("role_frugal") else { return };
    setrlimit(Resource::Nofile, Rlimit { current: Some(40), maximum: Some(40) }).unwrap();
    let manager = Manager::start().unwrap();
    let dict: Dict<u64, Vec<u8>> = manager.dict([(1, vec![1])]).unwrap();
    parent.say(dict.token().unwrap());
    parent.wait_for_end();
}

/// How long to wait for a session with a manager that has no room for it.
const SHORTLY: Duration = Duration::from_millis(300);

#[test]
fn a_manager_without_descriptors_serves_those_it_has() {
    let mut frugal = Role::start("role_frugal");
    let token: commonhold::Token = frugal.hear().unwrap().parse().unwrap();
    let dict: Dict<u64, Vec<u8>> = token.open().unwrap();
    let manager = Manager::connect(&token.address().to_string()).unwrap();
    let mut sessions = Vec::new();
    let error = loop {
        match RawSession::connect(&manager, SHORTLY) {
            Ok(channel) => sessions.push(channel),
            Err(error) => break error,
        }
        assert!(sessions.len() < 40);
    };
    println!("after {} sessions: {error:?}", sessions.len());
    assert!(sessions.len() > 5);
    for key in 0..100 {
        dict.insert(key, vec![0; 100]).unwrap();
    }
    let process = process_of(&manager);
    let ticks = || std::fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap();
    let cpu = |stat: String| stat.rsplit_once(')').unwrap().1.split(' ').skip(12).take(2).map(|t| t.parse::<u64>().unwrap()).sum::<u64>();
    let before = cpu(ticks());
    // Somebody waits in the queue: the manager must not run in circles over that.
    let waiting = Channel::connect(manager.address(), Instant::now() + PATIENCE).unwrap();
    let _ = commonhold_ipc::sys::wait_readable(&[std::os::fd::AsFd::as_fd(&waiting)], Some(Instant::now() + Duration::from_secs(1)));
    let spent = cpu(ticks()) - before;
    println!("{spent} ticks of 10 ms in a second");
    drop((sessions, waiting));
    until("there is room for new sessions", || RawSession::connect(&manager, SHORTLY).is_ok());
    manager.audit().unwrap();
    assert!(spent < 50, "the manager runs in circles while a connection waits: {spent} of 100 ticks");
}

/// Fills a manager with the capacity that it finds right.
#[test]
fn role_confined() {
    let Some(mut parent) = Parent::of("role_confined") else { return };
    let capacity: u64 = parent.hear().parse().unwrap();
    let builder = Manager::builder();
    let manager = if capacity == 0 { builder.start() } else { builder.capacity(capacity).start() }.unwrap();
    let dict: Dict<u64, Vec<u8>> = manager.dict([(1, vec![1])]).unwrap();
    parent.say(manager.stats().unwrap().budget_bytes);
    let taken = fill(&dict, 100_000);
    manager.audit().unwrap();
    parent.say(format!("full after {taken}"));
}

#[test]
fn a_memory_cgroup_is_respected() {
    const BYTES: u64 = 96 << 20;
    let group = match ControlGroup::of_memory(BYTES) {
        Ok(group) => group,
        Err(why) => return println!("skipped: {why}"),
    };
    let mut confined = Role::start_with("role_confined", |command| {
        command.stderr(std::process::Stdio::inherit());
    });
    group.take(confined.pid());
    confined.say(0);
    let budget: u64 = confined.hear().unwrap().parse().unwrap();
    assert!(budget <= BYTES / 2, "{budget}");
    println!("{}", confined.hear().expect("the manager was full, and nobody was killed"));
    assert!(confined.end().success());
}

/// Starts a manager where no file, and so no arena either, may be long.
#[test]
fn role_without_files() {
    let Some(mut parent) = Parent::of("role_without_files") else { return };
    let most = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: Some(1 << 20), maximum: most }).unwrap();
    let error = Manager::start().unwrap_err();
    parent.say(error.kind() == ErrorKind::System);
    parent.say(error);
    let error = Manager::open_or_start("name").unwrap_err();
    parent.say(error.kind() == ErrorKind::System);
    parent.say(error);
}

#[test]
fn a_manager_that_cannot_begin_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let mut role = Role::start_with("role_without_files", |command| {
        command.env("COMMONHOLD_RUNTIME_DIR", directory.path().join("run"));
    });
    for _ in 0..2 {
        let (right, error) = (role.hear().unwrap(), role.hear().unwrap());
        println!("{error}");
        assert!(right == "true" && error.contains("memory"), "{error}");
    }
    assert_eq!(files_in(&directory.path().join("run")), [] as [PathBuf; 0]);
}

/// A figure of a process's memory, in bytes.
fn memory_of(pid: u32, figure: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':')).unwrap();
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}

/// Sends a large value, and says by how many bytes the most memory that this process and the manager's have ever had has grown with it,
/// and what the manager has of its own.
#[test]
fn role_sends_a_large_value() {
    let Some(mut parent) = Parent::of("role_sends_a_large_value") else { return };
    let (lanes, bytes): (bool, usize) = (parent.hear().parse().unwrap(), parent.hear().parse().unwrap());
    let manager = Manager::builder().capacity(512 << 20).lanes(lanes).start().unwrap();
    let dict: Dict<u64, Vec<u8>> = manager.dict([(0, vec![])]).unwrap();
    let value = vec![7u8; bytes];
    let memory = || {
        let of = |pid, figure| memory_of(pid, figure);
        [of(std::process::id(), "VmHWM"), of(manager.pid(), "VmHWM"), of(manager.pid(), "RssAnon")]
    };
    let before = memory();
    dict.insert(1, &value).unwrap();
    let after = memory();
    let grown: Vec<u64> = before.iter().zip(after).map(|(before, after)| after.saturating_sub(*before)).collect();
    assert!(dict.get(1).unwrap().unwrap()[..] == value[..]);
    // Once it is read there are two of it here: that would have been seen.
    assert!(memory()[0] > before[0] + bytes as u64 / 2, "{before:?} {after:?} {:?}", memory());
    parent.say(format!("{} {} {}", grown[0], grown[1], grown[2]));
}

/// A value is written where it stays: neither who sends it nor the manager has a copy of it meanwhile.
#[test]
fn a_large_value_is_copied_nowhere_on_its_way() {
    // In parts by a lane; more than goes by lanes; by the socket altogether.
    for (lanes, bytes) in [(true, LANE_ROOM_BYTES), (true, 40 << 20), (false, 40 << 20)] {
        let mut role = Role::start("role_sends_a_large_value");
        role.say(lanes);
        role.say(bytes);
        let said = role.hear().unwrap();
        let grown: Vec<u64> = said.split(' ').map(|figure| figure.parse().unwrap()).collect();
        println!("{bytes} bytes, lanes {lanes}: {said}");
        // What is on its way, and what is needed for the first call.
        let some = bytes / 4 + (1 << 20);
        assert!(grown[0] < some, "the client: {said}");
        // The arena counts as the manager's where it has written to it, and around that to where large pages begin and end.
        let around = 2 * LARGE_PAGE_BYTES;
        assert!(some + around < bytes && (bytes / 2..bytes + some + around).contains(&grown[1]), "the manager: {said}");
        assert!(grown[2] < some, "the manager's own: {said}");
    }
}

/// Gives a large value to a child, which may have one and a half of it and gives it back; says by how many bytes the most memory that this
/// process has ever had has grown by the giving, and what it has of its own by the getting.
#[test]
fn role_has_a_large_value_back() {
    let Some(mut parent) = Parent::of("role_has_a_large_value_back") else { return };
    let bytes: usize = parent.hear().parse().unwrap();
    let value = vec![7u8; bytes];
    let memory = |figure| memory_of(std::process::id(), figure);
    let (most, own) = (memory("VmHWM"), memory("RssAnon"));
    assert!(own > bytes as u64);
    let child = Process::builder().limit(ResourceLimit::Data, 3 * bytes as u64 / 2).spawn(|value: Vec<u8>| value, value).unwrap();
    let given = memory("VmHWM").saturating_sub(most);
    let value = child.join().unwrap();
    // The one that was given is gone; the child's is kept for whoever asks again.
    let got = memory("RssAnon").saturating_sub(own);
    assert!(value.len() == bytes && value.iter().all(|byte| *byte == 7) && child.join().unwrap() == value);
    parent.say(format!("{given} {got}"));
}

/// Who is given a large value takes it apart where it is: there is no copy of its archive on either side.
#[test]
fn a_large_argument_or_result_of_a_process_is_not_copied() {
    let bytes = 48 << 20;
    let mut role = Role::start("role_has_a_large_value_back");
    role.say(bytes);
    let said = role.hear().expect("there was memory for one value in the child, and for none beside it");
    println!("{bytes} bytes: {said}");
    let grown: Vec<u64> = said.split(' ').map(|figure| figure.parse().unwrap()).collect();
    // The file that it is written into is mapped meanwhile, where that has large pages. A copy beside it would be as much again.
    assert!(grown[0] < bytes + bytes / 4 && grown[1] < bytes / 4, "{said}");
}
