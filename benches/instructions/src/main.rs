//! Counts the instructions and the system calls of single operations, for a guard against their growth that no machine's mood disturbs.
//!
//! `main` reads the command line, compares with the budgets and prints the table; `work` is what the counted process does;
//! `stepper` runs it one instruction at a time.
mod stepper;
mod work;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use comfy_table::{CellAlignment, Table};

use crate::stepper::Unit;
use crate::work::{Side, Work};

/// Whatever goes wrong here is told to a person and nothing else.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Counts the instructions of one get, one set and their kin, by running a process one instruction at a time.
///
/// What needs neither the manager nor a wake-up makes no system call, which is counted as well.
///
/// A count is the least of several, since a thread that waits for another may look more than once. Counts are of this build
/// on this kind of processor, system calls as one instruction each; they say nothing of cache misses or of waiting.
/// With --check, a count above its budget is a failure.
#[derive(Parser)]
#[command(name = "instructions", version, args_conflicts_with_subcommands = true, max_term_width = 120)]
struct Cli {
    /// Fail if a count is above its budget
    #[arg(long)]
    check: bool,
    /// One JSON object per line: row, side, instructions of one operation, budget, system calls of so many operations
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// What the counted process runs
    #[command(hide = true)]
    Work {
        /// Which work
        work: Work,
    },
}

/// Most instructions that a row may take on x86-64, about a tenth above what it took when this was last set. The calls go by a lane: looks at
/// it while the other side works are among them. In a method's call they are many: from run to run it took 2,665 to 3,516, twelve counts of one
/// run differing by a twentieth, and its budget is above all of that. A batch takes the manager 1,490 to 1,535, but in one run of ten 1,684.
const BUDGETS: [(Work, Side, u64); 21] = [
    (Work::Get, Side::Client, 415),
    (Work::SnapshotGet, Side::Client, 265),
    (Work::Iterate, Side::Client, 195),
    (Work::Index, Side::Client, 295),
    (Work::Set, Side::Client, 1_300),
    (Work::Set, Side::Manager, 3_350),
    (Work::Push, Side::Manager, 2_150),
    (Work::Batch, Side::Client, 545),
    (Work::Batch, Side::Manager, 1_850),
    (Work::Lock, Side::Client, 130),
    (Work::ReentrantLock, Side::Client, 340),
    (Work::Read, Side::Client, 225),
    (Work::Write, Side::Client, 210),
    (Work::Permit, Side::Client, 285),
    (Work::Event, Side::Client, 300),
    (Work::Send, Side::Client, 690),
    (Work::Receive, Side::Client, 590),
    (Work::Method, Side::Client, 3_600),
    (Work::Element, Side::Client, 100),
    (Work::ElementAdd, Side::Client, 100),
    (Work::Count, Side::Client, 100),
];

fn main() -> ExitCode {
    commonhold::init();
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::Work { work }) => work.run().map(|()| true),
        None => count_all(&cli),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::from(2)
        }
    }
}

/// Counts every row and prints it. False if one that is to be checked is above its budget.
fn count_all(cli: &Cli) -> Result<bool> {
    if cfg!(debug_assertions) {
        return Err("counts of a debug build say nothing: run it with `cargo run --release -p instructions`".into());
    }
    let has_budgets = cfg!(target_arch = "x86_64");
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED).set_header([
        "operation",
        "on the side of the",
        "instructions",
        "budget",
        "system calls",
    ]);
    for column in [2, 3, 4] {
        table.column_mut(column).ok_or("the table has five columns")?.set_cell_alignment(CellAlignment::Right);
    }
    let mut failures = Vec::new();
    for (work, side, budget) in BUDGETS {
        let each = stepper::count(work, side, Unit::Instruction)? / work.operations();
        let calls = stepper::count(work, side, Unit::SystemCall)?;
        failures.extend(judge(work, side, each, if has_budgets { budget } else { u64::MAX }, calls));
        if cli.json {
            println!(
                r#"{{"row":"{work:?}","side":"{side:?}","instructions":{each},"budget":{budget},"system_calls":{calls},"operations":{}}}"#,
                work.operations()
            );
        }
        let calls = format!("{:.1}", calls as f64 / work.operations() as f64);
        table.add_row([work.says().to_string(), format!("{side:?}").to_lowercase(), each.to_string(), budget.to_string(), calls]);
    }
    if !cli.json {
        println!("{table}");
    }
    for line in &failures {
        eprintln!("{line}: find out why, or raise the budget in this program's BUDGETS with the reason");
    }
    Ok(failures.is_empty() || !cli.check)
}

/// What is wrong with a row's counts: instructions of one operation, system calls of all of them.
fn judge(work: Work, side: Side, each: u64, budget: u64, calls: u64) -> Vec<String> {
    let mut failures = Vec::new();
    if work.is_in_memory() && calls > 0 {
        failures.push(format!("{work:?} made {calls} system calls in {} operations, and should make none", work.operations()));
    }
    if each > budget {
        failures.push(format!("{work:?} takes {each} instructions of the {side:?}, budgeted are {budget}"));
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_above_its_budget_fails_and_so_does_a_system_call_where_none_should_be() {
        for (work, side, budget) in BUDGETS {
            assert_eq!(judge(work, side, budget, budget, 0), [""; 0]);
            let text = format!("{work:?} takes {} instructions of the {side:?}, budgeted are {budget}", budget + 1);
            assert_eq!(judge(work, side, budget + 1, budget, 0), [text]);
            // A write is a call of the manager, which may be asleep.
            assert_eq!(judge(work, side, budget, budget, 1).len(), usize::from(work.is_in_memory()));
        }
        assert_eq!(judge(Work::Get, Side::Client, 501, 500, 1).len(), 2);
    }
}
