//! Waiting for several things of several kinds.

use crate::players::{Part, Talk, World, line};
use crate::support::{process_of, until};
use commonhold::{Connection, Event, List, Manager, Process, Queue, QueueOptions, Waitable, parent_process, wait};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub const PARTS: &[(&str, Part)] = &[("wait for all", wait_for_all), ("wait and say", wait_and_say), ("receive one", receive_one)];

/// Waits for a queue, a pipe and an event, and says what is ready, until the pipe ends.
fn wait_for_all(talk: &mut Talk) {
    let (queue, pipe, event): (Queue<u64>, Connection<String>, Event) = (talk.hear_handle(), talk.hear_handle(), talk.hear_handle());
    talk.say("there");
    loop {
        for ready in wait(&[&queue, &pipe, &event], None).unwrap() {
            match ready {
                0 => talk.say(queue.try_recv().unwrap().unwrap()),
                1 => match pipe.try_recv().unwrap() {
                    Some(text) => talk.say(text),
                    None => return talk.say("done"),
                },
                _ => {
                    event.clear().unwrap();
                    talk.say("set");
                }
            }
        }
    }
}

/// Waits once and says what is ready: of a queue and an event, and of a descriptor if that is wanted.
fn wait_and_say(talk: &mut Talk) {
    let (queue, event): (Queue<u64>, Event) = (talk.hear_handle(), talk.hear_handle());
    let (reader, _writer) = std::io::pipe().unwrap();
    let with_descriptor = talk.hear().unwrap() == "descriptor";
    talk.say("waits");
    let things: [&dyn Waitable; 3] = [&queue, &event, &reader];
    talk.say(format!("{:?}", wait(&things[..if with_descriptor { 3 } else { 2 }], None).unwrap()));
}

fn receive_one(talk: &mut Talk) {
    let queue: Queue<u64> = talk.hear_handle();
    talk.say("waits");
    talk.say(queue.recv().unwrap().unwrap());
}

/// Enough for whoever was told to wait to be asleep, most of the time: it must not matter.
fn a_moment() {
    std::thread::sleep(Duration::from_millis(5));
}

#[test]
fn whatever_is_ready_first_wakes() {
    for world in World::all() {
        let (queue, event) = (world.manager.queue::<u64>(4).unwrap(), world.manager.event().unwrap());
        let (ours, theirs) = world.manager.pipe::<String>().unwrap();
        let mut player = world.player("wait for all", &[line(&queue), line(&theirs), line(&event)]);
        player.expect("there");
        drop(theirs);
        for round in 0..20 {
            queue.send(round).unwrap();
            player.expect(round);
            ours.send(format!("text {round}")).unwrap();
            player.expect(format!("text {round}"));
            event.set().unwrap();
            player.expect("set");
        }
        drop(ours);
        player.expect("done");
        player.finish();
    }
}

#[test]
fn readiness_is_of_the_moment_and_stays() {
    let manager = Manager::in_process().unwrap();
    let (queue, event) = (manager.queue::<u64>(4).unwrap(), manager.event().unwrap());
    let (mut here, there) = UnixStream::pair().unwrap();
    let things: [&dyn Waitable; 3] = [&queue, &event, &there];
    assert_eq!(wait(&[], None).unwrap(), []);
    for timeout in [0, 1, 20] {
        assert_eq!(wait(&things, Duration::from_millis(timeout)).unwrap(), []);
        assert_eq!(wait(&things[..2], Duration::from_millis(timeout)).unwrap(), []);
    }
    queue.send(1).unwrap();
    event.set().unwrap();
    here.write_all(b"x").unwrap();
    for _ in 0..3 {
        assert_eq!(wait(&things, None).unwrap(), [0, 1, 2]);
        assert_eq!(wait(&things, Duration::ZERO).unwrap(), [0, 1, 2]);
    }
    assert_eq!(queue.try_recv().unwrap(), Some(1));
    event.clear().unwrap();
    assert_eq!(wait(&things, None).unwrap(), [2]);
    (&there).read_exact(&mut [0]).unwrap();
    assert_eq!(wait(&things, Duration::from_millis(1)).unwrap(), []);
    drop(here);
    assert_eq!(wait(&things, None).unwrap(), [2], "its end");
    queue.close().unwrap();
    assert_eq!(wait(&things[..2], None).unwrap(), [0], "closed and drained");
    let leased = manager.queue_with::<u64>(QueueOptions::new().capacity(2)).unwrap();
    leased.send(1).unwrap();
    std::thread::scope(|scope| {
        let lease = scope.spawn(|| leased.lease().unwrap()).join().unwrap();
        leased.close().unwrap();
        assert_eq!(wait(&[&leased], Duration::from_millis(1)).unwrap(), [], "its item may come back");
        let waiter = scope.spawn(|| wait(&[&leased, &event], None).unwrap());
        a_moment();
        drop(lease);
        assert_eq!(waiter.join().unwrap(), [0]);
    });
}

#[test]
fn who_waits_and_takes_nothing_wakes_who_takes() {
    for world in World::all() {
        for with in ["descriptor", "nothing else"] {
            let (queue, event) = (world.manager.queue::<u64>(4).unwrap(), world.manager.event().unwrap());
            // They fall asleep in this order, and the first to be woken take nothing.
            let mut waiters: Vec<_> = (0..3).map(|_| world.player("wait and say", &[line(&queue), line(&event)])).collect();
            waiters.iter_mut().for_each(|waiter| {
                waiter.say(with);
                waiter.expect("waits");
            });
            a_moment();
            let mut receiver = world.player("receive one", &[line(&queue)]);
            receiver.expect("waits");
            a_moment();
            queue.send(7).unwrap();
            receiver.expect(7);
            // Those who were not woken in time find nothing, and wait on.
            event.set().unwrap();
            for waiter in &mut waiters {
                let said = waiter.hear().unwrap();
                assert!(["[0]", "[1]", "[0, 1]"].contains(&said.as_str()), "{said}");
            }
            waiters.into_iter().chain([receiver]).for_each(crate::players::Player::finish);
        }
    }
}

