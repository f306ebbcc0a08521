//! The requests of one pod that wait, in the order in which a local level serves them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::Ask;
use crate::message::{DrawId, DrawRequest};
use crate::time::Time;

/// One waiting request.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) ask: Ask,
    pub(super) class: i32,
    pub(super) since: Time,
}

/// Higher class first, then the earlier deadline, then the older.
type Place = (Reverse<i32>, Time, DrawId);

/// All waiting requests of one pod.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    by_id: BTreeMap<DrawId, Waiter>,
    order: BTreeSet<Place>,
    deadlines: BTreeSet<(Time, DrawId)>,
}

impl Waiter {
    pub(super) fn draw(&self, now: Time, id: DrawId) -> DrawRequest {
        DrawRequest {
            id,
            mono: now,
            vector: self.ask.vector.clone(),
            class: self.ask.class.clone(),
            max_wait: self.ask.deadline.since(now),
            waited: now.since(self.since),
            traceparent: self.ask.traceparent.clone(),
        }
    }

    fn place(&self, id: DrawId) -> Place {
        (Reverse(self.class), self.ask.deadline, id)
    }
}

impl Waiters {
    pub(super) fn insert(&mut self, id: DrawId, waiter: Waiter) {
        self.order.insert(waiter.place(id));
        self.deadlines.insert((waiter.ask.deadline, id));
        self.by_id.insert(id, waiter);
    }

    pub(super) fn remove(&mut self, id: DrawId) -> Option<Waiter> {
        let waiter = self.by_id.remove(&id)?;
        self.order.remove(&waiter.place(id));
        self.deadlines.remove(&(waiter.ask.deadline, id));
        Some(waiter)
    }

    pub(super) fn get(&self, id: DrawId) -> Option<&Waiter> {
        self.by_id.get(&id)
    }

    pub(super) fn first(&self) -> Option<&Waiter> {
        self.order.first().and_then(|(_, _, id)| self.by_id.get(id))
    }

    pub(super) fn any_at_or_above(&self, class: i32) -> bool {
        self.order.first().is_some_and(|(Reverse(first), _, _)| *first >= class)
    }

    /// A copy, because serving changes the order.
    pub(super) fn in_order(&self) -> Vec<DrawId> {
        self.order.iter().map(|(_, _, id)| *id).collect()
    }

    pub(super) fn oldest_first(&self) -> impl Iterator<Item = (DrawId, &Waiter)> {
        self.by_id.iter().map(|(id, waiter)| (*id, waiter))
    }

    pub(super) fn expired(&mut self, now: Time) -> Vec<(DrawId, Waiter)> {
        let due: Vec<DrawId> = self
            .deadlines
            .iter()
            .take_while(|(deadline, _)| *deadline <= now)
            .map(|(_, id)| *id)
            .collect();
        due.into_iter().filter_map(|id| Some((id, self.remove(id)?))).collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}
