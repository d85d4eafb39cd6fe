//! Logic beside the data: alone, in time, all or nothing.
use crate::support::until;
use commonhold::{Dict, Error, ErrorKind, Event, Handle, List, Process, Queue, Shared, StripedCounter, Transaction};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

type Account = (Dict<String, i64>, String, String, i64);

/// In a host: how often `transfer` has begun.
static TRANSFERS: AtomicU64 = AtomicU64::new(0);

fn transfer(tx: &Transaction<'_>, (accounts, from, to, amount): Account) -> commonhold::Result<i64> {
    TRANSFERS.fetch_add(1, Ordering::Relaxed);
    let left = tx.add(&accounts, &from, -amount)?;
    if left < 0 {
        return Err(Error::other(format!("{from} is out of money")));
    }
    tx.add(&accounts, &to, amount)?;
    Ok(left)
}

fn worker(accounts: Dict<String, i64>, number: u64) -> commonhold::Result<u64> {
    let manager = accounts.session()?;
    let names = ["ada", "bob", "eve"];
    let mut done = 0;
    for n in 0..100 {
        let (from, to) = (names[(n + number as usize) % 3], names[(n + number as usize + 1) % 3]);
        match manager.run(transfer, (accounts.clone(), from.to_string(), to.to_string(), 7)) {
            Ok(_) => done += 1,
            Err(error) if error.kind() == ErrorKind::Other => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[test]
fn it_runs_alone_and_once() {
    let manager = crate::manager();
    let accounts = manager.dict(["ada", "bob", "eve"].map(|name| (name.to_string(), 50i64))).unwrap();
    let workers: Vec<_> = (0..3u64).map(|n| Process::spawn(worker, (accounts.clone(), n)).unwrap()).collect();
    // Others write meanwhile, without the ticket.
    let other = accounts.clone();
    let writer = std::thread::spawn(move || {
        (1..=200).for_each(|n| {
            assert_eq!(other.add("other", 1).unwrap(), n);
            // To what the logic reads and writes.
            other.session().unwrap().transaction(|tx| tx.add(&other, "ada", 1).and_then(|_| tx.add(&other, "ada", -1))).unwrap();
        });
    });
    for worker in workers {
        assert!(worker.join().unwrap().unwrap() > 0);
    }
    writer.join().unwrap();
    let now = manager.snapshot().unwrap();
    let total: i64 = accounts.at(&now).iter().filter(|(name, _)| **name != *"other").map(|(_, amount)| *amount).sum();
    assert_eq!(total, 150, "{accounts}");
    assert_eq!(*accounts.get("other").unwrap().unwrap(), 200);
    assert!(accounts.at(&now).values().all(|amount| *amount >= 0));
    // Each of them once, whoever has written meanwhile.
    assert_eq!(manager.run(|_: &Transaction<'_>, (): ()| Ok(TRANSFERS.load(Ordering::Relaxed)), ()).unwrap(), 3 * 100);
}

/// Its large values stand behind its commit, whose mark stands behind the conditions.
#[test]
fn large_values_and_small_ones_are_what_it_wrote() {
    let manager = crate::manager();
    let texts = manager.dict::<u64, Vec<u8>>([(0u64, vec![1u8])]).unwrap();
    let logic = |tx: &Transaction<'_>, (texts, bytes): (Dict<u64, Vec<u8>>, u64)| {
        let first = tx.get(&texts, 0)?.map_or(0, |text| text[0]) + 1;
        tx.insert(&texts, 0, vec![first; 60_000])?;
        tx.insert(&texts, 1, vec![first; 10])?;
        tx.insert(&texts, 2, vec![first; bytes as usize])?;
        if bytes == 33_003 { Err(Error::other("all or nothing")) } else { Ok(u64::from(first)) }
    };
    for round in 0..4 {
        let ran = manager.run(logic, (texts.clone(), 33_000 + round));
        let first = 2 + round.min(2) as u8;
        match round {
            3 => assert_eq!(ran.unwrap_err().to_string(), "all or nothing"),
            _ => assert_eq!(ran.unwrap(), u64::from(first)),
        }
        for (key, bytes) in [(0u64, 60_000), (1, 10), (2, 33_000 + round.min(2) as usize)] {
            assert!(texts.get(key).unwrap().unwrap()[..] == vec![first; bytes][..], "round {round}, key {key}");
        }
    }
    manager.audit().unwrap();
}

#[test]
fn errors_panics_and_time_outs_leave_no_trace() {
    let manager = crate::manager();
    let list = manager.list([1u64]).unwrap();
    let run = |what: u64| {
        let logic = |tx: &Transaction<'_>, (list, what): (List<u64>, u64)| {
            tx.push(&list, what)?;
            match what {
                1 => return Err(Error::new(ErrorKind::OutOfRange, "one is none")),
                2 => panic!("two is too many"),
                3 => std::thread::sleep(Duration::from_millis(400)),
                4 => std::process::abort(),
                _ => {}
            }
            tx.len(&list).map(|len| len as u64)
        };
        manager.run(logic, (list.clone(), what))
    };
    let error = run(1).unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::OutOfRange, "one is none".to_string()));
    assert!(run(2).unwrap_err().is_panic());
    assert!(run(3).unwrap_err().is_timed_out());
    assert!(run(4).unwrap_err().is_died());
    assert_eq!(list.to_string(), "[1]");
    // With a new host, and nobody is kept waiting.
    assert_eq!(run(5).unwrap(), 2);
    assert_eq!(list.to_string(), "[1, 5]");
    manager.audit().unwrap();
}

#[test]
fn who_is_stuck_is_given_up() {
    let manager = crate::manager();
    let list = manager.list([1u64]).unwrap();
    let stuck = |tx: &Transaction<'_>, list: List<u64>| -> commonhold::Result<()> {
        tx.push(&list, 9u64)?;
        loop {
            std::thread::park();
        }
    };
    let waiting = std::thread::spawn({
        let (manager, list) = (manager.clone(), list.clone());
        move || manager.run(stuck, list).unwrap_err()
    });
    // The ticket's time is bounded, and so is everybody's waiting.
    for n in 0..50u64 {
        list.push(n).unwrap();
    }
    let error = waiting.join().unwrap();
    assert!(error.is_timed_out(), "{error}");
    assert_eq!(list.len().unwrap(), 51);
}

