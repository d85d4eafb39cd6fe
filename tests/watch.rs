//! Waiting for changes: who waits is woken, by whoever changes what; who waits for long costs nothing.

mod peers_support;

use commonhold::{Counter, Dict, Error, Handle, List, Manager, Token};
use peers_support::{Peer, cases, heard, process_manager, say, task, thread_manager};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

commonhold::init_in_tests!();

/// Watch words of a manager: objects that are so many ids apart share one.
const WATCH_SLOTS: usize = commonhold_ipc::arena::WATCH_SLOTS as usize;

fn open(line: &str) -> (Manager, Vec<Token>, Vec<&str>) {
    let words: Vec<&str> = line.split(' ').collect();
    let tokens: Vec<Token> = words.iter().map_while(|word| word.parse().ok()).collect();
    let manager = Manager::connect(&tokens[0].address().to_string()).unwrap();
    let rest = words[tokens.len()..].to_vec();
    (manager, tokens, rest)
}

/// Two processes wait for each other's changes by turns: one lost wake-up, and both sleep for ever.
#[test]
fn two_processes_play_ping_pong() {
    let manager = process_manager();
    let (ping, pong) = (manager.counter(0).unwrap(), manager.counter(0).unwrap());
    let rounds = cases(1000).max(1000);
    let mut peer = Peer::spawn("role_pong", format_args!("{} {} {rounds}", ping.token().unwrap(), pong.token().unwrap()));
    assert_eq!(peer.hear(), "ready");
    let mut seen = pong.version().unwrap();
    for round in 1..=i64::from(rounds) {
        assert_eq!(ping.add(1).unwrap(), round);
        while pong.get().unwrap() < round {
            assert!(pong.wait_for_change(&mut seen, None).unwrap());
        }
    }
    assert_eq!(peer.hear(), "done");
    peer.finish();
    manager.audit().unwrap();
}

#[test]
fn role_pong() {
    let Some(task) = task() else { return };
    let (manager, tokens, rest) = open(&task);
    let (ping, pong): (Counter, Counter) = (manager.attach(&tokens[0]).unwrap(), manager.attach(&tokens[1]).unwrap());
    let mut seen = ping.version().unwrap();
    say("ready");
    for round in 1..=rest[0].parse::<i64>().unwrap() {
        while ping.get().unwrap() < round {
            assert!(ping.wait_for_change(&mut seen, None).unwrap());
        }
        pong.add(1).unwrap();
    }
    say("done");
}

#[test]
fn many_waiters_of_all_kinds() {
    let manager = process_manager();
    let (dict, list): (Dict<String, u64>, List<u8>) = (manager.dict([("a".to_string(), 0u64)]).unwrap(), manager.list([1u8]).unwrap());
    let (value, space) = (manager.value(1u8).unwrap(), manager.namespace().unwrap());
    let mut peers: Vec<Peer> = (0..2).map(|_| Peer::spawn("role_waiters", dict.token().unwrap())).collect();
    for peer in &mut peers {
        assert_eq!(peer.hear(), "ready");
    }
    std::thread::scope(|scope| {
        let waiter = |wait: &dyn Fn(&mut u64) -> Result<bool, Error>, mut seen: u64| {
            while !wait(&mut seen).unwrap() {}
            seen
        };
        let dict_seen = dict.version().unwrap();
        let threads: Vec<_> = (0..20)
            .map(|n| {
                let (list, value, space, dict) = (&list, &value, &space, &dict);
                let seen = [list.version().unwrap(), value.version().unwrap(), space.version().unwrap(), dict_seen];
                scope.spawn(move || match n % 4 {
                    0 => waiter(&|seen| list.wait_for_change(seen, None), seen[0]),
                    1 => waiter(&|seen| value.wait_for_change(seen, None), seen[1]),
                    2 => waiter(&|seen| space.wait_for_change(seen, None), seen[2]),
                    _ => waiter(&|seen| dict.wait_for_change(seen, Duration::from_secs(3600)), seen[3]),
                })
            })
            .collect();
        list.push(1).unwrap();
        value.set(2).unwrap();
        space.set("a", 1u8).unwrap();
        dict.insert("a", 1).unwrap();
        for thread in threads {
            assert!(thread.join().unwrap() > dict_seen - 1);
        }
    });
    for peer in peers {
        peer.finish();
    }
    manager.audit().unwrap();
}

#[test]
fn role_waiters() {
    let Some(task) = task() else { return };
    let (manager, tokens, _) = open(&task);
    let dict: Dict<String, u64> = manager.attach(&tokens[0]).unwrap();
    let seen = dict.version().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            let (dict, mut seen) = (&dict, seen);
            scope.spawn(move || assert!(dict.wait_for_change(&mut seen, None).unwrap()));
        }
        say("ready");
    });
}

#[test]
fn time_outs() {
    for manager in [process_manager(), thread_manager()] {
        let counter = manager.counter(0).unwrap();
        let (mut seen, start) = (counter.version().unwrap(), Instant::now());
        let before = seen;
        assert!(!counter.wait_for_change(&mut seen, Duration::from_millis(30)).unwrap());
        assert!(start.elapsed() >= Duration::from_millis(30) && seen == before);
        assert!(!counter.wait_for_change(&mut seen, Duration::ZERO).unwrap());
        counter.add(1).unwrap();
        assert!(counter.wait_for_change(&mut seen, Duration::ZERO).unwrap(), "a change that is there counts, whatever the time");
        assert!(seen > before);
        let mut future = u64::MAX;
        assert!(!counter.wait_for_change(&mut future, Duration::from_millis(1)).unwrap());
    }
}

