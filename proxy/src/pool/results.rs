//! What comes back: [`AsyncResult`], [`Imap`], and how far something is.

use super::feed::Feeder;
use super::job::Job;
use super::owner::Owner;
use super::wait::Patience;
use crate::unpoisoned::lock;
use commonhold_ipc::error::Result;
use commonhold_ipc::value::Shared;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Results that are still to come, of [`Pool::apply_async`](super::Pool::apply_async) or [`Pool::map_async`](super::Pool::map_async).
/// `Send + Sync`.
///
/// Its answer stays, a result as well as an error: whatever is asked of it can be asked again. Dropped, it lets its tasks go on; nobody sees
/// their results.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// use commonhold::Pool;
/// let pool = Pool::new(2)?;
/// let first = pool.apply_async(|x: u64| x * 2, 21)?;
/// let all = pool.map_async(|x: u64| x * x, 1..=3)?;
/// assert_eq!((first.get()?, all.get()?), (42, vec![1, 4, 9]));
/// assert!(first.is_ready());
/// # Ok(())
/// # }
/// ```
pub struct AsyncResult<T> {
    owner: Arc<Owner>,
    job: Arc<Job>,
    make: fn(&Job) -> Result<T>,
    #[cfg(feature = "async")]
    awaited: Option<Arc<Awaited>>,
}

/// Who awaits a result.
#[cfg(feature = "async")]
type Awaited = std::sync::Mutex<Option<std::task::Waker>>;

impl<T> AsyncResult<T> {
    pub(super) fn new(owner: Arc<Owner>, job: Arc<Job>, make: fn(&Job) -> Result<T>) -> Self {
        AsyncResult {
            owner,
            job,
            make,
            #[cfg(feature = "async")]
            awaited: None,
        }
    }

    /// Whether [`get`](Self::get) has an answer at once.
    pub fn is_ready(&self) -> bool {
        if self.owner.stamp.is_current() && !self.job.is_finished() {
            self.owner.collect();
        }
        self.job.is_finished()
    }

