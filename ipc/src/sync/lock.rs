//! Lock: mutual exclusion among threads of any processes, that survives any of them.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | *state* |
//! | 8 | 8 | *heir*: the claim of the waiter who comes next, or 0 |
//! | 16 | 4 | eventcount of the waiters |
//! | 20 | 4 | eventcount of the heir |
//! | 24 | 8 | how often the holder has it, of a lock that the same thread may take again |
//! | 32 | 32 | zeros |
//! | 64 | 256 | roster of those who wait, as far as it has room: for people to look at |
//!
//! | state | meaning | who writes it |
//! |---|---|---|
//! | 0 | free | the holder |
//! | DIED | free; its last holder died with it | the manager |
//! | claim | held | its taker, by exchange of a free state |
//! | claim + RESERVED (+ DIED) | free, but for that waiter | the last holder |
//!
//! To take it is one exchange, to give it back one swap, and a look at the line that is here anyway. Newcomers may take it before
//! those who sleep: that is what makes it fast. **Fairness**: a waiter that has waited for `LOCK_PATIENCE_MS` makes itself the heir
//! if there is none, and the next holder to give the lock back reserves it for the heir. Waiters are woken in the order in which
//! they fell asleep. So nobody starves, whatever newcomers do. A reservation is no possession: an heir that does not come within
//! `LOCK_RESERVATION_MS` (it is stopped, it has given up) loses it to whoever waits.

use super::{Claim, Eventcount, FLAGS, Memory, Roster, Waiting, Word, scribbled};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{LOCK_LOOK_MS, LOCK_RESERVATION_MS};
use crate::liveness::{Slept, disconnected};
use crate::points;

/// Bytes of a lock.
pub const LOCK_BYTES: usize = 320;

const STATE: usize = 0;
const HEIR: usize = 8;
const WAITERS: usize = 16;
const HEIRS: usize = 20;
const DEPTH: usize = 24;
const ROSTER: usize = 64;
const SLOTS: usize = 32;
const _: () = assert!(ROSTER + 8 * SLOTS == LOCK_BYTES);

/// Free, but for the waiter that is named.
const RESERVED: u64 = 1;
/// The last holder has died.
const DIED: u64 = 2;
const _: () = assert!(RESERVED | DIED == FLAGS);

/// The lock has been taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its last holder died with it.
    pub owner_died: bool,
}

/// The words at an offset, as a lock.
pub struct Lock<'m, M: Memory + ?Sized> {
    memory: &'m M,
    at: usize,
}

impl<'m, M: Memory + ?Sized> Lock<'m, M> {
    /// The lock at this offset.
    #[inline(always)]
    pub fn new(memory: &'m M, at: usize) -> Self {
        Lock { memory, at }
    }

