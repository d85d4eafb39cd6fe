//! The checker and the deserialiser, and everything of the serialiser that needs `unsafe`.
//!
//! All three are concrete types without lifetimes, so that [`Shared`] needs no higher-ranked bounds. The checker is what stands
//! between foreign bytes and safe code: rkyv walks the archive and asks it about every pointer; afterwards [`Shared::intact`]
//! looks at what rkyv leaves open. Everything here believes nothing of the bytes but their address and length.
#![allow(unsafe_code)] // rkyv's contexts are unsafe traits, and an archive is read by a cast of its bytes

use std::alloc::Layout;
use std::any::{Any, TypeId};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use rkyv::bytecheck::CheckBytes;
use rkyv::collections::btree_map::ArchivedBTreeMap;
use rkyv::collections::btree_set::ArchivedBTreeSet;
use rkyv::collections::swiss_table::{ArchivedHashMap, ArchivedHashSet};
use rkyv::primitive::{ArchivedI32, ArchivedU32};
use rkyv::rancor::{Fallible, Source};
use rkyv::ser::{Allocator, WriterExt};
use rkyv::validation::{ArchiveContext, ArchiveContextExt};
use rkyv::{Deserialize, Serialize};

use super::schema::text;
use super::serialise::Ser;
use super::shared::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::ARCHIVE_DEPTH_MAX;

/// What rkyv hands through on failure: nothing. The reason stands in the serialiser or the checker that failed.
pub type Fault = rkyv::rancor::Failure;

/// A [`Fault`] to return.
#[cold]
pub(super) fn fault() -> Fault {
    Fault::new(std::fmt::Error)
}

/// Where a handle that is read from a value finds the session it belongs to.
pub trait HandleSource {
    /// The session that the value was read through, or none. The proxy crate knows its concrete type.
    fn session(&self) -> Option<&Arc<dyn Any + Send + Sync>>;
}

/// What `#[derive(Shared)]` asks of a deserialiser.
pub trait Deserializer: Fallible<Error: Source> + HandleSource {}
impl<D: Fallible<Error: Source> + HandleSource + ?Sized> Deserializer for D {}

/// What `#[derive(Shared)]` asks of a checker.
pub trait Checker: Fallible<Error: Source> + ArchiveContext {}
impl<C: Fallible<Error: Source> + ArchiveContext + ?Sized> Checker for C {}

/// The deserialiser: copies archived values into private memory.
#[derive(Clone, Default)]
pub struct De {
    session: Option<Arc<dyn Any + Send + Sync>>,
}

impl De {
    /// A deserialiser that gives the handles it meets this session.
    pub fn new(session: Option<Arc<dyn Any + Send + Sync>>) -> Self {
        De { session }
    }
}

impl Fallible for De {
    type Error = Fault;
}

impl HandleSource for De {
    fn session(&self) -> Option<&Arc<dyn Any + Send + Sync>> {
        self.session.as_ref()
    }
}

/// A copy of an archived value in private memory. The handles in it get `session`; without one they bind at their first use.
#[inline]
pub fn to_owned<T: Shared>(archived: &T::Archived, session: Option<Arc<dyn Any + Send + Sync>>) -> T {
    // An archived value was checked when it was accessed, and no type of ours fails to deserialise a checked value.
    archived.deserialize(&mut De::new(session)).expect("a checked archive deserialises")
}

/// The checker: bounds, alignment, and a depth at which it stops, because it recurses once for each level of nesting.
pub struct Check {
    range: Range<usize>,
    levels_left: u32,
    too_deep: bool,
}

impl Check {
    /// A checker of an archive in `bytes`.
    #[inline]
    pub fn new(bytes: &[u8]) -> Self {
        let range = bytes.as_ptr_range();
        Check { range: range.start as usize..range.end as usize, levels_left: ARCHIVE_DEPTH_MAX, too_deep: false }
    }
}

impl Fallible for Check {
    type Error = Fault;
}

