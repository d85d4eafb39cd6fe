//! Many processes, random operations, random deaths, exact accounting at the end. `COMMONHOLD_SOAK_SECONDS` makes it longer.

use crate::bodies::payload;
use crate::players::{Part, Talk, World, line};
use crate::support::until;
use commonhold::{Queue, QueueOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

pub const PARTS: &[(&str, Part)] = &[("churn", churn)];

type Item = (u64, Vec<u8>);

/// A small generator of numbers: the same seed gives the same ones.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }
}

/// Sends and receives until the queue is closed and drained. Says what it has done in order: at its death the last may be missing.
fn churn(talk: &mut Talk) {
    let queue: Queue<Item> = talk.hear_handle();
    let seed: u64 = talk.hear().unwrap().parse().unwrap();
    let mut numbers = Numbers(seed);
    let mut next = seed << 20;
    loop {
        match numbers.next(8) {
            0..=3 => {
                next += 1;
                match queue.try_send((next, payload(next))) {
                    Ok(true) => talk.say(format!("in {next}")),
                    Ok(false) => {}
                    Err(error) => assert!(error.is_closed(), "{error}"),
                }
            }
            4 | 5 => match queue.recv_timeout(Duration::from_millis(20)) {
                Ok(Some(item)) => talk.say(out(&item)),
                Ok(None) => return talk.say("done"),
                Err(error) => assert!(error.is_timed_out(), "{error}"),
            },
            6 => {
                if let Some(lease) = queue.try_lease().unwrap() {
                    talk.say(out(&lease.ack().unwrap()));
                }
            }
            _ => drop(queue.try_lease().unwrap()),
        }
    }
}

fn out(item: &Item) -> String {
    assert_eq!(item.1, payload(item.0));
    format!("out {}", item.0)
}

#[test]
fn nothing_is_lost_or_doubled_whoever_dies() {
    const PLAYERS: u64 = 8;
    let seconds = std::env::var("COMMONHOLD_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let world = World::of_processes();
    let queue = world.manager.queue_with::<Item>(QueueOptions::new().capacity(50).bytes_max(256 << 10)).unwrap();
    let mut seed = 1;
    let mut start = |world: &World, queue: &Queue<Item>| {
        let mut player = world.player("churn", &[line(queue)]);
        player.say(seed);
        seed += 1;
        player
    };
    let mut players: Vec<_> = (0..PLAYERS).map(|_| start(&world, &queue)).collect();
    let mut numbers = Numbers(42);
    let (mut lines, mut deaths) = (Vec::new(), 0u64);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20 + numbers.next(60)));
        let which = numbers.next(PLAYERS) as usize;
        players[which].kill();
        let mut dead = std::mem::replace(&mut players[which], start(&world, &queue));
        while let Some(line) = dead.hear() {
            lines.push(line);
        }
        deaths += 1;
    }
    queue.close().unwrap();
    for mut player in players {
        loop {
            let line = player.hear().expect("a survivor comes to its end");
            if line == "done" {
                break;
            }
            lines.push(line);
        }
        player.finish();
    }
    until("all sessions are over", || world.sessions() == 1);
    assert_eq!(queue.recv().unwrap(), None);
    let mut counts: BTreeMap<u64, (u32, u32)> = BTreeMap::new();
    for line in &lines {
        let (way, number) = line.split_once(' ').unwrap();
        let count = counts.entry(number.parse().unwrap()).or_default();
        *(if way == "in" { &mut count.0 } else { &mut count.1 }) += 1;
    }
    let odd: BTreeSet<_> = counts.iter().filter(|(_, count)| **count != (1, 1)).collect();
    println!("{} items, {deaths} deaths, in dying hands: {odd:?}", counts.len());
    // One sent and not yet said, or received and not yet said, by each of the dead.
    assert!(odd.iter().all(|(_, count)| matches!(count, (0, 1) | (1, 0))), "{odd:?}");
    assert!(odd.len() as u64 <= deaths, "{} items in the hands of {deaths} dead", odd.len());
    assert_eq!((queue.len().unwrap(), queue.in_use().unwrap()), (0, (0, 0)));
    world.manager.audit().unwrap();
}
