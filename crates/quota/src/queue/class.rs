//! A class in a lane: what waits, and what it is owed of its minimum share.

use std::collections::BTreeMap;

use crate::budget::BudgetId;
use crate::charge::Vector;
use crate::queue::config::Band;

/// A class in a lane: what waits, and what it is owed of its minimum share.
///
/// What is owed is counted in work, not in time: of everything that others are granted of a budget,
/// its percentage is owed to the class while it waits for that budget. So the share is right whatever
/// the budget's rate is at the moment, and it holds for slots as well. Never more is owed than the
/// draw that was granted last: a class that was kept waiting is not paid back in a row, and one above
/// it waits for one admission.
#[derive(Clone, Debug)]
pub(super) struct Class {
    pub(super) band: Band,
    /// How many draws wait.
    pub(super) count: usize,
    waiting: BTreeMap<BudgetId, Waits>,
    /// In hundredths of a millionth; below zero where the last draw was larger than what was owed.
    owed: BTreeMap<BudgetId, i128>,
}

/// What waits for one budget.
#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    count: usize,
    cost: u128,
}

// === impl Class ===

impl Class {
    pub(super) fn new(band: Band) -> Class {
        Class { band, count: 0, waiting: BTreeMap::new(), owed: BTreeMap::new() }
    }

    /// One more draw of the class waits.
    pub(super) fn arrive(&mut self, vector: &Vector) {
        self.count += 1;
        for (budget, amount) in vector {
            let waits = self.waiting.entry(budget.clone()).or_default();
            waits.count += 1;
            waits.cost += u128::from(amount.micros());
        }
    }

    /// One draw less waits.
    pub(super) fn leave(&mut self, vector: &Vector) {
        self.count -= 1;
        for (budget, amount) in vector {
            let Some(waits) = self.waiting.get_mut(budget) else { continue };
            waits.count -= 1;
            waits.cost -= u128::from(amount.micros());
            if waits.count == 0 {
                self.waiting.remove(budget);
                // A share is for who waits: it is not saved up.
                self.owed.entry(budget.clone()).and_modify(|owed| *owed = (*owed).min(0));
            }
        }
    }

    /// True if a draw of the class waits for `budget`.
    pub(super) fn waits_for(&self, budget: &BudgetId) -> bool {
        self.waiting.contains_key(budget)
    }

    /// The budgets that a draw of the class waits for.
    pub(super) fn waited_for(&self) -> impl Iterator<Item = &BudgetId> {
        self.waiting.keys()
    }

    /// What its draws take of `budget`, in millionths.
    pub(super) fn cost(&self, budget: &BudgetId) -> u128 {
        self.waiting.get(budget).map_or(0, |waits| waits.cost)
    }

    /// Another class got `vector`.
    pub(super) fn accrue(&mut self, vector: &Vector) {
        if self.band.min_share == 0 {
            return;
        }
        for (budget, amount) in vector {
            let amount = i128::from(amount.micros());
            let bound = if self.waits_for(budget) { amount * 100 } else { 0 };
            let owed = self.owed.entry(budget.clone()).or_default();
            *owed = (*owed + amount * i128::from(self.band.min_share)).min(bound.max(*owed));
        }
    }

    /// True if something is owed of `budget`.
    pub(super) fn is_owed(&self, budget: &BudgetId) -> bool {
        self.owed.get(budget).is_some_and(|owed| *owed > 0)
    }

    /// The class got `vector`; as its minimum share of those budgets for which `as_share` says so. What
    /// it gets otherwise counts towards what is owed, but makes no debt.
    pub(super) fn pay(&mut self, vector: &Vector, as_share: impl Fn(&BudgetId) -> bool) {
        let from_others = 100 - self.band.min_share.min(100);
        for (budget, amount) in vector {
            let Some(owed) = self.owed.get_mut(budget) else { continue };
            let left = *owed - i128::from(amount.micros()) * i128::from(from_others);
            *owed = if as_share(budget) { left } else { left.max(0).min(*owed) };
        }
    }

    /// Adds the same class of another lane.
    pub(super) fn absorb(&mut self, other: Class) {
        self.count += other.count;
        self.owed.extend(other.owed);
        self.waiting.extend(other.waiting);
    }
}
