//! What a thread has seen last, so that looking again costs little.
//!
//! An object's record is the same as long as the version is, and what a key leads to is the same as long as the object was not
//! changed. Both are remembered by names that mean nothing else for ever: a table's number, an object's id, a version. So what
//! stands here may be old and is never wrong, and needs nobody to clear it. It is used only under a pin on a version that it
//! is true in.

use commonhold_ipc::block::Place;
use commonhold_ipc::catalog::Record;
use commonhold_ipc::value::ShortArchive;
use std::cell::Cell;

/// Objects that a thread remembers; those with equal lowest bits of their ids take each other's place.
const OBJECTS: usize = 16;

/// One object, as its thread saw it last.
struct Seen {
    /// The pin table it was read under, 0 for nothing.
    table: Cell<u64>,
    /// The version that the record is of.
    version: Cell<u64>,
    record: Cell<Record>,
    /// The key that was found last, when the object had last been modified in this version; 0 for none.
    modified: Cell<u64>,
    key: Cell<ShortArchive>,
    place: Cell<Place>,
}

impl Seen {
    const fn nothing() -> Seen {
        Seen {
            table: Cell::new(0),
            version: Cell::new(0),
            record: Cell::new(Record::of_sequence(0, 0, 0, 0)),
            modified: Cell::new(0),
            key: Cell::new(ShortArchive::EMPTY),
            place: Cell::new(Place { offset: 0, len: 0, birth: 0, block: 0 }),
        }
    }
}

thread_local! {
    static SEEN: [Seen; OBJECTS] = const { [const { Seen::nothing() }; OBJECTS] };
}

#[inline(always)]
fn with<R>(object: u64, then: impl FnOnce(&Seen) -> R) -> R {
    SEEN.with(|seen| then(&seen[object as usize % OBJECTS]))
}

/// Whether the thread remembers an object in this version.
#[inline(always)]
pub fn shows(table: u64, version: u64, object: u64) -> bool {
    with(object, |seen| seen.version.get() == version && seen.table.get() == table && seen.record.get().id == object)
}

/// The record of the object that the thread remembers.
#[inline(always)]
pub fn record(object: u64) -> Record {
    with(object, |seen| seen.record.get())
}

/// Remembers an object's record in a version.
pub fn remember(table: u64, version: u64, record: &Record) {
    with(record.id, |seen| {
        if seen.table.get() != table || seen.record.get().id != record.id {
            seen.modified.set(0);
        }
        seen.table.set(table);
        seen.version.set(version);
        seen.record.set(*record);
    });
}

/// Whether a key is the one that was found last in the object that the thread remembers.
#[inline(always)]
pub fn knows(object: u64, key: &ShortArchive) -> bool {
    with(object, |seen| seen.key.get() == *key && seen.modified.get() == seen.record.get().modified)
}

/// Where the value of that key lies.
#[inline(always)]
pub fn place(object: u64) -> Place {
    with(object, |seen| seen.place.get())
}

/// Remembers where the value of a key lies.
#[inline(always)]
pub fn remember_place(object: u64, key: &ShortArchive, place: &Place) {
    with(object, |seen| {
        seen.modified.set(seen.record.get().modified);
        seen.key.set(*key);
        seen.place.set(*place);
    });
}
