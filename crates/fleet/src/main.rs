//! `weir-fleet`: thousands of sidecars in one process, for `cargo xtask bench allocator`.
//!
//! Each has the holder that a sidecar has and a connection of its own; what is not here is everything
//! in front of it: no application, no provider. Requests are made up by [`load`], and their ends too.
//! It is told what to do by lines on its standard input, and answers each with one line of JSON. The
//! figures are counted here, on one clock; the allocator's memory and CPU are whoever's who started it.

#![expect(clippy::print_stdout, reason = "a command speaks to its caller")]

use std::io::BufRead as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use http::Uri;
use quota::time::Time;
use serde_json::{Value, json};
use service::clock::boottime_nanos;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use crate::figures::Figures;
use crate::load::Load;
use crate::pod::Pod;

mod figures;
mod load;
mod pod;
mod stream;

/// Thousands of sidecars in one process.
#[derive(Debug, Parser)]
struct Args {
    /// Where the allocator serves, without TLS.
    #[arg(long)]
    allocator: Uri,
    /// How many.
    #[arg(long)]
    sidecars: usize,
    /// Pods of one workload: the first so many have the label `app: app-0`, the next `app: app-1`.
    #[arg(long, default_value_t = 5)]
    pods_per_quota: usize,
    /// Workloads of one namespace: `team-0`, `team-1` and so on.
    #[arg(long, default_value_t = 10)]
    quotas_per_namespace: usize,
}

/// How often it is looked whether what is waited for has happened.
const LOOK: Duration = Duration::from_millis(5);

/// This instant.
pub(crate) fn now() -> Time {
    Time::from_nanos(boottime_nanos())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    open_many_files();
    let figures = Arc::new(Figures::new(now(), args.sidecars));
    let (load, watched) = watch::channel(Load::default());
    let pods = TaskTracker::new();
    for number in 0..args.sidecars {
        let quota = number / args.pods_per_quota;
        let (team, app) = (quota / args.quotas_per_namespace, quota % args.quotas_per_namespace);
        let pod = Pod::new(number, format!("team-{team}"), format!("app-{app}"), &figures);
        pods.spawn(pod.run(args.allocator.clone(), watched.clone()));
    }
    let mut lines = lines();
    while let Some(line) = lines.recv().await {
        let answer = obey(&line, &figures, &load).await.with_context(|| line.clone())?;
        println!("{answer}");
    }
    Ok(())
}

/// Does what a line says.
async fn obey(line: &str, figures: &Figures, load: &watch::Sender<Load>) -> anyhow::Result<Value> {
    let words: Vec<&str> = line.split_whitespace().collect();
    Ok(match words[..] {
        // Counts from now on.
        ["mark"] => {
            figures.mark(now());
            json!({})
        }
        // So many of the sidecars make so many requests per second each.
        ["load", active, rate] => {
            load.send_replace(Load::new(active.parse()?, figures.sidecars(), rate.parse()?));
            json!({})
        }
        // Until all sidecars have been welcomed since the mark.
        ["welcomed", seconds] => {
            let patience = Duration::from_secs(seconds.parse()?);
            until(patience, || figures.all_welcome()).await;
            serde_json::to_value(figures.welcomed())?
        }
        // What happens in so many seconds.
        ["measure", seconds] => {
            figures.mark(now());
            sleep(Duration::from_secs(seconds.parse()?)).await;
            serde_json::to_value(figures.admissions(now()))?
        }
        // What was admitted since the mark, once so many seconds have passed.
        ["series", seconds] => {
            let end = figures.marked_at() + Duration::from_secs(seconds.parse()?);
            sleep(end.since(now())).await;
            serde_json::to_value(figures.series())?
        }
        // One file takes the place of another: until so many sidecars have a policy that follows.
        ["replace", from, to, sidecars, seconds] => {
            let (before, sidecars) = (figures.newest_policy(), sidecars.parse()?);
            let start = now();
            std::fs::rename(from, to)?;
            let patience = Duration::from_secs(seconds.parse()?);
            until(patience, || figures.newer(before) >= sidecars).await;
            serde_json::to_value(figures.policies(start, before))?
        }
        _ => anyhow::bail!("no such command"),
    })
}

async fn until(patience: Duration, mut happened: impl FnMut() -> bool) {
    let end = now() + patience;
    while !happened() && now() < end {
        sleep(LOOK).await;
    }
}

/// The lines of standard input, as they come.
fn lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A connection each takes a file each.
fn open_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it may not be raised, the dials that fail will tell.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
