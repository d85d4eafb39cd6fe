//! Crowds: hundreds of sessions, more threads than lanes, clients that stand still. Everybody's work is done once, and nothing
//! of anybody is left behind.

mod peers_support;

use commonhold::{Counter, Dict, ErrorKind, List, Manager, Session, Token};
use commonhold_ipc::pin::BLOCKS;
use commonhold_ipc::socket::{Address, Channel};
use commonhold_ipc::sys;
use peers_support::{Peer, cases, heard, process_manager, say, task, thread_manager};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

commonhold::init_in_tests!();

/// A session of its own, though this process has one with that manager already.
fn session(address: &Address) -> commonhold::Result<Session> {
    let channel = Channel::connect(address, Instant::now() + Duration::from_secs(60))?;
    Session::greet(channel, address.clone(), None)
}

/// What all work on.
struct Work {
    dict: Dict<u64, u64>,
    list: List<String>,
    counter: Counter,
}

impl Work {
    fn open(session: &Session, tokens: &[Token]) -> Work {
        let dict = session.attach(&tokens[0]).unwrap();
        let list = session.attach(&tokens[1]).unwrap();
        Work { dict, list, counter: session.attach(&tokens[2]).unwrap() }
    }

    /// A little of everything, by somebody with a number of his own.
    fn some(&self, session: &Session, own: u64, rounds: u64) {
        for round in 0..rounds {
            self.dict.add(own % 16, 1).unwrap();
            let key = 1000 + own;
            let old = self.dict.insert(key, round).unwrap().map(|guard| *guard);
            assert_eq!(old, round.checked_sub(1));
            assert_eq!(self.dict.get(key).unwrap().unwrap(), round);
            self.list.push(format!("{own} {round}")).unwrap();
            let made = session.list([own, round]).unwrap();
            assert_eq!(made.to_owned().unwrap(), [own, round]);
            session
                .transaction(|tx| {
                    tx.count(&self.counter, 1)?;
                    tx.get(&self.dict, key).map(|found| assert_eq!(found.unwrap(), round))
                })
                .unwrap();
            let now = session.snapshot().unwrap();
            assert_eq!(self.list.at(&now).len(), self.list.at(&now).iter().count());
        }
    }
}

const SESSIONS: u64 = 55;
const PROCESSES: u64 = 4;

/// Threads of a process's session with this number: most have two, every eleventh many.
fn threads_of(session: u64) -> u64 {
    if session.is_multiple_of(11) { 16 } else { 2 }
}

/// Threads of all the sessions of a process.
fn threads_of_all() -> u64 {
    (0..SESSIONS).map(threads_of).sum()
}

/// So many sessions, each with several threads, all at once. Tells when all are connected, and waits before they begin.
fn crowd(tokens: &[Token], first: u64, rounds: u64, connected: impl FnOnce()) {
    sys::raise_nofile_limit();
    let sessions: Vec<Session> = (0..SESSIONS).map(|_| session(tokens[0].address()).unwrap()).collect();
    connected();
    std::thread::scope(|scope| {
        let mut numbers = first..;
        for (n, session) in (0..).zip(&sessions) {
            for own in numbers.by_ref().take(threads_of(n) as usize) {
                let work = move || Work::open(session, tokens).some(session, own, rounds);
                std::thread::Builder::new().stack_size(512 << 10).spawn_scoped(scope, work).unwrap();
            }
        }
    });
}

#[test]
fn hundreds_of_sessions() {
    let manager = process_manager();
    let dict: Dict<u64, u64> = manager.dict([(0u64, 0u64)]).unwrap();
    let list: List<String> = manager.list([]).unwrap();
    let counter = manager.counter(0).unwrap();
    let tokens = [dict.token().unwrap(), list.token().unwrap(), counter.token().unwrap()];
    let line = tokens.each_ref().map(|token| token.to_string()).join(" ");
    let rounds = u64::from(cases(4));
    let mut peers: Vec<Peer> =
        (1..PROCESSES).map(|n| Peer::spawn("role_crowd", format_args!("{line} {} {rounds}", n * threads_of_all()))).collect();
    for peer in &mut peers {
        assert_eq!(peer.hear(), "connected");
    }
    crowd(&tokens, 0, rounds, || {
        assert_eq!(manager.stats().unwrap().sessions, 1 + PROCESSES * SESSIONS);
        for peer in &mut peers {
            peer.tell("go");
        }
    });
    for peer in peers {
        peer.finish();
    }
    let everybody = PROCESSES * threads_of_all();
    assert_eq!((0..16).map(|key| *dict.get(key).unwrap().unwrap()).sum::<u64>(), everybody * rounds);
    assert_eq!(dict.len().unwrap() as u64, 16 + everybody);
    assert_eq!(counter.get().unwrap() as u64, everybody * rounds);
    let mut lines = list.to_owned().unwrap();
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len() as u64, everybody * rounds);
    alone_again(&manager, 3);
}

