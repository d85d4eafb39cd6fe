//! How a row is measured: in rounds, the systems taking turns inside each round, so that whatever the machine does meets all of them alike.
//!
//! A first look finds out how long one operation takes; from that follows how many make up a round. One round of one system gives one figure,
//! its time divided by its operations; the median over the rounds is what the table shows. The 99th percentile is over single operations,
//! where one takes at least a microsecond, and over the means of small groups of about a microsecond otherwise, as reading the clock would
//! cost as much as the operation. Where operations are short, these groups have a run of their own, so that the clock is not in the median.
use std::time::Duration;

use indicatif::ProgressBar;

use crate::Result;
use crate::rows::{DataSet, Row, SystemName, Unit};
use crate::situations::{OnOneCore, Situation, family, idle, processor_ns};
use crate::system::System;
use crate::systems::{Presence, start};
use crate::workload::Plan;

/// What one round of one system should take.
const ROUND_NS: f64 = 25e6;
/// What the groups for the 99th percentile may take beside that.
const TAIL_NS: f64 = 8e6;
/// From here on an operation is timed singly, and one run serves median and percentile.
const SLOW_NS: f64 = 20_000.0;
/// Shortest time between two readings of the clock.
const GROUP_NS: f64 = 1_000.0;
/// The first look ends when a run takes this long.
const LOOK_NS: f64 = 2e6;
/// Most groups in one run.
const GROUPS_MAX: u64 = 4_000;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Rounds per row.
    pub rounds: usize,
    /// How long nothing happens where that is measured.
    pub idle: Duration,
}

/// What came of one row and one system.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The row.
    pub row: Row,
    /// The system.
    pub system: SystemName,
    /// The figures, or why there are none.
    pub outcome: Outcome,
}

/// See [`Cell`].
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Measured, in the row's unit.
    Measured {
        /// Median over rounds.
        median: f64,
        /// 99th percentile over operations or small groups of them.
        p99: f64,
        /// Rounds.
        rounds: usize,
    },
    /// The system has no such thing.
    NoCounterpart,
    /// The system is not here.
    Missing(String),
    /// The system is here, but something went wrong; it is not asked again.
    Failed(String),
}

enum Contestant {
    Here { system: Box<dyn System>, filled: Vec<DataSet> },
    Gone(Outcome),
}

/// All systems of one run of the program.
pub struct Contest {
    contestants: Vec<(SystemName, Contestant)>,
    effort: Effort,
    progress: ProgressBar,
}

/// Figures of one row and system while rounds go on.
struct Turn {
    contestant: usize,
    nanoseconds: f64,
    rounds: Vec<f64>,
    groups: Vec<f64>,
    /// Set once it is known that there will be no figures.
    ended: Option<Outcome>,
}

impl Contest {
    /// Starts the systems named.
    pub fn new(systems: &[SystemName], effort: Effort, progress: ProgressBar) -> Self {
        let contestants = systems
            .iter()
            .map(|name| {
                progress.set_message(format!("starting {}", name.name()));
                let contestant = match start(*name) {
                    Ok(Presence::Here(system)) => Contestant::Here { system, filled: Vec::new() },
                    Ok(Presence::Missing(reason)) => Contestant::Gone(Outcome::Missing(reason)),
                    Err(error) => Contestant::Gone(Outcome::Failed(error.to_string())),
                };
                (*name, contestant)
            })
            .collect();
        Contest { contestants, effort, progress }
    }

