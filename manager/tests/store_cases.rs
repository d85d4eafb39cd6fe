//! Single cases that a store must get right: limits, budgets, requests that no client of ours would send.

mod model;
mod world;

use commonhold_ipc::block::{EntryShape, HEAD_BYTES};
use commonhold_ipc::catalog::Root;
use commonhold_ipc::catalog::{self, Kind, SLOT_BITS};
use commonhold_ipc::error::ErrorKind;
use commonhold_ipc::limits::{COMMIT_STEPS_MAX, FRAME_BYTES_MAX};
use commonhold_ipc::wire::commit::{Commit, CommitWriter, Condition, END, Op, Values};
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::{Payload, Reader, Source, Words};
use commonhold_manager::store::Rejected;
use commonhold_manager::upload::{self, Uploads};
use model::key_of;
use world::{World, failed, handle_bytes, insert, payload};

const MIB: u64 = 1 << 20;

fn world() -> World {
    World::new(64 * MIB, 64 * MIB, u64::MAX)
}

/// Lets everything go that has been held once, and sees that nothing is left.
fn end(mut world: World, ids: &[u64]) {
    ids.iter().for_each(|id| world.store.release(*id));
    world.settle();
    world.reclaim(std::iter::empty());
    world.audit();
    assert_eq!(world.allocated_bytes(), 0);
}

#[test]
fn an_upload_with_more_handles_than_it_was_made_for_is_refused() {
    let mut world = world();
    let dict = world.create(Kind::Dict, 0, 8);
    let list = world.create(Kind::List, 0, 0);
    let value = world.create(Kind::Value, 0, 0);
    let handles = handle_bytes(&[dict; 500]);
    let handles = Words::new(&handles).unwrap();
    let prefix = EntryShape { key_len: 3, value_len: 100, align: 8, handles: 500 }.value();
    let sent = |number| Payload { source: Source::Upload(number), handles };
    let ops = [
        (prefix, insert(dict, b"key", sent(1))),
        (HEAD_BYTES, Op::ValueSet { object: value, value: sent(1) }),
        (HEAD_BYTES, Op::ListSet { object: list, position: 0, value: sent(1), lend: false }),
    ];
    world
        .apply(&[Op::ListSplice { object: list, position: END, remove: 0, values: Values::Each(1, &one(&Payload::inline(b"x"))) }])
        .unwrap();
    for (prefix, op) in ops {
        let mut uploads = Uploads::default();
        let memory = world.store.memory_mut();
        let upload = upload::begin(memory, prefix, 100, 0);
        uploads.add(1, upload, memory);
        let mut writer = CommitWriter::default();
        writer.op(&op);
        assert_eq!(failed(world.apply_with(&writer, &mut uploads)).kind(), ErrorKind::Corrupt);
        uploads.clear(world.store.memory_mut());
        world.audit();
    }
    end(world, &[dict, list, value]);
}

fn one(value: &Payload<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.write(&mut bytes);
    bytes
}

#[test]
fn a_namespace_needs_no_alignment() {
    let mut world = world();
    let names = world.create(Kind::Namespace, 0, 0);
    world.apply(&[insert(names, b"name", Payload::inline(b"value"))]).unwrap();
    world.audit();
    end(world, &[names]);
}

