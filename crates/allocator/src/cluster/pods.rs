//! The pods that carry a sidecar, as the API server tells of them.
//!
//! From here come the labels that decide a pod's quota, the roster of a new leader, and the kubelet's
//! word that a sidecar has ended (`leases.md` 3.6). Every replica keeps this copy, so that a successor
//! knows of pods that vanished before it led.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use parking_lot::RwLock;
use quota::message::PodId;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use crate::cluster::kubelet::UNKNOWN_REASON;
use crate::cluster::mirror::{Changed, Mirror, ObjectName};
use crate::cluster::watching;
use crate::leader::GOODBYE_WITHIN;
use crate::reach;

/// All that the allocator knows of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodFacts {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// The priority class that the pod's annotation chooses.
    pub(crate) class: Option<String>,
    pub(crate) life: Life,
}

/// Whether a pod's sidecar may hold something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Its container has not run yet.
    NotStarted,
    /// It runs, or may run again.
    MayRun,
    /// The kubelet has reported its end, and it will not run again.
    Ended,
}

/// What a leader must know at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PodChange {
    /// The kubelet's word: this pod holds nothing any more.
    Ended(PodId),
    /// It is there no more, without such a word: it may run, and nobody would count it.
    Vanished(PodId),
    /// What decides its quota has changed, or it is there for the first time.
    Changed(PodId),
}

/// The copy; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Pods {
    shared: Arc<RwLock<Known>>,
    changes: broadcast::Sender<PodChange>,
}

#[derive(Debug, Default)]
struct Known {
    pods: Mirror<Pod>,
    /// Pods that vanished without the kubelet's word, and when.
    vanished: BTreeMap<PodId, Instant>,
}

/// The label that the injector gives to pods with a sidecar.
pub(crate) const SIDECAR_LABEL: &str = "weir.dev/sidecar";
/// The name of the injected container.
pub(crate) const SIDECAR_CONTAINER: &str = "weir-sidecar";
/// The class that a pod chooses for its requests.
const PRIORITY_ANNOTATION: &str = "weir.dev/priority";

/// Why a container has surely never run.
const NEVER_RAN: [&str; 5] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
];

/// How long pods that vanished are remembered: as long as the longest floor of any policy.
const VANISHED_MAX: Duration = Duration::from_hours(25);
/// Changes that a leader may be behind; one that is further behind reads everything anew.
const CHANGES_MAX: usize = 4_096;
/// The leader closes the stream of a pod that vanished this soon. It may see that later than the replica
/// that succeeds it, by the time in which a dead watch is noticed.
const CLOSED_WITHIN: Duration = GOODBYE_WITHIN.saturating_add(Duration::from_secs(60));
/// While the first list is read.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The watch may be a little behind the pod itself.
const APPEARS_WITHIN: Duration = Duration::from_secs(3);

// === impl Pods ===

impl Pods {
    pub(crate) fn new() -> Pods {
        let (changes, _) = broadcast::channel(CHANGES_MAX);
        Pods { shared: Arc::default(), changes }
    }

    /// Keeps the copy by a watch of all pods with a sidecar, for as long as it is polled.
    pub(crate) async fn run(self, client: Client) {
        let config = watcher::Config::default().labels(&format!("{SIDECAR_LABEL}=true"));
        let events = watching::all(Api::<Pod>::all(client), config);
        // What is not read is not kept: a pod's specification is most of its size.
        let events = events.modify(|pod| {
            pod.metadata.managed_fields = None;
            if let Some(spec) = &mut pod.spec {
                *spec = k8s_openapi::api::core::v1::PodSpec {
                    node_name: spec.node_name.take(),
                    ..Default::default()
                };
            }
        });
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.apply(event),
                Err(error) => warn!(%error, "the watch of pods failed; it starts anew"),
            }
        }
    }

    fn apply(&self, event: watcher::Event<Pod>) {
        let changes = self.shared.write().apply(event, Instant::now());
        for change in changes {
            // Without a leader nobody listens.
            let _ = self.changes.send(change);
        }
    }

    /// Changes from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<PodChange> {
        self.changes.subscribe()
    }

    /// Waits until all pods that there were at the start have been seen.
    pub(crate) async fn complete(&self) {
        while !self.shared.read().pods.is_complete() {
            sleep(LOOK_EVERY).await;
        }
    }

    /// What is known of a pod.
    pub(crate) fn get(&self, namespace: &str, name: &str, uid: &str) -> Option<PodFacts> {
        let known = self.shared.read();
        let pod = known.pods.get(&(namespace.to_owned(), name.to_owned()))?;
        Some(PodFacts::of(pod)).filter(|facts| facts.uid == uid)
    }

    /// What is known of the pod of this name in the ledger.
    pub(crate) fn by_id(&self, id: &PodId) -> Option<PodFacts> {
        let (name, uid) = id.rsplit_once('@')?;
        let (namespace, name) = name.split_once('/')?;
        self.get(namespace, name, uid)
    }

    /// The same, waiting a moment for a pod that is so new that the watch has not told of it.
    pub(crate) async fn find(&self, namespace: &str, name: &str, uid: &str) -> Option<PodFacts> {
        let mut changes = self.subscribe();
        let appears = async {
            loop {
                if let Some(facts) = self.get(namespace, name, uid) {
                    return facts;
                }
                // Whatever it says, the copy is asked again.
                if let Err(broadcast::error::RecvError::Closed) = changes.recv().await {
                    std::future::pending::<()>().await;
                }
            }
        };
        timeout(APPEARS_WITHIN, appears).await.ok()
    }

    /// Pods that may hold something: those that may run, and those that vanished without the kubelet's
    /// word and may run all the same, until whatever they were promised has surely ended: `longest_hold`
    /// after the leader has closed their streams.
    pub(crate) fn roster(&self, longest_hold: Duration) -> BTreeSet<PodId> {
        let known = self.shared.read();
        let alive = known.pods.objects().map(PodFacts::of).filter(|it| it.life == Life::MayRun);
        let mut roster: BTreeSet<PodId> = alive.map(|facts| facts.id()).collect();
        let held = longest_hold + CLOSED_WITHIN;
        let vanished = known.vanished.iter().filter(|(_, since)| since.elapsed() < held);
        roster.extend(vanished.map(|(pod, _)| pod.clone()));
        roster
    }

    /// Pods that vanished without the kubelet's word.
    pub(crate) fn vanished(&self) -> Vec<PodId> {
        self.shared.read().vanished.keys().cloned().collect()
    }

    /// Calls `each` with every pod.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&PodFacts)) {
        for pod in self.shared.read().pods.objects() {
            each(&PodFacts::of(pod));
        }
    }
}

