//! The policy in its internal form: what the sources (a directory of YAML, a cluster) compile to and
//! what everything else reads.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::budget::Budget;
use crate::charge::{Charge, Vector};
use crate::dimension::{Dimension, Protocol};
use crate::glob;
use crate::units::Rate;

/// The name of an object of the policy.
pub type Name = Arc<str>;

/// Everything that people wrote, resolved and checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Raised by the source at every change.
    pub generation: u64,
    /// Accounts at providers, by name.
    pub providers: BTreeMap<Name, Provider>,
    /// Priority classes, by name.
    pub classes: BTreeMap<Name, Class>,
    /// What workloads may take, in the order (namespace, name).
    pub quotas: Vec<Quota>,
}

/// An account at a provider, and what it allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// The first path segment on the sidecar.
    pub name: Name,
    /// The language it speaks.
    pub protocol: Protocol,
    /// Scheme, host and optional port and base path, without a slash at the end.
    pub endpoint: String,
    /// Keys of the account; without any, the application's own key passes through.
    pub keys: Vec<Key>,
    /// Its limits, in the order in which people wrote them.
    pub limits: Vec<Limit>,
}

/// One key of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The alias that may be shown.
    pub name: Name,
    /// The key itself; empty if its Secret is not there: such a key is never used.
    pub secret: Secret,
    /// Its share of the calls, relative to the other keys that serve the model.
    pub weight: u32,
    /// Patterns of the models it may be used for; empty for all.
    pub models: Vec<String>,
}

/// One shared limit over the models it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its name within the provider.
    pub name: Name,
    /// Patterns (`*` stands for any run of characters) of the models that share it.
    pub models: Vec<String>,
    /// Its figures.
    pub budgets: Vec<Budget>,
}

/// A priority class: who goes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Its name.
    pub name: Name,
    /// Higher goes first.
    pub value: i32,
    /// What it gets of each budget whatever higher classes demand, in percent.
    pub min_share_percent: u32,
    /// What of each budget's burst lower classes leave untouched for it, in percent.
    pub holdback_percent: u32,
    /// The class of quotas that name none.
    pub global_default: bool,
}

/// What a workload may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Its namespace.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
    /// Labels a pod must carry; empty matches every pod of the namespace.
    pub selector: BTreeMap<String, String>,
    /// The default class of its pods.
    pub class: Name,
    /// Other classes that a pod's annotation or a request's header may choose.
    pub permitted: Vec<Name>,
    /// Its share among workloads of the same class.
    pub weight: u32,
    /// The providers and limits it may use; empty for none.
    pub uses: Vec<Use>,
    /// How requests wait.
    pub queue: QueueLimits,
    /// The most tokens one request may ask for (prompt estimate and output cap together).
    pub per_request_max_tokens: Option<u64>,
    /// What happens when leases and floors have ended without an allocator.
    pub on_allocator_loss: OnLoss,
    /// Whether limits are enforced.
    pub mode: Mode,
}

/// A quota's permission to use a provider, or one limit of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The provider.
    pub provider: Name,
    /// One limit of it; `None` for all.
    pub limit: Option<Name>,
    /// What this workload gets first, per dimension; lent to others while idle.
    pub guaranteed: BTreeMap<Dimension, Rate>,
    /// What this workload never exceeds, per dimension.
    pub ceiling: BTreeMap<Dimension, Rate>,
}

/// How requests of a workload wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// The longest wait of one request.
    pub max_wait: Duration,
    /// How many requests of one pod wait at once.
    pub max_requests: u32,
}

/// What a pod does when its leases and floors have ended and no allocator answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnLoss {
    /// Floors are all there is: refuse after them.
    #[default]
    Floor,
    /// Refuse as soon as leases at full rate have ended.
    Closed,
    /// Admit everything.
    Open,
}

/// Whether limits are enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Requests pass, uncounted.
    Off,
    /// Requests pass at once, counted as if they had been admitted.
    Shadow,
    /// Requests wait or are refused.
    #[default]
    Enforce,
}

/// What one pod needs of the policy: its quota, and the providers that the quota names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPolicy {
    /// Of the policy that it was made of. Later ones in which all of this is the same are not told.
    pub generation: u64,
    /// The quota that applies.
    pub quota: Quota,
    /// The providers it may call, with their keys and all their limits: a provider counts a call
    /// against every limit that covers its model, whatever the quota names.
    pub providers: Vec<Provider>,
    /// The values of the classes that the quota permits.
    pub classes: BTreeMap<Name, i32>,
}

/// A key. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

// === impl Policy ===

