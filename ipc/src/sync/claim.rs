//! Who claims: a session and a thread in one word.
//!
//! | bits | what |
//! |---|---|
//! | 0–1 | flags, the kind's own |
//! | 2–23 | the thread's number, as the kernel gives it (at most 2²²) |
//! | 24–63 | the session's number, from 1, never used again |

/// Bits of a word that are not the claim's.
pub const FLAGS: u64 = 3;
const THREAD_SHIFT: u32 = 2;
const SESSION_SHIFT: u32 = 24;
const THREADS: u32 = 1 << (SESSION_SHIFT - THREAD_SHIFT);

const _: () = assert!(64 - SESSION_SHIFT == crate::limits::SESSION_NUMBER_BITS);

/// A session's thread, as the owner of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim(u64);

impl Claim {
    /// Of a thread of a session.
    #[inline]
    pub const fn new(session: u64, thread: u32) -> Claim {
        Claim(session << SESSION_SHIFT | ((thread % THREADS) as u64) << THREAD_SHIFT)
    }

    /// The claim in a word, if there is one.
    #[inline]
    pub fn of(word: u64) -> Option<Claim> {
        (word & !FLAGS != 0).then_some(Claim(word & !FLAGS))
    }

    /// As a word, without flags.
    #[inline]
    pub fn word(self) -> u64 {
        self.0
    }

    /// The session's number.
    #[inline]
    pub fn session(self) -> u64 {
        self.0 >> SESSION_SHIFT
    }

    /// The thread's number.
    #[inline]
    pub fn thread(self) -> u32 {
        (self.0 >> THREAD_SHIFT) as u32 % THREADS
    }

    /// Whether the claim in a word is of this session.
    #[inline]
    pub fn is_of(word: u64, session: u64) -> bool {
        word >> SESSION_SHIFT == session
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_whose_it_is() {
        let claim = Claim::new((1 << 40) - 1, (1 << 22) - 1);
        assert_eq!((claim.session(), claim.thread()), ((1 << 40) - 1, (1 << 22) - 1));
        assert_eq!(Claim::of(claim.word() | FLAGS), Some(claim));
        assert!(Claim::is_of(claim.word() | 1, (1 << 40) - 1) && !Claim::is_of(claim.word(), 1));
        assert_eq!((Claim::of(0), Claim::of(FLAGS)), (None, None));
    }
}
