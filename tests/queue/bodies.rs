//! What a queue does, whoever uses it.

use crate::players::{Part, Talk, World, line};
use crate::support::{process_of, until, until_promptly};
use commonhold::{Dict, ErrorKind, Manager, Queue, QueueOptions, Semaphore, Token};
use std::collections::HashSet;
use std::time::{Duration, Instant};

pub const PARTS: &[(&str, Part)] =
    &[("send", send), ("send in turn", send_in_turn), ("receive", receive), ("lease", lease), ("wait", wait)];

/// Items of those who send in turn.
const TURNS: u64 = 100;

/// Sends so many items, numbered from a number on.
fn send(talk: &mut Talk) {
    let queue: Queue<(u64, Vec<u8>)> = talk.hear_handle();
    let (from, count): (u64, u64) = (talk.hear().unwrap().parse().unwrap(), talk.hear().unwrap().parse().unwrap());
    for number in from..from + count {
        queue.send((number, payload(number))).unwrap();
    }
    talk.say("done");
}

/// Sends every second number when it is its turn, and gives the turn to the other.
fn send_in_turn(talk: &mut Talk) {
    let (queue, mine, other): (Queue<u64>, Semaphore, Semaphore) = (talk.hear_handle(), talk.hear_handle(), talk.hear_handle());
    let first: u64 = talk.hear().unwrap().parse().unwrap();
    for number in (first..TURNS).step_by(2) {
        mine.acquire().unwrap().forget();
        queue.send(number).unwrap();
        other.release().unwrap();
    }
    talk.say("done");
}

/// Receives until the queue is drained, and says what.
fn receive(talk: &mut Talk) {
    let queue: Queue<(u64, Vec<u8>)> = talk.hear_handle();
    for item in &queue {
        let (number, bytes) = item.unwrap();
        assert_eq!(bytes, payload(number));
        talk.say(number);
    }
    talk.say("done");
}

/// The same with leases; every third is dropped the first time.
fn lease(talk: &mut Talk) {
    let queue: Queue<(u64, Vec<u8>)> = talk.hear_handle();
    while let Some(lease) = queue.lease().unwrap() {
        assert_eq!(lease.1, payload(lease.0));
        if lease.0.is_multiple_of(3) && lease.attempt() == 1 {
            continue;
        }
        talk.say(lease.ack().unwrap().0);
    }
    talk.say("done");
}

/// Waits in every way until the end.
fn wait(talk: &mut Talk) {
    let queue: Queue<(u64, Vec<u8>)> = talk.hear_handle();
    let way = talk.hear().unwrap();
    talk.say("waits");
    let error = match way.as_str() {
        "recv" => queue.recv().map(drop),
        "lease" => queue.lease().map(drop),
        "send" => queue.send((0, Vec::new())).map_err(Into::into),
        _ => queue.join(),
    };
    talk.say(error.err().map_or("no error".to_owned(), |error| format!("disconnected: {}", error.is_disconnected())));
}

/// Some are inline, most not, one takes many units.
pub fn payload(number: u64) -> Vec<u8> {
    let len = match number % 8 {
        0 => 0,
        1 | 2 => 40,
        7 => 5000,
        _ => 100 + number as usize % 900,
    };
    vec![number as u8; len]
}

fn numbers(player: &mut crate::players::Player) -> Vec<u64> {
    let mut numbers = Vec::new();
    loop {
        let line = player.hear().expect("it ends well");
        if line == "done" {
            return numbers;
        }
        numbers.push(line.parse().unwrap());
    }
}

#[test]
fn handles_and_leases_travel() {
    fn travels<T: Send>() {}
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Queue<String>>();
    travels::<commonhold::Lease<String>>();
    travels::<commonhold::DeadLetters<String>>();
}

#[test]
fn every_item_passes_once_and_in_order() {
    for world in World::all() {
        let queue = world.manager.queue::<(u64, Vec<u8>)>(16).unwrap();
        let mut senders: Vec<_> = (0..3).map(|_| world.player("send", &[line(&queue)])).collect();
        for (number, sender) in senders.iter_mut().enumerate() {
            sender.say(number * 1000);
            sender.say(300);
        }
        let mut receivers: Vec<_> = ["receive", "receive", "lease"].iter().map(|part| world.player(part, &[line(&queue)])).collect();
        senders.iter_mut().for_each(|sender| sender.expect("done"));
        queue.close().unwrap();
        let mut seen = HashSet::new();
        for (which, receiver) in receivers.iter_mut().enumerate() {
            let received = numbers(receiver);
            for sender in 0..3 {
                let of_one: Vec<u64> = received.iter().copied().filter(|number| number / 1000 == sender).collect();
                // What somebody has dropped comes back before the others, later than it was sent.
                let fresh: Vec<u64> = of_one.into_iter().filter(|number| number % 3 != 0).collect();
                assert!(fresh.is_sorted(), "receiver {which}: {fresh:?}");
            }
            received.iter().for_each(|number| assert!(seen.insert(*number), "{number} came twice"));
        }
        assert_eq!(seen.len(), 900);
        senders.into_iter().chain(receivers).for_each(crate::players::Player::finish);
        assert_eq!((queue.len().unwrap(), queue.in_use().unwrap()), (0, (0, 0)));
        world.manager.audit().unwrap();
    }
}

