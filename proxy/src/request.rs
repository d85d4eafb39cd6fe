//! A request on its way: its frame, and the values that go ahead of it.

use crate::session::{SessionCore, Stored};
use crate::upload;
use commonhold_ipc::block::{EntryShape, HEAD_BYTES as BLOCK_HEAD_BYTES};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::{FRAME_BYTES_MAX, INLINE_VALUE_BYTES_MAX};
use commonhold_ipc::value::{AsShared, Ser, Shared};
use commonhold_ipc::wire::buffers::Short;
use commonhold_ipc::wire::commit::{Commit, CommitWriter, Op, write_short, write_single};
use commonhold_ipc::wire::{Call, HEAD_BYTES, Head, Payload, Source, UploadHead, Words, buffers, malformed, whole};
use std::ops::Range;
use std::sync::Arc;

/// A frame's bytes, with room for its head at the front.
#[allow(clippy::large_enum_variant, reason = "the large one is the common one, and a request stays where it was made")]
enum Frame {
    /// Of one small operation, as most are: they need no buffer.
    Short(Short),
    Long(Vec<u8>),
}

impl Frame {
    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Frame::Short(short) => short.bytes_mut(),
            Frame::Long(long) => long,
        }
    }
}

/// A frame that is being put together.
pub struct Request {
    call: Call,
    quiet: bool,
    by_socket: bool,
    frame: Frame,
}

#[cold]
fn too_long(len: usize) -> Error {
    let text = format!("this request has {len} bytes, the most is {FRAME_BYTES_MAX}: do it in several parts");
    Error::new(ErrorKind::TooLarge, text)
}

impl Drop for Request {
    #[inline(always)]
    fn drop(&mut self) {
        if let Frame::Long(long) = &mut self.frame {
            buffers::give(std::mem::take(long));
        }
    }
}

impl Request {
    /// A call with an empty payload.
    pub fn new(call: Call) -> Self {
        let mut bytes = buffers::take();
        bytes.resize(HEAD_BYTES, 0);
        Request { call, quiet: false, by_socket: false, frame: Frame::Long(bytes) }
    }

    /// A commit of what [`write_single`](Self::write_single) will write: made first and written where it stays, since a move
    /// would be a copy. `quiet`: as [`quiet`](Self::quiet).
    #[inline(always)]
    pub fn single(quiet: bool) -> Self {
        Request { call: Call::Commit, quiet, by_socket: false, frame: Frame::Short(Short::default()) }
    }

    /// Writes the commit's only operation. It goes by the socket if an upload that the operation names did.
    #[inline(always)]
    pub fn write_single(&mut self, op: &Op<'_>) {
        if let Frame::Short(short) = &mut self.frame
            && !write_short(short, op)
        {
            self.write_long(op);
        }
        op.each_upload(|number| self.by_socket |= upload::went_by_socket(number));
    }

    #[inline(never)]
    fn write_long(&mut self, op: &Op<'_>) {
        let mut bytes = buffers::take();
        bytes.resize(HEAD_BYTES, 0);
        write_single(&mut bytes, op);
        self.frame = Frame::Long(bytes);
    }

    /// A commit as it was put together.
    pub fn commit(commit: &mut CommitWriter) -> Self {
        let by_socket = commit.uploads().iter().copied().any(upload::went_by_socket);
        Request { call: Call::Commit, quiet: false, by_socket, frame: Frame::Long(commit.take_frame()) }
    }

    /// Operations as they were put together, each to happen by itself.
    pub fn series(ops: &mut CommitWriter) -> Self {
        let mut request = Request::commit(ops);
        request.call = Call::Series;
        request
    }

    /// The same, after which the writer's ticket is given back.
    pub fn last(mut self) -> Self {
        self.call = Call::LastCommit;
        self
    }

    /// The outcomes of the operations are not wanted: it is enough to know that they happened.
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// The payload, to append to.
    ///
    /// # Panics
    /// If it is that of a [`single`](Self::single) operation, which is whole.
    pub fn payload(&mut self) -> &mut Vec<u8> {
        match &mut self.frame {
            Frame::Long(long) => long,
            Frame::Short(_) => unreachable!("nothing is appended to a single operation"),
        }
    }

    /// The operations behind the first so many, to send again.
    pub fn ops_from(&self, first: u32) -> Result<CommitWriter> {
        let (_, payload) = self.parts(0, 0)?;
        let commit = whole(payload, "series", Commit::parse)?;
        let mut rest = CommitWriter::default();
        for op in commit.ops().skip(first as usize) {
            rest.op(&op.map_err(|_| malformed("series"))?);
        }
        Ok(rest)
    }

    /// The whole frame.
    pub fn frame(&mut self, lane: u16, number: u64) -> Result<&[u8]> {
        let (head, _) = self.parts(lane, number)?;
        let bytes = self.frame.bytes_mut();
        bytes[..HEAD_BYTES].copy_from_slice(&head.to_bytes());
        Ok(bytes)
    }

    /// Head and payload apart. A short payload has some zeros behind it.
    #[inline]
    pub fn parts(&self, lane: u16, number: u64) -> Result<(Head, &[u8])> {
        let (len, payload) = match &self.frame {
            Frame::Short(short) => (short.len() - HEAD_BYTES, short.payload_runs()),
            Frame::Long(long) => (long.len() - HEAD_BYTES, &long[HEAD_BYTES..]),
        };
        if len > FRAME_BYTES_MAX {
            return Err(too_long(len));
        }
        Ok((Head { len: len as u32, code: self.call as u8, quiet: self.quiet, lane, number }, payload))
    }

    /// Whether it may go by a lane: the ticket, or a commit or series that names nothing that went by the socket, where it might be overtaken.
    pub fn fits_lanes(&self) -> bool {
        matches!(self.call, Call::Commit | Call::LastCommit | Call::Series | Call::Ticket) && !self.by_socket
    }
}

