//! Runs of whole pages: which pages of the arena are free, and which of the free ones have memory behind them.
//!
//! Every page of the usable range is in one of three states:
//!
//! | state | in `free` | in `warm` | memory behind it |
//! |---|---|---|---|
//! | used (part of a slab) | no | no | yes |
//! | warm: free and backed | yes | yes | yes |
//! | cold: free, a hole | yes | no | no |
//!
//! The part of the warm pages that was never used is also *untouched*: the system has set it aside, but (unless in a large page) neither zeroed nor mapped it
//! yet, which takes as long as setting it aside. That is done when the pages are taken, all of one request at once, so that a
//! reservation, which is mostly never used, does not wait for it.
//!
//! A request takes the smallest warm run that is long enough, from its low end, so that what remains of it stays in one
//! piece. Only when there is none are cold pages backed, more at a time the more often it happens. The budget bounds backed
//! pages (used and warm): a request that fits beside the used pages always finds room, if need be by punching warm runs that
//! are too short for it.
//!
//! Invariants ([`Pages::check`]): runs are disjoint, inside of the usable range and coalesced; `warm` is a subset of `free`,
//! and `untouched` one of `warm`; used + warm pages never exceed the budget; [`Backing::back`] is called for cold pages only, [`Backing::punch`] for warm
//! pages only, [`Backing::populate`] once for each page between its backing and its first use.
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use commonhold_ipc::error::Error;
use commonhold_ipc::sys::LARGE_PAGE_BYTES;

/// Bytes of a page: the unit in which the system gives and takes memory.
pub(super) const PAGE_BYTES: u64 = 4096;
/// Fewest pages that are backed at once: 64 KiB, one slab.
const CHUNK_PAGES_MIN: u32 = 16;
/// Most pages that are backed at once without need: 2 MiB, one large page.
const CHUNK_PAGES_MAX: u32 = (LARGE_PAGE_BYTES / PAGE_BYTES) as u32;

/// Where the arena's memory comes from: `fallocate` and hole punching on the memfd, or a double of them in tests.
pub trait Backing {
    /// Puts memory behind these bytes (whole pages, none of them backed), all of it or none.
    ///
    /// Pages that are backed already are never in `range`: when `fallocate` on tmpfs fails half-way, it also takes back
    /// pages that an earlier call allocated and nobody has written yet.
    fn back(&mut self, range: Range<u64>) -> Result<(), Error>;

    /// These bytes (whole pages, all of them backed and never written) are about to be used: the place to touch them, all at once.
    fn populate(&mut self, range: Range<u64>);

    /// Gives the memory behind these bytes (whole pages, all of them backed) back to the system.
    fn punch(&mut self, range: Range<u64>);
}

/// Why a run of pages could not be had.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The pages in use and the ones asked for together exceed the budget.
    Budget,
    /// No stretch of free pages is long enough.
    Length,
    /// The system gave no memory.
    Backing(Error),
}

/// Disjoint, coalesced runs of pages, found by place and by length.
#[derive(Default)]
pub(super) struct Runs {
    /// Start of each run → its length.
    by_start: BTreeMap<u32, u32>,
    /// The same runs as (length, start).
    by_length: BTreeSet<(u32, u32)>,
    /// Pages in all runs.
    pages: u32,
    /// Length of the longest run.
    longest: u32,
}

impl Runs {
    /// Adds pages, none of which is in a run yet, and joins them with the runs that touch them.
    fn insert(&mut self, start: u32, length: u32) {
        let mut joined = start..start + length;
        if let Some((&before, &its_length)) = self.by_start.range(..start).next_back() {
            debug_assert!(before + its_length <= start, "pages added twice");
            if before + its_length == start {
                self.drop_run(before, its_length);
                joined.start = before;
            }
        }
        if let Some(&its_length) = self.by_start.get(&joined.end) {
            self.drop_run(joined.end, its_length);
            joined.end += its_length;
        }
        self.add_run(joined.start, joined.end - joined.start);
        self.note_longest();
    }