    /// Measures one row on all systems, in alternation. One cell per system, in the order of the systems.
    pub fn measure(&mut self, row: Row) -> Vec<Cell> {
        if row == Row::IdleCpu {
            return self.measure_idleness(row);
        }
        let mut turns = Vec::new();
        for (at, (name, contestant)) in self.contestants.iter_mut().enumerate() {
            self.progress.set_message(format!("{}: {} gets ready", row.name(), name.name()));
            let (nanoseconds, ended) = match contestant.first_look(*name, row) {
                Ok(nanoseconds) => (nanoseconds, None),
                Err(outcome) => (0.0, Some(outcome)),
            };
            turns.push(Turn { contestant: at, nanoseconds, rounds: Vec::new(), groups: Vec::new(), ended });
        }
        // Memory does not vary from round to round, and filling takes time.
        let rounds = match row.unit() {
            Unit::Bytes => 1,
            Unit::Nanoseconds if row.is_one_figure() => self.effort.rounds.div_ceil(2),
            Unit::Nanoseconds => self.effort.rounds,
        };
        for round in 0..rounds {
            self.progress.set_message(format!("{}: round {} of {rounds}", row.name(), round + 1));
            // Another one begins in each round: being first after the others' cache traffic is not always the same system's lot.
            let begins = 1.min(turns.len());
            turns.rotate_left(begins);
            for turn in &mut turns {
                turn.play(row, &mut self.contestants[turn.contestant].1);
            }
        }
        self.progress.inc(1);
        turns.sort_by_key(|turn| turn.contestant);
        let names = self.contestants.iter().map(|(name, _)| *name);
        names.zip(turns).map(|(system, turn)| Cell { row, system, outcome: turn.outcome() }).collect()
    }
}

impl Contest {
    /// All systems are idle at the same time.
    fn measure_idleness(&mut self, row: Row) -> Vec<Cell> {
        self.progress.set_message(format!("{}: nothing happens", row.name()));
        let family = |contestant: &Contestant| match contestant {
            Contestant::Here { system, .. } => system.processes().into_iter().flat_map(family).collect(),
            Contestant::Gone(_) => Vec::new(),
        };
        let families: Vec<Vec<u32>> = self.contestants.iter().map(|(_, contestant)| family(contestant)).collect();
        let figures = idle(&families, self.effort.idle);
        self.progress.inc(1);
        let cells = self.contestants.iter().zip(families.iter().zip(figures)).map(|((name, contestant), (family, figure))| {
            let outcome = match contestant {
                Contestant::Gone(outcome) => outcome.clone(),
                Contestant::Here { .. } if family.is_empty() || !name.takes_part(row) => Outcome::NoCounterpart,
                Contestant::Here { .. } => Outcome::Measured { median: figure, p99: figure, rounds: 1 },
            };
            Cell { row, system: *name, outcome }
        });
        cells.collect()
    }
}

impl Contestant {
    /// Calls the system; whatever goes wrong is the end of it.
    fn ask<T>(&mut self, question: impl FnOnce(&mut dyn System, &mut Vec<DataSet>) -> Result<T>) -> std::result::Result<T, Outcome> {
        match self {
            Contestant::Gone(outcome) => Err(outcome.clone()),
            Contestant::Here { system, filled } => question(system.as_mut(), filled).map_err(|error| {
                let outcome = Outcome::Failed(error.to_string());
                *self = Contestant::Gone(outcome.clone());
                outcome
            }),
        }
    }

    /// Fills in what the row needs, and finds out how many nanoseconds one operation takes, roughly.
    fn first_look(&mut self, name: SystemName, row: Row) -> std::result::Result<f64, Outcome> {
        let has = self.ask(|system, _| Ok(name.takes_part(row) && system.has(row.work())))?;
        if !has {
            return Err(Outcome::NoCounterpart);
        }
        self.ask(|system, filled| {
            if let Some(data) = row.data().filter(|data| !filled.contains(data)) {
                system.prepare(data)?;
                filled.push(data);
            }
            if row.is_one_figure() {
                return Ok(0.0);
            }
            let _there = if row.situation().one_core { Some(OnOneCore::bring()?) } else { None };
            let mut operations = 1;
            loop {
                let total: f64 = system.run(row.work(), Plan { groups: 1, operations, think_ns: 0 })?.iter().sum();
                if total >= LOOK_NS || operations * 4 > row.operations_max() {
                    return Ok(total / operations as f64);
                }
                operations *= 4;
            }
        })
    }
}

impl Turn {
    /// One round, unless this turn has ended.
    fn play(&mut self, row: Row, contestant: &mut Contestant) {
        if self.ended.is_none() {
            self.ended = contestant.ask(|system, _| self.round(row, system)).err();
        }
    }

