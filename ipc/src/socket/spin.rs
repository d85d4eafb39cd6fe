//! Adaptive spinning: look again for a few microseconds before going to sleep, where that has lately paid off.
//!
//! A sleep and its wake-up cost 10–50 µs, an answer that comes while one still looks costs 4 µs or less. But looking costs a
//! processor, which the peer may need. So each waiter learns from its own last waits: how often the answer came within the longest
//! spin, and after how long. Where it seldom does, it sleeps at once, and tries a spin now and then to notice that times have changed:
//! soon at first, then ever more seldom. Who may run on a single processor never spins, unless it knows that the peer runs on another: the
//! peer could not answer while we look.
//!
//! Two that call each other have two steady states, and which one they are in is chance. Both awake, on two processors: each wait is
//! answered in less than a microsecond. Both asleep, most often on one processor: each wait needs a wake-up, and a spin that one of them
//! tries fails because the other sleeps. So whoever knows whether the other is awake waits by two habits ([`Spins`]): one spin that meets the
//! other awake is then enough for both to stay awake, whatever they have learnt while they were asleep.
//!
//! Awake, but both on one processor, neither can go on while the other looks: who knows that ([`Peer::Here`]) does not spin, and learns
//! nothing. The scheduler leaves them there, since of two that take turns only one wants to run at any moment, and a third program on the
//! other processor, of the lowest priority even, is reason enough for it. So one of them goes elsewhere ([`Company`]).
use std::hint;
use std::time::{Duration, Instant};

use crate::limits::{SPIN_NS_MAX, SPIN_WAKING_NS_MAX};
use crate::sys;

/// Looks between two readings of the clock: a look may be a system call of half a microsecond, a reading costs 25–50 ns.
const LOOKS_PER_READING: u32 = 8;
/// Looks at memory before the clock is read for the first time: about a microsecond, in which the other side answers if it is awake.
const LOOKS_WITHOUT_CLOCK: u32 = 64;
/// Hints to the processor between two readings of the clock: some 50 ns.
const HINTS_PER_READING: u32 = 2;
/// What an answer counts as that came while the clock was not read.
const AT_ONCE: Duration = Duration::from_nanos(500);
/// One wait in so many spins even if it has not paid off lately: at first, and after many spins in vain. At 4 µs for a wait with a wake-up,
/// the longest spin then costs a twentieth, and times that have changed are noticed within some milliseconds.
const PROBE_EVERY_MIN: u32 = 2;
const PROBE_EVERY_MAX: u32 = 256;
/// What a spin's success counts as at the least, so that some waits after it spin, too: of 1024.
const PAYOFF_OF_SUCCESS: u32 = 512;
/// Waits with an awake peer after which its sleep is worth a spin: it may have been put aside for a moment.
const AWAKE_RUN_MIN: u32 = 16;
/// One wait in so many reads the affinity mask again (a system call of half a microsecond).
const CPUS_EVERY: u32 = 4096;
/// What a spin's budget has at the least: the other side's processor is taken away by a timer's tick or an interrupt a thousand times a second,
/// for some microseconds, and if that makes us sleep, it costs two wake-ups, and the scheduler may put us on one processor.
const BUDGET_NS_MIN: u64 = 10_000;
/// The share of spins, of 1024, below which a spin is a waste.
const PAYOFF_MIN: u32 = 256;
/// How fast the averages follow: by a part in 8.
const FOLLOW: u32 = 8;

/// One waiter's habit of spinning. Not shared: each thread that waits has its own.
#[derive(Clone, Debug)]
pub struct Spin {
    habit: Habit,
    waits: u32,
    /// This thread may run on one processor only.
    alone: bool,
    /// Waits only for who is on another processor, so that it need not ask whether there is one.
    apart: bool,
}

impl Spin {
    /// A waiter that spins until it learns that it does not pay.
    pub fn new() -> Spin {
        Spin::up_to(SPIN_NS_MAX)
    }

    /// One that spins no longer than this.
    fn up_to(max_ns: u64) -> Spin {
        Spin { habit: Habit::new(max_ns), waits: 0, alone: sys::allowed_cpus() == 1, apart: false }
    }

