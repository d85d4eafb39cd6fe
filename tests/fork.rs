//! Forked children: what they do with copies of their parent's handles and guards does not touch the parent.
//!
//! Each case forks in a process of its own, whose only other threads are the case's.
mod support;

use commonhold::{Dict, Error, ErrorKind, List, Manager, Queue, Ref, Value};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use support::*;

commonhold::init_in_tests!();

#[track_caller]
fn is_after_fork<T>(result: Result<T, impl Into<Error>>) -> bool {
    let at = std::panic::Location::caller();
    match result.map_err(Into::into) {
        Err(error) if error.kind() == ErrorKind::UsedAfterFork => true,
        Err(error) => {
            eprintln!("{at}: another error than expected: {error:?}");
            false
        }
        Ok(_) => {
            eprintln!("{at}: it worked, in a forked child");
            false
        }
    }
}

/// Tries everything that a child must not do.
fn all_is_refused(manager: &Manager, dict: &Dict<String, u64>, list: &List<u64>) -> bool {
    let token = "commonhold:1:1:0000000000000001:@nowhere".parse().unwrap();
    let mut seen = 0;
    [
        is_after_fork(dict.get("a")),
        is_after_fork(dict.insert("a", 1)),
        is_after_fork(dict.remove("a")),
        is_after_fork(dict.add("a", 1)),
        is_after_fork(dict.len()),
        is_after_fork(dict.iter()),
        is_after_fork(dict.to_owned()),
        is_after_fork(dict.clear()),
        is_after_fork(dict.token()),
        is_after_fork(dict.changed_since(0)),
        is_after_fork(dict.wait_for_change(&mut seen, None)),
        is_after_fork(list.push(1u64)),
        is_after_fork(list.pop()),
        is_after_fork(list.get(0)),
        is_after_fork(list.set(0, 1u64)),
        is_after_fork(list.slice(0..1)),
        is_after_fork(list.sort_by(|a, b| a.cmp(b))),
        is_after_fork(manager.writer()),
        is_after_fork(manager.snapshot()),
        is_after_fork(manager.stats()),
        is_after_fork(manager.audit()),
        is_after_fork(manager.names()),
        is_after_fork(manager.list([1u64])),
        is_after_fork(manager.dict([(1u64, "x".repeat(200_000))]) as commonhold::Result<Dict<u64, String>>),
        is_after_fork(manager.publish("name", dict)),
        is_after_fork(manager.open::<Dict<String, u64>>("name")),
        is_after_fork(manager.attach::<Dict<String, u64>>(&token).or_else(|error| match error.kind() {
            // That the token is of another manager may be found first.
            ErrorKind::NotFound => manager.audit().map(|()| dict.clone()),
            _ => Err(error),
        })),
        is_after_fork(manager.batch(|batch| batch.insert(dict, "a", 1))),
        is_after_fork(manager.transaction(|tx| tx.insert(dict, "a", 1))),
        !manager.is_alive(),
        // What cannot fail says how things are.
        !format!("{manager:?} {dict:?} {list:?} {dict} {list}").is_empty(),
    ]
    .iter()
    .all(|ok| *ok)
}

fn managers() -> [Manager; 2] {
    [Manager::start().unwrap(), Manager::in_process().unwrap()]
}

