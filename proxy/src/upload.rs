//! Large values go ahead of the operation that uses them, into their final block: by the thread's lane if there is room, else by the
//! socket.
//!
//! An upload's number says which road it took, so that the commit that names it follows (see `lane`): even by the socket, odd by a lane.

use crate::request::Target;
use crate::session::SessionCore;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::LANE_ROOM_BYTES;
use commonhold_ipc::points;
use commonhold_ipc::value::Sink;
use commonhold_ipc::wire::{Call, Head, UPLOAD_HEAD_BYTES, UploadHead};
use std::sync::Arc;

/// Whether the upload with this number went by the socket.
pub fn went_by_socket(number: u64) -> bool {
    number.is_multiple_of(2)
}

/// Sends an archive ahead.
pub fn send_bytes(session: &Arc<SessionCore>, bytes: &[u8], target: Target, handles: usize) -> Result<u64> {
    let len = bytes.len() as u64;
    let head = UploadHead { prefix: target.prefix(len), len, handles: handles as u32 };
    send(session, head, |mut sink| {
        sink(bytes).map_err(|error| Error::system("cannot send a value", error))?;
        Ok(len)
    })
}

/// Sends a value ahead that `write` writes into a sink. Returns the upload's number.
pub fn send(session: &Arc<SessionCore>, head: UploadHead, write: impl FnOnce(Sink) -> Result<u64>) -> Result<u64> {
    session.check()?;
    let number = 2 * session.next_upload();
    let bytes = head.len + UPLOAD_HEAD_BYTES as u64;
    let frame = Head { len: bytes as u32, code: Call::Upload as u8, quiet: true, lane: 0, number };
    if let Some(road) = session.lane_road()
        && bytes <= LANE_ROOM_BYTES
        && road.is_free(session.pins.lane())
        && !session.connection.is_streaming_here()
        && let Some(part) = road.part(bytes)
    {
        let start = part.start();
        road.write(start, &head.to_bytes());
        let done = write(into_room(session.clone(), start + UPLOAD_HEAD_BYTES as u64, head.len));
        // Writing is the value's own code, in which this may have become another process.
        session.check()?;
        written(head.len, done)?;
        // Or it may have made calls.
        let lane = session.pins.lane();
        if road.is_free(lane) {
            points::client("upload: in the room");
            road.carry_part(&session.connection, Head { lane, number: number + 1, ..frame }, part, false)?;
            return Ok(number + 1);
        }
        return Err(Error::new(ErrorKind::Other, "a value was lost on its way: the thread that sends it has given up a call meanwhile"));
    }
    by_socket(session, frame, head, write)?;
    Ok(number)
}

/// A sink into a part of the room.
fn into_room(session: Arc<SessionCore>, start: u64, len: u64) -> Sink {
    let mut done = 0;
    Box::new(move |bytes| {
        // More than was counted is seen afterwards, by what has been written.
        let fitting = &bytes[..bytes.len().min((len - done) as usize)];
        session.check().map_err(std::io::Error::other)?;
        if let Some(road) = session.lane_road() {
            road.write(start + done, fitting);
        }
        done += fitting.len() as u64;
        Ok(())
    })
}

/// Whether a value was as long as it said it would be.
fn written(len: u64, written: Result<u64>) -> Result<()> {
    let written = written?;
    if written == len {
        return Ok(());
    }
    let text = format!("a value changed while it was sent: it had {len} bytes first and {written} then");
    Err(Error::new(ErrorKind::Other, text))
}

/// Gives up a connection on which a frame has been begun and not been sent whole: the manager waits for bytes that will never
/// come, and would take whatever is said next for them.
struct WholeOrNothing<'s>(&'s SessionCore);

impl Drop for WholeOrNothing<'_> {
    fn drop(&mut self) {
        // In a forked child the frame is the parent's, which goes on with it.
        if self.0.is_ours() {
            self.0.connection.abandon();
        }
    }
}

fn by_socket(session: &Arc<SessionCore>, frame: Head, head: UploadHead, write: impl FnOnce(Sink) -> Result<u64>) -> Result<()> {
    let _right = session.connection.begin_writing()?;
    // Dropped before the right to write, should the value's own code panic.
    let whole = WholeOrNothing(session);
    points::client("upload: before it");
    session.connection.write(&frame.to_bytes())?;
    points::client("upload: frame's head sent");
    session.connection.write(&head.to_bytes())?;
    points::client("upload: heads sent");
    let sender = session.clone();
    let sink = Box::new(move |bytes: &[u8]| {
        let sent = sender.check().and_then(|()| sender.connection.write(bytes)).map_err(std::io::Error::other);
        points::client("upload: some bytes sent");
        sent
    });
    session.connection.stream(|| {
        let done = write(sink);
        session.check()?;
        written(head.len, done)
    })?;
    points::client("upload: sent");
    std::mem::forget(whole);
    Ok(())
}
