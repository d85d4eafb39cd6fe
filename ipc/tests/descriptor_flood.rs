//! A peer that sends descriptors nobody asked for fills no table. In a process of its own: it counts all descriptors there are.
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use commonhold_ipc::socket::{Channel, Received};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// More at once than a well-behaved peer can send: so by the raw call.
fn send_flood(socket: &Channel, fds: &[BorrowedFd<'_>]) {
    let mut space = vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(fds).size()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    assert_eq!(rustix::net::sendmsg(socket, &[IoSlice::new(b"flood")], &mut control, SendFlags::empty()).unwrap(), 5);
}

#[test]
fn floods_leave_nothing_open() {
    let (a, b) = Channel::pair().unwrap();
    let (c, _d) = Channel::pair().unwrap();
    let two_hundred = vec![c.as_fd(); 200];
    let before = open_descriptors();
    let mut buffer = [0; 16];

    send_flood(&a, &two_hundred);
    assert_eq!(b.receive(&mut buffer).unwrap(), Received::Bytes(5));
    assert_eq!(open_descriptors(), before, "none were asked for");

    for (sent, wanted) in [(200, 0), (200, 1), (200, 2), (200, 4), (3, 2), (2, 2), (1, 2)] {
        send_flood(&a, &two_hundred[..sent]);
        let mut fds = Vec::new();
        assert_eq!(b.receive_with_fds(&mut buffer, &mut fds, wanted).unwrap(), Received::Bytes(5));
        assert_eq!(fds.len(), wanted.min(sent), "{sent} sent, {wanted} wanted");
        assert_eq!(open_descriptors(), before + fds.len(), "{sent} sent, {wanted} wanted");
    }

    for _ in 0..20 {
        send_flood(&a, &two_hundred);
    }
    let mut fds = Vec::new();
    for _ in 0..20 {
        // Messages with descriptors are not merged: each comes by itself.
        assert_eq!(b.receive_with_fds(&mut buffer, &mut fds, 2).unwrap(), Received::Bytes(5));
    }
    assert_eq!(fds.len(), 2, "the maximum holds over all messages together");
    drop(fds);
    assert_eq!(open_descriptors(), before);
}
