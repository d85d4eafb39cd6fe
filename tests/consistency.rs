//! Transactions: what is moved is nowhere twice and nowhere missing, and everybody who tries gets his turn.

mod peers_support;

use commonhold::{Dict, ErrorKind, List, Manager, Session, Token};
use commonhold_ipc::socket::Channel;
use peers_support::{Choices, Peer, cases, heard, process_manager, say, task, thread_manager};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

commonhold::init_in_tests!();

const ENTRIES: u64 = 6;
const FIRST: i64 = 100;

/// Two containers between which amounts are moved.
#[derive(Clone)]
struct Purse {
    session: Session,
    dict: Dict<u64, i64>,
    list: List<i64>,
}

impl Purse {
    fn new(manager: &Manager) -> Purse {
        let dict = manager.dict((0..ENTRIES).map(|key| (key, FIRST))).unwrap();
        let list = manager.list((0..ENTRIES).map(|_| FIRST)).unwrap();
        Purse { session: (**manager).clone(), dict, list }
    }

    fn tokens(&self) -> String {
        format!("{} {}", self.dict.token().unwrap(), self.list.token().unwrap())
    }

    /// The purse in another process.
    fn open(tokens: &str) -> (Purse, Vec<&str>) {
        let words: Vec<&str> = tokens.split(' ').collect();
        let token: Token = words[0].parse().unwrap();
        let manager = Manager::connect(&token.address().to_string()).unwrap();
        let (dict, list) = (manager.attach(&token).unwrap(), manager.attach(&words[1].parse().unwrap()).unwrap());
        (Purse { session: (*manager).clone(), dict, list }, words[2..].to_vec())
    }

    /// Moves an amount from one entry to another, of either container. Returns how often it was tried.
    fn move_some(&self, choices: &mut Choices) -> u32 {
        let (from, to, amount) = (choices.below(2 * ENTRIES), choices.below(2 * ENTRIES), choices.below(50) as i64 - 25);
        let mut tries = 0;
        self.session
            .transaction(|tx| {
                tries += 1;
                for (place, amount) in [(from, -amount), (to, amount)] {
                    if place < ENTRIES {
                        let old = *tx.get(&self.dict, place)?.unwrap();
                        tx.insert(&self.dict, place, old + amount)?;
                    } else {
                        let position = (place - ENTRIES) as usize;
                        let old = *tx.get(&self.list, position)?.unwrap();
                        tx.set_at(&self.list, position, old + amount)?;
                    }
                }
                Ok(())
            })
            .unwrap();
        tries
    }

    /// What a snapshot holds altogether.
    fn sum(&self) -> i64 {
        let now = self.session.snapshot().unwrap();
        let (dict, list) = (self.dict.at(&now), self.list.at(&now));
        assert_eq!((dict.len() as u64, list.len() as u64), (ENTRIES, ENTRIES));
        dict.values().map(|amount| *amount).sum::<i64>() + list.iter().map(|amount| *amount).sum::<i64>()
    }

    const ALL: i64 = 2 * ENTRIES as i64 * FIRST;
}

#[test]
fn the_sum_never_varies_between_processes() {
    let manager = process_manager();
    let purse = Purse::new(&manager);
    let moves = cases(120);
    let mut writers: Vec<Peer> =
        (0..3).map(|seed| Peer::spawn("role_writer", format_args!("{} {} {moves}", purse.tokens(), seed + 1))).collect();
    let mut readers: Vec<Peer> = (0..2).map(|_| Peer::spawn("role_reader", format_args!("{} {}", purse.tokens(), moves * 5))).collect();
    for peer in writers.iter_mut().chain(&mut readers) {
        assert_eq!(peer.hear(), "ready");
    }
    for peer in writers.iter_mut().chain(&mut readers) {
        peer.tell("go");
    }
    for writer in &mut writers {
        assert_eq!(writer.hear(), "moved");
        assert_eq!(purse.sum(), Purse::ALL);
    }
    for reader in &mut readers {
        let reads: u32 = reader.ask("enough").parse().unwrap();
        assert!(reads >= moves * 5, "{reads}");
    }
    for peer in writers.into_iter().chain(readers) {
        peer.finish();
    }
    manager.audit().unwrap();
}

