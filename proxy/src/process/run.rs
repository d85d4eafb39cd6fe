//! A child's whole life: what it is told, what it becomes, what it says at the end.

use super::archive::Archive;
use super::failure::{admit, tell_unless_heard};
use super::identity::{Own, Parent, become_child};
use super::message::{Inbox, Kind, Packed, malformed, say, send};
use super::orders::Orders;
use super::parcel::{Label, Parcel, hold, unpack};
use crate::panics::{self, caught, place_of, words_of};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::leash;
use commonhold_ipc::limits::PROCESS_PANIC_BYTES_MAX;
use commonhold_ipc::points;
use commonhold_ipc::socket::Channel;
use commonhold_ipc::sys;
use commonhold_ipc::task::Entry;
use commonhold_ipc::value::Shared;
use rkyv::util::AlignedVec;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Exit code after a panic, as the standard library's runtime has it.
const PANICKED: i32 = 101;
/// Exit code of a child that could not begin, or whose result could not be sent.
const FAILED: i32 = 1;
/// Stack of the thread that waits for the parent's end: it makes two system calls.
const WATCHER_STACK_BYTES: usize = 64 << 10;

/// How the parent is told of a panic: its message, its place, its backtrace (empty: there is none).
pub(crate) type PanicReport = (String, String, String);

/// The error of a function that has panicked.
pub(crate) fn panicked(who: &str, (message, place, backtrace): PanicReport) -> Error {
    panics::panicked(format!("{who} panicked at {place}: {message}"), &backtrace)
}

/// Runs what the process at the other end of the channel orders, and ends this process. Never returns.
pub fn run(channel: Channel) -> ! {
    let code = live(Arc::new(channel)).unwrap_or_else(|channel_and_error| {
        let (channel, error) = *channel_and_error;
        // A parent that is gone needs not be told.
        let (_, right) = admit(&channel, Kind::Failed, &error);
        points::client("process: its failure said");
        tell_unless_heard(&channel, right, &format!("has failed: {error}"));
        FAILED
    });
    points::client("process: before it exits");
    std::process::exit(code)
}

thread_local! {
    /// Descriptors that came with the orders.
    static HANDED: Cell<Vec<OwnedFd>> = const { Cell::new(Vec::new()) };
}

/// The descriptors that this process was [handed](super::ProcessBuilder::hand): once, on its main thread.
pub(crate) fn handed() -> Vec<OwnedFd> {
    HANDED.take()
}

type Failure = Box<(Arc<Channel>, Error)>;

fn live(channel: Arc<Channel>) -> Result<i32, Failure> {
    let failed = |error| Box::new((channel.clone(), error));
    points::client("process: before it reads its orders");
    let mut passage = Passage::begin(&channel).map_err(failed)?;
    points::client("process: before it reads its arguments");
    let entry = passage.entry;
    entry.run(&mut passage);
    passage.finish().map_err(failed)
}

/// What a function is run with, from its arguments to its result.
pub(super) struct Passage {
    channel: Arc<Channel>,
    inbox: Inbox,
    entry: &'static Entry,
    arguments: Archive,
    label: Label,
    /// Keeps the objects of the handles among the arguments until they are held here.
    luggage: Vec<Channel>,
    outcome: Option<Outcome>,
}

enum Outcome {
    /// The result; what it says if it is an error.
    Returned(Parcel, Option<String>),
    Panicked(PanicReport),
    Failed(Error),
}

impl Passage {
    fn begin(channel: &Arc<Channel>) -> Result<Passage> {
        let mut inbox = Inbox::default();
        // Not only by the socket's end: a process that was forked off the parent's may hold that open.
        let parent = sys::peer_pidfd(channel).ok();
        let ended = || Error::new(ErrorKind::Disconnected, "the parent has ended");
        let (mut luggage, mut leash) = (Vec::new(), None);
        let message = loop {
            let message = inbox.wait_beside(channel, parent.as_ref().map(AsFd::as_fd))?.ok_or_else(ended)?;
            match message.kind {
                Kind::Orders => break message,
                Kind::Luggage => luggage.push(Channel::from_fd(message.fds.into_iter().next().ok_or_else(malformed)?)?),
                // Without it, a daemon that is stopped when its parent ends stays so.
                Kind::Leash => leash = leash::take_up(message.fds.into_iter().next().ok_or_else(malformed)?).ok(),
                _ => return Err(malformed()),
            }
        };
        let orders = Orders::read(&message.head)?;
        let mut fds = message.fds.into_iter();
        let pidfd = fds.next().ok_or_else(malformed)?;
        HANDED.set(fds.collect());
        sys::ignore_broken_pipes()?;
        if let Ok(name) = CString::new(orders.name.as_str()) {
            sys::set_process_name(&name);
        }
        let parent = Parent { name: orders.parent.clone(), pid: sys::peer_credentials(channel)?.pid, pidfd };
        let own = become_child(Own { name: orders.name.clone(), place: orders.place.clone(), parent, daemon: orders.daemon });
        let entry = orders.entry()?;
        if orders.daemon {
            die_with(own.parent.pidfd.as_fd(), leash)?;
        }
        orders.settings.apply()?;
        let (arguments, label) = (message.value, orders.label);
        Ok(Passage { channel: channel.clone(), inbox, entry, arguments, label, luggage, outcome: None })
    }

