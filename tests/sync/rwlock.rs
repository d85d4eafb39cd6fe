//! `RwLock`: one writer or many readers.

use crate::fates::{deaths, stops};
use crate::lock::busy_for;
use crate::players::{Part, Talk, World, line};
use crate::support::{PATIENCE, PROMPT, process_of, until};
use crate::vandal::Vandal;
use commonhold::{ErrorKind, Event, List, Manager, RwLock};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub const PARTS: &[(&str, Part)] = &[
    ("rwlock::writer", writer),
    ("rwlock::reader", reader),
    ("rwlock::user", user),
    ("rwlock::holds_to_read", holds_to_read),
    ("rwlock::holds_to_write", holds_to_write),
    ("rwlock::reading_hog", reading_hog),
    ("rwlock::writing_hog", writing_hog),
];

const ROUNDS: u64 = 60;

/// Makes both elements greater, one after the other.
fn writer(talk: &mut Talk) {
    let (lock, pair): (RwLock, List<u64>) = (talk.hear_handle(), talk.hear_handle());
    for _ in 0..ROUNDS {
        let _guard = lock.write().unwrap().into_guard();
        let now = *pair.get(0).unwrap().unwrap();
        pair.set(0, now + 1).unwrap();
        pair.set(1, now + 1).unwrap();
    }
    talk.say("done");
}

/// Never sees them different.
fn reader(talk: &mut Talk) {
    let (lock, pair): (RwLock, List<u64>) = (talk.hear_handle(), talk.hear_handle());
    for _ in 0..ROUNDS {
        let _guard = lock.read().unwrap().into_guard();
        assert_eq!(*pair.get(0).unwrap().unwrap(), *pair.get(1).unwrap().unwrap());
    }
    talk.say("done");
}

fn user(talk: &mut Talk) {
    let lock: RwLock = talk.hear_handle();
    drop(lock.read().unwrap());
    drop(lock.write().unwrap());
    drop(lock.read_timeout(Duration::from_millis(8)).unwrap());
    drop(lock.write_timeout(Duration::from_millis(8)).unwrap());
    drop(lock.try_read().unwrap());
    drop(lock.try_write().unwrap());
    talk.say("done");
}

fn holds_to_read(talk: &mut Talk) {
    let lock: RwLock = talk.hear_handle();
    let guard = lock.read().unwrap();
    talk.say(if guard.owner_died() { "died" } else { "clean" });
    talk.hear();
    drop(guard);
    talk.say("left");
}

fn holds_to_write(talk: &mut Talk) {
    let lock: RwLock = talk.hear_handle();
    let guard = lock.write().unwrap();
    talk.say(if guard.owner_died() { "died" } else { "clean" });
    talk.hear();
    drop(guard);
    talk.say("left");
}

fn reading_hog(talk: &mut Talk) {
    hog(talk, |lock| {
        let _guard = lock.read().unwrap();
        busy_for(Duration::from_micros(500));
    });
}

fn writing_hog(talk: &mut Talk) {
    hog(talk, |lock| {
        let _guard = lock.write().unwrap();
        busy_for(Duration::from_micros(500));
    });
}

/// Has the lock nearly all the time, until it is told to stop.
fn hog(talk: &mut Talk, have: impl Fn(&RwLock)) {
    let (lock, stop): (RwLock, Event) = (talk.hear_handle(), talk.hear_handle());
    talk.say("ready");
    while !stop.is_set().unwrap() {
        have(&lock);
    }
    talk.say("done");
}

/// Readers who come and go, so that there is always one, keep no writer out; nor writers a reader.
#[test]
fn neither_readers_nor_writers_starve() {
    for world in World::all() {
        for part in ["rwlock::reading_hog", "rwlock::writing_hog"] {
            let (lock, stop) = (world.manager.rw_lock().unwrap(), world.manager.event().unwrap());
            let mut hogs: Vec<_> = (0..3).map(|_| world.player(part, &[line(&lock), line(&stop)])).collect();
            hogs.iter_mut().for_each(|hog| hog.expect("ready"));
            for _ in 0..10 {
                drop(lock.write().unwrap());
                drop(lock.read().unwrap());
            }
            stop.set().unwrap();
            hogs.iter_mut().for_each(|hog| hog.expect("done"));
            hogs.into_iter().for_each(|hog| hog.finish());
        }
    }
}

#[test]
fn readers_share_and_writers_do_not() {
    for World { manager, .. } in World::all() {
        let lock = manager.rw_lock().unwrap();
        assert_eq!(lock.to_string(), "free");
        let reading = lock.read().unwrap().into_guard();
        assert_eq!(lock.write().unwrap_err().kind(), ErrorKind::Deadlock);
        let other = lock.clone();
        std::thread::spawn(move || {
            let also = other.try_read().unwrap().unwrap().into_guard();
            assert_eq!((other.readers().unwrap().len(), other.to_string()), (2, "read by 2".to_owned()));
            drop(also);
            assert!(other.try_write().unwrap().is_none());
            let before = Instant::now();
            assert!(other.write_timeout(Duration::from_millis(30)).unwrap().is_none());
            assert!(before.elapsed() >= Duration::from_millis(30));
            // The writer that gave up is in nobody's way.
            drop(other.try_read().unwrap().unwrap());
        })
        .join()
        .unwrap();
        drop(reading);
        let writing = lock.write().unwrap().into_guard();
        assert_eq!(lock.writer().unwrap().unwrap().pid, std::process::id());
        assert_eq!(lock.read().unwrap_err().kind(), ErrorKind::Deadlock);
        let other = lock.clone();
        std::thread::spawn(move || {
            assert!(other.try_read().unwrap().is_none() && other.try_write().unwrap().is_none());
            assert!(other.read_timeout(Duration::from_millis(10)).unwrap().is_none());
        })
        .join()
        .unwrap();
        drop(writing);
        let many: Vec<_> = (0..448).map(|_| lock.read().unwrap().into_guard()).collect();
        assert_eq!(lock.read().unwrap_err().kind(), ErrorKind::Full);
        drop(many);
        drop(lock.write().unwrap().into_guard());
        manager.audit().unwrap();
    }
}

