//! The priority fair queue: who gets credit next.
//!
//! The ledger pushes draws that no lease covers, and calls `dispatch` whenever levels have risen. A
//! draw asks for a vector over several budgets, all or nothing. Order of service (`leases.md` 4.3,
//! 4.4): what is guaranteed, what a class is owed of its minimum share, classes from high to low,
//! start-time fair among the workloads of a class, earliest deadline first inside one workload.
//! Deliberately not here: levels and their refill (the ledger's), limits per workload (the caller's),
//! what a grant becomes on the wire.

mod accounts;
mod answer;
mod class;
mod config;
mod draw;
mod estimate;
mod flow;
mod lane;
mod least;
mod levels;
mod reservations;
mod tag;
mod waiting;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::budget::BudgetId;
use crate::charge::Vector;
use crate::message::Reason;
use crate::policy::Name;
use crate::queue::class::Class;
use crate::queue::estimate::{Estimate, Outlook};
use crate::queue::flow::{Budgets, Order};
use crate::queue::lane::{Lane, Rules};
use crate::time::Time;
use crate::units::Amount;

pub use crate::queue::answer::{Denied, Place};
pub use crate::queue::config::{Config, Terms};
pub use crate::queue::draw::{Draw, FlowKey};
pub use crate::queue::levels::Levels;
pub use crate::queue::waiting::Waiting;

/// Draws that wait at once: ten for each of 10,000 sidecars. At about a KiB each they take a fifth of
/// the memory that the allocator may use.
pub const WAITING_MAX: usize = 100_000;
/// What a draw is told that finds the queue full: about as long as a busy queue needs to get shorter.
const FULL_RETRY: Duration = Duration::from_secs(1);
/// The shortest time after which coming back is of use.
const RETRY_MIN: Duration = Duration::from_millis(1);

/// Where draws stand that need no budget.
const LANE_OF_NONE: u64 = 0;

/// The priority fair queue. `K` names a draw.
#[derive(Clone, Debug)]
pub struct FairQueue<K> {
    rules: Rules,
    lanes: BTreeMap<u64, Lane<K>>,
    lane_of: BTreeMap<BudgetId, u64>,
    places: BTreeMap<K, (Line, Order)>,
    deadlines: BTreeSet<(Time, K)>,
    /// Sets of budgets that draws have named. The policy's limits bound how many there are.
    sets: BTreeSet<Budgets>,
    /// Names lanes and keeps the order of arrival.
    counter: u64,
}

/// Where a draw stands.
#[derive(Clone, Debug)]
struct Line {
    class: Name,
    flow: FlowKey,
    budgets: Budgets,
}

// === impl FairQueue ===

impl<K> Default for FairQueue<K> {
    fn default() -> FairQueue<K> {
        FairQueue {
            rules: Rules::default(),
            lanes: BTreeMap::new(),
            lane_of: BTreeMap::new(),
            places: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            sets: BTreeSet::new(),
            counter: 0,
        }
    }
}

impl<K: Ord + Clone> FairQueue<K> {
    /// Adopts a policy. What waits keeps its place, but for draws on budgets that are no more: those
    /// come back, to be pushed without them or refused.
    #[must_use = "draws that come back still wait for an answer"]
    pub fn configure(&mut self, config: Config) -> Vec<Draw<K>> {
        let known = |line: &Line| line.budgets.iter().all(|id| config.budgets.contains_key(id));
        let lost = self.places.iter().filter(|(_, (line, _))| !known(line));
        let lost: Vec<K> = lost.map(|(key, _)| key.clone()).collect();
        let lost = lost.iter().filter_map(|key| self.cancel(key)).collect();
        self.rules.configure(config);
        let budgets = &self.rules.config.budgets;
        self.lane_of.retain(|id, _| budgets.contains_key(id));
        self.sets.retain(|set| set.iter().all(|id| budgets.contains_key(id)));
        let used: BTreeSet<u64> = self.lane_of.values().copied().collect();
        self.lanes.retain(|id, _| used.contains(id) || *id == LANE_OF_NONE);
        for lane in self.lanes.values_mut() {
            lane.configure(&self.rules);
        }
        lost
    }

    /// Puts a draw into the queue. Refused at once: what is larger than a budget ever admits, what
    /// cannot be served before its deadline at present rates and with what is ahead of it, and
    /// everything while the queue is full. A draw whose key already waits takes the place of that one
    /// and keeps its age; if it is refused, that one is out as well.
    pub fn push(
        &mut self,
        now: Time,
        mut draw: Draw<K>,
        levels: &impl Levels,
    ) -> Result<Place, Denied> {
        if let Some(earlier) = self.cancel(&draw.key) {
            draw.queued_at = draw.queued_at.min(earlier.queued_at);
        }
        self.check_size(&draw)?;
        let lane_id = self.lane_for(&draw.vector);
        let lane = self.lanes.entry(lane_id).or_default();
        let outlook = Outlook { now, lane, rules: &self.rules, levels };
        let estimate = outlook.estimate(&draw);
        check_wait(now, &draw, &estimate)?;
        self.insert(draw);
        Ok(Place { ahead: estimate.ahead, wait: estimate.wait, binding: estimate.binding })
    }

