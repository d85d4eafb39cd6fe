//! commonhold alone, at its limits: how reads, writes and memory grow with entries, how throughput holds with many client processes
//! or threads, and
//! whether memory stays bounded under many millions of overwrites.
use std::hint::black_box;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use ::commonhold::{Counter, Dict, Manager, Token};
use serde_json::{Value, json};

use crate::commonhold::{Small, backed_bytes, fill_small, get_small, live_bytes, set_small, small};
use crate::measure::quantile;
use crate::report::humane;
use crate::rows::{ENTRIES, Unit};
use crate::workload::{Indices, Plan, key, touch, value};
use crate::{ChurnOptions, Result, ScaleOptions};

/// Rounds per figure of the first part.
const ROUNDS: usize = 5;
/// Operations per round: enough to leave the cache behind at any size, few enough for writes.
const GETS: u64 = 200_000;
const SETS: u64 = 20_000;
/// How long clients work.
const WORK: Duration = Duration::from_millis(1000);
/// Gets between two looks at the clock: a look costs as much as a get.
const GETS_PER_LOOK: u64 = 64;

type Failure = Box<dyn std::error::Error>;

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

/// The environment variable by which a process learns that it is a client: dict, start, number of clients, own number, 1 to
/// write, milliseconds of work.
const CLIENT_VARIABLE: &str = "COMPARE_CLIENT";

/// Operations per second of so many processes together.
pub fn all_clients(manager: &Manager, dict: &Dict<u64, Small>, clients: u32, writes: bool, work: Duration) -> Result<f64> {
    let start = manager.counter(0)?;
    let mut processes = Vec::new();
    for client in 0..clients {
        let task = format!("{} {} {clients} {client} {} {}", dict.token()?, start.token()?, u8::from(writes), work.as_millis());
        let mut command = Command::new(std::env::current_exe()?);
        processes.push(command.env(CLIENT_VARIABLE, task).stdout(Stdio::piped()).spawn()?);
    }
    let mut together = 0.0;
    for process in processes {
        let output = process.wait_with_output()?;
        if !output.status.success() {
            return Err(format!("a client process ended with {}", output.status).into());
        }
        together += String::from_utf8(output.stdout)?.trim().parse::<f64>()?;
    }
    Ok(together)
}

/// In a process that was started as a client: its whole life.
pub fn be_client() -> Option<Result<()>> {
    let task = std::env::var(CLIENT_VARIABLE).ok()?;
    Some(task_of(&task).and_then(|(dict, start, clients, client, writes, time)| {
        println!("{}", work_together(&dict, &start, clients, client, writes, time)?);
        Ok(())
    }))
}

type Task = (Dict<u64, Small>, Counter, i64, u64, bool, Duration);

fn task_of(task: &str) -> Result<Task> {
    let words: Vec<&str> = task.split(' ').collect();
    let [dict, start, clients, client, writes, ms] = words[..] else { return Err("not a client's task".into()) };
    let (dict, start): (Token, Token) = (dict.parse()?, start.parse()?);
    Ok((dict.open()?, start.open()?, clients.parse()?, client.parse()?, writes == "1", Duration::from_millis(ms.parse()?)))
}

/// What a client process does: waits until all are there, works for a time, returns its operations per second.
fn work_together(
    dict: &Dict<u64, Small>,
    start: &Counter,
    clients: i64,
    client: u64,
    writes: bool,
    time: Duration,
) -> ::commonhold::Result<f64> {
    let indices = indices_of(client);
    let mut seen = 0;
    start.add(1)?;
    while start.get()? < clients {
        start.wait_for_change(&mut seen, None)?;
    }
    work(dict, indices, writes, time)
}

/// Indices that begin at another place of the sequence than those of other clients, lest they read in lockstep.
fn indices_of(client: u64) -> Indices {
    let mut indices = Indices::below(ENTRIES);
    for _ in 0..client * 1000 {
        black_box(indices.next_index());
    }
    indices
}

/// Gets or sets for a time; operations per second.
fn work(dict: &Dict<u64, Small>, mut indices: Indices, writes: bool, time: Duration) -> ::commonhold::Result<f64> {
    let failed = |error: Failure| ::commonhold::Error::other(error.to_string());
    let small = small().map_err(failed)?;
    let began = Instant::now();
    let mut done = 0;
    while began.elapsed() < time {
        if writes {
            dict.insert(indices.next_key(), small)?;
            done += 1;
            continue;
        }
        for _ in 0..GETS_PER_LOOK {
            let found = dict.get(indices.next_key())?.ok_or_else(|| ::commonhold::Error::other("a key is not there"))?;
            touch(&found[..]);
        }
        done += GETS_PER_LOOK;
    }
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

/// `compare churn`: weeks of overwriting in fast motion. Memory must level off after the first lines.
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
            churn_line(&manager, done, began, options.json)?;
            next_line += per_line;
        }
    }
    Ok(())
}

fn churn_line(manager: &Manager, done: u64, began: Instant, as_json: bool) -> Result<()> {
    let (backed, live) = (backed_bytes(manager)?, live_bytes(manager)?);
    let seconds = began.elapsed().as_secs_f64();
    let text = format!(
        "{done:>12} overwrites in {seconds:>7.1} s: {:>8} backed, {:>8} live",
        humane(backed as f64, Unit::Bytes),
        humane(live as f64, Unit::Bytes)
    );
    print(as_json, &json!({ "overwrites": done, "seconds": seconds, "backed_bytes": backed, "live_bytes": live }), &text)?;
    Ok(())
}
