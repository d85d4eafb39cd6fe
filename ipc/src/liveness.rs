//! The manager's alive word: how its death, by whatever means and at any instruction, wakes everybody who waits for it.
//!
//! The word lies in the arena, which clients map read-only. A thread of the manager, which does nothing else, holds it as a *robust
//! futex*: when that thread ends, the kernel itself marks the word and wakes one sleeper. Clients sleep on two words at once, their
//! own and this one (`futex_waitv`; looking and waking need no right to write), so there is no watcher thread and no time-out.
//!
//! | word | meaning | who writes it |
//! |---|---|---|
//! | 0 | not yet begun; no client has seen the arena | nobody |
//! | `0x8000_0000` + thread id | alive (FUTEX_WAITERS: the kernel shall wake) | the manager's thread |
//! | `0xC000_0000` | died (FUTEX_OWNER_DIED) | the kernel |
//! | `0x4000_0000` | ended in order | the manager's thread, which wakes all |
//!
//! **The chain.** The kernel wakes only one sleeper. So whoever finds the word dead, *for whatever reason it woke*, wakes all others
//! before it goes on; [`sleep_until`] does. A sleeper that is stopped or killed meanwhile does no harm: a signal takes it out of the
//! kernel's queue, so the wake-up goes to another. What remains is the instant between its waking and its own call to wake: should
//! it be killed or stopped just there, the others would sleep on. Therefore no sleep lasts longer than `limits::SLEEP_SLICE_MS` without a look.
//!
//! **What the kernel needs** at the thread's end is the list's head in private memory (`sys::with_robust_word`). The out-of-memory
//! killer's reaper leaves such a process two seconds for it (since Linux 5.18).
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::limits::SLEEP_SLICE_MS;
use crate::sys::{self, WaitOutcome};

/// Asks the kernel to wake at the owner's death.
const WAITERS: u32 = 0x8000_0000;
/// The kernel's mark on the word of a dead owner; alone, the manager's own mark of an orderly end.
const OWNER_DIED: u32 = 0x4000_0000;
/// The owner's thread id.
const THREAD_ID: u32 = 0x3fff_ffff;

/// Stack of the thread that holds the word: it waits, and that is all.
const STACK_BYTES: usize = 64 << 10;

/// Whether a manager whose alive word has this value is alive.
#[inline]
pub const fn is_alive(word: u32) -> bool {
    matches!(word & !WAITERS, 1..=THREAD_ID)
}

/// Holds a manager's alive word. Dropped, it tells everybody that the manager has ended in order.
#[derive(Debug)]
pub struct AliveKeeper {
    /// Dropped: the thread shall end.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl AliveKeeper {
    /// Starts the thread that holds the word, and returns when it is held. `owner` keeps the word's mapping for as long as that.
    pub fn start<W: AsRef<AtomicU32> + Send + 'static>(owner: W) -> Result<AliveKeeper> {
        let (stop, stopped) = mpsc::channel::<()>();
        let (report, started) = mpsc::channel();
        let hold = move || {
            let word = owner.as_ref();
            let held = sys::with_robust_word(word, |thread_id| {
                // SYNC: pairs with the Acquire load of whoever looks whether the manager is alive.
                word.store(WAITERS | thread_id, Ordering::Release);
                // Nobody listens any more if the starter has died with its process.
                let _ = report.send(Ok(()));
                // Ends by an error, when the keeper is dropped.
                let _ = stopped.recv();
                word.store(OWNER_DIED, Ordering::Release);
                sys::futex_wake_all(word);
            });
            if let Err(error) = held {
                let _ = report.send(Err(error));
            }
        };
        let thread = thread::Builder::new()
            .name("commonhold-alive".into())
            .stack_size(STACK_BYTES)
            .spawn(hold)
            .map_err(|error| Error::system("could not start the thread that holds the manager's alive word", error))?;
        let keeper = AliveKeeper { stop: Some(stop), thread: Some(thread) };
        match started.recv() {
            Ok(held) => held.map(|()| keeper),
            Err(_) => unreachable!("the thread reports before it ends"),
        }
    }

    /// Tells everybody that the manager has ended, and returns when that is done: the same as a drop, but seen.
    pub fn end(self) {
        drop(self);
    }
}

impl Drop for AliveKeeper {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // It cannot panic; if it did, the word was marked all the same, by the kernel.
            let _ = thread.join();
        }
    }
}

/// The error of who waits for what a manager that is gone will never do.
#[cold]
pub fn disconnected() -> Error {
    Error::new(
        ErrorKind::Disconnected,
        "the manager has ended (its program ended, it was shut down, or it was killed): what is held by guards and snapshots stays readable, nothing else works; keep the manager longer (its program joins its children first), or connect to a new one",
    )
}

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slept {
    /// The word may have changed: look again.
    Woken,
    /// The deadline passed.
    TimedOut,
    /// The manager has ended or died, and the word is still what it was: nobody will change it any more.
    ManagerDied,
}

