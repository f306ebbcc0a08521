//! What the fair queue sees of the budgets: their central levels.

use crate::budget::BudgetId;
use crate::units::{Amount, Rate};

/// The central levels of all budgets. The ledger implements it; so does a plain table in tests.
pub trait Levels {
    /// What may be taken now, in millionths of a unit; below zero is debt. 0 for an unknown budget.
    fn level(&self, budget: &BudgetId) -> i64;
    /// How fast the central level rises. Zero where nobody knows (slots come back when requests
    /// end) and where nothing comes back (stocks).
    fn rate(&self, budget: &BudgetId) -> Rate;
    /// What the central level holds at most; less than the budget's burst while leases hold a part.
    fn cap(&self, budget: &BudgetId) -> Amount;
    /// What of the level may be let through at once while the budget is paced: what a holdback is a
    /// percentage of.
    fn paced(&self, budget: &BudgetId) -> Amount {
        self.cap(budget)
    }
    /// Takes `amount`, into debt if need be.
    fn take(&mut self, budget: &BudgetId, amount: Amount);
}
