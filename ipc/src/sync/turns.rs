//! Turns: how those who wait for a lock or a permit sleep, are woken, and come to their turn.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | *heir*: the claim of the waiter who comes next, or 0 |
//! | 8 | 4 | eventcount of the waiters |
//! | 12 | 4 | eventcount of the heir |
//! | 16 | 256 | roster of those who wait, as far as it has room: for people to look at |
//!
//! What is waited for are words that are free, held, or *reserved* for a waiter. Newcomers may take a free one before those who
//! sleep: that is what makes it fast. One who has just given it back may take it again many times while its line is in its cache,
//! because those who wait look at it only every `LOCK_APART_NS`: a hand-over costs as much as ten or twenty turns of one owner. **Fairness**: a waiter that has waited for `LOCK_PATIENCE_MS` makes itself the heir if there
//! is none, and who gives something back next reserves it for the heir. Waiters are woken in the order in which they fell asleep.
//! So nobody starves, whatever newcomers do. A reservation is no possession: an heir that does not come within
//! `LOCK_RESERVATION_MS` (it is stopped, it has given up) loses it to whoever waits.
//!
//! **Without a fence.** Between giving back and looking whether anybody sleeps there must be a full fence, or both sides miss each other. It
//! costs as much as all the rest. So a process that the kernel puts barriers into (it is registered: `pin::fence`) leaves it out where a
//! prize allows it, and who falls asleep over such a prize makes up for it, which is rare and slow anyway:
//!
//! | | who | step |
//! |---|---|---|
//! | 1 | waiter | announces itself: heir, eventcount |
//! | 2 | waiter | `membarrier`: every running thread of every registered process comes to a point *p* in its program |
//! | 3 | waiter | looks whether the prize is free; if not, it sleeps |
//! | a | holder | stores *free* |
//! | b | holder | looks at eventcount and heir; if nobody is there, that is all |
//!
//! If *p* lies behind a, step 3 finds the prize free. If it lies before a, so does 1, and b finds the waiter. (A thread that does not run
//! has passed one when it was stopped.) A waiter whose barrier the kernel refuses looks again every `LOCK_RESERVATION_MS`. A process
//! registers only if the manager says that the kernel has barriers, and then all who wait ask for them.

use super::{Claim, Eventcount, FLAGS, Memory, Roster, Waiting, Word, scribbled};
use crate::error::Result;
use crate::limits::{LOCK_APART_NS, LOCK_LOOK_MS, LOCK_RESERVATION_MS};
use crate::liveness::{Slept, disconnected};
use crate::points;

/// Bytes of it.
pub const TURNS_BYTES: usize = 272;

const HEIR: usize = 0;
const WAITERS: usize = 8;
const HEIRS: usize = 12;
const ROSTER: usize = 16;
const SLOTS: usize = 32;
const _: () = assert!(ROSTER + 8 * SLOTS == TURNS_BYTES);

/// Free, but for the waiter that is named.
pub const RESERVED: u64 = 1;
/// The last holder has died.
pub const DIED: u64 = 2;
const _: () = assert!(RESERVED | DIED == FLAGS);

/// What keeps somebody from what he waits for: a word that is held, or reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// Which of several.
    pub index: usize,
    /// What it holds.
    pub word: u64,
}

/// Something that can be taken, held and reserved.
pub trait Prize {
    /// What having it is like.
    type Taken;
    /// Whether it may be given back without a fence, see the head.
    const MAY_BE_UNFENCED: bool = false;
    /// Takes it if it is free, or reserved for this one.
    fn try_take(&self, me: Claim) -> Option<Self::Taken>;
    /// Why it cannot be taken; an error if its words make no sense.
    fn obstacle(&self) -> Result<Obstacle>;
    /// What is reserved for this one is free again. Whether anything was.
    fn disclaim(&self, me: Claim) -> bool;
    /// The reserved word is free again, if it is still what it was.
    fn revoke(&self, obstacle: Obstacle);
}

/// The words at an offset, as turns.
pub struct Turns<'m, M: Memory + ?Sized> {
    memory: &'m M,
    at: usize,
}