    fn round(&mut self, row: Row, system: &mut dyn System) -> Result<()> {
        let Situation { think_ns, one_core, processor_time } = row.situation();
        if row.is_one_figure() {
            let figures = system.run(row, Plan { groups: 1, operations: 1, think_ns: 0 })?;
            self.rounds.extend(&figures);
            self.groups.extend(&figures);
            return Ok(());
        }
        let _there = if one_core { Some(OnOneCore::bring()?) } else { None };
        let (mut main, mut tail) = plans(self.nanoseconds + think_ns as f64, row.operations_max());
        if think_ns > 0 {
            (main, tail) = (Plan { groups: main.groups * main.operations, operations: 1, think_ns }, None);
        }
        if processor_time {
            let family = family(std::process::id());
            let before = processor_ns(&family);
            system.run(row.work(), main)?;
            let each = (processor_ns(&family) - before) / (main.groups * main.operations) as f64;
            self.rounds.push(each);
            self.groups.push(each);
            return Ok(());
        }
        let row = row.work();
        let times = system.run(row, main)?;
        self.rounds.push(times.iter().sum::<f64>() / (main.groups * main.operations) as f64);
        match tail {
            None => self.groups.extend(times),
            Some(tail) => {
                let times = system.run(row, tail)?;
                self.groups.extend(times.iter().map(|time| time / tail.operations as f64));
            }
        }
        Ok(())
    }

    fn outcome(mut self) -> Outcome {
        self.ended.take().unwrap_or_else(|| Outcome::Measured {
            median: quantile(&mut self.rounds, 0.5),
            p99: quantile(&mut self.groups, 0.99),
            rounds: self.rounds.len(),
        })
    }
}

/// The run for the median, and the one for the 99th percentile if that takes another.
fn plans(nanoseconds: f64, operations_max: u64) -> (Plan, Option<Plan>) {
    let nanoseconds = nanoseconds.max(0.5);
    let operations = ((ROUND_NS / nanoseconds) as u64).clamp(1, operations_max);
    if nanoseconds >= SLOW_NS {
        return (Plan { groups: operations, operations: 1, think_ns: 0 }, None);
    }
    let in_group = ((GROUP_NS / nanoseconds).ceil() as u64).clamp(1, operations_max);
    let groups = ((TAIL_NS / (nanoseconds * in_group as f64)) as u64).clamp(1, GROUPS_MAX.min(operations_max / in_group));
    (Plan { groups: 1, operations, think_ns: 0 }, Some(Plan { groups, operations: in_group, think_ns: 0 }))
}

/// The value below which the part `q` of the figures lies: nearest rank; for the median of an even number, the mean of the two in the middle.
pub fn quantile(figures: &mut [f64], q: f64) -> f64 {
    if figures.is_empty() {
        return f64::NAN;
    }
    figures.sort_by(f64::total_cmp);
    let count = figures.len();
    if q == 0.5 && count.is_multiple_of(2) {
        return f64::midpoint(figures[count / 2 - 1], figures[count / 2]);
    }
    figures[((q * count as f64).ceil() as usize).clamp(1, count) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        assert_eq!(quantile(&mut [3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(&mut [4.0, 1.0, 2.0, 3.0], 0.5), 2.5);
        let mut hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&mut hundred, 0.99), 99.0);
        assert_eq!(quantile(&mut [7.0], 0.99), 7.0);
        assert!(quantile(&mut [], 0.5).is_nan());
    }

    #[test]
    fn plans_fit_the_speed_of_the_operation() {
        let (main, tail) = plans(50e6, u64::MAX);
        assert_eq!((main, tail), (Plan { groups: 1, operations: 1, think_ns: 0 }, None));
        let (main, tail) = plans(50_000.0, u64::MAX);
        assert_eq!((main, tail), (Plan { groups: 500, operations: 1, think_ns: 0 }, None));
        let (main, tail) = plans(50.0, u64::MAX);
        assert_eq!(main, Plan { groups: 1, operations: 500_000, think_ns: 0 });
        assert_eq!(tail, Some(Plan { groups: 4000, operations: 20, think_ns: 0 }));
        let (main, tail) = plans(50.0, 1000);
        assert_eq!(main.operations, 1000);
        assert!(tail.is_some_and(|tail| tail.groups * tail.operations <= 1000));
    }
}
