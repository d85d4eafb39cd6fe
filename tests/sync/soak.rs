//! Everything at once: processes that use all primitives at random and are killed at random, and an exact account at the end.
//!
//! `COMMONHOLD_SOAK_SECONDS` makes it longer than its two seconds, `COMMONHOLD_SOAK_SEED` makes it another one.

use crate::players::{Part, Player, Talk, World, line};
use crate::support::until;
use commonhold::{Barrier, BoundedSemaphore, Condition, Counter, Event, List, Lock, RLock, RwLock, Semaphore};
use std::time::{Duration, Instant};

pub const PARTS: &[(&str, Part)] = &[("soak::user", user)];

const USERS: usize = 8;
const PERMITS: usize = 3;
const PARTIES: usize = 2;

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
    let (again, signals, changed, pairs): (RLock, Semaphore, Condition, Barrier) =
        (talk.hear_handle(), talk.hear_handle(), talk.hear_handle(), talk.hear_handle());
    let seed: u64 = talk.hear().unwrap().parse().unwrap();
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    talk.say("ready");
    loop {
        let patience = Duration::from_millis(dice.below(10));
        match dice.below(12) {
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
            6 => {
                event.set().unwrap();
                event.clear().unwrap();
                event.wait_timeout(patience).unwrap();
            }
            7 => {
                let _outer = again.lock().unwrap();
                drop(again.lock_timeout(patience).unwrap().expect("it has it already"));
                assert!(again.holder().unwrap().is_some_and(|holder| holder.pid == std::process::id()));
            }
            // Signals: sent by one, used up by another. What was done is said: at a death the last may be missing.
            8 => {
                signals.release().unwrap();
                talk.say("sent");
            }
            9 => {
                if let Some(signal) = signals.try_acquire().unwrap() {
                    signal.forget();
                    talk.say("used");
                }
            }
            10 => {
                let guard = changed.lock().unwrap().into_guard();
                match dice.below(3) {
                    0 => drop(changed.wait_timeout(guard, patience).unwrap()),
                    1 => changed.notify_one().unwrap(),
                    _ => changed.notify_all().unwrap(),
                }
            }
            _ => match pairs.wait_timeout(patience) {
                Ok(place) => assert!(place < PARTIES),
                // Somebody's time was over, or somebody died: whoever sees it makes it whole again.
                Err(_) => pairs.reset().unwrap(),
            },
        }
    }
}

/// Ends one, and reads out what it has said: signals sent, less signals used.
fn end(mut player: Player) -> i64 {
    player.kill();
    let mut balance = 0;
    while let Some(line) = player.hear() {
        balance += if line == "sent" { 1 } else { -1 };
    }
    balance
}

#[test]
fn nothing_is_lost_in_a_crowd_that_dies() {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (seconds, mut seed) = (number("COMMONHOLD_SOAK_SECONDS", 2), number("COMMONHOLD_SOAK_SEED", 42));
    let world = World::of_processes();
    let manager = &world.manager;
    let (lock, rw, permits) = (manager.lock().unwrap(), manager.rw_lock().unwrap(), manager.bounded_semaphore(PERMITS).unwrap());
    let (event, pair, inside) = (manager.event().unwrap(), manager.list([0u64, 0]).unwrap(), manager.counter(0).unwrap());
    let (again, signals, changed) = (manager.rlock().unwrap(), manager.semaphore(0).unwrap(), manager.condition().unwrap());
    let pairs = manager.barrier(PARTIES).unwrap();
    let handles = [line(&lock), line(&rw), line(&permits), line(&event), line(&pair), line(&inside)];
    let handles: Vec<_> = handles.into_iter().chain([line(&again), line(&signals), line(&changed), line(&pairs)]).collect();
    let mut dice = Dice(seed);
    let mut start = || {
        let mut player = world.player("soak::user", &handles);
        seed += 1;
        player.say(seed);
        player.expect("ready");
        player
    };
    let mut players: Vec<_> = (0..USERS).map(|_| start()).collect();
    let (until_then, mut deaths, mut balance) = (Instant::now() + Duration::from_secs(seconds), 0, 0);
    while Instant::now() < until_then {
        let n = dice.below(USERS as u64) as usize;
        if dice.below(4) == 0 {
            players[n].stop();
            assert!(permits.holders().unwrap().len() <= PERMITS);
            if dice.below(2) == 0 {
                players[n].go_on();
                continue;
            }
        }
        balance += end(std::mem::replace(&mut players[n], start()));
        deaths += 1;
        // Whoever has died, this one comes to its turn.
        drop(lock.lock().unwrap());
        drop(permits.acquire().unwrap());
        drop(again.lock().unwrap());
    }
    deaths += players.len() as i64;
    balance += players.into_iter().map(end).sum::<i64>();
    until("all sessions are over", || world.sessions() == 1);
    println!("{deaths} deaths, {} permits taken, {} changes", inside.get().unwrap(), *pair.get(0).unwrap().unwrap());
    let _ = (lock.lock().unwrap(), rw.write().unwrap());
    assert_eq!((lock.to_string(), rw.to_string(), permits.to_string()), ("free".into(), "free".into(), format!("{PERMITS} available")));
    assert!(permits.release().is_err());
    assert_eq!(again.to_string(), "free");
    let available = signals.available().unwrap() as i64;
    assert!((available - balance).abs() <= deaths, "{balance} signals were said to be there, {available} are, {deaths} died");
    assert!(lock.waiters().unwrap().is_empty() && rw.waiters().unwrap().is_empty() && event.waiters().unwrap().is_empty());
    assert!(signals.holders().unwrap().is_empty() && changed.waiters().unwrap().is_empty() && again.waiters().unwrap().is_empty());
    manager.audit().unwrap();
    drop((lock, rw, permits, event, again, signals, changed, pairs));
    until("the segments are gone", || manager.stats().unwrap().segments == 0);
}
