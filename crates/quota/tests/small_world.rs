//! Ledger and holders together, with messages that arrive at once: the shortest way to see whether
//! the pair of figures holds. Faults, delays and real provider models are the simulator's.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may fail, and shows its figures"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quota::accounts::Takeover;
use quota::bucket::Bucket;
use quota::budget::{Budget, BudgetId, Shape};
use quota::charge::Vector;
use quota::dimension::{Dimension, Protocol, Window};
use quota::holder::{Admission, Ask, Event, Holder, Reservation};
use quota::ledger::Ledger;
use quota::message::{Epoch, PodId, Seen};
use quota::policy::{Class, Limit, Mode, OnLoss, Policy, Provider, QueueLimits, Quota, Use};
use quota::time::Time;
use quota::timing::Timing;
use quota::units::{Amount, Rate};

const RPM: u64 = 1_200;

/// How the provider counts.
#[derive(Clone, Copy, PartialEq)]
enum Limiter {
    Bucket,
    ReportedWindow,
    HiddenWindow,
}

/// Windows begin this long before the world does.
const PHASE_MS: u64 = 37_123;
const STEP_MS: u64 = 4;

struct Account {
    limiter: Limiter,
    bucket: Bucket,
    window: (u64, u64),
}

impl Account {
    fn admit(&mut self, now: Time, units: u64) -> bool {
        if self.limiter == Limiter::Bucket {
            self.bucket.advance(now);
            let amount = Amount::from_units(units);
            let fits = self.bucket.available() >= amount;
            if fits {
                self.bucket.take(amount);
            }
            return fits;
        }
        let index = (now.as_nanos() / 1_000_000 + PHASE_MS) / 60_000;
        if self.window.0 != index {
            self.window = (index, 0);
        }
        let fits = self.window.1 + units <= RPM;
        if fits {
            self.window.1 += units;
        }
        fits
    }

    fn edge(&self, now: Time) -> Option<Time> {
        let millis = now.as_nanos() / 1_000_000 + PHASE_MS;
        let edge = Time::from_millis((millis / 60_000 + 1) * 60_000 - PHASE_MS);
        (self.limiter == Limiter::ReportedWindow).then_some(edge)
    }
}

struct World {
    ledger: Ledger,
    pods: BTreeMap<PodId, Holder>,
    budget: BudgetId,
    provider: Account,
    admitted: u64,
    rejected: u64,
    waits: BTreeMap<String, Vec<u64>>,
    asked: BTreeMap<(PodId, u64), (Time, String)>,
    refused: u64,
    random: u64,
}

