//! The sequence of a list, written: set, insert, remove, cut off. The layout is `ipc::sequence`'s.
//!
//! Inner nodes on the way are read into private memory ([`Inner`]), changed there, and written as a regular or relaxed
//! node, whichever they are by then. A node that falls under a third of its room is merged with a neighbour if both fit in
//! one. Appending has a shorter road: see [`Tail`].

use crate::memory::Memory;
use commonhold_ipc::error::Result;
use commonhold_ipc::map::ArenaReader;
use commonhold_ipc::sequence::{Child, FAN_OUT, INNER_BYTES, leaf_bits, relaxed_child, stride};

/// The last leaf of a list, and how many of its elements any version has ever shown or been given.
///
/// The room behind them may be filled in place (INV-6): an append then changes nothing but the list's length. Every other change
/// of the list forgets its tail. So while there is one, no look at the tree is needed to know that the last leaf is still this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    leaf: u64,
    used: u64,
    /// Elements that the leaf has room for.
    room: u64,
    /// Elements of the list, with these.
    len: u64,
}

/// An element on its way into a list.
#[derive(Clone, Copy, Debug)]
pub enum Element<'a> {
    /// Of fixed size, to lie in the leaf.
    Inline(&'a [u8]),
    /// The offset of its block.
    Block(u64),
}

/// The part of a record that is the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Child word of the root, 0 if the list is empty.
    pub root: u64,
    /// Inner levels.
    pub height: u8,
    /// Number of elements.
    pub len: u64,
    /// Bytes of an inline element, or 0.
    pub element_bytes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Subtree {
    child: Child,
    len: u64,
}

/// An inner node in private memory.
struct Inner {
    children: Vec<Subtree>,
}

/// One list within a commit.
pub struct SequenceWriter<'m> {
    /// The commit.
    pub memory: &'m mut Memory,
    /// The sequence, changed in place.
    pub shape: &'m mut Shape,
    /// What is known of the last leaf.
    pub tail: &'m mut Tail,
}

