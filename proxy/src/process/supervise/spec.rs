//! [`ChildSpec`]: what a supervisor starts, and when it starts it again.

use crate::process::children::ChildProcess;
use crate::process::task::{Task, assert_no_captures};
use crate::process::{Process, ProcessBuilder};
use commonhold_ipc::error::{Error, Result};
use commonhold_ipc::value::Shared;
use std::fmt;
use std::time::Duration;

/// How long a child that is asked to end may take, unless its spec says otherwise.
const GRACE: Duration = Duration::from_secs(5);

/// Whether a child that has ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// Always: it is meant to run for ever.
    #[default]
    Permanent,
    /// If it has failed: its function has panicked or returned an error, or its process has died.
    Transient,
    /// Never, also not with others. The supervisor forgets it when it has ended.
    Temporary,
}

/// Which children are started again when one of them is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartStrategy {
    /// That one: the children know nothing of each other.
    #[default]
    OneForOne,
    /// All: they cannot do without each other. The others are stopped, from the last to the first, then all are started, also those whose
    /// function had returned.
    OneForAll,
    /// That one and those that were added after it, because they depend on it. They are stopped and started as with `OneForAll`.
    RestForOne,
}

/// What a supervised function may return: nothing, or a [`Result`](std::result::Result), whose error is a failure. Nothing implements it by
/// hand.
#[diagnostic::on_unimplemented(
    message = "a supervised function cannot return `{Self}`",
    note = "nobody joins it: it returns nothing, or a `Result` whose error can be shared and printed with {{:?}}; what it has worked out it \
            leaves in a container or a queue"
)]
pub trait Outcome: Shared {
    #[doc(hidden)]
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

#[diagnostic::do_not_recommend]
impl<T, E> Outcome for std::result::Result<T, E>
where
    std::result::Result<T, E>: Shared,
    E: fmt::Debug,
{
    fn failure(self) -> Option<String> {
        self.err().map(|error| format!("{error:?}"))
    }
}

/// A child that runs, and how to learn how it has ended.
pub(super) struct Running {
    pub(super) child: ChildProcess,
    verdict: Box<dyn Fn() -> Option<Error> + Send>,
}

impl Running {
    fn of<T: Outcome>(process: Process<T>) -> Running {
        let child = (*process).clone();
        let verdict = move || match process.join() {
            Ok(outcome) => outcome.failure().map(|error| Error::other(format!("{} returned an error: {error}", process.who()))),
            Err(error) => Some(error),
        };
        Running { child, verdict: Box::new(verdict) }
    }

    /// Why it has failed; none if it has not. Waits for its end.
    pub(super) fn why(&self) -> Option<Error> {
        (self.verdict)()
    }
}

type Start = dyn Fn(ProcessBuilder) -> Result<Running> + Send;
type Configure = dyn Fn(ProcessBuilder) -> ProcessBuilder + Send;

/// What a [`Supervisor`](super::Supervisor) starts: a function with its arguments, by a name, and how it is to be treated. `Send`.
///
/// ```
/// use commonhold::{ChildSpec, Queue, Restart};
/// use std::time::Duration;
///
/// fn work(jobs: Queue<String>) -> commonhold::Result<()> {
///     jobs.iter().try_for_each(|job| job.map(drop))
/// }
///
/// fn spec(jobs: &Queue<String>) -> ChildSpec {
///     ChildSpec::new("worker", work, jobs.clone())
///         .restart(Restart::Transient)
///         .shutdown(Duration::from_secs(1))
///         .configure(|builder| builder.env("RUST_BACKTRACE", "0"))
/// }
/// ```
#[must_use = "a spec does nothing before it is added to a supervisor"]
pub struct ChildSpec {
    pub(super) name: String,
    pub(super) restart: Restart,
    /// None: it may take as long as it likes.
    pub(super) grace: Option<Duration>,
    start: Box<Start>,
    configure: Option<Box<Configure>>,
}

impl ChildSpec {
    /// A function to be run as [`Process::spawn`] does, an `fn` item or a closure that captures nothing. Each time it is started it gets
    /// a clone of the arguments. It is permanent, and has 5 s to end when it is asked to, unless it is said otherwise.
    pub fn new<F, A, M>(name: impl Into<String>, function: F, arguments: A) -> ChildSpec
    where
        F: Task<A, M>,
        F::Output: Outcome,
        A: Shared + Clone + Send + 'static,
        M: 'static,
    {
        const { assert_no_captures::<F>() };
        let start = move |builder: ProcessBuilder| builder.start(function, arguments.clone()).map(Running::of);
        ChildSpec { name: name.into(), restart: Restart::default(), grace: Some(GRACE), start: Box::new(start), configure: None }
    }

    /// Whether it is started again when it has ended.
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// How long it may take to end when it is asked to, by SIGTERM, before it is killed. Zero: it is killed at once, and not asked; `None`:
    /// it is never killed. A function that does nothing about that signal ends at once; one that wants to finish what it has begun handles
    /// it, for which there are crates, and looks whether it came.
    pub fn shutdown(mut self, grace: impl Into<Option<Duration>>) -> Self {
        self.grace = grace.into();
        self
    }

    /// Says more about the process, each time before it is started: its environment, streams, limits. Name and daemon flag are the
    /// supervisor's.
    pub fn configure(mut self, configure: impl Fn(ProcessBuilder) -> ProcessBuilder + Send + 'static) -> Self {
        self.configure = Some(Box::new(configure));
        self
    }

    pub(super) fn start(&self) -> Result<Running> {
        let mut builder = Process::builder();
        if let Some(configure) = &self.configure {
            builder = configure(builder);
        }
        (self.start)(builder.name(self.name.clone()).daemon(true))
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<ChildSpec {}, {:?}>", self.name, self.restart)
    }
}
