//! What the counted process does: each operation between two marks, several times.
//!
//! A mark is a signal to the own thread, at which the stepper begins or ends its count. The first two marks have nothing
//! between them: what the marks themselves take is subtracted.

use std::io::{self, BufRead, Write};

use clap::ValueEnum;
use commonhold::Manager;
use nix::sys::signal::{Signal, raise};

use crate::Result;

/// The signal that marks where a count begins or ends.
pub const MARK: Signal = Signal::SIGUSR1;

/// Entries of the dict and elements of the list that are worked on.
const ENTRIES: u64 = 100_000;
/// Gets after which a thread of this process is past its fenced ones.
const FENCED_GETS: u64 = 70_000;
/// Counts of each work.
pub const COUNTS: usize = 4;

/// An operation to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// `dict.get`
    Get,
    /// `dict.at(&snapshot).get`
    SnapshotGet,
    /// A step of `dict.iter()`
    Iterate,
    /// `list.get`
    Index,
    /// `dict.insert` over an entry
    Set,
    /// `list.push`
    Push,
    /// A set in a batch of forty
    Batch,
    /// `drop(lock.lock())`
    Lock,
    /// `drop((rlock.lock(), rlock.lock()))`
    ReentrantLock,
    /// `drop(rw_lock.read())`
    Read,
    /// `drop(rw_lock.write())`
    Write,
    /// `drop(semaphore.acquire())`
    Permit,
    /// `event.set`, `event.is_set`, `event.wait`, `event.clear`
    Event,
    /// `queue.send`
    Send,
    /// `queue.recv`
    Receive,
    /// A method's call, 64 bytes there and back
    Method,
    /// `array.get`
    Element,
    /// `array.fetch_add`
    ElementAdd,
    /// `striped_counter.add`
    Count,
}

/// An object that gives back what it is given.
struct Echo;

#[commonhold::remote]
impl Echo {
    pub fn new() -> Self {
        Echo
    }
    pub fn echo(&mut self, bytes: [u8; 64]) -> [u8; 64] {
        bytes
    }
}

/// Whose instructions are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The thread that calls.
    Client,
    /// The manager's thread.
    Manager,
}

