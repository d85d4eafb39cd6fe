//! [`Semaphore`], [`BoundedSemaphore`] and their permits.

use super::Party;
use crate::handle::{Object, debug, handle};
use crate::patience::{Patience, Wait, deadline_after, try_again};
use crate::session::SessionCore;
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::map::Segment;
use commonhold_ipc::segment::HEADER_BYTES;
use commonhold_ipc::sync::semaphore::{self, SEMAPHORE_BYTES};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// So many permits, for threads of any processes. Made by [`Session::semaphore`](crate::Session::semaphore).
///
/// - A permit is a guard. It comes back when it is dropped, and within milliseconds when the process that has it ends, however
///   it does: so a pool of tokens does not leak away with killed workers.
/// - For signalling, a permit can be [forgotten](Permit::forget), and anybody can [`release`](Self::release) one: a consumer takes
///   `acquire()?.forget()`, a producer gives `release()?`.
/// - Taking a free permit and giving it back makes no system call. Who has waited for 2 ms comes before newcomers.
/// - There can be 4,096 permits, or twice as many as at first if that is more, but never more than 65,536.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// # let manager = commonhold::Manager::start()?;
/// let tokens = manager.semaphore(2)?;
/// let first = tokens.acquire()?;
/// let second = tokens.acquire()?;
/// assert!(tokens.try_acquire()?.is_none());
/// drop(first);
/// assert_eq!(tokens.available()?, 1);
/// second.forget();                                      // it does not come back by itself
/// tokens.release()?;
/// assert_eq!(tokens.to_string(), "2 available");
/// # Ok(())
/// # }
/// ```
pub struct Semaphore {
    object: Arc<Object>,
    _of: PhantomData<()>,
}

/// A [`Semaphore`] that never has more permits than at first: to release more than were forgotten is an error. Made by
/// [`Session::bounded_semaphore`](crate::Session::bounded_semaphore).
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// # let manager = commonhold::Manager::start()?;
/// let tokens = manager.bounded_semaphore(1)?;
/// assert_eq!(tokens.release().unwrap_err().kind(), commonhold::ErrorKind::OutOfRange);
/// tokens.acquire()?.forget();
/// tokens.release()?;
/// # Ok(())
/// # }
/// ```
pub struct BoundedSemaphore {
    object: Arc<Object>,
    _of: PhantomData<()>,
}

handle!(Semaphore[], commonhold_ipc::catalog::Kind::Semaphore, "Semaphore");
handle!(BoundedSemaphore[], commonhold_ipc::catalog::Kind::BoundedSemaphore, "BoundedSemaphore");

#[inline(always)]
fn words(segment: &Segment) -> Result<semaphore::Semaphore<'_, Segment>> {
    semaphore::Semaphore::new(segment, HEADER_BYTES, (segment.bytes() - HEADER_BYTES - SEMAPHORE_BYTES) / 8)
}

macro_rules! semaphore {
    ($name:ident, $full:expr) => {
        impl $name {
            fn take(&self, wait: Wait) -> Result<Option<Permit<'_>>> {
                let (session, segment) = self.object.shared(Kind::$name)?;
                let (semaphore, me) = (words(segment)?, session.claim());
                let taken = match (semaphore.try_take(me), wait) {
                    (Some(taken), _) => Some(taken),
                    (None, Wait::Not) => try_again(&semaphore, me, segment),
                    (None, Wait::Until(deadline)) => semaphore.take(me, &Patience::until(session, deadline)?)?,
                };
                Ok(taken.map(|index| Permit { session, segment, index }))
            }

            /// Takes a permit, waiting for as long as it takes.
            ///
            /// # Errors
            /// `Corrupt` if a process has written over its words; disconnected, at once, when the manager ends.
            pub fn acquire(&self) -> Result<Permit<'_>> {
                let taken = self.take(Wait::Until(None))?;
                taken.map_or_else(|| unreachable!("there is no deadline"), Ok)
            }

            /// Takes a permit if there is one.
            ///
            /// # Errors
            /// As [`acquire`](Self::acquire).
            pub fn try_acquire(&self) -> Result<Option<Permit<'_>>> {
                self.take(Wait::Not)
            }

            /// Takes a permit, or returns `None` when it has waited for `timeout`.
            ///
            /// # Errors
            /// As [`acquire`](Self::acquire).
            pub fn acquire_timeout(&self, timeout: Duration) -> Result<Option<Permit<'_>>> {
                self.take(Wait::Until(deadline_after(timeout)))
            }

            /// Runs `body` with a permit.
            ///
            /// # Errors
            /// As [`acquire`](Self::acquire).
            pub fn with<R>(&self, body: impl FnOnce() -> R) -> Result<R> {
                let _permit = self.acquire()?;
                Ok(body())
            }

            /// Adds a permit: gives one back that was [forgotten](Permit::forget), by whomever, or gives a signal.
            ///
            /// # Errors
            #[doc = $full]
            pub fn release(&self) -> Result<()> {
                let (_, segment) = self.object.shared(Kind::$name)?;
                if words(segment)?.add() {
                    return Ok(());
                }
                Err(full(Kind::$name))
            }

            /// Permits that nobody has now.
            ///
            /// # Errors
            /// As [`acquire`](Self::acquire).
            pub fn available(&self) -> Result<usize> {
                Ok(words(self.object.shared(Kind::$name)?.1)?.available())
            }

            /// Who has permits: one entry for each permit.
            ///
            /// # Errors
            /// As [`acquire`](Self::acquire).
            pub fn holders(&self) -> Result<Vec<Party>> {
                let (session, segment) = self.object.shared(Kind::$name)?;
                Party::all(session, words(segment)?.holders().into_iter())
            }

            /// Who sleeps until they get one; of very many, some.
            ///
            /// # Errors
            /// As [`acquire`](Self::acquire).
            pub fn waiters(&self) -> Result<Vec<Party>> {
                let (session, segment) = self.object.shared(Kind::$name)?;
                Party::all(session, words(segment)?.roster().claims())
            }
        }

        /// Says how many permits are available.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.available() {
                    Ok(available) => write!(f, "{available} available"),
                    Err(error) => write!(f, "<{error}>"),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                debug(f, stringify!($name), &self.object, None)
            }
        }
    };
}

semaphore!(Semaphore, "`Full` if there are as many as there can be.");
semaphore!(BoundedSemaphore, "`OutOfRange` if there are as many as at first.");

#[cold]
fn full(kind: Kind) -> Error {
    if kind == Kind::BoundedSemaphore {
        let text = "this semaphore has all the permits that it began with: something was released that had not been acquired and forgotten";
        return Error::new(ErrorKind::OutOfRange, text);
    }
    Error::new(ErrorKind::Full, "this semaphore has as many permits as it can have: are the signals that it counts never taken?")
}

/// A permit: given back when this is dropped. May travel to another thread.
#[must_use = "the permit is given back when this is dropped"]
pub struct Permit<'s> {
    session: &'s SessionCore,
    segment: &'s Segment,
    index: usize,
}

impl Permit<'_> {
    /// The permit is used up: it comes back neither by a drop nor by a death, but only when somebody releases one.
    pub fn forget(self) {
        if self.session.is_ours()
            && let Ok(semaphore) = words(self.segment)
        {
            semaphore.consume(self.index);
        }
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        // A forked child has a copy of the guard, and neither the permit nor its words.
        if self.session.is_ours()
            && let Ok(semaphore) = words(self.segment)
        {
            semaphore.release(self.index);
        }
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}
