//! `sim model`: every state of small worlds, with all rules in force.

use serde_json::json;
use sim::model;
use sim::model::counterexample::Counterexample;
use sim::model::search::Outcome;
use sim::model::size::Size;

use crate::Output;
use crate::progress::Progress;

#[derive(Debug, Default, clap::Args)]
pub(crate) struct ModelArgs {
    /// Explore larger worlds: hundreds of millions of states, hours, and memory to match.
    #[arg(long)]
    deep: bool,
    /// Only the world of this name.
    #[arg(long)]
    world: Option<String>,
}

/// True if no world has a violation.
pub(crate) fn run(args: &ModelArgs, output: Output) -> anyhow::Result<bool> {
    let sizes = if args.deep { Size::deep() } else { Size::ALL };
    let chosen: Vec<Size> = sizes
        .into_iter()
        .filter(|size| args.world.as_ref().is_none_or(|name| *name == size.name))
        .collect();
    anyhow::ensure!(!chosen.is_empty(), "there is no such world; see `sim model` for their names");
    let mut rows = Vec::new();
    let mut found = Vec::new();
    for size in &chosen {
        let mut progress = Progress::new(&format!("model, {}", size.name));
        let (outcome, violation) = model::check(size, &mut |so_far: &Outcome| {
            progress.tell(so_far.states, size.states, "states");
        });
        progress.end();
        if output == Output::Table {
            row(size, &outcome, violation.as_ref(), &progress);
        }
        rows.push(json!({
            "world": size.name,
            "states": outcome.states,
            "steps": outcome.steps,
            "depth": outcome.depth,
            "seconds": progress.elapsed().as_secs_f64(),
            "violation": violation.as_ref().map(ToString::to_string),
        }));
        found.extend(violation);
    }
    match output {
        Output::Json => println!("{}", json!({ "model": rows })),
        Output::Table if found.is_empty() => println!("model: no violation\n"),
        Output::Table => found.iter().for_each(|violation| println!("\n{violation}")),
    }
    Ok(found.is_empty())
}

fn row(size: &Size, outcome: &Outcome, violation: Option<&Counterexample>, progress: &Progress) {
    println!(
        "model: {:<14} {:>11} states {:>11} steps {:>6.1} s  {}",
        size.name,
        outcome.states,
        outcome.steps,
        progress.elapsed().as_secs_f64(),
        if violation.is_some() { "VIOLATED" } else { "safe" },
    );
}