    /// Waits until it is ready. `false`: it is not after `timeout`; `None` waits for as long as it takes.
    ///
    /// # Errors
    /// `UsedAfterFork` in a forked child; `Deadlock` in a callback of the same pool.
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<bool> {
        self.wait_until(timeout.into().and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<bool> {
        loop {
            let seen = self.job.arrivals();
            if self.job.is_finished() {
                return Ok(true);
            }
            if !self.owner.wait(&self.job, seen, Patience::Close, deadline)? {
                return Ok(false);
            }
        }
    }

    /// Waits for the result. It can be got again.
    ///
    /// # Errors
    /// As [`Pool::apply`](super::Pool::apply), [`Pool::map`](super::Pool::map); and as [`wait`](Self::wait).
    pub fn get(&self) -> Result<T> {
        self.wait_until(None)?;
        (self.make)(&self.job)
    }

    /// The same, but gives up after a while: `None`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<Option<T>> {
        if self.wait(timeout)? { (self.make)(&self.job).map(Some) } else { Ok(None) }
    }

    /// Has `callback` called with the result when it is ready: on the pool's own thread, which must not wait for other results of the
    /// pool meanwhile. A panic there is reported and goes no further.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// use commonhold::Pool;
    /// let (sender, receiver) = std::sync::mpsc::channel();
    /// let pool = Pool::new(1)?;
    /// pool.apply_async(|x: u64| x * 2, 21)?.then(move |result| sender.send(result.unwrap()).unwrap());
    /// assert_eq!(receiver.recv().unwrap(), 42);
    /// # Ok(())
    /// # }
    /// ```
    pub fn then(self, callback: impl FnOnce(Result<T>) + Send + 'static)
    where
        T: 'static,
    {
        if !self.owner.stamp.is_current() {
            return;
        }
        let make = self.make;
        self.owner.call_back_when(&self.job, Box::new(move |job| callback(make(job))));
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let (done, total) = {
            let gathered = lock(&self.job.gathered);
            (gathered.done, gathered.total)
        };
        let running = if self.owner.stamp.is_current() { self.owner.running(&self.job) } else { 0 };
        let total = total.unwrap_or(done);
        Progress { done: (done + running).min(total), total }
    }

    /// How far it is, again and again: whenever that has changed, until it is finished.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// use commonhold::Pool;
    /// let pool = Pool::builder().workers(2).chunk_size(1).build()?;
    /// let squares = pool.map_async(|x: u64| x * x, 0..100)?;
    /// for progress in squares.watch() {
    ///     println!("{} of {}", progress.done, progress.total);
    /// }
    /// assert_eq!(squares.get()?.len(), 100);
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(&self) -> Watch<'_, T> {
        Watch { result: self, last: None }
    }
}

/// Awaited, in any executor, with the feature `async`: what [`get`](AsyncResult::get) gives. It can be awaited again, or by reference:
/// `(&mut result).await`. The pool's own thread wakes who awaits it.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// use commonhold::Pool;
/// let pool = Pool::new(2)?;
/// pollster::block_on(async {
///     let mut all = pool.map_async(|x: u64| x * x, 1..=3)?;
///     assert_eq!(pool.apply_async(|x: u64| x * 2, 21)?.await?, 42);
///     assert_eq!((&mut all).await?, [1, 4, 9]);
///     assert_eq!(all.await?, [1, 4, 9]);
///     Ok(())
/// })
/// # }
/// ```
#[cfg(feature = "async")]
impl<T> Future for AsyncResult<T> {
    type Output = Result<T>;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<T>> {
        use std::task::Poll;
        self.owner.stamp.check()?;
        if self.is_ready() {
            return Poll::Ready((self.make)(&self.job));
        }
        self.owner.may_wait()?;
        let waker = context.waker().clone();
        if let Some(awaited) = &self.awaited {
            let before = lock(awaited).replace(waker);
            drop(before);
        } else {
            let awaited: Arc<Awaited> = Arc::new(Some(waker).into());
            // Weak: dropped, it keeps nobody's task.
            let its = Arc::downgrade(&awaited);
            self.awaited = Some(awaited);
            let call = move |_: &Job| {
                let waker = its.upgrade().and_then(|awaited| lock(&awaited).take());
                waker.into_iter().for_each(std::task::Waker::wake);
            };
            self.owner.call_back_when(&self.job, Box::new(call));
        }
        // Who was called back in between has found no waker, or another one.
        if self.job.is_finished() { Poll::Ready((self.make)(&self.job)) } else { Poll::Pending }
    }
}

impl<T> fmt::Debug for AsyncResult<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Progress { done, total } = self.progress();
        write!(f, "<AsyncResult of `{}`, {done} of {total} done>", self.job.entry.name())
    }
}

/// How many calls are done, of how many. See [`AsyncResult::progress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Calls that have returned, or failed.
    pub done: u64,
    /// Calls in all.
    pub total: u64,
}

/// Counts as they change. Ends with the one in which all is done, or when a call has failed. See [`AsyncResult::watch`].
pub struct Watch<'r, T> {
    result: &'r AsyncResult<T>,
    last: Option<Progress>,
}

impl<T> fmt::Debug for Watch<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("last", &self.last).finish_non_exhaustive()
    }
}

/// Longest wait between two looks at tasks of many calls, which tell of nothing before their end.
const LOOK: Duration = Duration::from_millis(100);

impl<T> Iterator for Watch<'_, T> {
    type Item = Progress;

    fn next(&mut self) -> Option<Progress> {
        loop {
            let seen = self.result.job.arrivals();
            let finished = self.result.is_ready();
            let progress = self.result.progress();
            if self.last != Some(progress) {
                self.last = Some(progress);
                return self.last;
            }
            if finished {
                return None;
            }
            // In a forked child, and in a callback, nothing would come.
            self.result.owner.wait(&self.result.job, seen, Patience::Close, Some(Instant::now() + LOOK)).ok()?;
        }
    }
}

