//! What a call is, whatever carries it: frames of requests and replies, as bytes.
//!
//! A frame is a head of 16 bytes and a payload. All numbers are little-endian. Nothing here does I/O, allocates by a foreign
//! length, or recurses. A request that cannot be read ends its connection; one that can be read but not done gets an error.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | bytes of the payload |
//! | 4 | 1 | request: code of the call; reply: status |
//! | 5 | 1 | request: 1 if the outcomes of its operations are not wanted, else 0; reply: 0 |
//! | 6 | 2 | lane of the caller |
//! | 8 | 8 | request and reply: number of the call on its lane, from 1; upload: the upload's number |
//!
//! Mutations all travel as one call, [`Call::Commit`]: conditions that must hold, then operations that happen together or
//! not at all. A plain `insert` is a commit of one operation, a batch one of many, a transaction one with conditions.
//! Operations of which each is to happen by itself, whatever becomes of the others, travel together as a [`series`]. Large
//! values are sent ahead, as uploads, and named by the operations that use them (see [`Payload`]).

pub mod apart;
pub mod behind;
pub mod buffers;
pub mod commit;
mod op;
pub mod remote;
pub mod reply;
pub mod run;
pub mod series;

use crate::error::{Error, ErrorKind, Result};
use buffers::Out;

/// Bytes of a frame's head.
pub const HEAD_BYTES: usize = 16;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Call {
    /// Conditions and operations, see [`commit`].
    Commit = 1,
    /// Makes an object: see [`NewObject`]. The session holds a reference from then on.
    Create = 2,
    /// Takes a reference of the session's on an object: its id.
    Retain = 3,
    /// Lets references go: ids. Not answered.
    Release = 4,
    /// Gives an object a name: id, 1 if an older bearer loses it, name.
    Publish = 5,
    /// The object with a name, with a reference on it: name.
    Lookup = 6,
    /// Takes a name away: name.
    Unpublish = 7,
    /// Arms the watch words of an object: id.
    Arm = 8,
    /// Asks for the writer's ticket: its number is the answer.
    Ticket = 9,
    /// Gives the writer's ticket of this number back. Not answered.
    TicketBack = 10,
    /// The manager's figures, as text.
    Stats = 11,
    /// Checks every invariant: empty, or what is wrong.
    Audit = 12,
    /// Ends the manager.
    Shutdown = 13,
    /// A value that later operations use: prefix and length of the value, then its bytes. Not answered.
    Upload = 14,
    /// The published names: for each its object's id, its length in bytes, it, and a line's end. A name may hold line ends.
    Names = 15,
    /// Uploads that no commit will use: their numbers. Not answered.
    Discard = 16,
    /// The segment of an object that the session holds: its id. The number of its bytes is the answer, and its descriptor travels
    /// with the answer's first byte, so both go over the socket.
    Attach = 17,
    /// Which process a session belongs to: the session's number. Its process id and its program's name, or nothing if it is over.
    Who = 18,
    /// Something has been posted on a lane. Not answered, here.
    Ring = 19,
    /// More memory for an object's segment: its id, the code of the region, and how many of its pieces are wanted.
    Grow = 20,
    /// A queue's id and those of objects that an item will refer to: kept until it is received. The parcel's number is the answer.
    Pack = 21,
    /// A queue's id and a parcel's number: the session holds what is in it from now on. The ids are the answer.
    Unpack = 22,
    /// A queue's id and a parcel's number: its item is gone. Not answered.
    Forget = 23,
    /// Operations, each by itself and one after the other: see [`series`].
    Series = 24,
    /// Objects that a process is given which the session is about to start: their ids. They are held until the end of a socket is closed
    /// whose descriptor travels with the answer, 0.
    Entrust = 25,
    /// A part of a value that later operations use, see [`PartHead`]. By lanes alone, and answered there: while the manager copies one part,
    /// its client writes the next.
    Part = 26,
    /// The session is a host of own objects from now on: see [`NewHost`]. Its number is the answer, and its end of the control
    /// channel travels with it.
    Host = 32,
    /// The host of a program, by its build: see [`NewHost`]. Its number, or nothing if the caller may start one.
    FindHost = 33,
    /// A line to a host: how ([`remote`]), and its number. The line's own number, and our end travels with it.
    Reach = 34,
    /// Types that a host offers, one a line, from the session that is that host.
    Offer = 35,
    /// Objects from an id's slot on: as text, see `proxy::overview`.
    Objects = 36,
    /// Sessions, as text.
    Sessions = 37,
    /// Which block of named memory an object is: its id. Device, inode, bytes and name of its file are the answer.
    Block = 38,
    /// Takes the name away from an object's block: its id. Whether it had it.
    Unlink = 39,
    /// What logic beside the data has come to: a [`Commit`](Call::Commit), and behind it a [`RunMark`](run::RunMark). By hosts alone. Done only
    /// under the ticket that the mark names, else it is answered as a conflict; and not if its caller has given it up.
    RunCommit = 40,
    /// Whether logic has been committed, see [`Settle`](run::Settle), from the session that was given its line. It has, or nothing: then it never will be.
    Settle = 41,
}

