#![allow(unsafe_code)] // loom hands out the contents of its cells as raw pointers
//! The protocol of pins, run in every order that loom finds: no reader reads a block that has been freed.
//!
//! The table of steps is at the head of `pin`. Readers use the crate's own `announce`, on loom's atomics. Version *v* shows
//! one block of its own; the manager publishes two more versions, and frees after each whatever no pin holds, as the
//! manager's scan would. To free is to write: loom reports a block that is written while it is read, and the contents tell
//! the same. The canaries leave one step out and must be caught, or the model would prove nothing.
//!
//! Loom knows no `membarrier`. What the kernel promises of it is modelled as it is meant: the manager asks, and every reader,
//! between two steps of its program, makes a full fence of its own and says so; then the manager goes on. Where in its program
//! a reader comes to it is up to loom, which tries all places. Nothing else orders the two: question and answer are Relaxed.

use commonhold_ipc::pin::{PinWords, announce};
use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::thread;

const VERSIONS: usize = 3;
const FREED: u64 = 0;

struct Shared {
    version: AtomicU64,
    pins: Vec<AtomicU64>,
    /// The block that version *v* shows holds *v*, or [`FREED`]. Index 0 is not used.
    blocks: Vec<UnsafeCell<u64>>,
    /// For each reader: whether it leaves its fences to the manager, as its page says.
    relies: Vec<AtomicU64>,
    /// The kernel's side of barriers: how many the manager has asked for, and how many each reader has been put through.
    asked: AtomicU64,
    done: Vec<AtomicU64>,
}

/// A reader that does not run is put through all barriers to come.
const STOPPED: u64 = u64::MAX;

impl Shared {
    /// Between two steps of a reader: the kernel may interrupt it here.
    fn interrupt(&self, reader: usize) {
        let asked = self.asked.load(Ordering::Relaxed);
        if asked != self.done[reader].load(Ordering::Relaxed) {
            fence(Ordering::SeqCst);
            self.done[reader].store(asked, Ordering::Relaxed);
        }
    }

    /// The reader's thread is taken off its processor for good.
    fn stop(&self, reader: usize) {
        fence(Ordering::SeqCst);
        self.done[reader].store(STOPPED, Ordering::Relaxed);
    }

    /// What the manager asks of the kernel.
    fn barrier(&self) {
        fence(Ordering::SeqCst);
        let asked = self.asked.load(Ordering::Relaxed) + 1;
        self.asked.store(asked, Ordering::Relaxed);
        for done in &self.done {
            while done.load(Ordering::Relaxed) < asked {
                thread::yield_now();
            }
        }
        fence(Ordering::SeqCst);
    }
}

// Loom's cells tell of every write at the same time as another access.
struct Words<'a> {
    shared: &'a Shared,
    reader: usize,
}

impl PinWords for Words<'_> {
    fn current(&self) -> u64 {
        self.shared.version.load(Ordering::Acquire)
    }

    fn announce(&self, version: u64) {
        self.shared.pins[self.reader].store(version, Ordering::Relaxed);
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

/// The same for a reader that leaves its fence to the manager.
struct WordsWithoutFence<'a>(Words<'a>);

impl PinWords for WordsWithoutFence<'_> {
    fn current(&self) -> u64 {
        self.0.shared.interrupt(self.0.reader);
        self.0.current()
    }

    fn announce(&self, version: u64) {
        self.0.shared.interrupt(self.0.reader);
        self.0.announce(version);
    }

    fn fence(&self) {
        self.0.shared.interrupt(self.0.reader);
    }
}

/// Which step the readers, or the manager, leave out.
#[derive(Clone, Copy, PartialEq)]
enum LeftOut {
    Nothing,
    Recheck,
    ReaderFence,
    ManagerFence,
    /// The reader's fence, by agreement: the manager's barriers stand in for it.
    ByAgreement,
    /// The same, but the manager asks for no barriers.
    Barrier,
    /// The same, but the reader's page says so without a fence behind it.
    SwitchFence,
    /// The same, but the reader looks at the version before it announces, and not again.
    RecheckByAgreement,
}

impl LeftOut {
    fn is_by_agreement(self) -> bool {
        matches!(self, LeftOut::ByAgreement | LeftOut::Barrier | LeftOut::SwitchFence | LeftOut::RecheckByAgreement)
    }
}

/// Load, then announce: what a reader must not do.
fn announce_without_recheck(words: &impl PinWords) -> u64 {
    let version = words.current();
    words.announce(version);
    words.fence();
    version
}

/// Another mistake: the re-check may pass before the announcement can be seen.
fn announce_without_fence(words: &Words<'_>) -> u64 {
    loop {
        let version = words.current();
        words.announce(version);
        if words.current() == version {
            return version;
        }
        thread::yield_now();
    }
}