    /// Takes pages, all of which are in one run, out of it.
    fn remove(&mut self, start: u32, length: u32) {
        let (run, run_length) = self.containing(start).expect("pages taken are free");
        let (end, run_end) = (start + length, run + run_length);
        assert!(end <= run_end, "pages taken are free");
        self.drop_run(run, run_length);
        if run < start {
            self.add_run(run, start - run);
        }
        if end < run_end {
            self.add_run(end, run_end - end);
        }
        self.note_longest();
    }

    fn add_run(&mut self, start: u32, length: u32) {
        self.by_start.insert(start, length);
        self.by_length.insert((length, start));
        self.pages += length;
    }

    fn drop_run(&mut self, start: u32, length: u32) {
        self.by_start.remove(&start);
        self.by_length.remove(&(length, start));
        self.pages -= length;
    }

    fn note_longest(&mut self) {
        self.longest = self.by_length.last().map_or(0, |&(length, _)| length);
    }

    /// Start of the shortest run of at least `length` pages, the lowest of equals.
    fn best_fit(&self, length: u32) -> Option<u32> {
        self.by_length.range((length, 0)..).next().map(|&(_, start)| start)
    }

    /// The run that `page` lies in: its start and length.
    fn containing(&self, page: u32) -> Option<(u32, u32)> {
        let (&start, &length) = self.by_start.range(..=page).next_back()?;
        (page < start + length).then_some((start, length))
    }

    /// The parts of runs that lie in `window`, ascending, as (start, length).
    fn inside(&self, window: Range<u32>) -> Vec<(u32, u32)> {
        let first = self.containing(window.start).map_or(window.start, |(start, _)| start);
        let clip = |(&start, &length): (&u32, &u32)| {
            let (from, to) = (start.max(window.start), (start + length).min(window.end));
            (from, to - from)
        };
        self.by_start.range(first..window.end).map(clip).collect()
    }

    /// All runs, ascending, as (start, length).
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.by_start.iter().map(|(&start, &length)| (start, length))
    }

    fn check(&self, name: &str, usable: &Range<u32>) -> Result<(), String> {
        let mut pages = 0;
        let mut end_before = None;
        for (start, length) in self.iter() {
            if length == 0 || start < usable.start || start + length > usable.end {
                return Err(format!("{name} run of {length} pages at page {start} is empty or outside of {usable:?}"));
            }
            if end_before.is_some_and(|end| start <= end) {
                return Err(format!("{name} run at page {start} overlaps or touches the run before it"));
            }
            if !self.by_length.contains(&(length, start)) {
                return Err(format!("{name} run of {length} pages at page {start} is not found by its length"));
            }
            end_before = Some(start + length);
            pages += length;
        }
        let longest = self.by_start.values().copied().max().unwrap_or(0);
        if self.by_length.len() != self.by_start.len() || pages != self.pages || longest != self.longest {
            return Err(format!(
                "{name} runs hold {pages} pages, the longest {longest}, but the counters say {} and {}",
                self.pages, self.longest
            ));
        }
        Ok(())
    }
}

/// The pages of one arena.
pub(super) struct Pages<B> {
    pub(super) backing: B,
    usable: Range<u32>,
    budget: u32,
    free: Runs,
    warm: Runs,
    /// The warm pages that were never used.
    untouched: Runs,
    /// Pages to back the next time, if that many may be.
    chunk: u32,
}

impl<B: Backing> Pages<B> {
    /// All pages of `usable` free and cold. `budget` in pages.
    pub(super) fn new(backing: B, usable: Range<u32>, budget: u32) -> Self {
        let mut free = Runs::default();
        if !usable.is_empty() {
            free.insert(usable.start, usable.end - usable.start);
        }
        Pages { backing, usable, budget, free, warm: Runs::default(), untouched: Runs::default(), chunk: CHUNK_PAGES_MIN }
    }

    /// Pages that belong to slabs.
    pub(super) fn used(&self) -> u32 {
        self.usable.end - self.usable.start - self.free.pages
    }

    /// Pages with memory behind them.
    pub(super) fn backed(&self) -> u32 {
        self.used() + self.warm.pages
    }

    /// Free pages with memory behind them.
    pub(super) fn warm(&self) -> u32 {
        self.warm.pages
    }

    /// The most pages that may have memory behind them.
    pub(super) fn budget(&self) -> u32 {
        self.budget
    }

