//! What may be an element, and what becomes of it.

use commonhold::{Array, ErrorKind, Manager, Plain, Shared};
use std::fmt::Debug;

#[derive(Shared, Plain, Clone, Copy, Debug, PartialEq)]
struct Small {
    code: u8,
    amount: u32,
}

#[derive(Shared, Plain, Clone, Copy, Debug, PartialEq)]
struct Large<T> {
    name: [char; 3],
    ok: bool,
    parts: (i16, T),
    r#type: u128,
}

#[derive(Shared, Plain, Clone, Copy, Debug, PartialEq)]
struct Pair(f64, Small);

#[derive(Shared, Plain, Clone, Copy, Debug, PartialEq)]
struct Fixed<const N: usize> {
    values: [u16; N],
}

/// Claims one byte, and writes all that it is given: no type that is derived does.
#[derive(Shared, Clone, Copy, Debug, PartialEq)]
struct Sprawling(u8);

impl Plain for Sprawling {
    const BYTES: usize = 1;
    const ALIGN: usize = 1;

    fn put(self, bytes: &mut [u8]) {
        bytes.fill(self.0);
    }

    fn take(bytes: &[u8]) -> Option<Self> {
        bytes.first().copied().map(Sprawling)
    }
}

fn keeps<T: Plain + PartialEq + Debug>(manager: &Manager, zero: T, values: [T; 3]) {
    let array = manager.array(values).unwrap();
    assert_eq!(array.to_vec().unwrap(), values);
    array.set(1, values[2]).unwrap();
    assert_eq!([array.get(0).unwrap(), array.get(1).unwrap()], [values[0], values[2]]);
    array.fill(values[1]).unwrap();
    assert_eq!(array.iter().unwrap().map(Result::unwrap).collect::<Vec<_>>(), [values[1]; 3]);
    let zeros = manager.array::<T>(5).unwrap();
    assert_eq!((zeros.to_vec().unwrap(), zeros.len().unwrap()), (vec![zero; 5], 5));
    zeros.write_from(1, &values).unwrap();
    let mut out = [zero; 2];
    zeros.read_into(2, &mut out).unwrap();
    assert_eq!(out, values[1..]);
    assert_eq!([zeros.get(0).unwrap(), zeros.get(4).unwrap()], [zero; 2], "neighbours are as they were");
}