impl Call {
    /// The call of this code, if there is one.
    pub fn from_code(code: u8) -> Option<Call> {
        use Call::*;
        [
            Commit, Create, Retain, Release, Publish, Lookup, Unpublish, Arm, Ticket, TicketBack, Stats, Audit, Shutdown, Upload, Names,
            Discard, Attach, Who, Ring, Grow, Pack, Unpack, Forget, Series, Entrust, Part, Host, FindHost, Reach, Offer, Objects, Sessions,
            Block, Unlink, RunCommit, Settle,
        ]
        .into_iter()
        .find(|call| *call as u8 == code)
    }

    /// Whether no reply is sent.
    pub fn is_one_way(self) -> bool {
        matches!(self, Call::Release | Call::TicketBack | Call::Upload | Call::Discard | Call::Ring | Call::Forget)
    }
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the payload.
    pub len: u32,
    /// Call or status.
    pub code: u8,
    /// Of a commit: whether it is enough to know that it happened.
    pub quiet: bool,
    /// Lane of the caller.
    pub lane: u16,
    /// Number of the call, or of the upload.
    pub number: u64,
}

impl Head {
    /// As bytes.
    #[inline]
    pub fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let [first, number] = self.to_words();
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(&first.to_le_bytes());
        bytes[8..].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    /// The bytes as two little-endian words.
    #[inline(always)]
    pub fn to_words(self) -> [u64; 2] {
        let first = u64::from(self.len) | u64::from(self.code) << 32 | u64::from(self.quiet) << 40 | u64::from(self.lane) << 48;
        [first, self.number]
    }

    /// From two words.
    #[inline(always)]
    pub fn from_words([first, number]: [u64; 2]) -> Head {
        Head { len: first as u32, code: (first >> 32) as u8, quiet: (first >> 40) as u8 != 0, lane: (first >> 48) as u16, number }
    }

    /// From the front of `bytes`; `None` if there are too few.
    pub fn parse(bytes: &[u8]) -> Option<Head> {
        let mut read = Reader::new(bytes);
        Some(Head::from_words([read.u64()?, read.u64()?]))
    }
}

/// Bytes of an upload's payload before the value.
pub const UPLOAD_HEAD_BYTES: usize = 16;

/// An upload's payload begins with this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadHead {
    /// Bytes that the block needs before the value: an entry's or an element's head and key.
    pub prefix: u64,
    /// Bytes of the value.
    pub len: u64,
    /// Handles that will be listed behind the value.
    pub handles: u32,
}

impl UploadHead {
    /// As bytes.
    pub fn to_bytes(self) -> [u8; UPLOAD_HEAD_BYTES] {
        let mut bytes = [0; UPLOAD_HEAD_BYTES];
        bytes[..4].copy_from_slice(&(self.prefix as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.handles.to_le_bytes());
        bytes[8..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    /// From the front of `bytes`.
    pub fn parse(bytes: &[u8]) -> Option<UploadHead> {
        let mut read = Reader::new(bytes);
        Some(UploadHead { prefix: read.u32()?.into(), handles: read.u32()?, len: read.u64()? })
    }
}

/// Bytes of a part's payload before its piece of the value.
pub const PART_HEAD_BYTES: usize = UPLOAD_HEAD_BYTES + 8;

/// The payload of [`Call::Part`] begins with this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHead {
    /// The whole value.
    pub upload: UploadHead,
    /// Bytes of the value that the parts before have brought. The first part's is 0.
    pub from: u64,
}

impl PartHead {
    /// As bytes.
    pub fn to_bytes(self) -> [u8; PART_HEAD_BYTES] {
        let mut bytes = [0; PART_HEAD_BYTES];
        bytes[..UPLOAD_HEAD_BYTES].copy_from_slice(&self.upload.to_bytes());
        bytes[UPLOAD_HEAD_BYTES..].copy_from_slice(&self.from.to_le_bytes());
        bytes
    }

    /// From the front of `bytes`.
    pub fn parse(bytes: &[u8]) -> Option<PartHead> {
        let from = Reader::new(bytes.get(UPLOAD_HEAD_BYTES..)?).u64()?;
        Some(PartHead { upload: UploadHead::parse(bytes)?, from })
    }
}

/// What [`Call::Create`] says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewObject<'a> {
    /// Code of the object's kind.
    pub kind: u8,
    /// Dict: alignment of values.
    pub value_align: u8,
    /// List: bytes of an inline element, or 0.
    pub element_bytes: u32,
    /// Hash of the type's text.
    pub fingerprint: u64,
    /// The type in words.
    pub text: &'a str,
    /// What else the kind needs to know, see `manager::segments`. None for what lies in the arena.
    pub parameters: Words<'a>,
}

impl NewObject<'_> {
    /// Appends it as bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(self.kind);
        out.push(self.value_align);
        out.extend_from_slice(&self.element_bytes.to_le_bytes());
        out.extend_from_slice(&self.fingerprint.to_le_bytes());
        put_bytes(out, self.text.as_bytes());
        put_bytes(out, self.parameters.0);
    }
}