#[test]
fn more_words_than_the_kernel_takes() {
    let manager = Manager::in_process().unwrap();
    let events: Vec<Event> = (0..300).map(|_| manager.event().unwrap()).collect();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let wait_for_all = |with_descriptor: bool, timeout: Option<Duration>| {
        let mut things: Vec<&dyn Waitable> = events.iter().map(|event| event as &dyn Waitable).collect();
        if with_descriptor {
            things.push(&reader);
        }
        wait(&things, timeout).unwrap()
    };
    for with_descriptor in [false, true] {
        assert_eq!(wait_for_all(with_descriptor, Some(Duration::from_millis(5))), []);
        for chosen in [0, 125, 126, 127, 128, 255, 299] {
            std::thread::scope(|scope| {
                let waiter = scope.spawn(|| wait_for_all(with_descriptor, None));
                a_moment();
                events[chosen].set().unwrap();
                assert_eq!(waiter.join().unwrap(), [chosen]);
            });
            events[chosen].clear().unwrap();
        }
    }
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| wait_for_all(true, None));
        a_moment();
        writer.write_all(b"x").unwrap();
        assert_eq!(waiter.join().unwrap(), [300]);
    });
}

#[test]
fn things_of_more_managers_than_one_sleep_has_words_for() {
    let managers: Vec<Manager> = (0..3).map(|_| Manager::in_process().unwrap()).collect();
    let queues: Vec<Queue<u8>> = managers.iter().flat_map(|manager| (0..50).map(|_| manager.queue(1).unwrap())).collect();
    let wait_for_all = || wait(&queues.iter().map(|queue| queue as &dyn Waitable).collect::<Vec<_>>(), None).unwrap();
    for chosen in [0, 60, 149] {
        std::thread::scope(|scope| {
            let waiter = scope.spawn(wait_for_all);
            a_moment();
            queues[chosen].send(1).unwrap();
            assert_eq!(waiter.join().unwrap(), [chosen]);
        });
        queues[chosen].recv().unwrap();
    }
}

#[test]
fn the_managers_death_is_news() {
    let (dying, living) = (Manager::start().unwrap(), Manager::start().unwrap());
    let (queue, other, event) = (dying.queue::<u8>(1).unwrap(), living.queue::<u8>(1).unwrap(), dying.event().unwrap());
    let (reader, _writer) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        let words = scope.spawn(|| wait(&[&other, &queue], None).unwrap());
        let mixed = scope.spawn(|| wait(&[&other, &event, &reader.as_fd()], None).unwrap());
        let polls = scope.spawn(|| wait(&[&other, &queue, &event, &reader], Duration::from_secs(60)).unwrap());
        a_moment();
        process_of(&dying).kill();
        assert_eq!(words.join().unwrap(), [1]);
        assert_eq!(mixed.join().unwrap(), [1]);
        assert!(polls.join().unwrap().starts_with(&[1]));
    });
    assert!(queue.recv().unwrap_err().is_disconnected());
    assert_eq!(wait(&[&other, &queue], None).unwrap(), [1]);
    assert_eq!(wait(&[&other], Duration::from_millis(1)).unwrap(), []);
}

#[test]
fn processes_among_other_things() {
    fn idle() {
        let parent = parent_process().unwrap();
        let _ = wait(&[&parent], None);
    }
    let manager = Manager::start().unwrap();
    let queue = manager.queue::<u8>(4).unwrap();
    let sleeper = Process::builder().daemon(true).spawn(idle, ()).unwrap();
    let sender = Process::spawn(|queue: Queue<u8>| queue.send(5).map_err(commonhold::SendError::into_error), queue.clone()).unwrap();
    let mut seen = Vec::new();
    while !seen.contains(&2) {
        seen = wait(&[&queue, &sleeper, &sender], None).unwrap();
    }
    assert_eq!(wait(&[&sleeper, &queue, &sender], None).unwrap(), [1, 2]);
    assert_eq!(queue.recv().unwrap(), Some(5));
    sender.join().unwrap().unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| wait(&[&queue, &sleeper], None).unwrap());
        a_moment();
        sleeper.kill().unwrap();
        assert_eq!(waiter.join().unwrap(), [1]);
    });
    // One that returns handles ends when they have been taken over, which waiting does.
    let maker = Process::spawn(|lists: Queue<List<u8>>| lists.session().unwrap().list([1u8]).unwrap(), manager.queue(1).unwrap()).unwrap();
    assert_eq!(wait(&[&queue, &maker], None).unwrap(), [1]);
    assert_eq!(maker.join().unwrap().to_owned().unwrap(), [1]);
}

#[test]
fn nothing_is_left_of_the_helpers() {
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().map_while(Result::ok).filter(|task| is_helper(&task.path())).count();
    fn is_helper(task: &std::path::Path) -> bool {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "commonhold-wait")
    }
    let manager = Manager::in_process().unwrap();
    let (queue, event) = (manager.queue::<u8>(1).unwrap(), manager.event().unwrap());
    let (reader, _writer) = std::io::pipe().unwrap();
    for _ in 0..20 {
        assert_eq!(wait(&[&queue, &event, &reader.as_fd()], Duration::from_millis(1)).unwrap(), []);
    }
    // Other tests run beside this one.
    until("no helper is left", || threads() == 0);
}
