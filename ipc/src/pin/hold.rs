//! Pins in the hands of readers: of a thread, and owned by a snapshot.

use super::{PinTable, TRAVELLING, WordState};
use crate::catalog::Root;
use std::marker::PhantomData;
use std::sync::Arc;

/// A version held in place. Dropping it lets the version go.
pub struct Hold<'g> {
    table: &'g PinTable,
    word: &'g WordState,
    /// The counts of a thread's block are the thread's: neither `Send` nor `Sync`.
    _thread: PhantomData<*const ()>,
}

/// A version held in place, with what it shows.
#[derive(Clone)]
pub struct Pin<'g> {
    pub(super) hold: Hold<'g>,
    pub(super) root: Root,
}

impl<'g> Pin<'g> {
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

impl<'g> Hold<'g> {
    /// The guard of a hold that has been counted.
    #[inline(always)]
    pub(super) fn new(table: &'g PinTable, word: &'g WordState) -> Self {
        Hold { table, word, _thread: PhantomData }
    }

    /// The table that this hold is of.
    #[inline(always)]
    pub fn table(&self) -> &'g PinTable {
        self.table
    }
}

impl<'g> Hold<'g> {
    /// Two more holds on the same version, of the same kind, in one go: a count that has just been stored takes its time to be loaded.
    #[inline(always)]
    pub fn two_more(&self) -> (Hold<'g>, Hold<'g>) {
        if self.word.place() & TRAVELLING == 0 {
            self.word.hold_times(2);
        } else {
            self.table.hold_shared(self.word);
            self.table.hold_shared(self.word);
        }
        (Hold { _thread: PhantomData, ..*self }, Hold { _thread: PhantomData, ..*self })
    }
}

impl<'g> Clone for Hold<'g> {
    /// Another hold on the same version, of the same kind.
    #[inline(always)]
    fn clone(&self) -> Hold<'g> {
        if self.word.place() & TRAVELLING == 0 {
            self.word.hold();
        } else {
            self.table.hold_shared(self.word);
        }
        Hold { _thread: PhantomData, ..*self }
    }
}

impl Drop for Hold<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.word.place() & TRAVELLING != 0 {
            self.table.unpin_shared(self.word);
        } else {
            self.table.release(self.word);
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
        let owned = OwnedPin { table: table.clone(), place: pin.hold.word.place(), root: pin.root };
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
        self.table.unpin_shared(self.table.word_state(self.place));
    }
}

/// A lane, and the block that is its, which belong to no thread. Given back when dropped.
pub struct OwnLane {
    table: Arc<PinTable>,
    block: u32,
}

impl OwnLane {
    /// The lane's number.
    #[inline]
    pub fn number(&self) -> u16 {
        self.block as u16
    }
}

impl PinTable {
    /// A lane for whoever carries it from thread to thread; `None` if there are none left.
    pub fn own_lane(&self) -> Option<OwnLane> {
        let table = self.this.upgrade()?;
        self.claim().map(|block| OwnLane { table, block })
    }
}

impl Drop for OwnLane {
    fn drop(&mut self) {
        self.table.give_back(self.block);
    }
}
