//! The allocator's side of the lease protocol: what every pod may hold at this instant, and hence
//! what may still be granted.
//!
//! Rules of `leases.md` 3.5 kept here: commit, then grow (1); margins (3); quiet (4); live reports
//! only (5); no growth before knowledge (7); floors with a ceiling of their own (9). The pod's side
//! is [`crate::lease`]; levels, demand and queues are in [`crate::ledger`]. The model check explores
//! exactly these functions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::budget::BudgetId;
use crate::message::{Epoch, Holdings, LeaseSet, Nonce, PodId, Terms, Version};
use crate::time::Time;
use crate::timing::Timing;
use crate::units::{Amount, Rate};

mod sums;

use sums::{Charge, Sums};

/// Grants to one pod that may be unconfirmed at once. A pod that confirms nothing gets no more.
const UNCONFIRMED_MAX: usize = 16;

/// What a new leader knows when it begins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Takeover {
    /// Above every epoch before it.
    pub epoch: Epoch,
    /// Until when the leader before it may still act; in the past after a confirmed death.
    pub quiet_until: Time,
    /// Pods that may hold something: they must register, or be confirmed gone.
    pub roster: BTreeSet<PodId>,
    /// The largest sum of floors promised by earlier leaders in the last T2.
    pub floors: BTreeMap<BudgetId, Rate>,
    /// The longest T2 that earlier leaders promised.
    pub floor_ttl: Duration,
}

/// How much of a budget may be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Capacity {
    /// What all pods and the central level together may accrue.
    pub rate: Rate,
    /// What all local levels together may hold.
    pub caps: Amount,
    /// What all floors together may be (phi * C).
    pub floors: Rate,
}

/// What became of holdings that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// They count.
    Accepted,
    /// They may have died on the way: challenge again.
    Stale,
    /// They answer no open challenge: ignored.
    Unasked,
}

/// What every pod may hold, by the leader of one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Accounts {
    timing: Timing,
    epoch: Epoch,
    quiet_until: Time,
    /// After it, pods that are still missing hold floors at most.
    learn_until: Time,
    /// After it, they hold nothing.
    floors_until: Time,
    missing: BTreeSet<PodId>,
    missing_floors: BTreeMap<BudgetId, Rate>,
    /// What registered pods brought along; all that may be moved about while pods are missing.
    known: BTreeMap<BudgetId, Known>,
    capacity: BTreeMap<BudgetId, Capacity>,
    pods: BTreeMap<PodId, Account>,
    /// What all of `pods` may hold together.
    sums: Sums,
    nonce: Nonce,
}

/// What registered pods brought along of one budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
struct Known {
    rate: Rate,
    caps: Amount,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct Account {
    boot: u64,
    version: Version,
    challenge: Option<Challenge>,
    registered: bool,
    /// Grants that the pod may hold: neither replaced by a confirmed one nor expired.
    grants: Vec<Granted>,
}

/// A question that has no answer yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Challenge {
    nonce: Nonce,
    asked: Time,
    /// The run of the pod that was asked.
    boot: u64,
}

/// One grant that a pod may hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Granted {
    version: Version,
    full_until: Time,
    items: BTreeMap<BudgetId, GrantedTerms>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct GrantedTerms {
    rate: Rate,
    cap: Amount,
    floor: Rate,
    floor_until: Time,
}

// === impl Accounts ===

impl Accounts {
    /// Begins an epoch at `now`.
    pub fn new(now: Time, timing: Timing, start: Takeover) -> Accounts {
        let quiet_until = start.quiet_until.max(now);
        Accounts {
            timing,
            epoch: start.epoch,
            quiet_until,
            learn_until: quiet_until + timing.charged(timing.lease_ttl),
            floors_until: quiet_until + timing.charged(start.floor_ttl.max(timing.lease_ttl)),
            missing: start.roster,
            missing_floors: start.floors,
            known: BTreeMap::new(),
            capacity: BTreeMap::new(),
            pods: BTreeMap::new(),
            sums: Sums::default(),
            nonce: Nonce(0),
        }
    }

    /// The epoch of this leader.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Until when the leader before may still act, and nothing is granted or asked.
    pub fn quiet_until(&self) -> Time {
        self.quiet_until
    }