/// The others are gone, and all they held with them.
fn alone_again(manager: &Manager, objects: u64) {
    let settled = || {
        let stats = manager.stats().unwrap();
        stats.sessions == 1 && stats.objects == objects && stats.retired_bytes == 0
    };
    while !settled() {
        std::thread::yield_now();
    }
    manager.audit().unwrap();
}

#[test]
fn role_crowd() {
    let Some(task) = task() else { return };
    let words: Vec<&str> = task.split(' ').collect();
    let tokens: Vec<Token> = words[..3].iter().map(|word| word.parse().unwrap()).collect();
    crowd(&tokens, words[3].parse().unwrap(), words[4].parse().unwrap(), || {
        say("connected");
        heard();
    });
}

/// More threads alive than a session has lanes: the last ones share one, and what is lent to them holds all the same.
#[test]
fn more_threads_than_lanes() {
    for manager in [process_manager(), thread_manager()] {
        let threads = BLOCKS as u64 + 40;
        let dict: Dict<u64, Vec<u8>> = manager.dict((0..threads).map(|n| (n, vec![n as u8; 600]))).unwrap();
        let sum = manager.counter(0).unwrap();
        let all_there = Barrier::new(threads as usize);
        std::thread::scope(|scope| {
            for n in 0..threads {
                let (dict, sum, manager, all_there) = (&dict, &sum, &manager, &all_there);
                let work = move || {
                    let first = dict.get(n).unwrap().unwrap();
                    all_there.wait();
                    for round in 0..4u8 {
                        let fill = |round: u8| vec![(n as u8).wrapping_add(round); 600];
                        let old = dict.insert(n, fill(round + 1)).unwrap().unwrap();
                        // Calls without an answer, which carry the shared lane's number.
                        drop(manager.counter(1).unwrap());
                        assert_eq!(old.to_owned(), fill(round));
                        assert_eq!(sum.add(1).and_then(|_| dict.get(n)).unwrap().unwrap().to_owned(), fill(round + 1));
                        let snapshot = manager.snapshot().unwrap();
                        assert_eq!(dict.at(&snapshot).get(n).unwrap().to_owned(), fill(round + 1));
                    }
                    assert_eq!(first.to_owned(), vec![n as u8; 600]);
                    all_there.wait();
                };
                std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, work).unwrap();
            }
        });
        assert_eq!(sum.get().unwrap() as u64, threads * 4);
        alone_again(&manager, 2);
    }
}

/// Guards on more versions than a thread has words for, and than a session has altogether.
#[test]
fn guards_on_thousands_of_versions() {
    for manager in [process_manager()] {
        let value = manager.value(0u64).unwrap();
        let mut guards = Vec::new();
        let mut snapshots = Vec::new();
        for n in 1..=8000u64 {
            value.set(n).unwrap();
            guards.push((n, value.get().unwrap()));
            if n % 100 == 0 {
                snapshots.push((n, manager.snapshot().unwrap()));
            }
        }
        assert!(guards.iter().all(|(n, guard)| **guard == *n));
        assert!(snapshots.iter().all(|(n, snapshot)| *value.at(snapshot).unwrap() == *n));
        // Let go in another order than they came.
        for n in [7usize, 3, 2, 1] {
            let mut at = 0;
            guards.retain(|_| {
                at += 1;
                !usize::is_multiple_of(at, n)
            });
            assert!(guards.iter().all(|(n, guard)| **guard == *n));
        }
        assert!(snapshots.iter().all(|(n, snapshot)| *value.at(snapshot).unwrap() == *n));
        drop((guards, snapshots));
        alone_again(&manager, 1);
    }
}

/// Threads come and go; their lanes are used again.
#[test]
fn threads_that_come_and_go() {
    let manager = process_manager();
    let dict: Dict<u64, u64> = manager.dict([(0u64, 0u64)]).unwrap();
    for _ in 0..40 {
        std::thread::scope(|scope| {
            for n in 0..40 {
                let dict = &dict;
                scope.spawn(move || {
                    let guard = dict.insert(n, n).unwrap();
                    dict.add(0, 1).unwrap();
                    // A guard that is never dropped keeps its version, and its lane apart.
                    if n == 1 {
                        std::mem::forget(guard);
                    }
                });
            }
        });
    }
    assert!(dict.get(0).unwrap().is_some());
    assert_eq!(dict.len().unwrap(), 40);
    manager.audit().unwrap();
}

