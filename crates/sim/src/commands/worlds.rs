//! `sim worlds`: random worlds, each from its own seed. A world that fails is run again to tell its
//! last events.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use serde_json::json;
use sim::world;
use sim::world::options::Options;
use sim::world::outcome::{Outcome, Violation};
use sim::world::trace::Keep;

use crate::Output;
use crate::progress::Progress;

/// Events told of a world that failed.
const EVENTS_TOLD: usize = 60;
/// Worlds told that failed; there may be thousands for one reason.
const FAILURES_TOLD: usize = 5;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WorldsArgs {
    /// Of the first world; the next one has the next seed.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) worlds: u64,
}

/// What came out of many worlds.
#[derive(Default)]
struct Tally {
    worlds: u64,
    events: u64,
    offered: u64,
    admitted: u64,
    rejected: u64,
    refused_by_provider: u64,
    steady: u64,
    used: f64,
    used_ideally: f64,
    failed: Vec<(u64, Violation)>,
}

/// True if nothing went wrong in any.
pub(crate) fn run(args: &WorldsArgs, output: Output) -> anyhow::Result<bool> {
    let mut progress = Progress::new("worlds");
    let total = usize::try_from(args.worlds)?;
    let tally = run_all(args, &mut |done| progress.tell(done, total, "worlds"));
    progress.end();
    match output {
        Output::Table => tally.print(args, progress.elapsed().as_secs_f64()),
        Output::Json => println!("{}", tally.to_json(args)),
    }
    Ok(tally.failed.is_empty())
}

fn run_all(args: &WorldsArgs, told: &mut dyn FnMut(usize)) -> Tally {
    let next = AtomicU64::new(0);
    let (sender, results) = mpsc::channel();
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= args.worlds {
                        return;
                    }
                    let options = Options::draw(args.seed.wrapping_add(index));
                    let (result, _) = world::run(&options, Keep::Nothing);
                    // Nobody listens any more only when the program ends.
                    let _ = sender.send((options, result));
                }
            });
        }
        drop(sender);
        for (done, (options, result)) in results.iter().enumerate() {
            told(done + 1);
            tally.add(&options, result);
        }
    });
    tally.failed.sort_by_key(|(seed, _)| *seed);
    tally
}

// === impl Tally ===

impl Tally {
    fn add(&mut self, options: &Options, result: Result<Outcome, Violation>) {
        self.worlds += 1;
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(violation) => return self.failed.push((options.seed, violation)),
        };
        self.events += outcome.events;
        self.offered += outcome.offered;
        self.admitted += outcome.admitted;
        self.rejected += outcome.rejected;
        self.refused_by_provider += outcome.refused_by_provider;
        if options.steady {
            self.steady += 1;
            self.used += outcome.used;
            self.used_ideally += outcome.used_ideally;
        }
    }

    fn print(&self, args: &WorldsArgs, seconds: f64) {
        let Tally { worlds, events, offered, admitted, rejected, .. } = self;
        println!("worlds: {worlds} from seed {}, {events} events in {seconds:.1} s", args.seed);
        println!("worlds: {offered} requests, {admitted} admitted, {rejected} refused in time");
        if self.steady > 0 {
            let mean = |sum: f64| sum * 100.0 / self.steady as f64;
            println!(
                "worlds: {} overloaded without faults used {:.2} % of the budget, an ideal bucket {:.2} %",
                self.steady,
                mean(self.used),
                mean(self.used_ideally),
            );
        }
        for (seed, violation) in self.failed.iter().take(FAILURES_TOLD) {
            println!("\nVIOLATION in the world of seed {seed}, commit {}: {violation}", commit());
            println!("again: cargo xtask prove --seed {seed} --worlds 1");
            let options = Options::draw(*seed);
            println!("{options:#?}\nits last events:");
            let (_, events) = world::run(&options, Keep::Last(EVENTS_TOLD));
            events.iter().for_each(|event| println!("  {event}"));
        }
        match self.failed.len() {
            0 => println!("worlds: no violation\n"),
            failed => println!("worlds: {failed} FAILED\n"),
        }
    }

    fn to_json(&self, args: &WorldsArgs) -> serde_json::Value {
        let failed = self.failed.iter().map(|(seed, violation)| {
            json!({ "seed": seed, "commit": commit(), "violation": violation.to_string() })
        });
        json!({ "worlds": {
            "seed": args.seed,
            "worlds": self.worlds,
            "events": self.events,
            "offered": self.offered,
            "admitted": self.admitted,
            "rejected": self.rejected,
            "provider_429_not_ours": self.refused_by_provider,
            "steady_worlds": self.steady,
            "steady_used": self.used / self.steady.max(1) as f64,
            "steady_used_ideally": self.used_ideally / self.steady.max(1) as f64,
            "failed": failed.collect::<Vec<_>>(),
        }})
    }
}

/// The commit that runs, if it can be told.
fn commit() -> String {
    let told = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let told = told.ok().filter(|told| told.status.success());
    told.map_or_else(
        || "unknown".to_owned(),
        |told| String::from_utf8_lossy(&told.stdout).trim().to_owned(),
    )
}
