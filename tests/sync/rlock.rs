//! `RLock`: a lock that its holder may take again.

use crate::fates::{deaths, stops};
use crate::players::{Part, Talk, World, line};
use crate::support::{PATIENCE, PROMPT, process_of, until};
use crate::vandal::Vandal;
use commonhold::{Manager, RLock, Value};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub const PARTS: &[(&str, Part)] = &[("rlock::adder", adder), ("rlock::taker", taker)];

/// Where the depth is.
const DEPTH: usize = 8;
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
fn the_managers_death_wakes_who_waits() {
    let manager = Manager::start().unwrap();
    let lock = manager.rlock().unwrap();
    let guards = (lock.lock().unwrap(), lock.lock().unwrap());
    let waiting = std::thread::spawn({
        let lock = lock.clone();
        move || lock.lock().map(drop)
    });
    until("it waits", || lock.waiters().unwrap().len() == 1);
    process_of(&manager).kill();
    let before = Instant::now();
    assert!(waiting.join().unwrap().unwrap_err().is_disconnected());
    assert!(before.elapsed() < PROMPT);
    drop(guards);
}

/// How often it is taken is a word, too: it is given back too early or never, and nothing else suffers.
#[test]
fn scribbled_words_are_that_locks_affair() {
    let manager = Manager::start().unwrap();
    let (lock, other) = (manager.rlock().unwrap(), manager.rlock().unwrap());
    let vandal = Vandal::attach(&manager, &lock);
    for depth in [0, 1, 2, u64::MAX] {
        let outer = lock.lock().unwrap();
        let inner = lock.lock().unwrap();
        vandal.write(DEPTH, depth);
        drop(inner);
        drop(outer);
        // Whoever comes next gets it, if it was given back, and begins anew; else a time-out.
        let again = std::thread::scope(|scope| {
            let got = scope.spawn(|| lock.lock_timeout(Duration::from_millis(20)).unwrap().map(drop));
            got.join().unwrap()
        });
        assert_eq!(again.is_some(), depth <= 2, "{depth}");
        drop(other.lock().unwrap());
        manager.audit().unwrap();
    }
    drop(vandal);
    until("its session is over", || manager.stats().unwrap().sessions == 1);
    manager.audit().unwrap();
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
