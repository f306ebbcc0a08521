//! What the allocator shows: the figures that it decides with, none computed twice.

use std::collections::BTreeMap;

use super::Ledger;
use crate::budget::BudgetId;
use crate::message::{Epoch, PodId};
use crate::policy::Name;
use crate::time::Time;
use crate::units::{Amount, Rate};

/// Who holds what, and what is left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Of this leader.
    pub epoch: Epoch,
    /// Pods of the roster whose holdings are not known yet keep it from growing.
    pub learning: bool,
    /// Per budget.
    pub budgets: BTreeMap<BudgetId, BudgetStatus>,
    /// Per pod.
    pub pods: BTreeMap<PodId, PodStatus>,
    /// Per workload that has used something lately, or waits.
    pub workloads: BTreeMap<Name, WorkloadStatus>,
    /// Draws that wait.
    pub waiting: usize,
}

/// One workload: all pods of one quota.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadStatus {
    /// Pods whose stream is open.
    pub connected: usize,
    /// Requests that wait at its pods.
    pub waiting: u32,
    /// Requests that its pods have refused since they started.
    pub refused: u64,
    /// 429s that its pods got from providers since they started.
    pub provider_429: u64,
    /// What its pods may accrue.
    pub leased: BTreeMap<BudgetId, Rate>,
    /// What was charged in the last minute.
    pub used_last_minute: BTreeMap<BudgetId, Amount>,
}

/// One budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetStatus {
    /// What all holders together may accrue.
    pub effective: Rate,
    /// What leases may accrue.
    pub leased: Rate,
    /// What local levels may hold.
    pub caps: Amount,
    /// Credit that may still be spent.
    pub credited: Amount,
    /// The central level, in millionths; below zero is debt.
    pub level: i64,
    /// What was charged in the last minute.
    pub used_last_minute: Amount,
    /// Draws that wait for it.
    pub waiting: usize,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodStatus {
    /// Its workload.
    pub quota: Option<Name>,
    /// Its stream is open.
    pub connected: bool,
    /// Requests that wait at the pod.
    pub waiting: u32,
    /// What it may accrue.
    pub leased: BTreeMap<BudgetId, Rate>,
}

pub(super) fn status(now: Time, ledger: &mut Ledger) -> Status {
    let mut waiting: BTreeMap<BudgetId, usize> = BTreeMap::new();
    for ((_, _, budget), of) in ledger.queue.waiting() {
        *waiting.entry(budget).or_default() += of.count;
    }
    let mut budgets = BTreeMap::new();
    for (budget, central) in ledger.centre.iter_mut() {
        let status = BudgetStatus {
            effective: central.capacity().rate,
            leased: ledger.accounts.charge(now, budget),
            caps: ledger.accounts.caps(now, budget),
            credited: central.outstanding(),
            level: central.level(),
            used_last_minute: central.used_last_minute(now),
            waiting: waiting.get(budget).copied().unwrap_or(0),
        };
        budgets.insert(budget.clone(), status);
    }
    let workloads = workloads(now, ledger);
    let pods = ledger.sessions.iter().map(|(pod, session)| {
        let leased = session
            .terms
            .keys()
            .map(|budget| (budget.clone(), ledger.accounts.charge_of(now, pod, budget).0));
        let status = PodStatus {
            quota: session.flow.clone(),
            connected: session.connected,
            waiting: session.waiting,
            leased: leased.collect(),
        };
        (pod.clone(), status)
    });
    Status {
        epoch: ledger.accounts.epoch(),
        learning: ledger.accounts.learning(now),
        budgets,
        pods: pods.collect(),
        workloads,
        waiting: ledger.queue.len(),
    }
}

fn workloads(now: Time, ledger: &mut Ledger) -> BTreeMap<Name, WorkloadStatus> {
    let mut workloads: BTreeMap<Name, WorkloadStatus> = BTreeMap::new();
    for (pod, session) in &ledger.sessions {
        let Some(flow) = &session.flow else { continue };
        let workload = workloads.entry(flow.clone()).or_default();
        workload.connected += usize::from(session.connected);
        workload.waiting += session.waiting;
        workload.refused += session.refused;
        workload.provider_429 += session.provider_429;
        for budget in session.terms.keys() {
            let leased = ledger.accounts.charge_of(now, pod, budget).0;
            *workload.leased.entry(budget.clone()).or_default() += leased;
        }
    }
    for (flow, used) in &mut ledger.used {
        let workload = workloads.entry(flow.clone()).or_default();
        for (budget, recent) in used {
            workload.used_last_minute.insert(budget.clone(), recent.sum(now));
        }
    }
    workloads
}
