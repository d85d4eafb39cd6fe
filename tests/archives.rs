//! Foreign bytes: whatever is claimed to be an archive is refused or can be used, in bounded time and stack.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::time::{Duration, Instant};

use commonhold::__rt::{AsDebug, Ser, access, rkyv, to_owned};
use commonhold::{Any, Archived, ErrorKind, Shared};
use proptest::prelude::*;
use proptest::sample::Index;

/// The archive of a value, at an address that is a multiple of 16.
fn encode<T: Shared>(value: &T) -> rkyv::util::AlignedVec<16> {
    let mut ser = Ser::buffer();
    ser.put::<T>(value).unwrap();
    aligned(ser.bytes())
}

fn aligned(bytes: &[u8]) -> rkyv::util::AlignedVec<16> {
    let mut copy = rkyv::util::AlignedVec::new();
    copy.extend_from_slice(bytes);
    copy
}

#[derive(Shared, Debug, PartialEq, Clone)]
enum Mixed {
    Leaf(u8, char, bool),
    Text { text: String, more: Option<Box<Mixed>> },
    Many(Vec<Mixed>),
}

#[derive(Shared, Debug, PartialEq, Clone)]
struct Everything {
    mixed: Mixed,
    map: HashMap<String, Vec<u16>>,
    set: HashSet<u32>,
    tree: BTreeMap<u8, (String, Option<u64>)>,
    names: BTreeSet<String>,
    deque: VecDeque<Result<u8, String>>,
    any: Any,
    duration: Duration,
    unit: (),
}

fn everything(size: u8) -> Everything {
    let leaf = Mixed::Leaf(size, 'é', true);
    let text = Mixed::Text { text: "a text that lies out of line".into(), more: Some(Box::new(leaf.clone())) };
    Everything {
        mixed: Mixed::Many(vec![leaf, text.clone(), Mixed::Many(vec![text; usize::from(size % 3)])]),
        map: (0..size).map(|n| (format!("number {n}"), vec![n.into(); usize::from(n % 4)])).collect(),
        set: (0..u32::from(size)).collect(),
        tree: (0..size).map(|n| (n, (n.to_string(), Some(n.into())))).collect(),
        names: (0..size / 2).map(|n| format!("a longer name {n}")).collect(),
        deque: [Ok(1), Err("no".into())].into(),
        any: Any::from([("a", Any::from(vec![1, 2])), ("b", Any::from("text")), ("c", Any::from([("d", 0.5)]))]),
        duration: Duration::new(1, 2),
        unit: (),
    }
}

/// Touches all that can be reached from an archived value.
fn use_all(archived: &Archived<Everything>) {
    let printed = format!("{archived:?} {}", archived.any);
    assert!(!printed.is_empty());
    let own = archived.to_owned();
    let _ = *archived == own;
    let keys: Vec<&str> = archived.map.keys().map(|key| key.as_str()).collect();
    for key in keys.into_iter().chain(["number 1", "none"]) {
        let _ = archived.map.get(key).map(|values| values.len());
    }
    for n in 0..100 {
        let _ = archived.set.contains(&n.into());
        let _ = archived.tree.get(&(n as u8));
    }
    let _ = archived.tree.range(3..9).count() + archived.tree.iter().count() + archived.names.iter().map(|name| name.len()).sum::<usize>();
    let _ = archived.any.get("a").and_then(|list| list.at(1));
}

fn refused_or_usable(bytes: &[u8]) {
    match access::<Everything>(bytes) {
        Ok(archived) => use_all(archived),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt),
    }
}

#[test]
fn every_truncation_is_refused_or_usable() {
    let bytes = encode(&everything(20));
    for len in 0..bytes.len() {
        refused_or_usable(&bytes[..len]);
        refused_or_usable(&aligned(&bytes[len..]));
    }
}

