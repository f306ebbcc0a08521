//! The least that anything in a lane needs: below it, nobody need be looked at.
//!
//! A lane may hold thousands of workloads, and while draws wait for a budget its level is mostly near
//! zero. What is kept here is a lower bound, so that a walk is never left out that would grant something.

use std::collections::BTreeMap;

use crate::budget::BudgetId;
use crate::charge::Vector;
use crate::queue::flow::Budgets;
use crate::queue::levels::Levels;
use crate::queue::reservations::missing;
use crate::time::Time;
use crate::units::{Amount, Rate};

/// The least that anything in a lane needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Least(BTreeMap<Budgets, Set>);

/// Draws on one set of budgets.
#[derive(Clone, Debug, Default)]
struct Set {
    count: usize,
    /// The smallest amounts of all draws since there was none; they may be of different draws.
    amounts: BTreeMap<BudgetId, Amount>,
}

// === impl Least ===

impl Least {
    /// A draw has come.
    pub(super) fn arrive(&mut self, budgets: &Budgets, vector: &Vector) {
        self.0.entry(budgets.clone()).or_default().add(1, vector);
    }

    /// A draw has left.
    pub(super) fn leave(&mut self, budgets: &Budgets) {
        let Some(set) = self.0.get_mut(budgets) else { return };
        set.count = set.count.saturating_sub(1);
        if set.count == 0 {
            self.0.remove(budgets);
        }
    }

    /// Adds what is in another lane.
    pub(super) fn absorb(&mut self, other: Least) {
        for (budgets, set) in other.0 {
            self.0.entry(budgets).or_default().add(set.count, &set.amounts);
        }
    }

    /// Before when surely nothing can be granted, whoever is next; [`Time::NEVER`] if levels do not rise
    /// by themselves.
    pub(super) fn opens_at(&self, now: Time, levels: &impl Levels) -> Time {
        self.0.values().map(|set| set.opens_at(now, levels)).min().unwrap_or(Time::NEVER)
    }
}

// === impl Set ===

impl Set {
    fn add(&mut self, count: usize, amounts: &Vector) {
        self.count += count;
        for (budget, amount) in amounts {
            let least = self.amounts.entry(budget.clone()).or_insert(*amount);
            *least = (*least).min(*amount);
        }
    }

    fn opens_at(&self, now: Time, levels: &impl Levels) -> Time {
        let opens = self.amounts.iter().map(|(budget, least)| {
            let rate = levels.rate(budget);
            // A level that is full is enough for a draw that is larger (`reservations`).
            let wanted = if rate == Rate::ZERO { *least } else { (*least).min(levels.cap(budget)) };
            let missing = missing(u128::from(wanted.micros()), levels.level(budget));
            missing.time_at(rate).map_or(Time::NEVER, |wait| now + wait)
        });
        opens.max().unwrap_or(now)
    }
}
