//! The result: figures as they were taken, and a page for people.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bench::machine::Machine;
use crate::bench::process::Memory;

/// The whole result.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) weir: String,
    pub(super) profile: String,
    pub(super) machine: Machine,
    pub(super) sidecars: u32,
    pub(super) quotas: u32,
    /// Requests per second.
    pub(super) budget: u32,
    /// From the start of all sidecars to each one's welcome.
    pub(super) connected: Times,
    pub(super) rest: Rest,
    pub(super) loads: Vec<Load>,
    pub(super) changes: Vec<Change>,
    pub(super) recovery: Recovery,
    /// Of the allocator that took over, at the end.
    pub(super) memory_after: Memory,
}

/// Times over sidecars.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Times {
    /// How many have one.
    sidecars: u32,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// The allocator while nobody asks for anything.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Rest {
    /// Before the first sidecar came.
    pub(super) alone: Memory,
    pub(super) memory: Memory,
    pub(super) per_sidecar_bytes: u64,
    /// Of one core.
    pub(super) cores: f64,
}

/// One load.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Load {
    pub(super) name: String,
    pub(super) active: u32,
    /// Requests per second of each active sidecar.
    pub(super) rate: f64,
    pub(super) admissions: Admissions,
    /// Of the allocator's one core.
    pub(super) cores: f64,
    /// Of the sidecars' cores: at 1 they are the limit.
    pub(super) fleet_cores: f64,
    pub(super) memory: Memory,
}

/// What was admitted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Admissions {
    seconds: f64,
    leased: u64,
    drawn: u64,
    refused: u64,
    sessions_lost: u64,
    classes: Vec<Waits>,
}

/// How long requests of one class waited for credit.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Waits {
    value: i32,
    drawn: u64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// One kind of change, made several times.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Change {
    pub(super) name: String,
    /// From the file's change to each sidecar's having what follows from it.
    pub(super) rounds: Vec<Times>,
}

/// After the allocator was killed, under the last load, and started again.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Recovery {
    welcomed: Times,
    /// From when on every second admits what the budget allows, counted from the kill.
    full_use_ms: Option<u32>,
    /// The worst second before, as a part of the budget.
    worst_second: f64,
    /// Admitted requests by tenths of a second.
    admitted: Vec<u32>,
}

const MIB: f64 = 1024.0 * 1024.0;
/// A budget is in full use if so much of it is used (`leases.md` 6, goal 3).
const FULL_PERCENT: u32 = 97;
const BARS_PER_SECOND: usize = 10;

// === impl Recovery ===

impl Recovery {
    pub(super) fn new(welcomed: Times, admitted: Vec<u32>, budget: u32) -> Recovery {
        let seconds: Vec<u32> =
            admitted.windows(BARS_PER_SECOND).map(|second| second.iter().sum()).collect();
        let is_full = |second: &u32| second * 100 >= budget * FULL_PERCENT;
        let bars = seconds.iter().rposition(|second| !is_full(second)).map_or(0, |last| last + 1);
        let full_use = u32::try_from(bars * 1_000 / BARS_PER_SECOND).ok();
        let full_use_ms = full_use.filter(|_| bars < seconds.len());
        let worst = seconds.iter().min().copied().unwrap_or(0);
        let worst_second = f64::from(worst) / f64::from(budget);
        Recovery { welcomed, full_use_ms, worst_second, admitted }
    }
}

// === impl Report ===

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { weir, profile, machine, sidecars, quotas, budget, .. } = self;
        let Machine { cpu, cores, kernel, load_before } = machine;
        writeln!(
            f,
            "weir {weir} ({profile}), {cpu}, {cores} cores, Linux {kernel}; load per core {load_before:.2}"
        )?;
        writeln!(f, "{sidecars} sidecars, {quotas} LLMQuotas, {budget} requests/s")?;
        writeln!(f, "all connected: {}", self.connected)?;
        let Rest { alone, memory, per_sidecar_bytes, cores } = &self.rest;
        writeln!(
            f,
            "at rest: {:.1} MiB resident ({:.1} before the first came, {:.1} KiB each), {:.1} % of a core",
            memory.resident_bytes as f64 / MIB,
            alone.resident_bytes as f64 / MIB,
            *per_sidecar_bytes as f64 / 1024.0,
            cores * 100.0,
        )?;
        for load in &self.loads {
            write!(f, "{load}")?;
        }
        for change in &self.changes {
            writeln!(f, "change of {}:", change.name)?;
            for round in &change.rounds {
                writeln!(f, "  {round}")?;
            }
        }
        let Recovery { welcomed, full_use_ms, worst_second, .. } = &self.recovery;
        writeln!(f, "killed and started again: {welcomed}")?;
        let full = full_use_ms.map_or("not in time".to_owned(), |ms| format!("after {ms} ms"));
        writeln!(f, "  full use {full}, worst second {:.1} % of the budget", worst_second * 100.0)?;
        writeln!(f, "at the end: {:.1} MiB resident", self.memory_after.resident_bytes as f64 / MIB)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Times { sidecars, p50_ms, p99_ms, max_ms } = self;
        write!(
            f,
            "{sidecars} sidecars, p50 {p50_ms:.0} ms, p99 {p99_ms:.0} ms, last {max_ms:.0} ms"
        )
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Admissions { seconds, leased, drawn, refused, sessions_lost, classes } =
            &self.admissions;
        let per_second = |count: u64| count as f64 / seconds;
        writeln!(
            f,
            "{}: {:.1} % of a core (sidecars {:.1} %), {:.0}/s from leases, {:.0} draws/s ({:.0} per core), \
             {refused} refused, {sessions_lost} sessions lost, {:.1} MiB",
            self.name,
            self.cores * 100.0,
            self.fleet_cores * 100.0,
            per_second(*leased),
            per_second(*drawn),
            per_second(*drawn) / self.cores,
            self.memory.resident_bytes as f64 / MIB,
        )?;
        for Waits { value, drawn, p50_ms, p90_ms, p99_ms, max_ms } in classes {
            writeln!(
                f,
                "  class {value}: {drawn} draws, p50 {p50_ms:.2} ms, p90 {p90_ms:.2}, p99 {p99_ms:.2}, longest {max_ms:.1}"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Recovery, Times};

    #[test]
    fn full_use_begins_where_no_second_after_is_below_the_budget() {
        let welcomed = Times { sidecars: 1, p50_ms: 1.0, p99_ms: 1.0, max_ms: 1.0 };
        let mut admitted = vec![10; 40];
        admitted[5] = 0;
        let recovery = Recovery::new(welcomed.clone(), admitted, 100);
        assert_eq!(recovery.full_use_ms, Some(600));
        assert!((recovery.worst_second - 0.9).abs() < 1e-9);
        assert_eq!(Recovery::new(welcomed, vec![1; 40], 100).full_use_ms, None);
    }
}
