//! One sidecar's stream as the leader sees it: where its messages go, and the draws that it waits for.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderValue};
use quota::message::{Denial, DrawId, DrawRequest, Epoch, PodId, ToPod};
use quota::policy::Name;
use quota::time::Time;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{Span, info_span};
use wire::FromAllocator;

use crate::metrics::{Metrics, Outcome};
use crate::reach::Pod;
use crate::record::Run;

/// One stream.
#[derive(Debug)]
pub(crate) struct Session {
    number: u64,
    pub(crate) run: Run,
    pub(crate) of: Pod,
    out: mpsc::Sender<FromAllocator>,
    close: CancellationToken,
    draws: BTreeMap<DrawId, Waiting>,
}

/// A sidecar that asks for a session.
#[derive(Debug)]
pub(crate) struct Applicant {
    pub(crate) pod: PodId,
    pub(crate) run: Run,
    /// Whether its name is proven, and not only said: then a second run of it is the end of the first.
    pub(crate) is_proven: bool,
    /// What decides its quota.
    pub(crate) of: Pod,
    pub(crate) highest_epoch_seen: Epoch,
    /// The place of its greeting among all.
    pub(crate) arrival: u64,
    /// What it is told first: its policy.
    pub(crate) greeting: FromAllocator,
    /// Where its messages go. Bounded; must have room.
    pub(crate) out: mpsc::Sender<FromAllocator>,
    /// Cancelled when the leader ends the session.
    pub(crate) close: CancellationToken,
}

/// Which session: a pod has one at a time, and late messages of an older one must not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionKey {
    pub(crate) pod: PodId,
    pub(crate) number: u64,
}

/// A draw that has no answer yet.
#[derive(Debug)]
struct Waiting {
    class: Name,
    since: Time,
    /// Continues the draw's own trace; disabled where none is exported.
    span: Span,
    trace_id: Option<String>,
}

/// A draw that was refused.
pub(crate) struct Refused {
    pub(crate) denial: Denial,
    pub(crate) class: Name,
    pub(crate) trace_id: Option<String>,
}

/// The stream's queue is full or gone.
#[derive(Debug)]
pub(crate) struct Unread;

/// Draws that are measured at once. More wait in the queue all the same; a pod's own `queue.maxRequests`
/// is far below.
const DRAWS_MAX: usize = 4_096;

// === impl Session ===

impl Session {
    /// Opens the session by its greeting.
    pub(crate) fn new(number: u64, applicant: Applicant) -> Session {
        let Applicant { run, of, greeting, out, close, .. } = applicant;
        // The queue is new and empty; if its reader has gone already, the end of the stream will tell.
        let _ = out.try_send(greeting);
        Session { number, run, of, out, close, draws: BTreeMap::new() }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Queues a message for the stream, without waiting.
    pub(crate) fn send(&self, message: FromAllocator) -> Result<(), Unread> {
        self.out.try_send(message).map_err(|_| Unread)
    }

    /// Ends the stream once its queue is read.
    pub(crate) fn close(&self) {
        self.close.cancel();
    }

    /// A draw has arrived; one that is sent again goes on waiting.
    pub(crate) fn draw_arrived(&mut self, now: Time, draw: &DrawRequest) {
        if self.draws.len() < DRAWS_MAX {
            let (class, span) = (draw.class.clone(), span(draw));
            let trace_id = draw.traceparent.as_deref().and_then(trace_id);
            let waiting = || Waiting { class, since: now, span, trace_id };
            self.draws.entry(draw.id).or_insert_with(waiting);
        }
    }

    /// A draw is no longer wanted.
    pub(crate) fn draw_cancelled(&mut self, now: Time, id: DrawId, metrics: &Metrics) {
        if let Some(waiting) = self.draws.remove(&id) {
            waiting.end(now, Outcome::Cancelled, metrics);
        }
    }

    /// Takes note of the answer to a draw, and tells of a refusal.
    pub(crate) fn answered(
        &mut self,
        now: Time,
        message: &ToPod,
        metrics: &Metrics,
    ) -> Option<Refused> {
        let (id, outcome) = match message {
            ToPod::Credit(credit) => (credit.id, Outcome::Granted),
            ToPod::Deny(denial) => (denial.id, Outcome::Denied(denial.reason)),
            ToPod::Challenge(..) | ToPod::Welcome(_) | ToPod::Lease(_) => return None,
        };
        let waiting = self.draws.remove(&id)?;
        let mut refused = None;
        if let ToPod::Deny(denial) = message {
            waiting.span.record("weir.explain", &*denial.explain);
            let (class, trace_id) = (waiting.class.clone(), waiting.trace_id.clone());
            refused = Some(Refused { denial: denial.clone(), class, trace_id });
        }
        waiting.end(now, outcome, metrics);
        refused
    }

    /// Draws that wait, each with its class and since when.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (&Name, Time)> {
        self.draws.values().map(|waiting| (&waiting.class, waiting.since))
    }

    /// The sidecar will send its draws again.
    pub(crate) fn forget_draws(&mut self) {
        self.draws.clear();
    }
}

// === impl Waiting ===

impl Waiting {
    fn end(self, now: Time, outcome: Outcome, metrics: &Metrics) {
        self.span.record("weir.outcome", outcome.label());
        metrics.draw(outcome, &self.class, now.since(self.since));
    }
}

/// The allocator's own span of a draw. It ends with the answer; a draw that never gets one, because its
/// stream has ended, has no outcome.
fn span(draw: &DrawRequest) -> Span {
    let Some(traceparent) = &draw.traceparent else { return Span::none() };
    let span = info_span!(
        "weir.draw",
        otel.kind = "server",
        weir.class = &*draw.class,
        weir.budgets = draw.vector.len(),
        weir.outcome = tracing::field::Empty,
        weir.explain = tracing::field::Empty,
    );
    if let Ok(value) = HeaderValue::from_str(traceparent) {
        let headers =
            HeaderMap::from_iter([(http::header::HeaderName::from_static("traceparent"), value)]);
        service::trace_context::continue_from(&span, &headers);
    }
    span
}

/// The trace that a `traceparent` names.
fn trace_id(traceparent: &str) -> Option<String> {
    let id = traceparent.split('-').nth(1)?;
    let is_id = id.len() == 32 && id.bytes().all(|it| it.is_ascii_hexdigit());
    is_id.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use quota::charge::Vector;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn a_draw_is_a_span_in_the_trace_of_its_request() {
        let tracer = SdkTracerProvider::default().tracer("test");
        let layer = tracing_opentelemetry::layer().with_tracer(tracer);
        let subscriber = tracing_subscriber::registry().with(layer);
        let draw = |traceparent: Option<&str>| DrawRequest {
            id: DrawId(1),
            mono: Time::ZERO,
            vector: Vector::new(),
            class: "batch".into(),
            max_wait: Duration::ZERO,
            waited: Duration::ZERO,
            traceparent: traceparent.map(Into::into),
        };
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        tracing::subscriber::with_default(subscriber, || {
            let span = span(&draw(Some(&format!("00-{trace}-00f067aa0ba902b7-01"))));
            let context = span.context().span().span_context().clone();
            assert_eq!(context.trace_id().to_string(), trace);
            assert_ne!(context.span_id().to_string(), "00f067aa0ba902b7");
            assert!(super::span(&draw(None)).is_none());
            // What is no traceparent begins no trace of ours, and is no error.
            super::span(&draw(Some("nonsense\n")));
        });
    }
}
