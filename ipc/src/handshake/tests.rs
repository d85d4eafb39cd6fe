//! Both sides against each other, and each against wrong ones.
use super::*;
use crate::socket::Listener;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

const FORMAT: u64 = 0xF00D;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn key(text: &str) -> AuthKey {
    AuthKey::new(text).unwrap()
}

fn server_offer(authkey: Option<AuthKey>) -> ServerOffer {
    ServerOffer { versions: Versions::ours(FORMAT), authkey, own_uid: sys::own_uid() }
}

fn client_offer(authkey: Option<&AuthKey>) -> ClientOffer<'_> {
    ClientOffer { versions: Versions::ours(FORMAT), purpose: Purpose::Session, authkey }
}

fn welcome() -> Welcome {
    Welcome {
        session: 1,
        manager: 2,
        arena_len: 1 << 40,
        session_page_len: 4096,
        hash_seed: 5,
        options: 6,
        value_bytes_max: 7,
        frame_bytes_max: 8,
        inline_value_bytes_max: 9,
    }
}

fn us() -> PeerCredentials {
    PeerCredentials { pid: std::process::id(), uid: sys::own_uid(), gid: 0 }
}

/// One handshake with a manager's side in a thread, which sends `fds` descriptors with its welcome.
fn shake(server: ServerOffer, client: &ClientOffer<'_>, fds: usize) -> Result<(Channel, Welcome, Vec<OwnedFd>)> {
    let listener = Listener::bind(Address::random().unwrap()).unwrap();
    let address = listener.address().clone();
    let manager = thread::spawn(move || {
        sys::wait_readable(&[listener.as_fd()], Some(soon())).unwrap();
        let channel = listener.accept().unwrap().unwrap();
        let (mut handshake, hello) = ServerHandshake::begin(&server, sys::peer_credentials(&channel).unwrap()).unwrap();
        channel.send_all(&hello, &[], soon()).unwrap();
        let mut buffer = [0; 7];
        loop {
            let Received::Bytes(count) = channel.receive_before(&mut buffer, &mut Vec::new(), 0, soon()).unwrap() else { return };
            match handshake.receive(&server, &buffer[..count]) {
                Step::More => {}
                Step::Admitted(admission) => {
                    assert_eq!(admission.hello.program, sys::process_name());
                    assert_eq!(admission.peer, us_at(&channel));
                    let sent: Vec<BorrowedFd<'_>> = vec![channel.as_fd(); fds];
                    // Two writes' worth at once: the client must leave what is behind the welcome to the session.
                    let bytes = [&admission.welcome(&welcome())[..], b"first frame"].concat();
                    return channel.send_all(&bytes, &sent, soon()).unwrap();
                }
                Step::Refused { reply, .. } => return channel.send_all(&reply, &[], soon()).unwrap(),
            }
        }
    });
    let result = connect(&address, client, soon());
    manager.join().unwrap();
    result
}

fn us_at(channel: &Channel) -> PeerCredentials {
    let peer = sys::peer_credentials(channel).unwrap();
    assert_eq!((peer.pid, peer.uid), (us().pid, us().uid));
    peer
}

