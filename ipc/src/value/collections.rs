//! The standard library's collections.
//!
//! A collection's check costs time in proportion to its bytes: so its elements must have some. An archive of eight bytes could
//! claim two billion elements of size zero, hence vectors of such are refused when they are compiled. Tables and trees have
//! bytes of their own for each entry.
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::{self, Formatter};
use std::hash::{BuildHasher, Hash};

use rkyv::collections::btree_map::ArchivedBTreeMap;
use rkyv::collections::btree_set::ArchivedBTreeSet;
use rkyv::collections::swiss_table::{ArchivedHashMap, ArchivedHashSet};
use rkyv::vec::ArchivedVec;

use super::codec::{map_is_intact, set_is_intact, to_owned, tree_is_intact, tree_set_is_intact};
use super::schema::Schema;
use super::shared::{Archived, AsDebug, Shared};

/// Levels of the highest B-tree: its nodes have up to six children, its length 32 bits.
const TREE_LEVELS: u32 = 1 + u32::MAX.ilog(6) + 1;

/// Stops the build where elements have no bytes.
macro_rules! need_bytes {
    ($element:ty) => {
        const {
            assert!(
                size_of::<Archived<$element>>() > 0,
                "the elements of a shared `Vec`, `VecDeque` or list must not be zero-sized: keep their number instead"
            )
        }
    };
}

macro_rules! sequence {
    ($sequence:ident) => {
        impl<T: Shared> Shared for $sequence<T> {
            type View = ArchivedVec<T::Archived>;
            const FLAT: bool = false;

            #[inline]
            fn view(archived: &Archived<Self>) -> &Self::View {
                archived
            }

            fn schema(schema: &mut Schema) {
                need_bytes!(T);
                schema.word(concat!(stringify!($sequence), "<"));
                schema.out_of_line(1, Schema::element::<T>);
                schema.word(">");
            }

            fn debug(archived: &Archived<Self>, f: &mut Formatter<'_>) -> fmt::Result {
                f.debug_list().entries(archived.iter().map(AsDebug::<T>)).finish()
            }

            fn eq_archived(archived: &Archived<Self>, value: &Self) -> bool {
                archived.len() == value.len() && archived.iter().zip(value).all(|(archived, value)| T::eq_archived(archived, value))
            }

            #[inline]
            fn intact(archived: &Archived<Self>) -> bool {
                need_bytes!(T);
                archived.iter().all(T::intact)
            }
        }
    };
}

sequence!(Vec);
sequence!(VecDeque);

impl<K, V, S> Shared for HashMap<K, V, S>
where
    K: Shared + Hash + Eq,
    K::Archived: Hash + Eq,
    V: Shared,
    S: BuildHasher + Default + 'static,
{
    type View = ArchivedHashMap<K::Archived, V::Archived>;
    const FLAT: bool = false;

    #[inline]
    fn view(archived: &Archived<Self>) -> &Self::View {
        archived
    }

    fn schema(schema: &mut Schema) {
        schema.word("HashMap<");
        schema.out_of_line(1, |schema| {
            schema.element::<K>();
            schema.element::<V>();
        });
        schema.word(">");
    }

    fn debug(archived: &Archived<Self>, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(archived.iter().map(|(key, value)| (AsDebug::<K>(key), AsDebug::<V>(value)))).finish()
    }

    fn eq_archived(archived: &Archived<Self>, value: &Self) -> bool {
        let same = |key, entry| value.get(&to_owned::<K>(key, None)).is_some_and(|value| V::eq_archived(entry, value));
        archived.len() == value.len() && archived.iter().all(|(key, entry)| same(key, entry))
    }

    #[inline]
    fn intact(archived: &Archived<Self>) -> bool {
        map_is_intact(archived) && archived.iter().all(|(key, value)| K::intact(key) && V::intact(value))
    }
}

impl<K, S> Shared for HashSet<K, S>
where
    K: Shared + Hash + Eq,
    K::Archived: Hash + Eq,
    S: BuildHasher + Default + 'static,
{
    type View = ArchivedHashSet<K::Archived>;
    const FLAT: bool = false;

    #[inline]
    fn view(archived: &Archived<Self>) -> &Self::View {
        archived
    }

    fn schema(schema: &mut Schema) {
        schema.word("HashSet<");
        schema.out_of_line(1, Schema::element::<K>);
        schema.word(">");
    }

    fn debug(archived: &Archived<Self>, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(archived.iter().map(AsDebug::<K>)).finish()
    }

    fn eq_archived(archived: &Archived<Self>, value: &Self) -> bool {
        archived.len() == value.len() && archived.iter().all(|key| value.contains(&to_owned::<K>(key, None)))
    }

    #[inline]
    fn intact(archived: &Archived<Self>) -> bool {
        set_is_intact(archived) && archived.iter().all(K::intact)
    }
}

impl<K, V> Shared for BTreeMap<K, V>
where
    K: Shared + Ord,
    K::Archived: Ord,
    V: Shared,
{
    type View = ArchivedBTreeMap<K::Archived, V::Archived>;
    const FLAT: bool = false;

    #[inline]
    fn view(archived: &Archived<Self>) -> &Self::View {
        archived
    }

    fn schema(schema: &mut Schema) {
        schema.word("BTreeMap<");
        schema.out_of_line(TREE_LEVELS, |schema| {
            schema.element::<K>();
            schema.element::<V>();
        });
        schema.word(">");
    }

    fn debug(archived: &Archived<Self>, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(archived.iter().map(|(key, value)| (AsDebug::<K>(key), AsDebug::<V>(value)))).finish()
    }

    fn eq_archived(archived: &Archived<Self>, value: &Self) -> bool {
        archived.len() == value.len()
            && archived.iter().zip(value).all(|((key, entry), (own_key, own))| K::eq_archived(key, own_key) && V::eq_archived(entry, own))
    }

    #[inline]
    fn intact(archived: &Archived<Self>) -> bool {
        tree_is_intact(archived) && archived.iter().all(|(key, value)| K::intact(key) && V::intact(value))
    }
}

impl<K> Shared for BTreeSet<K>
where
    K: Shared + Ord,
    K::Archived: Ord,
{
    type View = ArchivedBTreeSet<K::Archived>;
    const FLAT: bool = false;

    #[inline]
    fn view(archived: &Archived<Self>) -> &Self::View {
        archived
    }

    fn schema(schema: &mut Schema) {
        schema.word("BTreeSet<");
        schema.out_of_line(TREE_LEVELS, Schema::element::<K>);
        schema.word(">");
    }

    fn debug(archived: &Archived<Self>, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(archived.iter().map(AsDebug::<K>)).finish()
    }

    fn eq_archived(archived: &Archived<Self>, value: &Self) -> bool {
        archived.len() == value.len() && archived.iter().zip(value).all(|(archived, value)| K::eq_archived(archived, value))
    }

    #[inline]
    fn intact(archived: &Archived<Self>) -> bool {
        tree_set_is_intact(archived) && archived.iter().all(K::intact)
    }
}
