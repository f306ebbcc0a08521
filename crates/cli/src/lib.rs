//! `weir`, the command line: `demo`, `run`, `emulator`, `inject`, `version`, and, hidden, the other
//! programs.
//!
//! It links the sidecar, the allocator and the emulator as libraries, and starts them as processes by
//! executing itself again, so that one build is enough. It decides nothing about quotas, and uses the
//! other crates as anybody could.

mod admin;
mod args;
mod child;
mod demo;
mod emulate;
mod inject;
mod local;
mod output;
mod parent;
mod port;
mod programs;
mod progress;
mod table;
mod version;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use service::signals::Signals;

use crate::args::{Cli, Command};

/// What a shell reports for a command that Ctrl-C ended: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// The whole program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    run(cli).unwrap_or_else(|error| {
        output::tell(&format!("weir: {error:#}"));
        ExitCode::FAILURE
    })
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exit = runtime.block_on(command(cli));
    // Nothing that still runs is worth waiting for.
    runtime.shutdown_background();
    exit
}

async fn command(cli: Cli) -> anyhow::Result<ExitCode> {
    let signals = Signals::listen().context("signals cannot be received")?;
    match cli.command {
        Command::Demo(args) => unless_interrupted(signals, Box::pin(demo::demo(args))).await,
        Command::Run(args) => local::run(args, signals).await,
        Command::Inject(args) => inject::inject(&args).map(|()| ExitCode::SUCCESS),
        Command::Version(args) => version::version(&args).map(|()| ExitCode::SUCCESS),
        Command::Emulator(args) => programs::emulator(*args, signals, cli.exit_with_stdin).await,
        Command::Sidecar(args) => programs::sidecar(*args, signals, cli.exit_with_stdin).await,
        Command::Allocator(args) => programs::allocator(*args, signals, cli.exit_with_stdin).await,
    }
}

/// Drops `work` at a signal, and with it every process that it has started.
async fn unless_interrupted(
    mut signals: Signals,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<ExitCode> {
    // `work` is polled here alone; dropping it is what an interruption means.
    tokio::select! {
        done = work => done.map(|()| ExitCode::SUCCESS),
        _ = signals.recv() => Ok(ExitCode::from(INTERRUPTED)),
    }
}
