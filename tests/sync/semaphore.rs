//! `Semaphore` and `BoundedSemaphore`: permits that come back, and signals.

use crate::fates::{deaths, stops};
use crate::players::{Part, Talk, World, line};
use crate::support::{PROMPT, process_of, until};
use crate::vandal::Vandal;
use commonhold::{BoundedSemaphore, Counter, ErrorKind, Event, Manager, Semaphore};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const PARTS: &[(&str, Part)] = &[
    ("semaphore::worker", worker),
    ("semaphore::holder", holder),
    ("semaphore::consumer", consumer),
    ("semaphore::user", user),
    ("semaphore::signaller", signaller),
    ("semaphore::hog", hog),
];

/// Works while it has a permit, and sees that there are never too many who do.
fn worker(talk: &mut Talk) {
    let (permits, working): (Semaphore, Counter) = (talk.hear_handle(), talk.hear_handle());
    for _ in 0..50 {
        let _permit = permits.acquire().unwrap();
        assert!(working.add(1).unwrap() <= 2);
        working.add(-1).unwrap();
    }
    talk.say("done");
}

fn holder(talk: &mut Talk) {
    let permits: BoundedSemaphore = talk.hear_handle();
    let _permits = (permits.acquire().unwrap(), permits.acquire().unwrap());
    talk.say("has two");
    talk.hear();
}

/// Takes signals.
fn consumer(talk: &mut Talk) {
    let signals: Semaphore = talk.hear_handle();
    for _ in 0..100 {
        signals.acquire().unwrap().forget();
    }
    talk.say("done");
}

fn user(talk: &mut Talk) {
    let permits: Semaphore = talk.hear_handle();
    for _ in 0..2 {
        let first = permits.acquire().unwrap();
        let second = permits.acquire_timeout(Duration::from_millis(8)).unwrap();
        drop(permits.try_acquire().unwrap());
        drop((first, second));
    }
    talk.say("done");
}

/// Signals, takes its signals, and uses a permit up and replaces it.
fn signaller(talk: &mut Talk) {
    let (signals, permits): (Semaphore, BoundedSemaphore) = (talk.hear_handle(), talk.hear_handle());
    for _ in 0..2 {
        signals.release().unwrap();
        signals.acquire().unwrap().forget();
        permits.acquire().unwrap().forget();
        permits.release().unwrap();
    }
    talk.say("done");
}

/// Has the permit nearly all the time, until it is told to stop.
fn hog(talk: &mut Talk) {
    let (permits, stop): (Semaphore, Event) = (talk.hear_handle(), talk.hear_handle());
    talk.say("ready");
    while !stop.is_set().unwrap() {
        let _permit = permits.acquire().unwrap();
        crate::lock::busy_for(Duration::from_micros(500));
    }
    talk.say("done");
}

#[test]
fn permits_are_counted() {
    for World { manager, .. } in World::all() {
        let permits = manager.semaphore(2).unwrap();
        let first = permits.acquire().unwrap();
        let second = permits.try_acquire().unwrap().unwrap();
        assert!(permits.try_acquire().unwrap().is_none());
        let before = Instant::now();
        assert!(permits.acquire_timeout(Duration::from_millis(30)).unwrap().is_none());
        assert!(before.elapsed() >= Duration::from_millis(30));
        assert_eq!(permits.holders().unwrap().len(), 2);
        assert!(permits.holders().unwrap().iter().all(|holder| holder.pid == std::process::id()));
        drop(first);
        assert_eq!(permits.available().unwrap(), 1);
        // It may travel.
        std::thread::scope(|scope| {
            scope.spawn(move || drop(second)).join().unwrap();
        });
        assert_eq!((permits.available().unwrap(), permits.with(|| 1).unwrap()), (2, 1));
        for _ in 0..4094 {
            permits.release().unwrap();
        }
        assert_eq!(permits.release().unwrap_err().kind(), ErrorKind::Full);
        assert_eq!(permits.available().unwrap(), 4096);
        let bounded = manager.bounded_semaphore(3).unwrap();
        assert_eq!(bounded.release().unwrap_err().kind(), ErrorKind::OutOfRange);
        bounded.acquire().unwrap().forget();
        assert_eq!(bounded.to_string(), "2 available");
        let held = bounded.acquire().unwrap();
        bounded.release().unwrap();
        assert_eq!(bounded.release().unwrap_err().kind(), ErrorKind::OutOfRange);
        drop(held);
        assert_eq!(bounded.to_string(), "3 available");
        let none = manager.bounded_semaphore(0).unwrap();
        assert!(none.try_acquire().unwrap().is_none() && none.release().is_err());
        assert_eq!(manager.semaphore(65_537).unwrap_err().kind(), ErrorKind::OutOfRange);
        assert_eq!(manager.semaphore(65_536).unwrap().available().unwrap(), 65_536);
        manager.audit().unwrap();
    }
}

#[test]
fn no_more_than_there_are() {
    for world in World::all() {
        let (permits, working) = (world.manager.semaphore(2).unwrap(), world.manager.counter(0).unwrap());
        let mut players: Vec<_> = (0..4).map(|_| world.player("semaphore::worker", &[line(&permits), line(&working)])).collect();
        players.iter_mut().for_each(|player| player.expect("done"));
        players.into_iter().for_each(|player| player.finish());
        assert_eq!((permits.available().unwrap(), permits.waiters().unwrap().len()), (2, 0));
        world.manager.audit().unwrap();
    }
}

#[test]
fn signals_arrive() {
    for world in World::all() {
        let signals = world.manager.semaphore(0).unwrap();
        let mut players: Vec<_> = (0..2).map(|_| world.player("semaphore::consumer", &[line(&signals)])).collect();
        (0..200).for_each(|_| signals.release().unwrap());
        players.iter_mut().for_each(|player| player.expect("done"));
        players.into_iter().for_each(|player| player.finish());
        assert_eq!(signals.available().unwrap(), 0);
    }
}

