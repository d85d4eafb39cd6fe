//! [`PipeOptions`], and the ways to make a pipe.

use super::{Connection, PipeReceiver, PipeSender};
use crate::handle::Handle;
use crate::queue::{Queue, QueueOptions};
use crate::session::Session;
use commonhold_ipc::error::Result;
use commonhold_ipc::limits::PIPE_CAPACITY_DEFAULT;
use commonhold_ipc::value::Shared;

/// What a pipe is made with, for [`Session::pipe_with`](crate::Session::pipe_with).
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// # let manager = commonhold::Manager::start()?;
/// use commonhold::PipeOptions;
/// let options = PipeOptions::new().capacity(1);
/// let (asks, _answers) = manager.pipe_with::<String, u64>(options)?;      // sends texts, receives numbers
/// assert!(asks.try_send("how many?")?.is_ok() && asks.try_send("and how often?")?.is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct PipeOptions {
    queue: QueueOptions,
}

impl Default for PipeOptions {
    fn default() -> Self {
        PipeOptions::new()
    }
}

impl PipeOptions {
    /// 128 items and 4 GiB in each direction.
    pub fn new() -> Self {
        PipeOptions { queue: QueueOptions::new().capacity(PIPE_CAPACITY_DEFAULT) }
    }

    /// So many items may wait in each direction, from 1 to 900,000.
    pub fn capacity(self, items: u64) -> Self {
        PipeOptions { queue: self.queue.capacity(items) }
    }

    /// So many bytes of payload may wait in each direction, up to 64 GiB: as [`QueueOptions::bytes_max`].
    pub fn bytes_max(self, bytes: u64) -> Self {
        PipeOptions { queue: self.queue.bytes_max(bytes) }
    }
}

impl Session {
    /// A new pipe for both directions, and its two ends: what one sends, the other receives.
    ///
    /// # Errors
    /// `Full` if the manager has no memory left.
    pub fn pipe<T: Shared>(&self) -> Result<(Connection<T>, Connection<T>)> {
        self.pipe_with(PipeOptions::new())
    }

    /// A new pipe for one direction: the end that receives, and the one that sends.
    ///
    /// # Errors
    /// As [`pipe`](Self::pipe).
    pub fn pipe_one_way<T: Shared>(&self) -> Result<(PipeReceiver<T>, PipeSender<T>)> {
        self.pipe_one_way_with(PipeOptions::new())
    }

    /// A new pipe made with these options. The first end sends `Out` and receives `In`, the second the other way round.
    ///
    /// # Errors
    /// `OutOfRange` if an option is outside of its range; `Full` if the manager has no memory left.
    pub fn pipe_with<Out: Shared, In: Shared>(&self, options: PipeOptions) -> Result<(Connection<Out, In>, Connection<In, Out>)> {
        let (there, back): (Queue<Out>, Queue<In>) = (self.queue_with(options.queue)?, self.queue_with(options.queue)?);
        Ok((self.create_shared(&[back.id(), there.id()])?, self.create_shared(&[there.id(), back.id()])?))
    }

    /// A new pipe for one direction made with these options.
    ///
    /// # Errors
    /// As [`pipe_with`](Self::pipe_with).
    pub fn pipe_one_way_with<T: Shared>(&self, options: PipeOptions) -> Result<(PipeReceiver<T>, PipeSender<T>)> {
        let queue: Queue<T> = self.queue_with(options.queue)?;
        Ok((self.create_shared(&[queue.id(), 0])?, self.create_shared(&[0, queue.id()])?))
    }
}
