//! How results are shown: a table for people, Markdown for the README, one JSON object per line for programs.
use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{Cell as TableCell, CellAlignment, ContentArrangement, Table};
use serde_json::json;

use crate::measure::{Cell, Outcome};
use crate::rows::{Row, SystemName, Unit};

/// The result of one row: a cell for each system.
pub struct RowResult {
    /// The row.
    pub row: Row,
    /// One for each system, in the order of the columns.
    pub cells: Vec<Cell>,
}

/// The line a cell has among the JSON lines; none where the system has no counterpart of the row.
pub fn json_line(cell: &Cell) -> Option<String> {
    let (row, system, unit) = (cell.row.name(), cell.system.name(), cell.row.unit().name());
    let rounded = |figure: f64| (figure * 10.0).round() / 10.0;
    let line = match &cell.outcome {
        Outcome::NoCounterpart => return None,
        Outcome::Measured { median, p99, rounds } => {
            json!({ "row": row, "system": system, "unit": unit, "median": rounded(*median), "p99": rounded(*p99), "n": rounds })
        }
        Outcome::Missing(reason) => {
            json!({ "row": row, "system": system, "unit": unit, "median": null, "p99": null, "n": 0, "missing": reason })
        }
        Outcome::Failed(reason) => {
            json!({ "row": row, "system": system, "unit": unit, "median": null, "p99": null, "n": 0, "failed": reason })
        }
    };
    Some(line.to_string())
}

/// The table: rows × systems, medians, and how we stand against the best system that other processes can share. Systems that have a
/// counterpart of none of the rows have no column.
pub fn table(results: &[RowResult], systems: &[SystemName]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    let versus = systems.contains(&SystemName::Commonhold);
    let mut header = vec!["row".to_owned()];
    let has = |system: &SystemName| {
        let cells = results.iter().flat_map(|result| &result.cells);
        cells.filter(|cell| cell.system == *system).any(|cell| !matches!(cell.outcome, Outcome::NoCounterpart))
    };
    header.extend(systems.iter().filter(|system| has(system)).map(|system| system.name()));
    if versus {
        header.push(VERSUS.to_owned());
    }
    table.set_header(header);
    for result in results {
        let mut line = vec![TableCell::new(result.row.name())];
        line.extend(result.cells.iter().filter(|cell| has(&cell.system)).map(|cell| right(figure(cell))));
        if versus {
            line.push(right(ratio(&result.cells).unwrap_or_else(|| "–".to_owned())));
        }
        table.add_row(line);
    }
    table.to_string()
}

const VERSUS: &str = "ours vs best other process";

/// The same for the README, which has no room for a column for each system: those that other processes can share stand together, the
/// best first, and so do those within one process. Who is missing is not there.
pub fn markdown(results: &[RowResult]) -> String {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["row", "commonhold", VERSUS, "other processes", "in one process"]);
    for result in results {
        let list = |is_wanted: fn(SystemName) -> bool| {
            let measured = |cell: &Cell| match cell.outcome {
                Outcome::Measured { median, .. } if is_wanted(cell.system) => Some((median, cell.system)),
                _ => None,
            };
            let mut list: Vec<_> = result.cells.iter().filter_map(measured).collect();
            list.sort_by(|a, b| a.0.total_cmp(&b.0));
            list.iter().map(|(median, system)| format!("{} {}", system.name(), humane(*median, result.row.unit()))).collect::<Vec<_>>()
        };
        let ours = result.cells.iter().find(|cell| cell.system == SystemName::Commonhold);
        table.add_row([
            TableCell::new(format!("`{}`", result.row.name())),
            right(ours.map_or_else(|| "–".to_owned(), figure)),
            right(ratio(&result.cells).unwrap_or_else(|| "–".to_owned())),
            TableCell::new(list(|system| system != SystemName::Commonhold && system.is_shared()).join(", ")),
            TableCell::new(list(|system| !system.is_shared()).join(", ")),
        ]);
    }
    table.to_string()
}

fn right(text: String) -> TableCell {
    TableCell::new(text).set_alignment(CellAlignment::Right)
}

/// The lines below the table: who is missing and why, and what the rows and columns mean.
pub fn notes(results: &[RowResult], systems: &[SystemName]) -> Vec<String> {
    let mut notes = Vec::new();
    let mut told = Vec::new();
    for cell in results.iter().flat_map(|result| &result.cells) {
        let note = match &cell.outcome {
            Outcome::Missing(reason) => format!("{} is missing: {reason}", cell.system.name()),
            Outcome::Failed(reason) => format!("{} failed at {}: {reason}", cell.system.name(), cell.row.name()),
            Outcome::Measured { .. } | Outcome::NoCounterpart => continue,
        };
        // A system that has failed is not asked again, so its first cell says it all.
        if !told.contains(&cell.system) {
            told.push(cell.system);
            notes.push(note);
        }
    }
    notes.extend(results.iter().map(|result| format!("{}: {}", result.row.name(), result.row.about())));
    notes.extend(systems.iter().map(|system| format!("{}: {}", system.name(), system.about())));
    notes.push("Figures are medians per operation.".to_owned());
    if systems.contains(&SystemName::Commonhold) {
        notes.push(
            "The last column: how many times slower (or larger) than ours the best of the systems is that other processes can share."
                .to_owned(),
        );
    }
    notes
}

