//! Runs a process one instruction at a time, or from system call to system call, as a debugger does, and counts.
//!
//! The process marks what is to be counted with signals to its calling thread. Counted is either that thread, or the
//! manager's thread while the calling one runs freely.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::Result;
use crate::work::{COUNTS, MARK, Side, Work};

/// The name of the thread of a manager in this process.
const MANAGER_THREAD: &str = "commonhold";

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Instructions, a system call being one of them.
    Instruction,
    /// System calls.
    SystemCall,
}

/// Counts one side of a work. Returns how many there are in as many operations as [`Work::operations`] says.
///
/// # Errors
/// If the process cannot be traced here, or ends early.
pub fn count(work: Work, side: Side, unit: Unit) -> Result<u64> {
    let name = clap::ValueEnum::to_possible_value(&work).ok_or("a work without a name")?;
    let mut child =
        Command::new(std::env::current_exe()?).args(["work", name.get_name()]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let counted = count_in(&mut child, work, side, unit);
    // Ended whatever happened: its threads may stand in mid-instruction. Each that was traced is ours to see off.
    child.kill()?;
    while waitpid(None::<Pid>, Some(WaitPidFlag::__WALL)).is_ok() {}
    counted
}

fn count_in(child: &mut Child, work: Work, side: Side, unit: Unit) -> Result<u64> {
    let mut said = String::new();
    BufReader::new(child.stdout.as_mut().ok_or("no output")?).read_line(&mut said)?;
    if said.trim() != "ready" {
        return Err(format!("the process for {work:?} ended before it was ready").into());
    }
    let caller = Pid::from_raw(child.id() as i32);
    let stepped = match side {
        Side::Client => caller,
        Side::Manager => manager_thread(child.id())?,
    };
    let mut traced = Traced { running: HashMap::new(), caller, unit };
    traced.seize(caller)?;
    if stepped != caller {
        traced.seize(stepped)?;
    }
    child.stdin.as_mut().ok_or("no input")?.write_all(b"go\n")?;
    traced.run_to_mark(None)?;
    together(stepped)?;
    // What stands between two marks that have nothing between them: the caller's way out of one signal and into the next.
    let empty = traced.run_to_mark(Some(stepped))?;
    let mut counts = Vec::with_capacity(COUNTS);
    for _ in 0..COUNTS - 1 {
        counts.push(traced.run_to_mark(Some(stepped))?);
        traced.run_to_mark(None)?;
    }
    let least = counts.into_iter().min().unwrap_or(0);
    let marks = if side == Side::Client { empty } else { 0 };
    Ok(least.saturating_sub(marks))
}

/// Brings the stepped thread to this thread's processor: there a step's two switches take some microseconds, elsewhere fifty.
fn together(stepped: Pid) -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let first = (0..CpuSet::count()).find(|&cpu| allowed.is_set(cpu).unwrap_or(false)).ok_or("no processor is allowed")?;
    let mut one = CpuSet::new();
    one.set(first)?;
    sched_setaffinity(this, &one)?;
    sched_setaffinity(stepped, &one)?;
    Ok(())
}

/// The thread of the manager in a process.
fn manager_thread(process: u32) -> Result<Pid> {
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let path = task?.path();
        let id = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<i32>().ok());
        if let (true, Some(id)) = (is_manager(&path)?, id) {
            return Ok(Pid::from_raw(id));
        }
    }
    Err("the process has no manager's thread".into())
}

fn is_manager(task: &Path) -> Result<bool> {
    Ok(std::fs::read_to_string(task.join("comm"))?.trim() == MANAGER_THREAD)
}

/// Threads of a process that stop for us.
struct Traced {
    /// Whether each is running now.
    running: HashMap<Pid, bool>,
    /// The thread that makes the calls, and the marks.
    caller: Pid,
    unit: Unit,
}

impl Traced {
    fn seize(&mut self, thread: Pid) -> Result<()> {
        ptrace::seize(thread, ptrace::Options::PTRACE_O_TRACESYSGOOD)
            .map_err(|error| format!("cannot trace a process of our own ({error}): is ptrace forbidden here?"))?;
        self.running.insert(thread, true);
        Ok(())
    }

    /// Stops a thread wherever it is, if it runs.
    fn interrupt(&mut self, thread: Pid) -> Result<()> {
        if self.running.insert(thread, false) == Some(true) {
            ptrace::interrupt(thread)?;
            waitpid(thread, Some(WaitPidFlag::__WALL))?;
        }
        Ok(())
    }

    /// Lets the caller run to its next mark, and one thread stop at each unit on the way. Returns the number of them.
    fn run_to_mark(&mut self, stepped: Option<Pid>) -> Result<u64> {
        let (mut steps, mut halves) = (0, 0);
        if let Some(thread) = stepped {
            self.interrupt(thread)?;
        }
        loop {
            for (&thread, running) in self.running.iter_mut().filter(|(_, running)| !**running) {
                match (stepped == Some(thread), self.unit) {
                    (false, _) => ptrace::cont(thread, None)?,
                    (true, Unit::Instruction) => ptrace::step(thread, None)?,
                    (true, Unit::SystemCall) => ptrace::syscall(thread, None)?,
                }
                *running = true;
            }
            match waitpid(None::<Pid>, Some(WaitPidFlag::__WALL))? {
                WaitStatus::Stopped(thread, signal) | WaitStatus::PtraceEvent(thread, signal, _) => {
                    self.running.insert(thread, false);
                    if thread == self.caller && signal == MARK {
                        return Ok(if self.unit == Unit::Instruction { steps } else { halves / 2 });
                    }
                    steps += u64::from(stepped == Some(thread));
                }
                // At its entry, and at its exit.
                WaitStatus::PtraceSyscall(thread) => {
                    self.running.insert(thread, false);
                    halves += 1;
                }
                other => return Err(format!("the counted process ended or stopped unasked: {other:?}").into()),
            }
        }
    }
}
