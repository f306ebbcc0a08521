//! Puts the parts together, and takes them down in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use service::admin::Admin;
use service::drain::{self, Outcome};
use service::readiness::{BlockReady, Readiness};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::args::Args;
use crate::config::Config;
use crate::gate::Gate;
use crate::lease::Lease;
use crate::listener::Listener;
use crate::metrics::Metrics;
use crate::policy::Standing;
use crate::proxy::Proxy;

/// A sidecar whose sockets are bound.
pub struct Sidecar {
    config: Arc<Config>,
    listener: Listener,
    admin: TcpListener,
}

/// What `/config` shows.
#[derive(Serialize)]
struct Shown<'a> {
    config: &'a Config,
    policy: &'static str,
    generation: Option<u64>,
    quota: Option<String>,
    providers: Vec<ShownProvider>,
    epoch: u64,
    connected: bool,
}

#[derive(Serialize)]
struct ShownProvider {
    name: String,
    endpoint: String,
    /// Aliases of keys; never a key.
    keys: Vec<String>,
    limits: Vec<String>,
}

/// For the ends of answers whose clients have gone; then for the last message to the allocator and
/// for probes that are being answered. With the flush of traces, 6 s beyond the drain.
const LAST_STEPS: Duration = Duration::from_secs(2);

// === impl Sidecar ===

impl Sidecar {
    /// Checks the arguments and binds both sockets.
    pub async fn bind(args: Args) -> anyhow::Result<Sidecar> {
        let config = Config::try_from(args)?;
        info!(config = %serde_json::to_string(&config)?, "starting");
        if !config.listen.ip().is_loopback() {
            warn!(listen = %config.listen, "whoever reaches it uses this pod's quota and keys");
        }
        let listener = Listener::bind(config.listen)
            .await
            .with_context(|| format!("--listen {} cannot be bound", config.listen))?;
        let admin = TcpListener::bind(config.admin)
            .await
            .with_context(|| format!("--admin {} cannot be bound", config.admin))?;
        Ok(Sidecar { config: Arc::new(config), listener, admin })
    }

    /// Where applications connect.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Where probes and scrapes connect.
    pub fn admin_address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.admin.local_addr()?)
    }

    /// Serves until `shutdown` is ready, then drains: fail readiness, stop accepting, finish within
    /// the deadline, return unused credit.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Sidecar { config, listener, admin } = self;
        let gate = Gate::new();
        let mut registry = service::metrics::registry("weir-sidecar");
        let metrics = Arc::new(Metrics::register(&mut registry, &gate));
        let (standing, policy) = watch::channel(Standing::Unknown);
        let readiness = Readiness::default();
        let tasks = TaskTracker::new();

        let (requests, requests_watch) = drain::new();
        let (last, last_watch) = drain::new();
        let blocked = readiness.block("policy");
        tasks.spawn(until_policy(policy.clone(), config.start_wait, blocked));
        let proxy = Proxy::new(gate.clone(), policy.clone(), config.start_wait, metrics.clone());
        let proxy = Arc::new(proxy);
        let serving = listener.serve(proxy.clone(), requests_watch);
        let serving = tasks.spawn(serving);
        let shown = (config.clone(), gate.clone(), policy);
        let admin_task = Admin::new(readiness.clone(), Arc::new(registry))
            .config(move || show(&shown.0, &shown.1, &shown.2.borrow()))
            .serve(admin, last_watch.clone());
        tasks.spawn(admin_task);
        let drain_limit = config.drain;
        tasks.spawn(Lease::new(config, gate, standing, metrics).run(last_watch));
        info!("serving");

        shutdown.await;
        info!("draining");
        let draining = readiness.block("draining");
        if requests.drain(drain_limit).await == Outcome::DeadlinePassed {
            warn!("requests were cut off at the drain's deadline");
        }
        // Connections end at the drain's deadline; this is for their tasks to do so.
        let _ = timeout(LAST_STEPS, serving).await;
        proxy.finish(LAST_STEPS).await;
        last.drain(LAST_STEPS).await;
        drop(draining);
        Ok(())
    }
}

/// Ready when the first policy has come, or when there is no more waiting for it: then requests are
/// answered, if only by refusals, and a pod can start without an allocator (`leases.md` 4.7).
async fn until_policy(mut policy: watch::Receiver<Standing>, wait: Duration, blocked: BlockReady) {
    let known = policy.wait_for(|standing| !matches!(standing, Standing::Unknown));
    if timeout(wait, known).await.is_err() {
        warn!("no allocator has answered; requests get 503 until one does");
    }
    drop(blocked);
}

fn show(config: &Config, gate: &Gate, standing: &Standing) -> String {
    let status = gate.status();
    let (epoch, connected) = (status.epoch.0, status.connected);
    let shown = match standing {
        Standing::Unknown | Standing::NoQuota(_) => Shown {
            config,
            policy: if matches!(standing, Standing::Unknown) { "unknown" } else { "no quota" },
            generation: None,
            quota: None,
            providers: Vec::new(),
            epoch,
            connected,
        },
        Standing::Known(snapshot) => Shown {
            config,
            policy: "known",
            generation: Some(snapshot.policy.generation),
            quota: Some(snapshot.policy.quota.key()),
            providers: snapshot.policy.providers.iter().map(show_provider).collect(),
            epoch,
            connected,
        },
    };
    serde_json::to_string(&shown).expect("plain names and numbers are JSON")
}

fn show_provider(provider: &quota::policy::Provider) -> ShownProvider {
    ShownProvider {
        name: provider.name.to_string(),
        endpoint: provider.endpoint.clone(),
        keys: provider.keys.iter().map(|key| key.name.to_string()).collect(),
        limits: provider.limits.iter().map(|limit| limit.name.to_string()).collect(),
    }
}