/// What was sent before something else, whoever sent either, comes before it.
#[test]
fn order_is_that_of_all_senders_together() {
    for world in World::all() {
        let queue = world.manager.queue::<u64>(10).unwrap();
        let turns = [world.manager.semaphore(1).unwrap(), world.manager.semaphore(0).unwrap()];
        let mut senders: Vec<_> = (0..2)
            .map(|first| {
                let mut player = world.player("send in turn", &[line(&queue), line(&turns[first]), line(&turns[1 - first])]);
                player.say(first);
                player
            })
            .collect();
        (0..TURNS).for_each(|number| assert_eq!(queue.recv().unwrap(), Some(number)));
        senders.iter_mut().for_each(|sender| sender.expect("done"));
        senders.into_iter().for_each(|sender| sender.finish());
    }
}

#[test]
fn even_an_unbounded_queue_has_its_limit() {
    let manager = Manager::in_process().unwrap();
    let queue = manager.queue_unbounded::<()>().unwrap();
    assert_eq!(queue.capacity().unwrap(), 131_071);
    queue.send_many(std::iter::repeat_n((), 131_071)).unwrap();
    assert!(queue.is_full().unwrap() && queue.try_send(()).unwrap().is_err());
    assert!(queue.send_timeout((), Duration::from_millis(1)).unwrap_err().is_timed_out());
    queue.recv().unwrap().unwrap();
    assert!(queue.try_send(()).unwrap().is_ok());
}

