//! The audit: walks everything that a store has, and says what is wrong with it first.
//!
//! It proves, for the newest published version and the private books beside it:
//! - Every block of the allocator has exactly one owner: a node of the catalog, a descriptor, a part of an object, a piece
//!   that waits for demolition, the list of retired blocks, or an upload. None is named twice, none is lost, and each has the
//!   room that its contents claim.
//! - An entry is where its hash says; counts, spans, insertion numbers and lengths are right; no node is empty.
//! - A sequence has one depth, its ends add up, and a regular node is one.
//! - The catalog says what the working records say.
//! - References that are listed with values are what the objects' counts say, names hold living objects.
//!
//! Walks keep their own stack, and end: a block is entered once, so links in a circle are found as a block named twice.

use crate::demolition::Piece;
use crate::pipes;
use crate::store::Store;
use commonhold_ipc::arena;
use commonhold_ipc::block::{Entry, HEAD_BYTES, LARGE_VALUE_BYTES, element_bytes, element_handles, element_place};
use commonhold_ipc::catalog::{self, DESCRIPTOR_HEAD, Kind, LEAF_RECORDS, NODE_BYTES, RECORD_BYTES, Record, Root, slot_of};
use commonhold_ipc::index::{self, Bucket, LEVELS, capacity_limit, home, slot_entry, slot_tag, tag};
use commonhold_ipc::limits::{HANDLES_PER_VALUE_MAX, OBJECTS_MAX};
use commonhold_ipc::map::ArenaReader;
use commonhold_ipc::sequence::{self, HEIGHT_MAX, INNER_BYTES, leaf_bits, stride};
use std::collections::{HashMap, HashSet};
use std::fmt;

#[cfg(test)]
mod tests;

/// Most inner levels of a catalog: 28 bits of slot less 3 of the leaf, 6 a level.
const CATALOG_HEIGHT_MAX: u32 = 5;

/// Who has a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    what: &'static str,
    /// 0 if it belongs to no object.
    object: u64,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.object == 0 { f.write_str(self.what) } else { write!(f, "{} of object {}", self.what, self.object) }
    }
}

struct Block {
    size: u64,
    born: u64,
    owner: Option<Owner>,
}

/// Part of a dict's index that is still to be walked: what is there, below how many levels, for which hashes.
#[derive(Clone, Copy)]
struct Part {
    child: index::Child,
    level: u32,
    first: u64,
    last: u64,
}

/// Part of a list's sequence that is still to be walked.
#[derive(Clone, Copy)]
struct Subtree {
    node: sequence::Child,
    level: u32,
    len: u64,
}

/// The dict or the piece of one that is being walked.
struct Dict {
    object: u64,
    align: u8,
    /// The child word that every entry must be found from; none for a piece, whose place is no longer known.
    root: Option<u64>,
    insertions: Vec<u64>,
}

/// How a list's elements lie.
#[derive(Clone, Copy)]
struct Elements {
    object: u64,
    bytes: u32,
    /// Whether the elements' own blocks belong to the walk.
    own: bool,
}

/// The state of one audit.
struct Audit<'s> {
    store: &'s Store,
    blocks: HashMap<u64, Block>,
    /// References found in values: from → to → how many.
    edges: HashMap<u64, HashMap<u64, u64>>,
}

type Checked<T = ()> = Result<T, String>;

fn ensure(holds: bool, wrong: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(wrong()) }
}

impl Store {
    /// Checks every invariant; publishes first what has not been. `uploads` are the blocks of values that have arrived, or are
    /// about to, and that no operation has used yet.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong: which object, which block, and what.
    pub fn audit(&mut self, uploads: impl Iterator<Item = u64>) -> Result<(), String> {
        self.publish();
        self.memory.check()?;
        let memory = &self.memory;
        let blocks = memory.all_blocks().map(|(offset, size, born)| (offset, Block { size, born, owner: None })).collect();
        let mut audit = Audit { store: self, blocks, edges: HashMap::new() };
        for offset in memory.all_retired() {
            audit.claim(offset, 0, "a retired block", 0)?;
        }
        for offset in uploads {
            audit.claim(offset, 0, "an upload", 0)?;
        }
        audit.catalog()?;
        for object in self.objects.iter() {
            audit.object(&object.record)?;
        }
        for (object, piece) in self.demolition.pieces() {
            audit.piece(object, piece)?;
        }
        audit.edges_of_parcels();
        audit.nothing_lost()?;
        audit.references()?;
        audit.names()
    }
}

