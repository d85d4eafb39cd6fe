//! One of the two roads of calls (the other: `connection`): lanes, through memory that the manager looks at. See `ipc::lane`.
//!
//! A commit goes by its thread's lane if the thread has one, the lane is free (its last call has been answered) and there is room for a
//! payload that does not fit into the slot. Everything else goes by the socket, rare calls always. The two roads do not overtake each
//! other where it matters: a large value that went ahead by a lane has been answered before it is named, and a commit that names one
//! that went by the socket follows it there.

use crate::connection::{Connection, Reply, disconnected, no_reply};
use crate::request::Request;
use crate::room::Room;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::fork::Stamp;
use commonhold_ipc::lane::{BY_SOCKET, CallingLanes, IN_PLACE_BYTES, Posted, ROOM, SMALL_REPLY_BYTES, Waited};
use commonhold_ipc::limits::{LANE_ROOM_BYTES, LANE_ROOM_KEPT_BYTES};
use commonhold_ipc::pin::SHARED_LANE;
use commonhold_ipc::points;
use commonhold_ipc::socket::{Peer, Spins};
use commonhold_ipc::sys::{LARGE_PAGE_BYTES, Pace, copies_large_pages_whole};
use commonhold_ipc::wire::{Call, Head, buffers};
use std::cell::RefCell;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where in a part its payload begins. The kernel copies it into a buffer or a block that begins near the start of a page, and where the
/// target lies less than 64 bytes above the source, within their pages, some processors' string instructions take six times as long
/// (1 MiB: 75 µs, or 450 to 600). Half a page is far from either.
pub const PAYLOAD_AT: u64 = 2048;

/// Fewer bytes are written into the room by way of the caches, where the manager finds them.
const STREAMED_BYTES_MIN: usize = 16 << 10;
/// A request that is longer is, too: the manager reads it once from the room and a second time from its own copy, which else would not stay in its cache.
const STREAMED_REQUEST_BYTES_MAX: usize = 384 << 10;
/// Bytes, so many and more at a time, after which a large page for the room's beginning is worth what it takes: some 200 µs, and its memory.
const LARGE_PAGE_AFTER_BYTES: u64 = 16 << 20;
const _: () = assert!(LANE_ROOM_KEPT_BYTES >= LARGE_PAGE_BYTES, "what is given back would split the page");

thread_local! {
    /// How long this thread looks for answers before it sleeps.
    static SPINS: RefCell<Spins> = RefCell::new(Spins::of_caller());
}

#[cold]
fn outcome_unknown(error: Error) -> Error {
    let text =
        format!("the answer to this call could not be waited for: whether it took effect is not known, the session is over ({error})");
    Error::caused(ErrorKind::OutcomeUnknown, text, error)
}

/// A session's lanes.
pub struct LaneRoad {
    lanes: CallingLanes,
    room: Mutex<Room>,
    /// The room's beginning may be put into one large page.
    may_be_large: bool,
    /// It has been.
    is_large: AtomicBool,
    /// Many bytes at a time that have been written since a large page was asked for.
    in_small_pages: AtomicU64,
    /// When the manager was last seen awake, by a call through the room, it ran on another processor.
    is_apart: AtomicBool,
    stamp: Stamp,
}

/// A part of the room, given back when dropped.
struct Part<'l> {
    road: &'l LaneRoad,
    range: Range<u64>,
}

/// A call that has been posted and waits for its answer.
pub struct UnderWay {
    lane: u16,
    mark: u32,
    /// Where the manager was when it was posted.
    manager: Peer,
    /// The part of the room in which its payload stands.
    part: Option<Range<u64>>,
}

impl Part<'_> {
    /// Where in the room its payload begins.
    fn start(&self) -> u64 {
        self.range.start + PAYLOAD_AT
    }

    /// Goes with a call that has been posted: it may be read until there is an answer. Without one, it goes with the session.
    fn keep(self, posted: Result<UnderWay>) -> Result<UnderWay> {
        let range = self.range.clone();
        std::mem::forget(self);
        Ok(UnderWay { part: Some(range), ..posted? })
    }
}

