//! Telemetry against a collector that is there, and one that is not.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{dispatcher, info_span, subscriber};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;

use super::{Format, Options, Telemetry, dispatch, endpoint, log_filter};
use crate::trace_context;

const OPTIONS: Options =
    Options { service_name: "weir-test", format: Format::Human, default_filter: "info" };

const LIMIT: Duration = Duration::from_secs(5);

const EXPORT_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

type Export = (String, Bytes);

type Variables<'a> = &'a [(&'a str, &'a str)];

fn variables(set: Variables<'_>) -> impl Fn(&str) -> Option<String> {
    let set: BTreeMap<String, String> =
        set.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    move |name| set.get(name).cloned()
}

/// A collector as far as OTLP over gRPC needs one: it hands on path and bytes of each export.
async fn collect(listener: TcpListener, exports: mpsc::UnboundedSender<Export>) {
    let (stream, _) = listener.accept().await.unwrap();
    let handle = |request: Request<Incoming>| {
        let exports = exports.clone();
        async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            exports.send((path, body)).unwrap();
            let status = HeaderMap::from_iter([(
                "grpc-status".parse().unwrap(),
                HeaderValue::from_static("0"),
            )]);
            // An empty message: not compressed, no bytes.
            let message = Full::new(Bytes::from_static(&[0; 5]));
            let body = message.with_trailers(std::future::ready(Some(Ok(status))));
            let response = Response::builder().header("content-type", "application/grpc");
            Ok::<_, Infallible>(response.body(body).unwrap())
        }
    };
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service_fn(handle));
    // The exporter closes its connection when it likes.
    let _ = connection.await;
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test]
async fn a_span_reaches_the_collector_in_the_trace_of_its_caller() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, mut exports) = mpsc::unbounded_channel();
    let tasks = TaskTracker::new();
    tasks.spawn(collect(listener, sender));

    let telemetry = Telemetry::exporting("weir-test", &endpoint).unwrap();
    assert!(telemetry.is_exporting());
    let subscriber = Registry::default().with(telemetry.layer("weir-test"));
    let mut onward = HeaderMap::new();
    subscriber::with_default(subscriber, || {
        let incoming =
            HeaderMap::from_iter([("traceparent".parse().unwrap(), TRACEPARENT.parse().unwrap())]);
        let span = info_span!("weir.test_request");
        trace_context::continue_from(&span, &incoming);
        trace_context::inject(&span, &mut onward);
        let _ours = span.enter();
        let _below = info_span!(target: "h2::proto", "of_a_library").entered();
    });
    telemetry.shutdown(LIMIT).await;

    let (path, body) = exports.recv().await.unwrap();
    assert_eq!(path, EXPORT_PATH);
    assert!(contains(&body, b"weir.test_request"));
    assert!(contains(&body, b"weir-test"));
    assert!(!contains(&body, b"of_a_library"));
    let onward = onward["traceparent"].to_str().unwrap();
    assert!(onward.starts_with(&TRACEPARENT[..36]), "{onward} is in another trace");
    assert_ne!(onward, TRACEPARENT, "the span itself is the parent of what follows");
}

#[tokio::test]
async fn a_collector_that_is_away_costs_no_more_than_the_limit_at_the_end() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let telemetry = Telemetry::exporting("weir-test", &endpoint).unwrap();
    subscriber::with_default(Registry::default().with(telemetry.layer("weir-test")), || {
        drop(info_span!("lost").entered());
    });
    let start = Instant::now();
    telemetry.shutdown(Duration::from_millis(100)).await;
    assert!(start.elapsed() < LIMIT);
}

#[test]
fn without_a_collector_no_span_exists_and_headers_stay_as_they_came() {
    let filter = log_filter(&OPTIONS, variables(&[])).unwrap();
    dispatcher::with_default(&dispatch(&OPTIONS, None, filter), || {
        let span = info_span!("weir.request");
        assert!(span.is_disabled());
        assert!(tracing::enabled!(tracing::Level::INFO));
        let mut headers = HeaderMap::new();
        trace_context::continue_from(&span, &headers);
        trace_context::inject(&span, &mut headers);
        assert!(headers.is_empty());
    });
}

#[tokio::test]
async fn an_endpoint_may_use_tls_and_one_that_is_no_url_is_named() {
    assert!(Telemetry::exporting("weir-test", "https://collector:4317").is_ok());
    let error = Telemetry::exporting("weir-test", "http://[").unwrap_err();
    assert_eq!(error.to_string(), "traces cannot be exported to http://[");
}

#[test]
fn traces_are_exported_only_where_a_collector_is_named() {
    let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4317");
    let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4317");
    let cases: [(Variables<'_>, Option<&str>); 6] = [
        (&[], None),
        (&[general], Some(general.1)),
        (&[general, traces], Some(traces.1)),
        (&[general, ("OTEL_SDK_DISABLED", "TRUE")], None),
        (&[general, ("OTEL_TRACES_EXPORTER", "none")], None),
        (&[general, ("OTEL_TRACES_EXPORTER", "otlp")], Some(general.1)),
    ];
    for (set, expected) in cases {
        assert_eq!(endpoint(variables(set)).as_deref(), expected, "{set:?}");
    }
}

#[test]
fn the_log_filter_is_ours_then_rusts_then_the_default() {
    let ours = ("WEIR_LOG", "debug");
    let rusts = ("RUST_LOG", "warn");
    let cases: [(Variables<'_>, &str); 4] =
        [(&[], "info"), (&[rusts], "warn"), (&[ours, rusts], "debug"), (&[ours], "debug")];
    for (set, expected) in cases {
        assert_eq!(log_filter(&OPTIONS, variables(set)).unwrap().to_string(), expected, "{set:?}");
    }
    let error = log_filter(&OPTIONS, variables(&[("WEIR_LOG", "sidecar=loud")])).unwrap_err();
    assert_eq!(error.to_string(), "WEIR_LOG is no log filter");
}

#[test]
fn a_format_is_read_by_its_name() {
    assert_eq!("human".parse(), Ok(Format::Human));
    assert_eq!("json".parse(), Ok(Format::Json));
    assert!("xml".parse::<Format>().unwrap_err().contains("`xml`"));
}