    /// True if the pod surely holds nothing.
    pub fn holds_nothing(&self, now: Time, pod: &PodId) -> bool {
        let holding = |account: &Account| account.grants.iter().any(|granted| granted.alive(now));
        !self.missing.contains(pod) && !self.pods.get(pod).is_some_and(holding)
    }

    /// Sets what may be granted of a budget. A cut takes effect as pods confirm or expire.
    pub fn set_capacity(&mut self, budget: BudgetId, capacity: Capacity) {
        if self.capacity.get(&budget) != Some(&capacity) {
            self.capacity.insert(budget, capacity);
        }
    }

    /// Asks a pod what it holds. `None` while the leader before may still act (rule 4).
    pub fn challenge(&mut self, now: Time, pod: &PodId, boot: u64) -> Option<Nonce> {
        if now < self.quiet_until {
            return None;
        }
        self.nonce.0 += 1;
        let account = self.pods.entry(pod.clone()).or_default();
        account.challenge = Some(Challenge { nonce: self.nonce, asked: now, boot });
        Some(self.nonce)
    }

    /// Takes down what a pod says it holds, if it surely still holds it now (rule 5).
    ///
    /// A pod that answers with another boot id has restarted: its old run holds nothing any more.
    /// Its Hello proves nothing, because it may be that of a dead run, delayed.
    pub fn register(&mut self, now: Time, pod: &PodId, holdings: &Holdings) -> Registration {
        let Some(account) = self.pods.get_mut(pod) else { return Registration::Unasked };
        let challenge = account.challenge.take_if(|asked| asked.nonce == holdings.nonce);
        let Some(Challenge { asked, boot, .. }) = challenge else { return Registration::Unasked };
        // What the pod held when it answered, it held for at least that long after it was asked.
        let surely = |left: Duration| left.is_zero() || now < asked + self.timing.surely_held(left);
        let floors = holdings.items.values().filter(|held| !held.floor.is_zero());
        if !surely(holdings.ttl_left) || !floors.map(|held| held.floor_left).all(surely) {
            return Registration::Stale;
        }
        self.missing.remove(pod);
        if account.boot != boot {
            *account = Account { boot, version: account.version, ..Account::default() };
        }
        if account.registered {
            // The same leader has its own books, which are never lower than what the pod holds.
            return Registration::Accepted;
        }
        account.registered = true;
        let granted = Granted::from_holdings(now, &self.timing, holdings);
        for (budget, terms) in &granted.items {
            let known = self.known.entry(budget.clone()).or_default();
            known.rate += terms.rate_at(now, &granted);
            known.caps += terms.cap;
        }
        account.grants.push(granted);
        account.reap(now);
        self.sums.count(now, pod, account);
        Registration::Accepted
    }

    /// A pod has confirmed a grant: what it replaced is no longer held.
    pub fn acked(&mut self, pod: &PodId, epoch: Epoch, version: Version) {
        if epoch == self.epoch
            && let Some(account) = self.pods.get_mut(pod)
            && version <= account.version
        {
            let before = account.grants.len();
            account.grants.retain(|granted| granted.version >= version);
            if account.grants.len() < before {
                self.sums.recount(pod, account);
            }
        }
    }

    /// A pod has joined. While the leader before may still act, it may lease to that pod too, so the
    /// pod belongs on the roster.
    pub fn joined(&mut self, now: Time, pod: &PodId) {
        if now < self.quiet_until {
            self.missing.insert(pod.clone());
        }
    }

    /// A pod has surely ended: it holds nothing.
    pub fn gone(&mut self, pod: &PodId) {
        self.missing.remove(pod);
        self.pods.remove(pod);
        self.sums.forget(pod);
    }

    /// Forgets grants that have surely ended.
    pub fn reap(&mut self, now: Time) {
        while let Some(pod) = self.sums.fallen(now).cloned() {
            let Some(account) = self.pods.get_mut(&pod) else { return };
            account.reap(now);
            self.sums.count(now, &pod, account);
        }
    }

