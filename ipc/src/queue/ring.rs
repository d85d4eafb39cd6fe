//! A ring of cells: the order of items. See the head of `queue` for the cells' states.

use super::plan::RingPlan;
use super::{TRIES, nonsense};
use crate::error::Result;
use crate::limits::{QUEUE_CAPACITY_MAX, QUEUE_IN_HANDS_MAX};
use crate::points;
use crate::sync::{Memory, Word};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bits of a cell that name an item.
const ITEM_BITS: u32 = 20;
const _: () = assert!(QUEUE_CAPACITY_MAX + QUEUE_IN_HANDS_MAX + 32 < (1 << ITEM_BITS) - 1, "a cell names any item");
const EMPTY: u64 = 0;
const CLOSED: u64 = (1 << ITEM_BITS) - 1;
const LAP_MASK: u64 = u64::MAX >> ITEM_BITS;

/// What an attempt to publish came to.
pub enum Put {
    Done,
    Full,
    Closed,
}

/// What is at the head.
pub enum Next {
    Item(u32),
    Nothing,
    Closed,
}

/// What a cell says to who looks for a position.
enum Cell {
    Empty,
    Item(u32),
    Closed,
    /// This position is over.
    Over,
    /// The position one lap before is not over.
    Before,
    /// Far from here: the position is old, or the words are scribbled.
    Elsewhere,
}

/// A ring.
pub struct Ring<'m, M: Memory + ?Sized> {
    memory: &'m M,
    plan: &'m RingPlan,
}

impl<'m, M: Memory + ?Sized> Ring<'m, M> {
    #[inline(always)]
    pub fn new(memory: &'m M, plan: &'m RingPlan) -> Self {
        Ring { memory, plan }
    }

