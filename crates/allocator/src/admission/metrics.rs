//! What the webhooks count, under `weir_allocator_admission_`.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Recorded as reviews are answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    reviews: Family<Labels, Counter>,
}

/// Which webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Hook {
    Inject,
    Validate,
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    /// Allowed, with a sidecar.
    Patched,
    /// Allowed as it is.
    Allowed,
    /// Refused, with a reason for the person.
    Refused,
    /// No review that can be answered: the API server applies the webhook's failure policy.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    webhook: Hook,
    outcome: Outcome,
}

// === impl Metrics ===

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics::default();
        registry.sub_registry_with_prefix("allocator").register(
            "admission_reviews",
            "Admission reviews answered, by webhook and outcome",
            metrics.reviews.clone(),
        );
        metrics
    }

    pub(super) fn count(&self, webhook: Hook, outcome: Outcome) {
        self.reviews.get_or_create(&Labels { webhook, outcome }).inc();
    }
}

// === impl Hook ===

impl Hook {
    pub(super) fn label(self) -> &'static str {
        match self {
            Hook::Inject => "inject",
            Hook::Validate => "validate",
        }
    }
}

impl EncodeLabelValue for Hook {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.label().encode(encoder)
    }
}

// === impl Outcome ===

impl Outcome {
    pub(super) fn label(self) -> &'static str {
        match self {
            Outcome::Patched => "patched",
            Outcome::Allowed => "allowed",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
        }
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.label().encode(encoder)
    }
}