#[test]
fn full_is_by_number_and_by_bytes() {
    let manager = Manager::in_process().unwrap();
    for capacity in [1, 2, 3, 64, 100, 1000] {
        let queue = manager.queue::<u64>(capacity).unwrap();
        for round in 0..3 {
            for item in 0..capacity {
                assert!(queue.try_send(item).unwrap().is_ok(), "{round}");
            }
            assert!(queue.is_full().unwrap() && queue.try_send(0).unwrap() == Err(0));
            assert_eq!(queue.len().unwrap() as u64, capacity);
            assert!(queue.send_timeout(0, Duration::from_millis(1)).unwrap_err().is_timed_out());
            for item in 0..capacity {
                assert_eq!(queue.try_recv().unwrap(), Some(item));
            }
            assert!(queue.is_empty().unwrap() && queue.try_recv().unwrap().is_none());
        }
    }
    let queue = manager.queue_with::<Vec<u8>>(QueueOptions::new().bytes_max(10 << 10)).unwrap();
    let mut sent = 0;
    while queue.try_send(vec![sent as u8; 1500]).unwrap().is_ok() {
        sent += 1;
    }
    assert_eq!(sent, 5, "two units of 1 KiB each");
    // Small ones need none.
    assert!(queue.try_send(vec![1; 10]).unwrap().is_ok());
    assert_eq!(queue.try_recv().unwrap().unwrap().len(), 1500);
    assert!(queue.try_send(vec![1; 1500]).unwrap().is_ok());
    assert_eq!(queue.try_send(vec![1; 1500]).unwrap(), Err(vec![1; 1500]), "back");
    let error = queue.send(vec![1; 11 << 10]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    assert!(error.to_string().contains("bytes_max"), "{error}");
    while queue.try_recv().unwrap().is_some() {}
    assert_eq!(queue.in_use().unwrap(), (0, 0));
}

#[test]
fn limits_are_said() {
    let manager = Manager::in_process().unwrap();
    for options in [QueueOptions::new().capacity(0), QueueOptions::new().capacity(900_001), QueueOptions::new().bytes_max(65 << 30)] {
        assert_eq!(manager.queue_with::<u8>(options).unwrap_err().kind(), ErrorKind::OutOfRange);
    }
    manager.queue::<u8>(900_000).unwrap();
    let small = Manager::builder().capacity(8 << 20).in_process().start().unwrap();
    let queue = small.queue_unbounded::<Vec<u8>>();
    assert_eq!(queue.unwrap_err().kind(), ErrorKind::Full, "its cells take more than half of 8 MiB");
    let queue = small.queue::<Vec<u8>>(100).unwrap();
    let error = queue.send(vec![0; 6 << 20]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert!(error.to_string().contains("capacity"), "{error}");
    assert_eq!(queue.in_use().unwrap(), (0, 0));
    queue.send(vec![7; 1 << 20]).unwrap();
    assert_eq!(queue.recv().unwrap().unwrap().len(), 1 << 20);
}

#[test]
fn items_of_all_sizes() {
    let manager = Manager::in_process().unwrap();
    let queue = manager.queue::<Vec<u8>>(4).unwrap();
    for len in [0, 1, 79, 80, 81, 88, 89, 1015, 1016, 1017, 1024, 1025, 65_535, 65_536, 65_537, 1 << 20, (16 << 20) + 1] {
        let item: Vec<u8> = (0..len).map(|at| (at * 7 + at / 251) as u8).collect();
        queue.send(&item).unwrap();
        assert!(queue.recv().unwrap().unwrap() == item, "{len}");
        queue.send(&item).unwrap();
        assert!(queue.lease().unwrap().unwrap().ack().unwrap() == item, "{len}");
    }
    let units = manager.queue::<()>(4).unwrap();
    units.send(()).unwrap();
    assert_eq!(units.recv().unwrap(), Some(()));
    assert_eq!(queue.in_use().unwrap(), (0, 0));
}

#[test]
fn close_lets_receivers_drain() {
    for world in World::all() {
        let queue = world.manager.queue::<(u64, Vec<u8>)>(16).unwrap();
        let mut receivers: Vec<_> = (0..2).map(|_| world.player("receive", &[line(&queue)])).collect();
        queue.send((1, payload(1))).unwrap();
        assert!(queue.close().unwrap() && !queue.close().unwrap() && queue.is_closed().unwrap());
        let error = queue.send((2, payload(2))).unwrap_err();
        assert!(error.is_closed(), "{error}");
        assert!(queue.try_send((2, payload(2))).unwrap_err().is_closed());
        let received: Vec<u64> = receivers.iter_mut().flat_map(numbers).collect();
        assert_eq!(received, [1]);
        assert_eq!(queue.recv().unwrap(), None);
        assert_eq!(queue.recv_timeout(Duration::from_secs(60)).unwrap(), None);
        assert!(queue.lease().unwrap().is_none() && queue.recv_many(5).unwrap().is_empty());
        queue.join().unwrap();
        receivers.into_iter().for_each(crate::players::Player::finish);
    }
}

/// Who sleeps for want of room is not told of one item's; it looks by itself, should nobody receive any more.
#[test]
fn room_for_one_is_found_by_a_sender_that_nobody_tells() {
    for world in World::all() {
        let queue = world.manager.queue::<(u64, Vec<u8>)>(8).unwrap();
        (0..8).for_each(|number| queue.send((number, payload(number))).unwrap());
        let mut sender = world.player("send", &[line(&queue)]);
        sender.say(8);
        sender.say(3);
        for number in 0..3 {
            assert_eq!(queue.recv().unwrap().unwrap().0, number);
            until("it has taken the room", || queue.is_full().unwrap());
        }
        sender.expect("done");
        sender.finish();
        assert_eq!(queue.in_use().unwrap().0, 8);
    }
}

#[test]
fn a_full_queue_can_be_closed_and_wakes_senders() {
    let manager = Manager::in_process().unwrap();
    let queue = manager.queue::<u64>(1).unwrap();
    queue.send(1).unwrap();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| queue.send(2));
        std::thread::sleep(Duration::from_millis(5));
        queue.close().unwrap();
        assert!(sender.join().unwrap().unwrap_err().is_closed());
    });
    assert_eq!((queue.recv().unwrap(), queue.recv().unwrap()), (Some(1), None));
}

#[test]
fn leases_come_back() {
    let manager = Manager::in_process().unwrap();
    let queue = manager.queue_with::<String>(QueueOptions::new().capacity(10).attempts_max(3)).unwrap();
    queue.send_many(["a", "b", "c"]).unwrap();
    let a = queue.lease().unwrap().unwrap();
    let b = queue.lease().unwrap().unwrap();
    assert_eq!((a.as_str(), a.attempt(), b.as_str(), queue.len().unwrap()), ("a", 1, "b", 1));
    drop(b);
    drop(a);
    let again: Vec<String> = (0..3).map(|_| queue.lease().unwrap().unwrap().ack().unwrap()).collect();
    assert_eq!(again, ["b", "a", "c"], "what came back comes first");
    queue.send("poison").unwrap();
    for attempt in 1..=3 {
        assert!(queue.dead_letters().is_empty().unwrap());
        assert_eq!(queue.lease_timeout(Duration::from_secs(1)).unwrap().unwrap().attempt(), attempt);
    }
    assert!(queue.try_lease().unwrap().is_none() && queue.is_empty().unwrap());
    assert_eq!(queue.dead_letters().len().unwrap(), 1);
    queue.join().unwrap();
    assert_eq!(queue.dead_letters().recv_timeout(Duration::from_secs(1)).unwrap(), "poison");
    assert!(queue.dead_letters().try_recv().unwrap().is_none());
    assert_eq!(queue.in_use().unwrap(), (0, 0));
}

