//! The parent's view of a child: [`ChildProcess`], [`Process`].

use super::archive::Archive;
use super::failure::{Right, tell};
use super::message::{Inbox, Kind, Message, malformed, say};
use super::parcel::{Label, hold, unpack};
use super::run::{PanicReport, panicked};
use crate::patience::deadline_after;
use crate::session::Stored;
use crate::unpoisoned::lock;
use crate::wait::{Places, Source};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::fork::Stamp;
use commonhold_ipc::socket::Channel;
use commonhold_ipc::sys::{End, Signal, Spawned, wait_readable};
use commonhold_ipc::value::Shared;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Exit code of a program that the dynamic loader could not put together.
const NOT_LOADED: i32 = 127;

/// What a child has said at its end.
enum Report {
    Returned {
        archive: Archive,
        /// Keeps the objects of the handles in it.
        _held: Vec<Stored>,
    },
    /// Why there is none.
    Failed(Error),
}

/// What is known about a child so far.
struct State {
    inbox: Inbox,
    begun: bool,
    /// A result that has come and was not taken over yet.
    arrived: Option<Message>,
    report: Option<Report>,
    end: Option<End>,
    /// Its result is an error, which says this.
    unhappy: Option<String>,
    /// Came with its failure.
    right: Option<Right>,
    /// Nobody will ask for its result.
    is_let_go: bool,
    /// Somebody knows what has become of it, or will be told nothing.
    is_known: bool,
}

struct Inner {
    name: String,
    daemon: bool,
    function: &'static str,
    stamp: Stamp,
    spawned: Spawned,
    channel: Channel,
    /// It will say no more: its socket is always readable now.
    silent: AtomicBool,
    /// The signals that this process has sent it: bit 9 for SIGKILL.
    signals: AtomicU64,
    state: Mutex<State>,
}

/// A process that this one has started, whatever its result's type. `Clone + Send + Sync`.
///
/// [`Process`] derefs to it; [`active_children`](super::active_children) lists them.
#[derive(Clone)]
pub struct ChildProcess(Arc<Inner>);

impl ChildProcess {
    /// A child that has just been started.
    pub(super) fn new(spawned: Spawned, channel: Channel, name: String, daemon: bool, function: &'static str) -> Self {
        let state = State {
            inbox: Inbox::default(),
            begun: false,
            arrived: None,
            report: None,
            end: None,
            unhappy: None,
            right: None,
            is_let_go: false,
            is_known: false,
        };
        let (silent, signals) = (AtomicBool::new(false), AtomicU64::new(0));
        ChildProcess(Arc::new(Inner {
            name,
            daemon,
            function,
            stamp: Stamp::now(),
            spawned,
            channel,
            silent,
            signals,
            state: Mutex::new(state),
        }))
    }

    /// Its name: `Process-1`, `Process-2` and so on, unless it was given another.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its process id; another process's if it has ended and that one has got its number.
    pub fn pid(&self) -> u32 {
        self.0.spawned.pid()
    }

    /// Whether it ends when this process does.
    pub fn is_daemon(&self) -> bool {
        self.0.daemon
    }

    /// Whether it runs, or is stopped. Not whether it has begun with its function.
    pub fn is_alive(&self) -> bool {
        // In a forked child of ours the process is somebody else's, whose end still shows.
        !matches!(self.wait(Duration::ZERO), Ok(true)) && matches!(wait_readable(&[self.sentinel()], Some(Instant::now())), Ok(0))
    }

