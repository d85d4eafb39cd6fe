//! Clients of commonhold, all at the same time: this program again, which gets or sets for a while and says how often it could.
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ::commonhold::{Counter, Dict, Manager, Token};

use crate::Result;
use crate::dicts::{Small, small};
use crate::rows::ENTRIES;
use crate::workload::{Indices, touch};

/// Gets between two looks at the clock: a look costs as much as a get.
const GETS_PER_LOOK: u64 = 64;

type Failure = Box<dyn std::error::Error>;

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
pub fn indices_of(client: u64) -> Indices {
    let mut indices = Indices::below(ENTRIES);
    for _ in 0..client * 1000 {
        black_box(indices.next_index());
    }
    indices
}

/// Gets or sets for a time; operations per second.
pub fn work(dict: &Dict<u64, Small>, mut indices: Indices, writes: bool, time: Duration) -> ::commonhold::Result<f64> {
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
