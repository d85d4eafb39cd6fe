//! Of pipes and of blocks of bytes.

use super::{ErrorKind, Manager, says};
use std::io::{Seek, SeekFrom};
use std::time::Duration;

#[test]
fn of_pipes() {
    let manager = Manager::in_process().unwrap();
    let (receiver, sender) = manager.pipe_one_way::<u8>().unwrap();
    says(
        receiver.recv_timeout(Duration::from_millis(1)),
        ErrorKind::TimedOut,
        "no item came to object {…} at {…} within 1ms: wait longer, or see whether anybody sends",
    );
    receiver.close().unwrap();
    let closed =
        "the pipe is closed: its other end was closed, or nobody holds it any more; what was sent before can still be received there";
    says(sender.send(1), ErrorKind::Closed, closed);
    says(sender.try_send(1), ErrorKind::Closed, closed);
}

#[test]
fn of_places_in_a_block() {
    let block = Manager::in_process().unwrap().shared_bytes(10).unwrap();
    let error = block.cursor().unwrap().seek(SeekFrom::Current(-1)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "a place before the beginning of a block: seek within it");
}