/// Where a value will lie, which decides how much room its block needs before it.
#[derive(Clone, Copy)]
pub enum Target {
    /// In an entry with a key of so many bytes, of a dict with this alignment.
    Entry {
        /// Bytes of the key's archive.
        key_len: u64,
        /// Alignment of values.
        align: u64,
    },
    /// In an element's or a value's block.
    Element,
}

impl Target {
    /// Bytes of the block before a value of so many.
    pub fn prefix(self, value_len: u64) -> u64 {
        match self {
            Target::Entry { key_len, align } => EntryShape { key_len, value_len, align, handles: 0 }.value(),
            Target::Element => BLOCK_HEAD_BYTES,
        }
    }
}

/// A value's archive: in the serialiser, or at the manager already.
pub enum Encoded {
    /// Here.
    Inline(Range<usize>),
    /// Sent ahead under this number.
    Sent(u64),
}

/// A value, ready to be named in an operation.
pub struct Value {
    encoded: Encoded,
    handles: Vec<u8>,
}

impl Value {
    /// Writes a value behind what is in `ser`, or sends it ahead if it is large.
    #[inline]
    pub fn encode<T: Shared>(session: &Arc<SessionCore>, ser: &mut Ser, value: &impl AsShared<T>, target: Target) -> Result<Value> {
        let before = ser.handles().len();
        if T::FLAT && size_of::<T::Archived>() <= INLINE_VALUE_BYTES_MAX {
            // Never larger, and without handles.
            return Ok(Value { encoded: Encoded::Inline(ser.put::<T>(value)?), handles: Vec::new() });
        }
        if let Some(range) = ser.put_up_to::<T>(value, INLINE_VALUE_BYTES_MAX as u64)? {
            let handles = ids(session, &ser.handles()[before..])?;
            return Ok(Value { encoded: Encoded::Inline(range), handles });
        }
        Self::send::<T>(session, value, target)
    }

    /// Sends a value ahead.
    #[cold]
    fn send<T: Shared>(session: &Arc<SessionCore>, value: &impl AsShared<T>, target: Target) -> Result<Value> {
        let mut count = Ser::count();
        count.put::<T>(value)?;
        let handles = ids(session, count.handles())?;
        let len = count.written();
        if !handles.is_empty() {
            // The value's own code may drop the last handle on something, and say so on the connection: not in the middle of
            // a message.
            let mut whole = Ser::buffer();
            let range = whole.put::<T>(value)?;
            let handles = ids(session, whole.handles())?;
            let number = upload::send_bytes(session, &whole.bytes()[range], target, handles.len() / 8)?;
            return Ok(Value { encoded: Encoded::Sent(number), handles });
        }
        let head = UploadHead { prefix: target.prefix(len), len, handles: 0 };
        let number = upload::send(session, head, |sink| {
            let mut stream = Ser::stream(sink);
            stream.put::<T>(value)?;
            stream.finish()
        })?;
        Ok(Value { encoded: Encoded::Sent(number), handles })
    }

    /// The same for bytes that are an archive already and hold no handles.
    pub fn of_bytes(session: &Arc<SessionCore>, ser: &mut Ser, bytes: &[u8], target: Target) -> Result<Value> {
        if bytes.len() <= INLINE_VALUE_BYTES_MAX {
            return Ok(Value { encoded: Encoded::Inline(ser.put_archive(bytes, &[])?), handles: Vec::new() });
        }
        let number = upload::send_bytes(session, bytes, target, 0)?;
        Ok(Value { encoded: Encoded::Sent(number), handles: Vec::new() })
    }

    /// As an operation names it.
    #[inline]
    pub fn payload<'a>(&'a self, ser: &'a Ser) -> Payload<'a> {
        let source = match &self.encoded {
            Encoded::Inline(range) => Source::Inline(&ser.bytes()[range.clone()]),
            Encoded::Sent(number) => Source::Upload(*number),
        };
        Payload { source, handles: Words::new(&self.handles).unwrap_or_else(|| unreachable!("ids have 8 bytes each")) }
    }

    /// Whether there is nothing to keep until it is committed: neither an upload nor handles.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.handles.is_empty() && matches!(self.encoded, Encoded::Inline(_))
    }

    /// Holds the objects that the value has handles on, until what comes back is dropped.
    pub fn stored(&self, session: &Arc<SessionCore>) -> Result<Vec<Stored>> {
        let Some(ids) = Words::new(&self.handles) else { unreachable!("ids have 8 bytes each") };
        ids.iter().map(|id| Stored::new(session, id)).collect()
    }

    /// The upload it was sent ahead as, if it was.
    pub fn upload(&self) -> Option<u64> {
        match self.encoded {
            Encoded::Sent(number) => Some(number),
            Encoded::Inline(_) => None,
        }
    }
}

/// The ids of handles, 8 bytes each; an error if one is of another manager.
#[inline]
pub fn ids(session: &SessionCore, handles: &[(u64, u64)]) -> Result<Vec<u8>> {
    if handles.is_empty() { Ok(Vec::new()) } else { some_ids(session, handles) }
}

fn some_ids(session: &SessionCore, handles: &[(u64, u64)]) -> Result<Vec<u8>> {
    let mut ids = Vec::with_capacity(handles.len() * 8);
    for (manager, id) in handles {
        if *manager != session.manager() {
            let text = format!(
                "the value holds a handle on object {id} of another manager: a container can refer to objects of its own manager only"
            );
            return Err(Error::new(ErrorKind::Refused, text));
        }
        ids.extend_from_slice(&id.to_le_bytes());
    }
    Ok(ids)
}
