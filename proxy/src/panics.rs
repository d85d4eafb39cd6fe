//! What is told of a panic to another process: its words, its place, its backtrace.
//!
//! A backtrace is taken unless the environment of the process that panics says that there shall be none. Unlike the standard library
//! we do not wait to be asked for it: the process is gone, or goes on with other work, when somebody reads the error.

use commonhold_ipc::error::{Error, ErrorKind};
use std::any::Any;
use std::backtrace::Backtrace;
use std::env;
use std::panic::PanicHookInfo;

/// The place of a panic.
pub(crate) fn place_of(panic: &PanicHookInfo<'_>) -> String {
    panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string)
}

/// What a panic says, if it is text.
pub(crate) fn words_of(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&'static str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("(what it says is no text)")
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