#[test]
fn role_writer() {
    let Some(task) = task() else { return };
    let (purse, words) = Purse::open(&task);
    let mut choices = Choices(words[0].parse::<u64>().unwrap().wrapping_mul(0x9e37_79b9_7f4a_7c15));
    say("ready");
    heard();
    for _ in 0..words[1].parse::<u32>().unwrap() {
        purse.move_some(&mut choices);
    }
    say("moved");
}

#[test]
fn role_reader() {
    let Some(task) = task() else { return };
    let (purse, words) = Purse::open(&task);
    let least: u32 = words[0].parse().unwrap();
    say("ready");
    heard();
    let (enough, mut reads) = (AtomicBool::new(false), 0u32);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            heard();
            enough.store(true, Ordering::Relaxed);
        });
        while reads < least || !enough.load(Ordering::Relaxed) {
            assert_eq!(purse.sum(), Purse::ALL);
            reads += 1;
            // A transaction that only reads sees one version, too.
            if reads.is_multiple_of(10) {
                let sum = purse.session.transaction(|tx| {
                    let dict: i64 = tx.entries(&purse.dict)?.into_iter().map(|(_, amount)| amount).sum();
                    Ok(dict + tx.elements(&purse.list)?.into_iter().sum::<i64>())
                });
                assert_eq!(sum.unwrap(), Purse::ALL);
            }
        }
    });
    say(reads);
}

/// All threads of one session want the same two entries.
#[test]
fn threads_of_one_session_all_get_their_turn() {
    for manager in [process_manager(), thread_manager()] {
        let purse = Purse::new(&manager);
        let counter = manager.counter(0).unwrap();
        let (threads, moves) = (12, cases(25));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(purse.sum(), Purse::ALL);
                }
            });
            let writers: Vec<_> = (0..threads)
                .map(|n| {
                    let (purse, manager, counter) = (&purse, &manager, &counter);
                    scope.spawn(move || {
                        let mut choices = Choices(n + 1);
                        for _ in 0..moves {
                            purse.move_some(&mut choices);
                            manager
                                .transaction(|tx| {
                                    let before = tx.counter(counter)?;
                                    tx.count(counter, 1)?;
                                    assert_eq!(tx.counter(counter)?, before + 1);
                                    Ok(())
                                })
                                .unwrap();
                        }
                    })
                })
                .collect();
            let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
            done.store(true, Ordering::Relaxed);
            ended.into_iter().for_each(|ended| ended.unwrap());
        });
        assert_eq!((purse.sum(), counter.get().unwrap()), (Purse::ALL, i64::try_from(threads).unwrap() * i64::from(moves)));
        manager.audit().unwrap();
    }
}

/// One who is slow gets the writer's ticket, while others write without a pause.
#[test]
fn the_slow_one_gets_the_ticket() {
    let manager = process_manager();
    let purse = Purse::new(&manager);
    let mut peers: Vec<Peer> = (0..2).map(|seed| Peer::spawn("role_hasty", format_args!("{} {seed}", purse.tokens()))).collect();
    for peer in &mut peers {
        assert_eq!(peer.hear(), "ready");
    }
    for _ in 0..5 {
        let mut tries = 0;
        let before = manager.version();
        manager
            .transaction(|tx| {
                tries += 1;
                let all = tx.entries(&purse.dict)?;
                if tries <= 4 {
                    // Until somebody else has written, so that this try is in vain.
                    let seen = purse.dict.version()?;
                    while !purse.dict.changed_since(seen)? {
                        std::thread::yield_now();
                    }
                }
                tx.insert(&purse.dict, 0, all.iter().find(|(key, _)| *key == 0).unwrap().1)
            })
            .unwrap();
        assert!(tries > 4 && manager.version() > before, "{tries} tries");
    }
    drop(peers);
    manager.audit().unwrap();
}