/// In a host: what logic has put aside.
static KEPT: Mutex<Option<List<u64>>> = Mutex::new(None);

#[test]
fn what_logic_is_given_is_its_callers_and_what_it_keeps_is_its_own() {
    let manager = crate::manager();
    let there = |id: u64| manager.objects().unwrap().into_iter().find(|object| object.id == id);
    let list = manager.list([1u64]).unwrap();
    let id = list.id();
    let look = |tx: &Transaction<'_>, list: List<u64>| tx.len(&list).map(|len| len as u64);
    assert_eq!(manager.run(look, list.clone()).unwrap(), 1);
    let holders = there(id).unwrap().holders;
    assert_eq!(holders.len(), 1, "the host does not hold it any more: {holders:?}");
    let keep = |tx: &Transaction<'_>, list: List<u64>| {
        tx.push(&list, 2u64)?;
        *KEPT.lock().unwrap() = Some(list);
        Ok(())
    };
    manager.run(keep, list.clone()).unwrap();
    drop(list);
    // Asked twice, so that the first answer comes after what the manager has been told before.
    until("its only holder is the host", || there(id).is_some_and(|object| object.holders.len() == 1));
    let kept = |tx: &Transaction<'_>, (): ()| KEPT.lock().unwrap().as_ref().map(|list| tx.len(list).map(|len| len as u64)).transpose();
    assert_eq!(manager.run(kept, ()).unwrap(), Some(2));
    let forget = |_: &Transaction<'_>, (): ()| {
        KEPT.lock().unwrap().take();
        Ok(())
    };
    manager.run(forget, ()).unwrap();
    until("it is gone", || there(id).is_none());
    manager.audit().unwrap();
}

#[test]
fn logic_gives_back_puts_away_and_uses_what_it_is_given() {
    let manager = crate::manager();
    let shelf = manager.dict::<String, List<u64>>([]).unwrap();
    let (list, queue) = (manager.list([7u64]).unwrap(), manager.queue::<u64>(4).unwrap());
    let all = |tx: &Transaction<'_>, (shelf, list, queue): (Dict<String, List<u64>>, List<u64>, Queue<u64>)| {
        tx.insert(&shelf, "list", &list)?;
        // Memory that it maps for that.
        queue.send(8u64)?;
        Ok((list, queue))
    };
    let (again, same) = manager.run(all, (shelf.clone(), list.clone(), queue.clone())).unwrap();
    assert!(again == list && same == queue);
    drop((list, again));
    assert_eq!(*shelf.get("list").unwrap().unwrap().to_owned().get(0).unwrap().unwrap(), 7);
    assert_eq!(queue.recv().unwrap(), Some(8));
    manager.audit().unwrap();
}

#[test]
fn logic_within_logic_has_the_ticket_already() {
    let manager = crate::manager();
    let list = manager.list([1u64]).unwrap();
    // A transaction of its own inside, and then its own commit, which finds nothing changed that it has read.
    let twice = |tx: &Transaction<'_>, list: List<u64>| {
        let manager = commonhold::current_manager()?;
        manager.transaction(|inner| inner.push(&list, 2u64))?;
        tx.push(&list, 3u64)
    };
    for round in 1..=20u64 {
        manager.run(twice, list.clone()).unwrap();
        assert_eq!(list.len().unwrap() as u64, 1 + 2 * round);
        list.push(9u64).and_then(|()| list.pop().map(drop)).unwrap();
    }
    manager.audit().unwrap();
}

