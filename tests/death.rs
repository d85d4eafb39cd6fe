//! Processes die, by a real SIGKILL, at every place that matters; the others go on.
#![allow(unsafe_code)] // asks for the calling thread's id
mod support;

use commonhold::{Dict, ErrorKind, Handle, List, Manager};
use commonhold_ipc::catalog;
use commonhold_ipc::index::Entries;
use commonhold_ipc::points::{CLIENT_VARIABLE, MANAGER_VARIABLE};
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::time::Instant;
use support::*;

commonhold::init_in_tests!();

fn no_entries<K, V>() -> [(K, V); 0] {
    []
}

// A reader.

/// Bytes of a value that readers hold.
const LARGE: usize = 100 << 10;

/// Holds guards on everything in a dict, a snapshot, and an object of its own.
#[test]
fn role_reader() {
    let Some(mut parent) = Parent::of("role_reader") else { return };
    let dict: Dict<u64, Vec<u8>> = parent.hear_handle();
    let manager = Manager::connect(&dict.token().unwrap().address().to_string()).unwrap();
    let _snapshot = manager.snapshot().unwrap();
    let _own = manager.list((0..100_000).map(|i| i as u64)).unwrap();
    let len = dict.len().unwrap() as u64;
    let guards: Vec<_> = (0..len).map(|key| dict.get(key).unwrap().unwrap()).collect();
    parent.say("ready");
    parent.hear();
    for (key, guard) in guards.iter().enumerate() {
        assert!(guard.iter().all(|byte| *byte == key as u8), "what a guard shows has changed");
    }
    parent.say("as before");
    parent.wait_for_end();
}

fn start_reader(dict: &Dict<u64, Vec<u8>>) -> Role {
    let mut reader = Role::start("role_reader");
    reader.say(dict.token().unwrap());
    reader.expect("ready");
    reader
}

#[test]
fn a_killed_reader_leaves_nothing() {
    let manager = Manager::start().unwrap();
    let dict = manager.dict((0..50u64).map(|key| (key, vec![key as u8; LARGE]))).unwrap();
    let dict: Dict<u64, Vec<u8>> = dict;
    let before = manager.stats().unwrap();
    let mut reader = start_reader(&dict);
    for key in 0..50u64 {
        dict.insert(key, vec![!(key as u8); LARGE]).unwrap();
    }
    let held = manager.stats().unwrap();
    assert!(held.retired_bytes >= 50 * LARGE as u64, "{held:?}");
    assert_eq!(held.objects, before.objects + 1);
    assert_eq!(held.sessions, before.sessions + 1);
    assert!(held.oldest_pin_holder.as_ref().unwrap().contains(&reader.pid().to_string()), "{held:?}");
    manager.audit().unwrap();
    reader.kill();
    until_promptly("pins, references and memory of a killed reader are gone", || {
        let now = manager.stats().unwrap();
        now.retired_bytes == 0 && now.oldest_pin.is_none() && now.objects == before.objects && now.blocks == before.blocks
    });
    manager.audit().unwrap();
}

#[test]
fn a_stopped_reader_costs_one_version() {
    let manager = Manager::start().unwrap();
    let dict: Dict<u64, Vec<u8>> = manager.dict((0..20u64).map(|key| (key, vec![key as u8; 4000]))).unwrap();
    let mut reader = start_reader(&dict);
    reader.stop();
    let base = manager.stats().unwrap();
    let mut most = base.clone();
    for i in 0..20_000u64 {
        dict.insert(i % 20, vec![i as u8; 4000]).unwrap();
        if i % 500 == 499 {
            let now = manager.stats().unwrap();
            most.retired_bytes = most.retired_bytes.max(now.retired_bytes);
            most.backed_bytes = most.backed_bytes.max(now.backed_bytes);
            most.live_bytes = most.live_bytes.max(now.live_bytes);
        }
    }
    println!("80 MB written: {base:?}, at the most {most:?}");
    assert!(most.retired_bytes < 20 * 4000 * 2 + (64 << 10), "one version, and some paths: {most:?}");
    assert!(most.live_bytes <= base.live_bytes + (64 << 10), "{most:?}");
    assert!(most.backed_bytes <= base.backed_bytes + (4 << 20), "{most:?}");
    reader.signal(Signal::CONT);
    reader.say("look");
    reader.expect("as before");
    reader.kill();
    until_promptly("the version that a stopped reader held is gone", || manager.stats().unwrap().retired_bytes == 0);
    manager.audit().unwrap();
}

