//! The value of an operation, ready to be named in it: within the request, behind it in the room of the lanes, or at the manager already
//! if it is large.

use crate::lane::Standing;
use crate::session::{SessionCore, Stored};
use crate::upload;
use commonhold_ipc::block::{EntryShape, HEAD_BYTES as BLOCK_HEAD_BYTES};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::lane::IN_PLACE_BYTES;
use commonhold_ipc::limits::INLINE_VALUE_BYTES_MAX;
use commonhold_ipc::value::{AsShared, Ser, Shared};
use commonhold_ipc::wire::behind::{PLACE_BYTES_MIN, PlaceBehind};
use commonhold_ipc::wire::{Payload, Source, UploadHead, Words};
use std::ops::Range;
use std::sync::Arc;

/// Bytes that a request of one operation has beside key, value and handles, at the most.
const REQUEST_BYTES: usize = 96;

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
            let number = upload::send_bytes(session, &whole.bytes()[range], target.prefix(len), handles.len() / 8)?;
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
        let number = upload::send_bytes(session, bytes, target.prefix(bytes.len() as u64), 0)?;
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

    /// If its bytes do not fit into a slot with their request, of which so many are `beside` the value (its key), and the next call can go by the
    /// thread's lane: how an operation names it then, standing in the room already. Shorter ones than can stand there are as soon copied with their
    /// request, however long it is.
    #[inline(always)]
    pub fn apart<'s, 'a>(&'a self, session: &'s SessionCore, ser: &'a Ser, beside: usize) -> Option<(Payload<'a>, Standing<'s>)> {
        match &self.encoded {
            Encoded::Inline(range) if range.len() >= PLACE_BYTES_MIN => self.lay_apart(session, &ser.bytes()[range.clone()], beside),
            _ => None,
        }
    }

    #[inline(never)]
    fn lay_apart<'s, 'a>(&'a self, session: &'s SessionCore, bytes: &[u8], beside: usize) -> Option<(Payload<'a>, Standing<'s>)> {
        let request = REQUEST_BYTES + beside + self.handles.len();
        if request + bytes.len() <= IN_PLACE_BYTES {
            return None;
        }
        let place = PlaceBehind::new(0, bytes.len())?;
        // Who may not call at all is told so by the call.
        session.check().ok()?;
        let standing = session.lane_road()?.stand(&session.connection, session.pins.lane(), bytes, request)?;
        let handles = Words::new(&self.handles).unwrap_or_else(|| unreachable!("ids have 8 bytes each"));
        Some((Payload { source: Source::behind(place), handles }, standing))
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
                "the value holds a handle on object {id} of another manager: a container can refer to objects of its own manager only: make it there, or store its `token()`"
            );
            return Err(Error::new(ErrorKind::Refused, text));
        }
        ids.extend_from_slice(&id.to_le_bytes());
    }
    Ok(ids)
}
