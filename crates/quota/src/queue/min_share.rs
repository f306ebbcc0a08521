//! What a class has got of its minimum share.

use std::collections::BTreeMap;

use crate::budget::BudgetId;
use crate::charge::Vector;

/// What a class has got of its minimum share, per budget.
///
/// Counted in work, not in time: of everything that is granted of a budget, `percent` is owed to the
/// class while it waits for that budget. So the share is right whatever the budget's rate is at the
/// moment, and it holds for slots as well. Never more is owed than the draw that was granted last: a
/// class that was kept waiting is not paid back in a row, and one above it waits for one admission.
#[derive(Clone, Debug, Default)]
pub(super) struct MinShare {
    /// In hundredths of a millionth; below zero where the last draw was larger than what was owed.
    owed: BTreeMap<BudgetId, i128>,
    waiting: BTreeMap<BudgetId, usize>,
}

impl MinShare {
    /// One more draw of the class waits for these budgets.
    pub(super) fn arrive<'a>(&mut self, budgets: impl IntoIterator<Item = &'a BudgetId>) {
        for budget in budgets {
            *self.waiting.entry(budget.clone()).or_default() += 1;
        }
    }

    /// One draw less waits for them.
    pub(super) fn leave<'a>(&mut self, budgets: impl IntoIterator<Item = &'a BudgetId>) {
        for budget in budgets {
            let Some(count) = self.waiting.get_mut(budget) else { continue };
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(budget);
                // A share is for who waits: it is not saved up.
                self.owed.entry(budget.clone()).and_modify(|owed| *owed = (*owed).min(0));
            }
        }
    }

    /// How many draws of the class wait for `budget`.
    pub(super) fn waiting_on(&self, budget: &BudgetId) -> usize {
        self.waiting.get(budget).copied().unwrap_or_default()
    }

    /// Something was granted, to whomever.
    pub(super) fn accrue(&mut self, percent: u32, vector: &Vector) {
        if percent == 0 {
            return;
        }
        for (budget, amount) in vector {
            let waits = self.waiting_on(budget) > 0;
            let owed = self.owed.entry(budget.clone()).or_default();
            let bound = if waits { i128::from(amount.micros()) * 100 } else { 0 };
            let more = i128::from(amount.micros()) * i128::from(percent);
            *owed = (*owed + more).min(bound.max(*owed));
        }
    }

    /// True if something is owed of `budget`.
    pub(super) fn is_owed(&self, budget: &BudgetId) -> bool {
        self.owed.get(budget).is_some_and(|owed| *owed > 0)
    }

    /// The class got `vector`; as its minimum share of those budgets for which `owed` says so. What
    /// it gets otherwise counts towards what is owed, but makes no debt.
    pub(super) fn pay(&mut self, vector: &Vector, as_share: impl Fn(&BudgetId) -> bool) {
        for (budget, amount) in vector {
            let Some(owed) = self.owed.get_mut(budget) else { continue };
            let amount = i128::from(amount.micros()) * 100;
            *owed = match as_share(budget) {
                true => *owed - amount,
                false => (*owed).min((*owed - amount).max(0)),
            };
        }
    }

    /// Adds what another has counted on other budgets.
    pub(super) fn absorb(&mut self, other: MinShare) {
        self.owed.extend(other.owed);
        for (budget, count) in other.waiting {
            *self.waiting.entry(budget).or_default() += count;
        }
    }
}