#[test]
fn conditions_on_objects_of_another_kind_do_not_hold() {
    let mut world = world();
    let counter = world.create(Kind::Counter, 0, 0);
    let dict = world.create(Kind::Dict, 0, 8);
    let value = world.create(Kind::Value, 0, 0);
    let list = world.create(Kind::List, 0, 0);
    world.apply(&[Op::ValueSet { object: value, value: Payload::inline(&[0xff; 64]) }]).unwrap();
    let block = catalog_root(&mut world, value);
    // As the root of an index, the counter's number is a collision leaf of 2^64 - 1 entries in the value's bytes.
    world.apply(&[Op::CounterAdd { object: counter, delta: (3 << 48 | (block + HEAD_BYTES)) as i64 }]).unwrap();
    world.apply(&[insert(dict, b"key", Payload::inline(b"value"))]).unwrap();
    let conditions = [
        Condition::EntryIs { object: counter, key: b"key", block: 0 },
        Condition::EntryIs { object: value, key: b"key", block: 0 },
        Condition::EntryIs { object: list, key: b"key", block: 0 },
        Condition::ElementIs { object: dict, position: 9, block: 0 },
        Condition::ElementIs { object: value, position: 0, block: u64::MAX },
        Condition::ElementBytes { object: value, position: 0, bytes: b"" },
        Condition::ElementIs { object: dict + (1 << SLOT_BITS), position: 0, block: 0 },
    ];
    for condition in conditions {
        let mut writer = CommitWriter::default();
        writer.condition(&condition);
        writer.op(&Op::Clear { object: dict });
        let done = world.apply_with(&writer, &mut Uploads::default());
        assert!(matches!(done, Err(Rejected::Conflict)), "{condition:?} held: {done:?}");
    }
    end(world, &[counter, dict, value, list]);
}

fn catalog_root(world: &mut World, id: u64) -> u64 {
    world.store.publish();
    catalog::find(&world.reader, world.store.root(), id).unwrap().root
}

/// Inserts until the budget says no. Returns how many there are.
fn fill(world: &mut World, dict: u64, value: &[u8]) -> u64 {
    let mut number = 0;
    loop {
        match world.apply(&[insert(dict, &key_of(number), Payload::inline(value))]) {
            Ok(_) => number += 1,
            Err(Rejected::Failed(error)) => {
                assert_eq!(error.kind(), ErrorKind::Full, "{error:?}");
                return number;
            }
            Err(rejected) => unreachable!("there was no condition, and it was well-formed: {rejected:?}"),
        }
        if number.is_multiple_of(7) {
            world.store.publish();
            world.reclaim(std::iter::empty());
        }
    }
}

#[test]
fn a_full_store_is_sound_and_can_be_emptied_key_by_key() {
    for value_bytes in [8, 64, 3000, 40_000] {
        let mut world = World::new(64 * MIB, 8 * MIB, u64::MAX);
        let dict = world.create(Kind::Dict, 0, 8);
        let value = vec![5; value_bytes];
        for _ in 0..2 {
            let count = fill(&mut world, dict, &value);
            assert!(count * value_bytes as u64 > if value_bytes < 64 { MIB / 8 } else { 3 * MIB / 2 }, "{count} of {value_bytes} bytes");
            world.audit();
            // A request of many changes that fails half-way leaves nothing behind.
            let keys: Vec<Vec<u8>> = (0..4000).map(|i| key_of(1 << 32 | i)).collect();
            let many: Vec<Op<'_>> = keys.iter().map(|key| insert(dict, key, Payload::inline(&value))).collect();
            assert_eq!(failed(world.apply(&many)).kind(), ErrorKind::Full);
            world.audit();
            for number in (0..count).rev() {
                let done = world.apply(&[Op::Remove { object: dict, key: &key_of(number), lend: false }]);
                assert_eq!(done.expect("removing always works"), [Outcome::Something]);
                world.store.publish();
                world.reclaim(std::iter::empty());
            }
            world.audit();
        }
        end(world, &[dict]);
    }
}

