//! The project's own commands: `cargo xtask <command>`.
//!
//! Here is what a fresh clone needs beside plain cargo: the whole test run, the house rules that no
//! lint checks, the proofs, the benchmark, and the SDKs that tests use. CI runs `cargo xtask test` and
//! nothing else.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks to a person")]

use std::process::ExitCode;

use clap::Parser;

use crate::workspace::Workspace;

mod bench;
mod chart;
mod cluster;
mod generate;
mod images;
mod prove;
mod sdk;
mod test;
mod tidy;
mod workspace;

/// Commands for people who work on this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Command {
    /// Run every check and every test, as CI does; ends with `N passed, N failed`.
    Test,
    /// Check the house rules that no lint checks.
    Tidy,
    /// Run the model check and the simulator; arguments go to the `sim` program as they are.
    #[command(disable_help_flag = true)]
    Prove {
        /// For example `--seed 7 --worlds 5000`, or `--help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure what the sidecar costs, beside a direct connection and HAProxy; about a minute. Or what an
    /// allocator does for thousands of sidecars.
    Bench(bench::Args),
    /// Write anew what is generated from the sources and committed: the custom resource definitions, the
    /// table of the chart's values, and, where there is a helm, the plain manifests.
    Gen,
    /// A real Kubernetes on this machine, for the tests and to try things out; needs root.
    Cluster(cluster::Args),
    /// Make the container images, without a daemon; archives go to target/images.
    Images(images::Args),
    /// Fetch the SDKs that tests use into the target directory; quick when they are there.
    Sdk,
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    if let Command::Cluster(args) = &command
        && cluster::serve(args)?
    {
        return Ok(ExitCode::SUCCESS);
    }
    let workspace = Workspace::load()?;
    let passed = match command {
        Command::Test => test::run(&workspace)?,
        Command::Tidy => tidy::run(&workspace)?,
        Command::Prove { arguments } => prove::run(&workspace, &arguments)?,
        Command::Bench(args) => {
            bench::run(&workspace, &args)?;
            true
        }
        Command::Cluster(args) => cluster::run(&workspace, args)?,
        Command::Images(args) => {
            images::run(&workspace, &args)?;
            true
        }
        Command::Gen => generate::run(&workspace)?,
        Command::Sdk => {
            sdk::install(&workspace)?;
            true
        }
    };
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
