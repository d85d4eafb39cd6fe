//! One at an end of a pipe, or one who waits, is killed or stopped at each of its counted points.

use crate::fates::{deaths, stops};
use crate::players::{Part, Talk, World, line};
use crate::support::until_promptly;
use commonhold::{Connection, Event, PipeOptions, Process, Queue, wait};
use commonhold_ipc::points::CLIENT_VARIABLE;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub const PARTS: &[(&str, Part)] =
    &[("use", use_end), ("wait and leave", wait_and_leave), ("give away", give_away), ("hear the end", hear_the_end)];

type Item = (u64, Vec<u8>);

const ITEMS: u64 = 4;

fn item(number: u64) -> Item {
    (number, vec![number as u8; if number.is_multiple_of(2) { 10 } else { 3000 }])
}

/// Sends some, says that this was all, receives some, polls, is done with it.
fn use_end(talk: &mut Talk) {
    let pipe: Connection<Item> = talk.hear_handle();
    for number in 0..ITEMS {
        pipe.send(item(number)).unwrap();
    }
    pipe.close_sending().unwrap();
    for number in 0..ITEMS {
        assert!(pipe.poll(None).unwrap());
        assert_eq!(pipe.recv().unwrap(), Some(item(number)));
    }
    pipe.close().unwrap();
    talk.say("done");
}

/// Waits for a queue, an event and a descriptor, and takes nothing.
fn wait_and_leave(talk: &mut Talk) {
    let (queue, event): (Queue<u64>, Event) = (talk.hear_handle(), talk.hear_handle());
    let (reader, _writer) = std::io::pipe().unwrap();
    wait(&[&queue, &event], Duration::from_millis(5)).unwrap();
    wait(&[&queue, &event, &reader.as_fd()], Duration::from_millis(5)).unwrap();
    talk.say("done");
}

#[test]
fn whoever_dies_at_an_end_ends_the_stream_for_the_other() {
    let world = World::of_processes();
    for point in 1.. {
        let (ours, theirs) = world.manager.pipe_with::<Item, Item>(PipeOptions::new().capacity(2)).unwrap();
        let mut player = world.doomed_player("use", &[line(&theirs)], CLIENT_VARIABLE, point);
        // It opens the end before it comes to its first point; until then it is held here.
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                let mut received = Vec::new();
                while let Some(item) = ours.recv().unwrap() {
                    received.push(item);
                }
                received
            });
            let sender = scope.spawn(|| {
                let mut sent = 0;
                while sent < ITEMS && ours.send(item(sent)).is_ok() {
                    sent += 1;
                }
            });
            let _ = player.hear();
            drop(theirs);
            // All sent items come, in their order and whole; then the end.
            let received = receiver.join().unwrap();
            assert!(received.len() as u64 <= ITEMS && received.iter().zip(0..).all(|(received, number)| *received == item(number)));
            sender.join().unwrap();
        });
        let killed = player.was_killed();
        until_promptly("nobody sends to the dead", || ours.try_send(item(0)).is_err_and(|error| error.is_closed()));
        drop(ours);
        until_promptly("nothing is left", || world.manager.stats().unwrap().segments == 0);
        world.manager.audit().unwrap();
        if !killed {
            println!("{} deaths", point - 1);
            assert!(point > 40, "only {point} points");
            return;
        }
    }
}

/// Gives ends to children, each doomed at one of its points, and never looks at a child, a pipe or anything else before it is told to.
fn give_away(talk: &mut Talk) {
    loop {
        let end: Connection<Item> = talk.hear_handle();
        let point = talk.hear().unwrap();
        let child = Process::builder().env(CLIENT_VARIABLE, point).spawn(send_one, end).unwrap();
        talk.say("given");
        talk.hear();
        child.wait(None).unwrap();
        talk.say(child.exit_code().unwrap());
    }
}

fn send_one(end: Connection<Item>) -> commonhold::Result<()> {
    Ok(end.send(item(0))?)
}

fn hear_the_end(talk: &mut Talk) {
    loop {
        let end: Connection<Item> = talk.hear_handle();
        talk.say("there");
        talk.say(end.iter().map(Result::unwrap).count());
    }
}

