//! A session's lanes as the manager sees them: which of them have a request, and whose turn it is.

use commonhold_ipc::error::Result;
use commonhold_ipc::lane::{DOORBELL_WORDS, ServedLanes};

/// A set of lanes.
#[derive(Clone, Copy, Default)]
pub(super) struct Lanes {
    words: [u64; DOORBELL_WORDS],
    /// A bit for each word that is not 0.
    some: u8,
}

const _: () = assert!(DOORBELL_WORDS == u8::BITS as usize);

impl Lanes {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.some == 0
    }

    pub(super) fn add(&mut self, lane: u16) {
        self.words[usize::from(lane / 64)] |= 1 << (lane % 64);
        self.some |= 1 << (lane / 64);
    }

    #[inline]
    fn add_word(&mut self, at: usize, bits: u64) {
        self.words[at] |= bits;
        self.some |= u8::from(bits != 0) << at;
    }

    /// Takes the first one from a lane on, around the end.
    #[inline]
    fn take_from(&mut self, lane: usize) -> Option<usize> {
        if self.some == 0 {
            return None;
        }
        let here = lane / 64;
        let from_here = self.words[here] & (u64::MAX << (lane % 64));
        let behind = self.some & (0xfe << here);
        let (word, bits) = match (from_here, behind) {
            // Around the end, back to the lanes of this word before it.
            (0, 0) => (self.some.trailing_zeros() as usize, self.words[self.some.trailing_zeros() as usize]),
            (0, behind) => (behind.trailing_zeros() as usize, self.words[behind.trailing_zeros() as usize]),
            (bits, _) => (here, bits),
        };
        let bit = bits.trailing_zeros();
        self.words[word] &= !(1 << bit);
        self.some &= !(u8::from(self.words[word] == 0) << word);
        Some(64 * word + bit as usize)
    }
}

/// A session's lanes, and what is known of their requests.
pub struct SessionLanes {
    pub(super) served: ServedLanes,
    /// Posted, taken from the doorbells, and not done.
    backlog: Lanes,
    /// Posted, and waiting until the writer's ticket is given back.
    pub(super) waiting: Lanes,
    /// The lane whose turn it is.
    next: usize,
}

impl SessionLanes {
    /// The lanes of a new session.
    pub fn make() -> Result<SessionLanes> {
        Ok(SessionLanes { served: ServedLanes::make()?, backlog: Lanes::default(), waiting: Lanes::default(), next: 0 })
    }

    /// The segment, to send to the client.
    pub fn segment(&self) -> &ServedLanes {
        &self.served
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    #[inline]
    pub(super) fn take_rung(&mut self) {
        let SessionLanes { served, backlog, .. } = self;
        served.take_rung(|at, bits| backlog.add_word(at, bits));
    }

    /// What waited may be done now.
    pub(super) fn take_waiting(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        (0..).zip(waiting.words).for_each(|(at, bits)| self.backlog.add_word(at, bits));
    }

    /// Takes the next lane out of the backlog, in turn.
    #[inline]
    pub(super) fn next(&mut self) -> Option<u16> {
        let lane = self.backlog.take_from(self.next)?;
        self.next = (lane + 1) % (64 * DOORBELL_WORDS);
        Some(lane as u16)
    }

    /// Whoever waits for an answer is told that there will be none.
    pub fn end(mut self) {
        self.served.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_have_their_turn() {
        let mut lanes = SessionLanes::make().unwrap();
        assert_eq!(lanes.next(), None);
        for lane in [1, 5, 63, 64, 200, 510] {
            lanes.backlog.add(lane);
        }
        assert_eq!([lanes.next(), lanes.next(), lanes.next()], [Some(1), Some(5), Some(63)]);
        // Whoever comes back at once is last.
        lanes.backlog.add(1);
        lanes.backlog.add(5);
        let rest: Vec<u16> = std::iter::from_fn(|| lanes.next()).collect();
        assert_eq!(rest, [64, 200, 510, 1, 5]);
        lanes.backlog.add(3);
        assert_eq!((lanes.next(), lanes.next()), (Some(3), None));
        assert!(!lanes.has_backlog());
    }
}
