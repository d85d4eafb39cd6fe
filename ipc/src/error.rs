//! The one error of commonhold: opaque, with a kind, a message that says what was tried, and a chain of causes.
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// What went wrong, coarsely: what a program may want to decide by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The manager has ended, or the connection to it is gone. Guards and snapshots already held stay readable.
    Disconnected,
    /// A call was sent and no answer came: whether it took effect is not known.
    OutcomeUnknown,
    /// The object holds another type than the one it was opened as.
    WrongType,
    /// There is no object, name or manager like that (any more).
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// Bytes in shared memory or on the wire are not what they claim to be.
    Corrupt,
    /// The capacity, a limit on sessions or another maximum is reached.
    Full,
    /// A time-out passed.
    TimedOut,
    /// A key, value, name or message is larger than its maximum.
    TooLarge,
    /// An index or a number is outside of what is possible here.
    OutOfRange,
    /// `commonhold::init()` was not called at the start of `main`.
    NotInitialised,
    /// The handle was made before a `fork()` and used in the forked child.
    UsedAfterFork,
    /// The manager did not let this process in: another user, another key, another version. Or what was asked for is not done there:
    /// with an object of another manager, or beside a transaction in whose closure one is.
    Refused,
    /// The calling thread would wait for itself.
    Deadlock,
    /// A barrier is broken: not all of its parties will come.
    Broken,
    /// The queue, or the other end of a pipe, is closed.
    Closed,
    /// A transaction kept losing to other writers.
    Conflict,
    /// A function in another process has panicked.
    Panicked,
    /// The call was called off before it began: it was not run.
    Cancelled,
    /// A process has ended without a result: it was killed by a signal, or called `exit`.
    Died,
    /// What was asked for has been done, whole, and only its result cannot be had: the process that was to bring it has ended, or it cannot be written.
    ResultLost,
    /// The system does not offer what is needed, or refused it.
    System,
    /// An error of the caller's own, made by [`Error::other`].
    Other,
}

/// The error of every fallible function of commonhold.
///
/// ```
/// # use commonhold_ipc::error as commonhold;
/// use commonhold::{Error, ErrorKind};
/// let error = Error::other("out of money");
/// assert_eq!(error.kind(), ErrorKind::Other);
/// assert_eq!(error.to_string(), "out of money");
/// assert!(!error.is_disconnected());
/// ```
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// Commonhold's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this kind with a message that says what was tried, on what, and what to do.
    #[cold]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), source: None }))
    }

    /// The same with the error that caused it, which [`source`](StdError::source) then returns.
    #[cold]
    pub fn caused(kind: ErrorKind, message: impl Into<String>, source: impl StdError + Send + Sync + 'static) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), source: Some(Arc::new(source)) }))
    }

    /// A system call's failure: kind [`ErrorKind::System`], the system's own words as its source. What any call can lack, descriptors, has
    /// its cure here, unless the message has one.
    #[cold]
    pub fn system(message: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        let (mut message, source) = (message.into(), source.into());
        if matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) && !message.contains("`ulimit -n`") {
            message += ": there is no descriptor left for it; close some, or raise `ulimit -n`";
        }
        Error::caused(ErrorKind::System, message, source)
    }

    /// The same error with these causes, the nearest first.
    #[cold]
    pub(crate) fn with_causes(self, causes: &[impl AsRef<str>]) -> Self {
        let chain = causes.iter().rev().fold(None, |cause: Option<Error>, text| {
            let source = cause.map(|error| Arc::new(error) as Arc<dyn StdError + Send + Sync>);
            Some(Error(Box::new(Inner { kind: ErrorKind::Other, message: text.as_ref().to_owned(), source })))
        });
        let source = chain.map(|error| Arc::new(error) as _);
        Error(Box::new(Inner { source, ..*self.0 }))
    }

    /// What caused it, in words, the nearest first.
    pub(crate) fn causes(&self) -> Vec<String> {
        let mut texts = Vec::new();
        let mut cause = self.source();
        while let Some(error) = cause {
            texts.push(error.to_string());
            cause = error.source();
        }
        texts
    }

    /// An error of the caller's own, for leaving a transaction.
    #[cold]
    pub fn other(message: impl fmt::Display) -> Self {
        Error::new(ErrorKind::Other, message.to_string())
    }

    /// What went wrong, coarsely.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the manager has ended or the connection to it is gone. Also if that happened in the middle of a call, see
    /// [`is_outcome_unknown`](Self::is_outcome_unknown).
    pub fn is_disconnected(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Disconnected | ErrorKind::OutcomeUnknown)
    }

    /// Whether a call was sent but never answered, so that it may or may not have taken effect.
    pub fn is_outcome_unknown(&self) -> bool {
        self.0.kind == ErrorKind::OutcomeUnknown
    }

    /// Whether the object, name or manager does not exist.
    pub fn is_not_found(&self) -> bool {
        self.0.kind == ErrorKind::NotFound
    }

    /// Whether the queue, or the other end of a pipe, is closed.
    pub fn is_closed(&self) -> bool {
        self.0.kind == ErrorKind::Closed
    }

    /// Whether a function in another process has panicked: its backtrace is the error's source, unless `RUST_BACKTRACE=0` (or
    /// `RUST_LIB_BACKTRACE=0`, which has precedence) is in the environment of that process.
    pub fn is_panic(&self) -> bool {
        self.0.kind == ErrorKind::Panicked
    }

    /// Whether a process has ended without a result.
    pub fn is_died(&self) -> bool {
        self.0.kind == ErrorKind::Died
    }

    /// Whether a time-out passed.
    pub fn is_timed_out(&self) -> bool {
        self.0.kind == ErrorKind::TimedOut
    }

    /// Whether the call was called off before it began, so that it was not run.
    pub fn is_cancelled(&self) -> bool {
        self.0.kind == ErrorKind::Cancelled
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

/// `main` returning an error prints it by `Debug`: so this shows the message and its causes, in words.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.0.message, self.0.kind)?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, "; caused by: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|s| s as _)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Error::system(error.to_string(), error)
    }
}
