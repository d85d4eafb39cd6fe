//! One operation of a commit, as bytes.
//!
//! | operation | code | flags | length | after the head of 16 bytes |
//! |---|---|---|---|---|
//! | insert | 1 | absent, lend, upload, handles | of the key | value word (8), key, value, handles |
//! | remove | 2 | lend | of the key | key |
//! | add | 3 | code of the number | of the key | bytes of the amount (4), it, key |
//! | clear | 4 | | | |
//! | set in a list | 5 | lend, upload, handles | | position (8), value word (8), value, handles |
//! | remove from a list | 6 | lend | | position (8) |
//! | splice | 7 | packed | of the values | position (8), number that goes (8), values |
//! | swap | 8 | | | two positions (8 each) |
//! | reverse | 9 | | | |
//! | permute | 10 | | of the positions | positions (8 each) |
//! | set a value | 11 | upload, handles | | value word (8), value, handles |
//! | add to a counter | 12 | | | amount (8) |
//!
//! *Value word*: bytes of the value, which follows; or with the flag *upload* the upload's number, or the value's place behind
//! the request (see [`behind`](super::behind)), and no value follows.
//! *Handles*, with the flag of that name only: bytes of their ids (4), ids (8 each). Values of a splice: with the flag
//! *packed* inline elements side by side, else their number (4) and payloads. What has no meaning is 0.

use super::behind::is_place;
use super::buffers::Out;
use super::commit::{Op, Values};
use super::{Payload, Reader, Source, Words, put_bytes};

const ABSENT: u8 = 1;
const LEND: u8 = 2;
const UPLOAD: u8 = 4;
const HANDLES: u8 = 8;
const PACKED: u8 = 16;

/// What every operation begins with.
struct Head {
    code: u8,
    flags: u8,
    len: usize,
    object: u64,
}

impl Head {
    #[inline]
    fn to_bytes(&self) -> [u8; 16] {
        let words = u64::from(self.code) | u64::from(self.flags) << 8 | (self.len as u64) << 32;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&words.to_le_bytes());
        bytes[8..].copy_from_slice(&self.object.to_le_bytes());
        bytes
    }

    #[inline]
    fn parse(read: &mut Reader<'_>) -> Option<Head> {
        let (first, object) = (read.u64()?, read.u64()?);
        let head = Head { code: first as u8, flags: (first >> 8) as u8, len: (first >> 32) as usize, object };
        (first >> 16 & 0xffff == 0).then_some(head)
    }

    /// Whether it has no other flags than these, and no length if it needs none.
    #[inline]
    fn has_only(&self, flags: u8, len: bool) -> bool {
        self.flags & !flags == 0 && (len || self.len == 0)
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The flags of a value, and its word.
#[inline]
fn value_word(value: &Payload<'_>) -> (u8, u64) {
    let handles = if value.handles.is_empty() { 0 } else { HANDLES };
    match value.source {
        Source::Inline(bytes) => (handles, bytes.len() as u64),
        Source::Upload(number) => (handles | UPLOAD, number),
    }
}

/// Appends a value's handles.
#[inline]
fn put_handles(out: &mut impl Out, value: &Payload<'_>) {
    if !value.handles.is_empty() {
        put_bytes(out, value.handles.0);
    }
}

/// Appends a value that is here, and its handles.
#[inline]
fn put_value(out: &mut impl Out, value: &Payload<'_>) {
    if let Source::Inline(bytes) = value.source {
        out.put(bytes);
    }
    put_handles(out, value);
}

/// Reads a value whose word has been read.
#[inline]
fn value<'a>(read: &mut Reader<'a>, flags: u8, word: u64) -> Option<Payload<'a>> {
    let source = if flags & UPLOAD == 0 { Source::Inline(read.take(usize::try_from(word).ok()?)?) } else { Source::Upload(word) };
    let handles = if flags & HANDLES == 0 { Words(&[]) } else { Words::new(read.bytes()?).filter(|words| !words.is_empty())? };
    Some(Payload { source, handles })
}

fn flag(condition: bool, flag: u8) -> u8 {
    if condition { flag } else { 0 }
}

