//! Clients of another user. Only root can start a process as somebody else: for others these tests have nothing to do.

mod peers_support;

use commonhold::{Dict, ErrorKind, Manager};
use commonhold_ipc::auth::AuthKey;
use commonhold_ipc::handshake::{self, ClientOffer, Purpose, Versions};
use commonhold_ipc::sys::own_uid;
use commonhold_ipc::value::ARCHIVE_FORMAT;
use peers_support::{Peer, say, task};
use std::fs::OpenOptions;
use std::io::ErrorKind::PermissionDenied;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

commonhold::init_in_tests!();

/// A user that owns nothing.
const STRANGER: u32 = 65_533;
const KEY: &str = "open sesame, but longer";

fn is_root() -> bool {
    own_uid() == 0
}

#[test]
fn a_stranger_is_refused() {
    if !is_root() {
        return;
    }
    let manager = Manager::start().unwrap();
    let mut peer = Peer::spawn_as("role_connects_plainly", manager.address(), STRANGER);
    let said = peer.hear();
    for word in ["user 65533", "user 0", "authkey"] {
        assert!(said.contains(word), "{said:?} does not say {word:?}");
    }
    peer.finish();
    assert_eq!(manager.stats().unwrap().sessions, 1);
    manager.audit().unwrap();
}

#[test]
fn role_connects_plainly() {
    let Some(address) = task() else { return };
    assert_eq!(own_uid(), STRANGER);
    let error = Manager::connect(&address).expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::Refused);
    say(error.to_string().replace('\n', " "));
}

#[test]
fn a_stranger_with_the_key_may_enter_but_not_write_into_the_arena() {
    if !is_root() {
        return;
    }
    let manager = Manager::builder().authkey(KEY).start().unwrap();
    let dict: Dict<String, u64> = manager.dict([("mine".to_string(), 1)]).unwrap();
    manager.publish("shared", &dict).unwrap();
    let mut peer = Peer::spawn_as("role_knows_the_key", manager.address(), STRANGER);
    assert_eq!(peer.hear(), "written");
    assert_eq!(peer.hear(), "PermissionDenied");
    peer.finish();
    assert_eq!(*dict.get("theirs").unwrap().unwrap(), 2);
    manager.audit().unwrap();
}

#[test]
fn role_knows_the_key() {
    let Some(address) = task() else { return };
    let manager = Manager::builder().authkey(KEY).connect(&address).unwrap();
    let dict: Dict<String, u64> = manager.open("shared").unwrap();
    assert_eq!(*dict.get("mine").unwrap().unwrap(), 1);
    dict.insert("theirs", 2).unwrap();
    say("written");
    // A descriptor that is only for reading must not be a way to one for writing: that is what the inode's mode is for.
    let authkey = AuthKey::new(KEY).unwrap();
    let offer = ClientOffer { versions: Versions::ours(ARCHIVE_FORMAT), purpose: Purpose::Session, authkey: Some(&authkey) };
    let deadline = Instant::now() + Duration::from_secs(60);
    let (_channel, _, descriptors) = handshake::connect(&address.parse().unwrap(), &offer, deadline).unwrap();
    let arena = format!("/proc/self/fd/{}", descriptors[0].as_raw_fd());
    let error = OpenOptions::new().write(true).open(arena).expect_err("it is not ours");
    assert_eq!(error.kind(), PermissionDenied);
    say(format!("{:?}", error.kind()));
    commonhold_ipc::pin::give_up(&descriptors[1]);
}