impl<'a> NewObject<'a> {
    /// Reads it.
    pub fn parse(read: &mut Reader<'a>) -> Option<NewObject<'a>> {
        Some(NewObject {
            kind: read.u8()?,
            value_align: read.u8()?,
            element_bytes: read.u32()?,
            fingerprint: read.u64()?,
            text: std::str::from_utf8(read.bytes()?).ok()?,
            parameters: Words::new(read.bytes()?)?,
        })
    }
}

/// What [`Call::Host`] and [`Call::FindHost`] say: of which build the program is, as `task::Build` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewHost<'a> {
    /// Whether the program asks to have one here though somebody else has started the manager.
    pub invited: bool,
    /// Hash of the executable's headers.
    pub headers: u64,
    /// What tells its file from others.
    pub file: [u64; 4],
    /// The linker's build id.
    pub id: &'a [u8],
}

impl NewHost<'_> {
    /// Appends it as bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.invited));
        out.extend_from_slice(&self.headers.to_le_bytes());
        self.file.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        put_bytes(out, self.id);
    }
}

impl<'a> NewHost<'a> {
    /// Reads it.
    pub fn parse(read: &mut Reader<'a>) -> Option<NewHost<'a>> {
        let (invited, headers) = (read.u8()? != 0, read.u64()?);
        let file = [read.u64()?, read.u64()?, read.u64()?, read.u64()?];
        Some(NewHost { invited, headers, file, id: read.bytes()? })
    }
}

/// Numbers and byte strings from the front of a slice. `None`: the slice is too short for what it claims.
#[derive(Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

macro_rules! numbers {
    ($($name:ident)*) => {$(
        #[doc = concat!("The next `", stringify!($name), "`.")]
        #[inline]
        pub fn $name(&mut self) -> Option<$name> {
            let (front, rest) = self.rest.split_first_chunk()?;
            self.rest = rest;
            Some($name::from_le_bytes(*front))
        }
    )*};
}

impl<'a> Reader<'a> {
    /// Reads from here.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    numbers!(u8 u16 u32 u64 i64);

    /// The next `len` bytes.
    #[inline]
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(front)
    }

    /// A byte string: its length in 4 bytes, then it.
    #[inline]
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    /// All that is left, taken.
    pub fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Appends a byte string: its length in 4 bytes, then it.
pub fn put_bytes(out: &mut impl Out, bytes: &[u8]) {
    out.put(&(bytes.len() as u32).to_le_bytes());
    out.put(bytes);
}

/// Numbers packed 8 bytes each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    /// Over these bytes, whose number is a multiple of 8.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        bytes.len().is_multiple_of(8).then_some(Words(bytes))
    }

    /// One after the other.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u64> + use<'a> {
        self.0.chunks_exact(8).map(|chunk| u64::from_le_bytes(chunk.try_into().expect("a chunk has 8 bytes")))
    }

    /// The bytes themselves.
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// How many.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len() / 8
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A value inside an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    /// Its archive, or where that is.
    pub source: Source<'a>,
    /// Ids of the handles in it.
    pub handles: Words<'a>,
}

/// Where a value's archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// Here.
    Inline(&'a [u8]),
    /// In the upload with this number, which this use consumes; or behind the request, if it is the word of a
    /// [place](behind::PlaceBehind). (As a variant of its own that would make every operation longer.)
    Upload(u64),
}

impl Payload<'_> {
    /// Appends it as bytes: 0 or 1, the bytes or the number or place, then the handles.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self.source {
            Source::Inline(bytes) => {
                out.push(0);
                put_bytes(out, bytes);
            }
            Source::Upload(number) => {
                out.push(1);
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        put_bytes(out, self.handles.0);
    }
}

impl<'a> Payload<'a> {
    /// A value without handles, here.
    pub fn inline(bytes: &'a [u8]) -> Self {
        Payload { source: Source::Inline(bytes), handles: Words(&[]) }
    }

    /// Reads it.
    pub fn parse(read: &mut Reader<'a>) -> Option<Payload<'a>> {
        let source = match read.u8()? {
            0 => Source::Inline(read.bytes()?),
            1 => Source::Upload(read.u64()?),
            _ => return None,
        };
        Some(Payload { source, handles: Words::new(read.bytes()?)? })
    }
}

/// The error of bytes that are not what they should be.
pub fn malformed(what: &str) -> Error {
    let a = if what.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    Error::new(ErrorKind::Corrupt, format!("{a} {what} that cannot be read: does the other side run another version of commonhold?"))
}

/// Reads all of a payload by `parse`, or says that it is malformed.
pub fn whole<'a, T>(bytes: &'a [u8], what: &str, parse: impl FnOnce(&mut Reader<'a>) -> Option<T>) -> Result<T> {
    let mut read = Reader::new(bytes);
    parse(&mut read).filter(|_| read.is_empty()).ok_or_else(|| malformed(what))
}
