//! Values behind a request: on a lane, large values stand apart from the operations that store them.
//!
//! They stand in one part of the room (see `lane::served`), in the order of the operations and with whatever between them, and each operation has the
//! [`PlaceBehind`] of its value there instead of the value. So the manager copies the operations before it looks at them, and each value once,
//! from the room into its block: no copy that nobody looks at. Where another copy is quicker, they stay within their operations ([`is_worth_it`]).
//!
//! A place is a word as an upload's number is, told apart by its highest bit:
//!
//! | bits | |
//! |---|---|
//! | 63 | 1; no upload that an operation can name has such a number |
//! | 32–62 | where the value begins, in bytes from the beginning of that part |
//! | 0–31 | its bytes, at least [`PLACE_BYTES_MIN`], so that a request is a bounded number of system calls |
//!
//! Places ascend, and do not overlap, and one that is passed over is gone: the manager copies no byte twice, or a short request could have it copy the same bytes
//! without end.
//!
//! The value of a single operation is laid down in the room before there is a request. Those of a commit or series are collected within it, as it goes by a
//! socket, since who collects them does not know which road they will take. When it is posted, all of it is laid down as it is, by one copy, and the request is
//! a second edition, without the values ([`without_values`](super::apart::without_values)).

use super::Source;

/// Values of so many bytes and more may stand behind a commit or series.
pub const VALUE_BYTES_MIN: usize = 32 << 10;

/// Whether they should, if it has so many bytes, and so many of them are of large values: most of it, or there is not much that is copied once. And not in a
/// middle range: there it is copied whole into a buffer of the manager's, which stays in its processor's cache, and every value from there. That takes less time
/// than as many system calls, and drives the room's lines out of that cache, which the client is about to write again.
pub fn is_worth_it(bytes: usize, large: usize) -> bool {
    2 * large >= bytes && !(128 << 10..3 << 20).contains(&bytes)
}

/// Bytes of the shortest value that stands behind a request.
pub const PLACE_BYTES_MIN: usize = 1024;
const MARK: u64 = 1 << 63;

/// Where a value stands among those behind its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaceBehind {
    at: u32,
    len: u32,
}

impl PlaceBehind {
    /// From so many bytes behind the beginning of the part on, so many bytes. `None`: there is no such place.
    pub fn new(at: usize, len: usize) -> Option<PlaceBehind> {
        let (at, len) = (u32::try_from(at).ok()?, u32::try_from(len).ok()?);
        (at < 1 << 31 && len as usize >= PLACE_BYTES_MIN).then_some(PlaceBehind { at, len })
    }

    /// Where it begins.
    pub fn start(self) -> u64 {
        self.at.into()
    }

    /// Where it ends.
    pub fn end(self) -> u64 {
        u64::from(self.at) + u64::from(self.len)
    }

    /// Its bytes.
    #[allow(clippy::len_without_is_empty, reason = "it has some")]
    pub fn len(self) -> u64 {
        self.len.into()
    }

    /// The word that says so.
    pub fn to_word(self) -> u64 {
        MARK | u64::from(self.at) << 32 | u64::from(self.len)
    }

    /// The place that a word says. `None`: none that anything stands in.
    pub fn of_word(word: u64) -> Option<PlaceBehind> {
        if is_place(word) { PlaceBehind::new((word >> 32 & 0x7fff_ffff) as usize, word as u32 as usize) } else { None }
    }
}

/// Whether a word is a place and no upload's number.
#[inline]
pub fn is_place(word: u64) -> bool {
    word & MARK != 0
}

impl Source<'_> {
    /// A value that stands behind its request.
    pub fn behind(place: PlaceBehind) -> Self {
        Source::Upload(place.to_word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_what_its_word_says_and_no_number_of_an_upload() {
        let least = PLACE_BYTES_MIN;
        for (at, len) in [(0, least), (0, u32::MAX as usize), ((1 << 31) - 1, least), (12_345, 6_789)] {
            let place = PlaceBehind::new(at, len).unwrap();
            assert!(is_place(place.to_word()) && PlaceBehind::of_word(place.to_word()) == Some(place));
            assert_eq!((place.start(), place.len(), place.end()), (at as u64, len as u64, (at + len) as u64));
        }
        for (at, len) in [(0, 0), (0, least - 1), (1 << 31, least), (0, 1 << 32)] {
            assert_eq!(PlaceBehind::new(at, len), None, "{len} bytes at {at}");
        }
        for word in [MARK - 1, MARK, MARK | 5 << 32 | (least as u64 - 1)] {
            assert_eq!((is_place(word), PlaceBehind::of_word(word)), (word >= MARK, None));
        }
    }
}
