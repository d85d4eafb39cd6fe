//! The index of a dict, read: a trie over the key's hash with open-addressing buckets at its leaves.
//!
//! ```text
//! hash, 64 bits:  | level 0: 6 | level 1: 6 | … | level 7: 6 | tag: 16 |
//! ```
//! A *child word* names a part of the index: an offset in its low 48 bits, what is there in the 16 above.
//!
//! | bits above the offset | what |
//! |---|---|
//! | 0–1 | 0 nothing, 1 bucket, 2 inner node, 3 collision leaf |
//! | 2–4 | bucket: its capacity, as an index in [`CAPACITIES`] |
//! | 5–7 | bucket: how many of its level's 6 hash bits it has to itself (*depth*) |
//! | 8–15 | bucket: number of its entries |
//!
//! - **Inner node**: 64 child words, by the 6 bits of its level. A bucket of depth *d* stands in 2^(6−d) of them.
//! - **Bucket**: as many slots as its capacity, of which the manager makes none above 64: tag of the hash in the 16 upper bits, offset of
//!   the entry in the 48 lower ones, 0 if empty. An entry's home is its tag scaled to the capacity; from there, the next free slot, around
//!   the end. At most 7/8 are taken, so that every probe ends at an empty slot.
//! - **Collision leaf**, below level 7: number of entries, then their offsets. Only keys whose upper 48 bits of hash are equal.
//!
//! The root is a child word too, so a small dict is one bucket. Everything here is immutable once published; the writing
//! side is `manager::index`.

use crate::block::{self, Entry, Place};
use crate::map::ArenaReader;

/// Levels of the trie.
pub const LEVELS: u32 = 8;
/// Child words of an inner node.
pub const FAN_OUT: u64 = 64;
/// Bytes of an inner node.
pub const INNER_BYTES: u64 = FAN_OUT * 8;
/// Slots that a bucket can have.
pub const CAPACITIES: [u64; 8] = [8, 16, 24, 32, 48, 64, 96, 128];
const OFFSET_MASK: u64 = (1 << 48) - 1;
/// What a child word names.
const BUCKET: u64 = 1;
const INNER: u64 = 2;
/// Entries that an iteration fetches ahead.
const FETCH_AHEAD: usize = 16;
/// Entries of which an iteration knows the offsets: those that are fetched, and a bucket's behind them. A power of two.
const KNOWN_AHEAD: usize = 128;
/// Slots that are looked at together: all capacities are multiples of it.
const SLOTS_AT_ONCE: usize = 8;
/// Most slots that are looked at before one of their entries is returned.
const SLOTS_MAX: u64 = 64;
const _: () = assert!(FETCH_AHEAD + SLOTS_MAX as usize <= KNOWN_AHEAD);

/// Most entries of a bucket with this many slots.
#[inline]
pub fn capacity_limit(capacity: u64) -> u64 {
    capacity / 8 * 7
}

/// What a child word names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child {
    /// Nothing.
    Empty,
    /// A bucket.
    Bucket(Bucket),
    /// An inner node, at this offset.
    Inner(u64),
    /// A collision leaf, at this offset.
    Collision(u64),
}

/// A bucket's word, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Where its slots are.
    pub offset: u64,
    /// Index of its capacity.
    pub class: u8,
    /// Hash bits of its level that it has to itself.
    pub depth: u8,
    /// Number of its entries.
    pub count: u8,
}

impl Bucket {
    /// Number of its slots.
    #[inline]
    pub fn capacity(&self) -> u64 {
        CAPACITIES[usize::from(self.class & 7)]
    }

    /// Whether one more entry fits.
    #[inline]
    pub fn has_room(&self) -> bool {
        u64::from(self.count) < capacity_limit(self.capacity())
    }
}

impl Child {
    /// Unpacks a child word.
    #[inline(always)]
    pub fn unpack(word: u64) -> Child {
        let offset = word & OFFSET_MASK;
        match (word >> 48) & 3 {
            1 => Child::Bucket(Bucket { offset, class: (word >> 50) as u8 & 7, depth: (word >> 53) as u8 & 7, count: (word >> 56) as u8 }),
            2 => Child::Inner(offset),
            3 => Child::Collision(offset),
            _ => Child::Empty,
        }
    }

