//! A session's lanes, as the manager sees them: written by somebody else at any moment, and so copied before it is looked at.
//!
//! What a request says is copied into memory of the manager's own before it is looked at. The bytes of values are looked at by
//! nobody; so large ones stand *behind* their request, in the room, and each is copied once, straight into its
//! block, when that has been allocated. Who changes it meanwhile has stored something else. Small ones are copied as parts of their requests: that
//! is shorter than to come back for them. The slot says where in the room the part begins in which they
//! stand, with whatever between them, and how many bytes it has:
//!
//! | place | bytes of that part | the request | the values |
//! |---|---|---|---|
//! | 0 | 0 | in the slot | |
//! | in the room | 0 | there | |
//! | in the room | more, and the request's length is no more than a slot's | in the slot | there |
//! | in the room | more, and the request is longer | follows that part | there |
//!
//! Which of them is whose, the request says: see `wire::behind`.

use super::{
    ANSWERED, AnswerWords, BY_SOCKET, DOORBELL_WORDS, IN_PLACE_BYTES, LANES, LOOKING, OVER, PostWords, REPLY, REPLY_BYTES, REQUEST,
    REQUEST_PAYLOAD, ROOM, RUN_BYTES, SEGMENT_BYTES, SLEEPING, WATCHED, load_runs, slot, stop_watching, store_bytes, words,
};
use crate::error::Result;
use crate::map::{Access, ArenaWriter, Segment};
use crate::sys;
use crate::wire::behind::PlaceBehind;
use crate::wire::{HEAD_BYTES, Head};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// A request as it stood in its slot when it was copied. Where its payload is lies within the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its head. The lane is the one it was posted on, whatever stood there.
    pub head: Head,
    /// Its mark, for the answer.
    pub mark: u32,
    /// The processor that its client says it was posted on.
    pub cpu: u32,
    /// Where in the segment its payload is; 0: in the slot.
    place: u64,
    /// Where in the room the part begins in which the values stand that it brings, if it does.
    values: u64,
    /// Bytes of that part; 0: there are none.
    pub values_len: u32,
}

/// Where a request of so many bytes stands if its slot does not simply hold it (0: in the slot, and the values that it brings are in the room),
/// where the part with these begins, and how many bytes it has. `None`: not in the room.
#[inline(never)]
fn places(len: u32, place: u64) -> Option<(u64, u64, u32)> {
    let (len, values, values_len) = (u64::from(len), u64::from(place as u32), (place >> 32) as u32);
    let behind = values + u64::from(values_len);
    let (place, end) = if values_len > 0 && len <= IN_PLACE_BYTES as u64 { (0, behind) } else { (behind, behind + len) };
    ((ROOM..SEGMENT_BYTES).contains(&values) && end <= SEGMENT_BYTES).then_some((place, values, values_len))
}

/// The values behind a request, in the room, where its client may be writing. Whoever uses them copies each into its block, in their order, and looks
/// at nothing.
pub struct ValuesBehind {
    lanes: Arc<OwnedFd>,
    at: u64,
    len: u32,
    /// What begins before it has been copied, or passed over.
    used: u64,
    /// That, when the commit began which is being done.
    begun: u64,
}

impl ValuesBehind {
    /// Whether there is a value at a place, and it has not been copied.
    pub fn has(&self, place: PlaceBehind) -> bool {
        place.start() >= self.used && place.end() <= self.len.into()
    }

    /// Copies a value into a block of the arena that no version shows: it, and what stands before it, cannot be copied again. `false`: there is
    /// none, or it could not be read.
    pub fn copy_to_arena(&mut self, place: PlaceBehind, arena: &ArenaWriter, block: u64) -> bool {
        if !self.has(place) {
            return false;
        }
        self.used = place.end();
        arena.read_file(&self.lanes, self.at + place.start(), block, place.len())
    }

    /// A commit begins.
    pub fn begin(&mut self) {
        self.begun = self.used;
    }

    /// It begins once more, because there was no memory for it.
    pub fn begin_again(&mut self) {
        self.used = self.begun;
    }
}

/// How an answer was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// It fitted into the slot; else the client was told that it comes by the socket.
    pub fits: bool,
    /// The caller slept, and has been woken.
    pub slept: bool,
}