/// Values that stand in the room already, ahead of the request that names them: see `ipc::wire::behind`.
pub struct Standing<'l> {
    part: Part<'l>,
    bytes: u32,
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        self.road.give_room(self.range.clone());
    }
}

impl LaneRoad {
    /// On a session's segment.
    pub fn new(segment: OwnedFd, large_pages: bool) -> Result<LaneRoad> {
        Ok(LaneRoad {
            lanes: CallingLanes::map(segment)?,
            room: Mutex::default(),
            may_be_large: large_pages && copies_large_pages_whole(),
            is_large: AtomicBool::new(false),
            in_small_pages: AtomicU64::new(0),
            is_apart: AtomicBool::new(false),
            stamp: Stamp::now(),
        })
    }

    /// Room for so many bytes, if there is any.
    fn part(&self, bytes: u64) -> Option<Part<'_>> {
        let range = self.take_room(bytes + PAYLOAD_AT)?;
        Some(Part { road: self, range })
    }

    /// Takes so many bytes of the room, whole pages, if there are any.
    pub fn take_room(&self, bytes: u64) -> Option<Range<u64>> {
        self.room().take(bytes, |range| self.lanes.back_room(range))
    }

    /// Gives them back.
    pub fn give_room(&self, range: Range<u64>) {
        // In a forked child the room is the parent's: its memory must not go, and its lock may be held for ever.
        if self.stamp.is_current() {
            let mut room = self.room();
            room.give(range, |range| self.lanes.punch_room(range));
            if self.in_small_pages.load(Ordering::Relaxed) >= LARGE_PAGE_AFTER_BYTES {
                self.enlarge_page(room);
            }
        }
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the room's beginning into one large page, when nobody has any of it: whoever read or wrote there, and be it the manager, would wait.
    #[cold]
    fn enlarge_page(&self, mut room: MutexGuard<'_, Room>) {
        static PACE: Pace = Pace::new(true);
        let Some(beginning) = room.take_beginning(LARGE_PAGE_BYTES) else { return };
        // If there is none, the next one is asked for when it would have served as often once more, or when it is time for that again.
        self.in_small_pages.store(0, Ordering::Relaxed);
        drop(room);
        self.is_large.store(self.lanes.enlarge_page(&PACE), Ordering::Relaxed);
        self.room().give(beginning, |range| self.lanes.punch_room(range));
    }

    /// Writes into the room, into a part of the caller's.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        self.lanes.write_room(offset, bytes);
    }

    /// The same for many bytes, past the caches where that is quicker. `once`: the manager reads them only once, as it does values.
    pub fn write_many(&self, offset: u64, bytes: &[u8], once: bool) {
        let (len, is_many) = (bytes.len() as u64, bytes.len() >= STREAMED_BYTES_MIN);
        let is_large = self.is_large.load(Ordering::Relaxed);
        if is_many && !is_large && self.may_be_large {
            self.in_small_pages.fetch_add(len, Ordering::Relaxed);
        }
        if is_many && is_large && once && offset + len <= LARGE_PAGE_BYTES && self.is_apart.load(Ordering::Relaxed) {
            self.lanes.stream_into_room(offset, bytes);
        } else {
            self.write(offset, bytes);
        }
    }

    /// Whether a thread's lane can take a call.
    #[inline]
    pub fn is_free(&self, lane: u16) -> bool {
        lane != SHARED_LANE && self.lanes.is_free(lane)
    }

    /// Runs a call on a lane. `None`: it must go by the socket, nothing has been said yet.
    #[inline]
    pub fn call(&self, connection: &Connection, request: &Request, lane: u16, number: u64, changes: bool) -> Option<Result<Reply>> {
        let begun = self.begin(connection, request, lane, number, changes)?;
        Some(begun.and_then(|posted| self.finish(connection, posted, changes)))
    }

    /// Posts a call on a lane. `None`: it must go by the socket, nothing has been said yet.
    #[inline]
    pub fn begin(&self, connection: &Connection, request: &Request, lane: u16, number: u64, changes: bool) -> Option<Result<UnderWay>> {
        // In the middle of a frame on the socket it could not ring; there it is told what is wrong.
        if !request.fits_lanes() || !self.is_free(lane) || connection.is_streaming_here() {
            return None;
        }
        let (head, payload) = match request.parts(lane, number) {
            Ok(parts) => parts,
            Err(error) => return Some(Err(error)),
        };
        if payload.len() <= IN_PLACE_BYTES {
            return Some(self.post(connection, head, Ok(payload), changes));
        }
        if payload.len() as u64 + PAYLOAD_AT > LANE_ROOM_BYTES {
            return None;
        }
        let apart = request.without_values().and_then(|edition| self.begin_apart(connection, head, payload, edition, changes));
        apart.or_else(|| self.begin_in_room(connection, head, payload, changes))
    }

    /// Posts a call whose payload stands in the room.
    #[inline(never)]
    fn begin_in_room(&self, connection: &Connection, head: Head, payload: &[u8], changes: bool) -> Option<Result<UnderWay>> {
        let part = self.part(payload.len() as u64)?;
        self.write_many(part.start(), payload, payload.len() <= STREAMED_REQUEST_BYTES_MAX);
        let posted = self.post_at(connection, head, part.start(), changes);
        Some(part.keep(posted))
    }

    /// Posts a call of which the large values stand behind it: all of it is laid down, and what is posted is the `edition` without them.
    #[inline(never)]
    fn begin_apart(
        &self,
        connection: &Connection,
        head: Head,
        payload: &[u8],
        edition: Vec<u8>,
        changes: bool,
    ) -> Option<Result<UnderWay>> {
        let head = Head { len: edition.len() as u32, ..head };
        let posted = self.lay_down(payload, edition.len()).map(|values| {
            points::client("lane: values in the room");
            self.post_with(connection, head, &edition, values, changes)
        });
        buffers::give(edition);
        posted
    }

    /// Puts a value into the room, and leaves place for a request of at most so many bytes. `None`: the thread's next call could not go by its
    /// lane, or there is no room.
    pub fn stand(&self, connection: &Connection, lane: u16, value: &[u8], request: usize) -> Option<Standing<'_>> {
        if !self.is_free(lane) || connection.is_streaming_here() {
            return None;
        }
        let standing = self.lay_down(value, request)?;
        points::client("lane: a value in the room");
        Some(standing)
    }

    /// Puts bytes that are, or have in them, the values of a request into the room, and leaves place for it. `None`: there is no room.
    fn lay_down(&self, values: &[u8], request: usize) -> Option<Standing<'_>> {
        let behind = if request > IN_PLACE_BYTES { request } else { 0 };
        let part = self.part((values.len() + behind) as u64)?;
        self.write_many(part.start(), values, true);
        Some(Standing { part, bytes: values.len() as u32 })
    }

    /// Runs a call that names a value which stands in the room, on the lane for which that has been asked. There was no other since.
    pub fn call_with(&self, connection: &Connection, request: &Request, value: Standing<'_>, lane: u16, number: u64) -> Result<Reply> {
        let (head, payload) = request.parts(lane, number)?;
        let under_way = self.post_with(connection, head, payload, value, true);
        self.finish(connection, under_way?, true)
    }

    /// Posts a call that names values which stand in the room.
    fn post_with(&self, connection: &Connection, head: Head, payload: &[u8], values: Standing<'_>, changes: bool) -> Result<UnderWay> {
        let Standing { part, bytes } = values;
        let in_slot = head.len as usize <= IN_PLACE_BYTES;
        if !in_slot {
            let behind = part.start() + u64::from(bytes);
            assert!(behind + payload.len() as u64 <= part.range.end, "a request of {} bytes, of which fewer were said", payload.len());
            self.write(behind, payload);
        }
        let posted = self.lanes.post_with(head.lane, head, in_slot.then_some(payload), (ROOM + part.start(), bytes));
        part.keep(self.under_way(connection, head.lane, posted, changes).inspect(|call| self.note(call.manager)))
    }

    /// Whether a call has been answered.
    #[inline]
    pub fn is_answered(&self, call: &UnderWay) -> bool {
        self.lanes.is_free(call.lane)
    }

    /// Posts a call whose payload stands in room of the caller's, on a free lane.
    #[inline(never)]
    pub fn post_at(&self, connection: &Connection, head: Head, place: u64, changes: bool) -> Result<UnderWay> {
        self.post(connection, head, Err(ROOM + place), changes).inspect(|call| self.note(call.manager))
    }

    /// Where the manager was found. Of one that sleeps nobody knows.
    fn note(&self, manager: Peer) {
        match manager {
            Peer::Awake => self.is_apart.store(true, Ordering::Relaxed),
            Peer::Here => self.is_apart.store(false, Ordering::Relaxed),
            Peer::Asleep => {}
        }
    }

    #[inline(always)]
    fn post(&self, connection: &Connection, head: Head, payload: Result<&[u8], u64>, changes: bool) -> Result<UnderWay> {
        self.under_way(connection, head.lane, self.lanes.post(head.lane, head, payload), changes)
    }

    /// A call that has been posted: rings for it, if it must.
    #[inline(always)]
    fn under_way(&self, connection: &Connection, lane: u16, (mark, posted): (u32, Posted), changes: bool) -> Result<UnderWay> {
        let manager = match posted {
            Posted::Seen { here: false } => Peer::Awake,
            Posted::Seen { here: true } => Peer::Here,
            Posted::Unseen => {
                let ring = Head { len: 0, code: Call::Ring as u8, quiet: true, lane, number: 0 };
                connection.send(&ring.to_bytes()).map_err(|_| no_reply(changes))?;
                Peer::Asleep
            }
            Posted::Over => {
                connection.end();
                return Err(disconnected());
            }
        };
        Ok(UnderWay { lane, mark, manager, part: None })
    }

    /// Waits until a call from [`post_at`](Self::post_at) is answered. If the lane's thread has used it again meanwhile, it was free, so
    /// the call had been answered.
    pub fn settle(&self, connection: &Connection, call: UnderWay) -> Result<()> {
        if self.lanes.is_last(call.lane, call.mark) {
            self.finish(connection, call, false)?;
        }
        Ok(())
    }

    /// Waits for the answer to a call.
    #[inline]
    pub fn finish(&self, connection: &Connection, call: UnderWay, changes: bool) -> Result<Reply> {
        let reply = self.wait(connection, &call, changes);
        if let Some(range) = call.part
            && self.lanes.is_free(call.lane)
        {
            drop(Part { road: self, range });
        }
        reply
    }

    #[inline]
    fn wait(&self, connection: &Connection, call: &UnderWay, changes: bool) -> Result<Reply> {
        let UnderWay { lane, mark, manager, .. } = *call;
        let alive = connection.alive().ok_or_else(disconnected)?;
        let wait = |spins: &mut Spins| self.lanes.wait(lane, mark, alive, spins.with_peer(manager));
        // While the thread's storage is torn down there is no habit any more.
        let waited = SPINS.try_with(|spins| wait(&mut spins.borrow_mut())).unwrap_or_else(|_| wait(&mut Spins::of_caller()));
        match waited {
            Ok(Waited::Answered) => {}
            Ok(Waited::Over) => {
                connection.end();
                return Err(no_reply(changes));
            }
            Err(error) => {
                // Its answer will come when nobody waits for it any more, and could be taken for that to this thread's next call.
                connection.abandon();
                return Err(if changes { outcome_unknown(error) } else { error });
            }
        }
        points::client("lane: answered");
        let head = self.lanes.reply_head(lane);
        if head.code == BY_SOCKET {
            return connection.receive(lane, changes);
        }
        let len = head.len as usize;
        if len <= SMALL_REPLY_BYTES {
            return Reply::parse(head, &self.lanes.small_reply(lane)[..len]);
        }
        let mut payload = vec![0; len.min(commonhold_ipc::lane::REPLY_BYTES)];
        self.lanes.copy_reply(lane, &mut payload);
        Reply::parse(head, &payload)
    }
}
