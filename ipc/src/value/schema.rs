//! A type's structure as text, and its fingerprint: what two programs compare before one reads what the other wrote.
//!
//! The text is put together at run time, once per type and program: a constant could not be computed for a recursive type, it
//! would depend on itself. It names types and fields as the source does, so it depends on neither compiler nor module path, and
//! it is what an error shows when the fingerprints differ. A type that comes up again is written as `#n`, the n-th type of the
//! text counted from 0 in the order in which they begin: so recursion ends, and a type used twice does not double the text.
use std::any::TypeId;
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::{Display, Write};
use std::hash::{Hash, Hasher};
use std::ops::Range;

use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};

use super::shared::Shared;
use crate::fork::PerLife;
use crate::limits::ARCHIVE_DEPTH_MAX;

/// Part of the format: another seed would make every fingerprint another.
const FINGERPRINT_SEED: RapidSecrets = RapidSecrets::seed(0x636f_6d6d_6f6e_686f);
/// A finished type whose text is not longer than this is written again instead of being referred to.
const REPEATED_BYTES_MAX: usize = 24;

/// Collects the description of a type. `#[derive(Shared)]` calls its methods.
#[derive(Default)]
pub struct Schema {
    text: String,
    seen: Vec<Seen>,
    /// Out-of-line levels between the root and the type that is being described, and the most of them so far.
    level: u32,
    deepest: u32,
    is_recursive: bool,
}

struct Seen {
    id: TypeId,
    /// `None` while the type is still being described: whoever meets it then is inside of it.
    finished: Option<Finished>,
}

struct Finished {
    text: Range<usize>,
    levels: u32,
}

impl Schema {
    /// A type inside of the one that is being described.
    pub fn ty<T: Shared>(&mut self) {
        let id = TypeId::of::<T>();
        if let Some(number) = self.seen.iter().position(|seen| seen.id == id) {
            return self.repeat(number);
        }
        let number = self.seen.len();
        self.seen.push(Seen { id, finished: None });
        let start = self.text.len();
        let outer_deepest = std::mem::replace(&mut self.deepest, self.level);
        T::schema(self);
        let levels = self.deepest - self.level;
        self.deepest = self.deepest.max(outer_deepest);
        self.seen[number].finished = Some(Finished { text: start..self.text.len(), levels });
    }

    fn repeat(&mut self, number: usize) {
        match &self.seen[number].finished {
            Some(Finished { text, levels }) => {
                self.deepest = self.deepest.max(self.level + levels);
                if text.len() <= REPEATED_BYTES_MAX {
                    return self.text.extend_from_within(text.clone());
                }
            }
            None => self.is_recursive = true,
        }
        self.display(format_args!("#{number}"));
    }

    /// What `describe` describes lies out of line, behind up to `levels` pointers one after the other.
    pub fn out_of_line(&mut self, levels: u32, describe: impl FnOnce(&mut Self)) {
        self.level += levels;
        self.deepest = self.deepest.max(self.level);
        describe(self);
        self.level -= levels;
    }

    /// The type that is being described contains itself, in a way that its description leaves out.
    pub(super) fn contains_itself(&mut self) {
        self.is_recursive = true;
    }

    /// Text as it is.
    pub fn word(&mut self, word: &str) {
        self.text.push_str(word);
    }

    fn display(&mut self, what: impl Display) {
        write!(self.text, "{what}").expect("a string takes what is written to it");
    }

    fn separate(&mut self) {
        if !self.text.ends_with(['(', '{', '<']) {
            self.text.push_str(", ");
        }
    }

    /// A type of the user's begins: `struct Point`. Its parameters, then [`word`](Schema::word) with its brackets, follow.
    pub fn open(&mut self, kind: &str, name: &str) {
        self.display(format_args!("{kind} {name}"));
    }

    /// A type parameter.
    pub fn parameter<T: Shared>(&mut self) {
        self.text.push('<');
        self.ty::<T>();
        self.text.push('>');
    }

    /// A constant parameter.
    pub fn constant(&mut self, value: impl Display) {
        self.display(format_args!("<{value}>"));
    }

    /// An enum's variant. Its brackets and fields follow.
    pub fn variant(&mut self, name: &str) {
        self.separate();
        self.text.push_str(name);
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
