#![allow(unsafe_code)] // loom hands out the contents of its cells as raw pointers
//! A model of a segment that processes share which die before any of their writes.
//!
//! The crate's own algorithms run on it. Each process sees the words through words of its own, which count its writes: one that has none
//! left ends there, as if killed. Loom takes SeqCst accesses for AcqRel ones, weaker than what the crate does. A protocol that relies on
//! one order of all accesses asks for fences beside them, whose full strength loom knows.

use commonhold_ipc::queue::Room;
use commonhold_ipc::sync::{Half, Memory, Word};
use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use loom::thread;
use rkyv::util::AlignedVec;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32 as Count, Ordering::Relaxed};

/// Bytes of a short item's payload.
const SHORT: usize = 88;

/// What the processes share: words, half words and payloads, by where they lie. Each payload is one number.
pub struct Segment {
    words: Vec<(usize, AtomicU64)>,
    halves: Vec<(usize, AtomicU32)>,
    payloads: Vec<(usize, UnsafeCell<u8>)>,
    fenced: bool,
}

// SAFETY: loom's cells tell of every write at the same time as another access.
unsafe impl Sync for Segment {}

impl Segment {
    /// One with these words, all zero; `fenced` if accesses shall have one order.
    pub fn new(
        words: impl IntoIterator<Item = usize>,
        halves: impl IntoIterator<Item = usize>,
        payloads: impl IntoIterator<Item = usize>,
        fenced: bool,
    ) -> Arc<Segment> {
        Arc::new(Segment {
            words: words.into_iter().map(|at| (at, AtomicU64::new(0))).collect(),
            halves: halves.into_iter().map(|at| (at, AtomicU32::new(0))).collect(),
            payloads: payloads.into_iter().map(|at| (at, UnsafeCell::new(0))).collect(),
            fenced,
        })
    }

    fn order(&self) {
        if self.fenced {
            fence(Ordering::SeqCst);
        }
    }

    fn payload(&self, at: usize) -> &UnsafeCell<u8> {
        let found = self.payloads.iter().find(|(here, _)| *here == at);
        &found.unwrap_or_else(|| panic!("the model has no payload at {at}")).1
    }
}

/// What becomes of a process.
#[derive(Clone, Copy, PartialEq)]
pub enum Fate {
    Lives,
    /// Dies when it wants to write once more.
    Writes(u32),
    /// Its exchanges are a look and a store: what nobody must do.
    IsSloppy,
}

struct Life {
    left: Count,
    fate: Fate,
}

impl Life {
    fn spend(&self) {
        if let Fate::Writes(_) = self.fate
            && self.left.fetch_sub(1, Relaxed) == 0
        {
            resume_unwind(Box::new("killed"));
        }
    }
}

/// A word as a process sees it.
pub struct Seen {
    segment: Arc<Segment>,
    number: usize,
    life: Arc<Life>,
}

impl Seen {
    fn word(&self) -> &AtomicU64 {
        &self.segment.words[self.number].1
    }

    fn half(&self) -> &AtomicU32 {
        &self.segment.halves[self.number].1
    }
}

impl Word for Seen {
    fn load(&self) -> u64 {
        self.segment.order();
        self.word().load(Ordering::SeqCst)
    }

    fn store(&self, new: u64) {
        self.life.spend();
        self.word().store(new, Ordering::Relaxed);
    }

    fn set(&self, new: u64) {
        self.life.spend();
        self.word().store(new, Ordering::Release);
    }

    fn swap(&self, new: u64) -> u64 {
        self.life.spend();
        let old = self.word().swap(new, Ordering::SeqCst);
        self.segment.order();
        old
    }

    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        self.life.spend();
        if self.life.fate == Fate::IsSloppy {
            let now = self.word().load(Ordering::SeqCst);
            if now != old {
                return Err(now);
            }
            self.word().store(new, Ordering::SeqCst);
            return Ok(());
        }
        let done = self.word().compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(|_| ());
        self.segment.order();
        done
    }
}

impl Half for Seen {
    fn load(&self) -> u32 {
        self.segment.order();
        self.half().load(Ordering::SeqCst)
    }

    fn compare_exchange(&self, old: u32, new: u32) -> Result<(), u32> {
        self.life.spend();
        let done = self.half().compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(|_| ());
        self.segment.order();
        done
    }
}

/// A process's mapping of the segment, and what it has of its own.
pub struct Process<Own> {
    #[allow(dead_code)] // where they have nothing of their own
    pub own: Own,
    segment: Arc<Segment>,
    words: Vec<Seen>,
    halves: Vec<Seen>,
}

impl<Own: Default> Process<Own> {
    pub fn new(segment: &Arc<Segment>, fate: Fate) -> Process<Own> {
        let left = if let Fate::Writes(count) = fate { count } else { 0 };
        let life = Arc::new(Life { left: Count::new(left), fate });
        let seen = |count: usize| (0..count).map(|number| Seen { segment: segment.clone(), number, life: life.clone() }).collect();
        Process { own: Own::default(), segment: segment.clone(), words: seen(segment.words.len()), halves: seen(segment.halves.len()) }
    }
}

impl<Own> Memory for Process<Own> {
    type Word = Seen;
    type Half = Seen;

    fn word(&self, at: usize) -> &Seen {
        let number = self.segment.words.iter().position(|(here, _)| *here == at);
        &self.words[number.unwrap_or_else(|| panic!("the model has no word at {at}"))]
    }

    fn half(&self, at: usize) -> &Seen {
        let number = self.segment.halves.iter().position(|(here, _)| *here == at);
        &self.halves[number.unwrap_or_else(|| panic!("the model has no half word at {at}"))]
    }

    fn wake(&self, _: &Seen, _: u32) -> usize {
        0
    }
}

impl<Own> Room for Process<Own> {
    fn put(&self, at: usize, bytes: &[u8]) {
        // SAFETY: the protocol that is being tested says that nobody else touches it; loom panics if somebody does.
        self.segment.payload(at).with_mut(|byte| unsafe { *byte = bytes[0] });
    }

    fn get(&self, at: usize, len: usize, out: &mut AlignedVec<16>) {
        // SAFETY: as above.
        out.resize(out.len() + len, self.segment.payload(at).with(|byte| unsafe { *byte }));
    }

    fn get_short(&self, at: usize, out: &mut [u8; SHORT]) {
        // SAFETY: as above.
        out.fill(self.segment.payload(at).with(|byte| unsafe { *byte }));
    }

    fn get_plain(&self, _: usize, _: usize, _: &mut Vec<u8>) {
        unreachable!("the model's payloads are read as archives");
    }
}

/// Runs a model in every order that has no more than so many switches.
pub fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    // Most mistakes of such protocols show with two or three switches; without a bound the model takes hours.
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(model);
}

/// Runs a process; none is what it gives when it is killed.
pub fn in_thread<Own: Default, R: 'static>(
    segment: &Arc<Segment>,
    fate: Fate,
    run: impl FnOnce(&Process<Own>) -> R + 'static,
) -> thread::JoinHandle<Option<R>> {
    let segment = segment.clone();
    thread::spawn(move || {
        let process = Process::new(&segment, fate);
        match catch_unwind(AssertUnwindSafe(|| run(&process))) {
            Ok(result) => Some(result),
            // Only a killed process is silent.
            Err(why) if why.downcast_ref() == Some(&"killed") => None,
            Err(why) => resume_unwind(why),
        }
    })
}
