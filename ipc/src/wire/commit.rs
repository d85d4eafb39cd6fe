//! Commits: conditions that must hold, then operations.
//!
//! | payload | bytes |
//! |---|---|
//! | number of operations | 4 |
//! | bytes of all operations | 4 |
//! | operations | |
//! | number of conditions | 4 |
//! | conditions, each beginning with its code (1) and the id of its object (8) | |
//!
//! The operations come first because they are written straight into the frame that is sent, before anybody knows what the
//! conditions will be; the manager looks at the conditions first. Each operation begins with 16 bytes: its code (1), its
//! flags (1), two zeros, the length of its key or list of values (4), the id of its object (8).
//!
//! A commit is read once, while it is done. Bytes that cannot be read show as [`Malformed`] in their turn; whoever does the
//! operations before takes them back then, as if one of them had failed.

use super::behind::{VALUE_BYTES_MIN, is_place};
use super::buffers::{self, Out, Short};
use super::{HEAD_BYTES, Payload, Reader, Source, Words, put_bytes};

/// As a position of a list: behind its last element, or with [`Op::ListRemove`] the last element.
pub const END: u64 = u64::MAX;

/// What a client has seen, and must still be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition<'a> {
    /// The key's entry is this block; 0: the key is not there.
    EntryIs {
        /// The dict.
        object: u64,
        /// The key's archive.
        key: &'a [u8],
        /// The entry's block.
        block: u64,
    },
    /// The object has not been changed since this version.
    Unmodified {
        /// The object.
        object: u64,
        /// Its version when it was looked at.
        modified: u64,
    },
    /// The element at a position is this block; 0: there is none.
    ElementIs {
        /// The list.
        object: u64,
        /// The position.
        position: u64,
        /// The element's block.
        block: u64,
    },
    /// The inline element at a position has these bytes.
    ElementBytes {
        /// The list.
        object: u64,
        /// The position.
        position: u64,
        /// The element.
        bytes: &'a [u8],
    },
    /// The object has this many entries or elements.
    LenIs {
        /// The object.
        object: u64,
        /// Their number.
        len: u64,
    },
    /// The root word of the object is this: the block of a value, the number of a counter.
    RootIs {
        /// The object.
        object: u64,
        /// The word.
        root: u64,
    },
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// Key → value.
    Insert {
        /// The dict.
        object: u64,
        /// The key's archive.
        key: &'a [u8],
        /// The value.
        value: Payload<'a>,
        /// Leave a value that is there.
        only_if_absent: bool,
        /// Lend the value that was there; with `only_if_absent`, the one that is there afterwards.
        lend: bool,
    },
    /// Takes a key out.
    Remove {
        /// The dict.
        object: u64,
        /// The key's archive.
        key: &'a [u8],
        /// Lend what was there.
        lend: bool,
    },
    /// Adds to the number of a key, from 0.
    Add {
        /// The dict.
        object: u64,
        /// The key's archive.
        key: &'a [u8],
        /// Code of the number's type.
        number: u8,
        /// What to add, in the number's own bytes.
        delta: &'a [u8],
    },
    /// Takes everything out of a dict, namespace or list.
    Clear {
        /// The object.
        object: u64,
    },
    /// Replaces an element.
    ListSet {
        /// The list.
        object: u64,
        /// Its position.
        position: u64,
        /// The new one.
        value: Payload<'a>,
        /// Lend the old one.
        lend: bool,
    },
    /// Takes one element out.
    ListRemove {
        /// The list.
        object: u64,
        /// Its position, or [`END`] for the last.
        position: u64,
        /// Lend it.
        lend: bool,
    },
    /// Takes a range of elements out and puts others there.
    ListSplice {
        /// The list.
        object: u64,
        /// Where, or [`END`].
        position: u64,
        /// How many go, at the most.
        remove: u64,
        /// What comes.
        values: Values<'a>,
    },
    /// Exchanges two elements.
    ListSwap {
        /// The list.
        object: u64,
        /// One position.
        a: u64,
        /// The other.
        b: u64,
    },
    /// Turns a list around.
    ListReverse {
        /// The list.
        object: u64,
    },
    /// Puts the elements into another order.
    ListPermute {
        /// The list.
        object: u64,
        /// For each position, the position where its new element stands now.
        from: Words<'a>,
    },
    /// Replaces a value.
    ValueSet {
        /// The value.
        object: u64,
        /// The new one.
        value: Payload<'a>,
    },
    /// Adds to a counter.
    CounterAdd {
        /// The counter.
        object: u64,
        /// What to add.
        delta: i64,
    },
}

