//! The catalog: from an object's slot to its record, in every version.
//!
//! A radix tree over slot numbers. Leaves hold 8 records of 64 bytes; inner nodes hold 64 offsets. An object's id is its slot
//! (28 bits) with the slot's generation above it, so that ids are never reused while slots are. A lookup is one load per
//! level; up to 8 objects there is a leaf alone. One record, the root's *latest*, counts in place of what the tree says of its
//! object, which may be old: it comes into the tree when another object's record takes its place.
//!
//! Record:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | id, 0 in an empty slot |
//! | 8 | 8 | root: dict: child word of its index; list: child word of its sequence; value: offset of its block; counter: the number; condition: id of the lock that it is used with, 0: its own; end of a pipe: id of the queue that it receives from, 0: none |
//! | 16 | 8 | number of entries or elements; shared bytes: how many |
//! | 24 | 8 | version of the last change |
//! | 32 | 8 | dict: next insertion number; end of a pipe: id of the queue that it sends into, 0: none |
//! | 40 | 8 | offset of the descriptor: fingerprint, length of the type's text, the text |
//! | 48 | 1 | kind |
//! | 49 | 1 | list: inner levels of its sequence |
//! | 50 | 1 | dict: alignment of values in their entry, 8 or 16 |
//! | 52 | 4 | list: bytes of one element that lies in its leaf, 0 if elements are blocks of their own |
//! | 56 | 8 | version that made the object |

use crate::error::{Error, ErrorKind, Result};
use crate::map::ArenaReader;

/// Bits of an id that are its slot.
pub const SLOT_BITS: u32 = 28;
/// Bytes of a record.
pub const RECORD_BYTES: u64 = 64;
/// Words of a record.
pub const RECORD_WORDS: usize = RECORD_BYTES as usize / 8;
/// Records of a leaf.
pub const LEAF_RECORDS: u64 = 8;
/// Offsets of an inner node.
pub const FAN_OUT: u64 = 64;
/// Bytes of a leaf, and of an inner node.
pub const NODE_BYTES: u64 = 512;

const _: () = assert!(NODE_BYTES == LEAF_RECORDS * RECORD_BYTES && NODE_BYTES == FAN_OUT * 8);

/// The slot of an object's id.
#[inline]
pub fn slot_of(id: u64) -> u64 {
    id & ((1 << SLOT_BITS) - 1)
}

/// How many slots a catalog of this height has.
#[inline]
pub fn slots_of_height(height: u32) -> u64 {
    LEAF_RECORDS << (6 * height)
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Key → value.
    Dict = 1,
    /// Position → element.
    List = 2,
    /// One value.
    Value = 3,
    /// Name → value of any type.
    Namespace = 4,
    /// A signed number.
    Counter = 5,
    /// Mutual exclusion.
    Lock = 6,
    /// A lock that its holder may take again.
    RLock = 7,
    /// One writer or many readers.
    RwLock = 8,
    /// Permits.
    Semaphore = 9,
    /// Permits that cannot become more than at first.
    BoundedSemaphore = 10,
    /// Waiting for something under a lock.
    Condition = 11,
    /// A flag to wait for.
    Event = 12,
    /// Parties that wait for each other.
    Barrier = 13,
    /// Items, first in, first out.
    Queue = 20,
    /// Plain values side by side.
    Array = 30,
    /// Bytes.
    SharedBytes = 31,
    /// A signed number, in parts that are added to apart.
    StripedCounter = 32,
    /// Bytes in a file of `/dev/shm`.
    SharedMemory = 33,
    /// An object of a user's type, in a host process.
    Remote = 64,
    /// One end of a pipe: which queues it is made of, see `manager::pipes`.
    PipeEnd = 65,
}

impl Kind {
    /// The kind of this code, if there is one.
    #[inline]
    pub fn from_code(code: u8) -> Option<Kind> {
        Some(match code {
            1 => Kind::Dict,
            2 => Kind::List,
            3 => Kind::Value,
            4 => Kind::Namespace,
            5 => Kind::Counter,
            6 => Kind::Lock,
            7 => Kind::RLock,
            8 => Kind::RwLock,
            9 => Kind::Semaphore,
            10 => Kind::BoundedSemaphore,
            11 => Kind::Condition,
            12 => Kind::Event,
            13 => Kind::Barrier,
            20 => Kind::Queue,
            30 => Kind::Array,
            31 => Kind::SharedBytes,
            32 => Kind::StripedCounter,
            33 => Kind::SharedMemory,
            64 => Kind::Remote,
            65 => Kind::PipeEnd,
            _ => return None,
        })
    }

    /// Whether its state is in a segment of its own, which its users write, and not in the arena.
    pub fn has_segment(self) -> bool {
        (Kind::Lock as u8..Kind::SharedMemory as u8).contains(&(self as u8))
    }

    /// Whether those who attach its segment put memory behind it themselves.
    pub fn is_backed_by_users(self) -> bool {
        matches!(self, Kind::Array | Kind::SharedBytes)
    }

