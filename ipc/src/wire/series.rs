//! Series: operations that are sent together and done one after the other, each atomic by itself, as if each had been a call.
//!
//! The payload is a [`commit`](super::commit)'s without conditions. The manager may stop before the end, when what it has done
//! is enough for a turn: the rest is sent again. The outcomes are:
//!
//! | outcome | |
//! |---|---|
//! | a number | how many operations have been tried, from the first on |
//! | for each of those that failed: a number | its place among them (4 bytes), code of the error's kind (the upper 4) |
//! | … and a text | the error's message |

use super::reply::{Outcome, code_of, kind_of};
use crate::error::Error;

/// What became of a series.
#[derive(Debug)]
pub struct Settled {
    /// How many operations have been tried.
    pub tried: u32,
    /// Those of them that failed, by their places.
    pub failed: Vec<(u32, Error)>,
}

impl Settled {
    /// As outcomes.
    pub fn write(&self, outcomes: &mut Vec<Outcome>) {
        outcomes.push(Outcome::Number(self.tried.into()));
        for (place, error) in &self.failed {
            outcomes.push(Outcome::Number(u64::from(*place) | u64::from(code_of(error.kind())) << 32));
            outcomes.push(Outcome::Text(error.to_string()));
        }
    }

    /// From the outcomes of a series of so many operations; `None` if they make no sense.
    pub fn parse(outcomes: Vec<Outcome>, count: u32) -> Option<Settled> {
        let mut outcomes = outcomes.into_iter();
        let Some(Outcome::Number(tried)) = outcomes.next() else { return None };
        let tried = u32::try_from(tried).ok().filter(|tried| *tried <= count && (*tried > 0 || count == 0))?;
        let mut failed = Vec::new();
        while let Some(place) = outcomes.next() {
            let (Outcome::Number(place), Some(Outcome::Text(message))) = (place, outcomes.next()) else { return None };
            if place as u32 >= tried {
                return None;
            }
            failed.push((place as u32, Error::new(kind_of((place >> 32) as u8), message)));
        }
        Some(Settled { tried, failed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::wire::commit::{Commit, CommitWriter, Op};
    use crate::wire::whole;

    #[test]
    fn what_became_of_it_is_read_as_written() {
        let failed = vec![(3, Error::new(ErrorKind::OutOfRange, "too much")), (9, Error::new(ErrorKind::Full, "no room"))];
        let mut outcomes = Vec::new();
        Settled { tried: 10, failed }.write(&mut outcomes);
        let read = Settled::parse(outcomes.clone(), 12).unwrap();
        let failed: Vec<_> = read.failed.iter().map(|(place, error)| (*place, error.kind(), error.to_string())).collect();
        assert_eq!(read.tried, 10);
        assert_eq!(failed, [(3, ErrorKind::OutOfRange, "too much".into()), (9, ErrorKind::Full, "no room".into())]);
        // More tried than there were, a failure of one that was not tried, nothing done at all: it would be sent for ever.
        assert!(Settled::parse(outcomes.clone(), 9).is_none());
        outcomes[0] = Outcome::Number(9);
        assert!(Settled::parse(outcomes, 12).is_none());
        assert!(Settled::parse(vec![Outcome::Number(0)], 1).is_none() && Settled::parse(Vec::new(), 0).is_none());
        assert!(Settled::parse(vec![Outcome::Number(1), Outcome::Number(0)], 1).is_none());
    }

    #[test]
    fn operations_come_apart() {
        let mut commit = CommitWriter::default();
        for delta in 0..5 {
            commit.op(&Op::CounterAdd { object: 7, delta });
        }
        let mark = commit.mark();
        commit.op(&Op::Clear { object: 9 });
        commit.cut(&mark);
        let frame = commit.take_frame();
        let payload = &frame[crate::wire::HEAD_BYTES..];
        let commit = whole(payload, "series", Commit::parse).unwrap();
        let singles: Vec<_> = commit.singles().map(|single| single.unwrap()).collect();
        assert_eq!((singles.len(), commit.conditions().count()), (5, 0));
        for (delta, single) in (0..).zip(&singles) {
            assert!(single.is_whole() && single.op_count() == 1);
            assert_eq!(single.ops().next(), Some(Ok(Op::CounterAdd { object: 7, delta })));
        }
    }
}
