//! What must hold after every event of a world, and at its end.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use quota::bucket::Bucket;
use quota::budget::{Budget, BudgetId, Kind};
use quota::charge::Vector;
use quota::message::ToAllocator;
use quota::time::Time;
use quota::units::{Amount, Rate};

use super::World;
use super::options::{Estimate, Limiter, Options};
use super::outcome::{Outcome, Violation};
use super::pod::Pod;
use super::rules::Rules;

/// What must hold.
#[derive(Debug)]
pub(super) struct Checks {
    pub(super) violation: Option<Violation>,
    bounds: BTreeMap<BudgetId, Bound>,
    /// Debits can be held against the bound: each is what the provider charges.
    exact: bool,
    /// What the provider charged the calls that each pod has settled.
    settled: BTreeMap<usize, Vector>,
}

/// What must hold for one budget.
#[derive(Debug)]
struct Bound {
    kind: Kind,
    /// The largest rate that has been in force: what is cut may be held for a while.
    rate: Rate,
    /// And the largest of all that levels may hold.
    burst: Amount,
    debits: Debits,
}

/// An account of debits that is kept beside all others, by the time of each debit alone.
#[derive(Debug)]
enum Debits {
    /// Admissions in any span are at most burst plus rate times span.
    Bucket(Bucket),
    /// No span of a window's length holds more than the limit.
    Sliding(VecDeque<(Time, Amount)>, Amount),
    /// The provider's own count is all there is to say.
    None,
}

/// A pod refuses a request at its deadline, or as soon after as timers can tell.
const LATE: Duration = Duration::from_millis(1);

// === impl Checks ===

impl Checks {
    pub(super) fn new(options: &Options, rules: &Rules) -> Checks {
        let bound = |budget: &Budget| (budget.id.clone(), Bound::new(budget, options));
        Checks {
            violation: None,
            bounds: rules.budgets().map(bound).collect(),
            exact: options.estimate == Estimate::Exact,
            settled: BTreeMap::new(),
        }
    }

    pub(super) fn fail(&mut self, at: Time, what: String) {
        self.violation.get_or_insert(Violation { at, what });
    }

    /// The policy has changed; what the provider enforces is never smaller than before.
    pub(super) fn edited(&mut self, now: Time, options: &Options, rules: &Rules) {
        for budget in rules.budgets() {
            let Some(bound) = self.bounds.get_mut(&budget.id) else { continue };
            let new = Bound::new(budget, options);
            if new.burst > bound.burst {
                if let (Debits::Bucket(old), Debits::Bucket(new)) = (&mut bound.debits, &new.debits)
                {
                    old.advance(now);
                    let more = new.cap() - old.cap();
                    old.set_cap(new.cap());
                    old.set_rate(new.rate());
                    old.add(more);
                }
                (bound.kind, bound.rate, bound.burst) = (new.kind, new.rate, new.burst);
            }
        }
    }

    /// A request has been admitted.
    pub(super) fn debited(&mut self, now: Time, vector: &Vector) {
        if !self.exact {
            return;
        }
        for (id, amount) in vector {
            let Some(bound) = self.bounds.get_mut(id) else { continue };
            if let Some(over) = bound.debit(now, *amount) {
                let what = format!("{id}: {over} more than the limit was admitted");
                return self.fail(now, what);
            }
        }
    }

    /// A pod has settled a call with what the provider charged.
    pub(super) fn settled(&mut self, pod: usize, actual: &Vector) {
        let sums = self.settled.entry(pod).or_default();
        for (id, amount) in actual {
            *sums.entry(id.clone()).or_default() += *amount;
        }
    }

    /// A pod's process has ended: it begins anew.
    pub(super) fn ended(&mut self, pod: usize) {
        self.settled.remove(&pod);
    }

    /// The last figures of a pod must be those of the provider.
    pub(super) fn goodbye(&mut self, now: Time, pod: usize, bye: &ToAllocator) {
        let ToAllocator::Bye(report) = bye else { return };
        let sums = self.settled.get(&pod).cloned().unwrap_or_default();
        for (id, item) in &report.items {
            let charged = sums.get(id).copied().unwrap_or_default();
            if item.counters.settled != charged {
                let told = item.counters.settled;
                let what = format!("pod-{pod:03} tells {told} of {id}, the provider {charged}");
                return self.fail(now, what);
            }
        }
    }

    /// A pod's holder has been polled.
    pub(super) fn pod(&mut self, now: Time, pod: &Pod) {
        let local = pod.clock.read(now);
        if pod.waiting.values().any(|waiting| local > waiting.deadline + LATE) {
            self.fail(now, format!("{}: a request waits past its deadline", pod.name));
        }
        if pod.waiting.len() != pod.holder.waiting() {
            self.fail(now, format!("{}: the queue and its clients disagree", pod.name));
        }
    }

