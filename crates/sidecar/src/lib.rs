//! The per-pod proxy: holds a pod's LLM traffic within its quota.
//!
//! A request goes `listener -> route -> admit -> upstream -> meter` (`proxy` reads top to bottom).
//! Beside the path, `lease` keeps the stream to the allocator; both meet in `gate`, around the
//! decisions of `quota::holder`. The sidecar never talks to Kubernetes, and a request that fits its
//! lease never waits for the allocator.

mod admit;
mod app;
mod args;
mod config;
mod gate;
mod headers;
mod lease;
mod listener;
mod meter;
mod metrics;
mod policy;
mod proxy;
mod record;
mod route;
mod spans;
mod upstream;

pub use app::Sidecar;
pub use args::Args;

/// What is logged unless `WEIR_LOG` says otherwise: `access=info` is a line per request, `trace` are
/// the events of spans.
pub const LOG_FILTER: &str = "info,access=off,trace=off";

/// Runs a sidecar until `shutdown` is ready, and then drains it.
pub async fn run(args: Args, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    Sidecar::bind(args).await?.serve(shutdown).await
}
