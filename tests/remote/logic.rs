//! Logic beside the data: alone, in time, all or nothing.
use commonhold::{Dict, Error, ErrorKind, List, Process, Transaction};
use std::time::Duration;

type Account = (Dict<String, i64>, String, String, i64);

fn transfer(tx: &Transaction<'_>, (accounts, from, to, amount): Account) -> commonhold::Result<i64> {
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
    let writer = std::thread::spawn(move || (1..=200).for_each(|n| assert_eq!(other.add("other", 1).unwrap(), n)));
    for worker in workers {
        assert!(worker.join().unwrap().unwrap() > 0);
    }
    writer.join().unwrap();
    let now = manager.snapshot().unwrap();
    let total: i64 = accounts.at(&now).iter().filter(|(name, _)| **name != *"other").map(|(_, amount)| *amount).sum();
    assert_eq!(total, 150, "{accounts}");
    assert_eq!(*accounts.get("other").unwrap().unwrap(), 200);
    assert!(accounts.at(&now).values().all(|amount| *amount >= 0));
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
