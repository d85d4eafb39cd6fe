//! A line's memory under loom: rings of two bytes, both sides' code as it is, in every order that loom finds. What is sent arrives once, in
//! order and whole; no byte is written while it is copied; and nobody sleeps on who has not been rung for.
//!
//! The socket is a condition variable here, so that loom finds who waits for ever. The canaries leave one step out and must be caught.

use commonhold_ipc::line::{End, LineWords, Side, Wanted};
use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use rkyv::util::AlignedVec;
use std::sync::atomic::AtomicU8;

const RING: usize = 2;

/// What is left out.
#[derive(Clone, Copy, PartialEq)]
enum LeftOut {
    Nothing,
    Fences,
    ReleaseOfWritten,
    ReleaseOfRead,
    NumberOfSleep,
}

struct Memory {
    written: [AtomicU64; 2],
    read: [AtomicU64; 2],
    looking: [AtomicU64; 2],
    /// Bytes, and cells by which loom sees who is at them.
    rings: [[(UnsafeCell<()>, AtomicU8); RING]; 2],
    /// Whether a side has been rung for.
    rung: [(Mutex<bool>, Condvar); 2],
    left_out: LeftOut,
}

impl Memory {
    fn new(left_out: LeftOut) -> Self {
        let words = || [AtomicU64::new(0), AtomicU64::new(0)];
        let ring = || [0, 0].map(|byte| (UnsafeCell::new(()), AtomicU8::new(byte)));
        let rung = [0; 2].map(|_| (Mutex::new(false), Condvar::new()));
        // Both are awake.
        let looking = [AtomicU64::new(1), AtomicU64::new(1)];
        Memory { written: words(), read: words(), looking, rings: [ring(), ring()], rung, left_out }
    }

    fn release(&self, unless: LeftOut) -> Ordering {
        if self.left_out == unless { Ordering::Relaxed } else { Ordering::Release }
    }
}

struct Words(Arc<Memory>);

impl LineWords for Words {
    const RING: u64 = RING as u64;

    fn written(&self, side: Side) -> u64 {
        self.0.written[side as usize].load(Ordering::Acquire)
    }

    fn set_written(&self, side: Side, bytes: u64) {
        self.0.written[side as usize].store(bytes, self.0.release(LeftOut::ReleaseOfWritten));
    }

    fn read(&self, side: Side) -> u64 {
        self.0.read[side as usize].load(Ordering::Acquire)
    }

    fn set_read(&self, side: Side, bytes: u64) {
        self.0.read[side as usize].store(bytes, self.0.release(LeftOut::ReleaseOfRead));
    }

    fn looking(&self, side: Side) -> u64 {
        self.0.looking[side as usize].load(Ordering::Relaxed)
    }

    fn set_looking(&self, side: Side, looking: u64) {
        let looking = if self.0.left_out == LeftOut::NumberOfSleep { looking & 3 } else { looking };
        self.0.looking[side as usize].store(looking, Ordering::Relaxed);
    }

    fn fence(&self) {
        if self.0.left_out != LeftOut::Fences {
            fence(Ordering::SeqCst);
        }
    }

    fn copy_in(&self, side: Side, at: u64, bytes: &[u8]) {
        for (n, byte) in bytes.iter().enumerate() {
            let (cell, place) = &self.0.rings[side as usize][at as usize + n];
            cell.with_mut(|_| place.store(*byte, std::sync::atomic::Ordering::Relaxed));
        }
    }

    fn copy_out(&self, side: Side, at: u64, len: usize, out: &mut AlignedVec<16>) {
        for n in 0..len {
            let (cell, place) = &self.0.rings[side as usize][at as usize + n];
            out.push(cell.with(|_| place.load(std::sync::atomic::Ordering::Relaxed)));
        }
    }
}

struct Party {
    end: End<Words>,
    memory: Arc<Memory>,
    side: Side,
}

impl Party {
    fn new(memory: &Arc<Memory>, side: Side) -> Self {
        Party { end: End::new(Words(memory.clone()), side), memory: memory.clone(), side }
    }

    fn ring(&self) {
        let (rung, bell) = &self.memory.rung[self.side.other() as usize];
        *rung.lock().unwrap() = true;
        bell.notify_one();
    }

    /// Waits as `LineEnd` does. A sleeper that nobody rings for waits for ever, which loom reports as a deadlock.
    fn wait(&self, wanted: Wanted) {
        while !self.end.is_ready(wanted) {
            let (may_sleep, must_ring) = self.end.fall_asleep(wanted);
            if must_ring {
                self.ring();
            }
            if may_sleep {
                let (rung, bell) = &self.memory.rung[self.side as usize];
                let mut rung = rung.lock().unwrap();
                while !*rung {
                    rung = bell.wait(rung).unwrap();
                }
                *rung = false;
            }
            self.end.awake();
        }
    }

