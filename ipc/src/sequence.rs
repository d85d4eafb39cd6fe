//! The sequence of a list, read: a tree from position to element.
//!
//! Leaves hold elements side by side: of fixed size in place (at most [`INLINE_BYTES_MAX`] each, in leaves of
//! [`LEAF_BYTES`]), or else offsets of their blocks, [`POINTERS`] a leaf. Inner nodes have up to 64 children:
//!
//! | form | bytes | what |
//! |---|---|---|
//! | regular | 512 | 64 child words. All children but the last are full, so the child of a position is a shift away |
//! | relaxed | 1024 | 64 child words, then for each the number of elements up to its end |
//!
//! A child word: an offset in its low 48 bits; above, in 16 bits: 0–6 number of children (0 for a leaf), 7 whether regular.
//! A list that only ever grew at its end is regular everywhere. All leaves are on one level; the record says which.
//!
//! A leaf may have room behind the elements that a version shows. The manager may fill it with later elements in place:
//! no version that shows fewer looks there (INV-6).

use crate::block::Place;
use crate::catalog::Record;
use crate::map::ArenaReader;

/// Children of an inner node.
pub const FAN_OUT: u64 = 64;
/// Elements of fixed size up to this many bytes lie in their leaf.
pub const INLINE_BYTES_MAX: u32 = 256;
/// Bytes of a full leaf of inline elements, at the most.
pub const LEAF_BYTES: u64 = 2048;
/// Elements of a leaf of offsets.
pub const POINTERS: u64 = 64;
/// Bytes of a regular inner node; a relaxed one has as many again.
pub const INNER_BYTES: u64 = FAN_OUT * 8;
/// Most inner levels: 6 bits each, beside at least 3 bits of leaf, for 48 bits of position.
pub const HEIGHT_MAX: u8 = 8;
const OFFSET_MASK: u64 = (1 << 48) - 1;

/// Bits of a position that a leaf resolves.
#[inline]
pub fn leaf_bits(element_bytes: u32) -> u32 {
    // How often the elements' bytes, as the power of two that they fit into, fit into a leaf. (To divide takes as long as a read else.)
    if element_bytes == 0 {
        POINTERS.ilog2()
    } else {
        LEAF_BYTES.ilog2().saturating_sub((element_bytes - 1).checked_ilog2().map_or(0, |bits| bits + 1))
    }
}

/// Bytes between the elements of a leaf.
#[inline]
pub fn stride(element_bytes: u32) -> u64 {
    if element_bytes == 0 { 8 } else { u64::from(element_bytes) }
}

/// A child word, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// Where the node is.
    pub offset: u64,
    /// Number of its children, 0 for a leaf.
    pub count: u64,
    /// Whether all children but the last are full.
    pub regular: bool,
}

impl Child {
    /// Unpacks a child word.
    #[inline(always)]
    pub fn unpack(word: u64) -> Child {
        Child { offset: word & OFFSET_MASK, count: (word >> 48) & 0x7f, regular: word >> 55 & 1 == 1 }
    }

    /// Packs it again.
    pub fn pack(self) -> u64 {
        self.offset | self.count << 48 | u64::from(self.regular) << 55
    }
}

/// Which child of a relaxed node holds a position, and the number of elements before that child.
#[inline]
pub fn relaxed_child(arena: &ArenaReader, node: &Child, position: u64) -> (u64, u64) {
    let ends = node.offset + INNER_BYTES;
    let (mut low, mut high) = (0, node.count.max(1) - 1);
    while low < high {
        let middle = low.midpoint(high);
        if arena.word(ends + middle * 8) <= position { low = middle + 1 } else { high = middle }
    }
    (low, if low == 0 { 0 } else { arena.word(ends + (low - 1) * 8) })
}

/// Offset of the leaf that holds a position, the position in it, and how many positions further the leaf surely reaches.
#[inline]
fn leaf_of(arena: &ArenaReader, record: &Record, mut position: u64) -> (u64, u64) {
    let bits = leaf_bits(record.element_bytes);
    let mut node = Child::unpack(record.root);
    for level in (0..u32::from(record.height)).rev() {
        let (child, before) = if node.regular {
            let shift = bits + 6 * level;
            let child = position >> shift;
            (child, child << shift)
        } else {
            relaxed_child(arena, &node, position)
        };
        position -= before;
        node = Child::unpack(arena.word(node.offset + child * 8));
    }
    (node.offset, position)
}

