//! Conversions of a pod's policy.

use std::collections::BTreeMap;
use std::time::Duration;

use quota::budget::{Budget, Kind};
use quota::dimension::{Dimension, Protocol};
use quota::policy::{
    Key, Limit, Mode, OnLoss, PodPolicy, Provider, QueueLimits, Quota, Secret, Use,
};
use quota::units::{Amount, Rate};

use crate::bounds::{
    self, ENTRIES_MAX, FIGURES_MAX, NAMES_MAX, SECRET_MAX, STRING_MAX, URL_MAX, budget, known,
    nanos, required,
};
use crate::error::Error;
use crate::generated as proto;
use crate::generated::budget::Kind as ProtoKind;

// === impl PodPolicy ===

impl From<PodPolicy> for proto::Policy {
    fn from(policy: PodPolicy) -> proto::Policy {
        let classes = policy.classes.iter().map(|(name, value)| (name.to_string(), *value));
        proto::Policy {
            generation: policy.generation,
            classes: classes.collect(),
            quota: Some(policy.quota.into()),
            providers: policy.providers.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<proto::Policy> for PodPolicy {
    type Error = Error;

    fn try_from(policy: proto::Policy) -> Result<PodPolicy, Error> {
        let field = "policy.providers";
        let provider = |provider| {
            let provider = Provider::try_from(provider)?;
            Ok((provider.name.clone(), provider))
        };
        bounds::count("policy.classes", policy.classes.len(), NAMES_MAX)?;
        let classes = policy.classes.into_iter();
        let classes =
            classes.map(|(name, value)| Ok((bounds::name("policy.classes", name)?, value)));
        Ok(PodPolicy {
            generation: policy.generation,
            quota: required("policy.quota", policy.quota)?.try_into()?,
            providers: bounds::map(field, policy.providers, NAMES_MAX, provider)?
                .into_values()
                .collect(),
            classes: classes.collect::<Result<_, Error>>()?,
        })
    }
}

// === impl Quota ===

impl From<Quota> for proto::Quota {
    fn from(quota: Quota) -> proto::Quota {
        proto::Quota {
            namespace: quota.namespace.to_string(),
            name: quota.name.to_string(),
            selector: quota.selector,
            class: quota.class.to_string(),
            permitted: quota.permitted.iter().map(ToString::to_string).collect(),
            weight: quota.weight,
            uses: quota.uses.into_iter().map(Into::into).collect(),
            max_wait_nanos: nanos(quota.queue.max_wait),
            max_requests: quota.queue.max_requests,
            per_request_max_tokens: quota.per_request_max_tokens,
            on_allocator_loss: match quota.on_allocator_loss {
                OnLoss::Floor => proto::OnAllocatorLoss::Floor,
                OnLoss::Closed => proto::OnAllocatorLoss::Closed,
                OnLoss::Open => proto::OnAllocatorLoss::Open,
            }
            .into(),
            mode: match quota.mode {
                Mode::Off => proto::Mode::Off,
                Mode::Shadow => proto::Mode::Shadow,
                Mode::Enforce => proto::Mode::Enforce,
            }
            .into(),
        }
    }
}

impl TryFrom<proto::Quota> for Quota {
    type Error = Error;

    fn try_from(quota: proto::Quota) -> Result<Quota, Error> {
        let permitted = |name| bounds::name("quota.permitted", name);
        let max_wait = Duration::from_nanos(quota.max_wait_nanos);
        Ok(Quota {
            namespace: bounds::name("quota.namespace", quota.namespace)?,
            name: bounds::name("quota.name", quota.name)?,
            selector: bounds::labels("quota.selector", quota.selector)?,
            class: bounds::name("quota.class", quota.class)?,
            permitted: bounds::list("quota.permitted", quota.permitted, NAMES_MAX, permitted)?,
            weight: quota.weight,
            uses: bounds::list("quota.uses", quota.uses, ENTRIES_MAX, Use::try_from)?,
            queue: QueueLimits { max_wait, max_requests: quota.max_requests },
            per_request_max_tokens: quota.per_request_max_tokens,
            on_allocator_loss: on_loss(quota.on_allocator_loss)?,
            mode: mode(quota.mode)?,
        })
    }
}

fn on_loss(value: i32) -> Result<OnLoss, Error> {
    let field = "quota.on_allocator_loss";
    match known(field, value)? {
        proto::OnAllocatorLoss::Unspecified => Err(Error::Missing { field }),
        proto::OnAllocatorLoss::Floor => Ok(OnLoss::Floor),
        proto::OnAllocatorLoss::Closed => Ok(OnLoss::Closed),
        proto::OnAllocatorLoss::Open => Ok(OnLoss::Open),
    }
}

fn mode(value: i32) -> Result<Mode, Error> {
    let field = "quota.mode";
    match known(field, value)? {
        proto::Mode::Unspecified => Err(Error::Missing { field }),
        proto::Mode::Off => Ok(Mode::Off),
        proto::Mode::Shadow => Ok(Mode::Shadow),
        proto::Mode::Enforce => Ok(Mode::Enforce),
    }
}

// === impl Use ===

impl From<Use> for proto::Use {
    fn from(permission: Use) -> proto::Use {
        proto::Use {
            provider: permission.provider.to_string(),
            limit: permission.limit.map(|limit| limit.to_string()),
            guaranteed: rates(&permission.guaranteed),
            ceiling: rates(&permission.ceiling),
        }
    }
}

impl TryFrom<proto::Use> for Use {
    type Error = Error;

    fn try_from(permission: proto::Use) -> Result<Use, Error> {
        let limit = permission.limit.map(|limit| bounds::name("quota.uses.limit", limit));
        Ok(Use {
            provider: bounds::name("quota.uses.provider", permission.provider)?,
            limit: limit.transpose()?,
            guaranteed: checked_rates("quota.uses.guaranteed", permission.guaranteed)?,
            ceiling: checked_rates("quota.uses.ceiling", permission.ceiling)?,
        })
    }
}

fn rates(rates: &BTreeMap<Dimension, Rate>) -> Vec<proto::DimensionRate> {
    let rates = rates.iter().map(|(of, rate)| proto::DimensionRate {
        dimension: dimension(*of).into(),
        rate_micros: rate.micros(),
    });
    rates.collect()
}

fn checked_rates(
    field: &'static str,
    rates: Vec<proto::DimensionRate>,
) -> Result<BTreeMap<Dimension, Rate>, Error> {
    bounds::map(field, rates, FIGURES_MAX, |rate| {
        Ok((checked_dimension(field, rate.dimension)?, Rate::from_micros(rate.rate_micros)))
    })
}

// === impl Provider ===

impl From<Provider> for proto::Provider {
    fn from(provider: Provider) -> proto::Provider {
        proto::Provider {
            name: provider.name.to_string(),
            protocol: match provider.protocol {
                Protocol::OpenAi => proto::Protocol::Openai,
                Protocol::Anthropic => proto::Protocol::Anthropic,
                Protocol::OpenAiCompatible => proto::Protocol::OpenaiCompatible,
            }
            .into(),
            endpoint: provider.endpoint,
            keys: provider.keys.into_iter().map(Into::into).collect(),
            limits: provider.limits.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<proto::Provider> for Provider {
    type Error = Error;

    fn try_from(provider: proto::Provider) -> Result<Provider, Error> {
        let field = "provider.protocol";
        let protocol = match known(field, provider.protocol)? {
            proto::Protocol::Unspecified => return Err(Error::Missing { field }),
            proto::Protocol::Openai => Protocol::OpenAi,
            proto::Protocol::Anthropic => Protocol::Anthropic,
            proto::Protocol::OpenaiCompatible => Protocol::OpenAiCompatible,
        };
        Ok(Provider {
            name: bounds::name("provider.name", provider.name)?,
            protocol,
            endpoint: bounds::filled("provider.endpoint", provider.endpoint, URL_MAX)?,
            keys: bounds::list("provider.keys", provider.keys, NAMES_MAX, Key::try_from)?,
            limits: bounds::list("provider.limits", provider.limits, ENTRIES_MAX, Limit::try_from)?,
        })
    }
}

// === impl Key ===

impl From<Key> for proto::Key {
    fn from(key: Key) -> proto::Key {
        proto::Key {
            name: key.name.to_string(),
            secret: key.secret.expose().to_owned(),
            weight: key.weight,
            models: key.models,
        }
    }
}

impl TryFrom<proto::Key> for Key {
    type Error = Error;

    fn try_from(key: proto::Key) -> Result<Key, Error> {
        Ok(Key {
            name: bounds::name("key.name", key.name)?,
            // Empty where the Secret is missing: the key is known, and cannot be used.
            secret: Secret::new(&bounds::text("key.secret", key.secret, SECRET_MAX)?),
            weight: key.weight,
            models: patterns("key.models", key.models)?,
        })
    }
}

// === impl Limit ===

impl From<Limit> for proto::Limit {
    fn from(limit: Limit) -> proto::Limit {
        proto::Limit {
            name: limit.name.to_string(),
            models: limit.models,
            budgets: limit.budgets.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<proto::Limit> for Limit {
    type Error = Error;

    fn try_from(limit: proto::Limit) -> Result<Limit, Error> {
        Ok(Limit {
            name: bounds::name("limit.name", limit.name)?,
            models: patterns("limit.models", limit.models)?,
            budgets: bounds::list("limit.budgets", limit.budgets, FIGURES_MAX, Budget::try_from)?,
        })
    }
}

fn patterns(field: &'static str, patterns: Vec<String>) -> Result<Vec<String>, Error> {
    bounds::list(field, patterns, ENTRIES_MAX, |pattern| bounds::filled(field, pattern, STRING_MAX))
}

// === impl Budget ===

impl From<Budget> for proto::Budget {
    fn from(budget: Budget) -> proto::Budget {
        let kind = match budget.kind {
            Kind::Bucket { rate, burst } => ProtoKind::Bucket(proto::Bucket {
                rate_micros: rate.micros(),
                burst_micros: burst.micros(),
            }),
            Kind::Window { limit, length } => ProtoKind::Window(proto::Window {
                limit_micros: limit.micros(),
                length_nanos: nanos(length),
            }),
            Kind::Stock { amount, period } => ProtoKind::Stock(proto::Stock {
                amount_micros: amount.micros(),
                period_nanos: nanos(period),
            }),
            Kind::Slots { count } => {
                ProtoKind::Slots(proto::Slots { count_micros: count.micros() })
            }
        };
        proto::Budget {
            id: budget.id.to_string(),
            dimension: dimension(budget.dimension).into(),
            kind: Some(kind),
            floor_percent: budget.floor_percent,
            floor_duration_nanos: nanos(budget.floor_duration),
        }
    }
}

impl TryFrom<proto::Budget> for Budget {
    type Error = Error;

    fn try_from(figure: proto::Budget) -> Result<Budget, Error> {
        let kind = match required("budget.kind", figure.kind)? {
            ProtoKind::Bucket(bucket) => Kind::Bucket {
                rate: Rate::from_micros(bucket.rate_micros),
                burst: Amount::from_micros(bucket.burst_micros),
            },
            ProtoKind::Window(window) => Kind::Window {
                limit: Amount::from_micros(window.limit_micros),
                length: Duration::from_nanos(window.length_nanos),
            },
            ProtoKind::Stock(stock) => Kind::Stock {
                amount: Amount::from_micros(stock.amount_micros),
                period: Duration::from_nanos(stock.period_nanos),
            },
            ProtoKind::Slots(slots) => {
                Kind::Slots { count: Amount::from_micros(slots.count_micros) }
            }
        };
        Ok(Budget {
            id: budget("budget.id", figure.id)?,
            dimension: checked_dimension("budget.dimension", figure.dimension)?,
            kind,
            floor_percent: figure.floor_percent,
            floor_duration: Duration::from_nanos(figure.floor_duration_nanos),
        })
    }
}

// === impl Dimension ===

fn dimension(dimension: Dimension) -> proto::Dimension {
    match dimension {
        Dimension::RequestsPerMinute => proto::Dimension::RequestsPerMinute,
        Dimension::TokensPerMinute => proto::Dimension::TokensPerMinute,
        Dimension::InputTokensPerMinute => proto::Dimension::InputTokensPerMinute,
        Dimension::OutputTokensPerMinute => proto::Dimension::OutputTokensPerMinute,
        Dimension::RequestsPerDay => proto::Dimension::RequestsPerDay,
        Dimension::TokensPerDay => proto::Dimension::TokensPerDay,
        Dimension::ConcurrentRequests => proto::Dimension::ConcurrentRequests,
    }
}

fn checked_dimension(field: &'static str, value: i32) -> Result<Dimension, Error> {
    match known(field, value)? {
        proto::Dimension::Unspecified => Err(Error::Missing { field }),
        proto::Dimension::RequestsPerMinute => Ok(Dimension::RequestsPerMinute),
        proto::Dimension::TokensPerMinute => Ok(Dimension::TokensPerMinute),
        proto::Dimension::InputTokensPerMinute => Ok(Dimension::InputTokensPerMinute),
        proto::Dimension::OutputTokensPerMinute => Ok(Dimension::OutputTokensPerMinute),
        proto::Dimension::RequestsPerDay => Ok(Dimension::RequestsPerDay),
        proto::Dimension::TokensPerDay => Ok(Dimension::TokensPerDay),
        proto::Dimension::ConcurrentRequests => Ok(Dimension::ConcurrentRequests),
    }
}
