//! Waiting for changes without asking: `version`, `changed_since`, `wait_for_change`. The words are `ipc::arena::watch_offset`'s.

use crate::connection::disconnected;
use crate::handle::Object;
use commonhold_ipc::arena::{ALIVE, WATCH_ARMED, WATCH_SEQUENCE, watch_offset};
use commonhold_ipc::error::Result;
use commonhold_ipc::liveness::{Slept, sleep_until};
use commonhold_ipc::wire::Call;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Version of the object's last change.
pub fn version(object: &Object) -> Result<u64> {
    Ok(object.look()?.2.modified)
}

/// Whether the object has been changed after a version.
#[inline]
pub fn changed_since(object: &Object, seen: u64) -> Result<bool> {
    let session = object.ready()?;
    // SYNC: pairs with the manager's Release store after the publication.
    let touched = session.arena.load(watch_offset(object.id()), Ordering::Acquire);
    // Several objects share a word: only then it is worth a closer look.
    if touched <= seen { Ok(false) } else { Ok(version(object)? > seen) }
}

/// Sleeps until the object has been changed after `seen`, and sets `seen` to its version then. `false`: the time is up.
pub fn wait_for_change(object: &Object, seen: &mut u64, timeout: Option<Duration>) -> Result<bool> {
    // Later than any clock shows is never.
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let session = object.ready()?;
    let at = watch_offset(object.id());
    let half = |offset| session.arena.half_word(offset).ok_or_else(disconnected);
    let (sequence, armed, alive) = (half(at + WATCH_SEQUENCE)?, half(at + WATCH_ARMED)?, half(ALIVE)?);
    loop {
        // SYNC: each Acquire pairs with a Release of the manager's in `watch`; the order of the three loads is the protocol.
        let before = sequence.load(Ordering::Acquire);
        let is_armed = armed.load(Ordering::Acquire) != 0;
        let now = version(object)?;
        if now > *seen {
            *seen = now;
            return Ok(true);
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Ok(false);
        }
        if !is_armed {
            session.call_with_id(Call::Arm, object.id(), false)?;
            continue;
        }
        match sleep_until(sequence, before, alive, deadline)? {
            Slept::Woken | Slept::TimedOut => session.check()?,
            Slept::ManagerDied => return Err(disconnected()),
        }
    }
}

/// The methods for waiting that every container has.
macro_rules! methods {
    () => {
        /// The version of the last change: for [`changed_since`](Self::changed_since). Versions are numbers of the manager's
        /// commits, from 1.
        pub fn version(&self) -> Result<u64> {
            crate::watch::version(&self.object)
        }

        /// Whether there has been a change after this version. One load from shared memory, as long as nothing has changed.
        #[inline]
        pub fn changed_since(&self, version: u64) -> Result<bool> {
            crate::watch::changed_since(&self.object, version)
        }

        /// Sleeps until there has been a change after version `seen`, and sets `seen` to the version of the newest one. With
        /// 0 it returns at once with the version as it is. `false`: `timeout` has passed. Costs no processor time.
        ///
        /// # Errors
        /// When the manager ends, within milliseconds.
        ///
        /// ```
        /// # commonhold::init_in_tests!();
        /// # fn main() -> commonhold::Result<()> {
        /// # let manager = commonhold::Manager::start()?;
        /// use std::time::Duration;
        /// let list = manager.list([1, 2])?;
        /// let mut seen = 0;
        /// assert!(list.wait_for_change(&mut seen, None)?);
        /// assert!(!list.wait_for_change(&mut seen, Duration::from_millis(1))?);    // nothing new
        /// list.push(3)?;
        /// assert!(list.changed_since(seen)?);
        /// assert!(list.wait_for_change(&mut seen, None)?);
        /// # Ok(())
        /// # }
        /// ```
        pub fn wait_for_change(&self, seen: &mut u64, timeout: impl Into<Option<std::time::Duration>>) -> Result<bool> {
            crate::watch::wait_for_change(&self.object, seen, timeout.into())
        }
    };
}
pub(crate) use methods;