fn policy(limiter: Limiter) -> Policy {
    let window = match limiter {
        Limiter::Bucket => Window::TokenBucket,
        Limiter::ReportedWindow | Limiter::HiddenWindow => Window::FixedWindow,
    };
    let shape = Shape { burst_percent: 5, window, ..Shape::default() };
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
    fn new(limiter: Limiter, pods: usize) -> World {
        let now = Time::ZERO;
        let start = Takeover {
            epoch: Epoch(1),
            quiet_until: now,
            roster: BTreeSet::new(),
            floors: BTreeMap::new(),
            floor_ttl: Duration::ZERO,
        };
        let policy = policy(limiter);
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
        let mut bucket = Bucket::new(now, rate, Amount::from_units(RPM / 20));
        bucket.add(Amount::MAX);
        let provider = Account { limiter, bucket, window: (0, 0) };
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

    fn arrive(&mut self, now: Time, pod: &PodId, class: &str, units: u64) {
        let ask = Ask {
            vector: Vector::from([(self.budget.clone(), Amount::from_units(units))]),
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

    fn go(
        &mut self,
        now: Time,
        pod: &PodId,
        class: &str,
        since: Time,
        mut reservation: Reservation,
    ) {
        let units = reservation.vector[&self.budget].units();
        if self.provider.admit(now, units) {
            self.admitted += units;
        } else {
            self.rejected += 1;
        }
        if let Some(edge) = self.provider.edge(now) {
            let (limit, remaining) = (Amount::from_units(RPM), Amount::ZERO);
            let seen = Seen { at: now, reset_lo: edge, reset_hi: edge, limit, remaining };
            self.pods.get_mut(pod).unwrap().seen(&self.budget.clone(), seen);
        }
        self.pods.get_mut(pod).unwrap().sent(now, &mut reservation, Duration::from_millis(2));
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

/// Runs for `seconds` at `overload_percent`, the high class asking for a quarter of the budget.
/// `sizes` are the units of requests of the low class, in turn.
fn run(limiter: Limiter, pods: usize, overload_percent: u64, sizes: &[u64], seconds: u64) -> World {
    let mut world = World::new(limiter, pods.max(4));
    let names: Vec<PodId> = world.pods.keys().cloned().collect();
    let busy = pods as u64;
    let per_step = RPM * 1_000_000 / 60_000 * STEP_MS;
    let mean = sizes.iter().sum::<u64>() / sizes.len() as u64;
    let mut turn = 0;
    for step in 0..seconds * 1_000 / STEP_MS {
        let now = Time::from_millis(step * STEP_MS);
        for pod in names.iter().take(pods) {
            if world.chance(per_step / 4 / busy) {
                world.arrive(now, pod, "high", 1);
            }
            if world.chance(per_step * (overload_percent - 25) / 100 / busy / mean) {
                turn += 1;
                world.arrive(now, pod, "low", sizes[turn % sizes.len()]);
            }
        }
        world.exchange(now);
    }
    world
}

fn check(world: World, offered: u64, least: f64) {
    let high = check_use(world, offered, least);
    assert!(high <= 250, "wait p99 of the high class: {high} ms");
}

/// Returns the wait of the high class, in milliseconds.
fn check_use(mut world: World, offered: u64, least: f64) -> u64 {
    let used = world.admitted as f64 / offered as f64;
    let (high, low) = (world.wait_p99("high"), world.wait_p99("low"));
    println!(
        "admitted {} of {offered} = {used:.4}, 429 {}, refused {}, p99 high {high} low {low}",
        world.admitted, world.rejected, world.refused
    );
    assert_eq!(world.rejected, 0);
    assert!(used >= least, "used {used}");
    high
}

const MINUTE_OF_A_BUCKET: u64 = RPM + RPM / 20;

#[test]
fn many_busy_pods_use_the_budget_and_cause_no_429() {
    check(run(Limiter::Bucket, 16, 300, &[1], 60), MINUTE_OF_A_BUCKET, 0.99);
}

#[test]
fn few_busy_pods_use_the_budget_and_cause_no_429() {
    // A bucket that starts full loses a little while demand barely exceeds the budget.
    check(run(Limiter::Bucket, 4, 120, &[1], 60), MINUTE_OF_A_BUCKET, 0.985);
    check(run(Limiter::Bucket, 4, 1_000, &[1], 60), MINUTE_OF_A_BUCKET, 0.99);
}

#[test]
fn one_busy_pod_among_many_can_use_the_whole_budget() {
    check(run(Limiter::Bucket, 1, 300, &[1], 60), MINUTE_OF_A_BUCKET, 0.99);
}

#[test]
fn a_window_whose_reset_is_reported_is_used_up() {
    check(run(Limiter::ReportedWindow, 8, 300, &[1], 120), 2 * RPM, 0.99);
}

#[test]
fn a_window_of_unknown_edges_is_nearly_used_up() {
    check(run(Limiter::HiddenWindow, 8, 300, &[1], 120), 2 * RPM, 0.97);
}

#[test]
fn a_window_of_unknown_edges_admits_requests_much_larger_than_its_burst() {
    check_use(run(Limiter::HiddenWindow, 8, 300, &[1, 2, 100, 300], 120), 2 * RPM, 0.8);
}
