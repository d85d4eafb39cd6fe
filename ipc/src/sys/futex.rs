//! Sleeping on words of shared memory, and waking who sleeps there.
//!
//! Without `futex_waitv` (before Linux 5.16, or behind a filter of system calls) a sleep on several words is one on the first of them,
//! which ends every few milliseconds to look at the others.

use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::thread::futex;
use rustix::time::ClockId;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::limits::{SLEEP_SLICE_WITHOUT_WAITV_MS, WORDS_SLEPT_ON_MAX};

/// Why a sleep on one or two words ended. Whatever it says, look at the words again: wake-ups can be meant for somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitOutcome {
    /// Somebody woke sleepers of the first (or only) word.
    Woken,
    /// Somebody woke sleepers of the second word.
    WokenBySecond,
    /// A word was no longer what was expected, so there was no sleep, or it ended.
    Changed,
    /// The deadline passed.
    TimedOut,
}

/// Wakes up to `count` sleepers of `word`, in any process, and returns how many there were.
pub fn futex_wake(word: &AtomicU32, count: u32) -> usize {
    // The kernel's counter is signed. There is no failure that a caller could act on: an unmapped word would be a bug.
    futex::wake(word, futex::Flags::empty(), count.min(i32::MAX as u32)).unwrap_or(0)
}

/// Wakes all sleepers of `word`.
pub fn futex_wake_all(word: &AtomicU32) -> usize {
    futex_wake(word, u32::MAX)
}

/// Sleeps while `word` holds `expected`, until woken or until the deadline.
pub fn futex_wait(word: &AtomicU32, expected: u32, deadline: Option<Instant>) -> Result<WaitOutcome> {
    let timeout = deadline.map(monotonic);
    loop {
        match futex::wait_bitset(word, futex::Flags::empty(), expected, timeout.as_ref(), NonZeroU32::MAX) {
            Ok(()) => return Ok(WaitOutcome::Woken),
            Err(Errno::AGAIN) => return Ok(WaitOutcome::Changed),
            Err(Errno::TIMEDOUT) => return Ok(WaitOutcome::TimedOut),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(Error::system("could not sleep on a word of shared memory", errno)),
        }
    }
}

/// Sleeps while `word_a` holds `expected_a` *and* `word_b` holds `expected_b`, until either is woken or until the deadline.
pub fn futex_wait_either(
    word_a: &AtomicU32,
    expected_a: u32,
    word_b: &AtomicU32,
    expected_b: u32,
    deadline: Option<Instant>,
) -> Result<WaitOutcome> {
    match wait_on(&[waiter(word_a, expected_a), waiter(word_b, expected_b)], deadline)? {
        Some(Slept::Woken(0)) => Ok(WaitOutcome::Woken),
        Some(Slept::Woken(_)) => Ok(WaitOutcome::WokenBySecond),
        Some(Slept::Changed) => Ok(WaitOutcome::Changed),
        Some(Slept::TimedOut) => Ok(WaitOutcome::TimedOut),
        None => wait_in_slices(word_a, expected_a, &[(word_b, expected_b)], deadline),
    }
}

/// Sleeps while every word holds what stands beside it, until one of them is woken or until the deadline. `false`: the deadline passed.
/// A wake-up of one word may take those of others with it.
///
/// # Panics
/// If there are no words, or more than [`WORDS_SLEPT_ON_MAX`].
pub fn futex_wait_any(words: &[(&AtomicU32, u32)], deadline: Option<Instant>) -> Result<bool> {
    assert!((1..=WORDS_SLEPT_ON_MAX).contains(&words.len()), "{} words at once; the maximum is {WORDS_SLEPT_ON_MAX}", words.len());
    let waiters: Vec<futex::Wait> = words.iter().map(|(word, expected)| waiter(word, *expected)).collect();
    match wait_on(&waiters, deadline)? {
        Some(slept) => Ok(slept != Slept::TimedOut),
        None => Ok(wait_in_slices(words[0].0, words[0].1, &words[1..], deadline)? != WaitOutcome::TimedOut),
    }
}

#[derive(PartialEq)]
enum Slept {
    /// By this one of the words.
    Woken(usize),
    Changed,
    TimedOut,
}

fn waiter(word: &AtomicU32, expected: u32) -> futex::Wait {
    let mut wait = futex::Wait::new();
    wait.val = u64::from(expected);
    wait.uaddr = futex::WaitPtr::new(word.as_ptr().cast());
    wait.flags = futex::WaitFlags::SIZE_U32;
    wait
}

