//! A sender, receiver or leaser is killed, or stopped, at each of its counted points, while others go on: every item is accounted
//! for.

use crate::bodies::payload;
use crate::players::{Part, Player, Talk, World, line};
use crate::support::{PATIENCE, Watched, state_of, until, until_promptly};
use commonhold::{Queue, QueueOptions};
use commonhold_ipc::points::{CLIENT_STOP_VARIABLE, CLIENT_VARIABLE};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub const PARTS: &[(&str, Part)] = &[("work", work), ("work in batches", batches), ("finish", finish), ("hold", hold), ("refuse", refuse)];

type Item = (u64, Vec<u8>);

/// Numbers whose payloads are inline, of one unit, of several.
const KINDS: [u64; 3] = [1, 3, 7];

/// Sends, receives, leases; says what it has done, as soon as it has.
fn work(talk: &mut Talk) {
    let queue: Queue<Item> = talk.hear_handle();
    let base: u64 = talk.hear().unwrap().parse().unwrap();
    for kind in KINDS {
        queue.send((base + kind, payload(base + kind))).unwrap();
        talk.say(format!("in {}", base + kind));
    }
    for _ in KINDS {
        talk.say(format!("out {}", queue.recv().unwrap().unwrap().0));
    }
    for _ in KINDS {
        let lease = queue.lease().unwrap().unwrap();
        talk.say(format!("out {}", lease.ack().unwrap().0));
    }
    for _ in KINDS {
        drop(queue.lease().unwrap().unwrap());
    }
    talk.say("done");
}

/// The same with several items at a time, and without or with little patience.
fn batches(talk: &mut Talk) {
    let queue: Queue<Item> = talk.hear_handle();
    let base: u64 = talk.hear().unwrap().parse().unwrap();
    queue.send_many(KINDS.map(|kind| (base + kind, payload(base + kind)))).unwrap();
    KINDS.iter().for_each(|kind| talk.say(format!("in {}", base + kind)));
    assert!(queue.try_send((base + 10, payload(base + 10))).unwrap().is_ok());
    talk.say(format!("in {}", base + 10));
    queue.send_timeout((base + 12, payload(base + 12)), PATIENCE).unwrap();
    talk.say(format!("in {}", base + 12));
    let mut left = KINDS.len() + 2;
    while left > 2 {
        let items = queue.recv_many(left - 2).unwrap();
        left -= items.len();
        items.iter().for_each(|item| talk.say(format!("out {}", item.0)));
    }
    talk.say(format!("out {}", queue.recv_timeout(PATIENCE).unwrap().unwrap().0));
    // Others may have taken all that there was.
    if let Some(item) = queue.try_recv().unwrap() {
        talk.say(format!("out {}", item.0));
    }
    talk.say("done");
}

/// Leases what is there, each for the last time, and gives it back.
fn refuse(talk: &mut Talk) {
    let queue: Queue<Item> = talk.hear_handle();
    for _ in KINDS {
        drop(queue.try_lease().unwrap());
    }
    talk.say("done");
}

/// Receives and is done with it, closes, waits for the end.
fn finish(talk: &mut Talk) {
    let queue: Queue<Item> = talk.hear_handle();
    for _ in KINDS {
        queue.recv().unwrap().unwrap();
        queue.task_done().unwrap();
    }
    queue.close().unwrap();
    queue.join().unwrap();
    talk.say("done");
}

/// Leases one item and waits.
fn hold(talk: &mut Talk) {
    let queue: Queue<Item> = talk.hear_handle();
    let lease = queue.lease().unwrap().unwrap();
    talk.say(format!("{} {}", lease.0, lease.attempt()));
    talk.hear();
}

/// What went in and what came out, as far as it was said.
#[derive(Default)]
struct Ledger {
    sent: BTreeSet<u64>,
    received: BTreeSet<u64>,
}

impl Ledger {
    fn sent(&mut self, number: u64) {
        assert!(self.sent.insert(number));
    }

    fn received(&mut self, item: &Item) {
        assert_eq!(item.1, payload(item.0), "its payload is its own");
        assert!(self.received.insert(item.0), "{} came twice", item.0);
    }
}

/// Sends one and receives one, again and again.
fn go_on(queue: &Queue<Item>, ledger: &Mutex<Ledger>, next: &mut u64, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let number = *next;
        *next += 1;
        queue.send((number, payload(number))).unwrap();
        ledger.lock().unwrap().sent(number);
        let item = queue.recv().unwrap().unwrap();
        ledger.lock().unwrap().received(&item);
        std::thread::yield_now();
    }
}

/// Hears what a player does until it ends. Whether it said that it was done.
fn listen(player: &mut Player, ledger: &Mutex<Ledger>) -> bool {
    while let Some(line) = player.hear() {
        match line.split_once(' ') {
            Some(("in", number)) => ledger.lock().unwrap().sent(number.parse().unwrap()),
            Some(("out", number)) => assert!(ledger.lock().unwrap().received.insert(number.parse().unwrap()), "{line} twice"),
            _ => return true,
        }
    }
    false
}

