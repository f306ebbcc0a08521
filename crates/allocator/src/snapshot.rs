//! What the allocator shows as `/state` and in its gauges: taken once a second by the ledger's task, read
//! by whoever asks.

use std::collections::BTreeMap;

use quota::ledger::Status;
use serde_json::{Value, json};

/// The allocator at one instant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// Who holds what.
    pub(crate) status: Status,
    /// Draws that wait, by class.
    pub(crate) waiting: BTreeMap<String, usize>,
    /// Of the policy in force.
    pub(crate) generation: u64,
    /// What in the policy does not do what its author may think.
    pub(crate) warnings: Vec<String>,
    /// Why the files that are there now are not in force.
    pub(crate) problems: Vec<String>,
}

// === impl Snapshot ===

impl Snapshot {
    /// As a person or a program reads it: amounts in units, rates in units per second.
    pub(crate) fn to_json(&self) -> String {
        let status = &self.status;
        let budgets = status.budgets.iter().map(|(budget, it)| {
            let figures = json!({
                "rate_per_second": units(it.effective.micros()),
                "leased_per_second": units(it.leased.micros()),
                "local_level_caps": units(it.caps.micros()),
                "credited": units(it.credited.micros()),
                "left": left(it.level),
                "used_last_minute": units(it.used_last_minute.micros()),
                "waiting": it.waiting,
            });
            (budget.to_string(), figures)
        });
        let pods = status.pods.iter().map(|(pod, it)| {
            let leased = it.leased.iter();
            let leased: BTreeMap<String, Value> =
                leased.map(|(budget, rate)| (budget.to_string(), units(rate.micros()))).collect();
            let figures = json!({
                "quota": it.quota.as_deref(),
                "connected": it.connected,
                "waiting": it.waiting,
                "leased_per_second": leased,
            });
            (pod.to_string(), figures)
        });
        let state = json!({
            "epoch": status.epoch.0,
            "learning": status.learning,
            "policy": {
                "generation": self.generation,
                "problems": self.problems,
                "warnings": self.warnings,
            },
            "budgets": budgets.collect::<BTreeMap<_, _>>(),
            "pods": pods.collect::<BTreeMap<_, _>>(),
            "draws_waiting": self.waiting,
        });
        format!("{state:#}\n")
    }
}

/// What nobody holds, in units; below zero is debt.
#[expect(clippy::cast_precision_loss, reason = "for people; fifteen digits are enough")]
fn left(micros: i64) -> Value {
    json!(micros as f64 / 1e6)
}

/// Units from millionths.
#[expect(clippy::cast_precision_loss, reason = "for people; fifteen digits are enough")]
fn units(micros: u64) -> Value {
    json!(micros as f64 / 1e6)
}
