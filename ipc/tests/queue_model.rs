#![allow(unsafe_code)] // loom hands out the contents of its cells as raw pointers
//! The queue, run in every order that loom finds, with processes that die before any of their writes: every item passes once, no
//! payload is read while it is written, and nothing is left behind.
//!
//! The crate's own algorithm runs on a model of a segment. Each process sees it through words of its own, which count its writes: one
//! that has none left ends there, as if killed. Loom takes SeqCst accesses for AcqRel ones: weaker than what the crate does, and
//! enough for all but the sleepers, who are in `sync_model`. The canaries break the exchange, or leave out the recovery, and must be
//! caught.

use commonhold_ipc::queue::{Begun, How, Parameters, Plan, Queue, Region, Room, Sent, Took};
use commonhold_ipc::sync::{Claim, Half, Memory, Word};
use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use loom::thread;
use rkyv::util::AlignedVec;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32 as Count, Ordering::Relaxed};

const ITEMS: u32 = 3;
const UNITS: usize = 2;
const ITEM_BYTES: usize = 128;
const INLINE: usize = 40;
/// A payload that does not fit into its item.
const LONG: usize = 100;

fn parameters() -> [u64; 4] {
    Parameters { capacity: 2, bytes_max: (UNITS as u64) << 10, attempts_max: 0, joinable: false }.words()
}

fn plan() -> Plan {
    Plan::with(parameters(), ITEMS, 8)
}

/// Where cells, units' words, items and units begin, in a plan of this size without pages: as `plan` has it.
const CELLS: usize = 512;
const UNIT_WORDS: usize = CELLS + 3 * 4 * 8;
const ITEMS_AT: usize = UNIT_WORDS + 8 * UNITS;
const UNITS_AT: usize = ITEMS_AT + ITEMS as usize * ITEM_BYTES;

struct Segment {
    words: Vec<(usize, AtomicU64)>,
    halves: Vec<(usize, AtomicU32)>,
    /// Payloads, by where they lie: each is one number.
    payloads: Vec<(usize, UnsafeCell<u8>)>,
}

// SAFETY: loom's cells tell of every write at the same time as another access.
unsafe impl Sync for Segment {}

impl Segment {
    fn new() -> Arc<Segment> {
        assert_eq!(plan().bytes(), UNITS_AT + UNITS * 1024, "the model knows where everything lies");
        let item_words = (0..ITEMS as usize).flat_map(|item| (0..INLINE).step_by(8).map(move |at| ITEMS_AT + item * ITEM_BYTES + at));
        let words =
            [96, 104, 112, 144, 152, 192, 256, 320, 328, 384, 392].into_iter().chain((CELLS..ITEMS_AT).step_by(8)).chain(item_words);
        let payloads =
            (0..ITEMS as usize).map(|item| ITEMS_AT + item * ITEM_BYTES + INLINE).chain((0..UNITS).map(|unit| UNITS_AT + unit * 1024));
        let segment = Arc::new(Segment {
            words: words.map(|at| (at, AtomicU64::new(0))).collect(),
            halves: (128..144).step_by(4).chain([160]).map(|at| (at, AtomicU32::new(0))).collect(),
            payloads: payloads.map(|at| (at, UnsafeCell::new(0))).collect(),
        });
        let manager = Process::new(&segment, Fate::Lives);
        manager.queue().back(Region::Items, 0, ITEMS.into());
        manager.queue().back(Region::Units, 0, UNITS as u64);
        segment
    }
}

/// What becomes of a process.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
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
struct Seen {
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
        self.word().swap(new, Ordering::SeqCst)
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
        self.word().compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(|_| ())
    }
}

impl Half for Seen {
    fn load(&self) -> u32 {
        self.half().load(Ordering::SeqCst)
    }

    fn compare_exchange(&self, old: u32, new: u32) -> Result<(), u32> {
        self.life.spend();
        self.half().compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(|_| ())
    }
}

/// A process's mapping of the segment.
struct Process {
    segment: Arc<Segment>,
    words: Vec<Seen>,
    halves: Vec<Seen>,
    plan: Plan,
}

impl Process {
    fn new(segment: &Arc<Segment>, fate: Fate) -> Process {
        let left = if let Fate::Writes(count) = fate { count } else { 0 };
        let life = Arc::new(Life { left: Count::new(left), fate });
        let seen = |count: usize| (0..count).map(|number| Seen { segment: segment.clone(), number, life: life.clone() }).collect();
        Process { segment: segment.clone(), words: seen(segment.words.len()), halves: seen(segment.halves.len()), plan: plan() }
    }

    fn queue(&self) -> Queue<'_, Process> {
        Queue::new(self, &self.plan)
    }
}

impl Memory for Process {
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

impl Room for Process {
    fn put(&self, at: usize, bytes: &[u8]) {
        let (_, cell) = self.segment.payloads.iter().find(|(here, _)| *here == at).expect("a payload's place");
        // SAFETY: the protocol that is being tested says that nobody else touches it; loom panics if somebody does.
        cell.with_mut(|byte| unsafe { *byte = bytes[0] });
    }

