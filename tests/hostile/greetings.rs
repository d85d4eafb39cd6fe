//! Peers that fail at the handshake.

use super::*;
use rustix::fs::{OFlags, fcntl_getfl};
use std::fs::File;
use std::os::unix::fs::FileExt;

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
        // By hand, and as a program that has a session already: it is asked like anybody else.
        let offer = ClientOffer {
            versions: Versions::ours(ARCHIVE_FORMAT),
            purpose: Purpose::Session,
            authkey: key.map(|key| AuthKey::new(key).unwrap()).as_ref().map(|key| &*Box::leak(Box::new(key.clone()))),
        };
        let refused = handshake::connect(manager.address(), &offer, patience()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
        assert!(refused.to_string().contains("key"), "{refused}");
        assert_eq!(builder.connect(&address).unwrap_err().kind(), ErrorKind::Refused);
        list.push(1).unwrap();
    }
    let key = AuthKey::new("a key that is right").unwrap();
    let offer = ClientOffer { versions: Versions::ours(ARCHIVE_FORMAT), purpose: Purpose::Session, authkey: Some(&key) };
    handshake::connect(manager.address(), &offer, patience()).unwrap();
    assert!(Manager::builder().authkey("a key that is right").connect(&address).unwrap().is_alive());
    manager.audit().unwrap();
}

/// What comes with a welcome can be used for what it is for, and for nothing else: the arena is for reading, and nothing that the manager
/// has mapped can be made shorter under its hands.
#[test]
fn descriptors_that_give_no_more_than_they_should() {
    let scene = Scene::new();
    let raw = Raw::connect(&scene.manager);
    let modes: Vec<OFlags> = raw.fds.iter().map(|fd| fcntl_getfl(fd).unwrap() & OFlags::ACCMODE).collect();
    // The arena; the session's page; its lanes, if there are any.
    assert_eq!(modes[0], OFlags::RDONLY);
    assert!(modes.len() >= 2 && modes[1..].iter().all(|mode| *mode == OFlags::RDWR), "{modes:?}");
    let arena = File::from(raw.fds[0].try_clone().unwrap());
    let len = arena.metadata().unwrap().len();
    let mut before = [0; 64];
    arena.read_exact_at(&mut before, 0).unwrap();
    assert_eq!(arena.write_at(&[0xff; 64], 0).unwrap_err().raw_os_error(), Some(libc::EBADF));
    assert!(Segment::map(&raw.fds[0], raw.welcome.arena_len, Access::ReadWrite).is_err());
    assert!(Segment::map(&raw.fds[0], raw.welcome.arena_len, Access::ReadOnly).is_ok());
    let mut after = [0; 64];
    arena.read_exact_at(&mut after, 0).unwrap();
    assert_eq!((before, arena.metadata().unwrap().len()), (after, len));
    for fd in &raw.fds {
        let file = File::from(fd.try_clone().unwrap());
        let len = file.metadata().unwrap().len();
        for other in [0, len / 2, len + 4096] {
            assert!(file.set_len(other).is_err(), "{other} bytes instead of {len}");
        }
        assert_eq!(file.metadata().unwrap().len(), len);
    }
    scene.step();
    drop((raw, arena));
    scene.end();
}
