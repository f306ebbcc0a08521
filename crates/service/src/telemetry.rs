//! Logs to stderr, and traces by OTLP where a collector is named.
//!
//! Every `main` calls [`init`] once and [`Telemetry::shutdown`] last. Logs and traces are apart: the
//! log filter does not touch traces, and without a collector no span exists at all, so that a request
//! pays one atomic load for each. An export never delays a request: ended spans go through a bounded
//! queue (`OTEL_BSP_MAX_QUEUE_SIZE`, 2048 unless set) to a thread of its own, and what does not fit is
//! dropped.
//!
//! The variables of OpenTelemetry are honoured by the SDK (`OTEL_SERVICE_NAME`,
//! `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`, `OTEL_BSP_*`, `OTEL_EXPORTER_OTLP_*`); read here
//! are those that say whether to export at all. The protocol is OTLP over gRPC. Prompts, completions
//! and keys belong in no span and no log; no code here could take them out again.

use std::io::{self, IsTerminal};
use std::str::FromStr;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracerProvider};
use tracing::{Dispatch, Subscriber, info, warn};
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::telemetry::exporter::Exporter;

mod exporter;

/// Filters of the log, in the order in which they are looked up.
const LOG_VARIABLES: [&str; 2] = ["WEIR_LOG", "RUST_LOG"];

/// Endpoints of the collector, in the order in which they are looked up; none set means no export.
const ENDPOINT_VARIABLES: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Libraries below the exporter and the proxy. Their spans explain nothing to a user, and those of the
/// exporter's own connection would be exported in turn.
const SILENT_IN_TRACES: [&str; 7] =
    ["h2", "hyper", "hyper_util", "opentelemetry", "rustls", "tonic", "tower"];

/// How a program wants its telemetry.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The name of the program in traces, unless `OTEL_SERVICE_NAME` says another.
    pub service_name: &'static str,
    /// How log lines look.
    pub format: Format,
    /// What is logged where neither `WEIR_LOG` nor `RUST_LOG` is set, in their own syntax.
    pub default_filter: &'static str,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One line of text, in colour on a terminal.
    #[default]
    Human,
    /// One JSON object to a line.
    Json,
}

/// Keeps the exporter; `main` holds it and shuts it down last.
#[must_use = "spans that are not flushed are lost"]
#[derive(Debug)]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log filter cannot be read.
    #[error("{variable} is no log filter")]
    Filter {
        /// Where it came from.
        variable: &'static str,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The exporter cannot be made, mostly because the endpoint is no URL.
    #[error("traces cannot be exported to {endpoint}")]
    Exporter {
        /// The collector's address as it was given.
        endpoint: String,
        /// What is wrong with it.
        source: ExporterBuildError,
    },
    /// Something else has installed a subscriber.
    #[error("telemetry was started before")]
    AlreadyStarted(#[source] TryInitError),
}

/// Starts logging and, where the environment names a collector, the export of traces.
///
/// To be called within the runtime: the exporter's connection is driven by it.
pub fn init(options: &Options) -> Result<Telemetry, Error> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let endpoint = endpoint(variable);
    let (telemetry, traces) = match &endpoint {
        Some(endpoint) => {
            let telemetry = Telemetry::exporting(options.service_name, endpoint)?;
            let layer = telemetry.layer(options.service_name);
            (telemetry, layer)
        }
        None => (Telemetry { provider: None }, None),
    };
    let filter = log_filter(options, variable)?;
    dispatch(options, traces, filter).try_init().map_err(Error::AlreadyStarted)?;
    if let Some(endpoint) = endpoint {
        info!(endpoint, "exporting traces");
        if let Some(protocol) = variable("OTEL_EXPORTER_OTLP_PROTOCOL").filter(|it| it != "grpc") {
            warn!(
                protocol,
                "traces are exported over gRPC only; the protocol asked for is ignored"
            );
        }
    }
    Ok(telemetry)
}

// === impl Format ===

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Format, String> {
        match name {
            "human" => Ok(Format::Human),
            "json" => Ok(Format::Json),
            other => Err(format!("`{other}` is neither `human` nor `json`")),
        }
    }
}

// === impl Telemetry ===

impl Telemetry {
    /// True if spans are exported.
    pub fn is_exporting(&self) -> bool {
        self.provider.is_some()
    }

    /// Exports what has ended, waiting at most `limit` for the collector. What is left then is lost.
    pub async fn shutdown(self, limit: Duration) {
        let Some(provider) = self.provider else { return };
        // The exporter's thread needs this runtime to send, so no worker of it may block.
        let flush = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(limit));
        match flush.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the last traces were not exported"),
            Err(error) => warn!(%error, "the last traces were not exported"),
        }
    }

    fn exporting(service_name: &'static str, endpoint: &str) -> Result<Telemetry, Error> {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .map_err(|source| Error::Exporter { endpoint: endpoint.to_owned(), source })?;
        let processor = BatchSpanProcessor::builder(Exporter::new(exporter)).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_resource(resource(service_name))
            .build();
        Ok(Telemetry { provider: Some(provider) })
    }

    fn layer<S>(&self, service_name: &'static str) -> Option<Box<dyn Layer<S> + Send + Sync>>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let tracer = self.provider.as_ref()?.tracer(service_name);
        let silent = SILENT_IN_TRACES.map(|library| (library, LevelFilter::OFF));
        let filter = Targets::new().with_default(LevelFilter::INFO).with_targets(silent);
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            // Code locations and threads are for whoever debugs this program, not for its users.
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter);
        Some(layer.boxed())
    }
}

/// Puts the layers together. An absent layer must not stand in for absent traces: it wants to see
/// every callsite, so that each span and event of each library would be asked about at run time, and
/// made.
fn dispatch(
    options: &Options,
    traces: Option<Box<dyn Layer<Registry> + Send + Sync>>,
    filter: EnvFilter,
) -> Dispatch {
    match traces {
        Some(traces) => Registry::default().with(traces).with(log_layer(options, filter)).into(),
        None => Registry::default().with(log_layer(options, filter)).into(),
    }
}

fn log_layer<S>(options: &Options, filter: EnvFilter) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    // Log lines carry their own fields. If they took those of spans, spans would have to exist.
    let filter = filter.and(filter_fn(|metadata| !metadata.is_span()));
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match options.format {
        Format::Human => layer.with_filter(filter).boxed(),
        Format::Json => layer.json().flatten_event(true).with_filter(filter).boxed(),
    }
}

fn log_filter(
    options: &Options,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<EnvFilter, Error> {
    let set = LOG_VARIABLES.iter().find_map(|&name| Some((name, variable(name)?)));
    let (variable, filter) =
        set.unwrap_or_else(|| ("the default filter", options.default_filter.to_owned()));
    EnvFilter::builder().parse(filter).map_err(|source| Error::Filter { variable, source })
}

/// The collector's address, if traces are to be exported.
fn endpoint(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true"))
        || variable("OTEL_TRACES_EXPORTER").is_some_and(|it| it == "none");
    if disabled {
        return None;
    }
    ENDPOINT_VARIABLES.iter().find_map(|&name| variable(name))
}

/// What the SDK reads from the environment, with our own name where the environment has none.
fn resource(service_name: &'static str) -> Resource {
    let detected = Resource::builder().build();
    let name = detected.get(&"service.name".into()).map(|name| name.to_string());
    match name {
        Some(name) if !name.starts_with("unknown_service") => detected,
        _ => Resource::builder().with_service_name(service_name).build(),
    }
}

#[cfg(test)]
mod tests;