/// Guards, snapshots and handles are used and dropped in a child.
#[test]
fn role_drops() {
    let Some(mut parent) = Parent::of("role_drops") else { return };
    for manager in managers() {
        let dict: Dict<String, u64> = manager.dict([("a".to_string(), 1), ("b".to_string(), 2)]).unwrap();
        let list = manager.list([1u64, 2, 3]).unwrap();
        let (mut held, mut snapshot) = (dict.get("a").unwrap(), Some(manager.snapshot().unwrap()));
        let version = manager.version();
        let mut lent = dict.insert("b", 3).unwrap();
        dict.insert("a", 9).unwrap();
        let mut clones = Some((manager.clone(), dict.clone(), list.clone()));
        // One write under way, one collected.
        let mut writer = Some(manager.writer().unwrap());
        (4..6).for_each(|n| assert_eq!(writer.as_mut().unwrap().push(&list, n).unwrap(), n - 4));
        let as_it_was =
            |held: &Option<Ref<'_, u64>>, lent: &Option<Ref<'_, u64>>| (held.as_deref(), lent.as_deref()) == (Some(&1), Some(&2));
        let ended = forked(|| {
            let read = as_it_was(&held, &lent);
            // Nothing can be returned here that would say so.
            std::panic::set_hook(Box::new(|_| {}));
            let snapshot_refused = std::panic::catch_unwind(AssertUnwindSafe(|| dict.at(snapshot.as_ref().unwrap()).len())).is_err();
            let refused = all_is_refused(&manager, &dict, &list);
            let stream = writer.as_mut().unwrap();
            let stream_refused = is_after_fork(stream.push(&list, 9)) && is_after_fork(stream.flush()) && is_after_fork(stream.failures());
            drop((held.take(), lent.take(), snapshot.take(), clones.take(), writer.take()));
            read && refused && snapshot_refused && stream_refused
        });
        assert_eq!(ended, WELL);
        writer.as_mut().unwrap().flush().unwrap();
        assert_eq!((writer.take().unwrap().acknowledged(), list.to_owned().unwrap()), (2, vec![1, 2, 3, 4, 5]));
        let stats = manager.stats().unwrap();
        assert_eq!(stats.oldest_pin, Some(version), "the parent's pins are as they were");
        assert!(stats.retired_bytes > 0);
        assert!(as_it_was(&held, &lent));
        assert_eq!(*dict.at(snapshot.as_ref().unwrap()).get("b").unwrap(), 2);
        assert_eq!(manager.list(["still".to_string(), "here".to_string()]).map(|list: List<String>| list.len().unwrap()).unwrap(), 2);
        drop((held, lent, snapshot, clones));
        until("nothing is pinned any more", || manager.stats().unwrap().retired_bytes == 0);
        manager.audit().unwrap();
        // Everything there is, the connection and the manager's keeper included.
        let mut everything = Some((manager, dict, list));
        let ended = forked(|| {
            let start = Instant::now();
            drop(everything.take());
            start.elapsed() < PROMPT / 2
        });
        assert_eq!(ended, WELL);
        let (manager, dict, list) = everything.unwrap();
        assert_eq!((*dict.get("a").unwrap().unwrap(), list.len().unwrap()), (9, 5));
        manager.audit().unwrap();
    }
    parent.say("well");
}

#[test]
fn a_child_drops_what_it_has_and_the_parent_does_not_notice() {
    Role::start("role_drops").expect("well");
}

