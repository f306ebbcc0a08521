//! Puts the parts of an allocator in a cluster together, and takes them down in order.
//!
//! Every replica keeps the watches and answers webhooks; one at a time holds the Lease and leads. Terms
//! follow one another in one process: a leader that loses the Lease stops granting, and stands again.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use crds::compile::Objects;
use kube::Client;
use prometheus_client::registry::Registry;
use service::clock::unix_now;
use service::drain;
use service::readiness::Readiness;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::app::admin_page;
use crate::cluster::identity::Identity;
use crate::cluster::kubelet::Kubelet;
use crate::cluster::missing::Missing;
use crate::cluster::pods::Pods;
use crate::cluster::source::Source;
use crate::cluster::status::StatusWriter;
use crate::cluster::term::{self, Candidate, Me, Seen, Term};
use crate::cluster::vault::{self, Vault};
use crate::cluster::watching;
use crate::cluster::webhook::{self, Knowledge};
use crate::config::{Cluster, Config};
use crate::connection;
use crate::grpc::{Leadership, Service};
use crate::leader::{Leader, longest_hold};
use crate::ledger_task::{LedgerTask, PodWord, now};
use crate::metrics::Metrics;
use crate::policy::Current;
use crate::record::Run;
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::tls::Shown;

/// What terms of leadership need, and leave as it is.
struct Replica {
    pod_uid: String,
    policy: watch::Receiver<Arc<Current>>,
    pods: Pods,
    metrics: Arc<Metrics>,
    show: watch::Sender<Arc<Snapshot>>,
    leadership: watch::Sender<Leadership>,
    sessions: TaskTracker,
    tasks: TaskTracker,
}

/// The Lease, the Service and the certificate are of this name.
const NAME: &str = "weir-allocator";
const WEBHOOK_SERVICE: &str = "weir-webhook";
/// For streams to end; below the grace period of the pod.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// For probes that are being answered, and for the Lease to be given back.
const LAST_STEPS: Duration = Duration::from_secs(2);

/// The watches that every replica keeps.
struct Watches {
    pods: Pods,
    kubelet: Kubelet,
    policy: watch::Receiver<Arc<Current>>,
    objects: watch::Receiver<Arc<Objects>>,
    missing: Missing,
    lease: Arc<watch::Sender<Seen>>,
}

/// Tasks of the process, and the word that ends them.
struct Tasks {
    tracker: TaskTracker,
    drain: drain::Watch,
}

/// What all parts of a replica share.
struct Parts<'a> {
    config: &'a Config,
    cluster: &'a Cluster,
    client: Client,
    tasks: Tasks,
    shown: Shown,
    certificates: vault::Current,
    watches: Watches,
    metrics: Arc<Metrics>,
    leadership: watch::Receiver<Leadership>,
    sessions: TaskTracker,
}

/// Runs a replica until `shutdown` is ready, then drains it.
///
/// # Errors
///
/// Whatever a person has to put right.
pub(crate) async fn run(
    config: &Config,
    cluster: &Cluster,
    mut shutdown: Pin<&mut impl Future<Output = ()>>,
) -> anyhow::Result<()> {
    info!(config = %serde_json::to_string(config)?, "starting");
    let me = me(config, cluster);
    let readiness = Readiness::default();
    let starting = readiness.block("starting");
    let mut registry = service::metrics::registry("weir-allocator");
    let (show, snapshot) = watch::channel(Arc::new(Snapshot::default()));
    Metrics::show(&mut registry, snapshot.clone());
    let (leadership, led) = watch::channel(Leadership::Following(None));
    let (trigger, drain) = drain::new();
    let tasks = Tasks { tracker: TaskTracker::new(), drain };
    let parts = tokio::select! {
        started = Parts::start(config, cluster, tasks, &mut registry, led) => started?,
        () = &mut shutdown => return Ok(()),
    };
    let mut serving = parts.serve_sidecars().await?;
    parts.serve_webhooks(&mut registry).await?;
    parts.write_status(snapshot.clone());
    let (last, last_watch) = drain::new();
    let (page, history) = admin_page(config, &readiness, registry, snapshot);
    parts.tasks.spawn(history);
    parts.tasks.tracker.spawn(page.serve(bind("admin", config.admin).await?, last_watch));
    info!(listen = %config.listen, admin = %config.admin, "serving");
    drop(starting);

    let (candidate, replica) = parts.stand(me, show, leadership);
    let lease = parts.watches.lease.subscribe();
    let (stop, stopping) = drain::new();
    let mut leading = pin!(replica.lead(candidate, lease, stopping));
    let mut ended = None;
    tokio::select! {
        led = &mut leading => ended = Some(led),
        _ = &mut serving => {}
        () = shutdown => {}
    }
    info!("draining");
    let draining = readiness.block("draining");
    let has_failed = serving.is_finished();
    drop(parts);
    // The Lease is given back once the last word is spoken, and not before.
    let (_, ended) = tokio::join!(stop.drain(DRAIN_LIMIT + LAST_STEPS), async {
        match ended {
            Some(ended) => ended,
            None => leading.await,
        }
    });
    trigger.drain(LAST_STEPS).await;
    last.drain(LAST_STEPS).await;
    drop(draining);
    ended?;
    anyhow::ensure!(!has_failed, "the gRPC listener has ended");
    Ok(())
}