    fn send(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let sent = self.end.send(bytes).unwrap();
            if sent.must_ring {
                self.ring();
            }
            bytes = &bytes[sent.count..];
            if !bytes.is_empty() {
                self.wait(Wanted::Room);
            }
        }
    }

    fn receive(&self, most: usize, out: &mut AlignedVec<16>) {
        if self.end.receive(most, out).unwrap().1 {
            self.ring();
        }
    }
}

fn check(left_out: LeftOut, body: impl Fn(LeftOut) + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || body(left_out));
}

/// One side sends more than the ring holds, so that it waits for room and its place is used again; the other takes it byte by byte.
fn one_way(left_out: LeftOut) {
    let memory = Arc::new(Memory::new(left_out));
    let sender = thread::spawn({
        let memory = memory.clone();
        move || Party::new(&memory, Side::Client).send(b"abc")
    });
    let host = Party::new(&memory, Side::Host);
    let mut got = AlignedVec::new();
    while got.len() < 3 {
        host.wait(Wanted::Bytes);
        host.receive(1, &mut got);
    }
    assert_eq!(&got[..], b"abc");
    sender.join().unwrap();
}

/// A call and its answer.
fn there_and_back(left_out: LeftOut) {
    let memory = Arc::new(Memory::new(left_out));
    let caller = thread::spawn({
        let memory = memory.clone();
        move || {
            let client = Party::new(&memory, Side::Client);
            client.send(b"q");
            client.wait(Wanted::Bytes);
            let mut got = AlignedVec::new();
            client.receive(2, &mut got);
            assert_eq!(&got[..], b"a");
        }
    });
    let host = Party::new(&memory, Side::Host);
    host.wait(Wanted::Bytes);
    let mut got = AlignedVec::new();
    host.receive(2, &mut got);
    assert_eq!(&got[..], b"q");
    host.send(b"a");
    caller.join().unwrap();
}

/// One side sends a byte, or makes room for one, while the other is about to sleep until then: if it does, it is rung for.
fn nobody_sleeps_on(left_out: LeftOut, wanted: Wanted) {
    let memory = Arc::new(Memory::new(left_out));
    let (client, host) = (Party::new(&memory, Side::Client), Party::new(&memory, Side::Host));
    if wanted == Wanted::Room {
        assert_eq!(client.end.send(b"ab").unwrap().count, RING);
    }
    let sleeper = if wanted == Wanted::Room { client } else { host };
    let other = sleeper.side.other();
    let waiting = thread::spawn(move || !sleeper.end.is_ready(wanted) && sleeper.end.fall_asleep(wanted).0);
    let party = Party::new(&memory, other);
    let rings = match wanted {
        Wanted::Room => party.end.receive(1, &mut AlignedVec::new()).unwrap().1,
        _ => party.end.send(b"q").unwrap().must_ring,
    };
    assert!(!waiting.join().unwrap() || rings, "somebody sleeps on");
}

#[test]
fn who_falls_asleep_is_rung_for() {
    check(LeftOut::Nothing, |left_out| nobody_sleeps_on(left_out, Wanted::Bytes));
    check(LeftOut::Nothing, |left_out| nobody_sleeps_on(left_out, Wanted::Room));
}

#[test]
#[should_panic(expected = "somebody sleeps on")]
fn canary_without_fences_bytes_are_slept_through() {
    check(LeftOut::Fences, |left_out| nobody_sleeps_on(left_out, Wanted::Bytes));
}

#[test]
#[should_panic(expected = "somebody sleeps on")]
fn canary_without_fences_room_is_slept_through() {
    check(LeftOut::Fences, |left_out| nobody_sleeps_on(left_out, Wanted::Room));
}

#[test]
fn bytes_arrive_in_order_through_a_ring_that_is_too_small() {
    check(LeftOut::Nothing, one_way);
}

#[test]
fn a_call_is_answered() {
    check(LeftOut::Nothing, there_and_back);
}

/// Two rows of bytes, each to one who sleeps or is about to: a ring for the first sleep says nothing of the second.
fn twice(left_out: LeftOut) {
    let memory = Arc::new(Memory::new(left_out));
    let sender = thread::spawn({
        let memory = memory.clone();
        move || {
            let client = Party::new(&memory, Side::Client);
            client.send(b"a");
            client.send(b"b");
        }
    });
    let host = Party::new(&memory, Side::Host);
    let mut got = AlignedVec::new();
    while got.len() < 2 {
        host.wait(Wanted::Bytes);
        host.receive(2, &mut got);
    }
    assert_eq!(&got[..], b"ab");
    sender.join().unwrap();
}

#[test]
fn every_sleep_is_rung_for() {
    check(LeftOut::Nothing, twice);
}

#[test]
#[should_panic]
fn canary_without_its_number_a_second_sleep_is_not_rung_for() {
    check(LeftOut::NumberOfSleep, twice);
}

#[test]
#[should_panic]
fn canary_without_release_bytes_are_copied_before_they_are_there() {
    check(LeftOut::ReleaseOfWritten, there_and_back);
}

#[test]
#[should_panic]
fn canary_without_release_bytes_are_overwritten_while_they_are_copied() {
    check(LeftOut::ReleaseOfRead, one_way);
}
