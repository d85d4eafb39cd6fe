//! What dicts promise and refuse.

use super::*;

pub fn dict_reads(manager: &Manager) {
    let dict = manager.dict::<String, u64>([("a".to_string(), 1), ("b".to_string(), 2)]).unwrap();
    assert_eq!(dict.get("a").unwrap().unwrap(), 1);
    assert_eq!(*dict.get("a".to_string()).unwrap().unwrap() + 1, 2);
    assert_eq!(dict.get("b".to_string()).unwrap().unwrap().to_owned(), 2);
    assert!(dict.get("c").unwrap().is_none());
    assert!(dict.contains_key("a").unwrap() && !dict.contains_key("c").unwrap());
    assert_eq!((dict.len().unwrap(), dict.is_empty().unwrap()), (2, false));
    let mut keys: Vec<String> = dict.keys().unwrap().map(|key| key.to_owned()).collect();
    keys.sort();
    assert_eq!(keys, ["a", "b"]);
    assert_eq!(dict.values().unwrap().sum::<u64>(), 3);
    let iter = dict.iter().unwrap();
    assert_eq!((iter.len(), iter.size_hint()), (2, (2, Some(2))));
    assert_eq!(iter.map(|(key, value)| key.len() as u64 + *value).sum::<u64>(), 5);
    assert_eq!(dict.to_owned().unwrap(), HashMap::from([("a".to_string(), 1), ("b".to_string(), 2)]));
    let empty = manager.dict::<u64, u64>(none::<u64, u64>()).unwrap();
    assert!(empty.is_empty().unwrap() && empty.iter().unwrap().next().is_none() && empty.to_owned().unwrap().is_empty());
    // A guard and an iterator stay with their version.
    let guard = dict.get("a").unwrap().unwrap();
    let iter = dict.iter_ordered().unwrap();
    dict.clear().unwrap();
    assert_eq!((*guard, iter.count()), (1, 2));
}

pub fn dict_writes(manager: &Manager) {
    let dict = manager.dict::<String, String>(none::<String, String>()).unwrap();
    assert!(dict.insert("a", "1").unwrap().is_none());
    assert_eq!(dict.insert("a", "2".to_string()).unwrap().unwrap(), "1");
    assert_eq!(dict.remove("a").unwrap().unwrap(), "2");
    assert!(dict.remove("a").unwrap().is_none());
    dict.extend([("a", "1"), ("b", "2"), ("a", "3")]).unwrap();
    assert_eq!(dict.get("a").unwrap().unwrap(), "3");
    dict.extend(none::<String, String>()).unwrap();
    dict.retain(|key, value| key.as_str() == "b" && value.as_str() == "2").unwrap();
    assert_eq!(dict.to_string(), r#"{"b": "2"}"#);
    dict.retain(|_, _| true).unwrap();
    assert_eq!(dict.len().unwrap(), 1);
    dict.clear().unwrap();
    dict.clear().unwrap();
    assert!(dict.is_empty().unwrap());
}

pub fn dict_reads_and_writes_at_once(manager: &Manager) {
    let dict = manager.dict::<String, i64>(none::<String, i64>()).unwrap();
    assert_eq!(dict.get_or_insert("a", 5).unwrap(), 5);
    assert_eq!(dict.get_or_insert("a", 6).unwrap(), 5);
    assert_eq!((dict.add("a", -7).unwrap(), dict.add("new", 3).unwrap()), (-2, 3));
    assert!(dict.compare_exchange("a", Some(&-2), Some(9)).unwrap());
    assert!(!dict.compare_exchange("a", Some(&-2), Some(10)).unwrap());
    assert!(!dict.compare_exchange("a", None, Some(10)).unwrap());
    assert!(dict.compare_exchange("b", None, Some(1)).unwrap());
    assert!(!dict.compare_exchange("c", Some(&1), Some(1)).unwrap());
    assert!(dict.compare_exchange("b", Some(&1), None::<i64>).unwrap());
    assert!(dict.compare_exchange("b", None, None::<i64>).unwrap());
    assert!(!dict.contains_key("b").unwrap());
    dict.update("a", |old| old.map(|n| n * 2)).unwrap();
    dict.update("d", |old| Some(old.unwrap_or(100))).unwrap();
    dict.update("new", |_| None).unwrap();
    dict.update("never", |old| old).unwrap();
    assert_eq!(dict.to_string(), r#"{"a": 18, "d": 100}"#);
    let owned = manager.dict::<u8, Vec<String>>([(1u8, vec!["x".to_string()])]).unwrap();
    owned
        .update(1u8, |old| {
            old.map(|mut list| {
                list.push("y".into());
                list
            })
        })
        .unwrap();
    assert_eq!(owned.get(1u8).unwrap().unwrap().to_owned(), ["x", "y"]);
}

pub fn dict_keeps_the_order_of_insertion(manager: &Manager) {
    let dict = manager.dict((0..100u32).rev().map(|n| (n, n * n))).unwrap();
    let dict: Dict<u32, u32> = dict;
    dict.remove(50u32).unwrap();
    dict.insert(50u32, 1u32).unwrap();
    dict.insert(99u32, 0u32).unwrap();
    let order: Vec<u32> = dict.iter_ordered().unwrap().map(|(key, _)| *key).collect();
    let expected: Vec<u32> = (0..100).rev().filter(|n| *n != 50).chain([50]).collect();
    assert_eq!(order, expected);
    assert_eq!(dict.pop_last().unwrap(), Some((50, 1)));
    assert_eq!(dict.pop_last().unwrap(), Some((0, 0)));
    let snapshot = manager.snapshot().unwrap();
    assert_eq!(dict.at(&snapshot).iter_ordered().map(|(key, _)| *key).next(), Some(99));
    dict.clear().unwrap();
    assert_eq!(dict.pop_last().unwrap(), None);
}

pub fn dict_refusals(manager: &Manager) {
    let small = manager.dict::<String, u8>([("a".to_string(), 250)]).unwrap();
    refused(small.add("a", 6), ErrorKind::OutOfRange, &["range", "nothing was changed"]);
    assert_eq!(small.get("a").unwrap().unwrap(), 250);
    let signed = manager.dict::<u8, i128>([(0, i128::MIN)]).unwrap();
    refused(signed.add(0, -1), ErrorKind::OutOfRange, &["range"]);
    assert_eq!(signed.add(0, 1).unwrap(), i128::MIN + 1);
    let floats = manager.dict::<u8, f64>([(0, 0.5)]).unwrap();
    assert_eq!(floats.add(0, 0.25).unwrap(), 0.75);
    let too_long = "k".repeat(1 << 20);
    refused(small.insert(too_long.as_str(), 1), ErrorKind::TooLarge, &["key", "1048576"]);
    refused(small.add(too_long.as_str(), 1), ErrorKind::TooLarge, &["key"]);
    assert!(small.get(too_long.as_str()).unwrap().is_none());
    assert!(!small.contains_key(too_long.as_str()).unwrap());
    assert!(small.remove(too_long.as_str()).unwrap().is_none());
    assert_eq!(small.len().unwrap(), 1);
}
