//! Processes for tests: this test binary started again in a role, which talks with its parent in lines.
//!
//! A role is a `#[test]` that returns at once unless it was started by [`Peer::spawn`]. What a role says goes to its standard
//! output behind a mark, so that the harness's own words there do not matter; what it hears comes by its standard input.
// Each test file uses a part of this.
#![allow(dead_code)]

use commonhold::Manager;
use rustix::process::{Pid, Signal, kill_process};
use std::fmt::{Debug, Display};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;

/// Says to a process that it is a peer, and its task.
const TASK: &str = "COMMONHOLD_TEST_PEER";
/// Before everything that a peer says.
const MARK: &str = "@peer ";

/// A process of its own in a role. It is killed when this is dropped.
pub struct Peer {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    role: String,
}

impl Peer {
    /// Starts a process that runs the test `role` with this task.
    pub fn spawn(role: &str, task: impl Display) -> Peer {
        Self::begin(role, task, &mut Command::new(std::env::current_exe().unwrap()))
    }

    /// The same as another user, which only root can.
    pub fn spawn_as(role: &str, task: impl Display, user: u32) -> Peer {
        Self::begin(role, task, Command::new(std::env::current_exe().unwrap()).uid(user).gid(user))
    }

    fn begin(role: &str, task: impl Display, command: &mut Command) -> Peer {
        let mut child = command
            .args(["--exact", role, "--nocapture", "--test-threads=1"])
            .env(TASK, task.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Peer { child, to, from, role: role.to_owned() }
    }

    /// Says a line to it.
    pub fn tell(&mut self, line: impl Display) {
        let to = self.to.as_mut().expect("it is still told things");
        if let Err(error) = writeln!(to, "{line}").and_then(|()| to.flush()) {
            panic!("{} does not listen any more: {error}", self.role);
        }
    }

    /// The next line that it says.
    pub fn hear(&mut self) -> String {
        self.try_hear().unwrap_or_else(|| panic!("{} ended without a word", self.role))
    }

    /// The next line that it says; none when it has ended.
    pub fn try_hear(&mut self) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.from.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some((_, said)) = line.trim_end_matches('\n').split_once(MARK) {
                return Some(said.to_owned());
            }
        }
    }

    /// Says a line and hears the answer.
    pub fn ask(&mut self, line: impl Display) -> String {
        self.tell(line);
        self.hear()
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Stops it where it is, and waits until it stands still.
    pub fn stop(&self) {
        stop(self.pid());
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        go_on(self.pid());
    }

    /// Nothing more will be said to it: it should come to its end, and well.
    pub fn finish(mut self) {
        drop(self.to.take());
        while self.try_hear().is_some() {}
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{} ended with {status}", self.role);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Fails if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Stops a process where it is, and waits until it stands still.
pub fn stop(pid: Pid) {
    kill_process(pid, Signal::STOP).unwrap();
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    };
    while state() != 'T' {
        std::thread::yield_now();
    }
}

/// Lets a process go on.
pub fn go_on(pid: Pid) {
    kill_process(pid, Signal::CONT).unwrap();
}

/// In a role: its task. In an ordinary run of the tests: none.
pub fn task() -> Option<String> {
    std::env::var(TASK).ok()
}

/// In a role: says a line to the parent.
pub fn say(line: impl Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{MARK}{line}").and_then(|()| out.flush()).expect("the parent listens");
}

/// In a role: the next line that the parent says; none when it says no more.
pub fn heard() -> Option<String> {
    let mut line = String::new();
    (std::io::stdin().lock().read_line(&mut line).unwrap() > 0).then(|| line.trim_end_matches('\n').to_owned())
}

/// The words of a line as values.
pub fn words<T: FromStr<Err: Debug>>(line: &str) -> Vec<T> {
    line.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

/// When this is `socket`, managers in processes have no lanes: so that the same tests can be run on that road.
const ROAD: &str = "COMMONHOLD_TEST_ROAD";

/// A manager in a process of its own. Small, so that many tests fit beside each other.
pub fn process_manager() -> Manager {
    let by_socket = std::env::var(ROAD).is_ok_and(|road| road == "socket");
    Manager::builder().capacity(512 << 20).lanes(!by_socket).start().unwrap()
}

/// The same without lanes.
pub fn socket_manager() -> Manager {
    Manager::builder().capacity(512 << 20).lanes(false).start().unwrap()
}

/// A manager in a thread of this process.
pub fn thread_manager() -> Manager {
    Manager::builder().capacity(512 << 20).in_process().start().unwrap()
}

/// How much work a test does, by the environment: `COMMONHOLD_CASES`, or else `cases`.
pub fn cases(cases: u32) -> u32 {
    std::env::var("COMMONHOLD_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(cases)
}

/// A small random number generator, so that a test's choices come from a seed.
pub struct Choices(pub u64);

impl Choices {
    /// A number below `most`.
    pub fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % most
    }
}
