//! `weir-allocator`: the central service as a program.

use std::time::Duration;

use allocator::{Args, LOG_FILTER};
use clap::Parser;
use service::signals::Signals;
use service::telemetry::{self, Options};

/// For the last spans; a supervisor's grace period goes on meanwhile.
const FLUSH: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let format = args.log_format;
    let options = Options { service_name: "weir-allocator", format, default_filter: LOG_FILTER };
    let telemetry = telemetry::init(&options)?;
    let mut signals = Signals::listen()?;
    let ended = allocator::run(args, async move {
        signals.recv().await;
    })
    .await;
    telemetry.shutdown(FLUSH).await;
    ended
}
