//! Watches of single Secrets: those that providers name, and no other.
//!
//! They lie in the allocator's own namespace, so that a key is never in an application's. What a Secret
//! holds is kept in memory only, and shown nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::warn;

use crate::cluster::watching;

/// The watches, by the Secret's name.
pub(crate) struct Secrets {
    api: Api<Secret>,
    watched: BTreeMap<String, Watched>,
    changed: Arc<Notify>,
}

struct Watched {
    entries: watch::Receiver<Told>,
    /// The watch ends with it.
    _task: JoinSet<()>,
}

/// What is known of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    /// Nothing yet.
    Unknown,
    /// There is none of this name.
    Absent,
    /// Its entries.
    Present(Entries),
}

/// Keys of providers by the entry's name. Their `Debug` shows nothing.
type Entries = BTreeMap<String, quota::policy::Secret>;

/// A policy waits so long for Secrets that it names for the first time; without them it comes into
/// force with their keys missing, and says so.
const KNOWN_WITHIN: Duration = Duration::from_secs(3);

// === impl Secrets ===

impl Secrets {
    pub(crate) fn new(client: Client, namespace: &str) -> Secrets {
        Secrets {
            api: Api::namespaced(client, namespace),
            watched: BTreeMap::new(),
            changed: Arc::default(),
        }
    }

    /// Watches the Secrets of these names, and no longer any other.
    pub(crate) fn watch_only(&mut self, names: &BTreeSet<String>) {
        self.watched.retain(|name, _| names.contains(name));
        for name in names {
            if !self.watched.contains_key(name) {
                self.watched.insert(name.clone(), self.watch(name));
            }
        }
    }

    fn watch(&self, name: &str) -> Watched {
        let (sender, entries) = watch::channel(Told::Unknown);
        let mut task = JoinSet::new();
        task.spawn(follow(self.api.clone(), name.to_owned(), sender, self.changed.clone()));
        Watched { entries, _task: task }
    }

    /// Waits for a change of any of them. Safe to cancel.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Waits until something is known of each of them, but not for ever.
    pub(crate) async fn until_known(&mut self) {
        let all = async {
            for watched in self.watched.values_mut() {
                // Its sender lives as long as its watch does.
                let _ = watched.entries.wait_for(|told| *told != Told::Unknown).await;
            }
        };
        if timeout(KNOWN_WITHIN, all).await.is_err() {
            warn!(
                "the API server does not answer for all Secrets; their keys are missing until it does"
            );
        }
    }

    /// What is there, by the Secret's name.
    pub(crate) fn entries(&self) -> BTreeMap<String, Entries> {
        let entries =
            self.watched.iter().filter_map(|(name, watched)| match &*watched.entries.borrow() {
                Told::Present(entries) => Some((name.clone(), entries.clone())),
                Told::Unknown | Told::Absent => None,
            });
        entries.collect()
    }
}

/// Follows one Secret for as long as somebody wants to know.
async fn follow(api: Api<Secret>, name: String, told: watch::Sender<Told>, changed: Arc<Notify>) {
    let events = watching::one(api, &name);
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        let now = match event {
            Ok(Some(secret)) => Told::Present(entries(&secret)),
            Ok(None) => Told::Absent,
            Err(error) => {
                log_failure(&name, &error);
                continue;
            }
        };
        let is_new = told.send_if_modified(|told| {
            let is_new = *told != now;
            *told = now;
            is_new
        });
        if is_new {
            changed.notify_one();
        }
    }
}

/// An error of the API client names the request, never what was in an answer.
fn log_failure(name: &str, error: &watcher::Error) {
    warn!(secret = name, %error, "the watch of a Secret failed; it starts anew");
}

fn entries(secret: &Secret) -> Entries {
    let data = secret.data.iter().flatten();
    data.map(|(entry, bytes)| (entry.clone(), crds::secret::key(&bytes.0))).collect()
}