// SAFETY: `check_subtree_ptr` succeeds only if `ptr..ptr + size` lies in `self.range`, which starts as the address range of a
// live slice and only shrinks to parts of it, and if `ptr` is aligned. The bytes of a slice are initialised, so what passed can
// be read. An address before the range wraps to a distance beyond any range's end (INV-32).
unsafe impl ArchiveContext for Check {
    #[inline]
    fn check_subtree_ptr(&mut self, ptr: *const u8, layout: &Layout) -> Result<(), Fault> {
        // As distances from the range's start, which the compiler often knows.
        let at = (ptr as usize).wrapping_sub(self.range.start);
        let room = self.range.end - self.range.start;
        let inside = at <= room && layout.size() <= room - at;
        let aligned = ptr as usize & (layout.align() - 1) == 0;
        if inside && aligned { Ok(()) } else { Err(fault()) }
    }

    #[inline]
    unsafe fn push_subtree_range(&mut self, root: *const u8, end: *const u8) -> Result<Range<usize>, Fault> {
        if self.levels_left == 0 {
            self.too_deep = true;
            return Err(fault());
        }
        self.levels_left -= 1;
        let outer = end as usize..self.range.end;
        self.range.end = root as usize;
        Ok(outer)
    }

    #[inline]
    unsafe fn pop_subtree_range(&mut self, range: Range<usize>) -> Result<(), Fault> {
        if range.start < self.range.end {
            return Err(fault());
        }
        self.range = range;
        self.levels_left += 1;
        Ok(())
    }
}

/// Reads the archive of a `T` in place. Everything is checked first: bounds, nesting, UTF-8, enum tags, `bool`s, `char`s, tables.
///
/// `bytes` end with the archive's root and start at a multiple of 16, as [`Ser`] lays them out.
///
/// # Errors
/// [`ErrorKind::Corrupt`] if the bytes are not the archive of a `T`.
#[inline]
pub fn access<T: Shared>(bytes: &[u8]) -> Result<&T::Archived> {
    let mut check = Check::new(bytes);
    match checked::<T>(bytes, &mut check) {
        Ok(archived) => Ok(archived),
        Err(Fault { .. }) => Err(corrupt::<T>(bytes.len(), check.too_deep)),
    }
}

#[inline]
fn checked<'a, T: Shared>(bytes: &'a [u8], check: &mut Check) -> Result<&'a T::Archived, Fault> {
    let at = bytes.len().checked_sub(size_of::<T::Archived>()).ok_or_else(fault)?;
    let root = bytes[at..].as_ptr().cast::<T::Archived>();
    check.in_subtree(root, |check| {
        // SAFETY: `in_subtree` has found `root` to be aligned and all of it to lie inside of `bytes` (INV-32).
        unsafe { T::Archived::check_bytes(root, check) }
    })?;
    // SAFETY: `check_bytes` found a valid `T::Archived` at `root`, which lives and stays unchanged as long as `bytes` is borrowed (INV-32).
    let archived = unsafe { &*root };
    if T::intact(archived) { Ok(archived) } else { Err(fault()) }
}

#[cold]
fn corrupt<T: Shared>(len: usize, too_deep: bool) -> Error {
    let why = if too_deep {
        format!("it claims to be nested deeper than {ARCHIVE_DEPTH_MAX} levels")
    } else {
        "a length, pointer, tag or character in it is not possible".to_string()
    };
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "reading a value in place: its {len} bytes are no archive of `{}`: {why}; its writer, or a process that can write over it, has damaged it: write it anew",
            text::<T>()
        ),
    )
}

/// Whether the archive of a `T` that was just written can be read again, that is, is not nested too deeply.
pub(super) fn is_readable<T: Shared>(bytes: &[u8]) -> bool {
    checked::<T>(bytes, &mut Check::new(bytes)).is_ok()
}

/// Reads the archive of a `T` in place, without a check.
///
/// # Safety
/// `bytes` must be exactly the bytes that [`Ser::put`] laid down for this `T` (the whole range it returned), or bytes that
/// [`access::<T>`](access) accepted before, unchanged since, and start at a multiple of 16.
#[inline]
pub unsafe fn access_unchecked<T: Shared>(bytes: &[u8]) -> &T::Archived {
    debug_assert!(bytes.len() >= size_of::<T::Archived>());
    let at = bytes.len() - size_of::<T::Archived>();
    let root = bytes.as_ptr().wrapping_add(at).cast::<T::Archived>();
    debug_assert!(root.is_aligned());
    // SAFETY: by the caller's promise a valid `T::Archived` ends where `bytes` end; it lives as long as they are borrowed (INV-32).
    unsafe { &*root }
}

