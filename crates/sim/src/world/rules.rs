//! The limits of a world, twice: as people write them down for Weir, and as the provider enforces
//! them. Edits change the first; the second is never smaller.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use providers::enforce::rule::{Algorithm, Limit as EnforcedLimit, Rule};
use quota::budget::{Budget, BudgetId, Shape};
use quota::dimension::{Dimension, Protocol, Window};
use quota::policy::{Class, Limit, Mode, Name, OnLoss, Policy, Provider, QueueLimits, Quota, Use};
use quota::units::{Amount, Rate};

use super::options::{Limiter, Options};
use super::random::Random;

/// The provider's name, its only limit's, and its only model's.
pub(super) const PROVIDER: &str = "provider";
pub(super) const LIMIT: &str = "all";
pub(super) const MODEL: &str = "model";
/// The namespace of all pods.
pub(super) const NAMESPACE: &str = "sim";
/// The label that says to which workload a pod belongs.
pub(super) const LABEL: &str = "workload";
/// How many requests of one pod wait at once.
pub(super) const QUEUE_MAX: u32 = 50;

/// The limits of a world.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    policy: Policy,
    shape: Shape,
    /// The figures that the provider enforces.
    enforced: BTreeMap<Dimension, u64>,
    limiter: Limiter,
    /// Where the provider's edges lie.
    phase: Duration,
}

/// One figure of the provider that was raised.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raised {
    pub(super) dimension: Dimension,
    pub(super) limit: u64,
}

// === impl Rules ===

impl Rules {
    pub(super) fn new(options: &Options) -> Rules {
        let (window, burst_percent) = match options.limiter {
            Limiter::Bucket(percent) => (Window::TokenBucket, percent),
            Limiter::Window(_) | Limiter::HiddenWindow(_) => (Window::FixedWindow, 100),
        };
        let (floor_percent, floor_duration) = options.floor;
        let shape = Shape { window, burst_percent, floor_percent, floor_duration };
        let mut rules = Rules {
            policy: Policy { generation: 1, ..Policy::default() },
            shape,
            enforced: figures(options),
            limiter: options.limiter,
            phase: options.edge,
        };
        for (rank, class) in (0..).zip(&options.classes) {
            let name = class_name(rank);
            let class = Class {
                name: name.clone(),
                value: i32::try_from(rank).unwrap_or(i32::MAX) * 10,
                min_share_percent: class.min_share,
                holdback_percent: class.holdback,
                global_default: false,
            };
            rules.policy.classes.insert(name, class);
        }
        rules.policy.quotas = (0..options.workloads).map(|n| quota(n, options)).collect();
        rules.set_figures(&rules.enforced.clone());
        rules
    }

    pub(super) fn policy(&self) -> Arc<Policy> {
        Arc::new(self.policy.clone())
    }

    /// The budgets as people wrote them down.
    pub(super) fn budgets(&self) -> impl Iterator<Item = &Budget> {
        self.policy.budgets()
    }

    /// The largest request of tokens that has a chance.
    pub(super) fn largest_tokens(&self, options: &Options) -> u64 {
        let tokens = self.budgets().find(|b| b.dimension == Dimension::TokensPerMinute);
        let has_successor = options.faults.kills + options.faults.silences > 0;
        if matches!(options.limiter, Limiter::HiddenWindow(_)) && has_successor {
            // A known limit: a successor cannot know of larger ones that were let through ahead of the
            // pace in a window whose edges nobody knows (docs/evidence.md, Simulator).
            return tokens.map_or(u64::MAX, |b| b.largest_request().units() / 50);
        }
        // The guard takes its part of the burst too.
        tokens.map_or(u64::MAX, |budget| budget.largest_request().units() * 3 / 4)
    }

    /// The provider's limits.
    pub(super) fn enforced(&self) -> EnforcedLimit {
        let rules = self.enforced.iter().map(|(dimension, figure)| Rule {
            dimension: *dimension,
            limit: Amount::from_units(*figure),
            algorithm: self.algorithm(*dimension),
            count_rejected: false,
        });
        EnforcedLimit { name: LIMIT.into(), models: vec![MODEL.to_owned()], rules: rules.collect() }
    }

    /// Changes something, as a person would. What must be raised at the provider first is returned.
    pub(super) fn edit(&mut self, random: &mut Random) -> Vec<Raised> {
        self.policy.generation += 1;
        match random.range(0, 3) {
            0 | 1 => return self.edit_figures(random.pick(&[40, 70, 130, 180])),
            2 => {
                for class in self.policy.classes.values_mut() {
                    class.min_share_percent = random.pick(&[0, 2, 20]);
                    class.holdback_percent = random.pick(&[0, 5, 20]);
                }
            }
            _ => self.edit_quotas(random),
        }
        Vec::new()
    }

