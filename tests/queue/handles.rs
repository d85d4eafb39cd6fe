//! Handles in items: what they refer to lives until the receiver has them, whoever dies.

use crate::fates::stops;
use crate::players::{Part, Talk, World, line};
use crate::support::{until, until_promptly};
use commonhold::{List, Manager, Queue, QueueOptions, Shared};
use commonhold_ipc::points::CLIENT_VARIABLE;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

pub const PARTS: &[(&str, Part)] = &[("pass", pass)];

type Item = (u64, Option<List<u64>>);

fn list(manager: &Manager, number: u64) -> Item {
    (number, Some(manager.list([number]).unwrap()))
}

fn check(item: Item) {
    assert_eq!(item.1.expect("there is a list").to_owned().unwrap(), [item.0]);
}

/// Receives one, leases one, sends one, all with handles.
fn pass(talk: &mut Talk) {
    let queue: Queue<Item> = talk.hear_handle();
    let manager = queue.session().unwrap();
    check(queue.recv().unwrap().unwrap());
    check(queue.lease().unwrap().unwrap().ack().unwrap());
    drop(queue.lease().unwrap().unwrap());
    queue.send((7, Some(manager.list([7]).unwrap()))).unwrap();
    talk.say("done");
}

/// Whether nobody may look at what is picky now.
static IS_PICKY: AtomicBool = AtomicBool::new(false);

/// What is put into its set by code of its own, when it is unpacked.
#[derive(Shared, Debug, Clone, PartialEq, Eq)]
struct Picky(u64);

impl Hash for Picky {
    fn hash<H: Hasher>(&self, state: &mut H) {
        assert!(!IS_PICKY.load(Ordering::Relaxed), "not now");
        self.0.hash(state);
    }
}

#[test]
fn an_item_whose_own_code_panics_where_it_is_leased_comes_back_and_what_it_refers_to_is_kept() {
    let manager = Manager::in_process().unwrap();
    let queue = manager.queue_with::<(HashSet<Picky>, Item)>(QueueOptions::new().capacity(4).attempts_max(3)).unwrap();
    let before = manager.stats().unwrap().objects;
    let send = |number: u64| queue.send((HashSet::from([Picky(number)]), list(&manager, number))).unwrap();
    send(1);
    IS_PICKY.store(true, Ordering::Relaxed);
    let panics = |take: &dyn Fn()| assert!(catch_unwind(AssertUnwindSafe(take)).is_err());
    panics(&|| drop(queue.try_lease()));
    panics(&|| drop(queue.try_lease()));
    assert_eq!((queue.len().unwrap(), queue.dead_letters().len().unwrap()), (1, 0));
    IS_PICKY.store(false, Ordering::Relaxed);
    let lease = queue.try_lease().unwrap().unwrap();
    assert_eq!(lease.attempt(), 3);
    check(lease.ack().unwrap().1);
    // Too often, it is set aside.
    send(2);
    IS_PICKY.store(true, Ordering::Relaxed);
    (0..3).for_each(|_| panics(&|| drop(queue.try_lease())));
    assert_eq!((queue.len().unwrap(), queue.dead_letters().len().unwrap()), (0, 1));
    queue.join().unwrap();
    IS_PICKY.store(false, Ordering::Relaxed);
    check(queue.dead_letters().try_recv().unwrap().unwrap().1);
    // What is received is the receiver's, and goes with it.
    send(3);
    IS_PICKY.store(true, Ordering::Relaxed);
    panics(&|| drop(queue.try_recv()));
    IS_PICKY.store(false, Ordering::Relaxed);
    assert_eq!(queue.in_use().unwrap(), (0, 0));
    until_promptly("what it referred to is gone", || manager.stats().unwrap().objects == before);
    manager.audit().unwrap();
}

