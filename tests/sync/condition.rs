//! `Condition`: waiting for something under a lock.

use crate::fates::{deaths, stops};
use crate::players::{Part, Talk, World, line};
use crate::support::{PROMPT, process_of, until};
use crate::vandal::Vandal;
use commonhold::{Condition, ErrorKind, List, Lock, Manager};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const PARTS: &[(&str, Part)] = &[
    ("condition::consumer", consumer),
    ("condition::waiter", waiter),
    ("condition::user", user),
    ("condition::patient", patient),
    ("condition::locker", locker),
];

/// Words of a condition that has its lock in it.
const CONDITION_WORDS: usize = 72;

/// Takes elements until it takes a zero.
fn consumer(talk: &mut Talk) {
    let (condition, jobs): (Condition, List<u64>) = (talk.hear_handle(), talk.hear_handle());
    let mut sum = 0;
    loop {
        let guard = condition.lock().unwrap().into_guard();
        let (_guard, _) = condition.wait_for(guard, || Ok(!jobs.is_empty()?), None).unwrap();
        match *jobs.pop().unwrap().unwrap() {
            0 => break,
            number => sum += number,
        }
    }
    talk.say(sum);
}

fn waiter(talk: &mut Talk) {
    let condition: Condition = talk.hear_handle();
    let guard = condition.lock().unwrap().into_guard();
    let again = condition.wait(guard).unwrap();
    talk.say(if again.owner_died() { "died" } else { "woken" });
}

/// Holds the lock that a condition was made for.
fn locker(talk: &mut Talk) {
    let lock: Lock = talk.hear_handle();
    let _guard = lock.lock().unwrap().into_guard();
    talk.say("locked");
    talk.hear();
}

fn user(talk: &mut Talk) {
    let condition: Condition = talk.hear_handle();
    for _ in 0..2 {
        let guard = condition.lock().unwrap().into_guard();
        let (guard, _) = condition.wait_timeout(guard, Duration::from_millis(3)).unwrap();
        condition.notify_one().unwrap();
        drop(guard);
        condition.notify_all().unwrap();
    }
    talk.say("done");
}

/// Waits as long as it takes.
fn patient(talk: &mut Talk) {
    let condition: Condition = talk.hear_handle();
    let guard = condition.lock().unwrap().into_guard();
    let guard = condition.wait(guard).unwrap().into_guard();
    let mut looks = 0;
    let (guard, happened) = condition
        .wait_for(
            guard,
            || {
                looks += 1;
                Ok(looks == 3)
            },
            None,
        )
        .unwrap();
    assert!(happened);
    drop(guard);
    talk.say("done");
}

#[test]
fn waiting_and_notifying() {
    for World { manager, .. } in World::all() {
        for condition in [manager.condition().unwrap(), manager.condition_with(&manager.lock().unwrap()).unwrap()] {
            let guard = condition.lock().unwrap().into_guard();
            let before = Instant::now();
            let (again, notified) = condition.wait_timeout(guard, Duration::from_millis(30)).unwrap();
            assert!(!notified && before.elapsed() >= Duration::from_millis(30));
            let (again, happened) = condition.wait_for(again.into_guard(), || Ok(false), Duration::from_millis(5)).unwrap();
            assert!(!happened);
            let (again, happened) = condition.wait_for(again.into_guard(), || Ok(true), None).unwrap();
            assert!(happened && condition.holder().unwrap().is_some());
            drop(again);
            assert_eq!(condition.to_string(), "free");
            let stranger = manager.lock().unwrap();
            let guard = stranger.lock().unwrap().into_guard();
            assert_eq!(condition.wait(guard).unwrap_err().kind(), ErrorKind::Refused);
            assert!(stranger.holder().unwrap().is_none());
            condition.notify_one().unwrap();
            condition.notify_all().unwrap();
            manager.audit().unwrap();
        }
    }
}

#[test]
fn a_condition_keeps_the_lock_that_it_is_for() {
    let world = World::of_processes();
    let manager = &world.manager;
    let lock = manager.lock().unwrap();
    let (first, second) = (manager.condition_with(&lock).unwrap(), manager.condition_with(&lock).unwrap());
    let guard = first.lock().unwrap().into_guard();
    assert!(second.try_lock().unwrap().is_none() && lock.try_lock().unwrap().is_none());
    drop(guard);
    let mut player = world.player("condition::locker", &[line(&lock)]);
    player.expect("locked");
    drop(lock);
    manager.audit().unwrap();
    assert!(first.try_lock().unwrap().is_none());
    player.kill();
    assert!(first.lock().unwrap().owner_died());
    drop(first);
    manager.audit().unwrap();
    assert!(!second.lock().unwrap().owner_died());
    drop(second);
    until("all is gone", || manager.stats().unwrap().segments == 0);
    manager.audit().unwrap();
    let elsewhere = Manager::in_process().unwrap().lock().unwrap();
    assert_eq!(manager.condition_with(&elsewhere).unwrap_err().kind(), ErrorKind::Refused);
}

