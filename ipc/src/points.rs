//! Counted points: places where a test wants a process to die.
//!
//! With the feature `death-points`, which is for tests only, an environment variable makes a process kill itself with SIGKILL at
//! the n-th point that it reaches, or at the first with the words that it says: [`MANAGER_VARIABLE`] counts the points of managers,
//! [`CLIENT_VARIABLE`] those of clients, [`HOST_VARIABLE`] those of hosts as such; with [`CLIENT_STOP_VARIABLE`] a client, with [`MANAGER_STOP_VARIABLE`] a manager stops itself
//! (SIGSTOP) there instead, and with [`HOST_STOP_VARIABLE`] a host, once, where it names the point. They are inherited, so a test sets them for one process of its own and starts everything else elsewhere. Without the feature nothing of this
//! exists.

/// At which of its points a manager dies.
pub const MANAGER_VARIABLE: &str = "COMMONHOLD_MANAGER_DIE_AT";
/// At which of its points a client dies.
pub const CLIENT_VARIABLE: &str = "COMMONHOLD_CLIENT_DIE_AT";
/// At which of its points a manager stops.
pub const MANAGER_STOP_VARIABLE: &str = "COMMONHOLD_MANAGER_STOP_AT";
/// At which of its points a host dies.
pub const HOST_VARIABLE: &str = "COMMONHOLD_HOST_DIE_AT";
/// At which of its points, by its words, a host stops when it reaches it first.
pub const HOST_STOP_VARIABLE: &str = "COMMONHOLD_HOST_STOP_AT";
/// At which of its points a client stops.
pub const CLIENT_STOP_VARIABLE: &str = "COMMONHOLD_CLIENT_STOP_AT";

#[cfg(feature = "death-points")]
mod counted {
    use super::{CLIENT_STOP_VARIABLE, CLIENT_VARIABLE, HOST_STOP_VARIABLE, HOST_VARIABLE, MANAGER_STOP_VARIABLE, MANAGER_VARIABLE};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    /// One of somebody's points.
    enum Point {
        /// By its number.
        Nth(u64),
        /// The first that is called so.
        Named(String),
    }

    impl Point {
        fn of(variable: &str) -> Option<Point> {
            let says = std::env::var(variable).ok()?;
            Some(says.parse().map_or(Point::Named(says), Point::Nth))
        }

        fn is(&self, number: u64, words: &str) -> bool {
            match self {
                Point::Nth(nth) => *nth == number,
                Point::Named(name) => name == words,
            }
        }
    }

    pub struct Count {
        reached: AtomicU64,
        die_at: LazyLock<Option<Point>>,
        stop_at: LazyLock<Option<Point>>,
    }

    impl Count {
        const fn new(die_at: fn() -> Option<Point>, stop_at: fn() -> Option<Point>) -> Self {
            Count { reached: AtomicU64::new(0), die_at: LazyLock::new(die_at), stop_at: LazyLock::new(stop_at) }
        }

        pub fn is_on(&self) -> bool {
            self.die_at.is_some()
        }

        pub fn reached(&self, who: &str, what: &str) {
            if self.die_at.is_none() && self.stop_at.is_none() {
                return;
            }
            let point = self.reached.fetch_add(1, Ordering::Relaxed) + 1;
            if self.die_at.as_ref().is_some_and(|at| at.is(point, what)) {
                eprintln!("{who} dies at point {point}: {what}");
                crate::sys::kill_self();
            }
            if self.stop_at.as_ref().is_some_and(|at| at.is(point, what)) {
                eprintln!("{who} stops at point {point}: {what}");
                crate::sys::stop_self();
            }
        }
    }

    /// Stops a host at the point that is named, once.
    pub fn stop_host(what: &str) {
        static AT: LazyLock<Option<String>> = LazyLock::new(|| std::env::var(HOST_STOP_VARIABLE).ok());
        static HAS_STOPPED: AtomicBool = AtomicBool::new(false);
        if AT.as_deref() == Some(what) && !HAS_STOPPED.swap(true, Ordering::Relaxed) {
            eprintln!("the host stops: {what}");
            crate::sys::stop_self();
        }
    }

    pub static MANAGER: Count = Count::new(|| Point::of(MANAGER_VARIABLE), || Point::of(MANAGER_STOP_VARIABLE));
    pub static HOST: Count = Count::new(|| Point::of(HOST_VARIABLE), || None);
    pub static CLIENT: Count = Count::new(|| Point::of(CLIENT_VARIABLE), || Point::of(CLIENT_STOP_VARIABLE));
}

/// A manager has reached a point.
#[inline(always)]
pub fn manager(_what: &str) {
    #[cfg(feature = "death-points")]
    counted::MANAGER.reached("the manager", _what);
}

/// A client has reached a point.
#[inline(always)]
pub fn client(_what: &str) {
    #[cfg(feature = "death-points")]
    counted::CLIENT.reached("the client", _what);
}

/// A host has reached a point.
#[inline(always)]
pub fn host(_what: &str) {
    #[cfg(feature = "death-points")]
    {
        counted::HOST.reached("the host", _what);
        counted::stop_host(_what);
    }
}

/// How many bytes of a frame are sent before the client may die in the middle of it; 0: it goes in one piece.
#[inline(always)]
pub fn first_part(_len: usize) -> usize {
    #[cfg(feature = "death-points")]
    if counted::CLIENT.is_on() {
        return _len / 2;
    }
    0
}
