//! Proper messages and archives: what the damage begins with.

use crate::{Choice, Handles, Nested, Tables};
use commonhold::{Any, Counter, Dict, Error, ErrorKind, Handle, Manager, Shared};
use commonhold_ipc::auth::Refusal;
use commonhold_ipc::block::Place;
use commonhold_ipc::handshake::{self, ClientHello, Purpose, ServerHello, Versions, Welcome};
use commonhold_ipc::lane::ROOM;
use commonhold_ipc::value::Ser;
use commonhold_ipc::wire::behind::{PlaceBehind, VALUE_BYTES_MIN};
use commonhold_ipc::wire::commit::{CommitWriter, Condition, END, Op, Values};
use commonhold_ipc::wire::reply::{Outcome, write_error};
use commonhold_ipc::wire::{Call, Head, NewObject, Payload, Source, UploadHead, Words};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

/// Frames' heads.
pub fn heads() -> Vec<Vec<u8>> {
    (1..=16).map(|code| Head { len: 100, code, quiet: false, lane: 3, number: 7 }.to_bytes().to_vec()).collect()
}

/// Uploads' heads.
pub fn upload_heads() -> Vec<Vec<u8>> {
    vec![UploadHead { prefix: 16, len: 70_000, handles: 2 }.to_bytes().to_vec()]
}

fn payload(value: &Payload<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.write(&mut bytes);
    bytes
}

/// Requests on a lane, their payload in place: head, where it is, mark, payload.
pub fn lanes() -> Vec<Vec<u8>> {
    let requests = commits().into_iter().map(|payload| {
        let head = Head { len: payload.len() as u32, code: Call::Commit as u8, quiet: false, lane: 1, number: 1 };
        [&head.to_bytes()[..], &0u64.to_le_bytes(), &3u64.to_le_bytes(), &payload].concat()
    });
    // With a value behind the request, in the room.
    let with_values = commits().into_iter().map(|payload| {
        let head = Head { len: payload.len() as u32, code: Call::Commit as u8, quiet: false, lane: 1, number: 1 };
        [&head.to_bytes()[..], &(ROOM | 5_000 << 32).to_le_bytes(), &3u64.to_le_bytes(), &payload].concat()
    });
    let requests = requests.chain(with_values);
    requests.filter(|request| request.len() <= 2048).collect()
}

/// Commits with every condition and operation there is.
pub fn commits() -> Vec<Vec<u8>> {
    let (object, key) = (5, &b"a key that is long"[..]);
    let ids = [7; 16];
    let handles = Words::new(&ids).expect("two ids");
    let inline = Payload { source: Source::Inline(b"a value"), handles };
    let sent = Payload { source: Source::Upload(9), handles: Words::new(&[]).expect("none") };
    let run = [payload(&inline), payload(&sent)].concat();
    let behind = Payload { source: Source::behind(PlaceBehind::new(100, 4_900).expect("a place")), handles };
    let large = [5; VALUE_BYTES_MIN];
    let large_run = [payload(&Payload::inline(&large)), payload(&behind)].concat();
    let conditions = [
        Condition::EntryIs { object, key, block: 4096 },
        Condition::Unmodified { object, modified: 3 },
        Condition::ElementIs { object, position: 2, block: 64 },
        Condition::ElementBytes { object, position: 2, bytes: b"eight..." },
        Condition::LenIs { object, len: 3 },
        Condition::RootIs { object, root: 1 },
    ];
    let ops = [
        Op::Insert { object, key, value: inline, only_if_absent: false, lend: true },
        Op::Insert { object, key, value: sent, only_if_absent: true, lend: false },
        Op::Remove { object, key, lend: true },
        Op::Add { object, key, number: 4, delta: &[1; 8] },
        Op::Clear { object },
        Op::ListSet { object, position: 1, value: inline, lend: true },
        Op::ListRemove { object, position: END, lend: false },
        Op::ListSplice { object, position: END, remove: 2, values: Values::Packed(&[3; 16]) },
        Op::ListSplice { object, position: 0, remove: 0, values: Values::Each(2, &run) },
        Op::ListSwap { object, a: 1, b: 2 },
        Op::ListReverse { object },
        Op::ListPermute { object, from: handles },
        Op::ValueSet { object, value: sent },
        Op::CounterAdd { object, delta: -1 },
        Op::ValueSet { object, value: behind },
        Op::ListSet { object, position: 1, value: Payload { source: Source::Inline(&large), handles }, lend: false },
        Op::ListSplice { object, position: 0, remove: 0, values: Values::Each(2, &large_run) },
    ];
    let write = |conditions: &[Condition<'_>], ops: &[Op<'_>]| {
        let mut writer = CommitWriter::default();
        conditions.iter().for_each(|condition| writer.condition(condition));
        ops.iter().for_each(|op| writer.op(op));
        let mut bytes = Vec::new();
        writer.write(&mut bytes);
        bytes
    };
    let mut all: Vec<Vec<u8>> = ops.iter().map(|op| write(&[], &[*op])).collect();
    all.extend(conditions.iter().map(|condition| write(&[*condition], &[])));
    all.push(write(&conditions, &ops));
    all
}

