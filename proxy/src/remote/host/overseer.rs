//! The overseer: a thread that sees whether one who leads (`ahead`, `logic`) is stuck in a call, so that another one leads on.
//!
//! For a while after a method that took long it looks more often, so that many that block are passed quickly. While nobody calls it sleeps.

use crate::unpoisoned::lock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

/// How often the overseer looks: a method that runs for longer than one or two of these gives the lead away.
const TICK: Duration = Duration::from_millis(1);
/// The same for so many looks after it has found a method that runs for long.
const TICK_CLOSE: Duration = Duration::from_micros(50);
const TICKS_CLOSE: u32 = 16;
/// Ticks without a call before the overseer goes to sleep.
const TICKS_IDLE: u32 = 16;

/// What has a leader, who takes calls and runs them himself.
pub(super) trait Led: Send + Sync {
    /// The overseer's look: what he does.
    fn look(self: Arc<Self>) -> Seen;
}

/// What a look has shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Seen {
    /// Nobody runs a call.
    Nothing,
    /// Somebody does.
    Call,
    /// The same as at the last look.
    Slow,
}

/// Looks at those who lead, while there are calls.
#[derive(Default)]
pub(super) struct Overseer {
    watched: Mutex<Watched>,
    called: Condvar,
    /// Whether it looks, see `rest`.
    is_awake: AtomicBool,
}

#[derive(Default)]
struct Watched {
    led: Vec<Weak<dyn Led>>,
    has_thread: bool,
}

impl Overseer {
    /// Looks at this from now on. Without a thread for that, what blocks delays what is behind it.
    pub(super) fn watch(self: &Arc<Self>, led: Weak<dyn Led>) {
        let mut watched = lock(&self.watched);
        watched.led.retain(|led| led.strong_count() > 0);
        watched.led.push(led);
        if !watched.has_thread {
            let overseer = self.clone();
            watched.has_thread = std::thread::Builder::new().name("overseer".into()).spawn(move || overseer.oversee()).is_ok();
        }
    }

    /// A call begins. The lock is held that a look at it takes.
    pub(super) fn wake(&self) {
        if !self.is_awake.load(Ordering::Relaxed) {
            let _watched = lock(&self.watched);
            self.is_awake.store(true, Ordering::Relaxed);
            self.called.notify_one();
        }
    }

    /// The most that any line does. No lock of ours is held: who begins a call takes it under the line's.
    fn look(&self) -> Seen {
        let led: Vec<_> = lock(&self.watched).led.iter().filter_map(Weak::upgrade).collect();
        led.into_iter().map(Led::look).max().unwrap_or(Seen::Nothing)
    }

    fn oversee(&self) {
        let (mut idle, mut close) = (0, 0u32);
        loop {
            let watched = lock(&self.watched);
            let tick = if close > 0 { TICK_CLOSE } else { TICK };
            drop(self.called.wait_timeout(watched, tick).unwrap_or_else(PoisonError::into_inner));
            let seen = self.look();
            close = if seen == Seen::Slow { TICKS_CLOSE } else { close.saturating_sub(1) };
            idle = if seen == Seen::Nothing { idle + 1 } else { 0 };
            if idle > TICKS_IDLE {
                idle = 0;
                self.rest();
            }
        }
    }

    /// Sleeps until a call begins.
    fn rest(&self) {
        self.is_awake.store(false, Ordering::Relaxed);
        // A call that has begun before this look at its line, under the line's lock, is seen. One that begins later takes that lock after
        // us, and so finds that we are not awake.
        if self.look() != Seen::Nothing {
            self.is_awake.store(true, Ordering::Relaxed);
            return;
        }
        let mut watched = lock(&self.watched);
        while !self.is_awake.load(Ordering::Relaxed) {
            watched = self.called.wait(watched).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
