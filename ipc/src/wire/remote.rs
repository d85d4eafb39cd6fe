//! What callers of own objects and their host say to each other, and the manager to a host: frames, whatever carries them.
//!
//! A *line* is a pair of connected ends between one client process and one host, which the manager has made and sent to both. On a
//! line the client asks and the host answers, one after the other, in frames with the head of all frames ([`Head`](super::Head)): its code is an
//! [`Ask`] or an [`Answer`], its number the call's.
//!
//! Payload of an ask that is answered:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | the object; or, for a function of the program, how far its entry lies from where the executable was loaded |
//! | 8 | 8 | fingerprint of the interface that the method is of |
//! | 16 | 4 | number of the method in its interface |
//! | 20 | 8 | the chain's number: that of the outermost call, of which this one is a part |
//! | 28 | 4 + n | objects that the chain is in already, 8 bytes each |
//! | | 4 + n | name of the function's type |
//! | | 4 + n | ids of the objects that the arguments have handles on, 8 bytes each |
//! | | 4 + n | where each argument lies among the archives: start and end, 4 bytes each |
//! | | | zeros up to a multiple of 16 |
//! | | n | the archives |
//!
//! Payload of [`Answer::Done`]: ids of the objects that the result has handles on (4 + n), zeros up to a multiple of 16, the archive.
//! Of [`Answer::Failed`]: an error as everywhere. Of [`Answer::Panicked`]: message and backtrace (4 + n each).

use super::{Reader, Words, put_bytes};

/// What a client asks of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ask {
    /// Call a method of an object.
    Call = 1,
    /// Call a function of the program, which makes an object.
    Run = 2,
    /// The client holds what the answer with this number had handles on. Not answered.
    Taken = 3,
    /// Call a function of the program that runs on the manager's data, under the writer's ticket: soon over, and one after the other.
    Logic = 4,
    /// Do not begin the call ahead of this number, if it has not begun: then it is answered with an error of kind `Cancelled`. Not answered itself.
    CallOff = 5,
}

impl Ask {
    /// The ask of this code, if there is one.
    pub fn from_code(code: u8) -> Option<Ask> {
        [Ask::Call, Ask::Run, Ask::Taken, Ask::Logic, Ask::CallOff].into_iter().find(|ask| *ask as u8 == code)
    }
}

/// How a host answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Answer {
    /// The result.
    Done = 0,
    /// It could not be called.
    Failed = 2,
    /// It has panicked.
    Panicked = 3,
    /// It has begun, and its time with it. The result follows.
    Begun = 4,
}

impl Answer {
    /// The answer of this code, if there is one.
    pub fn from_code(code: u8) -> Option<Answer> {
        [Answer::Done, Answer::Failed, Answer::Panicked, Answer::Begun].into_iter().find(|answer| *answer as u8 == code)
    }
}

/// What a manager tells a host on its control channel, as a frame's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tell {
    /// A new line to a client: its descriptor travels with the first byte.
    Line = 1,
    /// These objects are gone: ids.
    Gone = 2,
    /// A socket on which nothing is ever said, and whose other end closes with the manager: its descriptor travels with the first byte. By it
    /// the kernel lets a host that is stopped go on then, so that it ends as well.
    Leash = 3,
}

impl Tell {
    /// What this code tells, if anything.
    pub fn from_code(code: u8) -> Option<Tell> {
        [Tell::Line, Tell::Gone, Tell::Leash].into_iter().find(|tell| *tell as u8 == code)
    }
}

/// Bit of the first byte of a request for a line: with memory ([`line`](crate::line)).
pub const REACH_MEMORY: u8 = 1;
/// The payload of [`Tell::Line`] if the line has memory: its descriptor is the first message on each of its sockets.
pub const LINE_MEMORY: u8 = 1;

/// Alignment of archives in a payload.
pub const ALIGN: usize = 16;

/// An ask's payload, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    /// The object, or a function's entry.
    pub object: u64,
    /// The interface's fingerprint.
    pub interface: u64,
    /// The method's number.
    pub method: u32,
    /// The chain's number.
    pub chain: u64,
    /// Objects that the chain is in.
    pub within: Words<'a>,
    /// A function's type.
    pub name: &'a str,
    /// Objects that the arguments refer to.
    pub handles: Words<'a>,
    /// Where arguments lie, see [`range`].
    pub ranges: Words<'a>,
    /// The arguments.
    pub archives: &'a [u8],
}

/// Start and end of an argument as one word.
pub fn range_word(range: &std::ops::Range<usize>) -> u64 {
    (range.end as u64) << 32 | range.start as u64
}

