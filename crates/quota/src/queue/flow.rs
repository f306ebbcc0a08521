//! The draws of one workload in one class.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::budget::BudgetId;
use crate::queue::config::{Band, Terms};
use crate::queue::draw::Draw;
use crate::queue::tag::{Stretch, Tag};
use crate::time::Time;

/// How far behind a budget may be that is not the largest part of a workload's use. Within it, what
/// was reserved and not used is given back exactly, although reports come a second later.
const MEMORY: Duration = Duration::from_secs(2);

/// The budgets of a vector.
pub(super) type Budgets = Arc<[BudgetId]>;

/// The order inside one line: earliest deadline first, then the longest wait, then as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Order {
    pub(super) deadline: Time,
    pub(super) queued_at: Time,
    pub(super) seq: u64,
}

/// The draws of one workload in one class.
#[derive(Clone, Debug)]
pub(super) struct Flow<K> {
    pub(super) band: Band,
    pub(super) terms: Arc<Terms>,
    /// Where its service ended in virtual time, by what it took of each budget. The largest counts:
    /// workloads that need different mixes of budgets are compared by the part that is largest for
    /// each (dominant resource fairness).
    finish: BTreeMap<BudgetId, Tag>,
    /// One line for each set of budgets, so that a full budget holds up only those who need it.
    pub(super) lines: BTreeMap<Budgets, Line<K>>,
    /// The work that all its draws ask for.
    pub(super) work: Duration,
}

/// Draws that need the same budgets.
#[derive(Clone, Debug)]
pub(super) struct Line<K> {
    draws: BTreeMap<Order, Waiter<K>>,
    ages: BTreeSet<(Time, u64)>,
    cost: BTreeMap<BudgetId, u128>,
    work: Duration,
}

#[derive(Clone, Debug)]
struct Waiter<K> {
    draw: Draw<K>,
    /// As the policy had it when the draw came.
    work: Duration,
}

// === impl Order ===

impl Order {
    /// The place of `draw` behind all that came before it.
    pub(super) fn last<K>(draw: &Draw<K>) -> Order {
        Order { deadline: draw.deadline, queued_at: draw.queued_at, seq: u64::MAX }
    }
}

// === impl Flow ===

impl<K> Flow<K> {
    pub(super) fn new(band: Band, terms: Arc<Terms>) -> Flow<K> {
        let (lines, finish) = (BTreeMap::new(), BTreeMap::new());
        Flow { band, terms, finish, lines, work: Duration::ZERO }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lines.is_empty()
    }

    /// Where its service ended; `None` if it has not been served.
    pub(super) fn finish(&self) -> Option<Tag> {
        self.finish.values().max().copied()
    }

    /// Brings it to `floor` where it is behind that.
    pub(super) fn lift(&mut self, floor: Tag) {
        self.finish.values_mut().for_each(|tag| *tag = floor.max(*tag));
    }

    /// Moves it to another origin of virtual time.
    pub(super) fn shift(&mut self, by: Stretch) {
        self.finish.values_mut().for_each(|tag| *tag = *tag + by);
    }

    /// Counts work on one budget, from `start` at the latest, and to `bound` at the farthest.
    pub(super) fn advance(&mut self, budget: &BudgetId, start: Tag, work: Duration, bound: Tag) {
        let stretch = Stretch::of(work, self.terms.weight);
        let floor = start - Stretch::of(MEMORY, 1);
        let from = self.finish.get(budget).map_or(start, |tag| floor.max(*tag));
        self.finish.insert(budget.clone(), (from + stretch).min(from.max(bound + stretch)));
    }

    /// Takes back work on one budget that was counted and not done.
    pub(super) fn retreat(&mut self, budget: &BudgetId, work: Duration) {
        let stretch = Stretch::of(work, self.terms.weight);
        self.finish.entry(budget.clone()).and_modify(|tag| *tag = *tag - stretch);
    }

    pub(super) fn push(&mut self, budgets: &Budgets, order: Order, draw: Draw<K>, work: Duration) {
        self.work += work;
        self.lines.entry(budgets.clone()).or_default().push(order, Waiter { draw, work });
    }

    /// Adds the draws of the same workload from another lane.
    pub(super) fn absorb(&mut self, other: Flow<K>) {
        self.finish.extend(other.finish);
        self.work += other.work;
        self.lines.extend(other.lines);
    }

    /// Takes a draw out.
    pub(super) fn remove(&mut self, budgets: &Budgets, order: &Order) -> Option<Draw<K>> {
        let line = self.lines.get_mut(budgets)?;
        let Waiter { draw, work } = line.remove(order)?;
        self.work -= work;
        if line.draws.is_empty() {
            self.lines.remove(budgets);
        }
        Some(draw)
    }
}

// === impl Line ===

impl<K> Default for Line<K> {
    fn default() -> Line<K> {
        Line {
            draws: BTreeMap::new(),
            ages: BTreeSet::new(),
            cost: BTreeMap::new(),
            work: Duration::ZERO,
        }
    }
}

impl<K> Line<K> {
    /// The draw whose turn it is.
    pub(super) fn head(&self) -> Option<(&Order, &Draw<K>)> {
        self.draws.first_key_value().map(|(order, waiter)| (order, &waiter.draw))
    }

    pub(super) fn draws(&self) -> impl Iterator<Item = &Draw<K>> {
        self.draws.values().map(|waiter| &waiter.draw)
    }

    pub(super) fn len(&self) -> usize {
        self.draws.len()
    }

    /// Since when the oldest waits.
    pub(super) fn oldest(&self) -> Option<Time> {
        self.ages.first().map(|(queued_at, _)| *queued_at)
    }

    /// What all its draws take, in millionths.
    pub(super) fn costs(&self) -> &BTreeMap<BudgetId, u128> {
        &self.cost
    }

    /// What all its draws take of `budget`.
    pub(super) fn cost(&self, budget: &BudgetId) -> u128 {
        self.cost.get(budget).copied().unwrap_or_default()
    }

    /// What comes before `order`: how many draws, their cost and their work.
    pub(super) fn before(&self, order: &Order) -> (usize, BTreeMap<BudgetId, u128>, Duration) {
        if self.draws.last_key_value().is_none_or(|(last, _)| last < order) {
            return (self.draws.len(), self.cost.clone(), self.work);
        }
        let mut cost = BTreeMap::new();
        let (mut count, mut work) = (0, Duration::ZERO);
        for (_, waiter) in self.draws.range(..order) {
            count += 1;
            work += waiter.work;
            for (budget, amount) in &waiter.draw.vector {
                *cost.entry(budget.clone()).or_default() += u128::from(amount.micros());
            }
        }
        (count, cost, work)
    }

    fn push(&mut self, order: Order, waiter: Waiter<K>) {
        self.ages.insert((order.queued_at, order.seq));
        for (budget, amount) in &waiter.draw.vector {
            *self.cost.entry(budget.clone()).or_default() += u128::from(amount.micros());
        }
        self.work += waiter.work;
        self.draws.insert(order, waiter);
    }

    fn remove(&mut self, order: &Order) -> Option<Waiter<K>> {
        let waiter = self.draws.remove(order)?;
        self.work -= waiter.work;
        self.ages.remove(&(order.queued_at, order.seq));
        for (budget, amount) in &waiter.draw.vector {
            if let Some(cost) = self.cost.get_mut(budget) {
                *cost -= u128::from(amount.micros());
            }
        }
        Some(waiter)
    }
}
