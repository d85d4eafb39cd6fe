//! The queue, run in every order that loom finds, with processes that die before any of their writes: every item passes once, no
//! payload is read while it is written, and nothing is left behind.
//!
//! The crate's own algorithm runs on the segment of `mortal`, without fences: enough for all but the sleepers, who are in `sync_model`. The
//! canaries break the exchange, or leave out the recovery, and must be caught.

mod mortal;

use commonhold_ipc::queue::{Begun, How, Parameters, Plan, Queue, Region, Room, Sent, Took};
use commonhold_ipc::sync::Claim;
use mortal::{Fate, Segment, check, in_thread};
use rkyv::util::AlignedVec;
use std::sync::Arc;

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

/// Each process has a plan of its own, which learns.
struct OwnPlan(Plan);

impl Default for OwnPlan {
    fn default() -> Self {
        OwnPlan(plan())
    }
}

type Process = mortal::Process<OwnPlan>;

/// Where cells, units' words, items and units begin, in a plan of this size without pages: as the plan has it.
const CELLS: usize = 512;
const UNIT_WORDS: usize = CELLS + 3 * 4 * 8;
const ITEMS_AT: usize = UNIT_WORDS + 8 * UNITS;
const UNITS_AT: usize = ITEMS_AT + ITEMS as usize * ITEM_BYTES;

/// Where payloads lie that are in items, and in units.
fn payloads(region: Region) -> impl Iterator<Item = usize> {
    let (first, step, count) = match region {
        Region::Items => (ITEMS_AT + INLINE, ITEM_BYTES, ITEMS as usize),
        Region::Units => (UNITS_AT, 1024, UNITS),
    };
    (0..count).map(move |number| first + number * step)
}

fn new_segment() -> Arc<Segment> {
    assert_eq!(plan().bytes(), UNITS_AT + UNITS * 1024, "the model knows where everything lies");
    let item_words = (0..ITEMS as usize).flat_map(|item| (0..INLINE).step_by(8).map(move |at| ITEMS_AT + item * ITEM_BYTES + at));
    let words = [96, 104, 112, 144, 152, 192, 256, 320, 328, 384, 392].into_iter().chain((CELLS..ITEMS_AT).step_by(8)).chain(item_words);
    let halves = (128..144).step_by(4).chain([160]);
    let segment = Segment::new(words, halves, payloads(Region::Items).chain(payloads(Region::Units)), false);
    let manager = Process::new(&segment, Fate::Lives);
    manager.queue().back(Region::Items, 0, ITEMS.into());
    manager.queue().back(Region::Units, 0, UNITS as u64);
    segment
}

impl Process {
    fn queue(&self) -> Queue<'_, Process> {
        Queue::new(self, &self.own.0)
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

fn two_receivers(fate: Fate, preemptions: usize) {
    check(preemptions, move || {
        let segment = new_segment();
        assert!(send(&Process::new(&segment, Fate::Lives), 1, 7, 8));
        let other = in_thread(&segment, fate, |process| receive(process, 2));
        let mine = receive(&Process::new(&segment, fate), 3);
        balance(&segment, vec![mine, other.join().unwrap().flatten()], &[7], &[]);
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
        let segment = new_segment();
        let other = in_thread(&segment, Fate::Lives, |process| {
            assert!(send(process, 2, 2, LONG));
            None
        });
        let third = in_thread(&segment, Fate::Lives, |process| receive(process, 3));
        assert!(send(&Process::new(&segment, Fate::Lives), 1, 1, 8));
        balance(&segment, vec![other.join().unwrap().flatten(), third.join().unwrap().flatten()], &[1, 2], &[]);
    });
}

/// One sends into the place that the other makes free: the second lap.
#[test]
fn a_full_queue_takes_the_next_when_one_is_gone() {
    check(2, || {
        let segment = new_segment();
        let first = Process::new(&segment, Fate::Lives);
        for number in [1, 2] {
            assert!(send(&first, 1, number, 8));
        }
        let receiver = in_thread(&segment, Fate::Lives, |process| receive(process, 2));
        let sent = send(&first, 1, 3, 8);
        let received = receiver.join().unwrap().flatten();
        assert_eq!(received, Some(1), "first in, first out");
        balance(&segment, vec![received], if sent { &[1, 2, 3] } else { &[1, 2] }, &[]);
    });
}

/// The manager takes free items and units out of use, and their memory away, beside a sender. (That it narrows the queue first is for
/// speed alone.)
fn taking_memory_away(region: Region, len: usize, fate: Fate) {
    check(2, move || {
        let segment = new_segment();
        let sender = in_thread(&segment, Fate::Lives, move |process| send(process, 1, 1, len).then_some(1));
        let manager = Process::new(&segment, fate);
        let all = if region == Region::Items { u64::from(ITEMS) } else { UNITS as u64 };
        if manager.queue().withdraw(region, all, 0) == 0 {
            // Nobody else touches what is out of use.
            payloads(region).for_each(|at| manager.put(at, &[0]));
            manager.queue().back(region, 0, all);
        }
        let sent = sender.join().unwrap().flatten();
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
        let segment = new_segment();
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
        let last = doomed.join().unwrap().flatten();
        recover(&segment);
        balance(&segment, vec![mine, last], surely, &[1, 5]);
    });
    check(1, move || {
        let segment = segment_with_items();
        let last = in_thread(&segment, fate, move |process| run(process, len)).join().unwrap().flatten();
        let other = in_thread(&segment, Fate::Lives, |process| receive(process, 2));
        recover(&segment);
        balance(&segment, vec![last, other.join().unwrap().flatten()], surely, &[1, 5]);
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