/// Descriptions of objects.
pub fn new_objects() -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    NewObject { kind: 1, value_align: 8, element_bytes: 0, fingerprint: 77, text: "Dict<String, u64>", parameters: Words::default() }
        .write(&mut bytes);
    vec![bytes]
}

/// Results of operations.
pub fn outcomes() -> Vec<Vec<u8>> {
    let place = Place { offset: 4096, len: 100, birth: 3, block: 4080 };
    let all = [
        Outcome::Nothing,
        Outcome::Lent(place, vec![1, 2]),
        Outcome::Existing(place),
        Outcome::Bytes(vec![1; 9]),
        Outcome::Something,
        Outcome::Number(5),
        Outcome::Text("words".into()),
    ];
    let mut together = Vec::new();
    all.iter().for_each(|outcome| outcome.write(&mut together));
    vec![together]
}

/// Errors of calls.
pub fn errors() -> Vec<Vec<u8>> {
    let write = |kind| {
        let mut bytes = Vec::new();
        write_error(&mut bytes, &Error::new(kind, "what was tried, and why it failed"));
        bytes
    };
    [ErrorKind::NotFound, ErrorKind::Full, ErrorKind::Other, ErrorKind::System].into_iter().map(write).collect()
}

/// Messages of the handshake.
pub fn greetings() -> Vec<Vec<u8>> {
    let versions = Versions::ours(0x1234_5678);
    let hello = ClientHello { versions, purpose: Purpose::Session, pid: 9, nonce: [8; 32], proof: [9; 32], program: "a-program".into() };
    let welcome = Welcome {
        session: 1,
        manager: 2,
        arena_len: 3,
        session_page_len: 4,
        hash_seed: 5,
        options: 6,
        value_bytes_max: 7,
        frame_bytes_max: 8,
        inline_value_bytes_max: 9,
    };
    vec![
        handshake::write_server_hello(&ServerHello { versions, key_demanded: true, nonce: [7; 32] }),
        handshake::write_client_hello(&hello),
        handshake::write_welcome(&welcome, &[3; 32]),
        handshake::write_refusal(Refusal::WrongKey),
        handshake::write_refusal(Refusal::ManagerFull { sessions_max: 5 }),
    ]
}

/// Lines that stand for objects.
pub fn tokens() -> Vec<Vec<u8>> {
    ["commonhold:1f:5:0123456789abcdef:@commonhold-00ff", "commonhold:1:2:3:/run/some%20where/name.sock"]
        .map(|line| line.as_bytes().to_vec())
        .into()
}

/// Addresses.
pub fn addresses() -> Vec<Vec<u8>> {
    ["@commonhold-00ff", "/run/some%20where/%ff.sock", "relative/path"].map(|line| line.as_bytes().to_vec()).into()
}

/// Archives of values.
pub fn archives<T: Shared>(values: &[T]) -> Vec<Vec<u8>> {
    let archive = |value: &T| {
        let mut ser = Ser::buffer();
        let range = ser.put::<T>(value).expect("an example can be stored");
        ser.bytes()[range].to_vec()
    };
    values.iter().map(archive).collect()
}

/// Values of no fixed type.
pub fn anys() -> Vec<Any> {
    let list = Any::from(vec![Any::Null, Any::Bool(true), Any::Int(-1), Any::UInt(u64::MAX), Any::Float(0.5), Any::Bytes(vec![1; 20])]);
    let deep = (0..20).fold(Any::Null, |inner, _| Any::List(vec![inner]));
    vec![Any::from([("list", list.clone()), ("text", Any::from("a text that is long"))]), list, deep]
}

/// Structs in structs.
pub fn nested() -> Vec<Nested> {
    let leaf = Nested {
        number: -1,
        choice: Choice::Two { a: 1, b: vec![1, 2, 3] },
        text: Some("a text that is long".into()),
        more: vec![],
        boxed: None,
        array: [(true, 'x'), (false, '\u{1f600}')],
        long: u128::MAX,
        time: Duration::from_nanos(1_500_000_001),
    };
    let with = |choice| Nested { choice, text: None, ..leaf.clone() };
    let inner = vec![with(Choice::None), with(Choice::One("one".into())), with(Choice::Result(Err("an error of some length".into())))];
    vec![leaf.clone(), Nested { more: inner, boxed: Some(Box::new(leaf.clone())), ..leaf }]
}

/// Tables of all kinds, empty and not.
pub fn tables() -> Vec<Tables> {
    let hashed: HashMap<String, Vec<u32>> = (0..9).map(|n| (format!("key {n}"), vec![n; n as usize])).collect();
    let full = Tables {
        hashed,
        set: HashSet::from_iter(0..20),
        tree: BTreeMap::from_iter((0..40).map(|n| (n, format!("value {n}")))),
        deque: VecDeque::from(["a".to_string(), "b".repeat(20)]),
    };
    vec![full, Tables { hashed: HashMap::new(), set: HashSet::new(), tree: BTreeMap::new(), deque: VecDeque::new() }]
}

/// Values with handles.
pub fn handles() -> Vec<Handles> {
    let manager = Manager::in_process().expect("a manager in a thread");
    let one: Dict<String, u64> = manager.dict([("a".to_string(), 1u64)]).expect("a dict");
    let counter: Counter = manager.counter(1).expect("a counter");
    assert!(counter.id() > 0);
    vec![Handles { one, some: vec![Some(counter), None] }]
}