/// Names bytes that never change: the block that they lie in, and the version that bore it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Number of the arena's mapping in this process.
    pub arena: u64,
    /// Offset of the bytes in the arena.
    pub offset: u64,
    /// Version that made their block; never 0.
    pub birth: u64,
}

/// Values that a thread remembers to have checked.
const REMEMBERED: usize = 256;

type Remembered = Cell<Option<(Identity, u64, TypeId)>>;

thread_local! {
    static REMEMBER: [Remembered; REMEMBERED] = const { [const { Cell::new(None) }; REMEMBERED] };
}

/// The same as [`access`], but checks each value once per thread and remembers it. For large values: a look at the memory
/// costs some nanoseconds, a check of a mebibyte of text half a millisecond.
///
/// # Errors
/// As [`access`].
pub fn access_remembered<T: Shared>(bytes: &[u8], identity: Identity) -> Result<&T::Archived> {
    let key = Some((identity, bytes.len() as u64, TypeId::of::<T>()));
    let place = (identity.offset >> 4 ^ identity.offset >> 12) as usize % REMEMBERED;
    if REMEMBER.try_with(|remembered| remembered[place].get() == key).unwrap_or(false) {
        // SAFETY: `access::<T>` has accepted these very bytes before: a block that is named by its offset and birth never
        // changes (INV-1, INV-5), and the length and the type are the same.
        return Ok(unsafe { access_unchecked::<T>(bytes) });
    }
    let archived = access::<T>(bytes)?;
    let _ = REMEMBER.try_with(|remembered| remembered[place].set(key));
    Ok(archived)
}

/// Writes a value's out-of-line parts and then its root.
#[inline]
pub(super) fn write_root<T: Serialize<Ser>>(value: &T, ser: &mut Ser) -> Result<(), Fault> {
    let resolver = value.serialize(ser)?;
    ser.align_for::<T::Archived>()?;
    // SAFETY: the resolver is the one that serialising `value` returned, and the serialiser was aligned for the root above (INV-32).
    unsafe { ser.resolve_aligned(value, resolver) }.map(|_| ())
}

// SAFETY: every allocation is one of the global allocator's own, made for the layout that was asked for; it is aliased by nobody (INV-33).
unsafe impl Allocator for Ser {
    unsafe fn push_alloc(&mut self, layout: Layout) -> Result<NonNull<[u8]>, Fault> {
        // SAFETY: the layout has a size, by the contract of `push_alloc` (INV-33).
        let start = NonNull::new(unsafe { std::alloc::alloc(layout) });
        let start = start.unwrap_or_else(|| std::alloc::handle_alloc_error(layout));
        Ok(NonNull::slice_from_raw_parts(start, layout.size()))
    }

    unsafe fn pop_alloc(&mut self, start: NonNull<u8>, layout: Layout) -> Result<(), Fault> {
        // SAFETY: `start` came from `push_alloc` with the same layout, by the contract of `pop_alloc` (INV-33).
        unsafe { std::alloc::dealloc(start.as_ptr(), layout) };
        Ok(())
    }
}

/// rkyv's B-tree nodes hold this many entries, and its hash tables are probed in groups of this many control bytes.
const ENTRIES_PER_NODE: usize = 5;
const GROUP: usize = 16;

/// An archived hash table as rkyv 0.8.18 lays it out: buckets downwards and control bytes upwards from where `ptr` points.
#[repr(C)]
struct Table {
    ptr: ArchivedI32,
    len: ArchivedU32,
    capacity: ArchivedU32,
}

/// Whether lookups in a checked hash map touch only buckets that were checked, and end.
///
/// A lookup reads 16 control bytes at a time, beyond the capacity too: there the first ones are repeated. rkyv's check looks
/// into the buckets of the control bytes below the capacity, and at a part of the repetition only. A byte there that claims a
/// full bucket leads a lookup into bytes that nobody has checked.
pub(super) fn map_is_intact<K, V>(map: &ArchivedHashMap<K, V>) -> bool {
    const { assert!(size_of::<ArchivedHashMap<K, V>>() == size_of::<Table>()) };
    // SAFETY: the map is a transparent wrapper of rkyv's `repr(C)` table of these three words, each of which may have any value (INV-32).
    let table = unsafe { &*std::ptr::from_ref(map).cast::<Table>() };
    let (len, capacity) = (table.len.to_native(), table.capacity.to_native() as usize);
    if len == 0 {
        return true;
    }
    let controls = std::ptr::from_ref(&table.ptr).cast::<u8>().wrapping_offset(table.ptr.to_native() as isize);
    let count = capacity.next_multiple_of(GROUP) + GROUP - 1;
    // SAFETY: the check found all `count` control bytes of a table that is not empty to lie inside of the archive (INV-32).
    let controls = unsafe { std::slice::from_raw_parts(controls, count) };
    let is_full = |control: u8| control & 0x80 == 0;
    let (own, beyond) = controls.split_at(capacity);
    let (repeated, rest) = beyond.split_at(beyond.len().min(capacity));
    repeated == &own[..repeated.len()] && !rest.iter().any(|control| is_full(*control))
}

