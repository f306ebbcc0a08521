//! All spans and their attributes, in one table: `gen_ai.*` as the semantic conventions 1.41.1 have
//! them, everything of our own as `weir.*`. Where no exporter is installed no span exists and nothing
//! here costs more than the check for it.
//!
//! `weir.request` (SERVER) is what the client saw; under it `weir.admit`, and one CLIENT span for the
//! attempt, which ends with the answer's body. No prompt, completion or key is in any of them.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use providers::limit_seen::LimitSeen;
use providers::meter::Metered;
use quota::charge::Vector;
use quota::dimension::Protocol;
use quota::holder::{Refused, Source};
use service::trace_context;
use tracing::field::Empty;
use tracing::{Span, info, info_span};

use crate::record::{Outcome, Record};
use crate::route::Asked;

/// Of events that belong to a span; the log's default filter leaves them out.
const EVENTS: &str = "trace";
const TRACEPARENT: &str = "traceparent";

/// The span of a request, a child of the caller's.
pub(crate) fn request(headers: &HeaderMap) -> Span {
    let span = info_span!(
        "weir.request",
        otel.kind = "server",
        otel.status_code = Empty,
        error.r#type = Empty,
        http.response.status_code = Empty,
        gen_ai.operation.name = Empty,
        gen_ai.request.model = Empty,
        weir.provider = Empty,
        weir.class = Empty,
        weir.outcome = Empty,
        weir.reason = Empty,
    );
    trace_context::continue_from(&span, headers);
    span
}

/// Ends the span of a request.
pub(crate) fn finish_request(record: &Record) {
    let span = &record.span;
    if span.is_disabled() {
        return;
    }
    let outcome = record.outcome();
    span.record("weir.outcome", outcome.label());
    span.record("gen_ai.operation.name", record.call.operation.genai_name());
    span.record("gen_ai.request.model", record.call.model.as_deref());
    span.record("weir.provider", record.provider.as_deref());
    span.record("weir.class", record.class.as_deref());
    span.record("weir.reason", record.reason());
    let refused = record.refused.as_ref().map(providers::refusal::Refusal::status);
    span.record("http.response.status_code", record.status.or(refused));
    if outcome != Outcome::Answered {
        span.record("otel.status_code", "ERROR");
        let failure = record.failure.map(|failure| failure.name());
        let error = record.reason().or(failure).unwrap_or_else(|| outcome.label());
        span.record("error.type", error);
    }
}

/// The span of an admission.
pub(crate) fn admit(class: &str, vector: &Vector) -> Span {
    let span = info_span!(
        "weir.admit",
        otel.status_code = Empty,
        weir.decision = Empty,
        weir.reason = Empty,
        weir.explain = Empty,
        weir.class = class,
        weir.reserved = Empty,
        weir.wait_ms = Empty,
    );
    if !span.is_disabled() {
        span.record("weir.reserved", reserved(vector));
    }
    span
}

/// What the allocator shall name as the parent of its own span: this admission, or, where nothing is
/// exported here, what the caller sent.
pub(crate) fn traceparent(span: &Span, headers: &HeaderMap) -> Option<Arc<str>> {
    if span.is_disabled() {
        return Some(headers.get(TRACEPARENT)?.to_str().ok()?.into());
    }
    let mut own = HeaderMap::new();
    trace_context::inject(span, &mut own);
    Some(own.get(TRACEPARENT)?.to_str().ok()?.into())
}

/// The request may go.
pub(crate) fn admitted(span: &Span, record: &Record) {
    span.record("weir.decision", record.source.map(source_label));
    span.record("weir.wait_ms", micros(record.waited) / 1_000);
}

/// It may not.
pub(crate) fn denied(span: &Span, refused: &Refused) {
    span.record("otel.status_code", "ERROR");
    span.record("weir.decision", "denied");
    span.record("weir.reason", refused.reason.label());
    span.record("weir.explain", &refused.explain);
}