#[test]
fn role_hasty() {
    let Some(task) = task() else { return };
    let (purse, words) = Purse::open(&task);
    let mut choices = Choices(words[0].parse::<u64>().unwrap() + 77);
    for round in 0.. {
        let key = choices.below(ENTRIES);
        // The manager ends before us when the test is over.
        if purse.dict.insert(key, FIRST).is_err() {
            return;
        }
        if round == 10 {
            say("ready");
        }
    }
}

/// Two sessions of this process with one manager: each as another process would have it.
fn second_session(manager: &Manager) -> Session {
    let channel = Channel::connect(manager.address(), Instant::now() + Duration::from_secs(10)).unwrap();
    Session::greet(channel, manager.address().clone(), None).unwrap()
}

/// What a transaction has pushed stands where it was seen, or the transaction runs again.
#[test]
fn positions_behind_the_end_are_read_too() {
    let manager = process_manager();
    let other = second_session(&manager);
    let list: List<u64> = manager.list([0u64; 2]).unwrap();
    let theirs: List<u64> = other.attach(&list.token().unwrap()).unwrap();
    let mut tries = 0;
    manager
        .transaction(|tx| {
            tries += 1;
            tx.push(&list, 7)?;
            let at = (0..).find(|position| tx.get(&list, *position).unwrap().is_some_and(|n| *n == 7)).unwrap();
            if tries == 1 {
                theirs.push(1)?;
            }
            tx.push(&list, at as u64)
        })
        .unwrap();
    assert_eq!((tries, list.to_owned().unwrap()), (2, vec![0, 0, 1, 7, 3]));
    // Likewise that there is nothing yet.
    tries = 0;
    manager
        .transaction(|tx| {
            tries += 1;
            tx.push(&list, 8)?;
            let nothing = tx.get(&list, 6)?.is_none();
            if tries == 1 {
                theirs.push(1)?;
                theirs.push(1)?;
            }
            tx.push(&list, u64::from(nothing))
        })
        .unwrap();
    assert_eq!((tries, list.get(8).unwrap().map(|n| *n)), (2, Some(0)));
}

