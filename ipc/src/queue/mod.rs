//! Queue: items pass from many senders to many receivers, first in, first out, and no death of any of them loses or doubles one.
//!
//! **Three kinds of things in one segment.** An *item* is a record of 128 bytes: one word of state, and its payload, or the first of
//! the *units* of 1 KiB that hold it. A *ring* gives order: cells with the number of an item each. To send is to claim a free item,
//! to fill it, and to put its number into the cell at the tail. Why not fill the cell's own place, as rings usually do? Because that
//! place would have to be claimed first, and a sender that is stopped between claiming and publishing would hold up all receivers.
//! So here the payload comes first, and **one exchange publishes it**; tail and head are hints that anybody may advance.
//!
//! | state of an item | meaning | who may change it |
//! |---|---|---|
//! | 0 | *absent*: there is no memory behind it | the manager, which has put memory there, to *free* |
//! | 4 | *free* | anybody, by exchange, to *busy*; the manager, by exchange, to *absent* |
//! | claim + 0, *busy* | its content is its owner's business: being filled, or thrown away | the owner |
//! | 3 + ring, position | *published* there, as soon as that cell holds its number | a receiver, by exchange, to *taken* or *leased* |
//! | claim + 1, *taken* | a receiver copies it out | the owner: to *busy* or *free*, which is the delivery |
//! | claim + 2, *leased* | somebody works on it, or (marked as delivered) has not said that it is done | the owner |
//!
//! | cell, at position *p* of lap *n* | meaning |
//! |---|---|
//! | *n*, 0 | empty: waits for the item of *p* |
//! | *n*, number + 1 | that item was published here; whether it is still there, its state says |
//! | *n*, all ones | closed: nothing will ever be published here or behind |
//! | *n* + 1, … | over |
//!
//! **The state decides, the cell orders.** A receiver looks at the cell of the head, and exchanges the item's state, if it is
//! *published* with exactly this position; a position is never used twice, so whoever comes late with an old number changes nothing.
//! Then anybody empties the cell and advances the head. Dying in between leaves nothing to do for the others.
//!
//! **What death does** ([`Queue::recover`]). *Busy*, or *published* where no cell says so: it was never sent, or had been delivered;
//! freed. *Taken*: the receiver had not got it; it comes back. *Leased*: it comes back, its attempts counted, or goes to the dead
//! letters. What comes back goes into a second ring that receivers look at first, dead letters into a third: moving an item is the
//! same one exchange, within the same segment. So an item is delivered once; one in dying hands is not lost before `recv`
//! has copied it, and not doubled afterwards.
//!
//! What stands here is foreign. Numbers are bounded before use, chains are followed for as many links as the length asks for, and loops
//! end after [`TRIES`]: then the queue is *scribbled* for who looked, and nobody else notices.

mod backing;
mod item;
mod plan;
mod recovery;
mod ring;
mod room;
mod short;
mod waiting;

pub use plan::{Parameters, Plan, Region};
pub use room::Filling;
pub use short::Short;

use crate::error::{Error, ErrorKind, Result};
use crate::map::Segment;
use crate::points;
use crate::sync::{Claim, Memory, Word, scribbled};
use item::State;
use ring::{Next, Put, Ring};
use rkyv::util::AlignedVec;

/// How often a step that others may foil is tried before the words are held for nonsense: far more than any number of threads foil.
const TRIES: u32 = 1 << 20;

/// Memory with room for bytes that are one owner's at a time.
pub trait Room: Memory {
    /// Copies bytes in.
    fn put(&self, at: usize, bytes: &[u8]);
    /// Copies the payload of an item out, whatever part of it is used.
    fn get_short(&self, at: usize, out: &mut [u8; item::INLINE_BYTES]);
    /// Copies so many bytes out, behind what is in `out`.
    fn get(&self, at: usize, len: usize, out: &mut AlignedVec<16>);
    /// The same into bytes that need no alignment.
    fn get_plain(&self, at: usize, len: usize, out: &mut Vec<u8>);
    /// Bytes that the caller will soon write are brought near.
    fn fetch(&self, _at: usize) {}
}

impl Room for Segment {
    #[inline(always)]
    fn put(&self, at: usize, bytes: &[u8]) {
        self.copy_in(at, bytes);
    }

    #[inline(always)]
    fn get_short(&self, at: usize, out: &mut [u8; item::INLINE_BYTES]) {
        self.copy_out_to(at, out);
    }