    fn get_short(&self, at: usize, out: &mut [u8; ITEM_BYTES - INLINE]) {
        let (_, cell) = self.segment.payloads.iter().find(|(here, _)| *here == at).expect("a payload's place");
        // SAFETY: as above.
        out.fill(cell.with(|byte| unsafe { *byte }));
    }

    fn get_plain(&self, _: usize, _: usize, _: &mut Vec<u8>) {
        unreachable!("the model's payloads are no archives");
    }

    fn get(&self, at: usize, len: usize, out: &mut AlignedVec<16>) {
        let (_, cell) = self.segment.payloads.iter().find(|(here, _)| *here == at).expect("a payload's place");
        // SAFETY: as above.
        out.resize(out.len() + len, cell.with(|byte| unsafe { *byte }));
    }
}

/// Sends a number. Whether there was room.
fn send(process: &Process, session: u64, number: u8, len: usize) -> bool {
    let (queue, me) = (process.queue(), Claim::new(session, 1));
    if len < LONG {
        return queue.send_short(me, &vec![number; len], 0).unwrap() == Sent::Done;
    }
    match queue.begin(me, len).unwrap() {
        Begun::Filling(mut filling) => {
            queue.fill(&mut filling, &vec![number; len]).unwrap();
            queue.publish(me, filling).unwrap() == Sent::Done
        }
        Begun::Not(sent) => {
            assert!(matches!(sent, Sent::Full | Sent::Grow(..)));
            false
        }
    }
}

/// Receives a number if there is one.
fn receive(process: &Process, session: u64) -> Option<u8> {
    let (queue, me) = (process.queue(), Claim::new(session, 1));
    let Took::Item(index) = queue.take(me, How::Receive).unwrap() else { return None };
    if let Some(short) = queue.read_short(index) {
        queue.deliver_short(me, index).unwrap();
        return Some(short.bytes()[0]);
    }
    let mut bytes = AlignedVec::new();
    queue.read(index, &mut bytes).unwrap();
    queue.deliver(me, index).unwrap();
    Some(bytes[0])
}

/// What two threads and the end have received: each number of `all` once, each of `perhaps` at most once.
fn balance(segment: &Arc<Segment>, received: Vec<Option<u8>>, all: &[u8], perhaps: &[u8]) {
    let last = Process::new(segment, Fate::Lives);
    let mut received: Vec<u8> = received.into_iter().flatten().chain(std::iter::from_fn(|| receive(&last, 9))).collect();
    received.sort_unstable();
    assert!(received.windows(2).all(|two| two[0] != two[1]), "an item came twice: {received:?}");
    assert!(all.iter().all(|number| received.contains(number)), "an item is lost: {received:?}");
    assert!(received.iter().all(|number| all.contains(number) || perhaps.contains(number)), "{received:?}");
    assert_eq!((last.queue().items_in_use(), last.queue().units_in_use()), (0, 0), "something is left behind");
}

fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    // Most mistakes of such protocols show with two or three switches; without a bound the model takes hours.
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(model);
}

fn in_thread(segment: &Arc<Segment>, fate: Fate, run: impl FnOnce(&Process) -> Option<u8> + 'static) -> thread::JoinHandle<Option<u8>> {
    let segment = segment.clone();
    thread::spawn(move || {
        let process = Process::new(&segment, fate);
        catch_unwind(AssertUnwindSafe(|| run(&process))).unwrap_or_else(|why| {
            // Only a killed process is silent.
            if why.downcast_ref() == Some(&"killed") { None } else { resume_unwind(why) }
        })
    })
}

fn two_receivers(fate: Fate, preemptions: usize) {
    check(preemptions, move || {
        let segment = Segment::new();
        assert!(send(&Process::new(&segment, Fate::Lives), 1, 7, 8));
        let other = in_thread(&segment, fate, |process| receive(process, 2));
        let mine = receive(&Process::new(&segment, fate), 3);
        balance(&segment, vec![mine, other.join().unwrap()], &[7], &[]);
    });
}

#[test]
fn one_of_two_receivers_gets_the_item() {
    two_receivers(Fate::Lives, 2);
}

#[test]
#[should_panic(expected = "an item came twice")]
fn canary_without_an_exchange_both_get_it() {
    two_receivers(Fate::IsSloppy, 2);
}

#[test]
fn two_senders_and_a_receiver() {
    check(1, || {
        let segment = Segment::new();
        let other = in_thread(&segment, Fate::Lives, |process| {
            assert!(send(process, 2, 2, LONG));
            None
        });
        let third = in_thread(&segment, Fate::Lives, |process| receive(process, 3));
        assert!(send(&Process::new(&segment, Fate::Lives), 1, 1, 8));
        balance(&segment, vec![other.join().unwrap(), third.join().unwrap()], &[1, 2], &[]);
    });
}