// A client, in the middle of a call.

/// Keys that a client sets together.
const KEYS: u64 = 8;

/// Does one call of each kind, each setting everything to one number.
#[test]
fn role_client() {
    let Some(mut parent) = Parent::of("role_client") else { return };
    let numbers: Dict<u64, u64> = parent.hear_handle();
    let texts: Dict<u64, Vec<u8>> = parent.hear_handle();
    let list: List<u64> = parent.hear_handle();
    let number: u64 = parent.hear().parse().unwrap();
    let manager = Manager::connect(&numbers.token().unwrap().address().to_string()).unwrap();
    manager.batch(|batch| (0..KEYS).try_for_each(|key| batch.insert(&numbers, key, number))).unwrap();
    let large = vec![number as u8; 300_000];
    manager
        .batch(|batch| {
            batch.insert(&texts, 0, &large)?;
            batch.insert(&texts, 1, &large)?;
            batch.insert(&texts, 2, &large[..10])
        })
        .unwrap();
    assert!(texts.insert(3, &large).unwrap().is_some());
    // By a lane, behind its request.
    assert!(texts.insert(3, &large[..20_000]).unwrap().is_some());
    manager.batch(|batch| (4..6).try_for_each(|key| batch.insert(&texts, key, &large[..40_000]))).unwrap();
    list.extend([number; 3]).unwrap();
    manager
        .transaction(|tx| {
            let first = *tx.get(&numbers, 0)?.unwrap();
            (0..KEYS).try_for_each(|key| tx.insert(&numbers, key, first + 1))
        })
        .unwrap();
    let _own = manager.dict([(number, large)]).unwrap();
    parent.say("done");
}

/// Another client that goes on all the time, and says at the end how often.
#[test]
fn role_bystander() {
    let Some(mut parent) = Parent::of("role_bystander") else { return };
    let counts: Dict<u64, u64> = parent.hear_handle();
    let stop: Dict<u64, u64> = parent.hear_handle();
    let mut added = 0u64;
    parent.say("ready");
    while stop.is_empty().unwrap() {
        added += 1;
        assert_eq!(counts.add(0, 1).unwrap(), added);
    }
    parent.say(added);
}

#[test]
fn a_client_dies_at_every_point_of_its_calls() {
    let points = ["upload: a part posted", "lane: a value in the room", "lane: values in the room"];
    let said = clients_die(&Manager::start().unwrap(), &points);
    assert!(!said.contains("upload: some bytes sent"), "{said}");
}

#[test]
fn a_client_dies_at_every_point_of_its_calls_by_the_socket() {
    let points = [
        "upload: frame's head sent",
        "upload: some bytes sent",
        "upload: sent",
        "request: in the middle of it",
        "request: sent",
        "reply: here",
    ];
    clients_die(&Manager::builder().lanes(false).start().unwrap(), &points);
}

