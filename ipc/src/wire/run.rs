//! Logic beside the data: what its host says with its commit, and what its caller asks when it hears nothing more.
//!
//! A *run* is named by the line that it was asked for on and its number there. The manager gives each line a number, once, and tells both
//! ends; a line has one call at a time, and counts them.
//!
//! Behind a [`RunCommit`](super::Call::RunCommit)'s commit stand, 8 bytes each: the number of the ticket that it is made under; the line; the call's
//! number there; 1 if the ticket is given back with it, whatever comes of it, else 0. A [`Settle`](super::Call::Settle) is the host, the line, and the
//! call's number.

use super::Reader;

/// Bytes of a [`RunMark`].
pub const RUN_MARK_BYTES: usize = 32;

/// What stands behind the commit of logic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunMark {
    /// The ticket's number.
    pub ticket: u64,
    /// The line.
    pub line: u64,
    /// The call's number on it, from 1.
    pub number: u64,
    /// Whether the ticket is given back.
    pub is_last: bool,
}

impl RunMark {
    /// As bytes.
    pub fn to_bytes(self) -> [u8; RUN_MARK_BYTES] {
        let mut bytes = [0; RUN_MARK_BYTES];
        let words = [self.ticket, self.line, self.number, u64::from(self.is_last)];
        bytes.chunks_exact_mut(8).zip(words).for_each(|(bytes, word)| bytes.copy_from_slice(&word.to_le_bytes()));
        bytes
    }

    /// The commit before it, and it, from a whole payload. `None`: there is no such thing at its end.
    pub fn split(payload: &[u8]) -> Option<(&[u8], RunMark)> {
        let (commit, bytes) = payload.split_last_chunk::<RUN_MARK_BYTES>()?;
        let mut read = Reader::new(bytes);
        let (ticket, line, number) = (read.u64()?, read.u64()?, read.u64()?);
        let is_last = match read.u64()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some((commit, RunMark { ticket, line, number, is_last }))
    }
}

/// Which run is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settle {
    /// The host's number.
    pub host: u64,
    /// The line.
    pub line: u64,
    /// The call's number on it.
    pub number: u64,
}

impl Settle {
    /// Appends it as bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        [self.host, self.line, self.number].iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    }

    /// Reads it.
    pub fn parse(read: &mut Reader<'_>) -> Option<Settle> {
        Some(Settle { host: read.u64()?, line: read.u64()?, number: read.u64()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_behind_any_commit_and_nowhere_else() {
        for is_last in [false, true] {
            let mark = RunMark { ticket: 3, line: u64::MAX, number: 1 << 40, is_last };
            for commit in [&b""[..], b"commit"] {
                let payload = [commit, &mark.to_bytes()].concat();
                assert_eq!(RunMark::split(&payload), Some((commit, mark)));
            }
        }
        let mut bytes = RunMark { ticket: 1, line: 1, number: 1, is_last: true }.to_bytes();
        for len in 0..RUN_MARK_BYTES {
            assert_eq!(RunMark::split(&bytes[..len]), None, "{len}");
        }
        bytes[24] = 2;
        assert_eq!(RunMark::split(&bytes), None);
    }

    #[test]
    fn what_is_asked_is_read_again_and_nothing_shorter_is() {
        let settle = Settle { host: 1, line: 2, number: 3 };
        let mut bytes = Vec::new();
        settle.write(&mut bytes);
        assert_eq!(Settle::parse(&mut Reader::new(&bytes)), Some(settle));
        for len in 0..bytes.len() {
            assert_eq!(Settle::parse(&mut Reader::new(&bytes[..len])), None, "{len}");
        }
    }
}
