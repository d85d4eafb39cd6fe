//! Pins as the manager sees them.

use super::{BLOCKS, BLOCKS_USED, FLOOR, LEFT, PAGE_BYTES, RELIES, WORDS, acknowledged_offset, word_offset};
use crate::error::Result;
use crate::map::{Access, Segment};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

/// What a pin word means to the manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pinned {
    /// This version.
    At(u64),
    /// This version and all newer ones.
    From(u64),
}

/// The manager's view of a session's page: never believed, never written.
pub struct PinScan {
    page: Segment,
}

impl PinScan {
    /// Maps a session's page read-only.
    pub fn map(page: &OwnedFd) -> Result<Self> {
        Ok(PinScan { page: Segment::map(page, PAGE_BYTES, Access::ReadOnly)? })
    }

    /// Whether the client leaves its readers' fences to the manager: then [`scan`](Self::scan) only after a barrier in all of
    /// them. Ask after step b, see `pin::fence`.
    pub fn relies_on_manager(&self) -> bool {
        // SYNC: between this thread's SeqCst fence and its barrier; the client's fence after the store is what it is paired with.
        self.page.word(RELIES).load(Ordering::Relaxed) != 0
    }

    /// Calls `found` with each pin that can be true: of a version from 1 to `newest`.
    ///
    /// The caller has published its last version and issued a full fence before (steps b to b2).
    pub fn scan(&self, newest: u64, mut found: impl FnMut(Pinned)) {
        let floor = self.page.word(FLOOR).load(Ordering::Acquire);
        if floor != 0 {
            found(Pinned::From(floor.min(newest)));
        }
        let used = self.page.word(BLOCKS_USED).load(Ordering::Acquire).min(BLOCKS as u64) as usize;
        for block in 0..used {
            for word in 0..WORDS {
                // SYNC: Acquire pairs with the Release store of 0: the reads under that pin are over.
                let version = self.page.word(word_offset(block, word)).load(Ordering::Acquire);
                if version != 0 && version <= newest {
                    found(Pinned::At(version));
                }
            }
        }
    }

    /// Whether the client may read under these pins: it has made a table of the page, and has not said that it is done.
    ///
    /// Ask when its connection is over: a client makes its table before it closes that, or never.
    pub fn may_be_read_under(&self) -> bool {
        // SYNC: Acquire pairs with the Release store in the table's drop: all reads are over.
        self.page.word(BLOCKS_USED).load(Ordering::Acquire) != 0 && self.page.word(LEFT).load(Ordering::Acquire) == 0
    }

    /// The last call of a lane whose lent values its client has dealt with. Load it before scanning.
    pub fn acknowledged(&self, lane: u16) -> u64 {
        // SYNC: Acquire pairs with the Release store in `Lane::acknowledge`: a pin made before it is visible after it.
        if usize::from(lane) < BLOCKS { self.page.word(acknowledged_offset(lane.into())).load(Ordering::Acquire) } else { u64::MAX }
    }
}
