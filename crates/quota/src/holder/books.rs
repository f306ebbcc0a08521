//! What a pod has used, given back and owes, per budget, as it tells the allocator.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::waiters::Waiters;
use crate::budget::{BudgetId, Kind};
use crate::charge::Vector;
use crate::message::{Counters, Report, ReportItem, Seen};
use crate::policy::Limit;
use crate::time::Time;
use crate::timing::{TRANSIT_AT_FIRST, TRANSIT_MARGIN};
use crate::units::Amount;

/// Reports whose arrival is not known yet. Beyond it the oldest is forgotten: its debts then count
/// as unconfirmed for longer, never for less.
const UNCONFIRMED_MAX: usize = 64;

/// The longest transit is forgotten after one to two such spans.
const TRANSIT_SPAN: Duration = Duration::from_secs(30);

/// A pod's figures.
#[derive(Debug, Default)]
pub(super) struct Books {
    counters: BTreeMap<BudgetId, Counters>,
    large: BTreeMap<BudgetId, Amount>,
    seen: BTreeMap<BudgetId, Seen>,
    /// Concurrency budgets, with what is in use.
    slots: BTreeMap<BudgetId, Amount>,
    /// Budgets that count from zero at each edge, with the time between two.
    windows: BTreeMap<BudgetId, Duration>,
    /// Debts that some allocator has surely been told.
    confirmed: Vector,
    /// Debts told in reports whose arrival is not known yet.
    told: VecDeque<(Time, Vector)>,
    /// The longest transit of this half minute, and of the one before it.
    transit: (Time, Duration, Duration),
    /// What the last report told of it.
    told_transit: Duration,
    pub(super) refused: u64,
    pub(super) provider_429: u64,
}

