//! Adaptive spinning: look again for a few microseconds before going to sleep, where that has lately paid off.
//!
//! A sleep and its wake-up cost 10–50 µs, an answer that comes while one still looks costs 4 µs or less. But looking costs a
//! processor, which the peer may need. So each waiter learns from its own last waits: how often the answer came within the longest
//! spin, and after how long. Where it seldom does, it sleeps at once, and tries one spin in 64 to notice that times have changed.
//! On a single processor it never spins: the peer cannot answer while we look.
use std::hint;
use std::time::{Duration, Instant};

use crate::limits::SPIN_NS_MAX;
use crate::sys;

/// Looks between two readings of the clock: a look may be a system call of half a microsecond, a reading costs 25–50 ns.
const LOOKS_PER_READING: u32 = 8;
/// Looks at memory before the clock is read for the first time: about a microsecond, in which the other side answers if it is awake.
const LOOKS_WITHOUT_CLOCK: u32 = 64;
/// Hints to the processor between two readings of the clock: some 50 ns.
const HINTS_PER_READING: u32 = 2;
/// What an answer counts as that came while the clock was not read.
const AT_ONCE: Duration = Duration::from_nanos(500);
/// One wait in so many spins even if it has not paid off lately.
const PROBE_EVERY: u32 = 64;
/// One wait in so many reads the affinity mask again (a system call of half a microsecond).
const CPUS_EVERY: u32 = 4096;
/// The share of spins, of 1024, below which a spin is a waste.
const PAYOFF_MIN: u32 = 256;
/// How fast the averages follow: by a part in 8.
const FOLLOW: u32 = 8;

/// One waiter's habit of spinning. Not shared: each thread that waits has its own.
#[derive(Clone, Debug)]
pub struct Spin {
    habit: Habit,
    waits: u32,
    alone: bool,
}

impl Spin {
    /// A waiter that spins until it learns that it does not pay.
    pub fn new() -> Spin {
        Spin { habit: Habit { payoff: 1024, mean_ns: SPIN_NS_MAX as u32 / 4, skipped: 0 }, waits: 0, alone: sys::allowed_cpus() == 1 }
    }

    /// Looks whether something is `ready`, at least once, and again for as long as that is likely to pay off. `false`: go to sleep
    /// (having looked again after saying so, as before every sleep).
    pub fn wait(&mut self, ready: impl FnMut() -> bool) -> bool {
        self.wait_with(0, ready)
    }

    /// The same where most looks are loads, which cost less than a reading of the clock.
    #[inline]
    pub fn wait_in_memory(&mut self, ready: impl FnMut() -> bool) -> bool {
        self.wait_with(LOOKS_WITHOUT_CLOCK, ready)
    }

    /// The same with pauses of so many nanoseconds between the looks, and before the first: where a look costs the other side the cache
    /// line that it works with, it comes faster if it is left alone for a while.
    pub fn wait_apart(&mut self, apart_ns: u64, mut ready: impl FnMut() -> bool) -> bool {
        let Some(budget) = self.begin() else { return false };
        let apart = Duration::from_nanos(apart_ns);
        let (start, mut now) = (Instant::now(), Duration::ZERO);
        loop {
            let next = now + apart;
            while now < next {
                (0..HINTS_PER_READING).for_each(|_| hint::spin_loop());
                now = start.elapsed();
            }
            if ready() {
                self.habit.learn(Some(now));
                return true;
            }
            if now >= budget {
                self.habit.learn(None);
                return false;
            }
        }
    }

    /// How long to spin in a wait that begins now, if at all.
    fn begin(&mut self) -> Option<Duration> {
        self.waits = self.waits.wrapping_add(1);
        if self.waits.is_multiple_of(CPUS_EVERY) {
            self.alone = sys::allowed_cpus() == 1;
        }
        if self.alone { None } else { self.habit.budget() }
    }

    #[inline]
    fn wait_with(&mut self, looks_without_clock: u32, mut ready: impl FnMut() -> bool) -> bool {
        if ready() {
            return true;
        }
        let Some(budget) = self.begin() else { return false };
        for _ in 0..looks_without_clock {
            hint::spin_loop();
            if ready() {
                self.habit.learn(Some(AT_ONCE));
                return true;
            }
        }
        let start = Instant::now();
        loop {
            for _ in 0..LOOKS_PER_READING {
                hint::spin_loop();
                if ready() {
                    self.habit.learn(Some(start.elapsed()));
                    return true;
                }
            }
            if start.elapsed() >= budget {
                self.habit.learn(None);
                return false;
            }
        }
    }
}

