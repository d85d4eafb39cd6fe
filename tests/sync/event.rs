//! `Event`: a flag to wait for.

use crate::fates::{deaths, stops};
use crate::players::{Part, Talk, World, line};
use crate::support::{PROMPT, process_of, until};
use crate::vandal::Vandal;
use commonhold::{Event, Manager};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const PARTS: &[(&str, Part)] = &[("event::waiter", waiter), ("event::pinger", pinger), ("event::user", user)];

fn waiter(talk: &mut Talk) {
    let event: Event = talk.hear_handle();
    event.wait().unwrap();
    talk.say("woken");
}

/// Answers one event with another, so often.
fn pinger(talk: &mut Talk) {
    let (ping, pong): (Event, Event) = (talk.hear_handle(), talk.hear_handle());
    for _ in 0..100 {
        ping.wait().unwrap();
        ping.clear().unwrap();
        pong.set().unwrap();
    }
    talk.say("done");
}

fn user(talk: &mut Talk) {
    let event: Event = talk.hear_handle();
    for _ in 0..3 {
        event.wait_timeout(Duration::from_millis(3)).unwrap();
        event.set().unwrap();
        event.clear().unwrap();
    }
    talk.say("done");
}

#[test]
fn set_and_not_set() {
    for World { manager, .. } in World::all() {
        let event = manager.event().unwrap();
        assert!(!event.is_set().unwrap() && !event.clear().unwrap());
        let before = Instant::now();
        assert!(!event.wait_timeout(Duration::from_millis(30)).unwrap());
        assert!(before.elapsed() >= Duration::from_millis(30));
        assert!(event.set().unwrap() && !event.set().unwrap());
        event.wait().unwrap();
        assert!(event.wait_timeout(Duration::ZERO).unwrap());
        assert_eq!(event.to_string(), "set");
        assert!(event.clear().unwrap() && !event.is_set().unwrap());
        manager.audit().unwrap();
    }
}

#[test]
fn all_who_wait_are_woken() {
    for world in World::all() {
        let event = world.manager.event().unwrap();
        let mut players: Vec<_> = (0..3).map(|_| world.player("event::waiter", &[line(&event)])).collect();
        until("three wait", || event.waiters().unwrap().len() == 3);
        event.set().unwrap();
        // Though it is cleared at once.
        event.clear().unwrap();
        players.iter_mut().for_each(|player| player.expect("woken"));
        players.into_iter().for_each(|player| player.finish());
        assert!(event.waiters().unwrap().is_empty());
        world.manager.audit().unwrap();
    }
}

#[test]
fn back_and_forth() {
    for world in World::all() {
        let (ping, pong) = (world.manager.event().unwrap(), world.manager.event().unwrap());
        let mut player = world.player("event::pinger", &[line(&ping), line(&pong)]);
        for _ in 0..100 {
            ping.set().unwrap();
            pong.wait().unwrap();
            pong.clear().unwrap();
        }
        player.expect("done");
        player.finish();
    }
}

#[test]
fn the_managers_death_wakes_who_waits() {
    let manager = Manager::start().unwrap();
    let event = manager.event().unwrap();
    let waiter = std::thread::spawn({
        let event = event.clone();
        move || event.wait()
    });
    until("it waits", || event.waiters().unwrap().len() == 1);
    process_of(&manager).kill();
    let before = Instant::now();
    assert!(waiter.join().unwrap().unwrap_err().is_disconnected());
    assert!(before.elapsed() < PROMPT);
    assert!(event.set().unwrap_err().is_disconnected());
}

#[test]
fn a_user_dies_or_stops_at_every_point() {
    let world = World::of_processes();
    let event = world.manager.event().unwrap();
    let others = |over: &AtomicBool| {
        while !over.load(Ordering::Relaxed) {
            event.wait_timeout(Duration::from_millis(1)).unwrap();
            event.set().unwrap();
            event.clear().unwrap();
        }
    };
    let deaths = deaths(&world, "event::user", &[line(&event)], others, |_| {
        assert!(event.waiters().unwrap().is_empty());
        event.set().unwrap();
        event.wait().unwrap();
        event.clear().unwrap();
    });
    assert!(deaths > 8, "{deaths}");
    let stops = stops(&world, "event::user", &[line(&event)], || {
        event.set().unwrap();
        event.wait_timeout(Duration::from_millis(1)).unwrap();
        event.clear().unwrap();
    });
    assert!(stops > 8, "{stops}");
}

#[test]
fn scribbled_words_are_that_events_affair() {
    let manager = Manager::start().unwrap();
    let (event, other) = (manager.event().unwrap(), manager.event().unwrap());
    let vandal = Vandal::attach(&manager, &event);
    for word in [u64::MAX, 1 << 63, 0x0101_0101_0101_0101, 0] {
        for at in [0, 8, 16] {
            vandal.write(at, word);
            // It is set, or it is not; nobody hangs, and a set and a clear are what they say.
            let _ = event.wait_timeout(Duration::from_millis(5)).unwrap();
            event.set().unwrap();
            assert!(event.is_set().unwrap() && event.wait_timeout(Duration::from_millis(5)).unwrap(), "{word:#x} at {at}");
            event.clear().unwrap();
            assert!(!event.is_set().unwrap(), "{word:#x} at {at}");
            let _ = event.waiters().unwrap();
            assert!(!other.is_set().unwrap());
        }
    }
    drop(vandal);
    until("its session is over", || manager.stats().unwrap().sessions == 1);
    manager.audit().unwrap();
}
