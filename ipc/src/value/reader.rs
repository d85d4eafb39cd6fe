//! What reads an archive: the checker, and the deserialiser. Neither has a lifetime, so that [`Shared`](super::Shared) needs no
//! higher-ranked bounds; both lie below that trait, which names them, and [`access`](super::access) and
//! [`to_owned`](super::to_owned) above it.
#![allow(unsafe_code)] // rkyv's context of a check is an unsafe trait

use std::alloc::Layout;
use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use rkyv::rancor::{Fallible, Source};
use rkyv::validation::ArchiveContext;

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

/// The checker: bounds, alignment, and a depth at which it stops, because it recurses once for each level of nesting.
pub struct Check {
    range: Range<usize>,
    levels_left: u32,
    pub(super) too_deep: bool,
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
