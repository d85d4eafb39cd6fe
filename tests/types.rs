//! Shared types: what is derived, what std has, how archived values read, keys, handles, schemas.
#![forbid(unsafe_code)]
#![deny(warnings)]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::time::Duration;

use commonhold::__rt::{AsDebug, Ser, access, fingerprint, text, to_owned};
use commonhold::{Any, Archived, AsShared, Key, Shared};

fn encode<T: Shared>(value: &impl AsShared<T>) -> Ser {
    let mut ser = Ser::buffer();
    let range = ser.put::<T>(value).unwrap();
    assert_eq!(range, 0..ser.bytes().len());
    ser
}

/// Writes, checks, reads; the archived value prints and compares like the value, and all ways to serialise agree.
fn round<T: Shared + PartialEq + Debug>(value: T) {
    let ser = encode::<T>(&value);
    let archived = access::<T>(ser.bytes()).unwrap();
    assert!(T::eq_archived(archived, &value));
    assert_eq!(to_owned::<T>(archived, None), value);
    assert_eq!(format!("{:?}", AsDebug::<T>(archived)), format!("{value:?}"));
    assert_eq!(format!("{:#?}", AsDebug::<T>(archived)), format!("{value:#?}"));
    same_in_all_ways(&value, &ser);
}

/// The same for values with hash tables in them, which print in any order.
fn round_unordered<T: Shared + PartialEq + Debug>(value: T) {
    let ser = encode::<T>(&value);
    let archived = access::<T>(ser.bytes()).unwrap();
    assert!(T::eq_archived(archived, &value));
    assert_eq!(to_owned::<T>(archived, None), value);
    let sorted = |text: String| {
        let mut chars: Vec<char> = text.chars().collect();
        chars.sort_unstable();
        chars
    };
    assert_eq!(sorted(format!("{:?}", AsDebug::<T>(archived))), sorted(format!("{value:?}")));
    same_in_all_ways(&value, &ser);
}

fn same_in_all_ways<T: Shared>(value: &T, ser: &Ser) {
    let mut count = Ser::count();
    count.put::<T>(value).unwrap();
    assert_eq!(count.written(), ser.written());
    assert_eq!(count.handles(), ser.handles());
    let streamed = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let sink = streamed.clone();
    let mut stream = Ser::stream(Box::new(move |bytes| {
        sink.borrow_mut().extend_from_slice(bytes);
        Ok(())
    }));
    stream.put::<T>(value).unwrap();
    assert_eq!(stream.finish().unwrap(), ser.written());
    assert_eq!(*streamed.borrow(), ser.bytes());
}

mod deep {
    use commonhold::Shared;

    #[derive(Shared, Debug, PartialEq, Clone)]
    pub struct Public {
        pub a: u8,
        pub(crate) b: Private,
        pub(super) c: Private,
    }

    #[derive(Shared, Debug, PartialEq, Clone)]
    pub(crate) struct Private(u16, pub(super) f32);

    #[derive(Shared, Debug, PartialEq, Clone)]
    pub(super) struct Super {
        hidden: Hidden,
    }

    #[derive(Shared, Debug, PartialEq, Clone)]
    struct Hidden(#[allow(dead_code)] u8);

    pub(super) fn values() -> (Public, Super) {
        (Public { a: 1, b: Private(2, 3.5), c: Private(3, 0.0) }, Super { hidden: Hidden(1) })
    }
}

#[derive(Shared, Debug, PartialEq, Clone)]
struct Unit;

#[derive(Shared, Debug, PartialEq, Clone)]
struct Empty {}

#[derive(Shared, Debug, PartialEq, Clone)]
struct Wrap<T>(T);

#[derive(Shared, Debug, PartialEq, Clone)]
struct Both<A, B: Clone = u8>
where
    A: Clone,
{
    a: A,
    b: Vec<B>,
    both: Option<(A, B)>,
}

#[derive(Shared, Debug, PartialEq, Clone)]
struct Grid<const N: usize, const SIGNED: bool = true> {
    cells: [[f64; N]; 2],
}

/// Names that the expansion might use itself.
#[derive(Shared, Debug, PartialEq, Clone)]
struct r#Awkward {
    r#type: u8,
    f: u8,
    archived: u8,
    schema: u8,
    value: u8,
    state: u8,
    __field0: u8,
}

