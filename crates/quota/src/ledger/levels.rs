//! The central levels of all budgets, as the fair queue sees them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::StockMark;
use super::central::Central;
use crate::accounts::Capacity;
use crate::budget::{BudgetId, Kind};
use crate::charge::Vector;
use crate::message::Reason;
use crate::policy::Policy;
use crate::queue::Levels;
use crate::time::Time;
use crate::units::{Amount, Rate};

/// The central levels of all budgets.
#[derive(Debug, Default)]
pub(super) struct Centre {
    budgets: BTreeMap<BudgetId, Central>,
}

impl Centre {
    /// Brings the budgets in line with a policy: levels of budgets that stay go on.
    pub(super) fn configure(&mut self, now: Time, policy: &Policy, full: bool) {
        let mut old = std::mem::take(&mut self.budgets);
        for budget in policy.budgets() {
            let central = match old.remove(&budget.id) {
                Some(central) => central.with_budget(budget.clone()),
                None => Central::new(now, budget.clone(), full),
            };
            self.budgets.insert(budget.id.clone(), central);
        }
    }

    pub(super) fn advance(&mut self, now: Time) {
        for central in self.budgets.values_mut() {
            central.advance(now);
        }
    }

    /// Takes note of a draw, whose size the marks of stocks must allow for.
    pub(super) fn note(&mut self, vector: &Vector) {
        for (budget, amount) in vector {
            if let Some(central) = self.budgets.get_mut(budget) {
                central.stock.largest = central.stock.largest.max(*amount);
            }
        }
    }

    /// Counts a draw that waits, or no longer does, where it is too large to be let through at a pace.
    pub(super) fn count_large(&mut self, vector: &Vector, more: isize) {
        for (budget, amount) in vector {
            if let Some(central) = self.budgets.get_mut(budget).filter(|c| c.is_large(*amount)) {
                central.large_waiting = central.large_waiting.saturating_add_signed(more);
            }
        }
    }

    /// Sets the longest time from a debit to its request's arrival that pods have seen. True if less
    /// fits at once now.
    pub(super) fn set_transit(&mut self, longest: Option<Duration>) -> bool {
        let mut less_fits = false;
        for central in self.budgets.values_mut() {
            let before = central.largest();
            central.set_transit(longest.unwrap_or_default());
            less_fits |= central.largest() < before;
        }
        less_fits
    }

    pub(super) fn get(&self, budget: &BudgetId) -> Option<&Central> {
        self.budgets.get(budget)
    }

    pub(super) fn get_mut(&mut self, budget: &BudgetId) -> Option<&mut Central> {
        self.budgets.get_mut(budget)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&BudgetId, &Central)> {
        self.budgets.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&BudgetId, &mut Central)> {
        self.budgets.iter_mut()
    }

    pub(super) fn capacities(&self) -> Vec<(BudgetId, Capacity)> {
        self.budgets.iter().map(|(budget, c)| (budget.clone(), c.capacity())).collect()
    }

    pub(super) fn take(&mut self, budget: &BudgetId, amount: Amount) {
        if let Some(central) = self.budgets.get_mut(budget) {
            central.take(amount);
        }
    }

    /// Takes back credit that has not arrived, as far as it was still outstanding.
    pub(super) fn reclaim(
        &mut self,
        now: Time,
        budget: &BudgetId,
        amount: Amount,
        outstanding: Amount,
    ) {
        let Some(central) = self.budgets.get_mut(budget) else { return };
        match central.budget.kind {
            Kind::Bucket { .. } | Kind::Window { .. } => {
                central.no_longer_outstanding(outstanding);
                central.put_back(now, outstanding);
            }
            Kind::Stock { .. } => central.put_back(now, amount),
            // The holdings have said what is in use.
            Kind::Slots { .. } => {}
        }
    }

    /// A pod that used so many slots of each uses so many now.
    pub(super) fn slots_change(&mut self, before: &Vector, after: &Vector) {
        for (budget, amount) in before {
            self.budgets
                .get_mut(budget)
                .into_iter()
                .for_each(|it| it.slots_change(*amount, Amount::ZERO));
        }
        for (budget, amount) in after {
            self.budgets
                .get_mut(budget)
                .into_iter()
                .for_each(|it| it.slots_change(Amount::ZERO, *amount));
        }
    }

    pub(super) fn no_longer_outstanding(&mut self, budget: &BudgetId, amount: Amount) {
        if let Some(central) = self.budgets.get_mut(budget) {
            central.no_longer_outstanding(amount);
        }
    }

    /// Why a request of this size will never be served, if so.
    pub(super) fn hopeless(&self, budget: &BudgetId, amount: Amount) -> Option<(Reason, String)> {
        let central = self.budgets.get(budget)?;
        let largest = central.largest();
        if amount > largest {
            let explain = format!("{budget}: {amount} asked, at most {largest} fit at once");
            return Some((Reason::TooLarge, explain));
        }
        let left = central.left().filter(|left| *left < amount)?;
        let explain = format!("{budget}: {left} left in this period, {amount} asked");
        Some((Reason::Exhausted, explain))
    }

    pub(super) fn set_stock(&mut self, budget: &BudgetId, granted: Amount) {
        if let Some(central) = self.budgets.get_mut(budget) {
            central.stock.spent = granted;
            central.stock.durable = granted;
        }
    }

    pub(super) fn new_period(&mut self) {
        for central in self.budgets.values_mut() {
            central.stock = super::central::Stock::default();
        }
    }

    pub(super) fn stock_marks_wanted(&self, block_percent: u64) -> Vec<StockMark> {
        let wanted = self.budgets.values().filter_map(|central| {
            let Kind::Stock { amount, .. } = central.budget.kind else { return None };
            let block = amount.scale(block_percent, 100);
            let ahead = central.stock.durable - central.stock.spent;
            let low = ahead < block.scale(1, 2).max(central.stock.largest);
            let granted = amount.min(central.stock.spent + block + central.stock.largest);
            (low && granted > central.stock.durable)
                .then(|| StockMark { budget: central.budget.id.clone(), granted })
        });
        wanted.collect()
    }

    pub(super) fn stock_mark_written(&mut self, budget: &BudgetId, granted: Amount) {
        if let Some(central) = self.budgets.get_mut(budget) {
            central.stock.durable = central.stock.durable.max(granted);
        }
    }
}

impl Levels for Centre {
    fn level(&self, budget: &BudgetId) -> i64 {
        self.budgets.get(budget).map_or(0, Central::level)
    }

    fn rate(&self, budget: &BudgetId) -> Rate {
        self.budgets.get(budget).map_or(Rate::ZERO, Central::rate)
    }

    fn cap(&self, budget: &BudgetId) -> Amount {
        self.budgets.get(budget).map_or(Amount::ZERO, Central::largest)
    }

    fn paced(&self, budget: &BudgetId) -> Amount {
        self.budgets.get(budget).map_or(Amount::ZERO, Central::paced)
    }

    fn take(&mut self, budget: &BudgetId, amount: Amount) {
        Centre::take(self, budget, amount);
    }
}
