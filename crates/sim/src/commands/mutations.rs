//! `sim mutations`: each rule of the protocol taken away in turn. What the model check does not find
//! then, it would not find in the code either.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;
use sim::model;
use sim::model::mutation::Mutation;
use sim::model::search::Outcome;

use crate::Output;
use crate::progress::Progress;

#[derive(Debug, Default, clap::Args)]
pub(crate) struct MutationsArgs {
    /// Write each counterexample to a file in this directory.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Print each counterexample step by step.
    #[arg(long)]
    explain: bool,
}

/// True if each rule's absence was found.
pub(crate) fn run(args: &MutationsArgs, output: Output) -> anyhow::Result<bool> {
    let mut rows = Vec::new();
    let mut missed = Vec::new();
    for lie in Mutation::ALL {
        let mut progress = Progress::new(&format!("mutations, {}", lie.name()));
        let size = lie.size();
        let found = model::shortest(&size, Some(lie), &mut |so_far: &Outcome| {
            progress.tell(so_far.states, size.states, "states");
        });
        progress.end();
        rows.push(json!({
            "mutation": lie.name(),
            "rule": lie.words(),
            "steps": found.as_ref().map(|found| found.steps.len()),
            "violation": found.as_ref().map(ToString::to_string),
        }));
        let Some(found) = found else {
            missed.push(lie.name());
            continue;
        };
        if output == Output::Table {
            println!(
                "mutations: {:<8} found in {:>2} steps: {}",
                lie.name(),
                found.steps.len(),
                lie.words()
            );
        }
        if args.explain && output == Output::Table {
            println!("\n{found}");
        }
        if let Some(directory) = &args.keep {
            let file = directory.join(format!("{}.txt", lie.name()));
            std::fs::write(&file, found.to_string())
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    match output {
        Output::Json => println!("{}", json!({ "mutations": rows })),
        Output::Table if missed.is_empty() => println!("mutations: all found\n"),
        Output::Table => println!("mutations: NOT FOUND: {}\n", missed.join(", ")),
    }
    Ok(missed.is_empty())
}
