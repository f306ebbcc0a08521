//! What the allocator counts, under `weir_allocator_`.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use quota::ledger::BudgetStatus;
use quota::message::Reason;
use service::label::Bounded;
use tokio::sync::watch;
use wire::RefusedReason;

use crate::snapshot::Snapshot;

/// Recorded as things happen.
#[derive(Debug)]
pub(crate) struct Metrics {
    draws: Family<DrawLabels, Counter>,
    waits: Family<ClassLabels, Histogram>,
    classes: Bounded,
    refused: Family<RefusedLabels, Counter>,
    pub(crate) sessions: Gauge,
    pub(crate) epochs_raised: Counter,
}

/// How a draw ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Outcome {
    Granted,
    Denied(Reason),
    Cancelled,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DrawLabels {
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    class: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    reason: RefusedLabel,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RefusedLabel(RefusedReason);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BudgetLabels {
    budget: String,
}

/// Figures that are read off the last snapshot when they are scraped, so that a budget which the
/// policy no longer has is no longer shown.
#[derive(Debug)]
struct Figures(watch::Receiver<Arc<Snapshot>>);

/// A gauge for each budget.
struct BudgetFigure {
    name: &'static str,
    help: &'static str,
    value: fn(&BudgetStatus) -> f64,
}

const BUDGET_FIGURES: [BudgetFigure; 5] = [
    BudgetFigure {
        name: "budget_rate_per_second",
        help: "What all may use",
        value: |budget| units(budget.effective.micros()),
    },
    BudgetFigure {
        name: "budget_leased_per_second",
        help: "What leases may use",
        value: |budget| units(budget.leased.micros()),
    },
    BudgetFigure {
        name: "budget_credited",
        help: "Credit that may still be spent",
        value: |budget| units(budget.credited.micros()),
    },
    BudgetFigure {
        name: "budget_used_last_minute",
        help: "What was charged in the last minute",
        value: |budget| units(budget.used_last_minute.micros()),
    },
    BudgetFigure {
        name: "budget_waiting",
        help: "Draws that wait for it",
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 draws wait")]
        value: |budget| budget.waiting as f64,
    },
];

/// Classes are few; a policy with more is read in the snapshot.
const CLASSES_MAX: usize = 32;
/// Budgets shown; a series for each of five figures.
const BUDGETS_MAX: usize = 256;
/// From an uncontended draw (1 ms) to the longest that a quota lets wait.
const WAITS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

// === impl Metrics ===

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics {
            draws: Family::default(),
            waits: Family::new_with_constructor(|| Histogram::new(WAITS)),
            classes: Bounded::new(CLASSES_MAX),
            refused: Family::default(),
            sessions: Gauge::default(),
            epochs_raised: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("allocator");
        registry.register("draws", "Draws answered, by outcome", metrics.draws.clone());
        registry.register_with_unit(
            "draw_wait",
            "Time from a draw's arrival to its credit, by class",
            Unit::Seconds,
            metrics.waits.clone(),
        );
        registry.register("refused_sessions", "Sessions refused", metrics.refused.clone());
        registry.register("sessions", "Sidecars connected", metrics.sessions.clone());
        registry.register(
            "epochs_raised",
            "Times that a sidecar showed an epoch unknown to the state directory",
            metrics.epochs_raised.clone(),
        );
        metrics
    }

    /// Shows the figures of the last snapshot too.
    pub(crate) fn show(registry: &mut Registry, snapshot: watch::Receiver<Arc<Snapshot>>) {
        let registry = registry.sub_registry_with_prefix("allocator");
        registry.register_collector(Box::new(Figures(snapshot)));
    }

    /// A draw of this class ended after this wait.
    pub(crate) fn draw(&self, outcome: Outcome, class: &str, wait: Duration) {
        self.draws.get_or_create(&DrawLabels { outcome }).inc();
        if outcome == Outcome::Granted {
            let class = self.classes.label(class);
            self.waits.get_or_create(&ClassLabels { class }).observe(wait.as_secs_f64());
        }
    }

    /// A session was refused.
    pub(crate) fn refused(&self, reason: RefusedReason) {
        self.refused.get_or_create(&RefusedLabels { reason: RefusedLabel(reason) }).inc();
    }
}

// === impl Outcome ===

impl Outcome {
    /// Its label in metrics and traces.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Outcome::Granted => "granted",
            Outcome::Denied(reason) => reason.label(),
            Outcome::Cancelled => "cancelled",
        }
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.label().encode(encoder)
    }
}

impl EncodeLabelValue for RefusedLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.label().encode(encoder)
    }
}

// === impl Figures ===

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let snapshot = self.0.borrow().clone();
        let policy = &snapshot.policy;
        for (name, help, value) in [
            ("epoch", "Epoch of this leader", snapshot.status.epoch.0),
            ("learning", "1 while pods of the roster are not known", {
                u64::from(snapshot.status.learning)
            }),
            ("policy_generation", "Generation of the policy in force", policy.generation),
            ("policy_problems", "Why newer files are not in force", count(&policy.problems)),
            ("policy_warnings", "Parts of the policy without effect", count(&policy.warnings)),
        ] {
            let gauge = ConstGauge::new(value);
            let kind = gauge.metric_type();
            gauge.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        for BudgetFigure { name, help, value } in BUDGET_FIGURES {
            let family = Family::<BudgetLabels, Gauge<f64, AtomicU64>>::default();
            for (budget, status) in snapshot.status.budgets.iter().take(BUDGETS_MAX) {
                let labels = BudgetLabels { budget: budget.to_string() };
                family.get_or_create(&labels).set(value(status));
            }
            let kind = family.metric_type();
            family.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        Ok(())
    }
}

fn count(entries: &[String]) -> u64 {
    u64::try_from(entries.len()).unwrap_or(u64::MAX)
}

/// Units from millionths.
#[expect(clippy::cast_precision_loss, reason = "a gauge for people; fifteen digits are enough")]
fn units(micros: u64) -> f64 {
    micros as f64 / 1e6
}
