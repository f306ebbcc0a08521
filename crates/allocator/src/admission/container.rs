//! The sidecar as a part of a pod: its container, and the volume with its token.
//!
//! Everything that the API server would fill in stands here, so that a second pass over an injected
//! pod finds what it would write.

use serde_json::{Map, Value, json};

use super::names::{ADMIN_PORT, CONTAINER, VOLUME};
use super::pod::{AUDIENCE, View};
use super::settings::{Resources, Settings};

/// The user of the sidecar's image. It is said again here because a pod's own `runAsUser` would go
/// before the image's.
const USER: u32 = 65532;

const TOKEN_FOLDER: &str = "/var/run/secrets/weir.dev";

/// As for every token that the kubelet renews.
const TOKEN_SECONDS: u32 = 3_600;

/// A pod's grace period where it names none.
const GRACE: i64 = 30;
/// What the sidecar needs after its drain (`weir-sidecar --help`).
const AFTER_DRAIN: i64 = 6;
/// The sidecar's own default. More helps nobody: at a pod's end the application has ended before.
const LONGEST_DRAIN: i64 = 24;

/// The native sidecar.
///
/// It has no readiness probe: an application that can do without an answer of a provider for a while
/// must not leave its Service because of us. It has no preStop hook: the kubelet ends native sidecars
/// after all other containers have ended, and SIGTERM is what starts the drain.
pub(super) fn sidecar(view: &View, settings: &Settings, resources: &Resources) -> Value {
    json!({
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy.name(),
        "restartPolicy": "Always",
        "env": environment(view, settings),
        "ports": [{"name": "weir-admin", "containerPort": ADMIN_PORT, "protocol": "TCP"}],
        "resources": resource_list(resources),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": USER,
            "runAsNonRoot": true,
            "runAsUser": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        // The sidecar is ready with its first policy, and without one after 10 s; until then no other
        // container starts. A node that is busy with a rollout may need the rest of the minute.
        "startupProbe": probe("/ready", 1, 60, 2),
        // An answer needs nothing but a turn of the sidecar's loop.
        "livenessProbe": probe("/live", 10, 3, 5),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        // And no other: the API server gives every container the pod's own token, which is nothing to
        // the sidecar; a second pass takes it away again.
        "volumeMounts": [{"name": VOLUME, "mountPath": TOKEN_FOLDER, "readOnly": true}],
    })
}

/// The token, whatever `automountServiceAccountToken` says: that is about another volume.
///
/// Who may read the file is the kubelet's rule, in `pkg/volume/projected/projected.go`
/// (`collectData`): with an `fsGroup` the file is 0600, made 0640 for that group, which every
/// container has; with one `runAsUser` for all containers (`FsUserFrom` in
/// `pkg/volume/util/util.go`) it is 0600 and that user's, here the sidecar's own; otherwise it has
/// `defaultMode`, which must therefore let everybody read. No other container mounts it.
pub(super) fn token() -> Value {
    json!({
        "name": VOLUME,
        "projected": {
            "defaultMode": 0o644,
            "sources": [{
                "serviceAccountToken": {
                    "audience": AUDIENCE,
                    "expirationSeconds": TOKEN_SECONDS,
                    "path": "token",
                },
            }],
        },
    })
}

fn environment(view: &View, settings: &Settings) -> Value {
    let plain = |name: &str, value: &str| json!({"name": name, "value": value});
    let field = |name: &str, path: &str| {
        let field = json!({"apiVersion": "v1", "fieldPath": path});
        json!({"name": name, "valueFrom": {"fieldRef": field}})
    };
    json!([
        plain("WEIR_SIDECAR_ALLOCATOR", &settings.allocator),
        plain("WEIR_SIDECAR_CA", &settings.ca),
        plain("WEIR_SIDECAR_TOKEN_FILE", &format!("{TOKEN_FOLDER}/token")),
        plain("WEIR_SIDECAR_ADMIN", &format!("0.0.0.0:{ADMIN_PORT}")),
        plain("WEIR_SIDECAR_LOG_FORMAT", "json"),
        plain("WEIR_SIDECAR_DRAIN", &format!("{}s", drain(view))),
        field("WEIR_SIDECAR_NAMESPACE", "metadata.namespace"),
        field("WEIR_SIDECAR_POD", "metadata.name"),
        field("WEIR_SIDECAR_POD_UID", "metadata.uid"),
    ])
}

/// Seconds for requests that still run.
fn drain(view: &View) -> i64 {
    let grace = view.spec.termination_grace_period_seconds.unwrap_or(GRACE);
    grace.saturating_sub(AFTER_DRAIN).clamp(0, LONGEST_DRAIN)
}

fn resource_list(resources: &Resources) -> Value {
    let mut lists = Map::new();
    for (name, cpu, memory) in [
        ("requests", &resources.cpu_request, &resources.memory_request),
        ("limits", &resources.cpu_limit, &resources.memory_limit),
    ] {
        let mut list = Map::new();
        for (kind, quantity) in [("cpu", cpu), ("memory", memory)] {
            if let Some(quantity) = quantity {
                list.insert(kind.into(), quantity.to_string().into());
            }
        }
        if !list.is_empty() {
            lists.insert(name.into(), list.into());
        }
    }
    lists.into()
}

fn probe(path: &str, period: u32, failures: u32, timeout: u32) -> Value {
    json!({
        "httpGet": {"path": path, "port": ADMIN_PORT, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
        "successThreshold": 1,
        // A sidecar that does not answer has nothing to drain; the pod's grace period may be hours.
        "terminationGracePeriodSeconds": 5,
    })
}
