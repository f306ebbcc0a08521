//! A queue over a few buckets, and short words for what tests do with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::bucket::Bucket;
use crate::budget::{Budget, BudgetId, Shape};
use crate::charge::Vector;
use crate::dimension::Dimension;
use crate::policy::Class;
use crate::queue::{Config, Denied, Draw, FairQueue, Levels, Place, Terms};
use crate::time::Time;
use crate::units::{Amount, MICRO, Rate};

/// Patience of draws unless a test says otherwise.
pub(super) const PATIENCE: Duration = Duration::from_secs(3_600);

#[derive(Clone, Default)]
pub(super) struct Buckets(pub(super) BTreeMap<BudgetId, Bucket>);

#[derive(Clone)]
pub(super) struct Rig {
    pub(super) now: Time,
    pub(super) queue: FairQueue<String>,
    pub(super) levels: Buckets,
    pub(super) config: Config,
}

pub(super) fn rpm() -> BudgetId {
    BudgetId::new("openai", "gpt", Dimension::RequestsPerMinute)
}

pub(super) fn tpm() -> BudgetId {
    BudgetId::new("openai", "gpt", Dimension::TokensPerMinute)
}

pub(super) fn vector(parts: &[(BudgetId, u64)]) -> Vector {
    parts.iter().map(|(id, units)| (id.clone(), Amount::from_units(*units))).collect()
}

pub(super) fn class(name: &str, value: i32) -> Class {
    Class {
        name: name.into(),
        value,
        min_share_percent: 0,
        holdback_percent: 0,
        global_default: false,
    }
}

impl Levels for Buckets {
    fn level(&self, budget: &BudgetId) -> i64 {
        self.0.get(budget).map_or(0, Bucket::level)
    }
    fn rate(&self, budget: &BudgetId) -> Rate {
        self.0.get(budget).map_or(Rate::ZERO, Bucket::rate)
    }
    fn cap(&self, budget: &BudgetId) -> Amount {
        self.0.get(budget).map_or(Amount::ZERO, Bucket::cap)
    }
    fn take(&mut self, budget: &BudgetId, amount: Amount) {
        self.0.get_mut(budget).unwrap().take(amount);
    }
}

impl Rig {
    /// Classes by name and value; budgets by id and figure, all full.
    pub(super) fn new(classes: &[(&str, i32)], budgets: &[(BudgetId, u64)]) -> Rig {
        let now = Time::from_millis(100_000);
        let mut config = Config::default();
        for (name, value) in classes {
            config.classes.insert((*name).into(), class(name, *value));
        }
        let mut levels = Buckets::default();
        for (id, per_period) in budgets {
            let name = id.as_str().rsplit('/').next().unwrap();
            let dimension = Dimension::from_name(name).unwrap();
            let budget = Budget::new(id.clone(), dimension, *per_period, Shape::default());
            let cap = Amount::from_units(*per_period);
            let mut bucket = Bucket::new(now, budget.rate(), cap);
            bucket.add(cap);
            levels.0.insert(id.clone(), bucket);
            config.budgets.insert(id.clone(), budget);
        }
        let mut rig = Rig { now, queue: FairQueue::default(), levels, config };
        rig.configure(|_| ());
        rig
    }

    pub(super) fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        assert!(self.queue.configure(self.config.clone()).is_empty());
    }

    pub(super) fn class(mut self, name: &str, change: impl FnOnce(&mut Class)) -> Rig {
        self.configure(|config| change(config.classes.get_mut(name).unwrap()));
        self
    }

    pub(super) fn flow(mut self, name: &str, terms: Terms) -> Rig {
        self.configure(|config| drop(config.flows.insert(name.into(), Arc::new(terms))));
        self
    }

    /// The draw `b12` belongs to the workload `b`.
    pub(super) fn draw(&self, name: &str, class: &str, parts: &[(BudgetId, u64)]) -> Draw<String> {
        Draw {
            key: name.to_owned(),
            flow: name.trim_end_matches(|c: char| c.is_ascii_digit()).into(),
            class: class.into(),
            vector: vector(parts),
            queued_at: self.now,
            deadline: self.now + PATIENCE,
        }
    }

    pub(super) fn push(
        &mut self,
        name: &str,
        class: &str,
        parts: &[(BudgetId, u64)],
    ) -> Result<Place, Denied> {
        self.queue.push(self.now, self.draw(name, class, parts), &self.levels)
    }

    pub(super) fn dispatch(&mut self) -> Vec<String> {
        let granted = self.queue.dispatch(self.now, &mut self.levels);
        granted.into_iter().map(|draw| draw.key).collect()
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.levels.0.values_mut().for_each(|bucket| bucket.advance(self.now));
    }

    /// The keys in the order of service while `time` passes, served as soon as levels allow. What
    /// reaches its deadline is dropped.
    pub(super) fn run(&mut self, time: Duration) -> Vec<String> {
        let end = self.now + time;
        let mut granted = self.dispatch();
        while let Some(at) = self.queue.next_wakeup(self.now, &self.levels)
            && at <= end
        {
            assert!(at > self.now, "it said it would do something now, and did not");
            self.wait(at.since(self.now));
            self.queue.expire(self.now);
            granted.extend(self.dispatch());
        }
        self.wait(end.since(self.now));
        granted
    }

    /// Whole units, rounded down.
    pub(super) fn level(&self, budget: &BudgetId) -> i64 {
        self.levels.level(budget).div_euclid(i64::try_from(MICRO).unwrap())
    }

    pub(super) fn take(&mut self, budget: &BudgetId, units: u64) {
        self.levels.take(budget, Amount::from_units(units));
    }

    /// Empties all levels.
    pub(super) fn drain(&mut self) {
        self.levels.0.values_mut().for_each(Bucket::empty);
    }
}
