//! How long a draw would have to wait, from what is ahead of it and the present rates.
//!
//! An optimistic estimate: what may still come ahead of it is not counted, nor what goes first by
//! guarantees and minimum shares of others, so that what could be served is not refused.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::budget::BudgetId;
use crate::queue::accounts;
use crate::queue::config::Terms;
use crate::queue::draw::Draw;
use crate::queue::flow::{Budgets, Flow, Order};
use crate::queue::lane::{Lane, Rules};
use crate::queue::levels::Levels;
use crate::queue::reservations::{missing, wanted};
use crate::queue::tag::{Stretch, Tag};
use crate::time::Time;
use crate::units::Amount;

/// How long a draw would have to wait, and for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Estimate {
    pub(super) wait: Duration,
    pub(super) binding: Option<BudgetId>,
    /// How many draws come before it.
    pub(super) ahead: usize,
}

/// What comes before a draw, in millionths per budget.
#[derive(Debug, Default)]
struct Ahead {
    /// In all.
    all: BTreeMap<BudgetId, u128>,
    /// Of its own class, but for workloads that may be served by their guarantee.
    class: BTreeMap<BudgetId, u128>,
    /// Of its own workload.
    flow: BTreeMap<BudgetId, u128>,
    count: usize,
}

/// A part of a whole, in 2^-20 of it.
#[derive(Clone, Copy, Debug)]
struct Part(u128);

/// One draw and the lane it comes to.
pub(super) struct Outlook<'a, K, L> {
    pub(super) now: Time,
    pub(super) lane: &'a Lane<K>,
    pub(super) rules: &'a Rules,
    pub(super) levels: &'a L,
}

// === impl Outlook ===