#[test]
fn every_change_of_one_byte_is_refused_or_usable() {
    let original = encode(&everything(9));
    let mut bytes = aligned(&original);
    for at in 0..bytes.len() {
        for value in [0, 1, 2, 0x7f, 0x80, 0xff, original[at].wrapping_add(1), original[at].wrapping_sub(4)] {
            bytes[at] = value;
            refused_or_usable(&bytes);
        }
        bytes[at] = original[at];
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_changes_are_refused_or_usable(
        size in 0u8..60,
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8),
        words in prop::collection::vec((any::<Index>(), -64i32..64), 0..4),
        cut in prop::option::of(any::<Index>()),
    ) {
        let mut bytes = encode(&everything(size));
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        for (at, value) in words {
            let at = at.index(bytes.len() / 4) * 4;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let end = cut.map_or(bytes.len(), |cut| cut.index(bytes.len()));
        refused_or_usable(&bytes[..end]);
    }

    #[test]
    fn random_bytes_are_refused_or_usable(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        refused_or_usable(&aligned(&bytes));
        let _ = access::<Any>(&aligned(&bytes)).map(|any| any.to_string());
        let _ = access::<Mixed>(&aligned(&bytes)).map(|mixed| mixed.to_owned());
    }
}

#[test]
fn values_that_no_such_type_has_are_refused() {
    fn refused<T: Shared + Debug>(value: T, change: impl FnOnce(&mut [u8])) {
        let mut bytes = encode(&value);
        assert!(access::<T>(&bytes).is_ok());
        change(&mut bytes);
        let error = access::<T>(&bytes).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{value:?}");
        assert!(error.to_string().contains(commonhold::__rt::text::<T>()), "{error}");
    }
    refused(true, |bytes| bytes[0] = 2);
    refused('a', |bytes| bytes.copy_from_slice(&0xd800u32.to_le_bytes()));
    refused(Some(1u8), |bytes| bytes[0] = 2);
    refused(Ok::<u8, u8>(1), |bytes| bytes[0] = 2);
    refused(Mixed::Leaf(1, 'a', true), |bytes| bytes[0] = 3);
    refused("short".to_string(), |bytes| bytes[0] = 0xc0);
    refused("a text out of line".to_string(), |bytes| bytes[3] = 0xff);
    refused(Duration::ZERO, |bytes| bytes[8..12].copy_from_slice(&1_000_000_000u32.to_le_bytes()));
    refused(Box::new(5u64), |bytes| bytes[8..12].copy_from_slice(&(-12i32).to_le_bytes()));
    refused(Box::new(5u64), |bytes| bytes[8..12].copy_from_slice(&0i32.to_le_bytes()));
    refused(Box::new(5u64), |bytes| bytes[8..12].copy_from_slice(&i32::MIN.to_le_bytes()));
    assert!(access::<u64>(&[]).is_err());
    assert!(access::<u64>(&encode(&(1u64, 2u64))[1..9]).is_err());
    assert!(access::<Everything>(&[0; 16]).is_err());
}

#[test]
fn absurd_lengths_are_refused_at_once() {
    fn with_length<T: Shared>(value: &T, at_from_end: usize, len: u32) {
        let mut bytes = encode(value);
        let at = bytes.len() - at_from_end;
        bytes[at..at + 4].copy_from_slice(&len.to_le_bytes());
        assert!(access::<T>(&bytes).is_err());
    }
    let start = Instant::now();
    for len in [5, 1000, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        with_length(&vec![1u64, 2, 3, 4], 4, len);
        with_length(&vec!["a".to_string(); 4], 4, len);
        with_length(&VecDeque::from([(1u8, ())]), 4, len);
        with_length(&BTreeMap::from([(1u8, 2u8)]), 4, len);
        with_length(&BTreeSet::from([()]), 4, len);
        with_length(&HashMap::from([(1u8, 2u8)]), 8, len);
        with_length(&HashMap::from([(1u8, 2u8)]), 4, len);
        with_length(&HashSet::from([()]), 4, len);
        with_length(&HashSet::from([()]), 8, len);
    }
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// rkyv's own check of an archive, without what commonhold adds to it.
fn rkyv_accepts<T: Shared>(bytes: &[u8]) -> bool
where
    T::Archived: for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'a, rkyv::rancor::Failure>>,
{
    rkyv::access::<T::Archived, rkyv::rancor::Failure>(bytes).is_ok()
}

fn word(bytes: &[u8], at: usize) -> i32 {
    i32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[test]
fn control_bytes_beyond_a_tables_capacity_are_checked() {
    for len in [1u32, 3, 13, 14, 17, 40] {
        let original = encode(&(0..len).map(|n| (n, n)).collect::<HashMap<u32, u32>>());
        let root = original.len() - 12;
        let controls = (root as i32 + word(&original, root)) as usize;
        let capacity = word(&original, root + 8) as usize;
        let count = capacity.next_multiple_of(16) + 15;
        assert!(controls + count <= root && capacity > len as usize);
        for at in controls + capacity..controls + count {
            let mut bytes = aligned(&original);
            bytes[at] = if bytes[at] & 0x80 == 0 { 0xff } else { 0x00 };
            assert!(access::<HashMap<u32, u32>>(&bytes).is_err(), "byte {} of {count} with capacity {capacity}", at - controls);
        }
        // The last of them is one that rkyv's own check never looks at.
        let mut bytes = aligned(&original);
        bytes[controls + count - 1] = 0;
        assert!(rkyv_accepts::<HashMap<u32, u32>>(&bytes));
    }
}

#[test]
fn trees_without_leaves_are_refused() {
    // An inner node of five entries over one leaf of one.
    let original = encode(&(0..6u8).map(|n| (n, n)).collect::<BTreeMap<u8, u8>>());
    let root = original.len() - 8;
    let inner = (root as i32 + word(&original, root)) as usize;
    let first_child = inner + 12;
    let leaf = (first_child as i32 + word(&original, first_child)) as usize;
    assert_eq!((original[inner], original[leaf], word(&original, leaf + 12)), (1, 0, 1));
    let forged = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = aligned(&original);
        bytes[root + 4..].copy_from_slice(&5u32.to_le_bytes());
        change(&mut bytes);
        assert!(rkyv_accepts::<BTreeMap<u8, u8>>(&bytes));
        assert!(access::<BTreeMap<u8, u8>>(&bytes).is_err());
        bytes
    };
    forged(&|bytes| bytes[leaf + 12] = 0);
    let missing = forged(&|bytes| bytes[first_child..first_child + 4].copy_from_slice(&1i32.to_le_bytes()));
    assert_eq!(missing.len(), original.len());
    assert!(access::<BTreeMap<u8, u8>>(&original).is_ok());
}

#[test]
fn maps_inside_of_other_types_are_checked_too() {
    #[derive(Shared, Debug)]
    enum Holder {
        Nothing,
        Map { map: Vec<Option<(u8, [HashSet<u32>; 1])>> },
    }
    let mut bytes = encode(&Holder::Map { map: vec![None, Some((1, [HashSet::from([7])]))] });
    assert!(access::<Holder>(&bytes).is_ok());
    assert!(access::<Holder>(&encode(&Holder::Nothing)).is_ok());
    // The first thing in the archive is the set's table: two buckets, then the control bytes.
    bytes[8 + 30] = 0;
    assert!(access::<Holder>(&bytes).is_err());
}

/// A list in which each element holds the next.
#[derive(Shared, Debug, PartialEq, Clone)]
struct Chain {
    name: String,
    next: Option<Box<Chain>>,
}

fn chain(len: u32) -> Chain {
    let link = |next| Chain { name: "a name that lies out of line".into(), next };
    (1..len).fold(link(None), |chain, _| link(Some(Box::new(chain))))
}

fn deep_any(levels: u32) -> Any {
    (1..levels).fold(Any::Null, |inner, level| if level % 2 == 0 { Any::from(vec![inner]) } else { Any::from([("k", inner)]) })
}

fn deep_mixed(levels: u32) -> Mixed {
    (1..levels).fold(Mixed::Leaf(1, 'a', true), |inner, level| match level % 2 {
        0 => Mixed::Many(vec![inner]),
        _ => Mixed::Text { text: String::new(), more: Some(Box::new(inner)) },
    })
}

/// Runs on a thread with this much stack.
fn with_stack<R: Send>(bytes: usize, f: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| std::thread::Builder::new().stack_size(bytes).spawn_scoped(scope, f).unwrap().join().unwrap())
}

const SMALL_STACK: usize = 256 << 10;
const LARGE_STACK: usize = 256 << 20;

/// The bytes of a value that is too deep to be written: what the serialiser had laid down before it refused.
fn too_deep_bytes<T: Shared>(value: &T) -> Vec<u8> {
    let mut ser = Ser::buffer();
    let error = ser.put::<T>(value).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("nested deeper than 128 levels"), "{error}");
    for mut other in [Ser::count(), Ser::stream(Box::new(|_| panic!("nothing of it may be streamed")))] {
        assert_eq!(other.put::<T>(value).unwrap_err().kind(), ErrorKind::TooLarge);
    }
    ser.bytes().to_vec()
}