impl Work {
    /// The operation in words.
    pub fn says(self) -> &'static str {
        match self {
            Work::Get => "dict get, 64 B among 100,000",
            Work::SnapshotGet => "the same from a snapshot",
            Work::Iterate => "dict iteration, an entry",
            Work::Index => "list index",
            Work::Set => "dict set, 64 B",
            Work::Push => "list push, 64 B",
            Work::Batch => "a set in a batch of 40",
            Work::Lock => "lock taken and given back",
            Work::ReentrantLock => "the same, twice within itself",
            Work::Read => "lock taken to read",
            Work::Write => "lock taken to write",
            Work::Permit => "permit taken and given back",
            Work::Event => "event set, looked at, waited for, cleared",
            Work::Send => "queue send, 64 B",
            Work::Receive => "queue receive, 64 B",
            Work::Method => "call of a method, 64 B",
            Work::Element => "array get",
            Work::ElementAdd => "array fetch_add",
            Work::Count => "striped counter add",
        }
    }

    /// How many operations lie between two marks.
    pub fn operations(self) -> u64 {
        match self {
            Work::Method => 2,
            Work::Get | Work::SnapshotGet | Work::Index => 4,
            Work::Iterate | Work::Batch | Work::Element | Work::ElementAdd | Work::Count => 40,
            Work::Set | Work::Push | Work::Lock | Work::ReentrantLock | Work::Read | Work::Write | Work::Permit => 16,
            Work::Event | Work::Send | Work::Receive => 16,
        }
    }

    /// Whether it is done in the caller's own mapping of shared memory, without the manager and without the kernel.
    pub fn is_in_memory(self) -> bool {
        !matches!(self, Work::Set | Work::Push | Work::Batch | Work::Method)
    }

    /// Does the work, once the stepper says that it is there.
    pub fn run(self) -> Result<()> {
        // Keys lie at the same depths in every run: a quarter of them take 20 to 400 instructions more than the rest, which is a matter of luck.
        let manager = Manager::builder().hash_seed(1).in_process().start()?;
        match self {
            Work::Element | Work::ElementAdd | Work::Count => return self.run_in_memory(&manager),
            Work::Lock | Work::ReentrantLock | Work::Read | Work::Write | Work::Permit | Work::Event => return self.run_in_turn(&manager),
            Work::Send | Work::Receive => return self.run_in_queue(&manager),
            _ => {}
        }
        let value = [7u8; 64];
        let dict = manager.dict((0..ENTRIES).map(|key| (key, value)))?;
        let list = manager.list((0..ENTRIES).map(|_| value))?;
        let snapshot = manager.snapshot()?;
        let echo = manager.create(Echo::new, ())?;
        // Far apart, so that neither path nor bucket is shared by neighbours.
        let mut keys = (0..ENTRIES).cycle().step_by(7_919);
        let work = |operations: u64| -> Result<()> {
            match self {
                Work::Get => {
                    for key in keys.by_ref().take(operations as usize) {
                        std::hint::black_box(dict.get(key)?.expect("it is there")[0]);
                    }
                }
                Work::SnapshotGet => {
                    let dict = dict.at(&snapshot);
                    for key in keys.by_ref().take(operations as usize) {
                        std::hint::black_box(dict.get(key).expect("it is there")[0]);
                    }
                }
                Work::Iterate => {
                    std::hint::black_box(dict.iter()?.take(operations as usize).map(|(_, value)| u64::from(value[0])).sum::<u64>());
                }
                Work::Index => {
                    for key in keys.by_ref().take(operations as usize) {
                        std::hint::black_box(list.get(key as usize)?.expect("it is there")[0]);
                    }
                }
                Work::Set => {
                    for key in keys.by_ref().take(operations as usize) {
                        dict.insert(key, value)?;
                    }
                }
                Work::Push => {
                    for _ in 0..operations {
                        list.push(value)?;
                    }
                }
                Work::Method => {
                    for _ in 0..operations {
                        std::hint::black_box(echo.echo(value)?);
                    }
                }
                Work::Batch => {
                    manager.batch(|batch| keys.by_ref().take(operations as usize).try_for_each(|key| batch.insert(&dict, key, value)))?
                }
                _ => unreachable!("it has a ground of its own"),
            }
            Ok(())
        };
        // Warm: caches, lanes, buffers. And readers leave their fences to the manager after so many in a process with threads.
        for key in 0..FENCED_GETS {
            dict.get(key % ENTRIES)?;
        }
        self.count(work)
    }

    /// The same for locks and their kin, which nobody else wants.
    fn run_in_turn(self, manager: &Manager) -> Result<()> {
        let (lock, rlock, rw_lock) = (manager.lock()?, manager.rlock()?, manager.rw_lock()?);
        let (semaphore, event) = (manager.semaphore(2)?, manager.event()?);
        self.count(|operations| {
            (0..operations).try_for_each(|_| match self {
                Work::Lock => lock.lock().map(drop),
                Work::ReentrantLock => {
                    drop((rlock.lock()?, rlock.lock()?));
                    Ok(())
                }
                Work::Read => rw_lock.read().map(drop),
                Work::Write => rw_lock.write().map(drop),
                Work::Permit => semaphore.acquire().map(drop),
                _ => {
                    event.set()?;
                    event.is_set()?;
                    event.wait()?;
                    event.clear().map(drop)
                }
            })?;
            Ok(())
        })
    }

    /// The same for queues.
    fn run_in_queue(self, manager: &Manager) -> Result<()> {
        let queue = manager.queue::<[u8; 64]>(1_000)?;
        let value = [7u8; 64];
        if self == Work::Receive {
            (0..1_000).try_for_each(|_| queue.send(value))?;
        }
        self.count(|operations| {
            (0..operations).try_for_each(|_| match self {
                Work::Send => Ok(queue.send(value)?),
                _ => queue.recv().map(|item| {
                    std::hint::black_box(item);
                }),
            })?;
            Ok(())
        })
    }

    /// The same for what needs nothing but memory.
    fn run_in_memory(self, manager: &Manager) -> Result<()> {
        let (array, counter) = (manager.array::<u64>(ENTRIES as usize)?, manager.striped_counter(0)?);
        let mut indices = (0..ENTRIES as usize).cycle().step_by(7_919);
        self.count(|operations| {
            for index in indices.by_ref().take(operations as usize) {
                match self {
                    Work::Element => drop(std::hint::black_box(array.get(index)?)),
                    Work::ElementAdd => drop(array.fetch_add(index, 1)?),
                    _ => counter.add(1)?,
                }
            }
            Ok(())
        })
    }

    /// Puts marks around the work.
    fn count(self, mut work: impl FnMut(u64) -> Result<()>) -> Result<()> {
        work(self.operations())?;
        work(self.operations())?;
        println!("ready");
        io::stdout().flush()?;
        io::stdin().lock().read_line(&mut String::new())?;
        raise(MARK)?;
        for _ in 0..COUNTS {
            raise(MARK)?;
            work(self.operations())?;
            raise(MARK)?;
        }
        Ok(())
    }
}
