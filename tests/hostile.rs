//! Peers that do not behave, against a live manager: each gets an error or a closed connection, and nobody else notices.
//!
//! A raw peer is a socket and what `commonhold_ipc` says about frames. After each of its steps a client that behaves reads and
//! writes; at the end the manager's audit is clean and its descriptors are back.
// Scribbling on a session page needs a writable mapping of it, which `Segment` gives safely.

mod peers_support;

use commonhold::{Any, Dict, ErrorKind, Handle, List, Manager, Namespace, Value};
use commonhold_ipc::auth::{AuthKey, NO_PROOF};
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::handshake::{self, ClientHello, ClientOffer, Purpose, Versions, Welcome};
use commonhold_ipc::limits::FRAME_BYTES_MAX;
use commonhold_ipc::map::{Access, Segment};
use commonhold_ipc::pin::PAGE_BYTES;
use commonhold_ipc::socket::{Channel, Received};
use commonhold_ipc::sys;
use commonhold_ipc::value::ARCHIVE_FORMAT;
use commonhold_ipc::wire::commit::{CommitWriter, Condition, END, Op, Values};
use commonhold_ipc::wire::reply::{Outcome, Status, parse_error};
use commonhold_ipc::wire::{Call, HEAD_BYTES, Head, NewObject, Payload, Reader, Source, UploadHead, Words};
use peers_support::{Choices, Peer, cases, heard, process_manager, say, task, thread_manager};
use proptest::prelude::*;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

commonhold::init_in_tests!();

/// How long a manager may take for an answer before the test calls it hanging.
const PATIENCE: Duration = Duration::from_secs(60);

fn patience() -> Instant {
    Instant::now() + PATIENCE
}

/// A connection that says what it likes.
struct Raw {
    channel: Channel,
    welcome: Welcome,
    fds: Vec<OwnedFd>,
    received: Vec<u8>,
}

/// What came back for a request.
#[derive(Debug)]
enum Answer {
    Done(Vec<Outcome>),
    Conflict,
    Failed(ErrorKind),
    /// The connection is over.
    Closed,
}

impl Drop for Raw {
    /// Says that nothing is read under the pins of its page: else the manager keeps those until this process ends.
    fn drop(&mut self) {
        if let Some(page) = self.fds.get(1) {
            commonhold_ipc::pin::give_up(page);
        }
    }
}

impl Raw {
    fn connect(manager: &Manager) -> Raw {
        let offer = ClientOffer { versions: Versions::ours(ARCHIVE_FORMAT), purpose: Purpose::Session, authkey: None };
        let (channel, welcome, fds) = handshake::connect(manager.address(), &offer, patience()).unwrap();
        Raw { channel, welcome, fds, received: Vec::new() }
    }

    /// Sends all of it, unless the connection is closed before.
    fn send(&self, bytes: &[u8]) {
        if let Err(error) = self.channel.send_all(bytes, &[], patience()) {
            assert!(error.is_disconnected(), "{error}");
        }
    }

    fn request(&self, call: u8, lane: u16, number: u64, payload: &[u8]) {
        self.send(&frame(call, lane, number, payload));
    }

    /// The next frame; none when the connection is over.
    fn next(&mut self) -> Option<(Head, Vec<u8>)> {
        loop {
            if let Some(head) = Head::parse(&self.received) {
                let end = HEAD_BYTES + head.len as usize;
                if self.received.len() >= end {
                    let payload = self.received[HEAD_BYTES..end].to_vec();
                    self.received.drain(..end);
                    return Some((head, payload));
                }
            }
            let mut buffer = [0; 65_536];
            match self.channel.receive_before(&mut buffer, &mut Vec::new(), 0, patience()) {
                Ok(Received::Bytes(count)) => self.received.extend_from_slice(&buffer[..count]),
                Ok(Received::Nothing) => unreachable!("it waits"),
                Ok(Received::Ended) => return None,
                Err(error) if error.is_timed_out() => panic!("the manager hangs: {error}"),
                // Closed with bytes of ours unread.
                Err(_) => return None,
            }
        }
    }

    fn answer(&mut self) -> Answer {
        let Some((head, payload)) = self.next() else { return Answer::Closed };
        let mut read = Reader::new(&payload);
        match Status::from_code(head.code).expect("a status") {
            Status::Conflict => Answer::Conflict,
            Status::Failed => {
                let error = parse_error(&mut read).expect("an error");
                assert!(!error.to_string().is_empty());
                Answer::Failed(error.kind())
            }
            Status::Done => {
                read.u64().expect("a version");
                let mut outcomes = Vec::new();
                while !read.is_empty() {
                    outcomes.push(Outcome::parse(&mut read).expect("an outcome"));
                }
                Answer::Done(outcomes)
            }
        }
    }

    fn call(&mut self, call: Call, payload: &[u8]) -> Answer {
        self.request(call as u8, 1, 1, payload);
        self.answer()
    }