impl<'s> Audit<'s> {
    fn reader(&self) -> &'s ArenaReader {
        self.store.memory.reader()
    }

    /// Takes note that a block belongs to somebody and holds `bytes` bytes.
    fn claim(&mut self, offset: u64, bytes: u64, what: &'static str, object: u64) -> Checked {
        let owner = Owner { what, object };
        let version = self.store.version();
        let block = self.blocks.get_mut(&offset).ok_or_else(|| format!("{owner} at {offset:#x}: no allocated block starts there"))?;
        if let Some(other) = block.owner.replace(owner) {
            return Err(format!("the block at {offset:#x} is named twice: as {other} and as {owner}"));
        }
        ensure(bytes <= block.size, || format!("{owner} at {offset:#x} needs {bytes} bytes: its block has {}", block.size))?;
        let upload = object == 0;
        ensure(block.born <= version + u64::from(upload), || {
            format!("{owner} at {offset:#x} was born in version {}, after the newest, {version}", block.born)
        })
    }

    /// Sees that a block that has been claimed has room for what has turned out to be in it.
    fn holds(&self, offset: u64, bytes: u64, what: &'static str, object: u64) -> Checked {
        let size = self.blocks.get(&offset).map_or(0, |block| block.size);
        ensure(bytes <= size, || format!("{what} of object {object} at {offset:#x} needs {bytes} bytes: its block has {size}"))
    }

    fn nothing_lost(&self) -> Checked {
        let lost = self.blocks.iter().filter(|(_, block)| block.owner.is_none()).min_by_key(|(offset, _)| **offset);
        match lost {
            None => Ok(()),
            Some((offset, block)) => {
                Err(format!("the block at {offset:#x}, of {} bytes, born in version {}, is lost: nothing names it", block.size, block.born))
            }
        }
    }

    /// The catalog's nodes, and that its records are the working ones.
    fn catalog(&mut self) -> Checked {
        let (root, reader) = (*self.store.root(), self.reader());
        let objects = &self.store.objects;
        ensure(root.objects == objects.len(), || format!("the root says {} objects: there are {}", root.objects, objects.len()))?;
        ensure(root.height <= CATALOG_HEIGHT_MAX, || format!("the catalog has {} levels", root.height))?;
        ensure(root.catalog != 0 || root.height == 0, || format!("an empty catalog has {} levels", root.height))?;
        let written = arena::root_of(reader, root.version);
        ensure(written == Some(root), || format!("the ring says {written:?}, the root is {root:?}"))?;
        self.latest(&root)?;
        let mut records = 0;
        let mut parts = if root.catalog == 0 { vec![] } else { vec![(root.catalog, root.height, 0)] };
        while let Some((node, level, first_slot)) = parts.pop() {
            self.claim(node, NODE_BYTES, if level == 0 { "a leaf of the catalog" } else { "an inner node of the catalog" }, 0)?;
            if level == 0 {
                records += self.catalog_leaf(node, first_slot, root.latest[0])?;
                continue;
            }
            let children = (0..catalog::FAN_OUT).map(|i| (i, reader.word(node + i * 8))).filter(|(_, child)| *child != 0);
            let before = parts.len();
            parts.extend(children.map(|(i, child)| (child, level - 1, first_slot + i * catalog::slots_of_height(level - 1))));
            ensure(parts.len() > before, || format!("the inner node of the catalog at {node:#x} is empty"))?;
        }
        ensure(records == objects.len(), || format!("the catalog has {records} records: there are {} objects", objects.len()))
    }

    /// The record that counts in place of the catalog's, if there is one.
    fn latest(&self, root: &Root) -> Checked {
        let [id, ..] = root.latest;
        if id == 0 { Ok(()) } else { self.same_record(id, Record::of_words(root.latest), "the root's latest record") }
    }

    /// The records of a leaf. Returns how many there are. The latest object's may be an old one.
    fn catalog_leaf(&self, leaf: u64, first_slot: u64, latest: u64) -> Checked<u64> {
        let mut records = 0;
        for i in 0..LEAF_RECORDS {
            let (at, slot) = (leaf + i * RECORD_BYTES, first_slot + i);
            let id = self.reader().word(at);
            if id == 0 {
                continue;
            }
            ensure(slot_of(id) == slot, || format!("the record of object {id} is in slot {slot} of the catalog"))?;
            records += 1;
            if id != latest {
                self.same_record(id, Record::read(self.reader(), at), "the catalog")?;
            }
        }
        ensure(records > 0, || format!("the leaf of the catalog at {leaf:#x} is empty"))?;
        Ok(records)
    }

    /// A published record is the working one.
    fn same_record(&self, id: u64, record: Option<Record>, place: &str) -> Checked {
        let object = self.store.objects.get(id);
        let object = object.ok_or_else(|| format!("{place} has a record of object {id}, which is gone"))?;
        ensure(!object.dirty, || format!("object {id} counts as changed, after publishing"))?;
        ensure(record == Some(object.record), || format!("object {id}: {place} says {record:?}, the working record is {:?}", object.record))
    }

    /// An object's descriptor and contents.
    fn object(&mut self, record: &Record) -> Checked {
        let (id, version) = (record.id, self.store.version());
        ensure(id != 0 && slot_of(id) < OBJECTS_MAX, || format!("an object has the id {id}"))?;
        ensure(record.created <= record.modified && record.modified <= version, || {
            format!("object {id} was made in version {}, changed in {}; the newest is {version}", record.created, record.modified)
        })?;
        self.claim(record.descriptor, DESCRIPTOR_HEAD, "the descriptor", id)?;
        let text = self.reader().word(record.descriptor + 8);
        self.holds(record.descriptor, DESCRIPTOR_HEAD.saturating_add(text), "the descriptor", id)?;
        catalog::descriptor(self.reader(), record).map_err(|error| error.to_string())?;
        match record.kind {
            Kind::Dict | Kind::Namespace => self.dict(record),
            Kind::List => self.list(record),
            Kind::Value if record.root == 0 => ensure(record.len == 0, || format!("object {id}, empty, says {} bytes", record.len)),
            Kind::Value => {
                self.element(record.root, id)?;
                let len = element_place(self.reader(), record.root).len;
                ensure(len == record.len, || format!("object {id} says {} bytes: its value has {len}", record.len))
            }
            Kind::PipeEnd => {
                pipes::queues(record).for_each(|queue| *self.edges.entry(id).or_default().entry(queue).or_default() += 1);
                ensure(record.len == 0, || format!("object {id}, an end of a pipe, says {} elements", record.len))
            }
            Kind::Remote => ensure(record.root != 0 && record.len == 0, || format!("object {id} has no host, or contents here")),
            Kind::Counter => ensure(record.len == 0, || format!("object {id}, a counter, says {} elements", record.len)),
            kind => {
                ensure(self.store.segments.has(id), || format!("object {id}, a {}, has no segment", kind.name()))?;
                if record.root != 0 {
                    *self.edges.entry(id).or_default().entry(record.root).or_default() += 1;
                }
                let elements = self.store.segments.elements(id);
                ensure(record.len == elements, || {
                    format!("object {id}, a {}, says {} elements: it has {elements}", kind.name(), record.len)
                })
            }
        }
    }

    fn piece(&mut self, object: u64, piece: Piece) -> Checked {
        match piece {
            Piece::Block(block) => self.claim(block, 0, "a descriptor to be freed", object),
            Piece::Element(block) => self.element(block, object),
            Piece::Index(word, align) => {
                let mut dict = Dict { object, align, root: None, insertions: Vec::new() };
                self.index(&mut dict, word)
            }
            Piece::Sequence(node, level, len, bytes, own) => self.sequence(Elements { object, bytes, own }, Subtree { node, level, len }),
        }
    }

    fn edges_of_parcels(&mut self) {
        for (queue, id) in self.store.parcels.references() {
            *self.edges.entry(queue).or_default().entry(id).or_default() += 1;
        }
    }

    fn refer(&mut self, from: u64, handles: Vec<u64>) {
        // References of an object that is gone have fallen with it, before its blocks.
        if self.store.objects.get(from).is_some() {
            for to in handles {
                *self.edges.entry(from).or_default().entry(to).or_default() += 1;
            }
        }
    }

    fn dict(&mut self, record: &Record) -> Checked {
        let id = record.id;
        let mut dict = Dict { object: id, align: record.value_align, root: Some(record.root), insertions: Vec::new() };
        self.index(&mut dict, record.root)?;
        let (found, len) = (dict.insertions.len() as u64, record.len);
        ensure(found == len, || format!("object {id} says {len} entries: its index has {found}"))?;
        dict.insertions.sort_unstable();
        if let Some(last) = dict.insertions.last() {
            ensure(*last < record.next_insertion, || {
                format!("object {id} has an entry with insertion number {last}, its next one is {}", record.next_insertion)
            })?;
        }
        let twice = dict.insertions.windows(2).find(|pair| pair[0] == pair[1]);
        ensure(twice.is_none(), || format!("object {id} has the insertion number {} twice", twice.unwrap_or_default()[0]))
    }

    /// Walks an index from a child word.
    fn index(&mut self, dict: &mut Dict, root: u64) -> Checked {
        let (reader, id) = (self.reader(), dict.object);
        let mut parts = vec![Part { child: index::Child::unpack(root), level: 0, first: 0, last: u64::MAX }];
        while let Some(part) = parts.pop() {
            match part.child {
                index::Child::Empty => {
                    ensure(root == 0, || format!("object {id}: the child word {root:#x} of its index names nothing, but is not 0"))?;
                }
                index::Child::Bucket(bucket) => self.bucket(dict, &bucket, &part)?,
                index::Child::Collision(leaf) => {
                    ensure(part.level == LEVELS || dict.root.is_none(), || {
                        format!("object {id}: the collision leaf at {leaf:#x} hangs below {} levels", part.level)
                    })?;
                    self.claim(leaf, 8, "a collision leaf", id)?;
                    let count = reader.word(leaf);
                    ensure(count > 0, || format!("object {id}: the collision leaf at {leaf:#x} is empty"))?;
                    self.holds(leaf, count.saturating_mul(8).saturating_add(8), "a collision leaf", id)?;
                    for entry in index::collisions(reader, leaf) {
                        self.entry(dict, entry, &part, None)?;
                    }
                }
                index::Child::Inner(node) => {
                    ensure(part.level < LEVELS, || format!("object {id}: the index node at {node:#x} is too deep"))?;
                    self.claim(node, index::INNER_BYTES, "an index node", id)?;
                    let before = parts.len();
                    self.index_children(id, node, &part, &mut parts)?;
                    ensure(parts.len() > before, || format!("object {id}: the index node at {node:#x} is empty"))?;
                }
            }
        }
        Ok(())
    }

    /// The children of an index node, each once, and that a bucket stands in exactly the words that are its own.
    fn index_children(&self, id: u64, node: u64, part: &Part, parts: &mut Vec<Part>) -> Checked {
        let shift = 58 - 6 * part.level;
        let mut at = 0;
        while at < index::FAN_OUT {
            let word = self.reader().word(node + at * 8);
            let child = index::Child::unpack(word);
            let span = match child {
                index::Child::Bucket(bucket) if bucket.depth <= 6 => index::FAN_OUT >> bucket.depth,
                _ => 1,
            };
            let whole = at % span == 0 && (at..at + span).all(|i| self.reader().word(node + i * 8) == word);
            ensure(whole && (word == 0) == (child == index::Child::Empty), || {
                format!("object {id}: child {at} of the index node at {node:#x} is {word:#x}, which does not stand in its {span} words")
            })?;
            if word != 0 {
                let first = part.first + (at << shift);
                parts.push(Part { child, level: part.level + 1, first, last: first + ((span << shift) - 1) });
            }
            at += span;
        }
        Ok(())
    }

    fn bucket(&mut self, dict: &mut Dict, bucket: &Bucket, part: &Part) -> Checked {
        let (reader, id, offset, capacity) = (self.reader(), dict.object, bucket.offset, bucket.capacity());
        self.claim(offset, capacity * 8, "a bucket", id)?;
        let slots: Vec<u64> = (0..capacity).map(|i| reader.word(offset + i * 8)).collect();
        let taken = slots.iter().filter(|slot| **slot != 0).count() as u64;
        ensure(taken == u64::from(bucket.count) && taken > 0 && taken <= capacity_limit(capacity), || {
            format!("object {id}: the bucket at {offset:#x} says {} entries, and has {taken} in {capacity} slots", bucket.count)
        })?;
        for (at, &slot) in (0u64..).zip(&slots).filter(|(_, slot)| **slot != 0) {
            let mut probe = home(slot_tag(slot), capacity);
            while probe != at {
                ensure(slots[probe as usize] != 0, || {
                    format!("object {id}: slot {probe} of the bucket at {offset:#x} is empty, so slot {at} is not found")
                })?;
                probe = (probe + 1) % capacity;
            }
            self.entry(dict, slot_entry(slot), part, Some(slot_tag(slot)))?;
        }
        Ok(())
    }

    /// An entry: its block, that its hash is one of its part's and has the tag of its slot, and that a reader finds it.
    fn entry(&mut self, dict: &mut Dict, at: u64, part: &Part, slot_tag: Option<u64>) -> Checked {
        let (reader, id) = (self.reader(), dict.object);
        self.claim(at, HEAD_BYTES, "an entry", id)?;
        let entry = Entry::read(reader, at, dict.align);
        let (key, value) = (entry.key_place(), entry.value_place(reader));
        self.holds(at, value.offset - at + value.len, "an entry", id)?;
        ensure((key.offset > at + HEAD_BYTES) == (value.len >= LARGE_VALUE_BYTES), || {
            format!("object {id}: the entry at {at:#x}, with a value of {} bytes, has a head of {} bytes", value.len, key.offset - at)
        })?;
        ensure(at.is_multiple_of(dict.align.max(8).into()) && value.birth <= self.store.version(), || {
            format!("object {id}: the entry at {at:#x} is not aligned to {}, or born in version {}", dict.align, value.birth)
        })?;
        let shape = entry.shape(reader);
        ensure(shape.handles <= HANDLES_PER_VALUE_MAX as u64, || {
            format!("object {id}: the entry at {at:#x} says {} handles", shape.handles)
        })?;
        self.holds(at, shape.bytes(), "an entry", id)?;
        self.refer(id, entry.handles(reader));
        dict.insertions.push(entry.insertion());
        let key = entry.key(reader);
        let hash = self.store.hash.of(key);
        ensure(slot_tag.is_none_or(|slot_tag| slot_tag == tag(hash)), || {
            format!("object {id}: the slot of the entry at {at:#x} has the tag {:#x}, not {:#x}", slot_tag.unwrap_or_default(), tag(hash))
        })?;
        if let Some(root) = dict.root {
            ensure((part.first..=part.last).contains(&hash), || {
                format!("object {id}: the entry at {at:#x} has the hash {hash:#x}, its place is for {:#x} to {:#x}", part.first, part.last)
            })?;
            let found = index::find(reader, root, dict.align, key, hash).map(|found| found.block);
            ensure(found == Some(at), || {
                format!("object {id}: looking for the key of the entry at {at:#x} finds {:#x}", found.unwrap_or_default())
            })?;
        }
        Ok(())
    }

    fn list(&mut self, record: &Record) -> Checked {
        let (id, len, height) = (record.id, record.len, record.height);
        ensure((len == 0) == (record.root == 0) && (len > 0 || height == 0), || {
            format!("object {id}, a list of {len} elements, has {height} inner levels and the root {:#x}", record.root)
        })?;
        ensure(height <= HEIGHT_MAX, || format!("object {id}, a list, has {height} inner levels"))?;
        if len == 0 {
            return Ok(());
        }
        let subtree = Subtree { node: sequence::Child::unpack(record.root), level: height.into(), len };
        self.sequence(Elements { object: id, bytes: record.element_bytes, own: true }, subtree)
    }

    /// Walks a sequence from a node.
    fn sequence(&mut self, elements: Elements, subtree: Subtree) -> Checked {
        let id = elements.object;
        let mut parts = vec![subtree];
        while let Some(part) = parts.pop() {
            let (at, full) = (part.node.offset, 1u64 << (leaf_bits(elements.bytes) + 6 * part.level));
            ensure((1..=full).contains(&part.len), || {
                format!("object {id}: the sequence node at {at:#x}, with {} levels below, says {} elements", part.level, part.len)
            })?;
            if part.level == 0 {
                self.sequence_leaf(elements, &part)?;
            } else {
                self.sequence_children(elements, &part, &mut parts)?;
            }
        }
        Ok(())
    }

    fn sequence_leaf(&mut self, elements: Elements, leaf: &Subtree) -> Checked {
        let (id, at) = (elements.object, leaf.node.offset);
        ensure(leaf.node.count == 0 && !leaf.node.regular, || format!("object {id}: the leaf at {at:#x} is named as an inner node"))?;
        self.claim(at, leaf.len * stride(elements.bytes), "a leaf", id)?;
        if elements.bytes == 0 && elements.own {
            for i in 0..leaf.len {
                self.element(self.reader().word(at + i * 8), id)?;
            }
        }
        Ok(())
    }

    fn sequence_children(&mut self, elements: Elements, part: &Subtree, parts: &mut Vec<Subtree>) -> Checked {
        let (reader, id, node) = (self.reader(), elements.object, part.node);
        let (at, count, full) = (node.offset, node.count, 1u64 << (leaf_bits(elements.bytes) + 6 * (part.level - 1)));
        ensure((1..=sequence::FAN_OUT).contains(&count), || format!("object {id}: the sequence node at {at:#x} has {count} children"))?;
        self.claim(at, if node.regular { INNER_BYTES } else { 2 * INNER_BYTES }, "a sequence node", id)?;
        let mut start = 0;
        for i in 0..count {
            let end = match (node.regular, i + 1 == count) {
                (true, true) => part.len,
                (true, false) => (i + 1) * full,
                (false, _) => reader.word(at + INNER_BYTES + i * 8),
            };
            ensure(start < end && end - start <= full && end <= part.len, || {
                let form = if node.regular { "regular" } else { "relaxed" };
                format!(
                    "object {id}: child {i} of the {form} sequence node at {at:#x}, of {} elements, has those from {start} to {end}",
                    part.len
                )
            })?;
            parts.push(Subtree { node: sequence::Child::unpack(reader.word(at + i * 8)), level: part.level - 1, len: end - start });
            start = end;
        }
        ensure(start == part.len, || format!("object {id}: the sequence node at {at:#x} ends at {start} of {} elements", part.len))
    }

    /// The block of an element or a value.
    fn element(&mut self, at: u64, object: u64) -> Checked {
        let reader = self.reader();
        self.claim(at, HEAD_BYTES, "an element", object)?;
        let (place, handles) = (element_place(reader, at), reader.word(at) >> 32);
        ensure(handles <= HANDLES_PER_VALUE_MAX as u64, || format!("object {object}: the element at {at:#x} says {handles} handles"))?;
        self.holds(at, element_bytes(place.len, handles), "an element", object)?;
        ensure(at.is_multiple_of(16) && place.birth <= self.store.version(), || {
            format!("object {object}: the element at {at:#x} is not aligned, or says it was born in version {}", place.birth)
        })?;
        self.refer(object, element_handles(reader, at));
        Ok(())
    }

    /// What the values refer to is what the objects' counts say; and whatever can be reached is there.
    fn references(&self) -> Checked {
        let objects = &self.store.objects;
        let (mut inside, none) = (HashMap::<u64, u64>::new(), HashMap::new());
        for object in objects.iter() {
            let (id, found) = (object.record.id, self.edges.get(&object.record.id).unwrap_or(&none));
            ensure(found == object.edges(), || {
                format!("object {id}: its values refer to {found:?}, its count of references is {:?}", object.edges())
            })?;
            found.iter().for_each(|(to, count)| *inside.entry(*to).or_default() += count);
        }
        for object in objects.iter() {
            let (id, found) = (object.record.id, inside.get(&object.record.id).copied().unwrap_or_default());
            ensure(found == object.inside(), || format!("object {id}: {found} values refer to it, its own count is {}", object.inside()))?;
        }
        let mut next: Vec<u64> = objects.iter().filter(|object| object.held() > 0).map(|object| object.record.id).collect();
        let mut reached = HashSet::new();
        while let Some(id) = next.pop() {
            let object = objects.get(id).ok_or_else(|| format!("object {id} is gone, but referred to by one that is held"))?;
            if reached.insert(id) {
                next.extend(object.edges().keys());
            }
        }
        Ok(())
    }

    fn names(&self) -> Checked {
        let mut names = HashMap::<u64, u64>::new();
        for (name, id) in self.store.names() {
            let object = self.store.objects.get(id).ok_or_else(|| format!("the name {name:?} is that of object {id}, which is gone"))?;
            let count = names.entry(id).or_default();
            *count += 1;
            ensure(*count <= object.held(), || format!("object {id} has {count} names at least, and is held {} times", object.held()))?;
        }
        Ok(())
    }
}
