//! `Lock`: exclusion, waiting, fairness, and what becomes of it when anybody dies.

use crate::fates::{deaths, stops};
use crate::players::{Part, Talk, World, line};
use crate::support::{PATIENCE, PROMPT, process_of, signal_to, stop, until};
use commonhold::{Acquired, ErrorKind, Lock, Manager, Process, Value};
use commonhold_ipc::points::CLIENT_VARIABLE;
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

pub const PARTS: &[(&str, Part)] =
    &[("lock::adder", adder), ("lock::holder", holder), ("lock::taker", taker), ("lock::forgetful", forgetful), ("lock::hog", hog)];

/// How often an adder adds.
const ROUNDS: u64 = 200;

/// Adds to a value as nobody may who is not alone: reads, then writes.
fn adder(talk: &mut Talk) {
    let (lock, value): (Lock, Value<u64>) = (talk.hear_handle(), talk.hear_handle());
    talk.say("ready");
    talk.hear();
    for _ in 0..ROUNDS {
        let _guard = lock.lock().unwrap().into_guard();
        let now = *value.get().unwrap();
        value.set(now + 1).unwrap();
    }
    talk.say("done");
}

/// Run by a child of the library's, whose only thread has registered for barriers: so it gives back without a fence.
fn pass_twice(lock: Lock) -> commonhold::Result<()> {
    assert!(commonhold_ipc::sys::is_single_threaded(), "a process of one thread registers when it connects");
    (0..2).try_for_each(|_| lock.lock().map(drop))
}

#[test]
fn who_gives_back_without_a_fence_and_dies_keeps_nobody_out() {
    let manager = Manager::start().unwrap();
    for point in 1.. {
        let lock = manager.lock().unwrap();
        let child = Process::builder().env(CLIENT_VARIABLE, point.to_string()).spawn(pass_twice, lock.clone()).unwrap();
        let pass = || {
            while child.is_alive() {
                drop(lock.lock().unwrap());
            }
        };
        std::thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(pass))));
        drop(lock.lock().unwrap());
        manager.audit().unwrap();
        match child.exit_code() {
            Some(0) => {
                assert!(point > 10, "only {point} points");
                return;
            }
            code => assert_eq!(code, Some(-9)),
        }
    }
}

/// Takes the lock and keeps it until it is told otherwise.
fn holder(talk: &mut Talk) {
    let lock: Lock = talk.hear_handle();
    let guard = lock.lock().unwrap();
    talk.say(if guard.owner_died() { "died" } else { "clean" });
    talk.hear();
    drop(guard.into_guard());
    talk.say("given back");
}

/// Takes the lock once, in one way after the other. Dies in between, in some tests.
fn taker(talk: &mut Talk) {
    let lock: Lock = talk.hear_handle();
    for _ in 0..3 {
        drop(lock.lock().unwrap().into_guard());
        drop(lock.try_lock().unwrap());
        drop(lock.lock_timeout(Duration::from_millis(20)).unwrap());
    }
    talk.say("done");
}

#[test]
fn held_or_free() {
    for World { manager, .. } in World::all() {
        let lock = manager.lock().unwrap();
        assert_eq!(lock.to_string(), "free");
        let guard = lock.lock().unwrap();
        assert!(!guard.owner_died());
        assert!(lock.to_string().starts_with("held by "), "{lock}");
        let holder = lock.holder().unwrap().unwrap();
        assert_eq!((holder.pid, holder.thread), (std::process::id(), commonhold_ipc::sys::thread_id()));
        let program = std::env::current_exe().unwrap();
        assert!(program.to_str().unwrap().ends_with(&holder.program) && !holder.program.is_empty(), "{holder:?}");
        let own_name = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
        assert_eq!(holder.thread_name.as_deref(), Some(own_name.trim_end()));
        assert!(lock.try_lock().unwrap().is_none());
        assert_eq!(lock.lock().unwrap_err().kind(), ErrorKind::Deadlock);
        assert_eq!(lock.lock_timeout(Duration::from_millis(1)).unwrap_err().kind(), ErrorKind::Deadlock);
        let other = lock.clone();
        let elsewhere = std::thread::spawn(move || {
            assert!(other.try_lock().unwrap().is_none());
            let before = Instant::now();
            assert!(other.lock_timeout(Duration::from_millis(30)).unwrap().is_none());
            assert!(before.elapsed() >= Duration::from_millis(30));
        });
        elsewhere.join().unwrap();
        drop(guard.into_guard());
        assert_eq!(lock.holder().unwrap(), None);
        assert!(matches!(lock.try_lock().unwrap(), Some(Acquired::Clean(_))));
        assert_eq!(lock.with(|| 7).unwrap(), 7);
        let panicked = std::thread::spawn({
            let lock = lock.clone();
            move || lock.with(|| panic!("under the lock"))
        });
        assert!(panicked.join().is_err());
        assert!(!lock.lock().unwrap().owner_died(), "a panic does not poison");
        manager.audit().unwrap();
    }
}

