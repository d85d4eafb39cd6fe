//! The index of a dict, written: add, replace and remove one entry. The layout is `ipc::index`'s.
//!
//! Every change copies the nodes from the root down to the bucket, unless this commit bore them. A full bucket first grows,
//! then splits by one more bit of its level's hash bits, then hangs below a node of the next level, and when all levels are
//! used up becomes a collision leaf. Empty nodes go; nodes that have become sparse stay (their buckets shrink).

use crate::memory::Memory;
use commonhold_ipc::block::Entry;
use commonhold_ipc::error::Result;
use commonhold_ipc::index::inner_node;
use commonhold_ipc::index::{Bucket, CAPACITIES, Child, FAN_OUT, INNER_BYTES, KeyHash, LEVELS, capacity_limit, collisions, home};
use commonhold_ipc::index::{level_bits, slot_entry, slot_tag, slot_word, tag};
use commonhold_ipc::map::ArenaReader;

/// Index of the largest capacity that buckets get, 64 slots. Readers take larger ones as well; but a commit of one key copies its whole
/// bucket, and buckets of 128 slots made that twice as much, for no level less in dicts of most sizes.
const CLASS_MAX: u8 = 5;
const _: () = assert!(CAPACITIES[CLASS_MAX as usize] == 64);

/// Where a key is in an index, or where it would be.
pub struct Path {
    root: u64,
    nodes: [u64; LEVELS as usize],
    depth: u32,
    leaf: Child,
    /// Number of the slot that names the key's entry; or of the first empty one that it might have.
    slot: u64,
    /// The key's entry, or 0.
    entry: u64,
    hash: u64,
}

impl Path {
    /// The beginning of a way: see [`find`](Self::find).
    #[inline(always)]
    pub fn of(root: u64, hash: u64) -> Path {
        Path { root, nodes: [0; LEVELS as usize], depth: 0, leaf: Child::Empty, slot: 0, entry: 0, hash }
    }

    /// Looks a key up. Fills the path where it stands: a copy of what has just been read would wait for it.
    #[inline(always)]
    pub fn find(&mut self, reader: &ArenaReader, align: u8, key: &[u8]) {
        let mut word = self.root;
        while let Some(node) = inner_node(word) {
            self.nodes[self.depth as usize] = node;
            word = reader.word(node + level_bits(self.hash, self.depth) * 8);
            self.depth += 1;
        }
        self.leaf = Child::unpack(word);
        let is_it = |entry| Entry::read(reader, entry, align).has_key(reader, key);
        match self.leaf {
            Child::Bucket(bucket) => {
                let (capacity, tag) = (bucket.capacity(), tag(self.hash));
                let mut at = home(tag, capacity);
                loop {
                    let slot = reader.word(bucket.offset + at * 8);
                    if slot_tag(slot) == tag && slot != 0 && is_it(slot_entry(slot)) {
                        self.entry = slot_entry(slot);
                        break;
                    }
                    if slot == 0 {
                        break;
                    }
                    at = if at + 1 == capacity { 0 } else { at + 1 };
                }
                self.slot = at;
            }
            Child::Collision(leaf) => {
                let found = (0u64..).zip(collisions(reader, leaf)).find(|(_, entry)| is_it(*entry));
                (self.slot, self.entry) = found.unwrap_or_default();
            }
            Child::Empty | Child::Inner(_) => {}
        }
    }

    /// The block of the key's entry, if it is there.
    #[inline]
    pub fn entry(&self) -> Option<u64> {
        (self.entry != 0).then_some(self.entry)
    }

    /// Entries that the look-up went through one by one, because their hashes are the same.
    #[inline]
    pub fn collisions(&self, reader: &ArenaReader) -> u64 {
        if let Child::Collision(leaf) = self.leaf { reader.word(leaf) } else { 0 }
    }
}

/// One dict's index within a commit.
pub struct IndexWriter<'m> {
    /// The commit.
    pub memory: &'m mut Memory,
    /// The hash of keys.
    pub hash: &'m KeyHash,
    /// The dict's child word, changed here.
    pub root: u64,
    /// The dict's alignment of values.
    pub align: u8,
}