#[test]
fn a_closed_queue_is_not_over_while_something_may_come_back() {
    let manager = Manager::in_process().unwrap();
    let queue = manager.queue::<u64>(4).unwrap();
    queue.send(1).unwrap();
    let lease = queue.lease().unwrap().unwrap();
    queue.close().unwrap();
    // Its holder itself does not wait for itself.
    assert!(queue.recv().unwrap().is_none());
    std::thread::scope(|scope| {
        let other = scope.spawn(|| queue.recv().unwrap());
        std::thread::sleep(Duration::from_millis(5));
        assert!(!other.is_finished());
        drop(lease);
        assert_eq!(other.join().unwrap(), Some(1));
        queue.join().unwrap();
    });
    assert!(queue.recv().unwrap().is_none());
}

#[test]
fn join_waits_for_tasks() {
    let manager = Manager::in_process().unwrap();
    let jobs = manager.queue_with::<Vec<u8>>(QueueOptions::new().capacity(10).joinable()).unwrap();
    assert_eq!(jobs.task_done().unwrap_err().kind(), ErrorKind::OutOfRange);
    jobs.send_many([vec![1], vec![2; 2000], vec![3]]).unwrap();
    assert!(!jobs.join_timeout(Duration::from_millis(1)).unwrap());
    for _ in 0..3 {
        jobs.recv().unwrap().unwrap();
    }
    assert_eq!(jobs.in_use().unwrap(), (3, 0), "what was received holds no payload");
    std::thread::scope(|scope| {
        let joins = scope.spawn(|| jobs.join().unwrap());
        (0..2).for_each(|_| jobs.task_done().unwrap());
        std::thread::sleep(Duration::from_millis(5));
        assert!(!joins.is_finished());
        jobs.task_done().unwrap();
        joins.join().unwrap();
    });
    assert_eq!(jobs.task_done().unwrap_err().kind(), ErrorKind::OutOfRange);
    let plain = manager.queue::<u8>(3).unwrap();
    assert!(plain.task_done().unwrap_err().to_string().contains("joinable"));
}

#[test]
fn queues_are_objects_like_others() {
    let manager = Manager::start().unwrap();
    let queue = manager.queue::<String>(4).unwrap();
    let shelf: Dict<String, Queue<String>> = manager.dict([("jobs".to_string(), queue.clone())]).unwrap();
    let token = queue.token().unwrap().to_string();
    queue.send("x").unwrap();
    let same = shelf.get("jobs").unwrap().unwrap().to_owned();
    assert!(same == queue && same.len().unwrap() == 1);
    let attached: Queue<String> = manager.attach(&token.parse::<Token>().unwrap()).unwrap();
    assert_eq!(attached.recv().unwrap().unwrap(), "x");
    assert_eq!(manager.attach::<Queue<u8>>(&token.parse().unwrap()).unwrap_err().kind(), ErrorKind::WrongType);
    assert!(format!("{queue:?}").contains("Queue<String> object"), "{queue:?}");
    let descriptors = manager.stats().unwrap().segments;
    drop((queue, same, attached));
    shelf.clear().unwrap();
    until_promptly("its memory is gone", || manager.stats().unwrap().segments == descriptors - 1);
    assert_eq!(manager.stats().unwrap().segment_bytes, 0);
    manager.audit().unwrap();
}

#[test]
fn the_managers_death_wakes_everybody() {
    let world = World::of_processes();
    let queue = world.manager.queue::<(u64, Vec<u8>)>(1).unwrap();
    let full = world.manager.queue::<(u64, Vec<u8>)>(1).unwrap();
    full.send((1, Vec::new())).unwrap();
    let mut players: Vec<_> = ["recv", "lease", "send", "join"]
        .iter()
        .map(|way| {
            let mut player = world.player("wait", &[line(if matches!(*way, "recv" | "lease") { &queue } else { &full })]);
            player.say(way);
            player.expect("waits");
            player
        })
        .collect();
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    process_of(&world.manager).kill();
    players.iter_mut().for_each(|player| player.expect("disconnected: true"));
    println!("all are told after {:?}", start.elapsed());
    until("it is known here", || !world.manager.is_alive());
    assert!(queue.try_recv().unwrap_err().is_disconnected() && full.try_send((1, Vec::new())).unwrap_err().is_disconnected());
    assert!(queue.len().unwrap_err().is_disconnected() && full.lease().unwrap_err().is_disconnected());
}