#[test]
fn too_deep_values_are_refused_when_they_are_written() {
    // The root is one level; so is each box, and the text of the last link.
    let mut ser = Ser::buffer();
    ser.put::<Chain>(&chain(127)).unwrap();
    ser.reset();
    assert_eq!(ser.put::<Chain>(&chain(128)).unwrap_err().kind(), ErrorKind::TooLarge);
    let forged = with_stack(LARGE_STACK, || {
        (too_deep_bytes(&chain(20_000)), too_deep_bytes(&deep_any(20_000)), too_deep_bytes(&deep_mixed(20_000)))
    });
    with_stack(SMALL_STACK, || {
        let error = access::<Chain>(&aligned(&forged.0)).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("nested deeper"), "{error}");
        assert!(access::<Any>(&aligned(&forged.1)).is_err());
        assert!(access::<Mixed>(&aligned(&forged.2)).is_err());
    });
}

#[test]
fn the_deepest_values_are_read_on_a_small_stack() {
    fn all<T: Shared + Debug + PartialEq + Sync>(value: &T) {
        let bytes = encode(value);
        let printed = format!("{value:?}");
        with_stack(SMALL_STACK, || {
            let archived = access::<T>(&bytes).unwrap();
            assert_eq!(format!("{:?}", AsDebug::<T>(archived)), printed);
            assert!(T::eq_archived(archived, value));
            assert_eq!(to_owned::<T>(archived, None), *value);
        });
    }
    all(&chain(127));
    all(&deep_any(128));
    all(&deep_mixed(128));
}

#[test]
fn types_of_many_levels_are_not_refused_for_that() {
    // A B-tree may have fourteen levels, ten in each other more than readers follow. These have two each.
    type Deep5<T> = BTreeMap<u8, BTreeMap<u8, BTreeMap<u8, BTreeMap<u8, BTreeMap<u8, T>>>>>;
    fn five<T>(value: T) -> Deep5<T> {
        let [a, b, c, d, e] = std::array::from_fn(|n| n as u8);
        [(a, [(b, [(c, [(d, [(e, value)].into())].into())].into())].into())].into()
    }
    let value: Deep5<Deep5<String>> = five(five("a text that lies out of line".to_string()));
    let bytes = encode(&value);
    assert!(<Deep5<Deep5<String>>>::eq_archived(access::<Deep5<Deep5<String>>>(&bytes).unwrap(), &value));
}
