//! What workloads have used of their guarantees and ceilings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::budget::BudgetId;
use crate::charge::Vector;
use crate::queue::config::Terms;
use crate::queue::draw::FlowKey;
use crate::time::Time;
use crate::units::{Amount, Rate};

/// What an unused guarantee or ceiling saves up at most. Long enough to ride out the pause between
/// two requests, short enough that what is lent is not called back all at once.
const SAVED_MAX: Duration = Duration::from_secs(2);

/// What workloads have used of their guarantees and ceilings, over all classes they draw in.
#[derive(Clone, Debug, Default)]
pub(super) struct Accounts(BTreeMap<FlowKey, BTreeMap<BudgetId, Used>>);

/// How a workload stands with its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has not used up what it is guaranteed.
    Guaranteed,
    /// Neither.
    Between,
    /// It has used what it may; until this time.
    Over(Time),
}

/// What a workload will have taken of one budget, where its bound is `rate`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead<'a> {
    pub(super) budget: &'a BudgetId,
    pub(super) amount: Amount,
    pub(super) rate: Rate,
}

/// One workload and one budget.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    guaranteed: Accrual,
    ceiling: Accrual,
}

/// What accrues at a rate, kept as the instant at which nothing is left: exact whatever the rate, with
/// nothing to update while time passes. A take is allowed while something is left and may go into
/// debt, so a request of any size passes and the average is the rate.
#[derive(Clone, Copy, Debug, Default)]
struct Accrual {
    empty_at: Time,
}

// === impl Accounts ===

impl Accounts {
    /// How `flow` stands on `budgets`. Guaranteed means: on at least one of them, and used up on none
    /// of those where it is.
    pub(super) fn standing<'a>(
        &self,
        now: Time,
        flow: &FlowKey,
        terms: &Terms,
        budgets: impl IntoIterator<Item = &'a BudgetId>,
    ) -> Standing {
        if terms.bounds.is_empty() {
            return Standing::Between;
        }
        let (mut guaranteed, mut used_up, mut over) = (false, false, Time::ZERO);
        for budget in budgets {
            let Some(bounds) = terms.bounds.get(budget) else { continue };
            let used = self.used(flow, budget);
            if !bounds.guaranteed.is_zero() {
                guaranteed = true;
                used_up |= used.guaranteed.empty_at > now;
            }
            over = match bounds.ceiling {
                Some(Rate::ZERO) => Time::NEVER,
                Some(_) => over.max(used.ceiling.empty_at),
                None => over,
            };
        }
        match (over > now, guaranteed && !used_up) {
            (true, _) => Standing::Over(over),
            (false, true) => Standing::Guaranteed,
            (false, false) => Standing::Between,
        }
    }

    /// When `flow` is next guaranteed something of `budget`; now or earlier if it is already.
    pub(super) fn guaranteed_at(&self, flow: &FlowKey, budget: &BudgetId) -> Time {
        self.used(flow, budget).guaranteed.empty_at
    }

    /// When it will be, after it has taken `ahead` more.
    pub(super) fn guaranteed_after(&self, now: Time, flow: &FlowKey, ahead: Ahead<'_>) -> Time {
        self.used(flow, ahead.budget).guaranteed.after(now, ahead.amount, ahead.rate)
    }

    /// When `flow` will be below its ceiling of `budget` after it has taken `ahead` more.
    pub(super) fn permitted_after(&self, now: Time, flow: &FlowKey, ahead: Ahead<'_>) -> Time {
        self.used(flow, ahead.budget).ceiling.after(now, ahead.amount, ahead.rate)
    }

    /// Records what `flow` takes.
    pub(super) fn take(&mut self, now: Time, flow: &FlowKey, terms: &Terms, vector: &Vector) {
        self.each(flow, terms, vector, |accrual, amount, rate| accrual.take(now, amount, rate));
    }

    /// Records what `flow` gives back.
    pub(super) fn give_back(&mut self, flow: &FlowKey, terms: &Terms, vector: &Vector) {
        self.each(flow, terms, vector, |accrual, amount, rate| accrual.give_back(amount, rate));
    }

    /// Keeps only what a policy still names.
    pub(super) fn retain(&mut self, flows: &BTreeMap<FlowKey, Arc<Terms>>) {
        self.0.retain(|flow, used| match flows.get(flow) {
            Some(terms) => {
                used.retain(|budget, _| terms.bounds.contains_key(budget));
                true
            }
            None => false,
        });
    }

    fn used(&self, flow: &FlowKey, budget: &BudgetId) -> Used {
        self.0.get(flow).and_then(|used| used.get(budget)).copied().unwrap_or_default()
    }

    fn each(
        &mut self,
        flow: &FlowKey,
        terms: &Terms,
        vector: &Vector,
        mut apply: impl FnMut(&mut Accrual, Amount, Rate),
    ) {
        for (budget, amount) in vector {
            let Some(bounds) = terms.bounds.get(budget) else { continue };
            let used = self.0.entry(flow.clone()).or_default().entry(budget.clone()).or_default();
            if !bounds.guaranteed.is_zero() {
                apply(&mut used.guaranteed, *amount, bounds.guaranteed);
            }
            if let Some(ceiling) = bounds.ceiling {
                apply(&mut used.ceiling, *amount, ceiling);
            }
        }
    }
}

// === impl Accrual ===

impl Accrual {
    fn take(&mut self, now: Time, amount: Amount, rate: Rate) {
        self.empty_at = self.after(now, amount, rate);
    }

    fn after(self, now: Time, amount: Amount, rate: Rate) -> Time {
        let saved = self.empty_at.max(now - SAVED_MAX);
        amount.time_at(rate).map_or(Time::NEVER, |time| saved + time)
    }

    fn give_back(&mut self, amount: Amount, rate: Rate) {
        if let Some(time) = amount.time_at(rate) {
            self.empty_at = self.empty_at - time;
        }
    }
}