/// The lanes that clients post on: all but the shared one.
const CLIENTS_LANES: [u64; DOORBELL_WORDS] = {
    let mut lanes = [u64::MAX; DOORBELL_WORDS];
    lanes[0] &= !1;
    lanes[DOORBELL_WORDS - 1] &= u64::MAX >> (64 * DOORBELL_WORDS - LANES);
    lanes
};

/// The lanes of one session.
pub struct ServedLanes {
    /// Doorbells and slots; the room is not mapped.
    pub(super) segment: Segment,
    file: Arc<OwnedFd>,
    /// Lanes that were ever posted on.
    used: [u64; DOORBELL_WORDS],
}

struct Doorbells<'a>(&'a Segment);

impl PostWords for Doorbells<'_> {
    fn set_bit(&self) {
        unreachable!("only clients post")
    }

    fn watched(&self) -> u64 {
        unreachable!("only clients ask who watches")
    }

    fn set_watched(&self, watched: u64) {
        self.0.word(WATCHED).store(watched, Ordering::Relaxed);
    }

    fn fence(&self) {
        // SYNC: pairs with the SeqCst fetch-or and load of `Doorbell`.
        fence(Ordering::SeqCst);
    }

    #[inline(always)]
    fn is_rung(&self) -> bool {
        words(self.0, 0, DOORBELL_WORDS).iter().fold(0, |bits, word| bits | word.load(Ordering::Relaxed)) != 0
    }
}

/// A lane's answer, as the manager gives it.
struct Given<'a> {
    answered: &'a AtomicU32,
    sleeping: &'a AtomicU32,
    mark: u32,
}

impl AnswerWords for Given<'_> {
    fn set_answered(&self) {
        // SYNC: Release pairs with the Acquire in `Awaited::look`: the reply before it.
        self.answered.store(self.mark, Ordering::Release);
    }

    fn is_answered(&self) -> bool {
        unreachable!("only callers ask whether they are answered")
    }

    fn set_sleeping(&self) {
        unreachable!("only callers sleep")
    }

    fn is_sleeping(&self) -> bool {
        self.sleeping.load(Ordering::Relaxed) != 0
    }

    fn fence(&self) {
        // SYNC: pairs with the fence between a caller's store of *sleeping* and its last look at *answered*.
        fence(Ordering::SeqCst);
    }
}

impl ServedLanes {
    /// The lanes of a new session, and the descriptor to send its client.
    pub fn make() -> Result<ServedLanes> {
        let file = sys::memfd_sealed("commonhold-lanes", SEGMENT_BYTES)?;
        sys::back(&file, 0..4096)?;
        let segment = Segment::map(&file, ROOM, Access::ReadWrite)?;
        segment.keep_from_dumps()?;
        Ok(ServedLanes { segment, file: Arc::new(file), used: [0; DOORBELL_WORDS] })
    }

    /// Says that the doorbells are looked at from now on, on this processor. Look at them after it.
    pub fn watch(&self, cpu: u32) {
        self.segment.word(WATCHED).store(LOOKING | u64::from(cpu) << 32, Ordering::Relaxed);
    }

    /// Says that they are not any more. Whether something has been posted by somebody who may count on it.
    pub fn stop_watching(&self) -> bool {
        stop_watching(&Doorbells(&self.segment), 0)
    }

    /// Whether somebody has posted.
    #[inline(always)]
    pub fn is_rung(&self) -> bool {
        Doorbells(&self.segment).is_rung()
    }

    /// Takes the bits of all lanes that were posted on since the last time; `found` is told each word that has any, and where it is. The
    /// shared lane's, which no client of ours sets, is not among them.
    #[inline]
    pub fn take_rung(&mut self, mut found: impl FnMut(usize, u64)) {
        for (at, word) in words(&self.segment, 0, DOORBELL_WORDS).iter().enumerate() {
            if word.load(Ordering::Relaxed) != 0 {
                // SYNC: Acquire pairs with the Release in `Doorbell::set_bit`: the request before it.
                let rung = word.swap(0, Ordering::Acquire) & CLIENTS_LANES[at];
                self.used[at] |= rung;
                found(at, rung);
            }
        }
    }

