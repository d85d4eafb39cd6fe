//! `RLock`: a lock that its holder may take again.

use crate::fates::{deaths, stops};
use crate::players::{Part, Talk, World, line};
use crate::support::{PATIENCE, until};
use commonhold::{RLock, Value};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub const PARTS: &[(&str, Part)] = &[("rlock::adder", adder), ("rlock::taker", taker)];

/// How often an adder adds.
const ROUNDS: u64 = 100;

/// Adds under the lock twice over.
fn adder(talk: &mut Talk) {
    let (lock, value): (RLock, Value<u64>) = (talk.hear_handle(), talk.hear_handle());
    for _ in 0..ROUNDS {
        let _outer = lock.lock().unwrap().into_guard();
        let now = *value.get().unwrap();
        let _inner = lock.lock().unwrap().into_guard();
        value.set(now + 1).unwrap();
    }
    talk.say("done");
}

fn taker(talk: &mut Talk) {
    let lock: RLock = talk.hear_handle();
    for _ in 0..2 {
        let _outer = lock.lock().unwrap().into_guard();
        let _inner = lock.lock_timeout(Duration::from_millis(20)).unwrap().unwrap().into_guard();
        drop(lock.try_lock().unwrap().unwrap().into_guard());
    }
    talk.say("done");
}

#[test]
fn the_holder_takes_it_again() {
    for world in World::all() {
        let lock = world.manager.rlock().unwrap();
        let guards: Vec<_> = (0..5).map(|_| lock.lock().unwrap().into_guard()).collect();
        let other = lock.clone();
        std::thread::spawn(move || assert!(other.try_lock().unwrap().is_none())).join().unwrap();
        for guard in guards {
            assert!(lock.holder().unwrap().is_some());
            drop(guard);
        }
        assert_eq!(lock.to_string(), "free");
        let value = world.manager.value(0u64).unwrap();
        let mut players: Vec<_> = (0..3).map(|_| world.player("rlock::adder", &[line(&lock), line(&value)])).collect();
        players.iter_mut().for_each(|player| player.expect("done"));
        assert_eq!(*value.get().unwrap(), 3 * ROUNDS);
        players.into_iter().for_each(|player| player.finish());
        world.manager.audit().unwrap();
    }
}

#[test]
fn a_taker_dies_or_stops_at_every_point() {
    let world = World::of_processes();
    let lock = world.manager.rlock().unwrap();
    let told = AtomicU64::new(0);
    let others = |over: &AtomicBool| {
        while !over.load(Ordering::Relaxed) {
            told.fetch_add(u64::from(lock.lock().unwrap().owner_died()), Ordering::Relaxed);
        }
    };
    let deaths = deaths(&world, "rlock::taker", &[line(&lock)], others, |point| {
        let again = lock.lock().unwrap();
        assert!(told.swap(0, Ordering::Relaxed) + u64::from(again.owner_died()) <= 1, "point {point}");
        // Free after one guard, however often the dead one had it.
        drop(again.into_guard());
        assert_eq!(lock.to_string(), "free");
    });
    assert!(deaths > 8, "{deaths}");
    let stops = stops(&world, "rlock::taker", &[line(&lock)], || {
        let held = || lock.holder().unwrap().is_some();
        assert!(
            lock.lock_timeout(Duration::from_millis(20)).unwrap().is_some() || held() || lock.lock_timeout(PATIENCE).unwrap().is_some()
        );
    });
    assert!(stops > 8, "{stops}");
    until("it is free", || lock.to_string() == "free");
}
