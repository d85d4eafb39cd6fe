//! The end of a parent: who ends with it, who goes on, what is left.
use super::*;

/// Role: starts so many daemons and another child, says their numbers, and waits for its end.
pub fn daemons(count: usize) {
    for daemon in (0..count).map(|_| true).chain([false]) {
        let child = Process::builder().daemon(daemon).stdout(Stream::Null).spawn(endure, ()).unwrap();
        println!("{}", child.pid());
    }
    endure();
}

pub fn daemons_end_with_their_parent() {
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

/// Nothing lets them go on but the kernel, at their parent's end, and nothing before.
pub fn stopped_daemons_end_with_their_parent() {
    let mut parent = role("daemons").arg("3").spawn().unwrap();
    let lines = BufReader::new(parent.stdout.take().unwrap()).lines().take(4);
    let children: Vec<Watched> = lines.map(|line| Watched::of(line.unwrap().parse().unwrap())).collect();
    let starter = Watched::of(parent.id());
    let _doomed: Vec<Doomed> = children.iter().chain([&starter]).map(Doomed).collect();
    let [daemons @ .., ended, other] = &children[..] else { panic!("there are four") };
    for daemon in daemons.iter().chain([ended]) {
        until("it watches over its parent", || thread_names(daemon.pid).iter().any(|name| name == "parent's end"));
        stop(daemon.pid);
    }
    stop(other.pid);
    // One that ends is nobody's end.
    ended.kill();
    assert!(daemons.iter().all(|daemon| state_of(daemon.pid) == Some('T')));
    signal_to(parent.id(), Signal::KILL);
    parent.wait().unwrap();
    for daemon in daemons {
        daemon.end_within(PATIENCE).expect("a daemon ends with its parent");
    }
    assert_eq!(state_of(other.pid), Some('T'), "who is no daemon stays as it is");
    other.kill();
}

fn thread_names(pid: u32) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| Some(std::fs::read_to_string(thread.path().join("comm")).ok()?.trim_end().to_owned())).collect()
}

pub fn daemons_outlive_their_thread() {
    let spawn = || Process::builder().daemon(true).spawn(endure, ()).unwrap();
    let child = std::thread::spawn(spawn).join().unwrap();
    // It has come to its function, and so has long begun to watch over its parent.
    assert_eq!(Process::spawn(|| 1, ()).unwrap().join().unwrap(), 1);
    assert_eq!(child.join_timeout(Duration::from_millis(100)).unwrap(), None);
    child.kill().unwrap();
    child.wait(None).unwrap();
}

/// Role: leaves a child behind that says what it sees of its parent.
pub fn orphan() {
    let watch = || {
        let parent = parent_process().unwrap();
        println!("{} {}", parent.pid(), parent.is_alive());
        let ended = parent.wait(None).unwrap();
        println!("{ended} {} {}", parent.is_alive(), parent.wait(Duration::ZERO).unwrap());
    };
    Process::spawn(watch, ()).unwrap();
    endure();
}

pub fn a_child_sees_its_parent_end() {
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
pub fn litter() {
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

pub fn no_file_is_left() {
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
pub fn guard() {
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

pub fn a_guard_waits() {
    let mut parent = role("guard").spawn().unwrap();
    assert!(parent.wait().unwrap().success());
    let mut said = String::new();
    parent.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "main\nchild\n");
}

/// Role: with a line before `init`.
pub fn says_before_init() {
    let child = Process::spawn(|| println!("function"), ()).unwrap();
    child.join().unwrap();
    println!("after");
}

pub fn before_init() {
    let output = role("says-before-init").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "before\nbefore\nfunction\nafter\n");
}
