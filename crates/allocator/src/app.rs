//! Puts the parts together, and takes them down in order.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use service::admin::Admin;
use service::drain;
use service::readiness::Readiness;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::args::Args;
use crate::cluster::term::Authority;
use crate::config::{Config, Place};
use crate::connection;
use crate::grpc::{Leadership, Service};
use crate::leader::Leader;
use crate::ledger_task::{LedgerTask, now};
use crate::metrics::Metrics;
use crate::page;
use crate::policy::{Current, Source};
use crate::snapshot::Snapshot;
use crate::state::{Memory, State};

/// An allocator of one machine that leads: it has a policy, the state directory's lock, and both
/// sockets.
pub struct Allocator {
    config: Config,
    source: Source,
    policy: watch::Receiver<Arc<Current>>,
    state: (State, Memory),
    listener: TcpListener,
    admin: TcpListener,
}

/// For streams to end; below the grace period of every supervisor.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// For probes that are being answered.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

// === impl Allocator ===

impl Allocator {
    /// Checks the arguments, reads the policy, waits until no other allocator works on the state
    /// directory, and binds both sockets.
    ///
    /// # Errors
    ///
    /// Whatever a person has to put right, with all problems of the policy.
    pub async fn start(args: Args) -> anyhow::Result<Allocator> {
        let config = Config::try_from(args)?;
        let Place::Directory { policy, state } = &config.place else {
            anyhow::bail!("an allocator of a cluster is started by `run`");
        };
        info!(config = %serde_json::to_string(&config)?, "starting");
        let (source, policy) = Source::open(policy)?;
        let state = State::open(state, now).await?;
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("--listen {} cannot be bound", config.listen))?;
        let admin = TcpListener::bind(config.admin)
            .await
            .with_context(|| format!("--admin {} cannot be bound", config.admin))?;
        Ok(Allocator { config, source, policy, state, listener, admin })
    }

    /// Where sidecars connect.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Where probes and scrapes connect.
    pub fn admin_address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.admin.local_addr()?)
    }

    /// Leads until `shutdown` is ready, then drains: fail readiness, stop granting, tell the sidecars,
    /// close their streams, free the lock.
    ///
    /// # Errors
    ///
    /// The state directory cannot be written any more.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let (listen, admin_listen) = (self.address()?, self.admin_address()?);
        let Allocator { config, source, policy, state, listener, admin } = self;
        let tasks = TaskTracker::new();
        let (trigger, watch) = drain::new();
        let (last, last_watch) = drain::new();
        let readiness = Readiness::default();

        let mut registry = service::metrics::registry("weir-allocator");
        let metrics = Arc::new(Metrics::register(&mut registry));
        let current = policy.borrow().clone();
        let mut leader = Leader::new(now(), state, current.policy.clone(), metrics.clone());
        let (show, snapshot) = watch::channel(Arc::new(leader.snapshot(now(), &current)));
        Metrics::show(&mut registry, snapshot.clone());

        let (page, history) = admin_page(&config, &readiness, registry, snapshot);
        tasks.spawn(page.serve(admin, last_watch));
        tasks.spawn(history);
        tasks.spawn(source.run(watch.clone()));
        let (ledger, handle) =
            LedgerTask::new(leader, policy.clone(), show, Authority::unlimited(), None);
        let sessions = TaskTracker::new();
        // On one machine whoever serves leads.
        let (_leadership, leading) = watch::channel(Leadership::Leading(handle));
        let router = Service::new(leading, None, policy, metrics, sessions.clone()).into_router();
        let mut ending = watch.clone();
        let ending = async move {
            ending.started().await;
        };
        let connections = connection::plain(listener);
        let mut serving = tasks.spawn(router.serve_with_incoming_shutdown(connections, ending));
        let mut leading = pin!(ledger.run(watch));
        info!(%listen, admin = %admin_listen, "serving");

        // What has not ended here is polled on below; what has is not polled again.
        let mut led = None;
        tokio::select! {
            ended = &mut leading => led = Some(ended),
            _ = &mut serving => {}
            () = shutdown => {}
        }
        info!("draining");
        let draining = readiness.block("draining");
        let has_failed = led.is_some() || serving.is_finished();
        let deadline = Instant::now() + DRAIN_LIMIT;
        // The lock is held until the streams are closed, so that a successor finds nobody at work.
        let (_, led) = tokio::join!(trigger.drain(DRAIN_LIMIT), async {
            match led {
                Some(led) => led,
                None => leading.await,
            }
        });
        sessions.close();
        let closed = timeout_at(deadline, async {
            sessions.wait().await;
            if !serving.is_finished() {
                let _ = serving.await;
            }
        });
        if closed.await.is_err() {
            warn!("streams were cut off at the drain's deadline");
        }
        last.drain(LAST_ANSWERS).await;
        drop(draining);
        let _lock = led.context("an allocator that cannot remember must not lead")?;
        anyhow::ensure!(!has_failed, "the gRPC listener has ended");
        Ok(())
    }
}

pub(crate) fn admin_page(
    config: &Config,
    readiness: &Readiness,
    registry: Registry,
    snapshot: watch::Receiver<Arc<Snapshot>>,
) -> (Admin, impl Future<Output = ()> + Send + 'static) {
    let text = serde_json::to_string_pretty(config).expect("paths and addresses make JSON");
    let admin = Admin::new(readiness.clone(), Arc::new(registry)).config(move || text.clone());
    page::routes(admin, config.jaeger.clone(), snapshot)
}
