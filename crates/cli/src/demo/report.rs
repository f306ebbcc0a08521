//! The result of a demo: the figures of the three runs, as the JSON has them.

use std::collections::BTreeMap;
use std::ops::{Add, Range};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::demo::args::{Demand, Limit, Limiter};
use crate::demo::conduct::Measured;
use crate::demo::record::{Outcome, Record};
use crate::demo::run::{Books, Way};
use crate::demo::scenario::{CLASSES, JUDGED_FROM, Scenario, as_float as float};
use crate::demo::truth::{Figures, Span};

/// The whole result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// In the order of `Way::ALL`.
    pub(crate) runs: Vec<RunReport>,
    /// False if it was too short for its figures to mean much.
    pub(crate) long_enough: bool,
    pub(crate) seed: u64,
    pub(crate) sidecars: u16,
    pub(crate) overload: f64,
    pub(crate) seconds: f64,
    pub(crate) limiter: Limiter,
    pub(crate) limit: Limit,
    /// In requests or tokens.
    pub(crate) limit_per_minute: u64,
    pub(crate) demand: Demand,
    pub(crate) hide_reset: bool,
    /// The seconds that count neither for utilisation nor for waits: the allocator's outage, and what
    /// it is given afterwards.
    pub(crate) excused_seconds: Option<[f64; 2]>,
    /// How many sidecars were killed in the middle.
    pub(crate) killed_sidecars: usize,
    /// How long after that Weir's run went on at the full rate of the limit.
    pub(crate) recovered_after_ms: Option<u64>,
}

/// One run. Amounts are in requests or tokens, as the limit is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunReport {
    pub(crate) name: &'static str,
    /// 429s of the provider, over the whole run.
    pub(crate) provider_429: u64,
    /// What the provider charged at admission, excused seconds left out.
    pub(crate) provider_admitted: f64,
    /// What it had on offer: a bucket's level at the start and its refill; a window's limit pro rata.
    pub(crate) budget: f64,
    /// The settled cost over the smaller of what was demanded and what was on offer, without what is
    /// in flight at the end (`design.md` 10.8).
    pub(crate) utilisation: f64,
    /// The same without an excuse.
    pub(crate) utilisation_whole: f64,
    /// The part of the run in which the limit was binding.
    pub(crate) bound_share: f64,
    pub(crate) settled: f64,
    pub(crate) in_flight: f64,
    pub(crate) demanded: f64,
    /// Jain's index over pods within a class, of what part of its calls each pod got answered: the
    /// mean of the classes by their answers.
    pub(crate) jain: f64,
    pub(crate) classes: BTreeMap<&'static str, ClassReport>,
}

/// One class of a run, as callers saw it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ClassReport {
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    /// Callers that gave up after all attempts or 15 s.
    pub(crate) refused: u64,
    /// Calls that ended with their pod.
    pub(crate) died: u64,
    /// Calls that were open at the end.
    pub(crate) open: u64,
    /// Waits of answered calls; `None` without any.
    pub(crate) wait_ms_p50: Option<f64>,
    pub(crate) wait_ms_p99: Option<f64>,
    /// The same without an excuse.
    pub(crate) wait_ms_p99_whole: Option<f64>,
    pub(crate) jain: f64,
    /// The longest time in which the class got no answer.
    pub(crate) longest_gap_ms: f64,
    pub(crate) answered_by_pod: Vec<u64>,
}

/// Waits are told apart to 0.1 %.
const DIGITS: u8 = 3;

/// In microseconds: far beyond the patience of any caller.
const MAX_WAIT: u64 = 3_600_000_000;

/// Weir is back when it admits so much of the limit's rate over [`RECOVERY_WINDOW`].
const RECOVERED: f64 = 0.95;
const RECOVERY_WINDOW: Duration = Duration::from_secs(3);

// === impl Report ===