impl IndexWriter<'_> {
    /// Makes every node of the path ours to write. What this commit bore hangs below what it bore: so from below, the first
    /// node that is new tells that all above it are. Until there each is copied, and named by the one above.
    #[inline]
    fn own(&mut self, path: &mut Path) -> Result<()> {
        let (mut copy, all_old) = (0, !self.memory.has_new_nodes());
        for level in (0..path.depth).rev() {
            let node = &mut path.nodes[level as usize];
            let is_new = !all_old && self.memory.is_new(*node);
            if !is_new {
                *node = self.memory.copy(*node, INNER_BYTES)?;
            }
            let node = *node;
            if copy != 0 {
                self.memory.arena().store(node + level_bits(path.hash, level) * 8, Child::Inner(copy).pack());
            }
            if is_new {
                return Ok(());
            }
            copy = node;
        }
        if copy != 0 {
            self.root = Child::Inner(copy).pack();
        }
        Ok(())
    }

    /// Makes the leaf of a path ours to write, in a copy if need be. Returns the offset of its slots.
    #[inline]
    fn own_leaf(&mut self, path: &mut Path) -> Result<u64> {
        let (offset, before) = match path.leaf {
            Child::Bucket(bucket) => (bucket.offset, 0),
            Child::Collision(leaf) => (leaf, 8),
            Child::Empty | Child::Inner(_) => unreachable!("entries are in leaves"),
        };
        if self.memory.is_new(offset) {
            return Ok(offset + before);
        }
        self.own(path)?;
        let ours;
        path.leaf = match path.leaf {
            Child::Bucket(bucket) => {
                ours = self.memory.copy(offset, bucket.capacity() * 8)?;
                Child::Bucket(Bucket { offset: ours, ..bucket })
            }
            _ => {
                ours = self.memory.copy(offset, 8 + 8 * self.memory.reader().word(offset))?;
                Child::Collision(ours)
            }
        };
        self.link(path, path.depth, path.leaf);
        Ok(ours + before)
    }

    /// Makes `child` what stands at `level` of the path: in its parent's word, or in several if it is a bucket of less depth.
    fn link(&mut self, path: &Path, level: u32, child: Child) {
        let span = match child {
            Child::Bucket(bucket) if level > 0 => FAN_OUT >> bucket.depth,
            _ => 1,
        };
        self.fill(path, level, path.hash, span, child.pack());
    }

    /// Stores a child word into the `span` words around a hash's own at `level` of the path, or into the root.
    #[inline]
    fn fill(&mut self, path: &Path, level: u32, hash: u64, span: u64, word: u64) {
        if level == 0 {
            self.root = word;
            return;
        }
        let node = path.nodes[level as usize - 1];
        let first = level_bits(hash, level - 1) & !(span - 1);
        self.memory.arena().fill_words(node + first * 8, span, word);
    }

    fn new_bucket(&mut self, class: u8, depth: u8) -> Result<Bucket> {
        let bytes = CAPACITIES[usize::from(class)] * 8;
        let offset = self.memory.allocate(bytes)?;
        self.memory.arena().zero(offset, bytes);
        Ok(Bucket { offset, class, depth, count: 0 })
    }

    /// Puts a slot word into a bucket of ours that has room for it.
    fn put(&self, bucket: &mut Bucket, slot: u64) {
        let capacity = bucket.capacity();
        let mut at = home(slot_tag(slot), capacity);
        while self.memory.reader().word(bucket.offset + at * 8) != 0 {
            at = if at + 1 == capacity { 0 } else { at + 1 };
        }
        self.memory.arena().store(bucket.offset + at * 8, slot);
        bucket.count += 1;
    }

    fn slots(&self, bucket: &Bucket) -> Vec<u64> {
        (0..bucket.capacity()).map(|i| self.memory.reader().word(bucket.offset + i * 8)).filter(|slot| *slot != 0).collect()
    }

    /// A bucket with the slots of another, in the class that fits one more entry than it has.
    fn resized(&mut self, bucket: &Bucket, class: u8) -> Result<Bucket> {
        let mut larger = self.new_bucket(class, bucket.depth)?;
        for slot in self.slots(bucket) {
            self.put(&mut larger, slot);
        }
        self.memory.retire(bucket.offset);
        Ok(larger)
    }

    fn hash_of(&self, entry: u64) -> u64 {
        self.hash.of(Entry::read(self.memory.reader(), entry, self.align).key(self.memory.reader()))
    }

    /// Adds an entry whose key is not there.
    pub fn add(&mut self, path: &mut Path, entry: u64) -> Result<()> {
        let slot = slot_word(tag(path.hash), entry);
        if let Child::Bucket(bucket) = path.leaf
            && bucket.has_room()
        {
            let slots = self.own_leaf(path)?;
            self.memory.arena().store(slots + path.slot * 8, slot);
            self.link(path, path.depth, Child::Bucket(Bucket { offset: slots, count: bucket.count + 1, ..bucket }));
            return Ok(());
        }
        self.own(path)?;
        loop {
            match path.leaf {
                Child::Empty => {
                    // One word of its parent, or the root: a bucket of all six bits.
                    path.leaf = Child::Bucket(self.new_bucket(0, 6)?);
                }
                Child::Bucket(mut bucket) if bucket.has_room() => {
                    // Made just now, by one of the others here.
                    self.put(&mut bucket, slot);
                    self.link(path, path.depth, Child::Bucket(bucket));
                    return Ok(());
                }
                Child::Bucket(bucket) if bucket.class < CLASS_MAX => {
                    path.leaf = Child::Bucket(self.resized(&bucket, bucket.class + 1)?);
                }
                Child::Bucket(bucket) => self.split(path, &bucket)?,
                Child::Collision(leaf) => {
                    let leaf = self.add_collision(leaf, entry)?;
                    self.link(path, path.depth, Child::Collision(leaf));
                    return Ok(());
                }
                Child::Inner(_) => unreachable!("a path ends below the inner nodes"),
            }
        }
    }

    /// Makes room where a bucket of the largest class is full: afterwards `path.leaf` is what the hash belongs in.
    fn split(&mut self, path: &mut Path, bucket: &Bucket) -> Result<()> {
        if path.depth > 0 && bucket.depth < 6 {
            return self.halve(path, bucket);
        }
        if path.depth == LEVELS {
            return self.collide(path, bucket);
        }
        let node = self.memory.allocate(INNER_BYTES)?;
        self.link(path, path.depth, Child::Inner(node));
        path.nodes[path.depth as usize] = node;
        path.depth += 1;
        let below = Bucket { depth: 0, ..*bucket };
        self.link(path, path.depth, Child::Bucket(below));
        path.leaf = Child::Bucket(below);
        Ok(())
    }

    /// Two buckets of one more bit in place of one.
    fn halve(&mut self, path: &mut Path, bucket: &Bucket) -> Result<()> {
        let (level, hash) = (path.depth - 1, path.hash);
        let bit = 5 - bucket.depth;
        let mut halves: [Vec<u64>; 2] = Default::default();
        for slot in self.slots(bucket) {
            let upper = level_bits(self.hash_of(slot_entry(slot)), level) >> bit & 1;
            halves[upper as usize].push(slot);
        }
        let own_side = level_bits(hash, level) >> bit & 1;
        for (side, slots) in (0u64..).zip(halves) {
            // Any hash of that side will do to name its words in the parent.
            let hash = hash ^ (side ^ own_side) << (58 - 6 * level + u32::from(bit));
            let half = if slots.is_empty() {
                self.fill(path, path.depth, hash, FAN_OUT >> (bucket.depth + 1), 0);
                Child::Empty
            } else {
                // Room for one more, so that the entry that led here fits if it comes to this side.
                let fits = |class: &u8| capacity_limit(CAPACITIES[usize::from(*class)]) > slots.len() as u64;
                let class = (0..=CLASS_MAX).find(fits).unwrap_or(CLASS_MAX);
                let mut half = self.new_bucket(class, bucket.depth + 1)?;
                for slot in slots {
                    self.put(&mut half, slot);
                }
                self.fill(path, path.depth, hash, FAN_OUT >> half.depth, Child::Bucket(half).pack());
                Child::Bucket(half)
            };
            if side == own_side {
                path.leaf = half;
            }
        }
        self.memory.retire(bucket.offset);
        Ok(())
    }

    fn collide(&mut self, path: &mut Path, bucket: &Bucket) -> Result<()> {
        let slots = self.slots(bucket);
        let leaf = self.memory.allocate(8 + 8 * (slots.len() as u64 + 1))?;
        self.memory.arena().store(leaf, slots.len() as u64);
        for (i, slot) in (0u64..).zip(slots) {
            self.memory.arena().store(leaf + 8 + 8 * i, slot_entry(slot));
        }
        self.memory.retire(bucket.offset);
        path.leaf = Child::Collision(leaf);
        self.link(path, path.depth, path.leaf);
        Ok(())
    }

    fn add_collision(&mut self, leaf: u64, entry: u64) -> Result<u64> {
        let count = self.memory.reader().word(leaf);
        let needed = 8 + 8 * (count + 1);
        let ours = if self.memory.is_new(leaf) && self.memory.size_of(leaf) >= needed {
            leaf
        } else {
            // Half as much again, so that a run of additions in one commit copies little.
            let larger = self.memory.allocate(needed + needed / 2)?;
            self.memory.arena().copy_block(leaf, larger, 8 + 8 * count);
            self.memory.retire(leaf);
            larger
        };
        self.memory.arena().store(ours + 8 + 8 * count, entry);
        self.memory.arena().store(ours, count + 1);
        Ok(ours)
    }

    /// Puts a new entry in the place of one with the same key.
    #[inline]
    pub fn replace(&mut self, path: &mut Path, entry: u64) -> Result<()> {
        let slots = self.own_leaf(path)?;
        let word = if let Child::Bucket(_) = path.leaf { slot_word(tag(path.hash), entry) } else { entry };
        self.memory.arena().store(slots + path.slot * 8, word);
        Ok(())
    }

    /// Takes an entry out.
    pub fn remove(&mut self, path: &mut Path) -> Result<()> {
        let slots = self.own_leaf(path)?;
        let left = match path.leaf {
            Child::Bucket(bucket) => self.remove_from_bucket(bucket, path.slot)?,
            Child::Collision(leaf) => self.remove_collision(leaf, slots + path.slot * 8),
            Child::Empty | Child::Inner(_) => unreachable!("entries are in leaves"),
        };
        if left == Child::Empty {
            self.unlink(path);
        } else {
            self.link(path, path.depth, left);
        }
        Ok(())
    }

    /// Closes the gap that a removed slot leaves, so that every probe still ends where it should; shrinks a sparse bucket.
    fn remove_from_bucket(&mut self, mut bucket: Bucket, mut gap: u64) -> Result<Child> {
        bucket.count -= 1;
        if bucket.count == 0 {
            self.memory.retire(bucket.offset);
            return Ok(Child::Empty);
        }
        let capacity = bucket.capacity();
        let word = |at: u64| bucket.offset + at * 8;
        let mut at = gap;
        loop {
            at = if at + 1 == capacity { 0 } else { at + 1 };
            let slot = self.memory.reader().word(word(at));
            if slot == 0 {
                break;
            }
            // It may move back to the gap unless its home lies behind the gap, going around.
            let home = home(slot_tag(slot), capacity);
            let stays = if gap <= at { gap < home && home <= at } else { gap < home || home <= at };
            if !stays {
                self.memory.arena().store(word(gap), slot);
                gap = at;
            }
        }
        self.memory.arena().store(word(gap), 0);
        if bucket.class >= 2 && u64::from(bucket.count) < capacity_limit(CAPACITIES[usize::from(bucket.class) - 2]) {
            bucket = self.resized(&bucket, bucket.class - 1)?;
        }
        Ok(Child::Bucket(bucket))
    }

    fn remove_collision(&mut self, leaf: u64, at: u64) -> Child {
        let count = self.memory.reader().word(leaf) - 1;
        if count == 0 {
            self.memory.retire(leaf);
            return Child::Empty;
        }
        let last = self.memory.reader().word(leaf + 8 + 8 * count);
        self.memory.arena().store(at, last);
        self.memory.arena().store(leaf, count);
        Child::Collision(leaf)
    }

    /// Empties the words of the leaf that has gone, and takes out the nodes that have nothing left.
    fn unlink(&mut self, path: &Path) {
        let span = match path.leaf {
            Child::Bucket(bucket) if path.depth > 0 => FAN_OUT >> bucket.depth,
            _ => 1,
        };
        self.fill(path, path.depth, path.hash, span, 0);
        for level in (1..=path.depth).rev() {
            let node = path.nodes[level as usize - 1];
            if (0..FAN_OUT).any(|at| self.memory.reader().word(node + at * 8) != 0) {
                return;
            }
            self.memory.retire(node);
            self.fill(path, level - 1, path.hash, 1, 0);
        }
    }
}
