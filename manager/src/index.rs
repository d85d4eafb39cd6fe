//! The index of a dict, written: add, replace and remove one entry. The layout is `ipc::index`'s.
//!
//! Every change copies the nodes from the root down to the bucket, unless this commit bore them. A full bucket first grows,
//! then splits by one more bit of its level's hash bits, then hangs below a node of the next level, and when all levels are
//! used up becomes a collision leaf. Empty nodes go; nodes that have become sparse stay (their buckets shrink).

use crate::memory::Memory;
use commonhold_ipc::block::Entry;
use commonhold_ipc::error::Result;
use commonhold_ipc::index::{Bucket, CAPACITIES, Child, FAN_OUT, INNER_BYTES, KeyHash, LEVELS, capacity_limit, home, level_bits};
use commonhold_ipc::index::{slot_entry, slot_tag, slot_word, tag};

/// The inner nodes on the way to a hash, and what is below them.
struct Path {
    nodes: [u64; LEVELS as usize],
    depth: u32,
    leaf: Child,
}

/// One dict's index within a commit.
pub struct IndexWriter<'m> {
    /// The commit.
    pub memory: &'m mut Memory,
    /// The hash of keys.
    pub hash: &'m KeyHash,
    /// The dict's child word, changed in place.
    pub root: &'m mut u64,
    /// The dict's alignment of values.
    pub align: u8,
}