    /// Waits until it has ended. `false`: it has not after `timeout`; `None` waits for ever.
    ///
    /// # Errors
    /// `UsedAfterFork` in a forked child; `System` if this process cannot wait.
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<bool> {
        // Later than any clock shows is never.
        self.wait_until(deadline_after(timeout))
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<bool> {
        loop {
            if self.settle()?.end.is_some() {
                return Ok(true);
            }
            if wait_readable(self.watched(&[self.sentinel(), self.0.channel.as_fd()]), deadline)? == 0 {
                return Ok(false);
            }
        }
    }

    /// [`wait`](Self::wait) for its end that is awaited, in any executor. With the feature `async`.
    ///
    /// # Errors
    /// `UsedAfterFork` in a forked child; `System` if this process cannot wait.
    #[cfg(feature = "async")]
    pub fn wait_async(&self) -> impl Future<Output = Result<()>> + Send + Unpin {
        let mut place = None;
        std::future::poll_fn(move |context| self.poll_end(&mut place, context))
    }

    #[cfg(feature = "async")]
    fn poll_end(&self, place: &mut Option<crate::awaiting::Place>, context: &std::task::Context<'_>) -> std::task::Poll<Result<()>> {
        use crate::awaiting::{Key, Place};
        if self.settle()?.end.is_some() {
            *place = None;
            return std::task::Poll::Ready(Ok(()));
        }
        let key = Key::Child(Arc::as_ptr(&self.0).addr());
        Place::keep(place, key, context.waker(), || Arc::new(self.clone()))?;
        std::task::Poll::Pending
    }

    /// Of sentinel and channel, what to watch: not the channel of one that will say no more.
    fn watched<'f, 'd>(&self, both: &'f [BorrowedFd<'d>; 2]) -> &'f [BorrowedFd<'d>] {
        // SYNC: Relaxed: who does not see it yet looks once more for nothing.
        if self.0.silent.load(Ordering::Relaxed) { &both[..1] } else { both }
    }

    /// The code that it has exited with, 101 if its function has panicked; minus the number of the signal that has killed it. None
    /// while it runs, and if something else in this program has waited for it, or SIGCHLD is ignored.
    pub fn exit_code(&self) -> Option<i32> {
        let mut state = self.settle().ok()?;
        let end = state.end?;
        // (An error that was returned does not show here.)
        state.is_known |= state.report.is_none();
        match end {
            End::Code(code) => Some(code),
            End::Signal(signal) => Some(-signal),
            End::Unknown => None,
        }
    }

    /// How it has ended, if it has.
    pub(crate) fn end(&self) -> Result<Option<End>> {
        Ok(self.settle()?.end)
    }

    /// Asks it to end: SIGTERM. Nothing if it has ended.
    ///
    /// # Errors
    /// `UsedAfterFork`; `System` if it is another user's by now.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Ends it at once: SIGKILL. Nothing if it has ended.
    ///
    /// # Errors
    /// As [`terminate`](Self::terminate).
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// Interrupts it, as Ctrl-C does: SIGINT. Nothing if it has ended.
    ///
    /// # Errors
    /// As [`terminate`](Self::terminate).
    pub fn interrupt(&self) -> Result<()> {
        self.signal(Signal::INT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.0.stamp.check()?;
        self.0.signals.fetch_or(1 << signal.as_raw(), Ordering::Relaxed);
        self.0.spawned.signal(signal).map(drop)
    }

    /// A descriptor that becomes readable when it ends, for `poll` and event loops. A process that returns handles ends only when its
    /// result has been taken: by any method here that looks at it, or by dropping the [`Process`].
    pub fn sentinel(&self) -> BorrowedFd<'_> {
        self.0.spawned.as_fd()
    }

    /// As [`look`](Self::look), and takes over its result if there is one: which is a matter of calls to managers, if there are handles in it.
    fn settle(&self) -> Result<MutexGuard<'_, State>> {
        let mut state = self.look()?;
        if let Some(message) = state.arrived.take() {
            state.report = Some(self.take(message).unwrap_or_else(|error| Report::Failed(self.failed(error))));
        }
        Ok(state)
    }

    /// Whether it has ended. What it has said is heard, and its result left to whoever wants it.
    pub(super) fn has_ended(&self) -> bool {
        self.look().is_ok_and(|state| state.end.is_some())
    }

    /// Hears what the child has said, and looks whether it has ended.
    fn look(&self) -> Result<MutexGuard<'_, State>> {
        self.0.stamp.check()?;
        let mut state = lock(&self.0.state);
        self.look_into(&mut state)?;
        Ok(state)
    }

    fn look_into(&self, state: &mut State) -> Result<()> {
        if state.end.is_none() {
            // In this order: what it has said before its end must not be missed.
            let end = self.0.spawned.wait(Some(Instant::now()))?;
            self.listen(state)?;
            state.end = end;
        }
        Ok(())
    }

    fn listen(&self, state: &mut State) -> Result<()> {
        while let Some(message) = self.next_message(state)? {
            let report = match message.kind {
                Kind::Begun => {
                    state.begun = true;
                    continue;
                }
                Kind::Returned => {
                    state.arrived = Some(message);
                    continue;
                }
                Kind::Unhappy => match unpack::<String>(&message.head) {
                    Ok(text) => {
                        (state.unhappy, state.right) = (Some(text), Right::of(message.fds));
                        continue;
                    }
                    Err(error) => Err(error),
                },
                Kind::Panicked => unpack::<PanicReport>(&message.head).map(|report| Report::Failed(panicked(&self.who(), report))),
                Kind::Failed => {
                    state.right = Right::of(message.fds);
                    unpack::<Error>(&message.head).map(|error| Report::Failed(self.failed(error)))
                }
                Kind::Orders | Kind::Taken | Kind::Luggage | Kind::Leash => Err(malformed()),
            };
            state.report = Some(report.unwrap_or_else(|error| Report::Failed(self.failed(error))));
        }
        self.0.silent.store(state.inbox.ended, Ordering::Relaxed);
        Ok(())
    }

    /// What it has said next. If that cannot be read, it fails so, and only its end is waited for: it need not wait for us, and nobody hears it.
    fn next_message(&self, state: &mut State) -> Result<Option<Message>> {
        match state.inbox.next(&self.0.channel) {
            Err(error) if state.inbox.ended => {
                state.report = Some(Report::Failed(self.failed(error)));
                self.0.channel.shut_down();
                Ok(None)
            }
            next => next,
        }
    }

    /// Takes a result over: holds what the handles in it name before the child lets go.
    fn take(&self, message: Message) -> Result<Report> {
        let held = unpack::<Label>(&message.head).and_then(|label| hold(&label));
        if !held.as_ref().is_ok_and(Vec::is_empty) {
            // Also if it could not be held: that does not change by waiting. A child that is gone did not wait for it.
            let _ = say(&self.0.channel, Kind::Taken, &());
        }
        Ok(Report::Returned { archive: message.value, _held: held? })
    }

    pub(super) fn who(&self) -> String {
        format!("{} (pid {}, running `{}`)", self.name(), self.pid(), self.0.function)
    }

    fn failed(&self, error: Error) -> Error {
        Error::caused(error.kind(), format!("{}: {error}", self.who()), error)
    }

    /// What has become of a child that has ended.
    fn result<T: Shared>(&self) -> Result<T> {
        let mut state = self.settle()?;
        (state.is_known, state.right) = (true, None);
        match &state.report {
            Some(Report::Returned { archive, .. }) => unpack(archive).map_err(|error| self.failed(error)),
            Some(Report::Failed(error)) => Err(error.clone()),
            None => Err(self.death(state.begun, state.end.unwrap_or(End::Unknown))),
        }
    }

    /// Of one that has ended and said nothing.
    fn death(&self, begun: bool, end: End) -> Error {
        let who = self.who();
        match end {
            End::Code(NOT_LOADED) if !begun => {
                let text = format!("{who} {end}: the system could not load it; is its memory limited too tightly?");
                Error::new(ErrorKind::Died, text)
            }
            End::Code(_) | End::Unknown if !begun => {
                let text = format!(
                    "{who} {end} before it began: it is this program started again, whose `main` must begin with \
                     `commonhold::init()`, and nothing may end it before"
                );
                Error::new(ErrorKind::NotInitialised, text)
            }
            _ => {
                let when = if begun { "before its function returned" } else { "before it began" };
                Error::new(ErrorKind::Died, format!("{who} {end} {when}"))
            }
        }
    }

    /// Nobody will ask for its result: if it holds objects for the result's sake, it need not.
    fn let_go(&self) {
        if !self.0.stamp.is_current() {
            return;
        }
        lock(&self.0.state).is_let_go = true;
        // In this order: what it has said before it could find that out is read below.
        self.0.channel.shut_down_sending();
        self.tell();
    }

    /// Tells a failure that nobody will ask for, as far as it can be seen by now.
    pub(super) fn tell(&self) {
        let failure = {
            let mut state = lock(&self.0.state);
            if !state.is_let_go || state.is_known || self.look_into(&mut state).is_err() {
                return;
            }
            let Some(failure) = self.failure(&state) else { return };
            state.is_known = true;
            state.right.take().is_none_or(Right::take).then_some(failure)
        };
        failure.iter().for_each(|failure| tell(failure));
    }

    /// What should be told if nobody asks for it.
    fn failure(&self, state: &State) -> Option<String> {
        if let Some(text) = &state.unhappy {
            return Some(format!("{} returned an error: {text}", self.who()));
        }
        if let Some(report) = &state.report {
            return match report {
                // Of a panic it has told itself.
                Report::Failed(error) if !error.is_panic() => Some(error.to_string()),
                _ => None,
            };
        }
        let end = state.end.filter(|_| state.arrived.is_none())?;
        let signals = self.0.signals.load(Ordering::Relaxed);
        let was_meant = match end {
            End::Signal(signal) => signals & 1 << signal != 0,
            // It does so by itself, or because it was asked to end.
            End::Code(code) => code == 0 && state.begun || signals != 0,
            End::Unknown => signals != 0,
        };
        (!was_meant).then(|| self.death(state.begun, end).to_string())
    }
}

