//! [`Logic`]: what may run beside the manager on its data.

use crate::transaction::Transaction;
use commonhold_ipc::error::Result;

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
