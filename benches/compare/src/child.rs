//! Child processes of the comparison: the redis-server and the Python interpreter it starts.
//!
//! None of them may outlive the program, however that ends. Three things see to it: a guard kills and reaps the child's whole process group;
//! the kernel kills the child when this process dies by SIGKILL (the parent-death signal, which survives exec); and answers are waited for
//! with a deadline. The parent-death signal fires when the *thread* that spawned the child ends, so children are spawned by the main thread only.
//!
//! `unsafe_code` is allowed here for `CommandExt::pre_exec`, the one way to set the parent-death signal before the child's program begins.
#![allow(unsafe_code)]
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, getpid, getppid, kill_process_group, set_parent_process_death_signal};

use crate::Result;

/// A child process that ends with this one: killed, with its process group, when dropped.
pub struct Helper {
    child: Child,
    group: Pid,
}

impl Helper {
    /// Starts `command` with pipes for its input and output. `Ok(None)`: there is no such program.
    pub fn spawn(command: &mut Command) -> Result<Option<(Helper, ChildStdin, Lines)>> {
        let parent = getpid();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        // SAFETY: between fork and exec the closure makes two system calls and builds an `io::Error` from an OS code: it takes no lock,
        // allocates nothing and touches no state of the parent's, which is all that `pre_exec` asks for.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                match getppid() {
                    Some(now) if now == parent => Ok(()),
                    _ => Err(io::Error::from(rustix::io::Errno::SRCH)),
                }
            });
        }
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot start {:?}: {error}", command.get_program()).into()),
        };
        let group = Pid::from_child(&child);
        let stdin = child.stdin.take().ok_or("the child has no input pipe")?;
        let stdout = child.stdout.take().ok_or("the child has no output pipe")?;
        Ok(Some((Helper { child, group }, stdin, Lines { stdout, unread: Vec::new() })))
    }
}

impl Helper {
    /// The process that was started.
    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // An error means that the group is gone already.
        let _ = kill_process_group(self.group, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// The lines a child prints, each waited for with a deadline.
pub struct Lines {
    stdout: ChildStdout,
    unread: Vec<u8>,
}

impl Lines {
    /// The next line, without its end. An error if the child closes its output first, or if `patience` runs out.
    pub fn next_line(&mut self, patience: Duration) -> Result<String> {
        let deadline = Instant::now() + patience;
        let mut searched = 0;
        loop {
            if let Some(end) = self.unread[searched..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=searched + end).collect();
                return Ok(String::from_utf8_lossy(&line[..line.len() - 1]).into_owned());
            }
            searched = self.unread.len();
            self.wait_readable(deadline, patience)?;
            let mut chunk = [0; 64 << 10];
            match self.stdout.read(&mut chunk)? {
                0 => return Err("it ended without an answer".into()),
                read => self.unread.extend_from_slice(&chunk[..read]),
            }
        }
    }

    fn wait_readable(&self, deadline: Instant, patience: Duration) -> Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left)?;
            match poll(&mut [PollFd::new(&self.stdout, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Err(format!("no answer within {patience:?}").into()),
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_arrive_one_by_one_and_the_end_is_an_error() {
        let (_helper, _stdin, mut lines) = Helper::spawn(Command::new("printf").arg("one\\ntwo\\n")).unwrap().unwrap();
        assert_eq!(lines.next_line(Duration::from_secs(10)).unwrap(), "one");
        assert_eq!(lines.next_line(Duration::from_secs(10)).unwrap(), "two");
        assert!(lines.next_line(Duration::from_secs(10)).unwrap_err().to_string().contains("ended"));
    }

    #[test]
    fn a_silent_child_is_an_error_after_the_deadline_and_dies_with_its_guard() {
        let (helper, _stdin, mut lines) = Helper::spawn(Command::new("sleep").arg("1000")).unwrap().unwrap();
        assert!(lines.next_line(Duration::from_millis(20)).unwrap_err().to_string().contains("no answer"));
        let group = helper.group;
        drop(helper);
        assert!(kill_process_group(group, Signal::KILL).is_err());
    }

    #[test]
    fn a_missing_program_is_not_an_error() {
        assert!(Helper::spawn(&mut Command::new("no-such-program-of-the-comparison")).unwrap().is_none());
    }
}