    #[inline(always)]
    fn get(&self, at: usize, len: usize, out: &mut AlignedVec<16>) {
        self.copy_out(at, len, out);
    }

    fn get_plain(&self, at: usize, len: usize, out: &mut Vec<u8>) {
        self.copy_out_plain(at, len, out);
    }

    #[inline(always)]
    fn fetch(&self, at: usize) {
        self.prefetch_to_write(at);
    }
}

/// What an attempt to send came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is in the queue.
    Done,
    /// There is no room now.
    Full,
    /// There would be room, if the manager put memory behind so many items or units.
    Grow(Region, u64),
    /// The queue is closed.
    Closed,
}

/// What an attempt to begin a message came to.
pub enum Begun {
    /// There is room: to be filled, and published.
    Filling(Filling),
    /// As in [`Sent`].
    Not(Sent),
}

/// What an attempt to take an item came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    /// This item is the caller's.
    Item(u32),
    /// There is none now.
    Nothing,
    /// There is none, and there never will be: closed, empty, and no item in anybody's hands could come back.
    Drained,
}

/// How an item is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// To be delivered at once.
    Receive,
    /// To be worked on, and acknowledged.
    Lease,
    /// From the dead letters.
    DeadLetter,
}

/// The words of a segment, as a queue.
pub struct Queue<'m, M: Room + ?Sized> {
    memory: &'m M,
    plan: &'m Plan,
}

impl<'m, M: Room + ?Sized> Queue<'m, M> {
    /// The queue of a plan.
    #[inline(always)]
    pub fn new(memory: &'m M, plan: &'m Plan) -> Self {
        Queue { memory, plan }
    }