#[test]
fn one_at_a_time() {
    for world in World::all() {
        let (lock, value) = (world.manager.lock().unwrap(), world.manager.value(0u64).unwrap());
        let mut players: Vec<_> = (0..4).map(|_| world.player("lock::adder", &[line(&lock), line(&value)])).collect();
        players.iter_mut().for_each(|player| player.expect("ready"));
        players.iter_mut().for_each(|player| player.say("go"));
        players.iter_mut().for_each(|player| player.expect("done"));
        assert_eq!(*value.get().unwrap(), 4 * ROUNDS);
        players.into_iter().for_each(|player| player.finish());
        assert_eq!(lock.to_string(), "free");
        world.manager.audit().unwrap();
    }
}

#[test]
fn who_waits_is_known_and_gets_it() {
    for world in World::all() {
        let lock = world.manager.lock().unwrap();
        let guard = lock.lock().unwrap().into_guard();
        let mut players: Vec<_> = (0..3).map(|_| world.player("lock::holder", &[line(&lock)])).collect();
        until("three wait", || lock.waiters().unwrap().len() == 3);
        players.iter_mut().for_each(|player| player.say("enough"));
        drop(guard);
        for player in &mut players {
            player.expect("clean");
            player.expect("given back");
        }
        assert_eq!((lock.waiters().unwrap(), lock.to_string()), (vec![], "free".to_owned()));
        world.manager.audit().unwrap();
    }
}

#[test]
fn a_dead_holder_is_reported_to_the_next() {
    let world = World::of_processes();
    let lock = world.manager.lock().unwrap();
    for waits in [false, true] {
        let mut player = world.player("lock::holder", &[line(&lock)]);
        player.expect("clean");
        let before = Instant::now();
        if waits {
            let (lock, ready) = (lock.clone(), std::sync::Arc::new(std::sync::Barrier::new(2)));
            let here = ready.clone();
            let waiter = std::thread::spawn(move || {
                ready.wait();
                lock.lock().unwrap().owner_died()
            });
            here.wait();
            player.kill();
            assert!(waiter.join().unwrap());
        } else {
            player.kill();
            assert!(lock.lock().unwrap().owner_died());
        }
        assert!(before.elapsed() < PROMPT);
        // Once.
        assert!(!lock.lock().unwrap().owner_died());
    }
    world.manager.audit().unwrap();
}

#[test]
fn a_holder_that_leaves_in_order_with_a_forgotten_guard_is_reported_too() {
    let world = World::of_processes();
    let lock = world.manager.lock().unwrap();
    let mut player = world.player("lock::forgetful", &[line(&lock)]);
    player.expect("forgotten");
    assert!(lock.try_lock().unwrap().is_none());
    player.say("leave");
    player.finish();
    assert!(lock.lock().unwrap().owner_died());
}

