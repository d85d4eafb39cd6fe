//! `Barrier`: parties that wait for each other.

use crate::fates::{deaths, stops};
use crate::players::{Part, Talk, World, line};
use crate::support::{PROMPT, process_of, signal_to, state_of, until};
use crate::vandal::Vandal;
use commonhold::{Barrier, Counter, ErrorKind, Manager};
use commonhold_ipc::points::{CLIENT_STOP_VARIABLE, CLIENT_VARIABLE};
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const PARTS: &[(&str, Part)] =
    &[("barrier::runner", runner), ("barrier::party", party), ("barrier::visitor", visitor), ("barrier::breaker", breaker)];

const ROUNDS: u64 = 50;

/// Nobody is ever a round ahead.
fn runner(talk: &mut Talk) {
    let (barrier, passed): (Barrier, Counter) = (talk.hear_handle(), talk.hear_handle());
    let mut sum = 0;
    for round in 0..ROUNDS {
        sum += barrier.wait_with(|| assert!(passed.add(1).unwrap() > 0)).unwrap();
        let now = passed.get().unwrap() as u64;
        assert!((round + 1..=round + 2).contains(&now), "round {round}, {now} passed");
    }
    talk.say(sum);
}

/// Waits once more whenever it is told to.
fn party(talk: &mut Talk) {
    let barrier: Barrier = talk.hear_handle();
    loop {
        match barrier.wait() {
            Ok(_) => talk.say("passed"),
            Err(error) => talk.say(format!("{:?}", error.kind())),
        }
        if talk.hear().is_none_or(|line| line == "enough") {
            return;
        }
    }
}

/// Waits once, lets the barrier go, and lives on.
fn visitor(talk: &mut Talk) {
    let barrier: Barrier = talk.hear_handle();
    barrier.wait().unwrap();
    drop(barrier);
    talk.say("passed");
    talk.hear();
}

/// Leads if it can, and breaks the barrier in each way that there is.
fn breaker(talk: &mut Talk) {
    let barrier: Barrier = talk.hear_handle();
    for _ in 0..2 {
        assert!(is_well(barrier.wait_timeout(Duration::from_millis(2))));
        barrier.reset().unwrap();
        barrier.abort().unwrap();
        assert!(is_well(barrier.wait_timeout(Duration::from_millis(2))));
        barrier.reset().unwrap();
    }
    talk.say("done");
}

/// Whether a wait beside a breaker has ended as it may.
fn is_well(waited: commonhold::Result<usize>) -> bool {
    match waited {
        Ok(number) => number < 2,
        Err(error) => matches!(error.kind(), ErrorKind::Broken | ErrorKind::TimedOut),
    }
}

#[test]
fn alone_and_together() {
    for World { manager, .. } in World::all() {
        assert_eq!(manager.barrier(0).unwrap_err().kind(), ErrorKind::OutOfRange);
        assert_eq!(manager.barrier(4097).unwrap_err().kind(), ErrorKind::OutOfRange);
        assert_eq!(manager.barrier(4096).unwrap().parties().unwrap(), 4096);
        let alone = manager.barrier(1).unwrap();
        for _ in 0..40 {
            assert_eq!(alone.wait().unwrap(), 0);
        }
        let barrier = manager.barrier(2).unwrap();
        assert_eq!((barrier.parties().unwrap(), barrier.waiting().unwrap(), barrier.to_string()), (2, 0, "0 of 2 wait".to_owned()));
        let before = Instant::now();
        assert!(barrier.wait_timeout(Duration::from_millis(30)).unwrap_err().is_timed_out());
        assert!(before.elapsed() >= Duration::from_millis(30));
        assert!(barrier.is_broken().unwrap());
        assert_eq!(barrier.wait().unwrap_err().kind(), ErrorKind::Broken);
        assert_eq!(barrier.to_string(), "broken");
        barrier.reset().unwrap();
        assert!(!barrier.is_broken().unwrap());
        let other = barrier.clone();
        let waiting = std::thread::spawn(move || other.wait());
        until("one waits", || barrier.waiting().unwrap() == 1);
        let numbers = [barrier.wait().unwrap(), waiting.join().unwrap().unwrap()];
        assert!(numbers == [0, 1] || numbers == [1, 0]);
        barrier.abort().unwrap();
        assert_eq!(barrier.wait().unwrap_err().kind(), ErrorKind::Broken);
        barrier.reset().unwrap();
        let panics = std::thread::spawn(move || manager.barrier(1).map(|alone| alone.wait_with(|| panic!("the action"))));
        assert!(panics.join().is_err());
    }
}

#[test]
fn a_panic_in_the_action_breaks_it() {
    let manager = Manager::in_process().unwrap();
    let barrier = manager.barrier(2).unwrap();
    let other = barrier.clone();
    let waiting = std::thread::spawn(move || other.wait());
    until("one waits", || barrier.waiting().unwrap() == 1);
    let here = barrier.clone();
    assert!(std::thread::spawn(move || here.wait_with(|| panic!("the action"))).join().is_err());
    assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Broken);
    assert!(barrier.is_broken().unwrap());
}