    /// Packs it again.
    #[inline]
    pub fn pack(self) -> u64 {
        match self {
            Child::Empty => 0,
            Child::Bucket(b) => b.offset | 1 << 48 | u64::from(b.class) << 50 | u64::from(b.depth) << 53 | u64::from(b.count) << 56,
            Child::Inner(offset) => offset | 2 << 48,
            Child::Collision(offset) => offset | 3 << 48,
        }
    }
}

/// The inner node that a child word names, if it names one.
#[inline(always)]
pub fn inner_node(word: u64) -> Option<u64> {
    ((word >> 48) & 3 == 2).then_some(word & OFFSET_MASK)
}

/// The hash of keys: rapidhash v3, whose results are documented to be stable, with the arena's seed.
#[derive(Clone, Copy)]
pub struct KeyHash {
    secrets: rapidhash::v3::RapidSecrets,
    mask: u64,
}

impl KeyHash {
    /// The hash of an arena. `mask` is all ones; tests clear bits of it to make keys collide.
    pub fn new(seed: u64, mask: u64) -> Self {
        KeyHash { secrets: rapidhash::v3::RapidSecrets::seed(seed), mask }
    }

    /// The hash of a key's archive of eight bytes: the most common one, which needs no loop and no memory.
    #[inline(always)]
    pub fn of_word(&self, key: u64) -> u64 {
        self.of(&key.to_le_bytes())
    }

    /// The hash of a key's archive.
    #[inline]
    pub fn of(&self, key: &[u8]) -> u64 {
        rapidhash::v3::rapidhash_v3_seeded(key, &self.secrets) & self.mask
    }
}

/// The hash bits of a level.
#[inline(always)]
pub fn level_bits(hash: u64, level: u32) -> u64 {
    (hash >> (58 - 6 * level)) & (FAN_OUT - 1)
}

/// The tag of a hash.
#[inline(always)]
pub fn tag(hash: u64) -> u64 {
    hash & 0xffff
}

/// Where probing for a tag begins in a bucket of this capacity.
#[inline(always)]
pub fn home(tag: u64, capacity: u64) -> u64 {
    (tag * capacity) >> 16
}

/// The entry of a slot word.
#[inline(always)]
pub fn slot_entry(slot: u64) -> u64 {
    slot & OFFSET_MASK
}

/// The tag of a slot word.
#[inline(always)]
pub fn slot_tag(slot: u64) -> u64 {
    slot >> 48
}

/// A slot word of a tag and an entry.
#[inline(always)]
pub fn slot_word(tag: u64, entry: u64) -> u64 {
    tag << 48 | entry
}

/// The entry of a key in the index that starts at a child word of a pinned version.
pub fn find(arena: &ArenaReader, root: u64, align: u8, key: &[u8], hash: u64) -> Option<Entry> {
    find_in_leaf(arena, leaf_of(arena, root, hash), align, hash, |entry| entry.has_key(arena, key))
}

/// Slots from the home slot on in which a key mostly is: half of a cache line.
const NEAR: usize = 4;

/// Where the value of a key of eight bytes lies: the way of almost every read. It has few instructions, so that the cache misses of several
/// reads overlap, and no branch that depends on which of the near slots it is: processors guess such a one wrong every second time.
#[inline(always)]
pub fn find_word(arena: &ArenaReader, root: u64, align: u8, key: u64, hash: u64) -> Option<Place> {
    let leaf = leaf_of(arena, root, hash);
    let capacity = CAPACITIES[(leaf >> 50) as usize & 7];
    let tag = tag(hash);
    let home = home(tag, capacity);
    if (leaf >> 48) & 3 == BUCKET && home + NEAR as u64 <= capacity {
        let slots: [u64; NEAR] = arena.words((leaf & OFFSET_MASK) + home * 8);
        // The first of those with this tag. It may be an empty one, for the tag 0: then there is nothing behind it.
        let slot = slots.iter().rev().fold(0, |found, slot| if slot_tag(*slot) == tag { *slot } else { found });
        if slot != 0
            && let Some(place) = block::small_value_of(arena, slot_entry(slot), align, key)
        {
            return Some(place);
        }
    }
    find_word_anywhere(arena, leaf, align, key, hash)
}

/// The same below a leaf's child word, wherever in it, and however large its value is.
#[inline(never)]
fn find_word_anywhere(arena: &ArenaReader, leaf: u64, align: u8, key: u64, hash: u64) -> Option<Place> {
    find_in_leaf(arena, leaf, align, hash, |entry| entry.has_key_word(arena, key)).map(|entry| entry.value_place(arena))
}

