//! Whoever speaks nonsense on a line loses that line, and nobody else notices.
use crate::support::PATIENCE;
use commonhold::{Handle, Manager};
use commonhold_ipc::handshake::{self, ClientOffer, Purpose, Versions};
use commonhold_ipc::socket::{Channel, Received};
use commonhold_ipc::value::{ARCHIVE_FORMAT, fingerprint};
use commonhold_ipc::wire::remote::{Answer, Ask, Asked, range_word};
use commonhold_ipc::wire::reply::parse_error;
use commonhold_ipc::wire::{Call, HEAD_BYTES, Head, Reader, Words};
use std::os::fd::OwnedFd;
use std::time::Instant;

struct Plain {
    texts: Vec<String>,
}

#[commonhold::remote]
impl Plain {
    pub fn new() -> Self {
        Plain { texts: Vec::new() }
    }
    pub fn add(&mut self, texts: Vec<String>) -> u64 {
        self.texts.extend(texts);
        self.texts.len() as u64
    }
}

/// A session by hand.
struct Raw {
    channel: Channel,
    _fds: Vec<OwnedFd>,
}

fn frame(code: u8, number: u64, payload: &[u8]) -> Vec<u8> {
    let head = Head { len: payload.len() as u32, code, quiet: false, lane: 0, number };
    [&head.to_bytes()[..], payload].concat()
}

fn read_frame(channel: &Channel, fds: &mut Vec<OwnedFd>) -> Option<(Head, Vec<u8>)> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(head) = Head::parse(&bytes)
            && bytes.len() >= HEAD_BYTES + head.len as usize
        {
            return Some((head, bytes[HEAD_BYTES..].to_vec()));
        }
        match channel.receive_before(&mut buffer, fds, 4, Instant::now() + PATIENCE).unwrap() {
            Received::Bytes(count) => bytes.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
}

impl Raw {
    fn connect(manager: &Manager) -> Raw {
        let offer = ClientOffer { versions: Versions::ours(ARCHIVE_FORMAT), purpose: Purpose::Session, authkey: None };
        let (channel, _, _fds) = handshake::connect(manager.address(), &offer, Instant::now() + PATIENCE).unwrap();
        Raw { channel, _fds }
    }

    fn call(&self, call: Call, payload: &[u8]) -> Result<Option<OwnedFd>, String> {
        self.channel.send_all(&frame(call as u8, 1, payload), &[], Instant::now() + PATIENCE).unwrap();
        let mut fds = Vec::new();
        let (head, payload) = read_frame(&self.channel, &mut fds).ok_or("the manager has hung up")?;
        if head.code == 0 { Ok(fds.pop()) } else { Err(parse_error(&mut Reader::new(&payload)).unwrap().to_string()) }
    }

    fn line(&self, id: u64) -> Channel {
        let payload = [&[0][..], &id.to_le_bytes()].concat();
        Channel::from_fd(self.call(Call::Reach, &payload).unwrap().unwrap()).unwrap()
    }
}

fn ask(object: u64, interface: u64, method: u32, archives: &[u8], ranges: &[(usize, usize)], handles: &[u64]) -> Vec<u8> {
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let (ranges, handles) = (words(&ranges.iter().map(|(start, end)| range_word(&(*start..*end))).collect::<Vec<_>>()), words(handles));
    let asked = Asked {
        object,
        interface,
        method,
        chain: 1,
        within: Words::default(),
        name: "",
        handles: Words::new(&handles).unwrap(),
        ranges: Words::new(&ranges).unwrap(),
        archives,
    };
    let mut payload = Vec::new();
    asked.write(&mut payload);
    payload
}

