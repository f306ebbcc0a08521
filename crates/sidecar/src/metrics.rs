//! What the sidecar counts, under `weir_sidecar_`. Labels are labels of enums, or names from the
//! policy and of models, of which a bounded number is told apart.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use service::label::Bounded;

use crate::gate::Gate;
use crate::record::{Outcome, Record};
use crate::spans;

/// The sidecar's metrics.
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    refusals: Family<ReasonLabels, Counter>,
    provider_failures: Family<FailureLabels, Counter>,
    admissions: Family<SourceLabels, Counter>,
    wait: Family<ClassLabels, Histogram>,
    tokens: Family<TokenLabels, Counter>,
    pub(crate) estimate_error: Histogram,
    to_head: Family<ProviderLabels, Histogram>,
    to_output: Family<ProviderLabels, Histogram>,
    pub(crate) in_flight: Gauge,
    pub(crate) sessions: Counter,
    providers: Bounded,
    models: Bounded,
    classes: Bounded,
}

/// What the allocator lets a policy name (allocator.proto).
const MAX_PROVIDERS: usize = 64;
const MAX_CLASSES: usize = 64;
/// Of one workload; each makes three series.
const MAX_MODELS: usize = 32;

/// Admission takes microseconds from a lease, and up to a queue's patience.
const WAIT_SECONDS: [f64; 12] =
    [0.000_1, 0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Of the GenAI conventions, shortened.
const LATENCY_SECONDS: [f64; 12] =
    [0.005, 0.02, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 40.96, 81.92];
/// The goal for half of all requests is 0.15 (`leases.md` 6).
const RELATIVE_ERROR: [f64; 11] = [-0.5, -0.25, -0.15, -0.05, 0.0, 0.05, 0.15, 0.25, 0.5, 1.0, 2.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    provider: Arc<str>,
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    provider: Arc<str>,
    failure: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    class: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    provider: Arc<str>,
    model: Arc<str>,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabels {
    provider: Arc<str>,
}

/// Reads the lease's state when it is scraped.
struct LeaseState(Gate);

// === impl Metrics ===

impl Metrics {
    /// Registers all metrics.
    pub(crate) fn register(registry: &mut Registry, gate: &Gate) -> Metrics {
        let metrics = Metrics {
            requests: Family::default(),
            refusals: Family::default(),
            provider_failures: Family::default(),
            admissions: Family::default(),
            wait: Family::new_with_constructor(|| Histogram::new(WAIT_SECONDS)),
            tokens: Family::default(),
            estimate_error: Histogram::new(RELATIVE_ERROR),
            to_head: Family::new_with_constructor(|| Histogram::new(LATENCY_SECONDS)),
            to_output: Family::new_with_constructor(|| Histogram::new(LATENCY_SECONDS)),
            in_flight: Gauge::default(),
            sessions: Counter::default(),
            providers: Bounded::new(MAX_PROVIDERS),
            models: Bounded::new(MAX_MODELS),
            classes: Bounded::new(MAX_CLASSES),
        };
        let sidecar = registry.sub_registry_with_prefix("sidecar");
        sidecar.register("requests", "Requests by how they ended", metrics.requests.clone());
        sidecar.register("refusals", "Requests refused here, by reason", metrics.refusals.clone());
        sidecar.register(
            "provider_failures",
            "Errors of the provider, by what they mean; rate_limit is its 429",
            metrics.provider_failures.clone(),
        );
        sidecar.register(
            "admissions",
            "Admitted requests by where their budget came from",
            metrics.admissions.clone(),
        );
        let seconds = Unit::Seconds;
        sidecar.register_with_unit(
            "wait",
            "Wait for admission",
            seconds.clone(),
            metrics.wait.clone(),
        );
        sidecar.register("tokens", "Tokens reserved, and used", metrics.tokens.clone());
        sidecar.register_with_unit(
            "estimate_error",
            "Error of the estimated prompt, relative to the truth",
            Unit::Ratios,
            metrics.estimate_error.clone(),
        );
        sidecar.register_with_unit(
            "provider_head",
            "From a request's writing to the head of the provider's answer",
            seconds.clone(),
            metrics.to_head.clone(),
        );
        sidecar.register_with_unit(
            "first_output",
            "From a request's writing to the first output of the model",
            seconds,
            metrics.to_output.clone(),
        );
        sidecar.register("in_flight", "Requests that are being served", metrics.in_flight.clone());
        sidecar.register(
            "allocator_sessions",
            "Streams to an allocator that ended, or could not be opened",
            metrics.sessions.clone(),
        );
        registry
            .sub_registry_with_prefix("lease")
            .register_collector(Box::new(LeaseState(gate.clone())));
        metrics
    }

    /// Counts a request that has ended.
    pub(crate) fn record(&self, record: &Record) {
        let outcome = record.outcome();
        let provider = self.providers.label(record.provider.as_deref().unwrap_or_default());
        let operation = record.call.operation.genai_name();
        let labels =
            RequestLabels { provider: provider.clone(), operation, outcome: outcome.label() };
        self.requests.get_or_create(&labels).inc();
        if let Some(reason) = record.reason() {
            self.refusals.get_or_create(&ReasonLabels { reason }).inc();
        }
        if let Some(failure) = record.failure {
            let labels = FailureLabels { provider: provider.clone(), failure: failure.name() };
            self.provider_failures.get_or_create(&labels).inc();
        }
        if let Some(source) = record.source {
            let labels = SourceLabels { source: spans::source_label(source) };
            self.admissions.get_or_create(&labels).inc();
        }
        if let Some(class) = record.class.as_deref().filter(|_| outcome != Outcome::Unreachable) {
            let labels = ClassLabels { class: self.classes.label(class) };
            self.wait.get_or_create(&labels).observe(record.waited.as_secs_f64());
        }
        self.count_tokens(record, &provider);
        let labels = ProviderLabels { provider };
        if let Some(to_head) = record.to_head {
            self.to_head.get_or_create(&labels).observe(to_head.as_secs_f64());
        }
        if let Some(to_output) = record.to_output {
            self.to_output.get_or_create(&labels).observe(to_output.as_secs_f64());
        }
    }

    fn count_tokens(&self, record: &Record, provider: &Arc<str>) {
        let Some(metered) = record.metered else { return };
        let model = self.models.label(record.call.model.as_deref().unwrap_or_default());
        for (kind, tokens) in [
            ("reserved", record.reserved_tokens),
            ("input", metered.usage.input().0),
            ("output", metered.usage.output().0),
        ] {
            let labels = TokenLabels { provider: provider.clone(), model: model.clone(), kind };
            self.tokens.get_or_create(&labels).inc_by(tokens);
        }
    }
}

// === impl LeaseState ===

impl std::fmt::Debug for LeaseState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LeaseState")
    }
}

impl Collector for LeaseState {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let status = self.0.status();
        let gauges = [
            ("connected", "1 if an allocator answers draws", u64::from(status.connected)),
            ("lost", "1 if no allocator has answered for a while", u64::from(status.lost)),
            ("epoch", "The newest leader seen", status.epoch.0),
            ("waiting", "Requests that wait for admission", status.waiting as u64),
            ("left_seconds", "How much longer the full rate runs", status.lease_left.as_secs()),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