/// Conflicts of every kind of read.
#[test]
fn every_read_is_a_condition() {
    let manager = process_manager();
    let other = second_session(&manager);
    let dict: Dict<String, u64> = manager.dict([("a".to_string(), 1u64), ("b".to_string(), 2)]).unwrap();
    let (list, texts): (List<u64>, List<String>) =
        (manager.list([1u64, 2]).unwrap(), manager.list(["x".to_string(), "y".to_string()]).unwrap());
    let (value, counter) = (manager.value("v".to_string()).unwrap(), manager.counter(1).unwrap());
    let d: Dict<String, u64> = other.attach(&dict.token().unwrap()).unwrap();
    let l: List<u64> = other.attach(&list.token().unwrap()).unwrap();
    let t: List<String> = other.attach(&texts.token().unwrap()).unwrap();
    let v: commonhold::Value<String> = other.attach(&value.token().unwrap()).unwrap();
    let c: commonhold::Counter = other.attach(&counter.token().unwrap()).unwrap();
    type Read<'a> = &'a dyn Fn(&commonhold::Transaction<'_>) -> commonhold::Result<()>;
    type Write<'a> = &'a dyn Fn() -> commonhold::Result<()>;
    let tries_of = |read: Read<'_>, write: Write<'_>| {
        let mut tries = 0;
        manager
            .transaction(|tx| {
                tries += 1;
                read(tx)?;
                if tries == 1 {
                    write()?;
                }
                // Something of its own, so that there is a commit.
                tx.insert(&dict, "own", 1)
            })
            .unwrap();
        tries
    };
    let again: [(Read<'_>, Write<'_>); 14] = [
        (&|tx| tx.get(&dict, "a").map(drop), &|| d.insert("a", 5).map(drop)),
        (&|tx| tx.get(&dict, "a").map(drop), &|| d.add("a", 1).map(drop)),
        (&|tx| tx.get(&dict, "none").map(drop), &|| d.insert("none", 5).map(drop)),
        (&|tx| tx.contains_key(&dict, "b").map(drop), &|| d.remove("b").map(drop)),
        (&|tx| tx.remove(&dict, "c").map(drop), &|| d.insert("c", 1).map(drop)),
        (&|tx| tx.add(&dict, "d", 1).map(drop), &|| d.insert("d", 1).map(drop)),
        (&|tx| tx.len(&dict).map(drop), &|| d.insert("e", 1).map(drop)),
        (&|tx| tx.entries(&dict).map(drop), &|| d.insert("a", 9).map(drop)),
        (&|tx| tx.get(&list, 0).map(drop), &|| l.set(0, 100).map(drop)),
        (&|tx| tx.get(&list, 9).map(drop), &|| l.push(1)),
        (&|tx| tx.get(&texts, 1).map(drop), &|| t.insert(0, "z")),
        (&|tx| tx.elements(&texts).map(drop), &|| t.push("w")),
        (&|tx| tx.value(&value).map(drop), &|| v.set("v")),
        (&|tx| tx.counter(&counter).map(drop), &|| c.add(1).map(drop)),
    ];
    for (number, (read, write)) in again.into_iter().enumerate() {
        assert_eq!(tries_of(read, write), 2, "read {number}");
    }
    let at_once: [(Read<'_>, Write<'_>); 6] = [
        (&|tx| tx.get(&dict, "a").map(drop), &|| d.insert("b", 5).map(drop)),
        (&|tx| tx.get(&list, 0).map(drop), &|| l.set(1, 101).map(drop)),
        (&|tx| tx.get(&list, 0).map(drop), &|| l.push(1)),
        (&|tx| tx.push(&list, 1), &|| l.push(1)),
        (&|tx| tx.count(&counter, 1), &|| c.add(1).map(drop)),
        (&|tx| tx.value(&value).map(drop), &|| l.push(1)),
    ];
    for (number, (read, write)) in at_once.into_iter().enumerate() {
        assert_eq!(tries_of(read, write), 1, "read {number}");
    }
    // A value that is written and written back is another one; a counter that has the same number is the same.
    assert_eq!(tries_of(&|tx| tx.get(&dict, "a").map(drop), &|| d.insert("a", 1).and_then(|_| d.insert("a", 5)).map(drop)), 2);
    assert_eq!(tries_of(&|tx| tx.counter(&counter).map(drop), &|| c.add(1).and_then(|_| c.add(-1)).map(drop)), 1);
    manager.audit().unwrap();
}

/// A body that itself writes what it reads can never commit: it is told so, and does not hang while it has the ticket.
#[test]
fn a_body_in_its_own_way_is_told_so() {
    for manager in [process_manager(), thread_manager()] {
        let dict: Dict<String, u64> = manager.dict([("a".to_string(), 1u64)]).unwrap();
        let log: List<u64> = manager.list([0u64; 0]).unwrap();
        let mut tries = 0;
        let lost = manager.transaction(|tx| {
            tries += 1;
            let seen = *tx.get(&dict, "a")?.unwrap();
            manager.transaction(|inner| inner.insert(&dict, "a", seen + 1).map(drop))?;
            manager.transaction(|inner| inner.push(&log, tries))?;
            // Another retry inside of this one.
            manager.transaction(|inner| inner.add(&dict, "b", 1))?;
            manager.transaction(|inner| inner.add(&dict, "c", 1))?;
            tx.insert(&dict, "a", 0)
        });
        let error = lost.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let told = "other writers changed what this depends on 256 times in a row, though it had the writer's ticket: make it shorter";
        assert_eq!(error.to_string(), told);
        assert_eq!(dict.get("a").unwrap().unwrap(), 1 + tries);
        assert_eq!((log.len().unwrap() as u64, *dict.get("b").unwrap().unwrap(), *dict.get("c").unwrap().unwrap()), (tries, tries, tries));
        // Nobody is kept waiting after it.
        manager.transaction(|tx| tx.insert(&dict, "a", 0)).unwrap();
        manager.audit().unwrap();
    }
}

/// Likewise an update whose closure writes what it is given.
#[test]
fn an_update_in_its_own_way_is_told_so() {
    for manager in [process_manager(), thread_manager()] {
        let dict: Dict<String, u64> = manager.dict([("a".to_string(), 1u64)]).unwrap();
        let mut tries = 0;
        let lost = dict.update("a", |seen| {
            tries += 1;
            let next = seen.unwrap() + 1;
            dict.insert("a", next).unwrap();
            // Another retry inside of this one.
            dict.update("b", |old| Some(old.unwrap_or(0) + 1)).unwrap();
            Some(next)
        });
        assert_eq!(lost.err().unwrap().kind(), ErrorKind::Conflict);
        assert_eq!((*dict.get("a").unwrap().unwrap(), *dict.get("b").unwrap().unwrap()), (1 + tries, tries));
        manager.audit().unwrap();
    }
}

/// While one thread has the ticket and does something else, the others wait for its time at the most.
#[test]
fn a_ticket_has_its_time_for_threads_too() {
    let manager = process_manager();
    let dict: Dict<String, u64> = manager.dict([("a".to_string(), 1u64)]).unwrap();
    let tries = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (others_done, wait_for_them) = std::sync::mpsc::channel::<()>();
        let (has_ticket, ticket) = std::sync::mpsc::channel::<()>();
        let (dict, manager, tries) = (&dict, &manager, &tries);
        scope.spawn(move || {
            manager
                .transaction(|tx| {
                    tx.get(dict, "a")?;
                    if tries.fetch_add(1, Ordering::Relaxed) < 4 {
                        std::thread::scope(|other| other.spawn(|| dict.add("a", 1)).join().unwrap())?;
                    } else if tries.load(Ordering::Relaxed) == 5 {
                        has_ticket.send(()).unwrap();
                        wait_for_them.recv().unwrap();
                    }
                    tx.insert(dict, "b", 1)
                })
                .unwrap();
        });
        ticket.recv().unwrap();
        dict.insert("other", 1).unwrap();
        others_done.send(()).unwrap();
    });
    assert_eq!(dict.len().unwrap(), 3);
    manager.audit().unwrap();
}

