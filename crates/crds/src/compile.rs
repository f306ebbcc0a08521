//! From objects to the policy: what people wrote, resolved and checked.
//!
//! Both sources (the directory, the watches of a cluster) end here. What an object refers to and
//! is not there is a warning, and the referring part is left out; files are applied in any order.

use std::collections::{BTreeMap, BTreeSet};

use kube::{Resource, ResourceExt};
use quota::dimension::Dimension;
use quota::policy::{Class, Key, Limit, Name, Policy, Provider, QueueLimits, Quota, Secret, Use};
use quota::units::{Amount, Rate};

use crate::duration;
use crate::endpoint;
use crate::path::Path;
use crate::priority_class::{self, LLMPriorityClass};
use crate::problem::{ObjectId, Problem, Reason, Violation};
use crate::provider::{KeySpec, LLMProvider, LimitSpec, SecretRef};
use crate::quota::{BudgetSpec, LLMQuota, PerMinute};
use crate::review::review;
use crate::validate;

/// What a policy is made of. Names are unique within each kind, and for quotas within a namespace.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Accounts.
    pub providers: Vec<LLMProvider>,
    /// Priority classes.
    pub classes: Vec<LLMPriorityClass>,
    /// Quotas.
    pub quotas: Vec<LLMQuota>,
    /// The entries of the allocator's Secrets, by the Secret's name.
    pub secrets: BTreeMap<String, BTreeMap<String, Secret>>,
}

/// A policy, and what in it does not do what its author may think.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// The policy. Its generation is 0: the source counts.
    pub policy: Policy,
    /// Missing references, overcommitment, parts without effect.
    pub warnings: Vec<Problem>,
}

/// Makes the policy of all sound objects, and says what is wrong with the others.
pub fn compile(objects: &Objects) -> (Compiled, Vec<Problem>) {
    let mut compiler = Compiler { objects, policy: Policy::default(), found: Found::default() };
    compiler.classes();
    for provider in &objects.providers {
        compiler.provider(provider);
    }
    let mut quotas: Vec<&LLMQuota> = objects.quotas.iter().collect();
    quotas.sort_by_key(|quota| (quota.namespace(), quota.name_any()));
    for quota in quotas {
        compiler.quota(quota);
    }
    let Compiler { policy, found: Found { errors, mut warnings }, .. } = compiler;
    warnings.extend(review(&policy));
    (Compiled { policy, warnings }, errors)
}

/// The class of quotas that name none, where no class is the global default: one that a person made
/// under this name, or else one of value 0.
const FALLBACK_CLASS: &str = "default";

const VERSIONED_ENDPOINT: &str = "ends in /v1, and so does the base URL that most applications are \
     given: calls would go to /v1/v1/...; leave the /v1 out unless your applications do";

struct Compiler<'a> {
    objects: &'a Objects,
    policy: Policy,
    found: Found,
}

#[derive(Default)]
struct Found {
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

// === impl Compiler ===

impl Compiler<'_> {
    fn classes(&mut self) {
        let mut classes: Vec<&LLMPriorityClass> = self.objects.classes.iter().collect();
        classes.sort_by_key(|class| class.name_any());
        let mut default: Option<String> = None;
        for object in classes {
            let name = object.name_any();
            let mut global_default = object.spec.global_default;
            match &default {
                Some(first) if global_default => {
                    let message = priority_class::second_default(first);
                    let path = Path::spec().field("globalDefault");
                    self.found.errors.push(Problem::of(id(object), path, Reason::Invalid, message));
                    global_default = false;
                }
                None if global_default => default = Some(name.clone()),
                _ => {}
            }
            let class = Class {
                name: name.as_str().into(),
                value: object.spec.value,
                min_share_percent: object.spec.min_share_percent,
                holdback_percent: object.spec.holdback_percent,
                global_default,
            };
            self.policy.classes.insert(class.name.clone(), class);
        }
    }

