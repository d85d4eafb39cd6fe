//! Striped counters: a number in parts, one for each processor, that are added to apart.
//!
//! | offset | bytes | what | written |
//! |---|---|---|---|
//! | 128 × (1 + *s*) | 8 | stripe *s*: what has been added there, modulo 2⁶⁴ | by all, each addition one instruction |
//!
//! A stripe has two cache lines, which processors fetch in pairs. How many there are follows from the segment's length.
//!
//! A thread adds to the stripe of the processor that it runs on, so that hardly ever two of them want one line at the same time, and
//! stripes need no owners: nothing has to be claimed, given back or recovered, and which process added what does not matter. A
//! thread that is moved between looking and adding adds to another's stripe, which costs a miss of the cache. An addition is one
//! instruction: a process killed at any moment has made it or not, and what it has made stays.
//!
//! A sum is of all stripes, read one after the other. So it has every addition that came before the reading (by the reader's own
//! knowledge: its own, or one that it was told of), and of those that run meanwhile some; where only ever more is added, sums that one
//! thread reads never fall. But it is not of one instant: of a +1 and a −1 after it, by others, it may have the second alone.
//!
//! Every number is one that a stripe may hold, so who writes over a segment makes its sum wrong, which cannot be noticed.

use crate::limits::COUNTER_STRIPES_MAX;
use crate::map::Segment;
use crate::segment::Shape;
use crate::sys;
use std::cell::Cell;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes from one stripe to the next, and before the first.
const STRIPE_BYTES: usize = 128;

/// Additions that a thread makes before it asks again on which processor it runs: asking costs some ten nanoseconds.
const ASK_AFTER: u32 = 64;

/// What the segment of a new counter is like, on a machine of so many processors.
pub fn shape(processors: usize, first: u64) -> Shape {
    let stripes = processors.clamp(1, COUNTER_STRIPES_MAX).next_power_of_two();
    Shape::whole((STRIPE_BYTES * (1 + stripes)) as u64, vec![(STRIPE_BYTES, first)])
}

/// The processor that the calling thread runs on, or ran on lately.
#[inline(always)]
fn processor() -> usize {
    thread_local!(static SEEN: Cell<(u32, u32)> = const { Cell::new((0, 0)) });
    let (left, seen) = SEEN.get();
    let (left, seen) = if left == 0 { (ASK_AFTER, sys::current_cpu()) } else { (left, seen) };
    SEEN.set((left - 1, seen));
    seen as usize
}

/// A counter in a segment.
pub struct Striped<'s> {
    words: &'s [AtomicU64],
}

impl<'s> Striped<'s> {
    /// The counter there.
    #[inline(always)]
    pub fn new(segment: &'s Segment) -> Self {
        Striped { words: segment.words() }
    }

    /// Stripes; never none, whatever the segment's length is.
    #[inline(always)]
    fn stripes(&self) -> usize {
        (self.words.len() * 8 / STRIPE_BYTES).saturating_sub(1)
    }

    /// Adds, modulo 2⁶⁴.
    #[inline(always)]
    pub fn add(&self, amount: u64) {
        // There is a power of two of them, as the manager makes them: otherwise some are not used.
        let stripe = processor() & (self.stripes().wrapping_sub(1));
        if let Some(word) = self.words.get(STRIPE_BYTES / 8 * (1 + stripe)) {
            word.fetch_add(amount, Relaxed);
        }
    }

    /// The sum, modulo 2⁶⁴.
    #[inline]
    pub fn sum(&self) -> u64 {
        let stripes = self.words.chunks(STRIPE_BYTES / 8).skip(1);
        stripes.fold(0, |sum, stripe| sum.wrapping_add(stripe[0].load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Kind;
    use crate::segment;

    #[test]
    fn every_stripe_counts_and_nothing_is_lost() {
        for processors in [0, 1, 2, 3, 8, 1000] {
            let segment = segment::make(1, Kind::StripedCounter, &shape(processors, 5)).unwrap().1;
            let counter = Striped::new(&segment);
            assert_eq!(counter.stripes(), processors.clamp(1, COUNTER_STRIPES_MAX).next_power_of_two());
            std::thread::scope(|scope| {
                (0..3).for_each(|_| drop(scope.spawn(|| (0..10_000).for_each(|_| Striped::new(&segment).add(3)))));
            });
            assert_eq!(counter.sum(), 90_005);
            for stripe in 0..counter.stripes() {
                counter.words[16 * (1 + stripe)].fetch_add(1, Relaxed);
            }
            assert_eq!(counter.sum(), 90_005 + counter.stripes() as u64);
            counter.add(u64::MAX);
            assert_eq!(counter.sum(), 90_004 + counter.stripes() as u64);
        }
    }

    #[test]
    fn a_segment_of_the_wrong_size_is_left_alone() {
        let segment = segment::make(1, Kind::StripedCounter, &Shape::whole(64, Vec::new())).unwrap().1;
        Striped::new(&segment).add(1);
        assert_eq!(Striped::new(&segment).sum(), 0);
    }
}