/// Cutting a list that somebody else has cut shorter meanwhile is nothing to complain about.
#[test]
fn truncating_together() {
    let manager = process_manager();
    let list: List<u64> = manager.list([0u64; 0]).unwrap();
    for _ in 0..cases(60) {
        list.extend(0..64u64).unwrap();
        std::thread::scope(|scope| {
            for n in 0..4usize {
                let list = &list;
                scope.spawn(move || (0..8).rev().for_each(|round| list.truncate(8 * round + 2 * n).unwrap()));
            }
        });
        assert_eq!(list.len().unwrap(), 0);
    }
    manager.audit().unwrap();
}

/// What was sent ahead for a batch that is not sent after all does not stay at the manager.
#[test]
fn values_sent_ahead_in_vain_are_given_back() {
    let manager = process_manager();
    let (dict, list): (Dict<u64, Vec<u8>>, List<Vec<u8>>) =
        (manager.dict([(0u64, vec![0u8])]).unwrap(), manager.list([vec![0u8]]).unwrap());
    let before = manager.stats().unwrap().live_bytes;
    let large = vec![1u8; 1 << 20];
    for round in 0..20u64 {
        manager
            .batch(|batch| {
                batch.insert(&dict, 1, &large)?;
                batch.push(&list, &large)?;
                if round % 2 == 0 {
                    return Err(commonhold::Error::other("no"));
                }
                // Too much for one request, and nobody heeds the error.
                for n in 0..1100 {
                    let _ = batch.insert(&dict, n, vec![0u8; 62_000]);
                }
                Ok(())
            })
            .unwrap_err();
        let refused = manager.transaction(|tx| {
            tx.insert(&dict, 1, &large)?;
            tx.push(&list, &large)?;
            Err::<(), _>(commonhold::Error::other("no"))
        });
        refused.unwrap_err();
        list.splice(5.., [&large]).unwrap_err();
    }
    assert_eq!(manager.stats().unwrap().live_bytes, before);
    manager.audit().unwrap();
}
