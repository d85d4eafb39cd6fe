//! The keeper: a thread of each pool that sleeps until something happens that no caller takes care of.
//!
//! It sees workers end, by their sentinels, and puts others into their places; it ends those whose call takes longer than it may; it
//! collects results while nobody waits for any, and runs callbacks. While callers wait, workers do not wake it: it costs nothing then.

use super::frames::Space;
use super::owner::{Chunk, Hand, Owner, State};
use super::wait::IS_KEEPER;
use super::worker::work;
use crate::panics::shielded;
use crate::process::Process;
use crate::unpoisoned::lock;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::{DESCRIPTORS_POLLED_MAX, POOL_IDLE_DEATHS_MAX, POOL_LOOK_MS, POOL_START_TRIES};
use commonhold_ipc::pool::State as SlotState;
use commonhold_ipc::sys::{End, monotonic_ns, silence_bell, wait_readable, wait_readable_any};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How the last starts have gone.
#[derive(Default)]
struct Starts {
    /// Workers in a row that died before they looked for a task, or could not be started.
    failed: u32,
    /// Workers in a row that died while they did nothing.
    idle_deaths: u32,
    /// One could not be started: it is tried again.
    again: bool,
}

/// The keeper's whole life.
pub(super) fn keep(owner: &Owner) {
    IS_KEEPER.set(true);
    let mut starts = Starts::default();
    loop {
        owner.clear_up();
        owner.replace(&mut starts);
        let hands = owner.hands();
        if hands.is_empty() && owner.is_over() {
            return;
        }
        // A worker that was to tell it may be stopped, or dead, just before.
        let look = (owner.rearm() || starts.again).then(|| Instant::now() + Duration::from_millis(POOL_LOOK_MS));
        let deadline = owner.end_the_late().into_iter().chain(look).min();
        let descriptors: Vec<_> = std::iter::once(owner.bell.as_fd()).chain(hands.iter().map(|(_, hand)| hand.sentinel())).collect();
        match wait_readable_any(&descriptors, deadline) {
            Ok(true) => {}
            Ok(false) => owner.look_over(),
            Err(error) => owner.give_up(&error),
        }
        silence_bell(&owner.bell);
        owner.collect();
        owner.reap(&hands, &mut starts);
        owner.call_back();
    }
}

type Hands = Vec<(usize, Arc<Process<Result<()>>>)>;

impl Owner {
    /// Starts the first workers.
    ///
    /// # Errors
    /// What keeps one from being started.
    pub(super) fn start_all(&self) -> Result<()> {
        let wanted = lock(&self.state).wanted;
        (0..wanted).try_for_each(|place| self.start(place))
    }

    /// Ends the workers where there is no keeper to do so.
    pub(super) fn bury_all(&self) {
        for (_, process) in self.hands() {
            let _ = process.kill().and_then(|()| process.wait(None));
        }
    }