fn refused(result: Result<(Channel, Welcome, Vec<OwnedFd>)>, text: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn the_same_user_enters_without_a_key() {
    let (channel, read, fds) = shake(server_offer(None), &client_offer(None), 2).unwrap();
    assert_eq!((read, fds.len()), (welcome(), 2));
    let mut buffer = [0; 32];
    assert_eq!(channel.receive_before(&mut buffer, &mut Vec::new(), 0, soon()).unwrap(), Received::Bytes(11));
}

#[test]
fn a_shared_key_lets_in_and_no_other() {
    let right = key("the right key");
    let wrong = key("the wrong key");
    shake(server_offer(Some(right.clone())), &client_offer(Some(&right)), 2).unwrap();
    refused(shake(server_offer(Some(right.clone())), &client_offer(Some(&wrong)), 2), "authkey is not the manager's");
    refused(shake(server_offer(Some(right.clone())), &client_offer(None), 2), "this program gave none");
    refused(shake(server_offer(None), &client_offer(Some(&right)), 2), "it has no authkey");
}

#[test]
fn version_mismatches_name_both_versions() {
    let ours = Versions::ours(FORMAT);
    let Versions { protocol, layout, .. } = ours;
    for (versions, text) in [
        (
            Versions { protocol: 7, ..ours },
            format!("protocol {protocol} with layout {layout}, this program protocol 7 with layout {layout}"),
        ),
        (
            Versions { layout: 9, ..ours },
            format!("protocol {protocol} with layout {layout}, this program protocol {protocol} with layout 9"),
        ),
        (Versions { archive_format: 0xBEEF, ..ours }, "archive format 0xf00d and this program's 0xbeef".to_owned()),
    ] {
        refused(shake(server_offer(None), &ClientOffer { versions, ..client_offer(None) }, 2), &text);
    }
}

#[test]
fn control_gets_no_descriptors_and_missing_ones_are_noticed() {
    let control = ClientOffer { purpose: Purpose::Control, ..client_offer(None) };
    assert!(shake(server_offer(None), &control, 0).unwrap().2.is_empty());
    for count in [0, 1] {
        let error = shake(server_offer(None), &client_offer(None), count).unwrap_err();
        assert!(error.to_string().contains(&format!("{count} of 2 descriptors")), "{error}");
    }
    assert_eq!(shake(server_offer(None), &client_offer(None), 4).unwrap().2.len(), 2, "more than two are closed");
}

/// The manager's side, told which user the peer is, against a client hello made by hand.
fn judge(server: &ServerOffer, peer_uid: u32, make: impl FnOnce(&ServerHello) -> ClientHello) -> Step {
    let (mut handshake, hello) = ServerHandshake::begin(server, PeerCredentials { uid: peer_uid, ..us() }).unwrap();
    let (server_hello, _) = parse_server_hello(&hello).unwrap().unwrap();
    handshake.receive(server, &write_client_hello(&make(&server_hello)))
}

fn hello(server: &ServerHello, authkey: Option<&AuthKey>) -> ClientHello {
    let challenge =
        Challenge { server_nonce: server.nonce, client_nonce: [5; 32], versions: Versions::ours(FORMAT), purpose: Purpose::Session };
    ClientHello {
        versions: Versions::ours(FORMAT),
        purpose: Purpose::Session,
        pid: 1,
        nonce: [5; 32],
        proof: authkey.map_or(NO_PROOF, |key| key.prove(Role::Client, &challenge)),
        program: "other".into(),
    }
}

fn refusal(step: Step) -> Refusal {
    match step {
        Step::Refused { refusal, reply } => {
            let (Reply::Refused { code, text }, len) = parse_reply(&reply).unwrap().unwrap() else { panic!("not a refusal") };
            assert_eq!((code, text, len), (refusal.code(), refusal.to_string(), reply.len()));
            refusal
        }
        step => panic!("not refused: {step:?}"),
    }
}

#[test]
fn other_users_enter_with_a_key_only() {
    let other = sys::own_uid() + 1000;
    let right = key("the right key");
    let open = server_offer(None);
    let locked = server_offer(Some(right.clone()));
    assert_eq!(refusal(judge(&open, other, |s| hello(s, None))), Refusal::OtherUser { peer_uid: other, own_uid: sys::own_uid() });
    assert!(matches!(judge(&locked, other, |s| hello(s, Some(&right))), Step::Admitted(_)));
    assert_eq!(refusal(judge(&locked, other, |s| hello(s, None))), Refusal::KeyMissing);
    assert_eq!(refusal(judge(&locked, 65_534, |s| hello(s, Some(&right)))), Refusal::UnknownUser);
    assert!(matches!(judge(&open, 0, |s| hello(s, None)), Step::Admitted(_)), "root");
}

#[test]
fn a_proof_cannot_be_used_twice() {
    let right = key("the right key");
    let locked = server_offer(Some(right.clone()));
    let mut recorded = None;
    judge(&locked, 0, |s| recorded.insert(hello(s, Some(&right))).clone());
    assert_eq!(refusal(judge(&locked, 0, |_| recorded.unwrap())), Refusal::WrongKey);
}

#[test]
fn hellos_of_other_versions_are_refused_as_soon_as_they_show() {
    let offer = server_offer(None);
    let step = judge(&offer, 0, |s| ClientHello {
        versions: Versions { protocol: offer.versions.protocol + 1, ..offer.versions },
        ..hello(s, None)
    });
    assert!(matches!(refusal(step), Refusal::VersionMismatch { .. }));
    let step = judge(&offer, 0, |s| ClientHello { versions: Versions { archive_format: 1, ..offer.versions }, ..hello(s, None) });
    assert!(matches!(refusal(step), Refusal::VersionMismatch { .. }));
    let (mut handshake, _) = ServerHandshake::begin(&offer, us()).unwrap();
    assert!(matches!(refusal(handshake.receive(&offer, b"cmnhold\n\x63\0\x01\0")), Refusal::VersionMismatch { .. }));
}

#[test]
fn bytes_behind_the_hello_are_refused() {
    let offer = server_offer(None);
    let (mut handshake, bytes) = ServerHandshake::begin(&offer, us()).unwrap();
    let (server, _) = parse_server_hello(&bytes).unwrap().unwrap();
    let mut bytes = write_client_hello(&hello(&server, None));
    bytes.extend([0; 100_000]);
    assert_eq!(refusal(handshake.receive(&offer, &bytes)), Refusal::BadHello);
    assert!(handshake.received.len() <= CLIENT_HELLO_BYTES + 1);
}

proptest! {
    #[test]
    fn the_manager_survives_any_bytes_in_any_pieces(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..8), polite in any::<bool>()) {
        let offer = server_offer(None);
        let (mut handshake, _) = ServerHandshake::begin(&offer, us()).unwrap();
        if polite {
            let ours = Versions::ours(FORMAT);
            let preamble = [&b"cmnhold\n"[..], &ours.protocol.to_le_bytes(), &ours.layout.to_le_bytes()].concat();
            prop_assert!(matches!(handshake.receive(&offer, &preamble), Step::More));
        }
        for piece in pieces {
            handshake.receive(&offer, &piece);
            prop_assert!(handshake.received.len() <= CLIENT_HELLO_BYTES + 1);
        }
    }

    #[test]
    fn the_client_survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300), truth in 0..=SERVER_HELLO_BYTES) {
        let (server, client) = Channel::pair().unwrap();
        let hello = write_server_hello(&ServerHello { versions: Versions::ours(FORMAT), key_demanded: false, nonce: [1; 32] });
        server.send_all(&hello[..truth], &[], soon()).unwrap();
        if !bytes.is_empty() {
            server.send_all(&bytes, &[], soon()).unwrap();
        }
        rustix::net::shutdown(&server, rustix::net::Shutdown::Write).unwrap();
        let error = greet(&client, &Address::Abstract("test".into()), &client_offer(None), soon()).unwrap_err();
        prop_assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Disconnected | ErrorKind::Refused), "{error}");
    }
}

