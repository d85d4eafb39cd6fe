//! The short way: claiming an item, and sending and receiving one whose payload lies in it. The steps are those of the long way (`begin`,
//! `fill`, `publish`; `read`, `deliver`), in one piece, because calls between them would cost as much as they do.

use super::plan::{self, Region};
use super::{Queue, Room, Sent, item};
use crate::error::Result;
use crate::points;
use crate::sync::{Claim, Word};
use std::sync::atomic::Ordering::Relaxed;

/// How many items ahead of the one in hands the next are brought near: as many as pass in the time that this takes.
pub const AHEAD: u32 = 4;

/// A payload that was short.
#[repr(C, align(16))]
pub struct Short {
    bytes: [u8; item::INLINE_BYTES],
    len: usize,
}

impl Short {
    /// Its bytes.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<M: Room + ?Sized> Queue<'_, M> {
    /// Sends a payload that fits into its item ([`is_short`](Self::is_short)): the same in one step. Nothing has been claimed unless it is
    /// `Done`.
    #[inline(always)]
    pub fn send_short(&self, me: Claim, payload: &[u8], ticket: u64) -> Result<Sent> {
        let index = match self.claim_one(me)? {
            Ok(index) => index,
            Err(not) => return Ok(not),
        };
        self.memory.put(self.plan.item(index) + item::INLINE, payload);
        points::client("queue: item filled");
        self.write_head(index, payload.len(), 0, ticket);
        self.publish_item(me, index, 0)
    }

    /// Whether a payload of so many bytes fits into its item.
    #[inline(always)]
    pub fn is_short(len: usize) -> bool {
        len <= item::INLINE_BYTES
    }

    /// The payload of an item that the caller has taken, if it is short and no handles go with it.
    #[inline(always)]
    pub fn read_short(&self, index: u32) -> Option<Short> {
        let (len, _) = self.head(index);
        if len > item::INLINE_BYTES || self.ticket(index) != 0 {
            return None;
        }
        let mut bytes = [0; item::INLINE_BYTES];
        self.memory.get_short(self.plan.item(index) + item::INLINE, &mut bytes);
        Some(Short { bytes, len })
    }

    /// The same as [`deliver`](Self::deliver) for an item whose payload is short.
    #[inline(always)]
    pub fn deliver_short(&self, me: Claim, index: u32) -> Result<()> {
        if self.plan.is_joinable() {
            return self.deliver(me, index);
        }
        points::client("queue: item copied, not delivered");
        self.drop_item(me, index, 0)
    }

    /// Claims an item, if there may be one more.
    #[inline(always)]
    pub(super) fn claim_one(&self, me: Claim) -> Result<std::result::Result<u32, Sent>> {
        let ring = self.ring(plan::MAIN);
        if ring.is_full(self.plan.capacity(), &self.plan.head_seen, |index, position| self.is_gone(index, position))? {
            return Ok(Err(if self.is_closed()? { Sent::Closed } else { Sent::Full }));
        }
        let Some(index) = self.claim_item(me) else {
            let open = self.open(Region::Items);
            let more = u64::from(open) * 2;
            return Ok(Err(if open < self.plan.items { Sent::Grow(Region::Items, more) } else { Sent::Full }));
        };
        points::client("queue: item claimed");
        Ok(Ok(index))
    }

    #[inline(always)]
    fn claim_item(&self, me: Claim) -> Option<u32> {
        let open = self.open(Region::Items);
        let start = self.plan.item_cursor.load(Relaxed);
        let start = if start < open { start } else { 0 };
        let index = if self.claim_this(me, start) { start } else { self.claim_any(me, start, open)? };
        self.plan.item_cursor.store(index + 1, Relaxed);
        // A receiver had it last: it comes from that one's cache while this one is being filled.
        self.fetch_item(index + AHEAD);
        Some(index)
    }

    #[inline(always)]
    fn claim_this(&self, me: Claim, index: u32) -> bool {
        let state = self.state(index);
        state.load() == item::FREE && state.compare_exchange(item::FREE, me.word()).is_ok()
    }

    #[inline(never)]
    fn claim_any(&self, me: Claim, start: u32, open: u32) -> Option<u32> {
        (start..open).chain(0..start.min(open)).find(|index| self.claim_this(me, *index))
    }

    #[inline(always)]
    pub(super) fn fetch_item(&self, index: u32) {
        if index < self.plan.items {
            let at = self.plan.item(index);
            self.memory.fetch(at);
            self.memory.fetch(at + item::ITEM_BYTES / 2);
        }
    }
}
