//! Counted points: places where a test wants the manager to die.
//!
//! With the feature `death-points`, the environment variable `COMMONHOLD_DIE_AT=n` makes the process kill itself with
//! SIGKILL at the n-th point that it reaches. Without the feature, which is for tests only, nothing of this exists.

/// A point has been reached.
#[cfg(not(feature = "death-points"))]
#[inline(always)]
pub fn reached(_what: &str) {}

/// A point has been reached.
#[cfg(feature = "death-points")]
pub fn reached(what: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static REACHED: AtomicU64 = AtomicU64::new(0);
    static DIE_AT: LazyLock<Option<u64>> = LazyLock::new(|| std::env::var("COMMONHOLD_DIE_AT").ok()?.parse().ok());
    if let Some(die_at) = *DIE_AT
        && REACHED.fetch_add(1, Ordering::Relaxed) + 1 == die_at
    {
        eprintln!("dying at point {die_at}: {what}");
        commonhold_ipc::sys::kill_self();
    }
}
