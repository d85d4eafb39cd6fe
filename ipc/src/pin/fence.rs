//! Who makes the fence between announcing a version and looking again: each reader, or the manager for all of them.
//!
//! A full fence keeps the cache misses of one read from overlapping with those of the next, which doubles the time of reads
//! of random keys. So a reader may leave it out (step 3 of `pin`'s table), if the manager makes up for it, once a scan:
//!
//! | | who | step | |
//! |---|---|---|---|
//! | a | manager | store *version* = v + 1 | publish |
//! | b | manager | full fence | |
//! | b1 | manager | load *relies* of all pages | |
//! | b2 | manager | if any says 1: `membarrier`; if that fails, free nothing | |
//! | c | manager | load all pin words | scan |
//!
//! While b2 runs, every running thread of every registered process comes to a point *p* in its program, up to which the
//! manager then sees its stores, and from which on it sees the manager's. (A thread that does not run passed one when it was
//! stopped.) If *p* lies before the re-check, that finds v + 1. If it lies behind, the announcement lies before *p*, and the
//! scan finds it. All that the reader must do is announce and re-check in this order: a fence for the compiler.
//!
//! How processors reorder does not matter to this. On x86 the announcement may wait in a store buffer while the re-check is
//! loaded; on aarch64 the two may change places, and reads under the pin may begin early. Whatever lies before *p* is finished
//! there, and whatever lies behind has not begun. The reads come after the re-check (Acquire) and before the store of 0
//! (Release). A word that is held already was announced earlier in the same thread. And a pin that the scan misses is on
//! v + 1 or newer: from there nothing is reached that v + 1 had retired, and what is lent in it the manager keeps itself until
//! an acknowledgement (Release) that comes after the pin.
//!
//! **Relies.** States: 0 each announcement of this page is fenced; 1 not any more. Only its client writes it, once. The switch
//! needs no answer: the client registers, stores 1, fences, and only then leaves fences out. If b1 finds 0, then b came before
//! that fence, so whatever is announced without a fence of its own has been checked against v + 1 or newer, which the frees
//! that follow b1 do not concern.
//!
//! Registering costs nothing while a process has one thread; in others the kernel waits for all processors, for some 10 ms. So
//! those register when they have made [`FENCES`] fences, which took about a tenth of that: who reads little never pays.
//! Where the kernel has no such barrier, or refuses it, or the manager has none (it says so in its welcome), nothing switches.

use super::{BlockState, PinTable, PinWords, RELIES};
use crate::{arena, sys};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, compiler_fence, fence};

/// Fences that a thread makes before its process registers.
pub(super) const FENCES: u32 = 1 << 16;

/// How announcements of a table are fenced. States: see the constants.
#[derive(Default)]
pub(super) struct Fencing(AtomicU8);

/// Each reader makes its own fences, for ever or while somebody is registering.
const OWN: u8 = 0;
/// The same, but the manager could do it: to be registered for.
const COUNTED: u8 = 1;
/// The manager makes them.
const MANAGERS: u8 = 2;

impl Fencing {
    /// Whether announcements go without a fence of their own.
    #[inline(always)]
    pub(super) fn is_managers(&self) -> bool {
        // SYNC: Acquire pairs with the Release in `register`: the fence there comes before whatever is announced without one.
        self.0.load(Ordering::Acquire) == MANAGERS
    }
}

/// An announcement whose fence the manager makes, see the head.
pub(super) struct Announcement<'a> {
    pub(super) table: &'a PinTable,
    pub(super) word: &'a AtomicU64,
}

impl PinWords for Announcement<'_> {
    #[inline(always)]
    fn current(&self) -> u64 {
        arena::version(&self.table.arena)
    }

    #[inline(always)]
    fn announce(&self, version: u64) {
        self.word.store(version, Ordering::Relaxed);
    }

    #[inline(always)]
    fn fence(&self) {
        // SYNC: pairs with the barrier that the manager puts into this thread before its scan.
        compiler_fence(Ordering::SeqCst);
    }
}

/// One that is fenced where that is needed.
pub(super) struct FencedAnnouncement<'a> {
    pub(super) to: Announcement<'a>,
    /// The block of the word, unless it is the floor's.
    pub(super) state: Option<&'a BlockState>,
}

impl PinWords for FencedAnnouncement<'_> {
    fn current(&self) -> u64 {
        self.to.current()
    }

    fn announce(&self, version: u64) {
        self.to.announce(version);
    }

    fn fence(&self) {
        if self.to.table.fencing.is_managers() { self.to.fence() } else { self.to.table.fence(self.state) }
    }
}

impl PinTable {
    /// The manager of this table puts barriers into its readers: they may leave theirs out as soon as that pays.
    pub fn rely_on_manager(&self) {
        self.fencing.0.store(COUNTED, Ordering::Relaxed);
        if sys::is_single_threaded() {
            self.register();
        }
    }

    /// Whether this process is registered for barriers, and the manager says that those who wait for others can ask for them.
    #[inline(always)]
    pub fn is_registered(&self) -> bool {
        self.fencing.is_managers()
    }

    /// A reader's own fence.
    pub(super) fn fence(&self, state: Option<&BlockState>) {
        // SYNC: pairs with the SeqCst fence before the manager's scan, see `pin`'s table.
        fence(Ordering::SeqCst);
        if let Some(state) = state
            && self.fencing.0.load(Ordering::Relaxed) == COUNTED
        {
            let fences = state.fences.load(Ordering::Relaxed) + 1;
            state.fences.store(fences, Ordering::Relaxed);
            if fences >= FENCES {
                self.register();
            }
        }
    }

    #[cold]
    fn register(&self) {
        // One thread does it, the others go on meanwhile. Who is refused makes its own fences from now on.
        let mine = self.fencing.0.compare_exchange(COUNTED, OWN, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if mine && sys::register_for_barriers().is_ok() {
            self.page.word(RELIES).store(1, Ordering::Relaxed);
            // SYNC: pairs with the manager's SeqCst fence b: it finds *relies*, or this process what was published before b.
            fence(Ordering::SeqCst);
            self.fencing.0.store(MANAGERS, Ordering::Release);
        }
    }
}