    fn edit_figures(&mut self, percent: u64) -> Vec<Raised> {
        let scaled = |(d, figure): (&Dimension, &u64)| (*d, (figure * percent / 100).max(2));
        let figures: BTreeMap<Dimension, u64> = self.enforced.iter().map(scaled).collect();
        self.set_figures(&figures);
        let mut raised = Vec::new();
        for (dimension, limit) in figures {
            if self.enforced.get(&dimension).is_some_and(|figure| limit > *figure) {
                self.enforced.insert(dimension, limit);
                raised.push(Raised { dimension, limit });
            }
        }
        raised
    }

    fn edit_quotas(&mut self, random: &mut Random) {
        let classes: Vec<Name> = self.policy.classes.keys().cloned().collect();
        let rates: Vec<(Dimension, Rate)> =
            self.budgets().map(|budget| (budget.dimension, budget.rate())).collect();
        let part = |percent: u64| {
            let scaled = |(d, rate): &(Dimension, Rate)| (*d, rate.scale(percent, 100));
            rates.iter().map(scaled).filter(|(_, rate)| !rate.is_zero()).collect()
        };
        for quota in &mut self.policy.quotas {
            quota.weight = random.pick(&[1, 2, 10]);
            let last = classes.len() as u64 - 1;
            let at = usize::try_from(random.range(0, last)).expect("an index");
            quota.class = classes[at].clone();
            quota.uses[0].guaranteed = part(random.pick(&[0, 0, 10, 30]));
            quota.uses[0].ceiling = if random.percent(30) { part(60) } else { BTreeMap::new() };
        }
    }

    fn set_figures(&mut self, figures: &BTreeMap<Dimension, u64>) {
        let budgets = figures.iter().map(|(dimension, figure)| {
            let id = BudgetId::new(PROVIDER, LIMIT, *dimension);
            let mut budget = Budget::new(id, *dimension, *figure, self.shape);
            if let quota::budget::Kind::Window { length, .. } = &mut budget.kind {
                *length = self.length();
            }
            budget
        });
        let limit = Limit {
            name: LIMIT.into(),
            models: vec![MODEL.to_owned()],
            budgets: budgets.collect(),
        };
        let provider = Provider {
            name: PROVIDER.into(),
            protocol: Protocol::OpenAi,
            endpoint: String::new(),
            keys: Vec::new(),
            limits: vec![limit],
        };
        self.policy.providers.insert(PROVIDER.into(), provider);
    }

    fn algorithm(&self, dimension: Dimension) -> Algorithm {
        match (dimension.period(), self.limiter) {
            (None, _) => Algorithm::Slots,
            (Some(period), Limiter::Bucket(burst_percent)) => {
                Algorithm::Bucket { period, burst_percent }
            }
            (Some(_), Limiter::Window(length) | Limiter::HiddenWindow(length)) => {
                Algorithm::Window { length, phase: self.phase }
            }
        }
    }

    fn length(&self) -> Duration {
        match self.limiter {
            Limiter::Bucket(_) => Duration::from_secs(60),
            Limiter::Window(length) | Limiter::HiddenWindow(length) => length,
        }
    }
}

/// The name of a class.
pub(super) fn class_name(rank: usize) -> Name {
    format!("class-{rank}").into()
}

/// The labels of a pod.
pub(super) fn labels(workload: usize) -> BTreeMap<String, String> {
    BTreeMap::from([(LABEL.to_owned(), workload.to_string())])
}

/// The figures that a world's options make: a window of another length than a minute counts as much
/// per second.
fn figures(options: &Options) -> BTreeMap<Dimension, u64> {
    let seconds = match options.limiter {
        Limiter::Bucket(_) => 60,
        Limiter::Window(length) | Limiter::HiddenWindow(length) => length.as_secs(),
    };
    let requests = options.capacity * seconds;
    let mut figures = BTreeMap::new();
    if options.requests {
        figures.insert(Dimension::RequestsPerMinute, requests);
    }
    if options.tokens {
        // The mean of the sizes is 1.65 times their median.
        let tokens = requests * options.median_tokens * 165 / 100;
        figures.insert(Dimension::TokensPerMinute, tokens);
    }
    if let Some(slots) = options.slots {
        figures.insert(Dimension::ConcurrentRequests, slots);
    }
    figures
}

fn quota(workload: usize, options: &Options) -> Quota {
    let classes = options.classes.len();
    Quota {
        namespace: NAMESPACE.into(),
        name: format!("workload-{workload}").into(),
        selector: labels(workload),
        class: class_name(workload % classes),
        permitted: (0..classes).map(class_name).collect(),
        weight: 1,
        uses: vec![Use {
            provider: PROVIDER.into(),
            limit: None,
            guaranteed: BTreeMap::new(),
            ceiling: BTreeMap::new(),
        }],
        queue: QueueLimits { max_wait: options.patience.1, max_requests: QUEUE_MAX },
        per_request_max_tokens: None,
        on_allocator_loss: OnLoss::Floor,
        mode: Mode::Enforce,
    }
}
