//! [`Logic`]: what may run beside the manager on its data.

use crate::transaction::Transaction;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::{RUN_GRACE_MS, TICKET_MS};

/// A function that can run beside the manager, in a transaction: `fn(&Transaction, A) -> Result<R>`, or a closure that captures
/// nothing.
///
/// Nothing implements it by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot run beside the manager with these arguments",
    label = "takes other arguments, or captures variables",
    note = "what runs there is an `fn` item, or a closure that captures nothing: `|tx: &Transaction<'_>, (a, b): (A, B)| …`",
    note = "it takes the transaction and one more argument (a tuple for several), and returns `commonhold::Result<…>`"
)]
pub trait Logic<A, R>: Copy + Send + 'static {
    #[doc(hidden)]
    fn call(&self, tx: &Transaction<'_>, arguments: A) -> Result<R>;
}

impl<F, A, R> Logic<A, R> for F
where
    F: Fn(&Transaction<'_>, A) -> Result<R> + Copy + Send + 'static,
{
    fn call(&self, tx: &Transaction<'_>, arguments: A) -> Result<R> {
        self(tx, arguments)
    }
}

/// The error of logic of which nobody says how it went: its host hangs in it, or was stopped, before it was done or just after.
pub(super) fn unanswered() -> Error {
    let text = format!(
        "what runs beside the manager may take {TICKET_MS} ms, and its host has said nothing for {} ms: it has left no trace, unless it was \
         done in time and the host was stopped before it could say so",
        TICKET_MS + RUN_GRACE_MS
    );
    Error::new(ErrorKind::TimedOut, text)
}

/// The error of logic that took too long.
pub(super) fn over_time() -> Error {
    let text = format!("what runs beside the manager may take {TICKET_MS} ms: it took longer, and has left no trace");
    Error::new(ErrorKind::TimedOut, text)
}