    #[inline(always)]
    fn tail(&self) -> &'m M::Word {
        self.memory.word(self.plan.tail)
    }

    #[inline(always)]
    fn head(&self) -> &'m M::Word {
        self.memory.word(self.plan.head)
    }

    #[inline(always)]
    fn cell(&self, position: u64) -> &'m M::Word {
        let at = position & ((1 << self.plan.bits) - 1);
        self.memory.word(self.plan.cells + 8 * at as usize)
    }

    #[inline(always)]
    fn word(&self, position: u64, content: u64) -> u64 {
        (position >> self.plan.bits) << ITEM_BITS | content
    }

    /// The word of a cell whose position is over: it waits for the next lap.
    #[inline(always)]
    fn over(&self, position: u64) -> u64 {
        self.word(position.wrapping_add(1 << self.plan.bits), EMPTY)
    }

    #[inline(always)]
    fn look(&self, position: u64, word: u64) -> Cell {
        let ahead = (word >> ITEM_BITS).wrapping_sub(position >> self.plan.bits) & LAP_MASK;
        match (ahead, word & CLOSED) {
            (0, EMPTY) => Cell::Empty,
            (0, CLOSED) => Cell::Closed,
            (0, number) => Cell::Item(number as u32 - 1),
            (1, _) => Cell::Over,
            (LAP_MASK, content) if content != EMPTY => Cell::Before,
            _ => Cell::Elsewhere,
        }
    }

    /// Publishes an item at the tail. `announce` makes its state say the position first; `is_gone` says of the head's item whether it
    /// has been taken.
    #[inline(always)]
    pub fn put(
        &self,
        index: u32,
        most: u64,
        head_seen: &AtomicU64,
        announce: impl Fn(u64),
        is_gone: impl Fn(u32, u64) -> bool,
    ) -> Result<Put> {
        for _ in 0..TRIES {
            let tail = self.tail().load();
            let (cell, before) = (self.cell(tail), self.cell(tail).load());
            match self.look(tail, before) {
                Cell::Empty => {
                    if most != u64::MAX && self.is_full_at(tail, most, head_seen, &is_gone)? {
                        return Ok(Put::Full);
                    }
                    announce(tail);
                    if cell.compare_exchange(before, self.word(tail, u64::from(index) + 1)).is_ok() {
                        points::client("queue: published, the tail does not know");
                        let _ = self.tail().compare_exchange(tail, tail.wrapping_add(1));
                        return Ok(Put::Done);
                    }
                }
                Cell::Item(_) | Cell::Over => {
                    let _ = self.tail().compare_exchange(tail, tail.wrapping_add(1));
                }
                Cell::Closed => return Ok(Put::Closed),
                Cell::Before if self.tail().load() == tail => return Ok(Put::Full),
                Cell::Elsewhere if self.tail().load() == tail => return Err(nonsense()),
                Cell::Before | Cell::Elsewhere => {}
            }
        }
        Err(nonsense())
    }

    /// Whether the ring has as many items as it may.
    #[inline(always)]
    pub fn is_full(&self, most: u64, head_seen: &AtomicU64, is_gone: impl Fn(u32, u64) -> bool) -> Result<bool> {
        self.is_full_at(self.tail().load(), most, head_seen, &is_gone)
    }

    /// The same for a tail. The head is looked up only if the one that was seen last does not say enough.
    #[inline(always)]
    fn is_full_at(&self, tail: u64, most: u64, head_seen: &AtomicU64, is_gone: &impl Fn(u32, u64) -> bool) -> Result<bool> {
        // A head that was seen after the tail moved on says nothing bad, one from before is only older.
        if tail.wrapping_sub(head_seen.load(Relaxed)).cast_signed() < most.cast_signed() {
            return Ok(false);
        }
        self.is_full_now(tail, most, head_seen, is_gone)
    }

    #[inline(never)]
    fn is_full_now(&self, tail: u64, most: u64, head_seen: &AtomicU64, is_gone: &impl Fn(u32, u64) -> bool) -> Result<bool> {
        let is_full = |head: u64| tail.wrapping_sub(head).cast_signed() >= most.cast_signed();
        for _ in 0..TRIES {
            let head = self.head().load();
            head_seen.store(head, Relaxed);
            if !is_full(head) {
                return Ok(false);
            }
            // Somebody may have taken the item and not yet advanced the head.
            let word = self.cell(head).load();
            match self.look(head, word) {
                Cell::Item(index) if is_gone(index, head) => self.pass(head, word),
                Cell::Over => {
                    let _ = self.head().compare_exchange(head, head.wrapping_add(1));
                }
                _ if self.head().load() == head => return Ok(true),
                _ => {}
            }
        }
        Err(nonsense())
    }

    /// The head's item is gone: empties the cell and advances the head.
    #[inline(always)]
    fn pass(&self, head: u64, word: u64) {
        let _ = self.cell(head).compare_exchange(word, self.over(head));
        points::client("queue: cell emptied, the head does not know");
        let _ = self.head().compare_exchange(head, head.wrapping_add(1));
    }

    /// Whether it is worth looking for an item: the cell of the head waits for one, otherwise.
    #[inline(always)]
    pub fn may_have_any(&self) -> bool {
        let head = self.head().load();
        self.cell(head).load() != self.word(head, EMPTY)
    }

    /// The next item that `claim` gets.
    #[inline(always)]
    pub fn next(&self, items: u32, claim: impl Fn(u32, u64) -> bool) -> Result<Next> {
        self.first(items, |index, head, word| {
            let mine = claim(index, head);
            self.pass(head, word);
            mine
        })
    }

    /// What [`next`](Self::next) would come to, without taking it. `is_there` says of an item whether it still is where it was published.
    pub fn peek(&self, items: u32, is_there: impl Fn(u32, u64) -> bool) -> Result<Next> {
        self.first(items, |index, head, word| {
            let there = is_there(index, head);
            if !there {
                self.pass(head, word);
            }
            there
        })
    }

    /// The first item of which `is_it` says so; it passes the head's if that is gone.
    #[inline(always)]
    fn first(&self, items: u32, is_it: impl Fn(u32, u64, u64) -> bool) -> Result<Next> {
        for _ in 0..TRIES {
            let head = self.head().load();
            let word = self.cell(head).load();
            match self.look(head, word) {
                Cell::Item(index) if index < items => {
                    if is_it(index, head, word) {
                        return Ok(Next::Item(index));
                    }
                }
                Cell::Over => {
                    let _ = self.head().compare_exchange(head, head.wrapping_add(1));
                }
                Cell::Empty => return Ok(Next::Nothing),
                Cell::Closed => return Ok(Next::Closed),
                // A head that others have advanced meanwhile says nothing.
                _ if self.head().load() != head => {}
                Cell::Item(_) | Cell::Before | Cell::Elsewhere => return Err(nonsense()),
            }
        }
        Err(nonsense())
    }

    /// Closes the ring behind its last item. Whether it was open.
    pub fn close(&self) -> Result<bool> {
        for _ in 0..TRIES {
            let tail = self.tail().load();
            let word = self.cell(tail).load();
            match self.look(tail, word) {
                Cell::Empty => {
                    if self.cell(tail).compare_exchange(word, self.word(tail, CLOSED)).is_ok() {
                        return Ok(true);
                    }
                }
                Cell::Closed => return Ok(false),
                Cell::Item(_) | Cell::Over => {
                    let _ = self.tail().compare_exchange(tail, tail.wrapping_add(1));
                }
                Cell::Before | Cell::Elsewhere if self.tail().load() == tail => return Err(nonsense()),
                Cell::Before | Cell::Elsewhere => {}
            }
        }
        Err(nonsense())
    }

    /// Whether it is closed behind its last item.
    pub fn is_closed(&self) -> Result<bool> {
        for _ in 0..TRIES {
            let tail = self.tail().load();
            match self.look(tail, self.cell(tail).load()) {
                Cell::Item(_) | Cell::Over => {
                    let _ = self.tail().compare_exchange(tail, tail.wrapping_add(1));
                }
                Cell::Closed => return Ok(true),
                _ => return Ok(false),
            }
        }
        Err(nonsense())
    }

    /// The item that was published at a position, if it is there.
    #[inline(always)]
    pub fn item_at(&self, position: u64) -> Option<u32> {
        match self.look(position, self.cell(position).load()) {
            Cell::Item(index) => Some(index),
            _ => None,
        }
    }

    /// Whether the cell of a position holds this item.
    pub fn holds(&self, position: u64, index: u32) -> bool {
        self.cell(position).load() == self.word(position, u64::from(index) + 1)
    }

    /// How many items there are between head and tail.
    pub fn len(&self) -> u64 {
        let head = self.head().load();
        let tail = self.tail().load();
        // One that is published and not yet counted counts; unless it is gone already, and the head knows of it what the tail does not.
        let more = matches!(self.look(tail, self.cell(tail).load()), Cell::Item(_));
        let len = tail.wrapping_sub(head).wrapping_add(u64::from(more)).cast_signed();
        len.clamp(0, 1 << self.plan.bits).cast_unsigned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Kind;
    use crate::queue::{How, Parameters, Plan, Queue, Sent, Took, plan};
    use crate::segment;
    use crate::sync::Claim;

    /// What a sender leaves that is stopped between its cell and the tail, when others have taken its item.
    #[test]
    fn a_tail_that_does_not_know_of_an_item_that_is_gone_makes_no_length() {
        let me = Claim::new(1, 1);
        let parameters = Parameters { capacity: 4, bytes_max: 0, attempts_max: 0, joinable: false };
        let plan = Plan::new(parameters.words()).unwrap();
        let segment = segment::make(1, Kind::Queue, &plan.shape()).unwrap().1;
        let queue = Queue::new(&segment, &plan);
        assert_eq!(queue.send_short(me, &[7], 0).unwrap(), Sent::Done);
        let ring = queue.ring(plan::MAIN);
        assert!(Word::compare_exchange(ring.tail(), 1, 0).is_ok());
        assert_eq!((queue.len(), queue.is_empty(), queue.is_full()), (1, false, false), "it is there");
        let Took::Item(index) = queue.take(me, How::Receive).unwrap() else { panic!("an item") };
        queue.deliver_short(me, index).unwrap();
        assert_eq!((Word::load(ring.head()), Word::load(ring.tail())), (1, 0));
        assert_eq!((queue.len(), queue.is_empty(), queue.is_full()), (0, true, false));
        // Whoever sends next helps the tail on.
        assert_eq!(queue.send_short(me, &[7], 0).unwrap(), Sent::Done);
        assert_eq!((Word::load(ring.tail()), queue.len()), (2, 1));
    }
}
