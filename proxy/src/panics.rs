//! What is told of a panic to another process: its words, its place, its backtrace.
//!
//! A backtrace is taken unless the environment of the process that panics says that there shall be none. Unlike the standard library
//! we do not wait to be asked for it: the process is gone, or goes on with other work, when somebody reads the error.

use commonhold_ipc::error::{Error, ErrorKind};
use std::any::Any;
use std::backtrace::Backtrace;
use std::env;
use std::mem;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

/// The place of a panic.
pub(crate) fn place_of(panic: &PanicHookInfo<'_>) -> String {
    panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string)
}

/// What a panic says, if it is text.
pub(crate) fn words_of(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&'static str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("(what it says is no text)")
}

/// Runs what may panic. `told` says what is to be known of a panic; its hook has reported it.
pub(crate) fn caught<R, P>(body: impl FnOnce() -> R, told: impl FnOnce(&(dyn Any + Send)) -> P) -> Result<R, P> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload| {
        let told = told(&*payload);
        if !payload.is::<String>() && !payload.is::<&'static str>() {
            // It could panic again when it is dropped.
            mem::forget(payload);
        }
        told
    })
}

/// The same where nobody wants to know of a panic.
pub(crate) fn shielded(body: impl FnOnce()) {
    let _ = caught(body, |_| ());
}

/// The way to here, to be called in a panic's hook; empty if `RUST_LIB_BACKTRACE`, or without that `RUST_BACKTRACE`, is `0`.
pub(crate) fn backtrace() -> String {
    let setting = env::var_os("RUST_LIB_BACKTRACE").or_else(|| env::var_os("RUST_BACKTRACE"));
    if setting.is_some_and(|setting| setting == "0") { String::new() } else { Backtrace::force_capture().to_string() }
}

/// The error of a panic in another process. Its source is the backtrace, if there is one.
pub(crate) fn panicked(text: String, backtrace: &str) -> Error {
    if backtrace.is_empty() {
        return Error::new(ErrorKind::Panicked, text);
    }
    Error::caused(ErrorKind::Panicked, text, Error::other(format!("its backtrace:\n{backtrace}")))
}