/// The values of a splice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values<'a> {
    /// Inline elements side by side.
    Packed(&'a [u8]),
    /// Payloads one after the other: their number, their bytes. Read by [`Values::payloads`].
    Each(u32, &'a [u8]),
}

impl<'a> Values<'a> {
    /// The payloads of [`Values::Each`], which parsing has seen to be well-formed.
    pub fn payloads(self) -> impl Iterator<Item = Payload<'a>> {
        let (count, bytes) = match self {
            Values::Packed(_) => (0, &[][..]),
            Values::Each(count, bytes) => (count, bytes),
        };
        let mut read = Reader::new(bytes);
        (0..count).map_while(move |_| Payload::parse(&mut read))
    }

    /// Number of elements of this many bytes; 0 stands for [`Values::Each`].
    pub fn count(self, element_bytes: u32) -> u64 {
        match self {
            Values::Packed(bytes) => (bytes.len() as u64).checked_div(element_bytes.into()).unwrap_or(0),
            Values::Each(count, _) => count.into(),
        }
    }

    pub(super) fn each(bytes: &'a [u8]) -> Option<Values<'a>> {
        let mut read = Reader::new(bytes);
        let count = read.u32()?;
        let bytes = read.clone().rest();
        for _ in 0..count {
            Payload::parse(&mut read)?;
        }
        read.is_empty().then_some(Values::Each(count, bytes))
    }
}

fn head(out: &mut Vec<u8>, code: u8, object: u64) {
    out.push(code);
    out.extend_from_slice(&object.to_le_bytes());
}

impl<'a> Condition<'a> {
    /// Appends it as bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Condition::EntryIs { object, key, block } => {
                head(out, 1, object);
                put_bytes(out, key);
                out.extend_from_slice(&block.to_le_bytes());
            }
            Condition::Unmodified { object, modified } => {
                head(out, 2, object);
                out.extend_from_slice(&modified.to_le_bytes());
            }
            Condition::ElementIs { object, position, block } => {
                head(out, 3, object);
                out.extend_from_slice(&position.to_le_bytes());
                out.extend_from_slice(&block.to_le_bytes());
            }
            Condition::ElementBytes { object, position, bytes } => {
                head(out, 4, object);
                out.extend_from_slice(&position.to_le_bytes());
                put_bytes(out, bytes);
            }
            Condition::LenIs { object, len } => {
                head(out, 5, object);
                out.extend_from_slice(&len.to_le_bytes());
            }
            Condition::RootIs { object, root } => {
                head(out, 6, object);
                out.extend_from_slice(&root.to_le_bytes());
            }
        }
    }

    /// Reads one.
    pub fn parse(read: &mut Reader<'a>) -> Option<Condition<'a>> {
        let (code, object) = (read.u8()?, read.u64()?);
        Some(match code {
            1 => Condition::EntryIs { object, key: read.bytes()?, block: read.u64()? },
            2 => Condition::Unmodified { object, modified: read.u64()? },
            3 => Condition::ElementIs { object, position: read.u64()?, block: read.u64()? },
            4 => Condition::ElementBytes { object, position: read.u64()?, bytes: read.bytes()? },
            5 => Condition::LenIs { object, len: read.u64()? },
            6 => Condition::RootIs { object, root: read.u64()? },
            _ => return None,
        })
    }
}

/// Bytes that cannot be read as what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A commit's payload, read part by part without a copy.
#[derive(Clone)]
pub struct Commit<'a> {
    conditions: Parts<'a>,
    ops: Parts<'a>,
}

