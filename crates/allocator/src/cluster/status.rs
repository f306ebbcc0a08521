//! Writes the kinds' status: by the leader only, an object at most once a second, and none that has
//! not changed. What people must know also becomes an Event.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crds::compile::Objects;
use crds::priority_class::LLMPriorityClass;
use crds::provider::LLMProvider;
use crds::quota::LLMQuota;
use crds::status::{
    DEGRADED, OVERCOMMITTED, PriorityClassStatus, ProviderStatus, QuotaStatus, READY,
};
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource, ResourceExt};
use quota::policy::Name;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, warn};

use crate::cluster::condition::{Finding, conditions};
use crate::cluster::missing::Missing;
use crate::cluster::pods::{Life, Pods};
use crate::cluster::report::{BARE_PODS, Facts, Use};
use crate::grpc::Leadership;
use crate::policy::Current;
use crate::snapshot::Snapshot;

/// The writer and all that it reads.
pub(crate) struct StatusWriter {
    pub(crate) client: Client,
    pub(crate) pod: String,
    pub(crate) policy: watch::Receiver<Arc<Current>>,
    pub(crate) objects: watch::Receiver<Arc<Objects>>,
    pub(crate) snapshot: watch::Receiver<Arc<Snapshot>>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) pods: Pods,
    pub(crate) missing: Missing,
}

/// Which object: kind, namespace, name, uid. One that is made anew is another one.
type Key = (&'static str, String, String, String);

/// What was written last, and when; empty for one who does not lead.
type Written = BTreeMap<Key, (Value, Instant)>;

/// A status that differs from the one that is there.
struct Change {
    key: Key,
    status: Value,
    /// Whether people are told, and what.
    events: Vec<Event>,
    reference: k8s_openapi::api::core::v1::ObjectReference,
}

/// How often what is there is compared with what should be.
const EVERY: Duration = Duration::from_secs(1);
/// Objects written in one round; further ones wait, the one that was written longest ago first. With
/// thousands of objects in motion the API server has other things to do.
const WRITES_MAX: usize = 50;
/// At once.
const PARALLEL: usize = 8;
/// Who owns the fields of the status (server-side apply).
const MANAGER: &str = "weir-allocator";

// === impl StatusWriter ===

impl StatusWriter {
    /// Writes for as long as it is polled.
    pub(crate) async fn run(self) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let reporter = Reporter { controller: MANAGER.into(), instance: Some(self.pod.clone()) };
        let recorder = Recorder::new(self.client.clone(), reporter);
        let mut written = Written::new();
        loop {
            tick.tick().await;
            if !matches!(*self.leadership.borrow(), Leadership::Leading(_)) {
                written.clear();
                continue;
            }
            self.round(&recorder, &mut written).await;
        }
    }

    async fn round(&self, recorder: &Recorder, written: &mut Written) {
        let mut changes = self.changes(written);
        changes.sort_by_key(|change| written.get(&change.key).map(|(_, at)| *at));
        changes.truncate(WRITES_MAX);
        let writes = changes.into_iter().map(|change| async {
            let result = self.write(&change).await;
            (change, result)
        });
        let mut writes = stream::iter(writes).buffer_unordered(PARALLEL);
        while let Some((change, result)) = writes.next().await {
            match result {
                Ok(()) => {
                    for event in &change.events {
                        // An event that is lost is in the conditions all the same.
                        if let Err(error) = recorder.publish(event, &change.reference).await {
                            debug!(%error, "an event could not be written");
                        }
                    }
                    written.insert(change.key, (change.status, Instant::now()));
                }
                Err(error) => {
                    let (kind, _, name, _) = &change.key;
                    warn!(kind, name, %error, "a status could not be written; it is tried again");
                }
            }
        }
    }

    /// What is to be written, given what was.
    fn changes(&self, written: &Written) -> Vec<Change> {
        let current = self.policy.borrow().clone();
        let objects = self.objects.borrow().clone();
        let snapshot = self.snapshot.borrow().clone();
        let mut pods: BTreeMap<Name, u32> = BTreeMap::new();
        self.pods.for_each(|pod| {
            let quota = current.policy.quota_of(&pod.namespace, &pod.labels);
            if let Some(quota) = quota.filter(|_| pod.life != Life::Ended) {
                *pods.entry(quota.key().into()).or_default() += 1;
            }
        });
        let mut bare: BTreeMap<Name, Vec<String>> = BTreeMap::new();
        self.missing.for_each(|pod| {
            let namespace = pod.namespace().unwrap_or_default();
            if let Some(quota) = current.policy.quota_of(&namespace, pod.labels()) {
                bare.entry(quota.key().into()).or_default().push(pod.name_any());
            }
        });
        let facts = Facts {
            policy: &current.policy,
            warnings: &current.warnings,
            errors: &current.errors,
            ledger: &snapshot.status,
            pods: &pods,
            bare: &bare,
        };
        let now = Timestamp::now();
        let quotas = objects.quotas.iter().filter_map(|quota| {
            compare(quota, quota.status.as_ref(), written, |before| {
                quota_status(&facts, quota, before, now)
            })
        });
        let providers = objects.providers.iter().filter_map(|provider| {
            compare(provider, provider.status.as_ref(), written, |before| {
                provider_status(&facts, provider, before, now)
            })
        });
        let classes = objects.classes.iter().filter_map(|class| {
            compare(class, class.status.as_ref(), written, |before| {
                class_status(&facts, class, before, now)
            })
        });
        quotas.chain(providers).chain(classes).collect()
    }

    async fn write(&self, change: &Change) -> Result<(), kube::Error> {
        let (kind, namespace, name, _) = &change.key;
        let body = json!({
            "apiVersion": change.reference.api_version,
            "kind": kind,
            "metadata": {"name": name},
            "status": change.status,
        });
        match *kind {
            "LLMQuota" => {
                let api = Api::<LLMQuota>::namespaced(self.client.clone(), namespace);
                apply(&api, name, &body).await
            }
            "LLMProvider" => {
                apply(&Api::<LLMProvider>::all(self.client.clone()), name, &body).await
            }
            _ => apply(&Api::<LLMPriorityClass>::all(self.client.clone()), name, &body).await,
        }
    }
}