    /// The pages that exist.
    pub(super) fn usable(&self) -> Range<u32> {
        self.usable.clone()
    }

    /// Length of the longest warm run: what [`take`](Self::take) can serve without asking the system.
    pub(super) fn longest_warm(&self) -> u32 {
        self.warm.longest
    }

    /// Pages of the longest stretch of free pages, backed or not.
    pub(super) fn longest_free(&self) -> u32 {
        self.free.longest
    }

    /// Runs of free pages, ascending.
    pub(super) fn free_runs(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.free.iter()
    }

    /// Bytes of private memory that the maps of runs take, estimated: each run stands in two trees whose nodes are about
    /// two thirds full.
    pub(super) fn metadata_bytes(&self) -> u64 {
        24 * (self.free.by_start.len() + self.warm.by_start.len() + self.untouched.by_start.len()) as u64
    }

    /// Takes a run of `length` backed pages and returns its first.
    pub(super) fn take(&mut self, length: u32) -> Result<u32, Refusal> {
        self.ensure_warm(length)?;
        let start = self.warm.best_fit(length).expect("a warm run was just ensured");
        self.warm.remove(start, length);
        self.free.remove(start, length);
        for (start, length) in self.drop_untouched(start..start + length) {
            self.backing.populate(bytes_of(start, length));
        }
        Ok(start)
    }

    /// Takes pages back. They stay warm.
    pub(super) fn give(&mut self, start: u32, length: u32) {
        self.free.insert(start, length);
        self.warm.insert(start, length);
    }

    /// Sees to it that one warm run has at least `length` pages.
    pub(super) fn ensure_warm(&mut self, length: u32) -> Result<(), Refusal> {
        if length <= self.warm.longest {
            return Ok(());
        }
        if u64::from(self.used()) + u64::from(length) > u64::from(self.budget) {
            return Err(Refusal::Budget);
        }
        let start = self.place(length).ok_or(Refusal::Length)?;
        self.warm_up(start..start + length)
    }

    /// Punches warm pages, of the longest runs first and from their ends, until at most `keep` are left.
    pub(super) fn trim(&mut self, keep: u32) {
        self.punch(self.warm.pages.saturating_sub(keep));
        self.chunk = CHUNK_PAGES_MIN;
    }

    /// Where a warm run of `length` pages shall be made: around the longest warm run if that is half of it already, so that
    /// topping up is cheap; else in the shortest stretch of free pages that holds it, so that long stretches stay long.
    fn place(&self, length: u32) -> Option<u32> {
        if self.warm.longest >= length.div_ceil(2) {
            let &(_, warm_start) = self.warm.by_length.last()?;
            let (start, stretch) = self.free.containing(warm_start)?;
            if stretch >= length {
                return Some(warm_start.min(start + stretch - length));
            }
        }
        self.free.best_fit(length)
    }

    /// Backs the cold pages of `window`, whose pages are all free, and some more behind it. The caller has checked that the
    /// used pages and the window fit the budget.
    fn warm_up(&mut self, window: Range<u32>) -> Result<(), Refusal> {
        let length = window.end - window.start;
        // While the window's warm parts are out of `warm`, making room cannot punch them.
        let warm_parts = self.warm.inside(window.clone());
        for &(start, length) in &warm_parts {
            self.warm.remove(start, length);
        }
        let cold = length - warm_parts.iter().map(|&(_, length)| length).sum::<u32>();
        let within_budget = self.budget - self.used() - (length - cold);
        self.punch((self.warm.pages + cold).saturating_sub(within_budget));
        let surplus = self.surplus(window.end, cold, within_budget - self.warm.pages - cold);

        let outcome = self.back_gaps(&window, &warm_parts, surplus);
        for (start, length) in warm_parts {
            self.warm.insert(start, length);
        }
        outcome.map_err(Refusal::Backing)
    }