#[test]
fn a_full_store_can_be_cleared_and_its_objects_dropped() {
    let mut world = World::new(64 * MIB, 8 * MIB, u64::MAX);
    let (first, second) = (world.create(Kind::Dict, 0, 8), world.create(Kind::Dict, 0, 8));
    world.apply(&[insert(second, b"first", payload(b"", &handle_bytes(&[first])))]).unwrap();
    let circle = world.create(Kind::Dict, 0, 8);
    world.apply(&[insert(circle, b"itself", payload(b"", &handle_bytes(&[circle])))]).unwrap();
    fill(&mut world, first, &[1; 100]);
    world.store.release(circle);
    world.settle();
    assert_eq!(world.store.root().objects, 2);
    world.store.release(first);
    world.store.release(second);
    world.settle();
    assert_eq!(world.store.root().objects, 0);
    end(world, &[]);

    let mut world = World::new(64 * MIB, 8 * MIB, u64::MAX);
    let list = world.create(Kind::List, 8, 0);
    while world.apply(&[Op::ListSplice { object: list, position: END, remove: 0, values: Values::Packed(&[1; 8 * 5000]) }]).is_ok() {}
    world.audit();
    assert_eq!(world.apply(&[Op::Clear { object: list }]).expect("clearing always works"), [Outcome::Something]);
    end(world, &[list]);
}

#[test]
fn an_object_that_could_not_be_dropped_for_lack_of_room_is_dropped_later() {
    let mut world = World::new(64 * MIB, 8 * MIB, u64::MAX);
    let keep = world.create(Kind::Dict, 0, 8);
    let lost = world.create(Kind::Dict, 0, 8);
    let circle = world.create(Kind::Dict, 0, 8);
    world.apply(&[insert(circle, b"itself", payload(b"", &handle_bytes(&[circle])))]).unwrap();
    world.store.publish();
    // Uploads take the room that changes leave for removals, too.
    let mut uploads = Uploads::default();
    let mut sent = Vec::new();
    for bytes in [MIB, MIB / 16, 4000] {
        let memory = world.store.memory_mut();
        while let Ok(block) = memory.allocate(bytes) {
            sent.push(block);
        }
    }
    for id in [lost, circle] {
        world.store.release(id);
    }
    for _ in 0..4 {
        world.store.rest();
        world.store.collect_circles();
    }
    world.store.audit(sent.iter().copied()).unwrap();
    assert_eq!(world.store.root().objects, 3);
    uploads.clear(world.store.memory_mut());
    sent.into_iter().for_each(|block| world.store.memory_mut().discard(block));
    world.settle();
    assert_eq!(world.store.root().objects, 1);
    end(world, &[keep]);
}

#[test]
fn an_upload_leaves_the_room_that_publishing_needs() {
    // So many that the paths of the catalog to all of them are more than an allocator's reserve has to spare.
    const OBJECTS: usize = 34_000;
    let mut world = World::new(256 * MIB, 170 * MIB, u64::MAX);
    let mut ids = Vec::new();
    for _ in 0..OBJECTS / 1000 {
        ids.extend((0..1000).map(|_| world.create(Kind::Counter, 0, 0)));
        world.store.publish();
        world.reclaim(std::iter::empty());
    }
    for id in &ids {
        world.apply(&[Op::CounterAdd { object: *id, delta: 1 }]).unwrap();
    }
    let mut sent = Vec::new();
    for bytes in [16 * MIB, MIB, MIB / 16] {
        while let Ok(upload) = upload::begin(world.store.memory_mut(), HEAD_BYTES, bytes, 0) {
            sent.push(upload.block);
        }
    }
    world.store.publish();
    world.store.audit(sent.iter().copied()).unwrap();
    sent.into_iter().for_each(|block| world.store.memory_mut().discard(block));
    end(world, &ids);
}

#[test]
fn changes_of_nothing_do_not_take_the_room_that_publishing_needs() {
    const LISTS: usize = 40_000;
    let mut world = World::new(64 * MIB, 32 * MIB, u64::MAX);
    let mut ids = Vec::new();
    for _ in 0..LISTS / 500 {
        ids.extend((0..500).map(|_| world.create(Kind::List, 8, 0)));
        world.store.publish();
        world.reclaim(std::iter::empty());
    }
    let mut sent = Vec::new();
    while let Ok(upload) = upload::begin(world.store.memory_mut(), HEAD_BYTES, MIB / 4, 0) {
        sent.push(upload.block);
    }
    let nothing: Vec<Op<'_>> = ids.iter().map(|id| append(*id, &[])).collect();
    assert_eq!(failed(world.apply(&nothing)).kind(), ErrorKind::Full);
    world.store.publish();
    world.store.audit(sent.iter().copied()).unwrap();
    sent.into_iter().for_each(|block| world.store.memory_mut().discard(block));
    end(world, &ids);
}

