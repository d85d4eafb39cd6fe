//! commonhold alone, at its limits: how reads, writes and memory grow with entries, how throughput holds with many client processes
//! or threads, and
//! whether memory stays bounded under many millions of overwrites.
use std::io::{self, Write};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use ::commonhold::{Dict, Manager};
use clap::Args;
use serde_json::{Value, json};

use crate::Result;
use crate::clients::{all_clients, indices_of, work};
use crate::dicts::{Small, backed_bytes, fill_small, get_small, live_bytes, set_small};
use crate::measure::quantile;
use crate::report::humane;
use crate::rows::{ENTRIES, Unit};
use crate::workload::{Indices, Plan, key, value};

/// Rounds per figure of the first part.
const ROUNDS: usize = 5;
/// Operations per round: enough to leave the cache behind at any size, few enough for writes.
const GETS: u64 = 200_000;
const SETS: u64 = 20_000;
/// How long clients work.
const WORK: Duration = Duration::from_millis(1000);
/// What `compare scale` takes.
#[derive(Args)]
pub struct ScaleOptions {
    /// Numbers of entries, separated by commas; an empty list leaves this part out
    #[arg(long, value_delimiter = ',', num_args = 0.., default_values_t = [1_000, 10_000, 100_000, 1_000_000, 10_000_000])]
    pub entries: Vec<u64>,
    /// Numbers of client processes, separated by commas; an empty list leaves this part out
    #[arg(long, value_delimiter = ',', num_args = 0.., default_values_t = [1, 2, 5, 10, 20, 50, 100, 200])]
    pub clients: Vec<u32>,
    /// Numbers of threads of one client process, separated by commas; an empty list leaves this part out
    #[arg(long, value_delimiter = ',', num_args = 0.., default_values_t = [1, 2, 8, 64])]
    pub threads: Vec<u32>,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// What `compare churn` takes.
#[derive(Args)]
pub struct ChurnOptions {
    /// Overwrites in all
    #[arg(long, default_value_t = 20_000_000)]
    pub overwrites: u64,
    /// Entries that are overwritten again and again
    #[arg(long, default_value_t = 100_000)]
    pub entries: u64,
    /// Overwrites in one commit
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub batch: u64,
    /// Lines to print on the way
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub lines: u64,
    /// Largest value in bytes; sizes are random up to it
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    pub value_bytes_max: u64,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// One line: the figures as JSON, or a text for people.
pub fn print(as_json: bool, figures: &Value, text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match as_json {
        true => writeln!(out, "{figures}")?,
        false => writeln!(out, "{text}")?,
    }
    out.flush()
}

/// `compare scale`.
pub fn scale(options: &ScaleOptions) -> Result<()> {
    for entries in &options.entries {
        entries_line(*entries, options.json)?;
    }
    if options.clients.is_empty() && options.threads.is_empty() {
        return Ok(());
    }
    let manager = Manager::start()?;
    let dict = manager.dict([])?;
    fill_small(&manager, &dict, ENTRIES)?;
    for clients in &options.clients {
        clients_line(&manager, &dict, *clients, options.json)?;
    }
    for threads in &options.threads {
        threads_line(&dict, *threads, options.json)?;
    }
    Ok(())
}

fn entries_line(entries: u64, as_json: bool) -> Result<()> {
    let manager = Manager::start()?;
    let dict: Dict<u64, Small> = manager.dict([])?;
    let before = live_bytes(&manager)?;
    fill_small(&manager, &dict, entries)?;
    let bytes = live_bytes(&manager)?.saturating_sub(before) as f64 / entries as f64;
    let get = median(GETS, || get_small(&dict, entries, Plan { groups: 1, operations: GETS, think_ns: 0 }))?;
    let set = median(SETS, || set_small(&dict, entries, Plan { groups: 1, operations: SETS, think_ns: 0 }))?;
    let (ns, b) = (Unit::Nanoseconds, Unit::Bytes);
    let text = format!("{entries:>10} entries: get {:>8}, set {:>8}, {:>6} per entry", humane(get, ns), humane(set, ns), humane(bytes, b));
    print(as_json, &json!({ "entries": entries, "get_ns": get, "set_ns": set, "bytes_per_entry": bytes }), &text)?;
    Ok(())
}

/// Median over rounds of the time of one operation; the first round, which warms up, is not counted.
fn median(operations: u64, mut round: impl FnMut() -> Result<Vec<f64>>) -> Result<f64> {
    round()?;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(round()?.iter().sum::<f64>() / operations as f64);
    }
    Ok(quantile(&mut rounds, 0.5))
}

fn clients_line(manager: &Manager, dict: &Dict<u64, Small>, clients: u32, as_json: bool) -> Result<()> {
    let gets = all_clients(manager, dict, clients, false, WORK)?;
    let sets = all_clients(manager, dict, clients, true, WORK)?;
    let text = format!("{clients:>10} clients: {:>9.2} million gets/s, {:>9.1} thousand sets/s, all together", gets / 1e6, sets / 1e3);
    print(as_json, &json!({ "clients": clients, "gets_per_second": gets, "sets_per_second": sets }), &text)?;
    Ok(())
}

fn threads_line(dict: &Dict<u64, Small>, threads: u32, as_json: bool) -> Result<()> {
    let gets = all_threads(dict, threads, false)?;
    let sets = all_threads(dict, threads, true)?;
    let text = format!("{threads:>10} threads: {:>9.2} million gets/s, {:>9.1} thousand sets/s, all together", gets / 1e6, sets / 1e3);
    print(as_json, &json!({ "threads": threads, "gets_per_second": gets, "sets_per_second": sets }), &text)?;
    Ok(())
}

/// Operations per second of so many threads of this process together.
fn all_threads(dict: &Dict<u64, Small>, threads: u32, writes: bool) -> Result<f64> {
    let start = Barrier::new(threads as usize);
    thread::scope(|scope| {
        let worker = |number: u32| {
            let start = &start;
            scope.spawn(move || {
                let indices = indices_of(number.into());
                start.wait();
                work(dict, indices, writes, WORK)
            })
        };
        let workers: Vec<_> = (0..threads).map(worker).collect();
        let each = workers.into_iter().map(|worker| Ok(worker.join().map_err(|_| "a thread of it panicked")??));
        each.sum()
    })
}

/// `compare churn`: weeks of overwriting in fast motion. Memory must level off in the first quarter of them.
pub fn churn(options: &ChurnOptions) -> Result<()> {
    let manager = Manager::start()?;
    let dict: Dict<u64, Vec<u8>> = manager.dict([])?;
    let largest = value(options.value_bytes_max as usize);
    let mut indices = Indices::below(options.entries);
    let mut sizes = Indices::below(options.value_bytes_max);
    // The two sequences start from one seed; without this, a key would always meet the same size.
    sizes.next_index();
    let per_line = (options.overwrites / options.lines).max(1);
    let began = Instant::now();
    let mut done = 0;
    let mut next_line = per_line;
    let mut backed = Vec::new();
    while done < options.overwrites {
        let batch = options.batch.min(options.overwrites - done);
        manager.batch(|writes| {
            for _ in 0..batch {
                let bytes = 1 + sizes.next_index() as usize;
                writes.insert(&dict, key(indices.next_index()), largest[..bytes].to_vec())?;
            }
            Ok(())
        })?;
        done += batch;
        if done >= next_line || done == options.overwrites {
            backed.push(churn_line(&manager, done, began, options.json)?);
            next_line += per_line;
        }
    }
    has_levelled_off(&backed)
}

/// Fails if the most that was backed in the last quarter of the lines is more than a tenth above that in the first.
fn has_levelled_off(backed: &[u64]) -> Result<()> {
    let quarter = backed.len().div_ceil(4);
    let most = |lines: &[u64]| lines.iter().copied().max().unwrap_or(0);
    let (first, last) = (most(&backed[..quarter]), most(&backed[backed.len() - quarter..]));
    if last > first + first / 10 {
        return Err(format!("memory grows: {first} bytes were backed in the first quarter of the overwrites, {last} in the last").into());
    }
    Ok(())
}

/// Prints a line. Returns the bytes that are backed.
fn churn_line(manager: &Manager, done: u64, began: Instant, as_json: bool) -> Result<u64> {
    let (backed, live) = (backed_bytes(manager)?, live_bytes(manager)?);
    let seconds = began.elapsed().as_secs_f64();
    let text = format!(
        "{done:>12} overwrites in {seconds:>7.1} s: {:>8} backed, {:>8} live",
        humane(backed as f64, Unit::Bytes),
        humane(live as f64, Unit::Bytes)
    );
    print(as_json, &json!({ "overwrites": done, "seconds": seconds, "backed_bytes": backed, "live_bytes": live }), &text)?;
    Ok(backed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_grows_is_an_error() {
        // What grows within the first quarter, or goes up and down, has levelled off.
        for well in [&[][..], &[7], &[100, 110], &[10, 100, 90, 110, 50, 80, 100, 110]] {
            has_levelled_off(well).unwrap();
        }
        for grows in [&[100, 111][..], &[100, 100, 50, 60, 70, 80, 90, 111], &[100, 105, 110, 115, 120]] {
            assert!(has_levelled_off(grows).unwrap_err().to_string().starts_with("memory grows: "), "{grows:?}");
        }
    }
}
