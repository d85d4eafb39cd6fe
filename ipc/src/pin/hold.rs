//! Pins in the hands of readers: of a thread, and owned by a snapshot.

use super::{FLOOR_PLACE, PinTable, TRAVELLING};
use crate::arena::Root;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A version held in place. Dropping it lets the version go.
pub struct Hold<'g> {
    table: &'g PinTable,
    /// How often the word is held. Of no meaning for the floor, which has a count of its own.
    count: &'g AtomicU32,
    /// Block and word, or one of the marks below.
    place: u32,
    /// The counts of a thread's block are the thread's: neither `Send` nor `Sync`.
    _thread: PhantomData<*const ()>,
}

/// A version held in place, with what it shows.
pub struct Pin<'g> {
    hold: Hold<'g>,
    root: Root,
}

impl<'g> Pin<'g> {
    #[inline]
    pub(super) fn at(table: &'g PinTable, place: u32, root: Root) -> Self {
        let count = if place == FLOOR_PLACE { &table.blocks[0].counts[0] } else { table.count(place) };
        Pin { hold: Hold { table, count, place, _thread: PhantomData }, root }
    }

    /// The hold without the root.
    #[inline]
    pub fn into_hold(self) -> Hold<'g> {
        self.hold
    }

    /// The hold.
    #[inline]
    pub fn hold(&self) -> &Hold<'g> {
        &self.hold
    }

    /// What the pinned version shows.
    #[inline]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The table that this pin is of.
    #[inline]
    pub fn table(&self) -> &'g PinTable {
        self.hold.table
    }
}

impl Clone for Pin<'_> {
    fn clone(&self) -> Self {
        Pin { hold: self.hold.clone(), root: self.root }
    }
}

impl<'g> Hold<'g> {
    /// The table that this hold is of.
    #[inline]
    pub fn table(&self) -> &'g PinTable {
        self.table
    }
}

impl<'g> Clone for Hold<'g> {
    /// Another hold on the same version, of the same kind.
    #[inline(always)]
    fn clone(&self) -> Hold<'g> {
        if self.place & TRAVELLING == 0 {
            self.count.store(self.count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        } else {
            self.table.hold_shared(self.place);
        }
        Hold { _thread: PhantomData, ..*self }
    }
}

impl Drop for Hold<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // In a forked child the page is not mapped, and the words are the parent's.
        if !self.table.stamp.is_current() {
            return;
        }
        let left = self.count.load(Ordering::Relaxed).wrapping_sub(1);
        if self.place & TRAVELLING == 0 && left != 0 {
            self.count.store(left, Ordering::Release);
        } else {
            self.table.unpin(self.place);
        }
    }
}

/// A pin that owns its table: for snapshots, which travel and outlive the handles they were made from.
pub struct OwnedPin {
    table: Arc<PinTable>,
    place: u32,
    root: Root,
}

impl OwnedPin {
    /// Pins the newest version.
    pub fn new(table: &Arc<PinTable>) -> OwnedPin {
        let pin = table.pin_travelling();
        let owned = OwnedPin { table: table.clone(), place: pin.hold.place, root: pin.root };
        std::mem::forget(pin);
        owned
    }

    /// What the pinned version shows.
    #[inline]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The table that this pin is of.
    #[inline]
    pub fn table(&self) -> &Arc<PinTable> {
        &self.table
    }
}

impl Drop for OwnedPin {
    fn drop(&mut self) {
        if self.table.stamp.is_current() {
            self.table.unpin(self.place);
        }
    }
}