impl Report {
    pub(crate) fn new(scenario: &Scenario, measured: &Measured) -> Report {
        let args = &scenario.args;
        let excused = excused(&measured.spans);
        let runs =
            Way::ALL.into_iter().zip(&measured.books).enumerate().map(|(index, (way, books))| {
                RunReport::new(scenario, way, &measured.spans, index, books, excused.as_ref())
            });
        let killed_sidecars = scenario.dying_pods();
        Report {
            runs: runs.collect(),
            long_enough: args.duration >= JUDGED_FROM,
            seed: args.seed,
            sidecars: args.sidecars,
            overload: args.overload,
            seconds: args.duration.as_secs_f64(),
            limiter: args.limiter,
            limit: args.limit,
            limit_per_minute: scenario.per_minute(),
            demand: args.demand,
            hide_reset: args.hide_reset,
            excused_seconds: excused
                .map(|excused| [excused.start.as_secs_f64(), excused.end.as_secs_f64()]),
            killed_sidecars,
            recovered_after_ms: (killed_sidecars > 0)
                .then(|| recovery(scenario, measured))
                .flatten(),
        }
    }
}

// === impl RunReport ===

impl RunReport {
    fn new(
        scenario: &Scenario,
        way: Way,
        spans: &[Span],
        index: usize,
        books: &Books,
        excused: Option<&Range<Duration>>,
    ) -> RunReport {
        let sum = |judged_only: bool| {
            let counted = spans.iter().filter(|span| span.is_judged || !judged_only);
            counted.map(|span| span.figures[index]).fold(Figures::default(), Figures::add)
        };
        let (judged, whole) = (sum(true), sum(false));
        let cost = match scenario.args.limit {
            Limit::Tokens if whole.answered > 0 => whole.settled / float(whole.answered),
            Limit::Requests | Limit::Tokens => scenario.cost_per_call,
        };
        let made = float(books.made.iter().sum());
        let (demanded_whole, part) = (made * cost, judged.seconds / whole.seconds.max(1e-9));
        let demanded = demanded_whole * part;
        let classes: Vec<ClassReport> = (0..CLASSES.len())
            .map(|class| ClassReport::new(class, books, scenario, excused))
            .collect();
        let answered: f64 = classes.iter().map(|class| float(class.answered)).sum();
        let jain: f64 = classes.iter().map(|class| class.jain * float(class.answered)).sum();
        RunReport {
            name: way.name(),
            provider_429: whole.refused,
            provider_admitted: judged.admitted,
            budget: judged.on_offer,
            utilisation: judged.utilisation(demanded),
            utilisation_whole: whole.utilisation(demanded_whole),
            bound_share: judged.bound_share(),
            settled: judged.settled,
            in_flight: judged.in_flight,
            demanded,
            jain: jain / answered.max(1.0),
            classes: CLASSES.iter().map(|class| class.name).zip(classes).collect(),
        }
    }

    /// A class by its index.
    pub(crate) fn class(&self, class: usize) -> &ClassReport {
        &self.classes[CLASSES[class].name]
    }
}

// === impl ClassReport ===

impl ClassReport {
    fn new(
        class: usize,
        books: &Books,
        scenario: &Scenario,
        excused: Option<&Range<Duration>>,
    ) -> ClassReport {
        let records: Vec<&Record> =
            books.records.iter().filter(|record| record.class == class).collect();
        let count = |wanted: fn(&Outcome) -> bool| {
            records.iter().filter(|record| wanted(&record.outcome)).count() as u64
        };
        let answered = count(|outcome| matches!(outcome, Outcome::Answered { .. }));
        let refused = count(|outcome| matches!(outcome, Outcome::Refused));
        let died = count(|outcome| matches!(outcome, Outcome::Died));
        let asked = books.made[class];
        let mut asked_by_pod = vec![0_u64; scenario.pods()];
        let mut answered_by_pod = vec![0_u64; scenario.pods()];
        for record in &records {
            let is_answered = matches!(record.outcome, Outcome::Answered { .. });
            asked_by_pod[record.pod] += 1;
            answered_by_pod[record.pod] += u64::from(is_answered);
        }
        let shares = asked_by_pod.iter().zip(&answered_by_pod).filter(|(asked, _)| **asked > 0);
        let shares: Vec<f64> =
            shares.map(|(asked, answered)| float(*answered) / float(*asked)).collect();
        let judged = waits(&records, excused);
        ClassReport {
            asked,
            answered,
            refused,
            died,
            open: asked - answered - refused - died,
            wait_ms_p50: quantile(&judged, 0.5),
            wait_ms_p99: quantile(&judged, 0.99),
            wait_ms_p99_whole: quantile(&waits(&records, None), 0.99),
            jain: jain(&shares),
            longest_gap_ms: longest_gap(&records, scenario.args.duration).as_secs_f64() * 1e3,
            answered_by_pod,
        }
    }
}