fn read(shared: &Shared, reader: usize, left_out: LeftOut) {
    let words = Words { shared, reader };
    if left_out.is_by_agreement() {
        // The switch, as `pin::fence` makes it: the manager may just be in a scan that knows nothing of it.
        shared.relies[reader].store(1, Ordering::Relaxed);
        if left_out != LeftOut::SwitchFence {
            fence(Ordering::SeqCst);
        }
    }
    let version = match left_out {
        LeftOut::RecheckByAgreement => announce_without_recheck(&WordsWithoutFence(words)),
        LeftOut::ByAgreement | LeftOut::Barrier | LeftOut::SwitchFence => announce(&WordsWithoutFence(words)),
        LeftOut::Recheck => announce_without_recheck(&words),
        LeftOut::ReaderFence => announce_without_fence(&words),
        LeftOut::Nothing | LeftOut::ManagerFence => announce(&words),
    };
    shared.interrupt(reader);
    let found = shared.blocks[version as usize].with(|block| {
        // SAFETY: the protocol that is being tested says that nobody writes this block; loom panics if somebody does.
        unsafe { *block }
    });
    assert_eq!(found, version, "a block of the pinned version has been freed");
    // SYNC: as `PinTable` does, so that the read is over before the manager sees the word cleared.
    shared.pins[reader].store(0, Ordering::Release);
    shared.stop(reader);
}

fn manage(shared: &Shared, left_out: LeftOut) {
    let mut retired = Vec::new();
    for version in 2..=VERSIONS as u64 {
        shared.version.store(version, Ordering::Release);
        retired.push(version - 1);
        if left_out != LeftOut::ManagerFence {
            fence(Ordering::SeqCst);
        }
        let relies = shared.relies.iter().any(|relies| relies.load(Ordering::Relaxed) == 1);
        if relies && left_out != LeftOut::Barrier {
            shared.barrier();
        }
        let pins: Vec<u64> = shared.pins.iter().map(|pin| pin.load(Ordering::Acquire)).collect();
        retired.retain(|old| {
            let held = pins.contains(old);
            if !held {
                shared.blocks[*old as usize].with_mut(|block| {
                    // SAFETY: as above: no reader is to be reading it.
                    unsafe { *block = FREED }
                });
            }
            held
        });
    }
}

fn model(readers: usize, left_out: LeftOut) {
    let mut builder = Builder::new();
    // Most mistakes of such protocols show with two or three switches; without a bound the model takes hours.
    builder.preemption_bound = Some(if readers == 1 { 5 } else { 2 });
    builder.check(move || {
        let shared = Arc::new(Shared {
            version: AtomicU64::new(1),
            pins: (0..readers).map(|_| AtomicU64::new(0)).collect(),
            blocks: (0..=VERSIONS as u64).map(UnsafeCell::new).collect(),
            relies: (0..readers).map(|_| AtomicU64::new(0)).collect(),
            asked: AtomicU64::new(0),
            done: (0..readers).map(|_| AtomicU64::new(0)).collect(),
        });
        let threads: Vec<_> = (0..readers)
            .map(|reader| {
                let shared = shared.clone();
                thread::spawn(move || read(&shared, reader, left_out))
            })
            .collect();
        manage(&shared, left_out);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn no_reader_reads_a_freed_block() {
    model(1, LeftOut::Nothing);
}

#[test]
fn no_two_readers_read_a_freed_block() {
    model(2, LeftOut::Nothing);
}

#[test]
#[should_panic(expected = "a block of the pinned version has been freed")]
fn canary_without_the_recheck_a_reader_reads_a_freed_block() {
    model(1, LeftOut::Recheck);
}

#[test]
#[should_panic(expected = "Concurrent read and write accesses")]
fn canary_without_the_readers_fence_a_reader_reads_a_freed_block() {
    model(1, LeftOut::ReaderFence);
}

#[test]
#[should_panic(expected = "Concurrent read and write accesses")]
fn canary_without_the_managers_fence_a_reader_reads_a_freed_block() {
    model(1, LeftOut::ManagerFence);
}

#[test]
fn barriers_stand_in_for_the_readers_fence() {
    model(1, LeftOut::ByAgreement);
}

#[test]
fn barriers_stand_in_for_the_fences_of_two_readers() {
    model(2, LeftOut::ByAgreement);
}

#[test]
#[should_panic(expected = "Concurrent read and write accesses")]
fn canary_without_fence_or_barrier_a_reader_reads_a_freed_block() {
    model(1, LeftOut::Barrier);
}

#[test]
#[should_panic(expected = "Concurrent read and write accesses")]
fn canary_without_a_fence_behind_the_switch_a_reader_reads_a_freed_block() {
    model(1, LeftOut::SwitchFence);
}

#[test]
#[should_panic(expected = "Concurrent read and write accesses")]
fn canary_without_the_recheck_barriers_do_not_help() {
    model(1, LeftOut::RecheckByAgreement);
}