    /// Pages from `after` on that may be backed along with `cold` pages before them, so that the system is not asked for
    /// every slab: cold, free, and at most `room`.
    fn surplus(&self, after: u32, cold: u32, room: u32) -> u32 {
        if self.warm.containing(after).is_some() {
            return 0;
        }
        let Some((start, length)) = self.free.containing(after) else {
            return 0;
        };
        let stretch_end = start + length;
        let end = self.warm.by_start.range(after..).next().map_or(stretch_end, |(&warm, _)| warm.min(stretch_end));
        let mut wanted = after + self.chunk.saturating_sub(cold);
        if self.chunk == CHUNK_PAGES_MAX {
            // Up to where a large page begins, so that this one or the next is whole.
            let before = wanted - wanted % CHUNK_PAGES_MAX;
            wanted = if before > after { before } else { wanted.next_multiple_of(CHUNK_PAGES_MAX) };
        }
        (wanted - after).min(room).min(end - after)
    }

    /// Backs what lies in `window` between `warm_parts`, plus `surplus` pages behind it if the window ends cold. What was
    /// backed before a refusal is warm.
    fn back_gaps(&mut self, window: &Range<u32>, warm_parts: &[(u32, u32)], surplus: u32) -> Result<(), Error> {
        let mut from = window.start;
        for &(start, length) in warm_parts {
            if from < start {
                self.back(from, start - from)?;
            }
            from = start + length;
        }
        if from == window.end {
            return Ok(());
        }
        let needed = window.end - from;
        if surplus > 0 {
            if self.back(from, needed + surplus).is_ok() {
                return Ok(());
            }
            // The system is short of memory: ask for no more than is needed.
            self.chunk = CHUNK_PAGES_MIN;
        }
        self.back(from, needed)
    }

    fn back(&mut self, start: u32, length: u32) -> Result<(), Error> {
        self.backing.back(bytes_of(start, length))?;
        self.warm.insert(start, length);
        self.untouched.insert(start, length);
        self.chunk = (self.chunk * 2).min(CHUNK_PAGES_MAX);
        Ok(())
    }

    /// Punches this many warm pages.
    fn punch(&mut self, mut pages: u32) {
        while pages > 0 {
            let &(length, start) = self.warm.by_length.last().expect("no more is punched than is warm");
            let cut = length.min(pages);
            let from = start + length - cut;
            self.warm.remove(from, cut);
            self.drop_untouched(from..from + cut);
            self.backing.punch(bytes_of(from, cut));
            pages -= cut;
        }
    }

    /// Takes what lies in `window` out of `untouched`; returns it as (start, length).
    fn drop_untouched(&mut self, window: Range<u32>) -> Vec<(u32, u32)> {
        let parts = self.untouched.inside(window);
        for &(start, length) in &parts {
            self.untouched.remove(start, length);
        }
        parts
    }

    /// Verifies the invariants of this module's head.
    pub(super) fn check(&self) -> Result<(), String> {
        self.free.check("free", &self.usable)?;
        self.warm.check("warm", &self.usable)?;
        self.untouched.check("untouched", &self.usable)?;
        for (start, length) in self.warm.iter() {
            if self.free.containing(start).is_none_or(|(stretch, its_length)| start + length > stretch + its_length) {
                return Err(format!("warm run of {length} pages at page {start} is not free"));
            }
        }
        for (start, length) in self.untouched.iter() {
            if self.warm.containing(start).is_none_or(|(run, its_length)| start + length > run + its_length) {
                return Err(format!("untouched run of {length} pages at page {start} is not warm"));
            }
        }
        if self.backed() > self.budget {
            return Err(format!("{} pages are backed, the budget is {}", self.backed(), self.budget));
        }
        Ok(())
    }

    /// Whether this page is part of a slab.
    #[cfg(test)]
    pub(super) fn is_used(&self, page: u32) -> bool {
        self.free.containing(page).is_none()
    }

    /// Whether this page has memory behind it, and whether it was touched, for comparison with what the backing says.
    #[cfg(test)]
    pub(super) fn state(&self, page: u32) -> (bool, bool) {
        let is_backed = self.warm.containing(page).is_some() || self.is_used(page);
        (is_backed, is_backed && self.untouched.containing(page).is_none())
    }
}

/// The bytes of a run of pages.
fn bytes_of(start: u32, length: u32) -> Range<u64> {
    u64::from(start) * PAGE_BYTES..(u64::from(start) + u64::from(length)) * PAGE_BYTES
}
