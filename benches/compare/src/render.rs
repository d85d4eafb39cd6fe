//! What was measured before, shown again: the JSON lines of a run, as the table and as a picture.
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::Result;
use crate::measure::{Cell, Outcome};
use crate::plot;
use crate::report::{self, RowResult};
use crate::rows::{Row, SystemName};

/// What `compare render` takes.
#[derive(Args)]
pub struct RenderOptions {
    /// Lines that `--json` has printed; `-` for standard input
    file: PathBuf,
    /// Write a picture of the rows that are times to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The table in Markdown, as it stands in the README
    #[arg(long)]
    markdown: bool,
}

/// One line of `--json`.
#[derive(Deserialize)]
struct Line {
    row: String,
    system: String,
    median: Option<f64>,
    p99: Option<f64>,
    n: usize,
    missing: Option<String>,
    failed: Option<String>,
}

impl Line {
    /// As it was measured.
    fn cell(self) -> Result<Cell> {
        let row = Row::from_str(&self.row, false).map_err(|_| format!("there is no row {:?} (`--list` shows all)", self.row))?;
        let system =
            SystemName::from_str(&self.system, false).map_err(|_| format!("there is no system {:?} (`--list` shows all)", self.system))?;
        let outcome = match (self.median, self.missing, self.failed) {
            (Some(median), ..) => Outcome::Measured { median, p99: self.p99.unwrap_or(median), rounds: self.n },
            (None, Some(reason), _) => Outcome::Missing(reason),
            (None, None, reason) => Outcome::Failed(reason.unwrap_or_default()),
        };
        Ok(Cell { row, system, outcome })
    }
}

/// Prints the table, and writes the picture if one is wanted.
pub fn render(options: &RenderOptions) -> Result<()> {
    let read =
        if options.file.as_os_str() == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(&options.file) };
    let text = read.map_err(|error| format!("cannot read {}: {error}", options.file.display()))?;
    let (results, systems) = parse(&text)?;
    if let Some(path) = &options.svg {
        std::fs::write(path, plot::svg(&results)).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    crate::print_lines([if options.markdown { report::markdown(&results) } else { report::table(&results, &systems) }])?;
    Ok(())
}

/// Rows in the order of their coming, each with a cell for every system that has a figure anywhere; systems in their natural order.
fn parse(text: &str) -> Result<(Vec<RowResult>, Vec<SystemName>)> {
    let mut cells = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let line: Line = serde_json::from_str(line).map_err(|error| format!("line {number} is not one of --json: {error}"))?;
        cells.push(line.cell().map_err(|error| format!("line {number}: {error}"))?);
    }
    if cells.is_empty() {
        return Err("there are no lines: make some with `compare --json`".into());
    }
    let systems: Vec<_> =
        SystemName::value_variants().iter().copied().filter(|name| cells.iter().any(|cell| cell.system == *name)).collect();
    let mut rows: Vec<Row> = Vec::new();
    cells.iter().for_each(|cell| {
        if !rows.contains(&cell.row) {
            rows.push(cell.row)
        }
    });
    let of_row = |row: Row| {
        let cell = |system: &SystemName| {
            let outcome = cells.iter().rfind(|cell| cell.row == row && cell.system == *system).map(|cell| cell.outcome.clone());
            Cell { row, system: *system, outcome: outcome.unwrap_or(Outcome::NoCounterpart) }
        };
        RowResult { row, cells: systems.iter().map(cell).collect() }
    };
    Ok((rows.into_iter().map(of_row).collect(), systems))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"{"row":"dict_get_64","system":"commonhold","unit":"ns","median":61.2,"p99":140.0,"n":9}
{"row":"dict_get_64","system":"lmdb","unit":"ns","median":528.0,"p99":900.0,"n":9}
{"row":"dict_get_64","system":"redis","unit":"ns","median":null,"p99":null,"n":0,"missing":"no server"}
{"row":"queue_64","system":"commonhold","unit":"ns","median":90.0,"p99":140.0,"n":9}
"#;

    #[test]
    fn lines_become_the_table_that_they_came_from() {
        let (results, systems) = parse(LINES).unwrap();
        assert_eq!(systems, [SystemName::Commonhold, SystemName::Lmdb, SystemName::Redis]);
        let table = report::table(&results, &systems);
        assert!(
            table.contains("61.2 ns") && table.contains("8.63× (lmdb)") && table.contains("missing") && table.contains("90.0 ns"),
            "{table}"
        );
        let parsed = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        let again: Vec<_> =
            results.iter().flat_map(|result| &result.cells).filter_map(report::json_line).map(|line| parsed(&line)).collect();
        assert_eq!(again, LINES.lines().map(parsed).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_no_line_is_named() {
        for (text, hint) in [("", "compare --json"), ("{}", "line 1"), (&LINES.replace("dict_get_64", "dict_of_64"), "dict_of_64")] {
            let error = parse(text).err().unwrap().to_string();
            assert!(error.contains(hint), "{error}");
        }
    }
}
