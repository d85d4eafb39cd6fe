//! Single values, and which keys and values may be shared.

use super::*;

pub fn value_methods(manager: &Manager) {
    let value: Value<Vec<String>> = manager.value(vec!["a".to_string()]).unwrap();
    assert_eq!(value.get().unwrap().to_owned(), ["a"]);
    assert_eq!(value.to_string(), r#"["a"]"#);
    value.set(vec![]).unwrap();
    assert_eq!(value.update(|list| list.push("b".into())).unwrap(), ["b"]);
    assert!(!value.compare_exchange(vec![], vec!["c".to_string()]).unwrap());
    assert!(value.compare_exchange(vec!["b".to_string()], vec!["c".to_string()]).unwrap());
    let title: Value<String> = manager.value("draft").unwrap();
    assert!(!title.compare_exchange("final", "newer").unwrap() && title.compare_exchange("draft", "final").unwrap());
    assert!(title.compare_exchange(title.get().unwrap(), "newer".to_string()).unwrap() && title.get().unwrap() == "newer");
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

pub fn counter_methods(manager: &Manager) {
    let counter = manager.counter(-5).unwrap();
    assert_eq!((counter.get().unwrap(), counter.add(7).unwrap(), counter.add(0).unwrap()), (-5, 2, 2));
    assert_eq!(counter.to_string(), "2");
    let snapshot = manager.snapshot().unwrap();
    assert_eq!(counter.add(i64::MAX - 2).unwrap(), i64::MAX);
    refused(counter.add(1), ErrorKind::OutOfRange, &["64 bits", "nothing was changed"]);
    assert_eq!((counter.get().unwrap(), counter.at(&snapshot)), (i64::MAX, 2));
    assert_eq!(manager.counter(0).unwrap().at(&snapshot), 0);
}

pub fn namespace_methods(manager: &Manager) {
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

pub fn keys_of_all_kinds(manager: &Manager) {
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

pub fn values_of_all_kinds(manager: &Manager) {
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

pub fn sizes(manager: &Manager) {
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

pub fn limits(manager: &Manager) {
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
    refused(Err::<(), _>(full), ErrorKind::Full, &["room", "capacity", "remove"]);
    let len = dict.len().unwrap();
    refused(dict.insert("one more", vec![0u8; 300 << 20]), ErrorKind::Full, &[]);
    assert_eq!(dict.len().unwrap(), len);
    dict.clear().unwrap();
    dict.insert("room again", vec![1u8; 16 << 20]).unwrap();
}

pub fn printing(manager: &Manager) {
    let dict = manager.dict::<String, Vec<u8>>([("a".to_string(), vec![1, 2])]).unwrap();
    assert_eq!((dict.to_string(), format!("{dict:#}").is_empty()), (r#"{"a": [1, 2]}"#.to_string(), false));
    assert!(format!("{dict:?}").starts_with("<Dict<String, Vec<u8>> object 1 at ") && format!("{dict:?}").ends_with("len 1>"), "{dict:?}");
    let (value, counter): (Value<u8>, Counter) = (manager.value(1).unwrap(), manager.counter(2).unwrap());
    assert!(format!("{value:?}").starts_with("<Value<u8> object") && format!("{counter:?}").starts_with("<Counter object"));
    let guard = dict.get("a").unwrap().unwrap();
    assert_eq!(format!("{guard:?}"), "[1, 2]");
    let text: List<String> = manager.list(["x\"y".to_string()]).unwrap();
    let snapshot = manager.snapshot().unwrap();
    text.push("z").unwrap();
    assert_eq!((dict.at(&snapshot).to_string(), text.at(&snapshot).to_string()), (dict.to_string(), r#"["x\"y"]"#.to_string()));
    assert_eq!(text.pop().unwrap().unwrap(), "z");
    assert_eq!((text.to_string(), text.get(0).unwrap().unwrap().to_string()), (r#"["x\"y"]"#.to_string(), "x\"y".to_string()));
    assert_eq!(format!("{:.1} {:>4}", manager.list([1.25f64]).unwrap().get(0).unwrap().unwrap(), *value.get().unwrap()), "1.2    1");
}

/// A GiB, or what a small machine has room for twice.
#[test]
fn a_gibibyte_in_one_value() {
    let bytes = (commonhold_ipc::sys::memory_budget_default() / 4).min(1 << 30) as usize;
    let manager = Manager::builder().capacity(4 << 30).start().unwrap();
    // Numbers of 8 bytes: there are fewer of them, which an unoptimised build looks at one by one.
    let len = bytes / 8;
    let value: Value<Vec<u64>> = manager.value(vec![7u64; len]).unwrap();
    let guard = value.get().unwrap();
    assert_eq!((guard.len(), guard[0], guard[len - 1]), (len, 7.into(), 7.into()));
    drop(guard);
    value.set(vec![]).unwrap();
    manager.audit().unwrap();
}
