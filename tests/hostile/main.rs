//! Peers that do not behave, against a live manager: each gets an error or a closed connection, and nobody else notices.
//!
//! A raw peer is a socket and what `commonhold_ipc` says about frames. After each of its steps a client that behaves reads and
//! writes; at the end the manager's audit is clean and its descriptors are back.

mod contents;
mod crowds;
mod frames;
mod greetings;
mod lanes;
#[path = "../peers_support/mod.rs"]
mod peers_support;
#[path = "../errors/says.rs"]
mod says;
mod told;
mod turns;

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
use peers_support::{Choices, Peer, cases, go_on, heard, process_manager, say, stop, task, thread_manager};
use proptest::prelude::*;
use says::says;
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
    /// What it was told last.
    refused: Option<commonhold::Error>,
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
        Raw { channel, welcome, fds, received: Vec::new(), refused: None }
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
                let kind = error.kind();
                self.refused = Some(error);
                Answer::Failed(kind)
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

    /// The last call that failed was told this.
    #[track_caller]
    fn was_told(&mut self, kind: ErrorKind, expected: &str) {
        says(self.refused.take().map_or(Ok(()), Err), kind, expected);
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
        NewObject { kind: kind as u8, value_align, element_bytes, fingerprint: type_of.0, text: type_of.1, parameters: Words::default() }
            .write(&mut payload);
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
        Scene::of(process_manager())
    }

    fn of(manager: Manager) -> Scene {
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