    /// Copies a request's head and mark; `None` if it says what no client of ours would.
    #[inline]
    pub fn request(&self, lane: u16) -> Option<Request> {
        let words = words(&self.segment, slot(lane) + REQUEST, 4);
        let word = |at: usize| words[at].load(Ordering::Relaxed);
        let (head, place, mark, cpu) = (Head::from_words([word(0), word(1)]), word(2), word(3) as u32, (word(3) >> 32) as u32);
        let (place, values, values_len) = match place {
            0 if head.len as usize <= IN_PLACE_BYTES => (0, 0, 0),
            place => places(head.len, place)?,
        };
        (mark % 2 == 1).then_some(Request { head: Head { lane, ..head }, mark, cpu, place, values, values_len })
    }

    /// The values that a request brings, if it does.
    pub fn values_behind(&self, request: &Request) -> Option<ValuesBehind> {
        let (at, len) = (request.values, request.values_len);
        (len > 0).then(|| ValuesBehind { lanes: self.file.clone(), at, len, used: 0, begun: 0 })
    }

    /// Copies the first `len` bytes of a request's payload, at the most all, into a buffer, and gives them. `None`: they could not be read.
    #[inline]
    pub fn copy_payload<'b>(&self, request: &Request, len: usize, buffer: &'b mut Vec<u8>) -> Option<&'b [u8]> {
        let len = len.min(request.head.len as usize);
        // Never shortened, so that it is not filled with zeros again.
        if buffer.len() < len.next_multiple_of(RUN_BYTES) {
            buffer.resize(len.next_multiple_of(RUN_BYTES), 0);
        }
        if request.place == 0 {
            let payload = words(&self.segment, slot(request.head.lane) + REQUEST_PAYLOAD, IN_PLACE_BYTES / 8);
            load_runs(payload, &mut buffer[..len.next_multiple_of(RUN_BYTES)]);
        } else if !sys::read_at(&self.file, request.place, &mut buffer[..len]) {
            return None;
        }
        Some(&buffer[..len])
    }

    /// Copies the rest of a request's payload, from an offset on, into a block of the arena that no version shows. `false`: it could
    /// not be read.
    pub fn copy_to_arena(&self, request: &Request, from: u64, arena: &ArenaWriter, block: u64) -> bool {
        let len = u64::from(request.head.len).saturating_sub(from);
        if request.place == 0 {
            let mut buffer = Vec::new();
            let whole = self.copy_payload(request, usize::MAX, &mut buffer);
            return whole.and_then(|whole| whole.get(from as usize..)).map(|value| arena.copy_in(block, value)).is_some();
        }
        arena.read_file(&self.file, request.place + from, block, len)
    }

    /// Writes a reply (head and payload as one) and publishes it by its mark. Who sleeps is woken.
    #[inline]
    pub fn answer(&self, lane: u16, mark: u32, reply: &[u8]) -> Answered {
        let slot = slot(lane);
        let fits = reply.len() <= REPLY_BYTES;
        if fits {
            store_bytes(words(&self.segment, slot + REPLY, REPLY_BYTES / 8), reply);
        } else {
            let head = Head { len: 0, code: BY_SOCKET, quiet: false, lane, number: 0 };
            let words = words(&self.segment, slot + REPLY, 2);
            words.iter().zip(head.to_words()).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
        }
        crate::points::manager("lane: before the answer is published");
        let (answered, sleeping) = (self.segment.half(slot + ANSWERED), self.segment.half(slot + SLEEPING));
        let slept = super::answer(&Given { answered, sleeping, mark });
        if slept {
            crate::points::manager("lane: answered, the caller sleeps");
            sys::futex_wake_all(answered);
        }
        Answered { fits, slept }
    }

    /// The session is over: whoever waits here, or will, is told.
    pub fn end(&mut self) {
        stop_watching(&Doorbells(&self.segment), OVER.into());
        self.take_rung(|_, _| ());
        for lane in 0..LANES as u16 {
            if self.used[usize::from(lane / 64)] & 1 << (lane % 64) != 0 {
                let answered = self.segment.half(slot(lane) + ANSWERED);
                answered.store(OVER, Ordering::Release);
                sys::futex_wake_all(answered);
            }
        }
    }
}

const _: () = assert!(REPLY_BYTES > HEAD_BYTES);

impl AsFd for ServedLanes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
