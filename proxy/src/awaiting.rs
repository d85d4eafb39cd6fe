//! Awaiting: what futures of ours do between two polls, and the thread that wakes them. With the feature `async`.
//!
//! No runtime is asked for, and none is started. A future tries what the blocking form tries; if there is nothing yet, it leaves word with
//! the *watcher*, and is polled again by whatever executor it lives in. The watcher is one thread of this process, started by the first
//! future that has to wait; it sleeps in [`wait`](crate::wait()) for everything that anybody awaits, and for a bell.
//!
//! | | a future's poll | the watcher |
//! |---|---|---|
//! | 1 | tries; if that gives a result, this is the end | forgets the bell, and lists what is awaited |
//! | 2 | enters its waker and what it awaits under [`AWAITED`], unless they stand there; rings if the watcher may not know | prepares all of it, looks, sleeps |
//! | 3 | | takes what is ready off the list, and calls *all* its wakers |
//!
//! **No wake-up is lost.** What is ready is a state, which stays until somebody takes it, and the watcher looks at it after it has read
//! the list: what became ready between 1 and 2 is found there. Of a queue's space and of an event, which may be ready for a moment only, a
//! future says what it saw *before* it tried in vain (a number that every change raises), and ready is what differs from it. Who made space
//! may be stopped before it raises the number: so space is ready once in a while all the same, and the future tries again (INV-22).
//!
//! **Nothing is taken ahead.** The watcher takes no item, no room and no result: a future does, in the poll that returns it. So one that is
//! dropped has nothing to give back. It need not pass its wake-up on to other futures of this process either, because all of them were woken;
//! nor to other processes, because `wait` has done so for items ([`Source::pass_on`]). Only who was woken for room that it leaves does.
//!
//! **Deaths.** The watcher sleeps as every sleeper does, on the manager's alive word as well, and looks now and then; what can only fail is
//! ready, so that the next poll says why. If this process can sleep no more (no thread, no descriptor is to be had), all futures that wait
//! fail with that. A forked child has a list and a watcher of its own ([`PerLife`]).
//!
//! Neither wakers nor sources are called or dropped under the lock: they may run anything, such as the end of a task with futures in it.

use crate::panics::shielded;
use crate::wait::{Places, Source, Waitable, wait_until};
use commonhold_ipc::error::{Error, Result};
use commonhold_ipc::fork::{PerLife, Stamp};
use commonhold_ipc::sys;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Waker;
use std::thread;

/// What is awaited: the same for all who await the same, who need to be watched once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// An item of this manager's queue, or its end.
    Items(u64, u64),
    /// Another number of its eventcount of room than this.
    Room(u64, u64, u32),
    /// Another state of this manager's event than this.
    Event(u64, u64, u64),
    /// The end of a child: where what is known of it lies.
    Child(usize),
    /// The end of the parent.
    Parent,
}

type Watched = Arc<dyn Waitable + Send + Sync>;

/// Those who await the same.
struct Awaited {
    thing: Watched,
    wakers: HashMap<u64, Waker>,
}

#[derive(Default)]
struct List {
    /// What wakes the watcher, once there is one.
    bell: Option<Arc<Bell>>,
    /// It has been rung, and the watcher has not read the list since.
    rung: bool,
    /// The next future's number.
    next: u64,
    awaited: HashMap<Key, Awaited>,
    /// Why nothing can be waited for, for futures that have not heard it yet.
    failures: HashMap<u64, Error>,
}

/// Everything that futures of this process wait for.
static AWAITED: PerLife<List> = PerLife::new();

/// Wakes the watcher, whether it sleeps on words or on descriptors. Rung and heard under the list's lock alone: so what was heard is silent.
struct Bell {
    word: AtomicU32,
    /// The word when the list was last read: the watcher's own.
    heard: AtomicU32,
    descriptor: OwnedFd,
    /// Whether the watcher sleeps on words this time.
    by_word: AtomicBool,
}

impl Bell {
    fn ring(&self) {
        // SYNC: Release orders the list's change, which is under its lock anyway, before the wake-up.
        self.word.fetch_add(1, Ordering::Release);
        sys::futex_wake_all(&self.word);
        sys::ring_bell(&self.descriptor);
    }

    /// All that was rung for up to now is about to be seen.
    fn hear(&self) {
        self.heard.store(self.word.load(Ordering::Acquire), Ordering::Relaxed);
        sys::silence_bell(&self.descriptor);
    }
}

impl Source for Bell {
    fn is_ready(&self) -> bool {
        self.word.load(Ordering::Acquire) != self.heard.load(Ordering::Relaxed)
    }

    fn prepare<'w>(&'w self, places: &mut Places<'w>) {
        if self.by_word.load(Ordering::Relaxed) {
            places.add_own_word(&self.word, self.heard.load(Ordering::Relaxed));
        } else {
            places.add_descriptor(self.descriptor.as_fd());
        }
    }

    fn is_in_memory(&self) -> bool {
        true
    }
}

