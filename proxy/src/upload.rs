//! Large values go ahead of the operation that uses them, into their final block: by the thread's lane if there is room, else by the
//! socket.
//!
//! An upload's number says which road it took, so that the commit that names it follows (see `request` and `lane`): even by the socket, odd by a lane.

use crate::connection::disconnected;
use crate::lane::{LaneRoad, PAYLOAD_AT, UnderWay};
use crate::session::SessionCore;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::LANE_ROOM_BYTES;
use commonhold_ipc::points;
use commonhold_ipc::value::Sink;
use commonhold_ipc::wire::{Call, Head, PART_HEAD_BYTES, PartHead, UPLOAD_HEAD_BYTES, UploadHead};
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// Sends an archive ahead. `prefix`: bytes of its block before it.
pub fn send_bytes(session: &Arc<SessionCore>, bytes: &[u8], prefix: u64, handles: usize) -> Result<u64> {
    let len = bytes.len() as u64;
    send(session, UploadHead { prefix, len, handles: handles as u32 }, |mut sink| {
        sink(bytes).map_err(|error| Error::system("cannot send a value", error))?;
        Ok(len)
    })
}

/// Sends a value ahead that `write` writes into a sink. Returns the upload's number.
pub fn send(session: &Arc<SessionCore>, head: UploadHead, write: impl FnOnce(Sink) -> Result<u64>) -> Result<u64> {
    session.check()?;
    let number = 2 * session.next_upload();
    if let Some(parts) = Parts::begin(session, head, number + 1) {
        return parts.send(write);
    }
    let bytes = head.len + UPLOAD_HEAD_BYTES as u64;
    let frame = Head { len: bytes as u32, code: Call::Upload as u8, quiet: true, lane: 0, number };
    by_socket(session, frame, head, write)?;
    Ok(number)
}

/// Bytes of a value that go by a lane at a time: large enough that a round trip is little beside its copies, small enough that two of
/// them stay in a processor's cache where they go through caches. Whole pages, so that all of them lie equally well for the kernel's copy (see [`PAYLOAD_AT`]).
const PART_BYTES: u64 = 128 << 10;
/// Room for a part, its head, and what is before it.
const PART_ROOM_BYTES: u64 = PART_BYTES + 4096;
const _: () = assert!(PART_BYTES.is_multiple_of(4096) && PAYLOAD_AT + PART_HEAD_BYTES as u64 <= 4096);

/// A value on its way by a lane: while the manager copies one part of it, the next is written beside it. A lane has one call at a time,
/// so each part is answered before the next one is posted, and two parts of the room, in turn, are enough.
struct Parts {
    session: Arc<SessionCore>,
    head: UploadHead,
    number: u64,
    /// Room for a part, or for two.
    room: Range<u64>,
    /// Which of them is written.
    is_second: bool,
    /// Bytes of the value in it.
    filled: u64,
    /// Bytes of the value that have been posted before.
    posted: u64,
    under_way: Option<UnderWay>,
    /// There was no answer to a part: the session is over, and the manager may still read the room.
    is_lost: bool,
    /// The manager has the whole value, and it is as it should be.
    is_whole: bool,
}

impl Parts {
    /// If the thread has a free lane and there is room. A larger value than the whole room may have goes by the socket, which does not
    /// mind how long its value's own code takes over it.
    fn begin(session: &Arc<SessionCore>, head: UploadHead, number: u64) -> Option<Parts> {
        let road = session.lane_road()?;
        if head.len > LANE_ROOM_BYTES || !road.is_free(session.pins.lane()) || session.connection.is_streaming_here() {
            return None;
        }
        let bytes = if head.len > PART_BYTES { 2 * PART_ROOM_BYTES } else { PAYLOAD_AT + PART_HEAD_BYTES as u64 + head.len };
        let room = road.take_room(bytes)?;
        let (is_second, is_lost, is_whole) = (false, false, false);
        Some(Parts { session: session.clone(), head, number, room, is_second, filled: 0, posted: 0, under_way: None, is_lost, is_whole })
    }

    fn send(self, write: impl FnOnce(Sink) -> Result<u64>) -> Result<u64> {
        let parts = Rc::new(RefCell::new(self));
        let sink = parts.clone();
        let done = write(Box::new(move |bytes| sink.borrow_mut().write(bytes).map_err(std::io::Error::other)));
        let mut parts = parts.borrow_mut();
        // Writing is the value's own code, in which this may have become another process.
        parts.session.check()?;
        written(parts.head.len, done)?;
        parts.post()?;
        parts.settle()?;
        parts.is_whole = true;
        Ok(parts.number)
    }

    fn road(&self) -> Result<&LaneRoad> {
        self.session.lane_road().ok_or_else(disconnected)
    }

    /// Where in the room the part begins that is written.
    fn place(&self) -> u64 {
        self.room.start + u64::from(self.is_second) * PART_ROOM_BYTES + PAYLOAD_AT
    }

    /// Takes the value's next bytes.
    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.session.check()?;
        while !bytes.is_empty() {
            // More than was counted is seen afterwards, by what has been written.
            let to_come = self.head.len - self.posted - self.filled;
            if to_come == 0 {
                return Ok(());
            }
            if self.filled == PART_BYTES {
                self.post()?;
            }
            let (here, rest) = bytes.split_at(bytes.len().min(to_come.min(PART_BYTES - self.filled) as usize));
            self.road()?.write_many(self.place() + PART_HEAD_BYTES as u64 + self.filled, here, true);
            self.filled += here.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// Posts the part that is written, once the one before it has been answered: the next one goes where that stood.
    fn post(&mut self) -> Result<()> {
        self.settle()?;
        let (road, lane, place) = (self.road()?, self.session.pins.lane(), self.place());
        // The value's own code may have made calls.
        if !road.is_free(lane) {
            let text = "a value was lost on its way: the thread that sends it has given up a call meanwhile";
            return Err(Error::new(ErrorKind::Other, text));
        }
        road.write(place, &PartHead { upload: self.head, from: self.posted }.to_bytes());
        let len = PART_HEAD_BYTES as u32 + self.filled as u32;
        let head = Head { len, code: Call::Part as u8, quiet: true, lane, number: self.number };
        points::client("upload: a part in the room");
        let under_way = road.post_at(&self.session.connection, head, place, false)?;
        points::client("upload: a part posted");
        self.under_way = Some(under_way);
        self.posted += self.filled;
        (self.filled, self.is_second) = (0, !self.is_second);
        Ok(())
    }

    /// Waits until the part that has been posted is answered.
    fn settle(&mut self) -> Result<()> {
        let Some(call) = self.under_way.take() else { return Ok(()) };
        let settled = self.road().and_then(|road| road.settle(&self.session.connection, call));
        self.is_lost |= settled.is_err();
        settled
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        // In a forked child the room is the parent's, and so is the call.
        if !self.session.is_ours() {
            return;
        }
        if self.settle().is_err() || self.is_lost {
            // The room goes with the session.
            return;
        }
        if let Some(road) = self.session.lane_road() {
            road.give_room(self.room.clone());
        }
        if !self.is_whole && self.posted > 0 {
            self.session.tell(Call::Discard, &[self.number]);
        }
    }
}

/// Whether a value was as long as it said it would be.
pub(crate) fn written(len: u64, written: Result<u64>) -> Result<()> {
    let written = written?;
    if written == len {
        return Ok(());
    }
    let text = format!("a value changed while it was sent: it had {len} bytes first and {written} then; nothing may write to it meanwhile");
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