// === impl Known ===

impl Known {
    fn apply(&mut self, event: watcher::Event<Pod>, now: Instant) -> Vec<PodChange> {
        self.forget_vanished(now);
        match self.pods.apply(event) {
            Changed::Nothing => Vec::new(),
            Changed::One(name, before) => self.compare(&name, before.as_ref(), now),
            Changed::All(before) => {
                let names: BTreeSet<ObjectName> = before
                    .keys()
                    .cloned()
                    .chain(
                        self.pods
                            .objects()
                            .map(|pod| (pod.namespace().unwrap_or_default(), pod.name_any())),
                    )
                    .collect();
                names.iter().flat_map(|name| self.compare(name, before.get(name), now)).collect()
            }
        }
    }

    /// What has changed about the pod of this name.
    fn compare(&mut self, name: &ObjectName, before: Option<&Pod>, now: Instant) -> Vec<PodChange> {
        let before = before.map(PodFacts::of);
        let after = self.pods.get(name).map(PodFacts::of);
        let mut changes = Vec::new();
        if let Some(before) = before.filter(|it| Some(&it.uid) != after.as_ref().map(|it| &it.uid))
        {
            match before.life {
                // A successor must not count on an end that nobody has seen.
                Life::MayRun => {
                    debug!(pod = %before.id(), "a pod vanished without word of its end");
                    self.vanished.insert(before.id(), now);
                    changes.push(PodChange::Vanished(before.id()));
                }
                Life::NotStarted | Life::Ended => changes.push(PodChange::Ended(before.id())),
            }
        }
        match after {
            Some(after) if after.life == Life::Ended => changes.push(PodChange::Ended(after.id())),
            Some(after) => changes.push(PodChange::Changed(after.id())),
            None => {}
        }
        changes
    }

    fn forget_vanished(&mut self, now: Instant) {
        self.vanished.retain(|_, since| now.duration_since(*since) < VANISHED_MAX);
    }
}

// === impl PodFacts ===

impl PodFacts {
    pub(crate) fn of(pod: &Pod) -> PodFacts {
        PodFacts {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            labels: pod.labels().clone(),
            class: pod.annotations().get(PRIORITY_ANNOTATION).cloned(),
            life: life_of(pod),
        }
    }

    /// What decides its policy.
    pub(crate) fn decides(&self) -> reach::Pod {
        reach::Pod {
            namespace: self.namespace.clone(),
            labels: self.labels.clone(),
            class: self.class.clone(),
        }
    }

    /// Its name in the ledger. A pod that comes back under its old name is another pod.
    pub(crate) fn id(&self) -> PodId {
        format!("{}/{}@{}", self.namespace, self.name, self.uid).into()
    }
}

fn life_of(pod: &Pod) -> Life {
    let status = pod.status.as_ref();
    let statuses = status.and_then(|it| it.init_container_statuses.as_ref());
    let sidecar = statuses.into_iter().flatten().find(|it| it.name == SIDECAR_CONTAINER);
    let Some(sidecar) = sidecar else {
        // Refused by its kubelet, or ended before it began.
        if status.is_some_and(|it| matches!(it.phase.as_deref(), Some("Succeeded" | "Failed"))) {
            return Life::NotStarted;
        }
        // A pod on a node whose kubelet has said nothing yet may run.
        let is_bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        return if is_bound { Life::MayRun } else { Life::NotStarted };
    };
    let phase = status.and_then(|it| it.phase.as_deref()).unwrap_or_default();
    let is_last_run =
        pod.metadata.deletion_timestamp.is_some() || matches!(phase, "Succeeded" | "Failed");
    if is_last_run && has_terminated(sidecar) {
        return Life::Ended;
    }
    if never_ran(sidecar) { Life::NotStarted } else { Life::MayRun }
}

/// True if the kubelet has seen the end of the container's process.
fn has_terminated(container: &ContainerStatus) -> bool {
    let terminated = container.state.as_ref().and_then(|state| state.terminated.as_ref());
    terminated.is_some_and(|it| it.reason.as_deref() != Some(UNKNOWN_REASON))
}

fn never_ran(container: &ContainerStatus) -> bool {
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
    let reason = waiting.and_then(|it| it.reason.as_deref()).unwrap_or_default();
    container.restart_count == 0 && NEVER_RAN.contains(&reason)
}

#[cfg(test)]
mod tests;
