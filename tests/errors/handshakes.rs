//! Of who is not let in, and by whom.

use super::{ErrorKind, Manager, Process, matches, says};
use commonhold_ipc::auth::NO_PROOF;
use commonhold_ipc::handshake::{self, ClientHello, Purpose, Reply, ServerHandshake, ServerOffer, Step, Versions};
use commonhold_ipc::socket::{Address, Channel, Listener, Received};
use commonhold_ipc::sys;
use commonhold_ipc::value::ARCHIVE_FORMAT;
use std::os::fd::AsFd;
use std::time::Instant;

fn patience() -> Instant {
    Instant::now() + super::support::PATIENCE
}

fn connects_with_a_key(address: String) -> commonhold::Result<()> {
    Manager::builder().authkey(b"a key of enough bytes").connect(&address).map(drop)
}

#[test]
fn of_a_manager_without_the_key() {
    let manager = Manager::start().unwrap();
    says(
        Process::spawn(connects_with_a_key, manager.address().to_string()).unwrap().join().unwrap(),
        ErrorKind::Refused,
        "not connected to the manager at {…}: it has no authkey, so it cannot prove that it is the one meant: start it with this program's authkey, or give none",
    );
}

/// What a manager answers to these bytes in a hello's place.
fn told(manager: &Manager, bytes: &[u8]) -> String {
    let channel = Channel::connect(manager.address(), patience()).unwrap();
    channel.send_all(bytes, &[], patience()).unwrap();
    heard(&channel)
}

/// The refusal that comes behind a manager's hello.
fn heard(channel: &Channel) -> String {
    let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
    while let Received::Bytes(count) = channel.receive_before(&mut buffer, &mut Vec::new(), 0, patience()).unwrap() {
        said.extend_from_slice(&buffer[..count]);
    }
    let (Reply::Refused { text, .. }, _) = handshake::parse_reply(&said[handshake::SERVER_HELLO_BYTES..]).unwrap().unwrap() else {
        panic!("not refused: {said:?}")
    };
    text
}

fn hello(versions: Versions) -> Vec<u8> {
    let program = "other".to_owned();
    handshake::write_client_hello(&ClientHello { versions, purpose: Purpose::Session, pid: 1, nonce: [1; 32], proof: NO_PROOF, program })
}

#[track_caller]
fn assert_says(text: &str, expected: &str) {
    assert!(matches(expected, text), "\nexpected: {expected}\n    says: {text}");
}

#[test]
fn of_hellos() {
    let manager = Manager::start().unwrap();
    let unread = "it could not read this program's hello: use the same version of commonhold in both";
    assert_says(&told(&manager, b"GET / HTTP/1.1\r\n\r\n"), unread);
    let ours = Versions::ours(ARCHIVE_FORMAT);
    assert_says(&told(&manager, &[hello(ours), vec![0]].concat()), unread);
    assert_says(
        &told(&manager, &hello(Versions { protocol: 99, ..ours })),
        "the manager speaks protocol {…} with layout {…}, this program protocol 99 with layout {…}: use the same version of commonhold in both, and start the manager anew",
    );
    assert_says(
        &told(&manager, &hello(Versions { archive_format: 99, ..ours })),
        "the manager's values have archive format {…} and this program's 0x63: build both with the same version of commonhold and the same features of rkyv",
    );
    // The oldest of a crowd is sent away.
    let first = Channel::connect(manager.address(), patience()).unwrap();
    let _crowd: Vec<Channel> = (0..300).map(|_| Channel::connect(manager.address(), patience()).unwrap()).collect();
    assert_says(
        &heard(&first),
        "this program's hello did not come within 5 s, or 256 others were waited for: try again, it or the machine was busy",
    );
}

#[test]
fn of_users() {
    let offer = ServerOffer { versions: Versions::ours(ARCHIVE_FORMAT), authkey: None, own_uid: sys::own_uid() };
    let as_user = |uid: u32| {
        let us = sys::PeerCredentials { pid: std::process::id(), uid, gid: 0 };
        let (mut server, _) = ServerHandshake::begin(&offer, us).unwrap();
        match server.receive(&offer, &hello(offer.versions)) {
            Step::Refused { refusal, .. } => refusal.to_string(),
            step => panic!("not refused: {step:?}"),
        }
    };
    assert_says(
        &as_user(sys::own_uid() + 1000),
        "it belongs to user {…} and this program runs as user {…}: run as the same user, or give both an authkey",
    );
    assert_says(
        &as_user(65_534),
        "the kernel cannot tell it which user this program runs as (the overflow uid, seen between user namespaces): run both in the same user namespace",
    );
}

#[test]
fn of_a_full_manager() {
    let manager = Manager::builder().sessions_max(1).start().unwrap();
    let another = |address: String| Manager::connect(&address).map(drop);
    says(
        Process::spawn(another, manager.address().to_string()).unwrap().join().unwrap(),
        ErrorKind::Refused,
        "not connected to the manager at {…}: all of its 1 sessions are taken: close some, or start another manager",
    );
}

/// What somebody is told who connects to a listener that takes the connection so.
fn told_by(taken: impl FnOnce(Channel) + Send) -> commonhold::Result<()> {
    let listener = Listener::bind(Address::random().unwrap()).unwrap();
    let address = listener.address().to_string();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            sys::wait_readable(&[listener.as_fd()], Some(patience())).unwrap();
            taken(listener.accept().unwrap().expect("somebody connects"));
        });
        Manager::connect(&address).map(drop)
    })
}

#[test]
fn of_managers_that_are_none() {
    says(
        told_by(drop),
        ErrorKind::Disconnected,
        "the manager at {…} closed the connection in the middle of the handshake: it has ended, or has no room",
    );
    says(
        told_by(|channel| channel.send_all(&[b'x'; 4096], &[], patience()).unwrap()),
        ErrorKind::Corrupt,
        "the handshake with the manager at {…} failed: a message of the handshake cannot be read: it does not begin as commonhold's do; \
         does something else listen there, or another version of commonhold?",
    );
}
