//! The way of almost every read, [`index::find_word`], which looks at some slots at once, finds what [`index::find`] finds, one by one.

mod world;

use commonhold_ipc::arena;
use commonhold_ipc::catalog::{self, Kind};
use commonhold_ipc::index::{self, Bucket, Child, FAN_OUT};
use commonhold_ipc::map::ArenaWriter;
use commonhold_ipc::sys::memfd_sealed;
use world::{World, insert, payload};

const KEYS: u64 = 1500;

/// Looks up each of the keys, and as many that are not there, by both ways.
fn look_up(world: &World, object: u64, there: u64) -> u64 {
    let root = arena::root_of(&world.reader, world.store.version()).unwrap();
    let record = catalog::find(&world.reader, &root, object).unwrap();
    let mut found = 0;
    for number in 0..there + KEYS {
        let key = key(number);
        let hash = world.hash.of(&key.to_le_bytes());
        assert_eq!(hash, world.hash.of_word(key));
        let entry = index::find(&world.reader, record.root, record.value_align, &key.to_le_bytes(), hash);
        let place = index::find_word(&world.reader, record.root, record.value_align, key, hash);
        assert_eq!(place, entry.map(|entry| entry.value_place(&world.reader)), "key {number}");
        assert_eq!(place.is_some(), number < there);
        found += place.map_or(0, |place| place.len);
    }
    found
}

fn key(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Every seventh of them large, as entries know it, and every third empty.
fn value_bytes(number: u64) -> usize {
    match number {
        number if number.is_multiple_of(7) => 4096,
        number if number.is_multiple_of(3) => 0,
        number => number as usize % 100,
    }
}

#[test]
fn a_key_of_eight_bytes_is_found_wherever_in_a_leaf_it_is() {
    let value = [7; 4096];
    // All bits of the hash; few tags; the tag 0 for all, which an empty slot has too; one path for all, down to collision leaves.
    for mask in [u64::MAX, 0xffff_ffff_ffff_0003, 0xffff_ffff_ffff_0000, 0xffff, 0x3f << 46 | 7] {
        for align in [8, 16] {
            let mut world = World::new(128 << 20, 128 << 20, mask);
            let object = world.create(Kind::Dict, 0, align);
            // Where leaves are as long as there are keys, fewer of them.
            let keys = if mask.count_ones() > 20 { KEYS } else { 300 };
            let mut bytes = 0;
            for number in 0..keys {
                let len = value_bytes(number);
                world.apply(&[insert(object, &key(number).to_le_bytes(), payload(&value[..len], &[]))]).unwrap();
                world.store.publish();
                bytes += len as u64;
                if number < 70 || number % 100 == 99 {
                    assert_eq!(look_up(&world, object, number + 1), bytes, "mask {mask:#x}, align {align}");
                }
            }
            world.audit();
        }
    }
}

/// Whoever damages an arena's words finds a reader that ends, with nothing or with what is there.
#[test]
fn damaged_words_end_a_look_up_and_a_walk() {
    let world = World::new(4 << 20, 4 << 20, u64::MAX);
    let len = world.reader.len();
    let arena = ArenaWriter::map(memfd_sealed("damaged", len).unwrap(), len).unwrap();
    arena.back(0..len).unwrap();
    // An inner node all of whose children it is itself.
    let node = 64 << 10;
    arena.fill_words(node, FAN_OUT, Child::Inner(node).pack());
    assert_eq!(index::Entries::new(arena.reader(), Child::Inner(node).pack(), 8).count(), 0);
    assert_eq!(index::find_word(arena.reader(), Child::Inner(node).pack(), 8, 7, 0), None);
    // A collision leaf of more entries than there can be; they read as zeros, and are none.
    arena.store(node, u64::MAX);
    assert_eq!(index::Entries::new(arena.reader(), Child::Collision(node).pack(), 8).count(), FAN_OUT as usize - 1);
    assert_eq!(index::find_word(arena.reader(), Child::Collision(node).pack(), 8, 7, 0), None);
    // A bucket behind the arena's end.
    let bucket = Child::Bucket(Bucket { offset: len + 64, class: 7, depth: 0, count: 9 });
    assert_eq!(
        (index::Entries::new(arena.reader(), bucket.pack(), 8).count(), index::find_word(arena.reader(), bucket.pack(), 8, 7, 0)),
        (0, None)
    );
}