impl<'m, M: Memory + ?Sized> Turns<'m, M> {
    /// The turns at this offset.
    #[inline(always)]
    pub fn new(memory: &'m M, at: usize) -> Self {
        Turns { memory, at }
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

    /// Waits for a prize; none if the time is over first.
    ///
    /// # Errors
    /// If its words make no sense, or the manager is gone.
    pub fn take<P: Prize>(&self, prize: &P, me: Claim, waiting: &impl Waiting<M>) -> Result<Option<P::Taken>> {
        if let Some(taken) = self.look(prize, me, waiting) {
            return Ok(Some(taken));
        }
        let slot = self.roster().enter(me);
        let taken = self.wait(prize, me, waiting);
        if let Some(slot) = slot {
            self.roster().leave(slot);
        }
        if !matches!(taken, Ok(Some(_))) {
            self.decline(prize, me);
            // Somebody may have been woken for nothing, or not been woken because this waiter was.
            self.waiters().notify_one();
        }
        taken
    }

    /// Looks for a prize for a while, where that is likely to pay off.
    fn look<P: Prize>(&self, prize: &P, me: Claim, waiting: &impl Waiting<M>) -> Option<P::Taken> {
        let mut taken = None;
        waiting.spin_apart(LOCK_APART_NS, &mut || {
            taken = prize.try_take(me);
            taken.is_some()
        });
        taken
    }

    fn wait<P: Prize>(&self, prize: &P, me: Claim, waiting: &impl Waiting<M>) -> Result<Option<P::Taken>> {
        let mut inherits = false;
        let mut looks = 0u32;
        loop {
            if !inherits && waiting.is_long() && self.heir().load() == 0 && self.heir().compare_exchange(0, me.word()).is_ok() {
                inherits = true;
                points::client("turns: heir");
            }
            let events = if inherits { self.heirs() } else { self.waiters() };
            let prepared = events.prepare();
            let fenced = !P::MAY_BE_UNFENCED || waiting.fence_others();
            if let Some(taken) = prize.try_take(me) {
                // It may have come otherwise than by inheritance.
                if inherits && self.decline(prize, me) {
                    self.waiters().notify_one();
                }
                return Ok(Some(taken));
            }
            if waiting.is_over() {
                return Ok(None);
            }
            let obstacle = prize.obstacle()?;
            let reserved = obstacle.word & RESERVED != 0;
            // Not the heir any more: something will be reserved in the next instant; or it was, and that has been taken away.
            let disinherited = inherits && self.heir().load() != me.word();
            let most_ms = if reserved || disinherited || !fenced { LOCK_RESERVATION_MS } else { LOCK_LOOK_MS };
            let slept = events.sleep(prepared, waiting, most_ms)?;
            inherits &= !disinherited;
            match slept {
                Slept::Woken if !inherits => {
                    // Who has woken it has the prize again, most likely, and soon gives it back. Asleep again at once, this one would cost it a
                    // wake-up each time, and the two would stay like that.
                    if let Some(taken) = self.look(prize, me, waiting) {
                        return Ok(Some(taken));
                    }
                }
                Slept::Woken => {}
                Slept::ManagerDied => return Err(disconnected()),
                // Whoever it was kept for does not come.
                Slept::TimedOut if reserved => prize.revoke(obstacle),
                Slept::TimedOut => {
                    looks += 1;
                    // If its session is over, it has been recovered: a claim that still stands then is nobody's.
                    if let Some(holder) = Claim::of(obstacle.word)
                        && looks.is_power_of_two()
                        && prize.obstacle()? == obstacle
                    {
                        match waiting.knows(holder)? {
                            Some(false) if prize.obstacle()? == obstacle => return Err(scribbled("object")),
                            Some(_) => {}
                            // It is asked again at the next look.
                            None => looks -= 1,
                        }
                    }
                }
            }
        }
    }

    /// The caller is no heir any more. If room was made for it, that is there for the next one; unless it is being made in this
    /// instant: then who waits revokes it. Whether there was.
    fn decline<P: Prize>(&self, prize: &P, me: Claim) -> bool {
        self.heir().compare_exchange(me.word(), 0).is_err() && prize.disclaim(me)
    }

    /// Gives something back by `put`, which sets its word to what it is told: free, or reserved.
    #[inline(always)]
    pub fn release(&self, put: impl FnOnce(u64)) {
        if self.heir().load() != 0 {
            return self.hand_over(put);
        }
        points::client("turns: before it is given back");
        put(0);
        points::client("turns: given back");
        self.waiters().notify_one();
        // Who has become the heir meanwhile has found nothing free, and sleeps elsewhere.
        if self.heir().load() != 0 {
            self.heirs().notify_all();
        }
    }

    #[cold]
    fn hand_over(&self, put: impl FnOnce(u64)) {
        let heir = Claim::of(self.heir().swap(0));
        points::client("turns: heir known");
        put(heir.map_or(0, |heir| heir.word() | RESERVED));
        points::client("turns: reserved");
        self.heirs().notify_all();
        if heir.is_none() {
            self.waiters().notify_one();
        }
    }

    /// A session is over: whatever it was, it is no heir and no waiter, and who was to be woken is.
    pub fn recover(&self, session: u64) {
        let heir = self.heir().load();
        if Claim::is_of(heir, session) {
            // Something may be being reserved for it at this moment: others then take the reservation away.
            let _ = self.heir().compare_exchange(heir, 0);
        }
        self.roster().recover(session);
        self.waiters().recover();
        self.heirs().recover();
    }
}
