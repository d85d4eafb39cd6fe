//! Everything at once: processes that use all primitives at random and are killed at random, and an exact account at the end.
//!
//! `COMMONHOLD_SOAK_SECONDS` makes it longer than its two seconds.

use crate::players::{Part, Talk, World, line};
use crate::support::until;
use commonhold::{BoundedSemaphore, Counter, Event, List, Lock, RwLock};
use std::time::{Duration, Instant};

pub const PARTS: &[(&str, Part)] = &[("soak::user", user)];

const USERS: usize = 6;
const PERMITS: usize = 3;

/// Random numbers (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// Uses everything, until it is killed.
fn user(talk: &mut Talk) {
    let (lock, rw, permits): (Lock, RwLock, BoundedSemaphore) = (talk.hear_handle(), talk.hear_handle(), talk.hear_handle());
    let (event, pair, inside): (Event, List<u64>, Counter) = (talk.hear_handle(), talk.hear_handle(), talk.hear_handle());
    let mut dice = Dice((u64::from(std::process::id()) * 0x9E37_79B9) | 1);
    talk.say("ready");
    loop {
        let patience = Duration::from_millis(dice.below(10));
        match dice.below(7) {
            0 => drop(lock.lock().unwrap()),
            1 => drop(lock.lock_timeout(patience).unwrap()),
            2 => {
                if let Some(acquired) = rw.write_timeout(patience).unwrap() {
                    // Whoever died in here may have left them different.
                    let now = *pair.get(0).unwrap().unwrap();
                    pair.set(1, now + 1).unwrap();
                    pair.set(0, now + 1).unwrap();
                    drop(acquired);
                }
            }
            3 => {
                let acquired = rw.read().unwrap();
                let same = *pair.get(0).unwrap().unwrap() == *pair.get(1).unwrap().unwrap();
                assert!(same || acquired.owner_died(), "half a change");
            }
            4 => {
                let _permit = permits.acquire().unwrap();
                inside.add(1).unwrap();
            }
            5 => drop(permits.acquire_timeout(patience).unwrap()),
            _ => {
                event.set().unwrap();
                event.clear().unwrap();
                event.wait_timeout(patience).unwrap();
            }
        }
    }
}

#[test]
fn nothing_is_lost_in_a_crowd_that_dies() {
    let seconds = std::env::var("COMMONHOLD_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(2);
    let world = World::of_processes();
    let manager = &world.manager;
    let (lock, rw, permits) = (manager.lock().unwrap(), manager.rw_lock().unwrap(), manager.bounded_semaphore(PERMITS).unwrap());
    let (event, pair, inside) = (manager.event().unwrap(), manager.list([0u64, 0]).unwrap(), manager.counter(0).unwrap());
    let handles = [line(&lock), line(&rw), line(&permits), line(&event), line(&pair), line(&inside)];
    let start = || {
        let mut player = world.player("soak::user", &handles);
        player.expect("ready");
        player
    };
    let mut dice = Dice(42);
    let mut players: Vec<_> = (0..USERS).map(|_| start()).collect();
    let (end, mut deaths) = (Instant::now() + Duration::from_secs(seconds), 0);
    while Instant::now() < end {
        let n = dice.below(USERS as u64) as usize;
        if dice.below(4) == 0 {
            players[n].stop();
            assert!(permits.holders().unwrap().len() <= PERMITS);
        }
        players[n].kill();
        players[n] = start();
        deaths += 1;
        // Whoever has died, this one comes to its turn.
        drop(lock.lock().unwrap());
        drop(permits.acquire().unwrap());
    }
    players.iter_mut().for_each(|player| player.kill());
    until("all sessions are over", || world.sessions() == 1);
    println!("{deaths} deaths, {} permits taken, {} changes", inside.get().unwrap(), *pair.get(0).unwrap().unwrap());
    let _ = (lock.lock().unwrap(), rw.write().unwrap());
    assert_eq!((lock.to_string(), rw.to_string(), permits.to_string()), ("free".into(), "free".into(), format!("{PERMITS} available")));
    assert!(permits.release().is_err());
    assert!(lock.waiters().unwrap().is_empty() && rw.waiters().unwrap().is_empty() && event.waiters().unwrap().is_empty());
    manager.audit().unwrap();
    drop((lock, rw, permits, event));
    until("the segments are gone", || manager.stats().unwrap().segments == 0);
}