/// Clients die at every point of their calls, and surely at these. Returns what they have said of it.
fn clients_die(manager: &Manager, points: &[&str]) -> String {
    let said = tempfile::tempfile().unwrap();
    let numbers: Dict<u64, u64> = manager.dict((0..KEYS).map(|key| (key, 0))).unwrap();
    let texts: Dict<u64, Vec<u8>> = manager.dict((0..6u64).map(|key| (key, vec![0; 10]))).unwrap();
    let list: List<u64> = manager.list::<u64>([0u64; 0]).unwrap();
    let (counts, stop) =
        (manager.dict::<u64, u64>(no_entries::<u64, u64>()).unwrap(), manager.dict::<u64, u64>(no_entries::<u64, u64>()).unwrap());
    let mut bystander = Role::start("role_bystander");
    bystander.say(counts.token().unwrap());
    bystander.say(stop.token().unwrap());
    bystander.expect("ready");
    let objects = manager.stats().unwrap().objects;
    let deaths = dying_everywhere(points, |point, number| {
        let mut client = Role::start_with("role_client", |command| {
            command.env(CLIENT_VARIABLE, point).stderr(said.try_clone().unwrap());
        });
        for token in [numbers.token(), texts.token(), list.token()] {
            client.say(token.unwrap());
        }
        client.say(number * 2);
        let _ = client.hear();
        let status = client.end();
        // It may also die after its last word, when it lets go of what it holds.
        let done = status.success();
        assert!(done || status.signal() == Some(9), "{status}: {}", all_of(&said));
        until("the session of the dead client is gone", || manager.stats().unwrap().sessions == 2);
        let now = manager.snapshot().unwrap();
        let found: Vec<u64> = numbers.at(&now).values().map(|number| *number).collect();
        assert_eq!(found.len() as u64, KEYS);
        assert!(found.iter().all(|number| *number == found[0]), "point {point}: {found:?}");
        let text = |key| texts.at(&now).get(key).unwrap().first().copied();
        assert_eq!((text(0u64), text(1)), (text(1), text(2)), "point {point}");
        assert_eq!(text(4), text(5), "point {point}");
        let elements = list.at(&now).to_vec();
        assert!(elements.chunks(3).all(|three| three.len() == 3 && three.iter().all(|element| *element == three[0])), "{elements:?}");
        assert_eq!(manager.stats().unwrap().objects, objects, "point {point}");
        manager.audit().unwrap();
        !done
    });
    println!("{deaths} clients have died");
    assert!(deaths > 40, "{deaths}");
    stop.insert(0, 0).unwrap();
    let added: u64 = bystander.hear().expect("the bystander noticed nothing").parse().unwrap();
    assert!(added > 0);
    assert_eq!(*counts.get(0).unwrap().unwrap(), added);
    manager.audit().unwrap();
    all_of(&said)
}

// The manager, in the middle of a commit.

/// Accounts, and what is in all of them together.
const ACCOUNTS: u64 = 12;
const TOTAL: u64 = ACCOUNTS * 100;

/// Starts a manager that will die, and moves money until it does.
#[test]
fn role_owner() {
    let Some(mut parent) = Parent::of("role_owner") else { return };
    let result = own(&mut parent);
    match result {
        Ok(()) => parent.say("done"),
        Err(error) if error.is_disconnected() => parent.say("manager died"),
        Err(error) => parent.say(format!("{error:?}")),
    }
}

fn own(parent: &mut Parent) -> commonhold::Result<()> {
    let manager = Manager::builder().capacity(64 << 20).start()?;
    let accounts: Dict<u64, u64> = manager.dict((0..ACCOUNTS).map(|key| (key, 100)))?;
    let moves: Dict<u64, u64> = manager.dict([(0, 0)])?;
    let log: List<u64> = manager.list([0u64; 0])?;
    let large: Dict<u64, Vec<u8>> = manager.dict(no_entries::<u64, Vec<u8>>())?;
    manager.publish("accounts", &accounts)?;
    manager.publish("moves", &moves)?;
    manager.publish("log", &log)?;
    parent.say(manager.address());
    parent.hear();
    for i in 0..6u64 {
        manager.transaction(|tx| {
            let (from, to) = (i % ACCOUNTS, (i * 7 + 3) % ACCOUNTS);
            let amount = *tx.get(&accounts, from)?.unwrap() / 3;
            tx.insert(&accounts, from, *tx.get(&accounts, from)?.unwrap() - amount)?;
            tx.insert(&accounts, to, *tx.get(&accounts, to)?.unwrap() + amount)?;
            tx.insert(&moves, 0, i + 1)?;
            tx.push(&log, i)
        })?;
        large.insert(i % 2, vec![i as u8; 200_000])?;
        large.insert(i, vec![i as u8; 20_000])?;
        large.insert(i, vec![i as u8; 20])?;
    }
    Ok(())
}

/// Looks at the newest version, though the manager is dead.
struct Autopsy(RawSession);

impl Autopsy {
    /// The numbers in a dict of the newest version.
    fn numbers(&self, id: u64) -> Vec<u64> {
        let pin = self.0.pins.pin();
        let record = catalog::find(&self.0.arena, pin.root(), id).unwrap();
        let entries = Entries::new(&self.0.arena, record.root, record.value_align);
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        let numbers: Vec<u64> = entries
            .map(|entry| {
                let place = entry.value_place(&self.0.arena);
                number(self.0.arena.bytes(place.offset, place.len))
            })
            .collect();
        assert_eq!(numbers.len() as u64, record.len);
        numbers
    }