impl fmt::Debug for ChildProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Process {} pid {}", self.name(), self.pid())?;
        match self.settle().map(|state| state.end) {
            Ok(Some(end)) => write!(f, " {end}")?,
            Ok(None) => f.write_str(" running")?,
            Err(_) => f.write_str(" of another process")?,
        }
        f.write_str(if self.is_daemon() { ", daemon>" } else { ">" })
    }
}

impl PartialEq for ChildProcess {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ChildProcess {}

/// Ready when the process has ended. Its result is taken over meanwhile.
impl Source for ChildProcess {
    fn is_ready(&self) -> bool {
        self.settle().map_or(true, |state| state.end.is_some())
    }

    fn prepare<'w>(&'w self, places: &mut Places<'w>) {
        let both = [self.sentinel(), self.0.channel.as_fd()];
        self.watched(&both).iter().for_each(|descriptor| places.add_descriptor(*descriptor));
    }
}

impl<T: Shared> Source for Process<T> {
    fn is_ready(&self) -> bool {
        self.child.is_ready()
    }

    fn prepare<'w>(&'w self, places: &mut Places<'w>) {
        self.child.prepare(places);
    }
}

/// Becomes readable when the process ends: see [`ChildProcess::sentinel`].
impl AsFd for ChildProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sentinel()
    }
}

