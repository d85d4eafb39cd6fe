//! Tests of channels and listeners.
use super::*;
use std::time::Duration;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn connected() -> (Listener, Channel, Channel) {
    let listener = Listener::bind(Address::random().unwrap()).unwrap();
    let client = Channel::connect(listener.address(), soon()).unwrap();
    let server = listener.accept().unwrap().unwrap();
    (listener, client, server)
}

#[test]
fn bytes_and_ends_travel() {
    let (listener, client, server) = connected();
    assert!(listener.accept().unwrap().is_none());
    let mut buffer = [0; 16];
    assert_eq!(server.receive(&mut buffer).unwrap(), Received::Nothing);
    assert_eq!(client.send(b"hello").unwrap(), 5);
    assert_eq!(server.receive(&mut buffer).unwrap(), Received::Bytes(5));
    assert_eq!(&buffer[..5], b"hello");
    for end in [&client, &server] {
        assert!(rustix::io::fcntl_getfd(end).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }
    drop(client);
    // A process that another test is starting may hold a copy of the closed end for an instant.
    assert_eq!(server.receive_before(&mut buffer, &mut Vec::new(), 0, soon()).unwrap(), Received::Ended);
    let error = server.send(b"x").unwrap_err();
    assert!(error.is_disconnected());
    assert_eq!(error.to_string(), "the process at the other end of the socket is gone");
}

#[test]
fn an_end_with_unread_bytes_is_an_end() {
    let (a, b) = Channel::pair().unwrap();
    a.send(b"never read").unwrap();
    drop(b);
    assert_eq!(a.receive_before(&mut [0; 4], &mut Vec::new(), 0, soon()).unwrap(), Received::Ended);
}

#[test]
fn descriptors_travel_with_the_first_byte() {
    let (a, b) = Channel::pair().unwrap();
    let (c, d) = Channel::pair().unwrap();
    a.send_all(b"two", &[c.as_fd(), d.as_fd()], soon()).unwrap();
    let (mut fds, mut buffer) = (Vec::new(), [0; 16]);
    assert_eq!(b.receive_with_fds(&mut buffer, &mut fds, 2).unwrap(), Received::Bytes(3));
    assert_eq!(fds.len(), 2);
    assert!(rustix::io::fcntl_getfd(&fds[0]).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    let copy = Channel::from_fd(fds.remove(0)).unwrap();
    d.send(b"through").unwrap();
    assert_eq!(copy.receive(&mut buffer).unwrap(), Received::Bytes(7));

    a.send_with_fds(b"x", &[c.as_fd(), d.as_fd()]).unwrap();
    fds.clear();
    b.receive_with_fds(&mut buffer, &mut fds, 1).unwrap();
    assert_eq!(fds.len(), 1);
}

#[test]
fn a_full_socket_takes_nothing_and_a_stopped_peer_times_out() {
    let (a, b) = Channel::pair().unwrap();
    let chunk = vec![7; 64 << 10];
    while a.send(&chunk).unwrap() > 0 {}
    let error = a.send_all(&chunk, &[], Instant::now() + Duration::from_millis(20)).unwrap_err();
    assert!(error.is_timed_out(), "{error}");
    let error = a.receive_before(&mut [0], &mut Vec::new(), 0, Instant::now() + Duration::from_millis(20)).unwrap_err();
    assert!(error.is_timed_out(), "{error}");
    drop(b);
}

#[test]
fn sockets_in_the_file_system_are_private_and_exclusive() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a manager.sock");
    let address = Address::Path(path.clone());
    let missing = Channel::connect(&address, soon()).unwrap_err();
    assert!(missing.is_not_found(), "{missing}");
    let listener = Listener::bind(address.clone()).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Listener::bind(address.clone()).unwrap_err().kind(), ErrorKind::AlreadyExists);
    Channel::connect(&address, soon()).unwrap();
    drop(listener);
    assert!(path.exists(), "only the holder of the name's lock may remove it");
    let ended = loop {
        match Channel::connect(&address, soon()) {
            Err(error) => break error,
            // A process that another test is starting may hold a copy of the listener for an instant.
            Ok(_) => std::thread::yield_now(),
        }
    };
    assert!(ended.is_not_found(), "{ended}");
}

/// Connections that fill the listener's queue, which has been made as small as it gets.
fn fill(listener: &Listener) -> Vec<Channel> {
    rustix::net::listen(listener, 0).unwrap();
    let mut waiting = Vec::new();
    loop {
        match Channel::connect(listener.address(), Instant::now()) {
            Ok(channel) => waiting.push(channel),
            Err(error) => {
                assert!(error.is_timed_out(), "{error}");
                return waiting;
            }
        }
        assert!(waiting.len() < 100);
    }
}

#[test]
fn a_full_queue_times_out_and_is_never_a_false_connection() {
    let directory = tempfile::tempdir().unwrap();
    for address in [Address::random().unwrap(), Address::Path(directory.path().join("full.sock"))] {
        let listener = Listener::bind(address).unwrap();
        let waiting = fill(&listener);
        assert!(!waiting.is_empty());
        let start = Instant::now();
        let error = Channel::connect(listener.address(), start + Duration::from_millis(50)).unwrap_err();
        assert!(error.is_timed_out(), "{error}");
        assert!(start.elapsed() >= Duration::from_millis(50));
    }
}

#[test]
fn a_connect_waits_for_its_place_in_the_queue() {
    let listener = Listener::bind(Address::random().unwrap()).unwrap();
    let waiting = fill(&listener);
    let address = listener.address().clone();
    let late = std::thread::spawn(move || {
        let channel = Channel::connect(&address, soon()).unwrap();
        channel.send(b"late").unwrap();
        channel
    });
    drop(waiting);
    let mut buffer = [0; 8];
    loop {
        sys::wait_readable(&[listener.as_fd()], Some(soon())).unwrap();
        let Some(server) = listener.accept().unwrap() else { continue };
        if server.receive_before(&mut buffer, &mut Vec::new(), 0, soon()).unwrap() == Received::Bytes(4) {
            break;
        }
    }
    late.join().unwrap();
}

#[test]
fn who_neither_answers_nor_reads_is_named() {
    let (ours, _theirs) = Channel::pair().unwrap();
    let error = ours.receive_before(&mut [0; 4], &mut Vec::new(), 0, Instant::now()).unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!(error.to_string(), "the process at the other end of the socket does not answer; is it stopped?");
    let error = ours.send_all(&vec![0; 64 << 20], &[], Instant::now()).unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!(error.to_string(), "the process at the other end of the socket takes no more bytes; is it stopped?");
}

#[test]
fn an_address_is_taken_once_and_must_be_one() {
    let listener = Listener::bind(Address::random().unwrap()).unwrap();
    let error = Listener::bind(listener.address().clone()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(
        error.to_string(),
        format!("there is already a socket at {}: give it up there, or take another address", listener.address())
    );
    for nothing in ["", "a\0b"] {
        let error = Listener::bind(Address::Path(nothing.into())).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::OutOfRange);
        assert!(error.to_string().ends_with(" is not an address: it is empty or holds a zero byte"), "{error}");
    }
}
