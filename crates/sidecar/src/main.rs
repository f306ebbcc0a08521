//! `weir-sidecar`: the per-pod proxy as a program.

use std::time::Duration;

use clap::Parser;
use service::signals::Signals;
use service::telemetry::{self, Options};
use sidecar::{Args, LOG_FILTER};

/// For the last spans; the pod's grace period goes on meanwhile.
const FLUSH: Duration = Duration::from_secs(2);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let format = args.log_format;
    let options = Options { service_name: "weir-sidecar", format, default_filter: LOG_FILTER };
    let telemetry = telemetry::init(&options)?;
    let mut signals = Signals::listen()?;
    let ended = sidecar::run(args, async move {
        signals.recv().await;
    })
    .await;
    telemetry.shutdown(FLUSH).await;
    ended
}