    /// A world in which demand always exceeds the budget must use it.
    pub(super) fn used(&mut self, now: Time, options: &Options, outcome: &Outcome) {
        let target = options.target_percent() as f64 / 100.0;
        if options.steady && outcome.used < target {
            let what = format!("{:.4} of the budget is used, {target} wanted", outcome.used);
            self.fail(now, what);
        }
    }
}

// === impl Bound ===

impl Bound {
    fn new(budget: &Budget, options: &Options) -> Bound {
        let (burst, debits) = match budget.kind {
            Kind::Bucket { rate, burst } => {
                let mut bucket = Bucket::new(Time::ZERO, rate, burst);
                bucket.add(burst);
                (burst, Debits::Bucket(bucket))
            }
            Kind::Window { limit, .. } => match options.limiter {
                Limiter::HiddenWindow(_) => (limit, Debits::Sliding(VecDeque::new(), Amount::ZERO)),
                _ => (limit, Debits::None),
            },
            Kind::Stock { amount, .. } => (amount, Debits::None),
            Kind::Slots { count } => (count, Debits::None),
        };
        Bound { kind: budget.kind, rate: budget.rate(), burst, debits }
    }

    /// Counts a debit; returns by how much it is too large.
    fn debit(&mut self, now: Time, amount: Amount) -> Option<Amount> {
        match &mut self.debits {
            Debits::Bucket(bucket) => {
                bucket.advance(now);
                bucket.take(amount);
                let level = bucket.level();
                (level < 0).then(|| Amount::from_micros(level.unsigned_abs()))
            }
            Debits::Sliding(debits, sum) => {
                let Kind::Window { limit, length } = self.kind else { return None };
                debits.push_back((now, amount));
                *sum += amount;
                while let Some((at, first)) = debits.front()
                    && *at + length <= now
                {
                    *sum = *sum - *first;
                    debits.pop_front();
                }
                (*sum > limit).then(|| *sum - limit)
            }
            Debits::None => None,
        }
    }
}

impl World {
    /// What pods believe and what leaders hand out must add up to no more than there is.
    pub(super) fn check_sums(&mut self) {
        let bounds: Vec<(BudgetId, Rate, Amount)> =
            self.checks.bounds.iter().map(|(id, b)| (id.clone(), b.rate, b.burst)).collect();
        for (id, most, burst) in bounds {
            if most.is_zero() {
                continue;
            }
            let (mut rate, mut level) = (Rate::ZERO, Amount::ZERO);
            for pod in self.pods.iter().filter(|pod| pod.alive) {
                let (lease, local) = (pod.holder.lease(), pod.clock.read(self.now));
                rate += lease.rate(local, &id);
                // A level ends with its lease, whenever its pod looks at it next.
                if lease.alive(local, &id) {
                    level += pod.holder.level(&id);
                }
            }
            for leader in self.allocators.iter_mut().filter(|leader| leader.alive) {
                let local = leader.clock.read(self.now);
                rate += leader.ledger.accounts().room(local, &id);
                let Some(status) = leader.ledger.status(local).budgets.get(&id).copied() else {
                    continue;
                };
                level +=
                    status.credited + Amount::from_micros(u64::try_from(status.level).unwrap_or(0));
            }
            if rate > most {
                let what = format!("{id}: {rate:?} may accrue, {most:?} is all there is");
                return self.checks.fail(self.now, what);
            }
            if level > burst {
                let what = format!("{id}: levels hold {level}, {burst} is all there is");
                return self.checks.fail(self.now, what);
            }
        }
    }

    /// At the end nothing waits, and nothing is held.
    pub(super) fn settle_up(&mut self) {
        if self.checks.violation.is_some() {
            return;
        }
        let now = self.now;
        for pod in 0..self.pods.len() {
            let of = &mut self.pods[pod];
            if !of.alive {
                continue;
            }
            if !of.waiting.is_empty() || of.in_flight > 0 {
                let what = format!("{}: requests are left over at the end", of.name);
                return self.checks.fail(now, what);
            }
            let bye = of.holder.bye(of.clock.read(now));
            self.checks.goodbye(now, pod, &bye);
        }
        let leader = self.allocators.last_mut().expect("a world begins with a leader");
        let local = leader.clock.read(now);
        // Without pods nothing wakes it; what it would send now would come too late to matter.
        let _ = leader.ledger.poll(local);
        let status = leader.ledger.status(local);
        if status.waiting > 0 {
            self.checks.fail(now, "draws are left over at the end".to_owned());
        }
        for (id, of) in status.budgets {
            if !of.credited.is_zero() {
                let what = format!("{id}: {} of credit are outstanding at the end", of.credited);
                return self.checks.fail(now, what);
            }
            let kind = self.rules.budgets().find(|budget| budget.id == id).map(|b| b.kind);
            if let Some(Kind::Slots { count }) = kind
                && self.options.faults.losses == 0
                && of.level != i64::try_from(count.micros()).unwrap_or(i64::MAX)
            {
                let what = format!("{id}: slots are in use at the end");
                return self.checks.fail(now, what);
            }
        }
    }
}
