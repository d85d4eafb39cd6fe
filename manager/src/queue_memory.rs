//! The memory behind a queue's items and units: put there when senders ask for it, given back when nobody has needed it for a while.
//!
//! A queue cannot say what it will need next. So the manager tries: it *narrows* the queue to half of what it has. What lies beyond
//! keeps its memory, and who is in the midst of using it goes on, but nobody begins to. If no sender asks for more until
//! [`QUEUE_NEEDED_MS`] have passed, that half was not needed, and goes back to the system, in slices, from the last unit down to the
//! first that is still somebody's; then the rest is halved. If one asks, it gets all of it back at the price of that call, and the
//! next trial comes after twice the time. A queue that has come down to its least is not looked at any more.
//!
//! Nobody can be using what goes: a unit or item goes out of use by the same exchange by which a sender would have claimed it
//! (`ipc::queue`), and only if it is free.

use commonhold_ipc::error::Result;
use commonhold_ipc::limits::{QUEUE_NEEDED_MS, QUEUE_NEEDED_MS_MAX, QUEUE_SLICE_BYTES};
use commonhold_ipc::map::Segment;
use commonhold_ipc::queue::{Plan, Queue, Region};
use commonhold_ipc::sys;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Between two slices: whoever waits for the manager comes first.
const PAUSE: Duration = Duration::from_millis(1);

/// Of items, or of units: those below these numbers …
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// … have memory behind them,
    backed: u64,
    /// … may be claimed,
    open: u64,
    /// … have memory behind their words, which keep it,
    words: u64,
    /// … have had memory at one time since the queue was at its least.
    peak: u64,
}

/// A queue's memory, in figures of the manager's own: what the segment says of it may be anything.
#[derive(Debug)]
pub struct QueueMemory {
    held: [Held; 2],
    /// Until when what lies beyond must be asked for, to stay.
    look_at: Option<Instant>,
    period: Duration,
}

impl QueueMemory {
    /// Of a new queue.
    pub fn new(plan: &Plan) -> Self {
        let held = |region| {
            let number = plan.at_first(region);
            Held { backed: number, open: number, words: 0, peak: number }
        };
        QueueMemory { held: [held(Region::Items), held(Region::Units)], look_at: None, period: Duration::from_millis(QUEUE_NEEDED_MS) }
    }

    /// When to look whether it is needed.
    pub fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// A sender wants so many items or units. Says how many bytes more have memory now.
    ///
    /// # Errors
    /// Those of `may`, which is asked about the bytes, and `Full` if the system has none.
    pub fn grow(
        &mut self,
        (plan, segment, descriptor): (&Plan, &Segment, &OwnedFd),
        region: Region,
        wanted: u64,
        now: Instant,
        may: impl FnOnce(u64) -> Result<()>,
    ) -> Result<u64> {
        let held = self.held[region as usize];
        let target = plan.growth(region, wanted).max(held.backed);
        let ranges = [plan.words_range(region, held.words, target.max(held.words)), plan.range(region, held.backed, target)];
        let bytes = ranges.iter().map(|range| range.end - range.start).sum();
        may(bytes)?;
        ranges.into_iter().try_for_each(|range| sys::back(descriptor, range))?;
        Queue::new(segment, plan).back(region, held.backed, target);
        if held.open < held.backed || held.backed < held.peak {
            // It has been taken too soon.
            self.period = (self.period * 2).min(Duration::from_millis(QUEUE_NEEDED_MS_MAX));
        }
        self.held[region as usize] = Held { backed: target, open: target, words: held.words.max(target), peak: held.peak.max(target) };
        self.look_at = Some(now + self.period);
        Ok(bytes)
    }

    /// The time has come to look whether all of it is needed. Says how many bytes have no memory any more.
    pub fn look(&mut self, (plan, segment, descriptor): (&Plan, &Segment, &OwnedFd), now: Instant) -> u64 {
        let queue = Queue::new(segment, plan);
        let (mut bytes, mut unfinished, mut in_use) = (0, false, false);
        for region in [Region::Items, Region::Units] {
            let held = &mut self.held[region as usize];
            let each = plan.range(region, 0, held.backed).end.saturating_sub(plan.range(region, 0, 0).end) / held.backed.max(1);
            let target = held.open.max(plan.growth(region, held.backed.saturating_sub(QUEUE_SLICE_BYTES / each.max(1))));
            if target >= held.backed {
                continue;
            }
            let left = queue.withdraw(region, held.backed, target);
            let range = plan.range(region, left, held.backed);
            bytes += range.end - range.start;
            // If the system does not take it, it may keep it: nobody misses it.
            let _ = sys::punch(descriptor, range);
            held.backed = left;
            in_use |= left > target;
            unfinished |= left > held.open;
        }
        self.look_at = if in_use {
            self.period = (self.period * 2).min(Duration::from_millis(QUEUE_NEEDED_MS_MAX));
            Some(now + self.period)
        } else if unfinished {
            Some(now + PAUSE)
        } else {
            if bytes > 0 {
                self.period = (self.period / 2).max(Duration::from_millis(QUEUE_NEEDED_MS));
            }
            self.narrow(&queue, plan).then(|| now + self.period)
        };
        bytes
    }

    /// Lets half of it be without use. Whether there was anything to halve.
    fn narrow(&mut self, queue: &Queue<'_, Segment>, plan: &Plan) -> bool {
        let mut any = false;
        for region in [Region::Items, Region::Units] {
            let held = &mut self.held[region as usize];
            let half = plan.growth(region, held.backed / 2);
            if half < held.backed {
                held.open = half;
                queue.narrow(region, half);
                any = true;
            } else {
                held.peak = held.backed;
            }
        }
        if !any {
            self.period = Duration::from_millis(QUEUE_NEEDED_MS);
        }
        any
    }
}
