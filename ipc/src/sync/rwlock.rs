//! RwLock: one writer, or any number of readers, each named.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 288 | [lock](super::lock): of the writer; and of a reader for as long as it takes to get in past one |
//! | 288 | 8 | *draining*: the claim of a writer that has the lock and waits for readers to leave, with DIED if it was told of a death; or 0 |
//! | 296 | 4 | eventcount of that writer |
//! | 304 | 8 | *used*: all readers' slots beyond have never been taken |
//! | 320 | 3584 | readers: 0, or the claim of one |
//!
//! A reader writes its claim into a slot, then looks at the lock; a writer takes the lock, then looks at the slots. Of the two
//! first steps one comes first, so they never miss each other. A reader that finds the lock taken leaves its slot, waits for the
//! lock like a writer, takes a slot under it, and gives it back: so readers and writers queue in one line, and the fairness of
//! the lock is theirs.
//!
//! Readers that find that a writer has died are told, and leave the word of it to the next writer, who alone can mend things.

use super::turns::DIED;
use super::{Claim, Eventcount, LOCK_BYTES, Lock, Memory, Roster, Taken, Waiting, Word, scribbled};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::LOCK_LOOK_MS;
use crate::liveness::{Slept, disconnected};
use crate::points;

/// Bytes of a lock for readers and writers.
pub const RWLOCK_BYTES: usize = READERS + 8 * SLOTS;
/// Readers at a time.
pub const SLOTS: usize = 448;

const DRAINING: usize = LOCK_BYTES;
const DRAINED: usize = LOCK_BYTES + 8;
const USED: usize = LOCK_BYTES + 16;
const READERS: usize = LOCK_BYTES + 32;
/// Slots among which readers spread, two lines of them, before they take others: a writer looks at all that were ever taken.
const SPREAD: usize = 16;

/// The words at an offset, as a lock for readers and writers.
pub struct RwLock<'m, M: Memory + ?Sized> {
    memory: &'m M,
    at: usize,
}

impl<'m, M: Memory + ?Sized> RwLock<'m, M> {
    /// The lock at this offset.
    #[inline(always)]
    pub fn new(memory: &'m M, at: usize) -> Self {
        RwLock { memory, at }
    }

    /// The lock of writers.
    #[inline(always)]
    pub fn writer(&self) -> Lock<'m, M> {
        Lock::new(self.memory, self.at)
    }

    #[inline(always)]
    fn draining(&self) -> &'m M::Word {
        self.memory.word(self.at + DRAINING)
    }

    fn drained(&self) -> Eventcount<'m, M> {
        Eventcount::new(self.memory, self.at + DRAINED)
    }

    fn used(&self) -> &'m M::Word {
        self.memory.word(self.at + USED)
    }

    /// The readers' slots that were ever taken.
    pub fn readers(&self) -> Roster<'m, M> {
        Roster::new(self.memory, self.at + READERS, (self.used().load() as usize).min(SLOTS))
    }

    #[inline(always)]
    fn slot(&self, index: usize) -> &'m M::Word {
        self.memory.word(self.at + READERS + 8 * index)
    }

    /// Those who wait: in the line as far as its roster has room, and before them a writer that waits for readers to leave.
    pub fn waiters(&self) -> impl Iterator<Item = Claim> {
        let in_line: Vec<Claim> = self.writer().roster().claims().collect();
        Claim::of(self.draining().load()).into_iter().chain(in_line)
    }

    /// Takes a reader's slot; none if all are taken.
    #[inline]
    fn enter(&self, me: Claim) -> Option<usize> {
        let first = me.thread() as usize % SPREAD;
        (first..SLOTS).chain(0..first).find(|index| {
            if self.slot(*index).load() != 0 {
                return false;
            }
            // First: a writer looks no farther.
            let mut used = self.used().load();
            while used <= *index as u64 {
                match self.used().compare_exchange(used, *index as u64 + 1) {
                    Ok(()) => break,
                    Err(now) => used = now,
                }
            }
            self.slot(*index).compare_exchange(0, me.word()).is_ok()
        })
    }

    /// Begins to read if no writer is there: the reader's slot.
    #[inline]
    pub fn try_read(&self, me: Claim) -> Option<usize> {
        let slot = self.enter(me)?;
        if self.writer().is_free() {
            return Some(slot);
        }
        self.leave(slot);
        None
    }

    /// The caller has taken the writers' lock: begins to read, and gives that back as it was taken. The reader's slot.
    #[cold]
    pub fn read(&self, me: Claim, taken: Taken) -> Result<usize> {
        let slot = self.enter(me);
        points::client("rwlock: a reader in the line");
        self.writer().release_as_taken(taken);
        slot.ok_or_else(|| {
            let text = format!("{SLOTS} readers have this lock, the most that there can be: try again when one has left");
            Error::new(ErrorKind::Full, text)
        })
    }

    /// A reader leaves.
    #[inline]
    pub fn leave(&self, slot: usize) {
        self.slot(slot).swap(0);
        points::client("rwlock: a reader has left");
        if self.draining().load() != 0 {
            self.drained().notify_all();
        }
    }

    /// Whether somebody reads, or is about to find that it must not.
    #[inline]
    pub fn has_readers(&self) -> bool {
        self.readers().claims().next().is_some()
    }

    /// The caller has taken the writers' lock: waits until all readers have left. Otherwise, by time or error, it gives the lock
    /// back as it was taken.
    #[cold]
    pub fn drain(&self, me: Claim, taken: Taken, waiting: &impl Waiting<M>) -> Result<bool> {
        let drained = if waiting.spin(&mut || !self.has_readers()) {
            Ok(true)
        } else {
            // With what it was told, which its own death must not hide.
            self.draining().swap(me.word() | if taken.owner_died { DIED } else { 0 });
            points::client("rwlock: draining");
            let drained = self.wait_for_readers(me, waiting);
            self.draining().swap(0);
            drained
        };
        if !matches!(drained, Ok(true)) {
            self.writer().release_as_taken(taken);
        }
        drained
    }

    fn wait_for_readers(&self, me: Claim, waiting: &impl Waiting<M>) -> Result<bool> {
        let mut looks = 0u32;
        loop {
            let prepared = self.drained().prepare();
            let Some(reader) = self.readers().claims().next() else { return Ok(true) };
            if self.readers().claims().any(|reader| reader == me) {
                let text = "this thread reads under this lock and would wait for itself: drop its guard before it writes";
                return Err(Error::new(ErrorKind::Deadlock, text));
            }
            if waiting.is_over() {
                return Ok(false);
            }
            match self.drained().sleep(prepared, waiting, LOCK_LOOK_MS)? {
                Slept::Woken => {}
                Slept::ManagerDied => return Err(disconnected()),
                Slept::TimedOut => {
                    looks += 1;
                    let first = || self.readers().claims().next();
                    if looks.is_power_of_two() && first() == Some(reader) {
                        match waiting.knows(reader)? {
                            Some(false) if first() == Some(reader) => return Err(scribbled("lock")),
                            Some(_) => {}
                            // It is asked again at the next look.
                            None => looks -= 1,
                        }
                    }
                }
            }
        }
    }

    /// A session is over: it reads no more; if it wrote, the next ones are told.
    pub fn recover(&self, session: u64) {
        let draining = self.draining().load();
        self.readers().recover(session);
        self.writer().recover(session, |claim| claim.word() != draining);
        if Claim::is_of(draining, session) {
            let _ = self.draining().compare_exchange(draining, 0);
        }
        self.drained().recover();
    }
}
