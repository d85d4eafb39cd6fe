//! Many children at once, and more than there may be.
use super::*;

pub fn processors_of_a_group() {
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

pub fn many_at_once() {
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
pub fn storm(most: u64) -> (u64, Option<commonhold::Error>) {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    // This process's leash, which the first daemon would have it make, stays. Else the first child leaves nothing open that the others do not.
    drop(commonhold_ipc::leash::new_end().unwrap());
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
pub fn storm_of_processes(most: u64) {
    ResourceLimit::Processes.set(most).unwrap();
    let (count, refused) = storm(1000);
    let refused = refused.unwrap();
    assert!(count < 1000 && refused.kind() == ErrorKind::System && refused.to_string().contains("ulimit -u"), "{count}: {refused}");
    assert_eq!(Process::spawn(|| 5, ()).unwrap().join().unwrap(), 5, "later it goes on");
}

/// Threads of this user, which are what the limit on processes counts.
pub fn threads_of_mine() -> u64 {
    use std::os::unix::fs::MetadataExt;
    let own = rustix::process::geteuid().as_raw();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).map(|entry| entry.path().join("task"));
    // (Some end meanwhile.)
    let mine = processes.filter(|tasks| tasks.metadata().is_ok_and(|is| is.uid() == own));
    mine.map(|tasks| std::fs::read_dir(tasks).map_or(0, Iterator::count) as u64).sum()
}

pub fn storms_at_the_limit_of_processes() {
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

pub fn storms_end_in_errors() {
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

pub const GROUP_MIB: u64 = 96;

/// Takes so much memory. Whoever takes much is the first to be killed for want of it.
pub fn eat(mib: u64) -> u64 {
    if mib > 4 {
        std::fs::write("/proc/self/oom_score_adj", "1000").unwrap();
    }
    let bytes = vec![1u8; (mib as usize) << 20];
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

/// Role: in a group that has no room for what its children take.
pub fn storm_in_little_memory() {
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

pub fn storms_in_a_memory_group() {
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

pub fn whole_lines() {
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