#[test]
fn a_child_that_dies_ends_the_stream_though_its_parent_never_looks() {
    let world = World::of_processes();
    let (mut parent, mut other) = (world.player("give away", &[]), world.player("hear the end", &[]));
    let (mut deaths, mut unsent) = (0, 0);
    for point in 1.. {
        let (ours, theirs) = world.manager.pipe::<Item>().unwrap();
        other.say(line(&ours));
        other.expect("there");
        parent.say(line(&theirs));
        parent.say(point);
        parent.expect("given");
        drop((ours, theirs));
        // It was the child's alone from the moment in which it was given.
        let count = other.hear().expect("the end of the stream");
        assert!(["0", "1"].contains(&count.as_str()), "{count}");
        parent.say("look");
        match parent.hear().unwrap().as_str() {
            "0" => break,
            code => assert_eq!(code, "-9"),
        }
        deaths += 1;
        unsent += u32::from(count == "0");
        until_promptly("nothing is left", || world.manager.stats().unwrap().segments == 0);
        world.manager.audit().unwrap();
    }
    println!("{deaths} deaths, {unsent} before anything was sent");
    assert!(deaths > 10 && unsent > 5 && unsent < deaths, "{deaths} deaths, {unsent} before anything was sent");
    parent.finish();
    other.finish();
}

#[test]
fn whoever_is_stopped_at_an_end_loses_nothing() {
    let world = World::of_processes();
    let (ours, theirs) = world.manager.pipe_with::<Item, Item>(PipeOptions::new().capacity(2)).unwrap();
    let mut ends = Some((ours, theirs));
    // The pipe is closed at each player's end.
    let stops = {
        let mut count = 0;
        loop {
            let (ours, theirs) = ends.take().unwrap();
            let over = std::thread::scope(|scope| {
                let ours = &ours;
                let receiver = scope.spawn(move || {
                    let received: Vec<Item> = std::iter::from_fn(|| ours.recv().unwrap()).collect();
                    assert_eq!(received, (0..ITEMS).map(item).collect::<Vec<_>>());
                });
                let sender = scope.spawn(move || (0..ITEMS).for_each(|number| ours.send(item(number)).unwrap()));
                let over = one_stop(&world, &theirs, count + 1);
                receiver.join().unwrap();
                sender.join().unwrap();
                over
            });
            if over {
                break count;
            }
            count += 1;
            ends = Some(world.manager.pipe_with::<Item, Item>(PipeOptions::new().capacity(2)).unwrap());
        }
    };
    assert!(stops > 40, "{stops}");
}

/// Plays the part of [`use_end`], stopped at this point and let go on. Whether it came to its end without.
fn one_stop(world: &World, theirs: &Connection<Item>, point: u64) -> bool {
    use crate::support::{Watched, state_of, until};
    let mut player = world.doomed_player("use", &[line(theirs)], commonhold_ipc::points::CLIENT_STOP_VARIABLE, point);
    let watched = Watched::of(player.role().pid());
    let mut stopped = false;
    until("it stops or ends", || {
        stopped = state_of(watched.pid) == Some('T');
        stopped || watched.has_ended()
    });
    if stopped {
        player.go_on();
    }
    player.expect("done");
    player.finish();
    !stopped
}

#[test]
fn whoever_waits_and_dies_or_stops_keeps_nobody_asleep() {
    let world = World::of_processes();
    let (queue, event) = (world.manager.queue::<u64>(4).unwrap(), world.manager.event().unwrap());
    let handles = [line(&queue), line(&event)];
    let pass_one = || {
        // A receiver sleeps; the one who waits may be woken for its item.
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| queue.recv_timeout(Duration::from_secs(30)).unwrap());
            queue.send(1).unwrap();
            assert_eq!(receiver.join().unwrap(), Some(1));
        });
        event.set().unwrap();
        event.clear().unwrap();
    };
    let others = |over: &std::sync::atomic::AtomicBool| {
        while !over.load(Ordering::Relaxed) {
            pass_one();
        }
    };
    let deaths = deaths(&world, "wait and leave", &handles, others, |_| pass_one());
    assert!(deaths > 3, "{deaths}");
    let stops = stops(&world, "wait and leave", &handles, pass_one);
    assert!(stops > 3, "{stops}");
}
