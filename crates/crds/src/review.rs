//! What no single object shows: guarantees that overcommit a limit, limits that nobody uses,
//! quotas that hide one another. Nothing of it is an error.

use std::time::Duration;

use quota::budget::Budget;
use quota::policy::{Policy, Provider};
use quota::units::{Amount, MICRO, Rate};

use crate::path::Path;
use crate::problem::{ObjectId, Problem, Reason};

/// How many quotas an overcommitment names; the sum counts all.
const NAMED: usize = 5;

/// Everything of note about a policy as a whole.
pub(crate) fn review(policy: &Policy) -> Vec<Problem> {
    let mut problems = Vec::new();
    for provider in policy.providers.values() {
        unused_limits(policy, provider, &mut problems);
        overcommitted_limits(policy, provider, &mut problems);
    }
    minimum_shares(policy, &mut problems);
    hidden_quotas(policy, &mut problems);
    problems
}

fn unused_limits(policy: &Policy, provider: &Provider, problems: &mut Vec<Problem>) {
    for (index, limit) in provider.limits.iter().enumerate() {
        let is_used = policy.quotas.iter().flat_map(|quota| &quota.uses).any(|permission| {
            permission.provider == provider.name
                && permission.limit.as_ref().is_none_or(|name| *name == limit.name)
        });
        if !is_used {
            let message =
                "no LLMQuota uses this limit; name it or its provider in the budgets of one";
            problems.push(Problem::of(
                id_of(provider),
                limit_path(index),
                Reason::UnusedLimit,
                message,
            ));
        }
    }
}

fn overcommitted_limits(policy: &Policy, provider: &Provider, problems: &mut Vec<Problem>) {
    for (index, limit) in provider.limits.iter().enumerate() {
        for budget in &limit.budgets {
            if let Some(message) = overcommitment(policy, budget) {
                let path = limit_path(index).field(budget.dimension.name());
                problems.push(Problem::of(id_of(provider), path, Reason::Overcommitted, message));
            }
        }
    }
}

fn overcommitment(policy: &Policy, budget: &Budget) -> Option<String> {
    let mut guarantees: Vec<(String, Rate)> = policy
        .quotas
        .iter()
        .map(|quota| (quota.key(), quota.bounds(budget).guaranteed))
        .filter(|(_, rate)| !rate.is_zero())
        .collect();
    let sum: Rate = guarantees.iter().map(|(_, rate)| *rate).sum();
    if sum <= budget.rate() {
        return None;
    }
    guarantees.sort_by_key(|(name, rate)| (std::cmp::Reverse(*rate), name.clone()));
    let mut parts: Vec<String> = guarantees
        .iter()
        .take(NAMED)
        .map(|(name, rate)| format!("{name} {}", per_minute(*rate)))
        .collect();
    if guarantees.len() > NAMED {
        parts.push(format!("{} more", guarantees.len() - NAMED));
    }
    Some(format!(
        "overcommitted: guarantees come to {}, which is {} more than the limit's {} ({}); until \
         they are lowered, those of higher classes come first",
        per_minute(sum),
        per_minute(sum - budget.rate()),
        per_minute(budget.rate()),
        parts.join(", ")
    ))
}

/// The figure that a rate was made from: rates round down, so this rounds to the nearest.
fn per_minute(rate: Rate) -> u64 {
    (rate.over(Duration::from_secs(60)) + Amount::from_micros(MICRO / 2)).units()
}

fn minimum_shares(policy: &Policy, problems: &mut Vec<Problem>) {
    let sum: u32 = policy.classes.values().map(|class| class.min_share_percent).sum();
    let largest = policy.classes.values().max_by_key(|class| class.min_share_percent);
    if let Some(class) = largest.filter(|_| sum > 100) {
        let object = ObjectId::new("LLMPriorityClass", None, &class.name);
        let message = format!(
            "the minimum shares of all classes come to {sum} percent, {} more than there is; \
             lower this one, the largest",
            sum - 100
        );
        let path = Path::spec().field("minSharePercent");
        problems.push(Problem::of(object, path, Reason::Overcommitted, message));
    }
}

/// Quotas that apply to no pod: another that matches all of their pods goes before them.
fn hidden_quotas(policy: &Policy, problems: &mut Vec<Problem>) {
    for quota in &policy.quotas {
        // Who wins a pod with just these labels matches every pod that the quota matches.
        let Some(winner) = policy.quota_of(&quota.namespace, &quota.selector) else { continue };
        if winner.name == quota.name {
            continue;
        }
        let (high, low) = (policy.class_value(&winner.class), policy.class_value(&quota.class));
        let reason = if high > low {
            format!("its class {} ({high}) is above {} ({low})", winner.class, quota.class)
        } else {
            "its name comes first".into()
        };
        let object = ObjectId::new("LLMQuota", Some(&quota.namespace), &quota.name);
        let message = format!(
            "applies to no pod: LLMQuota {} matches the same pods and wins because {reason}; \
             change a selector or a class",
            winner.key()
        );
        let path = Path::spec().field("selector");
        problems.push(Problem::of(object, path, Reason::Superseded, message));
    }
}

fn id_of(provider: &Provider) -> ObjectId {
    ObjectId::new("LLMProvider", None, &provider.name)
}

fn limit_path(index: usize) -> Path {
    Path::spec().field("limits").index(index)
}