/// Whose second drop in a host panics: that of what came, when the function is through with its copy.
#[derive(Shared, Clone, Debug)]
struct Fragile {
    list: List<u64>,
}

/// In a host.
static DROPS: AtomicU64 = AtomicU64::new(0);

impl Drop for Fragile {
    fn drop(&mut self) {
        if commonhold::current_manager().is_ok() && DROPS.fetch_add(1, Ordering::Relaxed) == 1 {
            panic!("it has broken");
        }
    }
}

#[test]
fn what_was_done_is_never_said_not_to_be_whatever_fails_behind_it() {
    let manager = crate::manager();
    let list = manager.list::<u64>([]).unwrap();
    let lost = |said: commonhold::Result<()>, why: &str| {
        let error = said.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResultLost, "{error:?}");
        let (begin, end) = (
            "this has been done beside the manager, whole, but its result is lost: ",
            ". Look at what it has changed, and do not do it again",
        );
        let text = error.to_string();
        assert!(text.starts_with(begin) && text.ends_with(end) && text.contains(why), "{text}");
    };
    let breaks = |tx: &Transaction<'_>, fragile: Fragile| tx.push(&fragile.list, 1);
    lost(manager.run(breaks, Fragile { list: list.clone() }), "it has broken");
    // More handles than a value may have.
    let many = |tx: &Transaction<'_>, list: List<u64>| {
        tx.push(&list, 2)?;
        Ok(vec![list; 65_537])
    };
    lost(manager.run(many, list.clone()).map(drop), "65536");
    assert_eq!(list.to_owned().unwrap(), [1, 2]);
    // The same in logic that has changed nothing is an error as any other.
    let many = |_: &Transaction<'_>, list: List<u64>| Ok(vec![list; 65_537]);
    assert_eq!(manager.run(many, list.clone()).unwrap_err().kind(), ErrorKind::TooLarge);
    manager.audit().unwrap();
}

#[test]
fn what_was_not_done_is_never_said_to_be_whatever_the_logic_says() {
    let manager = crate::manager();
    let list = manager.list::<u64>([]).unwrap();
    let says = |tx: &Transaction<'_>, (list, kind): (List<u64>, u64)| {
        tx.push(&list, kind)?;
        let kinds = [ErrorKind::ResultLost, ErrorKind::OutcomeUnknown, ErrorKind::Disconnected, ErrorKind::Died, ErrorKind::TimedOut];
        Err::<(), _>(Error::new(kinds[kind as usize], "of another one"))
    };
    let said: Vec<_> = (0..5).map(|kind| manager.run(says, (list.clone(), kind)).unwrap_err()).collect();
    assert_eq!(said[0].kind(), ErrorKind::Other, "{}", said[0]);
    assert_eq!(said[0].to_string(), "what runs beside the manager has failed, and left no trace of its own: of another one");
    let rest = [ErrorKind::OutcomeUnknown, ErrorKind::Disconnected, ErrorKind::Died, ErrorKind::TimedOut];
    assert_eq!(said[1..].iter().map(Error::kind).collect::<Vec<_>>(), rest);
    assert!(said[1..].iter().all(|error| error.to_string() == "of another one"));
    assert_eq!(list.len().unwrap(), 0);
    assert_eq!(manager.run(|tx: &Transaction<'_>, list: List<u64>| tx.push(&list, 1), list.clone()).ok(), Some(()));
}

#[test]
fn who_gives_up_on_logic_that_hangs_disturbs_nobody_else() {
    let manager = crate::manager();
    let list = manager.list::<u64>([]).unwrap();
    let (begun, over) = (manager.event().unwrap(), manager.event().unwrap());
    let hangs = |_: &Transaction<'_>, (begun, over): (Event, Event)| {
        begun.set()?;
        over.wait()
    };
    std::thread::scope(|scope| {
        let hanging = scope.spawn(|| manager.run(hangs, (begun.clone(), over.clone())).unwrap_err());
        begun.wait().unwrap();
        // Most of the ticket's time, so that it is mostly theirs when the other one is given up; and something besides, which shows how often it ran.
        let slow = |tx: &Transaction<'_>, (list, runs): (List<u64>, StripedCounter)| {
            runs.add(1)?;
            std::thread::sleep(Duration::from_millis(100));
            tx.push(&list, 1)
        };
        let (runs, mut late) = (manager.striped_counter(0).unwrap(), 0);
        while !hanging.is_finished() {
            match manager.run(slow, (list.clone(), runs.clone())) {
                Ok(()) => {}
                // On a machine that is busy with something else.
                Err(error) if error.is_timed_out() => late += 1,
                Err(error) => panic!("{error}"),
            }
        }
        let (runs, done) = (runs.get().unwrap() as usize, list.len().unwrap());
        assert!((done..=done + late).contains(&runs) && done > 0, "each once: {runs} runs, {done} done, {late} late");
        assert!(hanging.join().unwrap().is_timed_out());
        over.set().unwrap();
    });
}
