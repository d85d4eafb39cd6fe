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

/// The error of logic whose host hangs in it or was stopped, and that the manager will not do any more.
pub(super) fn unanswered() -> Error {
    let text = format!(
        "what runs beside the manager may take {TICKET_MS} ms, and its host has said nothing for {} ms: it has left no trace, and will leave \
         none; is the host stopped?",
        TICKET_MS + RUN_GRACE_MS
    );
    Error::new(ErrorKind::TimedOut, text)
}

/// The error of logic whose host ended before it was done.
pub(super) fn undone() -> Error {
    let text =
        "the host process, in which this ran, ended before it was done: it has left no trace; do it again, a new host is started for it";
    Error::new(ErrorKind::Died, text)
}

/// The error of logic whose host ended after it was done.
pub(super) fn result_lost() -> Error {
    let text = "this has been done beside the manager, whole, but the host process ended before it could bring the result: look at what it has \
                changed, and do not do it again";
    Error::new(ErrorKind::ResultLost, text)
}

/// The error of logic that took too long.
pub(super) fn over_time() -> Error {
    let text = format!("what runs beside the manager may take {TICKET_MS} ms: it took longer, and has left no trace");
    Error::new(ErrorKind::TimedOut, text)
}
