//! Replies: a status, the version, and a result for each operation.
//!
//! Payload of [`Status::Done`]: version of the commit (8 bytes; 0 if the call made none), then results.
//! Payload of [`Status::Failed`]: code of the error's kind, its message. Payload of [`Status::Conflict`]: none.

use super::{Reader, put_bytes};
use crate::block::Place;
use crate::error::{Error, ErrorKind};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// It took effect.
    Done = 0,
    /// A condition does not hold any more: nothing happened.
    Conflict = 1,
    /// It could not be done: nothing happened.
    Failed = 2,
}

impl Status {
    /// The status of this code, if there is one.
    #[inline]
    pub fn from_code(code: u8) -> Option<Status> {
        Some(match code {
            0 => Status::Done,
            1 => Status::Conflict,
            2 => Status::Failed,
            _ => return None,
        })
    }
}

/// What one operation gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: there was none, or it was not asked for.
    Nothing,
    /// A value that was taken out, which the manager lends until the call is acknowledged, in the reply's version. With the ids
    /// of the handles in it: the session holds those objects from then on, as if it had asked to, so that what the value refers
    /// to does not go with it.
    Lent(Place, Vec<u64>),
    /// A value that was there already and has been left, lent likewise.
    Existing(Place),
    /// Bytes of an inline element, or of a number.
    Bytes(Vec<u8>),
    /// There was something, which is not lent.
    Something,
    /// A number: an id, a count.
    Number(u64),
    /// Words for people.
    Text(String),
}

/// What begins each outcome of the two most common kinds.
const NOTHING: u8 = 0;
const LENT: u8 = 1;

/// A place's four words behind a code, and room behind them.
#[inline(always)]
fn placed<const N: usize>(code: u8, place: &Place) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[0] = code;
    for (at, word) in [place.offset, place.len, place.birth, place.block].into_iter().enumerate() {
        bytes[1 + 8 * at..9 + 8 * at].copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

#[inline]
fn place(read: &mut Reader<'_>) -> Option<Place> {
    Some(Place { offset: read.u64()?, len: read.u64()?, birth: read.u64()?, block: read.u64()? })
}

fn ids(read: &mut Reader<'_>, count: u32) -> Option<Vec<u64>> {
    (0..count).map(|_| read.u64()).collect()
}

impl Outcome {
    /// Appends it as bytes.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Outcome::Nothing => out.push(NOTHING),
            Outcome::Lent(at, handles) => {
                let mut bytes: [u8; 37] = placed(LENT, at);
                bytes[33..].copy_from_slice(&(handles.len() as u32).to_le_bytes());
                out.extend_from_slice(&bytes);
                handles.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
            }
            Outcome::Existing(at) => {
                out.extend_from_slice(&placed::<33>(2, at));
            }
            Outcome::Bytes(bytes) => {
                out.push(3);
                put_bytes(out, bytes);
            }
            Outcome::Something => out.push(4),
            Outcome::Number(number) => {
                out.push(5);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Outcome::Text(text) => {
                out.push(6);
                put_bytes(out, text.as_bytes());
            }
        }
    }

    /// Reads one.
    #[inline]
    pub fn parse(read: &mut Reader<'_>) -> Option<Outcome> {
        Some(match read.u8()? {
            NOTHING => Outcome::Nothing,
            LENT => {
                let (place, handles) = (place(read)?, read.u32()?);
                Outcome::Lent(place, if handles == 0 { Vec::new() } else { ids(read, handles)? })
            }
            2 => Outcome::Existing(place(read)?),
            3 => Outcome::Bytes(read.bytes()?.to_vec()),
            4 => Outcome::Something,
            5 => Outcome::Number(read.u64()?),
            6 => Outcome::Text(String::from_utf8(read.bytes()?.to_vec()).ok()?),
            _ => return None,
        })
    }
}

const KINDS: [(u8, ErrorKind); 22] = [
    (1, ErrorKind::Disconnected),
    (2, ErrorKind::OutcomeUnknown),
    (3, ErrorKind::WrongType),
    (4, ErrorKind::NotFound),
    (5, ErrorKind::AlreadyExists),
    (6, ErrorKind::Corrupt),
    (7, ErrorKind::Full),
    (8, ErrorKind::TimedOut),
    (9, ErrorKind::TooLarge),
    (10, ErrorKind::OutOfRange),
    (11, ErrorKind::Refused),
    (12, ErrorKind::Conflict),
    (13, ErrorKind::System),
    (14, ErrorKind::NotInitialised),
    (15, ErrorKind::UsedAfterFork),
    (16, ErrorKind::Panicked),
    (17, ErrorKind::Died),
    (18, ErrorKind::Deadlock),
    (19, ErrorKind::Broken),
    (20, ErrorKind::Closed),
    (21, ErrorKind::Cancelled),
    (22, ErrorKind::ResultLost),
];