/// The child word of the leaf in which a hash is, if it is anywhere. Child words are taken apart by hand here: this is the way of every read.
#[inline(always)]
fn leaf_of(arena: &ArenaReader, root: u64, hash: u64) -> u64 {
    let mut word = root;
    for level in 0..LEVELS {
        if (word >> 48) & 3 != INNER {
            break;
        }
        word = arena.word((word & OFFSET_MASK) + level_bits(hash, level) * 8);
    }
    word
}

#[inline(always)]
fn find_in_leaf(arena: &ArenaReader, word: u64, align: u8, hash: u64, is_it: impl Fn(&Entry) -> bool) -> Option<Entry> {
    if (word >> 48) & 3 == BUCKET {
        let capacity = CAPACITIES[(word >> 50) as usize & 7];
        return find_in_bucket(arena, word & OFFSET_MASK, capacity, align, tag(hash), is_it);
    }
    let Child::Collision(leaf) = Child::unpack(word) else { return None };
    collisions(arena, leaf).map(|block| Entry::read(arena, block, align)).find(is_it)
}

/// A look-up that will come some operations later, and whose memory is fetched ahead of it.
#[derive(Clone, Copy)]
pub struct Fetch {
    bucket: u64,
    capacity: u64,
    tag: u64,
}

impl Fetch {
    /// Fetches the place in a bucket where a hash will be looked for.
    #[inline]
    pub fn bucket(arena: &ArenaReader, root: u64, hash: u64) -> Option<Fetch> {
        let mut word = root;
        for level in 0..=LEVELS {
            let offset = word & OFFSET_MASK;
            match (word >> 48) & 3 {
                1 => {
                    let (capacity, tag) = (CAPACITIES[(word >> 50) as usize & 7], tag(hash));
                    arena.prefetch(offset + home(tag, capacity) * 8);
                    return Some(Fetch { bucket: offset, capacity, tag });
                }
                2 if level < LEVELS => word = arena.word(offset + level_bits(hash, level) * 8),
                _ => return None,
            }
        }
        None
    }

    /// Fetches the entry that will be found there.
    #[inline]
    pub fn entry(&self, arena: &ArenaReader) {
        for at in home(self.tag, self.capacity)..self.capacity {
            let slot = arena.word(self.bucket + at * 8);
            if slot == 0 {
                return;
            }
            if slot_tag(slot) == self.tag {
                return arena.prefetch(slot_entry(slot));
            }
        }
    }
}

#[inline(always)]
fn find_in_bucket(arena: &ArenaReader, bucket: u64, capacity: u64, align: u8, tag: u64, is_it: impl Fn(&Entry) -> bool) -> Option<Entry> {
    let end = bucket + capacity * 8;
    let mut at = bucket + home(tag, capacity) * 8;
    // A published bucket has an empty slot; the bound is for damaged ones.
    for _ in 0..capacity {
        let slot = arena.word(at);
        if slot == 0 {
            return None;
        }
        if slot_tag(slot) == tag {
            let entry = Entry::read(arena, slot_entry(slot), align);
            if is_it(&entry) {
                return Some(entry);
            }
        }
        at += 8;
        if at == end {
            at = bucket;
        }
    }
    None
}

/// Offsets of the entries of a collision leaf.
pub fn collisions<'a>(arena: &'a ArenaReader, leaf: u64) -> impl Iterator<Item = u64> + 'a {
    // (More than an arena has room for: its words are damaged.)
    (0..arena.word(leaf).min(arena.len() / 8)).map(move |i| arena.word(leaf + 8 + 8 * i))
}

/// All entries, in hash order: a walk with a fixed stack, some entries ahead of what it returns. The entries lie anywhere, so
/// each is fetched some entries before it is used.
#[derive(Clone)]
pub struct Entries {
    arena: ArenaReader,
    align: u8,
    /// Offsets of the next entries, in a ring.
    known: [u64; KNOWN_AHEAD],
    /// The next entry to return, and the one behind the last that is known; in the ring at their remainders.
    first: usize,
    behind: usize,
    /// The leaf that is being walked: offset of its next word, and of its end.
    next: u64,
    end: u64,
    /// Inner nodes on the way: offset, next child.
    path: [(u64, u8); LEVELS as usize],
    depth: usize,
    /// Child words that may be looked at yet: all that an arena has room for. Damaged ones could lead in circles.
    left: u64,
}

