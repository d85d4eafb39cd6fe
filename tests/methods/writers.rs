//! What writers promise and refuse.

use super::*;
use commonhold::Writer;

pub fn writer_methods(manager: &Manager) {
    let (dict, counts) =
        (manager.dict::<String, String>([("old".to_string(), "x".to_string())]).unwrap(), manager.dict::<u8, u64>([(1, 1)]).unwrap());
    let (list, value, counter) = (manager.list([1u8, 2]).unwrap(), manager.value(1u8).unwrap(), manager.counter(1).unwrap());
    let texts: List<String> = manager.list(["t".to_string()]).unwrap();
    let mut writer = manager.writer().unwrap();
    let mut numbers = vec![
        writer.insert(&dict, "a", "1").unwrap(),
        writer.insert(&dict, "large", "y".repeat(300_000)).unwrap(),
        writer.remove(&dict, "old").unwrap(),
        writer.remove(&dict, "never").unwrap(),
        writer.add(&counts, 1, 4).unwrap(),
        writer.add(&counts, 2, 5).unwrap(),
        writer.push(&list, 3).unwrap(),
        writer.extend(&list, [4u8, 5, 6]).unwrap(),
        writer.insert_at(&list, 0, 0).unwrap(),
        writer.set_at(&list, 1, 9).unwrap(),
        writer.remove_at(&list, 2).unwrap(),
        writer.remove_at(&list, 99).unwrap(),
        writer.push(&texts, "z".repeat(70_000)).unwrap(),
        writer.extend(&texts, ["k".repeat(70_000), "l".to_string()]).unwrap(),
        writer.set(&value, 7).unwrap(),
    ];
    assert_eq!(writer.extend(&list, [0u8; 0]).unwrap(), 15, "nothing is no write");
    numbers.push(writer.count(&counter, 10).unwrap());
    assert_eq!(numbers, (0..16).collect::<Vec<u64>>());
    writer.flush().unwrap();
    assert_eq!(writer.acknowledged(), 16);
    assert_eq!((dict.len().unwrap(), dict.get("large").unwrap().unwrap().len()), (2, 300_000));
    assert_eq!(counts.to_string(), "{1: 5, 2: 5}");
    assert_eq!(list.to_owned().unwrap(), [0, 9, 3, 4, 5, 6]);
    let lengths: Vec<usize> = texts.iter().unwrap().map(|text| text.len()).collect();
    assert_eq!(lengths, [1, 70_000, 70_000, 1]);
    assert_eq!((*value.get().unwrap(), counter.get().unwrap()), (7, 11));
    writer.clear(&dict).unwrap();
    writer.clear(&list).unwrap();
    // Dropping it is flushing it.
    drop(writer);
    assert!(dict.is_empty().unwrap() && list.is_empty().unwrap());
    manager.writer().unwrap().flush().unwrap();
}

pub fn writer_keeps_the_order(manager: &Manager) {
    let list = manager.list::<u64>([]).unwrap();
    let last = manager.dict::<u64, Vec<u8>>(none::<u64, Vec<u8>>()).unwrap();
    let mut writer = manager.writer().unwrap();
    for n in 0..3_000u64 {
        // From what lies in its leaf to what is sent ahead.
        let bytes = [8, 100, 3_000, 70_000][(n % 97 % 4) as usize * usize::from(n % 10 == 0)];
        writer.insert(&last, n % 7, vec![n as u8; bytes]).unwrap();
        assert_eq!(writer.push(&list, n).unwrap(), 2 * n + 1);
        let acknowledged = writer.acknowledged();
        assert!(acknowledged <= 2 * n + 2 && list.len().unwrap() as u64 >= acknowledged / 2, "what is acknowledged is there");
        if n % 1_000 == 999 {
            writer.flush().unwrap();
            assert_eq!(list.len().unwrap() as u64, n + 1);
        }
    }
    drop(writer);
    assert!(list.iter().unwrap().map(|n| *n).eq(0..3_000));
    for (key, n) in (2_993..3_000u64).map(|n| (n % 7, n)) {
        assert_eq!(last.get(key).unwrap().unwrap()[0], n as u8);
    }
}

