//! What heads that do not fit keep from those after them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::budget::BudgetId;
use crate::charge::Vector;
use crate::queue::levels::Levels;
use crate::units::{Amount, Rate};

/// What heads that do not fit keep from those after them, in millionths per budget.
#[derive(Debug, Default)]
pub(super) struct Reservations(BTreeMap<BudgetId, u128>);

/// Whether a vector fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Now,
    /// After the time that the levels need to rise; `None` where nobody knows.
    Later(Option<Duration>),
}

// === impl Reservations ===

impl Reservations {
    /// Whether `vector` fits beyond what is reserved and `holdback` percent of each level's cap.
    pub(super) fn fit(&self, levels: &impl Levels, vector: &Vector, holdback: u32) -> Fit {
        let mut fit = Fit::Now;
        for (budget, amount) in vector {
            let wanted = self.of(budget) + wanted(levels, budget, *amount, holdback);
            let missing = missing(wanted, levels.level(budget));
            if missing.is_zero() {
                continue;
            }
            let wait = missing.time_at(levels.rate(budget));
            fit = match fit {
                Fit::Now => Fit::Later(wait),
                Fit::Later(longest) => Fit::Later(longest.zip(wait).map(|(a, b)| a.max(b))),
            };
        }
        fit
    }

    /// Keeps what `vector` needs. True if nothing is left for others on one of its budgets.
    pub(super) fn keep(&mut self, levels: &impl Levels, vector: &Vector, holdback: u32) -> bool {
        let mut closed = false;
        for (budget, amount) in vector {
            let reserved = self.0.entry(budget.clone()).or_default();
            *reserved += u128::from(need(levels, budget, *amount, holdback).0.micros());
            closed |= !missing(*reserved + 1, levels.level(budget)).is_zero();
        }
        closed
    }

    fn of(&self, budget: &BudgetId) -> u128 {
        self.0.get(budget).copied().unwrap_or_default()
    }
}

/// What a draw of `amount` must find in a level.
pub(super) fn wanted(
    levels: &impl Levels,
    budget: &BudgetId,
    amount: Amount,
    holdback: u32,
) -> u128 {
    let (need, keep) = need(levels, budget, amount, holdback);
    u128::from(need.micros()) + u128::from(keep.micros())
}

/// What of `wanted` is not in a level.
pub(super) fn missing(wanted: u128, level: i64) -> Amount {
    let level = i128::from(level);
    let missing = i128::try_from(wanted).unwrap_or(i128::MAX).saturating_sub(level).max(0);
    Amount::from_micros(u64::try_from(missing).unwrap_or(u64::MAX))
}

/// What a draw of `amount` needs in a level, and what it must leave there.
///
/// A level that is capped below the amount, because leases hold the rest, need only be full: the draw
/// then takes it into debt, which the refill pays before anybody else is served. Otherwise a large
/// request would wait for ever. Where nothing refills, there is no debt.
fn need(
    levels: &impl Levels,
    budget: &BudgetId,
    amount: Amount,
    holdback: u32,
) -> (Amount, Amount) {
    let cap = levels.cap(budget);
    let keep = levels.paced(budget).scale(u64::from(holdback), 100);
    match levels.rate(budget) {
        Rate::ZERO => (amount, keep),
        _ => (amount.min(cap - keep), keep),
    }
}