/// Takes out what is left and balances the books. So many items may be in the hands of the dead, on their way in or out.
fn balance(queue: &Queue<Item>, ledger: &mut Ledger, dying: usize, base: u64) {
    while let Some(item) = queue.try_recv().unwrap() {
        ledger.received(&item);
    }
    let missing: Vec<_> = ledger.sent.difference(&ledger.received).collect();
    let unannounced: Vec<_> = ledger.received.difference(&ledger.sent).collect();
    assert!(missing.len() + unannounced.len() <= dying, "missing {missing:?}, unannounced {unannounced:?}");
    assert!(unannounced.iter().all(|number| **number >= base), "{unannounced:?}");
    assert_eq!(queue.in_use().unwrap(), (0, 0), "nothing is left behind");
}

/// Far above all other numbers, and a multiple of what payloads depend on.
const WORKERS: u64 = 9_000_000;

#[test]
fn whoever_is_killed_leaves_a_whole_queue() {
    killed("work", 1, 60);
}

#[test]
fn whoever_is_killed_with_several_leaves_a_whole_queue() {
    killed("work in batches", KINDS.len(), 40);
}

/// Kills one who plays a part at each of its points, of which there are more than so many; `hands`: how many items it may have in them.
fn killed(part: &str, hands: usize, least: u64) {
    let world = World::of_processes();
    let queue = world.manager.queue::<Item>(64).unwrap();
    let mut next = 0;
    for point in 1.. {
        let base = WORKERS + point * 900;
        let ledger = Mutex::new(Ledger::default());
        for _ in 0..12 {
            queue.send((next, payload(next))).unwrap();
            ledger.lock().unwrap().sent(next);
            next += 1;
        }
        let mut player = world.doomed_player(part, &[line(&queue)], CLIENT_VARIABLE, point);
        player.say(base);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (next, busy_queue) = (&mut next, &queue);
            let busy = scope.spawn(|| go_on(busy_queue, &ledger, next, &over));
            listen(&mut player, &ledger);
            over.store(true, Ordering::Relaxed);
            busy.join().unwrap();
        });
        let killed = player.was_killed();
        until("the session of the dead is over", || world.sessions() == 1);
        balance(&queue, &mut ledger.into_inner().unwrap(), if killed { hands } else { 0 }, base);
        world.manager.audit().unwrap();
        if !killed {
            println!("{part}: {} deaths", point - 1);
            assert!(point > least, "only {point} points");
            return;
        }
    }
}

#[test]
fn whoever_is_stopped_keeps_nobody() {
    stopped("work", 60);
}

#[test]
fn whoever_is_stopped_with_several_keeps_nobody() {
    stopped("work in batches", 40);
}

fn stopped(part: &str, least: u64) {
    let world = World::of_processes();
    let queue = world.manager.queue::<Item>(64).unwrap();
    let mut next = 0;
    for point in 1.. {
        let ledger = Mutex::new(Ledger::default());
        for _ in 0..12 {
            queue.send((next, payload(next))).unwrap();
            ledger.lock().unwrap().sent(next);
            next += 1;
        }
        let mut player = world.doomed_player(part, &[line(&queue)], CLIENT_STOP_VARIABLE, point);
        player.say(WORKERS + point * 900);
        let watched = Watched::of(player.role().pid());
        let (mut stopped, mut ended) = (false, false);
        until("it stops or ends", || {
            stopped = state_of(watched.pid) == Some('T');
            ended = watched.has_ended();
            stopped || ended
        });
        if stopped {
            for _ in 0..20 {
                queue.send_timeout((next, payload(next)), Duration::from_secs(20)).unwrap();
                ledger.lock().unwrap().sent(next);
                next += 1;
                let item = queue.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
                ledger.lock().unwrap().received(&item);
            }
            player.go_on();
        }
        assert!(listen(&mut player, &ledger));
        player.finish();
        until("its session is over", || world.sessions() == 1);
        balance(&queue, &mut ledger.into_inner().unwrap(), 0, 0);
        if !stopped {
            println!("{part}: {} stops", point - 1);
            assert!(point > least, "only {point} points");
            return;
        }
    }
}

