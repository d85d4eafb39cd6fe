//! Barrier: so many parties wait for each other, round after round.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | *state* |
//! | 8 | 4 | eventcount |
//! | 16 | 8 | parties |
//! | 64 | 8 × parties | slots |
//!
//! | bits of the state | what |
//! |---|---|
//! | 0–31 | number of the round |
//! | 32–47 | how the last 16 rounds ended: bit 32 the last one, 1 if it was broken |
//! | 48 | BROKEN: nobody passes any more, until a reset |
//! | 49 | ACTING: all are here, and one of them does what is to be done before they pass |
//! | 50–63 | rounds since the last one that was broken, as far as there is room: for who was stopped longer than bits 32–47 remember |
//!
//! A slot says which session arrived in it, in which round (modulo 2²², where a claim has the thread). So to arrive is one
//! exchange, and all slots are free again as soon as the round's number is another: nobody has to clear them, and nobody can die
//! in the middle of it. Whoever finds that all slots are of this round tries to make it ACTING; one succeeds, and is the leader.
//!
//! A round is broken by a time-out of one who waits, by an abort, by a reset while somebody waits, and by the death of a party:
//! of one that has arrived, or had arrived in the last round and had not let the barrier go.

use super::{Claim, Eventcount, Memory, Waiting, Word, scribbled};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{BARRIER_PARTIES_MAX, LOCK_LOOK_MS, RECOVERY_ATTEMPTS_MAX};
use crate::liveness::{Slept, disconnected};
use crate::points;

/// Bytes of a barrier without its slots.
pub const BARRIER_BYTES: usize = SLOTS;
/// Offset of the number of parties.
pub const PARTIES: usize = 16;

const STATE: usize = 0;
const WAITERS: usize = 8;
const SLOTS: usize = 64;

const BROKEN: u64 = 1 << 48;
const ACTING: u64 = 1 << 49;
const ROUND: u64 = u32::MAX as u64;
const HISTORY_SHIFT: u32 = 32;
const HISTORY_BITS: u32 = 16;
const CALM_SHIFT: u32 = 50;
const CALM_MAX: u64 = (1 << (64 - CALM_SHIFT)) - 1;
/// Bits of a round's number that a slot has.
const SLOT_ROUND: u64 = (1 << 22) - 1;

/// A party's place in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its slot: each party of the round has another.
    pub index: usize,
    /// Whether it is the leader, for whom the others wait.
    pub leads: bool,
    /// The round's number.
    pub round: u64,
}

/// The words at an offset, as a barrier.
pub struct Barrier<'m, M: Memory + ?Sized> {
    memory: &'m M,
    at: usize,
    parties: usize,
}

fn broken() -> Error {
    let text = "the barrier is broken: a party has died, has waited too long, or somebody has aborted or reset it; `reset` it to go on";
    Error::new(ErrorKind::Broken, text)
}

impl<'m, M: Memory + ?Sized> Barrier<'m, M> {
    /// The barrier at this offset; an error if it says that it has more parties than `slots_max`, or none.
    pub fn new(memory: &'m M, at: usize, slots_max: usize) -> Result<Self> {
        let parties = memory.word(at + PARTIES).load();
        if parties == 0 || parties > slots_max.min(BARRIER_PARTIES_MAX) as u64 {
            return Err(scribbled("barrier"));
        }
        Ok(Barrier { memory, at, parties: parties as usize })
    }

