//! What all pods together may hold, kept up to date instead of added up for every question: an
//! allocator asks it several times for each message, of thousands of pods.
//!
//! It says nothing that the accounts do not say. What a pod may hold falls by itself as time passes;
//! pods whose figures have fallen since they were counted are looked at again when asked.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use super::Account;
use crate::budget::BudgetId;
use crate::message::PodId;
use crate::time::Time;
use crate::units::{Amount, Rate};

/// Rate, cap and floor that may be held of one budget.
pub(super) type Charge = (Rate, Amount, Rate);

/// What all pods together may hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    /// The latest instant at which a pod was counted.
    at: Time,
    totals: BTreeMap<BudgetId, Total>,
    pods: BTreeMap<PodId, Counted>,
    /// Pods by when their figures fall next.
    falls: BTreeSet<(Time, PodId)>,
}

/// Too wide to saturate, so that what was added can be taken away again.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    rate: u128,
    cap: u128,
    floor: u128,
}

/// One pod as it is in the totals.
#[derive(Clone, Debug)]
struct Counted {
    falls_at: Time,
    charges: BTreeMap<BudgetId, Charge>,
}

// === impl Sums ===

impl Sums {
    /// Counts a pod anew, which holds less than it did.
    pub(super) fn recount(&mut self, pod: &PodId, account: &Account) {
        self.count(self.at, pod, account);
    }

    /// Counts a pod anew.
    pub(super) fn count(&mut self, now: Time, pod: &PodId, account: &Account) {
        self.forget(pod);
        self.at = self.at.max(now);
        let (charges, falls_at) = (account.charges(self.at), account.falls_at(self.at));
        for (budget, charge) in &charges {
            self.totals.entry(budget.clone()).or_default().add(charge);
        }
        if falls_at < Time::NEVER {
            self.falls.insert((falls_at, pod.clone()));
        }
        self.pods.insert(pod.clone(), Counted { falls_at, charges });
    }

    /// The pod has ended.
    pub(super) fn forget(&mut self, pod: &PodId) {
        let Some(counted) = self.pods.remove(pod) else { return };
        for (budget, charge) in &counted.charges {
            if let Some(total) = self.totals.get_mut(budget) {
                total.remove(charge);
            }
        }
        self.falls.remove(&(counted.falls_at, pod.clone()));
    }

    /// A pod whose figures have fallen since it was counted, if there is one.
    pub(super) fn fallen(&self, now: Time) -> Option<&PodId> {
        self.falls.first().filter(|(at, _)| *at <= now).map(|(_, pod)| pod)
    }

    /// What all pods together may hold of a budget at `now`.
    pub(super) fn charge(
        &self,
        now: Time,
        budget: &BudgetId,
        pods: &BTreeMap<PodId, Account>,
    ) -> Charge {
        let mut total = self.totals.get(budget).copied().unwrap_or_default();
        if now < self.at {
            // Nobody asks of the past; if somebody did, figures that fell since would be missing.
            total = Total::default();
            pods.values().for_each(|account| total.add(&account.charge(now, budget)));
            return total.charge();
        }
        for (_, pod) in self.falls.iter().take_while(|(at, _)| *at <= now) {
            if let Some(counted) = self.pods.get(pod).and_then(|it| it.charges.get(budget)) {
                total.remove(counted);
            }
            if let Some(account) = pods.get(pod) {
                total.add(&account.charge(now, budget));
            }
        }
        total.charge()
    }
}

// Two accounts that say the same are the same, whatever was counted when.

impl PartialEq for Sums {
    fn eq(&self, _: &Sums) -> bool {
        true
    }
}

impl Eq for Sums {}

impl Hash for Sums {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

// === impl Total ===

impl Total {
    fn add(&mut self, (rate, cap, floor): &Charge) {
        self.rate += u128::from(rate.micros());
        self.cap += u128::from(cap.micros());
        self.floor += u128::from(floor.micros());
    }

    fn remove(&mut self, (rate, cap, floor): &Charge) {
        self.rate -= u128::from(rate.micros());
        self.cap -= u128::from(cap.micros());
        self.floor -= u128::from(floor.micros());
    }

    fn charge(&self) -> Charge {
        let micros = |sum: u128| u64::try_from(sum).unwrap_or(u64::MAX);
        let (rate, cap, floor) = (micros(self.rate), micros(self.cap), micros(self.floor));
        (Rate::from_micros(rate), Amount::from_micros(cap), Rate::from_micros(floor))
    }
}