#[test]
fn what_a_reply_lends_stays_when_the_owner_rests_before_it_publishes() {
    let mut world = world();
    let dict = world.create(Kind::Dict, 0, 8);
    world.store.publish();
    world.apply(&[insert(dict, b"key", Payload::inline(&[7; 100]))]).unwrap();
    let again = Op::Insert { object: dict, key: b"key", value: Payload::inline(b""), only_if_absent: true, lend: true };
    let outcomes = world.apply(&[again]).unwrap();
    let version = world.store.version() + 1;
    world.apply(&[Op::Clear { object: dict }]).unwrap();
    world.settle();
    world.reclaim(std::iter::once(version));
    let Outcome::Existing(place) = outcomes[0] else { panic!("{outcomes:?}") };
    world.store.audit(std::iter::empty()).unwrap();
    assert!(world.store.memory_mut().all_blocks().any(|(offset, ..)| offset == place.block), "a lent block was freed");
    end(world, &[dict]);
}

#[test]
fn keys_and_values_of_no_bytes_are_kept() {
    let mut world = world();
    let dict = world.create(Kind::Dict, 0, 16);
    assert_eq!(world.apply(&[insert(dict, b"", Payload::inline(b""))]).unwrap(), [Outcome::Nothing]);
    assert_eq!(world.apply(&[insert(dict, b"", payload(b"", &handle_bytes(&[dict])))]).unwrap(), [Outcome::Something]);
    world.audit();
    let record = catalog::find(&world.reader, world.store.root(), dict).unwrap();
    let entry = commonhold_ipc::index::find(&world.reader, record.root, 16, b"", world.hash.of(b"")).unwrap();
    assert_eq!((entry.handles(&world.reader), entry.value_place(&world.reader).len), (vec![dict], 0));
    end(world, &[dict]);
}

#[test]
fn keys_that_collide_by_the_thousand_do_not_run_out_of_room_half_way() {
    let mut world = World::new(64 * MIB, 4 * MIB, 0);
    let dict = world.create(Kind::Dict, 0, 8);
    let count = fill(&mut world, dict, &[3; 300]);
    assert!(count > 100);
    world.audit();
    for number in 0..count {
        world.apply(&[Op::Remove { object: dict, key: &key_of(number), lend: false }]).unwrap();
        world.store.publish();
        world.reclaim(std::iter::empty());
    }
    world.audit();
    end(world, &[dict]);
}

#[test]
fn limits_are_errors_that_change_nothing() {
    use commonhold_ipc::limits::{HANDLES_PER_VALUE_MAX, KEY_BYTES_MAX};
    let mut world = world();
    let dict = world.create(Kind::Dict, 0, 8);
    let key = vec![0; KEY_BYTES_MAX as usize + 1];
    let handles = handle_bytes(&vec![dict; HANDLES_PER_VALUE_MAX + 1]);
    for op in [insert(dict, &key, Payload::inline(b"")), insert(dict, b"key", payload(b"", &handles))] {
        assert_eq!(failed(world.apply(&[op])).kind(), ErrorKind::TooLarge);
        assert_eq!(failed(world.apply(&[insert(dict, b"other", Payload::inline(b"")), op])).kind(), ErrorKind::TooLarge);
    }
    world.apply(&[insert(dict, &key[1..], payload(b"", &handles[8..]))]).unwrap();
    world.audit();
    world.store.publish();
    assert_eq!(catalog::find(&world.reader, world.store.root(), dict).unwrap().len, 1);
    end(world, &[dict]);
}

