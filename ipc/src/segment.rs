//! Segments: memory that users of an object write themselves, because a call would cost a thousand times as much.
//!
//! Each object of such a kind ([`Kind::has_segment`](crate::catalog::Kind::has_segment)) has a memory file of its own, made, filled
//! and sealed by the manager. Who attaches the object gets the descriptor, maps it for reading and writing, and closes the
//! descriptor. So a process that writes nonsense there hurts that object's users, and nobody else: what stands in a segment is
//! foreign to everybody, the manager included, and is believed for as much as that object's own promises.
//!
//! | offset | bytes | what | written |
//! |---|---|---|---|
//! | 0 | 8 | id of the object | by the manager, once |
//! | 8 | 8 | kind | by the manager, once |
//! | 16 | 48 | zeros | |
//! | 64 | … | the kind's own words | by all, atomically |
//!
//! Every claim in it names its owner; when a session ends, the manager takes back what it claimed.

use crate::catalog::Kind;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{SEGMENT_BACKED_AT_ONCE_BYTES, SEGMENT_BYTES_MAX};
use crate::map::{Access, Segment};
use crate::sys;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

/// Bytes of a segment before its kind's own words.
pub const HEADER_BYTES: usize = 64;
const ID: usize = 0;
const KIND: usize = 8;

/// What a new segment holds besides its header and zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Its bytes, the header included.
    pub bytes: u64,
    /// Which of them have memory behind them from the start, so that touching them cannot fail.
    pub backed: Vec<Range<u64>>,
    /// Words at their offsets.
    pub words: Vec<(usize, u64)>,
    /// Bytes that its users put memory behind when they [`attach`] it, and that the manager counts from the start.
    pub backed_later: u64,
    /// Elements, as the object's record says.
    pub elements: u64,
}

impl Shape {
    /// With memory behind all of it.
    pub fn whole(bytes: u64, words: Vec<(usize, u64)>) -> Shape {
        Shape { bytes, backed: std::iter::once(0..bytes).collect(), words, backed_later: 0, elements: 0 }
    }

    /// With memory behind its beginning; behind the rest each user puts it, in its own time: a gibibyte takes a third of a second,
    /// in which the manager would serve nobody.
    pub fn backed_later(bytes: u64, elements: u64) -> Shape {
        let at_once = bytes.min(SEGMENT_BACKED_AT_ONCE_BYTES);
        Shape { backed: std::iter::once(0..at_once).collect(), backed_later: bytes - at_once, elements, ..Shape::whole(bytes, Vec::new()) }
    }
}

/// Makes an object's segment.
pub fn make(id: u64, kind: Kind, shape: &Shape) -> Result<(OwnedFd, Segment)> {
    if shape.bytes > SEGMENT_BYTES_MAX {
        let text = format!("a {} of {} bytes cannot be made: the most is {SEGMENT_BYTES_MAX}", kind.name(), shape.bytes);
        return Err(Error::new(ErrorKind::TooLarge, text));
    }
    let file = sys::memfd_sealed("commonhold-segment", shape.bytes)?;
    shape.backed.iter().try_for_each(|range| sys::back(&file, range.clone()))?;
    let segment = Segment::map(&file, shape.bytes, Access::ReadWrite)?.keep_from_children()?;
    for (offset, word) in [(ID, id), (KIND, kind as u64)].iter().chain(&shape.words) {
        segment.word(*offset).store(*word, Ordering::Relaxed);
    }
    Ok((file, segment))
}

/// Maps an object's segment, as a client gets it. What others have not put memory behind, this does: an error if there is none, and then
/// nobody has touched it.
pub fn attach(file: &OwnedFd, bytes: u64, id: u64, kind: Kind) -> Result<Segment> {
    if !(HEADER_BYTES as u64..=SEGMENT_BYTES_MAX).contains(&bytes) {
        return Err(crate::wire::malformed("size of a segment"));
    }
    if kind.is_backed_by_users() && bytes > SEGMENT_BACKED_AT_ONCE_BYTES {
        sys::back(file, 0..bytes)?;
    }
    let segment = Segment::map(file, bytes, Access::ReadWrite)?.keep_from_children()?;
    let is = |offset: usize, expected: u64| segment.word(offset).load(Ordering::Relaxed) == expected;
    if is(ID, id) && is(KIND, kind as u64) {
        return Ok(segment);
    }
    let text =
        format!("the segment of {} {id} does not say that it is: a process that uses it has written over it; make a new one", kind.name());
    Err(Error::new(ErrorKind::Corrupt, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_knows_whose_it_is() {
        let shape = Shape::whole(4096, vec![(64, 7)]);
        let (file, made) = make(12, Kind::Lock, &shape).unwrap();
        let attached = attach(&file, 4096, 12, Kind::Lock).unwrap();
        assert_eq!((attached.word(64).load(Ordering::Relaxed), attached.word(72).load(Ordering::Relaxed)), (7, 0));
        attached.half(4092).store(5, Ordering::Relaxed);
        assert_eq!(made.half(4092).load(Ordering::Relaxed), 5);
        for (id, kind) in [(13, Kind::Lock), (12, Kind::Dict)] {
            let error = attach(&file, 4096, id, kind).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            let expected = format!(
                "the segment of {} {id} does not say that it is: a process that uses it has written over it; make a new one",
                kind.name()
            );
            assert_eq!(error.to_string(), expected);
        }
        for bytes in [0, 8, SEGMENT_BYTES_MAX + 1] {
            assert!(attach(&file, bytes, 12, Kind::Lock).is_err());
        }
    }

    #[test]
    fn too_large_is_an_error() {
        let shape = Shape::whole(SEGMENT_BYTES_MAX + 1, Vec::new());
        assert_eq!(make(1, Kind::Lock, &shape).err().unwrap().kind(), ErrorKind::TooLarge);
    }
}