#[test]
fn consumers_get_what_is_produced() {
    for world in World::all() {
        let (condition, jobs) = (world.manager.condition().unwrap(), world.manager.list::<u64>([]).unwrap());
        let mut players: Vec<_> = (0..3).map(|_| world.player("condition::consumer", &[line(&condition), line(&jobs)])).collect();
        for number in (1..=100).chain([0, 0, 0]) {
            // The zeros come last, also where the last comes first.
            if number == 0 {
                until("all is taken", || jobs.is_empty().unwrap());
            }
            let _guard = condition.lock().unwrap().into_guard();
            jobs.push(number).unwrap();
            condition.notify_one().unwrap();
        }
        let sum: u64 = players.iter_mut().map(|player| player.hear().unwrap().parse::<u64>().unwrap()).sum();
        assert_eq!(sum, 5050);
        players.into_iter().for_each(|player| player.finish());
        world.manager.audit().unwrap();
    }
}

#[test]
fn one_or_all() {
    for world in World::all() {
        let condition = world.manager.condition().unwrap();
        let mut players: Vec<_> = (0..3).map(|_| world.player("condition::waiter", &[line(&condition)])).collect();
        until("three wait", || condition.waiters().unwrap().len() == 3);
        // Under the lock: who has entered the roster has prepared to sleep before it gave the lock back.
        condition.with(|| condition.notify_one()).unwrap().unwrap();
        // At least: who has not quite fallen asleep sees the notification, too.
        until("one is woken", || condition.waiters().unwrap().len() < 3);
        condition.with(|| condition.notify_all()).unwrap().unwrap();
        players.iter_mut().for_each(|player| player.expect("woken"));
        players.into_iter().for_each(|player| player.finish());
    }
}

#[test]
fn the_managers_death_wakes_who_waits() {
    let manager = Manager::start().unwrap();
    let condition = manager.condition().unwrap();
    let waiter = std::thread::spawn({
        let condition = condition.clone();
        move || condition.wait(condition.lock().unwrap().into_guard()).map(drop)
    });
    until("it waits", || condition.waiters().unwrap().len() == 1);
    process_of(&manager).kill();
    let before = Instant::now();
    assert!(waiter.join().unwrap().unwrap_err().is_disconnected());
    assert!(before.elapsed() < PROMPT);
}

#[test]
fn a_user_dies_or_stops_at_every_point() {
    let world = World::of_processes();
    let condition = world.manager.condition().unwrap();
    let others = |over: &AtomicBool| {
        while !over.load(Ordering::Relaxed) {
            let guard = condition.lock().unwrap().into_guard();
            drop(condition.wait_timeout(guard, Duration::from_millis(1)).unwrap());
            condition.notify_one().unwrap();
        }
    };
    let deaths = deaths(&world, "condition::user", &[line(&condition)], others, |_| {
        drop(condition.lock().unwrap());
        assert!(condition.waiters().unwrap().is_empty());
        assert_eq!(condition.to_string(), "free");
    });
    assert!(deaths > 8, "{deaths}");
    let stops = stops(&world, "condition::user", &[line(&condition)], || {
        // (Not to wait on the condition: that ends with having the lock, and so waits for who is stopped with it.)
        drop(condition.lock_timeout(Duration::from_millis(20)).unwrap());
        condition.notify_all().unwrap();
    });
    assert!(stops > 8, "{stops}");
}

#[test]
fn who_waits_without_end_dies_at_every_point() {
    let world = World::of_processes();
    let condition = world.manager.condition().unwrap();
    let others = |over: &AtomicBool| {
        while !over.load(Ordering::Relaxed) {
            condition.with(|| condition.notify_one()).unwrap().unwrap();
        }
    };
    let deaths = deaths(&world, "condition::patient", &[line(&condition)], others, |point| {
        drop(condition.lock().unwrap());
        assert!(condition.waiters().unwrap().is_empty(), "point {point}");
        assert_eq!(condition.to_string(), "free");
    });
    assert!(deaths > 8, "{deaths}");
}

#[test]
fn scribbled_words_are_that_conditions_affair() {
    let manager = Manager::start().unwrap();
    let (condition, other) = (manager.condition().unwrap(), manager.condition().unwrap());
    let vandal = Vandal::attach(&manager, &condition);
    for state in [3, 2 << 2, 99 << 24 | 4 << 2, 1] {
        vandal.write(0, state);
        assert_eq!(condition.lock().unwrap_err().kind(), ErrorKind::Corrupt, "{state:#x}");
    }
    vandal.write(0, 0);
    // Behind the lock are the waiters and their roster.
    for word in 36..CONDITION_WORDS {
        vandal.write(8 * word, 0x0101_0101_0101_0101 * word as u64);
    }
    let guard = condition.lock().unwrap().into_guard();
    assert!(condition.wait_timeout(guard, Duration::from_millis(20)).is_ok());
    condition.notify_one().unwrap();
    condition.notify_all().unwrap();
    let _ = condition.waiters();
    drop(other.lock().unwrap());
    drop(vandal);
    until("its session is over", || manager.stats().unwrap().sessions == 1);
    manager.audit().unwrap();
}