    /// Grants `wanted`, or as much of it as the rules allow, as the pod's next lease. `None` if the
    /// pod must not be granted anything now: quiet, not registered, or silent on earlier grants.
    pub fn grant(
        &mut self,
        now: Time,
        pod: &PodId,
        echo: Time,
        wanted: &BTreeMap<BudgetId, Terms>,
    ) -> Option<LeaseSet> {
        self.reap(now);
        let account = self.pods.get(pod)?;
        let silent = account.grants.len() >= UNCONFIRMED_MAX;
        if now < self.quiet_until || !account.registered || silent {
            return None;
        }
        let items: BTreeMap<BudgetId, Terms> = wanted
            .iter()
            .map(|(budget, terms)| (budget.clone(), self.permitted(now, pod, budget, *terms)))
            .filter(|(_, terms)| !terms.rate.is_zero())
            .collect();
        let full_until = now + self.timing.charged(self.timing.lease_ttl);
        let charged = items.iter().map(|(budget, terms)| {
            let floor_until = now + self.timing.charged(terms.floor_ttl);
            let Terms { rate, cap, floor, .. } = *terms;
            (budget.clone(), GrantedTerms { rate, cap, floor, floor_until })
        });
        let charged = charged.collect();
        let account = self.pods.get_mut(pod)?;
        account.version.0 += 1;
        let version = account.version;
        account.grants.push(Granted { version, full_until, items: charged });
        self.sums.count(now, pod, account);
        Some(LeaseSet { epoch: self.epoch, version, echo, ttl: self.timing.lease_ttl, items })
    }

    /// What may be held of a budget at `now`, all pods and versions counted at their worst.
    pub fn charge(&self, now: Time, budget: &BudgetId) -> Rate {
        self.sums.charge(now, budget, &self.pods).0
    }

    /// What may be held in local levels of a budget, those of missing pods included.
    pub fn caps(&self, now: Time, budget: &BudgetId) -> Amount {
        self.lost_caps(now, budget) + self.sums.charge(now, budget, &self.pods).1
    }

    /// The floors promised of a budget and not yet surely over.
    pub fn floors(&self, now: Time, budget: &BudgetId) -> Rate {
        self.sums.charge(now, budget, &self.pods).2
    }

    /// What one pod may hold of a budget: rate, cap and floor.
    pub fn charge_of(&self, now: Time, pod: &PodId, budget: &BudgetId) -> (Rate, Amount, Rate) {
        self.pods.get(pod).map(|account| account.charge(now, budget)).unwrap_or_default()
    }

    /// What nobody may hold, and the leader may hand out or keep as its central level (rules 1, 7).
    pub fn room(&self, now: Time, budget: &BudgetId) -> Rate {
        self.ceiling(now, budget) - self.charge(now, budget)
    }

    /// True until every pod of the roster has registered, is gone, or can hold floors at most.
    pub fn learning(&self, now: Time) -> bool {
        now < self.quiet_until || (!self.missing.is_empty() && now < self.learn_until)
    }

    /// Pods of the roster that have neither registered nor been confirmed gone.
    pub fn missing(&self) -> impl Iterator<Item = &PodId> {
        self.missing.iter()
    }

    /// Pods that hold or may hold something, or are registered.
    pub fn pods(&self) -> impl Iterator<Item = &PodId> {
        self.pods.keys()
    }

    /// True if the pod's holdings are known.
    pub fn registered(&self, pod: &PodId) -> bool {
        self.pods.get(pod).is_some_and(|account| account.registered)
    }

    /// When, after `now`, capacity comes back by itself; for timers.
    pub fn next_change(&self, now: Time) -> Option<Time> {
        let takeover = [self.quiet_until, self.learn_until, self.floors_until];
        let takeover = takeover.into_iter().filter(|_| !self.missing.is_empty());
        let grants = self.pods.values().flat_map(|account| &account.grants);
        let ends = grants.flat_map(Granted::ends);
        takeover.chain(ends).filter(|at| *at > now).min()
    }

    /// The sum that may be held at `now`.
    fn ceiling(&self, now: Time, budget: &BudgetId) -> Rate {
        let capacity = self.capacity.get(budget).copied().unwrap_or_default();
        if now < self.quiet_until {
            return Rate::ZERO;
        }
        if self.learning(now) {
            let known = self.known.get(budget).copied().unwrap_or_default();
            return known.rate.min(capacity.rate);
        }
        capacity.rate - self.lost_floors(now, budget)
    }

    /// Floors that missing pods may still hold.
    fn lost_floors(&self, now: Time, budget: &BudgetId) -> Rate {
        if self.missing.is_empty() || now >= self.floors_until {
            return Rate::ZERO;
        }
        self.missing_floors.get(budget).copied().unwrap_or_default()
    }

