//! `bench`: what the sidecar costs, in one paired run that a stranger can repeat.
//!
//! The same requests go straight to an emulated provider, through HAProxy and through the sidecar, in
//! turns, so that what the machine does meanwhile falls on all three. How to read the figures is in
//! `docs/benchmarks.md`. Only loopback is used, nothing is installed, and all processes end with the
//! command. It reads `/proc`, so it runs on Linux only.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::bench::footprint::Footprint;
use crate::bench::machine::Machine;
use crate::bench::measure::Measured;
use crate::bench::report::{Report, Versions};
use crate::bench::rig::Rig;
use crate::workspace::{Workspace, output};

mod allocator;
mod client;
mod footprint;
mod machine;
mod measure;
mod process;
mod report;
mod rig;
mod stats;

/// What is measured, how much, and how it is told.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    other: Option<Other>,
    /// In each round the requests go each way, one way after the other.
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(5..=1_000))]
    rounds: u32,
    /// Requests that go one way in one round, and a third as many for streams.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(150..=10_000))]
    requests: u32,
    /// The form of the result.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What is measured instead of the sidecar.
#[derive(Debug, clap::Subcommand)]
enum Other {
    /// Measure one allocator on one core with thousands of sidecars; some six minutes.
    Allocator(allocator::Args),
}

/// The form of the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Table,
    /// One JSON document, for programs.
    Json,
}

/// Builds what is measured, measures it, and prints the result.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> anyhow::Result<()> {
    if let Some(Other::Allocator(args)) = &args.other {
        return allocator::run(workspace, args);
    }
    let haproxy = haproxy_version()?;
    // Before the build, which is a load of its own.
    let machine = Machine::read()?;
    let programs = workspace.target.join("release");
    build(workspace)?;
    let versions = Versions { weir: commit(workspace)?, haproxy };
    tell("starting emulator, HAProxy, allocator and sidecar");
    let rig = Rig::start(&programs, &workspace.target.join("bench"))?;
    let footprint = Footprint::read(&rig, &programs.join("weir-sidecar"))?;
    let measured = Measured::run(&rig, args.rounds, args.requests)?;
    let report = Report::new(versions, machine, footprint, &measured);
    drop(rig);
    match args.output {
        Output::Table => println!("{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(())
}

/// The first line of `haproxy -v`.
fn haproxy_version() -> anyhow::Result<String> {
    let text = output(Command::new("haproxy").arg("-v")).context(
        "the sidecar is measured beside HAProxy, which is not on the path; \
         on Debian and Ubuntu: apt-get install haproxy",
    )?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// The sidecar is built alone: together with others it would get the features that they need of the
/// libraries they share.
fn build(workspace: &Workspace) -> anyhow::Result<()> {
    let others = ["--package=weir", "--package=allocator", "--bins"];
    for what in [&others[..], &["--package=sidecar", "--bin=weir-sidecar"]] {
        tell(&format!("cargo build --release {}", what.join(" ")));
        let mut cargo = workspace.cargo();
        let status = cargo.args(["build", "--release", "--locked"]).args(what).status();
        ensure!(status.context("cargo cannot be started")?.success(), "the build has failed");
    }
    Ok(())
}

/// What was measured; marked with a `+` where files differ from the commit.
fn commit(workspace: &Workspace) -> anyhow::Result<String> {
    let git = |arguments: &[&str]| git(&workspace.root, arguments);
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Ok(format!("{}{}", commit.trim(), if changes.is_empty() { "" } else { "+" }))
}

fn git(root: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    output(Command::new("git").args(arguments).current_dir(root))
}

/// Progress, apart from the data.
fn tell(what: &str) {
    eprintln!("{what}");
}
