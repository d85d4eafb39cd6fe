//! Aggregated metrics that are exact although processes are killed while they count.
//!
//! `cargo run --example metrics`, `-- --kill 5` to have five workers killed on the way
//!
//! Counting twice is the usual price of doing again what a dead process may have done. Here an event is counted and crossed off in one
//! transaction, so that doing it again changes nothing: a worker leases an event, and whoever gets it after its death looks first.

use clap::Parser;
use commonhold::{Dict, Manager, Process, Queue, Shared};
use std::process::ExitCode;

/// Counts events from several processes, exactly.
#[derive(Parser)]
#[command(name = "metrics", version)]
struct Cli {
    /// Events to count
    #[arg(long, default_value_t = 2_000)]
    events: u64,
    /// Worker processes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// How many times a worker is killed
    #[arg(long, default_value_t = 0, value_name = "TIMES")]
    kill: u64,
}

#[derive(Shared, Debug, Clone)]
struct Event {
    number: u64,
    route: String,
    micros: u64,
}

#[derive(Shared, Debug, Default, PartialEq)]
struct Metric {
    requests: u64,
    micros: u64,
    slowest: u64,
}

impl Metric {
    fn count(&mut self, event: &Event) {
        self.requests += 1;
        self.micros += event.micros;
        self.slowest = self.slowest.max(event.micros);
    }
}

#[derive(Shared, Clone)]
struct Board {
    events: Queue<Event>,
    metrics: Dict<String, Metric>,
    /// Numbers of events that are counted.
    counted: Dict<u64, bool>,
}

fn count(board: Board) -> commonhold::Result<()> {
    let manager = commonhold::Handle::session(&board.metrics)?;
    while let Some(event) = board.events.lease()? {
        manager.transaction(|tx| {
            if tx.contains_key(&board.counted, event.number)? {
                return Ok(()); // by somebody who died before the acknowledgement
            }
            let mut metric = tx.get(&board.metrics, &event.route)?.map(|metric| metric.to_owned()).unwrap_or_default();
            metric.count(&event);
            tx.insert(&board.metrics, &event.route, &metric)?;
            tx.insert(&board.counted, event.number, true)
        })?;
        event.ack()?;
    }
    Ok(())
}

fn event(number: u64) -> Event {
    let route = ["/", "/search", "/cart"][(number % 7 % 3) as usize].to_string();
    Event { number, route, micros: 100 + number * 7919 % 900 }
}

fn run(cli: &Cli) -> commonhold::Result<()> {
    let manager = Manager::start()?;
    let board = Board { events: manager.queue(100)?, metrics: manager.dict([])?, counted: manager.dict([])? };
    let start = || Process::builder().daemon(true).spawn(count, board.clone());
    let mut workers = (0..cli.workers).map(|_| start()).collect::<commonhold::Result<Vec<_>>>()?;
    let mut killed = 0;
    for number in 0..cli.events {
        board.events.send(event(number))?;
        if killed < cli.kill && number >= (killed + 1) * cli.events / (cli.kill + 1) {
            // Whatever it is doing at the moment.
            let victim = killed as usize % workers.len();
            workers[victim].kill()?;
            workers[victim] = start()?;
            killed += 1;
        }
    }
    board.events.close()?;
    for worker in workers {
        worker.join()??;
    }
    // The same, alone.
    let mut alone = std::collections::BTreeMap::<String, Metric>::new();
    (0..cli.events).map(event).for_each(|event| alone.entry(event.route.clone()).or_default().count(&event));
    for (route, metric) in &alone {
        let ours = board.metrics.get(route)?.map(|metric| metric.to_owned()).unwrap_or_default();
        assert_eq!(ours, *metric, "{route} was counted wrongly");
        println!("{route:8} {:4} requests, {} µs on average, {} at most", ours.requests, ours.micros / ours.requests, ours.slowest);
    }
    println!("{} events by {} workers, {killed} of them killed: exact", cli.events, cli.workers);
    Ok(())
}

fn main() -> ExitCode {
    commonhold::init();
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("metrics: {error}");
            ExitCode::FAILURE
        }
    }
}
