//! Snapshots and versions: what stays, and what waking promises.

use super::*;

pub fn snapshots_stay(manager: &Manager) {
    let dict = manager.dict::<String, u64>([("a".to_string(), 1), ("b".to_string(), 2)]).unwrap();
    let list: List<String> = manager.list(["x".to_string(), "y".to_string()]).unwrap();
    let snapshot = manager.snapshot().unwrap();
    assert_eq!(snapshot.version(), manager.version());
    dict.clear().unwrap();
    list.clear().unwrap();
    let at = dict.at(&snapshot);
    assert_eq!((at.len(), at.is_empty(), at.contains_key("a"), at.contains_key("c")), (2, false, true, false));
    assert_eq!((*at.get("a").unwrap(), at.get("c").is_none()), (1, true));
    let sum: u64 = at.values().map(|value| *value).sum();
    assert_eq!((at.iter().count(), at.keys().count(), sum), (2, 2, 3));
    assert_eq!(at.iter_ordered().map(|(key, _)| key.to_owned()).collect::<String>(), "ab");
    assert_eq!((format!("{at:?}"), at.into_iter().count()), (r#"{"a": 1, "b": 2}"#.to_string(), 2));
    let at = list.at(&snapshot);
    assert_eq!((at.len(), at.is_empty(), at.get(1).unwrap().to_owned(), at.get(2).is_none()), (2, false, "y".to_string(), true));
    assert_eq!((at.to_vec(), format!("{at:?}")), (vec!["x".to_string(), "y".to_string()], r#"["x", "y"]"#.to_string()));
    let elsewhere = std::thread::scope(|scope| {
        let snapshot = snapshot.clone();
        let dict = dict.clone();
        scope.spawn(move || *dict.at(&snapshot).get("b").unwrap()).join().unwrap()
    });
    assert_eq!(elsewhere, 2);
    let later = manager.dict::<u8, u8>([(1, 1)]).unwrap();
    assert!(later.at(&snapshot).is_empty() && later.at(&snapshot).get(1).is_none() && later.at(&snapshot).iter().next().is_none());
    let later: List<u8> = manager.list([1u8]).unwrap();
    assert!(later.at(&snapshot).is_empty() && later.at(&snapshot).get(0).is_none() && later.at(&snapshot).iter().next().is_none());
    assert!(format!("{snapshot:?}").contains("Snapshot of version"));
}

pub fn snapshot_slices(manager: &Manager) {
    let list: List<u32> = manager.list(0..1000u32).unwrap();
    let snapshot = manager.snapshot().unwrap();
    list.truncate(10).unwrap();
    let middle = list.at(&snapshot).slice(100..200);
    assert_eq!((middle.len(), *middle.get(0).unwrap(), middle.get(100).is_none()), (100, 100, true));
    assert_eq!(middle.slice(50..).slice(..2).to_vec(), [150, 151]);
    assert_eq!(middle.iter().rev().map(|n| *n).next(), Some(199));
    assert!(middle.slice(500..).is_empty());
    assert_eq!(middle.into_iter().map(|n| u64::from(*n)).sum::<u64>(), (100..200u64).sum::<u64>());
}

pub fn versions_and_changes(manager: &Manager) {
    let (dict, other) = (manager.dict::<u8, u8>([(1, 1)]).unwrap(), manager.counter(0).unwrap());
    let seen = dict.version().unwrap();
    assert!(!dict.changed_since(seen).unwrap() && dict.changed_since(0).unwrap());
    other.add(1).unwrap();
    assert!(!dict.changed_since(seen).unwrap());
    dict.insert(1, 2).unwrap();
    assert!(dict.changed_since(seen).unwrap() && dict.version().unwrap() > seen && dict.version().unwrap() <= manager.version());
    let mut at = 0;
    assert!(dict.wait_for_change(&mut at, None).unwrap());
    assert_eq!(at, dict.version().unwrap());
    assert!(!dict.wait_for_change(&mut at, Duration::from_millis(1)).unwrap());
    let unchanged = dict.version().unwrap();
    dict.remove(99).unwrap();
    assert_eq!(dict.version().unwrap(), unchanged, "nothing was removed");
    let (list, value, space) = (manager.list([1u8]).unwrap(), manager.value(1u8).unwrap(), manager.namespace().unwrap());
    let before = (list.version().unwrap(), value.version().unwrap(), space.version().unwrap(), other.version().unwrap());
    list.push(1).unwrap();
    value.set(2).unwrap();
    space.set("a", 1u8).unwrap();
    other.add(1).unwrap();
    assert!(list.changed_since(before.0).unwrap() && value.changed_since(before.1).unwrap());
    assert!(space.changed_since(before.2).unwrap() && other.changed_since(before.3).unwrap());
}

pub fn waiting_without_end(manager: &Manager) {
    let counter = manager.counter(0).unwrap();
    std::thread::scope(|scope| {
        let mut seen = counter.version().unwrap();
        let counter = &counter;
        let waiter = scope.spawn(move || {
            let changed = counter.wait_for_change(&mut seen, Duration::MAX).unwrap();
            (changed, counter.get().unwrap())
        });
        counter.add(1).unwrap();
        assert_eq!(waiter.join().unwrap(), (true, 1));
    });
    std::thread::scope(|scope| {
        let end = scope.spawn(|| manager.wait_for_end(Duration::MAX).unwrap());
        manager.shutdown().unwrap();
        assert!(end.join().unwrap());
    });
}
