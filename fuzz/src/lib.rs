//! What reads foreign bytes, as functions of bytes; each with examples of what it should read, and with what must hold when it
//! does read something.
//!
//! A target returns whether it took the bytes for something, and panics if something is wrong. `main` throws damaged examples
//! at them; `fuzz_target!(|data: &[u8]| for target in fuzz::targets() { (target.read)(data); })` lets cargo-fuzz do so.

pub mod examples;

use commonhold::__rt::rkyv::util::AlignedVec;
use commonhold::{Any, Counter, Dict, Shared, Token};
use commonhold_ipc::handshake;
use commonhold_ipc::lane::{SEGMENT_BYTES, ServedLanes};
use commonhold_ipc::map::{Access, Segment};
use commonhold_ipc::socket::Address;
use commonhold_ipc::value::{AsDebug, Ser, access, to_owned};
use commonhold_ipc::wire::apart::without_values;
use commonhold_ipc::wire::behind::{PlaceBehind, VALUE_BYTES_MIN, is_place};
use commonhold_ipc::wire::commit::{Commit, CommitWriter};
use commonhold_ipc::wire::reply::{Outcome, parse_error, write_error};
use commonhold_ipc::wire::{HEAD_BYTES, Head, NewObject, Reader, Source, UPLOAD_HEAD_BYTES, UploadHead, Words, whole};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Something that reads foreign bytes.
pub struct Target {
    /// What it is.
    pub name: &'static str,
    /// Reads; says whether there was something to read.
    pub read: fn(&[u8]) -> bool,
    /// Bytes that it reads.
    pub examples: Vec<Vec<u8>>,
}

/// All of them.
pub fn targets() -> Vec<Target> {
    let target = |name, read, examples| Target { name, read, examples };
    vec![
        target("frame head", head, examples::heads()),
        target("upload head", upload_head, examples::upload_heads()),
        target("commit", commit, examples::commits()),
        target("lane", lane, examples::lanes()),
        target("new object", new_object, examples::new_objects()),
        target("outcomes", outcomes, examples::outcomes()),
        target("error", error, examples::errors()),
        target("ids", ids, vec![vec![1; 24]]),
        target("handshake", greeting, examples::greetings()),
        target("token", token, examples::tokens()),
        target("address", address, examples::addresses()),
        target("number", archive::<u64>, examples::archives::<u64>(&[0, u64::MAX])),
        target("text", archive::<String>, examples::archives(&[String::new(), "short".into(), "x".repeat(40)])),
        target("any", archive::<Any>, examples::archives(&examples::anys())),
        target("nested", archive::<Nested>, examples::archives(&examples::nested())),
        target("tables", archive::<Tables>, examples::archives(&examples::tables())),
        target("handles", archive::<Handles>, examples::archives(&examples::handles())),
    ]
}

/// Structs in structs, out of line and in line, and itself.
#[derive(Shared, Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Nested {
    pub number: i16,
    pub choice: Choice,
    pub text: Option<String>,
    pub more: Vec<Nested>,
    pub boxed: Option<Box<Nested>>,
    pub array: [(bool, char); 2],
    pub long: u128,
    pub time: Duration,
}

/// One of several.
#[derive(Shared, Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Choice {
    None,
    One(String),
    Two { a: u8, b: Vec<u16> },
    Result(Result<u8, String>),
}

/// Everything with a table in it.
#[derive(Shared, Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Tables {
    pub hashed: HashMap<String, Vec<u32>>,
    pub set: HashSet<u64>,
    pub tree: BTreeMap<u8, String>,
    pub deque: VecDeque<String>,
}

/// Handles among other things.
#[derive(Shared, Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Handles {
    pub one: Dict<String, u64>,
    pub some: Vec<Option<Counter>>,
}

fn head(bytes: &[u8]) -> bool {
    let Some(head) = Head::parse(bytes) else {
        assert!(bytes.len() < HEAD_BYTES);
        return false;
    };
    let mut written = head.to_bytes();
    // Whether it is quiet: written as 0 or 1, read as anything.
    assert_eq!(written[5], u8::from(bytes[5] != 0));
    written[5] = bytes[5];
    assert_eq!(written, bytes[..HEAD_BYTES]);
    commonhold_ipc::wire::Call::from_code(head.code).is_some()
}

fn upload_head(bytes: &[u8]) -> bool {
    let Some(head) = UploadHead::parse(bytes) else { return false };
    assert_eq!(head.to_bytes(), bytes[..UPLOAD_HEAD_BYTES]);
    true
}

fn commit(bytes: &[u8]) -> bool {
    let Ok(commit) = whole(bytes, "commit", Commit::parse) else { return false };
    let mut writer = CommitWriter::default();
    assert!(commit.uploads().count() <= bytes.len());
    let is_whole = commit.is_whole();
    commit.conditions().filter_map(Result::ok).for_each(|condition| writer.condition(&condition));
    commit.ops().filter_map(Result::ok).for_each(|op| writer.op(&op));
    if !is_whole {
        return false;
    }
    let mut written = Vec::new();
    writer.write(&mut written);
    assert_eq!(written, bytes, "what is read is what was written");
    let mut edition = Vec::new();
    if without_values(bytes, &mut edition).is_some() {
        let commit = whole(&edition, "commit", Commit::parse).expect("it is one still");
        let (mut places, mut end) = (0, 0);
        commit.ops().for_each(|op| {
            op.expect("all of it can be read").each_value(|value| match value.source {
                Source::Upload(word) => places += usize::from(is_place(word)),
                Source::Inline(value) => end = end.max(value.len()),
            });
        });
        assert!(places > 0 && end < VALUE_BYTES_MIN && edition.len() < bytes.len());
    }
    true
}

