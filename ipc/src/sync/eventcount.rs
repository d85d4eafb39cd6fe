//! Eventcount: how one sleeps until something has changed, and never past it.
//!
//! | word | meaning |
//! |---|---|
//! | bit 0 | somebody sleeps here, or is about to |
//! | bits 1–31 | how often sleepers have been notified |
//!
//! | | sleeper | notifier |
//! |---|---|---|
//! | 1 | sets bit 0, keeps the word: [`prepare`](Eventcount::prepare) | changes what is waited for |
//! | 2 | looks at what it waits for | looks at bit 0; if it is clear, that is all |
//! | 3 | sleeps while the word is the one it kept | raises the number, wakes |
//!
//! Of the two first steps one comes first: either the sleeper finds the change in its step 2, or the notifier finds the bit in its
//! own. And who has kept a word that was raised before its step 3 does not fall asleep.
//!
//! The bit stays set when one of several sleepers is woken; it is cleared by a notifier that found nobody asleep, which raises the
//! number again and wakes all who may have come in between. So a sleeper never sleeps on a word without the bit.
//!
//! Who is woken alone and does not want what it was woken for (its time was over) must pass it on: `notify_one` again.

use super::{Half, Memory, Waiting};
use crate::error::Result;
use crate::limits::RECOVERY_ATTEMPTS_MAX;
use crate::liveness::Slept;
use crate::points;

/// Somebody sleeps.
const ASLEEP: u32 = 1;
/// One notification.
const STEP: u32 = 2;

/// The word at an offset, as an eventcount.
pub struct Eventcount<'m, M: Memory + ?Sized> {
    memory: &'m M,
    at: usize,
}

impl<'m, M: Memory + ?Sized> Eventcount<'m, M> {
    /// The half word at this offset.
    #[inline(always)]
    pub fn new(memory: &'m M, at: usize) -> Self {
        Eventcount { memory, at }
    }

    /// What one sleeps on.
    pub fn word(&self) -> &'m M::Half {
        self.memory.half(self.at)
    }

    /// Whether anybody sleeps, or is about to.
    #[inline(always)]
    pub fn is_awaited(&self) -> bool {
        self.word().load() & ASLEEP != 0
    }

    /// Says that the caller is about to sleep. Look then whether it must; what comes back is for [`sleep`](Self::sleep).
    pub fn prepare(&self) -> u32 {
        let mut word = self.word().load();
        while word & ASLEEP == 0 {
            match self.word().compare_exchange(word, word | ASLEEP) {
                Ok(()) => return word | ASLEEP,
                Err(now) => word = now,
            }
        }
        word
    }

    /// Sleeps unless there was a notification since [`prepare`](Self::prepare).
    pub fn sleep(&self, prepared: u32, waiting: &impl Waiting<M>, most_ms: u64) -> Result<Slept> {
        points::client("eventcount: about to sleep");
        let slept = waiting.sleep(self.word(), prepared, most_ms);
        points::client("eventcount: awake");
        slept
    }

    /// What is waited for has changed in a way that serves one.
    #[inline(always)]
    pub fn notify_one(&self) {
        if self.is_awaited() {
            self.wake_one();
        }
    }

    #[cold]
    fn wake_one(&self) {
        let mut word = self.word().load();
        loop {
            if word & ASLEEP == 0 {
                return;
            }
            match self.word().compare_exchange(word, word.wrapping_add(STEP)) {
                Ok(()) => break,
                Err(now) => word = now,
            }
        }
        points::client("eventcount: raised, nobody woken");
        let raised = word.wrapping_add(STEP);
        if self.memory.wake(self.word(), 1) == 0 && self.word().compare_exchange(raised, raised.wrapping_add(STEP) & !ASLEEP).is_ok() {
            self.memory.wake(self.word(), u32::MAX);
        }
    }

    /// What is waited for has changed in a way that may serve all.
    #[inline(always)]
    pub fn notify_all(&self) {
        if self.is_awaited() {
            self.wake_all();
        }
    }

    #[cold]
    fn wake_all(&self) {
        let mut word = self.word().load();
        while word & ASLEEP != 0 {
            match self.word().compare_exchange(word, word.wrapping_add(STEP) & !ASLEEP) {
                Ok(()) => {
                    points::client("eventcount: raised, not all woken");
                    self.memory.wake(self.word(), u32::MAX);
                    return;
                }
                Err(now) => word = now,
            }
        }
    }

    /// The same for a recovery: whoever was to wake the sleepers may have died between raising the number and waking.
    pub fn recover(&self) {
        for _ in 0..RECOVERY_ATTEMPTS_MAX {
            let word = self.word().load();
            if word & ASLEEP == 0 || self.word().compare_exchange(word, word.wrapping_add(STEP) & !ASLEEP).is_ok() {
                break;
            }
        }
        self.memory.wake(self.word(), u32::MAX);
    }
}
