//! `compare calls`: one mutating call after the other, in the situations that decide what waiting costs; not means alone, and with the
//! processor time that all processes together have spent.
//!
//! Hot: as fast as they come. Thinking: the caller works for some microseconds between two calls, as programs do. On one core: where
//! looking for an answer keeps the other from giving it. Every call is timed by itself, so a reading of the clock (25 to 50 ns) is in
//! every figure. The 10th percentile is what the median comes down to on a machine that does nothing else.
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::Result;
use crate::commonhold::Commonhold;
use crate::measure::quantile;
use crate::python::Python;
use crate::redis::Redis;
use crate::report::humane;
use crate::rows::{Row, Unit};
use crate::situations::{allowed, family, processor_ns, run_on};
use crate::system::System;
use crate::workload::Plan;

/// What one turn of one system may take, roughly.
const TURN: Duration = Duration::from_millis(150);
/// Calls of one turn at the least and the most.
const CALLS: std::ops::RangeInclusive<u64> = 100..=100_000;
/// Calls from which a turn's length is told.
const CALLS_AT_FIRST: u64 = 200;

/// What `compare calls` takes.
#[derive(Args)]
pub struct CallsOptions {
    /// Which calls, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "ROWS", default_values = ["dict_set_64"], hide_possible_values = true)]
    pub rows: Vec<Row>,
    /// Microseconds between two calls of a caller that thinks
    #[arg(long, default_value_t = 20)]
    pub think_us: u64,
    /// Rounds, the systems taking turns in each
    #[arg(long, default_value_t = 9)]
    pub rounds: usize,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// A way to call.
struct Situation {
    name: String,
    think_ns: u64,
    cores: Cores,
}

/// Where caller and server may run.
#[derive(Clone, Copy, PartialEq)]
enum Cores {
    /// Wherever the scheduler puts them.
    Any,
    /// On one processor, both.
    One,
}

/// A system in a situation: its name, itself, and what was measured so far.
struct Caller {
    name: &'static str,
    system: Box<dyn System>,
    calls: u64,
    latencies: Vec<f64>,
    cpu_seconds: f64,
}

/// `compare calls`.
pub fn calls(options: &CallsOptions) -> Result<()> {
    let mut situations = Vec::new();
    for (cores, where_to) in [(Cores::Any, ""), (Cores::One, ", one core")] {
        for (think_ns, how) in [(0, "hot"), (1_000 * options.think_us, "thinking")] {
            situations.push(Situation { name: format!("{how}{where_to}"), think_ns, cores });
        }
    }
    for row in &options.rows {
        for situation in &situations {
            in_situation(*row, situation, options)?;
        }
    }
    Ok(())
}

fn in_situation(row: Row, situation: &Situation, options: &CallsOptions) -> Result<()> {
    let cpus = allowed()?;
    // What is started from here inherits it.
    run_on(if situation.cores == Cores::One { &cpus[..1] } else { &cpus })?;
    let done = callers(row, situation).and_then(|mut callers| {
        for _ in 0..options.rounds {
            callers.rotate_left(1);
            callers.iter_mut().try_for_each(|caller| turn(caller, row, situation))?;
        }
        let turned = options.rounds % callers.len();
        callers.rotate_right(turned);
        callers.iter_mut().try_for_each(|caller| print(caller, row, situation, options.json))
    });
    run_on(&cpus)?;
    done
}

fn callers(row: Row, situation: &Situation) -> Result<Vec<Caller>> {
    let mut callers: Vec<(&str, Box<dyn System>)> = vec![
        ("commonhold", Box::new(Commonhold::start()?)),
        ("commonhold by socket", Box::new(Commonhold::start_with(::commonhold::Manager::builder().lanes(false))?)),
    ];
    callers.extend(Redis::start()?.map(|redis| ("redis", Box::new(redis) as Box<dyn System>)));
    callers.extend(Python::start()?.map(|python| ("python", Box::new(python) as Box<dyn System>)));
    callers
        .into_iter()
        .map(|(name, mut system)| {
            if let Some(data) = row.data() {
                system.prepare(data)?;
            }
            let plan = Plan { groups: CALLS_AT_FIRST, operations: 1, think_ns: situation.think_ns };
            let each = system.run(row, plan)?.iter().sum::<f64>() / CALLS_AT_FIRST as f64 + situation.think_ns as f64;
            let calls = ((TURN.as_nanos() as f64 / each) as u64).clamp(*CALLS.start(), *CALLS.end());
            Ok(Caller { name, system, calls, latencies: Vec::new(), cpu_seconds: 0.0 })
        })
        .collect()
}

fn turn(caller: &mut Caller, row: Row, situation: &Situation) -> Result<()> {
    let before = cpu_seconds();
    let plan = Plan { groups: caller.calls, operations: 1, think_ns: situation.think_ns };
    caller.latencies.extend(caller.system.run(row, plan)?);
    let thought = (caller.calls * situation.think_ns) as f64 / 1e9;
    caller.cpu_seconds += cpu_seconds() - before - thought;
    Ok(())
}

/// Processor time that this program and all that it has started have used.
fn cpu_seconds() -> f64 {
    processor_ns(&family(std::process::id())) / 1e9
}

fn print(caller: &mut Caller, row: Row, situation: &Situation, as_json: bool) -> Result<()> {
    let n = caller.latencies.len() as f64;
    let mean = caller.latencies.iter().sum::<f64>() / n;
    let [p10, p50, p99, p999] = [0.1, 0.5, 0.99, 0.999].map(|q| quantile(&mut caller.latencies, q));
    let cpu = caller.cpu_seconds / n * 1e6;
    let figures = json!({
        "row": row.name(), "situation": situation.name, "system": caller.name, "mean_ns": mean, "p10_ns": p10, "p50_ns": p50, "p99_ns": p99,
        "p999_ns": p999, "cpu_seconds_per_million": cpu, "n": n,
    });
    let shown = [p10, p50, mean, p99, p999].map(|figure| humane(figure, Unit::Nanoseconds));
    let text = format!(
        "{:<14} {:<20} {:<21} p10 {:>8}  p50 {:>8}  mean {:>8}  p99 {:>8}  p99.9 {:>8}  {cpu:>7.2} CPU s per million",
        row.name(),
        situation.name,
        caller.name,
        shown[0],
        shown[1],
        shown[2],
        shown[3],
        shown[4]
    );
    crate::scale::print(as_json, &figures, &text)?;
    Ok(())
}
