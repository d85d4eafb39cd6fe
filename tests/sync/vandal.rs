//! One who has attached an object and writes over its words.

use crate::support::PATIENCE;
use commonhold::{Handle, Manager};
use commonhold_ipc::handshake::{self, ClientOffer, Purpose, Versions};
use commonhold_ipc::map::Segment;
use commonhold_ipc::segment::{self, HEADER_BYTES};
use commonhold_ipc::socket::{Channel, Received};
use commonhold_ipc::value::ARCHIVE_FORMAT;
use commonhold_ipc::wire::{Call, HEAD_BYTES, Head};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// A session by hand, with an object's segment.
pub struct Vandal {
    segment: Segment,
    _channel: Channel,
}

impl Vandal {
    /// Connects and attaches.
    pub fn attach<H: Handle>(manager: &Manager, handle: &H) -> Vandal {
        let offer = ClientOffer { versions: Versions::ours(ARCHIVE_FORMAT), purpose: Purpose::Session, authkey: None };
        let deadline = Instant::now() + PATIENCE;
        let (channel, ..) = handshake::connect(manager.address(), &offer, deadline).unwrap();
        let mut fds = Vec::new();
        let mut bytes = 0;
        for (number, call) in [(1, Call::Retain), (2, Call::Attach)] {
            let head = Head { len: 8, code: call as u8, quiet: false, lane: 0, number };
            channel.send_all(&[&head.to_bytes()[..], &handle.id().to_le_bytes()].concat(), &[], deadline).unwrap();
            let mut reply = [0; 256];
            let Received::Bytes(count) = channel.receive_before(&mut reply, &mut fds, 4, deadline).unwrap() else { panic!("no reply") };
            assert_eq!(reply[4], 0, "the call succeeds");
            bytes = if call == Call::Attach { u64::from_le_bytes(reply[count - 8..count].try_into().unwrap()) } else { bytes };
            assert!(count >= HEAD_BYTES);
        }
        assert_eq!(fds.len(), 1);
        Vandal { segment: segment::attach(&fds[0], bytes, handle.id(), H::KIND).unwrap(), _channel: channel }
    }

    /// Writes over a word of the kind's own.
    pub fn write(&self, at: usize, word: u64) {
        self.segment.word(HEADER_BYTES + at).store(word, Ordering::SeqCst);
    }
}
