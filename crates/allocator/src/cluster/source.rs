//! The cluster source of policy: watches the kinds, and the Secrets that providers name, and publishes
//! what they compile to.
//!
//! Level-triggered: whatever changes, the policy is compiled from all there is. An object that cannot
//! be used is left out and told of; the others are in force all the same.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crds::compile::{Compiled, Objects, compile};
use crds::priority_class::LLMPriorityClass;
use crds::problem::Problem;
use crds::provider::LLMProvider;
use crds::quota::LLMQuota;
use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, SelectAll};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};

use crate::cluster::mirror::{Changed, Mirror};
use crate::cluster::secrets::Secrets;
use crate::cluster::watching;
use crate::policy::Current;
use crate::reach;

/// The watches, and what they have told.
pub(crate) struct Source {
    client: Client,
    known: Known,
    secrets: Secrets,
    current: watch::Sender<Arc<Current>>,
    objects: watch::Sender<Arc<Objects>>,
}

/// The kinds, as they are now.
#[derive(Default)]
struct Known {
    providers: Mirror<LLMProvider>,
    classes: Mirror<LLMPriorityClass>,
    quotas: Mirror<LLMQuota>,
}

/// One event of one of the watches.
enum Told {
    Provider(watcher::Event<LLMProvider>),
    Class(watcher::Event<LLMPriorityClass>),
    Quota(watcher::Event<LLMQuota>),
    Failed(String, watcher::Error),
}

/// Several objects that change together (`kubectl apply -f`, a first list) are compiled once.
const SETTLE: Duration = Duration::from_millis(50);
/// While something changes all the time it is compiled this often all the same.
const SETTLE_MAX: Duration = Duration::from_millis(200);

// === impl Source ===

impl Source {
    /// A source that has seen nothing yet: the policy is empty until [`Source::run`] has seen
    /// everything.
    pub(crate) fn new(
        client: Client,
        namespace: &str,
    ) -> (Source, watch::Receiver<Arc<Current>>, watch::Receiver<Arc<Objects>>) {
        let (current, current_watch) = watch::channel(Arc::default());
        let (objects, objects_watch) = watch::channel(Arc::default());
        let secrets = Secrets::new(client.clone(), namespace);
        let source = Source { client, known: Known::default(), secrets, current, objects };
        (source, current_watch, objects_watch)
    }

    /// Follows the watches for as long as it is polled.
    pub(crate) async fn run(mut self) {
        let mut events = all_events(&self.client);
        let mut due: Option<(Instant, Instant)> = None;
        loop {
            let settled = due.map(|(quiet, latest)| quiet.min(latest));
            let now = Instant::now();
            // All arms are cancel-safe: an event that is not taken stays in its stream.
            tokio::select! {
                told = events.next() => {
                    let Some(told) = told else { return };
                    if !self.known.take(told) {
                        continue;
                    }
                }
                () = self.secrets.changed() => {}
                () = sleep_until(settled.unwrap_or(now)), if settled.is_some() => {
                    due = None;
                    self.compile().await;
                    continue;
                }
            }
            if self.known.is_complete() {
                let now = Instant::now();
                let latest = due.map_or(now + SETTLE_MAX, |(_, latest)| latest);
                due = Some((now + SETTLE, latest));
            }
        }
    }

    async fn compile(&mut self) {
        self.secrets.watch_only(&self.known.named_secrets());
        self.secrets.until_known().await;
        let objects = Objects {
            providers: self.known.providers.objects().cloned().collect(),
            classes: self.known.classes.objects().cloned().collect(),
            quotas: self.known.quotas.objects().cloned().collect(),
            secrets: self.secrets.entries(),
        };
        let (compiled, errors) = compile(&objects);
        self.objects.send_replace(Arc::new(objects));
        self.publish(compiled, errors);
    }

    fn publish(&mut self, compiled: Compiled, errors: Vec<Problem>) {
        let Compiled { mut policy, warnings } = compiled;
        let mut problems: Vec<String> = errors.iter().map(ToString::to_string).collect();
        // Its pods would stay on an old policy and nobody would know: it is left out instead.
        for (index, problem) in reach::untold(&policy).into_iter().rev() {
            policy.quotas.remove(index);
            problems.push(problem);
        }
        self.current.send_modify(|current| {
            for problem in problems.iter().filter(|it| !current.problems.contains(it)) {
                error!(problem, "policy");
            }
            for problem in warnings.iter().filter(|it| !current.warnings.contains(it)) {
                warn!(%problem, "policy");
            }
            let next = current.followed_by(policy, warnings, problems);
            *current = Arc::new(Current { errors, ..next });
        });
    }
}

/// The watches of all kinds as one stream.
fn all_events(client: &Client) -> SelectAll<BoxStream<'static, Told>> {
    let mut all = SelectAll::new();
    all.push(events(client, Told::Provider));
    all.push(events(client, Told::Class));
    all.push(events(client, Told::Quota));
    all
}

fn events<K>(client: &Client, told: fn(watcher::Event<K>) -> Told) -> BoxStream<'static, Told>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
{
    let events = watching::all(Api::<K>::all(client.clone()), watcher::Config::default());
    let events = events.map(move |event| match event {
        Ok(event) => told(event),
        Err(error) => Told::Failed(K::kind(&()).into_owned(), error),
    });
    events.boxed()
}

/// Takes an event; false if all that it changed is a status, which this allocator writes itself: the
/// API server counts specifications only.
fn matters<K: Resource + Clone>(mirror: &mut Mirror<K>, event: watcher::Event<K>) -> bool {
    match mirror.apply(event) {
        Changed::Nothing => false,
        Changed::All(_) => true,
        Changed::One(name, before) => {
            let generation = |object: &K| (object.meta().uid.clone(), object.meta().generation);
            before.as_ref().map(generation) != mirror.get(&name).map(generation)
        }
    }
}

// === impl Known ===

impl Known {
    /// Takes an event; true if it may change the policy.
    fn take(&mut self, told: Told) -> bool {
        match told {
            Told::Provider(event) => matters(&mut self.providers, event),
            Told::Class(event) => matters(&mut self.classes, event),
            Told::Quota(event) => matters(&mut self.quotas, event),
            Told::Failed(kind, error) => {
                warn!(kind, %error, "a watch failed; it starts anew");
                false
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.providers.is_complete() && self.classes.is_complete() && self.quotas.is_complete()
    }

    fn named_secrets(&self) -> BTreeSet<String> {
        let keys = self.providers.objects().flat_map(|provider| &provider.spec.keys);
        keys.map(|key| key.secret_ref.name.clone()).collect()
    }
}
