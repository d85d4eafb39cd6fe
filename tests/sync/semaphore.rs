//! `Semaphore` and `BoundedSemaphore`: permits that come back, and signals.

use crate::fates::{deaths, stops};
use crate::players::{Part, Talk, World, line};
use crate::support::{PROMPT, until};
use crate::vandal::Vandal;
use commonhold::{BoundedSemaphore, Counter, ErrorKind, Manager, Semaphore};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const PARTS: &[(&str, Part)] =
    &[("semaphore::worker", worker), ("semaphore::holder", holder), ("semaphore::consumer", consumer), ("semaphore::user", user)];

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
