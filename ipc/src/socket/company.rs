//! Leaving a processor that those whom one answers run on, too.

use std::time::{Duration, Instant};

use crate::sys;

/// Requests in a row from this thread's own processor, most of them, after which it goes elsewhere: some hundred microseconds' worth.
const TOGETHER_MIN: u32 = 64;
/// How long to stay at the least, and at the most. A move costs some ten microseconds and cold caches, and whom the scheduler puts back
/// each time has a reason: the other processors are busy.
const PATIENCE_MIN: Duration = Duration::from_millis(2);
const PATIENCE_MAX: Duration = Duration::from_millis(128);
/// A move that has held for so many times the patience was worth it.
const HELD: u32 = 8;

/// Who answers others, and those that it meets on its own processor.
///
/// Where they run is their own word: one that lies makes it move when there is no need, now and then.
#[derive(Debug)]
pub struct Company {
    together: u32,
    moved: Option<Instant>,
    patience: Duration,
}

impl Company {
    /// Nobody has been met.
    pub fn new() -> Company {
        Company { together: 0, moved: None, patience: PATIENCE_MIN }
    }

    /// A request came from this thread's processor, or from another.
    #[inline]
    pub fn meet(&mut self, here: bool) {
        self.together = if here { self.together.saturating_add(1) } else { self.together / 2 };
    }

    /// Goes to another processor if that is due, and there is one.
    #[inline]
    pub fn part(&mut self) {
        if self.together >= TOGETHER_MIN && self.is_due(Instant::now()) {
            sys::leave_cpu();
        }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        self.together = 0;
        if let Some(moved) = self.moved {
            let held = now.saturating_duration_since(moved);
            if held < self.patience {
                return false;
            }
            self.patience =
                if held < HELD * self.patience { 2 * self.patience } else { self.patience / 2 }.clamp(PATIENCE_MIN, PATIENCE_MAX);
        }
        self.moved = Some(now);
        true
    }
}

impl Default for Company {
    fn default() -> Company {
        Company::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_that_do_not_hold_become_rare_and_those_that_do_frequent_again() {
        let (start, mut company) = (Instant::now(), Company::new());
        let millis = Duration::from_millis;
        assert!(company.is_due(start), "the first is due at once");
        assert!(!company.is_due(start + millis(1)));
        // Put back each time: asked every millisecond for ten seconds.
        let due: Vec<u64> = (1..10_000).filter(|at| company.is_due(start + millis(*at))).collect();
        assert!((70..100).contains(&due.len()), "{} moves: {due:?}", due.len());
        assert_eq!(company.patience, PATIENCE_MAX);
        assert!(due.is_sorted_by_key(|at| *at) && due[1] - due[0] <= 8, "{due:?}");
        // Each holds for long.
        (1..10).for_each(|at| assert!(company.is_due(start + millis(10_000 + 2_000 * at))));
        assert_eq!(company.patience, PATIENCE_MIN);
    }

    #[test]
    fn only_those_who_are_met_here_most_of_the_time_make_it_move() {
        let mut company = Company::new();
        (0..1_000).for_each(|at| company.meet(at % 2 == 0));
        assert!(company.together < TOGETHER_MIN);
        (0..u64::from(TOGETHER_MIN)).for_each(|_| company.meet(true));
        assert!(company.together >= TOGETHER_MIN);
        company.part();
        assert!(company.moved.is_some());
        assert_eq!(company.together, 0);
    }
}
