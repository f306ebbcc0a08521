//! `Settings`: what the injector is set to, apart from any pod.

use std::fmt;

use super::quantity::Quantity;

/// What every sidecar gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The sidecar's image.
    pub image: String,
    /// When the kubelet fetches it.
    pub pull_policy: PullPolicy,
    /// What the sidecar may use, unless a pod's annotations say otherwise.
    pub resources: Resources,
    /// Where the allocator is, as `https://host:port`.
    pub allocator: String,
    /// The certificates that the allocator's own is checked against, in PEM.
    pub ca: String,
    /// The version of the injector, which pods show.
    pub version: String,
}

/// When the kubelet fetches an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When the node has none.
    #[default]
    IfNotPresent,
    /// Never: the node has it.
    Never,
}

/// What a container asks for, and what it may use at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU that is kept for it.
    pub cpu_request: Option<Quantity>,
    /// CPU at most.
    pub cpu_limit: Option<Quantity>,
    /// Memory that is kept for it.
    pub memory_request: Option<Quantity>,
    /// Memory at most.
    pub memory_limit: Option<Quantity>,
}

/// A request above its limit: the API server would refuse every pod.
#[derive(Debug, thiserror::Error)]
#[error("the sidecar's {kind} request {request} is above its limit {limit}")]
pub struct RequestAboveLimit {
    kind: &'static str,
    request: Quantity,
    limit: Quantity,
}

// === impl Resources ===

impl Resources {
    pub(super) fn check(&self) -> Result<(), RequestAboveLimit> {
        for (kind, request, limit) in [
            ("CPU", &self.cpu_request, &self.cpu_limit),
            ("memory", &self.memory_request, &self.memory_limit),
        ] {
            if let Some((request, limit)) = request.as_ref().zip(limit.as_ref())
                && request > limit
            {
                let (request, limit) = (request.clone(), limit.clone());
                return Err(RequestAboveLimit { kind, request, limit });
            }
        }
        Ok(())
    }
}

// === impl PullPolicy ===

impl PullPolicy {
    /// As Kubernetes writes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            PullPolicy::Always => "Always",
            PullPolicy::IfNotPresent => "IfNotPresent",
            PullPolicy::Never => "Never",
        }
    }
}

impl fmt::Display for PullPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
