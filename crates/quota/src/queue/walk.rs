//! One walk over the heads of a lane, in the order of service.
//!
//! First who is guaranteed and has not used it up, then what a class is owed of its minimum share,
//! then classes from high to low; inside a class the workload that is furthest behind. A head that
//! does not fit reserves what it needs, and those after it pass only with what is left beyond: a
//! large head is not starved, and whatever cannot delay it need not wait for it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use crate::budget::BudgetId;
use crate::charge::Vector;
use crate::policy::Name;
use crate::queue::accounts::Standing;
use crate::queue::flow::Budgets;
use crate::queue::lane::{FlowId, Lane, Rules};
use crate::queue::levels::Levels;
use crate::queue::tag::Tag;
use crate::time::Time;
use crate::units::{Amount, Rate};

/// By what right a head is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    Guaranteed,
    MinShare,
    Class,
}

/// The first draw of a line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Head {
    rank: Rank,
    pub(super) flow: FlowId,
    pub(super) budgets: Budgets,
}

/// The order inside a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    not_guaranteed: bool,
    start: Tag,
    queued_at: Time,
    deadline: Time,
}

/// A walk that is under way.
#[derive(Debug)]
pub(super) struct Walk {
    now: Time,
    heads: BTreeMap<Name, BinaryHeap<Reverse<Head>>>,
    reserved: BTreeMap<BudgetId, u128>,
    /// Classes whose minimum share has had its turn and did not fit: one at a time.
    had_share: BTreeSet<Name>,
    permitted_at: Time,
}

// === impl Walk ===

impl Walk {
    pub(super) fn begin<K>(now: Time, lane: &Lane<K>, rules: &Rules) -> Walk {
        let mut walk = Walk {
            now,
            heads: BTreeMap::new(),
            reserved: BTreeMap::new(),
            had_share: BTreeSet::new(),
            permitted_at: Time::NEVER,
        };
        for (id, flow) in &lane.flows {
            for budgets in flow.lines.keys() {
                walk.offer(lane, rules, id.clone(), budgets.clone());
            }
        }
        walk
    }

    /// The next head. Its line is out of the walk from now on, unless the head is served.
    pub(super) fn next<K>(&mut self, lane: &Lane<K>, rules: &Rules) -> Option<(Turn, Head)> {
        let mut best: Option<((Turn, Reverse<i32>, Rank), Name)> = None;
        let classes: Vec<Name> = self.heads.keys().cloned().collect();
        for class in classes {
            let Some(top) = self.refreshed(&class, lane, rules) else { continue };
            let value = lane.flows.get(&top.flow).map_or(0, |flow| flow.band.value);
            let key = (self.turn(&top, value, lane, rules), Reverse(value), top.rank);
            if best.as_ref().is_none_or(|(best, _)| key < *best) {
                best = Some((key, class));
            }
        }
        let ((turn, ..), class) = best?;
        let Reverse(head) = self.heads.get_mut(&class)?.pop()?;
        if turn == Turn::MinShare {
            self.had_share.insert(class);
        }
        Some((turn, head))
    }

    /// Puts the first draw of a line into the walk, unless its workload is above a ceiling.
    fn offer<K>(&mut self, lane: &Lane<K>, rules: &Rules, flow: FlowId, budgets: Budgets) {
        match self.rank(lane, rules, &flow, &budgets) {
            Some(Ok(rank)) => {
                let heads = self.heads.entry(flow.0.clone()).or_default();
                heads.push(Reverse(Head { rank, flow, budgets }));
            }
            Some(Err(permitted_at)) => self.permitted_at = self.permitted_at.min(permitted_at),
            None => {}
        }
    }

    /// The head was served: the next draw of its line is in the walk.
    pub(super) fn served<K>(&mut self, lane: &Lane<K>, rules: &Rules, turn: Turn, head: Head) {
        if turn == Turn::MinShare {
            self.had_share.remove(&head.flow.0);
        }
        self.offer(lane, rules, head.flow, head.budgets);
    }

    /// When the first workload that was passed over for its ceiling is below it again.
    pub(super) fn permitted_at(&self) -> Time {
        self.permitted_at
    }