fn figure(cell: &Cell) -> String {
    match &cell.outcome {
        Outcome::Measured { median, .. } => humane(*median, cell.row.unit()),
        Outcome::NoCounterpart => "–".to_owned(),
        Outcome::Missing(_) => "missing".to_owned(),
        Outcome::Failed(_) => "failed".to_owned(),
    }
}

fn ratio(cells: &[Cell]) -> Option<String> {
    let measured = |cell: &Cell| match cell.outcome {
        Outcome::Measured { median, .. } => Some((cell.system, median)),
        _ => None,
    };
    let ours = cells.iter().filter_map(measured).find(|(system, _)| *system == SystemName::Commonhold)?.1;
    let others = cells.iter().filter_map(measured).filter(|(system, _)| *system != SystemName::Commonhold && system.is_shared());
    let (best, theirs) = others.min_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(format!("{}× ({})", three_digits(theirs / ours), best.name()))
}

/// A figure in a unit fit to read.
pub fn humane(figure: f64, unit: Unit) -> String {
    let steps: &[(f64, &str)] = match unit {
        Unit::Nanoseconds => &[(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")],
        Unit::Bytes => &[(1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")],
    };
    // 999.6 is shown as 1.00 of the next unit, not as 1000 of this one.
    let (step, name) = steps.iter().copied().find(|(step, _)| figure >= 0.9995 * step).unwrap_or((1.0, unit.name()));
    format!("{} {name}", three_digits(figure / step))
}

fn three_digits(figure: f64) -> String {
    match figure {
        f if f >= 99.95 => format!("{f:.0}"),
        f if f >= 9.995 => format!("{f:.1}"),
        f => format!("{f:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(system: SystemName, median: f64) -> Cell {
        Cell { row: Row::DictGet64, system, outcome: Outcome::Measured { median, p99: 2.0 * median, rounds: 9 } }
    }

    #[test]
    fn figures_have_three_digits_and_a_fitting_unit() {
        let shown = [0.5, 61.23, 999.4, 999.7, 1160.0, 53_000.0, 99_000_000.0, 1.5e9].map(|ns| humane(ns, Unit::Nanoseconds));
        assert_eq!(shown, ["0.50 ns", "61.2 ns", "999 ns", "1.00 µs", "1.16 µs", "53.0 µs", "99.0 ms", "1.50 s"]);
        assert_eq!(humane(97.3, Unit::Bytes), "97.3 B");
    }

    #[test]
    fn json_lines_have_the_agreed_fields() {
        let line: serde_json::Value = serde_json::from_str(&json_line(&cell(SystemName::Commonhold, 61.23)).unwrap()).unwrap();
        assert_eq!(line, json!({"row": "dict_get_64", "system": "commonhold", "unit": "ns", "median": 61.2, "p99": 122.5, "n": 9}));
        let missing = Cell { row: Row::Snapshot, system: SystemName::Redis, outcome: Outcome::Missing("gone".into()) };
        assert!(json_line(&missing).unwrap().contains(r#""missing":"gone""#));
    }

    #[test]
    fn the_ratio_is_against_the_best_that_is_shared() {
        let cells = [
            cell(SystemName::Commonhold, 50.0),
            cell(SystemName::Hashmap, 25.0),
            cell(SystemName::Lmdb, 550.0),
            cell(SystemName::Redis, 50_000.0),
        ];
        assert_eq!(ratio(&cells).unwrap(), "11.0× (lmdb)");
        assert_eq!(ratio(&cells[1..]), None);
        assert_eq!(ratio(&cells[..2]), None);
    }

    #[test]
    fn missing_systems_are_named_once_with_the_reason() {
        let missing =
            |row| RowResult { row, cells: vec![Cell { row, system: SystemName::Redis, outcome: Outcome::Missing("gone".into()) }] };
        let results = [missing(Row::DictGet64), missing(Row::Snapshot)];
        assert_eq!(notes(&results, &[SystemName::Redis]).iter().filter(|note| *note == "redis is missing: gone").count(), 1);
        assert_eq!(table(&results, &[SystemName::Redis]).matches("missing").count(), 2);
    }

    #[test]
    fn in_the_readme_others_stand_together_the_best_first() {
        let cells = vec![
            cell(SystemName::Commonhold, 50.0),
            cell(SystemName::Hashmap, 25.0),
            cell(SystemName::Redis, 50_000.0),
            cell(SystemName::Lmdb, 550.0),
        ];
        let text = markdown(&[RowResult { row: Row::DictGet64, cells }]);
        let line: Vec<&str> = text.lines().last().unwrap().split('|').map(str::trim).collect();
        assert_eq!(line[1..6], ["`dict_get_64`", "50.0 ns", "11.0× (lmdb)", "lmdb 550 ns, redis 50.0 µs", "hashmap 25.0 ns"]);
    }
}