impl Books {
    /// Takes note of what must be known of each budget.
    pub(super) fn set_limits<'a>(&mut self, limits: impl Iterator<Item = &'a Limit>) {
        self.windows.clear();
        for budget in limits.flat_map(|limit| &limit.budgets) {
            match budget.kind {
                Kind::Slots { .. } => {
                    self.slots.entry(budget.id.clone()).or_default();
                }
                Kind::Window { length, .. } => {
                    self.windows.insert(budget.id.clone(), length);
                }
                Kind::Bucket { .. } | Kind::Stock { .. } => {}
            }
        }
    }

    pub(super) fn offered(&mut self, vector: &Vector) {
        for (budget, amount) in vector {
            self.of(budget).offered += *amount;
            // A maximum that fades by a 64th per request stands for the 95th percentile.
            let large = self.large.entry(budget.clone()).or_default();
            *large = (*amount).max(*large - large.scale(1, 64));
        }
    }

    pub(super) fn leased(&mut self, vector: &Vector) {
        for (budget, amount) in vector {
            self.of(budget).leased += *amount;
        }
        self.occupy(vector);
    }

    pub(super) fn credit_spent(&mut self, vector: &Vector) {
        for (budget, amount) in vector {
            self.of(budget).credited += *amount;
        }
        self.occupy(vector);
    }

    pub(super) fn credit_returned(&mut self, vector: &Vector) {
        for (budget, amount) in vector {
            let counters = self.of(budget);
            counters.credited += *amount;
            counters.returned += *amount;
            counters.unspent += *amount;
        }
    }

    /// The slots of a credit that is void. What else it gave ends by itself; a slot ends when its pod
    /// says so.
    pub(super) fn slots_returned(&mut self, vector: &Vector) {
        let mut slots = vector.clone();
        slots.retain(|budget, _| self.slots.contains_key(budget));
        self.credit_returned(&slots);
    }

    pub(super) fn forced(&mut self, vector: &Vector) {
        for (budget, amount) in vector {
            self.of(budget).overdrawn += *amount;
        }
        self.occupy(vector);
    }

    pub(super) fn redebit(&mut self, vector: &Vector) {
        for (budget, amount) in vector {
            if !self.slots.contains_key(budget) {
                self.of(budget).overdrawn += *amount;
            }
        }
    }

    pub(super) fn settled(&mut self, budget: &BudgetId, reserved: Amount, charged: Amount) {
        self.of(budget).settled += charged;
        if let Some(in_use) = self.slots.get_mut(budget) {
            *in_use = *in_use - reserved;
        }
    }

    /// True if what was debited at `debit` may have been charged to a window that is over by `now`:
    /// the provider gives nothing back of it, and neither may we. Where nobody tells the edges, there
    /// may have been one.
    pub(super) fn is_of_old_window(&self, budget: &BudgetId, debit: Time, now: Time) -> bool {
        let Some(length) = self.windows.get(budget) else { return false };
        self.seen.get(budget).is_none_or(|seen| seen.edge_between(debit, now, *length))
    }

    /// What a settlement gives back to the allocator, or owes it.
    pub(super) fn difference(&mut self, budget: &BudgetId, reserved: Amount, charged: Amount) {
        let counters = self.of(budget);
        counters.returned += reserved - charged;
        counters.overdrawn += charged - reserved;
    }

    /// A level that ends: what is left goes back, a debt is told.
    pub(super) fn given_up(&mut self, budget: &BudgetId, level: i64) {
        let amount = Amount::from_micros(level.unsigned_abs());
        let counters = self.of(budget);
        if level < 0 {
            counters.overdrawn += amount;
        } else {
            counters.returned += amount;
            counters.unspent += amount;
        }
    }

    /// A part of a level that goes back.
    pub(super) fn given_back(&mut self, budget: &BudgetId, amount: Amount) {
        let counters = self.of(budget);
        counters.returned += amount;
        counters.unspent += amount;
    }

    /// A part of a credit that goes back because the local level was spent instead.
    pub(super) fn swapped(&mut self, budget: &BudgetId, amount: Amount) {
        let counters = self.of(budget);
        counters.leased += amount;
        counters.returned += amount;
        counters.unspent += amount;
    }

    pub(super) fn seen(&mut self, budget: &BudgetId, seen: Seen) {
        self.seen.insert(budget.clone(), seen);
    }

    pub(super) fn sent(&mut self, now: Time, transit: Duration) {
        let (since, longest, before) = &mut self.transit;
        if now.since(*since) > TRANSIT_SPAN {
            (*since, *before, *longest) = (now, *longest, Duration::ZERO);
        }
        *longest = transit.max(*longest);
    }

    /// How late after its debit a request may arrive by what the allocator was told. Before anything was
    /// told: as late as the allocator expects at first, and other pods' ways are like ours.
    pub(super) fn transit_allowed(&self) -> Duration {
        match self.told_transit {
            Duration::ZERO => TRANSIT_AT_FIRST,
            told => told + TRANSIT_MARGIN,
        }
    }

    pub(super) fn counters(&self) -> &BTreeMap<BudgetId, Counters> {
        &self.counters
    }

    pub(super) fn slots_in_use(&self) -> impl Iterator<Item = (&BudgetId, Amount)> {
        self.slots.iter().map(|(budget, in_use)| (budget, *in_use)).filter(|(_, n)| !n.is_zero())
    }

    /// Debts that no allocator has confirmed.
    pub(super) fn debts(&self) -> Vector {
        let debts = self.counters.iter().map(|(budget, counters)| {
            let confirmed = self.confirmed.get(budget).copied().unwrap_or_default();
            (budget.clone(), counters.overdrawn - confirmed)
        });
        debts.filter(|(_, debt)| !debt.is_zero()).collect()
    }

    /// An allocator has welcomed this pod: it has the holdings, and all debts with them.
    pub(super) fn told_all(&mut self) {
        self.told.clear();
        self.confirmed = self.overdrawn();
    }

    /// An allocator has shown that it had everything sent up to `echo`.
    pub(super) fn confirmed(&mut self, echo: Time) {
        while self.told.front().is_some_and(|(at, _)| *at <= echo) {
            if let Some((_, debts)) = self.told.pop_front() {
                self.confirmed = debts;
            }
        }
    }

    pub(super) fn report(&mut self, now: Time, waiters: &Waiters) -> Report {
        self.told.push_back((now, self.overdrawn()));
        if self.told.len() > UNCONFIRMED_MAX {
            self.told.pop_front();
        }
        self.told_transit = self.transit.1.max(self.transit.2);
        let items = self.counters.iter().map(|(budget, counters)| {
            let large = self.large.get(budget).copied().unwrap_or_default();
            let seen = self.seen.get(budget).copied();
            (budget.clone(), ReportItem { counters: *counters, large, seen })
        });
        Report {
            mono: now,
            items: items.collect(),
            waiting: u32::try_from(waiters.len()).unwrap_or(u32::MAX),
            refused: self.refused,
            provider_429: self.provider_429,
            transit: self.told_transit,
        }
    }

    fn overdrawn(&self) -> Vector {
        self.counters
            .iter()
            .map(|(budget, counters)| (budget.clone(), counters.overdrawn))
            .collect()
    }

    fn occupy(&mut self, vector: &Vector) {
        for (budget, in_use) in &mut self.slots {
            *in_use += vector.get(budget).copied().unwrap_or_default();
        }
    }

    fn of(&mut self, budget: &BudgetId) -> &mut Counters {
        self.counters.entry(budget.clone()).or_default()
    }
}
