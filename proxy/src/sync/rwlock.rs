//! [`RwLock`] and its guards.

use super::{Acquired, Party};
use crate::handle::{Object, debug, handle};
use crate::patience::{Patience, Wait, deadline_after, try_again};
use crate::session::SessionCore;
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::Result;
use commonhold_ipc::map::Segment;
use commonhold_ipc::segment::HEADER_BYTES;
use commonhold_ipc::sync::{Claim, Taken, rwlock};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// One writer or many readers, threads of any processes. Made by [`Session::rw_lock`](crate::Session::rw_lock).
///
/// - Readers that are killed do not keep writers out. Of a writer that is killed, all later readers and the next writer are told
///   ([`Acquired::OwnerDied`]); that writer may mend things, and from then on nobody is told any more.
/// - Reading without writers, and writing without readers, makes no system call.
/// - Readers and writers that must wait do so in one line, as with [`Lock`](crate::Lock): neither starves. So a thread must not
///   read while it reads already: a writer that waits in between waits for the first, and the second for the writer.
/// - At most 448 readers at a time.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// # let manager = commonhold::Manager::start()?;
/// let lock = manager.rw_lock()?;
/// {
///     let _reading = lock.read()?.into_guard();
///     assert!(lock.try_write()?.is_none());
/// }
/// let _writing = lock.write()?.into_guard();
/// assert!(lock.try_read()?.is_none());
/// # Ok(())
/// # }
/// ```
pub struct RwLock {
    object: Arc<Object>,
    _of: PhantomData<()>,
}

handle!(RwLock[], commonhold_ipc::catalog::Kind::RwLock, "RwLock");

impl RwLock {
    #[inline(always)]
    fn words(&self) -> Result<(&SessionCore, &Segment, rwlock::RwLock<'_, Segment>)> {
        let (session, segment) = self.object.shared(Kind::RwLock)?;
        Ok((session, segment, rwlock::RwLock::new(segment, HEADER_BYTES)))
    }

    /// The lock of writers, at once or after its turn has come.
    fn take_line(&self, me: Claim, wait: Wait) -> Result<Option<Taken>> {
        let (session, segment, lock) = self.words()?;
        Ok(match (lock.writer().try_take(me), wait) {
            (Some(taken), _) => Some(taken),
            (None, Wait::Not) => try_again(&lock.writer(), me, segment),
            (None, Wait::Until(deadline)) => lock.writer().take(me, &Patience::until(session, deadline)?)?,
        })
    }

