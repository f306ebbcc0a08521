//! What a pod may use without asking: its lease, and the levels that accrue under it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::books::Books;
use crate::bucket::Bucket;
use crate::budget::BudgetId;
use crate::charge::Vector;
use crate::lease::{Adoption, Lease};
use crate::message::{Epoch, LeaseSet};
use crate::time::Time;
use crate::units::Amount;

/// A lease and its levels.
#[derive(Debug)]
pub(super) struct Levels {
    lease: Lease,
    buckets: BTreeMap<BudgetId, Bucket>,
    /// Up to when they have accrued.
    at: Time,
}

impl Levels {
    pub(super) fn new(now: Time) -> Levels {
        Levels { lease: Lease::default(), buckets: BTreeMap::new(), at: now }
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    pub(super) fn fence(&mut self, epoch: Epoch) -> bool {
        self.lease.fence(epoch)
    }

    pub(super) fn budgets(&self) -> impl Iterator<Item = &BudgetId> {
        self.buckets.keys()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    pub(super) fn available(&self, budget: &BudgetId) -> Amount {
        self.buckets.get(budget).map_or(Amount::ZERO, Bucket::available)
    }

    /// True if there is enough of every budget.
    pub(super) fn hold(&self, vector: &Vector) -> bool {
        vector.iter().all(|(budget, amount)| {
            self.buckets.get(budget).is_some_and(|level| level.available() >= *amount)
        })
    }

    /// True if there will be enough of every budget before the lease has ended.
    pub(super) fn will_hold(&self, now: Time, vector: &Vector) -> bool {
        vector.iter().all(|(budget, amount)| {
            let level = self.buckets.get(budget);
            self.lease.alive(now, budget)
                && level.is_some_and(|level| level.time_until(*amount).is_some())
        })
    }

    /// When there will be, at the present rates.
    pub(super) fn refilled_at(&self, now: Time, vector: &Vector) -> Option<Time> {
        let times = vector.iter().map(|(b, amount)| self.buckets.get(b)?.time_until(*amount));
        let longest = times.collect::<Option<Vec<Duration>>>()?.into_iter().max()?;
        Some(now + longest)
    }

    pub(super) fn take(&mut self, vector: &Vector) {
        for (budget, amount) in vector {
            if let Some(level) = self.buckets.get_mut(budget) {
                level.take(*amount);
            }
        }
    }

    /// Corrects a reservation on the spot; false if there is no level to correct.
    pub(super) fn correct(&mut self, budget: &BudgetId, reserved: Amount, charged: Amount) -> bool {
        let Some(level) = self.buckets.get_mut(budget) else { return false };
        level.take(charged - reserved);
        level.add(reserved - charged);
        true
    }

    /// Accrues up to `now`, through every change of rate on the way.
    pub(super) fn advance(&mut self, now: Time) {
        while let Some(at) = self.lease.next_change(self.at).filter(|at| *at <= now) {
            self.at = at;
            for (budget, level) in &mut self.buckets {
                level.advance(at);
                if self.lease.window_ends(at, budget) {
                    level.empty();
                }
                level.set_rate(self.lease.rate(at, budget));
                if !self.lease.alive(at, budget) {
                    level.set_cap(Amount::ZERO);
                }
            }
        }
        self.at = self.at.max(now);
        for level in self.buckets.values_mut() {
            level.advance(now);
        }
    }

    /// Puts a grant in force: a new level starts at what the grant brings along, an old one goes on,
    /// clamped (rule 8). What no longer fits goes back.
    pub(super) fn adopt(&mut self, now: Time, grant: LeaseSet, books: &mut Books) -> Adoption {
        if self.lease.adopt(grant) == Adoption::Stale {
            return Adoption::Stale;
        }
        let Some(grant) = self.lease.grant() else { return Adoption::Stale };
        self.buckets.retain(|budget, level| {
            let stays = grant.items.contains_key(budget);
            if !stays {
                books.given_up(budget, level.level());
            }
            stays
        });
        for (budget, terms) in &grant.items {
            let rate = self.lease.rate(now, budget);
            let level = self
                .buckets
                .entry(budget.clone())
                .or_insert_with(|| Bucket::new(now, rate, terms.cap));
            books.given_back(budget, level.available() + terms.fill - terms.cap);
            level.set_rate(rate);
            level.set_cap(terms.cap);
            level.add(terms.fill);
        }
        Adoption::Adopted
    }

    /// Ends all levels, and tells what was left of each; below zero is debt.
    pub(super) fn give_up(&mut self) -> Vec<(BudgetId, i64)> {
        let buckets = std::mem::take(&mut self.buckets);
        buckets.into_iter().map(|(budget, level)| (budget, level.level())).collect()
    }
}
