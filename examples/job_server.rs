//! A job server, as `make` has one: many jobs, few tokens. Jobs that are killed give their tokens back.
//!
//! `cargo run --example job_server`, `-- --kill` to have some jobs hang until they are killed
//!
//! A token is a permit of a semaphore. `make`'s own tokens are bytes in a pipe: a job that is killed with one in its hands takes it along,
//! and the rest of the build has one less for ever.

use clap::Parser;
use commonhold::{BoundedSemaphore, List, Manager, Process, Queue};
use std::process::ExitCode;

/// Builds some units by a process each, not many of them at the same time.
#[derive(Parser)]
#[command(name = "job_server", version)]
struct Cli {
    /// Have as many jobs hang as there are tokens, and kill them
    #[arg(long)]
    kill: bool,
}

/// Jobs that may work at the same time.
const TOKENS: usize = 2;
/// Units to compile.
const UNITS: u64 = 8;

/// With a queue to say that it is stuck, one unit in four is.
fn compile(unit: u64, tokens: BoundedSemaphore, built: List<u64>, stuck: Option<Queue<u64>>) -> commonhold::Result<()> {
    let _token = tokens.acquire()?; // waits until one is free
    if let Some(stuck) = stuck.filter(|_| unit.is_multiple_of(4)) {
        stuck.send(unit)?;
        loop {
            std::thread::park(); // a compiler that hangs, its token in its hands
        }
    }
    built.push(unit)
}

fn run(cli: &Cli) -> commonhold::Result<()> {
    let manager = Manager::start()?;
    let tokens = manager.bounded_semaphore(TOKENS)?;
    let built = manager.list::<u64>([])?;
    let stuck = cli.kill.then(|| manager.queue::<u64>(UNITS)).transpose()?;
    let start = |unit| Process::spawn(compile, (unit, tokens.clone(), built.clone(), stuck.clone()));
    let jobs: Vec<_> = (1..=UNITS).map(start).collect::<commonhold::Result<_>>()?;
    // As many may hang as there are tokens: nobody else would ever get one.
    if let Some(stuck) = stuck {
        for _ in 0..TOKENS {
            let unit = stuck.recv()?.expect("nobody closes it");
            jobs[unit as usize - 1].kill()?;
        }
    }
    let killed = jobs.iter().filter(|job| job.join().is_err()).count();
    let all = (0..TOKENS).map(|_| tokens.acquire()).collect::<commonhold::Result<Vec<_>>>()?;
    println!("{} of {UNITS} units built, {killed} jobs killed, {} of {TOKENS} tokens back", built.len()?, all.len());
    Ok(())
}

fn main() -> ExitCode {
    commonhold::init();
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("job_server: {error}");
            ExitCode::FAILURE
        }
    }
}