impl<'a> Commit<'a> {
    /// Finds the two parts. What is in them is read by [`conditions`](Self::conditions) and [`ops`](Self::ops).
    #[inline]
    pub fn parse(read: &mut Reader<'a>) -> Option<Commit<'a>> {
        let (count, bytes) = (read.u32()?, read.u32()?);
        let ops = Parts { left: count, read: Reader::new(read.take(bytes as usize)?) };
        let count = read.u32()?;
        let conditions = Parts { left: count, read: Reader::new(read.take_rest()) };
        Some(Commit { conditions, ops })
    }

    /// Whether there are conditions, or bytes in their place.
    #[inline]
    pub fn has_conditions(&self) -> bool {
        self.conditions.left > 0 || !self.conditions.read.is_empty()
    }

    /// The conditions.
    pub fn conditions(&self) -> impl Iterator<Item = Result<Condition<'a>, Malformed>> + use<'a> {
        let mut parts = self.conditions.clone();
        std::iter::from_fn(move || parts.next(Condition::parse))
    }

    /// The operations.
    #[inline(always)]
    pub fn ops(&self) -> Ops<'a> {
        Ops(self.ops.clone())
    }

    /// Each operation as a commit of its own, without the conditions.
    pub fn singles(&self) -> impl Iterator<Item = Result<Commit<'a>, Malformed>> + use<'a> {
        let mut parts = self.ops.clone();
        std::iter::from_fn(move || {
            let before = parts.read.clone().rest();
            let op = parts.next(|read| Op::parse(read).map(|_| before.len() - read.clone().rest().len()))?;
            Some(op.map(|len| {
                let read = Reader::new(&before[..len]);
                Commit { conditions: Parts { left: 0, read: Reader::new(&[]) }, ops: Parts { left: 1, read } }
            }))
        })
    }

    /// Number of operations, by the payload's own word.
    pub fn op_count(&self) -> u32 {
        self.ops.left
    }

    /// Whether all of it can be read.
    pub fn is_whole(&self) -> bool {
        self.conditions().all(|condition| condition.is_ok()) && self.ops().all(|op| op.is_ok())
    }

    /// The numbers of all uploads that the operations name, as far as they can be read.
    pub fn uploads(&self) -> impl Iterator<Item = u64> + use<'a> {
        self.ops().map_while(Result::ok).flat_map(|op| {
            let mut numbers = Vec::new();
            op.each_upload(|number| numbers.push(number));
            numbers
        })
    }
}

/// Conditions or operations that are still to be read.
#[derive(Clone)]
struct Parts<'a> {
    left: u32,
    read: Reader<'a>,
}

impl<'a> Parts<'a> {
    /// The next one; malformed also if bytes are left behind the last.
    #[inline(always)]
    fn next<T>(&mut self, parse: impl FnOnce(&mut Reader<'a>) -> Option<T>) -> Option<Result<T, Malformed>> {
        if self.left > 0 {
            self.left -= 1;
            if let Some(part) = parse(&mut self.read) {
                return Some(Ok(part));
            }
        } else if self.read.is_empty() {
            return None;
        }
        *self = Parts { left: 0, read: Reader::new(&[]) };
        Some(Err(Malformed))
    }
}

/// The operations of a commit.
#[derive(Clone)]
pub struct Ops<'a>(Parts<'a>);

impl<'a> Iterator for Ops<'a> {
    type Item = Result<Op<'a>, Malformed>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(Op::parse)
    }
}

/// A place in the operations of a commit that is being built.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    bytes: usize,
    ops: u32,
    uploads: usize,
    large_bytes: usize,
}

impl Mark {
    /// Number of operations before it.
    #[inline]
    pub fn ops(&self) -> u32 {
        self.ops
    }
}

/// Builds a commit, in the frame that will be sent.
#[derive(Debug)]
pub struct CommitWriter {
    conditions: Vec<u8>,
    condition_count: u32,
    /// Room for the frame's head and for number and bytes of the operations; then the operations.
    frame: Vec<u8>,
    op_count: u32,
    uploads: Vec<u64>,
    /// Bytes of large values.
    large_bytes: usize,
}

/// Bytes before the operations in a frame.
const OPS_AT: usize = HEAD_BYTES + 8;

impl Default for CommitWriter {
    fn default() -> Self {
        let mut frame = buffers::take();
        frame.resize(OPS_AT, 0);
        CommitWriter { conditions: Vec::new(), condition_count: 0, frame, op_count: 0, uploads: Vec::new(), large_bytes: 0 }
    }
}