/// After many changes that nobody waits for the manager stops waking; the next who waits arms it again.
#[test]
fn disarmed_and_armed_again() {
    for manager in [process_manager(), thread_manager()] {
        let counter = manager.counter(0).unwrap();
        for idle in [0, 1, 63, 64, 65, 200] {
            let mut seen = counter.version().unwrap();
            std::thread::scope(|scope| {
                let waiter = scope.spawn(|| {
                    let changed = counter.wait_for_change(&mut seen, None).unwrap();
                    (changed, counter.get().unwrap())
                });
                let target = counter.add(1).unwrap();
                let (changed, at) = waiter.join().unwrap();
                assert!(changed && at >= target);
            });
            for _ in 0..idle {
                counter.add(1).unwrap();
            }
        }
        manager.audit().unwrap();
    }
}

/// Objects on one word: changes of the one wake those who wait for the other, who do not take them for theirs.
#[test]
fn objects_that_share_a_word() {
    let manager = process_manager();
    let first = manager.counter(0).unwrap();
    let others: Vec<Counter> = (0..WATCH_SLOTS).map(|_| manager.counter(0).unwrap()).collect();
    let word = commonhold_ipc::arena::watch_offset;
    let twin = others.iter().find(|other| word(other.id()) == word(first.id())).expect("so many ids, so many words").clone();
    let (seen, changes) = (first.version().unwrap(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = seen;
                    assert!(first.wait_for_change(&mut seen, None).unwrap());
                    (changes.load(Ordering::SeqCst), seen)
                })
            })
            .collect();
        for _ in 0..300 {
            twin.add(1).unwrap();
            assert!(!first.changed_since(seen).unwrap());
        }
        changes.store(1, Ordering::SeqCst);
        first.add(1).unwrap();
        for waiter in waiters {
            let (after, at) = waiter.join().unwrap();
            assert_eq!((after, at), (1, first.version().unwrap()), "woken before the change");
        }
        // One commit that touches both.
        let mut seen = (first.version().unwrap(), twin.version().unwrap());
        let (first, twin) = (&first, &twin);
        let both = scope.spawn(move || {
            assert!(first.wait_for_change(&mut seen.0, None).unwrap() && twin.wait_for_change(&mut seen.1, None).unwrap());
            seen
        });
        manager.batch(|batch| batch.count(first, 1).and_then(|()| batch.count(twin, 1))).unwrap();
        let (a, b) = both.join().unwrap();
        assert_eq!(a, b);
    });
    manager.audit().unwrap();
}

fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A waiter sleeps. So does the manager, by the way.
#[test]
fn waiting_costs_no_time() {
    let manager = process_manager();
    let counter = manager.counter(0).unwrap();
    std::thread::scope(|scope| {
        let (counter, mut seen) = (&counter, counter.version().unwrap());
        let waiter = scope.spawn(move || {
            assert!(!counter.wait_for_change(&mut seen, Duration::from_millis(400)).unwrap());
            thread_time()
        });
        let used = waiter.join().unwrap();
        assert!(used < Duration::from_millis(100), "{used:?} of 400 ms");
    });
}

/// Changes are not missed between two waits, whoever makes them; several may be seen as one.
#[test]
fn every_change_is_seen_or_followed_by_one_that_is() {
    let manager = process_manager();
    let list: List<u64> = manager.list([0u64; 0]).unwrap();
    let count = u64::from(cases(400));
    let mut peers: Vec<Peer> = (0..2).map(|_| Peer::spawn("role_pusher", format_args!("{} {count}", list.token().unwrap()))).collect();
    for peer in &mut peers {
        assert_eq!(peer.hear(), "ready");
    }
    let mut seen = list.version().unwrap();
    for peer in &mut peers {
        peer.tell("go");
    }
    let mut wakes = 0;
    while (list.len().unwrap() as u64) < 2 * count {
        assert!(list.wait_for_change(&mut seen, None).unwrap());
        wakes += 1;
    }
    assert!(wakes >= 1 && wakes <= 2 * count, "{wakes}");
    for peer in peers {
        peer.finish();
    }
    manager.audit().unwrap();
}

#[test]
fn role_pusher() {
    let Some(task) = task() else { return };
    let (manager, tokens, rest) = open(&task);
    let list: List<u64> = manager.attach(&tokens[0]).unwrap();
    say("ready");
    heard();
    for n in 0..rest[0].parse::<u64>().unwrap() {
        list.push(n).unwrap();
    }
}

/// The manager's end wakes all who wait, and the object's end does not leave them sleeping.
#[test]
fn ends_wake_who_waits() {
    let manager = process_manager();
    let counter = manager.counter(0).unwrap();
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = counter.version()?;
                    counter.wait_for_change(&mut seen, None)
                })
            })
            .collect();
        manager.shutdown().unwrap();
        for waiter in waiters {
            assert!(waiter.join().unwrap().unwrap_err().is_disconnected());
        }
    });
}
