//! What a trace shows of a request.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use ::tracing::field::{Field, Visit};
use ::tracing::span::{Attributes, Id, Record};
use ::tracing::{Event, Subscriber};
use parking_lot::Mutex;
use quota::message::Reason;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::allocator::Decision;
use crate::client::{CHAT_ANSWER, chat};
use crate::provider::{FakeProvider, text};
use crate::rig::Rig;

/// Keeps all spans of the sidecar, with their parents and last attributes.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<BTreeMap<u64, Span>>>);

#[derive(Clone, Debug, Default)]
struct Span {
    name: &'static str,
    parent: Option<u64>,
    fields: BTreeMap<&'static str, String>,
    events: Vec<String>,
}

struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let parent = context.span(id).and_then(|span| Some(span.parent()?.id().into_u64()));
        let mut span = Span { name: attributes.metadata().name(), parent, ..Span::default() };
        attributes.record(&mut Fields(&mut span.fields));
        self.0.lock().insert(id.into_u64(), span);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        if let Some(span) = self.0.lock().get_mut(&id.into_u64()) {
            values.record(&mut Fields(&mut span.fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let Some(id) = context.event_span(event).map(|span| span.id().into_u64()) else { return };
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        if let Some(span) = self.0.lock().get_mut(&id) {
            span.events.push(format!("{fields:?}"));
        }
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Spans {
    fn named(&self, name: &str) -> (u64, Span) {
        let spans = self.0.lock();
        let mut found = spans.iter().filter(|(_, span)| span.name == name);
        let (id, span) = found.next().expect("there is such a span");
        assert!(found.next().is_none(), "two spans are called {name}");
        (*id, span.clone())
    }
}

impl Span {
    #[track_caller]
    fn has(&self, expected: &[(&str, &str)]) {
        for (field, value) in expected {
            assert_eq!(
                self.fields.get(field).map(String::as_str),
                Some(*value),
                "{field}: {self:?}"
            );
        }
    }
}

async fn rig() -> Rig {
    let provider = FakeProvider::start(|_| {
        let mut response = text(200, CHAT_ANSWER);
        for (name, value) in [
            ("x-ratelimit-limit-requests", "600"),
            ("x-ratelimit-remaining-requests", "599"),
            ("x-ratelimit-reset-requests", "100ms"),
        ] {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response
    });
    Rig::start(provider.await).await
}

#[tokio::test]
async fn one_trace_explains_a_request() {
    let spans = Spans::default();
    let _subscriber = ::tracing::subscriber::set_default(Registry::default().with(spans.clone()));
    let rig = rig().await;
    assert_eq!(rig.client().await.ask(chat()).await.status.as_u16(), 200);

    let (request, span) = spans.named("weir.request");
    span.has(&[
        ("otel.kind", "server"),
        ("http.response.status_code", "200"),
        ("weir.outcome", "answered"),
        ("weir.class", "interactive"),
        ("gen_ai.request.model", "gpt-4o"),
    ]);
    assert_eq!(span.fields.get("otel.status_code"), None);
    let (_, admit) = spans.named("weir.admit");
    assert_eq!(admit.parent, Some(request));
    admit.has(&[
        ("weir.decision", "draw"),
        (
            "weir.reserved",
            "openai/gpt-4o/concurrentRequests=1 openai/gpt-4o/requestsPerMinute=1 \
             openai/gpt-4o/tokensPerMinute=24",
        ),
    ]);
    let (_, attempt) = spans.named("weir.attempt");
    assert_eq!(attempt.parent, Some(request));
    attempt.has(&[
        ("otel.kind", "client"),
        ("otel.name", "chat gpt-4o"),
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.max_tokens", "20"),
        ("gen_ai.usage.input_tokens", "4"),
        ("gen_ai.usage.output_tokens", "3"),
        ("server.address", "127.0.0.1"),
    ]);
    let events = attempt.events.join(" ");
    assert!(events.contains("limit seen") && events.contains("first output"), "{events}");
    let all = format!("{:?}", spans.0.lock());
    assert!(!all.contains("Hello, world") && !all.contains("the-application's-key"), "{all}");
}

#[tokio::test]
async fn a_refusal_is_an_error_that_can_be_searched_for() {
    let spans = Spans::default();
    let _subscriber = ::tracing::subscriber::set_default(Registry::default().with(spans.clone()));
    let rig = rig().await;
    rig.allocator.decide(Decision::Deny(Reason::Exhausted, None));
    assert_eq!(rig.client().await.ask(chat()).await.status.as_u16(), 429);
    let (_, span) = spans.named("weir.request");
    span.has(&[
        ("otel.status_code", "ERROR"),
        ("error.type", "exhausted"),
        ("http.response.status_code", "429"),
    ]);
    let (_, admit) = spans.named("weir.admit");
    admit.has(&[("weir.decision", "denied"), ("weir.explain", "the test says so")]);
}