impl IndexWriter<'_> {
    fn descend(&self, hash: u64) -> Path {
        let mut path = Path { nodes: [0; LEVELS as usize], depth: 0, leaf: Child::unpack(*self.root) };
        while let Child::Inner(node) = path.leaf {
            path.nodes[path.depth as usize] = node;
            path.leaf = Child::unpack(self.memory.reader().word(node + level_bits(hash, path.depth) * 8));
            path.depth += 1;
        }
        path
    }

    /// Makes every node of the path ours to write.
    fn own(&mut self, path: &mut Path, hash: u64) -> Result<()> {
        for level in 0..path.depth {
            let node = path.nodes[level as usize];
            let ours = self.memory.writable(node, INNER_BYTES)?;
            if ours != node {
                path.nodes[level as usize] = ours;
                self.link(path, level, hash, Child::Inner(ours));
            }
        }
        Ok(())
    }

    /// Makes `child` what stands at `level` of the path: in its parent's word, or in several if it is a bucket of less depth.
    fn link(&mut self, path: &Path, level: u32, hash: u64, child: Child) {
        let span = match child {
            Child::Bucket(bucket) if level > 0 => FAN_OUT >> bucket.depth,
            _ => 1,
        };
        self.fill(path, level, hash, span, child.pack());
    }

    /// Stores a child word into the `span` words around a hash's own at `level` of the path, or into the root.
    fn fill(&mut self, path: &Path, level: u32, hash: u64, span: u64, word: u64) {
        if level == 0 {
            *self.root = word;
            return;
        }
        let node = path.nodes[level as usize - 1];
        let first = level_bits(hash, level - 1) & !(span - 1);
        for at in first..first + span {
            self.memory.arena().store(node + at * 8, word);
        }
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
    pub fn add(&mut self, hash: u64, entry: u64) -> Result<()> {
        let mut path = self.descend(hash);
        self.own(&mut path, hash)?;
        loop {
            match path.leaf {
                Child::Empty => {
                    // One word of its parent, or the root: a bucket of all six bits.
                    let mut bucket = self.new_bucket(0, 6)?;
                    self.put(&mut bucket, slot_word(tag(hash), entry));
                    self.link(&path, path.depth, hash, Child::Bucket(bucket));
                    return Ok(());
                }
                Child::Bucket(bucket) if u64::from(bucket.count) < capacity_limit(bucket.capacity()) => {
                    let offset = self.memory.writable(bucket.offset, bucket.capacity() * 8)?;
                    let mut bucket = Bucket { offset, ..bucket };
                    self.put(&mut bucket, slot_word(tag(hash), entry));
                    self.link(&path, path.depth, hash, Child::Bucket(bucket));
                    return Ok(());
                }
                Child::Bucket(bucket) if usize::from(bucket.class) + 1 < CAPACITIES.len() => {
                    path.leaf = Child::Bucket(self.resized(&bucket, bucket.class + 1)?);
                }
                Child::Bucket(bucket) => self.split(&mut path, hash, &bucket)?,
                Child::Collision(leaf) => {
                    let leaf = self.add_collision(leaf, entry)?;
                    self.link(&path, path.depth, hash, Child::Collision(leaf));
                    return Ok(());
                }
                Child::Inner(_) => unreachable!("a path ends below the inner nodes"),
            }
        }
    }

    /// Makes room where a bucket of the largest class is full: afterwards `path.leaf` is what the hash belongs in.
    fn split(&mut self, path: &mut Path, hash: u64, bucket: &Bucket) -> Result<()> {
        if path.depth > 0 && bucket.depth < 6 {
            return self.halve(path, hash, bucket);
        }
        if path.depth == LEVELS {
            return self.collide(path, hash, bucket);
        }
        let node = self.memory.allocate(INNER_BYTES)?;
        self.link(path, path.depth, hash, Child::Inner(node));
        path.nodes[path.depth as usize] = node;
        path.depth += 1;
        let below = Bucket { depth: 0, ..*bucket };
        self.link(path, path.depth, hash, Child::Bucket(below));
        path.leaf = Child::Bucket(below);
        Ok(())
    }

    /// Two buckets of one more bit in place of one.
    fn halve(&mut self, path: &mut Path, hash: u64, bucket: &Bucket) -> Result<()> {
        let level = path.depth - 1;
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
                let class = (0..CAPACITIES.len() as u8).find(fits).unwrap_or(CAPACITIES.len() as u8 - 1);
                let mut half = self.new_bucket(class, bucket.depth + 1)?;
                for slot in slots {
                    self.put(&mut half, slot);
                }
                self.link(path, path.depth, hash, Child::Bucket(half));
                Child::Bucket(half)
            };
            if side == own_side {
                path.leaf = half;
            }
        }
        self.memory.retire(bucket.offset);
        Ok(())
    }

    fn collide(&mut self, path: &mut Path, hash: u64, bucket: &Bucket) -> Result<()> {
        let slots = self.slots(bucket);
        let leaf = self.memory.allocate(8 + 8 * (slots.len() as u64 + 1))?;
        self.memory.arena().store(leaf, slots.len() as u64);
        for (i, slot) in (0u64..).zip(slots) {
            self.memory.arena().store(leaf + 8 + 8 * i, slot_entry(slot));
        }
        self.memory.retire(bucket.offset);
        path.leaf = Child::Collision(leaf);
        self.link(path, path.depth, hash, path.leaf);
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

    /// Offset of the word that names an entry, in a bucket or collision leaf that is ours; the leaf as it is then.
    fn own_slot(&mut self, path: &Path, hash: u64, entry: u64) -> Result<(u64, Child)> {
        let (leaf, words, first) = match path.leaf {
            Child::Bucket(bucket) => {
                let offset = self.memory.writable(bucket.offset, bucket.capacity() * 8)?;
                (Child::Bucket(Bucket { offset, ..bucket }), bucket.capacity(), offset)
            }
            Child::Collision(leaf) => {
                let count = self.memory.reader().word(leaf);
                let ours = self.memory.writable(leaf, 8 + 8 * count)?;
                (Child::Collision(ours), count, ours + 8)
            }
            Child::Empty | Child::Inner(_) => unreachable!("the entry is in the index"),
        };
        // In a bucket, from where its tag is at home; a collision leaf is looked through from the front.
        let start = match leaf {
            Child::Bucket(bucket) => home(tag(hash), bucket.capacity()),
            _ => 0,
        };
        let reader = self.memory.reader();
        let mut slots = (start..words).chain(0..start).map(|i| first + i * 8);
        let slot = slots.find(|at| slot_entry(reader.word(*at)) == entry);
        Ok((slot.expect("the entry is in the index"), leaf))
    }

    /// Puts a new entry in the place of one with the same key.
    pub fn replace(&mut self, hash: u64, old: u64, new: u64) -> Result<()> {
        let mut path = self.descend(hash);
        self.own(&mut path, hash)?;
        let (at, leaf) = self.own_slot(&path, hash, old)?;
        let word = match leaf {
            Child::Collision(_) => new,
            _ => slot_word(tag(hash), new),
        };
        self.memory.arena().store(at, word);
        if leaf != path.leaf {
            self.link(&path, path.depth, hash, leaf);
        }
        Ok(())
    }

    /// Takes an entry out.
    pub fn remove(&mut self, hash: u64, entry: u64) -> Result<()> {
        let mut path = self.descend(hash);
        self.own(&mut path, hash)?;
        let (at, leaf) = self.own_slot(&path, hash, entry)?;
        let left = match leaf {
            Child::Bucket(bucket) => self.remove_from_bucket(bucket, (at - bucket.offset) / 8)?,
            Child::Collision(leaf) => self.remove_collision(leaf, at),
            Child::Empty | Child::Inner(_) => unreachable!("entries are in leaves"),
        };
        if left == Child::Empty {
            self.unlink(&path, hash);
        } else {
            self.link(&path, path.depth, hash, left);
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
    fn unlink(&mut self, path: &Path, hash: u64) {
        let span = match path.leaf {
            Child::Bucket(bucket) if path.depth > 0 => FAN_OUT >> bucket.depth,
            _ => 1,
        };
        self.fill(path, path.depth, hash, span, 0);
        for level in (1..=path.depth).rev() {
            let node = path.nodes[level as usize - 1];
            if (0..FAN_OUT).any(|at| self.memory.reader().word(node + at * 8) != 0) {
                return;
            }
            self.memory.retire(node);
            self.fill(path, level - 1, hash, 1, 0);
        }
    }
}
