//! `sim mutations`: each rule of the protocol taken away in turn. What the model check and the
//! simulator do not find then, they would not find in the code either.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;
use sim::model;
use sim::model::mutation::Mutation;
use sim::model::search::Outcome;
use sim::world;
use sim::world::options::{Lie, Options};
use sim::world::trace::Keep;

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

/// Rule 8 is about levels, which the model does not have.
const RULE_8: &str = "conserve burst: local levels start full";
/// Worlds in which rule 8 is looked for; the first few show it.
const WORLDS_MAX: u64 = 200;

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
    match full_levels() {
        Some((seed, violation)) => {
            rows.push(json!({ "mutation": "rule-8", "rule": RULE_8, "violation": violation }));
            if output == Output::Table {
                println!("mutations: rule-8   found in world {seed}: {RULE_8}");
            }
        }
        None => missed.push("rule-8"),
    }
    match output {
        Output::Json => println!("{}", json!({ "mutations": rows })),
        Output::Table if missed.is_empty() => println!("mutations: all found\n"),
        Output::Table => println!("mutations: NOT FOUND: {}\n", missed.join(", ")),
    }
    Ok(missed.is_empty())
}

/// The first world that goes wrong without rule 8 and not with it.
fn full_levels() -> Option<(u64, String)> {
    (1..=WORLDS_MAX).find_map(|seed| {
        let options = Options::draw(seed);
        let without = Options { lie: Some(Lie::FullLevels), ..options.clone() };
        let violation = world::run(&without, Keep::Nothing).0.err()?;
        world::run(&options, Keep::Nothing).0.ok()?;
        Some((seed, violation.to_string()))
    })
}