/// A leader whose round was reset meanwhile gets an error, however its action ends, and leaves the round after it alone.
#[test]
fn a_leader_that_comes_late_breaks_no_other_round() {
    for World { manager, .. } in World::all() {
        let barrier = manager.barrier(1).unwrap();
        let waited = barrier.wait_with(|| barrier.reset().unwrap());
        assert_eq!(waited.unwrap_err().kind(), ErrorKind::Broken);
        assert!(!barrier.is_broken().unwrap());
        let panics = || {
            barrier.reset().unwrap();
            panic!("the action");
        };
        assert!(std::thread::scope(|scope| scope.spawn(|| barrier.wait_with(panics)).join()).is_err());
        assert!(!barrier.is_broken().unwrap());
        assert_eq!(barrier.wait().unwrap(), 0);
    }
}

#[test]
fn round_after_round() {
    for world in World::all() {
        let (barrier, passed) = (world.manager.barrier(3).unwrap(), world.manager.counter(0).unwrap());
        let mut players: Vec<_> = (0..3).map(|_| world.player("barrier::runner", &[line(&barrier), line(&passed)])).collect();
        let sum: u64 = players.iter_mut().map(|player| player.hear().unwrap().parse::<u64>().unwrap()).sum();
        assert_eq!(sum, ROUNDS * (1 + 2), "each has another number in each round");
        assert_eq!(passed.get().unwrap() as u64, ROUNDS);
        players.into_iter().for_each(|player| player.finish());
        assert!(!barrier.is_broken().unwrap());
        world.manager.audit().unwrap();
    }
}

#[test]
fn who_waits_is_told_of_a_reset() {
    for world in World::all() {
        let barrier = world.manager.barrier(3).unwrap();
        let mut players: Vec<_> = (0..2).map(|_| world.player("barrier::party", &[line(&barrier)])).collect();
        for abort in [false, true, false] {
            until("two wait", || barrier.waiting().unwrap() == 2);
            if abort {
                barrier.abort().unwrap()
            } else {
                barrier.reset().unwrap()
            }
            players.iter_mut().for_each(|player| player.expect("Broken"));
            barrier.reset().unwrap();
            players.iter_mut().for_each(|player| player.say("again"));
        }
        until("two wait", || barrier.waiting().unwrap() == 2);
        barrier.wait().unwrap();
        players.iter_mut().for_each(|player| player.expect("passed"));
        players.iter_mut().for_each(|player| player.say("enough"));
        players.into_iter().for_each(|player| player.finish());
    }
}

#[test]
fn a_dead_party_breaks_it() {
    let world = World::of_processes();
    let barrier = world.manager.barrier(3).unwrap();
    let mut players: Vec<_> = (0..2).map(|_| world.player("barrier::party", &[line(&barrier)])).collect();
    until("two wait", || barrier.waiting().unwrap() == 2);
    // One that waits.
    let before = Instant::now();
    players.pop().unwrap().kill();
    players[0].expect("Broken");
    assert!(before.elapsed() < PROMPT);
    barrier.reset().unwrap();
    players.push(world.player("barrier::party", &[line(&barrier)]));
    players[0].say("again");
    until("two wait", || barrier.waiting().unwrap() == 2);
    barrier.wait().unwrap();
    players.iter_mut().for_each(|player| player.expect("passed"));
    // One that was there the last time, and would have come.
    players[0].say("again");
    until("one waits", || barrier.waiting().unwrap() == 1);
    players.pop().unwrap().kill();
    players[0].expect("Broken");
    players[0].say("enough");
    players.pop().unwrap().finish();
    world.manager.audit().unwrap();
}

#[test]
fn who_has_let_it_go_is_no_party() {
    let world = World::of_processes();
    let barrier = world.manager.barrier(2).unwrap();
    let mut visitor = world.player("barrier::visitor", &[line(&barrier)]);
    barrier.wait().unwrap();
    visitor.expect("passed");
    visitor.kill();
    until("its session is over", || world.sessions() == 1);
    assert!(!barrier.is_broken().unwrap());
    let mut visitor = world.player("barrier::visitor", &[line(&barrier)]);
    barrier.wait().unwrap();
    visitor.expect("passed");
    visitor.say("leave");
    visitor.finish();
    assert!(!barrier.is_broken().unwrap());
}

#[test]
fn the_managers_death_wakes_who_waits() {
    let manager = Manager::start().unwrap();
    let barrier = manager.barrier(2).unwrap();
    let waiting = std::thread::spawn({
        let barrier = barrier.clone();
        move || barrier.wait()
    });
    until("one waits", || barrier.waiting().unwrap() == 1);
    process_of(&manager).kill();
    let before = Instant::now();
    assert!(waiting.join().unwrap().unwrap_err().is_disconnected());
    assert!(before.elapsed() < PROMPT);
}