#[test]
fn what_items_refer_to_lives_until_they_are_received() {
    for manager in [Manager::start().unwrap(), Manager::in_process().unwrap()] {
        let queue = manager.queue_with::<Item>(QueueOptions::new().capacity(2).attempts_max(1)).unwrap();
        let before = manager.stats().unwrap().objects;
        queue.send(list(&manager, 1)).unwrap();
        queue.send((2, None)).unwrap();
        check(queue.try_send(list(&manager, 3)).unwrap().expect_err("it is full"));
        until_promptly("what was not sent is gone", || manager.stats().unwrap().objects == before + 1);
        manager.audit().unwrap();
        let received = queue.recv().unwrap().unwrap();
        manager.audit().unwrap();
        check(received);
        until_promptly("what was received is gone", || manager.stats().unwrap().objects == before);
        assert_eq!(queue.recv().unwrap().unwrap(), (2, None));
        queue.send(list(&manager, 4)).unwrap();
        drop(queue.lease().unwrap().unwrap());
        check(queue.dead_letters().try_recv().unwrap().unwrap());
        queue.send(list(&manager, 5)).unwrap();
        let mut other = list(&manager, 6);
        other.1 = Some(Manager::in_process().unwrap().list([6]).unwrap());
        assert_eq!(queue.send(other).unwrap_err().kind(), commonhold::ErrorKind::Refused);
        // With the queue go those that wait in it.
        drop(queue);
        until_promptly("the queue and what it held are gone", || manager.stats().unwrap().objects == before - 1);
        manager.audit().unwrap();
    }
}

#[test]
fn a_queue_in_itself_is_collected() {
    let manager = Manager::start().unwrap();
    let before = manager.stats().unwrap().objects;
    let outer = manager.queue::<Queue<u64>>(4).unwrap();
    let inner = manager.queue::<u64>(4).unwrap();
    inner.send(5).unwrap();
    outer.send(&inner).unwrap();
    drop(inner);
    let inner = outer.recv().unwrap().unwrap();
    assert_eq!(inner.recv().unwrap(), Some(5));
    drop((inner, outer));
    until_promptly("all are gone", || manager.stats().unwrap().objects == before);
    manager.audit().unwrap();
}

#[test]
fn whoever_is_stopped_with_handles_keeps_them_from_nobody() {
    let world = World::of_processes();
    let queue = world.manager.queue::<Item>(8).unwrap();
    let objects = world.manager.stats().unwrap().objects;
    // As many as a player wants wait, and each that is received is whole.
    let others = || {
        while queue.len().unwrap() < 4 {
            queue.send(list(&world.manager, 5)).unwrap();
        }
        check(queue.recv().unwrap().unwrap());
    };
    let stops = stops(&world, "pass", &[line(&queue)], others);
    assert!(stops > 20, "{stops}");
    while let Some(item) = queue.try_recv().unwrap() {
        check(item);
    }
    until_promptly("nothing is kept", || world.manager.stats().unwrap().objects == objects);
    world.manager.audit().unwrap();
}

#[test]
fn nothing_is_kept_for_the_dead() {
    let world = World::of_processes();
    for point in 1.. {
        let queue = world.manager.queue::<Item>(8).unwrap();
        let objects = world.manager.stats().unwrap().objects;
        (1..=3).for_each(|number| queue.send(list(&world.manager, number)).unwrap());
        let mut player = world.doomed_player("pass", &[line(&queue)], CLIENT_VARIABLE, point);
        let _ = player.hear();
        let killed = player.was_killed();
        until("the session of the dead is over", || world.sessions() == 1);
        world.manager.audit().unwrap();
        let mut left = 0;
        while let Some(item) = queue.try_recv().unwrap() {
            check(item);
            left += 1;
        }
        assert!(if killed { left <= 3 } else { left == 2 }, "{left} are left");
        until_promptly("nothing is kept", || world.manager.stats().unwrap().objects == objects);
        world.manager.audit().unwrap();
        if !killed {
            println!("{} deaths", point - 1);
            return;
        }
    }
}

#[test]
fn a_handle_that_comes_again_and_again_while_it_is_held_is_not_counted_for_ever() {
    let manager = Manager::start().unwrap();
    let (queue, list) = (manager.queue::<List<u64>>(4).unwrap(), manager.list([1u64]).unwrap());
    for _ in 0..3_000 {
        queue.send(list.clone()).unwrap();
        drop(queue.recv().unwrap());
    }
    let own = manager.sessions().unwrap().into_iter().find(|session| session.pid == std::process::id()).unwrap();
    assert!(own.references < 2_000, "{own:?}");
    drop((queue, list));
    until("all is let go", || manager.objects().unwrap().is_empty());
    manager.audit().unwrap();
}