/// Sleeps while `word` holds `expected` and the manager is alive, at the longest until the deadline. Whoever changes `word` wakes it.
/// At the manager's death passes the news on to all other sleepers.
pub fn sleep_until(word: &AtomicU32, expected: u32, alive: &AtomicU32, deadline: Option<Instant>) -> Result<Slept> {
    loop {
        // SYNC: pairs with the Release store in `start`, and with the kernel's mark.
        let life = alive.load(Ordering::Acquire);
        if !is_alive(life) {
            return Ok(pass_on(word, expected, alive));
        }
        let slice = Instant::now() + Duration::from_millis(SLEEP_SLICE_MS);
        let until = deadline.map_or(slice, |deadline| deadline.min(slice));
        let outcome = sys::futex_wait_either(word, expected, alive, life, Some(until))?;
        // Whatever woke us: the kernel's only wake-up may have come to us beside it.
        if !is_alive(alive.load(Ordering::Acquire)) {
            return Ok(pass_on(word, expected, alive));
        }
        match outcome {
            WaitOutcome::Woken | WaitOutcome::Changed => return Ok(Slept::Woken),
            WaitOutcome::TimedOut if deadline == Some(until) => return Ok(Slept::TimedOut),
            WaitOutcome::TimedOut | WaitOutcome::WokenBySecond => {}
        }
    }
}

/// Sleeps while every word holds what stands beside it and all the managers live, at the longest until the deadline. `false`: the
/// deadline passed. A manager's death is passed on to its other sleepers.
pub fn sleep_until_any(words: &[(&AtomicU32, u32)], lives: &[&AtomicU32], deadline: Option<Instant>) -> Result<bool> {
    // SYNC: as in `sleep_until`.
    let pass_on = || {
        let dead = lives.iter().filter(|alive| !is_alive(alive.load(Ordering::Acquire)));
        dead.fold(false, |_, alive| {
            sys::futex_wake_all(alive);
            true
        })
    };
    loop {
        let alive = lives.iter().map(|alive| (*alive, alive.load(Ordering::Acquire)));
        let all: Vec<_> = words.iter().copied().chain(alive).collect();
        if pass_on() {
            return Ok(true);
        }
        let slice = Instant::now() + Duration::from_millis(SLEEP_SLICE_MS);
        let until = deadline.map_or(slice, |deadline| deadline.min(slice));
        let awake = sys::futex_wait_any(&all, Some(until))?;
        if pass_on() || awake {
            return Ok(true);
        }
        if deadline == Some(until) {
            return Ok(false);
        }
    }
}

/// Wakes all who sleep on the word of a dead manager. What it did before its death counts: a changed word is a changed word.
#[cold]
fn pass_on(word: &AtomicU32, expected: u32, alive: &AtomicU32) -> Slept {
    sys::futex_wake_all(alive);
    // SYNC: pairs with the Release store of whoever changed the word.
    if word.load(Ordering::Acquire) == expected { Slept::ManagerDied } else { Slept::Woken }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Alive word and one to sleep on.
    #[derive(Clone)]
    struct Words(Arc<[AtomicU32; 2]>);

    impl Words {
        fn new() -> Words {
            Words(Arc::new([AtomicU32::new(0), AtomicU32::new(0)]))
        }
    }

    impl AsRef<AtomicU32> for Words {
        fn as_ref(&self) -> &AtomicU32 {
            &self.0[0]
        }
    }

    #[test]
    fn the_states_of_the_word() {
        for (word, alive) in [(0, false), (WAITERS, false), (WAITERS | 1, true), (1, true), (0xC000_0000, false), (0x4000_0000, false)] {
            assert_eq!(is_alive(word), alive, "{word:#x}");
        }
        assert!(!is_alive(OWNER_DIED | 77));
    }

    #[test]
    fn an_orderly_end_wakes_everybody() {
        let words = Words::new();
        let keeper = AliveKeeper::start(words.clone()).unwrap();
        assert!(is_alive(words.0[0].load(Ordering::Acquire)));
        let sleepers: Vec<_> = (0..5)
            .map(|_| {
                let words = words.clone();
                thread::spawn(move || sleep_until(&words.0[1], 0, &words.0[0], None).unwrap())
            })
            .collect();
        keeper.end();
        assert_eq!(words.0[0].load(Ordering::Acquire), 0x4000_0000);
        for sleeper in sleepers {
            assert_eq!(sleeper.join().unwrap(), Slept::ManagerDied);
        }
    }

    #[test]
    fn sleeps_end_by_deadline_and_by_change() {
        let words = Words::new();
        assert_eq!(sleep_until(&words.0[1], 0, &words.0[0], None).unwrap(), Slept::ManagerDied, "not begun");
        let keeper = AliveKeeper::start(words.clone()).unwrap();
        let start = Instant::now();
        let deadline = Some(start + Duration::from_millis(30));
        assert_eq!(sleep_until(&words.0[1], 0, &words.0[0], deadline).unwrap(), Slept::TimedOut);
        assert!(start.elapsed() >= Duration::from_millis(30));
        assert_eq!(sleep_until(&words.0[1], 1, &words.0[0], None).unwrap(), Slept::Woken);
        drop(keeper);
        assert_eq!(sleep_until(&words.0[1], 1, &words.0[0], None).unwrap(), Slept::Woken, "an answer before the end counts");
    }
}
