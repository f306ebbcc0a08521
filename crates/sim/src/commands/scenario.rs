//! `sim scenario`: many pods that come and go, requests of LLM sizes, a limit on tokens. What is
//! refused after a wait of 5 s is printed beside what an ideal bucket would refuse of the same.

use serde_json::json;
use sim::world;
use sim::world::options::Options;
use sim::world::trace::Keep;

use crate::Output;
use crate::progress::Progress;

/// Goal 4 of `leases.md` 6, in percent of requests.
const REJECTED_MOST: f64 = 0.2;
/// And beyond the ideal bucket.
const BEYOND_IDEAL_MOST: f64 = 0.1;
/// The goal is about loads up to this one.
const LOAD_MOST: u64 = 70;

#[derive(Debug, clap::Args)]
pub(crate) struct ScenarioArgs {
    /// How many pods.
    #[arg(long, default_value_t = 100)]
    pods: usize,
    /// Demand in percent of the limit.
    #[arg(long, value_delimiter = ',', default_value = "50,60,70,90")]
    load: Vec<u64>,
    /// Of the first run; the next one has the next seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs of ten minutes for each load.
    #[arg(long, default_value_t = 6)]
    runs: u64,
}

/// True if the goal is reached and nothing else is wrong.
pub(crate) fn run(args: &ScenarioArgs, output: Output) -> anyhow::Result<bool> {
    let mut progress = Progress::new("scenario");
    let total = args.load.len() * usize::try_from(args.runs)?;
    let (mut rows, mut good, mut done) = (Vec::new(), true, 0);
    for load in &args.load {
        let (mut offered, mut rejected, mut ideally) = (0, 0, 0);
        for seed in args.seed..args.seed + args.runs {
            let (result, _) = world::run(&Options::scenario(seed, args.pods, *load), Keep::Nothing);
            let outcome = result.map_err(|violation| {
                anyhow::anyhow!("VIOLATION at seed {seed}, load {load}: {violation}")
            })?;
            offered += outcome.offered;
            rejected += outcome.rejected;
            ideally += outcome.rejected_ideally;
            done += 1;
            progress.tell(done, total, "runs");
        }
        progress.end();
        let percent = |part: u64| part as f64 * 100.0 / offered.max(1) as f64;
        let (rejected, ideally) = (percent(rejected), percent(ideally));
        let reached = *load > LOAD_MOST
            || (rejected <= REJECTED_MOST && rejected - ideally <= BEYOND_IDEAL_MOST);
        good &= reached;
        if output == Output::Table {
            println!(
                "scenario: {} pods, load {load:>3} %: {offered:>6} requests, {rejected:.2} % rejected, ideal {ideally:.2} %{}",
                args.pods,
                if reached { "" } else { "  MISSED" },
            );
        }
        rows.push(json!({
            "pods": args.pods,
            "load_percent": load,
            "offered": offered,
            "rejected_percent": rejected,
            "rejected_percent_ideal": ideally,
        }));
    }
    if output == Output::Json {
        println!("{}", json!({ "scenario": rows }));
    }
    Ok(good)
}
