//! What lists promise and refuse.

use super::*;

pub fn list_reads(manager: &Manager) {
    let list = manager.list([5i32, 6, 5]).unwrap();
    let list: List<i32> = list;
    assert_eq!((list.len().unwrap(), list.is_empty().unwrap()), (3, false));
    assert_eq!(*list.get(1).unwrap().unwrap(), 6);
    assert!(list.get(3).unwrap().is_none() && list.get(usize::MAX).unwrap().is_none());
    assert_eq!((list.index_of(5).unwrap(), list.index_of(7).unwrap()), (Some(0), None));
    assert_eq!((list.count(5).unwrap(), list.count(7).unwrap()), (2, 0));
    assert!(list.contains(6).unwrap() && !list.contains(7).unwrap());
    assert_eq!(list.to_owned().unwrap(), [5, 6, 5]);
    assert_eq!(list.iter().unwrap().rev().map(|n| *n).collect::<Vec<_>>(), [5, 6, 5]);
    let mut iter = list.iter().unwrap();
    assert_eq!(iter.len(), 3);
    assert_eq!((*iter.nth(1).unwrap(), *iter.next_back().unwrap()), (6, 5));
    assert!(iter.next().is_none() && iter.next_back().is_none());
    let texts: List<String> = manager.list(["a".to_string(), "b".to_string()]).unwrap();
    assert_eq!(texts.iter().unwrap().map(|text| text.len()).sum::<usize>(), 2);
    assert_eq!(texts.get(1).unwrap().unwrap(), "b");
    sought_in_any_form(manager, &texts);
    let empty = manager.list::<u8>([0u8; 0]).unwrap();
    assert!(empty.is_empty().unwrap() && empty.to_owned().unwrap().is_empty());
}

/// What is looked for may be owned, borrowed, another form of it, or a guard.
fn sought_in_any_form(manager: &Manager, texts: &List<String>) {
    let (b, long) = ("b".to_string(), "long enough to lie out of line");
    texts.push(long).unwrap();
    assert!(texts.contains("a").unwrap() && texts.contains(&b).unwrap() && texts.contains(b).unwrap() && !texts.contains("c").unwrap());
    assert_eq!((texts.index_of(long).unwrap(), texts.count(long).unwrap()), (Some(2), 1));
    let guard = texts.get(2).unwrap().unwrap();
    assert_eq!((texts.index_of(&guard).unwrap(), texts.index_of(guard).unwrap()), (Some(2), Some(2)));
    let snapshot = manager.snapshot().unwrap();
    let view = texts.at(&snapshot).get(0).unwrap();
    assert!(texts.remove_value(view).unwrap() && !texts.remove_value(view).unwrap() && texts.remove_value(long).unwrap());
    assert_eq!(texts.to_owned().unwrap(), ["b"]);
    texts.insert(0, "a").unwrap();
    let runs: List<Vec<u16>> = manager.list([vec![1, 2], vec![]]).unwrap();
    assert_eq!((runs.index_of(&[][..]).unwrap(), runs.index_of(&[1, 2]).unwrap(), runs.count(vec![1]).unwrap()), (Some(1), Some(0), 0));
    let sets: List<HashSet<u8>> = manager.list([HashSet::from_iter(0..100)]).unwrap();
    let guard = sets.get(0).unwrap().unwrap();
    assert!(sets.contains(HashSet::from_iter((0..100).rev())).unwrap() && sets.contains(&guard).unwrap());
    let handles = manager.list([texts.clone()]).unwrap();
    let handle = handles.get(0).unwrap().unwrap();
    assert!(
        handles.contains(texts).unwrap() && handles.contains(&handle).unwrap() && !handles.contains(manager.list([]).unwrap()).unwrap()
    );
}

pub fn list_writes(manager: &Manager) {
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
        assert_eq!(list.set(1, of(10)).unwrap(), of(1));
        refused(list.set(5, of(10)), ErrorKind::OutOfRange, &["set position 5", "list of 5"]);
        assert_eq!(list.remove(1).unwrap().unwrap(), of(10));
        assert_eq!(list.pop().unwrap().unwrap(), of(4));
        assert!(list.remove(3).unwrap().is_none());
        list.swap(0, 2).unwrap();
        list.swap(1, 1).unwrap();
        list.reverse().unwrap();
        list.reverse().unwrap();
        assert_eq!(list.to_owned().unwrap(), [of(3), of(2), of(0)]);
        assert!(list.remove_value(of(2)).unwrap() && !list.remove_value(of(2)).unwrap());
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

pub fn list_orders(manager: &Manager) {
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

pub fn list_slices(manager: &Manager) {
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

pub fn list_refusals(manager: &Manager) {
    let list: List<u64> = manager.list([1u64, 2]).unwrap();
    refused(list.insert(3, 0), ErrorKind::OutOfRange, &["position 3", "list of 2"]);
    refused(list.swap(0, 2), ErrorKind::OutOfRange, &["position 2", "list of 2"]);
    refused(list.splice(3.., [1]), ErrorKind::OutOfRange, &["position 3", "list of 2"]);
    assert_eq!(list.to_owned().unwrap(), [1, 2]);
    let wide: List<String> = manager.list(["x".to_string()]).unwrap();
    refused(wide.extend((0..1200).map(|_| "y".repeat(60_000))), ErrorKind::TooLarge, &["67108864", "parts"]);
    assert_eq!(wide.len().unwrap(), 1);
}
