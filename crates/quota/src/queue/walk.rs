//! One walk over the heads of a lane, in the order of service.
//!
//! First who is guaranteed and has not used it up, then what a class is owed of its minimum share,
//! then classes from high to low; inside a class the workload that is furthest behind. A head that
//! does not fit reserves what it needs, and those after it pass only with what is left beyond: a
//! large head is not starved, and whatever cannot delay it need not wait for it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use crate::charge::Vector;
use crate::policy::Name;
use crate::queue::accounts::Standing;
use crate::queue::draw::FlowKey;
use crate::queue::flow::{Budgets, Flow, Line};
use crate::queue::lane::{FlowId, Lane, Rules};
use crate::queue::levels::Levels;
use crate::queue::reservations::{Fit, Reservations};
use crate::queue::tag::Tag;
use crate::time::Time;

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

/// The state that a walk looks at; it changes with every draw that is served.
pub(super) struct View<'a, K> {
    pub(super) now: Time,
    pub(super) lane: &'a Lane<K>,
    pub(super) rules: &'a Rules,
}

/// A walk that is under way.
#[derive(Debug)]
pub(super) struct Walk {
    heads: BTreeMap<Name, BinaryHeap<Reverse<Head>>>,
    reservations: Reservations,
    /// Classes whose minimum share has had its turn and did not fit: one at a time.
    had_share: BTreeSet<Name>,
    /// Sets of budgets of which something may be left for those to come.
    open: BTreeSet<Budgets>,
    permitted_at: Time,
}

/// The order inside a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    not_guaranteed: bool,
    start: Tag,
    queued_at: Time,
    deadline: Time,
}

/// The order of the first heads of all classes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Precedence {
    turn: Turn,
    value: Reverse<i32>,
    rank: Rank,
}

// === impl View ===

impl<K> Clone for View<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for View<'_, K> {}

impl<K> View<'_, K> {
    /// The rank of the first draw of a line; if its workload is above a ceiling, until when. `None` if
    /// the line has ended.
    fn rank(self, id: &FlowId, budgets: &Budgets) -> Option<Result<Rank, Time>> {
        let flow = self.lane.flows.get(id)?;
        self.rank_of(&id.1, flow, budgets, flow.lines.get(budgets)?)
    }

    fn rank_of(
        self,
        key: &FlowKey,
        flow: &Flow<K>,
        budgets: &Budgets,
        line: &Line<K>,
    ) -> Option<Result<Rank, Time>> {
        let (order, _) = line.head()?;
        let standing = self.rules.accounts.standing(self.now, key, &flow.terms, &**budgets);
        Some(match standing {
            Standing::Over(until) => Err(until),
            Standing::Guaranteed | Standing::Between => Ok(Rank {
                not_guaranteed: standing != Standing::Guaranteed,
                start: self.lane.start(flow),
                queued_at: order.queued_at,
                deadline: order.deadline,
            }),
        })
    }

    /// True if the class of `head` is owed of every budget that a higher class would take instead.
    /// Where no higher class waits, nothing is owed and nothing needs to be.
    fn is_owed(self, head: &Head, value: i32) -> bool {
        let Some(class) = self.lane.classes.get(&head.flow.0) else { return false };
        let contended = |id: &&_| self.lane.contended(value, id);
        let mut contended = head.budgets.iter().filter(contended).peekable();
        contended.peek().is_some() && contended.all(|budget| class.is_owed(budget))
    }
}

// === impl Walk ===

impl Walk {
    pub(super) fn begin<K>(view: View<'_, K>) -> Walk {
        let mut walk = Walk {
            heads: BTreeMap::new(),
            reservations: Reservations::default(),
            had_share: BTreeSet::new(),
            open: BTreeSet::new(),
            permitted_at: Time::NEVER,
        };
        // Workloads are sorted by class, so that each class makes one heap at once.
        let mut heads = Vec::new();
        let mut flows = view.lane.flows.iter().peekable();
        while let Some((id, flow)) = flows.next() {
            for (budgets, line) in &flow.lines {
                walk.open(budgets);
                match view.rank_of(&id.1, flow, budgets, line) {
                    Some(Ok(rank)) => {
                        let head = Head { rank, flow: id.clone(), budgets: budgets.clone() };
                        heads.push(Reverse(head));
                    }
                    Some(Err(until)) => walk.permitted_at = walk.permitted_at.min(until),
                    None => {}
                }
            }
            if flows.peek().is_none_or(|(next, _)| next.0 != id.0) && !heads.is_empty() {
                walk.heads.insert(id.0.clone(), std::mem::take(&mut heads).into());
            }
        }
        walk
    }