impl<'a> Op<'a> {
    /// Calls `then` with each value that it brings in a payload of its own.
    #[inline]
    pub fn each_value(&self, mut then: impl FnMut(Payload<'a>)) {
        match *self {
            Op::Insert { value, .. } | Op::ListSet { value, .. } | Op::ValueSet { value, .. } => then(value),
            Op::ListSplice { values, .. } => values.payloads().for_each(then),
            _ => {}
        }
    }

    /// Calls `then` with the number of each upload that it names.
    #[inline]
    pub fn each_upload(&self, mut then: impl FnMut(u64)) {
        self.each_value(|payload| {
            if let Source::Upload(number) = payload.source
                && !is_place(number)
            {
                then(number);
            }
        });
    }

    /// Appends it as bytes.
    #[inline(always)]
    pub fn write(&self, out: &mut impl Out) {
        // By far the most common; the others may be calls.
        if let Op::Insert { object, key, value, only_if_absent, lend } = self {
            let (flags, word) = value_word(value);
            let flags = flags | flag(*only_if_absent, ABSENT) | flag(*lend, LEND);
            let mut head = [0; 24];
            head[..16].copy_from_slice(&Head { code: 1, flags, len: key.len(), object: *object }.to_bytes());
            head[16..].copy_from_slice(&word.to_le_bytes());
            out.put(&head);
            out.put(key);
            put_value(out, value);
        } else {
            self.write_other(out);
        }
    }

    fn write_other(&self, out: &mut impl Out) {
        let mut head = |code, flags, len, object| out.put(&Head { code, flags, len, object }.to_bytes());
        match *self {
            Op::Insert { .. } => unreachable!("written by `write`"),
            Op::Remove { object, key, lend } => {
                head(2, flag(lend, LEND), key.len(), object);
                out.put(key);
            }
            Op::Add { object, key, number, delta } => {
                head(3, number, key.len(), object);
                put_bytes(out, delta);
                out.put(key);
            }
            Op::Clear { object } => head(4, 0, 0, object),
            Op::ListSet { object, position, value, lend } => {
                let (flags, word) = value_word(&value);
                head(5, flags | flag(lend, LEND), 0, object);
                [position, word].iter().for_each(|word| out.put(&word.to_le_bytes()));
                put_value(out, &value);
            }
            Op::ListRemove { object, position, lend } => {
                head(6, flag(lend, LEND), 0, object);
                out.put(&position.to_le_bytes());
            }
            Op::ListSplice { object, position, remove, values } => {
                let (flags, count, bytes) = match values {
                    Values::Packed(bytes) => (PACKED, None, bytes),
                    Values::Each(count, bytes) => (0, Some(count), bytes),
                };
                head(7, flags, bytes.len() + if count.is_some() { 4 } else { 0 }, object);
                [position, remove].iter().for_each(|word| out.put(&word.to_le_bytes()));
                count.iter().for_each(|count| out.put(&count.to_le_bytes()));
                out.put(bytes);
            }
            Op::ListSwap { object, a, b } => {
                head(8, 0, 0, object);
                [a, b].iter().for_each(|word| out.put(&word.to_le_bytes()));
            }
            Op::ListReverse { object } => head(9, 0, 0, object),
            Op::ListPermute { object, from } => {
                head(10, 0, from.0.len(), object);
                out.put(from.0);
            }
            Op::ValueSet { object, value } => {
                let (flags, word) = value_word(&value);
                head(11, flags, 0, object);
                out.put(&word.to_le_bytes());
                put_value(out, &value);
            }
            Op::CounterAdd { object, delta } => {
                head(12, 0, 0, object);
                out.put(&delta.to_le_bytes());
            }
        }
    }

    /// Reads one.
    #[inline(always)]
    pub fn parse(read: &mut Reader<'a>) -> Option<Op<'a>> {
        let head = Head::parse(read)?;
        if head.code == 1 {
            let word = read.u64()?;
            let key = read.take(head.len)?;
            let value = value(read, head.flags, word)?;
            let insert = Op::Insert { object: head.object, key, value, only_if_absent: head.has(ABSENT), lend: head.has(LEND) };
            return head.has_only(ABSENT | LEND | UPLOAD | HANDLES, true).then_some(insert);
        }
        Op::parse_other(&head, read)
    }

    fn parse_other(head: &Head, read: &mut Reader<'a>) -> Option<Op<'a>> {
        let (object, lend) = (head.object, head.has(LEND));
        let (flags, len, op) = match head.code {
            2 => (LEND, true, Op::Remove { object, key: read.take(head.len)?, lend }),
            3 => {
                let delta = read.bytes()?;
                (u8::MAX, true, Op::Add { object, key: read.take(head.len)?, number: head.flags, delta })
            }
            4 => (0, false, Op::Clear { object }),
            5 => {
                let (position, word) = (read.u64()?, read.u64()?);
                (LEND | UPLOAD | HANDLES, false, Op::ListSet { object, position, value: value(read, head.flags, word)?, lend })
            }
            6 => (LEND, false, Op::ListRemove { object, position: read.u64()?, lend }),
            7 => {
                let (position, remove, bytes) = (read.u64()?, read.u64()?, read.take(head.len)?);
                let values = if head.has(PACKED) { Values::Packed(bytes) } else { Values::each(bytes)? };
                (PACKED, true, Op::ListSplice { object, position, remove, values })
            }
            8 => (0, false, Op::ListSwap { object, a: read.u64()?, b: read.u64()? }),
            9 => (0, false, Op::ListReverse { object }),
            10 => (0, true, Op::ListPermute { object, from: Words::new(read.take(head.len)?)? }),
            11 => {
                let word = read.u64()?;
                (UPLOAD | HANDLES, false, Op::ValueSet { object, value: value(read, head.flags, word)? })
            }
            12 => (0, false, Op::CounterAdd { object, delta: read.i64()? }),
            _ => return None,
        };
        head.has_only(flags, len).then_some(op)
    }
}