#[test]
fn whoever_is_killed_with_a_task_keeps_nobody_from_joining() {
    let world = World::of_processes();
    for point in 1.. {
        let queue = world.manager.queue_with::<Item>(QueueOptions::new().capacity(8).joinable()).unwrap();
        for kind in KINDS {
            queue.send((kind, payload(kind))).unwrap();
        }
        let mut player = world.doomed_player("finish", &[line(&queue)], CLIENT_VARIABLE, point);
        let _ = player.hear();
        let killed = player.was_killed();
        until("the session of the dead is over", || world.sessions() == 1);
        // What the dead had received counts as done; the rest is here.
        while queue.try_recv().unwrap().is_some() {
            queue.task_done().unwrap();
        }
        assert!(queue.join_timeout(Duration::from_secs(20)).unwrap());
        assert_eq!(queue.in_use().unwrap(), (0, 0));
        if !killed {
            assert!(queue.is_closed().unwrap());
            println!("{} deaths", point - 1);
            assert!(point > 15, "only {point} points");
            return;
        }
    }
}

#[test]
fn whoever_is_stopped_with_a_task_is_waited_for() {
    let world = World::of_processes();
    for point in 1.. {
        let queue = world.manager.queue_with::<Item>(QueueOptions::new().capacity(8).joinable()).unwrap();
        for kind in KINDS {
            queue.send((kind, payload(kind))).unwrap();
        }
        let mut player = world.doomed_player("finish", &[line(&queue)], CLIENT_STOP_VARIABLE, point);
        let watched = Watched::of(player.role().pid());
        let mut stopped = false;
        until("it stops or ends", || {
            stopped = state_of(watched.pid) == Some('T');
            stopped || watched.has_ended()
        });
        if stopped {
            // Others are in nobody's way.
            drop(queue.try_lease().unwrap());
            assert!(queue.len().unwrap() <= KINDS.len());
            player.go_on();
        }
        player.expect("done");
        player.finish();
        while queue.try_recv().unwrap().is_some() {
            queue.task_done().unwrap();
        }
        assert!(queue.join_timeout(Duration::from_secs(20)).unwrap() && queue.is_closed().unwrap());
        until("its session is over", || world.sessions() == 1);
        assert_eq!(queue.in_use().unwrap(), (0, 0));
        if !stopped {
            println!("{} stops", point - 1);
            assert!(point > 15, "only {point} points");
            return;
        }
    }
}

/// Each is in the queue still, or a dead letter; the one in the dying hands is a dead letter, too, since that was its last attempt.
#[test]
fn whoever_dies_on_the_way_to_the_dead_letters_loses_none() {
    let world = World::of_processes();
    for point in 1.. {
        let queue = world.manager.queue_with::<Item>(QueueOptions::new().capacity(8).attempts_max(1)).unwrap();
        for kind in KINDS {
            queue.send((kind, payload(kind))).unwrap();
        }
        let mut player = world.doomed_player("refuse", &[line(&queue)], CLIENT_VARIABLE, point);
        let _ = player.hear();
        let killed = player.was_killed();
        until("the session of the dead is over", || world.sessions() == 1);
        let mut ledger = Ledger::default();
        std::iter::from_fn(|| queue.try_recv().unwrap()).for_each(|item| ledger.received(&item));
        assert!(killed || ledger.received.is_empty());
        std::iter::from_fn(|| queue.dead_letters().try_recv().unwrap()).for_each(|item| ledger.received(&item));
        assert_eq!(ledger.received, BTreeSet::from(KINDS), "point {point}");
        assert_eq!(queue.in_use().unwrap(), (0, 0));
        world.manager.audit().unwrap();
        if !killed {
            println!("{} deaths", point - 1);
            assert!(point > 15, "only {point} points");
            return;
        }
    }
}

#[test]
fn a_leased_item_comes_back_at_once() {
    let world = World::of_processes();
    let queue = world.manager.queue_with::<Item>(QueueOptions::new().capacity(8).attempts_max(3)).unwrap();
    queue.send((7, payload(7))).unwrap();
    queue.send((8, payload(8))).unwrap();
    for attempt in 1..=3 {
        let mut holder = world.player("hold", &[line(&queue)]);
        holder.expect(format!("7 {attempt}"));
        let sleeper = std::thread::spawn({
            let queue = queue.clone();
            move || {
                (attempt == 2).then(|| [queue.recv().unwrap().unwrap().0, queue.recv_timeout(Duration::from_secs(20)).unwrap().unwrap().0])
            }
        });
        holder.kill();
        if let Some(two) = sleeper.join().unwrap() {
            // The sleeper takes what waits, sleeps, and gets what came back.
            assert_eq!(BTreeSet::from(two), BTreeSet::from([7, 8]));
            queue.send((7, payload(7))).unwrap();
            let mut again = 1;
            while again < 3 {
                let lease = queue.lease().unwrap().unwrap();
                again = lease.attempt() + 1;
            }
        } else if attempt < 3 {
            until_promptly("it comes back", || queue.len().unwrap() == 2);
        }
    }
    until_promptly("it is a dead letter", || queue.dead_letters().len().unwrap() == 1);
    assert_eq!(queue.dead_letters().try_recv().unwrap().unwrap(), (7, payload(7)));
    until_promptly("nothing is left", || queue.in_use().unwrap() == (0, 0));
}
