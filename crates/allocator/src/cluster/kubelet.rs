//! The kubelet's word on allocators: which container runs here, and whether the one that led has ended.
//!
//! Only a report of a terminated container is a confirmed end. A pod that is deleted, failed, or whose
//! container's status is unknown may still run: that is silence (`leases.md` 3.7).

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use parking_lot::RwLock;
use service::clock::unix_now;
use tokio::sync::Notify;
use tracing::warn;

use crate::cluster::lease::Holder;
use crate::cluster::mirror::Mirror;
use crate::cluster::watching;

/// Pods of the allocator's namespace; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kubelet {
    pods: Arc<RwLock<Mirror<Pod>>>,
    changed: Arc<Notify>,
}

/// The name of the allocator's container in its pod.
const CONTAINER: &str = "allocator";
/// The reason that stands in place of a report that the kubelet could not make: silence, not an end.
pub(crate) const UNKNOWN_REASON: &str = "ContainerStatusUnknown";
/// Reports of the kubelet are behind by a second or two.
const NAMED_AFTER: Duration = Duration::from_secs(5);
/// The program starts this soon after its container; the report's time has whole seconds.
const STARTS_WITHIN: Duration = Duration::from_secs(2);

// === impl Kubelet ===

impl Kubelet {
    /// Follows the pods of `namespace` for as long as it is polled.
    pub(crate) async fn run(self, client: Client, namespace: String) {
        let api = Api::<Pod>::namespaced(client, &namespace);
        let events = watching::all(api, watcher::Config::default());
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    self.pods.write().apply(event);
                    self.changed.notify_waiters();
                }
                Err(error) => warn!(%error, "the watch of allocators failed; it starts anew"),
            }
        }
    }

    /// Waits for a change. Safe to cancel.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// True if the kubelet has reported the end of the very container that the holder ran in.
    pub(crate) fn has_ended(&self, holder: &Holder) -> bool {
        let pods = self.pods.read();
        let mut pods =
            pods.objects().filter(|pod| pod.metadata.uid.as_ref() == Some(&holder.pod_uid));
        pods.any(|pod| has_ended(pod, &holder.container_id))
    }

    /// The id of the container that this process runs in, if the kubelet has named it by now. `started`
    /// is when the process started, by the node's wall clock, which the report is made by too; `before`
    /// is the container of an earlier run of the same pod.
    pub(crate) fn own_container(
        &self,
        pod_uid: &str,
        started: Duration,
        before: &str,
    ) -> Option<String> {
        // A run of a second before this one is still in reports for a moment.
        if unix_now() < started + NAMED_AFTER {
            return None;
        }
        let pods = self.pods.read();
        let pod = pods.objects().find(|pod| pod.uid().as_deref() == Some(pod_uid))?;
        running_since(pod, started).filter(|id| id != before)
    }
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == CONTAINER)
}

fn has_ended(pod: &Pod, container_id: &str) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if container_id.is_empty() || phase == Some("Failed") {
        return false;
    }
    let Some(status) = container(pod) else { return false };
    let states = [status.state.as_ref(), status.last_state.as_ref()];
    states.into_iter().flatten().filter_map(|state| state.terminated.as_ref()).any(|terminated| {
        terminated.container_id.as_deref() == Some(container_id)
            && terminated.reason.as_deref() != Some(UNKNOWN_REASON)
    })
}

/// The id of a running container that is not older than this process: a report that is behind still
/// names the run before, which is.
fn running_since(pod: &Pod, started: Duration) -> Option<String> {
    let status = container(pod)?;
    let running = status.state.as_ref()?.running.as_ref()?;
    let since = running.started_at.as_ref()?.0.as_second();
    let since = Duration::from_secs(u64::try_from(since).ok()?);
    (since + STARTS_WITHIN > started).then(|| status.container_id.clone()).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(phase: &str, id: &str, state: Value, last: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "a", "uid": "u"},
            "status": {"phase": phase, "containerStatuses": [{
                "name": CONTAINER, "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "containerID": id, "state": state, "lastState": last,
            }]},
        }))
        .unwrap()
    }

    fn terminated(id: &str, reason: &str) -> Value {
        json!({"terminated": {"exitCode": 137, "reason": reason, "containerID": id}})
    }

    #[test]
    fn only_a_report_of_the_very_container_confirms_an_end() {
        let running = || json!({"running": {"startedAt": "2026-01-01T00:00:10Z"}});
        for (pod, expected) in [
            (pod("Running", "c1", terminated("c1", "Error"), json!({})), true),
            // It runs again, in another container.
            (pod("Running", "c2", running(), terminated("c1", "Error")), true),
            (pod("Running", "c1", running(), json!({})), false),
            (pod("Running", "c1", running(), terminated("c0", "Error")), false),
            (pod("Running", "c1", terminated("c1", UNKNOWN_REASON), json!({})), false),
            (pod("Failed", "c1", terminated("c1", "Error"), json!({})), false),
        ] {
            assert_eq!(has_ended(&pod, "c1"), expected, "{:?}", pod.status);
        }
        assert!(!has_ended(&pod("Running", "", terminated("", "Error"), json!({})), ""));
    }

    #[test]
    fn a_report_of_the_run_before_does_not_name_this_one() {
        let at = |second: u64| Duration::from_secs(1_767_225_600 + second);
        let pod = pod(
            "Running",
            "c1",
            json!({"running": {"startedAt": "2026-01-01T00:00:10Z"}}),
            json!({}),
        );
        assert_eq!(running_since(&pod, at(10)).as_deref(), Some("c1"));
        assert_eq!(running_since(&pod, at(11)).as_deref(), Some("c1"));
        assert_eq!(running_since(&pod, at(12)), None);
        assert_eq!(running_since(&pod, at(400)), None);
    }
}
