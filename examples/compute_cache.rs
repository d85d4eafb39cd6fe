//! A cache that a command-line tool shares with itself: whoever asks first computes, whoever asks meanwhile waits for that.
//!
//! `cargo run --example compute_cache -- 27 871`, several times and at the same time; `-- --shutdown` ends the daemon
//!
//! The manager is the daemon: the first tool starts it, and it goes by itself a minute after the last has used it. A lock for each
//! key sees to one computation per miss. If the tool that computes is killed, the next one that waits gets its lock, is told so, and
//! computes; `--kill` shows it: the tool kills itself in the middle of its work.

use clap::Parser;
use commonhold::{Dict, Lock, Manager};
use std::process::ExitCode;
use std::time::Duration;

/// How many steps a number takes to 1 (halve it if it is even, else triple it and add one), from a cache that all of these tools share.
#[derive(Parser)]
#[command(name = "compute_cache", version)]
struct Cli {
    /// Numbers, from 1
    #[arg(required_unless_present = "shutdown", value_parser = clap::value_parser!(u64).range(1..))]
    numbers: Vec<u64>,
    /// Name of the cache
    #[arg(long, default_value = "compute-cache")]
    name: String,
    /// Kill this process in the middle of the first computation
    #[arg(long)]
    kill: bool,
    /// End the cache
    #[arg(long)]
    shutdown: bool,
}

fn steps(mut number: u64) -> u64 {
    let mut steps = 0;
    while number != 1 {
        number = if number.is_multiple_of(2) { number / 2 } else { 3 * number + 1 };
        steps += 1;
    }
    steps
}

struct Cache {
    steps: Dict<u64, u64>,
    /// Who computes what is not there yet.
    computing: Dict<u64, Lock>,
    manager: Manager,
}

impl Cache {
    fn open(name: &str) -> commonhold::Result<Cache> {
        let manager = Manager::builder().idle_timeout(Duration::from_secs(60)).open_or_start(name)?;
        let steps = manager.open_or_create("steps", |m| m.dict([]))?;
        let computing = manager.open_or_create("computing", |m| m.dict([]))?;
        Ok(Cache { steps, computing, manager })
    }

    /// The answer, and how it was come by.
    fn get(&self, number: u64, kill: bool) -> commonhold::Result<(u64, &'static str)> {
        if let Some(steps) = self.steps.get(number)? {
            return Ok((*steps, "found"));
        }
        let lock = self.computing.get_or_insert(number, self.manager.lock()?)?.to_owned();
        let acquired = match lock.lock() {
            // Whoever computed has taken the lock out before it was held here: the answer is there now.
            Err(error) if error.is_not_found() => return self.get(number, kill),
            acquired => acquired?,
        };
        let how = if acquired.owner_died() { "computed, after another tool died over it" } else { "computed" };
        let _guard = acquired.into_guard();
        // By whom we have waited for, perhaps.
        if let Some(steps) = self.steps.get(number)? {
            return Ok((*steps, "waited for"));
        }
        if kill {
            std::process::abort();
        }
        let steps = steps(number);
        self.steps.insert(number, steps)?;
        self.computing.remove(number)?;
        Ok((steps, how))
    }
}

fn run(cli: &Cli) -> commonhold::Result<()> {
    if cli.shutdown {
        return Manager::connect(&cli.name)?.shutdown();
    }
    let cache = Cache::open(&cli.name)?;
    for number in &cli.numbers {
        let (steps, how) = cache.get(*number, cli.kill)?;
        println!("{number}: {steps} steps ({how})");
    }
    Ok(())
}

fn main() -> ExitCode {
    commonhold::init();
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compute_cache: {error}");
            ExitCode::FAILURE
        }
    }
}
