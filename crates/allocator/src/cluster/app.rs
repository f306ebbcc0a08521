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
use service::clock::unix_now;
use service::drain;
use service::readiness::Readiness;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::app::admin_page;
use crate::cluster::identity::Identity;
use crate::cluster::kubelet::Kubelet;
use crate::cluster::pods::Pods;
use crate::cluster::source::Source;
use crate::cluster::status::StatusWriter;
use crate::cluster::term::{self, Candidate, Me, Seen, Term};
use crate::cluster::vault::{self, Vault};
use crate::config::{Cluster, Config};
use crate::connection;
use crate::grpc::{Leadership, Service};
use crate::leader::Leader;
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

/// The Lease, the headless Service and the certificate are of this name.
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
    lease: watch::Receiver<Seen>,
}

/// Tasks of the process, and the word that ends them.
struct Tasks {
    tracker: TaskTracker,
    drain: drain::Watch,
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
    let client = Client::try_default().await.context("this is no pod of a cluster")?;
    let (trigger, drain) = drain::new();
    let tasks = Tasks { tracker: TaskTracker::new(), drain };
    let readiness = Readiness::default();
    let mut registry = service::metrics::registry("weir-allocator");
    let metrics = Arc::new(Metrics::register(&mut registry));
    let (show, snapshot) = watch::channel(Arc::new(Snapshot::default()));
    Metrics::show(&mut registry, snapshot.clone());

    let opened = Vault::open(client.clone(), &cluster.namespace, names(cluster));
    let (vault, certificates) = tokio::select! {
        opened = opened => opened?,
        () = &mut shutdown => return Ok(()),
    };
    let shown = Shown::default();
    shown.set(certificates.borrow().certified_key()?);
    tasks.spawn(show_certificates(shown.clone(), certificates.clone()));
    tasks.spawn(vault.run());
    let Watches { pods, kubelet, policy, objects, lease } = watch_all(&client, cluster, &tasks);

    let (leadership, led) = watch::channel(Leadership::Following(None));
    let sessions = TaskTracker::new();
    let identity = Identity::new(client.clone(), pods.clone(), certificates.borrow().ticket_key());
    let service = Service::new(
        led.clone(),
        Some(identity),
        policy.clone(),
        metrics.clone(),
        sessions.clone(),
    );
    let incoming = connection::tls(bind("listen", config.listen).await?, shown.acceptor(&["h2"])?);
    let mut ending = tasks.drain.clone();
    let ending = async move {
        ending.started().await;
    };
    let serving = service.into_router().serve_with_incoming_shutdown(incoming, ending);
    let mut serving = tasks.tracker.spawn(serving);
    let (last, last_watch) = drain::new();
    let page = admin_page(config, &readiness, registry, snapshot.clone());
    tasks.tracker.spawn(page.serve(bind("admin", config.admin).await?, last_watch));
    let writer = StatusWriter {
        client: client.clone(),
        pod: cluster.pod.clone(),
        policy: policy.clone(),
        objects,
        snapshot,
        leadership: led,
        pods: pods.clone(),
    };
    tasks.spawn(writer.run());
    info!(listen = %config.listen, admin = %config.admin, "serving");

    let candidate = Candidate::new(client, &cluster.namespace, NAME, me, kubelet, lease.clone());
    let pod_uid = cluster.pod_uid.clone();
    let tracker = tasks.tracker.clone();
    let replica =
        Replica { pod_uid, policy, pods, metrics, show, leadership, sessions, tasks: tracker };
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
    drop(tasks);
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
    let (lease, follow) = term::follow(client.clone(), namespace, NAME);
    tasks.spawn(follow);
    Watches { pods, kubelet, policy, objects, lease }
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
        self.pods.complete().await;
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
        for pod in self.pods.roster() {
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