async fn apply<K>(api: &Api<K>, name: &str, body: &Value) -> Result<(), kube::Error>
where
    K: Resource + Clone + DeserializeOwned + fmt::Debug,
{
    let params = PatchParams::apply(MANAGER).force();
    match api.patch_status(name, &params, &Patch::Apply(body)).await {
        // It was deleted meanwhile.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

/// The change that makes an object say what `wanted` makes of the conditions before; `None` if it does.
fn compare<K, S>(
    object: &K,
    there: Option<&S>,
    written: &Written,
    wanted: impl FnOnce(&[Condition]) -> S,
) -> Option<Change>
where
    K: Resource<DynamicType = ()> + ResourceExt,
    S: serde::Serialize + DeserializeOwned + HasConditions,
{
    let kind = match &*K::kind(&()) {
        "LLMQuota" => "LLMQuota",
        "LLMProvider" => "LLMProvider",
        _ => "LLMPriorityClass",
    };
    let uid = object.uid().unwrap_or_default();
    let key: Key = (kind, object.namespace().unwrap_or_default(), object.name_any(), uid);
    let last: Option<S> =
        written.get(&key).and_then(|(status, _)| serde_json::from_value(status.clone()).ok());
    let before = last.as_ref().or(there).map(HasConditions::conditions).unwrap_or_default();
    let status = wanted(before);
    let told = serde_json::to_value(&status).expect("texts and numbers make JSON");
    let is_there = match written.get(&key) {
        Some((last, _)) => *last == told,
        None => there.is_some_and(|it| serde_json::to_value(it).is_ok_and(|it| it == told)),
    };
    let change = || Change {
        events: events(before, status.conditions()),
        reference: object.object_ref(&()),
        status: told,
        key,
    };
    (!is_there).then(change)
}

/// What every status has.
trait HasConditions {
    fn conditions(&self) -> &[Condition];
}

impl HasConditions for QuotaStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }
}

impl HasConditions for ProviderStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }
}

impl HasConditions for PriorityClassStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }
}