/// Results as they are asked for, of [`Pool::imap`](super::Pool::imap) and [`Pool::imap_unordered`](super::Pool::imap_unordered).
///
/// Takes no more from its input than the pool's look-ahead beyond what it has given. Behind its last result it gives `None` for ever, and takes
/// nothing more from its input. If the pool ends, what has not come is an error each, and that is its end. Dropped, it calls off what no worker has
/// begun.
pub struct Imap<I: Iterator, R> {
    owner: Arc<Owner>,
    job: Arc<Job>,
    feeder: Feeder<I>,
    look_ahead: u64,
    ordered: bool,
    given: u64,
    /// What has come, by its number; in the order in which it came, if that will do.
    here: BTreeMap<u64, Result<R>>,
    come: u64,
    ended: bool,
    _result: PhantomData<fn() -> R>,
}

impl<I, R> Imap<I, R>
where
    I: Iterator<Item: Shared>,
    R: Shared,
{
    pub(super) fn new(owner: Arc<Owner>, job: Arc<Job>, feeder: Feeder<I>, look_ahead: u64, ordered: bool) -> Self {
        let mut imap =
            Imap { owner, job, feeder, look_ahead, ordered, given: 0, here: BTreeMap::new(), come: 0, ended: false, _result: PhantomData };
        imap.feed();
        imap
    }

    /// Items that were taken from the input and whose results were not given yet.
    fn ahead(&self) -> u64 {
        self.feeder.fed - self.given
    }

    fn feed(&mut self) {
        while !self.feeder.ended && self.ahead() < self.look_ahead && self.owner.has_room(self.ahead() - self.here.len() as u64) {
            let most = self.look_ahead - self.ahead();
            let (chunk, failure) = self.feeder.next(&self.owner, &self.job, most);
            if let Some(chunk) = chunk {
                let (first, calls) = (chunk.first, chunk.calls);
                if let Err(error) = self.owner.submit(chunk) {
                    // Nothing works any more.
                    self.feeder.ended = true;
                    (first..first + u64::from(calls)).for_each(|number| self.put(number, Err(error.clone())));
                }
            }
            if let Some((number, error)) = failure {
                self.put(number, Err(error));
            }
        }
    }

    fn put(&mut self, number: u64, result: Result<R>) {
        let key = if self.ordered { number } else { self.come };
        self.come += 1;
        self.here.insert(key, result);
    }

    /// Takes what has come. Whether it was the pool's end.
    fn take(&mut self) -> bool {
        let (pieces, error) = {
            let mut gathered = lock(&self.job.gathered);
            (std::mem::take(&mut gathered.pieces), gathered.error.clone())
        };
        for piece in pieces {
            for at in 0..piece.items.len() {
                self.put(piece.first + at as u64, piece.get(at));
            }
        }
        let Some(error) = error else { return false };
        for number in self.given..self.feeder.fed {
            self.here.entry(number).or_insert_with(|| Err(error.clone()));
        }
        true
    }
}

impl<I, R> Iterator for Imap<I, R>
where
    I: Iterator<Item: Shared>,
    R: Shared,
{
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        loop {
            if self.ended {
                return None;
            }
            // Before it feeds: in a forked child the board is not there.
            if let Err(error) = self.owner.stamp.check() {
                self.ended = true;
                return Some(Err(error));
            }
            self.feed();
            let seen = self.job.arrivals();
            let broken = self.take();
            if let Some(result) = self.here.remove(&self.given) {
                self.given += 1;
                return Some(result);
            }
            if broken || self.feeder.ended && self.given == self.feeder.fed {
                self.ended = true;
                return None;
            }
            if let Err(error) = self.owner.wait(&self.job, seen, Patience::Close, None) {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }
}

impl<I, R> std::iter::FusedIterator for Imap<I, R>
where
    I: Iterator<Item: Shared>,
    R: Shared,
{
}

impl<I: Iterator, R> Drop for Imap<I, R> {
    fn drop(&mut self) {
        self.owner.finish(&self.job);
    }
}

impl<I: Iterator, R> fmt::Debug for Imap<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<results of `{}`, {} given of {} begun>", self.job.entry.name(), self.given, self.feeder.fed)
    }
}