fn append(object: u64, values: &[u8]) -> Op<'_> {
    Op::ListSplice { object, position: END, remove: 0, values: Values::Packed(values) }
}

#[test]
fn the_next_append_after_a_failed_one_does_not_show_the_failed_elements() {
    let mut world = world();
    let list = world.create(Kind::List, 8, 0);
    let (one, two, three) = ([1; 8], [2; 8], [3; 8]);
    world.apply(&[append(list, &one)]).unwrap();
    world.store.publish();
    let table = world.table.clone();
    let before = table.pin();
    let before_root = *before.root();
    assert_eq!(failed(world.apply(&[append(list, &two), append(list, &[0; 3])])).kind(), ErrorKind::Corrupt);
    world.apply(&[append(list, &three)]).unwrap();
    world.audit();
    let record = catalog::find(&world.reader, world.store.root(), list).unwrap();
    let elements: Vec<&[u8]> =
        commonhold_ipc::sequence::Elements::new(&world.reader, &record, 0..9).map(|at| world.reader.bytes(at.offset, at.len)).collect();
    assert_eq!(elements, [&one, &three]);
    assert_eq!(catalog::find(&world.reader, &before_root, list).unwrap().len, 1);
    drop(before);
    end(world, &[list]);
}

#[test]
fn an_object_changed_alone_again_and_again_leaves_the_catalog_as_it_is() {
    let mut world = world();
    let (one, other) = (world.create(Kind::Counter, 0, 0), world.create(Kind::Counter, 0, 0));
    let number = |world: &World, root: &Root, id| catalog::find(&world.reader, root, id).unwrap().root;
    let add = |world: &mut World, id| {
        world.apply(&[Op::CounterAdd { object: id, delta: 1 }]).unwrap();
        world.store.publish();
        *world.store.root()
    };
    let first = add(&mut world, one);
    let table = world.table.clone();
    let pin = table.pin();
    let second = add(&mut world, one);
    assert_eq!(second.catalog, first.catalog);
    assert_eq!((number(&world, &first, one), number(&world, &second, one)), (1, 2));
    // Another one takes its place, and it moves into the catalog.
    let third = add(&mut world, other);
    assert_ne!(third.catalog, second.catalog);
    assert_eq!([one, other].map(|id| number(&world, &third, id)), [2, 1]);
    world.audit();
    // Both at once: the one that stood in the root stays there.
    world.apply(&[one, other].map(|object| Op::CounterAdd { object, delta: 1 })).unwrap();
    world.store.publish();
    let fourth = *world.store.root();
    assert_eq!([one, other].map(|id| number(&world, &fourth, id)), [3, 2]);
    world.audit();
    world.reclaim(std::iter::empty());
    assert_eq!([one, other].map(|id| number(&world, pin.root(), id)), [1, 0]);
    // The one that stands in the root goes.
    world.store.release(other);
    world.settle();
    let fifth = *world.store.root();
    assert!(catalog::find(&world.reader, &fifth, other).is_none());
    assert_eq!(number(&world, &fifth, one), 3);
    world.audit();
    drop(pin);
    end(world, &[one]);
}

#[test]
fn a_commit_of_too_much_work_is_refused_whole() {
    let mut world = world();
    let (list, counter) = (world.create(Kind::List, 8, 0), world.create(Kind::Counter, 0, 0));
    // Of an empty list, so that the test is quick: what counts is what one of them could cost.
    let reverse = [Op::ListReverse { object: list }; 1 << 10];
    let mut writer = CommitWriter::default();
    writer.op(&Op::CounterAdd { object: counter, delta: 1 });
    while u64::from(writer.ops()) <= COMMIT_STEPS_MAX / 16 {
        reverse.iter().for_each(|op| writer.op(op));
    }
    assert!(writer.len() <= FRAME_BYTES_MAX, "a client can send it");
    let error = failed(world.apply_with(&writer, &mut Uploads::default()));
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let told = "this request is more work than one commit may be (16777216 steps, of which an entry set or an element moved takes one and an \
                element put into or taken out of the middle of a list 8): nobody else would be served meanwhile; nothing was changed, split it \
                into several";
    assert_eq!(error.to_string(), told);
    assert_eq!(world.apply(&[Op::CounterAdd { object: counter, delta: 1 }]).unwrap(), [Outcome::Number(1)]);
    world.apply(&reverse).unwrap();
    end(world, &[list, counter]);
}

