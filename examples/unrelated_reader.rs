//! Shows the weather: one of two programs that share nothing but a name. The other one is `unrelated_writer`.
//!
//! `cargo run --example unrelated_reader`, and in another terminal `cargo run --example unrelated_writer`, in either order
//!
//! It sleeps until something changes, without asking again and again, and looks at one version of all stations. Who reads is never
//! waited for: if several hours pass between two looks, it shows the newest and says how many it has missed.

use clap::Parser;
use commonhold::{Dict, Manager, Shared};
use std::process::ExitCode;
use std::time::Duration;

/// Shows the weather that unrelated_writer reports, hour by hour, until the day is over.
#[derive(Parser)]
#[command(name = "unrelated_reader", version)]
struct Cli {
    /// Name of the manager
    #[arg(long, default_value = "weather")]
    name: String,
    /// Seconds without any report after which to give up
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    patience: u64,
    /// End the manager, and with it all that it holds, when the day is over
    #[arg(long)]
    shutdown: bool,
}

/// What a station reports, declared as the writer does: types are compared by their structure, not by where they are from.
#[derive(Shared, Debug)]
struct Reading {
    celsius: f64,
    at: u64,
}

fn main() -> ExitCode {
    commonhold::init();
    let cli = Cli::parse();
    match show(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_disconnected() => {
            println!("the manager has ended");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("unrelated_reader: {error}");
            ExitCode::FAILURE
        }
    }
}

fn show(cli: &Cli) -> commonhold::Result<()> {
    let manager = Manager::open_or_start(&cli.name)?;
    let stations: Dict<String, Reading> = manager.open_or_create("stations", |m| m.dict([]))?;
    if let Err(error) = manager.open::<Dict<String, u64>>("stations") {
        println!("as another type: {:?}", error.kind());
    }
    let (mut seen, mut next_hour) = (0, 0);
    while stations.wait_for_change(&mut seen, Duration::from_secs(cli.patience))? {
        let now = manager.snapshot()?;
        let stations = stations.at(&now);
        let Some(hour) = stations.values().map(|reading| u64::from(reading.at)).max() else { continue };
        let missed = if hour > next_hour { format!("   ({} hours missed)", hour - next_hour) } else { String::new() };
        let mut line = format!("{hour:02}:00");
        for (name, reading) in stations.iter_ordered() {
            line += &format!("   {name} {:5.1}", f64::from(reading.celsius));
        }
        println!("{line}{missed}");
        next_hour = hour + 1;
        if next_hour == 24 {
            break;
        }
    }
    if next_hour < 24 {
        println!("no report for {} seconds", cli.patience);
    }
    if cli.shutdown {
        manager.shutdown()?;
        println!("the manager {:?} has ended", cli.name);
    }
    Ok(())
}
