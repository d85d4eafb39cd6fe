//! A session's lanes, as its client sees them.

use super::{
    ANSWERED, AnswerWords, IN_PLACE_BYTES, LANES, LOOKING, OVER, PostWords, REPLY, REPLY_BYTES, REQUEST, REQUEST_PAYLOAD, ROOM,
    SEGMENT_BYTES, SLEEPING, SLOT_BYTES, WATCHED, begin_sleep, load_bytes, post, slot, store_bytes, words,
};
use crate::error::Result;
use crate::limits::LANE_ROOM_BYTES;
use crate::liveness::{Slept, sleep_until};
use crate::map::{Access, Segment};
use crate::socket::Spin;
use crate::sys::{self, LARGE_PAGE_BYTES, LargeMapping, Pace};
use crate::wire::{HEAD_BYTES, Head};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

/// Bytes of a reply's payload that are copied without an allocation: one value, lent, has 45.
pub const SMALL_REPLY_BYTES: usize = 48;

/// What a post came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// The manager looks at the doorbells.
    Seen {
        /// It does so on the processor that this thread runs on.
        here: bool,
    },
    /// It must be told.
    Unseen,
    /// The session is over.
    Over,
}

/// What a wait for an answer came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The answer stands in the slot.
    Answered,
    /// There will be none: the session is over, or the manager has died.
    Over,
}

/// The lanes of this process in one session.
pub struct CallingLanes {
    segment: Segment,
    file: OwnedFd,
    /// Mark of each lane's last post; only the lane's thread changes it.
    posts: Box<[AtomicU32]>,
    /// Whether a lane's slot has memory behind it.
    backed: Box<[AtomicBool]>,
}

/// A lane's bit, and the word that says whether anybody looks at it.
struct Doorbell<'a> {
    segment: &'a Segment,
    lane: u16,
}

impl PostWords for Doorbell<'_> {
    #[inline(always)]
    fn set_bit(&self) {
        let word = self.segment.word(8 * usize::from(self.lane / 64));
        // SYNC: Release for the request before it, Acquire in `ServedLanes::take_rung`; SeqCst pairs with the manager's fence.
        word.fetch_or(1 << (self.lane % 64), Ordering::SeqCst);
    }

    #[inline(always)]
    fn watched(&self) -> u64 {
        // SYNC: SeqCst, not before the bit is set: pairs with the fence between the manager's store of this and its last look.
        self.segment.word(WATCHED).load(Ordering::SeqCst)
    }

    fn set_watched(&self, _watched: u64) {
        unreachable!("only the manager says what it watches")
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    fn is_rung(&self) -> bool {
        unreachable!("only the manager looks at doorbells")
    }
}

/// A lane's answer, as its caller waits for it.
struct Awaited<'a> {
    answered: &'a AtomicU32,
    sleeping: &'a AtomicU32,
    mark: u32,
}

impl Awaited<'_> {
    #[inline(always)]
    fn look(&self) -> u32 {
        // SYNC: Acquire pairs with the Release store in `ServedLanes::answer`: the reply is there.
        self.answered.load(Ordering::Acquire)
    }

    #[inline(always)]
    fn is_done(&self, answered: u32) -> bool {
        answered == self.mark || answered == OVER
    }
}

impl AnswerWords for Awaited<'_> {
    fn set_answered(&self) {
        unreachable!("only the manager answers")
    }

    #[inline(always)]
    fn is_answered(&self) -> bool {
        self.is_done(self.look())
    }

    fn set_sleeping(&self) {
        self.sleeping.store(1, Ordering::Relaxed);
    }

    fn is_sleeping(&self) -> bool {
        unreachable!("only the manager asks who sleeps")
    }

    fn fence(&self) {
        // SYNC: pairs with the fence between the manager's store of *answered* and its look at *sleeping*.
        fence(Ordering::SeqCst);
    }
}

