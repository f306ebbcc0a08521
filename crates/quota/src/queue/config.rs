//! What the fair queue knows of the policy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::budget::{Budget, BudgetId, Kind};
use crate::charge::Vector;
use crate::policy::{Bounds, Class, Name, Policy, Quota};
use crate::queue::draw::FlowKey;
use crate::units::{Amount, Rate};

/// What a budget that does not refill weighs against one that does: all of it is worth this much of
/// time, as a full minute of burst is for a rate.
const FULL_STOCK: Duration = Duration::from_secs(60);

/// What the fair queue knows of the policy.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Priority classes, by name.
    pub classes: BTreeMap<Name, Class>,
    /// Workloads; one that is missing has weight 1 and no bounds.
    pub flows: BTreeMap<FlowKey, Arc<Terms>>,
    /// Budgets; a draw on one that is missing is refused.
    pub budgets: BTreeMap<BudgetId, Budget>,
}

/// What a workload is entitled to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Its share among the workloads of a class; 0 counts as 1.
    pub weight: u32,
    /// Guarantee and ceiling per budget, where there are any. Bounds are rates: they say nothing
    /// about slots and stocks.
    pub bounds: BTreeMap<BudgetId, Bounds>,
}

/// The figures of a class that decide about a draw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Band {
    /// Higher goes first.
    pub(super) value: i32,
    /// What the class gets of what is granted, in percent.
    pub(super) min_share: u32,
    /// What higher classes keep of each level, in percent.
    pub(super) holdback: u32,
}

// === impl Config ===

impl Config {
    /// The part of a policy that matters here.
    pub fn of(policy: &Policy) -> Config {
        let terms = |quota: &Quota| Terms {
            weight: quota.weight,
            bounds: policy
                .budgets()
                .map(|budget| (budget.id.clone(), quota.bounds(budget)))
                .filter(|(_, bounds)| !bounds.guaranteed.is_zero() || bounds.ceiling.is_some())
                .collect(),
        };
        Config {
            classes: policy.classes.clone(),
            flows: policy.quotas.iter().map(|q| (q.key().into(), Arc::new(terms(q)))).collect(),
            budgets: policy.budgets().map(|budget| (budget.id.clone(), budget.clone())).collect(),
        }
    }

    /// The figures of `class`; without shares for one that is not configured.
    pub(super) fn band(&self, class: &str) -> Band {
        let configured = self.classes.get(class);
        let value = configured.map_or(0, |class| class.value);
        let higher = self.classes.values().filter(|class| class.value > value);
        let holdback = higher.map(|class| class.holdback_percent).fold(0, u32::saturating_add);
        Band {
            value,
            min_share: configured.map_or(0, |class| class.min_share_percent),
            holdback: holdback.min(100),
        }
    }

    /// For how long `amount` occupies a budget: its cost in the order of service.
    pub(super) fn work_on(&self, id: &BudgetId, amount: Amount) -> Duration {
        let Some(budget) = self.budgets.get(id) else { return Duration::ZERO };
        let rate = match budget.kind {
            Kind::Stock { amount, .. } => Rate::per(amount, FULL_STOCK),
            Kind::Slots { count } => Rate::per(count, FULL_STOCK),
            Kind::Bucket { .. } | Kind::Window { .. } => budget.rate(),
        };
        amount.time_at(rate).unwrap_or_default()
    }

    /// For how long `vector` occupies the budget of which it takes the largest part.
    pub(super) fn work(&self, vector: &Vector) -> Duration {
        vector.iter().map(|(id, amount)| self.work_on(id, *amount)).max().unwrap_or_default()
    }
}

// === impl Terms ===

impl Default for Terms {
    fn default() -> Terms {
        Terms { weight: 1, bounds: BTreeMap::new() }
    }
}
