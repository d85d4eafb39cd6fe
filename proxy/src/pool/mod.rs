//! [`Pool`]: processes that stay, and call functions for whoever asks.
//!
//! | | owner | worker |
//! |---|---|---|
//! | 1 | makes a memory file, and starts workers with it (`builder`, `keeper`) | maps it, calls the initializer |
//! | 2 | packs arguments into chunks (`feed`, `frames`), puts them into slots of the board (`owner`, `ipc::pool`) | takes one: it is this worker's from now on |
//! | 3 | | calls; writes each result behind the last, and counts it (`worker`) |
//! | 4 | sees the bell, copies the results, maps those that have files of their own (`handover`), frees the slot | takes the next |
//! | 5 | makes values of them, when the caller wants them (`job`, `results`) | |
//!
//! Whoever waits does the owner's part of it. One thread besides, the `keeper`, sees workers end and replaces them.

mod builder;
mod feed;
mod frames;
mod handover;
mod job;
mod keeper;
mod owner;
mod results;
mod settings;
mod wait;
mod worker;

pub use builder::PoolBuilder;
pub use results::{AsyncResult, Imap, Progress, Watch};
pub use worker::InitializerResult;

use crate::process::Task;
use crate::unpoisoned::lock;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::sys::ring_bell;
use commonhold_ipc::task::Entry;
use commonhold_ipc::value::Shared;
use feed::{Feeder, Size};
use frames::Packing;
use job::{Job, all, each, only};
use owner::{Arguments, Chunk, Owner};
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wait::{IS_KEEPER, Patience};

/// Stops the compiler at a function that carries something with it: in the function that the user calls, as for processes.
const fn assert_no_captures<F>() {
    assert!(
        size_of::<F>() == 0,
        "this closure captures variables of its surroundings (or is a function pointer): a pool's workers do not have them. \
         Pass them as arguments instead, with each item: `pool.map(|x: u64, y: u64| x + y, items.map(|x| (x, y)))`."
    );
}

/// Processes that stay, and call functions for whoever asks. `Send + Sync`: several threads may use it at once.
///
/// What is called is any `fn` item of this program, or a closure that captures nothing, with [`Shared`] arguments, handles among them:
/// as with [`Process::spawn`](crate::process::Process::spawn). Tasks and results pass through shared memory.
///
/// - A **panic** is the error of its call, with message and backtrace; its worker goes on.
/// - A worker's **death** fails exactly the call that it ran, with an error that says how it died; or that call is tried again, if the
///   pool was made with [`retries`](PoolBuilder::retries). Everything else is done nevertheless: another worker is started.
/// - **This process's** death ends the workers.
/// - **Dropping** a pool kills its workers, whatever they do, and fails what is not done. For an orderly end [`close`](Self::close) it,
///   and [`join`](Self::join).
/// - A worker may have pools and processes of its own; they end with it.
/// - In a forked child every method is an error of kind [`UsedAfterFork`](commonhold_ipc::error::ErrorKind::UsedAfterFork).
///
/// ```
/// # commonhold::init_in_tests!();
/// use commonhold::Pool;
///
/// fn fetch(url: String) -> commonhold::Result<u64> { Ok(url.len() as u64) }
/// fn area(w: f64, h: f64) -> f64 { w * h }
///
/// # fn main() -> commonhold::Result<()> {
/// let (urls, url) = (vec!["a".to_string(), "bb".to_string()], "ccc".to_string());
/// let pool = Pool::new(5)?;
/// assert_eq!(pool.map(|x: i64| x * x * x, [1, 2, 3])?, [1, 8, 27]);
/// for result in pool.imap_unordered(fetch, urls)? {        // lazily fed, first come first out
///     println!("{}", result??);
/// }
/// let pending = pool.apply_async(fetch, url)?;
/// assert_eq!(pending.get()??, 3);
/// assert_eq!(pool.apply(area, (2.0, 3.0))?, 6.0);          // several arguments: a tuple
/// # Ok(())
/// # }
/// ```
pub struct Pool {
    owner: Arc<Owner>,
    keeper: Option<JoinHandle<()>>,
}

