//! `sim`: the proofs, for people and for `cargo xtask prove`. Without a command it runs what CI runs.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks to a person")]

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

mod commands;
mod progress;

/// Check the lease protocol in every state of small worlds, and in thousands of random large ones.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    worlds: commands::worlds::WorldsArgs,
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Explore every state of small worlds with all rules in force; about a minute.
    Model(commands::model::ModelArgs),
    /// Take each rule away in turn: the model check must find what goes wrong.
    Mutations(commands::mutations::MutationsArgs),
    /// Run one world twice: what happens must be the same, to the byte.
    Meta(commands::meta::MetaArgs),
    /// Run the scenario that rate splitting fails: many pods, requests of LLM sizes, half the load.
    Scenario(commands::scenario::ScenarioArgs),
    /// Run random worlds of pods, allocators and a provider.
    Worlds(commands::worlds::WorldsArgs),
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs: one object.
    Json,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// True if nothing is wrong.
fn run(args: &Args) -> anyhow::Result<bool> {
    match &args.command {
        Some(Command::Model(of)) => commands::model::run(of, args.output),
        Some(Command::Mutations(of)) => commands::mutations::run(of, args.output),
        Some(Command::Meta(of)) => Ok(commands::meta::run(of)),
        Some(Command::Scenario(of)) => commands::scenario::run(of, args.output),
        Some(Command::Worlds(of)) => commands::worlds::run(of, args.output),
        None => {
            let model = commands::model::run(&commands::model::ModelArgs::default(), args.output)?;
            let mutations = commands::mutations::MutationsArgs::default();
            let mutations = commands::mutations::run(&mutations, args.output)?;
            let worlds = commands::worlds::run(&args.worlds, args.output)?;
            Ok(model && mutations && worlds)
        }
    }
}