/// One sends into the place that the other makes free: the second lap.
#[test]
fn a_full_queue_takes_the_next_when_one_is_gone() {
    check(2, || {
        let segment = Segment::new();
        let first = Process::new(&segment, Fate::Lives);
        for number in [1, 2] {
            assert!(send(&first, 1, number, 8));
        }
        let receiver = in_thread(&segment, Fate::Lives, |process| receive(process, 2));
        let sent = send(&first, 1, 3, 8);
        let received = receiver.join().unwrap();
        assert_eq!(received, Some(1), "first in, first out");
        balance(&segment, vec![received], if sent { &[1, 2, 3] } else { &[1, 2] }, &[]);
    });
}

/// The manager takes free items and units out of use, and their memory away, beside a sender. (That it narrows the queue first is for
/// speed alone.)
fn taking_memory_away(region: Region, len: usize, fate: Fate) {
    check(2, move || {
        let segment = Segment::new();
        let sender = in_thread(&segment, Fate::Lives, move |process| send(process, 1, 1, len).then_some(1));
        let manager = Process::new(&segment, fate);
        let all = if region == Region::Items { u64::from(ITEMS) } else { UNITS as u64 };
        if manager.queue().withdraw(region, all, 0) == 0 {
            let places = segment.payloads.iter().filter(|(at, _)| (*at >= UNITS_AT) == (region == Region::Units));
            // SAFETY: nobody else touches what is out of use, says the protocol; loom panics if somebody does.
            places.for_each(|(_, cell)| cell.with_mut(|byte| unsafe { *byte = 0 }));
            manager.queue().back(region, 0, all);
        }
        let sent = sender.join().unwrap();
        balance(&segment, Vec::new(), if sent.is_some() { &[1] } else { &[] }, &[]);
    });
}

#[test]
fn what_a_sender_has_keeps_its_memory() {
    taking_memory_away(Region::Units, LONG, Fate::Lives);
    taking_memory_away(Region::Items, 8, Fate::Lives);
}

#[test]
#[should_panic]
fn canary_memory_is_taken_from_a_sender() {
    taking_memory_away(Region::Units, LONG, Fate::IsSloppy);
}

/// One dies before its `writes`-th write, beside a receiver; then the manager recovers. And one dies alone, and the manager recovers
/// beside a receiver.
fn dying(len: usize, fate: Fate, recovers: bool, run: fn(&Process, usize) -> Option<u8>, surely: &'static [u8]) {
    let segment_with_items = move || {
        let segment = Segment::new();
        let first = Process::new(&segment, Fate::Lives);
        assert!(send(&first, 1, 1, len));
        segment
    };
    let recover = move |segment: &Arc<Segment>| {
        if recovers {
            Process::new(segment, Fate::Lives).queue().recover(5);
        }
    };
    check(1, move || {
        let segment = segment_with_items();
        let doomed = in_thread(&segment, fate, move |process| run(process, len));
        let mine = receive(&Process::new(&segment, Fate::Lives), 1);
        let last = doomed.join().unwrap();
        recover(&segment);
        balance(&segment, vec![mine, last], surely, &[1, 5]);
    });
    check(1, move || {
        let segment = segment_with_items();
        let last = in_thread(&segment, fate, move |process| run(process, len)).join().unwrap();
        let other = in_thread(&segment, Fate::Lives, |process| receive(process, 2));
        recover(&segment);
        balance(&segment, vec![last, other.join().unwrap()], surely, &[1, 5]);
    });
}

fn dying_sender(len: usize, writes: u32, recovers: bool) {
    let run = |process: &Process, len| {
        send(process, 5, 5, len);
        None
    };
    dying(len, Fate::Writes(writes), recovers, run, &[1]);
}

/// More writes than sending or receiving takes.
const WRITES: u32 = 14;

#[test]
fn a_dying_sender_leaves_the_item_or_nothing() {
    for writes in 0..WRITES {
        dying_sender(8, writes, true);
    }
}

#[test]
fn a_dying_sender_leaves_no_units() {
    for writes in 0..WRITES {
        dying_sender(LONG, writes, true);
    }
}

#[test]
#[should_panic(expected = "something is left behind")]
fn canary_without_recovery_a_dying_sender_leaves_something() {
    dying_sender(8, 2, false);
}

/// The item may have been delivered and not returned: in dying hands.
fn dying_receiver(len: usize, writes: u32, recovers: bool) {
    dying(len, Fate::Writes(writes), recovers, |process, _| receive(process, 5), &[]);
}

#[test]
fn a_dying_receiver_doubles_nothing() {
    for writes in 0..WRITES {
        dying_receiver(8, writes, true);
    }
}

#[test]
fn a_dying_receiver_leaves_no_units() {
    for writes in 0..WRITES {
        dying_receiver(LONG, writes, true);
    }
}

#[test]
#[should_panic(expected = "something is left behind")]
fn canary_without_recovery_a_dying_receiver_keeps_something() {
    dying_receiver(8, 1, false);
}
