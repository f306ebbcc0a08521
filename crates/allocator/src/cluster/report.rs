//! What the kinds' status says, from what the ledger decides with. Pure: no clock, no request.

use std::collections::BTreeMap;

use crds::problem::{Problem, Reason};
use crds::status::{BudgetUse, DEGRADED, OVERCOMMITTED, READY, THROTTLED};
use quota::budget::{Budget, BudgetId, Kind};
use quota::ledger::{Status, WorkloadStatus};
use quota::policy::{Name, Policy, Provider, Quota};
use quota::units::{Amount, Rate};

use crate::cluster::condition::Finding;

/// All that a status is made of.
pub(crate) struct Facts<'a> {
    pub(crate) policy: &'a Policy,
    /// Of objects that are in force in part.
    pub(crate) warnings: &'a [Problem],
    /// Of objects that are not in force.
    pub(crate) errors: &'a [Problem],
    pub(crate) ledger: &'a Status,
    /// Pods with a sidecar, by the quota that applies to them.
    pub(crate) pods: &'a BTreeMap<Name, u32>,
}

/// What a status says beside its conditions.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Use {
    /// "94/100" of the budget that is used most.
    pub(crate) used: String,
    pub(crate) binding: String,
    pub(crate) budgets: Vec<BudgetUse>,
}

/// At this part of a budget, in percent, somebody who waits is held up by it.
const BUSY_PERCENT: u64 = 90;
/// Problems that one message names.
const NAMED: usize = 3;
/// A minute's worth.
const MINUTE: std::time::Duration = std::time::Duration::from_secs(60);

// === impl Facts ===

impl Facts<'_> {
    /// What a quota holds and uses.
    pub(crate) fn quota_use(&self, quota: &Quota) -> Use {
        let none = WorkloadStatus::default();
        let workload = self.workload(quota).unwrap_or(&none);
        let budgets = self.policy.providers.values().flat_map(budgets_of);
        let used: Vec<(&Budget, BudgetUse)> = budgets
            .filter(|(limit, _, provider)| quota_uses(quota, provider, limit))
            .map(|(_, budget, _)| {
                let leased = workload.leased.get(&budget.id).copied().unwrap_or_default();
                let used = workload.used_last_minute.get(&budget.id).copied().unwrap_or_default();
                (budget, budget_use(budget, leased, used, self.waiting(&budget.id)))
            })
            .collect();
        self.most_used(used)
    }

    /// What all hold and use of a provider.
    pub(crate) fn provider_use(&self, provider: &Provider) -> Use {
        let used = budgets_of(provider).map(|(_, budget, _)| {
            let status = self.ledger.budgets.get(&budget.id);
            let leased = status.map(|it| it.leased).unwrap_or_default();
            let used = status.map(|it| it.used_last_minute).unwrap_or_default();
            (budget, budget_use(budget, leased, used, self.waiting(&budget.id)))
        });
        let used: Vec<_> = used.collect();
        self.most_used(used)
    }

    /// The conditions of a quota; `object` is its kind, namespace and name.
    pub(crate) fn quota_findings(&self, quota: &Quota, uses: &Use) -> Vec<Finding> {
        let problems = self.problems("LLMQuota", Some(&quota.namespace), &quota.name);
        let pods = self.pods.get(quota.key().as_str()).copied().unwrap_or(0);
        let mut ready = ready(&problems);
        if ready.holds && pods == 0 {
            ready = Finding {
                kind: READY,
                holds: false,
                reason: "NoPods",
                message: "no pod with a sidecar matches the selector: annotate the pods with \
                          weir.dev/inject: \"true\", or change the selector"
                    .into(),
            };
        }
        vec![ready, self.throttled(quota, uses), self.degraded(quota, pods)]
    }

    /// The conditions of a provider.
    pub(crate) fn provider_findings(&self, name: &str, uses: &Use) -> Vec<Finding> {
        let problems = self.problems("LLMProvider", None, name);
        let waiting: u64 = uses.budgets.iter().map(|budget| budget.waiting).sum();
        let throttled = if waiting > 0 {
            let message = format!("{waiting} requests wait; {} is used most", uses.binding);
            Finding { kind: THROTTLED, holds: true, reason: "RequestsWait", message }
        } else {
            calm(THROTTLED, "NothingWaits")
        };
        vec![ready(&problems), throttled, overcommitted(&problems)]
    }

    /// The conditions of a class.
    pub(crate) fn class_findings(&self, name: &str) -> Vec<Finding> {
        let problems = self.problems("LLMPriorityClass", None, name);
        vec![ready(&problems), overcommitted(&problems)]
    }

    /// The conditions of an object that is not in force at all.
    pub(crate) fn errors_of(
        &self,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Vec<Finding> {
        vec![ready(&self.problems(kind, namespace, name))]
    }

    /// What a quota's pods do; `None` before the first of them has connected.
    pub(crate) fn workload(&self, quota: &Quota) -> Option<&WorkloadStatus> {
        self.ledger.workloads.get(quota.key().as_str())
    }

    fn waiting(&self, budget: &BudgetId) -> u64 {
        self.ledger.budgets.get(budget).map_or(0, |it| it.waiting as u64)
    }

    /// The budget of which all use most decides what is said in short.
    fn most_used(&self, budgets: Vec<(&Budget, BudgetUse)>) -> Use {
        let percent = |budget: &Budget, uses: &BudgetUse| {
            let all = self.ledger.budgets.get(&budget.id);
            let all = all.map_or(0, |it| it.used_last_minute.units());
            all.saturating_mul(100) / uses.limit.max(1)
        };
        let is_minute =
            |budget: &Budget| matches!(budget.kind, Kind::Bucket { .. } | Kind::Window { .. });
        let most = budgets
            .iter()
            .filter(|(budget, _)| is_minute(budget))
            .max_by_key(|(budget, uses)| (percent(budget, uses), std::cmp::Reverse(&uses.name)));
        let (used, binding) = most.map_or_else(Default::default, |(_, uses)| {
            (format!("{}/{}", uses.used_last_minute, uses.limit), uses.name.clone())
        });
        Use { used, binding, budgets: budgets.into_iter().map(|(_, uses)| uses).collect() }
    }

    fn throttled(&self, quota: &Quota, uses: &Use) -> Finding {
        let waiting = self.workload(quota).map_or(0, |it| it.waiting);
        if waiting == 0 {
            return calm(THROTTLED, "NothingWaits");
        }
        let busy = uses.budgets.iter().find(|budget| budget.name == uses.binding);
        let all = busy.map_or(0, |budget| {
            let status = self.ledger.budgets.get(&BudgetId::from_wire(&budget.name));
            status.map_or(0, |it| it.used_last_minute.units()) * 100 / budget.limit.max(1)
        });
        let reason = if all >= BUSY_PERCENT { "BudgetUsedUp" } else { "RequestsWait" };
        let message = format!(
            "{waiting} requests wait; all workloads together used {all} percent of {} in the last \
             minute",
            uses.binding
        );
        Finding { kind: THROTTLED, holds: true, reason, message }
    }

    fn degraded(&self, quota: &Quota, pods: u32) -> Finding {
        let connected = self.workload(quota).map_or(0, |it| it.connected);
        let missing = (pods as usize).saturating_sub(connected);
        if missing == 0 {
            return calm(DEGRADED, "AllConnected");
        }
        let message = format!(
            "{missing} of {pods} pods with a sidecar are not connected to the allocator: they start, \
             end, or run on the leases they have"
        );
        Finding { kind: DEGRADED, holds: true, reason: "PodsNotConnected", message }
    }

    /// What is wrong with one object, what keeps it out of force first.
    fn problems(&self, kind: &str, namespace: Option<&str>, name: &str) -> Vec<&Problem> {
        let is_its = |problem: &&Problem| {
            problem.object.as_ref().is_some_and(|object| {
                object.kind == kind
                    && object.namespace.as_deref() == namespace
                    && object.name == name
            })
        };
        self.errors.iter().chain(self.warnings).filter(is_its).collect()
    }
}