/// A function of this program that runs in a process of its own, and its result. `Send + Sync`.
///
/// The process is this program, started again: its `main` comes as far as [`init`](../commonhold/fn.init.html), where the function is
/// called instead. So it shares nothing with this process but what it is given: arguments and results are [`Shared`] values of any
/// size, and handles on the objects of managers, which it reads and writes in place like everybody.
///
/// ```
/// # commonhold::init_in_tests!();
/// use commonhold::{Dict, Manager, Process};
///
/// fn count(words: String, totals: Dict<String, u64>) -> commonhold::Result<u64> {
///     for word in words.split(' ') {
///         totals.add(word, 1)?;
///     }
///     totals.sum()
/// }
/// # trait Sum { fn sum(&self) -> commonhold::Result<u64>; }
/// # impl Sum for Dict<String, u64> { fn sum(&self) -> commonhold::Result<u64> { Ok(self.values()?.sum()) } }
///
/// # fn main() -> commonhold::Result<()> {
/// let manager = Manager::start()?;
/// let totals = manager.dict([])?;
/// let child = Process::spawn(count, ("the cat and the dog".to_string(), totals.clone()))?;
/// assert_eq!(child.join()??, 5);
/// assert_eq!(*totals.get("the")?.unwrap(), 2);
/// # Ok(())
/// # }
/// ```
///
/// - What runs is an `fn` item, also a generic one, or a closure that captures nothing; of the main executable, not of a library that
///   was loaded into it.
/// - An error that the function returns is shared like any result: `commonhold::Result`, whose error `?` makes of a `std::io::Error`, a type of
///   your own, or a text.
/// - A panic arrives as an error with its message and backtrace; the death by a signal as an error that says which.
/// - **A failure that nobody joins** is told, once, in a line on standard error with the process's name: an error that its function returned, or
///   that kept it from beginning, by itself, if its `Process` was dropped by then, else where that is dropped; its death, or an
///   [`exit`](std::process::exit) with another code than 0, as soon as this process sees it: where the `Process` is dropped, or when it next starts
///   a child or asks for its [children](super::active_children). Not told is what was joined (or, of a death, seen by
///   [`exit_code`](ChildProcess::exit_code)); an end by a signal that this process has sent; and what a daemonic process does that ends because
///   its parent does. A panic is said on standard error where it happens, in any case.
/// - Dropping a `Process` lets the process go on by itself, as with [`std::process::Child`]. When this process ends, *daemonic*
///   children end with it, however it ends; others go on, unless `main` waits for them: by [`join`](Process::join), or for all at once
///   by [`join_children`](super::join_children) or a [`ChildrenGuard`](super::ChildrenGuard). One that has ended is cleared away when this process next asks for a child or starts one.
/// - The objects of handles among the arguments are the process's from the beginning, as if it held them already: they live at least
///   until it has its own hold on them, or is gone.
pub struct Process<T: Shared = ()> {
    child: ChildProcess,
    _result: PhantomData<fn() -> T>,
}

