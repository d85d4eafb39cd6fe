//! Who has which part of a session's room for large payloads. Known to the client alone: the manager believes nothing of it.
//!
//! Parts are pages, found first-fit, so that the room's beginning is used most. Memory comes by chunks, when a part first needs it, and
//! stays: it costs more to fetch than to keep. Beyond what is always kept, a chunk's memory stays only where it is needed again and again: it is
//! given back with the part if some dozens of uses before that did without it, and later once as many have. So a large payload
//! now and then leaves nothing behind when its client falls quiet; one after the other leave what they needed, the whole room at the most.
//! Nobody looks at it by the clock: that would be a thread in every client, or a word for the manager to take memory by.

use commonhold_ipc::error::Result;
use commonhold_ipc::limits::{LANE_ROOM_BYTES, LANE_ROOM_KEPT_BYTES};
use std::ops::Range;

const PAGE_BYTES: u64 = 4096;
/// What is backed at a time.
const CHUNK_BYTES: u64 = 64 << 10;
const CHUNKS: usize = (LANE_ROOM_BYTES / CHUNK_BYTES) as usize;
/// Uses of the room without a chunk after which that chunk's memory is given back.
const USES_WITHOUT_MAX: u64 = 64;

#[derive(Clone, Copy, Default)]
struct Chunk {
    is_backed: bool,
    /// The use of the room in which it was needed last; 0: never.
    needed: u64,
    /// It had been needed not long before that.
    again: bool,
}

/// The room.
pub struct Room {
    /// Parts that nobody has, in order, no two side by side.
    free: Vec<Range<u64>>,
    chunks: [Chunk; CHUNKS],
    uses: u64,
}

impl Default for Room {
    fn default() -> Self {
        Room { free: std::iter::once(0..LANE_ROOM_BYTES).collect(), chunks: [Chunk::default(); CHUNKS], uses: 0 }
    }
}

fn chunks_of(part: &Range<u64>) -> Range<usize> {
    (part.start / CHUNK_BYTES) as usize..part.end.div_ceil(CHUNK_BYTES) as usize
}

fn bytes_of(chunk: usize) -> Range<u64> {
    CHUNK_BYTES * chunk as u64..CHUNK_BYTES * (chunk as u64 + 1)
}

impl Room {
    /// A part of so many bytes, with memory behind it, which `back` gives. `None`: there is no room, or no memory.
    pub fn take(&mut self, bytes: u64, mut back: impl FnMut(Range<u64>) -> Result<()>) -> Option<Range<u64>> {
        let bytes = bytes.max(1).next_multiple_of(PAGE_BYTES);
        let at = self.free.iter().position(|part| part.end - part.start >= bytes)?;
        let part = self.free[at].start..self.free[at].start + bytes;
        self.uses += 1;
        for chunk in chunks_of(&part) {
            if !self.chunks[chunk].is_backed {
                back(bytes_of(chunk)).ok()?;
            }
            let needed = self.chunks[chunk].needed;
            let again = needed > 0 && self.uses - needed <= USES_WITHOUT_MAX;
            self.chunks[chunk] = Chunk { is_backed: true, needed: self.uses, again };
        }
        self.free[at].start = part.end;
        if self.free[at].is_empty() {
            self.free.remove(at);
        }
        Some(part)
    }

    /// The room's first bytes, whether they have memory or not, if nobody has any of them.
    pub fn take_beginning(&mut self, bytes: u64) -> Option<Range<u64>> {
        let first = self.free.first_mut().filter(|first| first.start == 0 && first.end >= bytes)?;
        first.start = bytes;
        if first.is_empty() {
            self.free.remove(0);
        }
        Some(0..bytes)
    }

