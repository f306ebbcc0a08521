//! Ledger and holders together, with messages that arrive at once: the shortest way to see whether
//! the pair of figures holds. Faults, delays and real provider models are the simulator's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quota::accounts::Takeover;
use quota::bucket::Bucket;
use quota::budget::{Budget, BudgetId, Shape};
use quota::charge::Vector;
use quota::dimension::{Dimension, Protocol};
use quota::holder::{Admission, Ask, Event, Holder, Reservation};
use quota::ledger::Ledger;
use quota::message::{Epoch, PodId};
use quota::policy::{Class, Limit, Mode, OnLoss, Policy, Provider, QueueLimits, Quota, Use};
use quota::time::Time;
use quota::timing::Timing;
use quota::units::{Amount, Rate};

const RPM: u64 = 1_200;

struct World {
    ledger: Ledger,
    pods: BTreeMap<PodId, Holder>,
    budget: BudgetId,
    provider: Bucket,
    admitted: u64,
    rejected: u64,
    waits: BTreeMap<String, Vec<u64>>,
    asked: BTreeMap<(PodId, u64), (Time, String)>,
    refused: u64,
    random: u64,
}

fn policy() -> Policy {
    let shape = Shape { burst_percent: 5, ..Shape::default() };
    let dimension = Dimension::RequestsPerMinute;
    let id = BudgetId::new("openai", "all", dimension);
    let limit = Limit {
        name: "all".into(),
        models: vec!["*".to_owned()],
        budgets: vec![Budget::new(id, dimension, RPM, shape)],
    };
    let provider = Provider {
        name: "openai".into(),
        protocol: Protocol::OpenAi,
        endpoint: String::new(),
        keys: Vec::new(),
        limits: vec![limit],
    };
    let class = |name: &str, value, min_share_percent, holdback_percent| Class {
        name: name.into(),
        value,
        min_share_percent,
        holdback_percent,
        global_default: false,
    };
    let quota = Quota {
        namespace: "demo".into(),
        name: "all".into(),
        selector: BTreeMap::new(),
        class: "low".into(),
        permitted: vec!["high".into()],
        weight: 1,
        uses: vec![Use {
            provider: "openai".into(),
            limit: None,
            guaranteed: BTreeMap::new(),
            ceiling: BTreeMap::new(),
        }],
        queue: QueueLimits { max_wait: Duration::from_secs(10), max_requests: 1_000 },
        per_request_max_tokens: None,
        on_allocator_loss: OnLoss::Floor,
        mode: Mode::Enforce,
    };
    Policy {
        generation: 1,
        providers: BTreeMap::from([("openai".into(), provider)]),
        classes: BTreeMap::from([
            ("high".into(), class("high", 10, 0, 5)),
            ("low".into(), class("low", 1, 2, 0)),
        ]),
        quotas: vec![quota],
    }
}

impl World {
    fn new(pods: usize) -> World {
        let now = Time::ZERO;
        let start = Takeover {
            epoch: Epoch(1),
            quiet_until: now,
            roster: BTreeSet::new(),
            floors: BTreeMap::new(),
            floor_ttl: Duration::ZERO,
        };
        let policy = policy();
        let mut ledger = Ledger::new(now, Timing::default(), start, true);
        ledger.set_policy(now, Arc::new(policy.clone()));
        let pods = (0..pods).map(|n| {
            let pod: PodId = format!("demo/pod-{n}").into();
            let mut holder = Holder::new(now);
            holder.set_policy(&policy.for_pod("demo", &BTreeMap::new()).unwrap());
            holder.connected(now);
            ledger.connect(now, &pod, 1, Some("demo/all".into()));
            (pod, holder)
        });
        let pods = pods.collect();
        let rate = Rate::per(Amount::from_units(RPM), Duration::from_secs(60));
        let mut provider = Bucket::new(now, rate, Amount::from_units(RPM / 20));
        provider.add(Amount::MAX);
        World {
            ledger,
            pods,
            budget: policy.budgets().next().unwrap().id.clone(),
            provider,
            admitted: 0,
            rejected: 0,
            waits: BTreeMap::new(),
            asked: BTreeMap::new(),
            refused: 0,
            random: 7,
        }
    }