    /// What the levels of missing pods may still hold: all that no registered pod brought along. A
    /// level lives as long as its floor.
    fn lost_caps(&self, now: Time, budget: &BudgetId) -> Amount {
        let floors = self.missing_floors.get(budget).is_some_and(|floors| !floors.is_zero());
        let until = if floors { self.floors_until } else { self.learn_until };
        if self.missing.is_empty() || now >= until {
            return Amount::ZERO;
        }
        let capacity = self.capacity.get(budget).copied().unwrap_or_default();
        let known = self.known.get(budget).copied().unwrap_or_default();
        capacity.caps - known.caps
    }

    /// As much of `wanted` as the pod may be granted: what it may hold anyway, and the room.
    fn permitted(&self, now: Time, pod: &PodId, budget: &BudgetId, wanted: Terms) -> Terms {
        let capacity = self.capacity.get(budget).copied().unwrap_or_default();
        let (own_rate, own_cap, own_floor) = self.charge_of(now, pod, budget);
        let rate = wanted.rate.min(own_rate + self.room(now, budget)).min(capacity.rate);
        let caps_room = capacity.caps - self.caps(now, budget);
        let floors_room =
            capacity.floors - self.floors(now, budget) - self.lost_floors(now, budget);
        let floors_room = if self.learning(now) { Rate::ZERO } else { floors_room };
        let floor = wanted.floor.min(own_floor + floors_room).min(rate);
        // A level without a floor ends with its lease.
        let floor_ttl = if floor.is_zero() { Duration::ZERO } else { wanted.floor_ttl };
        Terms { rate, cap: wanted.cap.min(own_cap + caps_room), floor, floor_ttl, ..wanted }
    }
}

// === impl Account ===

impl Account {
    fn charge(&self, now: Time, budget: &BudgetId) -> Charge {
        let held = self.grants.iter().filter_map(|granted| {
            let terms = granted.items.get(budget)?;
            let alive = now < terms.floor_until.max(granted.full_until);
            alive.then(|| (terms.rate_at(now, granted), terms.cap, terms.floor))
        });
        held.fold(Charge::default(), most)
    }

    /// The same for all budgets of which something may be held.
    fn charges(&self, now: Time) -> BTreeMap<BudgetId, Charge> {
        let mut charges = BTreeMap::new();
        for granted in &self.grants {
            for (budget, terms) in &granted.items {
                if now < terms.floor_until.max(granted.full_until) {
                    let held = (terms.rate_at(now, granted), terms.cap, terms.floor);
                    let charge = charges.entry(budget.clone()).or_default();
                    *charge = most(*charge, held);
                }
            }
        }
        charges
    }

    /// When the charge of some budget falls next by itself; [`Time::NEVER`] if it does not.
    fn falls_at(&self, now: Time) -> Time {
        let ends = self.grants.iter().flat_map(Granted::ends);
        ends.filter(|at| *at > now).min().unwrap_or(Time::NEVER)
    }

    fn reap(&mut self, now: Time) {
        self.grants.retain(|granted| granted.alive(now));
    }
}

/// The larger of each.
fn most(a: Charge, b: Charge) -> Charge {
    (a.0.max(b.0), a.1.max(b.1), a.2.max(b.2))
}

// === impl Granted ===

impl Granted {
    fn from_holdings(now: Time, timing: &Timing, holdings: &Holdings) -> Granted {
        let items = holdings.items.iter().map(|(budget, held)| {
            let floor_until = now + timing.charged(held.floor_left);
            let (rate, cap, floor) = (held.rate, held.cap, held.floor);
            (budget.clone(), GrantedTerms { rate, cap, floor, floor_until })
        });
        let full_until = match holdings.ttl_left {
            Duration::ZERO => now,
            left => now + timing.charged(left),
        };
        Granted { version: Version(0), full_until, items: items.collect() }
    }

    /// When something of it ends.
    fn ends(&self) -> impl Iterator<Item = Time> {
        let floors = self.items.values().map(|terms| terms.floor_until);
        floors.chain([self.full_until])
    }

    fn alive(&self, now: Time) -> bool {
        now < self.full_until || self.items.values().any(|terms| now < terms.floor_until)
    }
}

// === impl GrantedTerms ===

impl GrantedTerms {
    fn rate_at(&self, now: Time, granted: &Granted) -> Rate {
        if now < granted.full_until {
            self.rate
        } else if now < self.floor_until {
            self.floor
        } else {
            Rate::ZERO
        }
    }
}

#[cfg(test)]
mod tests;