    /// Its name, as users write it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Dict => "Dict",
            Kind::List => "List",
            Kind::Value => "Value",
            Kind::Namespace => "Namespace",
            Kind::Counter => "Counter",
            Kind::Lock => "Lock",
            Kind::RLock => "RLock",
            Kind::RwLock => "RwLock",
            Kind::Semaphore => "Semaphore",
            Kind::BoundedSemaphore => "BoundedSemaphore",
            Kind::Condition => "Condition",
            Kind::Event => "Event",
            Kind::Barrier => "Barrier",
            Kind::Queue => "Queue",
            Kind::Array => "Array",
            Kind::SharedBytes => "SharedBytes",
            Kind::StripedCounter => "StripedCounter",
            Kind::SharedMemory => "SharedMemory",
            Kind::Remote => "Remote",
            Kind::PipeEnd => "PipeEnd",
        }
    }
}

/// An object in one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its id.
    pub id: u64,
    /// See the table.
    pub root: u64,
    /// Entries, elements, or bytes of a value.
    pub len: u64,
    /// Version of the last change.
    pub modified: u64,
    /// Next insertion number of a dict; the second queue of an end of a pipe.
    pub next_insertion: u64,
    /// Offset of the descriptor.
    pub descriptor: u64,
    /// What it is.
    pub kind: Kind,
    /// Inner levels of a list.
    pub height: u8,
    /// Alignment of a dict's values.
    pub value_align: u8,
    /// Bytes of an inline element of a list.
    pub element_bytes: u32,
    /// Version that made it.
    pub created: u64,
}

impl Record {
    /// The record at an offset, if there is one.
    #[inline(always)]
    pub fn read(arena: &ArenaReader, at: u64) -> Option<Record> {
        Record::of_words(arena.words(at))
    }

    /// The record that these words say, if they say one: what [`words`](Self::words) gives.
    #[inline(always)]
    pub fn of_words(words: [u64; RECORD_WORDS]) -> Option<Record> {
        let [id, root, len, modified, next_insertion, descriptor, kinds, created] = words;
        Some(Record {
            id,
            root,
            len,
            modified,
            next_insertion,
            descriptor,
            kind: Kind::from_code(kinds as u8)?,
            height: (kinds >> 8) as u8,
            value_align: (kinds >> 16) as u8,
            element_bytes: (kinds >> 32) as u32,
            created,
        })
    }

    /// As much of a list's record as its sequence is, for walks over a list that no catalog names: one that is being written, or
    /// is not there.
    pub const fn of_sequence(root: u64, height: u8, len: u64, element_bytes: u32) -> Record {
        let (kind, value_align) = (Kind::List, 0);
        Record { id: 0, root, len, modified: 0, next_insertion: 0, descriptor: 0, kind, height, value_align, element_bytes, created: 0 }
    }

    /// The record's eight words, as they lie in a leaf.
    #[inline]
    pub fn words(&self) -> [u64; RECORD_WORDS] {
        let kinds =
            self.kind as u64 | u64::from(self.height) << 8 | u64::from(self.value_align) << 16 | u64::from(self.element_bytes) << 32;
        [self.id, self.root, self.len, self.modified, self.next_insertion, self.descriptor, kinds, self.created]
    }
}

/// A version's root: where its catalog begins. `arena` has its place, and copies it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Root {
    /// The version's number, from 1.
    pub version: u64,
    /// Offset of the catalog's topmost node, 0 while there is none.
    pub catalog: u64,
    /// Inner levels above the catalog's leaves.
    pub height: u32,
    /// Number of objects.
    pub objects: u64,
    /// The words of the record that counts in place of the catalog's, its id first; zeros if there is none.
    pub latest: [u64; RECORD_WORDS],
}

/// Offset of the leaf record of a slot, 0 if the catalog has none there. Of the root's latest object it may be an old one.
#[inline(always)]
pub fn record_offset(arena: &ArenaReader, root: &Root, slot: u64) -> u64 {
    if root.catalog == 0 || slot >= slots_of_height(root.height) {
        return 0;
    }
    let mut node = root.catalog;
    for level in (1..=root.height).rev() {
        let child = (slot >> (3 + 6 * (level - 1))) & (FAN_OUT - 1);
        node = arena.word(node + child * 8);
        if node == 0 {
            return 0;
        }
    }
    node + (slot & (LEAF_RECORDS - 1)) * RECORD_BYTES
}

/// The record of an object in a pinned version.
#[inline(always)]
pub fn find(arena: &ArenaReader, root: &Root, id: u64) -> Option<Record> {
    if root.latest[0] == id {
        return Record::of_words(root.latest);
    }
    let at = record_offset(arena, root, slot_of(id));
    if at == 0 {
        return None;
    }
    Record::read(arena, at).filter(|record| record.id == id)
}

/// The type that an object was made with.
pub struct Descriptor<'p> {
    /// Hash of the text.
    pub fingerprint: u64,
    /// The type in words.
    pub text: &'p str,
}

/// Bytes of a descriptor before its text.
pub const DESCRIPTOR_HEAD: u64 = 16;

/// The descriptor of a record.
pub fn descriptor<'p>(arena: &ArenaReader, record: &Record) -> Result<Descriptor<'p>> {
    let fingerprint = arena.word(record.descriptor);
    let len = arena.word(record.descriptor + 8);
    let text = std::str::from_utf8(arena.bytes(record.descriptor + DESCRIPTOR_HEAD, len))
        .map_err(|e| Error::caused(ErrorKind::Corrupt, format!("object {} has no readable type", record.id), e))?;
    Ok(Descriptor { fingerprint, text })
}