impl CallingLanes {
    /// Maps a session's segment.
    pub fn map(file: OwnedFd) -> Result<Self> {
        let segment = Segment::map(&file, SEGMENT_BYTES, Access::ReadWrite)?.keep_from_children()?;
        segment.keep_from_dumps()?;
        Ok(CallingLanes {
            segment,
            file,
            posts: (0..LANES).map(|_| AtomicU32::new(0)).collect(),
            backed: (0..LANES).map(|_| AtomicBool::new(false)).collect(),
        })
    }

    #[inline(always)]
    fn awaited(&self, lane: u16, mark: u32) -> Awaited<'_> {
        let slot = slot(lane);
        Awaited { answered: self.segment.half(slot + ANSWERED), sleeping: self.segment.half(slot + SLEEPING), mark }
    }

    /// Whether a lane can take a call of the thread that it belongs to: its slot has memory, and its last call is over.
    #[inline]
    pub fn is_free(&self, lane: u16) -> bool {
        let number = usize::from(lane);
        let last = self.posts[number].load(Ordering::Relaxed);
        if last != 0 {
            return self.awaited(lane, last).look() == last;
        }
        if !self.backed[number].load(Ordering::Relaxed) {
            let slot = slot(lane) as u64;
            if sys::back(&self.file, slot..slot + SLOT_BYTES as u64).is_err() {
                return false;
            }
            self.backed[number].store(true, Ordering::Relaxed);
        }
        true
    }

    /// Whether nothing has been posted on a lane since the post with this mark.
    pub fn is_last(&self, lane: u16, mark: u32) -> bool {
        self.posts[usize::from(lane)].load(Ordering::Relaxed) == mark
    }

    /// Posts a request on a free lane: its payload in place, or at an offset of the segment, in the room. Returns its mark.
    #[inline(always)]
    pub fn post(&self, lane: u16, head: Head, payload: Result<&[u8], u64>) -> (u32, Posted) {
        let place = match payload {
            Ok(bytes) => {
                self.lay_down(lane, bytes);
                0
            }
            Err(offset) => offset,
        };
        self.post_placed(lane, head, place)
    }

    /// Posts a request with values behind it, which stand at this offset of the segment, in the room, and have so many bytes. The payload
    /// stands in the slot, or follows the values if it does not fit there: then it is none here.
    #[inline(never)]
    pub fn post_with(&self, lane: u16, head: Head, payload: Option<&[u8]>, (place, len): (u64, u32)) -> (u32, Posted) {
        payload.into_iter().for_each(|payload| self.lay_down(lane, payload));
        self.post_placed(lane, head, place | u64::from(len) << 32)
    }

    /// Writes a payload into a lane's slot.
    #[inline(always)]
    fn lay_down(&self, lane: u16, bytes: &[u8]) {
        assert!(bytes.len() <= IN_PLACE_BYTES, "{} bytes do not fit into a slot", bytes.len());
        store_bytes(words(&self.segment, slot(lane) + REQUEST_PAYLOAD, IN_PLACE_BYTES / 8), bytes);
    }

    #[inline(always)]
    fn post_placed(&self, lane: u16, head: Head, place: u64) -> (u32, Posted) {
        let number = &self.posts[usize::from(lane)];
        let mark = number.load(Ordering::Relaxed).wrapping_add(2) | 1;
        let ([first, second], cpu) = (head.to_words(), sys::current_cpu());
        let words = words(&self.segment, slot(lane) + REQUEST, 4);
        store_words(words, [first, second, place, u64::from(mark) | u64::from(cpu) << 32]);
        number.store(mark, Ordering::Relaxed);
        crate::points::client("lane: before it is posted");
        let watched = post(&Doorbell { segment: &self.segment, lane });
        crate::points::client("lane: posted");
        let posted = match watched {
            over if over == u64::from(OVER) => Posted::Over,
            looking if looking & LOOKING != 0 => Posted::Seen { here: looking >> 32 == u64::from(cpu) },
            _ => Posted::Unseen,
        };
        (mark, posted)
    }

    /// Waits for the answer to a post: looks for it as long as `spin` says, if at all, then sleeps. `alive` is the manager's alive word.
    #[inline]
    pub fn wait(&self, lane: u16, mark: u32, alive: &AtomicU32, spin: Option<&mut Spin>) -> Result<Waited> {
        let awaited = self.awaited(lane, mark);
        if !spin.is_some_and(|spin| spin.wait_in_memory(|| awaited.is_answered())) {
            let slept = sleep(&awaited, alive);
            awaited.sleeping.store(0, Ordering::Relaxed);
            slept?;
        }
        Ok(if awaited.look() == mark { Waited::Answered } else { Waited::Over })
    }

    /// The head of the reply in a lane's slot.
    #[inline]
    pub fn reply_head(&self, lane: u16) -> Head {
        let words = words(&self.segment, slot(lane) + REPLY, 2);
        Head::from_words([words[0].load(Ordering::Relaxed), words[1].load(Ordering::Relaxed)])
    }

    /// The first bytes of its payload, and what else stands there if it is shorter.
    #[inline]
    pub fn small_reply(&self, lane: u16) -> [u8; SMALL_REPLY_BYTES] {
        let mut bytes = [0; SMALL_REPLY_BYTES];
        load_bytes(words(&self.segment, slot(lane) + REPLY + HEAD_BYTES, SMALL_REPLY_BYTES / 8), &mut bytes);
        bytes
    }

    /// Its payload, as much as `payload` has room for and the slot holds.
    #[inline]
    pub fn copy_reply(&self, lane: u16, payload: &mut [u8]) {
        load_bytes(words(&self.segment, slot(lane) + REPLY + HEAD_BYTES, (REPLY_BYTES - HEAD_BYTES) / 8), payload);
    }

    /// Gives bytes of the room memory; offsets are from the room's start.
    pub fn back_room(&self, range: Range<u64>) -> Result<()> {
        assert!(range.end <= LANE_ROOM_BYTES);
        sys::back(&self.file, ROOM + range.start..ROOM + range.end)
    }

    /// Takes it away again.
    pub fn punch_room(&self, range: Range<u64>) {
        assert!(range.end <= LANE_ROOM_BYTES);
        // What cannot be given back is used again, or goes with the session.
        let _ = sys::punch(&self.file, ROOM + range.start..ROOM + range.end);
    }

    /// Puts the room's beginning into one large page, with what is there, if it is time to ask for such, and if the kernel has one. Who reads or writes there
    /// meanwhile waits.
    pub fn enlarge_page(&self, pace: &Pace) -> bool {
        let mapped = LargeMapping::shared(&self.file, ROOM + LARGE_PAGE_BYTES, true);
        mapped.is_ok_and(|mapping| mapping.keep_from_children().is_ok() && mapping.back(&self.file, ROOM..ROOM + LARGE_PAGE_BYTES, pace))
    }

    /// Writes into the room, where it has memory.
    #[inline]
    pub fn write_room(&self, offset: u64, bytes: &[u8]) {
        self.segment.copy_in((ROOM + offset) as usize, bytes);
    }

    /// The same past the caches: for many bytes, within a large page.
    pub fn stream_into_room(&self, offset: u64, bytes: &[u8]) {
        self.segment.stream_in((ROOM + offset) as usize, bytes);
    }
}

#[inline(always)]
fn store_words(words: &[AtomicU64], values: [u64; 4]) {
    words.iter().zip(values).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
}

#[cold]
fn sleep(awaited: &Awaited<'_>, alive: &AtomicU32) -> Result<()> {
    loop {
        let before = awaited.look();
        if awaited.is_done(before) || !begin_sleep(awaited) {
            return Ok(());
        }
        if sleep_until(awaited.answered, before, alive, None)? == Slept::ManagerDied {
            return Ok(());
        }
    }
}
