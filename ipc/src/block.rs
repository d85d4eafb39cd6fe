//! The blocks that hold what users store: entries of dicts, and elements of lists and values.
//!
//! Entry (dict, namespace, names):
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | insertion number (48 bits), flags (16 bits above) |
//! | 8 | 4 | bytes of the key's archive |
//! | 12 | 4 | bytes of the value's archive |
//! | 16 | 16 | only if LARGE: birth (version that made the block), 0 |
//! | … | | the key's archive |
//! | … | | the value's archive, at the next multiple of the dict's alignment (8, or 16 if the type may need it) |
//! | … | | only if HANDLES, at the next multiple of 8: their number, their ids |
//!
//! Element (list whose elements do not lie in its leaves, value):
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | bytes of the value's archive |
//! | 4 | 4 | number of handles in it |
//! | 8 | 8 | birth |
//! | 16 | | the value's archive |
//! | … | | at the next multiple of 8: ids of the handles |
//!
//! The handles of a value are listed beside it so that the manager can count references without knowing the type.
//! *Birth* makes (offset, birth) a name for these very bytes, for remembering that they have been checked.

use crate::map::{ArenaReader, ArenaWriter};

/// Values from this size on have their birth in their entry, and are remembered once checked.
pub const LARGE_VALUE_BYTES: u64 = 4096;
/// Entry flag: handles are listed at the end.
pub const ENTRY_HANDLES: u64 = 1 << 48;
/// Entry flag: a birth follows the head.
pub const ENTRY_LARGE: u64 = 1 << 49;
const INSERTION_MASK: u64 = (1 << 48) - 1;
/// Bytes of an entry's head, and of an element's.
pub const HEAD_BYTES: u64 = 16;

/// Where a value lies: enough to read it under a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Offset of its archive.
    pub offset: u64,
    /// Bytes of its archive.
    pub len: u64,
    /// Version that made its block; 0 for small values and inline elements, which do not say.
    pub birth: u64,
    /// Offset of the block that names this value's identity: as long as a pin is held, the same block is the same value.
    pub block: u64,
}

/// The next multiple of a power of two. (`next_multiple_of` divides.)
#[inline(always)]
fn align_up(offset: u64, align: u64) -> u64 {
    debug_assert!(align.is_power_of_two());
    (offset + (align - 1)) & !(align - 1)
}

/// How an entry is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryShape {
    /// Bytes of the key's archive.
    pub key_len: u64,
    /// Bytes of the value's archive.
    pub value_len: u64,
    /// Alignment of the value, 8 or 16.
    pub align: u64,
    /// Number of handles in the value.
    pub handles: u64,
}

impl EntryShape {
    #[inline]
    fn large(&self) -> bool {
        self.value_len >= LARGE_VALUE_BYTES
    }

    /// Offset of the key in the block.
    #[inline]
    pub fn key(&self) -> u64 {
        if self.large() { HEAD_BYTES + 16 } else { HEAD_BYTES }
    }

    /// Offset of the value in the block.
    #[inline]
    pub fn value(&self) -> u64 {
        align_up(self.key() + self.key_len, self.align)
    }

    #[inline]
    fn handles_at(&self) -> u64 {
        (self.value() + self.value_len).next_multiple_of(8)
    }

    /// Bytes of the whole block.
    #[inline]
    pub fn bytes(&self) -> u64 {
        let end = if self.handles == 0 { self.value() + self.value_len } else { self.handles_at() + 8 + 8 * self.handles };
        align_up(end, self.align)
    }

    /// Writes all but the value's bytes.
    #[inline(always)]
    pub fn write_head(&self, arena: &ArenaWriter, at: u64, insertion: u64, key: &[u8], birth: u64) {
        debug_assert_eq!(key.len() as u64, self.key_len);
        let mut first = insertion & INSERTION_MASK;
        if self.handles > 0 {
            first |= ENTRY_HANDLES;
        }
        if self.large() {
            first |= ENTRY_LARGE;
            arena.store_words(at + 16, [birth, 0]);
        }
        arena.store_words(at, [first, self.key_len | self.value_len << 32]);
        arena.copy_in(at + self.key(), key);
    }

    /// Writes the ids of the handles in the value.
    #[inline]
    pub fn write_handles(&self, arena: &ArenaWriter, at: u64, ids: impl Iterator<Item = u64>) {
        if self.handles > 0 {
            let list = at + self.handles_at();
            arena.store(list, self.handles);
            for (i, id) in (0..self.handles).zip(ids) {
                arena.store(list + 8 + 8 * i, id);
            }
        }
    }
}

/// An entry of a pinned version.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Offset of its block.
    pub block: u64,
    first: u64,
    key_len: u32,
    value_len: u32,
    align: u8,
}

/// Where the value lies, if this is the entry of a key of eight bytes and its value is not large.
#[inline(always)]
pub fn small_value_of(arena: &ArenaReader, block: u64, align: u8, key: u64) -> Option<Place> {
    let [first, lens, found] = arena.words(block);
    let is_it = (found ^ key) | (first & ENTRY_LARGE) | u64::from(lens as u32 ^ 8) == 0;
    let offset = align_up(block + HEAD_BYTES + 8, value_align(align));
    is_it.then_some(Place { offset, len: lens >> 32, birth: 0, block })
}

/// The alignment of a dict's values, whatever its record says.
#[inline(always)]
fn value_align(align: u8) -> u64 {
    if align == 16 { 16 } else { 8 }
}

