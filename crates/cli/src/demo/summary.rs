//! The result of a demo for people: what was asked, three columns side by side, and what it means.

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table};

use crate::demo::args::{Demand, Limiter};
use crate::demo::report::{ClassReport, Report, RunReport};
use crate::demo::run::Way;
use crate::demo::scenario::{CLASSES, PATIENCE, Scenario};
use crate::table::{self, count, millis, percent};

/// All of it.
pub(crate) fn text(scenario: &Scenario, report: &Report, is_coloured: bool) -> String {
    let head = head(scenario, report);
    let table = figures(report, is_coloured);
    let notes = notes(scenario, report);
    format!("\n{head}\n\n{table}\n\n{}\n", notes.join("\n\n"))
}

/// What the demo was about, for somebody who sees it for the first time.
pub(crate) fn head(scenario: &Scenario, report: &Report) -> String {
    let args = &scenario.args;
    let unit = scenario.unit();
    let per_minute = count(report.limit_per_minute);
    let limit = match args.limiter {
        Limiter::TokenBucket => {
            format!(
                "{per_minute} {unit} a minute, a token bucket that holds {}",
                count(scenario.burst())
            )
        }
        Limiter::FixedWindow if args.hide_reset => {
            format!("{per_minute} {unit} in each minute, a fixed window whose ends nobody is told")
        }
        Limiter::FixedWindow => format!("{per_minute} {unit} in each minute, a fixed window"),
    };
    let who = match args.demand {
        Demand::Even => format!("{} pods alike", args.sidecars),
        Demand::OnePod => format!("one of {} pods alone", args.sidecars),
    };
    let rate = |class| scenario.calls_per_second(class) * 60.0 * scenario.cost_per_call;
    let parts = CLASSES.iter().enumerate().map(|(index, class)| {
        let share = rate(index) / (scenario.per_second() * 60.0);
        format!("{} {:.0} %", class.name, share * 100.0)
    });
    format!(
        "The provider's limit: {limit}.\n\
         Asked for: {} times that, by {who}, for {:.0} s; of the limit: {}.\n\
         Each pod makes calls of all three classes, named in the x-weir-priority header; all three \
         runs got the same calls (seed {}).",
        args.overload,
        report.seconds,
        parts.collect::<Vec<_>>().join(", "),
        report.seed,
    )
}

fn figures(report: &Report, is_coloured: bool) -> Table {
    let mut table = table::new(is_coloured);
    let bold = |text: &str| Cell::new(text).add_attribute(Attribute::Bold);
    table.set_header(std::iter::once(bold("")).chain(Way::ALL.map(|way| bold(way.title()))));
    let mut row = |title: &str, cell: &dyn Fn(&RunReport) -> Cell| {
        let cells = report.runs.iter().map(cell);
        table.add_row(std::iter::once(Cell::new(title)).chain(cells));
    };
    row("provider 429s", &|run| {
        let colour = if run.provider_429 == 0 { Color::Green } else { Color::Red };
        Cell::new(count(run.provider_429)).fg(colour)
    });
    row("share of the budget used", &|run| Cell::new(percent(run.utilisation)));
    row("calls answered", &|run| Cell::new(answered(run.classes.values())));
    for (index, class) in CLASSES.iter().enumerate() {
        row(&format!("   {}", class.name), &|run| Cell::new(answered([run.class(index)])));
    }
    for (title, pick) in [("wait, p50", p50 as fn(&ClassReport) -> _), ("wait, p99", p99)] {
        row(title, &|_| Cell::new(""));
        for (index, class) in CLASSES.iter().enumerate() {
            row(&format!("   {}", class.name), &|run| Cell::new(wait(pick(run.class(index)))));
        }
    }
    row("Jain's index within a class", &|run| Cell::new(format!("{:.3}", run.jain)));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn answered<'a>(classes: impl IntoIterator<Item = &'a ClassReport>) -> String {
    let sums = classes.into_iter().map(|class| (class.answered, class.asked));
    let (answered, asked) = sums.fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
    format!("{} of {}", count(answered), count(asked))
}

