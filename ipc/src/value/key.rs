//! Keys: types of which equal values have equal bytes.
//!
//! A dict compares keys by their archives. So a key's bytes must follow from its value alone: not from the order in which a
//! table was filled (`HashMap`, `HashSet`), not from one of several patterns for the same number (floats: two zeros, many NaNs),
//! nor from who holds it (handles). Archives are otherwise canonical: padding is zero, out-of-line parts lie in the order of the
//! fields, a `VecDeque` is laid down as the `Vec` of its elements, and the shape of a B-tree follows from its length.
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::shared::Shared;

/// A shared type of which equal values have equal bytes: what a dict may have as its key.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a key",
    label = "not a key",
    note = "keys are compared by their bytes: no floats, `HashMap`, `HashSet` or handles in them",
    note = "put `#[derive(commonhold::Shared, commonhold::Key)]` on a type of your own",
    note = "`String`, not `&str`: a dict owns its keys; `get` and `insert` take `&str` then"
)]
pub trait Key: Shared {}

/// Compiles for keys only: what the derive calls for every field, so that the compiler points at the field.
pub fn need_key<T: Key>() {}

macro_rules! keys {
    ($($key:ty),*) => {
        $(impl Key for $key {})*
    };
}

keys!(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128, bool, char, String, (), Duration);

impl<T: Key> Key for Option<T> {}
impl<T: Key, E: Key> Key for Result<T, E> {}
impl<T: Key> Key for Box<T> {}
impl<T: Key> Key for Vec<T> {}
impl<T: Key> Key for VecDeque<T> {}
impl<T: Key, const N: usize> Key for [T; N] {}
impl<K: Key + Ord, V: Key> Key for BTreeMap<K, V> where K::Archived: Ord {}
impl<K: Key + Ord> Key for BTreeSet<K> where K::Archived: Ord {}