    fn len(&self, id: u64) -> u64 {
        let pin = self.0.pins.pin();
        catalog::find(&self.0.arena, pin.root(), id).unwrap().len
    }
}

/// Looks at whole versions until the manager dies, and after. Returns how many it has seen.
fn watch_over(address: &str) -> commonhold::Result<u64> {
    let manager = Manager::connect(address)?;
    let accounts: Dict<u64, u64> = manager.open("accounts")?;
    let moves: Dict<u64, u64> = manager.open("moves")?;
    let log: List<u64> = manager.open("log")?;
    let autopsy = Autopsy(RawSession::connect(&manager, PATIENCE)?);
    let mut last = manager.snapshot()?;
    let mut versions = 1;
    loop {
        assert_eq!(accounts.at(&last).values().map(|number| *number).sum::<u64>(), TOTAL);
        assert_eq!(accounts.at(&last).len() as u64, ACCOUNTS);
        assert_eq!(*moves.at(&last).get(0).unwrap(), log.at(&last).len() as u64);
        assert_eq!(log.at(&last).to_vec(), (0..log.at(&last).len() as u64).collect::<Vec<_>>());
        match manager.snapshot() {
            Ok(next) => {
                versions += u64::from(next.version() != last.version());
                last = next;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Disconnected);
                break;
            }
        }
    }
    assert_eq!(accounts.at(&last).values().map(|number| *number).sum::<u64>(), TOTAL, "what is held stays");
    // The newest version, which may have been published by the manager's last instruction.
    let found = autopsy.numbers(accounts.id());
    assert_eq!((found.len() as u64, found.iter().sum::<u64>()), (ACCOUNTS, TOTAL));
    assert_eq!(autopsy.numbers(moves.id()), [autopsy.len(log.id())]);
    Ok(versions)
}

#[test]
fn the_manager_dies_at_every_point_of_a_commit() {
    let (mut deaths, mut watched, mut versions) = (0, 0, 0);
    for point in 1.. {
        let mut owner = Role::start_with("role_owner", |command| {
            command.env(MANAGER_VARIABLE, point.to_string());
        });
        let first = owner.hear().unwrap();
        if !first.starts_with('@') {
            // At its very first points it has not reported yet.
            assert!(first == "manager died" || first.contains("SIGKILL"), "point {point}: {first}");
            deaths += 1;
            continue;
        }
        let watcher = std::thread::spawn(move || watch_over(&first));
        owner.say("go");
        let last = owner.hear().unwrap();
        owner.kill();
        match watcher.join().unwrap() {
            Ok(seen) => {
                watched += 1;
                versions += seen;
            }
            // The manager was dead before the watcher came.
            Err(error) => assert!(error.is_disconnected() || error.is_not_found() || error.kind() == ErrorKind::System, "{error:?}"),
        }
        if last == "done" {
            break;
        }
        assert_eq!(last, "manager died", "point {point}");
        deaths += 1;
    }
    println!("{deaths} managers have died, {watched} of them watched, {versions} versions seen");
    assert!(deaths > 100, "{deaths}");
    assert!(watched > 20, "{watched}");
}

// The parent.

/// Starts a manager and waits to be killed.
#[test]
fn role_parent() {
    let Some(mut parent) = Parent::of("role_parent") else { return };
    let manager = Manager::start().unwrap();
    let _list = manager.list([1u64]).unwrap();
    parent.say(manager.address());
    parent.wait_for_end();
}

#[test]
fn a_killed_parent_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut parent = Role::start_with("role_parent", |command| {
        command.env("COMMONHOLD_RUNTIME_DIR", directory.path().join("run")).env("TMPDIR", directory.path());
    });
    let address = parent.hear().unwrap();
    let manager = Manager::connect(&address).unwrap();
    let list = manager.list([1u64]).unwrap();
    let process = process_of(&manager);
    assert!(is_bound(&address));
    parent.kill();
    let took = process.end_within(PATIENCE).expect("the manager ends");
    println!("the manager has ended {took:?} after its parent");
    assert!(took < PROMPT, "{took:?}");
    assert!(list.push(2u64).unwrap_err().is_disconnected());
    assert!(!manager.is_alive());
    assert!(!is_bound(&address));
    assert_eq!(files_in(directory.path()), [] as [std::path::PathBuf; 0]);
}