fn p50(class: &ClassReport) -> Option<f64> {
    class.wait_ms_p50
}

fn p99(class: &ClassReport) -> Option<f64> {
    class.wait_ms_p99
}

fn wait(wait: Option<f64>) -> String {
    wait.map_or_else(|| "none answered".to_owned(), millis)
}

/// What it means, and what to know about it.
fn notes(scenario: &Scenario, report: &Report) -> Vec<String> {
    let mut notes = vec![conclusion(scenario, report)];
    let weir = &report.runs[2];
    if let Some([from, to]) = report.excused_seconds {
        notes.push(format!(
            "The allocator was killed after {from:.0} s and started again 2 s later. Shares and waits \
             leave out the time until it was back and 5 s more ({from:.1} s to {to:.1} s); with it, \
             Weir used {} and interactive calls waited {} at p99. 429s are counted throughout.",
            percent(weir.utilisation_whole),
            weir.class(0).wait_ms_p99_whole.map_or_else(|| "nothing".to_owned(), millis),
        ));
    }
    if report.killed_sidecars > 0 {
        let back = report.recovered_after_ms.map_or_else(
            || "was not back at the full rate before the end".to_owned(),
            |after| format!("was back at the full rate within {} ms", after.max(1)),
        );
        notes.push(format!(
            "{} of {} pods were killed in the middle, and the others got their calls: Weir {back}.",
            report.killed_sidecars, report.sidecars,
        ));
    }
    notes.push(method(scenario));
    if !report.long_enough {
        notes.push(format!(
            "{:.0} s are enough to see it work and too short for figures: take 60 s or more.",
            report.seconds
        ));
    } else if weir.bound_share < 0.5 && report.overload > 1.0 {
        notes.push(format!(
            "The limit was binding for {} of the time only: the figures say little.",
            percent(weir.bound_share)
        ));
    }
    notes
}

/// In words that need no knowledge of the product.
fn conclusion(scenario: &Scenario, report: &Report) -> String {
    let [direct, fixed, weir] = &report.runs[..] else { return String::new() };
    let verdict = match weir.provider_429 {
        0 => "did not refuse a single call".to_owned(),
        refused => format!("refused {} calls", count(refused)),
    };
    let overload = scenario.args.overload;
    let lowest = weir.class(2);
    let others = |run: &RunReport| {
        format!(
            "used {} of the budget, met {} 429s, and answered {} interactive calls, with {} at p99",
            percent(run.utilisation),
            count(run.provider_429),
            answered([run.class(0)]),
            wait(run.class(0).wait_ms_p99),
        )
    };
    format!(
        "Through Weir, {} pods asked for {overload} times what the provider allows. It {verdict}, and {} \
         of what it allows was used.\n\
         Interactive calls, where a person is waiting, were answered {}; 99 of 100 waited less than \
         {}. What was too much waited in the classes below, and of these the lowest still got {} \
         answers, at most {} apart.\n\
         The same calls straight to the provider {}.\n\
         With the budget split over the pods they {}.",
        scenario.asking_pods(),
        percent(weir.utilisation),
        answered([weir.class(0)]),
        wait(weir.class(0).wait_ms_p99),
        count(lowest.answered),
        millis(lowest.longest_gap_ms),
        others(direct),
        others(fixed),
    )
}

/// How the figures came about.
fn method(scenario: &Scenario) -> String {
    let (patience, queue) = (PATIENCE.as_secs_f64(), (PATIENCE / 2).as_secs_f64());
    let split = match scenario.args.limiter {
        Limiter::TokenBucket => "a token bucket with its part of rate and burst",
        Limiter::FixedWindow => "its part of the rate, evenly",
    };
    format!(
        "429s and the share used are from the provider's own books. A wait is the time from a call to \
         its first byte, retries included, without the provider's own work. Each caller makes three \
         attempts, as the official SDKs do, and gives up after {patience} s. A pod of the split budget has \
         {split}; its callers queue for up to {queue} s. Calls that are still open at the end are among \
         those asked. The emulated provider does not count refused calls, \
         which is kind to the first column."
    )
}