/// From the first span that is not judged.
fn excused(spans: &[Span]) -> Option<Range<Duration>> {
    let index = spans.iter().position(|span| !span.is_judged)?;
    let start = index.checked_sub(1).map_or(Duration::ZERO, |before| spans[before].end);
    Some(start..spans[index].end)
}

/// Waits in microseconds, of answered calls that had nothing to do with the excused time.
fn waits(records: &[&Record], excused: Option<&Range<Duration>>) -> Histogram<u64> {
    let mut waits = Histogram::new_with_max(MAX_WAIT, DIGITS).expect("the bounds are sound");
    for record in records {
        let Outcome::Answered { first_byte, waited } = record.outcome else { continue };
        let touches =
            |excused: &Range<Duration>| record.at < excused.end && first_byte > excused.start;
        if !excused.is_some_and(touches) {
            waits.saturating_record(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
        }
    }
    waits
}

fn quantile(waits: &Histogram<u64>, quantile: f64) -> Option<f64> {
    (!waits.is_empty()).then(|| float(waits.value_at_quantile(quantile)) / 1e3)
}

/// Jain's index of fairness: 1 if all are alike, 1/n if one of n has everything. Nobody who got
/// nothing of nothing was treated unfairly.
fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    let count = float(shares.len() as u64);
    if squares > 0.0 { sum * sum / (count * squares) } else { 1.0 }
}

fn longest_gap(records: &[&Record], end: Duration) -> Duration {
    let answers = records.iter().filter_map(|record| match record.outcome {
        Outcome::Answered { first_byte, .. } => Some(first_byte),
        _ => None,
    });
    let mut times: Vec<Duration> = answers.chain([Duration::ZERO, end]).collect();
    times.sort();
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or(end)
}

/// How long after the middle Weir admitted at the full rate again.
fn recovery(scenario: &Scenario, measured: &Measured) -> Option<u64> {
    let after = measured.history.iter().filter(|(at, _)| *at >= scenario.middle());
    let after: Vec<(Duration, f64)> = after.copied().collect();
    let back = after.iter().find(|(at, admitted)| {
        let later = after.iter().find(|(later, _)| *later >= *at + RECOVERY_WINDOW);
        later.is_some_and(|(later, sum)| {
            let rate = (sum - admitted) / (*later - *at).as_secs_f64();
            rate >= RECOVERED * scenario.per_second()
        })
    });
    back.and_then(|(at, _)| u64::try_from((*at - scenario.middle()).as_millis()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jains_index_is_one_for_equals_and_falls_with_inequality() {
        for (shares, expected) in [
            (&[0.5, 0.5, 0.5][..], 1.0),
            (&[1.0, 0.0, 0.0, 0.0], 0.25),
            (&[1.0, 0.5], 0.9),
            (&[0.0, 0.0], 1.0),
            (&[], 1.0),
        ] {
            assert!((jain(shares) - expected).abs() < 1e-9, "{shares:?}");
        }
    }

    #[test]
    fn waits_that_touch_the_excused_time_are_left_out() {
        let seconds = Duration::from_secs;
        let record = |at, first_byte, waited| Record {
            pod: 0,
            class: 0,
            at: seconds(at),
            outcome: Outcome::Answered { first_byte: seconds(first_byte), waited: seconds(waited) },
        };
        let records = [record(1, 2, 1), record(9, 12, 3), record(14, 15, 1), record(20, 24, 4)];
        let records: Vec<&Record> = records.iter().collect();
        let excused = seconds(10)..seconds(15);
        assert_eq!(waits(&records, Some(&excused)).len(), 2);
        assert_eq!(waits(&records, None).len(), 4);
        let longest = quantile(&waits(&records, None), 1.0).unwrap();
        assert!((longest / 4_000.0 - 1.0).abs() < 0.001, "{longest}");
        assert_eq!(longest_gap(&records, seconds(30)), seconds(10));
    }
}
