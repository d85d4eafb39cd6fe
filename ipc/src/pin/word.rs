//! A pin word's private side: which version its thread has in it, and how often.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Most holds of a thread on one version.
const HOLDS_MAX: u32 = u32::MAX / 2;

/// Ends the process, as `Rc` does when its count would overflow: somebody forgets guards without end, and the next but two thousand million would free
/// what they show. (Not to be unwound, so that no guard has to be in memory for that.)
#[cold]
extern "C" fn too_many_holds() -> ! {
    eprintln!(
        "commonhold: more than {HOLDS_MAX} guards on one version in one thread: are they forgotten (`mem::forget`)? The process ends here"
    );
    std::process::abort()
}

/// A pin word's private side.
#[derive(Default)]
pub(super) struct WordState {
    /// The version in it, while it is held.
    pub(super) version: AtomicU64,
    /// How often it is held.
    pub(super) count: AtomicU32,
    /// Where it is: block and word, with `TRAVELLING` if the block is no thread's; or `FLOOR_PLACE`.
    pub(super) place: AtomicU32,
}

impl WordState {
    #[inline(always)]
    pub(super) fn is_free(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    #[inline(always)]
    pub(super) fn holds(&self, version: u64) -> bool {
        !self.is_free() && self.version.load(Ordering::Relaxed) == version
    }

    #[inline(always)]
    pub(super) fn place(&self) -> u32 {
        self.place.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn hold(&self) -> &Self {
        self.hold_times(1)
    }

    #[inline(always)]
    pub(super) fn hold_times(&self, times: u32) -> &Self {
        let count = self.count.load(Ordering::Relaxed);
        if count > HOLDS_MAX {
            too_many_holds();
        }
        self.count.store(count + times, Ordering::Relaxed);
        self
    }
}
