//! A process that uses an array writes over it, around this library: errors for those who use it, nothing for anybody else.

use crate::vandal::Vandal;
use commonhold::{ErrorKind, Manager, Plain, Shared};
use commonhold_ipc::array::ELEMENTS;
use commonhold_ipc::segment::HEADER_BYTES;
use proptest::prelude::*;
use std::time::Duration;

/// Where the elements are, from the kind's own words on.
const FIRST: usize = ELEMENTS - HEADER_BYTES;

#[derive(Shared, Plain, Clone, Copy, Debug, PartialEq)]
struct Entry {
    letter: char,
    seen: bool,
    at: u64,
}

#[test]
fn bits_of_no_value_are_an_error_until_they_are_set_again() {
    let manager = Manager::in_process().unwrap();
    let entry = Entry { letter: 'x', seen: true, at: 5 };
    let (entries, other) = (manager.array([entry; 3]).unwrap(), manager.array([true; 8]).unwrap());
    Vandal::attach(&manager, &entries).write(FIRST + 16, 0xd800);
    let error = entries.get(1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("element 1") && error.to_string().contains("set it again"), "{error}");
    assert_eq!(entries.to_vec().unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!((entries.get(0).unwrap(), entries.get(2).unwrap()), (entry, entry));
    entries.set(1, entry).unwrap();
    assert_eq!(entries.to_vec().unwrap(), [entry; 3]);
    assert_eq!(other.to_vec().unwrap(), [true; 8]);
    Vandal::attach(&manager, &other).write(FIRST, 0x02_0101);
    assert_eq!(other.fetch_or(2, true).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!((other.get(0).unwrap(), other.get(1).unwrap()), (true, true));
}

#[test]
fn whoever_writes_over_a_segment_hurts_its_users_only() {
    let manager = Manager::in_process().unwrap();
    let bystander = manager.array([7u64; 4]).unwrap();
    let config = ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() };
    let words = prop::collection::vec((0..FIRST / 8 + 12, prop_oneof![Just(0), Just(u64::MAX), any::<u64>()]), 1..20);
    proptest!(config, |(words in words)| {
        let (array, block) = (manager.array([true; 96]).unwrap(), manager.shared_bytes(96).unwrap());
        let counter = manager.striped_counter(1).unwrap();
        let vandals = [Vandal::attach(&manager, &array), Vandal::attach(&manager, &block), Vandal::attach(&manager, &counter)];
        for (at, word) in &words {
            vandals[..2].iter().for_each(|vandal| vandal.write(8 * at, *word));
            if *at < 16 {
                vandals[2].write(64 + 8 * at, *word);
            }
        }
        let errors = [
            array.get(3).map(drop),
            array.to_vec().map(drop),
            array.swap(5, true).map(drop),
            array.fill(true),
            array.lock_timeout(Duration::from_millis(1)).map(drop),
            block.lock_timeout(Duration::from_millis(1)).map(drop),
            block.to_vec().map(drop),
            counter.add(1),
            counter.get().map(drop),
        ];
        for error in errors.into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        }
        // Their sessions end, and the manager recovers what makes no sense.
        drop(vandals);
        prop_assert_eq!(array.len().unwrap(), 96);
        prop_assert_eq!(array.to_vec().unwrap(), [true; 96]);
        prop_assert_eq!(bystander.to_vec().unwrap(), [7; 4]);
        manager.audit().unwrap();
    });
}