    fn chance(&mut self, per_million: u64) -> bool {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % 1_000_000 < per_million
    }

    fn arrive(&mut self, now: Time, pod: &PodId, class: &str) {
        let ask = Ask {
            vector: Vector::from([(self.budget.clone(), Amount::from_units(1))]),
            class: class.into(),
            deadline: now + Duration::from_secs(10),
            traceparent: None,
        };
        match self.pods.get_mut(pod).unwrap().admit(now, ask) {
            Admission::Granted(reservation) => self.go(now, pod, class, now, reservation),
            Admission::Waiting(id) => {
                self.asked.insert((pod.clone(), id.0), (now, class.to_owned()));
            }
            Admission::Refused(_) => self.refused += 1,
        }
    }

    fn go(&mut self, now: Time, pod: &PodId, class: &str, since: Time, reservation: Reservation) {
        self.provider.advance(now);
        if self.provider.available() >= Amount::from_units(1) {
            self.provider.take(Amount::from_units(1));
            self.admitted += 1;
        } else {
            self.rejected += 1;
        }
        let wait = u64::try_from(now.since(since).as_millis()).unwrap();
        self.waits.entry(class.to_owned()).or_default().push(wait);
        let actual = reservation.vector.clone();
        self.pods.get_mut(pod).unwrap().settle(now, reservation, &actual);
    }

    fn exchange(&mut self, now: Time) {
        loop {
            let mut quiet = true;
            for (pod, message) in self.ledger.poll(now) {
                quiet = false;
                self.pods.get_mut(&pod).unwrap().receive(now, message);
            }
            let names: Vec<PodId> = self.pods.keys().cloned().collect();
            for pod in names {
                for event in self.pods.get_mut(&pod).unwrap().poll(now) {
                    quiet = false;
                    match event {
                        Event::Send(message) => self.ledger.receive(now, &pod, message),
                        Event::Refuse(..) => self.refused += 1,
                        Event::Admit(id, reservation) => {
                            let (since, class) = self.asked.remove(&(pod.clone(), id.0)).unwrap();
                            self.go(now, &pod, &class, since, reservation);
                        }
                    }
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn wait_p99(&mut self, class: &str) -> u64 {
        let waits = self.waits.get_mut(class).unwrap();
        waits.sort_unstable();
        waits[waits.len() * 99 / 100]
    }
}

/// Runs for 60 s at `overload`, the high class asking for a quarter of the budget.
fn run(pods: usize, overload_percent: u64, one_pod: bool) -> World {
    let mut world = World::new(pods);
    let names: Vec<PodId> = world.pods.keys().cloned().collect();
    let busy = if one_pod { 1 } else { names.len() };
    let per_ms = RPM * 1_000_000 / 60_000;
    for ms in 0..60_000 {
        let now = Time::from_millis(ms);
        for pod in names.iter().take(busy) {
            let share = busy as u64;
            if world.chance(per_ms / 4 / share) {
                world.arrive(now, pod, "high");
            }
            if world.chance(per_ms * (overload_percent - 25) / 100 / share) {
                world.arrive(now, pod, "low");
            }
        }
        world.exchange(now);
    }
    world
}

fn check(mut world: World) {
    let offered = RPM + RPM / 20;
    let used = world.admitted as f64 / offered as f64;
    let (high, low) = (world.wait_p99("high"), world.wait_p99("low"));
    println!(
        "admitted {} of {offered} = {used:.4}, 429 {}, refused {}, p99 high {high} low {low}",
        world.admitted, world.rejected, world.refused
    );
    assert_eq!(world.rejected, 0);
    assert!(used >= 0.985, "used {used}");
    assert!(high <= 250, "wait p99 of the high class: {high} ms");
}

#[test]
fn many_busy_pods_use_the_budget_and_cause_no_429() {
    check(run(16, 300, false));
}

#[test]
fn few_busy_pods_use_the_budget_and_cause_no_429() {
    check(run(4, 120, false));
    check(run(4, 1_000, false));
}

#[test]
fn one_busy_pod_among_many_can_use_the_whole_budget() {
    check(run(16, 300, true));
}
