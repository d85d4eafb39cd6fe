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

/// The error of logic that was done, of whose result nothing more is heard.
pub(super) fn unheard() -> Error {
    result_lost(Error::new(ErrorKind::Died, "the host process ended before it could bring it"))
}

/// The error of logic that was done, and whose result cannot be had because of another error.
#[cold]
pub(super) fn result_lost(why: Error) -> Error {
    let text = format!(
        "this has been done beside the manager, whole, but its result is lost: {why}. Look at what it has changed, and do not do it again"
    );
    Error::caused(ErrorKind::ResultLost, text, why)
}

/// An error of logic that has not been committed: as it is, unless its kind says of something else that it was done.
pub(super) fn not_of_its_commit(error: Error) -> Error {
    if error.kind() != ErrorKind::ResultLost {
        return error;
    }
    Error::caused(ErrorKind::Other, format!("what runs beside the manager has failed, and left no trace of its own: {error}"), error)
}

/// The error of logic that took too long.
pub(super) fn over_time() -> Error {
    let text = format!("what runs beside the manager may take {TICKET_MS} ms: it took longer, and has left no trace");
    Error::new(ErrorKind::TimedOut, text)
}