    #[inline(always)]
    fn ring(&self, which: usize) -> Ring<'m, M> {
        Ring::new(self.memory, self.plan.ring(which))
    }

    // ---- Sending ----

    /// Claims an item with room for `len` bytes.
    ///
    /// # Errors
    /// `TooLarge` if no emptiness could make room for it.
    #[inline]
    pub fn begin(&self, me: Claim, len: usize) -> Result<Begun> {
        let index = match self.claim_one(me)? {
            Ok(index) => index,
            Err(not) => return Ok(Begun::Not(not)),
        };
        if len <= item::INLINE_BYTES {
            return Ok(Begun::Filling(Filling::inline(index, len)));
        }
        match self.claim_units(index, len) {
            Ok(Some(first)) => Ok(Begun::Filling(Filling::chain(index, len, first))),
            Ok(None) => {
                let open = u64::from(self.open(Region::Units));
                let wanted = (open + len.div_ceil(plan::UNIT_BYTES) as u64).max(2 * open);
                self.discard(index, 0)?;
                let can_grow = open < u64::from(self.plan.units);
                Ok(Begun::Not(if can_grow { Sent::Grow(Region::Units, wanted) } else { Sent::Full }))
            }
            Err(error) => {
                self.state(index).swap(item::FREE);
                Err(error)
            }
        }
    }

    /// Publishes an item that was begun and is filled. Unless it is `Done`, the item has been thrown away.
    #[inline]
    pub fn publish(&self, me: Claim, filling: Filling) -> Result<Sent> {
        let (index, first) = (filling.index, filling.first);
        debug_assert_eq!(filling.left, 0);
        self.write_head(index, filling.len, first, filling.ticket);
        self.publish_item(me, index, first)
    }

    #[inline(always)]
    fn publish_item(&self, me: Claim, index: u32, first: u32) -> Result<Sent> {
        let put = self.put(me, plan::MAIN, index, self.plan.capacity());
        match put {
            Ok(Put::Done) => {
                points::client("queue: item published, nobody woken");
                self.items().notify_one();
                Ok(Sent::Done)
            }
            Ok(Put::Full | Put::Closed) => {
                self.give_up(index, first)?;
                Ok(if matches!(put, Ok(Put::Full)) { Sent::Full } else { Sent::Closed })
            }
            Err(error) => Err(error),
        }
    }

    /// Throws away what was begun.
    pub fn cancel(&self, filling: Filling) -> Result<()> {
        self.give_up(filling.index, filling.first)
    }

    /// Throws away an item of the caller's that others have found in their way: by its units, of which there may be few.
    #[cold]
    fn give_up(&self, index: u32, first: u32) -> Result<()> {
        let freed = self.discard(index, first);
        if first != 0 {
            points::client("queue: item given up, nobody told");
            self.tell_all_room();
        }
        freed
    }

    /// Publishes an item of the caller's in a ring that has at most so many.
    #[inline(always)]
    fn put(&self, me: Claim, which: usize, index: u32, most: u64) -> Result<Put> {
        self.owner(index).set(me.word());
        let state = self.state(index);
        let put = self.ring(which).put(
            index,
            most,
            &self.plan.head_seen,
            |position| {
                state.set(item::published(which, position));
                points::client("queue: state says published, no cell does");
            },
            |index, position| self.is_gone_from(which, index, position),
        );
        if !matches!(put, Ok(Put::Done)) {
            state.set(me.word());
        }
        put
    }

    /// Closes the queue: nothing can be sent any more. Whether it was open.
    pub fn close(&self) -> Result<bool> {
        let closed_now = self.ring(plan::MAIN).close()?;
        points::client("queue: closed, nobody told");
        self.tell_closed();
        Ok(closed_now)
    }

    /// Whether nothing can be sent any more.
    pub fn is_closed(&self) -> Result<bool> {
        self.ring(plan::MAIN).is_closed()
    }

    // ---- Receiving ----

    /// Takes the next item.
    #[inline(always)]
    pub fn take(&self, me: Claim, how: How) -> Result<Took> {
        let mine = me.word() | if how == How::Lease { item::LEASED } else { item::TAKEN };
        if how == How::DeadLetter {
            return Ok(match self.take_from(plan::DEAD, mine)? {
                Next::Item(index) => Took::Item(index),
                Next::Nothing | Next::Closed => Took::Nothing,
            });
        }
        if self.ring(plan::RETURNED).may_have_any()
            && let Next::Item(index) = self.take_from(plan::RETURNED, mine)?
        {
            return Ok(Took::Item(index));
        }
        match self.take_from(plan::MAIN, mine)? {
            Next::Item(index) => Ok(Took::Item(index)),
            Next::Nothing => Ok(Took::Nothing),
            Next::Closed => self.take_last(me, mine),
        }
    }

    #[inline(always)]
    fn take_from(&self, which: usize, mine: u64) -> Result<Next> {
        let ring = self.ring(which);
        ring.next(self.plan.items, |index, position| {
            if let Some(next) = ring.item_at(position.wrapping_add(short::AHEAD.into())) {
                self.fetch_item(next);
            }
            let taken = self.state(index).compare_exchange(item::published(which, position), mine).is_ok();
            if taken {
                points::client("queue: item taken, its cell is there");
            }
            taken
        })
    }

    /// Whether receiving would not wait: there is an item, or there never will be one.
    pub fn is_receivable(&self, me: Claim) -> Result<bool> {
        for which in [plan::RETURNED, plan::MAIN] {
            match self.ring(which).peek(self.plan.items, |index, position| !self.is_gone_from(which, index, position))? {
                Next::Item(_) => return Ok(true),
                Next::Closed if which == plan::MAIN => return Ok(!self.may_come_back(me)),
                Next::Nothing | Next::Closed => {}
            }
        }
        Ok(false)
    }

    /// Whether somebody else has an item that may come back, or one has.
    fn may_come_back(&self, me: Claim) -> bool {
        (0..self.backed_items()).any(|index| match State::of(self.state(index).load()) {
            State::Taken(claim) => claim != me,
            State::Leased(claim) => claim != me && !self.is_delivered(index),
            State::Published(which, _) => which != plan::DEAD,
            State::Free | State::Busy(_) => false,
        })
    }

    /// Closed and empty: it is over unless somebody else has an item that may come back.
    #[cold]
    fn take_last(&self, me: Claim, mine: u64) -> Result<Took> {
        if self.memory.word(plan::CLOSED).load() == 0 {
            // Who closed it has died before it could tell.
            self.tell_closed();
        }
        if self.may_come_back(me) {
            // It may have come back since the first look.
            return Ok(match self.take_from(plan::RETURNED, mine)? {
                Next::Item(index) => Took::Item(index),
                Next::Nothing | Next::Closed => Took::Nothing,
            });
        }
        Ok(Took::Drained)
    }

    /// Copies the payload of an item that the caller has taken.
    #[inline]
    pub fn read(&self, index: u32, out: &mut AlignedVec<16>) -> Result<()> {
        let (len, first) = self.head(index);
        if len <= item::INLINE_BYTES {
            self.memory.get(self.plan.item(index) + item::INLINE, len, out);
            return Ok(());
        }
        self.read_units(index, len, first, out)
    }

    /// The item that the caller took is delivered, and gone: this is the moment in which the queue forgets it. Of a queue that counts
    /// what is done it stays as the caller's, without content.
    #[inline]
    pub fn deliver(&self, me: Claim, index: u32) -> Result<()> {
        points::client("queue: item copied, not delivered");
        let (_, first) = self.head(index);
        if self.plan.is_joinable() {
            self.mark_delivered(index);
            points::client("queue: item marked as delivered");
            self.state(index).swap(me.word() | item::LEASED);
            points::client("queue: item delivered, not done");
            let freed = self.free_units(index, first);
            self.tell_gone();
            return freed;
        }
        self.drop_item(me, index, first)
    }

    /// An item that the caller has is thrown away, whatever is in it.
    pub fn drop_taken(&self, me: Claim, index: u32) -> Result<()> {
        let (_, first) = self.head(index);
        self.drop_item(me, index, first)
    }

    #[inline(always)]
    fn drop_item(&self, me: Claim, index: u32, first: u32) -> Result<()> {
        let freed = if first == 0 {
            self.state(index).swap(item::FREE);
            Ok(())
        } else {
            self.state(index).swap(me.word());
            points::client("queue: item delivered, its units are there");
            self.discard(index, first)
        };
        points::client("queue: item gone, nobody told");
        self.tell_gone();
        freed
    }

    /// How often an item that the caller has leased has been handed out, this time included. To be asked once, before it is read.
    pub fn count_attempt(&self, index: u32) -> u32 {
        self.raise_attempts(index)
    }

    /// An item that the caller has leased comes back, or goes to the dead letters.
    pub fn give_back(&self, me: Claim, index: u32) -> Result<()> {
        let most = self.plan.attempts_max();
        let dead = most != 0 && u64::from(self.attempts(index)) >= most;
        let which = if dead { plan::DEAD } else { plan::RETURNED };
        self.put(me, which, index, u64::MAX)?;
        points::client("queue: item came back, nobody woken");
        if dead {
            self.dead_letters().notify_one();
            self.tell_gone();
        } else {
            // Also who would be told that the queue is drained.
            self.items().notify_all();
        }
        Ok(())
    }

    /// One item that this session has received is done. Whether there was one.
    pub fn task_done(&self, me: Claim) -> Result<bool> {
        for index in 0..self.backed_items() {
            let word = self.state(index).load();
            if let State::Leased(claim) = State::of(word)
                && claim.session() == me.session()
                && self.is_delivered(index)
                && self.state(index).compare_exchange(word, item::FREE).is_ok()
            {
                points::client("queue: task done, nobody told");
                self.tell_gone();
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether any item waits, or is in somebody's hands.
    pub fn is_unfinished(&self) -> bool {
        (0..self.backed_items()).any(|index| match State::of(self.state(index).load()) {
            State::Taken(_) | State::Leased(_) => true,
            State::Published(which, _) => which != plan::DEAD,
            State::Free | State::Busy(_) => false,
        })
    }

    // ---- Looking ----

    /// Items that wait.
    pub fn len(&self) -> u64 {
        self.ring(plan::MAIN).len() + self.ring(plan::RETURNED).len()
    }

    /// Whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether as many wait as may.
    pub fn is_full(&self) -> bool {
        self.ring(plan::MAIN).len() >= self.plan.capacity()
    }

    /// Dead letters.
    pub fn dead_len(&self) -> u64 {
        self.ring(plan::DEAD).len()
    }

    /// Whether an item is not any more where it was published.
    #[inline]
    fn is_gone(&self, index: u32, position: u64) -> bool {
        self.is_gone_from(plan::MAIN, index, position)
    }

    #[inline]
    fn is_gone_from(&self, which: usize, index: u32, position: u64) -> bool {
        index >= self.plan.items || self.state(index).load() != item::published(which, position)
    }

    /// Frees an item of the caller's, and its units.
    fn discard(&self, index: u32, first: u32) -> Result<()> {
        let freed = self.free_units(index, first);
        points::client("queue: units freed, the item is not");
        self.state(index).swap(item::FREE);
        freed
    }
}

/// The error of a queue whose words make no sense.
#[cold]
fn nonsense() -> Error {
    scribbled("queue")
}

/// The error of an item that no emptiness could make room for.
#[cold]
fn too_large(len: usize, units: u32) -> Error {
    let most = u64::from(units) * plan::UNIT_BYTES as u64;
    let text = format!(
        "an item of {len} bytes does not fit into {most} bytes, which is all the room here even when nothing waits: ask for a larger `bytes_max`"
    );
    Error::new(ErrorKind::TooLarge, text)
}
