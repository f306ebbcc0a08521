//! The minute that is measured: calls come, figures are watched, things are killed on time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;

use crate::demo::fleet::Fleet;
use crate::demo::live;
use crate::demo::run::{Books, Run};
use crate::demo::scenario::Scenario;
use crate::demo::traffic::Arrival;
use crate::demo::truth::{Span, Truth};
use crate::progress::Progress;

/// All that was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    /// In order; one that is not judged may be among them.
    pub(crate) spans: Vec<Span>,
    /// In the order of `Way::ALL`.
    pub(crate) books: [Books; 3],
    /// Weir's admissions so far, over time.
    pub(crate) history: Vec<(Duration, f64)>,
}

/// How long the allocator stays away once it is killed.
const OUTAGE: Duration = Duration::from_secs(2);

/// Once it is back, it has this long before figures count again.
const EXCUSE: Duration = Duration::from_secs(5);

/// How often figures are asked for.
const TICK: Duration = Duration::from_millis(250);

/// Runs all three runs at once and measures them.
pub(crate) async fn conduct(
    scenario: &Scenario,
    fleet: &mut Fleet,
    runs: &[Run; 3],
    traffic: &Arc<[Arrival]>,
    progress: &mut Progress,
) -> anyhow::Result<Measured> {
    let admins = [0, 1, 2].map(|way| fleet.emulators[way].admin);
    let truth = Truth::new(admins, scenario.dimension());
    truth.begin().await?;
    let started = Instant::now();
    let end = started + scenario.args.duration;
    let calls = TaskTracker::new();
    for run in runs {
        let (run, traffic) = (run.clone(), Arc::clone(traffic));
        calls.spawn(async move { run.make_calls(traffic, started).await });
    }
    let watched = watch(scenario, &truth, runs, started, progress);
    let (history, ()) = tokio::try_join!(watched, trouble(scenario, fleet, runs, &truth, started))?;
    sleep_until(end).await;
    truth.close(true, started.elapsed()).await?;
    let books = [runs[0].books(), runs[1].books(), runs[2].books()];
    progress.clear();
    fleet.check()?;
    Ok(Measured { spans: truth.into_spans(), books, history })
}

/// Shows how things are until the end.
async fn watch(
    scenario: &Scenario,
    truth: &Truth,
    runs: &[Run; 3],
    started: Instant,
    progress: &mut Progress,
) -> anyhow::Result<Vec<(Duration, f64)>> {
    let mut history = Vec::new();
    let end = started + scenario.args.duration;
    while Instant::now() < end {
        let figures = truth.now().await?;
        let elapsed = started.elapsed();
        history.push((elapsed, figures[2].admitted));
        let rows = [0, 1, 2].map(|way| live::Row::new(&runs[way], &figures[way]));
        let block = live::block(scenario, elapsed, &rows, progress.is_coloured());
        progress.show(Instant::now(), &block, || live::line(scenario, elapsed, &rows));
        sleep_until(end.min(Instant::now() + TICK)).await;
    }
    Ok(history)
}

/// Kills what is to be killed in the middle.
async fn trouble(
    scenario: &Scenario,
    fleet: &mut Fleet,
    runs: &[Run; 3],
    truth: &Truth,
    started: Instant,
) -> anyhow::Result<()> {
    let dying = scenario.dying_pods();
    if dying == 0 && !scenario.args.kill_allocator {
        return Ok(());
    }
    sleep_until(started + scenario.middle()).await;
    fleet.kill_sidecars(dying).await?;
    for pod in runs.iter().flat_map(|run| &run.pods[..dying]) {
        pod.kill();
    }
    if scenario.args.kill_allocator {
        truth.close(true, started.elapsed()).await?;
        fleet.restart_allocator(OUTAGE).await?;
        sleep(EXCUSE).await;
        truth.close(false, started.elapsed()).await?;
    }
    Ok(())
}
