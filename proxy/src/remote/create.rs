//! Making objects of users' types, and running logic beside the data: functions of the program, called in its host.

use super::Remote;
use super::answer::{host_gone, result, send, wait};
use super::call::{Remotes, Use, reach};
use super::function::{Logic, result_lost, unanswered, undone, unheard};
use super::host::Passage;
use super::line::{Frame, Line};
use super::question::{Arguments, Prepared, Question};
use crate::connection::{Reply, outcome_unknown};
use crate::patience::deadline_after;
use crate::process::Task;
use crate::request::Request;
use crate::session::{Session, SessionCore};
use crate::unpoisoned::lock;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::{RUN_GRACE_MS, TICKET_MS};
use commonhold_ipc::task::{Build, Entry, Runner};
use commonhold_ipc::value::{AsShared, Shared, fingerprint};
use commonhold_ipc::wire::remote::{Answer, Ask};
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::run::Settle;
use commonhold_ipc::wire::{Call, malformed};
use std::any::Any;
use std::marker::PhantomData;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How a host of this program is started for a session: set by the crate that knows how to start processes.
static STARTER: OnceLock<fn(&Session) -> Result<()>> = OnceLock::new();

/// Says how a host is started.
pub fn set_starter(starter: fn(&Session) -> Result<()>) {
    let _ = STARTER.set(starter);
}

/// Tries to find a host or start one: more than two happen only while hosts start and die.
const TRIES_MAX: u32 = 16;
/// How long the manager may take to see that a host has ended: as long as the kernel takes to close what that had, one descriptor after the
/// other, on a busy machine.
const END_SEEN: Duration = Duration::from_secs(1);

/// What a constructor may return: an object, or a `Result` of one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an object that can live beside a manager",
    note = "a constructor returns a type with a `#[commonhold::remote]` impl, or `Result<ThatType, E>`"
)]
pub trait Constructed {
    /// What its caller gets: the proxy, or a `Result` of it.
    type Handle: Shared;

    #[doc(hidden)]
    fn settle(self, passage: &Passage) -> Result<Self::Handle>;
}

impl<T: Remote> Constructed for T {
    type Handle = T::Proxy;

    fn settle(self, passage: &Passage) -> Result<T::Proxy> {
        passage.host().adopt(self)
    }
}

impl<T: Remote, E: Shared> Constructed for Result<T, E> {
    type Handle = Result<T::Proxy, E>;