impl<T: Shared> Process<T> {
    pub(super) fn of(child: ChildProcess) -> Self {
        Process { child, _result: PhantomData }
    }

    /// Waits for the process's end, and gives what its function returned. Again and again, if it is called so.
    ///
    /// # Errors
    /// `Panicked` if the function panicked: the backtrace is the error's source, unless `RUST_BACKTRACE=0` is in the child's environment.
    /// `Died` if the process was killed by a signal or called [`exit`](std::process::exit): see [`exit_code`](ChildProcess::exit_code).
    /// `NotInitialised` if it ended before it came to `init`. Else what kept it from beginning, or its result from being sent: `NotFound`
    /// for a handle on an object that is gone, `Refused` for another build of the program.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// use commonhold::Process;
    /// let child = Process::spawn(|a: i64, b: i64| a / b, (1, 0))?;
    /// let error = child.join().unwrap_err();
    /// assert!(error.is_panic() && error.to_string().contains("attempt to divide by zero"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn join(&self) -> Result<T> {
        self.child.wait_until(None)?;
        self.child.result()
    }

    /// The same, but gives up after a while: `None`.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn join_timeout(&self, timeout: Duration) -> Result<Option<T>> {
        if self.child.wait(timeout)? { self.child.result().map(Some) } else { Ok(None) }
    }

    /// [`join`](Self::join) that is awaited, in any executor. With the feature `async`. Dropped before it is ready, it has no effect.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// use commonhold::Process;
    /// let child = Process::spawn(|x: u64| x * x, 12)?;
    /// assert_eq!(pollster::block_on(child.join_async())?, 144);
    /// let killed = Process::spawn(|| commonhold::parent_process().unwrap().wait(None).map(drop), ())?;
    /// killed.kill()?;
    /// assert!(pollster::block_on(killed.join_async()).unwrap_err().is_died());
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "async")]
    pub fn join_async(&self) -> impl Future<Output = Result<T>> + Send + Unpin {
        let mut place = None;
        std::future::poll_fn(move |context| self.child.poll_end(&mut place, context).map(|ended| ended.and_then(|()| self.child.result())))
    }

    /// Gives the process's result and descriptors up, once it has ended.
    ///
    /// # Errors
    /// `Refused` if it runs.
    pub fn close(self) -> Result<()> {
        if self.child.is_alive() {
            let text = format!("{} still runs: `join` it first, or `kill` it; or drop it, and it goes on by itself", self.child.who());
            return Err(Error::new(ErrorKind::Refused, text));
        }
        Ok(())
    }
}

impl<T: Shared> Deref for Process<T> {
    type Target = ChildProcess;

    fn deref(&self) -> &ChildProcess {
        &self.child
    }
}

impl<T: Shared> fmt::Debug for Process<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.child.fmt(f)
    }
}

impl<T: Shared> Drop for Process<T> {
    fn drop(&mut self) {
        self.child.let_go();
    }
}
