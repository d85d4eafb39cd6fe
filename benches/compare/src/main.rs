//! One table of commonhold and its peers on the same work, measured in alternation in the same run.
//!
//! `main` reads the command line and hands over: `rows` says what there is to measure, `system` what is asked of who is measured, `systems` who
//! that is (each in a file of its own), `workload` is the work and the clock, `measure` the order of rounds, `report` the output, `render` and
//! `plot` what is made of it later. `calls` is about waiting, `scale` and `churn` about commonhold alone. Other processes of this program are
//! `clients`, and partners in a row of two: `partner` starts them, what they do is in `tasks`.
mod asked;
mod calls;
mod child;
mod clients;
mod commonhold;
mod crossbeam;
mod dicts;
mod hashmap;
mod iceoryx2;
mod ipc_channel;
mod lmdb;
mod measure;
mod partner;
mod plot;
mod pools;
mod processes;
mod python;
mod rawlocks;
mod redis;
mod render;
mod report;
mod resp;
mod rows;
mod scale;
mod situations;
mod system;
mod systems;
mod tasks;
mod unix_stream;
mod workload;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use crate::calls::CallsOptions;
use crate::measure::{Contest, Effort, Outcome};
use crate::render::RenderOptions;
use crate::report::RowResult;
use crate::rows::{Row, SystemName};
use crate::scale::{ChurnOptions, ScaleOptions};

/// Whatever goes wrong here is told to a person and nothing else.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Rounds per row, and with `--quick`.
const ROUNDS: usize = 9;
const ROUNDS_QUICK: usize = 3;
/// How long nothing happens, where that is measured, and with `--quick`.
const IDLE: Duration = Duration::from_secs(10);
const IDLE_QUICK: Duration = Duration::from_secs(1);

/// Compares commonhold with its peers: one table, everybody on the same work, in alternation in the same run.
///
/// Every row is measured in rounds, the systems taking turns in each. A round of one system takes about 25 ms; its figure is its time divided
/// by its operations. Shown is the median over the rounds. The 99th percentile (--json) is over single operations where one takes at least a
/// microsecond, over groups of operations of about a microsecond where it takes less. Absolute figures vary with the machine and the hour:
/// compare inside one run, and quote ratios. Peers behind a socket have two speeds: a wake-up costs about 4 µs where the scheduler has put client
/// and server on one core, 50 µs where it has not; which one is measured is its choice, as it would be for anybody.
///
/// Peers that are not on the machine are shown as missing. Servers are started by this program, on sockets of their own, and end with it.
#[derive(Parser)]
#[command(name = "compare", version, args_conflicts_with_subcommands = true, max_term_width = 120)]
struct Cli {
    #[command(flatten)]
    comparison: Comparison,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct Comparison {
    /// Only these rows, separated by commas (see --list)
    #[arg(long, value_delimiter = ',', value_name = "ROWS", hide_possible_values = true)]
    rows: Vec<Row>,
    /// Only these systems, separated by commas (see --list)
    #[arg(long, value_delimiter = ',', value_name = "SYSTEMS", hide_possible_values = true)]
    systems: Vec<SystemName>,
    /// 3 rounds instead of 9
    #[arg(long)]
    quick: bool,
    /// One JSON object per line and cell, as measured: row, system, unit, median, p99, n (rounds)
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// The table in Markdown, as it stands in the README
    #[arg(long)]
    markdown: bool,
    /// List rows and systems, and measure nothing
    #[arg(long)]
    list: bool,
}

#[derive(Subcommand)]
enum Command {
    /// commonhold alone: get, set and bytes per entry from 1,000 to 10,000,000 entries, and 1 to 200 client processes or
    /// 1 to 64 threads
    Scale(ScaleOptions),
    /// One call after the other: hot, with thinking between the calls, on one core; p50 to p99.9, and processor time
    Calls(CallsOptions),
    /// commonhold alone: many millions of overwrites with values of changing size, and the memory behind them over time
    Churn(ChurnOptions),
    /// The table and a picture of what an earlier run has printed with `--json`; nothing is measured
    Render(RenderOptions),
}

fn main() -> ExitCode {
    ::commonhold::init();
    ::procspawn::init();
    if let Some(done) = clients::be_client().or_else(tasks::be_partner) {
        return done.map_or_else(
            |error| {
                eprintln!("compare: client: {error}");
                ExitCode::FAILURE
            },
            |()| ExitCode::SUCCESS,
        );
    }
    let cli = Cli::parse();
    let done = match cli.command {
        None => compare(&cli.comparison),
        Some(Command::Scale(options)) => scale::scale(&options).map(|()| ExitCode::SUCCESS),
        Some(Command::Calls(options)) => calls::calls(&options).map(|()| ExitCode::SUCCESS),
        Some(Command::Render(options)) => render::render(&options).map(|()| ExitCode::SUCCESS),
        Some(Command::Churn(options)) => scale::churn(&options).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        // Whoever reads our output may stop early (`| head`): that is no failure.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Comparison) -> Result<ExitCode> {
    if options.list {
        return list();
    }
    let rows = chosen(&options.rows);
    let systems = chosen(&options.systems);
    let effort = match options.quick {
        true => Effort { rounds: ROUNDS_QUICK, idle: IDLE_QUICK },
        false => Effort { rounds: ROUNDS, idle: IDLE },
    };
    let progress = progress(rows.len() as u64);
    let mut contest = Contest::new(&systems, effort, progress.clone());
    let mut results = Vec::new();
    for row in rows {
        let cells = contest.measure(row);
        if options.json {
            print_lines(cells.iter().filter_map(report::json_line))?;
        }
        results.push(RowResult { row, cells });
    }
    progress.finish_and_clear();
    drop(contest);
    if !options.json {
        let bullet = if options.markdown { "- " } else { "" };
        let notes = report::notes(&results, &systems).into_iter().map(|note| format!("{bullet}{note}"));
        let table = if options.markdown { report::markdown(&results) } else { report::table(&results, &systems) };
        print_lines([table, String::new()].into_iter().chain(notes))?;
    }
    let failed = results.iter().flat_map(|result| &result.cells).any(|cell| matches!(cell.outcome, Outcome::Failed(_)));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The chosen values in their natural order and once each; all if none were chosen.
fn chosen<T: ValueEnum + PartialEq + Copy>(chosen: &[T]) -> Vec<T> {
    T::value_variants().iter().copied().filter(|value| chosen.is_empty() || chosen.contains(value)).collect()
}

fn list() -> Result<ExitCode> {
    let rows = Row::value_variants().iter().map(|row| format!("  {:<20} {}", row.name(), row.about()));
    let systems = SystemName::value_variants().iter().map(|system| format!("  {:<20} {}", system.name(), system.about()));
    print_lines(std::iter::once("Rows:".to_owned()).chain(rows).chain(["Systems:".to_owned()]).chain(systems))?;
    Ok(ExitCode::SUCCESS)
}

fn print_lines(lines: impl IntoIterator<Item = String>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

fn progress(rows: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{pos}/{len} {bar:20} {elapsed} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(rows).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn an_unknown_row_is_told_all_rows() {
        let error = Cli::try_parse_from(["compare", "--rows", "dict_get_64,nonsense"]).err().unwrap().to_string();
        assert!(error.contains("nonsense"), "{error}");
        assert!(Row::value_variants().iter().all(|row| error.contains(&row.name())), "{error}");
    }
}