/// Every other kind of object is tried and dropped in a child, with what is held of each: a leased item, an end of a pipe, locks.
#[test]
fn role_drops_objects() {
    let Some(mut parent) = Parent::of("role_drops_objects") else { return };
    for manager in managers() {
        let (value, counter, space) = (manager.value("first").unwrap(), manager.counter(1).unwrap(), manager.namespace().unwrap());
        let value: Value<String> = value;
        space.set("name", 7u64).unwrap();
        let queue: Queue<u64> = manager.queue(10).unwrap();
        (1..4).for_each(|item| queue.send(item).unwrap());
        let mut lease = queue.lease().unwrap();
        let (ours, theirs) = manager.pipe::<u64>().unwrap();
        theirs.send(5).unwrap();
        let (event, barrier, condition) = (manager.event().unwrap(), manager.barrier(2).unwrap(), manager.condition().unwrap());
        let (lock, rlock, rw_lock) = (manager.lock().unwrap(), manager.rlock().unwrap(), manager.rw_lock().unwrap());
        let semaphore = manager.semaphore(1).unwrap();
        let mut held = Some((
            lock.lock().unwrap().into_guard(),
            rlock.lock().unwrap().into_guard(),
            rw_lock.read().unwrap().into_guard(),
            semaphore.acquire().unwrap(),
        ));
        let mut clones = Some((value.clone(), counter.clone(), space.clone(), queue.clone(), lock.clone(), event.clone()));
        let mut ends = Some((ours, theirs));
        let ended = forked(|| {
            let (ours, theirs) = ends.as_ref().unwrap();
            let refused = [
                is_after_fork(value.get()),
                is_after_fork(value.set("child's")),
                is_after_fork(value.update(|text| text.clear())),
                is_after_fork(value.compare_exchange("first", "child's")),
                is_after_fork(counter.add(1)),
                is_after_fork(counter.get()),
                is_after_fork(space.get::<u64>("name")),
                is_after_fork(space.set("name", 8u64)),
                is_after_fork(space.remove("name")),
                is_after_fork(space.names()),
                is_after_fork(queue.send(9)),
                is_after_fork(queue.try_send(9)),
                is_after_fork(queue.recv()),
                is_after_fork(queue.try_recv()),
                is_after_fork(queue.lease()),
                is_after_fork(queue.len()),
                is_after_fork(queue.close()),
                is_after_fork(lease.take().unwrap().ack()),
                is_after_fork(ours.send(9)),
                is_after_fork(ours.recv()),
                // There is something to be heard by `recv`: what is wrong.
                ours.poll(None).is_ok_and(|ready| ready),
                is_after_fork(theirs.try_recv()),
                is_after_fork(theirs.close()),
                is_after_fork(event.set()),
                is_after_fork(event.wait()),
                is_after_fork(barrier.wait()),
                is_after_fork(barrier.abort()),
                is_after_fork(condition.notify_all()),
                is_after_fork(condition.lock()),
                is_after_fork(lock.try_lock()),
                is_after_fork(lock.lock()),
                is_after_fork(rlock.lock()),
                is_after_fork(rw_lock.read()),
                is_after_fork(rw_lock.try_write()),
                is_after_fork(semaphore.acquire()),
                is_after_fork(semaphore.release()),
            ];
            drop((held.take(), clones.take(), ends.take()));
            refused.iter().all(|ok| *ok)
        });
        assert_eq!(ended, WELL);
        // All is as it was. The item is still leased: it has not come back.
        assert_eq!((value.get().unwrap().to_owned(), counter.get().unwrap()), ("first".to_owned(), 1));
        assert_eq!(*space.get::<u64>("name").unwrap().unwrap(), 7);
        assert_eq!((queue.try_recv().unwrap(), queue.try_recv().unwrap(), queue.try_recv().unwrap()), (Some(2), Some(3), None));
        assert_eq!((lease.as_ref().unwrap().attempt(), lease.take().unwrap().ack().unwrap()), (1, 1));
        assert_eq!((queue.try_recv().unwrap(), queue.is_closed().unwrap()), (None, false));
        let (ours, theirs) = ends.take().unwrap();
        assert_eq!(ours.recv().unwrap(), Some(5));
        ours.send(6).unwrap();
        assert_eq!(theirs.recv().unwrap(), Some(6));
        assert!(!event.is_set().unwrap() && !barrier.is_broken().unwrap());
        let elsewhere = |free: bool| {
            let tried = || {
                let read = rw_lock.try_write().unwrap().is_some();
                [lock.try_lock().unwrap().is_some(), rlock.try_lock().unwrap().is_some(), read, semaphore.try_acquire().unwrap().is_some()]
            };
            assert_eq!(std::thread::scope(|scope| scope.spawn(tried).join().unwrap()), [free; 4]);
        };
        elsewhere(false);
        drop(held.take());
        elsewhere(true);
        manager.audit().unwrap();
    }
    parent.say("well");
}

#[test]
fn a_child_drops_objects_of_every_kind_and_the_parent_does_not_notice() {
    Role::start("role_drops_objects").expect("well");
}

