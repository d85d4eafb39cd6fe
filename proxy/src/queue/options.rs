//! [`QueueOptions`], and the ways to make a queue.

use super::Queue;
use crate::session::Session;
use commonhold_ipc::error::Result;
use commonhold_ipc::limits::{QUEUE_BYTES_DEFAULT, QUEUE_UNBOUNDED_ITEMS};
use commonhold_ipc::queue::Parameters;
use commonhold_ipc::value::Shared;

/// What a queue is made with, for [`Session::queue_with`](crate::Session::queue_with).
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// # let manager = commonhold::Manager::start()?;
/// use commonhold::QueueOptions;
/// let options = QueueOptions::new().capacity(100).bytes_max(64 << 20).attempts_max(3);
/// let urls = manager.queue_with::<String>(options)?;
/// assert_eq!(urls.capacity()?, 100);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct QueueOptions {
    parameters: Parameters,
}

impl Default for QueueOptions {
    fn default() -> Self {
        QueueOptions::new()
    }
}

impl QueueOptions {
    /// As many items and bytes as there may be without saying so: 131,071 and 4 GiB.
    pub fn new() -> Self {
        let parameters = Parameters { capacity: QUEUE_UNBOUNDED_ITEMS, bytes_max: QUEUE_BYTES_DEFAULT, attempts_max: 0, joinable: false };
        QueueOptions { parameters }
    }

    /// So many items may wait, from 1 to 900,000.
    pub fn capacity(mut self, items: u64) -> Self {
        self.parameters.capacity = items;
        self
    }

    /// So many bytes of payload may wait, up to 64 GiB, rounded up to 1 KiB an item; items up to 88 bytes do not count. Memory is
    /// taken as it is needed, from what the manager's capacity leaves.
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.parameters.bytes_max = bytes;
        self
    }

    /// An item that has been leased so often and was not acknowledged is a dead letter ([`Queue::dead_letters`]). 0: it comes back
    /// any number of times.
    pub fn attempts_max(mut self, attempts: u32) -> Self {
        self.parameters.attempts_max = attempts.into();
        self
    }

    /// Each item that `recv` took counts as unfinished until [`Queue::task_done`]. A leased one does so until [`ack`](crate::Lease::ack)
    /// anyway, which is not to be followed by `task_done`.
    pub fn joinable(mut self) -> Self {
        self.parameters.joinable = true;
        self
    }
}

impl Session {
    /// A new queue for up to so many items, and up to 4 GiB of payload.
    ///
    /// # Errors
    /// `OutOfRange` unless `capacity` is from 1 to 900,000; `Full` if the manager has no memory left.
    pub fn queue<T: Shared>(&self, capacity: u64) -> Result<Queue<T>> {
        self.queue_with(QueueOptions::new().capacity(capacity))
    }

    /// A new queue for as many items as there may be without saying so: 131,071, and 4 GiB of payload.
    ///
    /// # Errors
    /// `Full` if the manager has no memory left.
    pub fn queue_unbounded<T: Shared>(&self) -> Result<Queue<T>> {
        self.queue_with(QueueOptions::new())
    }

    /// A new queue made with these options.
    ///
    /// # Errors
    /// `OutOfRange` if an option is outside of its range; `Full` if the manager has no memory left.
    pub fn queue_with<T: Shared>(&self, options: QueueOptions) -> Result<Queue<T>> {
        options.parameters.check()?;
        self.create_shared(&options.parameters.words())
    }
}