    fn commit(&mut self, ops: &[Op<'_>]) -> Answer {
        self.conditional(&[], ops)
    }

    fn conditional(&mut self, conditions: &[Condition<'_>], ops: &[Op<'_>]) -> Answer {
        self.call(Call::Commit, &commit(conditions, ops))
    }

    fn upload(&self, number: u64, head: UploadHead, bytes: &[u8]) {
        let len = head.len + commonhold_ipc::wire::UPLOAD_HEAD_BYTES as u64;
        self.send(&Head { len: len as u32, code: Call::Upload as u8, quiet: false, lane: 0, number }.to_bytes());
        self.send(&head.to_bytes());
        self.send(bytes);
    }

    fn create(&mut self, kind: Kind, value_align: u8, element_bytes: u32, type_of: (u64, &str)) -> Answer {
        let mut payload = Vec::new();
        NewObject { kind: kind as u8, value_align, element_bytes, fingerprint: type_of.0, text: type_of.1 }.write(&mut payload);
        self.call(Call::Create, &payload)
    }

    /// An object that clients take for a `T`.
    fn made<T: Handle>(&mut self, kind: Kind, value_align: u8, element_bytes: u32) -> u64 {
        let type_of = (commonhold::__rt::fingerprint::<T>(), commonhold::__rt::text::<T>());
        match self.create(kind, value_align, element_bytes, type_of) {
            Answer::Done(outcomes) => match outcomes[..] {
                [Outcome::Number(id)] => id,
                _ => panic!("{outcomes:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    fn publish(&mut self, name: &str, id: u64) {
        let payload = [&id.to_le_bytes()[..], &[1], name.as_bytes()].concat();
        assert!(matches!(self.call(Call::Publish, &payload), Answer::Done(_)));
    }

    /// Waits until the manager has closed the connection, whatever it says before.
    fn closed(&mut self) {
        while self.next().is_some() {}
    }

    fn page(&self) -> Segment {
        Segment::map(&self.fds[1], PAGE_BYTES, Access::ReadWrite).unwrap()
    }
}

fn frame(call: u8, lane: u16, number: u64, payload: &[u8]) -> Vec<u8> {
    let head = Head { len: payload.len() as u32, code: call, quiet: false, lane, number };
    [&head.to_bytes()[..], payload].concat()
}

fn commit(conditions: &[Condition<'_>], ops: &[Op<'_>]) -> Vec<u8> {
    let mut writer = CommitWriter::default();
    conditions.iter().for_each(|condition| writer.condition(condition));
    ops.iter().for_each(|op| writer.op(op));
    let mut payload = Vec::new();
    writer.write(&mut payload);
    payload
}

/// A manager in a process, a client that behaves, and what the manager had open before the hostile peers came.
struct Scene {
    manager: Manager,
    dict: Dict<u64, u64>,
    list: List<String>,
    steps: AtomicU64,
    descriptors: usize,
    process: i32,
}

impl Scene {
    fn new() -> Scene {
        let manager = process_manager();
        let dict = manager.dict([(0u64, 0u64)]).unwrap();
        let list: List<String> = manager.list(["first".to_string()]).unwrap();
        let channel = Channel::connect(manager.address(), patience()).unwrap();
        let process = sys::peer_credentials(&channel).unwrap().pid as i32;
        drop(channel);
        let mut scene = Scene { manager, dict, list, steps: AtomicU64::new(0), descriptors: 0, process };
        scene.quiet();
        scene.descriptors = scene.open_descriptors();
        scene
    }

    fn open_descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process)).unwrap().count()
    }

    /// The client that behaves does its work.
    fn step(&self) {
        let step = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        assert_eq!(self.dict.insert(0, step).unwrap().unwrap(), step - 1);
        assert_eq!(self.dict.get(0).unwrap().unwrap(), step);
        self.list.push(format!("step {step}")).unwrap();
        assert_eq!(self.list.pop().unwrap().unwrap(), format!("step {step}").as_str());
    }

    /// Until only this client is left.
    fn quiet(&self) {
        let until = patience();
        while self.manager.stats().unwrap().sessions > 1 {
            assert!(Instant::now() < until, "sessions stay");
            std::thread::yield_now();
        }
    }

    /// The hostile peers are gone: nothing of them is left.
    fn end(self) {
        self.step();
        self.quiet();
        self.manager.audit().unwrap();
        let until = patience();
        // A peer that did not say it was gone may still read, for all the manager knows: this process lives. Two descriptors each.
        let expected = || self.descriptors + 2 * self.manager.stats().unwrap().lingering as usize;
        assert!(self.manager.stats().unwrap().lingering <= 8, "{:?}", self.manager.stats());
        while self.open_descriptors() > expected() {
            assert!(Instant::now() < until, "{} descriptors of {} stay", self.open_descriptors(), self.descriptors);
            std::thread::yield_now();
        }
        let until = patience();
        while self.manager.stats().unwrap().objects > 2 {
            assert!(Instant::now() < until, "objects stay: {:?}", self.manager.stats());
            std::thread::yield_now();
        }
        assert_eq!(self.manager.stats().unwrap().retired_bytes, 0);
        self.manager.audit().unwrap();
    }
}

fn hello(versions: Versions, purpose: u8) -> Vec<u8> {
    let hello = ClientHello {
        versions,
        purpose: Purpose::Session,
        pid: std::process::id(),
        nonce: [1; 32],
        proof: NO_PROOF,
        program: "raw".into(),
    };
    let mut bytes = handshake::write_client_hello(&hello);
    bytes[12] = purpose;
    bytes
}

/// Sends bytes instead of a proper hello. Returns what the manager says after its own, until it closes.
fn greet_with(manager: &Manager, bytes: &[u8]) -> Vec<u8> {
    let channel = Channel::connect(manager.address(), patience()).unwrap();
    if let Err(error) = channel.send_all(bytes, &[], patience()) {
        assert!(error.is_disconnected(), "{error}");
    }
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Received::Bytes(count)) = channel.receive_before(&mut buffer, &mut Vec::new(), 0, patience()) {
        said.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(said[..8], handshake::MAGIC);
    said.split_off(handshake::SERVER_HELLO_BYTES)
}

#[test]
fn handshakes_that_are_none() {
    let scene = Scene::new();
    let ours = Versions::ours(ARCHIVE_FORMAT);
    let wrong = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 160],
        vec![0xff; 1 << 20],
        hello(Versions { protocol: 99, ..ours }, 1),
        hello(Versions { layout: 99, ..ours }, 1),
        hello(Versions { archive_format: 99, ..ours }, 1),
        hello(ours, 0),
        hello(ours, 3),
        [hello(ours, 1), vec![0]].concat(),
    ];
    for bytes in wrong {
        let refusal = greet_with(&scene.manager, &bytes);
        assert!(matches!(handshake::parse_reply(&refusal), Ok(Some((handshake::Reply::Refused { .. }, _)))), "{refusal:?}");
        scene.step();
    }
    // Every beginning of a proper one, then the end.
    let whole = hello(ours, 1);
    for len in 0..whole.len() {
        let channel = Channel::connect(scene.manager.address(), patience()).unwrap();
        channel.send(&whole[..len]).unwrap();
        drop(channel);
    }
    scene.step();
    // Enters, and leaves without taking its welcome.
    for _ in 0..20 {
        let channel = Channel::connect(scene.manager.address(), patience()).unwrap();
        channel.send(&whole).unwrap();
        drop(channel);
        scene.step();
    }
    scene.end();
}