/// Attributes and comments of all kinds.
#[derive(Shared, Debug, PartialEq, Clone)]
#[allow(non_snake_case)]
struct Commented {
    /// A field
    /** with two comments. */
    #[cfg(not(any(windows, unix, target_os = "wasi")))]
    elsewhere: std::time::Instant,
    #[cfg(target_endian = "little")]
    present: u8,
    #[cfg_attr(target_endian = "little", allow(non_snake_case))]
    Upper: u8,
    #[deprecated]
    old: u8,
}

#[derive(Shared, Debug, PartialEq, Clone)]
struct Rich {
    map: HashMap<String, Vec<i64>>,
    set: HashSet<u32>,
    tree: BTreeMap<u8, (i32, String)>,
    leaves: BTreeSet<String>,
    deque: VecDeque<bool>,
    array: [char; 3],
    duration: Duration,
    result: Result<u8, String>,
    option: Option<Option<Box<Wrap<String>>>>,
    unit: (),
    big: u128,
    mine: HashMap<Color, BTreeMap<Place, Color>>,
    any: Any,
}

#[derive(Shared, Debug, PartialEq, Clone)]
enum Shape {
    Nothing,
    Circle { r: f64 },
    Poly(Vec<(f64, f64)>),
    Group(Vec<Shape>),
}

#[derive(Shared, Debug, PartialEq, Clone)]
struct Tree {
    name: String,
    kids: Vec<Tree>,
    forest: Option<Box<Forest>>,
}

#[derive(Shared, Debug, PartialEq, Clone)]
enum Forest {
    Empty,
    One(Tree),
    Many { left: Box<Forest>, right: Box<Forest> },
}

#[derive(Shared, Debug, PartialEq, Clone)]
struct Generic<T> {
    value: T,
    more: Vec<Generic<T>>,
}

#[derive(Shared, Key, Debug, PartialEq, Eq, Hash, Clone, Copy, PartialOrd, Ord)]
#[repr(u8)]
enum Color {
    Red = 3,
    Green = 7,
}

#[derive(Shared, Key, Debug, PartialEq, Eq, PartialOrd, Ord, Clone)]
struct Place {
    x: i32,
    name: String,
    color: Color,
    more: Option<Vec<u8>>,
}

/// A key that is neither `Hash` nor `Ord`.
#[derive(Shared, Key, Debug, PartialEq, Clone)]
struct Plain<K>(K);

fn rich() -> Rich {
    let place = |x| Place { x, name: "n".into(), color: Color::Red, more: Some(vec![1]) };
    Rich {
        map: (0..40).map(|n| (n.to_string(), vec![n, -n])).collect(),
        set: (0..100).collect(),
        tree: (0..200).map(|n| (n, (i32::from(n), format!("a text that is long enough to lie out of line: {n}")))).collect(),
        leaves: ["x".to_string(), "a longer one".to_string()].into(),
        deque: [true, false].into(),
        array: ['a', 'é', '😀'],
        duration: Duration::from_millis(1500),
        result: Err("no".into()),
        option: Some(Some(Box::new(Wrap("in".into())))),
        unit: (),
        big: 1 << 100,
        mine: [(Color::Green, [(place(1), Color::Red), (place(-1), Color::Green)].into())].into(),
        any: Any::from(vec![Any::from("x"), Any::from(1.5), Any::from([("a", Any::Null)])]),
    }
}

