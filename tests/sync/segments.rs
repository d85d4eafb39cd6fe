//! The memory behind locks: made with the object, gone with it, bounded, and its own object's affair.

use crate::support::{Parent, Role, WELL, descriptors_of, forked, process_of, until_promptly};
use commonhold::{Dict, ErrorKind, List, Lock, Manager, Token};

#[test]
fn segments_come_and_go_with_their_objects() {
    let manager = Manager::start().unwrap();
    let process = process_of(&manager);
    let before = (descriptors_of(process.pid), manager.stats().unwrap());
    assert_eq!((before.1.segments, before.1.segment_bytes), (0, 0));
    let locks: Vec<Lock> = (0..50).map(|_| manager.lock().unwrap()).collect();
    locks.iter().for_each(|lock| drop(lock.lock().unwrap().into_guard()));
    let now = manager.stats().unwrap();
    assert_eq!((now.segments, now.segment_bytes), (50, 50 * 4096));
    manager.audit().unwrap();
    drop(locks);
    until_promptly("the segments are closed", || manager.stats().unwrap().segments == 0 && descriptors_of(process.pid) <= before.0);
    assert_eq!(manager.stats().unwrap().objects, before.1.objects);
    manager.audit().unwrap();
}

#[test]
fn clients_keep_no_descriptors() {
    let manager = Manager::start().unwrap();
    let own = std::process::id();
    let lock = manager.lock().unwrap();
    drop(lock.lock().unwrap().into_guard());
    let before = descriptors_of(own);
    let locks: Vec<Lock> = (0..50).map(|_| manager.lock().unwrap()).collect();
    locks.iter().for_each(|lock| drop(lock.lock().unwrap().into_guard()));
    // Other tests of this process open and close some.
    assert!(descriptors_of(own) < before + 45);
}

#[test]
fn locks_are_objects_like_others() {
    for manager in [Manager::start().unwrap(), Manager::in_process().unwrap()] {
        let lock = manager.lock().unwrap();
        let shelf: Dict<String, Lock> = manager.dict([("door".to_string(), lock.clone())]).unwrap();
        let token = lock.token().unwrap().to_string();
        manager.publish("door", &lock).unwrap();
        let guard = lock.lock().unwrap().into_guard();
        let same = shelf.get("door").unwrap().unwrap().to_owned();
        assert!(same == lock && same.try_lock().unwrap().is_none());
        let named: Lock = manager.open("door").unwrap();
        assert!(named.try_lock().unwrap().is_none());
        let attached: Lock = manager.attach(&token.parse().unwrap()).unwrap();
        assert!(attached.try_lock().unwrap().is_none());
        drop(guard);
        assert!(attached.try_lock().unwrap().is_some());
        assert_eq!(manager.open::<List<u8>>("door").unwrap_err().kind(), ErrorKind::WrongType);
        assert_eq!(manager.attach::<Dict<u8, u8>>(&token.parse().unwrap()).unwrap_err().kind(), ErrorKind::WrongType);
        drop((lock, same, named, attached));
        manager.unpublish("door").unwrap();
        // The dict's reference keeps it.
        let again = shelf.get("door").unwrap().unwrap().to_owned();
        assert!(again.try_lock().unwrap().is_some());
        drop(again);
        shelf.clear().unwrap();
        until_promptly("the lock is gone", || manager.stats().unwrap().segments == 0);
        let gone = token.parse::<Token>().unwrap().open::<Lock>();
        assert!(gone.unwrap_err().is_not_found());
        manager.audit().unwrap();
    }
}

#[test]
fn there_are_only_so_many() {
    let manager = Manager::builder().capacity(8 << 20).start().unwrap();
    let mut locks = Vec::new();
    let full = loop {
        match manager.lock() {
            Ok(lock) => locks.push(lock),
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::Full, "{full}");
    assert!(full.to_string().contains("capacity"), "{full}");
    assert_eq!(locks.len(), (4 << 20) / 4096);
    drop(locks.pop());
    manager.lock().unwrap();
    manager.audit().unwrap();
}

/// With few descriptors, in a process of its own.
#[test]
fn role_few_descriptors() {
    let Some(mut parent) = Parent::of("segments::role_few_descriptors") else { return };
    let limit = rustix::process::Rlimit { current: Some(64), maximum: Some(64) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let manager = Manager::start().unwrap();
    let mut locks = Vec::new();
    let full = loop {
        match manager.lock() {
            Ok(lock) => locks.push(lock),
            Err(error) => break error,
        }
    };
    assert_eq!((full.kind(), locks.len()), (ErrorKind::Full, 32), "{full}");
    assert!(full.to_string().contains("ulimit -n"), "{full}");
    // There is room for sessions still.
    Manager::connect(&manager.address().to_string()).unwrap();
    locks.iter().for_each(|lock| drop(lock.lock().unwrap().into_guard()));
    parent.say("well");
}

#[test]
fn descriptors_for_sessions_are_left() {
    Role::start("segments::role_few_descriptors").expect("well");
}

#[test]
fn forked_children_are_told_and_drop_in_peace() {
    let manager = Manager::start().unwrap();
    let lock = manager.lock().unwrap();
    let guard = lock.lock().unwrap().into_guard();
    let cell = std::cell::RefCell::new(Some((guard, lock.clone())));
    let ended = forked(|| {
        let (guard, lock) = cell.take().unwrap();
        let refused = lock.try_lock().is_err_and(|error| error.kind() == ErrorKind::UsedAfterFork);
        drop(guard);
        drop(lock);
        refused
    });
    assert_eq!(ended, WELL);
    assert!(lock.try_lock().unwrap().is_none(), "the child's drops did not give it back");
    drop(cell.take());
    assert!(lock.try_lock().unwrap().is_some());
}
