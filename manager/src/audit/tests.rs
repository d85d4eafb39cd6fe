//! Canaries: each damages a sound store in one place, and the audit must say so.

use super::*;
use crate::upload::Uploads;
use commonhold_ipc::map::ArenaWriter;
use commonhold_ipc::wire::commit::{Commit, CommitWriter, END, Op, Values};
use commonhold_ipc::wire::{NewObject, Payload, Reader, Source, Words};
use std::sync::Arc;

const ARENA_BYTES: u64 = 64 << 20;

/// A store with one object of each form, and their ids.
struct Sound {
    store: Store,
    small: u64,
    large: u64,
    colliding: u64,
    grown: u64,
    relaxed: u64,
    blocks: u64,
    value: u64,
    counter: u64,
}

fn apply(store: &mut Store, ops: &[Op<'_>]) {
    let mut writer = CommitWriter::default();
    ops.iter().for_each(|op| writer.op(op));
    let mut bytes = Vec::new();
    writer.write(&mut bytes);
    let commit = Commit::parse(&mut Reader::new(&bytes)).unwrap();
    store.apply(&commit, &mut Uploads::default(), None).unwrap();
}

fn insert(store: &mut Store, object: u64, key: u64, handles: &[u64]) {
    let handles: Vec<u8> = handles.iter().flat_map(|handle| handle.to_le_bytes()).collect();
    let value = Payload { source: Source::Inline(&[7; 40]), handles: Words::new(&handles).unwrap() };
    apply(store, &[Op::Insert { object, key: &key.to_le_bytes(), value, only_if_absent: false, lend: false }]);
}

fn push(store: &mut Store, object: u64, position: u64, bytes: &[u8]) {
    apply(store, &[Op::ListSplice { object, position, remove: 0, values: Values::Packed(bytes) }]);
}

fn empty_store(mask: u64) -> Store {
    let file = commonhold_ipc::sys::memfd_sealed("audit", ARENA_BYTES).unwrap();
    Store::new(Arc::new(ArenaWriter::map(file, ARENA_BYTES).unwrap()), ARENA_BYTES, 1, 2, mask)
}

fn sound_with(mask: u64) -> Sound {
    let mut store = empty_store(mask);
    let mut create = |kind: Kind, element_bytes| {
        let new =
            NewObject { kind: kind as u8, value_align: 8, element_bytes, fingerprint: 9, text: "a type", parameters: Words::default() };
        store.create(&new).unwrap()
    };
    let (small, large, colliding) = (create(Kind::Dict, 0), create(Kind::Dict, 0), create(Kind::Dict, 0));
    let (grown, relaxed, blocks) = (create(Kind::List, 8), create(Kind::List, 256), create(Kind::List, 0));
    let (value, counter) = (create(Kind::Value, 0), create(Kind::Counter, 0));
    (0..3).for_each(|key| insert(&mut store, small, key, &[]));
    (0..400).for_each(|key| insert(&mut store, large, key, &[]));
    (0..120).for_each(|key| insert(&mut store, colliding, key, &[]));
    insert(&mut store, small, 9, &[value, value, counter]);
    push(&mut store, grown, END, &[1; 8 * 600]);
    push(&mut store, relaxed, END, &[1; 256 * 30]);
    push(&mut store, relaxed, 3, &[2; 256]);
    let mut each = Vec::new();
    (0..5).for_each(|_| Payload::inline(&[3; 20]).write(&mut each));
    apply(&mut store, &[Op::ValueSet { object: value, value: Payload::inline(&[4; 10]) }]);
    apply(&mut store, &[Op::CounterAdd { object: counter, delta: 5 }]);
    // The last one that changes: the others are in the catalog.
    apply(&mut store, &[Op::ListSplice { object: blocks, position: END, remove: 0, values: Values::Each(5, &each) }]);
    store.name("value", value, false).unwrap();
    assert_eq!(store.audit(std::iter::empty()), Ok(()));
    // Nothing may wait, so that the canaries are told apart from what was retired.
    store.reclaim(&mut Vec::new());
    assert_eq!(store.audit(std::iter::empty()), Ok(()));
    Sound { store, small, large, colliding, grown, relaxed, blocks, value, counter }
}

impl Sound {
    fn record(&self, id: u64) -> Record {
        self.store.objects.get(id).unwrap().record
    }

    fn word(&self, at: u64) -> u64 {
        self.store.reader().word(at)
    }

    fn set(&self, at: u64, word: u64) {
        self.store.memory.arena().store(at, word);
    }

    fn bucket(&self, id: u64) -> Bucket {
        match index::Child::unpack(self.record(id).root) {
            index::Child::Bucket(bucket) => bucket,
            other => panic!("object {id} has {other:?} at its root"),
        }
    }

    /// Offset of the first taken slot of a dict that is one bucket, and its word.
    fn slot(&self, id: u64) -> (u64, u64) {
        let bucket = self.bucket(id);
        let taken = (0..bucket.capacity()).map(|i| bucket.offset + i * 8).find(|at| self.word(*at) != 0).unwrap();
        (taken, self.word(taken))
    }

    /// Changes an object's working record and its catalog's likewise.
    fn alter(&mut self, id: u64, change: impl FnOnce(&mut Record)) {
        change(&mut self.store.objects.get_mut(id).unwrap().record);
        let words = self.record(id).words();
        if self.store.root.latest[0] == id {
            self.store.root.latest = words;
            return arena::write_root(self.store.memory.arena(), &self.store.root);
        }
        let at = catalog::record_offset(self.store.reader(), self.store.root(), slot_of(id));
        (0u64..).zip(words).for_each(|(i, word)| self.set(at + i * 8, word));
    }

    fn first_element(&self, id: u64) -> u64 {
        let slot = sequence::slot(self.store.reader(), &self.record(id), 0).unwrap();
        self.word(slot)
    }
}

/// Damages a sound store, and expects the audit to say something with these words.
#[track_caller]
fn canary(words: &str, damage: impl FnOnce(&mut Sound)) {
    canary_with(u64::MAX, words, damage);
}

#[track_caller]
fn canary_with(mask: u64, words: &str, damage: impl FnOnce(&mut Sound)) {
    let mut sound = sound_with(mask);
    damage(&mut sound);
    let wrong = sound.store.audit(std::iter::empty()).expect_err("the audit has noticed nothing");
    assert!(wrong.contains(words), "the audit was to say {words:?}, and said: {wrong}");
}

#[test]
fn blocks_lost_freed_or_named_twice_are_noticed() {
    canary("is lost", |s| {
        s.store.memory.allocate(64).unwrap();
    });
    canary("no allocated block starts there", |s| {
        let (_, slot) = s.slot(s.small);
        s.store.memory.discard(slot_entry(slot));
    });
    canary("named twice", |s| {
        let (_, slot) = s.slot(s.small);
        s.store.memory.retire_value(slot_entry(slot));
    });
    canary("named twice", |s| {
        let element = s.first_element(s.blocks);
        let slot = sequence::slot(s.store.reader(), &s.record(s.blocks), 1).unwrap();
        s.set(slot, element);
    });
    canary("named twice", |s| {
        let element = s.first_element(s.blocks);
        s.store.demolition.push(s.blocks, Piece::Element(element));
    });
    let mut sound = sound_with(u64::MAX);
    let upload = sound.store.memory.allocate(100).unwrap();
    assert_eq!(sound.store.audit([upload].into_iter()), Ok(()));
    assert!(sound.store.audit([upload, upload].into_iter()).unwrap_err().contains("named twice"));
    assert!(sound.store.audit([upload + 8].into_iter()).unwrap_err().contains("no allocated block"));
}

#[test]
fn a_wrong_catalog_is_noticed() {
    let leaf_of = |s: &Sound, id| catalog::record_offset(s.store.reader(), s.store.root(), slot_of(id));
    canary("working record", |s| s.set(leaf_of(s, s.counter) + 8, 6));
    canary("is in slot", |s| s.set(leaf_of(s, s.counter), s.value));
    canary("which is gone", |s| s.set(leaf_of(s, s.counter), s.counter + (1 << catalog::SLOT_BITS)));
    canary("records: there are", |s| s.set(leaf_of(s, s.value), 0));
    canary("of the catalog at", |s| s.set(leaf_of(s, s.counter), 0));
    canary("the ring says", |s| s.store.root.latest[2] += 1);
    canary("the root's latest record says", |s| {
        s.store.root.latest[2] += 1;
        arena::write_root(s.store.memory.arena(), &s.store.root);
    });
    canary("changed in", |s| s.alter(s.counter, |record| record.modified = 1 << 40));
    canary("the descriptor", |s| {
        let at = s.record(s.counter).descriptor + 8;
        s.set(at, 1 << 60);
    });
    canary("a counter, says", |s| s.alter(s.counter, |record| record.len = 1));
    canary("bytes: its value has", |s| s.alter(s.value, |record| record.len += 1));
}

#[test]
fn a_wrong_index_is_noticed() {
    canary("has the tag", |s| {
        let (at, slot) = s.slot(s.small);
        s.set(at, slot ^ 1 << 48);
    });
    canary("bucket at", |s| {
        let (at, _) = s.slot(s.small);
        s.set(at, 0);
    });
    canary("is empty, so slot", |s| {
        let ((at, slot), bucket) = (s.slot(s.small), s.bucket(s.small));
        let home = home(slot_tag(slot), bucket.capacity());
        // Beyond all the others: something between its home and there is empty.
        let away = (0..bucket.capacity()).map(|i| (home + bucket.capacity() - 1 - i) % bucket.capacity());
        let free = away.map(|i| bucket.offset + i * 8).find(|at| s.word(*at) == 0).unwrap();
        s.set(at, 0);
        s.set(free, slot);
    });
    canary("entries: its index has", |s| s.alter(s.small, |record| record.len += 1));
    canary("insertion number", |s| s.alter(s.small, |record| record.next_insertion = 3));
    canary("twice", |s| {
        let bucket = s.bucket(s.small);
        for i in 0..bucket.capacity() {
            let entry = slot_entry(s.word(bucket.offset + i * 8));
            if entry != 0 && s.word(entry) == 1 {
                s.set(entry, 0);
            }
        }
    });
    // Another key: neither its tag nor its place is right any more.
    canary("object", |s| {
        let (_, slot) = s.slot(s.small);
        s.set(slot_entry(slot) + HEAD_BYTES, 1 << 50);
    });
    canary("needs", |s| {
        let (_, slot) = s.slot(s.small);
        s.set(slot_entry(slot) + 8, 8 | 4000 << 32);
    });
    canary("words", |s| {
        let index::Child::Inner(node) = index::Child::unpack(s.record(s.large).root) else { panic!("400 entries in one bucket") };
        let at = (0..64).map(|i| node + i * 8).find(|at| s.word(*at) == s.word(at + 8)).unwrap();
        s.set(at, 0);
    });
    canary("its place is for", |s| {
        let index::Child::Inner(node) = index::Child::unpack(s.record(s.large).root) else { panic!("400 entries in one bucket") };
        // Both halves of the node exchanged.
        let words: Vec<u64> = (0..64).map(|i| s.word(node + i * 8)).collect();
        (0..64).for_each(|i| s.set(node + i * 8, words[(i as usize + 32) % 64]));
    });
    canary_with(0, "is empty", |s| {
        let mut child = index::Child::unpack(s.record(s.colliding).root);
        while let index::Child::Inner(node) = child {
            child = index::Child::unpack(s.word(node));
        }
        let index::Child::Collision(leaf) = child else { panic!("120 keys of one hash are in {child:?}") };
        s.set(leaf, 0);
    });
}

#[test]
fn a_wrong_sequence_is_noticed() {
    canary("regular sequence node", |s| s.alter(s.grown, |record| record.len += 600));
    canary("bytes: its block has", |s| s.alter(s.blocks, |record| record.len = 40));
    canary("ends at", |s| s.alter(s.relaxed, |record| record.len += 1));
    canary("relaxed sequence node", |s| {
        let node = sequence::Child::unpack(s.record(s.relaxed).root);
        assert!(!node.regular);
        s.set(node.offset + INNER_BYTES, 0);
    });
    canary("sequence node", |s| {
        s.alter(s.relaxed, |record| {
            let node = sequence::Child::unpack(record.root);
            record.root = sequence::Child { regular: true, ..node }.pack();
        });
    });
    canary("inner levels", |s| s.alter(s.grown, |record| record.height = 9));
    canary("named as an inner node", |s| s.alter(s.grown, |record| (record.height, record.len) = (0, 250)));
    canary("a list of 0 elements", |s| s.alter(s.grown, |record| record.len = 0));
    canary("an element", |s| {
        let element = s.first_element(s.blocks);
        s.set(element, 5000);
    });
}

#[test]
fn wrong_references_are_noticed() {
    canary("refer to", |s| {
        let (small, value) = (s.small, s.value);
        s.store.objects.settle([(small, value, 1)].into_iter());
    });
    canary("its own count is", |s| {
        let value = s.value;
        s.store.objects.settle([(0, value, 1)].into_iter());
    });
    canary("which is gone", |s| {
        let gone = s.counter + (1 << catalog::SLOT_BITS);
        s.store.names.insert("ghost".to_owned(), gone);
    });
    canary("names at least", |s| {
        let counter = s.counter;
        s.store.names.insert("a".to_owned(), counter);
        s.store.names.insert("b".to_owned(), counter);
    });
}

#[test]
fn pieces_of_living_objects_keep_their_references_and_others_do_not() {
    let mut sound = sound_with(u64::MAX);
    let (small, value) = (sound.small, sound.value);
    apply(&mut sound.store, &[Op::Clear { object: small }]);
    assert_eq!(sound.store.audit(std::iter::empty()), Ok(()));
    assert_eq!(sound.store.objects.get(value).unwrap().inside(), 2);
    sound.store.release(small);
    while sound.store.rest() {
        assert_eq!(sound.store.audit(std::iter::empty()), Ok(()));
    }
    assert_eq!(sound.store.objects.get(value).unwrap().inside(), 0);
    assert_eq!(sound.store.audit(std::iter::empty()), Ok(()));
}
