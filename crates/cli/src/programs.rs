//! The other programs as subcommands: the emulator for people, sidecar and allocator for `weir demo`
//! and `weir run`, which start them as processes of their own.

use std::process::ExitCode;
use std::time::Duration;

use service::signals::{Received, Signals};
use service::telemetry::{self, Format, Options};
use tokio_util::sync::CancellationToken;

use crate::{INTERRUPTED, emulate, parent};

/// For the last spans.
const FLUSH: Duration = Duration::from_secs(2);

/// Serves an emulated provider.
pub(crate) async fn emulator(
    args: emulator::Args,
    signals: Signals,
    with_stdin: bool,
) -> anyhow::Result<ExitCode> {
    let options =
        Options { service_name: "weir-emulator", format: Format::Human, default_filter: "warn" };
    serve(options, signals, with_stdin, async |end| emulate::emulate(args, end.cancelled()).await)
        .await
}

/// Runs a sidecar.
pub(crate) async fn sidecar(
    args: sidecar::Args,
    signals: Signals,
    with_stdin: bool,
) -> anyhow::Result<ExitCode> {
    let options = Options {
        service_name: "weir-sidecar",
        format: args.log_format,
        default_filter: sidecar::LOG_FILTER,
    };
    serve(options, signals, with_stdin, async |end| sidecar::run(args, end.cancelled()).await).await
}

/// Runs an allocator.
pub(crate) async fn allocator(
    args: allocator::Args,
    signals: Signals,
    with_stdin: bool,
) -> anyhow::Result<ExitCode> {
    let options = Options {
        service_name: "weir-allocator",
        format: args.log_format,
        default_filter: allocator::LOG_FILTER,
    };
    serve(options, signals, with_stdin, async |end| allocator::run(args, end.cancelled()).await)
        .await
}

/// Runs `program` with telemetry until it ends, a signal comes, or stdin ends where that is asked for.
async fn serve(
    options: Options,
    mut signals: Signals,
    with_stdin: bool,
    program: impl AsyncFnOnce(CancellationToken) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let telemetry = telemetry::init(&options)?;
    let end = if with_stdin { parent::gone()? } else { CancellationToken::new() };
    let mut running = std::pin::pin!(program(end.clone()));
    // The program is pinned and polled on after a signal; the other arm holds no state.
    let ended = tokio::select! {
        ended = running.as_mut() => ended.map(|()| ExitCode::SUCCESS),
        received = signals.recv() => {
            end.cancel();
            let ended = signals.unless_interrupted(running).await;
            ended.map(|()| match received {
                Received::Interrupt => ExitCode::from(INTERRUPTED),
                Received::Terminate => ExitCode::SUCCESS,
            })
        }
    };
    telemetry.shutdown(FLUSH).await;
    ended
}
