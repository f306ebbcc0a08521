//! What is taken off the leader once a second: for the page, `/state`, gauges and the status of custom
//! resources.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use quota::budget::BudgetId;
use quota::ledger::{BudgetStatus, PodStatus, Status, WorkloadStatus};
use quota::units::{Amount, Rate};

use crate::view::{BudgetView, ClassView, PodView, PolicyView, RefusalView, View, WorkloadView};

/// The leader at one instant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// Since the Unix epoch.
    pub(crate) at: Duration,
    /// Who holds what.
    pub(crate) status: Status,
    /// Draws that wait, by class.
    pub(crate) classes: BTreeMap<String, ClassView>,
    /// The last refusals, the newest first.
    pub(crate) refusals: VecDeque<RefusalView>,
    /// Of the policy in force.
    pub(crate) policy: PolicyView,
}

// === impl Snapshot ===

impl Snapshot {
    /// As people and programs read it.
    pub(crate) fn view(&self) -> View {
        let Status { epoch, learning, budgets, pods, workloads, .. } = &self.status;
        View {
            at_ms: u64::try_from(self.at.as_millis()).unwrap_or(u64::MAX),
            epoch: epoch.0,
            learning: *learning,
            policy: self.policy.clone(),
            budgets: budgets.iter().map(|(id, it)| (id.to_string(), budget(it))).collect(),
            classes: self.classes.clone(),
            workloads: workloads.iter().map(|(id, it)| (id.to_string(), workload(it))).collect(),
            pods: pods.iter().map(|(id, it)| (id.to_string(), pod(it))).collect(),
            pods_in_all: pods.len(),
            refusals: self.refusals.iter().cloned().collect(),
        }
    }
}

fn budget(of: &BudgetStatus) -> BudgetView {
    BudgetView {
        rate_per_second: units(of.effective.micros()),
        leased_per_second: units(of.leased.micros()),
        local_level_caps: units(of.caps.micros()),
        credited: units(of.credited.micros()),
        left: left(of.level),
        used_last_minute: units(of.used_last_minute.micros()),
        waiting: of.waiting,
    }
}

fn workload(of: &WorkloadStatus) -> WorkloadView {
    WorkloadView {
        connected: of.connected,
        waiting: of.waiting,
        refused: of.refused,
        provider_429: of.provider_429,
        leased_per_second: rates(&of.leased),
        used_last_minute: by_budget(&of.used_last_minute, Amount::micros),
    }
}

fn pod(of: &PodStatus) -> PodView {
    PodView {
        quota: of.quota.as_deref().map(str::to_owned),
        connected: of.connected,
        waiting: of.waiting,
        leased_per_second: rates(&of.leased),
    }
}

fn rates(of: &BTreeMap<BudgetId, Rate>) -> BTreeMap<String, f64> {
    by_budget(of, Rate::micros)
}

fn by_budget<T: Copy>(
    of: &BTreeMap<BudgetId, T>,
    micros: impl Fn(T) -> u64,
) -> BTreeMap<String, f64> {
    of.iter().map(|(budget, value)| (budget.to_string(), units(micros(*value)))).collect()
}

/// What nobody holds, in units; below zero is debt.
#[expect(clippy::cast_precision_loss, reason = "for people; fifteen digits are enough")]
fn left(micros: i64) -> f64 {
    micros as f64 / 1e6
}

/// Units from millionths.
#[expect(clippy::cast_precision_loss, reason = "for people; fifteen digits are enough")]
fn units(micros: u64) -> f64 {
    micros as f64 / 1e6
}
