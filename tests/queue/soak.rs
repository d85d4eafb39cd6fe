//! Many processes, random operations, random stops and deaths, exact accounting at the end.
//!
//! `COMMONHOLD_SOAK_SECONDS` makes it longer than its four seconds, `COMMONHOLD_SOAK_SEED` makes it another one. Each four seconds begin
//! with a queue of another kind, and end with its being closed, drained and accounted for.

use crate::bodies::payload;
use crate::players::{Part, Player, Talk, World, line};
use crate::support::{PATIENCE, until};
use commonhold::{Queue, QueueOptions};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub const PARTS: &[(&str, Part)] = &[("churn", churn)];

type Item = (u64, Vec<u8>);

/// Processes at a time.
const PLAYERS: u64 = 8;
/// Of one queue.
const ROUND: Duration = Duration::from_secs(4);

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
    let joinable = talk.hear().unwrap() == "joinable";
    let mut numbers = Numbers(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut next = seed << 20;
    // Received, and not yet said to be done.
    let mut owed = 0;
    loop {
        match numbers.next(9) {
            0..=3 => {
                next += 1;
                match queue.try_send((next, payload(next))) {
                    Ok(Ok(())) => talk.say(format!("in {next}")),
                    Ok(Err(back)) => assert_eq!(back.0, next),
                    Err(error) => assert!(error.is_closed(), "{error}"),
                }
            }
            4 | 5 => match queue.recv_timeout(Duration::from_millis(20)) {
                Ok(Some(item)) => {
                    talk.say(out(&item));
                    owed += u64::from(joinable);
                }
                Ok(None) => break,
                Err(error) => assert!(error.is_timed_out(), "{error}"),
            },
            6 => {
                if let Some(lease) = queue.try_lease().unwrap() {
                    talk.say(out(&lease.ack().unwrap()));
                }
            }
            7 => drop(queue.try_lease().unwrap()),
            _ => {
                for _ in 0..std::mem::take(&mut owed) {
                    queue.task_done().unwrap();
                }
            }
        }
    }
    (0..owed).for_each(|_| queue.task_done().unwrap());
    assert!(!joinable || queue.task_done().is_err(), "nothing more is owed");
    talk.say("done");
}

fn out(item: &Item) -> String {
    assert_eq!(item.1, payload(item.0));
    format!("out {}", item.0)
}

/// Each number's way in and out.
type Books = BTreeMap<u64, (u32, u32)>;

fn enter(books: &mut Books, line: &str) {
    let (way, number) = line.split_once(' ').unwrap();
    let count = books.entry(number.parse().unwrap()).or_default();
    *(if way == "in" { &mut count.0 } else { &mut count.1 }) += 1;
}

/// One queue's life.
fn round(world: &World, numbers: &mut Numbers, seed: &mut u64, end: Instant) -> (usize, u64) {
    let (joinable, attempts_max) = (numbers.next(2) == 0, [0, 3][numbers.next(2) as usize]);
    let options = QueueOptions::new().capacity(1 + numbers.next(60)).bytes_max((16 << 10) << numbers.next(6)).attempts_max(attempts_max);
    let queue = world.manager.queue_with::<Item>(if joinable { options.joinable() } else { options }).unwrap();
    let mut start = || {
        let mut player = world.player("churn", &[line(&queue)]);
        *seed += 1;
        player.say(*seed);
        player.say(if joinable { "joinable" } else { "not" });
        player
    };
    let mut players: Vec<Player> = (0..PLAYERS).map(|_| start()).collect();
    let (mut books, mut deaths) = (Books::new(), 0);
    while Instant::now() < end {
        // They churn meanwhile. Nothing is waited for: whenever the next one is killed or stopped, the books must be right.
        std::thread::sleep(Duration::from_millis(20 + numbers.next(60)));
        let which = numbers.next(PLAYERS) as usize;
        if numbers.next(3) == 0 {
            players[which].stop();
            // The others go on around it for a while, however far they come.
            std::thread::sleep(Duration::from_millis(numbers.next(30)));
            if numbers.next(2) == 0 {
                players[which].go_on();
                continue;
            }
        }
        players[which].kill();
        let mut dead = std::mem::replace(&mut players[which], start());
        while let Some(line) = dead.hear() {
            enter(&mut books, &line);
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
            enter(&mut books, &line);
        }
        player.finish();
    }
    until("all sessions are over", || world.sessions() == 1);
    assert_eq!(queue.recv().unwrap(), None);
    let mut dead_letters = 0;
    while let Some(item) = queue.dead_letters().try_recv().unwrap() {
        enter(&mut books, &out(&item));
        dead_letters += 1;
    }
    assert!(dead_letters == 0 || attempts_max != 0);
    assert!(queue.join_timeout(PATIENCE).unwrap(), "nobody works on anything any more");
    let odd: Vec<_> = books.iter().filter(|(_, count)| **count != (1, 1)).collect();
    println!("{} items, {dead_letters} dead letters, {deaths} deaths, in dying hands: {odd:?}", books.len());
    // One sent and not yet said, or received and not yet said, by each of the dead.
    assert!(odd.iter().all(|(_, count)| matches!(count, (0, 1) | (1, 0))), "{odd:?}");
    assert!(odd.len() as u64 <= deaths, "{} items in the hands of {deaths} dead", odd.len());
    assert_eq!((queue.len().unwrap(), queue.in_use().unwrap()), (0, (0, 0)));
    world.manager.audit().unwrap();
    (books.len(), deaths)
}

#[test]
fn nothing_is_lost_or_doubled_whoever_dies() {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let end = Instant::now() + Duration::from_secs(number("COMMONHOLD_SOAK_SECONDS", 4));
    let first = number("COMMONHOLD_SOAK_SEED", 42);
    let (mut numbers, mut seed) = (Numbers(first), first << 16);
    let world = World::of_processes();
    let (mut items, mut deaths) = (0, 0);
    while Instant::now() < end {
        let (more, died) = round(&world, &mut numbers, &mut seed, end.min(Instant::now() + ROUND));
        (items, deaths) = (items + more, deaths + died);
        until("the segment is gone", || world.manager.stats().unwrap().segments == 0);
    }
    println!("{items} items, {deaths} deaths");
}
