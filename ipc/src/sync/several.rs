//! Waiting until one of several things is ready, and leaving what is ready to whoever takes it.
//!
//! Each thing has an eventcount, or a descriptor, by which it wakes; all of them are slept on at once.
//!
//! | | waiter | who makes one ready |
//! |---|---|---|
//! | 1 | *prepares* every thing: sets the bit of each eventcount, keeps each word | makes it ready |
//! | 2 | looks at every thing: if one is ready, it does not sleep | looks at the bit, raises the number, wakes one |
//! | 3 | sleeps while all words are those that it kept | |
//! | 4 | begins again with 1: so what it returns was ready when it looked last | |
//! | 5 | *passes on*: wakes another sleeper of each thing that is ready | |
//!
//! Steps 1 to 3 are those of an eventcount, for each thing by itself. **Why step 5?** A wake-up for one may have gone to this waiter,
//! which takes nothing: whoever would take sleeps on beside an item that is there. Being woken by one thing, it may have taken wake-ups of
//! others with it, which the kernel does not tell; so each thing that is ready is passed on, whatever the waiter was woken by. What is not
//! ready at the last look needs nothing: had a wake-up been meant for it, somebody has taken the item meanwhile; and what comes after that
//! look wakes somebody who sleeps. The chain ends: who is woken either takes, and wakes nobody, or returns, and does not sleep any more.
//!
//! Killed between being woken and step 5: the recovery of the dead one's session wakes all (INV-21). Stopped there: the others look for
//! themselves (INV-22).

use crate::error::Result;

/// How one caller sleeps on several things.
pub trait Sleeper {
    /// Forgets what was prepared.
    fn clear(&mut self);
    /// Looks again and again for a while, if that is likely to pay. Whether something has become `ready`.
    fn spin(&self, ready: &mut dyn FnMut() -> bool) -> bool;
    /// Sleeps until something that was prepared wakes it, or until the deadline. Now and then it looks whether something is `ready` all
    /// the same, because a wake-up was lost with a process that was stopped.
    fn sleep(&self, ready: &mut dyn FnMut() -> bool) -> Result<()>;
    /// Whether the deadline has passed.
    fn is_over(&self) -> bool;
}

/// Waits until at least one of so many things is ready, and says which are; none: the deadline has passed. There has to be one.
///
/// `is_ready` looks at a thing, `prepare` says what will wake the sleeper, `pass_on` wakes another one for what is left to others.
///
/// # Errors
/// What sleeping fails with.
pub fn wait_for_any<S: Sleeper>(
    count: usize,
    sleeper: &mut S,
    is_ready: impl Fn(usize) -> bool,
    prepare: impl Fn(usize, &mut S),
    pass_on: impl Fn(usize),
) -> Result<Vec<usize>> {
    let look = || (0..count).filter(|thing| is_ready(*thing)).collect::<Vec<usize>>();
    let mut any = || (0..count).any(&is_ready);
    if sleeper.is_over() || any() || sleeper.spin(&mut any) {
        let ready = look();
        // What was ready may have been taken.
        if !ready.is_empty() || sleeper.is_over() {
            return Ok(ready);
        }
    }
    let mut slept = Ok(());
    let ready = loop {
        sleeper.clear();
        (0..count).for_each(|thing| prepare(thing, sleeper));
        let ready = look();
        if !ready.is_empty() || slept.is_err() || sleeper.is_over() {
            break ready;
        }
        slept = sleeper.sleep(&mut any);
    };
    ready.iter().for_each(|thing| pass_on(*thing));
    slept.map(|()| ready)
}