/// Named blocks are tried and dropped in a child, mapped and not; then a child opens one for itself.
#[cfg(feature = "shared-memory")]
#[test]
fn role_drops_blocks() {
    use commonhold::SharedMemory;
    let Some(mut parent) = Parent::of("role_drops_blocks") else { return };
    let [name, other] = ["kept", "never"].map(|name| format!("commonhold-test-fork-{}-{name}", std::process::id()));
    let exists = |name: &str| std::path::Path::new("/dev/shm").join(name).exists();
    for manager in managers() {
        let block = manager.shared_memory(&name, 5000).unwrap();
        block.write_at(4990, b"parent's").unwrap();
        let (token, address) = (block.token().unwrap(), manager.address().to_string());
        let opened = manager.open_shared_memory(&name).unwrap();
        // Of another manager, and not mapped yet.
        let beside = Manager::in_process().unwrap();
        let shelf: Dict<String, SharedMemory> = beside.dict([]).unwrap();
        shelf.insert("block", beside.open_shared_memory(&name).unwrap()).unwrap();
        let unmapped = shelf.get("block").unwrap().unwrap().to_owned();
        let mut all = Some((block, opened, unmapped));
        let ended = forked(|| {
            let (block, opened, unmapped) = all.as_ref().unwrap();
            let refused = [block, opened, unmapped].map(|block| {
                is_after_fork(block.len())
                    && is_after_fork(block.name())
                    && is_after_fork(block.read(4990..4998))
                    && is_after_fork(block.to_vec())
                    && is_after_fork(block.write_at(4990, b"child's "))
                    && is_after_fork(block.fill(0..5000, 9))
                    && is_after_fork(block.token())
                    && is_after_fork(block.unlink())
                    && !format!("{block:?}").is_empty()
            });
            let none_made = is_after_fork(manager.shared_memory(&other, 8)) && is_after_fork(manager.open_shared_memory(&name));
            drop(all.take());
            refused == [true; 3] && none_made
        });
        assert_eq!(ended, WELL);
        let (block, opened, unmapped) = all.as_ref().unwrap();
        assert!(exists(&name) && !exists(&other));
        assert_eq!([block, opened, unmapped].map(|block| block.read(4990..4999).unwrap()), [b"parent's\0"; 3]);
        assert_eq!(block.read(0..4990).unwrap(), [0; 4990]);
        // What a child opens for itself it drops for itself.
        let ended = forked(|| {
            let own = Manager::connect(&address).unwrap();
            let [mine, again]: [SharedMemory; 2] = [own.attach(&token).unwrap(), own.open_shared_memory(&name).unwrap()];
            let read = mine.read(4990..4998).unwrap() == *b"parent's";
            again.write_at(4990, b"a child's").unwrap();
            drop((mine, again));
            own.audit().unwrap();
            read
        });
        assert_eq!(ended, WELL);
        assert_eq!((exists(&name), &block.read(4990..4999).unwrap()[..]), (true, &b"a child's"[..]));
        until("the child's session is gone", || manager.stats().unwrap().sessions == 1);
        manager.audit().unwrap();
        // The managers, too: in a child, neither's end takes a name away.
        let mut everything = Some((all.take(), shelf, beside, manager));
        assert_eq!(forked(|| everything.take().is_some()), WELL);
        assert!(exists(&name));
        let (all, shelf, beside, manager) = everything.unwrap();
        drop((all, shelf));
        until("the name is gone with the last handle", || !exists(&name));
        manager.audit().unwrap();
        beside.audit().unwrap();
    }
    parent.say("well");
}

#[cfg(feature = "shared-memory")]
#[test]
fn a_child_drops_named_blocks_and_the_parent_keeps_them() {
    Role::start("role_drops_blocks").expect("well");
}

/// A child connects for itself.
struct Echo;

#[commonhold::remote]
impl Echo {
    pub fn new() -> Self {
        Echo
    }
    pub fn echo(&self, number: u64) -> u64 {
        number
    }
}

/// The result of a call that its parent has made is asked for, and dropped, in a child.
#[test]
fn role_asks_for_a_result() {
    let Some(mut parent) = Parent::of("role_asks_for_a_result") else { return };
    for manager in managers() {
        let echo = manager.create(Echo::new, ()).unwrap();
        let mut pending = Some(echo.call_async().echo(5).unwrap());
        let ended = forked(|| is_after_fork(pending.take().unwrap().get()) && is_after_fork(echo.echo(6)));
        assert_eq!(ended, WELL);
        assert_eq!(pending.take().unwrap().get().unwrap(), 5);
        assert_eq!(echo.echo(7).unwrap(), 7);
    }
    parent.say("well");
}

#[test]
fn a_child_has_no_part_in_the_calls_of_its_parent() {
    Role::start("role_asks_for_a_result").expect("well");
}

#[test]
fn role_connects() {
    let Some(mut parent) = Parent::of("role_connects") else { return };
    for manager in managers() {
        let dict: Dict<String, u64> = manager.dict([("a".to_string(), 1), ("b".to_string(), 2)]).unwrap();
        let (address, token) = (manager.address().to_string(), dict.token().unwrap());
        let held = dict.get("a").unwrap().unwrap();
        let ended = forked(|| {
            let own = Manager::connect(&address).unwrap();
            let mine: Dict<String, u64> = own.attach(&token).unwrap();
            assert_eq!(mine.add("b", 5).unwrap(), 7);
            let guard = mine.get("a").unwrap().unwrap();
            assert!(mine.insert("a", 8).unwrap().is_some_and(|old| old == 1));
            assert_eq!((*guard, *held), (1, 1));
            let again: Dict<String, u64> = token.open().unwrap();
            assert!(again == mine);
            assert_eq!(own.stats().unwrap().sessions, 2);
            // The parent's stay refused, though this process has a life of its own now.
            assert!(is_after_fork(dict.get("a")) && is_after_fork(manager.snapshot()));
            // And a grandchild may not use those of this one.
            let grandchild = forked(|| is_after_fork(mine.get("a")) && is_after_fork(own.stats()) && *guard == 1);
            assert_eq!(grandchild, WELL);
            own.audit().unwrap();
            assert_eq!(*mine.get("a").unwrap().unwrap(), 8);
            true
        });
        assert_eq!(ended, WELL);
        assert_eq!((*held, *dict.get("a").unwrap().unwrap(), *dict.get("b").unwrap().unwrap()), (1, 8, 7));
        drop(held);
        until("the child's session is gone", || manager.stats().unwrap().sessions == 1);
        manager.audit().unwrap();
    }
    parent.say("well");
}