impl Drop for CommitWriter {
    fn drop(&mut self) {
        buffers::give(std::mem::take(&mut self.frame));
    }
}

impl CommitWriter {
    /// Adds a condition.
    pub fn condition(&mut self, condition: &Condition<'_>) {
        condition.write(&mut self.conditions);
        self.condition_count += 1;
    }

    /// Adds an operation.
    #[inline]
    pub fn op(&mut self, op: &Op<'_>) {
        op.write(&mut self.frame);
        self.op_count += 1;
        op.each_value(|value| match value.source {
            Source::Upload(word) if !is_place(word) => self.uploads.push(word),
            Source::Inline(bytes) if bytes.len() >= VALUE_BYTES_MIN => self.large_bytes += bytes.len(),
            _ => {}
        });
    }

    /// How much has been written so far.
    #[inline]
    pub fn mark(&self) -> Mark {
        Mark { bytes: self.frame.len(), ops: self.op_count, uploads: self.uploads.len(), large_bytes: self.large_bytes }
    }

    /// Takes the operations back that were added since a mark.
    pub fn cut(&mut self, mark: &Mark) {
        self.frame.truncate(mark.bytes);
        self.uploads.truncate(mark.uploads);
        self.op_count = mark.ops;
        self.large_bytes = mark.large_bytes;
    }

    /// The numbers of all uploads that the operations name.
    pub fn uploads(&self) -> &[u64] {
        &self.uploads
    }

    /// Bytes of the values that can stand behind the request.
    pub fn large_bytes(&self) -> usize {
        self.large_bytes
    }

    /// Number of operations so far.
    pub fn ops(&self) -> u32 {
        self.op_count
    }

    /// Number of conditions so far.
    pub fn conditions(&self) -> u32 {
        self.condition_count
    }

    /// Bytes of the payload so far.
    #[inline]
    pub fn len(&self) -> usize {
        self.frame.len() - HEAD_BYTES + 4 + self.conditions.len()
    }

    /// Whether there is neither condition nor operation.
    pub fn is_empty(&self) -> bool {
        self.condition_count == 0 && self.op_count == 0
    }

    /// The whole frame but for its head, whose room is at its front. The writer is of no use afterwards.
    pub fn take_frame(&mut self) -> Vec<u8> {
        let mut frame = std::mem::take(&mut self.frame);
        finish(&mut frame, HEAD_BYTES, self.op_count, self.condition_count);
        frame.extend_from_slice(&self.conditions);
        frame
    }

    /// Appends the payload.
    pub fn write(&self, out: &mut Vec<u8>) {
        let ops = &self.frame[OPS_AT..];
        out.extend_from_slice(&self.op_count.to_le_bytes());
        out.extend_from_slice(&(ops.len() as u32).to_le_bytes());
        out.extend_from_slice(ops);
        out.extend_from_slice(&self.condition_count.to_le_bytes());
        out.extend_from_slice(&self.conditions);
    }
}

/// Says at `start` how many operations follow and how long they are, and at the end how many conditions will follow.
#[inline]
fn finish(out: &mut Vec<u8>, start: usize, op_count: u32, condition_count: u32) {
    let bytes = (out.len() - start - 8) as u32;
    out[start..start + 4].copy_from_slice(&op_count.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&bytes.to_le_bytes());
    out.extend_from_slice(&condition_count.to_le_bytes());
}

/// A commit of one operation and no condition, as a whole frame but for its head, whose room is at its front. The frame begins
/// empty; `false`: it does not fit.
#[inline(always)]
pub fn write_short(out: &mut Short, op: &Op<'_>) -> bool {
    out.put(&[0; OPS_AT]);
    op.write(out);
    let counts = 1 | ((out.len() - OPS_AT) as u64) << 32;
    out.put(&[0; 4]);
    out.bytes_mut()[HEAD_BYTES..OPS_AT].copy_from_slice(&counts.to_le_bytes());
    out.is_whole()
}

/// Appends the payload of a commit of one operation and no condition.
pub fn write_single(out: &mut Vec<u8>, op: &Op<'_>) {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    op.write(out);
    finish(out, start, 1, 0);
}