/// The span of one attempt: `{operation} {model}`, kind CLIENT.
pub(crate) fn attempt(asked: &Asked) -> Span {
    let span = info_span!(
        "weir.attempt",
        otel.kind = "client",
        otel.name = Empty,
        otel.status_code = Empty,
        error.r#type = Empty,
        http.response.status_code = Empty,
        server.address = asked.target.endpoint.host(),
        server.port = port(asked),
        gen_ai.operation.name = asked.call.operation.genai_name(),
        gen_ai.provider.name = provider_name(asked.target.provider.protocol),
        gen_ai.request.model = asked.call.model,
        gen_ai.request.stream = asked.call.stream,
        gen_ai.request.max_tokens = asked.call.output_cap,
        gen_ai.request.choice.count = asked.call.choices,
        gen_ai.response.time_to_first_chunk = Empty,
        gen_ai.usage.input_tokens = Empty,
        gen_ai.usage.output_tokens = Empty,
        gen_ai.usage.cache_read.input_tokens = Empty,
        gen_ai.usage.cache_creation.input_tokens = Empty,
        gen_ai.usage.reasoning.output_tokens = Empty,
        weir.key = Empty,
        weir.usage_exact = Empty,
    );
    if !span.is_disabled() {
        let operation = asked.call.operation.genai_name();
        span.record("otel.name", format!("{operation} {}", asked.model()).trim_end());
    }
    span
}

/// The alias of the key that the attempt uses.
pub(crate) fn key(span: &Span, alias: &str) {
    span.record("weir.key", alias);
}

/// The provider's headers told of a limit.
pub(crate) fn limit_seen(span: &Span, seen: &LimitSeen) {
    info!(
        target: EVENTS,
        parent: span,
        {
            weir.dimension = seen.dimension.name(),
            weir.limit = seen.limit,
            weir.remaining = seen.remaining,
        },
        "limit seen"
    );
}

/// The model has produced something that the client sees.
pub(crate) fn first_output(span: &Span) {
    info!(target: EVENTS, parent: span, "first output");
}

/// The attempt brought no answer.
pub(crate) fn attempt_failed(span: &Span, reason: &'static str) {
    span.record("otel.status_code", "ERROR");
    span.record("error.type", reason);
}

/// The answer has been read.
pub(crate) fn finish_attempt(span: &Span, record: &Record, metered: &Metered) {
    if span.is_disabled() {
        return;
    }
    let usage = &metered.usage;
    span.record("http.response.status_code", record.status);
    span.record("gen_ai.usage.input_tokens", usage.input().0);
    span.record("gen_ai.usage.output_tokens", usage.output().0);
    span.record("gen_ai.usage.cache_read.input_tokens", usage.cache_read.0);
    span.record("gen_ai.usage.cache_creation.input_tokens", usage.cache_write().0);
    span.record("gen_ai.usage.reasoning.output_tokens", usage.output_reasoning.0);
    span.record("weir.usage_exact", metered.exact);
    if let Some(first) = record.to_output {
        span.record("gen_ai.response.time_to_first_chunk", first.as_secs_f64());
    }
    if let Some(failure) = record.failure.or(metered.error) {
        attempt_failed(span, failure.name());
    } else if record.cut {
        attempt_failed(span, Outcome::Cut.label());
    }
}

/// The label of an admission's source, in metrics, spans and the access event.
pub(crate) const fn source_label(source: Source) -> &'static str {
    match source {
        Source::Lease => "lease",
        Source::Draw => "draw",
        Source::Free => "free",
    }
}

/// Whole microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// `gen_ai.provider.name`. A compatible server is not OpenAI, and the conventions have no name for it.
const fn provider_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::OpenAi => "openai",
        Protocol::Anthropic => "anthropic",
        Protocol::OpenAiCompatible => "openai_compatible",
    }
}

fn port(asked: &Asked) -> u16 {
    let https = asked.target.endpoint.scheme_str() == Some("https");
    asked.target.endpoint.port_u16().unwrap_or(if https { 443 } else { 80 })
}

fn reserved(vector: &Vector) -> String {
    let parts: Vec<String> =
        vector.iter().map(|(budget, amount)| format!("{budget}={amount}")).collect();
    parts.join(" ")
}