    fn provider(&mut self, object: &LLMProvider) {
        let violations = validate::provider(object);
        let endpoint = match endpoint::parse(&object.spec.endpoint) {
            Ok(endpoint) if violations.is_empty() => endpoint.to_owned(),
            _ => return self.found.refuse(object, violations),
        };
        if endpoint.ends_with("/v1") {
            let path = Path::spec().field("endpoint");
            self.found.warn(object, path, Reason::NoEffect, VERSIONED_ENDPOINT.into());
        }
        let keys = object.spec.keys.iter().enumerate();
        let provider = Provider {
            name: object.name_any().into(),
            protocol: object.spec.protocol.into(),
            endpoint,
            keys: keys.map(|(index, key)| self.key(object, index, key)).collect(),
            limits: object.spec.limits.iter().map(|limit| limit_of(object, limit)).collect(),
        };
        self.policy.providers.insert(provider.name.clone(), provider);
    }

    /// A key whose Secret is not there stays in the list, empty: without any key, the application's
    /// own would pass through, which is not what was asked for.
    fn key(&mut self, object: &LLMProvider, index: usize, key: &KeySpec) -> Key {
        let SecretRef { name, key: entry } = &key.secret_ref;
        let secret = self.objects.secrets.get(name).map(|entries| entries.get(entry));
        let missing = match secret {
            None => Some(format!("there is no Secret {name}")),
            Some(None) => Some(format!("Secret {name} has no entry {entry}")),
            Some(Some(secret)) if secret.is_empty() => Some(format!(
                "the entry {entry} of Secret {name} cannot be a key: it is empty, or holds \
                 characters that no HTTP header carries"
            )),
            Some(Some(_)) => None,
        };
        if let Some(missing) = missing {
            let path = Path::spec().field("keys").index(index).field("secretRef");
            let message = format!("{missing}; the key is not used until that is put right");
            self.found.warn(object, path, Reason::MissingReference, message);
        }
        Key {
            name: key.name.as_str().into(),
            secret: secret.flatten().cloned().unwrap_or_else(|| Secret::new("")),
            weight: key.weight,
            models: key.models.clone(),
        }
    }

    fn quota(&mut self, object: &LLMQuota) {
        let violations = validate::quota(object);
        let max_wait = match duration::parse(&object.spec.queue.max_wait) {
            Some(max_wait) if violations.is_empty() => max_wait,
            _ => return self.found.refuse(object, violations),
        };
        let class = self.class(object);
        let permitted = self.permitted(object);
        let mut uses: Vec<Use> = object
            .spec
            .budgets
            .iter()
            .enumerate()
            .filter_map(|(index, budget)| self.permission(object, index, budget))
            .collect();
        // Later figures go before earlier ones.
        uses.sort_by_key(|permission| permission.limit.is_some());
        let spec = &object.spec;
        self.policy.quotas.push(Quota {
            namespace: object.namespace().unwrap_or_default().into(),
            name: object.name_any().into(),
            selector: spec.selector.match_labels.clone(),
            class,
            permitted,
            weight: spec.weight,
            uses,
            queue: QueueLimits { max_wait, max_requests: spec.queue.max_requests },
            per_request_max_tokens: spec.per_request.max_tokens.map(|figure| figure.0),
            on_allocator_loss: spec.on_allocator_loss.into(),
            mode: spec.mode.into(),
        });
    }

    /// The class that the quota names, or the one of quotas that name none.
    fn class(&mut self, object: &LLMQuota) -> Name {
        let Some(name) = object.spec.priority_class_name.as_deref() else { return self.fallback() };
        if let Some((name, _)) = self.policy.classes.get_key_value(name) {
            return name.clone();
        }
        let fallback = self.fallback();
        let message = format!(
            "there is no LLMPriorityClass {name}; the class {fallback} ({}) is used until there is",
            self.policy.class_value(&fallback)
        );
        self.found.warn(
            object,
            Path::spec().field("priorityClassName"),
            Reason::MissingReference,
            message,
        );
        fallback
    }

    fn fallback(&mut self) -> Name {
        let mut classes = self.policy.classes.values();
        if let Some(class) = classes.find(|class| class.global_default) {
            return class.name.clone();
        }
        let name = Name::from(FALLBACK_CLASS);
        self.policy.classes.entry(name.clone()).or_insert_with(|| Class {
            name: name.clone(),
            value: 0,
            min_share_percent: priority_class::min_share_percent(),
            holdback_percent: 0,
            global_default: false,
        });
        name
    }