impl Default for Spin {
    fn default() -> Spin {
        Spin::new()
    }
}

/// What the last waits taught: exponential averages.
#[derive(Clone, Debug)]
struct Habit {
    /// Spins that were answered, of 1024.
    payoff: u32,
    /// How long the answered ones took.
    mean_ns: u32,
    /// Waits since the last spin that were not worth one.
    skipped: u32,
}

impl Habit {
    /// How long to spin now, if at all.
    fn budget(&mut self) -> Option<Duration> {
        if self.payoff < PAYOFF_MIN {
            self.skipped += 1;
            if self.skipped < PROBE_EVERY {
                return None;
            }
            self.skipped = 0;
            return Some(Duration::from_nanos(SPIN_NS_MAX));
        }
        // Three times the mean covers 95 of 100 waits, if they are spread as chance spreads them; the floor absorbs the clock's grain.
        Some(Duration::from_nanos((3 * u64::from(self.mean_ns) + 2_000).min(SPIN_NS_MAX)))
    }

    fn learn(&mut self, answered_after: Option<Duration>) {
        let follow = |average: u32, sample: u32| (average * (FOLLOW - 1) + sample) / FOLLOW;
        match answered_after {
            Some(time) => {
                self.payoff = follow(self.payoff, 1024);
                self.mean_ns = follow(self.mean_ns, time.as_nanos().min(SPIN_NS_MAX.into()) as u32);
            }
            None => {
                self.payoff = follow(self.payoff, 0);
                // The answer may lie just past a budget that has become too small.
                self.mean_ns = follow(self.mean_ns, SPIN_NS_MAX as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Habit {
        Habit { payoff: 1024, mean_ns: SPIN_NS_MAX as u32 / 4, skipped: 0 }
    }

    #[test]
    fn spins_that_never_pay_are_given_up_and_probed() {
        let mut habit = fresh();
        let spins = (0..1_000).filter(|_| {
            habit.budget().is_some_and(|_| {
                habit.learn(None);
                true
            })
        });
        let spins = spins.count();
        assert!((10..50).contains(&spins), "{spins} spins of 1000 waits");
    }

    #[test]
    fn quick_answers_shorten_the_budget_and_keep_it() {
        let mut habit = fresh();
        for _ in 0..100 {
            assert!(habit.budget().is_some());
            habit.learn(Some(Duration::from_micros(1)));
        }
        let budget = habit.budget().unwrap();
        assert!(budget >= Duration::from_micros(3) && budget <= Duration::from_micros(6), "{budget:?}");
    }

    #[test]
    fn a_spin_that_begins_to_pay_again_comes_back() {
        let mut habit = fresh();
        for _ in 0..1_000 {
            if habit.budget().is_some() {
                habit.learn(None);
            }
        }
        let waits = (1..).find(|_| {
            let spun = habit.budget().is_some();
            if spun {
                habit.learn(Some(Duration::from_micros(2)));
            }
            habit.payoff >= PAYOFF_MIN
        });
        assert!(waits.unwrap() <= 4 * PROBE_EVERY);
        assert!(habit.budget().is_some());
    }

    #[test]
    fn a_budget_never_passes_the_maximum() {
        let mut habit = fresh();
        for _ in 0..100 {
            habit.learn(Some(Duration::from_secs(3600)));
        }
        assert_eq!(habit.budget(), Some(Duration::from_nanos(SPIN_NS_MAX)));
    }

    #[test]
    fn looks_once_at_the_least_and_stops() {
        let mut spin = Spin::new();
        assert!(spin.wait(|| true));
        let mut looks = 0;
        assert!(!spin.wait(|| {
            looks += 1;
            false
        }));
        assert!(looks >= 1);
        looks = 0;
        assert!(spin.wait_in_memory(|| {
            looks += 1;
            looks == 20
        }));
        looks = 0;
        let start = Instant::now();
        assert!(spin.wait_apart(1_000, || {
            looks += 1;
            looks == 3
        }));
        assert!(start.elapsed() >= Duration::from_nanos(3_000), "three looks, a microsecond apart");
        spin.alone = true;
        assert!(!spin.wait_apart(1_000, || unreachable!("alone")));
        assert!(!spin.wait(|| false));
        assert!(!spin.wait_in_memory(|| false));
    }
}
