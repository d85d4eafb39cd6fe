//! What of a queue has memory behind it, and may be claimed: the manager gives memory to items and units, and takes it from free ones.

use super::plan::{BACKED, OPEN, Region};
use super::{Queue, Room, item, room};
use crate::sync::Word;

impl<'m, M: Room + ?Sized> Queue<'m, M> {
    fn bounded(&self, at: usize, region: Region) -> u32 {
        let most = match region {
            Region::Items => self.plan.items,
            Region::Units => self.plan.units,
        };
        self.memory.word(at).load().min(most.into()) as u32
    }

    /// Items or units below this number may be claimed.
    #[inline(always)]
    pub fn open(&self, region: Region) -> u32 {
        self.bounded(OPEN[region as usize], region)
    }

    /// No item or unit from this number on has memory behind it, nor belongs to anybody.
    #[inline(always)]
    pub fn backed(&self, region: Region) -> u32 {
        self.bounded(BACKED[region as usize], region)
    }

    /// Items that have memory behind them.
    #[inline(always)]
    pub fn backed_items(&self) -> u32 {
        self.backed(Region::Items)
    }

    /// Units that have.
    #[inline(always)]
    pub fn backed_units(&self) -> u32 {
        self.backed(Region::Units)
    }

    /// The word that says whose an item or a unit is.
    fn owner_word(&self, region: Region, number: u32) -> (&'m M::Word, u64) {
        match region {
            Region::Items => (self.state(number), item::FREE),
            Region::Units => (self.unit_word(number), room::FREE),
        }
    }

    /// The manager has put memory behind items or units from one number up to another: these are free, and all below may be claimed.
    pub fn back(&self, region: Region, from: u64, to: u64) {
        for number in from as u32..to as u32 {
            let (word, free) = self.owner_word(region, number);
            let _ = word.compare_exchange(item::ABSENT, free);
        }
        self.memory.word(BACKED[region as usize]).swap(to);
        self.memory.word(OPEN[region as usize]).swap(to);
        self.tell_all_room();
    }

    /// The manager lets nobody claim items or units from this number on.
    pub fn narrow(&self, region: Region, to: u64) {
        self.memory.word(OPEN[region as usize]).swap(to);
    }

    /// The manager takes those that are free out of use, from the last one, before `from`, down to `to`, or to one that is somebody's.
    /// Says from which one on all are out of use: their memory can go, and nobody looks for it.
    pub fn withdraw(&self, region: Region, from: u64, to: u64) -> u64 {
        let out_of_use = |number: u64| {
            let (word, free) = self.owner_word(region, number as u32);
            matches!(word.compare_exchange(free, item::ABSENT), Ok(()) | Err(item::ABSENT))
        };
        let stays = (to..from).rev().find(|number| !out_of_use(*number)).map_or(to, |number| number + 1);
        let left = self.plan.growth(region, stays);
        // Whole steps only, so that what stays has all its pages.
        for number in stays..left.min(from) {
            let (word, free) = self.owner_word(region, number as u32);
            let _ = word.compare_exchange(item::ABSENT, free);
        }
        if left < from {
            self.memory.word(BACKED[region as usize]).swap(left);
        }
        left.min(from)
    }
}
