//! The pod's side of the lease protocol: which grant is in force, until when, and what the pod may
//! refuse for ever after a challenge.
//!
//! Rules of `leases.md` 3.5 kept here: order (2), anchored expiry (3), fence (6), and the floor as a
//! part of its lease (9). Levels are in [`crate::holder`]; the charge for a lease is in
//! [`crate::accounts`]. The model check explores exactly these functions.

use std::time::Duration;

use crate::budget::BudgetId;
use crate::message::{Epoch, Held, LeaseSet, Terms, Version, WindowEnd};
use crate::time::Time;
use crate::units::Rate;

/// The lease of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Lease {
    fence: Epoch,
    grant: Option<LeaseSet>,
}

/// What became of a grant that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// It is in force, and must be acknowledged.
    Adopted,
    /// It is older than what is in force, or than the fence: ignored.
    Stale,
}

impl Lease {
    /// Puts a grant in force if it is strictly newer than the one before and not fenced off.
    pub fn adopt(&mut self, grant: LeaseSet) -> Adoption {
        let newest = self.grant.as_ref().map_or((self.fence, Version(0)), |g| (g.epoch, g.version));
        if grant.epoch < self.fence || (grant.epoch, grant.version) <= newest {
            return Adoption::Stale;
        }
        self.fence = grant.epoch;
        self.grant = Some(grant);
        Adoption::Adopted
    }

    /// Binds the pod to refuse anything older than `epoch`, for ever. False if the pod has already
    /// answered a newer one; such a challenge gets no answer.
    #[must_use]
    pub fn fence(&mut self, epoch: Epoch) -> bool {
        self.fence = self.fence.max(epoch);
        self.fence == epoch
    }

    /// The newest epoch seen.
    pub fn epoch(&self) -> Epoch {
        self.fence
    }

    /// True if credit of `epoch` may be spent.
    pub fn accepts(&self, epoch: Epoch) -> bool {
        epoch >= self.fence
    }

    /// The grant in force, dead or alive.
    pub fn grant(&self) -> Option<&LeaseSet> {
        self.grant.as_ref()
    }

    /// What accrues at `now`: the rate until T1, the floor until T2, then nothing.
    pub fn rate(&self, now: Time, budget: &BudgetId) -> Rate {
        self.item(budget).map_or(Rate::ZERO, |(grant, terms)| {
            if now < grant.echo + grant.ttl {
                terms.rate
            } else if now < grant.echo + terms.floor_ttl.max(grant.ttl) {
                terms.floor
            } else {
                Rate::ZERO
            }
        })
    }

    /// True as long as a local level may be spent: until T2.
    pub fn alive(&self, now: Time, budget: &BudgetId) -> bool {
        self.item(budget)
            .is_some_and(|(grant, terms)| now < grant.echo + terms.floor_ttl.max(grant.ttl))
    }

    /// How much longer the full rate lasts.
    pub fn ttl_left(&self, now: Time) -> Duration {
        self.grant.as_ref().map_or(Duration::ZERO, |grant| (grant.echo + grant.ttl).since(now))
    }

    /// What is held of a budget, for an answer to a challenge. Without the slots, which the holder
    /// knows.
    pub fn held(&self, now: Time, budget: &BudgetId) -> Held {
        let Some((grant, terms)) = self.item(budget) else { return Held::default() };
        Held {
            rate: terms.rate,
            cap: terms.cap,
            floor: terms.floor,
            floor_left: (grant.echo + terms.floor_ttl).since(now),
            in_use: crate::units::Amount::ZERO,
        }
    }

    /// When, after `now`, the rate of some budget changes; for timers.
    pub fn next_change(&self, now: Time) -> Option<Time> {
        let grant = self.grant.as_ref()?;
        let ends = grant.items.values().flat_map(|terms| {
            let window_end = terms.window_end.map(|end| end.next(grant.echo, now));
            [Some(grant.echo + terms.floor_ttl), window_end].into_iter().flatten()
        });
        ends.chain([grant.echo + grant.ttl]).filter(|end| *end > now).min()
    }

    /// True if a window ends at exactly `at`, so that the level dies.
    pub fn window_ends(&self, at: Time, budget: &BudgetId) -> bool {
        self.item(budget).is_some_and(|(grant, terms)| {
            let before = Time::from_nanos(at.as_nanos().saturating_sub(1));
            terms.window_end.is_some_and(|end| end.next(grant.echo, before) == at)
        })
    }

    fn item(&self, budget: &BudgetId) -> Option<(&LeaseSet, &Terms)> {
        let grant = self.grant.as_ref()?;
        grant.items.get(budget).map(|terms| (grant, terms))
    }
}

impl WindowEnd {
    /// The first end after `now`.
    fn next(&self, anchor: Time, now: Time) -> Time {
        let first = anchor + self.after;
        let length = self.length.as_nanos().max(1);
        if now < first {
            return first;
        }
        let over = now.since(first).as_nanos() / length + 1;
        first + Duration::from_nanos(u64::try_from(over * length).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::units::Amount;

    const TPM: &str = "openai/gpt/tokensPerMinute";

    fn grant(epoch: u64, version: u64, echo_ms: u64) -> LeaseSet {
        let terms = Terms {
            rate: Rate::from_micros(10),
            cap: Amount::from_units(1),
            floor: Rate::from_micros(2),
            floor_ttl: Duration::from_secs(3_600),
            ..Terms::default()
        };
        LeaseSet {
            epoch: Epoch(epoch),
            version: Version(version),
            echo: Time::from_millis(echo_ms),
            ttl: Duration::from_secs(60),
            items: BTreeMap::from([(BudgetId::from_wire(TPM), terms)]),
        }
    }

    #[test]
    fn only_a_strictly_newer_grant_is_adopted() {
        let mut lease = Lease::default();
        assert_eq!(lease.adopt(grant(1, 2, 0)), Adoption::Adopted);
        assert_eq!(lease.adopt(grant(1, 2, 0)), Adoption::Stale);
        assert_eq!(lease.adopt(grant(1, 1, 0)), Adoption::Stale);
        assert_eq!(lease.adopt(grant(2, 1, 0)), Adoption::Adopted);
        assert_eq!(lease.adopt(grant(1, 9, 0)), Adoption::Stale);
    }

    #[test]
    fn an_answered_challenge_fences_off_every_older_grant() {
        let mut lease = Lease::default();
        assert!(lease.fence(Epoch(3)));
        assert_eq!(lease.adopt(grant(2, 9, 0)), Adoption::Stale);
        assert!(!lease.fence(Epoch(2)));
        assert!(!lease.accepts(Epoch(2)));
        assert_eq!(lease.adopt(grant(3, 1, 0)), Adoption::Adopted);
    }

    #[test]
    fn a_lease_declines_from_rate_to_floor_to_nothing_counted_from_its_anchor() {
        let budget = BudgetId::from_wire(TPM);
        let mut lease = Lease::default();
        lease.adopt(grant(1, 1, 5_000));
        for (at_ms, rate) in [(5_000, 10), (64_999, 10), (65_000, 2), (3_604_999, 2)] {
            assert_eq!(lease.rate(Time::from_millis(at_ms), &budget), Rate::from_micros(rate));
        }
        assert_eq!(lease.rate(Time::from_millis(3_605_000), &budget), Rate::ZERO);
        assert!(!lease.alive(Time::from_millis(3_605_000), &budget));
    }
}
