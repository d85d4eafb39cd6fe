//! A manager killed by SIGKILL wakes all who sleep on its alive word, in other processes, through read-only mappings.
//!
//! The processes are this test program itself, with a role in an environment variable and the memory file as standard input.
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use commonhold_ipc::limits::SLEEP_SLICE_MS;
use commonhold_ipc::liveness::{AliveKeeper, Slept, is_alive, sleep_until};
use commonhold_ipc::sys;
use memmap2::{MmapOptions, MmapRaw};

const ROLE: &str = "COMMONHOLD_TEST_LIVENESS_ROLE";
const LEN: u64 = 4096;
const ALIVE: usize = 0;
const WORD: usize = 64;
const THREADS: usize = 3;

struct AliveWord(MmapRaw);

impl AsRef<AtomicU32> for AliveWord {
    fn as_ref(&self) -> &AtomicU32 {
        sys::word_at(&self.0, ALIVE)
    }
}

/// The other processes: nothing to test without a role.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let stdin = std::io::stdin();
    match role.as_str() {
        "manager" => {
            let keeper = AliveKeeper::start(AliveWord(MmapOptions::new().map_raw(&stdin).unwrap())).unwrap();
            say("ready");
            // Until the parent kills us; or ends itself, which shows as an error on the pipe that it reads.
            sys::wait_readable(&[std::io::stdout().as_fd()], None).unwrap();
            keeper.end();
        }
        "sleeper" => {
            let map = MmapOptions::new().map_raw_read_only(&stdin).unwrap();
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        say("ready");
                        let deadline = Instant::now() + Duration::from_secs(60);
                        let slept = sleep_until(sys::word_at(&map, WORD), 0, sys::word_at(&map, ALIVE), Some(deadline)).unwrap();
                        assert_eq!(slept, Slept::ManagerDied);
                    });
                }
            });
            say("woken");
        }
        other => panic!("{other} is not a role"),
    }
}

fn say(line: &str) {
    // In one piece: several threads speak, and the test harness may have begun a line.
    std::io::stdout().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

/// A process with a role, killed at the latest when the test ends.
struct Other {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Other {
    fn start(role: &str, memory: OwnedFd) -> Other {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "role", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .stdin(memory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Other { child, lines }
    }

    fn says(&mut self, expected: &str) {
        assert!(self.lines.any(|line| line.unwrap() == expected), "the other process ended without saying {expected:?}");
    }
}

/// Whether all threads of a process are stopped.
fn is_stopped(pid: u32) -> bool {
    let mut threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.all(|thread| {
        let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
        stat.rsplit(") ").next().unwrap().starts_with('T')
    })
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_killed_manager_wakes_every_sleeper_of_every_process() {
    for round in 0..5 {
        let memory = sys::memfd_sealed("test-liveness", LEN).unwrap();
        let map = MmapOptions::new().map_raw(&memory).unwrap();
        let alive = sys::word_at(&map, ALIVE);
        let mut manager = Other::start("manager", memory.as_fd().try_clone_to_owned().unwrap());
        manager.says("ready");
        assert!(is_alive(alive.load(Ordering::Acquire)));

        let mut sleepers: Vec<Other> = (0..3).map(|_| Other::start("sleeper", sys::reopen_read_only(&memory).unwrap())).collect();
        for sleeper in &mut sleepers {
            for _ in 0..THREADS {
                sleeper.says("ready");
            }
        }
        // In later rounds one of them is stopped when the manager dies: the others must not wait for it.
        let stopped = (round > 2).then(|| sleepers.pop().unwrap());
        if let Some(stopped) = &stopped {
            signal(&stopped.child, rustix::process::Signal::STOP);
            // Until its threads have left the kernel's queue: at the very instant of the signal the only wake-up may be theirs, and is then
            // passed on by the backstop.
            while !is_stopped(stopped.child.id()) {
                thread::yield_now();
            }
        }
        manager.child.kill().unwrap();
        let killed = Instant::now();
        for sleeper in &mut sleepers {
            sleeper.says("woken");
            assert!(sleeper.child.wait().unwrap().success());
        }
        assert!(killed.elapsed() < Duration::from_millis(SLEEP_SLICE_MS / 2), "woken by the death, not by the backstop");
        assert_eq!(alive.load(Ordering::Acquire), 0xC000_0000);
        if let Some(mut stopped) = stopped {
            signal(&stopped.child, rustix::process::Signal::CONT);
            stopped.says("woken");
        }
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).unwrap();
}