    /// Calls the function with the arguments that came.
    pub(super) fn carry<A: Shared, R: Shared>(&mut self, call: impl FnOnce(A) -> R) {
        self.outcome = Some(match self.arguments().and_then(|arguments| self.call(arguments, call)) {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Failed(error),
        });
    }

    fn arguments<A: Shared>(&mut self) -> Result<A> {
        let held = hold(&self.label)?;
        let arguments = unpack::<A>(&self.arguments)?;
        self.arguments = Archive::Own(AlignedVec::new());
        points::client("process: before it says that it has its arguments");
        // The handles among them hold for themselves from here on. The managers are told, whoever else has these sockets by a fork.
        self.luggage.drain(..).for_each(|end| end.shut_down());
        // A parent that is gone needs not be told.
        let _ = say(&self.channel, Kind::Begun, &());
        drop(held);
        Ok(arguments)
    }

    fn call<A, R: Shared>(&self, arguments: A, call: impl FnOnce(A) -> R) -> Result<Outcome> {
        report_panics(&self.channel);
        points::client("process: before its function");
        // With what is done with its result: that is dropped here, too, and may panic.
        let whole = || -> Result<Outcome> {
            let result = call(arguments);
            Ok(Outcome::Returned(Parcel::pack(&result)?, result.error_text().map(|text| cut(&text))))
        };
        let outcome = caught(whole, panic_report);
        points::client("process: after its function");
        outcome.unwrap_or_else(|report| Ok(Outcome::Panicked(report)))
    }

    /// Says what has become of the function, and gives the exit code.
    fn finish(mut self) -> Result<i32> {
        let gone = |sent: Result<()>| match sent {
            // Nobody waits for the result any more.
            Err(error) if error.is_disconnected() => Ok(()),
            other => other,
        };
        match self.outcome.take() {
            Some(Outcome::Returned(parcel, error)) => {
                let failure = match error {
                    Some(text) => {
                        let (sent, right) = admit(&self.channel, Kind::Unhappy, &text);
                        gone(sent)?;
                        points::client("process: its failure said");
                        Some((right, format!("returned an error: {text}")))
                    }
                    None => None,
                };
                gone(send(&self.channel, Kind::Returned, &parcel.label, &parcel.value, &[]))?;
                points::client("process: after its result was sent");
                if !parcel.held.is_empty() {
                    // Until the parent holds the objects, or wants nothing any more.
                    let _ = self.inbox.wait_beside(&self.channel, super::parent_process().map(|parent| parent.sentinel()));
                }
                failure.into_iter().for_each(|(right, text)| tell_unless_heard(&self.channel, right, &text));
                Ok(0)
            }
            Some(Outcome::Panicked(report)) => gone(say(&self.channel, Kind::Panicked, &report)).map(|()| PANICKED),
            Some(Outcome::Failed(error)) => Err(error),
            None => Err(malformed()),
        }
    }
}

/// Ends this process when its parent does. The kernel's own way, PR_SET_PDEATHSIG, goes by the thread that has started us.
fn die_with(parent: BorrowedFd<'static>, leash: Option<OwnedFd>) -> Result<()> {
    let watch = move || {
        let _leash = leash;
        while !matches!(sys::wait_readable(&[parent], None), Ok(ready) if ready != 0) {
            // The system is out of memory for a moment.
            std::thread::yield_now();
        }
        sys::kill_self()
    };
    std::thread::Builder::new()
        .name("parent's end".into())
        .stack_size(WATCHER_STACK_BYTES)
        .spawn(watch)
        .map(drop)
        .map_err(|error| Error::system("cannot start the thread that ends a daemonic process with its parent", error))
}

thread_local! {
    /// Whether this is the thread that runs the function.
    static IS_FUNCTIONS: Cell<bool> = const { Cell::new(false) };
    /// Place and backtrace of its last panic: later they are no longer to be had.
    static PANIC: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// Notes where the function panics, and says it on standard error as one piece. Other threads' panics go the usual way.
fn report_panics(channel: &Arc<Channel>) {
    IS_FUNCTIONS.set(true);
    let usual = std::panic::take_hook();
    let channel = channel.clone();
    std::panic::set_hook(Box::new(move |panic| {
        if !IS_FUNCTIONS.get() {
            return usual(panic);
        }
        let (place, message) = (place_of(panic), cut(words_of(panic.payload())));
        let own = super::current_process();
        let text = format!("\n{} (pid {}) panicked at {place}:\n{message}\n", own.name(), own.pid());
        let _ = std::io::stderr().write_all(text.as_bytes());
        let backtrace = cut(&panics::backtrace());
        if cfg!(panic = "abort") {
            // There is no later.
            let _ = send(&channel, Kind::Panicked, &(message, place, backtrace), &Packed::Inline(Vec::new()), &[]);
        } else {
            PANIC.set(Some((place, backtrace)));
        }
    }));
}

/// As much of a text as a report has room for.
fn cut(text: &str) -> String {
    if text.len() <= PROCESS_PANIC_BYTES_MAX {
        return text.to_owned();
    }
    let start = &text[..text.floor_char_boundary(PROCESS_PANIC_BYTES_MAX)];
    format!("{start}… ({} bytes in all)", text.len())
}

/// What is told of a panic that was caught in this thread just now.
pub(crate) fn panic_report(payload: &(dyn Any + Send)) -> PanicReport {
    let (place, backtrace) = PANIC.take().unwrap_or_default();
    (cut(words_of(payload)), place, backtrace)
}