    /// Takes a draw out.
    pub fn cancel(&mut self, key: &K) -> Option<Draw<K>> {
        let (line, order) = self.places.remove(key)?;
        self.deadlines.remove(&(order.deadline, key.clone()));
        let lane_id = line.budgets.first().map_or(Some(&LANE_OF_NONE), |id| self.lane_of.get(id));
        let lane = self.lanes.get_mut(lane_id?)?;
        lane.remove(&(line.class, line.flow), &line.budgets, &order)
    }

    /// Takes out the draws that ask for something of a budget of which `hopeless` is true.
    pub fn cancel_where(&mut self, hopeless: impl Fn(&BudgetId, Amount) -> bool) -> Vec<Draw<K>> {
        let lines = self.lanes.values().flat_map(Lane::lines);
        let draws = lines.flat_map(|(_, line)| line.draws());
        let out = draws.filter(|draw| draw.vector.iter().any(|(id, amount)| hopeless(id, *amount)));
        let keys: Vec<K> = out.map(|draw| draw.key.clone()).collect();
        keys.iter().filter_map(|key| self.cancel(key)).collect()
    }

    /// Grants all that can be granted now, in order, and takes it from the levels. Call
    /// [`FairQueue::expire`] first.
    pub fn dispatch(&mut self, now: Time, levels: &mut impl Levels) -> Vec<Draw<K>> {
        let mut granted = Vec::new();
        for lane in self.lanes.values_mut() {
            granted.extend(lane.dispatch(now, levels, &mut self.rules));
        }
        for draw in &granted {
            self.places.remove(&draw.key);
            self.deadlines.remove(&(draw.deadline, draw.key.clone()));
        }
        granted
    }

    /// Takes out what has reached its deadline.
    pub fn expire(&mut self, now: Time) -> Vec<Draw<K>> {
        let mut expired = Vec::new();
        while let Some((deadline, key)) = self.deadlines.first()
            && *deadline <= now
        {
            let key = key.clone();
            expired.extend(self.cancel(&key));
        }
        expired
    }

    /// When to call again if nothing happens before: the first deadline, or when a level will have
    /// risen to what a draw waits for. At the latest then; a change of levels or rates comes first.
    pub fn next_wakeup(&self, now: Time, levels: &impl Levels) -> Option<Time> {
        let deadline = self.deadlines.first().map_or(Time::NEVER, |(deadline, _)| *deadline);
        let wakeups = self.lanes.values().map(|lane| lane.next_wakeup(now, levels, &self.rules));
        Some(wakeups.fold(deadline, Time::min)).filter(|at| *at < Time::NEVER)
    }

    /// Counts what `flow` used without a draw, from its leases: against its guarantees and ceilings,
    /// towards the minimum share of its class, and, within bounds, in its order of service.
    pub fn charge(&mut self, now: Time, class: &Name, flow: &FlowKey, vector: &Vector) {
        let terms = self.rules.config.flows.get(flow).cloned().unwrap_or_default();
        self.rules.accounts.take(now, flow, &terms, vector);
        for (budget, amount) in vector {
            let Some(lane) = self.lane_of.get(budget).and_then(|id| self.lanes.get_mut(id)) else {
                continue; // No draw has named it yet.
            };
            lane.charge(&self.rules, (class.clone(), flow.clone()), budget, *amount);
        }
    }

    /// Corrects what `flow` was served for: `reserved` was taken, `actual` was used. Levels are the
    /// caller's to correct.
    pub fn settle(
        &mut self,
        now: Time,
        class: &Name,
        flow: &FlowKey,
        reserved: &Vector,
        actual: &Vector,
    ) {
        self.charge(now, class, flow, &excess(actual, reserved));
        let unused = excess(reserved, actual);
        let terms = self.rules.config.flows.get(flow).cloned().unwrap_or_default();
        self.rules.accounts.give_back(flow, &terms, &unused);
        for (budget, amount) in &unused {
            let Some(lane) = self.lane_of.get(budget).and_then(|id| self.lanes.get_mut(id)) else {
                continue; // No draw has named it yet.
            };
            lane.refund(&self.rules, &(class.clone(), flow.clone()), budget, *amount);
        }
    }

    /// What waits, by class, workload and budget.
    pub fn waiting(&self) -> BTreeMap<(Name, FlowKey, BudgetId), Waiting> {
        let mut waiting: BTreeMap<_, Waiting> = BTreeMap::new();
        for ((class, flow), line) in self.lanes.values().flat_map(Lane::lines) {
            let Some(oldest) = line.oldest() else { continue };
            for (budget, cost) in line.costs() {
                let cost = Amount::from_micros(u64::try_from(*cost).unwrap_or(u64::MAX));
                let more = Waiting { count: line.len(), cost, oldest };
                waiting
                    .entry((class.clone(), flow.clone(), budget.clone()))
                    .and_modify(|all| all.add(&more))
                    .or_insert(more);
            }
        }
        waiting
    }