/// One that is stopped in the middle of whatever it does: the others do not wait, and it costs what it pins, no more.
#[test]
fn a_stopped_client_delays_nobody() {
    let manager = process_manager();
    let dict: Dict<u64, u64> = manager.dict([(0u64, 0u64)]).unwrap();
    let list: List<String> = manager.list([]).unwrap();
    let counter = manager.counter(0).unwrap();
    let tokens = [&dict.token().unwrap(), &list.token().unwrap(), &counter.token().unwrap()];
    let line = tokens.map(|token| token.to_string()).join(" ");
    for round in 0..10 {
        let mut peers: Vec<Peer> = (0..2).map(|n| Peer::spawn("role_busy", format_args!("{line} {}", 100 * (1 + n + 2 * round)))).collect();
        for peer in &mut peers {
            assert_eq!(peer.hear(), "busy");
        }
        for peer in &peers {
            peer.stop();
        }
        let live = manager.stats().unwrap().live_bytes;
        for n in 0..300u64 {
            dict.insert(1, n).unwrap();
            list.push("mine").unwrap();
            counter.add(1).unwrap();
            list.remove_value("mine").unwrap();
        }
        manager.batch(|batch| batch.count(&counter, 1)).unwrap();
        manager.transaction(|tx| tx.insert(&dict, 2, 2)).unwrap();
        // A version that somebody holds costs what has changed since, once; not every version in between.
        let stats = manager.stats().unwrap();
        assert!(stats.retired_bytes <= 2 * live + (2 << 20), "{stats:?} with {live} live bytes before");
        if round % 2 == 0 {
            for peer in &mut peers {
                peer.go_on();
                peer.tell("enough");
            }
            peers.into_iter().for_each(Peer::finish);
        }
    }
    alone_again(&manager, 3);
}

#[test]
fn role_busy() {
    let Some(task) = task() else { return };
    let words: Vec<&str> = task.split(' ').collect();
    let tokens: Vec<Token> = words[..3].iter().map(|word| word.parse().unwrap()).collect();
    let session = session(tokens[0].address()).unwrap();
    let enough = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            heard();
            enough.store(1, Ordering::Relaxed);
        });
        for thread in 0..3 {
            let (session, enough, tokens) = (&session, &enough, &tokens);
            let own: u64 = words[3].parse::<u64>().unwrap() + 10 * thread;
            scope.spawn(move || {
                let work = Work::open(session, tokens);
                for round in 0.. {
                    if enough.load(Ordering::Relaxed) == 1 {
                        return;
                    }
                    work.dict.add(own, 1).unwrap();
                    work.list.push("theirs").unwrap();
                    session.transaction(|tx| tx.add(&work.dict, 5000, 1).map(drop)).unwrap();
                    let guard = work.list.pop().unwrap();
                    session.batch(|batch| batch.count(&work.counter, 1)).unwrap();
                    drop(guard);
                    if round == 5 && thread == 0 {
                        say("busy");
                    }
                }
            });
        }
    });
}

#[test]
fn no_more_sessions_than_allowed() {
    let manager = Manager::builder().capacity(64 << 20).sessions_max(5).start().unwrap();
    let others: Vec<Session> = (0..4).map(|_| session(manager.address()).unwrap()).collect();
    let refused = session(manager.address()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert!(refused.to_string().contains('5'), "{refused}");
    let counter = manager.counter(1).unwrap();
    drop(others);
    let until = Instant::now() + Duration::from_secs(60);
    let another = loop {
        match session(manager.address()) {
            Ok(session) => break session,
            Err(error) => assert!(error.kind() == ErrorKind::Refused && Instant::now() < until, "{error}"),
        }
    };
    assert_eq!(another.attach::<Counter>(&counter.token().unwrap()).unwrap().get().unwrap(), 1);
    manager.audit().unwrap();
}

/// Sessions of one process side by side: handles belong to the one they came from, and equal across.
#[test]
fn sessions_of_one_process() {
    let manager = process_manager();
    let list: List<u64> = manager.list([1u64]).unwrap();
    let other = session(manager.address()).unwrap();
    let theirs: List<u64> = other.attach(&list.token().unwrap()).unwrap();
    assert!(theirs == list);
    theirs.push(2).unwrap();
    assert_eq!(list.to_owned().unwrap(), [1, 2]);
    drop(list);
    for _ in 0..3 {
        manager.stats().unwrap();
    }
    assert_eq!(theirs.to_owned().unwrap(), [1, 2], "held by the other session");
    let outer: List<List<u64>> = manager.list([theirs]).unwrap();
    drop(other);
    assert_eq!(outer.get(0).unwrap().unwrap().to_owned().to_owned().unwrap(), [1, 2]);
    manager.audit().unwrap();
}
