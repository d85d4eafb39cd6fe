//! Commits: conditions that must hold, then operations.
//!
//! Payload: number of conditions (4 bytes), conditions, number of operations (4 bytes), operations. Each begins with its code
//! (1 byte) and the id of its object (8 bytes).

use super::{Payload, Reader, Source, Words, buffers, put_bytes};

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

    fn parse(read: &mut Reader<'a>) -> Option<Values<'a>> {
        match read.u8()? {
            0 => Some(Values::Packed(read.bytes()?)),
            1 => {
                let count = read.u32()?;
                let bytes = read.bytes()?;
                let mut inner = Reader::new(bytes);
                for _ in 0..count {
                    Payload::parse(&mut inner)?;
                }
                inner.is_empty().then_some(Values::Each(count, bytes))
            }
            _ => None,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Values::Packed(bytes) => {
                out.push(0);
                put_bytes(out, bytes);
            }
            Values::Each(count, bytes) => {
                out.push(1);
                out.extend_from_slice(&count.to_le_bytes());
                put_bytes(out, bytes);
            }
        }
    }
}

fn flag(read: &mut Reader<'_>) -> Option<bool> {
    match read.u8()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
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

impl<'a> Op<'a> {
    /// Appends it as bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Op::Insert { object, key, value, only_if_absent, lend } => {
                head(out, 1, object);
                out.extend_from_slice(&[u8::from(only_if_absent), u8::from(lend)]);
                put_bytes(out, key);
                value.write(out);
            }
            Op::Remove { object, key, lend } => {
                head(out, 2, object);
                out.push(u8::from(lend));
                put_bytes(out, key);
            }
            Op::Add { object, key, number, delta } => {
                head(out, 3, object);
                out.push(number);
                put_bytes(out, delta);
                put_bytes(out, key);
            }
            Op::Clear { object } => head(out, 4, object),
            Op::ListSet { object, position, value, lend } => {
                head(out, 5, object);
                out.extend_from_slice(&position.to_le_bytes());
                out.push(u8::from(lend));
                value.write(out);
            }
            Op::ListRemove { object, position, lend } => {
                head(out, 6, object);
                out.extend_from_slice(&position.to_le_bytes());
                out.push(u8::from(lend));
            }
            Op::ListSplice { object, position, remove, values } => {
                head(out, 7, object);
                out.extend_from_slice(&position.to_le_bytes());
                out.extend_from_slice(&remove.to_le_bytes());
                values.write(out);
            }
            Op::ListSwap { object, a, b } => {
                head(out, 8, object);
                out.extend_from_slice(&a.to_le_bytes());
                out.extend_from_slice(&b.to_le_bytes());
            }
            Op::ListReverse { object } => head(out, 9, object),
            Op::ListPermute { object, from } => {
                head(out, 10, object);
                put_bytes(out, from.0);
            }
            Op::ValueSet { object, value } => {
                head(out, 11, object);
                value.write(out);
            }
            Op::CounterAdd { object, delta } => {
                head(out, 12, object);
                out.extend_from_slice(&delta.to_le_bytes());
            }
        }
    }

    /// The numbers of all uploads that it names.
    #[inline]
    pub fn uploads(&self) -> impl Iterator<Item = u64> + use<'a> {
        let number = |payload: Payload<'_>| match payload.source {
            Source::Upload(number) => Some(number),
            Source::Inline(_) => None,
        };
        let (one, many) = match *self {
            Op::Insert { value, .. } | Op::ListSet { value, .. } | Op::ValueSet { value, .. } => (number(value), None),
            Op::ListSplice { values, .. } => (None, Some(values.payloads().filter_map(number))),
            _ => (None, None),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// Reads one.
    pub fn parse(read: &mut Reader<'a>) -> Option<Op<'a>> {
        let (code, object) = (read.u8()?, read.u64()?);
        Some(match code {
            1 => {
                let (only_if_absent, lend) = (flag(read)?, flag(read)?);
                Op::Insert { object, key: read.bytes()?, value: Payload::parse(read)?, only_if_absent, lend }
            }
            2 => {
                let lend = flag(read)?;
                Op::Remove { object, key: read.bytes()?, lend }
            }
            3 => {
                let (number, delta) = (read.u8()?, read.bytes()?);
                Op::Add { object, key: read.bytes()?, number, delta }
            }
            4 => Op::Clear { object },
            5 => {
                let (position, lend) = (read.u64()?, flag(read)?);
                Op::ListSet { object, position, value: Payload::parse(read)?, lend }
            }
            6 => Op::ListRemove { object, position: read.u64()?, lend: flag(read)? },
            7 => Op::ListSplice { object, position: read.u64()?, remove: read.u64()?, values: Values::parse(read)? },
            8 => Op::ListSwap { object, a: read.u64()?, b: read.u64()? },
            9 => Op::ListReverse { object },
            10 => Op::ListPermute { object, from: Words::new(read.bytes()?)? },
            11 => Op::ValueSet { object, value: Payload::parse(read)? },
            12 => Op::CounterAdd { object, delta: read.i64()? },
            _ => return None,
        })
    }
}

/// A commit's payload, read part by part without a copy. Made only of bytes that are well-formed to their end.
#[derive(Clone)]
pub struct Commit<'a> {
    conditions: (u32, Reader<'a>),
    ops: (u32, Reader<'a>),
}

impl<'a> Commit<'a> {
    /// Looks at every part once; `None` if any cannot be read.
    pub fn parse(read: &mut Reader<'a>) -> Option<Commit<'a>> {
        let count = read.u32()?;
        let conditions = (count, read.clone());
        for _ in 0..count {
            Condition::parse(read)?;
        }
        let count = read.u32()?;
        let ops = (count, read.clone());
        for _ in 0..count {
            Op::parse(read)?;
        }
        Some(Commit { conditions, ops })
    }

    /// The conditions.
    pub fn conditions(&self) -> impl Iterator<Item = Condition<'a>> + use<'a> {
        let (count, mut read) = self.conditions.clone();
        (0..count).map_while(move |_| Condition::parse(&mut read))
    }

    /// The operations.
    pub fn ops(&self) -> impl Iterator<Item = Op<'a>> + use<'a> {
        let (count, mut read) = self.ops.clone();
        (0..count).map_while(move |_| Op::parse(&mut read))
    }

    /// Number of operations.
    pub fn op_count(&self) -> u32 {
        self.ops.0
    }

    /// The numbers of all uploads that the operations name.
    pub fn uploads(&self) -> impl Iterator<Item = u64> + use<'a> {
        self.ops().flat_map(|op| op.uploads())
    }
}

/// Builds a commit's payload.
#[derive(Debug)]
pub struct CommitWriter {
    conditions: Vec<u8>,
    condition_count: u32,
    ops: Vec<u8>,
    op_count: u32,
    uploads: Vec<u64>,
}

impl Default for CommitWriter {
    fn default() -> Self {
        CommitWriter { conditions: Vec::new(), condition_count: 0, ops: buffers::take(), op_count: 0, uploads: Vec::new() }
    }
}

impl Drop for CommitWriter {
    fn drop(&mut self) {
        buffers::give(std::mem::take(&mut self.ops));
    }
}

impl CommitWriter {
    /// Adds a condition.
    pub fn condition(&mut self, condition: &Condition<'_>) {
        condition.write(&mut self.conditions);
        self.condition_count += 1;
    }

    /// Adds an operation.
    pub fn op(&mut self, op: &Op<'_>) {
        op.write(&mut self.ops);
        self.op_count += 1;
        self.uploads.extend(op.uploads());
    }

    /// The numbers of all uploads that the operations name.
    pub fn uploads(&self) -> &[u64] {
        &self.uploads
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
    pub fn len(&self) -> usize {
        8 + self.conditions.len() + self.ops.len()
    }

    /// Whether there is neither condition nor operation.
    pub fn is_empty(&self) -> bool {
        self.condition_count == 0 && self.op_count == 0
    }

    /// Appends the payload.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.len());
        out.extend_from_slice(&self.condition_count.to_le_bytes());
        out.extend_from_slice(&self.conditions);
        out.extend_from_slice(&self.op_count.to_le_bytes());
        out.extend_from_slice(&self.ops);
    }
}

/// Appends the payload of a commit of one operation and no condition.
pub fn write_single(out: &mut Vec<u8>, op: &Op<'_>) {
    out.extend_from_slice(&0u32.to_le_bytes());
    out.extend_from_slice(&1u32.to_le_bytes());
    op.write(out);
}