#[test]
fn nonsense_on_a_line_is_an_error_or_its_end() {
    let manager = Manager::start().unwrap();
    let plain = manager.create(Plain::new, ()).unwrap();
    let (id, interface) = (plain.id(), fingerprint::<PlainProxy>());
    let raw = Raw::connect(&manager);
    let say = |payload: &[u8], code: u8| {
        let line = raw.line(id);
        line.send_all(&frame(code, 7, payload), &[], Instant::now() + PATIENCE).unwrap();
        read_frame(&line, &mut Vec::new())
    };
    let failed = |payload: &[u8]| {
        let (head, payload) = say(payload, Ask::Call as u8).expect("an answer");
        assert_eq!((head.code, head.number), (Answer::Failed as u8, 7));
        parse_error(&mut Reader::new(&payload)).unwrap().to_string()
    };
    // Objects, interfaces and methods that are not there; arguments that are missing, or no archives.
    assert!(failed(&ask(id + 1, interface, 0, &[], &[], &[])).contains("is not there"));
    assert!(failed(&ask(id, interface ^ 1, 0, &[], &[], &[])).contains("no method 0 of the interface"));
    assert!(failed(&ask(id, interface, 9, &[], &[], &[])).contains("no method 9"));
    assert!(failed(&ask(id, interface, 0, &[], &[], &[])).contains("argument is missing"));
    assert!(failed(&ask(id, interface, 0, &[0xff; 64], &[(0, 64)], &[])).contains("archive"));
    assert!(failed(&ask(id, interface, 0, &[0; 64], &[(0, 4)], &[])).contains("archive"));
    // An argument bomb: eight bytes that claim to be two billion texts.
    assert!(failed(&ask(id, interface, 0, &[[0u8, 0, 0, 0], [0xff, 0xff, 0xff, 0x7f]].concat(), &[(0, 8)], &[])).contains("archive"));
    // Handles on what is not there.
    assert!(failed(&ask(id, interface, 0, &[0; 8], &[(0, 8)], &[id + 5])).contains("gone"));
    // A function that is none.
    let (head, _) = say(&ask(0x1234, 0, 0, &[], &[], &[]), Ask::Run as u8).expect("an answer");
    assert_eq!(head.code, Answer::Failed as u8);
    // What cannot be read at all ends the line.
    let good = ask(id, interface, 0, &[0; 8], &[(0, 8)], &[]);
    for len in [0, 1, 20, good.len() - 1] {
        assert!(say(&good[..len], Ask::Call as u8).is_none(), "cut at {len}");
    }
    assert!(say(&good, 99).is_none());
    let line = raw.line(id);
    let bomb = Head { len: u32::MAX, code: Ask::Call as u8, quiet: false, lane: 0, number: 1 };
    line.send_all(&bomb.to_bytes(), &[], Instant::now() + PATIENCE).unwrap();
    assert!(read_frame(&line, &mut Vec::new()).is_none());
    // Nobody else has noticed.
    assert_eq!(plain.add(vec!["a".into()]).unwrap(), 1);
    manager.audit().unwrap();
}

#[test]
fn the_manager_is_asked_for_nothing_that_is_not_there() {
    let manager = Manager::start().unwrap();
    let list = manager.list([1u64]).unwrap();
    let plain = manager.create(Plain::new, ()).unwrap();
    let raw = Raw::connect(&manager);
    let reach = |kind: u8, id: u64| raw.call(Call::Reach, &[&[kind][..], &id.to_le_bytes()].concat()).map(|fd| fd.is_some());
    assert!(reach(0, list.id()).unwrap_err().contains("is a List"));
    assert!(reach(0, 999).unwrap_err().contains("gone"));
    assert!(reach(1, 999).unwrap_err().contains("ended"));
    // An object of a user's type is made by a host.
    let mut new = vec![64u8, 0];
    new.extend_from_slice(&[0; 4 + 8 + 4 + 4]);
    assert!(raw.call(Call::Create, &new).unwrap_err().contains("made by the host"));
    // Types are offered by a host.
    let other = Raw::connect(&manager);
    assert!(other.call(Call::Offer, b"Type").is_err());
    // Another build has no host here, and is told who has.
    let mut build = vec![0u8];
    build.extend_from_slice(&[7; 8 + 32]);
    build.extend_from_slice(&3u32.to_le_bytes());
    build.extend_from_slice(b"abc");
    let error = raw.call(Call::FindHost, &build).unwrap_err();
    assert!(error.contains("was started by another program") && error.contains("has Plain"), "{error}");
    assert_eq!(plain.add(vec![]).unwrap(), 0);
    manager.audit().unwrap();
}
