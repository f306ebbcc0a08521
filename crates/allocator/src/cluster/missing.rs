//! Pods that should have a sidecar and have none: created while no webhook answered, or before their
//! namespace was labelled. Nothing holds them to a quota, so people are told.
//!
//! Only metadata is watched, and of it only what says so is kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt as _};
use parking_lot::RwLock;
use tracing::warn;

use crate::cluster::mirror::Mirror;
use crate::cluster::pods::SIDECAR_LABEL;
use crate::cluster::watching;

/// What is known; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Missing {
    known: Arc<RwLock<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// Those that inject.
    namespaces: Mirror<PartialObjectMeta<Namespace>>,
    /// Without a sidecar.
    pods: Mirror<PartialObjectMeta<Pod>>,
}

/// On a pod: "true" asks for a sidecar, "false" does without.
const INJECT: &str = "weir.dev/inject";
/// The same on a namespace, as a label.
const INJECTING: &str = "weir.dev/inject=enabled";

// === impl Missing ===

impl Missing {
    /// Follows namespaces and pods for as long as it is polled.
    pub(crate) async fn run(self, client: Client) {
        let injecting = watcher::Config::default().labels(INJECTING);
        let namespaces =
            watching::all(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), injecting);
        let bare = watcher::Config::default().labels(&format!("!{SIDECAR_LABEL}"));
        let pods = watching::all(Api::<PartialObjectMeta<Pod>>::all(client), bare).modify(shrink);
        let mut namespaces = std::pin::pin!(namespaces);
        let mut pods = std::pin::pin!(pods);
        loop {
            // Both arms are cancel-safe: an event that is not taken stays in its stream.
            tokio::select! {
                Some(event) = namespaces.next() => take(event, |event| {
                    self.known.write().namespaces.apply(event);
                }),
                Some(event) = pods.next() => take(event, |event| {
                    self.known.write().pods.apply(event);
                }),
            }
        }
    }

    /// Calls `each` with every pod that should have a sidecar and has none.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&PartialObjectMeta<Pod>)) {
        let known = self.known.read();
        let injecting: BTreeSet<String> =
            known.namespaces.objects().map(kube::ResourceExt::name_any).collect();
        for pod in known.pods.objects() {
            if should_have(pod, &injecting) {
                each(pod);
            }
        }
    }
}

fn take<K>(event: Result<Event<K>, watcher::Error>, apply: impl FnOnce(Event<K>)) {
    match event {
        Ok(event) => apply(event),
        Err(error) => warn!(%error, "a watch of metadata failed; it starts anew"),
    }
}

/// Keeps what decides.
fn shrink(pod: &mut PartialObjectMeta<Pod>) {
    pod.metadata.managed_fields = None;
    pod.annotations_mut().retain(|name, _| name == INJECT);
}

fn should_have(pod: &PartialObjectMeta<Pod>, injecting: &BTreeSet<String>) -> bool {
    let is_leaving = pod.metadata.deletion_timestamp.is_some();
    let asked = match pod.annotations().get(INJECT).map(String::as_str) {
        Some("true") => true,
        Some(_) => false,
        None => injecting.contains(&pod.namespace().unwrap_or_default()),
    };
    asked && !is_leaving
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(namespace: &str, inject: Option<&str>) -> PartialObjectMeta<Pod> {
        let annotations = inject.map(|value| json!({INJECT: value}));
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": namespace, "annotations": annotations},
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_should_have_a_sidecar_if_it_or_its_namespace_says_so() {
        let injecting = BTreeSet::from(["shop".to_owned()]);
        for (namespace, inject, expected) in [
            ("shop", None, true),
            ("shop", Some("false"), false),
            ("shop", Some("true"), true),
            ("other", None, false),
            ("other", Some("true"), true),
        ] {
            assert_eq!(
                should_have(&pod(namespace, inject), &injecting),
                expected,
                "{namespace} {inject:?}"
            );
        }
    }
}