#[test]
fn a_manager_that_says_nothing_times_out() {
    let (_server, client) = Channel::pair().unwrap();
    let deadline = Instant::now() + Duration::from_millis(30);
    let error = greet(&client, &Address::Abstract("silent".into()), &client_offer(None), deadline).unwrap_err();
    assert!(error.is_timed_out() && error.to_string().contains("@silent"), "{error}");
}

#[test]
fn a_manager_that_refuses_and_closes_at_once_is_heard() {
    let (server, client) = Channel::pair().unwrap();
    let hello = ServerHello { versions: Versions::ours(FORMAT), key_demanded: false, nonce: [1; 32] };
    server.send_all(&write_server_hello(&hello), &[], soon()).unwrap();
    server.send_all(&write_refusal(Refusal::ManagerFull { sessions_max: 4096 }), &[], soon()).unwrap();
    drop(server);
    let error = greet(&client, &Address::Abstract("full".into()), &client_offer(None), soon()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("all of its 4096 sessions are taken"), "{error}");
}

#[test]
fn a_client_trusts_its_own_user_and_root_only() {
    for (server, own, has_key, trusted) in [
        (1000, 1000, false, true),
        (0, 1000, false, true),
        (1001, 1000, false, false),
        (1001, 1000, true, true),
        (1001, 0, false, true),
        (65_534, 0, false, false),
        (65_534, 1000, true, false),
    ] {
        assert_eq!(check_server(server, own, has_key).is_ok(), trusted, "server {server}, own {own}, key {has_key}");
    }
}
