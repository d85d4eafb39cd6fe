#![allow(unsafe_code)] // loom hands out the contents of its cells as raw pointers
//! The protocol of pins, run in every order that loom finds: no reader reads a block that has been freed.
//!
//! The table of steps is at the head of `pin`. Readers use the crate's own `announce`, on loom's atomics. Version *v* shows
//! one block of its own; the manager publishes two more versions, and frees after each whatever no pin holds, as the
//! manager's scan would. To free is to write: loom reports a block that is written while it is read, and the contents tell
//! the same. The canaries leave one step out and must be caught, or the model would prove nothing.

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

/// Which step the readers, or the manager, leave out.
#[derive(Clone, Copy, PartialEq)]
enum LeftOut {
    Nothing,
    Recheck,
    ReaderFence,
    ManagerFence,
}

/// Load, then announce: what a reader must not do.
fn announce_without_recheck(words: &Words<'_>) -> u64 {
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
    let version = match left_out {
        LeftOut::Recheck => announce_without_recheck(&words),
        LeftOut::ReaderFence => announce_without_fence(&words),
        LeftOut::Nothing | LeftOut::ManagerFence => announce(&words),
    };
    let found = shared.blocks[version as usize].with(|block| {
        // SAFETY: the protocol that is being tested says that nobody writes this block; loom panics if somebody does.
        unsafe { *block }
    });
    assert_eq!(found, version, "a block of the pinned version has been freed");
    // SYNC: as `PinTable` does, so that the read is over before the manager sees the word cleared.
    shared.pins[reader].store(0, Ordering::Release);
}

fn manage(shared: &Shared, left_out: LeftOut) {
    let mut retired = Vec::new();
    for version in 2..=VERSIONS as u64 {
        shared.version.store(version, Ordering::Release);
        retired.push(version - 1);
        if left_out != LeftOut::ManagerFence {
            fence(Ordering::SeqCst);
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