impl Entries {
    /// A walk over the index at a child word of a pinned version.
    pub fn new(arena: &ArenaReader, root: u64, align: u8) -> Self {
        let (path, known) = ([(0, 0); LEVELS as usize], [0; KNOWN_AHEAD]);
        let left = arena.len() / 8;
        let mut walk = Entries { arena: arena.clone(), align, known, first: 0, behind: 0, next: 0, end: 0, path, depth: 0, left };
        walk.enter(Child::unpack(root));
        walk.look_ahead();
        walk.known[..FETCH_AHEAD].iter().for_each(|entry| walk.fetch(*entry));
        walk
    }

    fn enter(&mut self, child: Child) {
        match child {
            Child::Empty => {}
            Child::Inner(node) if self.depth < LEVELS as usize => {
                self.path[self.depth] = (node, 0);
                self.depth += 1;
            }
            Child::Inner(_) => {}
            Child::Bucket(bucket) => (self.next, self.end) = (bucket.offset, bucket.offset + bucket.capacity() * 8),
            Child::Collision(leaf) => {
                let entries = self.arena.word(leaf).min(self.arena.len() / 8);
                (self.next, self.end) = (leaf + 8, leaf + 8 + entries * 8);
            }
        }
    }

    /// The next leaf below the innermost node of the path that has any left.
    #[inline(never)]
    fn advance(&mut self) -> bool {
        while self.depth > 0 && self.left > 0 {
            let (node, child) = self.path[self.depth - 1];
            if u64::from(child) == FAN_OUT {
                self.depth -= 1;
                continue;
            }
            self.left -= 1;
            let child_word = Child::unpack(self.arena.word(node + u64::from(child) * 8));
            // A bucket stands in several child words side by side: step over all of them.
            let step = match child_word {
                Child::Bucket(bucket) => 64 >> bucket.depth.min(6),
                _ => 1,
            };
            let after = (child + step).min(FAN_OUT as u8);
            self.path[self.depth - 1].1 = after;
            if u64::from(after) < FAN_OUT {
                self.fetch_leaf(self.arena.word(node + u64::from(after) * 8));
            }
            self.enter(child_word);
            if self.next < self.end {
                return true;
            }
        }
        false
    }

    /// Fetches the slots of the bucket after the one that is being entered.
    fn fetch_leaf(&self, word: u64) {
        if let Child::Bucket(bucket) = Child::unpack(word) {
            (0..bucket.capacity() / 8).for_each(|line| self.arena.prefetch(bucket.offset + line * 64));
        }
    }

    /// Finds more entries than are fetched ahead, unless there are no more.
    #[inline(never)]
    fn look_ahead(&mut self) {
        while self.behind - self.first <= FETCH_AHEAD && (self.next < self.end || self.advance()) {
            let end = self.end.min(self.next + SLOTS_MAX * 8);
            while self.next + SLOTS_AT_ONCE as u64 * 8 <= end {
                for slot in self.arena.words::<SLOTS_AT_ONCE>(self.next) {
                    self.add(slot);
                }
                self.next += SLOTS_AT_ONCE as u64 * 8;
            }
            while self.next < end {
                self.add(self.arena.word(self.next));
                self.next += 8;
            }
        }
    }

    /// Adds the entry of a slot, or nothing: without a branch, since it can be either.
    #[inline(always)]
    fn add(&mut self, slot: u64) {
        self.known[self.behind % KNOWN_AHEAD] = slot_entry(slot);
        self.behind += usize::from(slot_entry(slot) != 0);
    }

    /// Most small entries begin in one cache line and end in the next.
    #[inline(always)]
    fn fetch(&self, entry: u64) {
        self.arena.prefetch(entry);
        self.arena.prefetch(entry + 64);
    }
}

impl Iterator for Entries {
    type Item = Entry;

    #[inline]
    fn next(&mut self) -> Option<Entry> {
        if self.behind - self.first <= FETCH_AHEAD {
            self.look_ahead();
            if self.first == self.behind {
                return None;
            }
        }
        // Behind the last there is nothing to fetch, or an old one.
        self.fetch(self.known[(self.first + FETCH_AHEAD) % KNOWN_AHEAD]);
        let entry = self.known[self.first % KNOWN_AHEAD];
        self.first += 1;
        Some(Entry::read(&self.arena, entry, self.align))
    }
}