/// [`map_is_intact`] for a set.
pub(super) fn set_is_intact<K>(set: &ArchivedHashSet<K>) -> bool {
    // SAFETY: rkyv's set is a transparent wrapper of the map with unit values (INV-32).
    map_is_intact(unsafe { &*std::ptr::from_ref(set).cast::<ArchivedHashMap<K, ()>>() })
}

/// An archived B-tree as rkyv 0.8.18 lays it out.
#[repr(C)]
struct Tree {
    root: ArchivedI32,
    len: ArchivedU32,
}

#[repr(C)]
struct Node<K, V> {
    kind: u8,
    keys: [MaybeUninit<K>; ENTRIES_PER_NODE],
    values: [MaybeUninit<V>; ENTRIES_PER_NODE],
}

#[repr(C)]
struct Leaf<K, V> {
    node: Node<K, V>,
    len: ArchivedU32,
}

#[repr(C)]
struct Inner<K, V> {
    node: Node<K, V>,
    children: [ArchivedI32; ENTRIES_PER_NODE + 1],
}

/// Whether iterating over a checked B-tree touches only entries that were checked.
///
/// rkyv's iterator takes the first entry of every leaf and the first child of every inner node without asking whether there is
/// one; its check accepts empty leaves and missing children. The writer makes neither.
pub(super) fn tree_is_intact<K, V>(map: &ArchivedBTreeMap<K, V>) -> bool {
    const { assert!(size_of::<ArchivedBTreeMap<K, V>>() == size_of::<Tree>()) };
    // SAFETY: `ArchivedBTreeMap` is `repr(C)` with these two words (and a `PhantomData`), each of which may have any value (INV-32).
    let tree = unsafe { &*std::ptr::from_ref(map).cast::<Tree>() };
    // SAFETY: the check found the root of a tree that is not empty to be a node of this kind of tree, inside of the archive (INV-32).
    tree.len.to_native() == 0 || unsafe { node_is_intact(target::<K, V>(&tree.root)) }
}

/// [`tree_is_intact`] for a set.
pub(super) fn tree_set_is_intact<K>(set: &ArchivedBTreeSet<K>) -> bool {
    const { assert!(size_of::<ArchivedBTreeSet<K>>() == size_of::<ArchivedBTreeMap<K, ()>>()) };
    // SAFETY: rkyv's set is a transparent wrapper of the map with unit values (INV-32).
    tree_is_intact(unsafe { &*std::ptr::from_ref(set).cast::<ArchivedBTreeMap<K, ()>>() })
}

/// Where a relative pointer points: as many bytes from itself as it says.
fn target<K, V>(pointer: &ArchivedI32) -> *const Node<K, V> {
    std::ptr::from_ref(pointer).cast::<u8>().wrapping_offset(pointer.to_native() as isize).cast()
}

/// # Safety
/// `node` must be a node that the check has accepted, the leaves and inner nodes below it included.
unsafe fn node_is_intact<K, V>(node: *const Node<K, V>) -> bool {
    /// What rkyv writes for a pointer to nothing.
    const NOWHERE: i32 = 1;
    const LEAF: u8 = 0;
    // SAFETY: `node` is aligned and readable, and its kind says which of the two it is, by the caller's promise (INV-32).
    unsafe {
        if (*node).kind == LEAF {
            return (*node.cast::<Leaf<K, V>>()).len.to_native() > 0;
        }
        let children = &(*node.cast::<Inner<K, V>>()).children;
        let below = |child: &ArchivedI32| child.to_native() == NOWHERE || node_is_intact(target::<K, V>(child));
        children[0].to_native() != NOWHERE && children.iter().all(below)
    }
}
