//! Locks within this process whose holder may have panicked: what they guard is sound after each step, so it is used on.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes a lock, whatever became of those who had it before.
#[inline]
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