    #[inline(always)]
    fn state(&self) -> &'m M::Word {
        self.memory.word(self.at + STATE)
    }

    #[inline(always)]
    fn heir(&self) -> &'m M::Word {
        self.memory.word(self.at + HEIR)
    }

    #[inline(always)]
    fn waiters(&self) -> Eventcount<'m, M> {
        Eventcount::new(self.memory, self.at + WAITERS)
    }

    #[inline(always)]
    fn heirs(&self) -> Eventcount<'m, M> {
        Eventcount::new(self.memory, self.at + HEIRS)
    }

    /// Those who wait, as far as the roster has room.
    pub fn roster(&self) -> Roster<'m, M> {
        Roster::new(self.memory, self.at + ROSTER, SLOTS)
    }

    /// Takes the lock if it is free.
    #[inline(always)]
    pub fn try_take(&self, me: Claim) -> Option<Taken> {
        match self.state().compare_exchange(0, me.word()) {
            Ok(()) => Some(Taken { owner_died: false }),
            Err(state) if state & FLAGS == 0 => None,
            Err(state) => self.take_flagged(me, state),
        }
    }

    #[cold]
    fn take_flagged(&self, me: Claim, state: u64) -> Option<Taken> {
        let free = state == DIED || (state & RESERVED != 0 && state & !FLAGS == me.word());
        let taken = free && self.state().compare_exchange(state, me.word()).is_ok();
        taken.then_some(Taken { owner_died: state & DIED != 0 })
    }

    /// Takes the lock, or waits for it; none if the time is over first.
    ///
    /// # Errors
    /// If the caller has it already, if its words make no sense, if the manager is gone.
    #[cold]
    pub fn take(&self, me: Claim, waiting: &impl Waiting<M>) -> Result<Option<Taken>> {
        if self.holder()? == Some(me) {
            let text = "this thread holds this lock already and would wait for itself: give it back first, or use an RLock";
            return Err(Error::new(ErrorKind::Deadlock, text));
        }
        let mut taken = None;
        waiting.spin(&mut || {
            taken = if self.looks_free(me) { self.try_take(me) } else { None };
            taken.is_some()
        });
        if taken.is_some() {
            return Ok(taken);
        }
        let slot = self.roster().enter(me);
        let taken = self.wait(me, waiting);
        if let Some(slot) = slot {
            self.roster().leave(slot);
        }
        if !matches!(taken, Ok(Some(_))) {
            // Somebody may have been woken for nothing, or not been woken because this waiter was.
            let _ = self.heir().compare_exchange(me.word(), 0);
            self.waiters().notify_one();
        }
        taken
    }

    fn looks_free(&self, me: Claim) -> bool {
        let state = self.state().load();
        state == 0 || state == DIED || (state & RESERVED != 0 && state & !FLAGS == me.word())
    }

    fn wait(&self, me: Claim, waiting: &impl Waiting<M>) -> Result<Option<Taken>> {
        let mut inherits = false;
        let mut looks = 0u32;
        loop {
            if !inherits && waiting.is_long() && self.heir().load() == 0 && self.heir().compare_exchange(0, me.word()).is_ok() {
                inherits = true;
                points::client("lock: heir");
            }
            let events = if inherits { self.heirs() } else { self.waiters() };
            let prepared = events.prepare();
            if let Some(taken) = self.try_take(me) {
                // It may have come otherwise than by inheritance.
                let _ = self.heir().compare_exchange(me.word(), 0);
                return Ok(Some(taken));
            }
            if waiting.is_over() {
                return Ok(None);
            }
            let state = self.state().load();
            self.check(state)?;
            let reserved = state & RESERVED != 0;
            // Not the heir any more: the lock will be reserved in the next instant; or it was, and that has been taken away.
            let disinherited = inherits && self.heir().load() != me.word();
            let most_ms = if reserved || disinherited { LOCK_RESERVATION_MS } else { LOCK_LOOK_MS };
            let slept = events.sleep(prepared, waiting, most_ms)?;
            inherits &= !disinherited;
            match slept {
                Slept::Woken => {}
                Slept::ManagerDied => return Err(disconnected()),
                Slept::TimedOut if state != self.state().load() => {}
                Slept::TimedOut if reserved => {
                    // Whoever it was kept for does not come.
                    let _ = self.state().compare_exchange(state, state & DIED);
                }
                Slept::TimedOut => {
                    looks += 1;
                    if let Some(holder) = Claim::of(state)
                        && looks.is_power_of_two()
                    {
                        waiting.doubt(holder)?;
                    }
                }
            }
        }
    }

    /// A state that the table has.
    fn check(&self, state: u64) -> Result<()> {
        let sound = match Claim::of(state) {
            None => state == 0 || state == DIED,
            Some(claim) => claim.session() != 0 && (state & RESERVED != 0 || state & DIED == 0),
        };
        if sound { Ok(()) } else { Err(scribbled("lock")) }
    }

    /// Gives the lock back. The caller has it.
    #[inline(always)]
    pub fn release(&self) {
        if self.heir().load() != 0 {
            return self.hand_over();
        }
        points::client("lock: before it is given back");
        self.state().swap(0);
        points::client("lock: given back");
        self.waiters().notify_one();
        // Who has become the heir meanwhile has seen the lock held, and sleeps elsewhere.
        if self.heir().load() != 0 {
            self.heirs().notify_all();
        }
    }

    #[cold]
    fn hand_over(&self) {
        let heir = Claim::of(self.heir().swap(0));
        points::client("lock: heir known");
        self.state().swap(heir.map_or(0, |heir| heir.word() | RESERVED));
        points::client("lock: reserved");
        self.heirs().notify_all();
        if heir.is_none() {
            self.waiters().notify_one();
        }
    }

    /// Who holds it.
    pub fn holder(&self) -> Result<Option<Claim>> {
        let state = self.state().load();
        self.check(state)?;
        Ok(Claim::of(state).filter(|_| state & RESERVED == 0))
    }

    /// Whether somebody holds it, or has it reserved.
    #[inline(always)]
    pub fn is_free(&self) -> bool {
        self.state().load() == 0
    }

    /// The word that counts how often its holder has it. Only the holder touches it.
    #[inline(always)]
    pub fn depth(&self) -> &'m M::Word {
        self.memory.word(self.at + DEPTH)
    }

    /// A session is over: if it had the lock, the next one is told.
    pub fn recover(&self, session: u64) {
        loop {
            let state = self.state().load();
            if !Claim::is_of(state, session) {
                break;
            }
            let free = if state & RESERVED != 0 { state & DIED } else { DIED };
            if self.state().compare_exchange(state, free).is_ok() {
                break;
            }
        }
        let heir = self.heir().load();
        if Claim::is_of(heir, session) {
            // The holder may be reserving the lock for it at this moment: others then take the reservation away.
            let _ = self.heir().compare_exchange(heir, 0);
        }
        self.roster().recover(session);
        self.waiters().recover();
        self.heirs().recover();
    }
}
