//! `View`: a pod as the injector reads it. What it writes goes into the JSON itself, so that fields
//! of a newer Kubernetes than ours stay as they are.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::names;

/// A pod, or a pod template: both have `metadata` and `spec`.
#[derive(Debug)]
pub(super) struct View {
    pub(super) metadata: ObjectMeta,
    pub(super) spec: PodSpec,
}

/// The part that cannot be read, and why.
#[derive(Debug, thiserror::Error)]
#[error("{part} cannot be read: {source}")]
pub(super) struct Error {
    pub(super) part: &'static str,
    pub(super) source: serde_json::Error,
}

/// What the projected token is for: the allocator believes no other.
pub(super) const AUDIENCE: &str = "weir";

// === impl View ===

impl View {
    pub(super) fn read(pod: &Value) -> Result<View, Error> {
        Ok(View { metadata: part(pod, "metadata")?, spec: part(pod, "spec")? })
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations().get(name).map(String::as_str)
    }

    pub(super) fn annotations(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.metadata.annotations.as_ref().unwrap_or(&NONE)
    }

    /// All containers but the sidecar, with where they stand.
    pub(super) fn containers(&self) -> impl Iterator<Item = (&'static str, usize, &Container)> {
        let initial = self.spec.init_containers.iter().flatten().enumerate();
        let initial = initial.filter(|(_, container)| !self.is_sidecar(container));
        let others = self.spec.containers.iter().enumerate();
        initial
            .map(|(index, container)| ("initContainers", index, container))
            .chain(others.map(|(index, container)| ("containers", index, container)))
    }

    /// True for an init container that we have put there: it has the sidecar's name and way to
    /// restart, in a pod that says that it was injected.
    pub(super) fn is_sidecar(&self, initial: &Container) -> bool {
        initial.name == names::CONTAINER
            && initial.restart_policy.as_deref() == Some("Always")
            && self.annotation(names::INJECTED).is_some()
    }

    /// True if `volume` has the token for the allocator in it, and nothing else.
    pub(super) fn is_token(volume: &Volume) -> bool {
        let sources = volume.projected.as_ref().and_then(|it| it.sources.as_deref());
        let Some([source]) = sources else { return false };
        let token = source.service_account_token.as_ref();
        token.is_some_and(|token| token.audience.as_deref() == Some(AUDIENCE))
    }
}

fn part<T: DeserializeOwned + Default>(pod: &Value, name: &'static str) -> Result<T, Error> {
    match pod.get(name) {
        None | Some(Value::Null) => Ok(T::default()),
        Some(part) => T::deserialize(part).map_err(|source| Error { part: name, source }),
    }
}