    /// The budgets that something waits for; one may come several times.
    pub fn waited_for(&self) -> impl Iterator<Item = &BudgetId> {
        let classes = self.lanes.values().flat_map(|lane| lane.classes.values());
        classes.flat_map(Class::waited_for)
    }

    /// How many draws wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True if none waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn check_size(&self, draw: &Draw<K>) -> Result<(), Denied> {
        if self.places.len() >= WAITING_MAX {
            let explain = format!("the queue is full: {WAITING_MAX} draws wait");
            return Err(Denied {
                reason: Reason::QueueFull,
                retry_after: Some(FULL_RETRY),
                explain,
            });
        }
        for (id, amount) in &draw.vector {
            let Some(budget) = self.rules.config.budgets.get(id) else {
                let explain = format!("there is no budget {id}");
                return Err(Denied { reason: Reason::NotPermitted, retry_after: None, explain });
            };
            let largest = budget.largest_request();
            if *amount > largest {
                let explain = format!("{amount} of {id}, which admits {largest} at once at most");
                return Err(Denied { reason: Reason::TooLarge, retry_after: None, explain });
            }
        }
        Ok(())
    }

    fn insert(&mut self, draw: Draw<K>) {
        let lane_id = self.lane_for(&draw.vector);
        let budgets = self.budgets(&draw.vector);
        self.counter += 1;
        let order = Order { seq: self.counter, ..Order::last(&draw) };
        let line =
            Line { class: draw.class.clone(), flow: draw.flow.clone(), budgets: budgets.clone() };
        self.places.insert(draw.key.clone(), (line, order));
        self.deadlines.insert((draw.deadline, draw.key.clone()));
        let lane = self.lanes.entry(lane_id).or_default();
        lane.push(&self.rules, &budgets, order, draw);
    }

    /// The set of a vector's budgets, the same one for all draws that name them.
    fn budgets(&mut self, vector: &Vector) -> Budgets {
        let budgets: Vec<BudgetId> = vector.keys().cloned().collect();
        if let Some(known) = self.sets.get(&budgets[..]) {
            return known.clone();
        }
        let budgets = Budgets::from(budgets);
        self.sets.insert(budgets.clone());
        budgets
    }

    /// The lane of a vector. Lanes that the vector joins become one.
    fn lane_for(&mut self, vector: &Vector) -> u64 {
        let joined: BTreeSet<u64> =
            vector.keys().filter_map(|id| self.lane_of.get(id)).copied().collect();
        let Some(&lane_id) = joined.first() else {
            return self.new_lane(vector);
        };
        for id in joined.iter().skip(1) {
            let other = self.lanes.remove(id).unwrap_or_default();
            self.lanes.entry(lane_id).or_default().absorb(other);
        }
        if joined.len() > 1 {
            let moved = self.lane_of.values_mut().filter(|id| joined.contains(id));
            moved.for_each(|id| *id = lane_id);
        }
        for id in vector.keys().filter(|id| !self.lane_of.contains_key(id)).collect::<Vec<_>>() {
            self.lane_of.insert(id.clone(), lane_id);
        }
        lane_id
    }

    fn new_lane(&mut self, vector: &Vector) -> u64 {
        if vector.is_empty() {
            return LANE_OF_NONE;
        }
        self.counter += 1;
        self.lane_of.extend(vector.keys().map(|id| (id.clone(), self.counter)));
        self.counter
    }
}

/// What `a` has more than `b`.
fn excess(a: &Vector, b: &Vector) -> Vector {
    let rest =
        a.iter().map(|(id, amount)| (id.clone(), *amount - b.get(id).copied().unwrap_or_default()));
    rest.filter(|(_, amount)| !amount.is_zero()).collect()
}

/// Refuses a draw that could only wait in vain.
fn check_wait<K>(now: Time, draw: &Draw<K>, estimate: &Estimate) -> Result<(), Denied> {
    let Estimate { wait, binding, ahead } = estimate;
    let class = &draw.class;
    let patience = draw.deadline.since(now);
    if *wait <= patience {
        return Ok(());
    }
    let binding = binding.as_ref().map_or("a ceiling", BudgetId::as_str);
    let explain = format!(
        "class {class}: {ahead} ahead, {} ms for {binding}, deadline in {} ms",
        wait.as_millis(),
        patience.as_millis()
    );
    let retry_after = (*wait < Duration::MAX).then(|| (*wait - patience).max(RETRY_MIN));
    Err(Denied { reason: Reason::Deadline, retry_after, explain })
}

#[cfg(test)]
mod tests;