#[test]
fn a_stopped_holder_is_waited_for_and_a_stopped_waiter_is_not() {
    let world = World::of_processes();
    let lock = world.manager.lock().unwrap();
    let mut holder = world.player("lock::holder", &[line(&lock)]);
    holder.expect("clean");
    holder.stop();
    assert!(lock.lock_timeout(Duration::from_millis(50)).unwrap().is_none());
    let mut waiter = world.player("lock::holder", &[line(&lock)]);
    until("it waits", || lock.waiters().unwrap().len() == 1);
    waiter.stop();
    holder.go_on();
    holder.say("enough");
    holder.expect("given back");
    // Even if the lock was kept for the stopped one.
    for _ in 0..100 {
        drop(lock.lock().unwrap().into_guard());
    }
    waiter.go_on();
    waiter.expect("clean");
    waiter.say("enough");
    waiter.expect("given back");
}

#[test]
fn nobody_starves() {
    for world in World::all() {
        let (lock, value) = (world.manager.lock().unwrap(), world.manager.value(0u64).unwrap());
        let mut hogs: Vec<_> = (0..2).map(|_| world.player("lock::hog", &[line(&lock), line(&value)])).collect();
        hogs.iter_mut().for_each(|hog| hog.expect("ready"));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                // The hogs give it back only to take it again.
                scope.spawn(|| (0..8).for_each(|_| drop(lock.lock().unwrap().into_guard())));
            }
        });
        value.set(1).unwrap();
        hogs.iter_mut().for_each(|hog| hog.expect("done"));
        hogs.into_iter().for_each(|hog| hog.finish());
    }
}

#[test]
fn the_managers_death_wakes_who_waits() {
    let world = World::of_processes();
    let lock = world.manager.lock().unwrap();
    let guard = lock.lock().unwrap().into_guard();
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let lock = lock.clone();
            std::thread::spawn(move || lock.lock().map(|_| ()))
        })
        .collect();
    until("three wait", || lock.waiters().unwrap().len() == 3);
    process_of(&world.manager).kill();
    let before = Instant::now();
    for waiter in waiters {
        assert!(waiter.join().unwrap().unwrap_err().is_disconnected());
    }
    assert!(before.elapsed() < PROMPT);
    drop(guard);
    assert!(lock.try_lock().unwrap_err().is_disconnected());
    assert!(lock.lock().unwrap_err().is_disconnected());
}

#[test]
fn a_taker_dies_at_every_point() {
    let world = World::of_processes();
    let lock = world.manager.lock().unwrap();
    let told = AtomicU64::new(0);
    let others = |over: &AtomicBool| {
        while !over.load(Ordering::Relaxed) {
            let acquired = lock.lock().unwrap();
            told.fetch_add(u64::from(acquired.owner_died()), Ordering::Relaxed);
            // Long enough that the other one falls asleep, and becomes the heir.
            busy_for(Duration::from_millis(4));
        }
    };
    let deaths = deaths(&world, "lock::taker", &[line(&lock)], others, |point| {
        let told = told.swap(0, Ordering::Relaxed) + u64::from(lock.lock().unwrap().owner_died());
        assert!(told <= 1, "point {point}");
        assert!(!lock.lock().unwrap().owner_died());
        assert!(lock.waiters().unwrap().is_empty());
    });
    assert!(deaths > 20, "{deaths}");
}

#[test]
fn a_manager_that_is_stopped_keeps_nobody_beyond_his_time() {
    let manager = Manager::start().unwrap();
    let (lock, shared, permits) = (manager.lock().unwrap(), manager.rw_lock().unwrap(), manager.semaphore(1).unwrap());
    let _held = (lock.lock().unwrap(), shared.read().unwrap(), permits.acquire().unwrap());
    let process = process_of(&manager);
    stop(process.pid);
    // Long enough to ask whether those who have them are there.
    let patience = Duration::from_millis(700);
    let (sender, waited) = channel();
    let say = |waited: commonhold::Result<bool>| sender.send(waited.map_err(|error| error.kind())).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| say(lock.lock_timeout(patience).map(|got| got.is_some())));
        scope.spawn(|| say(shared.write_timeout(patience).map(|got| got.is_some())));
        scope.spawn(|| say(permits.acquire_timeout(patience).map(|got| got.is_some())));
        let waited = [(); 3].map(|()| waited.recv_timeout(PATIENCE));
        signal_to(process.pid, Signal::CONT);
        assert_eq!(waited, [const { Ok(Ok(false)) }; 3]);
    });
}

