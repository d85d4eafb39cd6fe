//! An index of training samples that all loader processes share: the memory of each is the same however large the index is.
//!
//! `cargo run --release --example sample_index`, `-- --kill` to have a loader killed in between
//!
//! With a copy of the index in each process, memory grows with their number. Here it is in the manager's arena once; a loader reads it
//! in place and pays for what is its own, which this program prints. Batches are handed out by leases, so a killed loader's comes back.

use clap::Parser;
use commonhold::{List, Manager, Process, Queue, Shared};
use std::process::ExitCode;

/// Hands the samples of an index to loader processes, and shows what memory they take.
#[derive(Parser)]
#[command(name = "sample_index", version)]
struct Cli {
    /// Samples in the index
    #[arg(long, default_value_t = 100_000)]
    samples: u64,
    /// The most loaders
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    loaders: u16,
    /// Kill a loader on the way
    #[arg(long)]
    kill: bool,
}

const BATCH: u64 = 1_000;

/// A batch that kills the first loader that gets it.
const POISON: u64 = u64::MAX;

#[derive(Shared, Debug, Clone)]
struct Sample {
    path: String,
    label: u32,
    offset: u64,
}

fn sample(number: u64) -> Sample {
    Sample { path: format!("shard-{:04}/sample-{number:08}.jpg", number / 10_000), label: (number % 1_000) as u32, offset: number * 4096 }
}

/// A loader: takes batches of positions, looks the samples up. The sum of labels, and its own memory in KiB.
fn load(index: List<Sample>, batches: Queue<u64>, sums: Queue<u64>) -> commonhold::Result<u64> {
    while let Some(first) = batches.lease()? {
        if *first == POISON {
            if first.attempt() == 1 {
                std::process::abort(); // as a fault in a decoder would; whoever gets it next lets it go
            }
            first.ack()?;
            continue;
        }
        let samples = index.slice(*first as usize..(*first + BATCH) as usize)?;
        let sum = samples.iter().map(|sample| u64::from(sample.label.to_native()) + sample.path.len() as u64).sum::<u64>();
        sums.send(sum)?;
        first.ack()?;
    }
    Ok(own_memory_kib())
}

/// What this process has for itself: pages that it alone has written, not those that it shares.
fn own_memory_kib() -> u64 {
    let report = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let kib = |name| report.lines().find_map(|line: &str| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib("Private_Dirty:").unwrap_or_default()
}

fn run(cli: &Cli) -> commonhold::Result<()> {
    let manager = Manager::start()?;
    let index: List<Sample> = manager.list([])?;
    for first in (0..cli.samples).step_by(BATCH as usize) {
        index.extend((first..(first + BATCH).min(cli.samples)).map(sample))?;
    }
    let index_kib = manager.stats()?.live_bytes / 1024;
    println!("{} samples, {} MiB", index.len()?, index_kib / 1024);
    let alone: u64 = (0..cli.samples).map(sample).map(|sample| u64::from(sample.label) + sample.path.len() as u64).sum();
    for loaders in 1..=cli.loaders {
        let batches = manager.queue::<u64>(10_000)?;
        let sums = manager.queue_unbounded::<u64>()?;
        batches.send_many((0..cli.samples).step_by(BATCH as usize))?;
        let start = || Process::builder().daemon(true).spawn(load, (index.clone(), batches.clone(), sums.clone()));
        if cli.kill && loaders == 2 {
            batches.send(POISON)?;
        }
        batches.close()?;
        let mut own_kib = Vec::new();
        for process in (0..loaders).map(|_| start()).collect::<commonhold::Result<Vec<_>>>()? {
            match process.join() {
                Ok(kib) => own_kib.push(kib?),
                Err(error) => println!("a loader died: {:?}", error.kind()),
            }
        }
        let most = own_kib.into_iter().max().unwrap_or_default();
        let total: u64 = std::iter::from_fn(|| sums.try_recv().transpose()).sum::<commonhold::Result<u64>>()?;
        assert_eq!(total, alone, "a sample was left out or loaded twice");
        let flat = most < index_kib / 2;
        println!(
            "{loaders} loaders: all samples, {most} KiB of their own at most, {}",
            if flat { "flat" } else { "more than half the index" }
        );
    }
    Ok(())
}

fn main() -> ExitCode {
    commonhold::init();
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sample_index: {error}");
            ExitCode::FAILURE
        }
    }
}