/// Offset of an element in its leaf: its bytes, or the word with its block's offset.
#[inline]
pub fn slot(arena: &ArenaReader, record: &Record, position: u64) -> Option<u64> {
    if position >= record.len {
        return None;
    }
    let (leaf, within) = leaf_of(arena, record, position);
    Some(leaf + within * stride(record.element_bytes))
}

/// Where the element at a position lies.
#[inline]
pub fn find(arena: &ArenaReader, record: &Record, position: u64) -> Option<Place> {
    slot(arena, record, position).map(|slot| place(arena, record, slot))
}

#[inline]
fn place(arena: &ArenaReader, record: &Record, slot: u64) -> Place {
    if record.element_bytes == 0 {
        crate::block::element_place(arena, arena.word(slot))
    } else {
        Place { offset: slot, len: u64::from(record.element_bytes), birth: 0, block: 0 }
    }
}

/// The elements of a range of positions, in order, from both ends.
#[derive(Clone)]
pub struct Elements {
    arena: ArenaReader,
    record: Record,
    next: u64,
    end: u64,
    /// The leaf that `next` was found in: offset of its first element's slot, its first position, the position after it.
    leaf: u64,
    leaf_start: u64,
    leaf_end: u64,
}

impl Elements {
    /// A walk over `positions` of a list in a pinned version, cut to its length.
    pub fn new(arena: &ArenaReader, record: &Record, positions: std::ops::Range<u64>) -> Self {
        let end = positions.end.min(record.len);
        Elements { arena: arena.clone(), record: *record, next: positions.start.min(end), end, leaf: 0, leaf_start: 0, leaf_end: 0 }
    }

    /// Finds the leaf of `next`, and how far it reaches.
    fn enter_leaf(&mut self) {
        let bits = leaf_bits(self.record.element_bytes);
        let mut node = Child::unpack(self.record.root);
        let (mut position, mut total) = (self.next, self.record.len);
        for level in (0..u32::from(self.record.height)).rev() {
            let (child, before, after) = if node.regular {
                let shift = bits + 6 * level;
                let child = position >> shift;
                (child, child << shift, ((child + 1) << shift).min(total))
            } else {
                let (child, before) = relaxed_child(&self.arena, &node, position);
                (child, before, self.arena.word(node.offset + INNER_BYTES + child * 8))
            };
            position -= before;
            total = after.saturating_sub(before);
            node = Child::unpack(self.arena.word(node.offset + child * 8));
        }
        self.leaf = node.offset;
        self.leaf_start = self.next - position;
        self.leaf_end = (self.leaf_start + total).max(self.next + 1);
    }
}

impl Iterator for Elements {
    type Item = Place;

    #[inline]
    fn next(&mut self) -> Option<Place> {
        if self.next >= self.end {
            return None;
        }
        if self.next >= self.leaf_end {
            self.enter_leaf();
        }
        let slot = self.leaf + (self.next - self.leaf_start) * stride(self.record.element_bytes);
        self.next += 1;
        Some(place(&self.arena, &self.record, slot))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = (self.end - self.next) as usize;
        (n, Some(n))
    }

    fn nth(&mut self, n: usize) -> Option<Place> {
        self.next = self.next.saturating_add(n as u64).min(self.end);
        self.next()
    }
}

impl DoubleEndedIterator for Elements {
    fn next_back(&mut self) -> Option<Place> {
        if self.next >= self.end {
            return None;
        }
        self.end -= 1;
        find(&self.arena, &self.record, self.end)
    }
}

impl ExactSizeIterator for Elements {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_hold_a_power_of_two() {
        assert_eq!(leaf_bits(0), 6);
        assert_eq!(leaf_bits(8), 8);
        assert_eq!(leaf_bits(1), 11);
        assert_eq!(leaf_bits(24), 6);
        assert_eq!(leaf_bits(INLINE_BYTES_MAX), 3);
        for bytes in 1..=LEAF_BYTES as u32 {
            assert_eq!(leaf_bits(bytes), (LEAF_BYTES / u64::from(bytes)).ilog2(), "{bytes} B");
        }
        // What no list has: a record that somebody has damaged.
        assert_eq!(leaf_bits(u32::MAX), 0);
    }

    #[test]
    fn child_words_keep_what_they_hold() {
        let child = Child { offset: 0x1234_5678_9ab0, count: 64, regular: true };
        assert_eq!(Child::unpack(child.pack()), child);
    }
}
