//! [`StripedCounter`], as its users see it. The stripes are in `ipc::striped`.

use crate::handle::{Object, debug, handle};
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::Result;
use commonhold_ipc::points;
use commonhold_ipc::striped::Striped;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A shared signed number that is added to at the speed of memory, by all threads of all processes at once: for hits, bytes, events. Made
/// by [`Session::striped_counter`](crate::Session::striped_counter).
///
/// An addition is one instruction on a word of the processor's own: a few nanoseconds, no call, no waiting, however many others add.
///
/// - **Nothing is lost**: a process killed at any moment has made an addition or not, and all that it has made stay counted.
/// - [`get`](Self::get) is the sum of a word for each processor. It has all additions that came before it, as far as its caller can know:
///   its own, and those of whom it has heard since. Of those that run meanwhile it has some. Where only ever more is added, it never
///   falls. Where others add and take away meanwhile, it may be a number that the counter never was.
/// - It wraps around at the ends of 64 bits.
///
/// A [`Counter`](crate::Counter) is the other kind: its `add` is a call to the manager, some hundred times as long, and in return tells the
/// sum, happens in one order with everything else, in batches and transactions too, shows in snapshots and can be waited for.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// # let manager = commonhold::Manager::start()?;
/// let hits = manager.striped_counter(0)?;               // a handle: pass it to children, store it in a dict
/// for _ in 0..1000 {
///     hits.add(1)?;
/// }
/// hits.add(-10)?;
/// assert_eq!(hits.get()?, 990);
/// # Ok(())
/// # }
/// ```
pub struct StripedCounter {
    object: Arc<Object>,
    _of: PhantomData<()>,
}

handle!(StripedCounter[], commonhold_ipc::catalog::Kind::StripedCounter, "StripedCounter");

impl StripedCounter {
    /// Adds to the number.
    ///
    /// # Errors
    /// Disconnected, when the manager has ended: then nothing was added.
    #[inline]
    pub fn add(&self, amount: i64) -> Result<()> {
        let (_, segment) = self.object.shared(Kind::StripedCounter)?;
        points::client("striped counter: before an addition");
        Striped::new(segment).add(amount as u64);
        points::client("striped counter: added");
        Ok(())
    }

    /// The sum.
    ///
    /// # Errors
    /// Disconnected, when the manager has ended.
    pub fn get(&self) -> Result<i64> {
        let (_, segment) = self.object.shared(Kind::StripedCounter)?;
        Ok(Striped::new(segment).sum() as i64)
    }
}

/// Prints the sum. If it cannot be read, the reason.
impl fmt::Display for StripedCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Ok(number) => fmt::Display::fmt(&number, f),
            Err(error) => write!(f, "<{error}>"),
        }
    }
}

impl fmt::Debug for StripedCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "StripedCounter", &self.object, None)
    }
}
