//! Where one caller sleeps: on words of shared memory, on descriptors, or on both at once.
//!
//! The kernel has a call for each, `futex_waitv` for up to 128 words and `poll` for descriptors, and none for both. Who would wake a
//! sleeper of both kinds?
//!
//! - *The manager*, told by whoever makes something ready: each notification would cost that one a system call and the sleeper two
//!   wake-ups, the manager would work for queues that it has no part in, and a second kind of sleeper in every eventcount would have to be
//!   proven.
//! - *A thread of ours that is always there*: in every program, for the few that mix.
//! - *A thread for as long as the sleep*, which is what is done here. It costs some tens of microseconds, of somebody who is about to sleep
//!   anyway; it exists only while a caller of [`wait`](crate::wait) sleeps who has named both kinds, or more words than the kernel takes;
//!   and nobody else, in this process or another one, has to know of it.
//!
//! So the words are cut into parts of as many as one thread can sleep on. The caller sleeps on the first part, one helper on each other
//! part, one on the descriptors. They have a word of their own, *awake*, in every part, and a bell among the descriptors: who wakes first
//! sets the word, wakes the others and rings. All of them have ended before the caller goes on.
//!
//! Only the caller looks whether something is ready: first of all, and every [`LOCK_LOOK_MS`] if there are words of shared memory, as in
//! every sleep (INV-22). The managers' alive words are in every part.

use crate::patience::spin;
use commonhold_ipc::error::{Error, Result};
use commonhold_ipc::limits::{LOCK_LOOK_MS, WORDS_SLEPT_ON_MAX};
use commonhold_ipc::liveness::sleep_until_any;
use commonhold_ipc::points;
use commonhold_ipc::sync::Sleeper;
use commonhold_ipc::sys;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

/// Stack of a helper: it waits, and that is all.
const STACK_BYTES: usize = 64 << 10;

/// Words that one thread sleeps on when each is of another manager's, whose alive word comes with it. One place is for *awake*.
const WORDS_IN_PART_MIN: usize = (WORDS_SLEPT_ON_MAX - 1) / 2;

/// A word, what it holds while nothing has happened, and the alive word of the manager whose object it belongs to.
#[derive(Clone, Copy)]
struct Word<'w> {
    word: &'w AtomicU32,
    expected: u32,
    alive: Option<&'w AtomicU32>,
}

/// What is slept on, and until when.
pub struct Places<'w> {
    deadline: Option<Instant>,
    words: Vec<Word<'w>>,
    descriptors: Vec<BorrowedFd<'w>>,
    /// Not if there are descriptors among what is waited for, at which a look is a system call.
    may_spin: bool,
}

/// The words that one thread sleeps on.
struct Part<'w> {
    words: Vec<(&'w AtomicU32, u32)>,
    lives: Vec<&'w AtomicU32>,
}

impl<'w> Part<'w> {
    fn of(words: &[Word<'w>]) -> Self {
        let lives = lives(words);
        Part { words: words.iter().map(|word| (word.word, word.expected)).collect(), lives }
    }

    fn sleep(&self, deadline: Option<Instant>) -> Result<bool> {
        sleep_until_any(&self.words, &self.lives, deadline)
    }
}

/// The alive words that go with these, each once.
fn lives<'w>(words: &[Word<'w>]) -> Vec<&'w AtomicU32> {
    let mut lives: Vec<&AtomicU32> = Vec::new();
    for alive in words.iter().filter_map(|word| word.alive) {
        if !lives.iter().any(|known| std::ptr::eq(*known, alive)) {
            lives.push(alive);
        }
    }
    lives
}

impl<'w> Places<'w> {
    /// Nothing yet, until a deadline.
    pub fn until(deadline: Option<Instant>, may_spin: bool) -> Self {
        Places { deadline, words: Vec::new(), descriptors: Vec::new(), may_spin }
    }

    /// Sleeps on a word of shared memory while it holds this, and the manager lives whose alive word this is.
    pub fn add_word(&mut self, word: &'w AtomicU32, expected: u32, alive: &'w AtomicU32) {
        self.words.push(Word { word, expected, alive: Some(alive) });
    }

