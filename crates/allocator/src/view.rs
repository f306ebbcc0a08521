//! What the allocator shows: `/state`, the page and `weir top` are this one value. Every figure in it
//! is the one that the ledger decides with; amounts are in units (requests, tokens), rates in units per
//! second.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The allocator at one instant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Of the leader; 0 if this replica does not lead and knows nothing.
    pub epoch: u64,
    /// Pods of the roster whose holdings are not known yet keep it from growing.
    pub learning: bool,
    /// What the policy in force is.
    pub policy: PolicyView,
    /// By the name of the budget.
    pub budgets: BTreeMap<String, BudgetView>,
    /// By the name of the class: those in which something waits.
    pub classes: BTreeMap<String, ClassView>,
    /// By namespace and name of the LLMQuota.
    pub workloads: BTreeMap<String, WorkloadView>,
    /// By namespace and name of the pod.
    pub pods: BTreeMap<String, PodView>,
    /// How many pods there are; [`View::pods`] may be the busiest of them.
    pub pods_in_all: usize,
    /// The last draws that were refused, the newest first.
    pub refusals: Vec<RefusalView>,
}

/// The policy in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    /// Rises with every change.
    pub generation: u64,
    /// Why newer files are not in force.
    pub problems: Vec<String>,
    /// What in it does not do what its author may think.
    pub warnings: Vec<String>,
}

/// One budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BudgetView {
    /// What all together may use.
    pub rate_per_second: f64,
    /// What leases may use.
    pub leased_per_second: f64,
    /// What local levels may hold.
    pub local_level_caps: f64,
    /// Credit that may still be spent.
    pub credited: f64,
    /// What nobody holds; below zero is debt.
    pub left: f64,
    /// What was charged in the last minute.
    pub used_last_minute: f64,
    /// Draws that wait for it.
    pub waiting: usize,
}

/// The draws of one class that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassView {
    /// How many.
    pub waiting: usize,
    /// For how long the first of them has.
    pub oldest_ms: u64,
}

/// All pods of one quota.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkloadView {
    /// Pods whose stream is open.
    pub connected: usize,
    /// Requests that wait at its pods.
    pub waiting: u32,
    /// Requests that its pods have refused since they started.
    pub refused: u64,
    /// 429s that its pods got from providers since they started.
    pub provider_429: u64,
    /// What its pods may accrue, by budget.
    pub leased_per_second: BTreeMap<String, f64>,
    /// What was charged in the last minute, by budget.
    pub used_last_minute: BTreeMap<String, f64>,
}

/// One pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodView {
    /// The LLMQuota that it falls under.
    pub quota: Option<String>,
    /// Its stream is open.
    pub connected: bool,
    /// Requests that wait at the pod.
    pub waiting: u32,
    /// What it may accrue, by budget.
    pub leased_per_second: BTreeMap<String, f64>,
}

/// A draw that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalView {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Whose.
    pub pod: String,
    /// In which class.
    pub class: String,
    /// The label of the reason.
    pub reason: String,
    /// The reason with its figures.
    pub explain: String,
    /// The trace of the call, if it has one.
    pub trace_id: Option<String>,
}

// === impl View ===

impl View {
    /// The same with no more pods than `most`: those that have most waiting, then those that hold most.
    #[must_use]
    pub fn with_busiest(mut self, most: usize) -> View {
        if self.pods.len() <= most {
            return self;
        }
        let held = |pod: &PodView| pod.leased_per_second.values().sum::<f64>();
        let mut pods: Vec<(String, PodView)> = std::mem::take(&mut self.pods).into_iter().collect();
        pods.sort_by(|(_, a), (_, b)| b.waiting.cmp(&a.waiting).then(held(b).total_cmp(&held(a))));
        pods.truncate(most);
        self.pods = pods.into_iter().collect();
        self
    }
}

// === impl BudgetView ===

impl BudgetView {
    /// The part of what a minute brings that was used in the last one; `None` for what does not refill.
    pub fn utilisation(&self) -> Option<f64> {
        let minute = self.rate_per_second * 60.0;
        (minute > 0.0).then(|| self.used_last_minute / minute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_pods_those_are_shown_that_wait_or_hold_most() {
        let pod = |waiting, rate| PodView {
            waiting,
            leased_per_second: BTreeMap::from([("b".to_owned(), rate)]),
            ..PodView::default()
        };
        let pods = [("idle", pod(0, 0.0)), ("holds", pod(0, 9.0)), ("waits", pod(3, 0.0))];
        let pods = pods.map(|(name, pod)| (name.to_owned(), pod)).into();
        let view = View { pods, pods_in_all: 3, ..View::default() }.with_busiest(2);
        assert_eq!(view.pods.keys().collect::<Vec<_>>(), ["holds", "waits"]);
        assert_eq!(view.pods_in_all, 3);
    }
}