    fn state(&self) -> &'m M::Word {
        self.memory.word(self.at + STATE)
    }

    fn waiters(&self) -> Eventcount<'m, M> {
        Eventcount::new(self.memory, self.at + WAITERS)
    }

    fn slot(&self, index: usize) -> &'m M::Word {
        self.memory.word(self.at + SLOTS + 8 * index)
    }

    fn is_of_round(word: u64, round: u64) -> bool {
        Claim::of(word).is_some_and(|claim| u64::from(claim.thread()) == round & SLOT_ROUND)
    }

    /// Whether a slot is free in a round. One of a later round is not: who looks for a place may have been stopped since it read the
    /// round, and must not take away another's.
    fn is_before_round(word: u64, round: u64) -> bool {
        let later = |claim: Claim| u64::from(claim.thread()).wrapping_sub(round) & SLOT_ROUND;
        Claim::of(word).is_none_or(|claim| later(claim) > SLOT_ROUND / 2)
    }

    /// How many must come.
    pub fn parties(&self) -> usize {
        self.parties
    }

    /// The sessions of those who have come and wait.
    pub fn arrived(&self) -> impl Iterator<Item = u64> + '_ {
        let round = self.state().load() & ROUND;
        let words = (0..self.parties).map(|index| self.slot(index).load());
        words.filter(move |word| Self::is_of_round(*word, round)).filter_map(Claim::of).map(Claim::session)
    }

    /// Whether nobody passes any more.
    pub fn is_broken(&self) -> bool {
        self.state().load() & BROKEN != 0
    }

    /// Arrives, waiting for a place while the last round's parties are all here and on their way.
    pub fn arrive(&self, session: u64, waiting: &impl Waiting<M>) -> Result<Arrival> {
        loop {
            let prepared = self.waiters().prepare();
            let state = self.state().load();
            if state & BROKEN != 0 {
                return Err(broken());
            }
            let round = state & ROUND;
            let mine = Claim::new(session, (round & SLOT_ROUND) as u32);
            let take = |suits: &dyn Fn(u64) -> bool| {
                (0..self.parties).find(|index| {
                    let word = self.slot(*index).load();
                    Self::is_before_round(word, round) && suits(word) && self.slot(*index).compare_exchange(word, mine.word()).is_ok()
                })
            };
            // Its own of the last round, so that what others have left there can still be known of them when they die.
            let last = round.wrapping_sub(1) & ROUND;
            let place = take(&|word| Claim::is_of(word, session)).or_else(|| take(&|word| !Self::is_of_round(word, last)));
            let place = place.or_else(|| take(&|_| true));
            let Some(index) = place else {
                if waiting.is_over() {
                    let text = "all parties of the round before have come, and it has not been let through in time: there is no place for another one yet";
                    return Err(Error::new(ErrorKind::TimedOut, text));
                }
                if self.waiters().sleep(prepared, waiting, LOCK_LOOK_MS)? == Slept::ManagerDied {
                    return Err(disconnected());
                }
                continue;
            };
            points::client("barrier: arrived");
            let arrival = Arrival { index, leads: false, round };
            // Or passed already, if this was the last one.
            self.has_passed(round)?;
            let all = self.arrived().count() == self.parties;
            let leads = all && self.state().compare_exchange(state, state | ACTING).is_ok();
            return Ok(Arrival { leads, ..arrival });
        }
    }

    /// Whether a round is over; an error if it was broken.
    fn has_passed(&self, round: u64) -> Result<bool> {
        let state = self.state().load();
        let since = (state & ROUND).wrapping_sub(round) & ROUND;
        let failed = match since {
            0 => state & BROKEN != 0,
            since if since <= u64::from(HISTORY_BITS) => state >> (u64::from(HISTORY_SHIFT) + since - 1) & 1 == 1,
            since => since > state >> CALM_SHIFT,
        };
        if failed { Err(broken()) } else { Ok(since > 0) }
    }

    /// The leader lets the others pass.
    pub fn open(&self, arrival: Arrival) -> Result<()> {
        let state = self.state().load();
        points::client("barrier: before it is opened");
        if state & ROUND != arrival.round || state & BROKEN != 0 || self.state().compare_exchange(state, Self::next(state, false)).is_err()
        {
            return Err(broken());
        }
        points::client("barrier: open, nobody woken");
        self.waiters().notify_all();
        Ok(())
    }

    /// The state after a round.
    fn next(state: u64, was_broken: bool) -> u64 {
        let history = (state >> HISTORY_SHIFT << 1 | u64::from(was_broken)) & ((1 << HISTORY_BITS) - 1);
        let calm = if was_broken { 0 } else { ((state >> CALM_SHIFT) + 1).min(CALM_MAX) };
        state.wrapping_add(1) & ROUND | history << HISTORY_SHIFT | calm << CALM_SHIFT
    }

    /// Waits until the others have come, and the leader opens.
    pub fn wait(&self, arrival: Arrival, waiting: &impl Waiting<M>) -> Result<()> {
        let mut passed = Ok(false);
        if waiting.spin(&mut || {
            passed = self.has_passed(arrival.round);
            !matches!(passed, Ok(false))
        }) {
            return passed.map(|_| ());
        }
        loop {
            let prepared = self.waiters().prepare();
            if self.has_passed(arrival.round)? {
                return Ok(());
            }
            if waiting.is_over() {
                self.break_round(Some(arrival.round));
                // Unless it has passed at the last moment.
                return if self.has_passed(arrival.round).is_ok_and(|passed| passed) { Ok(()) } else { Err(self.late()) };
            }
            if self.waiters().sleep(prepared, waiting, LOCK_LOOK_MS)? == Slept::ManagerDied {
                return Err(disconnected());
            }
        }
    }

    fn late(&self) -> Error {
        let text = "the other parties did not come in time, and the barrier is broken now: `reset` it to go on";
        Error::new(ErrorKind::TimedOut, text)
    }

    /// Breaks the round, or any.
    pub fn break_round(&self, round: Option<u64>) {
        for _ in 0..RECOVERY_ATTEMPTS_MAX {
            let state = self.state().load();
            if state & BROKEN != 0 || round.is_some_and(|round| round != state & ROUND) {
                return;
            }
            if self.state().compare_exchange(state, state | BROKEN).is_ok() {
                points::client("barrier: broken, nobody woken");
                return self.waiters().notify_all();
            }
        }
    }

    /// Makes it whole again, for a new round. Who waits in the old one gets an error.
    pub fn reset(&self) {
        loop {
            let state = self.state().load();
            if state & BROKEN == 0 && state & ACTING == 0 && self.arrived().next().is_none() {
                return;
            }
            if self.state().compare_exchange(state, Self::next(state, true)).is_ok() {
                points::client("barrier: reset, nobody woken");
                return self.waiters().notify_all();
            }
        }
    }

    /// A session is over. If it was a party of this round, or had been one of the last round and `held` the barrier still, those who
    /// wait would wait for ever.
    pub fn recover(&self, session: u64, held: bool) {
        let round = self.state().load() & ROUND;
        let last = round.wrapping_sub(1) & ROUND;
        let was_party = (0..self.parties)
            .map(|index| self.slot(index).load())
            .any(|word| Claim::is_of(word, session) && (Self::is_of_round(word, round) || (held && Self::is_of_round(word, last))));
        if was_party {
            self.break_round(None);
        }
        self.waiters().recover();
    }
}
