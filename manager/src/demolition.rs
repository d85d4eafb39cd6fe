//! Taking apart what has been cut off: the contents of a cleared or dropped container, piece by piece.
//!
//! Clearing a dict of ten million entries is one change of its root; to retire all its blocks takes a while, so that is
//! done in slices between requests. A block is retired when its slice comes, later than it left: that only makes its life
//! longer than it was, which is always safe. References to other objects that the values hold fall with them.

use crate::memory::Memory;
use commonhold_ipc::block::{Entry, element_handles};
use commonhold_ipc::index::{self, FAN_OUT};
use commonhold_ipc::sequence;

/// Something that is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Part of a dict's index: child word, alignment of values.
    Index(u64, u8),
    /// Part of a list's sequence: node, inner levels, number of elements, bytes of an inline element. With or without the
    /// elements' own blocks.
    Sequence(sequence::Child, u32, u64, u32, bool),
    /// An element's block.
    Element(u64),
    /// A block that holds nothing else.
    Block(u64),
}

/// What is still to be taken apart, and from which object it is.
#[derive(Default)]
pub struct Demolition {
    pieces: Vec<(u64, Piece)>,
}

impl Demolition {
    /// Adds a piece of an object.
    pub fn push(&mut self, object: u64, piece: Piece) {
        self.pieces.push((object, piece));
    }

    /// How many pieces there are.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether nothing is left to do.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Forgets all pieces after the first `len`: the attempt that cut them off is taken back.
    pub fn cut(&mut self, len: usize) {
        self.pieces.truncate(len);
    }

    /// All pieces. For the audit.
    pub fn pieces(&self) -> impl Iterator<Item = (u64, Piece)> + '_ {
        self.pieces.iter().copied()
    }

    /// Retires about `blocks` blocks; calls `fell` with (object, handle) for each handle in them.
    pub fn work(&mut self, memory: &mut Memory, blocks: usize, mut fell: impl FnMut(u64, u64)) {
        let mut done = 0;
        while done < blocks {
            let Some((object, piece)) = self.pieces.pop() else { return };
            done += 1;
            match piece {
                Piece::Block(block) => memory.retire(block),
                Piece::Element(block) => {
                    element_handles(memory.reader(), block).into_iter().for_each(|handle| fell(object, handle));
                    memory.retire(block);
                }
                Piece::Index(word, align) => done += self.index(memory, object, word, align, &mut fell),
                Piece::Sequence(node, level, len, element_bytes, elements) => {
                    done += self.sequence(memory, object, (node, level, len), element_bytes, elements);
                }
            }
        }
    }

    fn index(&mut self, memory: &mut Memory, object: u64, word: u64, align: u8, fell: &mut impl FnMut(u64, u64)) -> usize {
        let entries: Vec<u64> = match index::Child::unpack(word) {
            index::Child::Empty => return 0,
            index::Child::Inner(node) => {
                let mut previous = 0;
                for at in 0..FAN_OUT {
                    let child = memory.reader().word(node + at * 8);
                    // A bucket may stand in several words, side by side.
                    if child != 0 && child != previous {
                        self.push(object, Piece::Index(child, align));
                    }
                    previous = child;
                }
                memory.retire(node);
                return 0;
            }
            index::Child::Bucket(bucket) => {
                let slots = (0..bucket.capacity()).map(|i| memory.reader().word(bucket.offset + i * 8));
                let entries = slots.filter(|slot| *slot != 0).map(index::slot_entry).collect();
                memory.retire(bucket.offset);
                entries
            }
            index::Child::Collision(leaf) => {
                let entries = index::collisions(memory.reader(), leaf).collect();
                memory.retire(leaf);
                entries
            }
        };
        for &entry in &entries {
            let handles = Entry::read(memory.reader(), entry, align).handles(memory.reader());
            handles.into_iter().for_each(|handle| fell(object, handle));
            memory.retire(entry);
        }
        entries.len()
    }

    fn sequence(
        &mut self,
        memory: &mut Memory,
        object: u64,
        (node, level, len): (sequence::Child, u32, u64),
        element_bytes: u32,
        elements: bool,
    ) -> usize {
        if level == 0 {
            if elements && element_bytes == 0 {
                for i in 0..len {
                    self.push(object, Piece::Element(memory.reader().word(node.offset + i * 8)));
                }
            }
        } else {
            let full = 1u64 << (sequence::leaf_bits(element_bytes) + 6 * (level - 1));
            let mut start = 0;
            for i in 0..node.count {
                let end = if node.regular {
                    ((i + 1) * full).min(len)
                } else {
                    memory.reader().word(node.offset + sequence::INNER_BYTES + i * 8)
                };
                let child = sequence::Child::unpack(memory.reader().word(node.offset + i * 8));
                self.push(object, Piece::Sequence(child, level - 1, end - start, element_bytes, elements));
                start = end;
            }
        }
        memory.retire(node.offset);
        0
    }
}