    /// The same with a word of this process's own.
    #[cfg(feature = "async")]
    pub fn add_own_word(&mut self, word: &'w AtomicU32, expected: u32) {
        self.words.push(Word { word, expected, alive: None });
    }

    /// Sleeps until the descriptor is readable, at its end or in error.
    pub fn add_descriptor(&mut self, descriptor: BorrowedFd<'w>) {
        self.descriptors.push(descriptor);
    }

    /// Sleeps on the words of one part, with a look now and then.
    fn sleep_on(&self, part: &Part<'_>, ready: &mut dyn FnMut() -> bool) -> Result<()> {
        let looks = self.words.iter().any(|word| word.alive.is_some());
        loop {
            let look = looks.then(|| Instant::now() + Duration::from_millis(LOCK_LOOK_MS));
            let until = [self.deadline, look].into_iter().flatten().min();
            if part.sleep(until)? || until == self.deadline || ready() {
                return Ok(());
            }
        }
    }

    fn sleep_in_parts(&self, in_part: usize, ready: &mut dyn FnMut() -> bool) -> Result<()> {
        let awake = Awake { word: AtomicU32::new(0), bell: sys::bell()?, failure: Mutex::new(None) };
        let own = Word { word: &awake.word, expected: 0, alive: None };
        let mut parts = self.words.chunks(in_part).map(|words| Part::of(&[words, &[own]].concat()));
        let Some(first) = parts.next() else { return Ok(()) };
        let helpers: Vec<Part<'_>> = parts.collect();
        thread::scope(|scope| {
            for part in &helpers {
                awake.by_helper(scope, || part.sleep(None).map(drop));
            }
            if !self.descriptors.is_empty() {
                awake.by_helper(scope, || {
                    let all: Vec<_> = self.descriptors.iter().copied().chain([awake.bell.as_fd()]).collect();
                    sys::wait_readable_any(&all, None).map(drop)
                });
            }
            awake.after(|| self.sleep_on(&first, ready));
        });
        let failure = awake.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        failure.map_or(Ok(()), Err)
    }
}

/// What the threads of one sleep have in common.
struct Awake {
    /// 0 while all of them sleep.
    word: AtomicU32,
    /// The same for who polls.
    bell: std::os::fd::OwnedFd,
    failure: Mutex<Option<Error>>,
}

impl Awake {
    /// Sleeps in a thread of its own, and wakes the others afterwards.
    fn by_helper<'s, 'e: 's>(&'e self, scope: &'s Scope<'s, 'e>, sleep: impl FnOnce() -> Result<()> + Send + 's) {
        let helper = thread::Builder::new().name("commonhold-wait".into()).stack_size(STACK_BYTES);
        if let Err(error) = helper.spawn_scoped(scope, || self.after(sleep)) {
            self.after(|| Err(Error::system("could not start a thread to wait for words and descriptors at once", error)));
        }
    }

    /// Sleeps, and wakes the others afterwards.
    fn after(&self, sleep: impl FnOnce() -> Result<()>) {
        if let Err(error) = sleep() {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
        // SYNC: Release orders what woke this one before the wake-up of the others.
        self.word.store(1, Ordering::Release);
        sys::futex_wake_all(&self.word);
        sys::ring_bell(&self.bell);
    }
}

impl Sleeper for Places<'_> {
    fn clear(&mut self) {
        self.words.clear();
        self.descriptors.clear();
    }

    fn spin(&self, ready: &mut dyn FnMut() -> bool) -> bool {
        self.may_spin && spin(ready)
    }

    fn sleep(&self, ready: &mut dyn FnMut() -> bool) -> Result<()> {
        points::client("wait: about to sleep");
        let in_part = (WORDS_SLEPT_ON_MAX - 1).saturating_sub(lives(&self.words).len()).max(WORDS_IN_PART_MIN);
        let slept = if self.words.is_empty() {
            sys::wait_readable_any(&self.descriptors, self.deadline).map(drop)
        } else if self.descriptors.is_empty() && self.words.len() <= in_part {
            self.sleep_on(&Part::of(&self.words), ready)
        } else {
            self.sleep_in_parts(in_part, ready)
        };
        points::client("wait: awake");
        slept
    }

    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }
}