impl Entry {
    /// The entry at an offset, of a dict with this alignment.
    #[inline(always)]
    pub fn read(arena: &ArenaReader, block: u64, align: u8) -> Entry {
        let [first, lens] = arena.words(block);
        Entry { block, first, key_len: lens as u32, value_len: (lens >> 32) as u32, align }
    }

    /// Whether this is the entry of a key.
    #[inline]
    pub fn has_key(&self, arena: &ArenaReader, key: &[u8]) -> bool {
        if let Ok(word) = <[u8; 8]>::try_from(key) {
            // Most keys: not worth a call.
            return self.has_key_word(arena, u64::from_ne_bytes(word));
        }
        self.key_len as usize == key.len() && self.key(arena) == key
    }

    /// Whether this is the entry of a key of eight bytes.
    #[inline(always)]
    pub fn has_key_word(&self, arena: &ArenaReader, key: u64) -> bool {
        self.key_len == 8 && arena.word(self.key_offset()) == key
    }

    /// Its shape.
    #[inline]
    pub fn shape(&self, arena: &ArenaReader) -> EntryShape {
        let mut shape =
            EntryShape { key_len: self.key_len.into(), value_len: self.value_len.into(), align: self.align.max(8).into(), handles: 0 };
        if self.first & ENTRY_HANDLES != 0 {
            shape.handles = arena.word(self.block + shape.handles_at());
        }
        shape
    }

    /// The insertion number of its key.
    #[inline]
    pub fn insertion(&self) -> u64 {
        self.first & INSERTION_MASK
    }

    #[inline(always)]
    fn key_offset(&self) -> u64 {
        self.block + if self.first & ENTRY_LARGE == 0 { HEAD_BYTES } else { HEAD_BYTES + 16 }
    }

    /// The key's archive.
    #[inline]
    pub fn key<'p>(&self, arena: &ArenaReader) -> &'p [u8] {
        arena.bytes(self.key_offset(), self.key_len.into())
    }

    /// Where the key lies.
    #[inline(always)]
    pub fn key_place(&self) -> Place {
        Place { offset: self.key_offset(), len: self.key_len.into(), birth: 0, block: self.block }
    }

    /// Where the value lies.
    #[inline(always)]
    pub fn value_place(&self, arena: &ArenaReader) -> Place {
        let offset = align_up(self.key_offset() + u64::from(self.key_len), value_align(self.align));
        let birth = if self.first & ENTRY_LARGE == 0 { 0 } else { arena.word(self.block + 16) };
        Place { offset, len: self.value_len.into(), birth, block: self.block }
    }

    /// Whether the value has handles.
    #[inline]
    pub fn has_handles(&self) -> bool {
        self.first & ENTRY_HANDLES != 0
    }

    /// The ids of the handles in the value.
    #[inline(always)]
    pub fn handles(&self, arena: &ArenaReader) -> Vec<u64> {
        if self.has_handles() { self.listed_handles(arena) } else { Vec::new() }
    }

    #[cold]
    fn listed_handles(&self, arena: &ArenaReader) -> Vec<u64> {
        let shape = self.shape(arena);
        let list = self.block + shape.handles_at();
        (0..shape.handles).map(|i| arena.word(list + 8 + 8 * i)).collect()
    }
}

/// Bytes of an element's block.
#[inline]
pub fn element_bytes(value_len: u64, handles: u64) -> u64 {
    if handles == 0 {
        (HEAD_BYTES + value_len).next_multiple_of(16)
    } else {
        ((HEAD_BYTES + value_len).next_multiple_of(8) + 8 * handles).next_multiple_of(16)
    }
}

/// Writes all of an element's block but the value's bytes, which belong at `at + HEAD_BYTES`.
#[inline]
pub fn write_element_head(arena: &ArenaWriter, at: u64, value_len: u64, birth: u64, handles: impl ExactSizeIterator<Item = u64>) {
    arena.store(at, value_len | (handles.len() as u64) << 32);
    arena.store(at + 8, birth);
    let list = at + (HEAD_BYTES + value_len).next_multiple_of(8);
    for (i, id) in (0u64..).zip(handles) {
        arena.store(list + 8 * i, id);
    }
}

/// Where an element's value lies.
#[inline(always)]
pub fn element_place(arena: &ArenaReader, block: u64) -> Place {
    Place { offset: block + HEAD_BYTES, len: arena.word(block) & 0xffff_ffff, birth: arena.word(block + 8), block }
}

/// The ids of the handles in an element.
#[inline]
pub fn element_handles(arena: &ArenaReader, block: u64) -> Vec<u64> {
    let first = arena.word(block);
    let list = block + (HEAD_BYTES + (first & 0xffff_ffff)).next_multiple_of(8);
    (0..first >> 32).map(|i| arena.word(list + 8 * i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_entries_cost_little() {
        let shape = EntryShape { key_len: 8, value_len: 64, align: 8, handles: 0 };
        assert_eq!(shape.bytes(), 88);
        assert_eq!(EntryShape { align: 16, ..shape }.bytes(), 96);
    }

    #[test]
    fn parts_do_not_overlap_and_are_aligned() {
        for align in [8, 16] {
            for key_len in [0, 1, 7, 8, 9, 16, 33] {
                for value_len in [0, 1, 8, 4095, 4096, 5000] {
                    for handles in [0, 1, 3] {
                        let s = EntryShape { key_len, value_len, align, handles };
                        assert!(s.value().is_multiple_of(align) && s.value() >= s.key() + key_len);
                        assert!(s.bytes() >= s.value() + value_len + if handles > 0 { 8 + 8 * handles } else { 0 });
                        assert!(s.bytes().is_multiple_of(align));
                    }
                }
            }
        }
    }
}