    /// One for a peer that is known to run on another processor.
    fn apart() -> Spin {
        Spin { habit: Habit::new(SPIN_NS_MAX), waits: 0, alone: false, apart: true }
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
        if !self.apart && self.waits.is_multiple_of(CPUS_EVERY) {
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

/// Where the other side is when a wait begins. The greater, the more a spin promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// On this very processor: it runs when we do not.
    Here,
    /// Asleep, and has been told to wake up.
    Asleep,
    /// Awake, on another processor.
    Awake,
}

/// The habits of one waiter whose peer may be awake or asleep when a wait begins.
#[derive(Clone, Debug)]
pub struct Spins {
    awake: Spin,
    asleep: Spin,
    /// Waits in a row with an awake peer.
    run: u32,
}

impl Spins {
    /// Habits of a caller. The peer that sleeps has been told to wake up.
    pub fn of_caller() -> Spins {
        Spins { awake: Spin::apart(), asleep: Spin::new(), run: 0 }
    }

    /// Habits of whoever answers callers. One that sleeps has been woken, and calls again when it is awake: to meet it takes longer.
    pub fn of_server() -> Spins {
        Spins { awake: Spin::apart(), asleep: Spin::up_to(SPIN_WAKING_NS_MAX), run: 0 }
    }

    /// The habit for a wait that begins now; `None`: sleep at once.
    #[inline]
    pub fn with_peer(&mut self, peer: Peer) -> Option<&mut Spin> {
        match peer {
            Peer::Here => None,
            Peer::Awake => {
                self.run = self.run.saturating_add(1);
                Some(&mut self.awake)
            }
            Peer::Asleep => {
                if std::mem::take(&mut self.run) >= AWAKE_RUN_MIN {
                    self.asleep.habit.encourage();
                }
                Some(&mut self.asleep)
            }
        }
    }
}

/// What the last waits taught: exponential averages.
#[derive(Clone, Debug)]
struct Habit {
    /// Longest spin.
    max_ns: u64,
    /// Spins that were answered, of 1024.
    payoff: u32,
    /// How long the answered ones took.
    mean_ns: u32,
    /// Waits since the last spin that were not worth one.
    skipped: u32,
    /// Of so many of those, one spins.
    probe_every: u32,
}

impl Habit {
    fn new(max_ns: u64) -> Habit {
        Habit { max_ns, payoff: 1024, mean_ns: max_ns as u32 / 4, skipped: 0, probe_every: PROBE_EVERY_MIN }
    }

    /// How long to spin now, if at all.
    fn budget(&mut self) -> Option<Duration> {
        if self.payoff < PAYOFF_MIN {
            self.skipped += 1;
            if self.skipped < self.probe_every {
                return None;
            }
            self.skipped = 0;
            return Some(Duration::from_nanos(self.max_ns));
        }
        // Three times the mean covers 95 of 100 waits, if they are spread as chance spreads them.
        Some(Duration::from_nanos((3 * u64::from(self.mean_ns) + BUDGET_NS_MIN).min(self.max_ns)))
    }

    fn learn(&mut self, answered_after: Option<Duration>) {
        let follow = |average: u32, sample: u32| (average * (FOLLOW - 1) + sample) / FOLLOW;
        match answered_after {
            Some(time) => {
                self.payoff = follow(self.payoff, 1024).max(PAYOFF_OF_SUCCESS);
                self.mean_ns = follow(self.mean_ns, (time.as_nanos() as u64).min(self.max_ns) as u32);
                self.probe_every = PROBE_EVERY_MIN;
            }
            None => {
                self.payoff = follow(self.payoff, 0);
                // The answer may lie just past a budget that has become too small.
                self.mean_ns = follow(self.mean_ns, self.max_ns as u32);
                if self.payoff < PAYOFF_MIN {
                    self.probe_every = (2 * self.probe_every).min(PROBE_EVERY_MAX);
                }
            }
        }
    }

    /// The next wait is worth a spin, and some soon after it.
    fn encourage(&mut self) {
        (self.probe_every, self.skipped) = (PROBE_EVERY_MIN, PROBE_EVERY_MIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Habit {
        Habit::new(SPIN_NS_MAX)
    }

    /// Spins of so many waits, none of which pays.
    fn in_vain(habit: &mut Habit, waits: u32) -> u32 {
        let mut spins = 0;
        for _ in 0..waits {
            if habit.budget().is_some() {
                habit.learn(None);
                spins += 1;
            }
        }
        spins
    }

    #[test]
    fn spins_that_never_pay_are_given_up_and_probed() {
        let mut habit = fresh();
        let spins = in_vain(&mut habit, 1_000);
        assert!((10..50).contains(&spins), "{spins} spins of 1000 waits");
        let spins = in_vain(&mut habit, 100_000);
        assert!((300..500).contains(&spins), "{spins} spins of 100000 waits");
    }

    #[test]
    fn a_peer_that_is_met_awake_once_is_waited_for_whatever_was_learnt_while_it_slept() {
        let mut spins = Spins::of_caller();
        in_vain(&mut spins.with_peer(Peer::Asleep).unwrap().habit, 10_000);
        assert!(spins.with_peer(Peer::Awake).unwrap().habit.budget().is_some());
        assert!(spins.with_peer(Peer::Here).is_none());
        // One short meeting is no reason to look for it when it sleeps again; a long one is.
        let probes = (0..10).filter(|_| spins.with_peer(Peer::Asleep).unwrap().habit.budget().is_some()).count();
        assert!(probes <= 1);
        for _ in 0..AWAKE_RUN_MIN {
            spins.with_peer(Peer::Awake).unwrap().habit.learn(Some(AT_ONCE));
        }
        assert!(spins.with_peer(Peer::Asleep).unwrap().habit.budget().is_some());
    }

    #[test]
    fn quick_answers_shorten_the_budget_and_keep_it() {
        let mut habit = fresh();
        for _ in 0..100 {
            assert!(habit.budget().is_some());
            habit.learn(Some(Duration::from_micros(1)));
        }
        let budget = habit.budget().unwrap();
        assert!(budget >= Duration::from_micros(11) && budget <= Duration::from_micros(15), "{budget:?}");
    }

    #[test]
    fn a_spin_that_begins_to_pay_again_comes_back() {
        let mut habit = fresh();
        for _ in 0..1_000 {
            if habit.budget().is_some() {
                habit.learn(None);
            }
        }
        let waits = (1..).find(|_| habit.budget().is_some());
        assert!(waits.unwrap() <= PROBE_EVERY_MAX);
        habit.learn(Some(Duration::from_micros(2)));
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
        // Also where the test itself has one processor.
        let mut spin = Spin { alone: false, ..Spin::new() };
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