#[test]
fn the_permits_of_the_dead_come_back() {
    let world = World::of_processes();
    let permits = world.manager.bounded_semaphore(3).unwrap();
    let mut player = world.player("semaphore::holder", &[line(&permits)]);
    player.expect("has two");
    let here = permits.acquire().unwrap();
    player.stop();
    assert!(permits.try_acquire().unwrap().is_none());
    let before = Instant::now();
    player.kill();
    let again = (permits.acquire().unwrap(), permits.acquire().unwrap());
    assert!(before.elapsed() < PROMPT);
    drop((here, again));
    assert_eq!(permits.available().unwrap(), 3);
    assert!(permits.release().is_err());
}

#[test]
fn a_user_dies_or_stops_at_every_point() {
    let world = World::of_processes();
    let permits = world.manager.semaphore(1).unwrap();
    let others = |over: &AtomicBool| {
        while !over.load(Ordering::Relaxed) {
            let _permit = permits.acquire().unwrap();
            crate::lock::busy_for(Duration::from_millis(3));
        }
    };
    let deaths = deaths(&world, "semaphore::user", &[line(&permits)], others, |point| {
        assert_eq!((permits.available().unwrap(), permits.waiters().unwrap().len()), (1, 0), "point {point}");
    });
    assert!(deaths > 8, "{deaths}");
    let stops = stops(&world, "semaphore::user", &[line(&permits)], || {
        let got = permits.acquire_timeout(Duration::from_millis(20)).unwrap().is_some();
        assert!(got || !permits.holders().unwrap().is_empty() || permits.acquire_timeout(PROMPT).unwrap().is_some());
    });
    assert!(stops > 8, "{stops}");
    until("it is given back", || permits.available().unwrap() == 1);
}

/// A signal is there or it is not, a permit that was used up is replaced or it is not; nothing else.
#[test]
fn a_signaller_dies_or_stops_at_every_point() {
    let world = World::of_processes();
    let (signals, permits) = (world.manager.semaphore(0).unwrap(), world.manager.bounded_semaphore(1).unwrap());
    let handles = [line(&signals), line(&permits)];
    let others = |over: &AtomicBool| {
        while !over.load(Ordering::Relaxed) {
            drop((signals.try_acquire().unwrap(), permits.try_acquire().unwrap()));
        }
    };
    let deaths = deaths(&world, "semaphore::signaller", &handles, others, |point| {
        let there = (signals.available().unwrap(), permits.available().unwrap());
        assert!(there.0 <= 1 && there.1 <= 1, "point {point}: {there:?}");
        assert!(signals.waiters().unwrap().is_empty() && permits.waiters().unwrap().is_empty());
        while let Some(signal) = signals.try_acquire().unwrap() {
            signal.forget();
        }
        if there.1 == 0 {
            permits.release().unwrap();
        }
        assert_eq!(permits.release().unwrap_err().kind(), ErrorKind::OutOfRange, "point {point}");
        signals.release().unwrap();
        signals.acquire().unwrap().forget();
    });
    assert!(deaths > 8, "{deaths}");
    let stops = stops(&world, "semaphore::signaller", &handles, || {
        drop((signals.try_acquire().unwrap(), permits.acquire_timeout(Duration::from_millis(5)).unwrap()));
    });
    assert!(stops > 8, "{stops}");
    assert_eq!((signals.available().unwrap(), permits.available().unwrap()), (0, 1));
}

#[test]
fn nobody_starves() {
    for world in World::all() {
        let (permits, stop) = (world.manager.semaphore(1).unwrap(), world.manager.event().unwrap());
        let mut hogs: Vec<_> = (0..2).map(|_| world.player("semaphore::hog", &[line(&permits), line(&stop)])).collect();
        hogs.iter_mut().for_each(|hog| hog.expect("ready"));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..5).for_each(|_| drop(permits.acquire().unwrap())));
            }
        });
        stop.set().unwrap();
        hogs.iter_mut().for_each(|hog| hog.expect("done"));
        hogs.into_iter().for_each(|hog| hog.finish());
    }
}

#[test]
fn the_managers_death_wakes_who_waits() {
    let manager = Manager::start().unwrap();
    let permits = manager.semaphore(0).unwrap();
    let waiting = std::thread::spawn({
        let permits = permits.clone();
        move || permits.acquire().map(drop)
    });
    until("it waits", || permits.waiters().unwrap().len() == 1);
    process_of(&manager).kill();
    let before = Instant::now();
    assert!(waiting.join().unwrap().unwrap_err().is_disconnected());
    assert!(before.elapsed() < PROMPT);
}

#[test]
fn scribbled_words_are_that_semaphores_affair() {
    let manager = Manager::start().unwrap();
    let permits = manager.semaphore(1).unwrap();
    let vandal = Vandal::attach(&manager, &permits);
    vandal.write(0, u64::MAX);
    assert_eq!(permits.acquire().unwrap_err().kind(), ErrorKind::Corrupt);
    vandal.write(0, 4096);
    for word in [99 << 24 | 4 << 2, 5 << 2, 99 << 24 | 2] {
        vandal.write(288, word);
        assert_eq!(permits.acquire().unwrap_err().kind(), ErrorKind::Corrupt, "{word:#x}");
    }
    vandal.write(288, 0);
    vandal.write(8, u64::MAX);
    drop(permits.acquire().unwrap());
    drop(vandal);
    until("its session is over", || manager.stats().unwrap().sessions == 1);
    manager.audit().unwrap();
}
