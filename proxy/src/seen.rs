//! What a thread has seen last, so that looking again costs little.
//!
//! An object's record is the same as long as the version is, and what a key leads to is the same as long as the object was not
//! changed. Both are remembered by names that mean nothing else for ever: a table's number, an object's id, a version. So what
//! stands here may be old and is never wrong, and needs nobody to clear it. It is used only under a pin on a version that it
//! is true in.

use commonhold_ipc::block::Place;
use commonhold_ipc::catalog::Record;
use std::cell::Cell;

/// Objects that a thread remembers; those with equal lowest bits of their ids take each other's place.
const OBJECTS: usize = 16;

/// One object, as its thread saw it last. Two cache lines.
#[repr(align(64))]
pub struct Seen {
    /// The pin table it was read under, 0 for nothing.
    table: Cell<u64>,
    /// The version that the record is of.
    version: Cell<u64>,
    record: Cell<Record>,
    /// The key that was found last, when the object had last been modified in this version; [`NEVER`] for none.
    modified: Cell<u64>,
    /// All of an object's keys that are as short have the same length, so their bytes say which it is.
    key: Cell<u64>,
    place: Cell<Place>,
}

const _: () = assert!(size_of::<Seen>() == 128);

/// No version.
const NEVER: u64 = u64::MAX;

impl Seen {
    const fn nothing() -> Seen {
        Seen {
            table: Cell::new(0),
            version: Cell::new(0),
            record: Cell::new(Record::of_sequence(0, 0, 0, 0)),
            modified: Cell::new(NEVER),
            key: Cell::new(0),
            place: Cell::new(Place { offset: 0, len: 0, birth: 0, block: 0 }),
        }
    }

    /// The object's record.
    #[inline(always)]
    pub fn record(&self) -> Record {
        self.record.get()
    }

    /// Where the value of a key lies, if it is the one that was found last.
    #[inline(always)]
    pub fn place(&self, key: u64) -> Option<Place> {
        (self.key.get() == key && self.modified.get() == self.record.get().modified).then(|| self.place.get())
    }

    /// Remembers where the value of a key lies.
    #[inline(always)]
    pub fn remember_place(&self, key: u64, place: &Place) {
        self.modified.set(self.record.get().modified);
        self.key.set(key);
        self.place.set(*place);
    }
}

thread_local! {
    static SEEN: [Seen; OBJECTS] = const { [const { Seen::nothing() }; OBJECTS] };
}

/// What the thread remembers of an object, if anything: see [`shows`].
#[inline(always)]
pub fn with<R>(object: u64, then: impl FnOnce(&Seen) -> R) -> R {
    SEEN.with(|seen| then(&seen[object as usize % OBJECTS]))
}

/// Whether the thread remembers an object in this version.
#[inline(always)]
pub fn shows(table: u64, version: u64, object: u64) -> bool {
    with(object, |seen| seen.version.get() == version && seen.table.get() == table && seen.record.get().id == object)
}

/// Remembers an object's record in a version.
pub fn remember(table: u64, version: u64, record: &Record) {
    with(record.id, |seen| {
        if seen.table.get() != table || seen.record.get().id != record.id {
            seen.modified.set(NEVER);
        }
        seen.table.set(table);
        seen.version.set(version);
        seen.record.set(*record);
    });
}
