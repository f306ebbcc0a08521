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
use crate::queue::flow::{Flow, Line, Order};
use crate::queue::lane::{FlowId, Lane, Rules};
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

/// What comes before a draw in its own line, and where its service will begin in virtual time.
struct OwnLine {
    count: usize,
    cost: BTreeMap<BudgetId, u128>,
    start: Tag,
}

/// What of the work of other workloads is done before virtual time reaches a draw.
#[derive(Debug, Default)]
struct Work {
    whole: Duration,
    before: Duration,
    /// Of that, what is of the draw's class and not done by guarantee.
    of_class: Duration,
}

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

    /// What comes before `draw`: higher classes, its own line, and what virtual time lets other
    /// workloads of its class value do before (of all that they take, in proportion to the work).
    fn ahead(&self, draw: &Draw<K>) -> Ahead {
        let value = self.rules.band(&draw.class).value;
        let id = (draw.class.clone(), draw.flow.clone());
        let own = self.lane.flows.get(&id);
        let line = self.own_line(own, value, draw);
        let work = self.work(&id, value, line.start);
        let own_is_guaranteed = own.is_some_and(|flow| has_guarantee(&flow.terms));

        let mut ahead = Ahead { count: line.count, flow: line.cost, ..Ahead::default() };
        let own_count = own.map_or(0, |flow| flow.lines.values().map(Line::len).sum());
        let mut peers = 0;
        for class in self.lane.classes.values() {
            match class.band.value.cmp(&value) {
                Ordering::Greater => ahead.count += class.count,
                Ordering::Equal => peers += class.count,
                Ordering::Less => {}
            }
        }
        ahead.count += usize::try_from(part((peers - own_count) as u128, work.before, work.whole))
            .unwrap_or(usize::MAX);
        for budget in draw.vector.keys() {
            let (higher, peers) = self.waiting(budget, value);
            let of_own =
                own.map_or(0, |flow| flow.lines.values().map(|line| line.cost(budget)).sum());
            let line = of(&ahead.flow, budget);
            let before = part(peers - of_own, work.before, work.whole);
            ahead.all.insert(budget.clone(), higher + before + line);
            let of_class = part(peers - of_own, work.of_class, work.whole);
            let line = if own_is_guaranteed { 0 } else { line };
            ahead.class.insert(budget.clone(), of_class + line);
        }
        ahead
    }

    /// What waits for `budget` in classes above `value`, and in those of that value.
    fn waiting(&self, budget: &BudgetId, value: i32) -> (u128, u128) {
        let (mut higher, mut equal) = (0, 0);
        for class in self.lane.classes.values() {
            match class.band.value.cmp(&value) {
                Ordering::Greater => higher += class.cost(budget),
                Ordering::Equal => equal += class.cost(budget),
                Ordering::Less => {}
            }
        }
        (higher, equal)
    }

    fn own_line(&self, flow: Option<&Flow<K>>, value: i32, draw: &Draw<K>) -> OwnLine {
        let clock = self.lane.clock(value);
        let Some(flow) = flow else {
            return OwnLine { count: 0, cost: BTreeMap::new(), start: clock };
        };
        let start = self.lane.start(flow);
        let start = if flow.is_idle() { start.max(clock) } else { start };
        let budgets: Vec<BudgetId> = draw.vector.keys().cloned().collect();
        let Some(line) = flow.lines.get(&budgets[..]) else {
            return OwnLine { count: 0, cost: BTreeMap::new(), start };
        };
        let (count, cost, work) = line.before(&Order::last(draw));
        OwnLine { count, cost, start: start + Stretch::of(work, flow.terms.weight) }
    }

    /// The work of all workloads of this class value but `own`.
    fn work(&self, own: &FlowId, value: i32, until: Tag) -> Work {
        let mut work = Work::default();
        if self.lane.is_empty() {
            return work;
        }
        for (id, flow) in &self.lane.flows {
            if flow.band.value != value || flow.is_idle() || id == own {
                continue;
            }
            let turn = until - self.lane.start(flow);
            let before = turn.work(flow.terms.weight).min(flow.work);
            work.whole += flow.work;
            work.before += before;
            if id.0 == own.0 && !has_guarantee(&flow.terms) {
                work.of_class += before;
            }
        }
        work
    }
}

/// `whole`, as much of it as `done` is of `work`.
fn part(whole: u128, done: Duration, work: Duration) -> u128 {
    const ONE: u128 = 1 << 20;
    whole * (done.as_nanos() * ONE / work.as_nanos().max(1)) / ONE
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
