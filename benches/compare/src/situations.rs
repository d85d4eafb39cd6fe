//! Rows that are another row's work in a situation of its own: with thinking between calls, on one processor, by several clients at once, and
//! what is spent while nothing happens. And what the kernel tells of processes: processor time, memory, where they may run.
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Result;
use crate::rows::Row;

/// What a caller does between two calls, in rows about thinking.
const THINK_NS: u64 = 20_000;

/// How a row differs from the row whose work it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// Nanoseconds of the caller's own work between two calls.
    pub think_ns: u64,
    /// Caller and server run on one processor.
    pub one_core: bool,
    /// Counted is processor time, not time.
    pub processor_time: bool,
}

impl Row {
    /// The work that is done, which a system knows how to do.
    pub fn work(self) -> Row {
        match self {
            Row::DictSet64Thinking | Row::DictSet64OneCore | Row::DictSet64Cpu => Row::DictSet64,
            Row::DictSet64SocketOneCore => Row::DictSet64Socket,
            Row::ListPush64Thinking => Row::ListPush64,
            other => other,
        }
    }

    /// How it is done.
    pub fn situation(self) -> Situation {
        Situation {
            think_ns: if matches!(self, Row::DictSet64Thinking | Row::ListPush64Thinking) { THINK_NS } else { 0 },
            one_core: matches!(self, Row::DictSet64OneCore | Row::DictSet64SocketOneCore),
            processor_time: self == Row::DictSet64Cpu,
        }
    }

    /// Number of client processes that do it together.
    pub fn clients(self) -> Option<u32> {
        match self {
            Row::DictSet64By2 => Some(2),
            Row::DictSet64By8 => Some(8),
            _ => None,
        }
    }

    /// Whether it is about calls to a server: what lies in its user's process has no part in it.
    pub fn is_about_calls(self) -> bool {
        let stream = matches!(self, Row::DictSet64Stream | Row::ListPush64Stream);
        let memory = matches!(self, Row::SessionBytes | Row::LaneBytes);
        self.work() != self || stream || memory || self.clients().is_some() || self == Row::IdleCpu || self == Row::DictSet64Socket
    }

    /// Whether a run gives one figure, whatever its plan.
    pub fn is_one_figure(self) -> bool {
        self.clients().is_some() || matches!(self, Row::BytesPerEntry | Row::SessionBytes | Row::LaneBytes)
    }
}

/// Processes that a process has started and that still are.
pub fn children(process: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let texts = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    texts.flat_map(|text| text.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<_>>()).collect()
}

/// A process and all that it has started.
pub fn family(process: u32) -> Vec<u32> {
    let mut family = vec![process];
    let mut at = 0;
    while let Some(member) = family.get(at).copied() {
        family.extend(children(member));
        at += 1;
    }
    family
}

fn tasks(process: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
}

/// Processor time that processes have used, in nanoseconds.
pub fn processor_ns(processes: &[u32]) -> f64 {
    let of_task = |process: u32, task: u32| {
        let text = fs::read_to_string(format!("/proc/{process}/task/{task}/schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0)
    };
    processes.iter().flat_map(|process| tasks(*process).into_iter().map(move |task| of_task(*process, task))).sum()
}

/// Memory of processes in bytes, pages that several map divided among them, without the arena, which a manager makes larger and smaller
/// as it sees fit, and without programs and libraries, of which each process that maps them takes a share from the others; `shared`: only
/// what is mapped of the library's memory files.
pub fn memory_bytes(processes: &[u32], shared: bool) -> f64 {
    let of_process = |process: &u32| {
        let text = fs::read_to_string(format!("/proc/{process}/smaps")).unwrap_or_default();
        let (mut counts, mut kib) = (false, 0.0);
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap_or_default();
            if let Some(figure) = line.strip_prefix("Pss:").filter(|_| counts) {
                kib += figure.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0);
            } else if !first.ends_with(':') {
                // A mapping's first line: addresses, rights, offset, device, inode, and its name if it has one.
                let name = words.nth(4).unwrap_or_default();
                let (is_file, is_ours) = (name.starts_with('/'), name.starts_with("/memfd:commonhold-"));
                counts = name != "/memfd:commonhold-arena" && (is_ours || !(shared || is_file));
            }
        }
        1024.0 * kib
    };
    processes.iter().map(of_process).sum()
}

/// The processors on which this thread may run.
pub fn allowed() -> Result<Vec<usize>> {
    let mask = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| mask.is_set(*cpu)).collect())
}

/// This thread, and what it starts, runs on these processors.
pub fn run_on(cpus: &[usize]) -> Result<()> {
    Ok(sched_setaffinity(None, &set_of(cpus))?)
}

fn set_of(cpus: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu));
    set
}

/// This program and all that it has started run on one processor, until this is dropped.
pub struct OnOneCore(Vec<usize>);

impl OnOneCore {
    /// Brings them there.
    pub fn bring() -> Result<OnOneCore> {
        let cpus = allowed()?;
        all_run_on(&cpus[..1]);
        Ok(OnOneCore(cpus))
    }
}

impl Drop for OnOneCore {
    fn drop(&mut self) {
        all_run_on(&self.0);
    }
}

fn all_run_on(cpus: &[usize]) {
    let set = set_of(cpus);
    for task in family(std::process::id()).into_iter().flat_map(tasks) {
        // One that has just ended runs nowhere.
        let _ = sched_setaffinity(Pid::from_raw(task as i32), &set);
    }
}

/// Processor time in nanoseconds that each of several families of processes, and this process with each, use in a second while nobody asks
/// them for anything.
pub fn idle(families: &[Vec<u32>], window: Duration) -> Vec<f64> {
    // What the last row has left to do is not idleness.
    thread::sleep(window / 4);
    let ours = [std::process::id()];
    let used = || families.iter().map(|family| processor_ns(family)).collect::<Vec<_>>();
    let (before, own, began) = (used(), processor_ns(&ours), Instant::now());
    thread::sleep(window);
    let seconds = began.elapsed().as_secs_f64();
    let own = processor_ns(&ours) - own;
    used().iter().zip(before).map(|(after, before)| (after - before + own) / seconds).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let ours = [std::process::id()];
        let before = processor_ns(&ours);
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(20) {
            std::hint::black_box(began);
        }
        assert!(processor_ns(&ours) > before);
        assert!(memory_bytes(&ours, false) > 1e5 && memory_bytes(&ours, true) >= 0.0);
        assert!(family(std::process::id()).contains(&std::process::id()));
    }

    #[test]
    fn one_core_is_one_until_it_is_over() {
        let before = allowed().unwrap();
        let one = OnOneCore::bring().unwrap();
        assert_eq!(allowed().unwrap(), before[..1]);
        drop(one);
        assert_eq!(allowed().unwrap(), before);
    }
}