    fn permitted(&mut self, object: &LLMQuota) -> Vec<Name> {
        let mut permitted = Vec::new();
        for (index, name) in object.spec.permitted_classes.iter().enumerate() {
            match self.policy.classes.get_key_value(name.as_str()) {
                Some((name, _)) => permitted.push(name.clone()),
                None => {
                    let path = Path::spec().field("permittedClasses").index(index);
                    let message = format!(
                        "there is no LLMPriorityClass {name}; it is left out until there is"
                    );
                    self.found.warn(object, path, Reason::MissingReference, message);
                }
            }
        }
        permitted
    }

    /// What one entry of `budgets` permits; `None` if what it names is not there.
    fn permission(&mut self, object: &LLMQuota, index: usize, spec: &BudgetSpec) -> Option<Use> {
        let path = Path::spec().field("budgets").index(index);
        let Some(provider) = self.policy.providers.get(spec.provider.as_str()) else {
            let message = format!(
                "there is no LLMProvider {}; the entry is left out until there is",
                spec.provider
            );
            self.found.warn(object, path.field("provider"), Reason::MissingReference, message);
            return None;
        };
        let limit = spec.limit.as_deref();
        let covered: Vec<&Limit> =
            provider.limits.iter().filter(|l| limit.is_none_or(|name| *l.name == *name)).collect();
        if let Some(limit) = limit.filter(|_| covered.is_empty()) {
            let message = format!(
                "LLMProvider {} has no limit {limit} (it has {}); the entry is left out until it has",
                spec.provider,
                names(provider)
            );
            self.found.warn(object, path.field("limit"), Reason::MissingReference, message);
            return None;
        }
        let counted: BTreeSet<Dimension> =
            covered.iter().flat_map(|limit| &limit.budgets).map(|b| b.dimension).collect();
        for (field, figures) in [("guaranteed", &spec.guaranteed), ("ceiling", &spec.ceiling)] {
            let figures = figures.iter().flat_map(PerMinute::figures);
            for (dimension, _) in figures.filter(|(dimension, _)| !counted.contains(dimension)) {
                let message = match limit {
                    Some(limit) => format!("has no effect: limit {limit} has no {dimension}"),
                    None => format!(
                        "has no effect: no limit of LLMProvider {} has {dimension}",
                        spec.provider
                    ),
                };
                let path = path.field(field).field(dimension.name());
                self.found.warn(object, path, Reason::NoEffect, message);
            }
        }
        Some(Use {
            provider: provider.name.clone(),
            limit: limit.map(Name::from),
            guaranteed: rates(spec.guaranteed.as_ref()),
            ceiling: rates(spec.ceiling.as_ref()),
        })
    }
}

// === impl Found ===

impl Found {
    fn warn<K: Resource<DynamicType = ()>>(
        &mut self,
        object: &K,
        path: Path,
        reason: Reason,
        message: String,
    ) {
        self.warnings.push(Problem::of(id(object), path, reason, message));
    }

    fn refuse<K: Resource<DynamicType = ()>>(&mut self, object: &K, violations: Vec<Violation>) {
        let problem = |v: Violation| Problem::of(id(object), v.path, Reason::Invalid, v.message);
        self.errors.extend(violations.into_iter().map(problem));
    }
}

fn id<K: Resource<DynamicType = ()>>(object: &K) -> ObjectId {
    ObjectId::new(&K::kind(&()), object.namespace().as_deref(), &object.name_any())
}

fn limit_of(provider: &LLMProvider, limit: &LimitSpec) -> Limit {
    Limit {
        name: limit.name.as_str().into(),
        models: limit.models.clone(),
        budgets: limit.budgets(provider),
    }
}

fn names(provider: &Provider) -> String {
    let names: Vec<&str> = provider.limits.iter().map(|limit| &*limit.name).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// Figures per minute as rates.
fn rates(figures: Option<&PerMinute>) -> BTreeMap<Dimension, Rate> {
    let figures = figures.into_iter().flat_map(PerMinute::figures);
    figures
        .filter_map(|(dimension, figure)| {
            Some((dimension, Rate::per(Amount::from_units(figure.0), dimension.period()?)))
        })
        .collect()
}