#[test]
fn every_plain_type_is_kept() {
    let manager = Manager::in_process().unwrap();
    macro_rules! numbers {
        ($($number:ident)*) => {$(keeps::<$number>(&manager, 0 as $number, [$number::MIN, 77 as $number, $number::MAX]);)*};
    }
    numbers!(u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64);
    keeps(&manager, false, [true, false, true]);
    keeps(&manager, '\0', ['a', 'ß', '🦀']);
    keeps(&manager, [0u8; 3], [[1, 2, 3], [4, 5, 6], [7, 8, 9]]);
    keeps(&manager, (0u8, 0u64), [(1, 2), (3, 4), (255, u64::MAX)]);
    let small = |code, amount| Small { code, amount };
    keeps(&manager, small(0, 0), [small(1, 2), small(255, u32::MAX), small(0, 7)]);
    let large = |n: u8| Large { name: ['x', 'y', char::from(n)], ok: n > 1, parts: (-3, [n; 5]), r#type: u128::MAX / u128::from(n) };
    let zero = Large { name: ['\0'; 3], ok: false, parts: (0, [0; 5]), r#type: 0 };
    keeps(&manager, zero, [large(1), large(2), large(3)]);
    keeps(&manager, Pair(0.0, small(0, 0)), [Pair(-1.5, small(1, 1)), Pair(f64::INFINITY, small(2, 2)), Pair(0.1, small(3, 3))]);
    let fixed = |n| Fixed { values: [n; 2000] };
    keeps(&manager, fixed(0), [fixed(1), fixed(2), fixed(3)]);
    assert_eq!((Small::BYTES, Pair::BYTES, Fixed::<3>::BYTES), (8, 16, 6));
}

#[test]
fn no_type_writes_beyond_its_bytes() {
    let manager = Manager::in_process().unwrap();
    let values: Vec<Sprawling> = (0..27).map(|at| Sprawling(1 << (at % 8))).collect();
    let array = manager.array(values.clone()).unwrap();
    assert_eq!(array.to_vec().unwrap(), values);
    array.write_from(3, &values[..20]).unwrap();
    assert_eq!(array.to_vec().unwrap(), [&values[..3], &values[..20], &values[23..]].concat());
    array.fill(Sprawling(5)).unwrap();
    array.set(9, Sprawling(6)).unwrap();
    assert_eq!(array.to_vec().unwrap()[8..11], [Sprawling(5), Sprawling(6), Sprawling(5)]);
}

#[test]
fn numbers_change_in_one_step() {
    let manager = Manager::in_process().unwrap();
    let bytes = manager.array([250u8, 3]).unwrap();
    assert_eq!((bytes.fetch_add(0, 10).unwrap(), bytes.get(0).unwrap()), (250, 4), "it wraps, and its neighbour is as it was");
    assert_eq!((bytes.fetch_sub(1, 4).unwrap(), bytes.get(1).unwrap()), (3, 255));
    let signed = manager.array([-5i32]).unwrap();
    assert_eq!((signed.fetch_add(0, -3).unwrap(), signed.fetch_max(0, -20).unwrap(), signed.get(0).unwrap()), (-5, -8, -8));
    assert_eq!((signed.fetch_max(0, 4).unwrap(), signed.fetch_min(0, -1).unwrap(), signed.get(0).unwrap()), (-8, 4, -1));
    let floats = manager.array([0.5f32, 1.0]).unwrap();
    assert_eq!((floats.fetch_add(0, 2.0).unwrap(), floats.fetch_sub(1, 0.25).unwrap()), (0.5, 1.0));
    assert_eq!(floats.to_vec().unwrap(), [2.5, 0.75]);
    let bits = manager.array([0b1100u16]).unwrap();
    assert_eq!(
        (bits.fetch_and(0, 0b0110).unwrap(), bits.fetch_or(0, 1).unwrap(), bits.fetch_xor(0, 0b11).unwrap()),
        (0b1100, 0b0100, 0b0101)
    );
    assert_eq!(bits.get(0).unwrap(), 0b0110);
    let flags = manager.array([true]).unwrap();
    assert_eq!((flags.fetch_and(0, false).unwrap(), flags.swap(0, true).unwrap(), flags.fetch_xor(0, true).unwrap()), (true, false, true));
    assert!(!flags.get(0).unwrap());
}

#[test]
fn structs_of_one_word_change_in_one_step() {
    let manager = Manager::in_process().unwrap();
    let array = manager.array::<Small>(2).unwrap();
    let small = |code, amount| Small { code, amount };
    assert_eq!(array.swap(1, small(1, 10)).unwrap(), small(0, 0));
    assert_eq!(array.compare_exchange(1, small(1, 11), small(2, 0)).unwrap(), Err(small(1, 10)));
    assert_eq!(array.compare_exchange(1, small(1, 10), small(2, 0)).unwrap(), Ok(small(1, 10)));
    let more = |old: Small| (old.amount < 1).then_some(Small { amount: old.amount + 1, ..old });
    assert_eq!(array.fetch_update(1, more).unwrap(), Ok(small(2, 0)));
    assert_eq!(array.fetch_update(1, more).unwrap(), Err(small(2, 1)));
    // Bits are compared: a NaN is found again, and the two zeros are different.
    let floats = manager.array([f64::NAN, 0.0]).unwrap();
    assert!(floats.compare_exchange(0, f64::NAN, 1.0).unwrap().is_ok());
    assert!(floats.compare_exchange(1, -0.0, 1.0).unwrap().is_err());
}

#[test]
fn what_is_not_there_is_an_error() {
    let manager = Manager::in_process().unwrap();
    let array = manager.array([1u64, 2, 3]).unwrap();
    let errors = [
        array.get(3).map(drop),
        array.set(usize::MAX, 1),
        array.swap(3, 1).map(drop),
        array.fetch_add(4, 1).map(drop),
        array.compare_exchange(3, 0, 1).map(drop),
        array.read_into(1, &mut [0; 3]),
        array.write_from(2, &[0; 2]),
        array.write_from(4, &[]),
    ];
    for error in errors.map(Result::unwrap_err) {
        assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}");
        assert!(error.to_string().contains("array of 3 elements"), "{error}");
    }
    array.write_from(3, &[]).unwrap();
    assert_eq!(array.to_vec().unwrap(), [1, 2, 3], "nothing was written");
    let none: Array<u64> = manager.array(0).unwrap();
    assert!(none.is_empty().unwrap() && none.to_vec().unwrap().is_empty() && none.get(0).is_err());
    none.fill(7).unwrap();
    assert_eq!(none.to_string(), "[]");
    let bytes = manager.shared_bytes(0).unwrap();
    assert!(bytes.is_empty().unwrap() && bytes.write_at(0, &[1]).is_err());
    bytes.write_at(0, &[]).unwrap();
}
