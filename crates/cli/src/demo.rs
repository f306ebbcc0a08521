//! `weir demo`: the three runs, from start to end.
//!
//! Everything that is measured is real: processes of their own, real connections, limits that an
//! emulated provider enforces and counts. Figures of the provider come from its own books, waits from
//! the callers.

mod args;
mod bucket;
mod conduct;
mod fleet;
mod live;
mod pod;
mod record;
mod report;
mod run;
mod scenario;
mod sdk;
mod summary;
mod traffic;
mod truth;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;

pub(crate) use crate::demo::args::Args;
use crate::demo::args::{Limit, Limiter};
use crate::demo::bucket::Bucket;
use crate::demo::fleet::Fleet;
use crate::demo::pod::{Pod, Pricing};
use crate::demo::record::Outcome;
use crate::demo::report::Report;
use crate::demo::run::{Run, Way};
use crate::demo::scenario::{PROVIDER, Scenario};
use crate::demo::traffic::Arrival;
use crate::output::{self, Output};
use crate::progress::Progress;

/// What is left after the warm-up for the bucket to fill again, and for leases to settle.
const REST: Duration = Duration::from_millis(500);

/// A run begins this much after a window, so that no call comes before it: timers wake to the
/// millisecond, and all processes read the same clock.
const AFTER_EDGE: Duration = Duration::from_millis(3);

/// Shows it.
pub(crate) async fn demo(args: Args) -> anyhow::Result<()> {
    let output = args.output;
    let scenario = Scenario::new(args);
    let mut progress = Progress::new();
    raise_open_files();
    progress.say(&format!(
        "Starting 3 emulated providers, an allocator and {} sidecars on this machine.",
        scenario.pods()
    ));
    let mut fleet = Fleet::start(&scenario).await?;
    progress.say(&format!("Watch the budget live: http://{}/", fleet.page()));
    let runs = Way::ALL.map(|way| Run::new(way, pods(&scenario, &fleet, way)));
    warm_up(&scenario, &fleet, &runs, &mut progress).await?;
    let traffic: Arc<[Arrival]> = traffic::draw(&scenario).into();
    progress.say(&format!("Making {} calls in three ways at once.", traffic.len()));
    let measured = conduct::conduct(&scenario, &mut fleet, &runs, &traffic, &mut progress).await?;
    // The calls that are open end with their servers.
    fleet.stop().await;
    let report = Report::new(&scenario, &measured);
    match output {
        Output::Json => output::print_json(&report)?,
        Output::Table => {
            let is_coloured = output::may_colour(&std::io::stdout());
            output::print(&summary::text(&scenario, &report, is_coloured))?;
        }
    }
    Ok(())
}

/// The applications of a run.
fn pods(scenario: &Scenario, fleet: &Fleet, way: Way) -> Vec<Pod> {
    let pricing = match scenario.args.limit {
        Limit::Requests => Pricing::Requests,
        Limit::Tokens => Pricing::Tokens,
    };
    let path = "/v1/chat/completions";
    let count = f64::from(scenario.args.sidecars);
    (0..scenario.pods())
        .map(|pod| match way {
            Way::Direct => Pod::new(fleet.emulators[0].address, path, None, pricing),
            Way::Static => {
                // A window has no burst; a call at a time keeps even its worst minute within it.
                let burst = match scenario.args.limiter {
                    Limiter::TokenBucket => scenario::as_float(scenario.burst()) / count,
                    Limiter::FixedWindow => scenario.cost_per_call,
                };
                let bucket = Bucket::new(scenario.per_second() / count, burst, Instant::now());
                Pod::new(fleet.emulators[1].address, path, Some(bucket), pricing)
            }
            Way::Weir => {
                let path = format!("/{PROVIDER}{path}");
                Pod::new(fleet.sidecars[pod].address, &path, None, pricing)
            }
        })
        .collect()
}

/// Makes one small call from each pod, so that connections stand and leases are there, and waits until
/// the limits are as at a fresh start.
async fn warm_up(
    scenario: &Scenario,
    fleet: &Fleet,
    runs: &[Run; 3],
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let calls = TaskTracker::new();
    let mut outcomes = Vec::new();
    for run in runs {
        for pod in 0..scenario.pods() {
            let (run, started) = (run.clone(), Instant::now());
            outcomes.push(calls.spawn(async move {
                let arrival = traffic::smallest(pod);
                (run.way, run.pods[pod].call(&arrival, started, 0).await)
            }));
        }
    }
    for outcome in outcomes {
        let (way, outcome) = outcome.await.context("a call of the warm-up failed")?;
        if !matches!(outcome, Outcome::Answered { .. }) {
            bail!("the first call of the run `{}` was not answered", way.name());
        }
    }
    match scenario.args.limiter {
        Limiter::TokenBucket => {
            let refill = f64::from(scenario.args.sidecars) * scenario.cost_per_call;
            let refill = Duration::try_from_secs_f64(refill / scenario.per_second())?;
            sleep(REST + refill).await;
        }
        Limiter::FixedWindow if Instant::now() > fleet.window_begins => {
            progress.say("This machine is slow: the run begins in the middle of a window.");
        }
        Limiter::FixedWindow => {
            progress.say("Waiting for the beginning of a window.");
            sleep_until(fleet.window_begins + AFTER_EDGE).await;
        }
    }
    Ok(())
}

/// Each open call of each run has its connection, on both sides of a sidecar.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // What is not granted shows as failed calls, if it is ever needed.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
