//! What is shown while a demo runs.

use std::time::Duration;

use comfy_table::{Attribute, Cell, CellAlignment, Color};

use crate::demo::run::{Run, Way};
use crate::demo::scenario::Scenario;
use crate::demo::truth::Figures;
use crate::table;

/// One run at this moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    way: Way,
    answered: u64,
    refused: u64,
    used: f64,
    open: usize,
}

// === impl Row ===

impl Row {
    pub(crate) fn new(run: &Run, figures: &Figures) -> Row {
        let (answered, open) = run.counts();
        let used = figures.utilisation(f64::INFINITY);
        Row { way: run.way, answered, refused: figures.refused, used, open }
    }
}

/// The block of a terminal.
pub(crate) fn block(
    scenario: &Scenario,
    elapsed: Duration,
    rows: &[Row],
    is_coloured: bool,
) -> String {
    let mut table = table::new(is_coloured);
    let title = |text: &str| Cell::new(text).add_attribute(Attribute::Bold);
    let headers = ["", "answered", "429s", "budget used", "open calls"];
    table.set_header(headers.map(title));
    for row in rows {
        let refused = Cell::new(table::count(row.refused));
        let colour = if row.refused == 0 { Color::Green } else { Color::Red };
        table.add_row([
            Cell::new(row.way.title().replace('\n', " ")),
            Cell::new(table::count(row.answered)),
            refused.fg(colour),
            Cell::new(table::percent(row.used)),
            Cell::new(table::count(row.open as u64)),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{}\n{table}", clock(scenario, elapsed))
}

/// The line of a log.
pub(crate) fn line(scenario: &Scenario, elapsed: Duration, rows: &[Row]) -> String {
    let runs = rows.iter().map(|row| {
        let (name, used) = (row.way.name(), table::percent(row.used));
        format!("{name} {} answered, {} 429s, {used} used", row.answered, row.refused)
    });
    format!("{}  {}", clock(scenario, elapsed), runs.collect::<Vec<_>>().join("; "))
}

fn clock(scenario: &Scenario, elapsed: Duration) -> String {
    let whole = scenario.args.duration;
    format!("{:>3} of {} s", elapsed.min(whole).as_secs(), whole.as_secs())
}