/// What people are told of when it changes: whether an object is in force, overcommitment, and pods that
/// nothing holds to their quota. That requests wait, or that pods connect anew, comes and goes: it is in
/// the conditions only.
fn events(before: &[Condition], after: &[Condition]) -> Vec<Event> {
    let told =
        |condition: &&Condition| matches!(&*condition.type_, READY | OVERCOMMITTED | DEGRADED);
    let is_new = |condition: &&Condition| {
        let before = before.iter().find(|it| it.type_ == condition.type_);
        match before {
            Some(before) => before.status != condition.status || before.reason != condition.reason,
            // An object that is fine from the start is no news.
            None => is_bad(condition),
        }
    };
    let event = |condition: &Condition| Event {
        type_: if is_bad(condition) { EventType::Warning } else { EventType::Normal },
        reason: condition.reason.clone(),
        note: Some(condition.message.clone()).filter(|note| !note.is_empty()),
        action: "Reconcile".into(),
        secondary: None,
    };
    let passes =
        |condition: &&Condition| condition.type_ == DEGRADED && condition.reason != BARE_PODS;
    after.iter().filter(told).filter(|it| !passes(it)).filter(is_new).map(event).collect()
}

fn is_bad(condition: &Condition) -> bool {
    (condition.type_ == READY) != (condition.status == "True")
}

fn quota_status(
    facts: &Facts<'_>,
    object: &LLMQuota,
    before: &[Condition],
    now: Timestamp,
) -> QuotaStatus {
    let generation = object.metadata.generation;
    let namespace = object.namespace().unwrap_or_default();
    let name = object.name_any();
    let quotas = &facts.policy.quotas;
    let quota = quotas.iter().find(|it| *it.namespace == *namespace && *it.name == *name);
    let Some(quota) = quota else {
        let found = facts.errors_of("LLMQuota", Some(&namespace), &name);
        return QuotaStatus {
            observed_generation: generation,
            conditions: conditions(found, before, generation, now),
            ..QuotaStatus::default()
        };
    };
    let uses = facts.quota_use(quota);
    let found = facts.quota_findings(quota, &uses);
    let workload = facts.workload(quota);
    let Use { used, binding, budgets } = uses;
    QuotaStatus {
        observed_generation: generation,
        conditions: conditions(found, before, generation, now),
        class: quota.class.to_string(),
        pods: facts.pods.get(quota.key().as_str()).copied().unwrap_or(0),
        connected_pods: workload.map_or(0, |it| u32::try_from(it.connected).unwrap_or(u32::MAX)),
        waiting: workload.map_or(0, |it| it.waiting),
        refused: workload.map_or(0, |it| it.refused),
        used,
        binding,
        budgets,
    }
}

fn provider_status(
    facts: &Facts<'_>,
    object: &LLMProvider,
    before: &[Condition],
    now: Timestamp,
) -> ProviderStatus {
    let generation = object.metadata.generation;
    let name = object.name_any();
    let Some(provider) = facts.policy.providers.get(name.as_str()) else {
        let found: Vec<Finding> = facts.errors_of("LLMProvider", None, &name);
        return ProviderStatus {
            observed_generation: generation,
            conditions: conditions(found, before, generation, now),
            ..ProviderStatus::default()
        };
    };
    let uses = facts.provider_use(provider);
    let found = facts.provider_findings(&name, &uses);
    let quotas = facts.policy.quotas.iter().filter(|quota| quota.uses_provider(&name)).count();
    let Use { used, binding, budgets } = uses;
    ProviderStatus {
        observed_generation: generation,
        conditions: conditions(found, before, generation, now),
        quotas: u32::try_from(quotas).unwrap_or(u32::MAX),
        used,
        binding,
        budgets,
    }
}

fn class_status(
    facts: &Facts<'_>,
    object: &LLMPriorityClass,
    before: &[Condition],
    now: Timestamp,
) -> PriorityClassStatus {
    let generation = object.metadata.generation;
    let name = object.name_any();
    let quotas = facts.policy.quotas.iter().filter(|quota| *quota.class == *name).count();
    PriorityClassStatus {
        observed_generation: generation,
        conditions: conditions(facts.class_findings(&name), before, generation, now),
        quotas: u32::try_from(quotas).unwrap_or(u32::MAX),
    }
}
