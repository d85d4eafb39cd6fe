//! Every public method once for what it promises and once for what it refuses, over a manager in a process of its own and one
//! in a thread: one list of behaviours for both.

mod peers_support;

use commonhold::{Any, Counter, Dict, Error, ErrorKind, Handle, Key, List, Manager, Namespace, Shared, Token, Value};
use peers_support::{process_manager, thread_manager};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::time::Duration;

commonhold::init_in_tests!();

/// Runs each behaviour over each kind of manager, and audits after it.
macro_rules! behaviours {
    ($($name:ident)*) => {
        mod process {
            $(#[test] fn $name() { super::audited(super::$name, &super::process_manager()); })*
        }
        mod in_process {
            $(#[test] fn $name() { super::audited(super::$name, &super::thread_manager()); })*
        }
    };
}

behaviours! {
    dict_reads dict_writes dict_reads_and_writes_at_once dict_keeps_the_order_of_insertion dict_refusals
    list_reads list_writes list_orders list_slices list_refusals
    value_methods counter_methods namespace_methods
    batch_methods batch_refusals
    transaction_dicts transaction_lists transaction_values transaction_refusals
    snapshots_stay snapshot_slices
    session_names session_open_or_create session_objects session_figures tokens handles_in_values handles_given_away
    versions_and_changes keys_of_all_kinds values_of_all_kinds sizes limits printing
    everything_fails_once_the_manager_is_gone waiting_without_end
}

fn audited(behaviour: fn(&Manager), manager: &Manager) {
    behaviour(manager);
    if manager.is_alive() {
        manager.audit().unwrap();
    }
}

/// The call fails with this kind, and its message has these words.
#[track_caller]
fn refused<T: Debug>(result: commonhold::Result<T>, kind: ErrorKind, words: &[&str]) {
    let error = match result {
        Ok(value) => panic!("not refused: {value:?}"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{error:?} does not say {word:?}");
    }
}

fn none<K, V>() -> [(K, V); 0] {
    []
}

fn dict_reads(manager: &Manager) {
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

fn dict_writes(manager: &Manager) {
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

fn dict_reads_and_writes_at_once(manager: &Manager) {
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

fn dict_keeps_the_order_of_insertion(manager: &Manager) {
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

fn dict_refusals(manager: &Manager) {
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

fn list_reads(manager: &Manager) {
    let list = manager.list([5i32, 6, 5]).unwrap();
    let list: List<i32> = list;
    assert_eq!((list.len().unwrap(), list.is_empty().unwrap()), (3, false));
    assert_eq!(*list.get(1).unwrap().unwrap(), 6);
    assert!(list.get(3).unwrap().is_none() && list.get(usize::MAX).unwrap().is_none());
    assert_eq!((list.index_of(&5).unwrap(), list.index_of(&7).unwrap()), (Some(0), None));
    assert_eq!((list.count(&5).unwrap(), list.count(&7).unwrap()), (2, 0));
    assert!(list.contains(&6).unwrap() && !list.contains(&7).unwrap());
    assert_eq!(list.to_owned().unwrap(), [5, 6, 5]);
    assert_eq!(list.iter().unwrap().rev().map(|n| *n).collect::<Vec<_>>(), [5, 6, 5]);
    let mut iter = list.iter().unwrap();
    assert_eq!(iter.len(), 3);
    assert_eq!((*iter.nth(1).unwrap(), *iter.next_back().unwrap()), (6, 5));
    assert!(iter.next().is_none() && iter.next_back().is_none());
    let texts: List<String> = manager.list(["a".to_string(), "b".to_string()]).unwrap();
    assert_eq!(texts.iter().unwrap().map(|text| text.len()).sum::<usize>(), 2);
    assert_eq!(texts.get(1).unwrap().unwrap(), "b");
    let empty = manager.list::<u8>([0u8; 0]).unwrap();
    assert!(empty.is_empty().unwrap() && empty.to_owned().unwrap().is_empty());
}

fn list_writes(manager: &Manager) {
    for_elements(&manager.list::<u64>([0u64; 0]).unwrap(), |n| n);
    for_elements(&manager.list::<String>([]).unwrap(), |n| format!("element {n}"));
    for_elements(&manager.list::<[u8; 300]>([[0; 300]; 0]).unwrap(), |n| [n as u8; 300]);

    /// The same moves for elements that lie in their leaves and such that do not.
    fn for_elements<T: Shared + PartialEq + Debug + Clone>(list: &List<T>, of: impl Fn(u64) -> T) {
        list.push(of(1)).unwrap();
        list.insert(0, of(0)).unwrap();
        list.insert(2, of(2)).unwrap();
        list.extend([of(3), of(4)]).unwrap();
        list.extend(Vec::<T>::new()).unwrap();
        assert_eq!(list.to_owned().unwrap(), (0..5).map(&of).collect::<Vec<_>>());
        assert_eq!(list.set(1, of(10)).unwrap().unwrap(), of(1));
        assert!(list.set(5, of(10)).unwrap().is_none());
        assert_eq!(list.remove(1).unwrap().unwrap(), of(10));
        assert_eq!(list.pop().unwrap().unwrap(), of(4));
        assert!(list.remove(3).unwrap().is_none());
        list.swap(0, 2).unwrap();
        list.swap(1, 1).unwrap();
        list.reverse().unwrap();
        list.reverse().unwrap();
        assert_eq!(list.to_owned().unwrap(), [of(3), of(2), of(0)]);
        assert!(list.remove_value(&of(2)).unwrap() && !list.remove_value(&of(2)).unwrap());
        list.splice(1..1, (20..25).map(&of)).unwrap();
        list.splice(..=0, [of(1)]).unwrap();
        list.splice(4.., [of(9), of(8)]).unwrap();
        assert_eq!(list.to_owned().unwrap(), [1, 20, 21, 22, 9, 8].map(&of));
        list.truncate(9).unwrap();
        list.truncate(2).unwrap();
        assert_eq!(list.to_owned().unwrap(), [1, 20].map(&of));
        list.clear().unwrap();
        assert!(list.pop().unwrap().is_none());
    }
}

fn list_orders(manager: &Manager) {
    let list: List<(String, u32)> = manager.list([("b".to_string(), 1), ("a".to_string(), 2), ("b".to_string(), 0)]).unwrap();
    list.sort_by(|a, b| a.0.cmp(&b.0)).unwrap();
    assert_eq!(list.to_string(), r#"[("a", 2), ("b", 1), ("b", 0)]"#, "stable");
    list.sort().unwrap();
    assert_eq!(list.to_string(), r#"[("a", 2), ("b", 0), ("b", 1)]"#);
    let numbers = manager.list((0..5000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).unwrap();
    numbers.sort().unwrap();
    let mut expected = numbers.to_owned().unwrap();
    expected.sort_unstable();
    assert_eq!(numbers.to_owned().unwrap(), expected);
    numbers.reverse().unwrap();
    expected.reverse();
    assert_eq!(numbers.to_owned().unwrap(), expected);
    let empty = manager.list::<u8>([0u8; 0]).unwrap();
    empty.sort().unwrap();
    empty.reverse().unwrap();
}

fn list_slices(manager: &Manager) {
    let list: List<i64> = manager.list(0..10i64).unwrap();
    let slice = list.slice(2..5).unwrap();
    assert_eq!((slice.len(), slice.is_empty()), (3, false));
    assert_eq!((*slice.get(0).unwrap(), slice.get(3).is_none()), (2, true));
    assert_eq!(slice.iter().rev().map(|n| *n).collect::<Vec<_>>(), [4, 3, 2]);
    assert_eq!(slice.to_vec(), [2, 3, 4]);
    assert!(slice == [2, 3, 4] && slice == vec![2, 3, 4] && slice == [2, 3, 4][..]);
    assert_eq!((format!("{slice:?}"), slice.to_string()), ("[2, 3, 4]".to_string(), "[2, 3, 4]".to_string()));
    list.clear().unwrap();
    assert_eq!(slice.to_vec(), [2, 3, 4], "a slice stays with its version");
    let list: List<i64> = manager.list(0..10i64).unwrap();
    assert_eq!(list.slice(..).unwrap().len(), 10);
    assert_eq!(list.slice(8..100).unwrap().to_vec(), [8, 9]);
    assert_eq!(list.slice(..=1).unwrap().to_vec(), [0, 1]);
    assert!(list.slice(10..).unwrap().is_empty() && list.slice(100..200).unwrap().is_empty());
    #[allow(clippy::reversed_empty_ranges)]
    let backwards = list.slice(5..2).unwrap().to_vec();
    assert!(backwards.is_empty());
    assert_eq!(list.slice((std::ops::Bound::Excluded(7), std::ops::Bound::Unbounded)).unwrap().to_vec(), [8, 9]);
    assert!(list.slice((std::ops::Bound::Excluded(usize::MAX), std::ops::Bound::Unbounded)).unwrap().is_empty());
}

fn list_refusals(manager: &Manager) {
    let list: List<u64> = manager.list([1u64, 2]).unwrap();
    refused(list.insert(3, 0), ErrorKind::OutOfRange, &["position 3", "list of 2"]);
    refused(list.swap(0, 2), ErrorKind::OutOfRange, &["position 2", "list of 2"]);
    refused(list.splice(3.., [1]), ErrorKind::OutOfRange, &["position 3", "list of 2"]);
    assert_eq!(list.to_owned().unwrap(), [1, 2]);
    let wide: List<String> = manager.list(["x".to_string()]).unwrap();
    refused(wide.extend((0..1200).map(|_| "y".repeat(60_000))), ErrorKind::TooLarge, &["67108864", "parts"]);
    assert_eq!(wide.len().unwrap(), 1);
}

fn value_methods(manager: &Manager) {
    let value: Value<Vec<String>> = manager.value(vec!["a".to_string()]).unwrap();
    assert_eq!(value.get().unwrap().to_owned(), ["a"]);
    assert_eq!(value.to_string(), r#"["a"]"#);
    value.set(vec![]).unwrap();
    assert_eq!(value.update(|list| list.push("b".into())).unwrap(), ["b"]);
    assert!(!value.compare_exchange(&vec![], vec!["c".to_string()]).unwrap());
    assert!(value.compare_exchange(&vec!["b".to_string()], vec!["c".to_string()]).unwrap());
    let snapshot = manager.snapshot().unwrap();
    let guard = value.get().unwrap();
    value.set(vec!["x".repeat(100_000)]).unwrap();
    assert_eq!(guard.to_owned(), ["c"]);
    assert_eq!(value.at(&snapshot).unwrap().to_owned(), ["c"]);
    assert_eq!(value.get().unwrap()[0].len(), 100_000);
    let later = manager.value(1u8).unwrap();
    assert!(later.at(&snapshot).is_none());
    let number: Value<f32> = manager.value(1.5f32).unwrap();
    assert_eq!(*number.get().unwrap() * 2.0, 3.0);
}

fn counter_methods(manager: &Manager) {
    let counter = manager.counter(-5).unwrap();
    assert_eq!((counter.get().unwrap(), counter.add(7).unwrap(), counter.add(0).unwrap()), (-5, 2, 2));
    assert_eq!(counter.to_string(), "2");
    let snapshot = manager.snapshot().unwrap();
    assert_eq!(counter.add(i64::MAX - 2).unwrap(), i64::MAX);
    refused(counter.add(1), ErrorKind::OutOfRange, &["64 bits", "nothing was changed"]);
    assert_eq!((counter.get().unwrap(), counter.at(&snapshot)), (i64::MAX, 2));
    assert_eq!(manager.counter(0).unwrap().at(&snapshot), 0);
}

fn namespace_methods(manager: &Manager) {
    let space = manager.namespace().unwrap();
    assert!(space.is_empty().unwrap());
    space.set("host", "localhost".to_string()).unwrap();
    space.set::<String>("user", "ada").unwrap();
    space.set("port", 80u16).unwrap();
    space.set("large", vec![7u8; 200_000]).unwrap();
    assert_eq!(space.get::<String>("host").unwrap().unwrap(), "localhost");
    assert_eq!(space.get::<u16>("port").unwrap().unwrap(), 80);
    assert_eq!(space.get::<Vec<u8>>("large").unwrap().unwrap().len(), 200_000);
    assert!(space.get::<u16>("nothing").unwrap().is_none());
    refused(space.get::<u32>("port"), ErrorKind::WrongType, &["\"port\"", "u16", "u32"]);
    space.set("port", "http".to_string()).unwrap();
    assert_eq!(space.get::<String>("port").unwrap().unwrap(), "http");
    assert_eq!(space.names().unwrap(), ["host", "user", "port", "large"]);
    assert!(space.remove("host").unwrap() && !space.remove("host").unwrap());
    assert_eq!((space.len().unwrap(), space.names().unwrap().len()), (3, 3));
    let list: List<u8> = manager.list([1u8]).unwrap();
    refused(space.set("list", list), ErrorKind::Refused, &["handles", "dict or a list"]);
    refused(space.set("k".repeat(2 << 20).as_str(), 1u8), ErrorKind::TooLarge, &["key"]);
    assert!(format!("{space:?}").contains("Namespace object"));
}

fn batch_methods(manager: &Manager) {
    let (dict, counts) =
        (manager.dict::<String, String>([("old".to_string(), "x".to_string())]).unwrap(), manager.dict::<u8, u64>([(1, 1)]).unwrap());
    let (list, value, counter) = (manager.list([1u8, 2]).unwrap(), manager.value(1u8).unwrap(), manager.counter(1).unwrap());
    let texts: List<String> = manager.list(["t".to_string()]).unwrap();
    let before = manager.version();
    let result = manager.batch(|batch| {
        batch.insert(&dict, "a", "1")?;
        batch.insert(&dict, "large", "y".repeat(300_000))?;
        batch.remove(&dict, "old")?;
        batch.remove(&dict, "never")?;
        batch.add_to(&counts, 1, 4)?;
        batch.add_to(&counts, 2, 5)?;
        batch.push(&list, 3)?;
        batch.insert_at(&list, 0, 0)?;
        batch.set_at(&list, 1, 9)?;
        batch.set_at(&list, 99, 9)?;
        batch.remove_at(&list, 2)?;
        batch.remove_at(&list, 99)?;
        batch.push(&texts, "z".repeat(70_000))?;
        batch.set(&value, 7)?;
        batch.count(&counter, 10)?;
        assert!(dict.contains_key("old")?, "nothing happens before the commit");
        Ok("done")
    });
    assert_eq!(result.unwrap(), "done");
    assert_eq!(manager.version(), before + 1, "one commit");
    assert_eq!((dict.len().unwrap(), dict.get("large").unwrap().unwrap().len()), (2, 300_000));
    assert_eq!(counts.to_string(), "{1: 5, 2: 5}");
    assert_eq!(list.to_owned().unwrap(), [0, 9, 3]);
    assert_eq!(texts.get(1).unwrap().unwrap().len(), 70_000);
    assert_eq!((*value.get().unwrap(), counter.get().unwrap()), (7, 11));
    manager.batch(|batch| batch.clear(&dict).and_then(|()| batch.clear(&list))).unwrap();
    assert!(dict.is_empty().unwrap() && list.is_empty().unwrap());
    manager.batch(|_| Ok(())).unwrap();
}

fn batch_refusals(manager: &Manager) {
    let (dict, counter) = (manager.dict::<u8, Vec<u8>>(none::<u8, Vec<u8>>()).unwrap(), manager.counter(i64::MAX).unwrap());
    let list: List<u8> = manager.list([1u8]).unwrap();
    let fails_late = manager.batch(|batch| {
        batch.insert(&dict, 1, &[1u8; 100_000])?;
        batch.push(&list, 2)?;
        batch.count(&counter, 1)
    });
    refused(fails_late, ErrorKind::OutOfRange, &["64 bits"]);
    refused(manager.batch(|batch| batch.insert_at(&list, 9, 9)), ErrorKind::OutOfRange, &["position 9"]);
    let own: commonhold::Result<()> = manager.batch(|batch| {
        batch.insert(&dict, 1, &[1u8; 100_000])?;
        Err(Error::other("changed my mind"))
    });
    refused(own, ErrorKind::Other, &["changed my mind"]);
    refused(manager.batch(|batch| batch.clear(&counter)), ErrorKind::WrongType, &["Counter", "method"]);
    let elsewhere = Manager::in_process().unwrap();
    let foreign: List<u8> = elsewhere.list([1u8]).unwrap();
    refused(manager.batch(|batch| batch.push(&foreign, 1)), ErrorKind::Refused, &["one manager"]);
    let swallowed = manager.batch(|batch| {
        for n in 0..200u8 {
            // Of these the first thousand fit into a request, the errors of the rest go unheard.
            let _ = batch.insert(&dict, n, vec![0u8; 60_000]).is_err() || batch.insert(&dict, n, vec![1u8; 65_000]).is_err();
            for _ in 0..8 {
                let _ = batch.insert(&dict, n, vec![2u8; 60_000]);
            }
        }
        batch.insert(&dict, 0, vec![3u8; 100_000]).or(Ok(()))
    });
    refused(swallowed, ErrorKind::TooLarge, &["67108864"]);
    assert!(dict.is_empty().unwrap() && list.len().unwrap() == 1);
}

fn transaction_dicts(manager: &Manager) {
    let dict = manager.dict::<String, i64>([("a".to_string(), 1), ("b".to_string(), 2)]).unwrap();
    let result = manager.transaction(|tx| {
        assert!(tx.version() <= manager.version());
        assert_eq!(*tx.get(&dict, "a")?.unwrap(), 1);
        assert!(tx.get(&dict, "z")?.is_none() && tx.contains_key(&dict, "b")?);
        tx.insert(&dict, "c", 3)?;
        assert_eq!((*tx.get(&dict, "c")?.unwrap(), tx.len(&dict)?), (3, 3));
        assert!(tx.remove(&dict, "a")? && !tx.remove(&dict, "a")?);
        assert_eq!((tx.len(&dict)?, tx.add(&dict, "b", 5)?, tx.add(&dict, "d", 1)?), (2, 7, 1));
        let mut entries = tx.entries(&dict)?;
        entries.sort();
        assert_eq!(entries, [("b".into(), 7), ("c".into(), 3), ("d".into(), 1)]);
        tx.clear_dict(&dict)?;
        assert_eq!((tx.len(&dict)?, tx.get(&dict, "b")?.is_none()), (0, true));
        tx.insert(&dict, "e", 9)?;
        assert_eq!((tx.len(&dict)?, tx.entries(&dict)?.len()), (1, 1));
        Ok("result")
    });
    assert_eq!((result.unwrap(), dict.to_string()), ("result", r#"{"e": 9}"#.to_string()));
    let seen = manager.transaction(|tx| tx.entries(&dict)).unwrap();
    assert_eq!(seen, [("e".to_string(), 9)], "one that only reads");
}

fn transaction_lists(manager: &Manager) {
    let list: List<String> = manager.list(["a".to_string(), "b".to_string(), "c".to_string()]).unwrap();
    manager
        .transaction(|tx| {
            assert_eq!(tx.get(&list, 1)?.unwrap(), "b");
            assert!(tx.get(&list, 3)?.is_none());
            tx.push(&list, "d")?;
            assert_eq!(tx.get(&list, 3)?.unwrap(), "d");
            tx.set(&list, 0, "A")?;
            tx.insert_at(&list, 1, "new")?;
            assert_eq!(tx.remove_at(&list, 2)?.as_deref(), Some("b"));
            assert_eq!(tx.remove_at(&list, 9)?, None);
            assert_eq!(tx.elements(&list)?, ["A", "new", "c", "d"]);
            assert_eq!((tx.pop(&list)?.as_deref(), tx.len(&list)?), (Some("d"), 3));
            Ok(())
        })
        .unwrap();
    assert_eq!(list.to_owned().unwrap(), ["A", "new", "c"]);
    manager
        .transaction(|tx| {
            tx.clear_list(&list)?;
            assert_eq!((tx.pop(&list)?, tx.elements(&list)?.len()), (None, 0));
            tx.push(&list, "z")?;
            tx.insert_at(&list, 0, "y")
        })
        .unwrap();
    assert_eq!(list.to_owned().unwrap(), ["y", "z"]);
}

fn transaction_values(manager: &Manager) {
    let (value, counter) = (manager.value("a".to_string()).unwrap(), manager.counter(3).unwrap());
    manager
        .transaction(|tx| {
            assert_eq!(tx.value(&value)?, "a");
            tx.set_value(&value, "b")?;
            assert_eq!(tx.value(&value)?, "b");
            assert_eq!(tx.counter(&counter)?, 3);
            tx.count(&counter, 4)?;
            assert_eq!(tx.counter(&counter)?, 7);
            Ok(())
        })
        .unwrap();
    assert_eq!((value.get().unwrap().to_owned(), counter.get().unwrap()), ("b".to_string(), 7));
}

fn transaction_refusals(manager: &Manager) {
    let (dict, list) = (manager.dict::<String, u8>([("a".to_string(), 255)]).unwrap(), manager.list([1u8]).unwrap());
    refused(manager.transaction(|tx| tx.add(&dict, "a", 1)), ErrorKind::OutOfRange, &["range"]);
    refused(manager.transaction(|tx| tx.set(&list, 1, 1)), ErrorKind::OutOfRange, &["position 1", "list of 1"]);
    refused(manager.transaction(|tx| tx.insert_at(&list, 2, 1)), ErrorKind::OutOfRange, &["position 2"]);
    let left = manager.transaction(|tx| {
        tx.insert(&dict, "b", 1)?;
        tx.push(&list, 2)?;
        Err::<(), _>(Error::other("no"))
    });
    refused(left, ErrorKind::Other, &["no"]);
    assert_eq!((dict.len().unwrap(), list.len().unwrap()), (1, 1));
    let elsewhere = Manager::in_process().unwrap();
    let foreign: List<u8> = elsewhere.list([1u8]).unwrap();
    refused(manager.transaction(|tx| tx.len(&foreign)), ErrorKind::Refused, &["one manager"]);
    let counter = manager.counter(i64::MAX).unwrap();
    let beyond = |amounts: &[i64]| {
        manager.transaction(|tx| {
            amounts.iter().try_for_each(|amount| tx.count(&counter, *amount))?;
            tx.counter(&counter)
        })
    };
    refused(beyond(&[1]), ErrorKind::OutOfRange, &["64 bits"]);
    refused(beyond(&[i64::MIN, i64::MIN]), ErrorKind::OutOfRange, &["64 bits"]);
    assert_eq!(beyond(&[-1]).unwrap(), i64::MAX - 1);
}

fn snapshots_stay(manager: &Manager) {
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

fn snapshot_slices(manager: &Manager) {
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

fn session_names(manager: &Manager) {
    let (dict, list) = (manager.dict::<String, u64>([("a".to_string(), 1)]).unwrap(), manager.list([1u8]).unwrap());
    manager.publish("a dict", &dict).unwrap();
    assert!(manager.open::<Dict<String, u64>>("a dict").unwrap() == dict);
    refused(manager.publish("a dict", &list), ErrorKind::AlreadyExists, &["a dict", "unpublish"]);
    refused(manager.open::<Dict<String, u8>>("a dict"), ErrorKind::WrongType, &["Dict<String, u64>", "Dict<String, u8>"]);
    refused(manager.open::<List<u8>>("a dict"), ErrorKind::WrongType, &["Dict<String, u64>", "List<u8>"]);
    refused(manager.open::<List<u8>>("no such"), ErrorKind::NotFound, &["no such", "a dict"]);
    manager.publish_over("a dict", &list).unwrap();
    assert!(manager.open::<List<u8>>("a dict").unwrap() == list);
    assert!(manager.unpublish("a dict").unwrap() && !manager.unpublish("a dict").unwrap());
    refused(manager.open::<List<u8>>("a dict"), ErrorKind::NotFound, &["no named objects"]);
    refused(manager.publish("", &list), ErrorKind::OutOfRange, &["1 to 200"]);
    refused(manager.publish(&"n".repeat(201), &list), ErrorKind::OutOfRange, &["1 to 200"]);
    let names = ["n".repeat(200), "ünï cödé".into(), "two\nlines".into(), " ".into(), "tab\t".into(), "1 2".into()];
    for name in &names {
        manager.publish(name, &list).unwrap();
        assert!(manager.open::<List<u8>>(name).unwrap() == list, "{name:?}");
    }
    let mut expected = names.to_vec();
    expected.sort();
    let mut found = manager.names().unwrap();
    found.sort();
    assert_eq!(found, expected);
    let elsewhere = Manager::in_process().unwrap();
    refused(elsewhere.publish("mine", &list), ErrorKind::Refused, &["own manager"]);
    // A name alone keeps its object.
    let (id, kept) = (dict.id(), "kept");
    manager.publish(kept, &dict).unwrap();
    drop(dict);
    manager.audit().unwrap();
    assert_eq!(manager.open::<Dict<String, u64>>(kept).unwrap().id(), id);
}

fn session_open_or_create(manager: &Manager) {
    let made = manager.open_or_create("x", |session| session.dict::<String, u8>([("a".to_string(), 1)])).unwrap();
    let again = manager.open_or_create("x", |_| panic!("it is there")).unwrap();
    assert!(made == again);
    refused(manager.open_or_create("x", |session| session.list([1u8])), ErrorKind::WrongType, &["List<u8>"]);
    refused(manager.open_or_create("y", |_| -> commonhold::Result<List<u8>> { Err(Error::other("mine")) }), ErrorKind::Other, &["mine"]);
    refused(manager.open_or_create("", |session| session.list([1u8])), ErrorKind::OutOfRange, &["1 to 200"]);
    let made: Vec<u64> = std::thread::scope(|scope| {
        let open = || manager.open_or_create("race", |session| session.counter(0)).unwrap().id();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(made.iter().all(|id| *id == made[0]));
}

fn session_objects(manager: &Manager) {
    let before = manager.stats().unwrap().objects;
    let dict = manager.dict((0..20_000u32).map(|n| (n, format!("{n}")))).unwrap();
    let dict: Dict<u32, String> = dict;
    let list: List<String> = manager.list((0..20_000).map(|n| format!("{n}"))).unwrap();
    assert_eq!((dict.len().unwrap(), list.len().unwrap()), (20_000, 20_000));
    assert_eq!(list.get(19_999).unwrap().unwrap(), "19999");
    let clone = dict.clone();
    assert!(clone == dict && clone.id() == dict.id());
    assert_eq!(HashSet::from([clone, dict.clone()]).len(), 1);
    drop((dict, list));
    let settled = || manager.stats().unwrap().objects == before;
    while !settled() {
        std::thread::yield_now();
    }
}

fn session_figures(manager: &Manager) {
    let list: List<u64> = manager.list(0..1000u64).unwrap();
    let snapshot = manager.snapshot().unwrap();
    list.clear().unwrap();
    let stats = manager.stats().unwrap();
    assert!(stats.version >= 2 && stats.sessions == 1 && stats.objects == 1, "{stats:?}");
    assert!(
        stats.live_bytes > 0 && stats.backed_bytes >= stats.live_bytes && stats.budget_bytes == 512 << 20 && stats.blocks > 0,
        "{stats:?}"
    );
    assert_eq!(stats.oldest_pin, Some(snapshot.version()));
    assert!(stats.oldest_pin_holder.is_some_and(|who| who.contains(&format!("pid {}", std::process::id()))));
    assert!(stats.retired_bytes > 0 && stats.metadata_bytes > 0);
    drop(snapshot);
    assert_eq!(manager.stats().unwrap().oldest_pin, None);
    assert!(manager.is_alive() && !manager.wait_for_end(Duration::ZERO).unwrap());
    assert!(format!("{manager:?}").contains(&manager.address().to_string()));
    assert_eq!(Manager::connect(&manager.address().to_string()).unwrap().version(), manager.version());
}

fn tokens(manager: &Manager) {
    let dict = manager.dict::<String, u64>([("a".to_string(), 1)]).unwrap();
    let line = dict.token().unwrap().to_string();
    let token: Token = format!("  {line}\n").parse().unwrap();
    assert_eq!((token.address(), &token), (manager.address(), &dict.token().unwrap()));
    assert!(!line.contains(char::is_whitespace), "{line}");
    assert!(manager.attach::<Dict<String, u64>>(&token).unwrap() == dict && token.open::<Dict<String, u64>>().unwrap() == dict);
    refused(manager.attach::<List<u8>>(&token), ErrorKind::WrongType, &["List<u8>"]);
    for wrong in ["", "commonhold", "commonhold:1:2:3", "commonhold:x:1:2:@a", "nonsense with blanks", &"x".repeat(5000)] {
        refused(wrong.parse::<Token>(), ErrorKind::OutOfRange, &["not a token", "whole line"]);
    }
    let elsewhere = Manager::in_process().unwrap();
    refused(elsewhere.attach::<Dict<String, u64>>(&token), ErrorKind::NotFound, &["another manager"]);
    drop(dict);
    manager.audit().unwrap();
    refused(manager.attach::<Dict<String, u64>>(&token), ErrorKind::NotFound, &["gone"]);
}

fn handles_in_values(manager: &Manager) {
    #[derive(Shared, Clone, Debug, PartialEq)]
    struct Desk {
        name: String,
        jobs: List<String>,
        done: Option<Counter>,
    }
    let desk = |name: &str| Desk { name: name.into(), jobs: manager.list(["first".to_string()]).unwrap(), done: manager.counter(1).ok() };
    let desks = manager.dict::<u8, Desk>([(1, desk("a")), (2, desk("b"))]).unwrap();
    manager.audit().unwrap();
    let found = desks.get(1).unwrap().unwrap().to_owned();
    assert_eq!((found.jobs.get(0).unwrap().unwrap().to_owned(), found.done.as_ref().unwrap().get().unwrap()), ("first".to_string(), 1));
    let nested: Dict<String, Dict<u8, Desk>> = manager.dict([("all".to_string(), desks.clone())]).unwrap();
    assert!(nested.get("all").unwrap().unwrap().to_owned() == desks);
    // A circle: the dict holds itself, and goes when nobody else does.
    let circle: Dict<String, Dict<u8, u8>> = manager.dict(none::<String, Dict<u8, u8>>()).unwrap();
    drop(circle);
    let list: List<Dict<u8, Desk>> = manager.list([desks.clone(), desks.clone()]).unwrap();
    assert_eq!(list.count(&desks).unwrap(), 2);
    // Read while nobody here holds the dict: so the handle holds nothing either, before its first use.
    let id = desks.id();
    drop((desks, found));
    let read = list.get(0).unwrap().unwrap().to_owned();
    drop((nested, list));
    while manager.stats().unwrap().objects > 0 {
        std::thread::yield_now();
    }
    assert_eq!(read.id(), id);
    refused(read.len(), ErrorKind::NotFound, &["object", "lives while"]);
    let elsewhere = Manager::in_process().unwrap();
    let foreign: List<List<u8>> = elsewhere.list([] as [List<u8>; 0]).unwrap();
    let mine: List<u8> = manager.list([1u8]).unwrap();
    refused(foreign.push(mine), ErrorKind::Refused, &["another manager"]);
}

/// A handle that is given away lives until the commit that stores it, whatever the manager does before.
fn handles_given_away(manager: &Manager) {
    let outer: List<List<u8>> = manager.list([] as [List<u8>; 0]).unwrap();
    let board: Dict<u8, List<u8>> = manager.dict(none::<u8, List<u8>>()).unwrap();
    let value: Value<Option<List<u8>>> = manager.value(None).unwrap();
    let given = || {
        let list = manager.list([1u8]);
        // By then the manager has done with everything that was sent before.
        for _ in 0..3 {
            manager.stats().unwrap();
        }
        list.unwrap()
    };
    manager
        .batch(|batch| {
            batch.push(&outer, given())?;
            batch.insert(&board, 1, given())?;
            batch.set(&value, Some(given()))?;
            batch.push(&outer, given())?;
            batch.set_at(&outer, 1, given())?;
            manager.stats().and_then(|_| manager.stats()).map(|_| ())
        })
        .unwrap();
    manager
        .transaction(|tx| {
            tx.push(&outer, given())?;
            tx.insert(&board, 2, given())?;
            manager.stats().and_then(|_| manager.stats()).map(|_| ())
        })
        .unwrap();
    outer.extend((0..3).map(|_| given())).unwrap();
    board.extend((3..6).map(|n| (n, given()))).unwrap();
    let made: List<List<u8>> = manager.list((0..3).map(|_| given())).unwrap();
    let board_made: Dict<u8, List<u8>> = manager.dict((0..3).map(|n| (n, given()))).unwrap();
    for list in outer.iter().unwrap().chain(made.iter().unwrap()).map(|list| list.to_owned()) {
        assert_eq!(list.len().unwrap(), 1);
    }
    for list in board.values().unwrap().chain(board_made.values().unwrap()).map(|list| list.to_owned()) {
        assert_eq!(list.len().unwrap(), 1);
    }
    assert_eq!((outer.len().unwrap(), board.len().unwrap(), value.get().unwrap().to_owned().unwrap().len().unwrap()), (6, 5, 1));
    let abandoned: commonhold::Result<()> = manager.batch(|batch| {
        batch.push(&outer, given())?;
        Err(Error::other("no"))
    });
    abandoned.unwrap_err();
    // Nothing is held on to: what the containers hold is all there is.
    drop((outer, board, value, made, board_made));
    while manager.stats().unwrap().objects > 0 {
        std::thread::yield_now();
    }
}

fn versions_and_changes(manager: &Manager) {
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

fn waiting_without_end(manager: &Manager) {
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

#[derive(Shared, Key, Debug, PartialEq, Eq, Clone, Hash)]
enum Place {
    Nowhere,
    Point(i32, i32),
    Named { name: String, part: Option<u8> },
}

#[derive(Shared, Key, Debug, PartialEq, Eq, Clone, Hash)]
struct Compound {
    place: Place,
    path: Vec<String>,
    id: [u16; 3],
}

fn keys_of_all_kinds(manager: &Manager) {
    fn all<K: Key + Clone + PartialEq + Debug>(manager: &Manager, keys: &[K]) {
        let dict: Dict<K, u64> = manager.dict(none::<K, u64>()).unwrap();
        for (number, key) in (0..).zip(keys) {
            assert!(dict.insert(key, number).unwrap().is_none(), "{key:?} twice?");
        }
        for (number, key) in (0..).zip(keys) {
            assert_eq!(dict.get(key).unwrap().unwrap(), number, "{key:?}");
        }
        let order: Vec<K> = dict.iter_ordered().unwrap().map(|(key, _)| key.to_owned()).collect();
        assert_eq!(order, keys);
        for key in keys {
            assert!(dict.remove(key).unwrap().is_some());
        }
        assert!(dict.is_empty().unwrap());
    }
    all(manager, &[0u8, 1, 255]);
    all(manager, &[0u16, u16::MAX]);
    all(manager, &[0u32, u32::MAX]);
    all(manager, &[0u64, 1, u64::MAX]);
    all(manager, &[0u128, 1, u128::MAX]);
    all(manager, &[i8::MIN, -1, 0, i8::MAX]);
    all(manager, &[i16::MIN, 0]);
    all(manager, &[i32::MIN, -1, 0]);
    all(manager, &[i64::MIN, -1, 0]);
    all(manager, &[i128::MIN, -1, 0]);
    all(manager, &[false, true]);
    all(manager, &['a', '\0', '\u{10ffff}']);
    all(manager, &["".to_string(), "a".into(), "ä".into(), "eightchr".into(), "longer than inline".into(), "x".repeat(5000)]);
    all(manager, &[vec![], vec![0u8], vec![0, 0], vec![255; 300]]);
    all(manager, &[(1u8, "a".to_string()), (1, "b".into()), (2, "a".into())]);
    all(manager, &[[1u32, 2], [2, 1]]);
    all(manager, &[None, Some(0u64), Some(1)]);
    all(manager, &[Ok::<u8, String>(1), Err("x".into())]);
    all(manager, &[()]);
    all(manager, &[Duration::ZERO, Duration::from_nanos(1)]);
    all(manager, &[BTreeSet::from([1u8, 2]), BTreeSet::new()]);
    all(manager, &[BTreeMap::from([(1u8, "x".to_string())]), BTreeMap::new()]);
    all(manager, &[VecDeque::from([1u8]), VecDeque::from([2, 1])]);
    let places = [Place::Nowhere, Place::Point(1, 2), Place::Point(2, 1), Place::Named { name: "x".into(), part: None }];
    all(manager, &places);
    all(manager, &places.map(|place| Compound { place, path: vec!["a".into(), "b".into()], id: [1, 2, 3] }));
}

#[derive(Shared, Debug, PartialEq, Clone)]
struct Rich {
    number: f64,
    place: Option<Place>,
    map: HashMap<String, Vec<i64>>,
    tree: BTreeMap<u8, (i32, String)>,
    boxed: Box<[u8; 5]>,
    any: Any,
    nested: Vec<Option<Rich>>,
}

fn values_of_all_kinds(manager: &Manager) {
    fn all<T: Shared + Clone + PartialEq + Debug>(manager: &Manager, values: &[T]) {
        let dict: Dict<u64, T> = manager.dict((0..).zip(values.iter().cloned())).unwrap();
        let list: List<T> = manager.list(values.iter().cloned()).unwrap();
        for (number, expected) in (0..).zip(values) {
            let guard = dict.get(number).unwrap().unwrap();
            assert!(guard == *expected && guard.to_owned() == *expected, "{expected:?}");
            assert_eq!(format!("{guard:?}"), format!("{expected:?}"));
            assert!(list.get(number as usize).unwrap().unwrap() == *expected);
            let value: Value<T> = manager.value(expected).unwrap();
            assert!(value.get().unwrap() == *expected);
            let space = manager.namespace().unwrap();
            space.set::<T>("it", expected).unwrap();
            assert!(space.get::<T>("it").unwrap().unwrap() == *expected);
            // A guard is itself something that can be stored.
            dict.insert(1000 + number, &guard).unwrap();
            assert!(dict.get(1000 + number).unwrap().unwrap() == *expected);
        }
        assert_eq!(list.to_owned().unwrap(), values);
        assert_eq!(list.index_of(&values[0]).unwrap(), Some(0));
    }
    all(manager, &[0u8, 255]);
    all(manager, &[u16::MAX, 1]);
    all(manager, &[u32::MAX, 1]);
    all(manager, &[u64::MAX, 1]);
    all(manager, &[u128::MAX, 1]);
    all(manager, &[i8::MIN, 1]);
    all(manager, &[i16::MIN, 1]);
    all(manager, &[i32::MIN, 1]);
    all(manager, &[i64::MIN, 1]);
    all(manager, &[i128::MIN, 1]);
    all(manager, &[0.5f32, f32::INFINITY, -0.0]);
    all(manager, &[0.5f64, f64::MIN_POSITIVE]);
    all(manager, &[true, false]);
    all(manager, &['x', '\u{1f600}']);
    all(manager, &["".to_string(), "short".into(), "z".repeat(100_000)]);
    all(manager, &[vec![0u8; 0], vec![1], vec![9; 70_000]]);
    all(manager, &[(1u8, 2u64, "three".to_string(), [4.0f32; 4])]);
    all(manager, &[[[1u16; 3]; 2], [[2; 3]; 2]]);
    all(manager, &[Some(Some("x".to_string())), Some(None), None]);
    all(manager, &[Ok::<u64, String>(1), Err("no".into())]);
    all(manager, &[vec![vec!["a".to_string()], vec![]], vec![]]);
    all(manager, &[HashMap::from([("k".to_string(), vec![1u64])])]);
    all(manager, &[HashSet::from([1u32])]);
    all(manager, &[BTreeMap::from([(1u8, "x".to_string()), (2, "y".into())])]);
    all(manager, &[BTreeSet::from(["a".to_string()]), BTreeSet::new()]);
    all(manager, &[VecDeque::from([1u8, 2])]);
    all(manager, &[Duration::from_millis(1500)]);
    all(manager, &[Place::Nowhere, Place::Named { name: "n".repeat(100), part: Some(3) }]);
    let any = Any::from([("name", Any::from("ada")), ("tags", Any::from(vec![1, 2])), ("none", Any::Null)]);
    all(manager, &[any.clone(), Any::Float(0.5), Any::Bytes(vec![1, 2])]);
    let leaf = Rich {
        number: 1.5,
        place: Some(Place::Point(1, 2)),
        map: HashMap::from([("m".to_string(), vec![1, 2])]),
        tree: BTreeMap::from([(1, (2, "t".to_string()))]),
        boxed: Box::new([1; 5]),
        any,
        nested: vec![],
    };
    all(manager, &[Rich { nested: vec![None, Some(leaf.clone())], ..leaf.clone() }, leaf]);
}

fn sizes(manager: &Manager) {
    let dict = manager.dict::<u64, Vec<u8>>(none::<u64, Vec<u8>>()).unwrap();
    let list: List<Vec<u8>> = manager.list([] as [Vec<u8>; 0]).unwrap();
    let sizes = [0usize, 1, 7, 8, 127, 4000, 4095, 4096, 4097, 65_500, 65_535, 65_536, 65_537, 1 << 20, (20 << 20) + 3];
    for (position, size) in sizes.into_iter().enumerate() {
        let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        dict.insert(size as u64, &bytes).unwrap();
        list.push(&bytes).unwrap();
        assert!(dict.get(size as u64).unwrap().unwrap().as_slice() == bytes, "{size}");
        assert!(list.get(position).unwrap().unwrap().as_slice() == bytes, "{size}");
        assert_eq!(dict.insert(size as u64, &bytes).unwrap().unwrap().len(), size);
    }
    assert_eq!(dict.values().unwrap().map(|bytes| bytes.len()).sum::<usize>(), sizes.iter().sum::<usize>());
    for size in sizes {
        assert_eq!(dict.remove(size as u64).unwrap().unwrap().len(), size);
    }
}

fn limits(manager: &Manager) {
    let dict = manager.dict::<String, Vec<u8>>(none::<String, Vec<u8>>()).unwrap();
    // A text of 8 bytes or fewer is its own archive; longer ones have 8 more, and all are rounded up to 4.
    let longest = "k".repeat((1 << 20) - 8);
    assert!(dict.insert(longest.as_str(), vec![1]).unwrap().is_none());
    assert!(dict.insert(longest.as_str(), vec![2u8; 100_000]).unwrap().is_some());
    assert_eq!(dict.get(longest.as_str()).unwrap().unwrap().len(), 100_000);
    refused(dict.insert(format!("{longest}k"), vec![1]), ErrorKind::TooLarge, &["key"]);
    refused(dict.insert(format!("{longest}k"), vec![1u8; 100_000]), ErrorKind::TooLarge, &["key"]);
    // More than the manager may have, in values that each would fit.
    let full = (0..64u64).find_map(|n| dict.insert(format!("{n}"), vec![n as u8; 16 << 20]).err()).expect("it is full");
    refused(Err::<(), _>(full), ErrorKind::Full, &["budget", "capacity", "remove"]);
    let len = dict.len().unwrap();
    refused(dict.insert("one more", vec![0u8; 300 << 20]), ErrorKind::Full, &[]);
    assert_eq!(dict.len().unwrap(), len);
    dict.clear().unwrap();
    dict.insert("room again", vec![1u8; 16 << 20]).unwrap();
}

fn printing(manager: &Manager) {
    let dict = manager.dict::<String, Vec<u8>>([("a".to_string(), vec![1, 2])]).unwrap();
    assert_eq!((dict.to_string(), format!("{dict:#}").is_empty()), (r#"{"a": [1, 2]}"#.to_string(), false));
    assert!(format!("{dict:?}").starts_with("<Dict<String, Vec<u8>> object 1 at ") && format!("{dict:?}").ends_with("len 1>"), "{dict:?}");
    let (value, counter): (Value<u8>, Counter) = (manager.value(1).unwrap(), manager.counter(2).unwrap());
    assert!(format!("{value:?}").starts_with("<Value<u8> object") && format!("{counter:?}").starts_with("<Counter object"));
    let guard = dict.get("a").unwrap().unwrap();
    assert_eq!(format!("{guard:?}"), "[1, 2]");
    let text: List<String> = manager.list(["x\"y".to_string()]).unwrap();
    assert_eq!((text.to_string(), text.get(0).unwrap().unwrap().to_string()), (r#"["x\"y"]"#.to_string(), "x\"y".to_string()));
    assert_eq!(format!("{:.1} {:>4}", manager.list([1.25f64]).unwrap().get(0).unwrap().unwrap(), *value.get().unwrap()), "1.2    1");
}

fn everything_fails_once_the_manager_is_gone(manager: &Manager) {
    let dict = manager.dict::<String, u64>([("a".to_string(), 1)]).unwrap();
    let list: List<u64> = manager.list([1u64]).unwrap();
    let (value, counter, space): (Value<String>, Counter, Namespace) =
        (manager.value("v").unwrap(), manager.counter(1).unwrap(), manager.namespace().unwrap());
    let (guard, snapshot, token) = (dict.get("a").unwrap().unwrap(), manager.snapshot().unwrap(), dict.token().unwrap());
    manager.shutdown().unwrap();
    fn gone<T>(result: commonhold::Result<T>) {
        let error = result.err().expect("there is no manager any more");
        assert!(error.is_disconnected(), "{error:?}");
        assert!(error.to_string().contains("ended"), "{error}");
    }
    gone(dict.get("a"));
    gone(dict.contains_key("a"));
    gone(dict.len());
    gone(dict.insert("a", 1));
    gone(dict.get_or_insert("a", 1));
    gone(dict.remove("a"));
    gone(dict.add("a", 1));
    gone(dict.clear());
    gone(dict.compare_exchange("a", None, Some(1)));
    gone(dict.update("a", |old| old));
    gone(dict.extend([("a", 1)]));
    gone(dict.retain(|_, _| true));
    gone(dict.pop_last());
    gone(dict.iter());
    gone(dict.iter_ordered());
    gone(dict.to_owned());
    gone(dict.token());
    gone(dict.version());
    gone(dict.changed_since(0));
    gone(dict.wait_for_change(&mut 0, None));
    gone(list.get(0));
    gone(list.push(1));
    gone(list.set(0, 1));
    gone(list.pop());
    gone(list.extend([1]));
    gone(list.splice(.., [1]));
    gone(list.truncate(0));
    gone(list.swap(0, 0));
    gone(list.reverse());
    gone(list.sort());
    gone(list.index_of(&1));
    gone(list.remove_value(&1));
    gone(list.slice(..));
    gone(list.iter());
    gone(value.get());
    gone(value.set("x"));
    gone(value.update(|_| {}));
    gone(value.compare_exchange(&"v".to_string(), "x"));
    gone(counter.get());
    gone(counter.add(1));
    gone(space.get::<u8>("a"));
    gone(space.set("a", 1u8));
    gone(space.remove("a"));
    gone(space.names());
    gone(manager.snapshot());
    gone(manager.batch(|batch| batch.push(&list, 1)));
    gone(manager.transaction(|tx| tx.push(&list, 1)));
    gone(manager.publish("x", &list));
    gone(manager.unpublish("x"));
    gone(manager.names());
    gone(manager.open::<List<u64>>("x"));
    gone(manager.open_or_create("x", |session| session.counter(1)));
    gone(manager.stats());
    gone(manager.audit());
    gone(manager.counter(1));
    gone(manager.attach::<Dict<String, u64>>(&token));
    assert!(!manager.is_alive() && manager.wait_for_end(None).unwrap());
    manager.shutdown().unwrap();
    assert_eq!((*guard, dict.at(&snapshot).len(), list.at(&snapshot).to_vec()), (1, 1, vec![1]));
    assert!(dict.to_string().contains("ended") && format!("{dict:?}").contains("Dict"));
}

#[test]
fn a_quarter_of_a_gibibyte_in_one_value() {
    let manager = Manager::builder().capacity(1 << 30).start().unwrap();
    let value: Value<Vec<u8>> = manager.value(vec![7u8; 256 << 20]).unwrap();
    let guard = value.get().unwrap();
    assert_eq!((guard.len(), guard[0], guard[(256 << 20) - 1]), (256 << 20, 7, 7));
    drop(guard);
    value.set(vec![]).unwrap();
    manager.audit().unwrap();
}

#[test]
fn settings_that_cannot_be() {
    refused(Manager::builder().capacity(1 << 20).start(), ErrorKind::OutOfRange, &["capacity", "8388608"]);
    refused(Manager::builder().sessions_max(0).in_process().start(), ErrorKind::OutOfRange, &["at least one"]);
    refused(Manager::builder().authkey("short").start(), ErrorKind::OutOfRange, &["8"]);
    refused(Manager::connect("@no-such-manager-is-there"), ErrorKind::NotFound, &["no-such-manager-is-there"]);
    refused(Manager::connect("a/b"), ErrorKind::OutOfRange, &["name"]);
    refused(Manager::connect(""), ErrorKind::OutOfRange, &["name"]);
    refused(Manager::builder().executable("/no/such/program").start(), ErrorKind::System, &["/no/such/program"]);
    refused(Manager::builder().executable("/bin/true").start(), ErrorKind::System, &["init"]);
}