/// Start and end that a word says.
pub fn range(word: u64) -> std::ops::Range<usize> {
    (word as u32) as usize..(word >> 32) as usize
}

impl<'a> Asked<'a> {
    /// Appends it as bytes to a frame's head. All lengths are below 4 GiB by the limits on values.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.object.to_le_bytes());
        out.extend_from_slice(&self.interface.to_le_bytes());
        out.extend_from_slice(&self.method.to_le_bytes());
        out.extend_from_slice(&self.chain.to_le_bytes());
        put_bytes(out, self.within.bytes());
        put_bytes(out, self.name.as_bytes());
        put_bytes(out, self.handles.bytes());
        put_bytes(out, self.ranges.bytes());
        pad(out, start);
        out.extend_from_slice(self.archives);
    }

    /// Reads it; `None` if it makes no sense.
    pub fn parse(payload: &'a [u8]) -> Option<Asked<'a>> {
        let mut read = Reader::new(payload);
        let (object, interface, method, chain) = (read.u64()?, read.u64()?, read.u32()?, read.u64()?);
        let within = Words::new(read.bytes()?)?;
        let name = std::str::from_utf8(read.bytes()?).ok()?;
        let (handles, ranges) = (Words::new(read.bytes()?)?, Words::new(read.bytes()?)?);
        let archives = after_padding(payload, read)?;
        let inside = |word| {
            let range = range(word);
            range.start <= range.end && range.end <= archives.len() && range.start.is_multiple_of(ALIGN)
        };
        ranges.iter().all(inside).then_some(Asked { object, interface, method, chain, within, name, handles, ranges, archives })
    }
}

/// Appends a result, as the payload of [`Answer::Done`].
pub fn write_result(out: &mut Vec<u8>, handles: Words<'_>, archive: &[u8]) {
    let start = out.len();
    put_bytes(out, handles.bytes());
    pad(out, start);
    out.extend_from_slice(archive);
}

/// Reads a result: the ids of its handles, its archive.
pub fn parse_result(payload: &[u8]) -> Option<(Words<'_>, &[u8])> {
    let mut read = Reader::new(payload);
    let handles = Words::new(read.bytes()?)?;
    Some((handles, after_padding(payload, read)?))
}

fn pad(out: &mut Vec<u8>, start: usize) {
    out.resize(start + (out.len() - start).next_multiple_of(ALIGN), 0);
}

/// What follows the padding behind what has been read of a payload.
fn after_padding<'a>(payload: &'a [u8], read: Reader<'a>) -> Option<&'a [u8]> {
    payload.get((payload.len() - read.rest().len()).next_multiple_of(ALIGN)..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_read_again_and_nothing_shorter_is() {
        let words = [7u64.to_le_bytes(), 9u64.to_le_bytes()].concat();
        let ranges: Vec<u8> = [0..5usize, 16..20].iter().flat_map(|range| range_word(range).to_le_bytes()).collect();
        let asked = Asked {
            object: 1,
            interface: 2,
            method: 3,
            chain: 4,
            within: Words::new(&words).unwrap(),
            name: "a function",
            handles: Words::new(&words[..8]).unwrap(),
            ranges: Words::new(&ranges).unwrap(),
            archives: &[5; 20],
        };
        let mut bytes = Vec::new();
        asked.write(&mut bytes);
        assert_eq!(Asked::parse(&bytes), Some(asked));
        for len in 0..bytes.len() {
            assert_eq!(Asked::parse(&bytes[..len]), None, "cut at {len}");
        }
    }

    #[test]
    fn ranges_outside_of_the_archives_make_no_sense() {
        for (start, end) in [(0, 21), (16, 8), (1, 5), (32, 48)] {
            let wrong = std::ops::Range { start, end };
            let ranges = range_word(&wrong).to_le_bytes();
            let asked = Asked {
                object: 0,
                interface: 0,
                method: 0,
                chain: 0,
                within: Words::default(),
                name: "",
                handles: Words::default(),
                ranges: Words::new(&ranges).unwrap(),
                archives: &[0; 20],
            };
            let mut bytes = Vec::new();
            asked.write(&mut bytes);
            assert_eq!(Asked::parse(&bytes), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_result_is_read_again() {
        let mut bytes = Vec::new();
        write_result(&mut bytes, Words::default(), b"archive");
        assert_eq!(parse_result(&bytes), Some((Words::default(), &b"archive"[..])));
        assert_eq!(parse_result(&bytes[..10]), None);
    }
}