fn watch_all(client: &Client, cluster: &Cluster, tasks: &Tasks) -> Watches {
    let namespace = &cluster.namespace;
    let pods = Pods::new();
    tasks.spawn(pods.clone().run(client.clone()));
    let kubelet = Kubelet::default();
    tasks.spawn(kubelet.clone().run(client.clone(), namespace.clone()));
    let (source, policy, objects) = Source::new(client.clone(), namespace);
    tasks.spawn(source.run());
    let missing = Missing::default();
    tasks.spawn(missing.clone().run(client.clone()));
    let (lease, follow) = term::follow(client.clone(), namespace, NAME);
    tasks.spawn(follow);
    Watches { pods, kubelet, policy, objects, missing, lease }
}

async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("--{flag} {address} cannot be bound"))
}

/// What the certificate is for.
fn names(cluster: &Cluster) -> Vec<String> {
    [NAME, WEBHOOK_SERVICE].map(|service| format!("{service}.{}.svc", cluster.namespace)).into()
}

/// This replica, as the Lease names it.
fn me(config: &Config, cluster: &Cluster) -> Me {
    let socket = SocketAddr::new(cluster.pod_ip, config.listen.port());
    Me {
        pod: cluster.pod.clone(),
        pod_uid: cluster.pod_uid.clone(),
        address: format!("https://{socket}"),
        started: unix_now(),
    }
}

/// Shows new connections whatever certificate is in force.
async fn show_certificates(shown: Shown, mut current: vault::Current) {
    while current.changed().await.is_ok() {
        let certificates = current.borrow_and_update().clone();
        match certificates.certified_key() {
            Ok(key) => shown.set(key),
            Err(error) => warn!(%error, "the new certificate cannot be used; the old one is shown"),
        }
    }
}

// === impl Parts ===

impl<'a> Parts<'a> {
    /// Connects to the API server, opens the vault, and starts the watches.
    async fn start(
        config: &'a Config,
        cluster: &'a Cluster,
        tasks: Tasks,
        registry: &mut Registry,
        leadership: watch::Receiver<Leadership>,
    ) -> anyhow::Result<Parts<'a>> {
        let client = watching::client().await?;
        let names = names(cluster);
        let theirs = cluster.certificate_secret.clone();
        let (vault, certificates) =
            Vault::open(client.clone(), &cluster.namespace, names, theirs).await?;
        let shown = Shown::default();
        shown.set(certificates.borrow().certified_key()?);
        tasks.spawn(show_certificates(shown.clone(), certificates.clone()));
        tasks.spawn(vault.run());
        let watches = watch_all(&client, cluster, &tasks);
        let metrics = Arc::new(Metrics::register(registry));
        let sessions = TaskTracker::new();
        Ok(Parts {
            config,
            cluster,
            client,
            tasks,
            shown,
            certificates,
            watches,
            metrics,
            leadership,
            sessions,
        })
    }

    /// The gRPC listener; it ends when it fails, or with the drain.
    async fn serve_sidecars(
        &self,
    ) -> anyhow::Result<JoinHandle<Result<(), tonic::transport::Error>>> {
        let pods = self.watches.pods.clone();
        let key = self.certificates.borrow().ticket_key().to_vec();
        let identity = Identity::new(self.client.clone(), pods, &key, &self.cluster.pod);
        let service = Service::new(
            self.leadership.clone(),
            Some(identity),
            self.watches.policy.clone(),
            self.metrics.clone(),
            self.sessions.clone(),
        );
        let listener = bind("listen", self.config.listen).await?;
        let incoming = connection::tls(listener, self.shown.acceptor(&["h2"])?);
        let mut ending = self.tasks.drain.clone();
        let ending = async move {
            ending.started().await;
        };
        let serving = service.into_router().serve_with_incoming_shutdown(incoming, ending);
        Ok(self.tasks.tracker.spawn(serving))
    }

    async fn serve_webhooks(&self, registry: &mut Registry) -> anyhow::Result<()> {
        let port = self.config.listen.port();
        let knowledge = Knowledge {
            sidecar: self.cluster.sidecar.clone(),
            allocator: format!("https://{NAME}.{}.svc:{port}", self.cluster.namespace),
            certificates: self.certificates.clone(),
            policy: self.watches.policy.clone(),
            objects: self.watches.objects.clone(),
        };
        let acceptor = self.shown.acceptor(&["h2", "http/1.1"])?;
        let listener = bind("webhook", self.cluster.webhook).await?;
        self.tasks.spawn(webhook::serve(listener, acceptor, knowledge, registry)?);
        Ok(())
    }

    fn write_status(&self, snapshot: watch::Receiver<Arc<Snapshot>>) {
        let writer = StatusWriter {
            client: self.client.clone(),
            pod: self.cluster.pod.clone(),
            policy: self.watches.policy.clone(),
            objects: self.watches.objects.clone(),
            snapshot,
            leadership: self.leadership.clone(),
            pods: self.watches.pods.clone(),
            missing: self.watches.missing.clone(),
        };
        self.tasks.spawn(writer.run());
    }

    /// What stands for election, and what leads once it is elected.
    fn stand(
        &self,
        me: Me,
        show: watch::Sender<Arc<Snapshot>>,
        leadership: watch::Sender<Leadership>,
    ) -> (Candidate, Replica) {
        let Watches { kubelet, lease, .. } = &self.watches;
        let namespace = &self.cluster.namespace;
        let (client, kubelet) = (self.client.clone(), kubelet.clone());
        let candidate = Candidate::new(client, namespace, NAME, me, kubelet, lease.clone());
        let replica = Replica {
            pod_uid: self.cluster.pod_uid.clone(),
            policy: self.watches.policy.clone(),
            pods: self.watches.pods.clone(),
            metrics: self.metrics.clone(),
            show,
            leadership,
            sessions: self.sessions.clone(),
            tasks: self.tasks.tracker.clone(),
        };
        (candidate, replica)
    }
}