/// The request half of a lane's slot, as a client may have left it.
fn lane(bytes: &[u8]) -> bool {
    thread_local! {
        static LANES: (ServedLanes, Segment) = {
            let served = ServedLanes::make().expect("there is memory for lanes");
            let file = served.as_fd().try_clone_to_owned().expect("there is a descriptor");
            (served, Segment::map(&file, SEGMENT_BYTES, Access::ReadWrite).expect("it can be mapped"))
        };
    }
    LANES.with(|(served, segment)| {
        // Lane 1: behind the doorbells and the slot of lane 0; its request begins in the middle.
        let slot = &segment.words()[(2 * 4096 + 2048) / 8..3 * 4096 / 8];
        for (word, chunk) in slot.iter().zip(bytes.chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
        let Some(request) = served.request(1) else { return false };
        assert_eq!(request.head.lane, 1);
        let place = PlaceBehind::new(0, request.values_len as usize);
        let values = served.values_behind(&request);
        assert_eq!(values.is_some(), request.values_len > 0);
        assert!(values.is_none_or(|values| place.is_none_or(|place| values.has(place))));
        let mut buffer = Vec::new();
        let Some(payload) = served.copy_payload(&request, usize::MAX, &mut buffer) else { return false };
        assert_eq!(payload.len(), request.head.len as usize);
        whole(payload, "commit", Commit::parse).is_ok_and(|commit| commit.is_whole())
    })
}

fn new_object(bytes: &[u8]) -> bool {
    let Ok(new) = whole(bytes, "new object", NewObject::parse) else { return false };
    let mut written = Vec::new();
    new.write(&mut written);
    assert_eq!(written, bytes);
    true
}

fn outcomes(bytes: &[u8]) -> bool {
    let mut read = Reader::new(bytes);
    let mut written = Vec::new();
    while !read.is_empty() {
        let Some(outcome) = Outcome::parse(&mut read) else { return false };
        outcome.write(&mut written);
    }
    assert_eq!(written, bytes);
    true
}

fn error(bytes: &[u8]) -> bool {
    let Some(error) = parse_error(&mut Reader::new(bytes)) else { return false };
    let mut written = Vec::new();
    write_error(&mut written, &error);
    let again = parse_error(&mut Reader::new(&written)).expect("what was written is read");
    assert_eq!((again.kind(), again.to_string()), (error.kind(), error.to_string()));
    true
}

fn ids(bytes: &[u8]) -> bool {
    let Some(words) = Words::new(bytes) else { return false };
    assert_eq!(words.iter().len(), words.len());
    assert_eq!(words.iter().flat_map(u64::to_le_bytes).collect::<Vec<_>>(), bytes);
    true
}

fn greeting(bytes: &[u8]) -> bool {
    let fits = |len: usize| assert!(len <= bytes.len(), "it reads {len} of {} bytes", bytes.len());
    let mut known = false;
    if let Ok(Some((_, len))) = handshake::parse_preamble(bytes) {
        fits(len);
    }
    if let Ok(Some((hello, len))) = handshake::parse_server_hello(bytes) {
        fits(len);
        assert_eq!(handshake::write_server_hello(&hello), bytes[..len]);
        known = true;
    }
    if let Ok(Some((hello, len))) = handshake::parse_client_hello(bytes) {
        fits(len);
        assert!(!hello.program.chars().any(char::is_control));
        let again = handshake::write_client_hello(&hello);
        assert_eq!(handshake::parse_client_hello(&again).ok().flatten().map(|(hello, _)| hello), Some(hello));
        known = true;
    }
    if let Ok(Some((reply, len))) = handshake::parse_reply(bytes) {
        fits(len);
        match reply {
            handshake::Reply::Welcome { welcome, proof } => assert_eq!(handshake::write_welcome(&welcome, &proof), bytes[..len]),
            handshake::Reply::Refused { text, .. } => assert!(!text.chars().any(char::is_control)),
        }
        known = true;
    }
    let _ = handshake::parse_reply_len(bytes);
    known
}

fn token(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Ok(token) = text.parse::<Token>() else { return false };
    let line = token.to_string();
    assert_eq!(line.parse::<Token>().ok(), Some(token), "{line:?}");
    assert!(!line.contains(char::is_whitespace) && !line.contains(char::is_control), "{line:?}");
    true
}

fn address(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Ok(address) = text.parse::<Address>() else { return false };
    let line = address.to_string();
    assert_eq!(line.parse::<Address>().ok(), Some(address), "{line:?}");
    true
}

/// Bytes that pass the check can be read in every way: printed, copied out, compared, written again.
fn archive<T: Shared + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> bool {
    let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    let Ok(archived) = access::<T>(&aligned) else { return false };
    assert!(!format!("{:?}", AsDebug::<T>(archived)).is_empty());
    let value = to_owned::<T>(archived, None);
    let mut ser = Ser::buffer();
    let range = ser.put::<T>(&value).expect("what was stored can be stored");
    let again = access::<T>(&ser.bytes()[range]).expect("what was written is read");
    // A float that is no number is not even itself.
    #[allow(clippy::eq_op)]
    let is_itself = value == value;
    assert!(!is_itself || T::eq_archived(again, &value));
    true
}
