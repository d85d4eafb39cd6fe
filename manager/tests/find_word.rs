//! The way of almost every read, [`index::find_word`], which looks at some slots at once, finds what [`index::find`] finds, one by one.

mod world;

use commonhold_ipc::arena;
use commonhold_ipc::catalog::{self, Kind};
use commonhold_ipc::index;
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