impl List {
    /// Rings, unless the watcher is about to read the list anyway; starts it if there is none.
    fn ring(&mut self) -> Result<()> {
        let bell = match &self.bell {
            Some(bell) => bell,
            None => self.bell.insert(start()?),
        };
        if !std::mem::replace(&mut self.rung, true) {
            bell.ring();
        }
        Ok(())
    }
}

fn start() -> Result<Arc<Bell>> {
    let (word, heard, by_word) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
    let bell = Arc::new(Bell { word, heard, descriptor: sys::bell()?, by_word });
    let watchers = bell.clone();
    thread::Builder::new()
        .name("commonhold-async".into())
        .spawn(move || watch(&watchers))
        .map_err(|error| Error::system("could not start the thread that wakes futures", error))?;
    Ok(bell)
}

/// What the watcher does, for as long as the process lives.
fn watch(bell: &Bell) {
    loop {
        let watched: Vec<(Key, Watched)> = {
            let mut list = AWAITED.lock();
            bell.hear();
            list.rung = false;
            list.awaited.iter().map(|(key, awaited)| (*key, awaited.thing.clone())).collect()
        };
        bell.by_word.store(watched.iter().any(|(_, thing)| thing.is_in_memory()), Ordering::Relaxed);
        let things: Vec<&dyn Waitable> =
            [bell as &dyn Waitable].into_iter().chain(watched.iter().map(|(_, thing)| &**thing as _)).collect();
        match wait_until(&things, None) {
            Ok(ready) => {
                let ready = ready.into_iter().filter_map(|place| watched.get(place.checked_sub(1)?));
                wake(ready.map(|(key, _)| *key), None);
            }
            Err(error) => wake(watched.iter().map(|(key, _)| *key), Some(&error)),
        }
    }
}

/// Takes what is ready off the list, and calls who awaits it.
fn wake(ready: impl Iterator<Item = Key>, failure: Option<&Error>) {
    let woken: Vec<Awaited> = {
        let mut list = AWAITED.lock();
        let woken: Vec<Awaited> = ready.filter_map(|key| list.awaited.remove(&key)).collect();
        if let Some(error) = failure {
            let numbers = woken.iter().flat_map(|awaited| awaited.wakers.keys());
            list.failures.extend(numbers.map(|number| (*number, error.clone())));
        }
        woken
    };
    for Awaited { thing, wakers } in woken {
        for waker in wakers.into_values() {
            // A panic of an executor's was reported by its hook; the others have their turn.
            shielded(|| waker.wake());
        }
        drop(thing);
    }
}

/// A future's place on the list. Dropped, the future waits for nothing.
pub(crate) struct Place {
    stamp: Stamp,
    number: u64,
    key: Key,
}

impl Place {
    /// Has `waker` called when `thing` is ready: from now on, if it was not, or was called meanwhile.
    ///
    /// # Errors
    /// `UsedAfterFork`; `System` if this process cannot wait.
    pub(crate) fn keep(place: &mut Option<Place>, key: Key, waker: &Waker, thing: impl FnOnce() -> Watched) -> Result<()> {
        if place.as_ref().is_some_and(|place| place.key != key || !place.stamp.is_current()) {
            *place = None;
        }
        // Made and dropped without the lock: see the module's head.
        let (waker, thing) = (waker.clone(), thing());
        let mut list = AWAITED.lock();
        let number = match place {
            Some(place) => place.number,
            None => {
                list.next += 1;
                place.insert(Place { stamp: Stamp::now(), number: list.next, key }).number
            }
        };
        if let Some(error) = list.failures.remove(&number) {
            return Err(error);
        }
        let mut is_new = false;
        let awaited = list.awaited.entry(key).or_insert_with(|| {
            is_new = true;
            Awaited { thing: thing.clone(), wakers: HashMap::new() }
        });
        let before = awaited.wakers.insert(number, waker);
        let rung = if is_new { list.ring() } else { Ok(()) };
        // What stands on the list is watched: without a watcher, whoever awaits the same next is the first again.
        let refused = if rung.is_err() { list.awaited.remove(&key) } else { None };
        drop(list);
        drop((before, thing, refused));
        rung
    }

    /// Whether it is on the list no more, because what it waited for was ready.
    pub(crate) fn was_woken(&self) -> bool {
        let list = AWAITED.lock();
        self.stamp.is_current() && !list.awaited.get(&self.key).is_some_and(|awaited| awaited.wakers.contains_key(&self.number))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.stamp.is_current() {
            return;
        }
        let mut list = AWAITED.lock();
        let failure = list.failures.remove(&self.number);
        let mut waker = None;
        let is_last = list.awaited.get_mut(&self.key).is_some_and(|awaited| {
            waker = awaited.wakers.remove(&self.number);
            awaited.wakers.is_empty()
        });
        // The watcher lets go of what nobody awaits any more. (That it cannot be rung is impossible: it has been started.)
        let awaited = if is_last { list.awaited.remove(&self.key) } else { None };
        if is_last {
            let _ = list.ring();
        }
        drop(list);
        drop((failure, waker, awaited));
    }
}
