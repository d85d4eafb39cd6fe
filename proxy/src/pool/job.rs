//! What a caller has asked of a pool, and what has come of it so far.

use super::frames::{Body, Elsewhere, Frames, Kind};
use crate::process::{PanicReport, panicked, unpack};
use crate::session::Stored;
use crate::unpoisoned::lock;
use commonhold_ipc::error::{Error, Result};
use commonhold_ipc::task::Entry;
use commonhold_ipc::value::Shared;
use rkyv::util::AlignedVec;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What is done when a job is finished: on the pool's own thread.
pub(super) type Callback = Box<dyn FnOnce(&Job) + Send>;

/// Calls of one function that belong together.
pub(super) struct Job {
    pub(super) entry: &'static Entry,
    /// Where the entry lies, and a hash of its name.
    pub(super) function: (u64, u64),
    /// Whether the first error ends it.
    pub(super) stops: bool,
    /// Whether it goes on while no caller waits for it.
    pub(super) is_async: bool,
    /// Raised whenever something has come.
    arrivals: AtomicU64,
    cancelled: AtomicBool,
    /// The pool does not count it any more.
    over: AtomicBool,
    pub(super) gathered: Mutex<Gathered>,
}

/// What has come so far.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) pieces: Vec<Piece>,
    /// Calls whose results have come.
    pub(super) done: u64,
    /// Calls in all, once that is known.
    pub(super) total: Option<u64>,
    /// It is one call, and not one for each item of an input.
    is_single: bool,
    /// The error that has ended it.
    pub(super) error: Option<Error>,
    pub(super) callback: Option<Callback>,
    told: bool,
}

impl Gathered {
    pub(super) fn is_finished(&self) -> bool {
        self.error.is_some() || self.total == Some(self.done)
    }
}

impl Job {
    /// A job for a function of this program.
    ///
    /// # Errors
    /// `System` if the function lies in a library that was loaded into it.
    pub(super) fn new(entry: &'static Entry, stops: bool, is_async: bool) -> Result<Arc<Job>> {
        let function = (entry.offset()?, entry.name_hash());
        let (arrivals, gathered) = (AtomicU64::new(0), Mutex::default());
        let (cancelled, over) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Arc::new(Job { entry, function, stops, is_async, arrivals, cancelled, over, gathered }))
    }

    /// How often something has come. Read it before what has come is looked at.
    pub(super) fn arrivals(&self) -> u64 {
        // SYNC: pairs with the Release in `notice`.
        self.arrivals.load(Ordering::Acquire)
    }

    fn notice(&self) {
        self.arrivals.fetch_add(1, Ordering::Release);
    }

    /// Nobody wants what is still to come.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Which of the items a call is for, in the words of an error; nothing for a call that is no item's.
    pub(super) fn on_item(&self, number: u64) -> String {
        if lock(&self.gathered).is_single { String::new() } else { format!(" on item {number} (counted from 0)") }
    }

    /// Says that it is one call, and not one for each item of an input.
    pub(super) fn set_single(&self) {
        lock(&self.gathered).is_single = true;
        self.set_total(1);
    }

    /// Says how many calls there are in all. A job without any is finished then.
    pub(super) fn set_total(&self, total: u64) {
        let mut gathered = lock(&self.gathered);
        gathered.total = Some(total);
        gathered.told = total == 0;
        drop(gathered);
        self.notice();
    }

    /// Results have come. `true`: they were the last; what is to be done then comes with it.
    pub(super) fn deliver(&self, piece: Piece) -> (bool, Option<Callback>) {
        if self.is_cancelled() {
            return (false, None);
        }
        let mut gathered = lock(&self.gathered);
        gathered.done += piece.items.len() as u64;
        if self.stops && gathered.error.is_none() {
            gathered.error = piece.items.iter().find_map(|item| match item {
                Item::Failed(error) => Some(error.clone()),
                Item::Value(_) => None,
            });
            if gathered.error.is_some() {
                self.cancel();
            }
        }
        gathered.pieces.push(piece);
        let outcome = Self::finish(&mut gathered);
        drop(gathered);
        self.notice();
        outcome
    }

    /// Nothing more will come, because of this error.
    pub(super) fn fail(&self, error: &Error) -> (bool, Option<Callback>) {
        let mut gathered = lock(&self.gathered);
        if gathered.is_finished() {
            return (false, None);
        }
        gathered.error = Some(error.clone());
        let outcome = Self::finish(&mut gathered);
        drop(gathered);
        self.notice();
        outcome
    }

    /// Once, when it is finished.
    fn finish(gathered: &mut Gathered) -> (bool, Option<Callback>) {
        if gathered.told || !gathered.is_finished() {
            return (false, None);
        }
        gathered.told = true;
        (true, gathered.callback.take())
    }

    /// Leaves word what is to be done when it is finished; gives it back if it is.
    pub(super) fn when_finished(&self, callback: Callback) -> Option<Callback> {
        let mut gathered = lock(&self.gathered);
        if gathered.told {
            return Some(callback);
        }
        // (Another one is a future's, that only wakes.)
        gathered.callback = Some(match gathered.callback.take() {
            Some(before) => Box::new(move |job| {
                before(job);
                callback(job);
            }),
            None => callback,
        });
        None
    }

    /// Whether nothing more will come.
    pub(super) fn is_finished(&self) -> bool {
        lock(&self.gathered).is_finished()
    }

    /// Whether all has come.
    pub(super) fn is_complete(&self) -> bool {
        let gathered = lock(&self.gathered);
        gathered.total == Some(gathered.done)
    }

    /// Says that it is over. Whether nobody has said so before.
    pub(super) fn is_over_now(&self) -> bool {
        !self.over.swap(true, Ordering::AcqRel)
    }
}