/// A job that is over for its caller at the end of a scope, however that ends.
struct Begun<'p> {
    owner: &'p Owner,
    job: Arc<Job>,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.owner.finish(&self.job);
    }
}

impl Pool {
    /// Starts a pool of so many workers.
    ///
    /// # Errors
    /// As [`PoolBuilder::build`].
    pub fn new(workers: usize) -> Result<Pool> {
        Pool::builder().workers(workers).build()
    }

    /// Says how a pool is to be.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::default()
    }

    fn begin(&self, job: &Arc<Job>) -> Result<Begun<'_>> {
        self.owner.begin(job)?;
        Ok(Begun { owner: &self.owner, job: job.clone() })
    }

    fn chunk_of_one<A: Shared>(&self, job: &Arc<Job>, arguments: &A) -> Result<Chunk> {
        let mut packing = Packing::default();
        packing.add(arguments, &mut Arguments(&self.owner))?;
        job.set_single();
        Ok(Chunk { job: job.clone(), first: 0, calls: 1, over: 0, attempts: 0, packing })
    }

    /// Has a function called in a worker, and waits for its result. `arguments` is a tuple of up to eight, or the one value.
    ///
    /// # Errors
    /// `Panicked` if the function panicked: the backtrace is the error's source. `Died` if its worker did; `TimedOut` if it took longer
    /// than a call [may](PoolBuilder::task_time_limit). `Closed`; `TooLarge`; else why workers cannot be started any more.
    pub fn apply<F, A, M>(&self, function: F, arguments: A) -> Result<F::Output>
    where
        F: Task<A, M>,
        A: Shared,
        F::Output: Shared,
        M: 'static,
    {
        const { assert_no_captures::<F>() };
        let job = Job::new(worker::entry::<F, A, M>(function), false, false)?;
        let _begun = self.begin(&job)?;
        let mut seen = job.arrivals();
        self.owner.submit(self.chunk_of_one(&job, &arguments)?)?;
        while !job.is_finished() {
            self.owner.wait(&job, seen, Patience::Close, None)?;
            seen = job.arrivals();
        }
        only(&job)
    }

    /// Has a function called in a worker, and gives something to wait for its result with.
    ///
    /// # Errors
    /// `Closed`; `TooLarge`; why workers cannot be started any more. What becomes of the call, [`AsyncResult::get`] tells.
    pub fn apply_async<F, A, M>(&self, function: F, arguments: A) -> Result<AsyncResult<F::Output>>
    where
        F: Task<A, M>,
        A: Shared,
        F::Output: Shared,
        M: 'static,
    {
        const { assert_no_captures::<F>() };
        self.owner.stamp.check()?;
        let job = Job::new(worker::entry::<F, A, M>(function), false, true)?;
        let chunk = self.chunk_of_one(&job, &arguments)?;
        self.submit_all(&job, vec![chunk])?;
        Ok(AsyncResult::new(self.owner.clone(), job, only::<F::Output>))
    }

    fn submit_all(&self, job: &Arc<Job>, chunks: Vec<Chunk>) -> Result<()> {
        let mut chunks = chunks.into_iter();
        let submitted = self.owner.begin(job).and_then(|()| {
            let submitted = chunks.try_for_each(|chunk| self.owner.submit(chunk));
            if submitted.is_err() {
                self.owner.finish(job);
            }
            submitted
        });
        self.owner.let_go(chunks);
        submitted
    }

    /// Has a function called with each of the items, and gives the results in their order.
    ///
    /// The input is consumed as workers get on. The first error, by its time, ends it: what no worker has begun is called off. For all
    /// results, whatever becomes of some, see [`map_all`](Self::map_all).
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// let pool = commonhold::Pool::new(2)?;
    /// assert_eq!(pool.map(|x: u64| x + 1, 0..1000)?[999], 1000);
    /// assert!(pool.map(|x: u64| 10 / x, [5, 2, 0, 1]).unwrap_err().is_panic());
    /// # Ok(())
    /// # }
    /// ```
    pub fn map<F, A, M, I>(&self, function: F, items: I) -> Result<Vec<F::Output>>
    where
        F: Task<A, M>,
        A: Shared,
        F::Output: Shared,
        M: 'static,
        I: IntoIterator<Item = A>,
    {
        const { assert_no_captures::<F>() };
        let job = self.run(worker::entry::<F, A, M>(function), items.into_iter(), true, |_| {})?;
        all(&job)
    }

    /// As [`map`](Self::map), and gives what came of every call: its result, or why there is none.
    ///
    /// # Errors
    /// `Closed`; `TooLarge` for an item; why workers cannot be started any more.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// let pool = commonhold::Pool::new(2)?;
    /// let results = pool.map_all(|x: u64| 10 / x, [5, 0, 1])?;
    /// assert_eq!(*results[0].as_ref().unwrap(), 2);
    /// assert!(results[1].as_ref().unwrap_err().is_panic());
    /// assert_eq!(*results[2].as_ref().unwrap(), 10);
    /// # Ok(())
    /// # }
    /// ```
    pub fn map_all<F, A, M, I>(&self, function: F, items: I) -> Result<Vec<Result<F::Output>>>
    where
        F: Task<A, M>,
        A: Shared,
        F::Output: Shared,
        M: 'static,
        I: IntoIterator<Item = A>,
    {
        const { assert_no_captures::<F>() };
        let job = self.run(worker::entry::<F, A, M>(function), items.into_iter(), false, |_| {})?;
        each(&job)
    }

    /// As [`map`](Self::map), of functions with several arguments: each item is a tuple of them. (`map` takes such items, too.)
    ///
    /// # Errors
    /// As [`map`](Self::map).
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// let pool = commonhold::Pool::new(2)?;
    /// assert_eq!(pool.starmap(|a: u64, b: u64| a * b, [(1, 2), (3, 4)])?, [2, 12]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn starmap<F, A, M, I>(&self, function: F, items: I) -> Result<Vec<F::Output>>
    where
        F: Task<A, M>,
        A: Shared,
        F::Output: Shared,
        M: 'static,
        I: IntoIterator<Item = A>,
    {
        const { assert_no_captures::<F>() };
        self.map(function, items)
    }

    /// As [`map`](Self::map), for functions without a result: nothing is gathered, so the input may be without end.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub fn for_each<F, A, M, I>(&self, function: F, items: I) -> Result<()>
    where
        F: Task<A, M>,
        A: Shared,
        F::Output: Shared,
        M: 'static,
        I: IntoIterator<Item = A>,
    {
        const { assert_no_captures::<F>() };
        let job = self.run(worker::entry::<F, A, M>(function), items.into_iter(), true, |job| lock(&job.gathered).pieces.clear())?;
        let error = lock(&job.gathered).error.clone();
        error.map_or(Ok(()), Err)
    }

    /// As [`map`](Self::map), without waiting: gives something to wait with, and to [watch](AsyncResult::watch). The input is consumed at
    /// once.
    ///
    /// # Errors
    /// As [`apply_async`](Self::apply_async).
    pub fn map_async<F, A, M, I>(&self, function: F, items: I) -> Result<AsyncResult<Vec<F::Output>>>
    where
        F: Task<A, M>,
        A: Shared,
        F::Output: Shared,
        M: 'static,
        I: IntoIterator<Item = A>,
    {
        const { assert_no_captures::<F>() };
        self.owner.stamp.check()?;
        let job = Job::new(worker::entry::<F, A, M>(function), true, true)?;
        let mut feeder = self.feeder(items.into_iter());
        let mut chunks = Vec::new();
        while !feeder.ended {
            let (chunk, failure) = feeder.next(&self.owner, &job, u64::MAX);
            chunks.extend(chunk);
            if let Some((_, error)) = failure {
                self.owner.let_go(chunks);
                return Err(error);
            }
        }
        job.set_total(feeder.fed);
        if feeder.fed > 0 {
            self.submit_all(&job, chunks)?;
        } else {
            job.is_over_now();
        }
        Ok(AsyncResult::new(self.owner.clone(), job, all::<F::Output>))
    }

    /// Has a function called with each of the items, and gives the results one by one, in their order, as an iterator.
    ///
    /// The input is consumed as results are asked for, at the most the pool's [look-ahead](PoolBuilder::look_ahead) beyond them: so it
    /// may be without end. An item whose call failed is an error, and the next one follows.
    ///
    /// # Errors
    /// As [`apply_async`](Self::apply_async).
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// let pool = commonhold::Pool::new(2)?;
    /// let squares = pool.imap(|x: u64| x * x, 1..)?;
    /// assert_eq!(squares.take(3).collect::<commonhold::Result<Vec<_>>>()?, [1, 4, 9]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn imap<F, A, M, I>(&self, function: F, items: I) -> Result<Imap<I::IntoIter, F::Output>>
    where
        F: Task<A, M>,
        A: Shared,
        F::Output: Shared,
        M: 'static,
        I: IntoIterator<Item = A>,
    {
        const { assert_no_captures::<F>() };
        self.iterate(worker::entry::<F, A, M>(function), items.into_iter(), true)
    }

    /// As [`imap`](Self::imap), in the order in which the calls are done.
    ///
    /// # Errors
    /// As [`imap`](Self::imap).
    pub fn imap_unordered<F, A, M, I>(&self, function: F, items: I) -> Result<Imap<I::IntoIter, F::Output>>
    where
        F: Task<A, M>,
        A: Shared,
        F::Output: Shared,
        M: 'static,
        I: IntoIterator<Item = A>,
    {
        const { assert_no_captures::<F>() };
        self.iterate(worker::entry::<F, A, M>(function), items.into_iter(), false)
    }

    fn iterate<I, R>(&self, entry: &'static Entry, items: I, ordered: bool) -> Result<Imap<I, R>>
    where
        I: Iterator<Item: Shared>,
        R: Shared,
    {
        let settings = &self.owner.settings;
        let size = Size::Fixed(settings.chunk_size.unwrap_or(1));
        let look_ahead = settings.look_ahead.unwrap_or_else(|| 64.max(8 * self.workers() as u64));
        let job = Job::new(entry, false, false)?;
        self.owner.begin(&job)?;
        Ok(Imap::new(self.owner.clone(), job, Feeder::new(items, size), look_ahead, ordered))
    }

    fn feeder<I: Iterator<Item: Shared>>(&self, items: I) -> Feeder<I> {
        let size = match self.owner.settings.chunk_size {
            Some(size) => Size::Fixed(size),
            None => Size::of(items.size_hint(), self.workers()),
        };
        Feeder::new(items, size)
    }

    /// Feeds items until they are at their end, and waits for what comes of them, or for the first error.
    fn run<I>(&self, entry: &'static Entry, items: I, stops: bool, then: impl Fn(&Job)) -> Result<Arc<Job>>
    where
        I: Iterator<Item: Shared>,
    {
        let job = Job::new(entry, stops, false)?;
        let _begun = self.begin(&job)?;
        let mut feeder = self.feeder(items);
        loop {
            let seen = job.arrivals();
            let (done, finished) = {
                let gathered = lock(&job.gathered);
                (gathered.done, gathered.is_finished())
            };
            if finished {
                return Ok(job);
            }
            then(&job);
            while !feeder.ended && self.owner.has_room(feeder.fed - done) {
                let (chunk, failure) = feeder.next(&self.owner, &job, u64::MAX);
                chunk.map_or(Ok(()), |chunk| self.owner.submit(chunk))?;
                failure.map_or(Ok(()), |(_, error)| Err(error))?;
                if feeder.ended {
                    job.set_total(feeder.fed);
                }
                // An input without end may be fed for ever.
                if job.arrivals() != seen {
                    break;
                }
            }
            self.owner.wait(&job, seen, Patience::Wide, None)?;
        }
    }

    /// How many workers it has, or is about to have.
    pub fn workers(&self) -> usize {
        if self.owner.stamp.is_current() { lock(&self.owner.state).wanted } else { 0 }
    }

    /// Process ids of its workers as they are now.
    pub fn pids(&self) -> Vec<u32> {
        if !self.owner.stamp.is_current() {
            return Vec::new();
        }
        lock(&self.owner.state).hands.iter().flatten().map(|hand| hand.process.pid()).collect()
    }

    /// Gives it another number of workers. New ones are started; those who are too many leave when they are done with their task.
    ///
    /// # Errors
    /// `OutOfRange`; `Closed`; why workers cannot be started any more; `UsedAfterFork`.
    pub fn resize(&self, workers: usize) -> Result<()> {
        self.owner.stamp.check()?;
        builder::check_workers(workers)?;
        self.owner.resize(workers)
    }

    /// Takes no more tasks. What was asked for is done, then the workers end. Whoever waits for results gets them.
    ///
    /// # Errors
    /// `UsedAfterFork`.
    pub fn close(&self) -> Result<()> {
        self.owner.stamp.check()?;
        self.owner.close();
        Ok(())
    }

    /// Ends the workers at once, whatever they do: what is not done fails with an error of kind `Closed`.
    ///
    /// # Errors
    /// `UsedAfterFork`.
    pub fn terminate(&self) -> Result<()> {
        self.owner.stamp.check()?;
        self.owner.give_up(&Error::new(ErrorKind::Closed, "the pool was terminated before this was done"));
        self.owner.close();
        lock(&self.owner.state).hands.iter().flatten().for_each(|hand| {
            // It is gone, then.
            let _ = hand.process.kill();
        });
        Ok(())
    }

    /// Waits until all workers have ended, after [`close`](Self::close) or [`terminate`](Self::terminate).
    ///
    /// # Errors
    /// `Refused` if the pool is open: it would take for ever; `Deadlock` in a callback of the pool; `UsedAfterFork`.
    pub fn join(&self) -> Result<()> {
        self.join_until(None).map(drop)
    }

    /// The same for so long at the most. `false`: there are workers left.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn join_timeout(&self, timeout: Duration) -> Result<bool> {
        self.join_until(Instant::now().checked_add(timeout))
    }

    fn join_until(&self, deadline: Option<Instant>) -> Result<bool> {
        self.owner.stamp.check()?;
        if IS_KEEPER.get() {
            return Err(Error::new(ErrorKind::Deadlock, "a callback of a pool cannot wait for the pool's end: it runs on a thread of it"));
        }
        let mut state = lock(&self.owner.state);
        if !state.closed {
            return Err(Error::new(ErrorKind::Refused, "the pool is open, and will not end: `close` it first, or `terminate` it"));
        }
        while !(state.ended && state.hands.iter().all(Option::is_none)) {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(false);
            }
            let longest = left.unwrap_or(Duration::MAX).min(Duration::from_secs(3600));
            state = self.owner.changed.wait_timeout(state, longest).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(true)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let keeper = self.keeper.take();
        if !self.owner.stamp.is_current() {
            // Workers and thread are the parent's, and so is whatever the lock protects.
            std::mem::forget(keeper);
            return;
        }
        let _ = self.terminate();
        ring_bell(&self.owner.bell);
        match keeper {
            // A callback that drops the pool's last handle cannot wait for itself.
            Some(keeper) if !IS_KEEPER.get() => drop(keeper.join()),
            Some(_) => {}
            None => self.owner.bury_all(),
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.owner.stamp.is_current() {
            return f.write_str("<Pool of another process>");
        }
        let state = lock(&self.owner.state);
        let what = match (&state.broken, state.closed) {
            (Some(_), _) => "ended",
            (None, true) => "closed",
            (None, false) => "open",
        };
        write!(f, "<Pool {:?}, {} workers, {what}>", self.owner.settings.name, state.wanted)
    }
}