// === impl Tasks ===

impl Tasks {
    /// A task that may stop at any moment, and does when the drain starts.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut drain = self.drain.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = task => {}
                _ = drain.started() => {}
            }
        });
    }
}

// === impl Replica ===

impl Replica {
    /// Leads whenever it may, until the drain starts.
    async fn lead(
        mut self,
        mut candidate: Candidate,
        mut seen: watch::Receiver<Seen>,
        mut drain: drain::Watch,
    ) -> anyhow::Result<()> {
        // A leader that does not know the policy or the pods would take leases away.
        let known = self.policy.wait_for(|current| current.policy.generation > 0);
        tokio::select! {
            _ = known => {}
            _ = drain.started() => return Ok(()),
        }
        tokio::select! {
            () = self.pods.complete() => {}
            _ = drain.started() => return Ok(()),
        }
        loop {
            self.follow(&seen.borrow_and_update());
            let term = {
                let mut win = pin!(candidate.win());
                loop {
                    // Winning is not cut off by the others: it goes on where it was.
                    tokio::select! {
                        term = &mut win => break term?,
                        Ok(()) = seen.changed() => self.follow(&seen.borrow_and_update()),
                        _ = drain.started() => return Ok(()),
                    }
                }
            };
            self.serve(term, drain.clone()).await?;
            if drain.is_started() {
                return Ok(());
            }
        }
    }

    /// Sends sidecars to whoever leads. What is still shown of an earlier term of this replica is over.
    fn follow(&self, seen: &Seen) {
        let holder = seen.lease.as_ref().and_then(|lease| lease.as_ref()?.holder.as_ref());
        let leader = holder.filter(|holder| holder.pod_uid != self.pod_uid);
        let address = leader.map(|holder| holder.address.clone());
        self.leadership.send_replace(Leadership::Following(address));
    }

    /// Serves one term.
    async fn serve(&mut self, term: Term, drain: drain::Watch) -> anyhow::Result<()> {
        let Term { mut record, memory, authority, saves, keeper } = term;
        let (release, released) = oneshot::channel();
        let keeper = self.tasks.spawn(keeper.run(released));
        let changes = self.pods.subscribe();
        for pod in self.pods.roster(longest_hold(record.floor_ttl())) {
            record.add_pod(&pod, Run::UNKNOWN);
        }
        let state = (State::of_lease(record, saves), memory);
        let current = self.policy.borrow().clone();
        let leader = Leader::new(now(), state, current.policy.clone(), self.metrics.clone());
        let word = PodWord { pods: self.pods.clone(), changes };
        let (ledger, handle) = LedgerTask::new(
            leader,
            self.policy.clone(),
            self.show.clone(),
            authority.clone(),
            Some(word),
        );
        self.leadership.send_replace(Leadership::Leading(handle));
        let ended = ledger.run(drain).await;
        self.leadership.send_replace(Leadership::Following(None));
        // What this replica knows is not true any more.
        self.show.send_replace(Arc::default());
        // Nothing is heard from this term any more before another may begin.
        self.sessions.close();
        match timeout(DRAIN_LIMIT, self.sessions.wait()).await {
            // One that has lost the Lease has nothing to give back, and does not listen.
            Ok(()) => drop(release.send(())),
            Err(_) => authority.end("streams did not end in time: only silence may end this term"),
        }
        self.sessions.reopen();
        drop(ended?);
        let _ = timeout(LAST_STEPS, keeper).await;
        Ok(())
    }
}
