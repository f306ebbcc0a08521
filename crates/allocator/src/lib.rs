//! The central service: splits the rate limits of providers among sidecars.
//!
//! The path of a quota: `policy` (a directory of YAML) or `cluster::source` (watches) -> `leader` (the ledger and the record behind
//! it, owned by `ledger_task`) -> `grpc` -> a sidecar's lease; back: report -> `grpc` -> `leader` ->
//! `snapshot` -> `view` (`/state`, the page) and metrics. All that is granted is decided in `quota::ledger`; this crate
//! gives it time, memory and messages.

pub mod admission;
mod app;
mod args;
mod cluster;
mod config;
mod connection;
mod grpc;
mod history;
mod leader;
mod ledger_task;
mod metrics;
mod page;
mod policy;
mod process;
mod reach;
mod record;
mod refusal;
mod snapshot;
mod state;
mod tls;
pub mod view;

use std::pin::pin;

pub use app::Allocator;
pub use args::{Args, ClusterArgs};

use crate::config::{Config, Place};

/// What is logged unless `WEIR_LOG` says otherwise.
pub const LOG_FILTER: &str = "info";

/// Runs an allocator until `shutdown` is ready, and then drains it. While another allocator works on
/// the same state directory it waits.
///
/// # Errors
///
/// Whatever a person has to put right.
pub async fn run(args: Args, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let config = Config::try_from(args.clone())?;
    let mut shutdown = pin!(shutdown);
    if let Place::Cluster(cluster) = &config.place {
        return Box::pin(cluster::app::run(&config, cluster, shutdown)).await;
    }
    // Nothing is promised to anybody before the start is complete, so it may be dropped halfway.
    let allocator = tokio::select! {
        started = Allocator::start(args) => started?,
        () = &mut shutdown => return Ok(()),
    };
    allocator.serve(shutdown).await
}
