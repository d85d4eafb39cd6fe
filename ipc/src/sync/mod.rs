//! Locks and their kin: words in an object's segment that all its users change, without a call.
//!
//! Three rules. **Every claim names its owner**: a holder, a reader, a permit, a waiter is a word with a [`Claim`], the session's
//! number and the thread; there are no anonymous counters. **One word decides**: whatever a process is killed between, each claim
//! was either made or not. **One function of each kind takes back** what a session that is over has claimed, and wakes all
//! sleepers, since one who was to be woken, or to wake, may have died before: the manager runs it when the kernel says that a
//! process is gone.
//!
//! All of it works on [`Memory`], which is a segment, or a model of one (`tests/sync_model`). A process that is stopped has no
//! wake-up of its own any more, but may have had one just before: so no sleep is longer than
//! [`LOCK_LOOK_MS`](crate::limits::LOCK_LOOK_MS) without a look at the words.
//!
//! SYNC: every access here is SeqCst, but for what only a lock's holder touches, and what only the owner of a queue's item sets
//! (Release). The protocols are pairs of "write mine, then look at yours" between two words, which nothing weaker orders; and a
//! claim's swap or exchange is an acquire and a release of what the object protects. The partner of each is named where the words
//! are.

pub mod barrier;
mod claim;
pub mod condition;
pub mod event;
mod eventcount;
mod lock;
mod roster;
pub mod rwlock;
pub mod semaphore;
mod several;
pub mod turns;

pub use claim::{Claim, FLAGS};
pub use eventcount::Eventcount;
pub use lock::{LOCK_BYTES, Lock, Taken};
pub use roster::Roster;
pub use several::{Sleeper, wait_for_any};

use crate::error::{Error, ErrorKind, Result};
use crate::liveness::Slept;
use crate::map::Segment;
use crate::sys;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, compiler_fence};

/// A shared word.
pub trait Word {
    /// What it holds.
    fn load(&self) -> u64;
    /// Replaces what it holds, and returns that.
    fn swap(&self, new: u64) -> u64;
    /// Replaces `old`; otherwise says what it holds.
    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64>;
    /// Stores a word that only the holder of a lock touches, and so not in the one order of the others.
    fn store(&self, new: u64);
    /// Stores a word that only its owner may change, and others look at: who finds it finds all that came before it.
    fn set(&self, new: u64) {
        self.swap(new);
    }
    /// Stores a word that only its owner may change, and then looks at others without a fence between: whoever falls asleep over it
    /// makes up for that ([`Waiting::fence_others`]).
    fn set_relying(&self, new: u64) {
        self.swap(new);
    }
}

/// A shared word to sleep on.
pub trait Half {
    /// What it holds.
    fn load(&self) -> u32;
    /// Replaces `old`; otherwise says what it holds.
    fn compare_exchange(&self, old: u32, new: u32) -> Result<(), u32>;
}

/// Where the words are.
pub trait Memory {
    /// A word of 8 bytes.
    type Word: Word;
    /// A word of 4 bytes.
    type Half: Half;
    /// The word at an offset.
    fn word(&self, at: usize) -> &Self::Word;
    /// The smaller word at an offset.
    fn half(&self, at: usize) -> &Self::Half;
    /// Wakes up to so many sleepers of a word, and says how many there were.
    fn wake(&self, word: &Self::Half, count: u32) -> usize;
}

/// How one caller waits: its clock, its patience, its deadline.
pub trait Waiting<M: Memory + ?Sized> {
    /// Looks again and again for a while, if that is likely to pay. Whether it has become `ready`.
    fn spin(&self, ready: &mut dyn FnMut() -> bool) -> bool;
    /// The same with so many nanoseconds between the looks: who looks at a word all the time keeps its owner from working with it.
    fn spin_apart(&self, _apart_ns: u64, ready: &mut dyn FnMut() -> bool) -> bool {
        self.spin(ready)
    }
    /// Sleeps while the word holds `expected`, until the deadline, but no longer than so many milliseconds.
    fn sleep(&self, word: &M::Half, expected: u32, most_ms: u64) -> Result<Slept>;
    /// Puts a full barrier into all who use [`Word::set_relying`], wherever they are. `false`: it could not, so who is there may not have
    /// seen what this caller has announced, nor this caller what they have stored; then look again soon.
    fn fence_others(&self) -> bool {
        true
    }
    /// Whether the deadline has passed.
    fn is_over(&self) -> bool;
    /// Whether it has been so long that it is this caller's turn before newcomers.
    fn is_long(&self) -> bool;
    /// It has slept in vain, since the owner of this claim does not move: whether there is such an owner. If not, then because it was recovered
    /// before this returns, or never was. `None`: that cannot be found out soon.
    fn knows(&self, claim: Claim) -> Result<Option<bool>>;
}

impl Word for AtomicU64 {
    #[inline(always)]
    fn load(&self) -> u64 {
        self.load(SeqCst)
    }

    #[inline(always)]
    fn set(&self, new: u64) {
        // SYNC: pairs with the load of whoever finds it.
        self.store(new, Release);
    }

    #[inline(always)]
    fn set_relying(&self, new: u64) {
        // SYNC: pairs with the exchange of whoever takes what is free; and with the barrier of who falls asleep over it, which it
        // puts between this and what is loaded next. That is a matter of processors, if the compiler keeps the order.
        self.store(new, Release);
        compiler_fence(SeqCst);
    }

    #[inline(always)]
    fn swap(&self, new: u64) -> u64 {
        self.swap(new, SeqCst)
    }

    #[inline(always)]
    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        self.compare_exchange(old, new, SeqCst, SeqCst).map(|_| ())
    }

    #[inline(always)]
    fn store(&self, new: u64) {
        self.store(new, Relaxed);
    }
}

impl Half for AtomicU32 {
    #[inline(always)]
    fn load(&self) -> u32 {
        self.load(SeqCst)
    }

    #[inline(always)]
    fn compare_exchange(&self, old: u32, new: u32) -> Result<(), u32> {
        self.compare_exchange(old, new, SeqCst, SeqCst).map(|_| ())
    }
}

impl Memory for Segment {
    type Word = AtomicU64;
    type Half = AtomicU32;

    #[inline(always)]
    fn word(&self, at: usize) -> &AtomicU64 {
        self.word(at)
    }

    #[inline(always)]
    fn half(&self, at: usize) -> &AtomicU32 {
        self.half(at)
    }

    fn wake(&self, word: &AtomicU32, count: u32) -> usize {
        sys::futex_wake(word, count)
    }
}

/// The error for words that no protocol here writes.
#[cold]
pub fn scribbled(what: &str) -> Error {
    let text = format!("the words of this {what} make no sense: a process that uses it has written over them; make a new one");
    Error::new(ErrorKind::Corrupt, text)
}