    fn start(&self, place: usize) -> Result<()> {
        self.board().open_place(place);
        let number = self.next_number();
        let descriptor = |fd: std::os::fd::BorrowedFd<'_>| {
            fd.try_clone_to_owned().map_err(|error| Error::system("cannot copy a descriptor for a pool's worker", error))
        };
        let key;
        let handed = {
            let mut receiver = lock(&self.receiver);
            key = receiver.begin(place, number)?;
            vec![descriptor(self.file.as_fd())?, descriptor(self.bell.as_fd())?, descriptor(receiver.for_worker())?]
        };
        let settings = &self.settings;
        let mut builder = Process::builder().daemon(true).name(format!("{}-{number}", settings.name)).hand(handed);
        for (name, value) in &settings.environment {
            builder = builder.env(name, value);
        }
        if let Some(cpus) = &settings.cpus {
            let own = if settings.one_cpu_each { &cpus[place % cpus.len()..][..1] } else { &cpus[..] };
            builder = builder.cpus(own.iter().copied());
        }
        let initializer = settings.initializer.as_ref().map(|initializer| initializer.orders());
        let process =
            builder.spawn(work, (place as u32, (number, key), settings.calls_most, settings.time_limit.is_some(), initializer))?;
        let hand = Hand { process: Arc::new(process), sent_away: false, condemned: None, silent: None };
        lock(&self.state).hands[place] = Some(hand);
        Ok(())
    }

    /// Lets go of what dead workers have left, and sees that there is room for what the living send. By the keeper, or when it has ended.
    pub(super) fn clear_up(&self) {
        let gone: Vec<usize> = {
            let State { hands, reading, .. } = &*lock(&self.state);
            (0..hands.len()).filter(|place| hands[*place].is_none() && reading[*place] == 0).collect()
        };
        let mut receiver = lock(&self.receiver);
        receiver.forget(gone);
        receiver.make_room();
    }

    fn next_number(&self) -> u64 {
        let mut state = lock(&self.state);
        state.started += 1;
        state.started
    }

    fn hands(&self) -> Hands {
        let state = lock(&self.state);
        let hands = state.hands.iter().enumerate();
        hands.filter_map(|(place, hand)| Some((place, hand.as_ref()?.process.clone()))).collect()
    }

    fn is_over(&self) -> bool {
        let mut state = lock(&self.state);
        let over = (state.broken.is_some() && state.closed || state.is_done()) && state.callbacks.is_empty();
        if over {
            state.ended = true;
            self.changed.notify_all();
        }
        over
    }

    /// Sees that there are as many workers as there shall be.
    fn replace(&self, starts: &mut Starts) {
        starts.again = false;
        loop {
            let (place, alive) = {
                let mut state = lock(&self.state);
                self.send_away(&mut state);
                let State { hands, reading, wanted, .. } = &*state;
                let over = state.broken.is_some() || state.is_done();
                let place = (0..*wanted).find(|place| !over && hands[*place].is_none() && reading[*place] == 0);
                (place, hands.iter().flatten().count())
            };
            let Some(place) = place else { return };
            Space::clear(&self.file, place as u64 + 1);
            let Err(error) = self.start(place) else { continue };
            starts.failed += 1;
            if alive == 0 && starts.failed >= POOL_START_TRIES {
                let text = format!("the pool has no workers left, and no other can be started: {error}");
                return self.give_up(&Error::caused(error.kind(), text, error));
            }
            starts.again = true;
            return;
        }
    }

    /// Tells those to leave who are too many. In a pool where nothing works any more, or all is done, all are.
    fn send_away(&self, state: &mut State) {
        let (over, wanted) = (state.is_done(), state.wanted);
        for (place, hand) in state.hands.iter_mut().enumerate() {
            let Some(hand) = hand else { continue };
            if state.broken.is_some() {
                // It is gone, or will be.
                let _ = hand.process.kill();
            } else if (over || place >= wanted) && !hand.sent_away {
                hand.sent_away = true;
                self.board().send_away(place);
            }
        }
    }

    /// Kills the workers whose call takes too long. When to look again.
    fn end_the_late(&self) -> Option<Instant> {
        let limit = self.settings.time_limit?;
        let (now, now_ns) = (Instant::now(), monotonic_ns());
        let mut next: Option<Instant> = None;
        let mut state = lock(&self.state);
        let State { slots, hands, .. } = &mut *state;
        let mut is_busy = false;
        for slot in (0..slots.len()).filter(|slot| slots[*slot].is_some()) {
            is_busy = true;
            let word = self.board().state_word(slot);
            let SlotState::Taken(place) = self.board().state(slot) else { continue };
            let Some(Some(hand)) = hands.get_mut(place) else { continue };
            // Of this slot, if it is still the same behind the look at the clock.
            let seen = (word, self.board().clock(place));
            if self.board().state_word(slot) != word {
                continue;
            }
            let clock = seen.1;
            let spent = if clock == 0 || clock & 1 != 0 {
                let since = hand.silent.filter(|(known, _)| *known == seen).map_or(now, |(_, since)| since);
                hand.silent = Some((seen, since));
                now - since
            } else {
                Duration::from_nanos(now_ns.saturating_sub(clock))
            };
            match limit.checked_sub(spent).filter(|left| !left.is_zero()) {
                // (Where a clock has no such moment, there is no limit.)
                Some(left) => next = next.into_iter().chain(now.checked_add(left)).min(),
                None if self.board().condemn(place, clock) => {
                    hand.condemned = Some(word);
                    let _ = hand.process.kill();
                }
                // It has got on just now, or is condemned.
                None => {}
            }
        }
        state.keeper_times = is_busy;
        // A call that begins after this look has all its time.
        next.or_else(|| now.checked_add(limit).filter(|_| is_busy))
    }

    /// Sees which workers have ended.
    fn reap(&self, hands: &Hands, starts: &mut Starts) {
        for some in hands.chunks(DESCRIPTORS_POLLED_MAX) {
            let sentinels: Vec<_> = some.iter().map(|(_, process)| process.sentinel()).collect();
            let Ok(ended) = wait_readable(&sentinels, Some(Instant::now())) else { continue };
            for (number, (place, process)) in some.iter().enumerate() {
                if ended & 1 << number != 0 {
                    self.bury(*place, process, starts);
                }
            }
        }
    }

    /// A worker has ended.
    fn bury(&self, place: usize, process: &Process<Result<()>>, starts: &mut Starts) {
        let end = process.end().ok().flatten().unwrap_or(End::Unknown);
        let outcome = process.join();
        let was_starting = self.board().is_starting(place);
        let condemned = lock(&self.state).hands[place].as_ref().and_then(|hand| hand.condemned);
        let mut busy = condemned.is_some();
        self.recover(place, condemned, |chunk, done| {
            busy = true;
            self.epitaph(process, end, &outcome, condemned.is_some(), chunk, done)
        });
        let sent_away = lock(&self.state).hands[place].take().is_some_and(|hand| hand.sent_away);
        match outcome {
            Ok(Ok(())) => (starts.failed, starts.idle_deaths) = (0, 0),
            Ok(Err(error)) if !was_starting => self.give_up(&error),
            Ok(Err(error)) | Err(error) if was_starting && !sent_away => {
                starts.failed += 1;
                if starts.failed >= POOL_START_TRIES {
                    let text = format!("{} workers of the pool in a row have ended before their first task: {error}", starts.failed);
                    self.give_up(&Error::caused(error.kind(), text, error));
                }
            }
            _ if busy => (starts.failed, starts.idle_deaths) = (0, 0),
            _ => {
                starts.idle_deaths += 1;
                if starts.idle_deaths >= POOL_IDLE_DEATHS_MAX {
                    let text = format!(
                        "{} workers of the pool in a row have died without a task, the last one so: {}; find out what ends them, then make a new pool",
                        starts.idle_deaths,
                        who(process, end)
                    );
                    self.give_up(&Error::new(ErrorKind::Died, text));
                }
            }
        }
    }

    /// Why a call has no result.
    fn epitaph(
        &self,
        process: &Process<Result<()>>,
        end: End,
        outcome: &Result<Result<()>>,
        condemned: bool,
        chunk: &Chunk,
        done: u32,
    ) -> Error {
        let item = chunk.first + u64::from(chunk.over + done);
        let what = format!("while it ran `{}`{}", chunk.job.entry.name(), chunk.job.on_item(item));
        match (outcome, self.settings.time_limit) {
            (Err(error), _) if error.is_panic() => {
                // (With panic=abort.)
                Error::caused(error.kind(), format!("{error}, {what}"), error.clone())
            }
            (_, Some(limit)) if condemned => {
                let text = format!("{} (pid {}) was ended {what}: longer than {limit:?}", process.name(), process.pid());
                Error::new(ErrorKind::TimedOut, text)
            }
            _ => Error::new(ErrorKind::Died, format!("{} {what}", who(process, end))),
        }
    }

    /// Runs the callbacks of jobs that are finished. By the keeper, or when it has ended.
    pub(super) fn call_back(&self) {
        loop {
            let callbacks = std::mem::take(&mut lock(&self.state).callbacks);
            if callbacks.is_empty() {
                return;
            }
            for (job, callback) in callbacks {
                // A panic was reported by its hook; the others have their turn.
                shielded(|| callback(&job));
            }
        }
    }
}

fn who(process: &Process<Result<()>>, end: End) -> String {
    format!("{} (pid {}) {end}", process.name(), process.pid())
}
