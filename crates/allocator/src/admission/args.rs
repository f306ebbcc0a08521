//! The flags that say what sidecars get: the allocator's own, and those of `weir inject`, so that both
//! have the same defaults.

use super::quantity::Quantity;
use super::settings::{PullPolicy, RequestAboveLimit, Resources, Settings};

/// What injected sidecars get.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct SidecarArgs {
    /// The image of sidecars.
    #[arg(
        long,
        env = "WEIR_ALLOCATOR_SIDECAR_IMAGE",
        value_name = "IMAGE",
        default_value = "localhost/weir-sidecar:dev"
    )]
    pub sidecar_image: String,

    /// When the kubelet fetches it.
    #[arg(
        long,
        env = "WEIR_ALLOCATOR_SIDECAR_IMAGE_PULL_POLICY",
        value_name = "POLICY",
        value_enum,
        default_value_t
    )]
    pub sidecar_image_pull_policy: PullPolicy,

    /// CPU that is kept for a sidecar.
    #[arg(
        long,
        env = "WEIR_ALLOCATOR_SIDECAR_CPU_REQUEST",
        value_name = "CPU",
        default_value = "10m"
    )]
    pub sidecar_cpu_request: Quantity,

    /// CPU that a sidecar uses at most. Default: no limit, because one would add to the latency of
    /// every request that comes in a burst.
    #[arg(long, env = "WEIR_ALLOCATOR_SIDECAR_CPU_LIMIT", value_name = "CPU")]
    pub sidecar_cpu_limit: Option<Quantity>,

    /// Memory that is kept for a sidecar.
    #[arg(
        long,
        env = "WEIR_ALLOCATOR_SIDECAR_MEMORY_REQUEST",
        value_name = "MEMORY",
        default_value = "24Mi"
    )]
    pub sidecar_memory_request: Quantity,

    /// Memory that a sidecar uses at most: up to 128 MiB of prompts that wait, and its own.
    #[arg(
        long,
        env = "WEIR_ALLOCATOR_SIDECAR_MEMORY_LIMIT",
        value_name = "MEMORY",
        default_value = "192Mi"
    )]
    pub sidecar_memory_limit: Quantity,
}

// === impl SidecarArgs ===

impl SidecarArgs {
    /// The injector's settings, with where the allocator is, what its certificate is checked against,
    /// and this program's version.
    ///
    /// # Errors
    ///
    /// A request is above its limit.
    pub fn settings(&self, allocator: String, ca: String) -> Result<Settings, RequestAboveLimit> {
        let resources = Resources {
            cpu_request: Some(self.sidecar_cpu_request.clone()),
            cpu_limit: self.sidecar_cpu_limit.clone(),
            memory_request: Some(self.sidecar_memory_request.clone()),
            memory_limit: Some(self.sidecar_memory_limit.clone()),
        };
        resources.check()?;
        Ok(Settings {
            image: self.sidecar_image.clone(),
            pull_policy: self.sidecar_image_pull_policy,
            resources,
            allocator,
            ca,
            version: service::build::VERSION.to_owned(),
        })
    }
}
