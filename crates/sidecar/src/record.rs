//! What is known of one request, gathered on its way and written when it is over, however it ends:
//! metrics, the end of its span, one access event. Nothing of a body or a key is in it.

use std::sync::Arc;
use std::time::Duration;

use providers::Adapter;
use providers::call::Call;
use providers::failure::Failure;
use providers::meter::Metered;
use providers::refusal::Refusal;
use quota::holder::Source;
use quota::message::Reason;
use quota::policy::Name;
use tokio::time::Instant;
use tracing::{Span, info};

use crate::metrics::Metrics;
use crate::spans;

/// One request. Written when it is dropped.
pub(crate) struct Record {
    metrics: Arc<Metrics>,
    pub(crate) span: Span,
    started: Instant,
    pub(crate) provider: Option<Name>,
    pub(crate) adapter: Option<&'static dyn Adapter>,
    pub(crate) class: Option<Name>,
    pub(crate) call: Call,
    pub(crate) source: Option<Source>,
    pub(crate) waited: Duration,
    pub(crate) reserved_tokens: u64,
    pub(crate) status: Option<u16>,
    pub(crate) refused: Option<Refusal>,
    pub(crate) reason: Option<Reason>,
    pub(crate) failure: Option<Failure>,
    /// From the request's writing to the head of the answer.
    pub(crate) to_head: Option<Duration>,
    /// From the request's writing to the first output.
    pub(crate) to_output: Option<Duration>,
    /// When the request was written, from its arrival.
    written: Duration,
    pub(crate) metered: Option<Metered>,
    pub(crate) left: bool,
    pub(crate) cut: bool,
}

/// How a request ended. The labels are the closed list of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The provider answered below 400.
    Answered,
    /// The provider answered 429.
    ProviderLimited,
    /// Another 4xx of the provider.
    ClientError,
    /// A 5xx of the provider, or an error in its stream.
    ProviderError,
    /// The provider broke off in the middle of its answer.
    Cut,
    /// We refused it.
    Refused,
    /// The provider could not be reached, or did not answer.
    Unreachable,
    /// The client went away.
    Left,
}

// === impl Record ===

impl Record {
    /// Of a request that has just arrived.
    pub(crate) fn new(metrics: Arc<Metrics>, span: Span) -> Record {
        metrics.in_flight.inc();
        Record {
            metrics,
            span,
            started: Instant::now(),
            provider: None,
            adapter: None,
            class: None,
            call: Call::default(),
            source: None,
            waited: Duration::ZERO,
            reserved_tokens: 0,
            status: None,
            refused: None,
            reason: None,
            failure: None,
            to_head: None,
            to_output: None,
            written: Duration::ZERO,
            metered: None,
            left: false,
            cut: false,
        }
    }

    /// The time since its arrival.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// The head of the answer came so long after the request was written.
    pub(crate) fn answered(&mut self, to_head: Duration) {
        self.to_head = Some(to_head);
        self.written = self.age().saturating_sub(to_head);
    }

    /// The model has produced something; true if it is the first time.
    pub(crate) fn produced(&mut self) -> bool {
        let first = self.to_output.is_none();
        if first {
            self.to_output = Some(self.age().saturating_sub(self.written));
        }
        first
    }

    /// Why we refused it, as a label.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        let refused = self.refused.as_ref().map(Refusal::name);
        self.reason.map(Reason::label).or(refused)
    }

    /// How it ended.
    pub(crate) fn outcome(&self) -> Outcome {
        let stream_error = self.metered.is_some_and(|metered| metered.error.is_some());
        match (&self.refused, self.status) {
            (Some(Refusal::UpstreamFailed { .. } | Refusal::UpstreamTimeout { .. }), _) => {
                Outcome::Unreachable
            }
            (Some(_), _) => Outcome::Refused,
            (None, None) => Outcome::Left,
            (None, Some(429)) => Outcome::ProviderLimited,
            (None, Some(400..500)) => Outcome::ClientError,
            (None, Some(500..)) => Outcome::ProviderError,
            _ if stream_error => Outcome::ProviderError,
            _ if self.left => Outcome::Left,
            _ if self.cut => Outcome::Cut,
            _ => Outcome::Answered,
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        self.metrics.record(self);
        spans::finish_request(self);
        let usage = self.metered.map(|metered| metered.usage);
        info!(
            target: "access",
            provider = self.provider.as_deref(),
            operation = self.call.operation.genai_name(),
            model = self.call.model,
            stream = self.call.stream,
            class = self.class.as_deref(),
            outcome = self.outcome().label(),
            status = self.status,
            reason = self.reason(),
            failure = self.failure.map(|failure| failure.name()),
            source = self.source.map(spans::source_label),
            waited_us = spans::micros(self.waited),
            to_head_us = self.to_head.map(spans::micros),
            to_output_us = self.to_output.map(spans::micros),
            duration_us = spans::micros(self.age()),
            reserved_tokens = self.reserved_tokens,
            input_tokens = usage.map(|usage| usage.input().0),
            output_tokens = usage.map(|usage| usage.output().0),
            exact = self.metered.map(|metered| metered.exact),
        );
    }
}

// === impl Outcome ===

impl Outcome {
    /// Its label in metrics, spans and the access event.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::ProviderLimited => "provider_limited",
            Outcome::ClientError => "client_error",
            Outcome::ProviderError => "provider_error",
            Outcome::Cut => "cut",
            Outcome::Refused => "refused",
            Outcome::Unreachable => "unreachable",
            Outcome::Left => "left",
        }
    }
}
