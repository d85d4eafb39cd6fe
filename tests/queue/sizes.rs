//! Very large items; and the memory that a queue has had for them goes back when it is not needed.

use crate::players::{Part, Talk, World, line};
use crate::support::{PATIENCE, Watched, state_of, until};
use commonhold::{Manager, Queue, QueueOptions};
use commonhold_ipc::points::CLIENT_STOP_VARIABLE;
use std::time::Instant;

pub const PARTS: &[(&str, Part)] = &[("send one", send_one)];

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// Sends one item that needs units.
fn send_one(talk: &mut Talk) {
    let queue: Queue<Vec<u8>> = talk.hear_handle();
    queue.send(bytes(100_000)).unwrap();
    talk.say("sent");
}

#[test]
fn a_gibibyte_passes() {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    let available = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10;
    // What is sent, the item, what is received; and others want to live.
    let enough = available > 8 << 30;
    let size = if enough { 1 << 30 } else { 256 << 20 };
    if !enough {
        println!("skipped: a GiB, for lack of memory ({} MiB are available); {} MiB instead", available >> 20, size >> 20);
    }
    let manager = Manager::builder().capacity(4 << 30).start().unwrap();
    // Text, which an unoptimised build does not look at byte by byte.
    let queue = manager.queue_with::<(String, String)>(QueueOptions::new().capacity(2).bytes_max(size + 4096)).unwrap();
    let text = |first: u8| {
        let mut text = vec![b' '; size as usize / 2];
        (0..text.len()).step_by(4096).for_each(|at| text[at] = first + (at >> 12) as u8 % 64);
        String::from_utf8(text).unwrap()
    };
    let item = (text(32), text(33));
    let used = Instant::now();
    queue.send(&item).unwrap();
    assert!(queue.try_send(&item).unwrap().is_err(), "there is room for one");
    let received = queue.recv().unwrap().unwrap();
    assert!(received == item);
    assert_eq!(queue.in_use().unwrap(), (0, 0));
    // The longer it was in use, which is long on a busy machine, the more seldom it is looked at: each half after half the time of the last.
    let (freed, most) = (Instant::now(), PATIENCE + 4 * used.elapsed());
    while manager.stats().unwrap().segment_bytes >= 64 << 20 {
        assert!(freed.elapsed() < most, "the memory is not given back");
        std::thread::yield_now();
    }
}

#[test]
fn memory_that_is_not_needed_goes_back_and_comes_again() {
    let manager = Manager::start().unwrap();
    let queue = manager.queue_with::<Vec<u8>>(QueueOptions::new().capacity(2_000)).unwrap();
    let first = manager.stats().unwrap().segment_bytes;
    for round in 0..2 {
        for _ in 0..4 {
            queue.send(bytes(1 << 20)).unwrap();
        }
        for _ in 0..1_500 {
            queue.send(bytes(10)).unwrap();
        }
        assert!(manager.stats().unwrap().segment_bytes >= first + (4 << 20) + 1_000 * 128);
        for _ in 0..4 {
            assert!(queue.recv().unwrap().unwrap() == bytes(1 << 20), "round {round}");
        }
        for _ in 0..1_500 {
            assert_eq!(queue.recv().unwrap().unwrap(), bytes(10));
        }
        // What stays: 64 units and the words of those that there were.
        until("the memory is given back", || manager.stats().unwrap().segment_bytes <= first + (128 << 10));
    }
    manager.audit().unwrap();
}

/// A sender that is stopped with an item in its hands keeps that item's memory, and finds it there when it goes on.
#[test]
fn memory_in_a_stopped_senders_hands_stays() {
    let world = World::of_processes();
    let queue = world.manager.queue_with::<Vec<u8>>(QueueOptions::new().capacity(100)).unwrap();
    let first = world.manager.stats().unwrap().segment_bytes;
    let mut in_hands = 0;
    for point in 1.. {
        let mut sender = world.doomed_player("send one", &[line(&queue)], CLIENT_STOP_VARIABLE, point);
        let watched = Watched::of(sender.role().pid());
        let mut stopped = false;
        until("it is stopped, or has ended", || {
            stopped = state_of(watched.pid) == Some('T');
            stopped || watched.has_ended()
        });
        let units = queue.in_use().unwrap().1;
        if stopped && units != 0 && in_hands < 2 {
            in_hands += 1;
            // One trial or the other of giving back meets it; others may use what lies beside it.
            queue.send(bytes(3 << 20)).unwrap();
            while let Some(item) = queue.try_recv().unwrap() {
                assert!(item == bytes(3 << 20) || item == bytes(100_000));
            }
            until("what is free is given back", || world.manager.stats().unwrap().segment_bytes <= first + (1 << 20));
        }
        if stopped {
            sender.go_on();
        }
        sender.expect("sent");
        sender.finish();
        while let Some(item) = queue.try_recv().unwrap() {
            assert!(item == bytes(100_000), "what it filled is what comes");
        }
        until("its session is over", || world.sessions() == 1);
        assert_eq!(queue.in_use().unwrap(), (0, 0));
        if !stopped {
            break;
        }
    }
    assert!(in_hands == 2, "it was stopped with units in its hands {in_hands} times");
    world.manager.audit().unwrap();
}
