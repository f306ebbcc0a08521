//! The command line: what there is, and what a newcomer reads about it.

use clap::{Parser, Subcommand};

use crate::{demo, inject, local, version};

/// Keeps applications inside the rate limits of LLM providers, and keeps the paid-for budget in use.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version = service::build::version(),
    after_help = AFTER,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    /// End when stdin ends: given to programs that `weir` itself starts.
    #[arg(long, hide = true)]
    pub(crate) exit_with_stdin: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One of them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(demo::Args),
    Run(local::Args),
    #[command(after_help = EMULATOR_EXAMPLES)]
    Emulator(Box<emulator::Args>),
    Inject(Box<inject::Args>),
    Version(version::Args),
    /// One sidecar, as `weir-sidecar`.
    #[command(hide = true)]
    Sidecar(Box<sidecar::Args>),
    /// One allocator, as `weir-allocator`.
    #[command(hide = true)]
    Allocator(Box<allocator::Args>),
}

const AFTER: &str = "\
Start here:
  weir demo                 three ways to one rate limit, side by side, in about a minute
  weir run --policy DIR     Weir in front of a real provider, on this machine
  weir emulator --rpm 60    a provider to test your own application against
  weir inject -f app.yaml   Weir's sidecar in manifests, for clusters without its webhook

Exit codes: 0 done, 1 failed, 2 the command line makes no sense, 130 interrupted.
Data goes to stdout, everything else to stderr. NO_COLOR is honoured.";

const EMULATOR_EXAMPLES: &str = "\
Examples:
  weir emulator                              OpenAI and Anthropic with the limits of a small account
  weir emulator --rpm 60 --burst-percent 10  60 requests a minute, 6 at once
  weir emulator --tpm 100000 --limiter FixedWindow
  curl http://127.0.0.1:7431/__emu/state     what was charged and refused";