impl Policy {
    /// The quota that applies to a pod: of those that match, the one of the highest class, then of
    /// the most selector terms, then the first by name.
    pub fn quota_of(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Option<&Quota> {
        // Every session asks at every change of the policy.
        debug_assert!(self.quotas.is_sorted_by(|a, b| a.namespace <= b.namespace));
        let from = self.quotas.partition_point(|quota| *quota.namespace < *namespace);
        let of = self.quotas[from..].iter().take_while(|quota| *quota.namespace == *namespace);
        of.filter(|quota| quota.matches(namespace, labels)).max_by_key(|quota| {
            let name = std::cmp::Reverse(quota.name.clone());
            (self.class_value(&quota.class), quota.selector.len(), name)
        })
    }

    /// All budgets of all providers.
    pub fn budgets(&self) -> impl Iterator<Item = &Budget> {
        self.providers.values().flat_map(|p| &p.limits).flat_map(|limit| &limit.budgets)
    }

    /// What the policy is for one pod; `None` if no quota matches it. Such a pod gets no key.
    pub fn for_pod(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Option<PodPolicy> {
        let quota = self.quota_of(namespace, labels)?.clone();
        let used = self.providers.values().filter(|p| quota.uses_provider(&p.name));
        let classes = self.classes.values().filter(|class| quota.permits(&class.name));
        Some(PodPolicy {
            generation: self.generation,
            providers: used.cloned().collect(),
            classes: classes.map(|class| (class.name.clone(), class.value)).collect(),
            quota,
        })
    }

    /// The value of a class; 0 for one that does not exist.
    pub fn class_value(&self, class: &str) -> i32 {
        self.classes.get(class).map_or(0, |class| class.value)
    }
}

// === impl PodPolicy ===

impl PodPolicy {
    /// The provider of a path's first segment: by name, or by the alias of its protocol, which
    /// stands for the first provider of that protocol.
    pub fn provider(&self, segment: &str) -> Option<&Provider> {
        let named = self.providers.iter().find(|provider| *provider.name == *segment);
        named.or_else(|| self.providers.iter().find(|p| p.protocol.alias() == segment))
    }
}

// === impl Provider ===

impl Provider {
    /// The limits that a call of `model` counts against.
    pub fn limits_of<'a>(&'a self, model: &'a str) -> impl Iterator<Item = &'a Limit> {
        self.limits.iter().filter(move |limit| limit.covers(model))
    }

    /// What a call of `model` with this charge takes from which budgets. Empty if no limit names the
    /// model: such a call passes, counted.
    pub fn vector(&self, model: &str, charge: &Charge) -> Vector {
        self.limits_of(model)
            .flat_map(|limit| &limit.budgets)
            .map(|budget| (budget.id.clone(), charge.of(budget.dimension.unit())))
            .filter(|(_, amount)| !amount.is_zero())
            .collect()
    }

    /// The keys that may be used for `model`, all of them for a call without one. None, where `keys` is
    /// not empty, means that the call cannot be made.
    pub fn keys_of<'a>(&'a self, model: &'a str) -> impl Iterator<Item = &'a Key> {
        self.keys.iter().filter(move |key| {
            let any = model.is_empty() || key.models.is_empty();
            let serves = any || key.models.iter().any(|m| glob::matches(m, model));
            serves && !key.secret.is_empty()
        })
    }
}

// === impl Limit ===

impl Limit {
    /// True if calls of `model` count against this limit.
    pub fn covers(&self, model: &str) -> bool {
        self.models.iter().any(|pattern| glob::matches(pattern, model))
    }
}

// === impl Quota ===

impl Quota {
    /// True if a pod of this namespace with these labels falls under this quota.
    pub fn matches(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        *self.namespace == *namespace
            && self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// True if requests of this workload may run as `class`.
    pub fn permits(&self, class: &str) -> bool {
        *self.class == *class || self.permitted.iter().any(|permitted| **permitted == *class)
    }

    /// True if this quota lets its pods call `provider`.
    pub fn uses_provider(&self, provider: &str) -> bool {
        self.uses.iter().any(|u| *u.provider == *provider)
    }

    /// `<namespace>/<name>`
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// What this workload gets first of a budget, or never exceeds.
    pub fn bounds(&self, budget: &Budget) -> Bounds {
        let mut bounds = Bounds { guaranteed: Rate::ZERO, ceiling: None };
        let mut parts = budget.id.as_str().split('/');
        let (Some(provider), Some(limit)) = (parts.next(), parts.next()) else { return bounds };
        for permission in &self.uses {
            let named = permission.limit.as_ref().is_none_or(|name| **name == *limit);
            if *permission.provider != *provider || !named {
                continue;
            }
            if let Some(rate) = permission.guaranteed.get(&budget.dimension) {
                bounds.guaranteed = *rate;
            }
            if let Some(rate) = permission.ceiling.get(&budget.dimension) {
                bounds.ceiling = Some(*rate);
            }
        }
        bounds
    }
}

/// A workload's guarantee and ceiling on one budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// What it gets first.
    pub guaranteed: Rate,
    /// What it never exceeds.
    pub ceiling: Option<Rate>,
}

impl Default for QueueLimits {
    /// `design.md` 3: ten seconds and 200 requests.
    fn default() -> QueueLimits {
        QueueLimits { max_wait: Duration::from_secs(10), max_requests: 200 }
    }
}

// === impl Secret ===

impl Secret {
    /// Wraps a key.
    pub fn new(secret: &str) -> Secret {
        Secret(secret.into())
    }

    /// True if there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key, for the one header it goes into.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