    /// The next head, while there may be something left for one. Its line is out of the walk from now
    /// on, unless the head is served.
    pub(super) fn next<K>(&mut self, view: View<'_, K>) -> Option<(Turn, Head)> {
        if self.open.is_empty() {
            return None;
        }
        self.refresh(view);
        let tops = self.heads.iter().filter_map(|(class, heads)| {
            let Reverse(top) = heads.peek()?;
            Some((self.precedence(view, top), class))
        });
        let (precedence, class) = tops.min()?;
        let class = class.clone();
        let Reverse(head) = self.heads.get_mut(&class)?.pop()?;
        if precedence.turn == Turn::MinShare {
            self.had_share.insert(class);
        }
        Some((precedence.turn, head))
    }

    /// Whether a vector fits beyond what heads before it have reserved.
    pub(super) fn fit(&self, levels: &impl Levels, vector: &Vector, holdback: u32) -> Fit {
        self.reservations.fit(levels, vector, holdback)
    }

    /// The head did not fit: reserves what it needs.
    pub(super) fn blocked(
        &mut self,
        levels: &impl Levels,
        head: &Head,
        vector: &Vector,
        holdback: u32,
    ) {
        if self.reservations.keep(levels, vector, holdback) {
            self.open.remove(&head.budgets);
        }
    }

    /// The head was served: the next draw of its line is in the walk.
    pub(super) fn served<K>(&mut self, view: View<'_, K>, turn: Turn, head: &Head) {
        if turn == Turn::MinShare {
            self.had_share.remove(&head.flow.0);
        }
        self.offer(view, &head.flow, &head.budgets);
    }

    /// When the first workload that was passed over for its ceiling is below it again.
    pub(super) fn permitted_at(&self) -> Time {
        self.permitted_at
    }

    fn open(&mut self, budgets: &Budgets) {
        if !self.open.contains(budgets) {
            self.open.insert(budgets.clone());
        }
    }

    /// Puts the first draw of a line into the walk, unless its workload is above a ceiling.
    fn offer<K>(&mut self, view: View<'_, K>, flow: &FlowId, budgets: &Budgets) {
        match view.rank(flow, budgets) {
            Some(Ok(rank)) => {
                let head = Head { rank, flow: flow.clone(), budgets: budgets.clone() };
                match self.heads.get_mut(&flow.0) {
                    Some(heads) => heads.push(Reverse(head)),
                    None => drop(self.heads.insert(flow.0.clone(), [Reverse(head)].into())),
                }
            }
            Some(Err(until)) => self.permitted_at = self.permitted_at.min(until),
            None => {}
        }
    }

    /// Brings the top of each class up to date. Ranks only fall while a walk goes on, as a workload's
    /// other lines are served, so a top that has not changed is the first of its class.
    fn refresh<K>(&mut self, view: View<'_, K>) {
        for heads in self.heads.values_mut() {
            while let Some(Reverse(top)) = heads.peek() {
                let rank = view.rank(&top.flow, &top.budgets);
                if rank == Some(Ok(top.rank)) {
                    break;
                }
                let stale = heads.pop();
                match (rank, stale) {
                    (Some(Ok(rank)), Some(Reverse(head))) => {
                        heads.push(Reverse(Head { rank, ..head }));
                    }
                    (Some(Err(until)), _) => self.permitted_at = self.permitted_at.min(until),
                    _ => {}
                }
            }
        }
    }

    fn precedence<K>(&self, view: View<'_, K>, head: &Head) -> Precedence {
        let value = view.lane.flows.get(&head.flow).map_or(0, |flow| flow.band.value);
        let turn = if !head.rank.not_guaranteed {
            Turn::Guaranteed
        } else if !self.had_share.contains(&head.flow.0) && view.is_owed(head, value) {
            Turn::MinShare
        } else {
            Turn::Class
        };
        Precedence { turn, value: Reverse(value), rank: head.rank }
    }
}