#[test]
fn derived_types_read_like_the_value() {
    let (public, superior) = deep::values();
    round(public);
    round(superior);
    round(Unit);
    round(Empty {});
    round(Wrap(5u8));
    round(Wrap(Wrap("x".to_string())));
    round(Both::<String, u16> { a: "a".into(), b: vec![1], both: Some(("b".into(), 2)) });
    round(Grid::<2> { cells: [[1.0, 2.0], [3.0, f64::INFINITY]] });
    round(Awkward { r#type: 1, f: 2, archived: 3, schema: 4, value: 5, state: 6, __field0: 7 });
    #[allow(deprecated)]
    round(Commented { present: 1, Upper: 2, old: 3 });
    round_unordered(rich());
    for shape in
        [Shape::Nothing, Shape::Circle { r: 1.5 }, Shape::Poly(vec![(0.0, 1.0)]), Shape::Group(vec![Shape::Nothing, Shape::Group(vec![])])]
    {
        round(shape);
    }
    let leaf = Tree { name: "leaf".into(), kids: vec![], forest: None };
    let forest = Forest::Many { left: Box::new(Forest::Empty), right: Box::new(Forest::One(leaf.clone())) };
    round(Tree { name: "root".into(), kids: vec![leaf.clone(), leaf], forest: Some(Box::new(forest)) });
    round(Generic { value: 1u8, more: vec![Generic { value: 2, more: vec![] }] });
    round(Color::Green);
    round(Plain(1u8));
}

#[test]
fn std_types_read_like_the_value() {
    round(-5i8);
    round(u16::MAX);
    round(i32::MIN);
    round(u32::MAX);
    round(i64::MIN);
    round(u128::MAX);
    round(i128::MIN);
    round(1.5f32);
    round(true);
    round('😀');
    round(());
    round("a text that is long enough to lie out of line".to_string());
    round(Some("x".to_string()));
    round(None::<u64>);
    round(vec![Some(1u8), None]);
    round(vec![vec!["a".to_string()], vec![]]);
    round(Ok::<u64, String>(5));
    round(Err::<u64, String>("no".into()));
    round(Box::new([[1u64; 3]; 2]));
    round((1u8, "two".to_string(), 3.0));
    round((1u8, 2u16, 3u32, 4u64, 5u128, 6i8, 7i16, 8i32, 9i64, 'a', true, "b".to_string()));
    round(Duration::MAX);
    round(VecDeque::from([vec![1u8], vec![]]));
    for len in [0, 1, 2, 5, 6, 7, 35, 36, 37, 215, 216, 1300] {
        round((0..len).map(|n| (n, n.to_string())).collect::<BTreeMap<u32, String>>());
        round_unordered((0..len).map(|n| (n.to_string(), n)).collect::<HashMap<String, u32>>());
        round((0..len).collect::<BTreeSet<u32>>());
        round_unordered((0..len).collect::<HashSet<u32>>());
    }
    round(HashSet::from([()]));
    round(BTreeMap::from([((), ())]));
}

#[test]
fn large_values_stream_in_the_same_bytes() {
    round(vec![7u64; 100_000]);
    round((0..50_000).map(|n| format!("number {n}")).collect::<Vec<_>>());
    round(Generic { value: "x".repeat(300_000), more: vec![] });
}

#[test]
fn a_sink_that_refuses_ends_the_serialising() {
    let mut ser = Ser::stream(Box::new(|_| Err(std::io::ErrorKind::BrokenPipe.into())));
    let error = ser.put::<Vec<u64>>(&&[1u64; 100_000]).unwrap_err();
    assert_eq!(error.kind(), commonhold::ErrorKind::System);
    ser.reset();
    ser.put::<u8>(&1).unwrap();
    assert!(ser.finish().is_err());
}

#[test]
fn numbers_bool_and_char_are_native() {
    fn view<T: Shared>(value: T, look: impl FnOnce(&T::View)) {
        look(T::view(access::<T>(encode::<T>(&value).bytes()).unwrap()));
    }
    view(-2i64, |n| assert_eq!(*n + 1, -1));
    view(2.25f64, |n| assert_eq!(n.sqrt(), 1.5));
    view(u128::MAX, |n| assert_eq!(*n, u128::MAX));
    view('é', |c| assert!(c.is_alphabetic()));
    view(true, |b| assert!(*b));
}

#[derive(Shared, Debug, PartialEq, Clone)]
struct Account {
    owner: String,
    balance: i64,
    rate: f64,
    on: bool,
    tags: Vec<String>,
    numbers: Vec<i64>,
    o: Option<i64>,
}

#[test]
fn fields_of_archived_structs() {
    fn takes(account: &Archived<Account>) -> i64 {
        account.balance.to_native()
    }
    let own = Account { owner: "Ada".into(), balance: 5, rate: 0.5, on: true, tags: vec!["t".into()], numbers: vec![1, 2, 3], o: Some(4) };
    let ser = encode::<Account>(&own);
    let ada: &ArchivedAccount = access::<Account>(ser.bytes()).unwrap();
    assert_eq!(ada.balance, 5);
    assert_eq!(ada.balance + 1, 6);
    assert_eq!(format!("{:>4}|{:.2}|{}", ada.balance, ada.rate, ada.on), "   5|0.50|true");
    assert_eq!(ada.owner, "Ada");
    assert_eq!(ada.tags[0], "t");
    assert_eq!(ada.numbers, [1, 2, 3]);
    assert_eq!(ada.o, Some(4));
    assert_eq!(takes(ada), 5);
    assert_eq!(*ada, own);
    assert_eq!(own, *ada);
    assert_eq!(ada, ada);
    let copy: Account = ada.to_owned();
    assert_eq!(copy, own);
}

#[test]
fn archived_enums_match() {
    let ser = encode::<Shape>(&Shape::Circle { r: 2.0 });
    let r = match access::<Shape>(ser.bytes()).unwrap() {
        ArchivedShape::Circle { r } => r.to_native(),
        ArchivedShape::Poly(_) | ArchivedShape::Group(_) | ArchivedShape::Nothing => 0.0,
    };
    assert_eq!(r, 2.0);
}

#[test]
fn maps_are_searched_in_place() {
    let own = rich();
    let ser = encode::<Rich>(&own);
    let archived = access::<Rich>(ser.bytes()).unwrap();
    assert_eq!(archived.map.get("7").unwrap(), &[7, -7]);
    assert!(archived.map.get("none").is_none());
    let (color, places) = archived.mine.iter().next().unwrap();
    assert_eq!(archived.mine.get(color).unwrap().len(), places.len());
    let places: Vec<i32> = places.keys().map(|place| place.x.to_native()).collect();
    assert_eq!(places, [-1, 1]);
}

#[test]
fn borrowed_forms_have_the_same_bytes() {
    let string = encode::<String>(&"a text out of line".to_string());
    assert_eq!(encode::<String>(&"a text out of line").bytes(), string.bytes());
    assert_eq!(encode::<String>(&&"a text out of line").bytes(), string.bytes());
    assert_eq!(encode::<String>(&&"a text out of line".to_string()).bytes(), string.bytes());
    let vec = encode::<Vec<String>>(&vec!["a".to_string(), "bb".to_string()]);
    assert_eq!(encode::<Vec<String>>(&&["a".to_string(), "bb".to_string()]).bytes(), vec.bytes());
    assert_eq!(encode::<Vec<String>>(&&["a".to_string(), "bb".to_string()][..]).bytes(), vec.bytes());
}

#[test]
fn equal_keys_have_equal_bytes() {
    fn same<K: Key + PartialEq + Debug>(a: K, b: K) {
        assert_eq!(a, b);
        assert_eq!(encode::<K>(&a).bytes(), encode::<K>(&b).bytes(), "{a:?}");
    }
    // Memory with other contents each time, so that padding would show.
    let dirt = |fill: u8| drop(vec![fill; 1 << 16]);
    let place = || {
        let mut name = String::with_capacity(100);
        name.push_str("name");
        Place { x: 1, name, color: Color::Red, more: Some(vec![1, 2]) }
    };
    let first = place();
    dirt(0xaa);
    same(first, place());
    same((1u8, 2u64, "x".to_string()), (1u8, 2u64, "x".to_string()));
    same(Plain((1u8, Some(2u64))), Plain((1u8, Some(2u64))));
    same(None::<u64>, Some(5).filter(|_| false));
    let mut turned: VecDeque<String> = ["b".to_string(), "c".to_string(), "d".to_string()].into();
    turned.rotate_left(2);
    turned.push_front("a".to_string());
    assert!(!turned.as_slices().1.is_empty());
    let straight: VecDeque<String> = turned.iter().cloned().collect::<Vec<_>>().into();
    same(turned, straight);
    let mut numbers: VecDeque<u32> = (0..7).collect();
    numbers.rotate_left(3);
    numbers.push_front(9);
    same(numbers.clone(), numbers.iter().copied().collect::<Vec<_>>().into());
    let grown = |order: &mut dyn Iterator<Item = u32>| order.map(|n| (n, n.to_string())).collect::<BTreeMap<_, _>>();
    let mut shrunk = grown(&mut (0..1000).rev());
    shrunk.retain(|n, _| *n < 300);
    same(grown(&mut (0..300)), shrunk);
    same((0..50u8).collect::<BTreeSet<_>>(), (0..50u8).rev().collect::<BTreeSet<_>>());
    same(Ok::<u8, u64>(1), Ok(1));
}

#[test]
fn many_values_share_a_buffer() {
    let mut ser = Ser::buffer();
    let key = ser.put::<String>(&"key").unwrap();
    let value = ser.put::<Vec<String>>(&vec!["a text out of line".to_string()]).unwrap();
    let archive = ser.bytes()[value.clone()].to_vec();
    let copy = ser.put_archive(&archive, &[(1, 2)]).unwrap();
    assert_eq!(access::<String>(&ser.bytes()[key]).unwrap(), "key");
    assert_eq!(access::<Vec<String>>(&ser.bytes()[value.clone()]).unwrap()[0], "a text out of line");
    assert_eq!(ser.bytes()[copy], ser.bytes()[value]);
    assert_eq!(ser.handles(), [(1, 2)]);
}

#[test]
fn positions_count_from_the_values_start() {
    // Past 4 GiB, where rkyv's 32-bit positions would wrap: counted, with two values in one go.
    let mut count = Ser::count();
    let half = vec![0u8; 1 << 30];
    for _ in 0..5 {
        count.put::<Vec<u8>>(&half).unwrap();
    }
    let last = count.put::<(Vec<String>, u8)>(&(vec!["a text out of line".into()], 1)).unwrap();
    assert!(last.start > 5 << 30 && last.start.is_multiple_of(16));
    drop(half);
    let error = count.put::<[Vec<u8>; 3]>(&std::array::from_fn(|_| vec![0; 1 << 30])).unwrap_err();
    assert_eq!(error.kind(), commonhold::ErrorKind::TooLarge);
    assert!(error.to_string().contains("Vec<u8>") && error.to_string().contains("2147479552"), "{error}");
}

#[test]
fn scratch_can_be_entered_again() {
    let (outer, inner) = commonhold::__rt::with_scratch(|outer| {
        outer.put::<String>(&"outer").unwrap();
        let inner = commonhold::__rt::with_scratch(|inner| {
            inner.put::<u8>(&1).unwrap();
            inner.bytes().to_vec()
        });
        (outer.bytes().to_vec(), inner)
    });
    assert_eq!(access::<String>(encode::<String>(&"outer").bytes()).unwrap().as_str(), "outer");
    assert_eq!(outer, encode::<String>(&"outer").bytes());
    assert_eq!(inner, [1]);
    commonhold::__rt::with_scratch(|ser| assert_eq!((ser.written(), ser.handles().len()), (0, 0)));
}

#[test]
fn schemas_name_the_structure() {
    assert_eq!(
        text::<Account>(),
        "struct Account {owner: String, balance: i64, rate: f64, on: bool, tags: Vec<String>, numbers: Vec<i64>, o: Option<i64>}"
    );
    assert_eq!(text::<Shape>(), "enum Shape {Nothing, Circle {r: f64}, Poly(Vec<(f64, f64,)>), Group(Vec<#0>)}");
    assert_eq!(
        text::<Tree>(),
        "struct Tree {name: String, kids: Vec<#0>, forest: Option<Box<enum Forest {Empty, One(#0), Many {left: #4, right: #4}}>>}"
    );
    assert_eq!(text::<Wrap<u8>>(), "struct Wrap<u8>(u8)");
    assert_eq!(text::<Grid<2>>(), "struct Grid<2><true> {cells: [[f64; 2]; 2]}");
    assert_eq!(text::<(u8, (u8,))>(), "(u8, (u8,),)");
    assert_eq!(text::<HashMap<String, Result<(), Color>>>(), "HashMap<String, Result<(), enum Color {Red, Green}>>");
    assert_eq!(text::<Awkward>().split(',').next(), Some("struct Awkward {type: u8"));
    assert_eq!(text::<Any>(), "Any");
}

#[test]
fn fingerprints_are_part_of_the_format() {
    assert_eq!(fingerprint::<u64>(), fingerprint::<u64>());
    assert_ne!(fingerprint::<Wrap<u8>>(), fingerprint::<Wrap<i8>>());
    assert_ne!(fingerprint::<Grid<2>>(), fingerprint::<Grid<2, false>>());
    mod other {
        #[derive(commonhold::Shared)]
        #[allow(dead_code)]
        pub(super) struct Account {
            owner: String,
            balance: i64,
            rate: f64,
            on: bool,
            tags: Vec<String>,
            numbers: Vec<i64>,
            o: Option<i64>,
        }
    }
    assert_eq!(fingerprint::<Account>(), fingerprint::<other::Account>());
    // Seen by other programs: these must never change.
    assert_eq!((fingerprint::<u64>(), fingerprint::<Account>()), (GOLDEN_U64, GOLDEN_ACCOUNT));
}

const GOLDEN_U64: u64 = 1_664_702_635_536_008_649;
const GOLDEN_ACCOUNT: u64 = 2_441_765_405_426_009_022;

#[test]
fn flat_types_are_known_at_build_time() {
    const _: () = assert!(<Wrap<[u8; 4]> as Shared>::FLAT && <Option<(u8, Color)> as Shared>::FLAT && Unit::FLAT);
    const _: () = assert!(!Tree::FLAT && !<Wrap<String> as Shared>::FLAT && !<Handle<Tree> as Shared>::FLAT && !Any::FLAT);
    assert_eq!(size_of::<Archived<Wrap<[u8; 4]>>>(), 4);
}

#[test]
fn types_can_be_local() {
    #[derive(Shared, Debug, PartialEq, Clone)]
    struct Local<T> {
        a: T,
    }
    round(Local { a: 1u8 });
}

/// A handle as the proxy crate makes them: a foreign crate's type that archives to `ArchivedHandle`.
struct Handle<T> {
    manager: u64,
    id: u64,
    session: Option<u32>,
    element: std::marker::PhantomData<fn() -> T>,
}

mod handle {
    use std::fmt::{Formatter, Result as FmtResult};
    use std::marker::PhantomData;

    use commonhold::__rt::rkyv::{Archive, Deserialize, Place, Serialize, rancor::Fallible};
    use commonhold::__rt::{ArchivedHandle, HandleSink, HandleSource, Schema};
    use commonhold::Shared;

    use super::Handle;

    impl<T: Shared> Archive for Handle<T> {
        type Archived = ArchivedHandle;
        type Resolver = ();
        fn resolve(&self, (): (), out: Place<ArchivedHandle>) {
            ArchivedHandle::place(self.manager, self.id, out);
        }
    }

    impl<T: Shared, S: Fallible + HandleSink + ?Sized> Serialize<S> for Handle<T> {
        fn serialize(&self, serializer: &mut S) -> Result<(), S::Error> {
            serializer.handle(self.manager, self.id);
            Ok(())
        }
    }

    impl<T: Shared, D: Fallible + HandleSource + ?Sized> Deserialize<Handle<T>, D> for ArchivedHandle {
        fn deserialize(&self, deserializer: &mut D) -> Result<Handle<T>, D::Error> {
            let session = deserializer.session().and_then(|session| session.downcast_ref()).copied();
            Ok(Handle { manager: self.manager(), id: self.id(), session, element: PhantomData })
        }
    }

    impl<T: Shared> Shared for Handle<T> {
        type View = ArchivedHandle;
        const FLAT: bool = false;
        fn view(archived: &ArchivedHandle) -> &ArchivedHandle {
            archived
        }
        fn schema(schema: &mut Schema) {
            schema.word("Handle<");
            schema.element::<T>();
            schema.word(">");
        }
        fn debug(archived: &ArchivedHandle, f: &mut Formatter<'_>) -> FmtResult {
            write!(f, "<Handle object {}>", archived.id())
        }
        fn eq_archived(archived: &ArchivedHandle, value: &Self) -> bool {
            archived.id() == value.id && archived.manager() == value.manager
        }
        fn intact(_: &ArchivedHandle) -> bool {
            true
        }
    }
}

#[derive(Shared)]
struct Node {
    next: Option<Handle<Node>>,
    children: Vec<Handle<Tree>>,
    padding: u8,
}

#[test]
fn handles_are_found_and_get_the_session() {
    fn handle<T>(id: u64) -> Handle<T> {
        Handle { manager: 9, id, session: None, element: std::marker::PhantomData }
    }
    let node = Node { next: Some(handle(1)), children: vec![handle(2), handle(3)], padding: 1 };
    let ser = encode::<Node>(&node);
    assert_eq!(ser.handles(), [(9, 1), (9, 2), (9, 3)]);
    let mut count = Ser::count();
    count.put::<Node>(&node).unwrap();
    assert_eq!(count.handles(), ser.handles());
    let archived = access::<Node>(ser.bytes()).unwrap();
    assert!(Node::eq_archived(archived, &node));
    let bound = to_owned::<Node>(archived, Some(std::sync::Arc::new(77u32)));
    assert_eq!((bound.next.unwrap().session, bound.children[1].session, bound.children[1].id), (Some(77), Some(77), 3));
    let unbound = archived.to_owned();
    assert_eq!((unbound.children[0].session, unbound.children[0].manager, unbound.padding), (None, 9, 1));
    assert!(text::<Node>().starts_with("struct Node {next: Option<Handle<#0>>, children: Vec<Handle<struct Tree {"));
}

#[test]
fn any_is_read_and_printed() {
    let any = Any::from([
        ("null", Any::Null),
        ("yes", Any::from(true)),
        ("int", Any::from(-1)),
        ("big", Any::from(u64::MAX)),
        ("half", Any::from(0.5)),
        ("one", Any::from(1.0)),
        ("text", Any::from("a \"quoted\"\nline \u{1}é")),
        ("bytes", Any::from(&[0u8, 65][..])),
        ("list", Any::from(vec![Some(1u8), None])),
    ]);
    let printed = r#"{"big": 18446744073709551615, "bytes": b"\x00A", "half": 0.5, "int": -1, "list": [1, null], "null": null, "one": 1.0, "text": "a \"quoted\"\nline \u0001é", "yes": true}"#;
    assert_eq!(any.to_string(), printed);
    round(any.clone());
    let ser = encode::<Any>(&any);
    let archived = access::<Any>(ser.bytes()).unwrap();
    assert_eq!(archived.to_string(), printed);
    assert_eq!(*archived, any);
    assert_eq!(archived.to_owned(), any);
    assert_eq!(archived.get("int").unwrap().as_i64(), Some(-1));
    assert_eq!(archived.get("int").unwrap().as_u64(), None);
    assert_eq!(archived.get("big").unwrap().as_u64(), Some(u64::MAX));
    assert_eq!(archived.get("big").unwrap().as_i64(), None);
    assert_eq!(archived.get("half").unwrap().as_f64(), Some(0.5));
    assert_eq!(archived.get("yes").unwrap().as_bool(), Some(true));
    assert_eq!(archived.get("bytes").unwrap().as_bytes(), Some(&[0u8, 65][..]));
    assert_eq!(archived.get("list").unwrap().at(0).unwrap().as_i64(), Some(1));
    assert!(archived.get("list").unwrap().at(1).unwrap().is_null());
    assert!(archived.get("list").unwrap().get("x").is_none());
    assert_eq!(archived.as_map().unwrap().len(), 9);
    assert_eq!(Any::Int(5), Any::UInt(5));
    assert_ne!(Any::Int(-1), Any::UInt(u64::MAX));
    assert_ne!(Any::from([("a", 1)]), Any::from([("b", 1)]));
    assert_ne!(Any::from([("a", 1)]), Any::from([("a", 1), ("b", 2)]));
    assert_eq!(Any::default(), Any::from(None::<u8>));
    let many: Any = (0..500).map(|n| (n.to_string(), n)).collect();
    round(many);
}
