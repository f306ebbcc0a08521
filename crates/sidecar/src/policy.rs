//! The policy of this pod, made ready for requests: one snapshot per generation, read without a lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Uri;
use providers::Adapter;
use quota::policy::{Key, Name, PodPolicy, Provider};
use tracing::warn;

/// What this pod knows of its policy.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    /// Nothing yet: no allocator has answered.
    Unknown,
    /// No quota matches it; what to create.
    NoQuota(Arc<str>),
    /// A quota applies.
    Known(Arc<Snapshot>),
}

/// A policy and what follows from it.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) policy: PodPolicy,
    targets: BTreeMap<Name, Arc<Target>>,
}

/// A provider that requests can go to.
pub(crate) struct Target {
    pub(crate) provider: Provider,
    pub(crate) adapter: &'static dyn Adapter,
    /// Scheme, host and port, and the path before every request's own.
    pub(crate) endpoint: Uri,
    turn: AtomicU64,
}

// === impl Snapshot ===

impl Snapshot {
    /// A snapshot of `policy`. A provider whose endpoint is no URL is left out; the allocator has
    /// checked them.
    pub(crate) fn new(policy: PodPolicy) -> Snapshot {
        let mut targets = BTreeMap::new();
        for provider in &policy.providers {
            match Target::new(provider) {
                Some(target) => {
                    targets.insert(provider.name.clone(), Arc::new(target));
                }
                None => warn!(provider = &*provider.name, "its endpoint is no URL; left out"),
            }
        }
        Snapshot { policy, targets }
    }

    /// The provider of a path's first segment.
    pub(crate) fn target(&self, segment: &str) -> Option<&Arc<Target>> {
        self.targets.get(&self.policy.provider(segment)?.name)
    }
}

// === impl Target ===

impl Target {
    fn new(provider: &Provider) -> Option<Target> {
        let endpoint: Uri = provider.endpoint.parse().ok()?;
        endpoint.authority()?;
        matches!(endpoint.scheme_str(), Some("http" | "https")).then(|| Target {
            provider: provider.clone(),
            adapter: providers::adapter(provider.protocol),
            endpoint,
            turn: AtomicU64::new(0),
        })
    }

    /// The key for the next call of `model`: each in its turn, by weight, evenly mixed. `None` where
    /// the application's own key passes through.
    pub(crate) fn next_key<'a>(&'a self, model: &'a str) -> Option<&'a Key> {
        let total: u64 = self.provider.keys_of(model).map(|key| u64::from(key.weight)).sum();
        // Multiples of the golden ratio, modulo one, fall evenly into the keys' shares.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut at = u64::try_from((u128::from(turn) * u128::from(total)) >> 64).unwrap_or(0);
        let mut keys = self.provider.keys_of(model).peekable();
        while let Some(key) = keys.next() {
            let weight = u64::from(key.weight);
            if at < weight || keys.peek().is_none() {
                return Some(key);
            }
            at -= weight;
        }
        None
    }

    /// True if there are keys, but none that may be used for `model`.
    pub(crate) fn lacks_key(&self, model: &str) -> bool {
        !self.provider.keys.is_empty() && self.provider.keys_of(model).next().is_none()
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("provider", &self.provider).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use quota::dimension::Protocol;
    use quota::policy::Secret;

    use super::*;

    fn target(keys: &[(&str, u32, &[&str])]) -> Target {
        let keys = keys.iter().map(|(name, weight, models)| Key {
            name: (*name).into(),
            secret: Secret::new("sk-secret"),
            weight: *weight,
            models: models.iter().map(ToString::to_string).collect(),
        });
        let provider = Provider {
            name: "openai".into(),
            protocol: Protocol::OpenAi,
            endpoint: "https://api.openai.com".to_owned(),
            keys: keys.collect(),
            limits: Vec::new(),
        };
        Target::new(&provider).expect("the endpoint is a URL")
    }

    #[test]
    fn keys_take_turns_by_weight_and_only_for_their_models() {
        let target = target(&[("a", 70, &[]), ("b", 30, &["gpt-4o*"])]);
        let drawn: Vec<&str> =
            (0..1_000).map(|_| &*target.next_key("gpt-4o").unwrap().name).collect();
        let a = drawn.iter().filter(|name| **name == "a").count();
        assert!((695..=705).contains(&a), "{a}");
        let longest_run = drawn.chunk_by(|x, y| x == y).map(<[&str]>::len).max();
        assert!(longest_run <= Some(4), "{longest_run:?}");
        assert!((0..10).all(|_| &*target.next_key("o3").unwrap().name == "a"));
    }

    #[test]
    fn a_model_without_a_key_is_known_and_a_call_without_a_model_takes_any() {
        let target = target(&[("b", 30, &["gpt-4o*"])]);
        assert!(target.lacks_key("o3") && target.next_key("o3").is_none());
        assert!(!target.lacks_key("gpt-4o") && !target.lacks_key(""));
        assert_eq!(target.next_key("").map(|key| &*key.name), Some("b"));
    }

    #[test]
    fn without_keys_the_applications_own_passes_and_none_is_shown() {
        assert!(target(&[]).next_key("gpt-4o").is_none() && !target(&[]).lacks_key("gpt-4o"));
        let shown = format!("{:?}", target(&[("a", 1, &[])]));
        assert!(!shown.contains("sk-secret"), "{shown}");
    }
}