#[test]
fn the_longest_middle_of_a_list_goes_at_once() {
    for element_bytes in [8, 0] {
        let mut world = world();
        let list = world.create(Kind::List, element_bytes, 0);
        let numbers: Vec<u64> = (0..20_000).collect();
        let packed: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let each: Vec<u8> = packed.chunks(8).flat_map(|number| one(&Payload::inline(number))).collect();
        let values = if element_bytes == 0 { Values::Each(numbers.len() as u32, &each) } else { Values::Packed(&packed) };
        world.apply(&[Op::ListSplice { object: list, position: END, remove: 0, values }]).unwrap();
        world.store.publish();
        let removed = world.apply(&[Op::ListSplice { object: list, position: 3, remove: 19_990, values: Values::Packed(&[]) }]);
        if element_bytes == 0 {
            // Values of the other form: the elements that went are there again.
            assert_eq!(failed(removed).kind(), ErrorKind::Corrupt);
            world.apply(&[Op::ListSplice { object: list, position: 3, remove: 19_990, values: Values::Each(0, &[]) }]).unwrap();
        } else {
            assert_eq!(removed.unwrap(), [Outcome::Number(19_990)]);
        }
        world.audit();
        world.store.publish();
        let record = catalog::find(&world.reader, world.store.root(), list).unwrap();
        let left: Vec<u64> = commonhold_ipc::sequence::Elements::new(&world.reader, &record, 0..100)
            .map(|at| u64::from_le_bytes(world.reader.bytes(at.offset, at.len).try_into().unwrap()))
            .collect();
        assert_eq!(left, [0, 1, 2, 19_993, 19_994, 19_995, 19_996, 19_997, 19_998, 19_999]);
        end(world, &[list]);
    }
}

#[test]
fn a_commit_that_cannot_be_read_to_its_end_changes_nothing() {
    let mut world = world();
    let dict = world.create(Kind::Dict, 0, 8);
    let mut writer = CommitWriter::default();
    writer.condition(&Condition::LenIs { object: dict, len: 0 });
    for number in 0..100u64 {
        writer.op(&insert(dict, &number.to_le_bytes(), Payload::inline(b"value")));
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes);
    for len in 0..bytes.len() {
        if let Some(commit) = Commit::parse(&mut Reader::new(&bytes[..len])) {
            assert!(!commit.is_whole(), "cut to {len} bytes");
            let done = world.store.apply(&commit, &mut Uploads::default(), None);
            assert!(matches!(done, Err(Rejected::Nonsense)), "cut to {len} bytes: {done:?}");
        }
    }
    // Every code, flag and length in turn made wrong.
    let ops = 8..bytes.len() - 17 - 4;
    for at in ops.step_by(7) {
        let mut wrong = bytes.clone();
        wrong[at] ^= 0x40;
        let commit = Commit::parse(&mut Reader::new(&wrong)).unwrap();
        if !commit.is_whole() {
            let done = world.store.apply(&commit, &mut Uploads::default(), None);
            assert!(matches!(done, Err(Rejected::Nonsense)), "byte {at}: {done:?}");
        }
    }
    world.audit();
    world.store.publish();
    assert_eq!(catalog::find(&world.reader, world.store.root(), dict).unwrap().len, 0);
    end(world, &[dict]);
}