/// Sleeps on several words; `None` where the kernel cannot.
fn wait_on(waiters: &[futex::Wait], deadline: Option<Instant>) -> Result<Option<Slept>> {
    static WITHOUT_WAITV: AtomicBool = AtomicBool::new(false);
    if WITHOUT_WAITV.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let timeout = deadline.map(monotonic);
    loop {
        match futex::waitv(waiters, futex::WaitvFlags::empty(), timeout.as_ref(), ClockId::Monotonic) {
            Ok(which) => return Ok(Some(Slept::Woken(which))),
            Err(Errno::AGAIN) => return Ok(Some(Slept::Changed)),
            Err(Errno::TIMEDOUT) => return Ok(Some(Slept::TimedOut)),
            Err(Errno::INTR) => continue,
            // EPERM: what filters of system calls answer (seccomp) to a number that they do not know.
            Err(Errno::NOSYS | Errno::PERM) => {
                WITHOUT_WAITV.store(true, Ordering::Relaxed);
                return Ok(None);
            }
            Err(errno) => return Err(Error::system("could not sleep on several words of shared memory", errno)),
        }
    }
}

/// The same without `futex_waitv`: sleeps on one word, and looks at the others every few milliseconds.
pub(super) fn wait_in_slices(
    word: &AtomicU32,
    expected: u32,
    others: &[(&AtomicU32, u32)],
    deadline: Option<Instant>,
) -> Result<WaitOutcome> {
    loop {
        // SYNC: pairs with the Release store of whoever changes one of the others and then wakes.
        if others.iter().any(|(other, expected)| other.load(Ordering::Acquire) != *expected) {
            return Ok(WaitOutcome::Changed);
        }
        let slice = Instant::now() + Duration::from_millis(SLEEP_SLICE_WITHOUT_WAITV_MS);
        let until = deadline.map_or(slice, |deadline| deadline.min(slice));
        match futex_wait(word, expected, Some(until))? {
            WaitOutcome::TimedOut if deadline != Some(until) => continue,
            outcome => return Ok(outcome),
        }
    }
}

/// The same moment as the kernel counts it.
fn monotonic(deadline: Instant) -> Timespec {
    let left = deadline.saturating_duration_since(Instant::now());
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    let nanoseconds = now.tv_nsec + i64::from(left.subsec_nanos());
    let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
    Timespec {
        tv_sec: now.tv_sec.saturating_add(seconds).saturating_add(nanoseconds / 1_000_000_000),
        tv_nsec: nanoseconds % 1_000_000_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_of_many_words_wakes() {
        let words: Vec<AtomicU32> = (0..WORDS_SLEPT_ON_MAX as u32).map(AtomicU32::new).collect();
        let expected: Vec<(&AtomicU32, u32)> = words.iter().zip(0..).collect();
        for changed in [0, 1, WORDS_SLEPT_ON_MAX - 1] {
            std::thread::scope(|scope| {
                let sleeper = scope.spawn(|| futex_wait_any(&expected, None).unwrap());
                // Asleep or not yet: both end.
                words[changed].fetch_add(1000, Ordering::SeqCst);
                while !sleeper.is_finished() {
                    futex_wake_all(&words[changed]);
                    std::thread::yield_now();
                }
                assert!(sleeper.join().unwrap());
            });
            words[changed].fetch_sub(1000, Ordering::SeqCst);
        }
        assert!(!futex_wait_any(&expected, Some(Instant::now() + Duration::from_millis(5))).unwrap());
        assert!(!futex_wait_any(&expected[..1], Some(Instant::now())).unwrap());
    }

    #[test]
    fn slices_look_at_all_words() {
        let [a, b, c] = [0, 0, 1].map(AtomicU32::new);
        assert_eq!(wait_in_slices(&a, 0, &[(&b, 0), (&c, 0)], None).unwrap(), WaitOutcome::Changed);
        assert_eq!(wait_in_slices(&a, 1, &[(&b, 0), (&c, 1)], None).unwrap(), WaitOutcome::Changed);
        let soon = Some(Instant::now() + Duration::from_millis(30));
        assert_eq!(wait_in_slices(&a, 0, &[(&b, 0), (&c, 1)], soon).unwrap(), WaitOutcome::TimedOut);
    }
}