    fn settle(self, passage: &Passage) -> Result<Self::Handle> {
        match self {
            Ok(object) => passage.host().adopt(object).map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }
}

fn passage(passage: &mut dyn Any) -> &mut Passage {
    passage.downcast_mut::<Passage>().unwrap_or_else(|| panic!("this function is not for a host"))
}

/// Makes an object with a constructor.
struct Create<A, M>(PhantomData<fn(A, M)>);

impl<F, A, M> Runner<F> for Create<A, M>
where
    F: Task<A, M>,
    A: Shared,
    F::Output: Constructed,
{
    fn run(function: F, within: &mut dyn Any) {
        passage(within).carry(|passage, arguments: A| function.call(arguments).settle(passage));
    }
}

/// Runs logic in a transaction.
struct RunLogic<A, R>(PhantomData<fn(A) -> R>);

impl<F, A, R> Runner<F> for RunLogic<A, R>
where
    F: Logic<A, R>,
    A: Shared + Clone,
    R: Shared,
{
    fn run(function: F, within: &mut dyn Any) {
        passage(within).carry_lent(|passage, arguments: A| passage.transaction(|tx| function.call(tx, arguments.clone())));
    }
}

/// Tells the host of a type.
struct Offer;

impl<T: Remote> Runner<PhantomData<fn() -> T>> for Offer {
    fn run(_: PhantomData<fn() -> T>, within: &mut dyn Any) {
        passage(within).carry(|passage, (): ()| passage.host().offer(T::NAME));
    }
}

/// A type that this program offers on a manager that somebody else may have started.
#[derive(Clone, Copy, Debug)]
pub struct Registered(&'static Entry);

impl Registered {
    /// The type itself.
    pub fn of<T: Remote>() -> Self {
        Registered(Entry::of::<PhantomData<fn() -> T>, Offer>(PhantomData))
    }
}

/// The number of this program's host, which is started if there is none.
fn own_host(session: &Session) -> Result<u64> {
    let core = session.core();
    if let Some(host) = *lock(&Remotes::of(core).own_host) {
        return Ok(host);
    }
    let since = Instant::now();
    let mut tries = 0;
    while tries < TRIES_MAX {
        let mut request = Request::new(Call::FindHost);
        Build::own().to_wire(Remotes::of(core).invited.load(Ordering::Relaxed)).write(request.payload());
        match core.call(&mut request, false)?.outcome()? {
            Outcome::Number(host) if *lock(&Remotes::of(core).ended_host) == Some(host) && since.elapsed() < END_SEEN => {
                std::thread::yield_now();
            }
            Outcome::Number(host) => {
                *lock(&Remotes::of(core).own_host) = Some(host);
                return Ok(host);
            }
            Outcome::Nothing => {
                let starter = STARTER.get().ok_or_else(|| {
                    let text = "an object of a user's type lives in a host, a process of this program that begins in \
                                `commonhold::init()`: call that in the first line of `main` (in a test file, put \
                                `commonhold::init_in_tests!();` at its top)";
                    Error::new(ErrorKind::NotInitialised, text)
                })?;
                starter(session)?;
                tries += 1;
            }
            _ => return Err(malformed("reply")),
        }
    }
    Err(Error::new(ErrorKind::Died, "the host of this program keeps starting and ending on this manager"))
}

/// How functions are called that make something, and on which lines; and those that run on the manager's data.
const CREATE: (Ask, Use) = (Ask::Run, Use::Functions);
const RUN: (Ask, Use) = (Ask::Logic, Use::Logic);

/// Calls a function of this program in its host.
fn call_function<R: Shared>(
    session: &Session,
    (ask, used): (Ask, Use),
    entry: &'static Entry,
    arguments: u64,
    limit: Option<Duration>,
    write: impl Fn(&mut Arguments<'_>) -> Result<()>,
) -> Result<R> {
    let core = session.core();
    // In a forked child the lines are its parent's.
    core.check()?;
    for _ in 0..TRIES_MAX {
        let host = own_host(session)?;
        let lines = Remotes::of(core).lines(host, used);
        let mut line = match reach(core, host, &lines) {
            Err(error) if error.kind() == ErrorKind::Died => {
                forget(core, host);
                continue;
            }
            other => other?,
        };
        if line.road().has_hung_up() {
            // Kept from an earlier call, and closed since: nothing was asked yet.
            forget(core, host);
            continue;
        }
        let question = Question { ask, object: entry.offset()?, interface: arguments, method: 0, name: entry.name() };
        let mut prepared = Prepared::new(core, &question, &write)?;
        let number = line.next_number();
        let run = Settle { host, line: line.id(), number };
        if send(core, &mut line, prepared.number(number)?, None).is_err() {
            // The same, just now. It may be asked all the same: all of it was written, and only a ring was not heard.
            forget(core, host);
            if limit.is_some() && settled(core, run)? {
                return Err(unheard());
            }
            continue;
        }
        let answered = match limit {
            None => wait(core, &mut line, None).and_then(|frame| frame.ok_or_else(|| host_gone(core))),
            Some(limit) => answer_of_run(core, &mut line, run, limit),
        };
        if matches!(&answered, Err(error) if matches!(error.kind(), ErrorKind::Died | ErrorKind::ResultLost)) {
            forget(core, host);
        }
        let frame = answered?;
        let is_ours = frame.0.number == number;
        let value = result(core, &frame, |bytes| drop(send(core, &mut line, bytes, None)));
        let value = value.map_err(|error| if limit.is_some() { explained(core, run, frame.0.code, error) } else { error });
        // A line on which something was given up is not used again: what is barred there stays so.
        let is_over_time = matches!(&value, Err(error) if error.kind() == ErrorKind::TimedOut);
        if is_ours && !is_over_time {
            lines.give(line);
        }
        return value;
    }
    Err(host_gone(core))
}

/// Waits for the answer of logic: for so long after it was seen to have begun, and on if it was done meanwhile. That it has begun is not rung for,
/// so it is looked for as often. The error is what the manager says became of it.
fn answer_of_run(core: &Arc<SessionCore>, line: &mut Line, run: Settle, limit: Duration) -> Result<Frame> {
    let (mut has_begun, mut is_done) = (false, false);
    loop {
        match wait(core, line, deadline_after(Some(limit))) {
            Ok(Some((head, _))) if Answer::from_code(head.code) == Some(Answer::Begun) => has_begun = true,
            Ok(Some(frame)) => return Ok(frame),
            // Its host says nothing: it hangs in it, or was stopped.
            Ok(None) if has_begun && !is_done => match settled(core, run)? {
                true => is_done = true,
                false => return Err(unanswered()),
            },
            Ok(None) => {}
            // With the manager goes who could be asked. What it has said before stays true.
            Err(error) if error.kind() == ErrorKind::Disconnected && !is_done => return Err(outcome_unknown()),
            Err(error) => {
                let is_done = is_done || settled(core, run)?;
                return Err(match (error.kind(), is_done) {
                    (ErrorKind::Died, true) => unheard(),
                    (ErrorKind::Died, false) => undone(),
                    (_, true) => result_lost(error),
                    (_, false) => error,
                });
            }
        }
    }
}

/// Asks the manager whether logic has been committed. If not, it is not from now on.
fn settled(core: &SessionCore, run: Settle) -> Result<bool> {
    let mut request = Request::new(Call::Settle);
    run.write(request.payload());
    let said = core.call(&mut request, false).and_then(Reply::outcome).map_err(|error| match error.kind() {
        ErrorKind::OutcomeUnknown => error,
        _ => {
            let text = format!("the manager cannot be asked any more what became of what was to run beside it: {error}");
            Error::caused(ErrorKind::OutcomeUnknown, text, error)
        }
    })?;
    Ok(said == Outcome::Something)
}

/// What an error means that logic's answer has come to.
fn explained(core: &SessionCore, run: Settle, code: u8, error: Error) -> Error {
    match Answer::from_code(code) {
        // What it refers to is gone with its host, or there is no memory for it.
        Some(Answer::Done) => result_lost(error),
        // Its host has no manager any more, and does not know; or says nothing that makes sense. All of that may also be said by the logic itself.
        _ if (error.is_disconnected() || error.kind() == ErrorKind::Corrupt) && matches!(settled(core, run), Ok(true)) => {
            result_lost(error)
        }
        _ => error,
    }
}

fn forget(core: &SessionCore, host: u64) {
    Remotes::of(core).forget(host);
    let mut own = lock(&Remotes::of(core).own_host);
    if *own == Some(host) {
        *own = None;
        *lock(&Remotes::of(core).ended_host) = Some(host);
    }
}

impl Session {
    /// Makes an object of a user's type: it lives in a host process beside the manager, and its methods are called through the
    /// proxy that is returned. `constructor` is an `fn` item or a closure that captures nothing; `args` a tuple of its arguments, or
    /// its one argument. If it returns a `Result`, so does this, inside of the call's own.
    ///
    /// The object lives as long as handles on it, or a name. Its `Drop` runs in the host: after the last is gone, and when the manager
    /// is shut down.
    ///
    /// # Errors
    /// `NotInitialised` if `main` has not called [`init`](../commonhold/fn.init.html); `NotFound` if another program has started the
    /// manager and this one's types are not registered there; `Panicked` if the constructor panics.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// use commonhold::Manager;
    ///
    /// struct Tally { hits: u64 }
    ///
    /// #[commonhold::remote]
    /// impl Tally {
    ///     pub fn new(start: u64) -> Self { Tally { hits: start } }
    ///     pub fn hit(&mut self, n: u64) -> u64 { self.hits += n; self.hits }
    /// }
    ///
    /// # fn main() -> commonhold::Result<()> {
    /// let manager = Manager::start()?;
    /// let tally = manager.create(Tally::new, (10,))?;
    /// assert_eq!(tally.hit(3)?, 13);
    /// # Ok(())
    /// # }
    /// ```
    pub fn create<F, A, M>(&self, constructor: F, args: A) -> Result<<F::Output as Constructed>::Handle>
    where
        F: Task<A, M>,
        A: Shared,
        F::Output: Constructed,
        M: 'static,
    {
        const { assert_no_captures::<F>() };
        let entry = Entry::of::<F, Create<A, M>>(constructor);
        call_function(self, CREATE, entry, fingerprint::<A>(), None, |arguments| arguments.push::<A>(&args))
    }

    /// Runs a function beside the data, in a transaction that nobody can disturb: it never conflicts, and so runs once. It may take
    /// 200 ms; what takes longer, fails or dies leaves no trace. If nothing more is heard of the host, the manager is asked whether it was done, so
    /// there is no doubt about it while the manager lives. If it was, its result is waited for, also that of a host that is stopped.
    ///
    /// All this is true of the transaction. What the function does besides, with a queue for example or a method of another object, is done when it does it.
    ///
    /// When to use it: where several processes write to the same entries all the time, so that a [`transaction`](Self::transaction) would run
    /// again and again, or where the function reads and writes much and little of it is wanted here. Not for speed where hardly anybody is
    /// in the way: a transaction runs in this process and costs one call of the manager, some microseconds; `run` goes to the host, and from there
    /// to the manager for the ticket and again for the commit, three ways between processes and some tens of microseconds.
    ///
    /// `logic` is an `fn` item or a closure that captures nothing, with the transaction and one more argument (a tuple for several).
    ///
    /// # Errors
    /// Its own; `TimedOut`, `Panicked` if it panics, and `Died` if its host ends: none of these leaves a trace. `ResultLost`: it has been done, whole,
    /// and only its result cannot be had: the host ended before it could bring it, or it is too large. `OutcomeUnknown` if the manager has ended meanwhile, or
    /// has forgotten, thousands of callers later. Else as [`create`](Self::create).
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// use commonhold::{Dict, Manager, Transaction};
    /// # fn main() -> commonhold::Result<()> {
    /// let manager = Manager::start()?;
    /// let stock: Dict<String, u64> = manager.dict([("apples".to_string(), 3)])?;
    /// let take = |tx: &Transaction<'_>, (stock, wanted): (Dict<String, u64>, u64)| {
    ///     let left = tx.get(&stock, "apples")?.map_or(0, |left| *left);
    ///     let taken = left.min(wanted);
    ///     tx.insert(&stock, "apples", left - taken)?;
    ///     Ok(taken)
    /// };
    /// assert_eq!(manager.run(take, (stock.clone(), 2))?, 2);
    /// assert_eq!(manager.run(take, (stock.clone(), 2))?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn run<F, A, R>(&self, logic: F, args: impl AsShared<A>) -> Result<R>
    where
        F: Logic<A, R>,
        A: Shared + Clone,
        R: Shared,
    {
        const { assert_no_captures::<F>() };
        let entry = Entry::of::<F, RunLogic<A, R>>(logic);
        let limit = Duration::from_millis(TICKET_MS + RUN_GRACE_MS);
        let write = |arguments: &mut Arguments<'_>| arguments.push::<A>(Through(&args));
        call_function(self, RUN, entry, fingerprint::<A>(), Some(limit), write)
    }

    /// This program offers types on this manager, whoever has started it.
    #[doc(hidden)]
    pub fn register(&self, types: &[Registered]) -> Result<()> {
        Remotes::of(self.core()).invited.store(true, Ordering::Relaxed);
        types.iter().try_for_each(|Registered(entry)| {
            call_function(self, CREATE, entry, fingerprint::<()>(), None, |arguments| arguments.push::<()>(()))
        })
    }
}

/// What a reference can be written as, the value can.
struct Through<'a, V>(&'a V);

impl<T: Shared, V: AsShared<T>> AsShared<T> for Through<'_, V> {
    type Back = ();

    #[inline(always)]
    fn back(self) {}

    fn write(&self, ser: &mut commonhold_ipc::value::Ser) -> Result<(), commonhold_ipc::value::Fault> {
        self.0.write(ser)
    }
}

/// Stops the compiler at a function that carries something with it.
const fn assert_no_captures<F>() {
    assert!(
        size_of::<F>() == 0,
        "this closure captures variables of its surroundings (or is a function pointer): the process beside the manager does not \
         have them. Pass them as arguments instead."
    );
}