impl<K, L: Levels> Outlook<'_, K, L> {
    /// How long `draw` would have to wait: by the quickest of the rights it may be served by, and not
    /// before its workload is below its ceilings.
    pub(super) fn estimate(&self, draw: &Draw<K>) -> Estimate {
        let ahead = self.ahead(draw);
        let in_turn = |(id, amount): (&BudgetId, &Amount)| {
            (self.in_turn(&draw.class, id, *amount, &ahead), Some(id.clone()))
        };
        let (wait, binding) = draw.vector.iter().map(in_turn).max().unwrap_or_default();
        let by_right = self.by_guarantee(draw, &ahead).map_or(wait, |right| right.min(wait));
        let wait = by_right.max(self.below_ceiling(draw, &ahead));
        Estimate { wait, binding: binding.filter(|_| !wait.is_zero()), ahead: ahead.count }
    }

    /// The wait for one budget when its class, or the minimum share of its class, has its turn.
    fn in_turn(&self, class: &str, id: &BudgetId, amount: Amount, ahead: &Ahead) -> Duration {
        let band = self.rules.band(class);
        let by_class = self.refill(id, amount, of(&ahead.all, id), band.holdback);
        if band.min_share == 0 {
            return by_class;
        }
        let until_owed = of(&ahead.class, id) * 100 / u128::from(band.min_share);
        by_class.min(self.refill(id, amount, until_owed, 0))
    }

    /// The wait until it is guaranteed on every budget where its workload has a guarantee; `None` if
    /// it has none.
    fn by_guarantee(&self, draw: &Draw<K>, ahead: &Ahead) -> Option<Duration> {
        let bounds = &self.rules.config.flows.get(&draw.flow)?.bounds;
        let mut longest = None;
        for id in draw.vector.keys() {
            let Some(rate) = bounds.get(id).map(|bounds| bounds.guaranteed) else { continue };
            if !rate.is_zero() {
                let amount = micros(of(&ahead.flow, id));
                let own = accounts::Ahead { budget: id, amount, rate };
                let at = self.rules.accounts.guaranteed_after(self.now, &draw.flow, own);
                longest = longest.max(Some(at.since(self.now)));
            }
        }
        let refill =
            |(id, amount): (&BudgetId, &Amount)| self.refill(id, *amount, of(&ahead.flow, id), 0);
        let levels = draw.vector.iter().map(refill).max().unwrap_or_default();
        longest.map(|longest| longest.max(levels))
    }

    fn below_ceiling(&self, draw: &Draw<K>, ahead: &Ahead) -> Duration {
        let Some(terms) = self.rules.config.flows.get(&draw.flow) else { return Duration::ZERO };
        let waits = draw.vector.keys().filter_map(|id| {
            let rate = terms.bounds.get(id)?.ceiling?;
            if rate.is_zero() {
                return Some(Duration::MAX);
            }
            let amount = micros(of(&ahead.flow, id));
            let own = accounts::Ahead { budget: id, amount, rate };
            let at = self.rules.accounts.permitted_after(self.now, &draw.flow, own);
            Some(at.since(self.now))
        });
        waits.max().unwrap_or_default()
    }

    /// How long a level takes to rise by `ahead`, to what `amount` needs to find there. None where
    /// nobody knows the rate.
    fn refill(&self, id: &BudgetId, amount: Amount, ahead: u128, holdback: u32) -> Duration {
        let wanted = ahead + wanted(self.levels, id, amount, holdback);
        let missing = missing(wanted, self.levels.level(id));
        missing.time_at(self.levels.rate(id)).unwrap_or_default()
    }

    /// What comes before `draw`: higher classes, its own line, and of each workload of its class as
    /// much as is served before virtual time reaches it (in proportion from all that waits there).
    fn ahead(&self, draw: &Draw<K>) -> Ahead {
        let mut ahead = Ahead::default();
        let value = self.rules.band(&draw.class).value;
        let id = (draw.class.clone(), draw.flow.clone());
        let start = match self.lane.flows.get(&id) {
            Some(flow) => self.own_line(flow, draw, &mut ahead),
            None => self.lane.clock(value),
        };
        for (other, flow) in self.lane.flows.iter().filter(|(other, _)| **other != id) {
            let part = match flow.band.value.cmp(&value) {
                Ordering::Less => continue,
                Ordering::Greater => Part::ALL,
                Ordering::Equal => {
                    let served = (start - self.lane.start(flow)).work(flow.terms.weight);
                    Part::of(served, flow.work)
                }
            };
            for line in flow.lines.values() {
                ahead.count +=
                    usize::try_from(part.of_sum(line.len() as u128)).unwrap_or(usize::MAX);
                for (budget, cost) in line.cost() {
                    let cost = part.of_sum(*cost);
                    *ahead.all.entry(budget.clone()).or_default() += cost;
                    if other.0 == draw.class && !has_guarantee(&flow.terms) {
                        *ahead.class.entry(budget.clone()).or_default() += cost;
                    }
                }
            }
        }
        ahead
    }

    /// Counts what comes before `order` in its own line; returns where its service will begin.
    fn own_line(&self, flow: &Flow<K>, draw: &Draw<K>, ahead: &mut Ahead) -> Tag {
        let mut start = self.lane.start(flow);
        if flow.is_idle() {
            start = start.max(self.lane.clock(flow.band.value));
        }
        let budgets: Budgets = draw.vector.keys().cloned().collect();
        let Some(line) = flow.lines.get(&budgets) else { return start };
        let (count, cost, work) = line.before(&Order::last(draw));
        ahead.count = count;
        ahead.all = cost.clone();
        if !has_guarantee(&flow.terms) {
            ahead.class = cost.clone();
        }
        ahead.flow = cost;
        start + Stretch::of(work, flow.terms.weight)
    }
}

// === impl Part ===

impl Part {
    const ALL: Part = Part(Part::WHOLE);
    const WHOLE: u128 = 1 << 20;

    fn of(part: Duration, whole: Duration) -> Part {
        let whole = whole.as_nanos().max(1);
        Part(part.as_nanos().min(whole) * Part::WHOLE / whole)
    }

    fn of_sum(self, sum: u128) -> u128 {
        sum * self.0 / Part::WHOLE
    }
}

fn has_guarantee(terms: &Terms) -> bool {
    terms.bounds.values().any(|bounds| !bounds.guaranteed.is_zero())
}

fn of(part: &BTreeMap<BudgetId, u128>, id: &BudgetId) -> u128 {
    part.get(id).copied().unwrap_or_default()
}

fn micros(sum: u128) -> Amount {
    Amount::from_micros(u64::try_from(sum).unwrap_or(u64::MAX))
}
