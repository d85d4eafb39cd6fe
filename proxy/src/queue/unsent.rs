//! [`SendError`]: what could not be sent, and why.

use commonhold_ipc::error::{Error, ErrorKind};
use std::fmt;

/// Why an item was not sent, and the item: the error of all that sends, to queues and to pipes.
///
/// `Back` is what comes back: the item itself, if it was given away (`send(item)`); nothing, `()`, if it was lent (`send(&item)`,
/// `send("text")`), for then the caller has it. `?` makes it the [`Error`] in it, without the item; so do [`Self::into_error`] and
/// `Error::from`, where a closure's result must have a type that is [`Shared`](commonhold_ipc::value::Shared).
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// # let manager = commonhold::Manager::start()?;
/// let lines = manager.queue::<String>(10)?;
/// lines.close()?;
/// let unsent = lines.send("no copy of this exists".to_string()).unwrap_err();
/// assert!(unsent.is_closed());
/// assert_eq!(unsent.into_item(), "no copy of this exists");
///
/// fn say(lines: &commonhold::Queue<String>, line: &str) -> commonhold::Result<()> {
///     lines.send(line)?;
///     Ok(())
/// }
/// assert!(say(&lines, "hello?").unwrap_err().is_closed());
/// # Ok(())
/// # }
/// ```
// A pointer: what is returned on the way on which nothing fails stays in a register.
pub struct SendError<Back>(Box<Unsent<Back>>);

struct Unsent<Back> {
    error: Error,
    item: Back,
}

impl<Back> SendError<Back> {
    #[cold]
    pub(crate) fn new(error: Error, item: Back) -> Self {
        SendError(Box::new(Unsent { error, item }))
    }

    /// Why it was not sent.
    pub fn error(&self) -> &Error {
        &self.0.error
    }

    /// What went wrong, coarsely: the error's [`kind`](Error::kind).
    pub fn kind(&self) -> ErrorKind {
        self.0.error.kind()
    }

    /// Whether the queue, or the other end of the pipe, is closed.
    pub fn is_closed(&self) -> bool {
        self.0.error.is_closed()
    }

    /// Whether a time-out passed, and there was no room.
    pub fn is_timed_out(&self) -> bool {
        self.0.error.is_timed_out()
    }

    /// Whether the manager has ended.
    pub fn is_disconnected(&self) -> bool {
        self.0.error.is_disconnected()
    }

    /// What was not sent.
    pub fn item(&self) -> &Back {
        &self.0.item
    }

    /// What was not sent, for good.
    pub fn into_item(self) -> Back {
        self.0.item
    }

    /// Why it was not sent; the item is dropped.
    pub fn into_error(self) -> Error {
        self.0.error
    }

    /// Why it was not sent, and what.
    pub fn into_parts(self) -> (Error, Back) {
        (self.0.error, self.0.item)
    }
}

impl<Back> From<SendError<Back>> for Error {
    fn from(unsent: SendError<Back>) -> Error {
        unsent.into_error()
    }
}

/// The error's text: the item need not be one that can be shown.
impl<Back> fmt::Display for SendError<Back> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.error, f)
    }
}

/// As the error's: `main` that returns it prints words.
impl<Back> fmt::Debug for SendError<Back> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0.error, f)
    }
}

impl<Back> std::error::Error for SendError<Back> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.error.source()
    }
}

const _: () = assert!(size_of::<Result<(), SendError<[u64; 100]>>>() == size_of::<usize>());
