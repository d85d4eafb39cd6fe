//! A weather station: one of two programs that share nothing but a name. The other one is `unrelated_reader`.
//!
//! `cargo run --example unrelated_writer`, and in another terminal `cargo run --example unrelated_reader`, in either order
//!
//! Whichever program comes first starts the manager, which outlives both; `--shutdown` ends it. One day passes, an hour every tenth
//! of a second: all stations report in one batch, so that the reader sees an hour wholly or not at all.

use clap::Parser;
use commonhold::{Dict, Manager, Shared};
use std::process::ExitCode;
use std::time::Duration;

/// Reports a day's weather by way of a manager that other programs find by its name.
#[derive(Parser)]
#[command(name = "unrelated_writer", version)]
struct Cli {
    /// Name of the manager
    #[arg(long, default_value = "weather")]
    name: String,
    /// Milliseconds that an hour takes
    #[arg(long, default_value_t = 100, value_name = "MS")]
    hour: u64,
    /// End the manager, and with it all that it holds, instead of reporting
    #[arg(long)]
    shutdown: bool,
}

/// What a station reports. The reader declares the same: if it did not, it would get an error that shows both.
#[derive(Shared, Debug)]
struct Reading {
    celsius: f64,
    at: u64,
}

const STATIONS: [(&str, f64); 3] = [("bergen", 7.0), ("oslo", 4.0), ("tromsø", -3.0)];

fn main() -> ExitCode {
    commonhold::init();
    let cli = Cli::parse();
    let done = if cli.shutdown { shut_down(&cli.name) } else { report(&cli) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("unrelated_writer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn shut_down(name: &str) -> commonhold::Result<()> {
    match Manager::connect(name) {
        Ok(manager) => {
            manager.shutdown()?;
            println!("the manager {name:?} has ended");
            Ok(())
        }
        Err(error) if error.is_not_found() => {
            println!("there is no manager {name:?}");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn report(cli: &Cli) -> commonhold::Result<()> {
    // Both are free of races: of many programs that do this at the same time, one starts the manager, and one makes the dict.
    let manager = Manager::open_or_start(&cli.name)?;
    let stations: Dict<String, Reading> = manager.open_or_create("stations", |m| m.dict([]))?;
    for hour in 0..24 {
        manager.batch(|batch| {
            for (station, mean) in STATIONS {
                batch.insert(&stations, station, Reading { celsius: celsius(mean, hour), at: hour })?;
            }
            Ok(())
        })?;
        println!("{hour:02}:00 reported by {} stations", STATIONS.len());
        // Until the next hour. If the manager ends, there is nobody to report to.
        if manager.wait_for_end(Duration::from_millis(cli.hour))? {
            println!("the manager has ended");
            return Ok(());
        }
    }
    println!("the day is over; the manager stays: `--shutdown` ends it");
    Ok(())
}

/// Coldest at four in the morning, warmest at four in the afternoon, in steps of a tenth.
fn celsius(mean: f64, hour: u64) -> f64 {
    let wave = ((hour as f64 - 10.0) / 12.0 * std::f64::consts::PI).sin();
    ((mean + 4.0 * wave) * 10.0).round() / 10.0
}
