//! The comparison as a picture: a strip for each row, a mark for each system, on a logarithmic scale of time.
use svg::Document;
use svg::node::element::{Circle, Group, Line, Rectangle, Text, Title};

use crate::measure::Outcome;
use crate::report::{RowResult, humane};
use crate::rows::{SystemName, Unit};

const WIDTH: f64 = 960.0;
const STRIP: f64 = 26.0;
/// Where the scale begins and ends.
const LEFT: f64 = 210.0;
const RIGHT: f64 = WIDTH - 40.0;
/// Marks in one line of the legend.
const LEGEND_COLUMNS: usize = 6;
const LEGEND_LINE: f64 = 20.0;
const FONT: &str = "system-ui, sans-serif";

/// The picture of all rows that are times; those of bytes are left out.
pub fn svg(results: &[RowResult]) -> String {
    let rows: Vec<_> = results.iter().filter(|result| result.row.unit() == Unit::Nanoseconds).collect();
    let mut systems: Vec<SystemName> = Vec::new();
    for (system, _) in rows.iter().flat_map(|result| figures(result)) {
        if !systems.contains(&system) {
            systems.push(system);
        }
    }
    systems.sort_by_key(|system| *system as usize);
    let all = || rows.iter().flat_map(|result| figures(result)).map(|(_, figure)| figure.max(1.0).log10());
    let scale = Scale { from: all().fold(f64::MAX, f64::min).floor().min(8.0), to: all().fold(f64::MIN, f64::max).ceil().max(1.0) };
    let top = 30.0 + LEGEND_LINE * systems.len().div_ceil(LEGEND_COLUMNS) as f64;
    let bottom = top + STRIP * rows.len() as f64;
    let height = bottom + 30.0;
    let mut document = Document::new()
        .set("viewBox", (0.0, 0.0, WIDTH, height))
        .set("font-family", FONT)
        .set("font-size", 12)
        .add(Title::new("commonhold and its peers: time per operation"))
        .add(Rectangle::new().set("width", WIDTH).set("height", height).set("fill", "#ffffff"));
    document = document.add(legend(&systems)).add(scale.lines(top, bottom));
    for (number, result) in rows.iter().enumerate() {
        document = document.add(strip(result, &scale, top + STRIP * (number as f64 + 0.5)));
    }
    document.to_string() + "\n"
}

/// What was measured of a row.
fn figures(result: &RowResult) -> Vec<(SystemName, f64)> {
    let measured = result.cells.iter().filter_map(|cell| match cell.outcome {
        Outcome::Measured { median, .. } => Some((cell.system, median)),
        _ => None,
    });
    measured.collect()
}

/// Powers of ten of nanoseconds, from left to right.
struct Scale {
    from: f64,
    to: f64,
}

impl Scale {
    fn x(&self, figure: f64) -> f64 {
        LEFT + (figure.max(1.0).log10() - self.from) / (self.to - self.from) * (RIGHT - LEFT)
    }

    fn lines(&self, top: f64, bottom: f64) -> Group {
        let mut group = Group::new().set("fill", "#555555").set("text-anchor", "middle");
        for power in self.from as i32..=self.to as i32 {
            let figure = 10f64.powi(power);
            let x = self.x(figure);
            group = group.add(Line::new().set("x1", x).set("x2", x).set("y1", top).set("y2", bottom).set("stroke", "#dddddd"));
            let text = humane(figure, Unit::Nanoseconds).replace(".00", "").replace(".0", "");
            group = group.add(Text::new(text).set("x", x).set("y", bottom + 18.0));
        }
        group
    }
}

fn strip(result: &RowResult, scale: &Scale, y: f64) -> Group {
    let label = Text::new(result.row.name()).set("x", LEFT - 12.0).set("y", y + 4.0).set("text-anchor", "end").set("fill", "#222222");
    let mut group = Group::new().add(label);
    let figures = figures(result);
    let xs = || figures.iter().map(|(_, figure)| scale.x(*figure));
    let (least, most) = (xs().fold(f64::MAX, f64::min), xs().fold(f64::MIN, f64::max));
    if figures.len() > 1 {
        group = group.add(Line::new().set("x1", least).set("x2", most).set("y1", y).set("y2", y).set("stroke", "#bbbbbb"));
    }
    // Ours last, on top of the others.
    for (system, figure) in figures.iter().rev() {
        let title = format!("{}, {}: {}", result.row.name(), system.name(), humane(*figure, Unit::Nanoseconds));
        group = group.add(mark(*system, scale.x(*figure), y).add(Title::new(title)));
    }
    group
}

/// Ours is large, what cannot be shared between processes is hollow.
fn mark(system: SystemName, x: f64, y: f64) -> Circle {
    const COLOURS: [&str; 12] = [
        "#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#bcbd22", "#17becf", "#393b79", "#637939", "#7b4173", "#3182bd",
    ];
    let colour = if system == SystemName::Commonhold { "#d62728" } else { COLOURS[system as usize % COLOURS.len()] };
    let radius = if system == SystemName::Commonhold { 6.5 } else { 4.5 };
    let fill = if system.is_shared() { colour } else { "#ffffff" };
    Circle::new().set("cx", x).set("cy", y).set("r", radius).set("fill", fill).set("stroke", colour).set("stroke-width", 1.5)
}

fn legend(systems: &[SystemName]) -> Group {
    let mut group = Group::new().set("fill", "#222222");
    for (number, system) in systems.iter().enumerate() {
        let x = 20.0 + (WIDTH - 40.0) / LEGEND_COLUMNS as f64 * (number % LEGEND_COLUMNS) as f64;
        let y = 20.0 + LEGEND_LINE * (number / LEGEND_COLUMNS) as f64;
        group = group.add(mark(*system, x, y - 4.0)).add(Text::new(system.name()).set("x", x + 12.0).set("y", y));
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Cell;
    use crate::rows::Row;

    fn result(row: Row, figures: &[(SystemName, f64)]) -> RowResult {
        let cell = |(system, median): &(SystemName, f64)| Cell {
            row,
            system: *system,
            outcome: Outcome::Measured { median: *median, p99: *median, rounds: 1 },
        };
        RowResult { row, cells: figures.iter().map(cell).collect() }
    }

    #[test]
    fn every_figure_has_a_mark_in_its_place() {
        let rows = [
            result(Row::DictGet64, &[(SystemName::Commonhold, 100.0), (SystemName::Redis, 100_000.0)]),
            result(Row::BytesPerEntry, &[(SystemName::Commonhold, 98.0)]),
        ];
        let picture = svg(&rows);
        // Two figures and two of the legend; bytes are left out.
        assert_eq!(picture.matches("<circle").count(), 4, "{picture}");
        assert!(picture.contains("dict_get_64, redis: 100 µs") && !picture.contains("bytes_per_entry"), "{picture}");
        // The scale is theirs: the fastest on its left end, the slowest on its right one.
        for x in [LEFT, RIGHT] {
            assert!(picture.contains(&format!(r#"cx="{x}""#)), "{x}: {picture}");
        }
    }

    #[test]
    fn a_picture_of_nothing_is_empty() {
        assert_eq!(svg(&[]).matches("<circle").count(), 0);
    }
}