impl SequenceWriter<'_> {
    fn reader(&self) -> &ArenaReader {
        self.memory.reader()
    }

    fn stride(&self) -> u64 {
        stride(self.shape.element_bytes)
    }

    /// Elements of a full subtree with this many inner levels.
    fn full(&self, level: u32) -> u64 {
        1 << (leaf_bits(self.shape.element_bytes) + 6 * level)
    }

    fn leaf(&self, offset: u64, len: u64) -> Subtree {
        Subtree { child: Child { offset, count: 0, regular: false }, len }
    }

    fn root(&self) -> Subtree {
        Subtree { child: Child::unpack(self.shape.root), len: self.shape.len }
    }

    /// A leaf with room for `len` elements and some more.
    fn new_leaf(&mut self, len: u64) -> Result<u64> {
        let room = len.next_power_of_two().clamp(4, self.full(0).max(4)).min(self.full(0));
        self.memory.allocate(room * self.stride())
    }

    fn put(&self, leaf: u64, position: u64, element: Element<'_>) {
        let at = leaf + position * self.stride();
        match element {
            Element::Inline(bytes) => self.memory.arena().copy_in(at, bytes),
            Element::Block(offset) => self.memory.arena().store(at, offset),
        }
    }

    fn read_inner(&self, node: Subtree, level: u32) -> Inner {
        let reader = self.reader();
        let mut start = 0;
        let children = (0..node.child.count)
            .map(|i| {
                let end = if node.child.regular {
                    ((i + 1) * self.full(level - 1)).min(node.len)
                } else {
                    reader.word(node.child.offset + INNER_BYTES + i * 8)
                };
                let child = Child::unpack(reader.word(node.child.offset + i * 8));
                let subtree = Subtree { child, len: end - start };
                start = end;
                subtree
            })
            .collect();
        Inner { children }
    }

    /// Writes an inner node over the old one if that is new and of the same form, else as a new block.
    fn write_inner(&mut self, inner: &Inner, level: u32, old: Option<Child>) -> Result<Subtree> {
        let (last, others) = inner.children.split_last().expect("an inner node has children");
        let full = self.full(level - 1);
        let regular = others.iter().all(|child| child.len == full) && last.len <= full;
        let bytes = if regular { INNER_BYTES } else { 2 * INNER_BYTES };
        let offset = match old {
            Some(old) if old.regular == regular && self.memory.is_new(old.offset) => old.offset,
            _ => {
                let offset = self.memory.allocate(bytes)?;
                if let Some(old) = old {
                    self.memory.retire(old.offset);
                }
                offset
            }
        };
        let mut end = 0;
        for (i, subtree) in (0u64..).zip(&inner.children) {
            end += subtree.len;
            self.memory.arena().store(offset + i * 8, subtree.child.pack());
            if !regular {
                self.memory.arena().store(offset + INNER_BYTES + i * 8, end);
            }
        }
        Ok(Subtree { child: Child { offset, count: inner.children.len() as u64, regular }, len: end })
    }

    /// Offset of the slot of an element.
    pub fn slot(&self, position: u64) -> u64 {
        let record = self.as_record();
        commonhold_ipc::sequence::slot(self.reader(), &record, position).expect("the position is in the list")
    }

    fn as_record(&self) -> commonhold_ipc::catalog::Record {
        let Shape { root, height, len, element_bytes } = *self.shape;
        commonhold_ipc::catalog::Record::of_sequence(root, height, len, element_bytes)
    }

    /// Replaces the element at a position.
    pub fn set(&mut self, position: u64, element: Element<'_>) -> Result<()> {
        debug_assert!(position < self.shape.len);
        *self.tail = Tail::default();
        let (mut node, mut position) = (self.root(), position);
        // The word that names the node being looked at: in the record first, then in its parent, which is ours already.
        let mut named_by = None;
        for level in (0..=u32::from(self.shape.height)).rev() {
            let bytes = match (level, node.child.regular) {
                (0, _) => node.len * self.stride(),
                (_, true) => INNER_BYTES,
                (_, false) => 2 * INNER_BYTES,
            };
            let ours = if level == 0 { self.own_leaf(node)? } else { self.memory.writable(node.child.offset, bytes)? };
            let child = Child { offset: ours, ..node.child };
            match named_by {
                None => self.shape.root = child.pack(),
                Some(at) => self.memory.arena().store(at, child.pack()),
            }
            node.child = child;
            if level > 0 {
                let (index, before, after) = self.child_of(node, level, position);
                named_by = Some(ours + index * 8);
                position -= before;
                node = Subtree { child: Child::unpack(self.reader().word(ours + index * 8)), len: after - before };
            }
        }
        self.put(node.child.offset, position, element);
        Ok(())
    }

    /// The child of a node that holds a position, and the elements before it and up to its end.
    fn child_of(&self, node: Subtree, level: u32, position: u64) -> (u64, u64, u64) {
        if node.child.regular {
            let full = self.full(level - 1);
            let index = position / full;
            (index, index * full, ((index + 1) * full).min(node.len))
        } else {
            let (index, before) = relaxed_child(self.reader(), &node.child, position);
            (index, before, self.reader().word(node.child.offset + INNER_BYTES + index * 8))
        }
    }

    /// The leaf itself if it is new, else a copy with as much room.
    fn own_leaf(&mut self, leaf: Subtree) -> Result<u64> {
        if self.memory.is_new(leaf.child.offset) {
            return Ok(leaf.child.offset);
        }
        let copy = self.new_leaf(leaf.len)?;
        self.memory.arena().copy_block(leaf.child.offset, copy, leaf.len * self.stride());
        self.memory.retire(leaf.child.offset);
        Ok(copy)
    }

    /// Adds an element behind the last one.
    pub fn push(&mut self, element: Element<'_>) -> Result<()> {
        if self.push_in_place(element) {
            return Ok(());
        }
        self.insert(self.shape.len, element)?;
        *self.tail = self.new_tail();
        Ok(())
    }

    /// What the last leaf has room for. Nothing if it is older than this commit: elements behind its last may have been shown before
    /// the list was cut; or if a node on the way counts elements.
    fn new_tail(&self) -> Tail {
        let (mut node, len) = (self.root(), self.shape.len);
        for level in (1..=u32::from(self.shape.height)).rev() {
            if !node.child.regular {
                return Tail::default();
            }
            let (index, before, after) = self.child_of(node, level, node.len - 1);
            node = Subtree { child: Child::unpack(self.reader().word(node.child.offset + index * 8)), len: after - before };
        }
        let (leaf, used) = (node.child.offset, node.len);
        if !self.memory.is_new(leaf) {
            return Tail::default();
        }
        let room = (self.memory.size_of(leaf) / self.stride()).min(self.full(0));
        Tail { leaf, used, room, len }
    }

    /// Fills the next place of the last leaf, if no version has ever shown it.
    #[inline]
    fn push_in_place(&mut self, element: Element<'_>) -> bool {
        let Tail { leaf, used, room, len } = *self.tail;
        if used >= room || len != self.shape.len {
            return false;
        }
        self.put(leaf, used, element);
        *self.tail = Tail { leaf, used: used + 1, room, len: len + 1 };
        self.shape.len += 1;
        true
    }

    /// Puts an element before the one at a position, or at the end.
    pub fn insert(&mut self, position: u64, element: Element<'_>) -> Result<()> {
        debug_assert!(position <= self.shape.len);
        *self.tail = Tail::default();
        if self.shape.len == 0 {
            let leaf = self.new_leaf(1)?;
            self.put(leaf, 0, element);
            (self.shape.root, self.shape.height, self.shape.len) = (self.leaf(leaf, 1).child.pack(), 0, 1);
            return Ok(());
        }
        let level = u32::from(self.shape.height);
        let (mut root, more) = self.insert_at(self.root(), level, position, element)?;
        if let Some(more) = more {
            root = self.write_inner(&Inner { children: vec![root, more] }, level + 1, None)?;
            self.shape.height += 1;
        }
        self.shape.root = root.child.pack();
        self.shape.len += 1;
        Ok(())
    }

    fn insert_at(&mut self, node: Subtree, level: u32, position: u64, element: Element<'_>) -> Result<(Subtree, Option<Subtree>)> {
        if level == 0 {
            return self.insert_in_leaf(node, position, element);
        }
        // The end belongs to the last child.
        let (index, before, _) = self.child_of(node, level, position.min(node.len - 1));
        let mut inner = self.read_inner(node, level);
        let index = index as usize;
        let (child, more) = self.insert_at(inner.children[index], level - 1, position - before, element)?;
        inner.children[index] = child;
        if let Some(more) = more {
            inner.children.insert(index + 1, more);
        }
        if inner.children.len() <= FAN_OUT as usize {
            return Ok((self.write_inner(&inner, level, Some(node.child))?, None));
        }
        // Behind the last child of a full node begins a new one, so that lists that only grow have full nodes.
        let cut = if index + 2 == inner.children.len() { FAN_OUT as usize } else { FAN_OUT as usize / 2 };
        let right = Inner { children: inner.children.split_off(cut) };
        Ok((self.write_inner(&inner, level, Some(node.child))?, Some(self.write_inner(&right, level, None)?)))
    }

    fn insert_in_leaf(&mut self, leaf: Subtree, position: u64, element: Element<'_>) -> Result<(Subtree, Option<Subtree>)> {
        let (stride, full) = (self.stride(), self.full(0));
        let old = leaf.child.offset;
        if leaf.len < full {
            let room = self.memory.size_of(old) / stride > leaf.len;
            let ours = if room && self.memory.is_new(old) { old } else { self.new_leaf(leaf.len + 1)? };
            if ours != old {
                self.copy_elements((old, 0), (ours, 0), position);
            }
            self.copy_elements((old, position), (ours, position + 1), leaf.len - position);
            self.put(ours, position, element);
            if ours != old {
                self.memory.retire(old);
            }
            return Ok((self.leaf(ours, leaf.len + 1), None));
        }
        // Full. At the end a new leaf begins; elsewhere both halves get room.
        let cut = if position == full { full } else { full / 2 };
        let right_len = full - cut;
        // A list that grows behind its end will fill the new leaf: it gets all its room at once.
        let right = self.new_leaf(if cut == full { full } else { right_len + 1 })?;
        self.copy_elements((old, cut), (right, 0), right_len);
        let (left, right) = (Subtree { child: leaf.child, len: cut }, self.leaf(right, right_len));
        if cut == full {
            self.put(right.child.offset, 0, element);
            return Ok((left, Some(self.leaf(right.child.offset, 1))));
        }
        if position <= cut {
            Ok((self.insert_in_leaf(left, position, element)?.0, Some(right)))
        } else {
            Ok((left, Some(self.insert_in_leaf(right, position - cut, element)?.0)))
        }
    }

    fn copy_elements(&self, from: (u64, u64), to: (u64, u64), count: u64) {
        let stride = self.stride();
        if count > 0 {
            self.memory.arena().copy_block(from.0 + from.1 * stride, to.0 + to.1 * stride, count * stride);
        }
    }

    /// Takes the element at a position out of the tree. Its block, if it has one, is the caller's to retire.
    pub fn remove(&mut self, position: u64) -> Result<()> {
        debug_assert!(position < self.shape.len);
        *self.tail = Tail::default();
        let level = u32::from(self.shape.height);
        let left = self.remove_at(self.root(), level, position)?;
        self.shape.len -= 1;
        match left {
            None => (self.shape.root, self.shape.height) = (0, 0),
            Some(root) => {
                self.shape.root = root.child.pack();
                self.lower();
            }
        }
        Ok(())
    }

    /// Takes away a root that has one child.
    fn lower(&mut self) {
        while self.shape.height > 0 {
            let root = Child::unpack(self.shape.root);
            if root.count != 1 {
                return;
            }
            let only = self.reader().word(root.offset);
            self.memory.retire(root.offset);
            self.shape.root = only;
            self.shape.height -= 1;
        }
    }

    fn remove_at(&mut self, node: Subtree, level: u32, position: u64) -> Result<Option<Subtree>> {
        if level == 0 {
            if node.len == 1 {
                self.memory.retire(node.child.offset);
                return Ok(None);
            }
            let ours = self.own_leaf(node)?;
            self.copy_elements((ours, position + 1), (ours, position), node.len - position - 1);
            return Ok(Some(self.leaf(ours, node.len - 1)));
        }
        let (index, before, _) = self.child_of(node, level, position);
        let mut inner = self.read_inner(node, level);
        let index = index as usize;
        match self.remove_at(inner.children[index], level - 1, position - before)? {
            None => {
                inner.children.remove(index);
            }
            Some(child) => {
                inner.children[index] = child;
                self.merge(&mut inner, index, level - 1)?;
            }
        }
        if inner.children.is_empty() {
            self.memory.retire(node.child.offset);
            return Ok(None);
        }
        Ok(Some(self.write_inner(&inner, level, Some(node.child))?))
    }

    /// Makes one node of a sparse child and a neighbour, if they fit well into one.
    fn merge(&mut self, parent: &mut Inner, index: usize, level: u32) -> Result<()> {
        let weight = |child: &Subtree| if level == 0 { child.len } else { child.child.count };
        let most = if level == 0 { self.full(0) } else { FAN_OUT };
        if weight(&parent.children[index]) * 3 > most || parent.children.len() < 2 {
            return Ok(());
        }
        let left = if index + 1 < parent.children.len() { index } else { index - 1 };
        let (a, b) = (parent.children[left], parent.children[left + 1]);
        if (weight(&a) + weight(&b)) * 4 > most * 3 {
            return Ok(());
        }
        let merged = if level == 0 {
            let leaf = self.new_leaf(a.len + b.len)?;
            self.copy_elements((a.child.offset, 0), (leaf, 0), a.len);
            self.copy_elements((b.child.offset, 0), (leaf, a.len), b.len);
            self.memory.retire(a.child.offset);
            self.leaf(leaf, a.len + b.len)
        } else {
            let mut inner = self.read_inner(a, level);
            inner.children.extend(self.read_inner(b, level).children);
            self.write_inner(&inner, level, Some(a.child))?
        };
        self.memory.retire(b.child.offset);
        parent.children[left] = merged;
        parent.children.remove(left + 1);
        Ok(())
    }

    /// Cuts the list to its first `len` elements. The subtrees that fall off whole are handed to `fell`, with their levels:
    /// none of their blocks is retired yet; the elements that fall out of the leaf at the cut go to `out`, as slots' contents.
    pub fn truncate(&mut self, len: u64, fell: &mut Vec<(Child, u32, u64)>, out: &mut Vec<u64>) -> Result<()> {
        if len >= self.shape.len {
            return Ok(());
        }
        *self.tail = Tail::default();
        let level = u32::from(self.shape.height);
        let root = self.root();
        if len == 0 {
            fell.push((root.child, level, root.len));
            (self.shape.root, self.shape.height, self.shape.len) = (0, 0, 0);
            return Ok(());
        }
        let cut = self.truncate_at(root, level, len, fell, out)?;
        self.shape.root = cut.child.pack();
        self.shape.len = len;
        self.lower();
        Ok(())
    }

    fn truncate_at(
        &mut self,
        node: Subtree,
        level: u32,
        len: u64,
        fell: &mut Vec<(Child, u32, u64)>,
        out: &mut Vec<u64>,
    ) -> Result<Subtree> {
        if len == node.len {
            return Ok(node);
        }
        if level == 0 {
            if self.shape.element_bytes == 0 {
                out.extend((len..node.len).map(|i| self.reader().word(node.child.offset + i * 8)));
            }
            // A copy without them, so that the room behind is room that no version has shown.
            let ours = self.own_leaf(Subtree { len, ..node })?;
            return Ok(self.leaf(ours, len));
        }
        let (index, before, _) = self.child_of(node, level, len - 1);
        let mut inner = self.read_inner(node, level);
        fell.extend(inner.children.drain(index as usize + 1..).map(|child| (child.child, level - 1, child.len)));
        let last = inner.children[index as usize];
        inner.children[index as usize] = self.truncate_at(last, level - 1, len - before, fell, out)?;
        self.write_inner(&inner, level, Some(node.child))
    }
}