/// Whatever the point, the other passes or is told, and a reset makes it whole.
#[test]
fn a_party_dies_at_every_point() {
    let world = World::of_processes();
    let barrier = world.manager.barrier(2).unwrap();
    let mut deaths = 0;
    for point in 1.. {
        let mut player = world.doomed_player("barrier::visitor", &[line(&barrier)], CLIENT_VARIABLE, point);
        let mut here = None;
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| barrier.wait());
            if player.hear().is_none() {
                // It died before it came, or it broke the barrier, or the other one has passed.
                until("its session is over", || world.sessions() == 1);
                if !waiting.is_finished() {
                    barrier.abort().unwrap();
                }
            }
            here = Some(waiting.join().unwrap());
        });
        player.say("leave");
        let killed = player.was_killed();
        assert!(killed || here.unwrap().is_ok(), "point {point}");
        until("its session is over", || world.sessions() == 1);
        barrier.reset().unwrap();
        assert_eq!((barrier.waiting().unwrap(), barrier.is_broken().unwrap()), (0, false));
        world.manager.audit().unwrap();
        if !killed {
            break;
        }
        deaths += 1;
    }
    assert!(deaths > 8, "{deaths}");
}

/// A party that is stopped is waited for, as one that is slow; the round is over when it goes on.
#[test]
fn a_party_is_stopped_at_every_point() {
    let world = World::of_processes();
    let barrier = world.manager.barrier(2).unwrap();
    for point in 1.. {
        let mut player = world.doomed_player("barrier::visitor", &[line(&barrier)], CLIENT_STOP_VARIABLE, point);
        let pid = player.role().pid();
        let (over, stopped) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    if state_of(pid) == Some('T') {
                        stopped.store(true, Ordering::Relaxed);
                        assert!(!barrier.is_broken().unwrap() && barrier.waiting().unwrap() <= 2);
                        signal_to(pid, Signal::CONT);
                    }
                    std::thread::yield_now();
                }
            });
            barrier.wait().unwrap();
            player.expect("passed");
            player.say("leave");
            player.finish();
            over.store(true, Ordering::Relaxed);
        });
        until("its session is over", || world.sessions() == 1);
        assert_eq!((barrier.waiting().unwrap(), barrier.is_broken().unwrap()), (0, false));
        world.manager.audit().unwrap();
        if !stopped.into_inner() {
            assert!(point > 8, "{point}");
            return;
        }
    }
}

/// Whatever the breaker was doing: nobody hangs, and a reset makes it whole.
#[test]
fn a_breaker_dies_or_stops_at_every_point() {
    let world = World::of_processes();
    let barrier = world.manager.barrier(2).unwrap();
    let visit = || {
        let waited = barrier.wait_timeout(Duration::from_millis(1));
        let failed = waited.is_err();
        assert!(is_well(waited));
        if failed {
            barrier.reset().unwrap();
        }
    };
    let others = |over: &AtomicBool| {
        while !over.load(Ordering::Relaxed) {
            visit();
        }
    };
    let passes = |point: u64| {
        barrier.reset().unwrap();
        let both = std::thread::scope(|scope| {
            let other = scope.spawn(|| barrier.wait().unwrap());
            barrier.wait().unwrap() + other.join().unwrap()
        });
        assert_eq!((both, barrier.waiting().unwrap(), barrier.is_broken().unwrap()), (1, 0, false), "point {point}");
    };
    let deaths = deaths(&world, "barrier::breaker", &[line(&barrier)], others, passes);
    assert!(deaths > 8, "{deaths}");
    let stops = stops(&world, "barrier::breaker", &[line(&barrier)], visit);
    assert!(stops > 8, "{stops}");
    passes(0);
}

#[test]
fn who_finds_no_place_in_time_breaks_nothing_and_is_told_so() {
    let manager = Manager::start().unwrap();
    let barrier = manager.barrier(1).unwrap();
    let led = barrier.wait_with(|| {
        // All have come, and the leader is still at it.
        let error = barrier.wait_timeout(Duration::from_millis(5)).unwrap_err();
        assert!(error.is_timed_out());
        let told =
            "all parties of the round before have come, and it has not been let through in time: there is no place for another one yet";
        assert_eq!(error.to_string(), told);
        assert!(!barrier.is_broken().unwrap());
    });
    assert_eq!(led.unwrap(), 0);
}

#[test]
fn scribbled_words_are_that_barriers_affair() {
    let manager = Manager::start().unwrap();
    let barrier = manager.barrier(2).unwrap();
    let vandal = Vandal::attach(&manager, &barrier);
    for parties in [0, 100_000, u64::MAX] {
        vandal.write(16, parties);
        assert_eq!(barrier.wait().unwrap_err().kind(), ErrorKind::Corrupt);
        manager.audit().unwrap();
    }
    vandal.write(16, 2);
    vandal.write(0, u64::MAX);
    assert!(barrier.wait().is_err());
    barrier.reset().unwrap();
    assert!(barrier.wait_timeout(Duration::from_millis(5)).is_err());
    drop(vandal);
    until("its session is over", || manager.stats().unwrap().sessions == 1);
    manager.audit().unwrap();
}