    #[inline]
    fn take_read(&self, wait: Wait) -> Result<Option<Acquired<ReadGuard<'_>>>> {
        let (session, segment, lock) = self.words()?;
        let me = session.claim();
        let guard = |slot| ReadGuard { session, segment, slot, _on_its_thread: PhantomData };
        if let Some(slot) = lock.try_read(me) {
            return Ok(Some(Acquired::Clean(guard(slot))));
        }
        match self.take_line(me, wait)? {
            None => Ok(None),
            Some(taken) => Ok(Some(Acquired::new(taken, guard(lock.read(me, taken)?)))),
        }
    }

    #[inline]
    fn take_write(&self, wait: Wait) -> Result<Option<Acquired<WriteGuard<'_>>>> {
        let (session, segment, lock) = self.words()?;
        let me = session.claim();
        let Some(taken) = self.take_line(me, wait)? else { return Ok(None) };
        if lock.has_readers() {
            let drained = match wait {
                Wait::Not => {
                    lock.writer().release_as_taken(taken);
                    false
                }
                Wait::Until(deadline) => lock.drain(me, taken, &Patience::until(session, deadline)?)?,
            };
            if !drained {
                return Ok(None);
            }
        }
        Ok(Some(Acquired::new(taken, WriteGuard { session, segment, _on_its_thread: PhantomData })))
    }

    /// Begins to read, waiting for as long as it takes.
    ///
    /// # Errors
    /// `Deadlock` if this thread writes; `Full` if there are too many readers; `Corrupt` if a process has written over the lock's
    /// words; disconnected, at once, when the manager ends.
    #[inline]
    pub fn read(&self) -> Result<Acquired<ReadGuard<'_>>> {
        self.take_read(Wait::Until(None))?.map_or_else(|| unreachable!("there is no deadline"), Ok)
    }

    /// Begins to read if nobody writes or waits to.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    #[inline]
    pub fn try_read(&self) -> Result<Option<Acquired<ReadGuard<'_>>>> {
        self.take_read(Wait::Not)
    }

    /// Begins to read, or returns `None` when it has waited for `timeout`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_timeout(&self, timeout: Duration) -> Result<Option<Acquired<ReadGuard<'_>>>> {
        self.take_read(Wait::Until(deadline_after(timeout)))
    }

    /// Begins to write, waiting for as long as it takes.
    ///
    /// # Errors
    /// `Deadlock` if this thread reads or writes; `Corrupt` if a process has written over the lock's words; disconnected, at once,
    /// when the manager ends.
    #[inline]
    pub fn write(&self) -> Result<Acquired<WriteGuard<'_>>> {
        self.take_write(Wait::Until(None))?.map_or_else(|| unreachable!("there is no deadline"), Ok)
    }

    /// Begins to write if nobody reads or writes.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    #[inline]
    pub fn try_write(&self) -> Result<Option<Acquired<WriteGuard<'_>>>> {
        self.take_write(Wait::Not)
    }

    /// Begins to write, or returns `None` when it has waited for `timeout`.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_timeout(&self, timeout: Duration) -> Result<Option<Acquired<WriteGuard<'_>>>> {
        self.take_write(Wait::Until(deadline_after(timeout)))
    }

    /// Who writes now, or will as soon as the readers have left.
    ///
    /// # Errors
    /// Disconnected, when the manager has ended.
    pub fn writer(&self) -> Result<Option<Party>> {
        let (session, _, lock) = self.words()?;
        lock.writer().holder()?.map_or(Ok(None), |claim| Party::of(session, claim))
    }

    /// Who reads now.
    ///
    /// # Errors
    /// Disconnected, when the manager has ended.
    pub fn readers(&self) -> Result<Vec<Party>> {
        let (session, _, lock) = self.words()?;
        Party::all(session, lock.readers().claims())
    }

    /// Who sleeps until they may read or write; of very many, some.
    ///
    /// # Errors
    /// Disconnected, when the manager has ended.
    pub fn waiters(&self) -> Result<Vec<Party>> {
        let (session, _, lock) = self.words()?;
        Party::all(session, lock.waiters())
    }
}

/// Says who writes, or how many read.
impl fmt::Display for RwLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.writer().and_then(|writer| Ok((writer, self.readers()?.len()))) {
            Ok((Some(writer), _)) => write!(f, "written by {writer}"),
            Ok((None, 0)) => f.write_str("free"),
            Ok((None, readers)) => write!(f, "read by {readers}"),
            Err(error) => write!(f, "<{error}>"),
        }
    }
}

impl fmt::Debug for RwLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "RwLock", &self.object, None)
    }
}

/// The right to read, until this is dropped. Stays on its thread.
#[must_use = "the right to read ends when this is dropped"]
pub struct ReadGuard<'l> {
    session: &'l SessionCore,
    segment: &'l Segment,
    slot: usize,
    _on_its_thread: PhantomData<*const ()>,
}

impl Drop for ReadGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // A forked child has a copy of the guard, and neither the lock nor its words.
        if self.session.is_ours() {
            rwlock::RwLock::new(self.segment, HEADER_BYTES).leave(self.slot);
        }
    }
}

impl fmt::Debug for ReadGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadGuard")
    }
}

/// The right to write, until this is dropped. Stays on its thread.
#[must_use = "the right to write ends when this is dropped"]
pub struct WriteGuard<'l> {
    session: &'l SessionCore,
    segment: &'l Segment,
    _on_its_thread: PhantomData<*const ()>,
}

impl Drop for WriteGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // A forked child has a copy of the guard, and neither the lock nor its words.
        if self.session.is_ours() {
            rwlock::RwLock::new(self.segment, HEADER_BYTES).writer().release();
        }
    }
}

impl fmt::Debug for WriteGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteGuard")
    }
}
