//! Lock: mutual exclusion among threads of any processes, that survives any of them.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | *state* |
//! | 8 | 8 | how often the holder has it, of a lock that the same thread may take again |
//! | 16 | 272 | [turns](super::turns) |
//!
//! | state | meaning | who writes it |
//! |---|---|---|
//! | 0 | free | the holder |
//! | DIED | free; its last holder died with it | the manager |
//! | claim | held | its taker, by exchange of a free state |
//! | claim + RESERVED (+ DIED) | free, but for that waiter | the last holder |
//!
//! To take it is one exchange, to give it back one store, or one swap (see [turns](super::turns)), and a look at the line that is here
//! anyway.

use super::turns::{DIED, Obstacle, Prize, RESERVED, TURNS_BYTES, Turns};
use super::{Claim, FLAGS, Memory, Roster, Waiting, Word, scribbled};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::RECOVERY_ATTEMPTS_MAX;

/// Bytes of a lock.
pub const LOCK_BYTES: usize = TURNS + TURNS_BYTES;

const STATE: usize = 0;
const DEPTH: usize = 8;
const TURNS: usize = 16;

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
    fn turns(&self) -> Turns<'m, M> {
        Turns::new(self.memory, self.at + TURNS)
    }

    /// Those who wait, as far as the roster has room.
    pub fn roster(&self) -> Roster<'m, M> {
        self.turns().roster()
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
        self.turns().take(self, me, waiting)
    }

    /// A state that the table has.
    fn check(state: u64) -> Result<()> {
        let sound = match Claim::of(state) {
            None => state == 0 || state == DIED,
            Some(claim) => claim.session() != 0 && (state & RESERVED != 0 || state & DIED == 0),
        };
        if sound { Ok(()) } else { Err(scribbled("lock")) }
    }

    /// Gives the lock back. The caller has it.
    #[inline(always)]
    pub fn release(&self) {
        self.turns().release(|free| {
            self.state().swap(free);
        });
    }

    /// The same without a fence, in a process that the kernel puts [barriers](super::turns) into.
    #[inline(always)]
    pub fn release_relying(&self) {
        self.turns().release(|free| self.state().set_relying(free));
    }

    /// Gives the lock back as it came: the next one is told of a death that this one was told of.
    pub fn release_as_taken(&self, taken: Taken) {
        self.turns().release(|free| {
            self.state().swap(free | if taken.owner_died { DIED } else { 0 });
        });
    }

    /// Who holds it.
    pub fn holder(&self) -> Result<Option<Claim>> {
        let state = self.state().load();
        Self::check(state)?;
        Ok(Claim::of(state).filter(|_| state & RESERVED == 0))
    }

    /// Whether the caller holds it.
    #[inline(always)]
    pub fn is_held_by(&self, me: Claim) -> bool {
        self.state().load() == me.word()
    }

    /// Whether nobody has it, nor ever had who died with it.
    #[inline(always)]
    pub fn is_free(&self) -> bool {
        self.state().load() == 0
    }

    fn depth(&self) -> &'m M::Word {
        self.memory.word(self.at + DEPTH)
    }

    /// The caller has taken it for the first time. Only the holder touches the depth, so what a dead one has left does not matter.
    pub fn enter_first(&self) {
        self.depth().store(1);
    }

    /// The caller, who has it, has it once more.
    pub fn enter_again(&self) {
        self.depth().store(self.depth().load().saturating_add(1));
    }

    /// The caller has it once less, and gives it back after the last time.
    pub fn leave(&self) {
        let left = self.depth().load().saturating_sub(1);
        self.depth().store(left);
        if left == 0 {
            self.release();
        }
    }

    /// A session is over: if it had the lock, the next one is told; unless it had it without having begun with anything.
    pub fn recover(&self, session: u64, began: impl Fn(Claim) -> bool) {
        for _ in 0..RECOVERY_ATTEMPTS_MAX {
            let state = self.state().load();
            let Some(claim) = Claim::of(state).filter(|claim| claim.session() == session) else { break };
            let free = if state & RESERVED == 0 && began(claim) { DIED } else { state & DIED };
            if self.state().compare_exchange(state, free).is_ok() {
                break;
            }
        }
        self.turns().recover(session);
    }
}

impl<M: Memory + ?Sized> Prize for Lock<'_, M> {
    type Taken = Taken;
    const MAY_BE_UNFENCED: bool = true;

    fn try_take(&self, me: Claim) -> Option<Taken> {
        // Looked at first: an exchange that fails costs the holder its line.
        let state = self.state().load();
        if state == 0 || state & FLAGS != 0 { Lock::try_take(self, me) } else { None }
    }

    fn obstacle(&self) -> Result<Obstacle> {
        let word = self.state().load();
        Self::check(word)?;
        Ok(Obstacle { index: 0, word })
    }

    fn disclaim(&self, me: Claim) -> bool {
        let state = self.state().load();
        state & RESERVED != 0 && state & !FLAGS == me.word() && self.state().compare_exchange(state, state & DIED).is_ok()
    }

    fn revoke(&self, obstacle: Obstacle) {
        let _ = self.state().compare_exchange(obstacle.word, obstacle.word & DIED);
    }
}