/// Who goes before it has begun to read anything holds nothing, though its process lives.
#[test]
fn who_never_reads_does_not_linger() {
    let scene = Scene::new();
    for _ in 0..30 {
        let channel = Channel::connect(scene.manager.address(), patience()).unwrap();
        channel.send(&hello(Versions::ours(ARCHIVE_FORMAT), 1)).unwrap();
        // Its welcome arrives, the descriptors with it are not taken.
        let mut left = handshake::SERVER_HELLO_BYTES + handshake::WELCOME_BYTES;
        while left > 0 {
            match channel.receive_before(&mut [0; 256], &mut Vec::new(), 0, patience()) {
                Ok(Received::Bytes(count)) => left -= count,
                other => panic!("{other:?}"),
            }
        }
    }
    scene.quiet();
    assert_eq!(scene.manager.stats().unwrap().lingering, 0);
    scene.end();
}

#[test]
fn keys_that_are_wrong() {
    let manager = Manager::builder().capacity(64 << 20).authkey("a key that is right").start().unwrap();
    let list: List<u8> = manager.list([1u8]).unwrap();
    let address = manager.address().to_string();
    for key in [Some("a key that is wrong"), None] {
        let mut builder = Manager::builder();
        if let Some(key) = key {
            builder = builder.authkey(key);
        }
        // A process without a session of its own with that manager.
        let offer = ClientOffer {
            versions: Versions::ours(ARCHIVE_FORMAT),
            purpose: Purpose::Session,
            authkey: key.map(|key| AuthKey::new(key).unwrap()).as_ref().map(|key| &*Box::leak(Box::new(key.clone()))),
        };
        let refused = handshake::connect(manager.address(), &offer, patience()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
        assert!(refused.to_string().contains("key"), "{refused}");
        drop(builder);
        list.push(1).unwrap();
    }
    let key = AuthKey::new("a key that is right").unwrap();
    let offer = ClientOffer { versions: Versions::ours(ARCHIVE_FORMAT), purpose: Purpose::Session, authkey: Some(&key) };
    handshake::connect(manager.address(), &offer, patience()).unwrap();
    assert!(Manager::connect(&address).unwrap().is_alive());
    manager.audit().unwrap();
}

/// A conversation that uses most calls: what is cut short at every byte.
fn conversation(dict: u64, list: u64) -> Vec<u8> {
    let mut new = Vec::new();
    NewObject { kind: Kind::List as u8, value_align: 0, element_bytes: 8, fingerprint: 1, text: "List<u64>" }.write(&mut new);
    let value = Payload::inline(&[1, 2, 3, 4, 5, 6, 7, 8]);
    let insert = Op::Insert { object: dict, key: &[9; 8], value, only_if_absent: false, lend: true };
    let splice = Op::ListSplice { object: list, position: END, remove: 0, values: Values::Each(1, &[0, 2, 0, 0, 0, 7, 7, 0, 0, 0, 0]) };
    let sent = Payload { source: Source::Upload(5), handles: Words::new(&[]).unwrap() };
    let upload = UploadHead { prefix: 16, len: 100, handles: 0 };
    [
        frame(Call::Create as u8, 1, 1, &new),
        frame(Call::Retain as u8, 1, 2, &dict.to_le_bytes()),
        frame(Call::Commit as u8, 1, 3, &commit(&[], &[insert, splice])),
        frame(Call::Upload as u8, 0, 5, &[&upload.to_bytes()[..], &[3; 100]].concat()),
        frame(Call::Commit as u8, 1, 4, &commit(&[], &[Op::ListSet { object: list, position: 0, value: sent, lend: true }])),
        frame(Call::Publish as u8, 1, 5, &[&list.to_le_bytes()[..], b"\x01raw"].concat()),
        frame(Call::Lookup as u8, 1, 6, b"raw"),
        frame(Call::Unpublish as u8, 1, 7, b"raw"),
        frame(Call::Arm as u8, 1, 8, &list.to_le_bytes()),
        frame(Call::Commit as u8, 1, 9, &commit(&[], &[Op::ListRemove { object: list, position: END, lend: true }])),
        frame(Call::Commit as u8, 1, 10, &commit(&[], &[Op::Remove { object: dict, key: &[9; 8], lend: true }])),
        frame(Call::Release as u8, 0, 0, &dict.to_le_bytes()),
        frame(Call::Discard as u8, 0, 0, &5u64.to_le_bytes()),
        frame(Call::Names as u8, 1, 11, &[]),
        frame(Call::Ticket as u8, 1, 12, &[]),
        frame(Call::TicketBack as u8, 0, 0, &[]),
    ]
    .concat()
}

#[test]
fn every_truncation_of_a_conversation() {
    let scene = Scene::new();
    let (dict, list): (Dict<u64, u64>, List<String>) =
        (scene.manager.dict([(1u64, 1u64)]).unwrap(), scene.manager.list(["x".to_string()]).unwrap());
    let whole = conversation(dict.id(), list.id());
    let stride = if std::env::var_os("COMMONHOLD_CASES").is_some() { 1 } else { 3 };
    for len in (0..whole.len()).step_by(stride).chain([whole.len()]) {
        let raw = Raw::connect(&scene.manager);
        raw.send(&whole[..len]);
        drop(raw);
        if len % 16 == 0 {
            scene.step();
        }
    }
    // In small pieces it means the same.
    let mut raw = Raw::connect(&scene.manager);
    for byte in &whole {
        raw.send(&[*byte]);
    }
    let mut answers = Vec::new();
    for _ in 0..12 {
        answers.push(raw.answer());
    }
    assert!(answers.iter().all(|answer| matches!(answer, Answer::Done(_) | Answer::Failed(_))), "{answers:?}");
    drop((raw, dict, list));
    scene.end();
}

#[test]
fn frames_of_impossible_lengths_and_calls() {
    let scene = Scene::new();
    for len in [FRAME_BYTES_MAX as u32 + 1, u32::MAX] {
        for call in 1..=16u8 {
            if call == Call::Upload as u8 {
                continue;
            }
            let mut raw = Raw::connect(&scene.manager);
            raw.send(&Head { len, code: call, quiet: false, lane: 1, number: 1 }.to_bytes());
            raw.closed();
        }
        scene.step();
    }
    for call in [0u8, 17, 99, 255] {
        let mut raw = Raw::connect(&scene.manager);
        raw.request(call, 1, 1, &[]);
        raw.closed();
        scene.step();
    }
    // Payloads that are too short or too long for their call.
    let nothing: &[Call] = &[Call::Commit, Call::Create, Call::Retain, Call::Publish, Call::Arm];
    for call in nothing {
        for payload in [&[][..], &[0xff; 7], &[0xff; 9], &[0xff; 1000]] {
            let mut raw = Raw::connect(&scene.manager);
            raw.request(*call as u8, 1, 1, payload);
            if !matches!((call, raw.answer()), (Call::Publish, Answer::Failed(_)) | (_, Answer::Closed)) {
                panic!("{call:?} with {payload:?} was answered");
            }
        }
        scene.step();
    }
    for call in [Call::Release, Call::Discard] {
        let mut raw = Raw::connect(&scene.manager);
        raw.request(call as u8, 1, 1, &[1; 7]);
        raw.closed();
    }
    scene.end();
}

#[test]
fn operations_on_the_wrong_objects() {
    let scene = Scene::new();
    let manager = &scene.manager;
    let (dict, list): (Dict<u64, u64>, List<u64>) = (manager.dict([(1u64, 1u64)]).unwrap(), manager.list([1u64]).unwrap());
    let (value, counter, space) = (manager.value(1u8).unwrap(), manager.counter(1).unwrap(), manager.namespace().unwrap());
    let dead = {
        let gone = manager.counter(1).unwrap();
        gone.id()
    };
    let mut raw = Raw::connect(manager);
    let ids = [dict.id(), list.id(), value.id(), counter.id(), space.id(), dead, 0, 1 << 28, u64::MAX];
    let payload = Payload::inline(&[1; 8]);
    let unknown = Payload { source: Source::Upload(77), handles: Words::new(&[]).unwrap() };
    let holding = [u64::MAX.to_le_bytes(), dead.to_le_bytes()].concat();
    let holding = Payload { source: Source::Inline(&[1; 8]), handles: Words::new(&holding).unwrap() };
    let big_key = vec![7; (1 << 20) + 1];
    let far = [u64::MAX - 1, END, 1, 2, 1 << 40];
    let mut answered = 0;
    for object in ids {
        let mut ops = vec![
            Op::Clear { object },
            Op::ListReverse { object },
            Op::CounterAdd { object, delta: i64::MAX },
            Op::CounterAdd { object, delta: i64::MIN },
            Op::Remove { object, key: &[], lend: true },
            Op::Add { object, key: &[], number: 255, delta: &[1; 300] },
            Op::Add { object, key: &[1, 0, 0, 0, 0, 0, 0, 0], number: 3, delta: &[] },
            Op::Add { object, key: &[1, 0, 0, 0, 0, 0, 0, 0], number: 5, delta: &[1; 16] },
            Op::Insert { object, key: &big_key, value: payload, only_if_absent: false, lend: true },
            Op::ListPermute { object, from: Words::new(&[]).unwrap() },
            Op::ListPermute { object, from: Words::new(&[0xff; 8]).unwrap() },
            Op::ListPermute { object, from: Words::new(&[0; 16]).unwrap() },
            Op::ListPermute { object, from: Words::new(&[0; 80]).unwrap() },
        ];
        for value in [payload, unknown, holding] {
            ops.push(Op::ValueSet { object, value });
            ops.push(Op::Insert { object, key: &[], value, only_if_absent: false, lend: true });
            ops.push(Op::ListSet { object, position: 0, value, lend: true });
        }
        for position in far {
            ops.push(Op::ListRemove { object, position, lend: true });
            ops.push(Op::ListSwap { object, a: position, b: 0 });
            ops.push(Op::ListSet { object, position, value: payload, lend: true });
            ops.push(Op::ListSplice { object, position, remove: u64::MAX, values: Values::Packed(&[1; 7]) });
            ops.push(Op::ListSplice { object, position, remove: u64::MAX, values: Values::Packed(&[]) });
            ops.push(Op::ListSplice { object, position, remove: 0, values: Values::Each(0, &[]) });
        }
        for op in &ops {
            assert!(!matches!(raw.commit(&[*op]), Answer::Closed), "{op:?}");
            // After one that changes something and before one that fails: all or nothing.
            raw.commit(&[Op::Clear { object: list.id() }, *op, Op::Clear { object: dead }]);
            answered += 1;
        }
        for condition in [
            Condition::EntryIs { object, key: &[], block: 1 },
            Condition::Unmodified { object, modified: u64::MAX },
            Condition::ElementIs { object, position: u64::MAX, block: 1 },
            Condition::ElementBytes { object, position: END, bytes: &[] },
            Condition::LenIs { object, len: u64::MAX },
            Condition::RootIs { object, root: u64::MAX },
        ] {
            assert!(matches!(raw.conditional(&[condition], &[]), Answer::Conflict), "{condition:?}");
        }
        scene.step();
    }
    assert!(answered > 300);
    for call in [Call::Retain, Call::Arm] {
        assert!(!matches!(raw.call(call, &u64::MAX.to_le_bytes()), Answer::Closed));
    }
    // Lets go what it never held.
    raw.request(Call::Release as u8, 0, 0, &[list.id().to_le_bytes(), u64::MAX.to_le_bytes()].concat());
    scene.step();
    assert!(list.is_empty().is_ok() && dict.len().is_ok());
    drop((raw, dict, list, value, counter, space));
    scene.end();
}

#[test]
fn counts_that_are_not_there() {
    let scene = Scene::new();
    let object = scene.list.id();
    let values = |count: u32| {
        let mut bytes = Vec::new();
        Op::ListSplice { object, position: END, remove: 0, values: Values::Each(count, &[0; 9]) }.write(&mut bytes);
        bytes
    };
    let payloads = [
        [u32::MAX.to_le_bytes(), 0u32.to_le_bytes()].concat(),
        [0u32.to_le_bytes(), u32::MAX.to_le_bytes()].concat(),
        [&0u32.to_le_bytes()[..], &1u32.to_le_bytes(), &values(u32::MAX)].concat(),
        [&0u32.to_le_bytes()[..], &1u32.to_le_bytes(), &values(0)].concat(),
        [&0u32.to_le_bytes()[..], &2u32.to_le_bytes(), &values(1)].concat(),
        [&0u32.to_le_bytes()[..], &0u32.to_le_bytes(), &values(1)].concat(),
    ];
    for payload in payloads {
        let mut raw = Raw::connect(&scene.manager);
        assert!(matches!(raw.call(Call::Commit, &payload), Answer::Closed), "{payload:?}");
        scene.step();
    }
    scene.end();
}

#[test]
fn uploads_that_never_come_or_fit() {
    let scene = Scene::new();
    let list: List<Vec<u8>> = scene.manager.list([vec![1u8]]).unwrap();
    let dict: Dict<u64, Vec<u8>> = scene.manager.dict([(1u64, vec![1u8])]).unwrap();
    let sent = |number| Payload { source: Source::Upload(number), handles: Words::new(&[]).unwrap() };
    let of = |prefix, len| UploadHead { prefix, len, handles: 0 };
    // Announced and not sent, or not all of it.
    for share in [0, 1, 100_000] {
        let raw = Raw::connect(&scene.manager);
        raw.upload(1, of(16, 1 << 20), &vec![1; share]);
        scene.step();
        drop(raw);
    }
    let mut raw = Raw::connect(&scene.manager);
    // Wrong room before it, the same number twice in one commit, in two commits, for two kinds of things.
    raw.upload(1, of(0, 100), &[1; 100]);
    assert!(matches!(raw.commit(&[Op::ListSet { object: list.id(), position: 0, value: sent(1), lend: true }]), Answer::Failed(_)));
    assert!(matches!(raw.commit(&[Op::ListSet { object: list.id(), position: 0, value: sent(1), lend: true }]), Answer::Failed(_)));
    for twice in 0..3 {
        raw.upload(2, of(16, 100), &[1; 100]);
        let set = Op::ListSet { object: list.id(), position: 0, value: sent(2), lend: true };
        let insert = Op::Insert { object: dict.id(), key: &[2; 8], value: sent(2), only_if_absent: twice == 1, lend: true };
        let ops = if twice == 2 { [insert, set] } else { [set, insert] };
        assert!(matches!(raw.commit(&ops), Answer::Failed(_)));
        scene.step();
        scene.manager.audit().unwrap();
    }
    // The same number again before it is used; discarded; discarded while unknown.
    raw.upload(3, of(16, 100_000), &[1; 100_000]);
    raw.upload(3, of(16, 100), &[2; 100]);
    raw.request(Call::Discard as u8, 0, 0, &[4u64.to_le_bytes(), 3u64.to_le_bytes(), 3u64.to_le_bytes()].concat());
    assert!(matches!(raw.commit(&[Op::ListSet { object: list.id(), position: 0, value: sent(3), lend: true }]), Answer::Failed(_)));
    // Empty, and more of them than a session may have.
    raw.upload(5, of(16, 0), &[]);
    assert!(matches!(raw.commit(&[Op::ListSet { object: list.id(), position: 0, value: sent(5), lend: false }]), Answer::Done(_)));
    for number in 100..100 + 4096 + 10 {
        raw.upload(number, of(16, 10), &[1; 10]);
    }
    assert!(matches!(raw.commit(&[Op::ListSet { object: list.id(), position: 0, value: sent(100), lend: false }]), Answer::Done(_)));
    let last = raw.commit(&[Op::ListSet { object: list.id(), position: 0, value: sent(4200), lend: false }]);
    assert!(matches!(last, Answer::Failed(ErrorKind::Full)), "{last:?}");
    scene.manager.audit().unwrap();
    // More handles behind it than it was announced with, and heads that contradict themselves.
    let handles = [scene.list.id().to_le_bytes(); 100].concat();
    raw.upload(7, of(16, 10), &[1; 10]);
    let value = Payload { source: Source::Upload(7), handles: Words::new(&handles).unwrap() };
    assert!(matches!(raw.commit(&[Op::ListSet { object: list.id(), position: 0, value, lend: false }]), Answer::Failed(_)));
    for head in [of(u64::from(u32::MAX), 10), UploadHead { prefix: 16, len: 10, handles: u32::MAX }, of((1 << 20) + 65, 10)] {
        raw.upload(8, head, &[1; 10]);
        assert!(matches!(raw.commit(&[Op::ListSet { object: list.id(), position: 0, value: sent(8), lend: false }]), Answer::Failed(_)));
    }
    // Larger than the manager may have: thrown away as it comes.
    let mut huge = Raw::connect(&scene.manager);
    huge.upload(1, of(16, 1 << 30), &vec![1; 1 << 20]);
    scene.step();
    drop(huge);
    huge = Raw::connect(&scene.manager);
    huge.send(&Head { len: 50, code: Call::Upload as u8, quiet: false, lane: 0, number: 1 }.to_bytes());
    huge.send(&of(16, 10_000).to_bytes());
    huge.closed();
    drop((raw, list, dict));
    scene.end();
}

#[test]
fn a_page_full_of_nonsense() {
    let scene = Scene::new();
    let mut choices = Choices(0x5eed_0001);
    let mut raw = Raw::connect(&scene.manager);
    let page = raw.page();
    for round in 0..60u64 {
        for word in 0..(PAGE_BYTES / 8) {
            let value = match choices.below(6) {
                0 => 0,
                1 => u64::MAX,
                2 => scene.manager.version() + choices.below(100),
                3 => choices.below(scene.manager.version() + 1),
                _ => choices.below(u64::MAX),
            };
            if round % 4 != 0 || word == round % 2 {
                page.word(word as usize * 8).store(value, Ordering::Relaxed);
            }
        }
        scene.step();
        assert!(matches!(raw.call(Call::Stats, &[]), Answer::Done(_)));
        // Lent values on lanes that are none.
        let op = Op::Insert { object: scene.dict.id(), key: &[9; 8], value: Payload::inline(&[1; 8]), only_if_absent: false, lend: true };
        raw.request(Call::Commit as u8, choices.below(65_536) as u16, u64::MAX - round, &commit(&[], &[op]));
        assert!(matches!(raw.answer(), Answer::Done(_)));
    }
    page.word(0).store(u64::MAX, Ordering::Relaxed);
    page.word(8).store(1, Ordering::Relaxed);
    for _ in 0..2000 {
        scene.step();
    }
    let held = scene.manager.stats().unwrap();
    assert_eq!(held.oldest_pin, Some(1), "its own floor holds what came since");
    drop((raw, page));
    scene.dict.remove(u64::from_le_bytes([9; 8])).unwrap();
    scene.end();
}

/// Frames of the manager's own one-way calls carry the number of the lane that all threads share: they end nothing there.
#[test]
fn what_is_lent_stays_lent_through_one_way_calls() {
    let scene = Scene::new();
    let dict: Dict<u64, Vec<u8>> = scene.manager.dict([(u64::from_le_bytes([9; 8]), vec![1u8; 1000])]).unwrap();
    let mut raw = Raw::connect(&scene.manager);
    let op = Op::Remove { object: dict.id(), key: &[9; 8], lend: true };
    raw.request(Call::Commit as u8, 0, 1, &commit(&[], &[op]));
    let Answer::Done(outcomes) = raw.answer() else { panic!("not removed") };
    assert!(matches!(outcomes[..], [Outcome::Lent(..)]));
    let lent = || scene.manager.stats().unwrap().oldest_pin.is_some();
    assert!(lent());
    for (call, payload) in [(Call::Release, &[][..]), (Call::Discard, &[]), (Call::TicketBack, &[])] {
        raw.request(call as u8, 0, 0, payload);
        assert!(matches!(raw.call(Call::Names, &[]), Answer::Done(_)), "done with what came before");
        assert!(lent(), "{call:?}");
    }
    raw.request(Call::Names as u8, 0, 2, &[]);
    raw.answer();
    assert!(!lent());
    drop((raw, dict));
    scene.end();
}

#[test]
fn floods_of_descriptors() {
    let scene = Scene::new();
    let file = std::fs::File::open("/dev/null").unwrap();
    let fds = [file.as_fd(); 4];
    let channel = Channel::connect(scene.manager.address(), patience()).unwrap();
    for byte in hello(Versions::ours(ARCHIVE_FORMAT), 1) {
        channel.send_all(&[byte], &fds, patience()).unwrap();
    }
    let raw = Raw::connect(&scene.manager);
    let stats = frame(Call::Stats as u8, 1, 1, &[]);
    for _ in 0..200 {
        raw.channel.send_all(&stats, &fds, patience()).unwrap();
    }
    let upload = UploadHead { prefix: 16, len: 100_000, handles: 0 };
    raw.send(&Head { len: 100_016, code: Call::Upload as u8, quiet: false, lane: 0, number: 1 }.to_bytes());
    raw.send(&upload.to_bytes());
    for _ in 0..100 {
        raw.channel.send_all(&[1; 500], &fds, patience()).unwrap();
    }
    scene.step();
    scene.quiet_but(2);
    drop((raw, channel));
    scene.end();
}

impl Scene {
    /// Until so many more sessions are left.
    fn quiet_but(&self, others: u64) {
        let until = patience();
        while self.manager.stats().unwrap().sessions > 1 + others {
            assert!(Instant::now() < until, "sessions stay");
            std::thread::yield_now();
        }
        assert!(self.open_descriptors() <= self.descriptors + 3 * others as usize, "{} descriptors", self.open_descriptors());
    }
}

#[test]
fn crowds_that_connect_and_hang() {
    let scene = Scene::new();
    let crowd: Vec<Channel> = (0..300).map(|_| Channel::connect(scene.manager.address(), patience()).unwrap()).collect();
    scene.step();
    // Who means it still gets in.
    for _ in 0..10 {
        let mut raw = Raw::connect(&scene.manager);
        assert!(matches!(raw.call(Call::Names, &[]), Answer::Done(_)));
        scene.step();
    }
    drop(crowd);
    scene.end();
}

#[test]
fn one_who_never_reads() {
    let scene = Scene::new();
    let raw = Raw::connect(&scene.manager);
    let stats = frame(Call::Stats as u8, 1, 1, &[]);
    let many = stats.repeat(1000);
    // Until the manager takes no more: its answers fill the socket and then its own buffer.
    let mut sent = 0usize;
    let mut idle = 0;
    while idle < 200 {
        match raw.channel.send(&many[sent % stats.len()..]).unwrap() {
            0 => idle += 1,
            count => (sent, idle) = (sent + count, 0),
        }
        scene.step();
    }
    assert!(sent < 64 << 20, "{sent} bytes of requests were taken");
    // Reads after all: everything is answered.
    let mut raw = raw;
    for _ in 0..sent / stats.len() {
        assert!(matches!(raw.answer(), Answer::Done(_)));
    }
    raw.send(&stats[sent % stats.len()..]);
    drop(raw);
    scene.end();
}

#[test]
fn one_who_is_stopped_in_the_middle_of_a_frame() {
    let scene = Scene::new();
    let mut peer = Peer::spawn("role_half_a_frame", scene.manager.address());
    assert_eq!(peer.hear(), "half");
    peer.stop();
    for _ in 0..100 {
        scene.step();
    }
    peer.go_on();
    assert_eq!(peer.ask("rest"), "answered");
    peer.tell("half again");
    assert_eq!(peer.hear(), "half");
    peer.stop();
    scene.step();
    drop(peer);
    scene.end();
}

#[test]
fn role_half_a_frame() {
    let Some(address) = task() else { return };
    let offer = ClientOffer { versions: Versions::ours(ARCHIVE_FORMAT), purpose: Purpose::Session, authkey: None };
    let (channel, welcome, fds) = handshake::connect(&address.parse().unwrap(), &offer, patience()).unwrap();
    let mut raw = Raw { channel, welcome, fds, received: Vec::new() };
    assert!(raw.welcome.session > 0);
    let stats = frame(Call::Stats as u8, 1, 1, &[]);
    loop {
        raw.send(&stats[..7]);
        say("half");
        if heard().is_none() {
            return;
        }
        raw.send(&stats[7..]);
        assert!(matches!(raw.answer(), Answer::Done(_)));
        say("answered");
        if heard().is_none() {
            return;
        }
    }
}

#[test]
fn tickets_that_are_hoarded() {
    let scene = Scene::new();
    let mut raw = Raw::connect(&scene.manager);
    for number in 0..50 {
        raw.request(Call::Ticket as u8, number, 1, &[]);
    }
    assert!(matches!(raw.answer(), Answer::Done(_)));
    let start = Instant::now();
    scene.step();
    // Four commits, each behind one ticket's time at the most, and not behind all fifty (ten seconds).
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    drop(raw);
    scene.end();
}

#[test]
fn objects_that_are_not_what_they_say() {
    let scene = Scene::new();
    let manager = &scene.manager;
    let mut raw = Raw::connect(manager);
    // Descriptions that no client sends.
    for (kind, align, bytes) in
        [(Kind::Dict, 0, 0), (Kind::Dict, 3, 0), (Kind::Dict, 255, 0), (Kind::List, 0, u32::MAX), (Kind::List, 0, 4096)]
    {
        assert!(matches!(raw.create(kind, align, bytes, (1, "x")), Answer::Failed(_)), "{kind:?} {align} {bytes}");
    }
    assert!(matches!(raw.create(Kind::List, 0, 8, (1, &"x".repeat(70_000))), Answer::Failed(ErrorKind::TooLarge)));
    // A value that was never set.
    let id = raw.made::<Value<String>>(Kind::Value, 0, 0);
    raw.publish("unset", id);
    let unset: Value<String> = manager.open("unset").unwrap();
    assert_eq!(unset.get().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(unset.update(|_| {}).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(unset.compare_exchange(&"a".into(), "b").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(manager.transaction(|tx| tx.value(&unset).map(|_| ())).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(unset.at(&manager.snapshot().unwrap()).is_none() && !unset.to_string().is_empty());
    unset.set("set after all").unwrap();
    assert_eq!(unset.get().unwrap(), "set after all");
    scene.step();
    // Elements of a size that is not the type's.
    let id = raw.made::<List<u64>>(Kind::List, 0, 1);
    raw.publish("small", id);
    assert!(matches!(
        raw.commit(&[Op::ListSplice { object: id, position: END, remove: 0, values: Values::Packed(&[1, 2]) }]),
        Answer::Done(_)
    ));
    let small: List<u64> = manager.open("small").unwrap();
    assert_eq!(small.get(0).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(small.index_of(&1).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(small.sort().unwrap_err().kind(), ErrorKind::Corrupt);
    // Attributes without their heads.
    let id = raw.made::<Namespace>(Kind::Namespace, 16, 0);
    raw.publish("space", id);
    for (key, bytes) in
        [(&b"a\xff\xff\xff\xff\xff\xff\xff"[..], &[][..]), (b"b\xff\xff\xff\xff\xff\xff\xff", &[0xff; 100]), (b"\xfe\xff", &[1; 16])]
    {
        let op = Op::Insert { object: id, key, value: Payload::inline(bytes), only_if_absent: false, lend: true };
        assert!(matches!(raw.commit(&[op]), Answer::Done(_)));
    }
    let space: Namespace = manager.open("space").unwrap();
    for name in ["a", "b"] {
        let kind = space.get::<String>(name).err().map(|error| error.kind());
        assert!(kind.is_none_or(|kind| matches!(kind, ErrorKind::Corrupt | ErrorKind::WrongType)), "{name}: {kind:?}");
    }
    assert_eq!(space.names().unwrap_err().kind(), ErrorKind::Corrupt);
    for name in ["unset", "small", "space"] {
        manager.unpublish(name).unwrap();
    }
    drop((unset, small, space, raw));
    scene.end();
}

/// Archives that no serialiser of ours writes, stored through the wire: reading gives `Corrupt`.
#[test]
fn corrupt_and_bottomless_archives() {
    let scene = Scene::new();
    let manager = &scene.manager;
    let dict: Dict<u64, Any> = manager.dict([(0u64, Any::Null)]).unwrap();
    let texts: Dict<u64, Vec<String>> = manager.dict([(0u64, vec!["a".repeat(30), "b".into()])]).unwrap();
    let mut raw = Raw::connect(manager);
    let mut put = |object: u64, bytes: &[u8]| {
        let value = Payload::inline(bytes);
        let op = Op::Insert { object, key: &1u64.to_le_bytes(), value, only_if_absent: false, lend: false };
        assert!(matches!(raw.commit(&[op]), Answer::Done(_)));
    };
    // Nested as deeply as 60 kB go. The serialiser itself refuses such, so it is put together by hand: each level is a list of
    // one element, which lies before it.
    let level = archive(&Any::List(vec![Any::Null]));
    let size = std::mem::size_of::<commonhold::ArchivedAny>();
    assert_eq!(level.len(), 2 * size);
    let mut bottomless = level[..size].to_vec();
    while bottomless.len() + size <= 60_000 {
        bottomless.extend_from_slice(&level[size..]);
    }
    put(dict.id(), &bottomless);
    assert_eq!(dict.get(1).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(dict.update(1, |old| old).unwrap_err().kind(), ErrorKind::Corrupt);
    // One level that points at itself.
    let mut circle = level[size..].to_vec();
    for offset in 0..size - 3 {
        let mut one = circle.clone();
        one[offset..offset + 4].copy_from_slice(&0i32.to_le_bytes());
        put(dict.id(), &one);
        let _ = dict.get(1).map(|value| value.map(|value| value.to_string()));
    }
    circle.fill(0xff);
    put(dict.id(), &circle);
    assert_eq!(dict.get(1).unwrap_err().kind(), ErrorKind::Corrupt);
    // Every byte of a proper one changed, and every truncation.
    let proper = archive(&vec!["a".repeat(30), "b".to_string(), "c".repeat(9)]);
    let mut corrupt = 0;
    for at in 0..proper.len() {
        for change in [1u8, 0x80, 0xff] {
            let mut bytes = proper.clone();
            bytes[at] ^= change;
            put(texts.id(), &bytes);
            match texts.get(1) {
                Ok(value) => assert!(!format!("{value:?}").is_empty()),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt);
                    corrupt += 1;
                }
            }
        }
        put(texts.id(), &proper[..at]);
        let _ = texts.get(1).map(|value| value.map(|value| value.to_owned()));
    }
    assert!(corrupt > proper.len());
    scene.step();
    drop((raw, dict, texts));
    scene.end();
}

fn archive<T: commonhold::Shared>(value: &T) -> Vec<u8> {
    let mut ser = commonhold::__rt::Ser::buffer();
    let range = ser.put::<T>(value).unwrap();
    ser.bytes()[range].to_vec()
}

/// Requests that are well-formed, of nonsense; or not even that.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let id = prop_oneof![0..8u64, any::<u64>()];
    let bytes = proptest::collection::vec(any::<u8>(), 0..40);
    let random = (0..20u8, any::<u16>(), any::<u64>(), proptest::collection::vec(any::<u8>(), 0..64))
        .prop_map(|(call, lane, number, payload)| frame(if call == 13 { 1 } else { call }, lane, number, &payload));
    let op = (0..12u8, id, any::<u64>(), bytes.clone(), bytes).prop_map(|(code, object, n, key, value)| {
        let payload = Payload::inline(&value);
        let position = n % 4;
        let whole = value.len() / 8 * 8;
        let from = Words::new(&value[..whole]).unwrap();
        let op = match code {
            0 => Op::Insert { object, key: &key, value: payload, only_if_absent: n % 2 == 0, lend: n % 3 == 0 },
            1 => Op::Remove { object, key: &key, lend: n % 2 == 0 },
            2 => Op::Add { object, key: &key, number: n as u8, delta: &value },
            3 => Op::Clear { object },
            4 => Op::ListSet { object, position, value: payload, lend: n % 2 == 0 },
            5 => Op::ListRemove { object, position, lend: n % 2 == 0 },
            6 => Op::ListSplice { object, position, remove: n, values: Values::Packed(&value) },
            7 => Op::ListSwap { object, a: position, b: n % 3 },
            8 => Op::ListReverse { object },
            9 => Op::ListPermute { object, from },
            10 => Op::ValueSet { object, value: payload },
            _ => Op::CounterAdd { object, delta: n as i64 },
        };
        frame(Call::Commit as u8, 1, n, &commit(&[], &[op, op]))
    });
    let damaged = (op.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut bytes, at, value)| {
        let at = at.index(bytes.len());
        bytes[at] = value;
        bytes
    });
    prop_oneof![3 => op, 2 => damaged, 1 => random]
}

#[test]
fn frames_at_random() {
    let scene = Scene::new();
    let manager = &scene.manager;
    // Objects with low ids to hit, of which the contents are anybody's.
    let (dict, list): (Dict<String, u64>, List<u64>) = (manager.dict([("a".to_string(), 1u64)]).unwrap(), manager.list([1u64, 2]).unwrap());
    let (value, counter) = (manager.value("x".to_string()).unwrap(), manager.counter(1).unwrap());
    let config = ProptestConfig { cases: cases(150), failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&proptest::collection::vec(any_frame(), 1..30), |frames| {
            let raw = Raw::connect(manager);
            for frame in frames {
                raw.send(&frame);
            }
            raw.channel.shut_down();
            // The client's own containers, by ids 1 and 2, may have been changed: so it looks and writes elsewhere.
            manager.counter(1).unwrap().add(1).unwrap();
            manager.audit().map_err(|error| TestCaseError::fail(error.to_string()))
        })
        .unwrap();
    let _ = (dict.len().unwrap(), list.len().unwrap(), value.get().map(|_| ()), counter.get().unwrap());
    manager.audit().unwrap();
    assert!(thread_manager().audit().is_ok());
}
