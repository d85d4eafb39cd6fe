//! A request on its way: its frame.

use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::FRAME_BYTES_MAX;
use commonhold_ipc::wire::apart::without_values;
use commonhold_ipc::wire::behind::{VALUE_BYTES_MIN, is_worth_it};
use commonhold_ipc::wire::buffers::Short;
use commonhold_ipc::wire::commit::{Commit, CommitWriter, Op, write_short, write_single};
use commonhold_ipc::wire::run::RunMark;
use commonhold_ipc::wire::{Call, HEAD_BYTES, Head, Source, buffers, malformed, whole};

/// Whether the upload with this number went by the socket: see `upload`, which gives the numbers.
fn went_by_socket(number: u64) -> bool {
    number.is_multiple_of(2)
}

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
    /// Bytes of its values that can stand behind it, on a lane.
    large_bytes: usize,
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
        Request { call, quiet: false, by_socket: false, large_bytes: 0, frame: Frame::Long(bytes) }
    }

    /// A commit of what [`write_single`](Self::write_single) will write: made first and written where it stays, since a move
    /// would be a copy. `quiet`: as [`quiet`](Self::quiet).
    #[inline(always)]
    pub fn single(quiet: bool) -> Self {
        Request { call: Call::Commit, quiet, by_socket: false, large_bytes: 0, frame: Frame::Short(Short::default()) }
    }

    /// Writes the commit's only operation. It goes by the socket if an upload that the operation names did.
    #[inline(always)]
    pub fn write_single(&mut self, op: &Op<'_>) {
        if let Frame::Short(short) = &mut self.frame
            && !write_short(short, op)
        {
            self.write_long(op);
        }
        op.each_upload(|number| self.by_socket |= went_by_socket(number));
    }

    #[inline(never)]
    fn write_long(&mut self, op: &Op<'_>) {
        let mut bytes = buffers::take();
        bytes.resize(HEAD_BYTES, 0);
        write_single(&mut bytes, op);
        op.each_value(|value| match value.source {
            Source::Inline(bytes) if bytes.len() >= VALUE_BYTES_MIN => self.large_bytes += bytes.len(),
            _ => {}
        });
        self.frame = Frame::Long(bytes);
    }

    /// A commit as it was put together.
    pub fn commit(commit: &mut CommitWriter) -> Self {
        let by_socket = commit.uploads().iter().copied().any(went_by_socket);
        let large_bytes = commit.large_bytes();
        Request { call: Call::Commit, quiet: false, by_socket, large_bytes, frame: Frame::Long(commit.take_frame()) }
    }

    /// Operations as they were put together, each to happen by itself.
    pub fn series(ops: &mut CommitWriter) -> Self {
        let mut request = Request::commit(ops);
        request.call = Call::Series;
        request
    }

    /// The same, of logic beside the data.
    pub fn of_run(mut self, mark: RunMark) -> Self {
        self.call = Call::RunCommit;
        self.payload().extend_from_slice(&mark.to_bytes());
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

    /// Its payload with the places of the large values in itself instead of these. `None`: there are none, or it is as well sent whole.
    pub fn without_values(&self) -> Option<Vec<u8>> {
        let Frame::Long(long) = &self.frame else { return None };
        let whole = &long[HEAD_BYTES..];
        if !is_worth_it(whole.len(), self.large_bytes) {
            return None;
        }
        let mut payload = buffers::take();
        without_values(whole, &mut payload)?;
        Some(payload)
    }

    /// Whether it may go by a lane: the ticket, or a commit or series that names nothing that went by the socket, where it might be overtaken.
    pub fn fits_lanes(&self) -> bool {
        matches!(self.call, Call::Commit | Call::RunCommit | Call::Series | Call::Ticket) && !self.by_socket
    }
}