// Those who wait.

/// The number of the system call `futex_waitv`.
const FUTEX_WAITV: i64 = 449;

/// Waits for changes in two threads, and says when each is told that there will be none.
#[test]
fn role_waiter() {
    let Some(mut parent) = Parent::of("role_waiter") else { return };
    let dict: Dict<u64, u64> = parent.hear_handle();
    let (sender, tids) = std::sync::mpsc::channel();
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let (dict, sender) = (dict.clone(), sender.clone());
            std::thread::spawn(move || {
                // SAFETY: no preconditions.
                sender.send(unsafe { libc::gettid() }).unwrap();
                let mut seen = dict.version().unwrap();
                dict.wait_for_change(&mut seen, None).unwrap_err().kind()
            })
        })
        .collect();
    let tids: Vec<String> = (0..3).map(|_| tids.recv().unwrap().to_string()).collect();
    parent.say(tids.join(" "));
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap(), ErrorKind::Disconnected);
    }
    parent.say("disconnected");
}

#[test]
fn all_who_wait_hear_of_the_managers_death() {
    let manager = Manager::start().unwrap();
    let dict: Dict<u64, u64> = manager.dict(no_entries::<u64, u64>()).unwrap();
    let mut waiters: Vec<Role> = (0..4)
        .map(|_| {
            let mut waiter = Role::start("role_waiter");
            waiter.say(dict.token().unwrap());
            waiter
        })
        .collect();
    for waiter in &mut waiters {
        let tids = waiter.hear().unwrap();
        for tid in tids.split(' ') {
            let tid = tid.parse().unwrap();
            until("the waiter sleeps", || sleeps_in(waiter.pid(), tid) == Some(FUTEX_WAITV));
        }
    }
    let process = process_of(&manager);
    let start = Instant::now();
    process.kill();
    for waiter in &mut waiters {
        waiter.expect("disconnected");
    }
    let took = start.elapsed();
    println!("all 12 waiters in 4 processes have heard of it within {took:?}");
    assert!(took < PROMPT, "{took:?}");
    let error = dict.insert(1, 1).unwrap_err();
    assert!(error.is_disconnected() && !error.is_outcome_unknown());
}

/// A manager as a thread of this process, and a forked child that keeps every descriptor of it open.
#[test]
fn role_host() {
    let Some(mut parent) = Parent::of("role_host") else { return };
    let manager = Manager::in_process().unwrap();
    let dict: Dict<u64, u64> = manager.dict(no_entries::<u64, u64>()).unwrap();
    parent.say(dict.token().unwrap());
    parent.hear();
    // SAFETY: the child only sleeps and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: no preconditions. It ends with the test, whose pipe it holds.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, 0);
            let mut byte = 0u8;
            while libc::read(0, (&raw mut byte).cast(), 1) > 0 {}
            libc::_exit(0);
        }
    }
    parent.say(child);
    // Leaves what comes through the pipe to the child.
    loop {
        std::thread::park();
    }
}

#[test]
fn callers_hear_of_a_death_though_a_forked_child_holds_the_socket() {
    let mut host = Role::start("role_host");
    let token: commonhold::Token = host.hear().unwrap().parse().unwrap();
    let dict: Dict<u64, u64> = token.open().unwrap();
    host.say("fork");
    let child = Watched::of(host.hear().unwrap().parse().unwrap());
    host.stop();
    let (sender, tid) = std::sync::mpsc::channel();
    let caller = std::thread::spawn(move || {
        // SAFETY: no preconditions.
        sender.send(unsafe { libc::gettid() }).unwrap();
        dict.insert(1, 1).map(|_| ()).unwrap_err()
    });
    let tid = tid.recv().unwrap();
    until("the call waits for its answer", || sleeps_in(std::process::id(), tid).is_some());
    let start = Instant::now();
    host.kill();
    assert!(!child.has_ended());
    let error = caller.join().unwrap();
    let took = start.elapsed();
    println!("the caller has heard of it after {took:?}");
    assert!(error.is_outcome_unknown(), "{error:?}");
    assert!(took < PROMPT, "{took:?}");
    child.kill();
}