const _: () = assert!(size_of::<Item>() <= 16);

/// Results of calls side by side.
pub(super) struct Piece {
    /// The first call's number.
    pub(super) first: u64,
    pub(super) items: Vec<Item>,
    frames: AlignedVec<16>,
    /// Keeps the objects of handles among them.
    _held: Vec<Stored>,
}

/// What has come of one call.
pub(super) enum Item {
    Value(Body),
    Failed(Error),
}

impl Piece {
    /// Of frames that a worker has written: as many as it says, unless they cannot be read. `who` says whose the call of a number was.
    pub(super) fn read(first: u64, calls: u32, frames: AlignedVec<16>, elsewhere: Elsewhere<'_>, who: impl Fn(u64) -> String) -> Piece {
        let (mut items, mut held) = (Vec::with_capacity(calls as usize), Vec::new());
        let mut reader = Frames::new(&frames, elsewhere);
        for number in first..first + u64::from(calls) {
            let failed = |error: Error| Error::caused(error.kind(), format!("{}: {error}", who(number)), error);
            items.push(match reader.value(&mut held) {
                Ok((Kind::Value | Kind::Label, body)) => Item::Value(body),
                Ok((Kind::Panic, body)) => match unpack::<PanicReport>(body.bytes(&frames)) {
                    Ok(report) => Item::Failed(panicked(&who(number), report)),
                    Err(error) => Item::Failed(failed(error)),
                },
                Ok((Kind::Failed, body)) => Item::Failed(failed(unpack::<Error>(body.bytes(&frames)).unwrap_or_else(|error| error))),
                Err(error) => Item::Failed(failed(error)),
            });
        }
        Piece { first, items, frames, _held: held }
    }

    /// Of calls without results.
    pub(super) fn failed(first: u64, calls: u32, error: &Error) -> Piece {
        let items = (0..calls).map(|_| Item::Failed(error.clone())).collect();
        Piece { first, items, frames: AlignedVec::new(), _held: Vec::new() }
    }

    /// The result at a place.
    pub(super) fn get<R: Shared>(&self, at: usize) -> Result<R> {
        match &self.items[at] {
            Item::Value(body) => unpack(body.bytes(&self.frames)),
            Item::Failed(error) => Err(error.clone()),
        }
    }
}

/// The only result of a job.
pub(super) fn only<R: Shared>(job: &Job) -> Result<R> {
    let gathered = lock(&job.gathered);
    match (gathered.pieces.first(), &gathered.error) {
        (Some(piece), _) => piece.get(0),
        (None, Some(error)) => Err(error.clone()),
        (None, None) => unreachable!("it is asked for when the job is finished"),
    }
}

/// All results of a job, in their order.
pub(super) fn all<R: Shared>(job: &Job) -> Result<Vec<R>> {
    let gathered = lock(&job.gathered);
    match &gathered.error {
        Some(error) => Err(error.clone()),
        None => in_order(&gathered).collect(),
    }
}

/// All results and errors of a job, in their order.
pub(super) fn each<R: Shared>(job: &Job) -> Result<Vec<Result<R>>> {
    let gathered = lock(&job.gathered);
    match &gathered.error {
        Some(error) => Err(error.clone()),
        None => Ok(in_order(&gathered).collect()),
    }
}

fn in_order<R: Shared>(gathered: &Gathered) -> impl Iterator<Item = Result<R>> {
    let mut pieces: Vec<&Piece> = gathered.pieces.iter().collect();
    pieces.sort_unstable_by_key(|piece| piece.first);
    pieces.into_iter().flat_map(|piece| (0..piece.items.len()).map(move |at| piece.get(at)))
}
