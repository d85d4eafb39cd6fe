//! What a method that panics leaves to its caller: its words, the place, the backtrace.

use crate::panics::{backtrace, panicked, place_of, words_of};
use commonhold_ipc::error::Error;
use std::any::Any;
use std::cell::{Cell, RefCell};

thread_local! {
    /// Whether this thread runs a method.
    static IN_METHOD: Cell<bool> = const { Cell::new(false) };
    /// Place and backtrace of its last panic: later they are no longer to be had.
    static PANIC: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// From now on panics of methods are noted for their callers. Other threads' go the usual way.
pub fn note_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !IN_METHOD.get() {
            return usual(panic);
        }
        PANIC.set(Some((place_of(panic), backtrace())));
    }));
}

/// Runs a method: its panics are its caller's to report.
pub fn as_method<R>(body: impl FnOnce() -> R) -> R {
    struct Back(bool);
    impl Drop for Back {
        fn drop(&mut self) {
            IN_METHOD.set(self.0);
        }
    }
    let _back = Back(IN_METHOD.replace(true));
    body()
}

/// A panic.
pub struct PanicReport {
    /// What panicked, where, and with which words.
    pub message: String,
    /// How it came there. Empty: there is no backtrace.
    pub backtrace: String,
}

impl PanicReport {
    /// Of what has been caught in this thread just now.
    pub fn of(payload: &(dyn Any + Send), method: &str) -> Self {
        let (place, backtrace) = PANIC.take().unwrap_or_default();
        PanicReport { message: format!("{method} panicked at {place}: {}", words_of(payload)), backtrace }
    }

    /// As an error.
    pub fn error(self) -> Error {
        panicked(self.message, &self.backtrace)
    }
}