#[test]
fn a_child_makes_a_connection_of_its_own() {
    Role::start("role_connects").expect("well");
}

/// Forks so often while three threads do something again and again. Each child must end well.
fn fork_beside(count: u32, busy: impl Fn(u64) + Sync, mut fork: impl FnMut() -> String) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (busy, stop) = (&busy, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    busy(thread);
                }
            });
        }
        let failed = (0..count).map(|_| fork()).find(|ended| ended != WELL);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(failed, None);
    });
}

/// Forks again and again while other threads are in the middle of calls, whose locks the children inherit.
#[test]
fn role_busy() {
    let Some(mut parent) = Parent::of("role_busy") else { return };
    let manager = Manager::start().unwrap();
    let dict: Dict<String, u64> = manager.dict([("a".to_string(), 1), ("b".to_string(), 2)]).unwrap();
    let list = manager.list([1u64, 2, 3]).unwrap();
    let outer = manager.list([dict.clone()]).unwrap();
    let busy = |key: u64| {
        dict.add(key.to_string(), 1).unwrap();
        drop((manager.snapshot().unwrap(), dict.get("a").unwrap(), manager.list([key]).unwrap()));
        assert_eq!(outer.get(0).unwrap().unwrap().to_owned().len().unwrap(), dict.len().unwrap());
        manager.transaction(|tx| tx.insert(&dict, key.to_string(), 0)).unwrap();
    };
    fork_beside(60, busy, || {
        let (mut held, mut snapshot) = (dict.get("a").unwrap(), Some(manager.snapshot().unwrap()));
        let mut clones = Some((manager.clone(), dict.clone(), list.clone()));
        forked(|| {
            let refused = all_is_refused(&manager, &dict, &list);
            drop((held.take(), snapshot.take(), clones.take()));
            refused
        })
    });
    manager.audit().unwrap();
    parent.say("well");
}

#[test]
fn children_of_a_busy_parent_neither_hang_nor_disturb_it() {
    Role::start("role_busy").expect("well");
}

/// Forks again and again while other threads look their session up, under a lock that the children inherit; each child connects.
#[test]
fn role_looked_up() {
    let Some(mut parent) = Parent::of("role_looked_up") else { return };
    let manager = Manager::start().unwrap();
    let dict: Dict<String, u64> = manager.dict([("a".to_string(), 1)]).unwrap();
    manager.publish("dict", &dict).unwrap();
    let address = manager.address().to_string();
    let looks_up = |_| drop(Manager::connect(&address).unwrap());
    fork_beside(400, looks_up, || {
        forked(|| {
            let own = Manager::connect(&address).unwrap();
            let dict: Dict<String, u64> = own.open("dict").unwrap();
            *dict.get("a").unwrap().unwrap() == 1 && dict.token().unwrap().open::<Dict<String, u64>>().unwrap() == dict
        })
    });
    manager.audit().unwrap();
    parent.say("well");
}

#[test]
fn children_of_a_parent_that_looks_its_sessions_up_can_connect() {
    Role::start("role_looked_up").expect("well");
}

/// A child that ends by `exit`, and so runs the destructors of its thread.
#[test]
fn role_exits() {
    let Some(mut parent) = Parent::of("role_exits") else { return };
    let manager = Manager::start().unwrap();
    let dict: Dict<String, u64> = manager.dict([("a".to_string(), 1), ("b".to_string(), 2)]).unwrap();
    let held = dict.get("a").unwrap().unwrap();
    dict.insert("a", 2).unwrap();
    for _ in 0..3 {
        let ended = forked(|| std::process::exit(if is_after_fork(dict.get("a")) { 0 } else { 2 }));
        assert_eq!(ended, WELL);
        assert_eq!(*held, 1);
        assert!(manager.stats().unwrap().oldest_pin.is_some());
    }
    drop(held);
    manager.audit().unwrap();
    parent.say("well");
}

#[test]
fn a_child_may_end_by_exit() {
    Role::start("role_exits").expect("well");
}