fn ready(problems: &[&Problem]) -> Finding {
    let about: Vec<&&Problem> =
        problems.iter().filter(|it| it.reason != Reason::Overcommitted).collect();
    let Some(first) = about.first() else {
        return Finding {
            kind: READY,
            holds: true,
            reason: "InForce",
            message: "in force as it is written".into(),
        };
    };
    // Something that does nothing is told, and takes nothing away from the rest.
    let holds = about.iter().all(|it| matches!(it.reason, Reason::NoEffect | Reason::UnusedLimit));
    Finding { kind: READY, holds, reason: first.reason.label(), message: listed(&about) }
}

fn overcommitted(problems: &[&Problem]) -> Finding {
    let about: Vec<&&Problem> =
        problems.iter().filter(|it| it.reason == Reason::Overcommitted).collect();
    if about.is_empty() {
        return calm(OVERCOMMITTED, "WithinLimits");
    }
    let message = listed(&about);
    Finding { kind: OVERCOMMITTED, holds: true, reason: Reason::Overcommitted.label(), message }
}

fn listed(problems: &[&&Problem]) -> String {
    let mut told: Vec<String> = problems.iter().take(NAMED).map(|it| it.within()).collect();
    if problems.len() > NAMED {
        told.push(format!("and {} more", problems.len() - NAMED));
    }
    told.join("; ")
}

fn calm(kind: &'static str, reason: &'static str) -> Finding {
    Finding { kind, holds: false, reason, message: String::new() }
}

/// Limit, budget and provider of each budget.
fn budgets_of(provider: &Provider) -> impl Iterator<Item = (&Name, &Budget, &Provider)> {
    provider.limits.iter().flat_map(move |limit| {
        limit.budgets.iter().map(move |budget| (&limit.name, budget, provider))
    })
}

fn quota_uses(quota: &Quota, provider: &Provider, limit: &Name) -> bool {
    quota.uses.iter().any(|permission| {
        permission.provider == provider.name
            && permission.limit.as_ref().is_none_or(|name| name == limit)
    })
}

fn budget_use(budget: &Budget, leased: Rate, used: Amount, waiting: u64) -> BudgetUse {
    let limit = match budget.kind {
        Kind::Bucket { rate, .. } => per_minute(rate),
        Kind::Window { limit, .. } => limit.units(),
        Kind::Stock { amount, .. } => amount.units(),
        Kind::Slots { count } => count.units(),
    };
    BudgetUse {
        name: budget.id.to_string(),
        limit,
        leased_per_minute: per_minute(leased),
        used_last_minute: used.units(),
        waiting,
    }
}

/// Rates round down, so this rounds to the nearest.
fn per_minute(rate: Rate) -> u64 {
    (rate.over(MINUTE) + Amount::from_micros(quota::units::MICRO / 2)).units()
}

#[cfg(test)]
mod tests;