    /// How long `vector` must wait for the levels, beyond what those before it have reserved:
    /// `Some(None)` if nobody knows, `None` if it fits now.
    pub(super) fn shortfall(
        &self,
        levels: &impl Levels,
        vector: &Vector,
        holdback: u32,
    ) -> Option<Option<Duration>> {
        let mut longest: Option<Option<Duration>> = None;
        for (budget, amount) in vector {
            let (need, keep) = need(levels, budget, *amount, holdback);
            let reserved = self.reserved.get(budget).copied().unwrap_or_default();
            let wanted = reserved + u128::from(need.micros()) + u128::from(keep.micros());
            let Some(missing) = missing(wanted, levels.level(budget)) else { continue };
            let wait = missing.time_at(levels.rate(budget));
            longest = Some(match (longest, wait) {
                (None, wait) => wait,
                (Some(longest), wait) => longest.zip(wait).map(|(a, b)| a.max(b)),
            });
        }
        longest
    }

    /// Keeps what `vector` needs from those after it.
    pub(super) fn reserve(&mut self, levels: &impl Levels, vector: &Vector, holdback: u32) {
        for (budget, amount) in vector {
            let (need, _) = need(levels, budget, *amount, holdback);
            *self.reserved.entry(budget.clone()).or_default() += u128::from(need.micros());
        }
    }

    /// The top head of a class, with its rank as it is now: ranks only fall while a walk goes on, as
    /// a workload's other lines are served.
    fn refreshed<K>(&mut self, class: &Name, lane: &Lane<K>, rules: &Rules) -> Option<Head> {
        loop {
            let Reverse(top) = self.heads.get(class)?.peek()?.clone();
            match self.rank(lane, rules, &top.flow, &top.budgets) {
                Some(Ok(rank)) if rank == top.rank => return Some(top),
                _ => {
                    self.heads.get_mut(class)?.pop();
                    self.offer(lane, rules, top.flow, top.budgets);
                }
            }
        }
    }

    fn rank<K>(
        &self,
        lane: &Lane<K>,
        rules: &Rules,
        id: &FlowId,
        budgets: &Budgets,
    ) -> Option<Result<Rank, Time>> {
        let flow = lane.flows.get(id)?;
        let (order, _) = flow.lines.get(budgets)?.head()?;
        let standing = rules.accounts.standing(self.now, &id.1, &flow.terms, &**budgets);
        Some(match standing {
            Standing::Over(until) => Err(until),
            Standing::Guaranteed | Standing::Between => Ok(Rank {
                not_guaranteed: standing != Standing::Guaranteed,
                start: lane.start(flow),
                queued_at: order.queued_at,
                deadline: order.deadline,
            }),
        })
    }

    fn turn<K>(&self, head: &Head, value: i32, lane: &Lane<K>, rules: &Rules) -> Turn {
        let class = &head.flow.0;
        if !head.rank.not_guaranteed {
            return Turn::Guaranteed;
        }
        let Some(share) = lane.shares.get(class) else { return Turn::Class };
        if self.had_share.contains(class) {
            return Turn::Class;
        }
        // A share is owed where a higher class would take it; elsewhere the draw just comes along.
        let mut contended = false;
        for budget in &*head.budgets {
            if lane.contended(&rules.config, value, budget) {
                contended = true;
                if !share.is_owed(budget) {
                    return Turn::Class;
                }
            }
        }
        if contended { Turn::MinShare } else { Turn::Class }
    }
}

/// What a draw of `amount` needs to find in a level, and what it must leave there.
///
/// A level that is capped below the amount, because leases hold the rest, need only be full: the draw
/// then takes it into debt, which the refill pays before anybody else is served. Otherwise a large
/// request would wait for ever. Where nothing refills, there is no debt.
pub(super) fn need(
    levels: &impl Levels,
    budget: &BudgetId,
    amount: Amount,
    holdback: u32,
) -> (Amount, Amount) {
    let cap = levels.cap(budget);
    let keep = cap.scale(u64::from(holdback), 100);
    match levels.rate(budget) {
        Rate::ZERO => (amount, keep),
        _ => (amount.min(cap - keep), keep),
    }
}

pub(super) fn missing(wanted: u128, level: i64) -> Option<Amount> {
    let missing = i128::try_from(wanted).unwrap_or(i128::MAX) - i128::from(level);
    let missing = u64::try_from(missing).unwrap_or(if missing < 0 { 0 } else { u64::MAX });
    (missing > 0).then_some(Amount::from_micros(missing))
}
