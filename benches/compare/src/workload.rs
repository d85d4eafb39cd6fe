//! The work itself, the same for every system: keys, values, the order in which they are asked for, and the clock around it.
use std::hint::black_box;
use std::time::Instant;

use crate::Result;

/// The key of entry number `index`: spread over the whole range, distinct for distinct indices (the factor is odd).
pub fn key(index: u64) -> u64 {
    index.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// A value of `bytes` bytes that is not all zeros.
pub fn value(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8 + 1).collect()
}

/// Looks at a value, as its reader would at least do: its first and its last byte.
#[inline]
pub fn touch(value: &[u8]) {
    black_box((value.first().copied(), value.last().copied()));
}

/// What another process does that has next to nothing to do.
pub fn answer(question: u64) -> u64 {
    question + 1
}

/// Indices below `count` in random order (xorshift64*): always the same sequence, so that every system is asked for the same things.
pub struct Indices {
    state: u64,
    count: u64,
}

impl Indices {
    /// Indices in `0..count`.
    pub fn below(count: u64) -> Self {
        Indices { state: 0x2545_F491_4F6C_DD1D, count }
    }

    /// The next one.
    #[inline]
    pub fn next_index(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let random = self.state.wrapping_mul(0x2545_F491_4F6C_DD1D);
        ((u128::from(random) * u128::from(self.count)) >> 64) as u64
    }

    /// The key of the next one.
    #[inline]
    pub fn next_key(&mut self) -> u64 {
        key(self.next_index())
    }

    /// Every index once, in random order: data is filled in like this, so that nobody profits from sorted insertion.
    pub fn shuffled(count: u64) -> Vec<u64> {
        let mut all: Vec<u64> = (0..count).collect();
        for last in (1..all.len()).rev() {
            let other = Indices { state: key(last as u64 + 1), count: last as u64 + 1 }.next_index();
            all.swap(last, other as usize);
        }
        all
    }
}

/// How often an operation runs: `groups` times `operations`, each group under the clock as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Number of times the clock is read.
    pub groups: u64,
    /// Operations between two readings.
    pub operations: u64,
    /// Nanoseconds of work between two groups, not under the clock.
    pub think_ns: u64,
}

impl Plan {
    /// Runs `operation` as planned. Returns nanoseconds per group.
    #[inline]
    pub fn time(self, operation: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
        self.time_stream(operation, |_| Ok(()))
    }

    /// Like [`Plan::time`], with an end of each group on the clock, which is told how many operations came before it.
    #[inline]
    pub fn time_stream(self, mut operation: impl FnMut() -> Result<()>, mut end: impl FnMut(u64) -> Result<()>) -> Result<Vec<f64>> {
        let mut groups = Vec::with_capacity(self.groups as usize);
        for _ in 0..self.groups {
            let start = Instant::now();
            for _ in 0..self.operations {
                operation()?;
            }
            end(self.operations)?;
            groups.push(start.elapsed().as_nanos() as f64);
            self.think();
        }
        Ok(groups)
    }

    /// The same, one operation at a time, with pauses of so many nanoseconds between them: as many as the plan has in all. Without pauses,
    /// as planned.
    pub fn with_pauses(self, pause_ns: u64) -> Self {
        if pause_ns == 0 {
            self
        } else {
            Plan { groups: self.groups * self.operations, operations: 1, think_ns: self.think_ns.max(pause_ns) }
        }
    }

    /// The caller's own work.
    #[inline]
    fn think(self) {
        if self.think_ns > 0 {
            let start = Instant::now();
            while (start.elapsed().as_nanos() as u64) < self.think_ns {
                std::hint::spin_loop();
            }
        }
    }

    /// Like [`Plan::time`], but the end of what `operation` returns is not on the clock.
    pub fn time_starts<T>(self, mut operation: impl FnMut() -> Result<T>) -> Result<Vec<f64>> {
        let mut groups = Vec::with_capacity(self.groups as usize);
        for _ in 0..self.groups {
            let mut nanoseconds = 0.0;
            for _ in 0..self.operations {
                let start = Instant::now();
                let started = operation()?;
                nanoseconds += start.elapsed().as_nanos() as f64;
                drop(started);
            }
            groups.push(nanoseconds);
        }
        Ok(groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_stay_in_range_and_reach_everything() {
        let mut seen = [false; 16];
        let mut indices = Indices::below(16);
        for _ in 0..1000 {
            seen[indices.next_index() as usize] = true;
        }
        assert_eq!(seen, [true; 16]);
    }

    #[test]
    fn shuffling_keeps_every_index_once_and_is_not_the_identity() {
        let shuffled = Indices::shuffled(1000);
        let mut sorted = shuffled.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
        assert_ne!(shuffled, sorted);
    }

    #[test]
    fn a_plan_runs_as_often_as_it_says() {
        let mut runs = 0;
        let groups = Plan { groups: 3, operations: 5, think_ns: 0 }
            .time(|| {
                runs += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!((runs, groups.len()), (15, 3));
    }
}
