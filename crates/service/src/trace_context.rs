//! W3C trace context over HTTP headers (gRPC metadata are headers too).
//!
//! Where no exporter is installed spans do not exist, both functions do nothing, and a caller's
//! `traceparent` passes through as it came.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

static PROPAGATOR: LazyLock<TraceContextPropagator> = LazyLock::new(TraceContextPropagator::new);

struct Incoming<'a>(&'a HeaderMap);

struct Outgoing<'a>(&'a mut HeaderMap);

/// Makes `span` a child of the span that `headers` name, if they name one. To be called before the
/// span is entered: once it has started its parent is settled.
pub fn continue_from(span: &Span, headers: &HeaderMap) {
    if span.is_disabled() {
        return;
    }
    let parent = PROPAGATOR.extract(&Incoming(headers));
    if parent.has_active_span() {
        // A span that has started keeps its trace; nothing better can be done about it here.
        let _ = span.set_parent(parent);
    }
}

/// Names `span` as the parent of what receives `headers`.
pub fn inject(span: &Span, headers: &mut HeaderMap) {
    if !span.is_disabled() {
        PROPAGATOR.inject_context(&span.context(), &mut Outgoing(headers));
    }
}

// === impl Incoming ===

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

// === impl Outgoing ===

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}
