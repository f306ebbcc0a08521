//! The names that people, the API server and the injector share. Nothing else is in here.

/// On a pod: `"true"` asks for a sidecar, `"false"` declines it.
pub(super) const INJECT: &str = "weir.dev/inject";
/// On a pod that has a sidecar: the version of the injector.
pub(super) const INJECTED: &str = "weir.dev/injected";
/// On a pod: the class of its requests.
pub(super) const PRIORITY: &str = "weir.dev/priority";
/// On a pod: the sidecar's resources, in place of the ones that the injector is set to.
pub(super) const CPU_REQUEST: &str = "weir.dev/sidecar-cpu-request";
pub(super) const CPU_LIMIT: &str = "weir.dev/sidecar-cpu-limit";
pub(super) const MEMORY_REQUEST: &str = "weir.dev/sidecar-memory-request";
pub(super) const MEMORY_LIMIT: &str = "weir.dev/sidecar-memory-limit";

/// All of them. Another one under `weir.dev/` is most likely a slip.
pub(super) const ANNOTATIONS: [&str; 7] =
    [INJECT, INJECTED, PRIORITY, CPU_REQUEST, CPU_LIMIT, MEMORY_REQUEST, MEMORY_LIMIT];

/// The label of pods that have a sidecar; the allocator's watch selects it.
pub(super) const SIDECAR_LABEL: &str = "weir.dev/sidecar";

/// What the kubelet puts on its image of a static pod.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) const CONTAINER: &str = "weir-sidecar";
pub(super) const VOLUME: &str = "weir-token";

/// Where applications connect: loopback of the pod.
pub(super) const DATA_PORT: i32 = 7410;
/// Where probes and scrapes connect: the pod's address.
pub(super) const ADMIN_PORT: i32 = 7411;
