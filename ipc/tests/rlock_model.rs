//! The depth of a lock that the same thread may take again: run in every order that loom finds, with an owner that dies before each of
//! its writes, at every depth.
//!
//! The depth lies beside the lock's word, and only the holder touches it, with stores that order nothing. What is shown: nobody else is
//! inside until it was left as often as it was entered (loom reports every write beside another access); whoever comes after a dead owner is
//! told, once, and begins at a depth of one, whatever the dead one has left there. The canaries are wrong and must be caught.

mod mortal;

use commonhold_ipc::queue::Room;
use commonhold_ipc::sync::{Claim, LOCK_BYTES, Lock, Memory, Word};
use mortal::{Fate, Segment, check, in_thread};
use std::sync::Arc;

type Process = mortal::Process<()>;

const DEPTH: usize = 8;
/// Where the eventcounts are.
const HALVES: [usize; 2] = [24, 28];
/// What the lock protects.
const PROTECTED: usize = LOCK_BYTES;
/// How often an owner writes that enters three times and leaves as often: its exchange, each depth, and what gives the lock back.
const WRITES: u32 = 8;

const OWNER: u64 = 1;
const NEWCOMER: u64 = 2;
const HEIR: u64 = 3;

fn segment() -> Arc<Segment> {
    Segment::new((0..LOCK_BYTES).step_by(8).filter(|at| *at != HALVES[0]), HALVES, [PROTECTED], false)
}

fn me(session: u64) -> Claim {
    Claim::new(session, session as u32)
}

/// The steps of which some are done wrongly by a canary.
#[derive(Clone, Copy)]
struct Steps {
    enter_first: fn(&Process),
    leave: fn(&Process),
}

const RIGHT: Steps = Steps { enter_first: |process| Lock::new(process, 0).enter_first(), leave: |process| Lock::new(process, 0).leave() };

impl Steps {
    /// As `RLock::try_lock` does. Whether the last owner has died with it; none if somebody has it.
    fn enter(self, process: &Process, session: u64) -> Option<bool> {
        let lock = Lock::new(process, 0);
        if lock.is_held_by(me(session)) {
            lock.enter_again();
            return Some(false);
        }
        let taken = lock.try_take(me(session))?;
        (self.enter_first)(process);
        Some(taken.owner_died)
    }

    /// Enters three times and leaves as often, unless somebody has it. Whether the last owner has died with it.
    fn go_in_and_out(self, process: &Process, session: u64) -> Option<bool> {
        let (lock, use_it) = (Lock::new(process, 0), || process.put(PROTECTED, &[session as u8]));
        let owner_died = self.enter(process, session)?;
        use_it();
        assert_eq!(process.word(DEPTH).load(), 1, "it begins at a depth of one");
        for _ in 0..2 {
            assert_eq!(self.enter(process, session), Some(false));
            use_it();
        }
        for _ in 0..2 {
            (self.leave)(process);
            assert!(lock.is_held_by(me(session)), "it was left less often than entered");
            use_it();
        }
        (self.leave)(process);
        assert!(!lock.is_held_by(me(session)), "it was left as often as entered");
        Some(owner_died)
    }
}

/// An owner that dies after so many writes, one that tries meanwhile, and one that comes when both have ended.
fn owner_that_dies(writes: u32, steps: Steps) {
    check(3, move || {
        let segment = segment();
        let owner = in_thread(&segment, Fate::Writes(writes), move |process| steps.go_in_and_out(process, OWNER));
        let newcomer = in_thread(&segment, Fate::Lives, move |process| {
            [steps.go_in_and_out(process, NEWCOMER), steps.go_in_and_out(process, NEWCOMER)]
        });
        let owner = owner.join().unwrap();
        let process = Process::new(&segment, Fate::Lives);
        let lock = Lock::new(&process, 0);
        lock.recover(OWNER, |_| true);
        let newcomer = newcomer.join().unwrap().expect("it lives");
        let heir = steps.go_in_and_out(&process, HEIR).expect("nobody has it any more");
        // Who finds the lock held ends; so one that was killed after its first write had it.
        let died_inside = owner.is_none() && writes > 0;
        let told = newcomer.into_iter().flatten().chain([heir]).filter(|owner_died| *owner_died).count();
        assert_eq!(told, usize::from(died_inside), "one is told of a death inside");
        assert!(owner.is_some() || writes < WRITES, "an owner has only so many writes");
        assert!(lock.is_free());
    });
}

#[test]
fn whoever_comes_after_an_owner_that_died_at_any_depth_begins_anew() {
    (0..WRITES).for_each(|writes| owner_that_dies(writes, RIGHT));
}

#[test]
fn nobody_is_inside_until_the_owner_has_left_as_often_as_it_entered() {
    owner_that_dies(WRITES, RIGHT);
}

/// Every one of those deaths happens: an owner by itself does not come to its end with fewer writes.
#[test]
fn an_owner_dies_before_each_of_its_writes() {
    for writes in 0..=WRITES {
        check(1, move || {
            let owner = in_thread(&segment(), Fate::Writes(writes), |process| RIGHT.go_in_and_out(process, OWNER));
            assert_eq!(owner.join().unwrap().is_some(), writes == WRITES);
        });
    }
}

/// Counts on from what a dead owner has left.
#[test]
#[should_panic(expected = "it begins at a depth of one")]
fn canary_a_depth_that_is_not_begun_anew_is_a_dead_owners() {
    owner_that_dies(2, Steps { enter_first: |process| Lock::new(process, 0).enter_again(), ..RIGHT });
}

/// Gives the lock back before the depth is written.
#[test]
#[should_panic(expected = "it was left less often than entered")]
fn canary_a_depth_that_is_written_behind_the_lock_is_the_next_owners() {
    let leave = |process: &Process| {
        let left = process.word(DEPTH).load().saturating_sub(1);
        if left == 0 {
            Lock::new(process, 0).release();
        }
        process.word(DEPTH).store(left);
    };
    owner_that_dies(WRITES, Steps { leave, ..RIGHT });
}

/// Gives the lock back whenever it is left.
#[test]
#[should_panic(expected = "it was left less often than entered")]
fn canary_a_lock_that_is_given_back_at_once_is_not_held_by_who_is_inside() {
    owner_that_dies(WRITES, Steps { leave: |process| Lock::new(process, 0).release(), ..RIGHT });
}