pub fn writer_refusals(manager: &Manager) {
    let (dict, counter) = (manager.dict::<u8, Vec<u8>>(none::<u8, Vec<u8>>()).unwrap(), manager.counter(i64::MAX).unwrap());
    let list: List<u8> = manager.list([1u8]).unwrap();
    let mut writer: Writer = manager.writer().unwrap();
    // One that fails does not take the others with it.
    assert_eq!(writer.push(&list, 2).unwrap(), 0);
    assert_eq!(writer.count(&counter, 1).unwrap(), 1);
    assert_eq!(writer.push(&list, 3).unwrap(), 2);
    assert_eq!(writer.insert_at(&list, 9, 9).unwrap(), 3);
    assert_eq!(writer.push(&list, 4).unwrap(), 4);
    refused(writer.flush(), ErrorKind::OutOfRange, &["write 1 of a writer", "64 bits"]);
    assert_eq!(list.to_owned().unwrap(), [1, 2, 3, 4]);
    writer.flush().unwrap();
    // All of them, many more than are answered at once; and those between them.
    for _ in 0..1_000 {
        writer.count(&counter, 1).unwrap();
        writer.count(&counter, -1).unwrap();
        writer.count(&counter, 1).unwrap();
        writer.push(&list, 5).unwrap();
    }
    let failures = writer.failures().unwrap();
    let expected: Vec<u64> = (0..1_000).map(|round| 5 + 4 * round).collect();
    assert_eq!(failures.iter().map(|(number, _)| *number).collect::<Vec<_>>(), expected);
    assert!(failures.iter().all(|(_, error)| error.kind() == ErrorKind::OutOfRange && std::error::Error::source(error).is_some()));
    assert_eq!((list.len().unwrap(), counter.get().unwrap()), (1_004, i64::MAX));
    // What cannot be sent takes no number, and is told at once.
    let elsewhere = Manager::in_process().unwrap();
    let foreign: List<u8> = elsewhere.list([1u8]).unwrap();
    refused(writer.push(&foreign, 1), ErrorKind::Refused, &["one manager"]);
    let texts = manager.list::<Vec<u8>>([]).unwrap();
    refused(writer.extend(&texts, (0..1_100).map(|_| vec![0u8; 62_000])), ErrorKind::TooLarge, &["67108864"]);
    assert_eq!(writer.set_at(&list, 5_000, 1).unwrap(), 4_005);
    refused(writer.flush(), ErrorKind::OutOfRange, &["write 4005 ", "set position 5000"]);
    assert_eq!(writer.insert(&dict, 1, vec![1; 100_000]).unwrap(), 4_006);
    writer.flush().unwrap();
    assert_eq!((list.len().unwrap(), dict.len().unwrap(), texts.len().unwrap()), (1_004, 1, 0));
    assert!(format!("{writer:?}").contains("4007"));
}

pub fn writer_and_the_rest(manager: &Manager) {
    let counter = manager.counter(0).unwrap();
    let dict = manager.dict::<u64, List<u64>>(none::<u64, List<u64>>()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            // Made here, used there.
            let mut writer = manager.writer().unwrap();
            let (counter, dict) = (&counter, &dict);
            scope.spawn(move || {
                for n in 0..500 {
                    writer.count(counter, 1).unwrap();
                    // Its own calls do not wait for it, nor it for them.
                    counter.add(1).unwrap();
                    if n % 100 == 0 {
                        // The handle is gone before the write goes.
                        let list = counter_list(manager, n);
                        writer.insert(dict, n, list).unwrap();
                    }
                }
                writer.flush().unwrap();
            });
        }
        // Others hold the writer's ticket meanwhile.
        for n in 0..20 {
            manager.transaction(|tx| tx.count(&counter, i64::from(n % 2 == 0) * 2 - 1)).unwrap();
        }
    });
    assert_eq!(counter.get().unwrap(), 4_000);
    assert_eq!(dict.get(300).unwrap().unwrap().to_owned().to_owned().unwrap(), [300]);
}

fn counter_list(manager: &Manager, n: u64) -> List<u64> {
    manager.list([n]).unwrap()
}

pub fn more_writers_than_lanes(manager: &Manager) {
    let list = manager.list::<u64>([]).unwrap();
    let mut writers: Vec<Writer> = (0..600).map(|_| manager.writer().unwrap()).collect();
    for round in 0..3 {
        for (n, writer) in (0..).zip(&mut writers) {
            assert_eq!(writer.push(&list, n).unwrap(), round);
        }
    }
    writers.iter_mut().for_each(|writer| writer.flush().unwrap());
    let mut elements = list.to_owned().unwrap();
    elements.sort_unstable();
    assert!(elements.into_iter().eq((0..600).flat_map(|n| [n; 3])));
    drop(writers);
    manager.writer().unwrap().push(&list, 1).unwrap();
    assert_eq!(list.len().unwrap(), 1_801);
}
