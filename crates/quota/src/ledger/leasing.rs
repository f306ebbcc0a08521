//! The ledger's leases: when one changes, and what goes along with it. How large they are is in
//! [`super::plan`], what may be granted in [`crate::accounts`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::Ledger;
use super::central::Central;
use super::plan::{self, Asker, Leasable, Wish};
use super::session::Session;
use crate::budget::BudgetId;
use crate::message::{LeaseSet, PodId, Terms, ToPod, WindowEnd};
use crate::time::Time;
use crate::units::{Amount, Rate};

/// A lease is renewed, with a fresh anchor, this long after it was granted if the pod has reported.
const RENEW_AFTER: Duration = Duration::from_millis(950);
/// A lease changes if it would by this much, in percent (`leases.md` 4.5).
const CHANGE_PERCENT: u64 = 5;

impl Ledger {
    /// Sizes every lease anew, and grants those that change or are due.
    pub(super) fn plan(&mut self, now: Time) {
        let transit = self.sessions.values().map(|session| session.transit).max();
        if self.centre.set_transit(transit) {
            self.deny_hopeless();
        }
        let askers = self.askers(now);
        let mut leases = plan::leases(&self.leasable(now), &askers);
        let pods: Vec<PodId> = self.sessions.keys().cloned().collect();
        for pod in pods {
            let wanted = leases.remove(&pod).unwrap_or_default();
            if self.is_due(now, &pod, &wanted) {
                self.grant(now, &pod, wanted);
            }
        }
    }

    fn is_due(&self, now: Time, pod: &PodId, wanted: &BTreeMap<BudgetId, Terms>) -> bool {
        let Some(session) = self.sessions.get(pod).filter(|session| session.welcome) else {
            return false;
        };
        let nothing = session.terms.is_empty() && wanted.is_empty();
        let dwelt = now.since(session.granted_at) >= RENEW_AFTER;
        let shrinks = session.terms.iter().any(|(budget, terms)| {
            let rate = wanted.get(budget).map_or(Rate::ZERO, |wanted| wanted.rate);
            rate < terms.rate.scale(100 - CHANGE_PERCENT, 100) && self.contended(now, budget)
        });
        // A pod that has used half of its level is filled up from a central level that is full and
        // loses its refill.
        let refills = session.terms.iter().any(|(budget, terms)| {
            let full = self.centre.get(budget).is_some_and(Central::is_full);
            full && session.used.get(budget).is_some_and(|used| *used >= terms.cap.scale(1, 2))
        });
        let renews = dwelt && session.reported;
        session.changed || (!nothing && (renews || shrinks || refills))
    }

    fn grant(&mut self, now: Time, pod: &PodId, mut wanted: BTreeMap<BudgetId, Terms>) {
        let Some(session) = self.sessions.get(pod) else { return };
        for (budget, terms) in &mut wanted {
            let window = self.centre.get(budget).and_then(Central::window);
            terms.window_end = window.and_then(|(at, length)| {
                Some(WindowEnd { after: session.after_echo(at)?, length })
            });
            // Small wavering is not worth a change, and keeps shares from oscillating.
            if let Some(held) = session.terms.get(budget) {
                let change = (terms.rate - held.rate) + (held.rate - terms.rate);
                let small = change <= held.rate.scale(CHANGE_PERCENT, 100);
                if small && !self.contended(now, budget) {
                    terms.rate = held.rate;
                }
            }
            let held = session.terms.get(budget).map_or(Rate::ZERO, |held| held.rate);
            let grows = terms.rate > held;
            if grows && self.centre.get(budget).is_some_and(|it| !it.bears(terms.rate - held)) {
                (terms.rate, terms.floor) = (held, terms.floor.min(held));
            }
        }
        let granted = self.accounts.grant(now, pod, session.echo, &wanted);
        let granted = granted.map(|grant| self.fill(now, pod, grant));
        let Some(session) = self.sessions.get_mut(pod) else { return };
        session.reported = false;
        if let Some(grant) = granted {
            session.terms = grant.items.clone();
            session.granted_at = now;
            session.changed = false;
            self.outbox.push((pod.clone(), ToPod::Lease(grant)));
        }
        self.refresh(now);
    }

    /// Sends along what central levels that are full would lose: what caps that grow take from them,
    /// and refill in the place of what the pod has used.
    fn fill(&mut self, now: Time, pod: &PodId, mut grant: LeaseSet) -> LeaseSet {
        let Some(session) = self.sessions.get_mut(pod) else { return grant };
        let (before, used) = (session.terms.clone(), std::mem::take(&mut session.used));
        self.refresh_rooms(now, |central, budget, room, caps| {
            let Some(terms) = grant.items.get_mut(budget) else {
                return central.set_room(room, caps);
            };
            let grown = terms.cap - before.get(budget).map_or(Amount::ZERO, |terms| terms.cap);
            let refill = used.get(budget).copied().filter(|_| central.is_full());
            let fill = central.over(caps).min(grown) + refill.unwrap_or_default();
            terms.fill = fill.min(terms.cap).min(central.available());
            central.take(terms.fill);
            central.set_room(room, caps);
        });
        grant
    }

    fn askers(&self, now: Time) -> Vec<Asker> {
        let asker = |(pod, session): (&PodId, &Session)| {
            let flow = session.flow.clone().filter(|_| session.welcome)?;
            let quota = self.quota(&flow)?;
            let class = self.policy.classes.get(&quota.class);
            let min_share = class.map_or(0, |class| class.min_share_percent);
            let wishes = session.demand.iter().filter_map(|(budget, demand)| {
                let central = self.centre.get(budget)?;
                let rate = demand.now(now, self.contended(now, budget));
                let bounds = quota.bounds(&central.budget);
                (!rate.is_zero()).then(|| {
                    let wish = Wish {
                        rate,
                        large: demand.large,
                        guaranteed: bounds.guaranteed,
                        ceiling: bounds.ceiling,
                        min_share: central.budget.rate().scale(u64::from(min_share), 100),
                    };
                    (budget.clone(), wish)
                })
            });
            let demand: BTreeMap<BudgetId, Wish> = wishes.collect();
            let band = class.map_or(0, |class| class.value);
            let (pod, weight) = (pod.clone(), quota.weight);
            (!demand.is_empty()).then_some(Asker { pod, flow, band, weight, demand })
        };
        self.sessions.iter().filter_map(asker).collect()
    }

    fn leasable(&self, now: Time) -> BTreeMap<BudgetId, Leasable> {
        let leasable = self.centre.iter().map(|(budget, central)| {
            let leasable = Leasable {
                capacity: central.capacity(),
                floor_ttl: central.budget.floor_duration,
                by_rate: central.is_rate(),
                contended: self.contended(now, budget),
            };
            (budget.clone(), leasable)
        });
        leasable.collect()
    }
}