#[test]
fn questions_that_are_not_answered_do_not_pile_up() {
    let manager = Manager::start().unwrap();
    let (lock, value, other) = (manager.lock().unwrap(), manager.value(1u64).unwrap(), manager.value(2u64).unwrap());
    let _held = lock.lock().unwrap();
    let wait_in_vain = || {
        let waits = || (0..320).for_each(|_| assert!(lock.lock_timeout(Duration::from_millis(1)).unwrap().is_none()));
        std::thread::scope(|scope| scope.spawn(waits).join().unwrap());
    };
    let process = process_of(&manager);
    stop(process.pid);
    // As many as a socket would hold. Then there is still room for what is said without an answer.
    wait_in_vain();
    let (sender, dropped) = channel();
    let dropping = std::thread::spawn(move || {
        drop(other);
        sender.send(()).unwrap();
    });
    let dropped = dropped.recv_timeout(PATIENCE);
    signal_to(process.pid, Signal::CONT);
    dropped.expect("a handle is dropped while the manager stands still");
    dropping.join().unwrap();
    wait_in_vain();
    value.set(3).unwrap();
    assert_eq!(*value.get().unwrap(), 3);
}

#[test]
fn a_taker_is_stopped_at_every_point() {
    let world = World::of_processes();
    let lock = world.manager.lock().unwrap();
    let stops = stops(&world, "lock::taker", &[line(&lock)], || {
        let stopped_holds = || lock.holder().unwrap().is_some_and(|holder| holder.pid != std::process::id());
        let got = lock.lock_timeout(Duration::from_millis(20)).unwrap().is_some();
        // It has what it holds, and nothing else.
        assert!(got || stopped_holds() || lock.lock_timeout(PATIENCE).unwrap().is_some());
    });
    assert!(stops > 20, "{stops}");
}

#[test]
fn scribbled_words_are_that_locks_affair() {
    let manager = Manager::start().unwrap();
    let (lock, other) = (manager.lock().unwrap(), manager.lock().unwrap());
    let vandal = crate::vandal::Vandal::attach(&manager, &lock);
    // Two flags at once, a thread without a session, a session that never was.
    for state in [3, 2 << 2, 99 << 24 | 4 << 2, 99 << 24 | 2, !1, 1] {
        vandal.write(0, state);
        let error = lock.lock().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{state:#x}: {error}");
        // It is found in the lock's own word, or by who looks for the holder that this names.
        let says = |what| format!("the words of this {what} make no sense: a process that uses it has written over them; make a new one");
        assert!(["lock", "object"].map(says).contains(&error.to_string()), "{state:#x}: {error}");
        assert!(lock.try_lock().unwrap().is_none());
        drop(other.lock().unwrap().into_guard());
        manager.audit().unwrap();
    }
    vandal.write(0, 0);
    drop(lock.lock().unwrap().into_guard());
    for word in 1..40 {
        vandal.write(8 * word, 0x0101_0101_0101_0101 * word as u64);
    }
    // Whatever it says, it does not hang, and nothing else suffers.
    let _ = lock.lock_timeout(Duration::from_millis(500));
    drop(other.lock().unwrap().into_guard());
    drop(vandal);
    until("its session is over", || manager.stats().unwrap().sessions == 1);
    manager.audit().unwrap();
}

/// Ends with the lock.
fn forgetful(talk: &mut Talk) {
    let lock: Lock = talk.hear_handle();
    std::mem::forget(lock.lock().unwrap().into_guard());
    talk.say("forgotten");
    talk.hear();
}

/// Has the lock nearly all the time.
fn hog(talk: &mut Talk) {
    let (lock, stop): (Lock, Value<u64>) = (talk.hear_handle(), talk.hear_handle());
    let mut ready = false;
    while *stop.get().unwrap() == 0 {
        let _guard = lock.lock().unwrap().into_guard();
        busy_for(Duration::from_micros(500));
        if !std::mem::replace(&mut ready, true) {
            talk.say("ready");
        }
    }
    talk.say("done");
}

/// Does something for a while, awake.
pub fn busy_for(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}
