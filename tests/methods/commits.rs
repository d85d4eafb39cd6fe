//! What batches and transactions promise and refuse.

use super::*;

pub fn batch_methods(manager: &Manager) {
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
        batch.add(&counts, 1, 4)?;
        batch.add(&counts, 2, 5)?;
        batch.push(&list, 3)?;
        batch.insert_at(&list, 0, 0)?;
        batch.set_at(&list, 1, 9)?;
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

pub fn batch_refusals(manager: &Manager) {
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
    refused(manager.batch(|batch| batch.set_at(&list, 9, 9)), ErrorKind::OutOfRange, &["set position 9"]);
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

pub fn transaction_dicts(manager: &Manager) {
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
        tx.clear(&dict)?;
        assert_eq!((tx.len(&dict)?, tx.get(&dict, "b")?.is_none()), (0, true));
        tx.insert(&dict, "e", 9)?;
        assert_eq!((tx.len(&dict)?, tx.entries(&dict)?.len()), (1, 1));
        Ok("result")
    });
    assert_eq!((result.unwrap(), dict.to_string()), ("result", r#"{"e": 9}"#.to_string()));
    let seen = manager.transaction(|tx| tx.entries(&dict)).unwrap();
    assert_eq!(seen, [("e".to_string(), 9)], "one that only reads");
}

pub fn transaction_lists(manager: &Manager) {
    let list: List<String> = manager.list(["a".to_string(), "b".to_string(), "c".to_string()]).unwrap();
    manager
        .transaction(|tx| {
            assert_eq!(tx.get(&list, 1)?.unwrap(), "b");
            assert!(tx.get(&list, 3)?.is_none());
            tx.push(&list, "d")?;
            assert_eq!(tx.get(&list, 3)?.unwrap(), "d");
            tx.set_at(&list, 0, "A")?;
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
            tx.clear(&list)?;
            assert_eq!((tx.pop(&list)?, tx.elements(&list)?.len()), (None, 0));
            tx.push(&list, "z")?;
            tx.insert_at(&list, 0, "y")
        })
        .unwrap();
    assert_eq!(list.to_owned().unwrap(), ["y", "z"]);
}

pub fn transaction_values(manager: &Manager) {
    let (value, counter) = (manager.value("a".to_string()).unwrap(), manager.counter(3).unwrap());
    manager
        .transaction(|tx| {
            assert_eq!(tx.value(&value)?, "a");
            tx.set(&value, "b")?;
            assert_eq!(tx.value(&value)?, "b");
            assert_eq!(tx.counter(&counter)?, 3);
            tx.count(&counter, 4)?;
            assert_eq!(tx.counter(&counter)?, 7);
            Ok(())
        })
        .unwrap();
    assert_eq!((value.get().unwrap().to_owned(), counter.get().unwrap()), ("b".to_string(), 7));
}

pub fn transaction_refusals(manager: &Manager) {
    let (dict, list) = (manager.dict::<String, u8>([("a".to_string(), 255)]).unwrap(), manager.list([1u8]).unwrap());
    refused(manager.transaction(|tx| tx.add(&dict, "a", 1)), ErrorKind::OutOfRange, &["range"]);
    refused(manager.transaction(|tx| tx.set_at(&list, 1, 1)), ErrorKind::OutOfRange, &["position 1", "list of 1"]);
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
