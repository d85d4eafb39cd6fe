//! Children and parents that are killed at every point of their lives.
use super::*;

pub fn work(list: List<u64>, fails: bool) -> commonhold::Result<List<u64>> {
    list.push(1)?;
    if fails { Err(commonhold::Error::other("in vain")) } else { Ok(list) }
}

pub fn children_die_everywhere() {
    let manager = Manager::builder().capacity(64 << 20).start().unwrap();
    let list = manager.list::<u64>([]).unwrap();
    for fails in [false, true] {
        die_everywhere(&manager, &list, fails);
    }
    drop(list);
    let _ = active_children();
    until("nothing is held any more", || manager.stats().unwrap().objects == 0);
}

pub fn die_everywhere(manager: &Manager, list: &List<u64>, fails: bool) {
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
pub fn dies_on_the_way() {
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
pub fn run_to_the_last(program: &mut Command, alone: bool) -> Vec<String> {
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

pub fn parents_die_everywhere() {
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