#[test]
fn nobody_sees_half_a_change() {
    for world in World::all() {
        let (lock, pair) = (world.manager.rw_lock().unwrap(), world.manager.list([0u64, 0]).unwrap());
        let parts = ["rwlock::writer", "rwlock::reader", "rwlock::writer", "rwlock::reader"];
        let mut players: Vec<_> = parts.iter().map(|part| world.player(part, &[line(&lock), line(&pair)])).collect();
        players.iter_mut().for_each(|player| player.expect("done"));
        players.into_iter().for_each(|player| player.finish());
        assert_eq!(*pair.get(1).unwrap().unwrap(), 2 * ROUNDS);
        assert_eq!(lock.to_string(), "free");
        world.manager.audit().unwrap();
    }
}

#[test]
fn dead_readers_keep_nobody_out_and_dead_writers_are_reported() {
    let world = World::of_processes();
    let lock = world.manager.rw_lock().unwrap();
    let mut reader = world.player("rwlock::holds_to_read", &[line(&lock)]);
    reader.expect("clean");
    reader.stop();
    assert!(lock.write_timeout(Duration::from_millis(30)).unwrap().is_none());
    drop(lock.read().unwrap());
    let before = Instant::now();
    reader.kill();
    assert!(!lock.write().unwrap().owner_died());
    let mut writer = world.player("rwlock::holds_to_write", &[line(&lock)]);
    writer.expect("clean");
    writer.kill();
    assert!(lock.read().unwrap().owner_died(), "a reader is told");
    assert!(lock.try_read().unwrap().unwrap().owner_died(), "and the next one");
    assert!(lock.write().unwrap().owner_died(), "and a writer");
    assert!(!lock.write().unwrap().owner_died() && !lock.read().unwrap().owner_died(), "once");
    assert!(before.elapsed() < PROMPT);
    // A writer that dies before it has got in has done nothing.
    let guard = lock.read().unwrap().into_guard();
    let mut writer = world.player("rwlock::holds_to_write", &[line(&lock)]);
    until("it waits for the reader", || lock.waiters().unwrap().len() == 1);
    assert!(lock.try_read().unwrap().is_none());
    writer.kill();
    drop(guard);
    assert!(!lock.write().unwrap().owner_died());
    world.manager.audit().unwrap();
}

#[test]
fn the_managers_death_wakes_who_waits() {
    let manager = Manager::start().unwrap();
    let lock = manager.rw_lock().unwrap();
    let guard = lock.read().unwrap().into_guard();
    let start = |write: bool| {
        let lock = lock.clone();
        std::thread::spawn(move || if write { lock.write().map(drop) } else { lock.read().map(drop) })
    };
    let writer = start(true);
    until("a writer waits", || lock.writer().unwrap().is_some());
    let reader = start(false);
    until("a reader waits, too", || lock.waiters().unwrap().len() == 2);
    process_of(&manager).kill();
    let before = Instant::now();
    assert!(writer.join().unwrap().unwrap_err().is_disconnected() && reader.join().unwrap().unwrap_err().is_disconnected());
    assert!(before.elapsed() < PROMPT);
    drop(guard);
}

#[test]
fn a_user_dies_or_stops_at_every_point() {
    let world = World::of_processes();
    let lock = world.manager.rw_lock().unwrap();
    let told = AtomicU64::new(0);
    let others = |over: &AtomicBool| {
        while !over.load(Ordering::Relaxed) {
            drop(lock.read().unwrap());
            let acquired = lock.write().unwrap();
            told.fetch_add(u64::from(acquired.owner_died()), Ordering::Relaxed);
            busy_for(Duration::from_millis(3));
        }
    };
    let deaths = deaths(&world, "rwlock::user", &[line(&lock)], others, |point| {
        let now = lock.write().unwrap();
        assert!(told.swap(0, Ordering::Relaxed) + u64::from(now.owner_died()) <= 1, "point {point}");
        drop(now);
        assert_eq!(lock.to_string(), "free");
    });
    assert!(deaths > 10, "{deaths}");
    let stops = stops(&world, "rwlock::user", &[line(&lock)], || {
        let held = || lock.writer().unwrap().is_some() || !lock.readers().unwrap().is_empty();
        let got = lock.write_timeout(Duration::from_millis(20)).unwrap().is_some();
        assert!(got || held() || lock.write_timeout(PATIENCE).unwrap().is_some());
    });
    assert!(stops > 10, "{stops}");
}

#[test]
fn scribbled_readers_are_that_locks_affair() {
    let manager = Manager::start().unwrap();
    let lock = manager.rw_lock().unwrap();
    let vandal = Vandal::attach(&manager, &lock);
    vandal.write(304, u64::MAX);
    vandal.write(320, 99 << 24);
    assert_eq!(lock.write().unwrap_err().kind(), ErrorKind::Corrupt);
    drop(lock.read().unwrap());
    vandal.write(320, 0);
    drop(lock.write().unwrap());
    manager.audit().unwrap();
}