/// The number by which a kind of error travels; 0: an error of a caller's own.
pub fn code_of(kind: ErrorKind) -> u8 {
    KINDS.iter().find(|(_, known)| *known == kind).map_or(0, |(code, _)| *code)
}

/// The kind of error that travels by a number.
pub fn kind_of(code: u8) -> ErrorKind {
    KINDS.iter().find(|(known, _)| *known == code).map_or(ErrorKind::Other, |(_, kind)| *kind)
}

/// Bytes of the payload that lends one value without handles.
pub const LENT_REPLY_BYTES: usize = 8 + 37;

/// That payload, as [`Outcome::write`] would write it behind the version.
#[inline(always)]
pub fn lent_payload(version: u64, place: &Place) -> [u8; LENT_REPLY_BYTES] {
    let mut payload = [0; LENT_REPLY_BYTES];
    payload[..8].copy_from_slice(&version.to_le_bytes());
    payload[8..].copy_from_slice(&placed::<37>(LENT, place));
    payload
}

/// The payload of a call that was done, if it is one of those that almost all are: a version alone, where no outcome is wanted; or
/// version and outcome of an operation that gave nothing, or lent a value without handles. Others are read part by part.
#[inline(always)]
pub fn common_reply(payload: &[u8]) -> Option<(u64, Outcome)> {
    if let Ok(version) = <[u8; 8]>::try_from(payload) {
        return Some((u64::from_le_bytes(version), Outcome::Nothing));
    }
    if let Ok(payload) = <&[u8; 9]>::try_from(payload) {
        return (payload[8] == NOTHING).then(|| (word(payload, 0), Outcome::Nothing));
    }
    let payload = <&[u8; LENT_REPLY_BYTES]>::try_from(payload).ok()?;
    let plain = payload[8] == LENT && payload[41..] == [0; 4];
    plain.then(|| {
        let [offset, len, birth, block] = [9, 17, 25, 33].map(|at| word(payload, at));
        (word(payload, 0), Outcome::Lent(Place { offset, len, birth, block }, Vec::new()))
    })
}

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]))
}

/// Appends an error as the payload of a failed call.
pub fn write_error(out: &mut Vec<u8>, error: &Error) {
    out.push(code_of(error.kind()));
    put_bytes(out, error.to_string().as_bytes());
}

/// Reads an error.
pub fn parse_error(read: &mut Reader<'_>) -> Option<Error> {
    let code = read.u8()?;
    Some(Error::new(kind_of(code), String::from_utf8_lossy(read.bytes()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_travels() {
        use ErrorKind::*;
        let all = [
            Disconnected,
            OutcomeUnknown,
            WrongType,
            NotFound,
            AlreadyExists,
            Corrupt,
            Full,
            TimedOut,
            TooLarge,
            OutOfRange,
            NotInitialised,
            UsedAfterFork,
            Refused,
            Deadlock,
            Broken,
            Closed,
            Conflict,
            Panicked,
            Cancelled,
            Died,
            ResultLost,
            System,
            Other,
        ];
        for kind in all {
            // A new kind does not build here: give it a number, and write it into the list above.
            match kind {
                Disconnected | OutcomeUnknown | WrongType | NotFound | AlreadyExists | Corrupt | Full | TimedOut | TooLarge => {}
                OutOfRange | NotInitialised | UsedAfterFork | Refused | Deadlock | Broken | Closed | Conflict | Panicked => {}
                Cancelled | Died | ResultLost | System | Other => {}
            }
            assert_eq!(kind_of(code_of(kind)), kind);
        }
    }

    #[test]
    fn common_replies_are_read_as_all_are() {
        let place = Place { offset: 1 << 40, len: 64, birth: 3, block: 1 << 39 };
        let outcomes = [
            Outcome::Nothing,
            Outcome::Something,
            Outcome::Number(7),
            Outcome::Existing(place),
            Outcome::Lent(place, Vec::new()),
            Outcome::Lent(place, vec![5]),
            Outcome::Bytes(vec![0; 32]),
        ];
        let mut common = Vec::new();
        for outcome in outcomes {
            let mut payload = 9u64.to_le_bytes().to_vec();
            outcome.write(&mut payload);
            let mut read = Reader::new(&payload);
            assert_eq!((read.u64(), Outcome::parse(&mut read), read.is_empty()), (Some(9), Some(outcome.clone()), true));
            if let Some(read) = common_reply(&payload) {
                assert_eq!(read, (9, outcome.clone()));
                common.push(outcome);
            }
        }
        assert_eq!(common, [Outcome::Nothing, Outcome::Lent(place, Vec::new())]);
        assert_eq!(common_reply(&9u64.to_le_bytes()), Some((9, Outcome::Nothing)));
        assert!(common_reply(&[]).is_none() && common_reply(&[9; 45]).is_none());
    }
}