    /// A part that is not needed any more. What has not been needed for long is given to `punch`.
    pub fn give(&mut self, part: Range<u64>, mut punch: impl FnMut(Range<u64>)) {
        let at = self.free.partition_point(|free| free.start < part.start);
        self.free.insert(at, part);
        if self.free.get(at + 1).is_some_and(|next| next.start == self.free[at].end) {
            self.free[at].end = self.free.remove(at + 1).end;
        }
        if at > 0 && self.free[at - 1].end == self.free[at].start {
            self.free[at - 1].end = self.free.remove(at).end;
        }
        for chunk in (LANE_ROOM_KEPT_BYTES / CHUNK_BYTES) as usize..CHUNKS {
            let bytes = bytes_of(chunk);
            let Chunk { is_backed, needed, again } = self.chunks[chunk];
            if is_backed
                && (!again || self.uses - needed > USES_WITHOUT_MAX)
                && self.free.iter().any(|free| free.start <= bytes.start && bytes.end <= free.end)
            {
                self.chunks[chunk].is_backed = false;
                punch(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonhold_ipc::error::Error;

    /// A room and the memory behind it.
    #[derive(Default)]
    struct Tried {
        room: Room,
        backed: std::collections::BTreeSet<u64>,
    }

    impl Tried {
        fn take(&mut self, bytes: u64) -> Option<Range<u64>> {
            let part = self.room.take(bytes, |range| {
                assert!(self.backed.insert(range.start / CHUNK_BYTES), "backed twice");
                Ok(())
            })?;
            assert!(part.end - part.start >= bytes && chunks_of(&part).all(|chunk| self.backed.contains(&(chunk as u64))));
            Some(part)
        }

        fn give(&mut self, part: Range<u64>) {
            self.room.give(part, |range| assert!(self.backed.remove(&(range.start / CHUNK_BYTES)), "punched twice"));
        }
    }

    #[test]
    fn parts_are_apart_and_come_together_again() {
        let mut tried = Tried::default();
        let mut state = 7u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut parts: Vec<Range<u64>> = Vec::new();
        for _ in 0..5_000 {
            if random(2) == 0 && !parts.is_empty() {
                let part = parts.swap_remove(random(parts.len() as u64) as usize);
                tried.give(part);
            } else if let Some(part) = tried.take(random(1 << 20)) {
                assert!(parts.iter().all(|other| other.end <= part.start || part.end <= other.start));
                parts.push(part);
            }
        }
        parts.into_iter().for_each(|part| tried.give(part));
        assert_eq!((tried.room.free.len(), &tried.room.free[0]), (1, &(0..LANE_ROOM_BYTES)));
        assert!(tried.take(LANE_ROOM_BYTES + 1).is_none());
        let all = tried.take(LANE_ROOM_BYTES).unwrap();
        assert!(tried.take(0).is_none());
        assert_eq!(tried.backed.len(), CHUNKS);
        tried.give(all);
    }

    #[test]
    fn memory_is_given_back_and_some_of_it_kept() {
        let mut tried = Tried::default();
        let kept = (LANE_ROOM_KEPT_BYTES / CHUNK_BYTES) as usize;
        let use_of = |tried: &mut Tried, bytes| {
            let part = tried.take(bytes).unwrap();
            tried.give(part);
            tried.backed.len()
        };
        assert_eq!(use_of(&mut tried, LANE_ROOM_BYTES), kept, "once");
        assert_eq!(use_of(&mut tried, LANE_ROOM_BYTES), CHUNKS, "again");
        for _ in 0..USES_WITHOUT_MAX {
            assert_eq!(use_of(&mut tried, 100), CHUNKS);
        }
        assert_eq!(use_of(&mut tried, 100), kept, "not for long");
        assert_eq!(use_of(&mut tried, LANE_ROOM_BYTES), kept, "once after long");
    }

    #[test]
    fn the_beginning_is_taken_if_nobody_has_any_of_it() {
        let mut tried = Tried::default();
        let part = tried.take(100).unwrap();
        assert_eq!(tried.room.take_beginning(LANE_ROOM_KEPT_BYTES), None, "somebody has its first bytes");
        tried.give(part);
        let beginning = tried.room.take_beginning(LANE_ROOM_KEPT_BYTES).unwrap();
        assert_eq!((&beginning, tried.room.take_beginning(100)), (&(0..LANE_ROOM_KEPT_BYTES), None));
        let behind = tried.take(100).unwrap();
        assert_eq!(behind.start, LANE_ROOM_KEPT_BYTES);
        tried.give(beginning);
        assert_eq!(tried.room.take_beginning(LANE_ROOM_KEPT_BYTES + 100), None, "somebody has its last bytes");
        tried.give(behind);
        let all = tried.room.take_beginning(LANE_ROOM_BYTES).unwrap();
        assert!(tried.take(1).is_none() && tried.room.take_beginning(0).is_none());
        tried.give(all);
        assert!(tried.take(LANE_ROOM_BYTES).is_some());
    }

    #[test]
    fn without_memory_there_is_no_part() {
        let mut room = Room::default();
        assert!(room.take(1, |_| Err(Error::other("none"))).is_none());
        assert_eq!(room.take(1, |_| Ok(())), Some(0..PAGE_BYTES));
    }
}
