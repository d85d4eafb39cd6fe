//! What a million entries and a million elements cost, and that nothing of them stays. Fewer where the program is not optimised.

mod world;

use commonhold_ipc::catalog::{self, Kind};
use commonhold_ipc::index;
use commonhold_ipc::sequence;
use commonhold_ipc::wire::Payload;
use commonhold_ipc::wire::commit::{END, Op, Values};
use world::{World, insert};

const COUNT: u64 = if cfg!(debug_assertions) { 200_000 } else { 1_000_000 };
const ARENA_BYTES: u64 = 1 << 30;
/// Requests that come together.
const GROUP: u64 = 64;

/// Bytes of an entry with a key of 8 bytes and a value of 64: a block of 88, and its share of the index. That grows and
/// shrinks as the tree gets deeper: 99 bytes in all at a hundred thousand entries, most at 280,000, 99 again at ten million.
const ENTRY_BYTES_MAX: u64 = 106;

fn value_of(number: u64) -> [u8; 64] {
    let mut value = [0; 64];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value[56..].copy_from_slice(&(!number).to_le_bytes());
    value
}

fn together(world: &mut World, number: u64) {
    if number.is_multiple_of(GROUP) {
        world.store.publish();
        world.reclaim(std::iter::empty());
    }
}

/// Rests slice by slice until all is taken apart. Returns the number of slices.
fn take_apart(world: &mut World) -> u64 {
    let mut slices = 1;
    while world.store.rest() {
        slices += 1;
    }
    world.reclaim(std::iter::empty());
    slices
}

#[test]
fn a_large_dict_costs_little_and_goes_whole() {
    fill_and_clear(COUNT, ARENA_BYTES);
}

#[test]
#[ignore = "a minute and a half when optimised: `.ci/night` runs it"]
fn ten_million_entries_cost_no_more_each() {
    fill_and_clear(10_000_000, 2 * ARENA_BYTES);
}

/// Fills a dict and takes it apart, twice; each entry costs so much and no more on the way.
fn fill_and_clear(count: u64, arena_bytes: u64) {
    let mut world = World::new(arena_bytes, arena_bytes, u64::MAX);
    let dict = world.create(Kind::Dict, 0, 8);
    world.store.publish();
    let base = world.allocated_bytes();
    for round in 0..2 {
        for number in 0..count {
            world.apply(&[insert(dict, &number.to_le_bytes(), Payload::inline(&value_of(number)))]).unwrap();
            together(&mut world, number);
            let entries = number + 1;
            if entries >= 100_000 && entries.is_multiple_of(20_000) {
                world.store.publish();
                world.reclaim(std::iter::empty());
                let bytes = world.allocated_bytes() - base;
                assert!(bytes <= entries * ENTRY_BYTES_MAX, "{entries} entries take {bytes} bytes, {} each", bytes / entries);
            }
        }
        world.store.publish();
        let record = catalog::find(&world.reader, world.store.root(), dict).unwrap();
        assert_eq!(record.len, count);
        for number in (0..count).step_by(97) {
            let key = number.to_le_bytes();
            let entry = index::find(&world.reader, record.root, 8, &key, world.hash.of(&key)).unwrap();
            let place = entry.value_place(&world.reader);
            assert_eq!(world.reader.bytes(place.offset, place.len), value_of(number));
        }
        assert_eq!(index::Entries::new(&world.reader, record.root, 8).count() as u64, count);
        if round == 0 {
            world.audit();
        }
        let snapshot = world.store.version();
        world.apply(&[Op::Clear { object: dict }]).unwrap();
        let slices = take_apart(&mut world);
        assert!(slices > count / 10_000, "{count} entries were taken apart in {slices} slices: too long for one of them");
        // All of it was visible until now, so all of it is free only now that nobody reads it.
        assert!(snapshot < world.store.version());
        world.audit();
        assert_eq!(world.allocated_bytes(), base);
    }
}

#[test]
fn removing_a_large_dict_key_by_key_leaves_nothing() {
    let count = COUNT / 4;
    let mut world = World::new(ARENA_BYTES, ARENA_BYTES, u64::MAX);
    let dict = world.create(Kind::Dict, 0, 8);
    world.store.publish();
    let base = world.allocated_bytes();
    for number in 0..count {
        world.apply(&[insert(dict, &number.to_le_bytes(), Payload::inline(b"some value"))]).unwrap();
        together(&mut world, number);
    }
    for number in 0..count {
        world.apply(&[Op::Remove { object: dict, key: &(number * 7919 % count).to_le_bytes(), lend: false }]).unwrap();
        together(&mut world, number);
    }
    world.audit();
    take_apart(&mut world);
    assert_eq!(world.allocated_bytes(), base);
}

#[test]
fn long_lists_cost_little_and_go_whole() {
    let mut world = World::new(ARENA_BYTES, ARENA_BYTES, u64::MAX);
    let (inline, blocks) = (world.create(Kind::List, 8, 0), world.create(Kind::List, 0, 0));
    world.store.publish();
    let base = world.allocated_bytes();
    let mut each = Vec::new();
    for number in 0..COUNT {
        let bytes = number.to_le_bytes();
        world.apply(&[Op::ListSplice { object: inline, position: END, remove: 0, values: Values::Packed(&bytes) }]).unwrap();
        each.clear();
        Payload::inline(&bytes).write(&mut each);
        world.apply(&[Op::ListSplice { object: blocks, position: END, remove: 0, values: Values::Each(1, &each) }]).unwrap();
        together(&mut world, number);
    }
    world.store.publish();
    world.reclaim(std::iter::empty());
    for list in [inline, blocks] {
        let record = catalog::find(&world.reader, world.store.root(), list).unwrap();
        let walk = sequence::Elements::new(&world.reader, &record, 0..COUNT);
        assert_eq!(walk.len() as u64, COUNT);
        for (number, place) in (0u64..).zip(walk) {
            assert_eq!(world.reader.bytes(place.offset, place.len), number.to_le_bytes());
        }
        for number in (0..COUNT).step_by(1009) {
            let place = sequence::find(&world.reader, &record, number).unwrap();
            assert_eq!(world.reader.bytes(place.offset, place.len), number.to_le_bytes());
        }
    }
    let bytes = world.allocated_bytes() - base;
    // Inline: 8 bytes and the node above; blocks: 32 bytes, 8 for their offset, and the node above.
    assert!(bytes <= COUNT * 50, "{COUNT} elements of both lists take {bytes} bytes, {} each", bytes / COUNT);
    world.audit();
    for list in [inline, blocks] {
        world.apply(&[Op::Clear { object: list }]).unwrap();
    }
    assert!(take_apart(&mut world) > COUNT / 10_000);
    world.audit();
    assert_eq!(world.allocated_bytes(), base);
}
