//! Describing types: what a [`Schema`] collects from a type and from what the type consists of, put together once per type and
//! program, with its fingerprint.
use std::any::TypeId;
use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};

use super::schema::Schema;
use super::shared::Shared;
use crate::fork::PerLife;
use crate::limits::ARCHIVE_DEPTH_MAX;

/// Part of the format: another seed would make every fingerprint another.
const FINGERPRINT_SEED: RapidSecrets = RapidSecrets::seed(0x636f_6d6d_6f6e_686f);

impl Schema {
    /// A type inside of the one that is being described.
    pub fn ty<T: Shared>(&mut self) {
        if let Some(begun) = self.begin(TypeId::of::<T>()) {
            T::schema(self);
            self.end(begun);
        }
    }

    /// A type parameter.
    pub fn parameter<T: Shared>(&mut self) {
        self.text.push('<');
        self.ty::<T>();
        self.text.push('>');
    }

    /// A field with a name.
    pub fn field<T: Shared>(&mut self, name: &str) {
        self.separate();
        self.display(format_args!("{name}: "));
        self.ty::<T>();
    }

    /// A field without a name, or a type parameter among several.
    pub fn element<T: Shared>(&mut self) {
        self.separate();
        self.ty::<T>();
    }
}

/// All that is worked out about a type, once.
pub(super) struct Described {
    pub(super) text: String,
    pub(super) fingerprint: u64,
    /// Whether a value can be nested deeper than readers follow: only then its depth must be looked at.
    pub(super) may_be_too_deep: bool,
}

impl Described {
    fn of<T: Shared>() -> Self {
        let mut schema = Schema::default();
        schema.ty::<T>();
        let fingerprint = rapidhash_v3_seeded(schema.text.as_bytes(), &FINGERPRINT_SEED);
        // The root is a level of its own.
        let may_be_too_deep = schema.is_recursive || 1 + schema.deepest > ARCHIVE_DEPTH_MAX;
        Described { text: schema.text, fingerprint, may_be_too_deep }
    }
}

/// The fingerprint of a type: equal for types of the same structure and names, in every program.
#[inline]
pub fn fingerprint<T: Shared>() -> u64 {
    described::<T>().fingerprint
}

/// The structure of a type as text.
#[inline]
pub fn text<T: Shared>() -> &'static str {
    &described::<T>().text
}

/// A thread's own view of what was described: found in a few nanoseconds, overwritten by the next type with the same place.
const REMEMBERED: usize = 64;
thread_local! {
    static LATELY: [Cell<Option<(TypeId, &'static Described)>>; REMEMBERED] = const { [const { Cell::new(None) }; REMEMBERED] };
}

#[inline]
pub(super) fn described<T: Shared>() -> &'static Described {
    let id = TypeId::of::<T>();
    LATELY.with(|lately| {
        let place = &lately[place_of(id)];
        match place.get() {
            Some((known, described)) if known == id => described,
            _ => {
                let described = describe::<T>(id);
                place.set(Some((id, described)));
                described
            }
        }
    })
}

/// A `TypeId` is a hash already, and hands its hasher a part of itself.
#[derive(Default)]
struct Taken(u64);

impl Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, part: u64) {
        self.0 = part;
    }
}

#[inline]
fn place_of(id: TypeId) -> usize {
    let mut taken = Taken::default();
    id.hash(&mut taken);
    taken.finish() as usize % REMEMBERED
}

/// Never shrinks: a program has as many shared types as its source.
static DESCRIBED: PerLife<HashMap<TypeId, &'static Described>> = PerLife::new();

#[cold]
fn describe<T: Shared>(id: TypeId) -> &'static Described {
    let known = DESCRIBED.lock().get(&id).copied();
    known.unwrap_or_else(|| {
        // Described without the lock: this runs the type's own code.
        let new = Described::of::<T>();
        DESCRIBED.lock().entry(id).or_insert_with(|| Box::leak(Box::new(new)))
    })
}
