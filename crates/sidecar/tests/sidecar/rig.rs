//! A sidecar between a fake allocator and a fake provider.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use http::Request;
use http_body_util::Full;
use quota::budget::{Budget, BudgetId, Shape};
use quota::dimension::{Dimension, Protocol};
use quota::policy::{Limit, Mode, Name, OnLoss, PodPolicy, Provider, QueueLimits, Quota, Use};
use quota::units::Amount;
use sidecar::{Args, Sidecar};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::allocator::FakeAllocator;
use crate::client::{Answer, Client};
use crate::provider::FakeProvider;

pub(crate) struct Rig {
    pub(crate) allocator: FakeAllocator,
    pub(crate) provider: FakeProvider,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl Rig {
    /// With a quota for everything that the provider has.
    pub(crate) async fn start(provider: FakeProvider) -> Rig {
        let policy = policy(&provider);
        Rig::with(provider, Some(policy), &[]).await
    }

    pub(crate) async fn with(
        provider: FakeProvider,
        policy: Option<PodPolicy>,
        more: &[&str],
    ) -> Rig {
        let allocator = FakeAllocator::start(policy).await;
        let (address, admin, shutdown, serving) = sidecar(allocator.address, more).await;
        Rig { allocator, provider, address, admin, shutdown, serving }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::http1(self.address).await
    }

    /// A page of the admin listener.
    pub(crate) async fn admin(&self, path: &str) -> Answer {
        admin(self.admin, path).await
    }

    /// Starts the drain.
    pub(crate) fn stop(&self) {
        self.shutdown.cancel();
    }

    /// Waits for its end.
    pub(crate) async fn stopped(self) {
        self.serving.await.unwrap().unwrap();
    }

    /// The value of a metric, by the beginning of its line.
    pub(crate) async fn metric(&self, line: &str) -> Option<f64> {
        let page = self.admin("/metrics").await.body;
        page.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok())
    }
}

pub(crate) async fn sidecar(
    allocator: SocketAddr,
    more: &[&str],
) -> (SocketAddr, SocketAddr, CancellationToken, JoinHandle<anyhow::Result<()>>) {
    let allocator = format!("http://{allocator}");
    let args =
        ["weir-sidecar", "--allocator", &allocator, "--namespace", "shop", "--pod", "chat-1"];
    let args = args.into_iter().chain(["--labels", "app=chat", "--listen", "127.0.0.1:0"]);
    let args = args.chain(["--admin", "127.0.0.1:0"]).chain(more.iter().copied());
    let sidecar = Sidecar::bind(Args::parse_from(args)).await.unwrap();
    let (address, admin) = (sidecar.address().unwrap(), sidecar.admin_address().unwrap());
    let shutdown = CancellationToken::new();
    let until = shutdown.clone().cancelled_owned();
    let serving = TaskTracker::new().spawn(sidecar.serve(until));
    (address, admin, shutdown, serving)
}

pub(crate) async fn admin(address: SocketAddr, path: &str) -> Answer {
    let request = Request::get(format!("http://weir{path}")).body(Full::default()).unwrap();
    Client::http1(address).await.ask(request).await
}

/// OpenAI's limits of `gpt-4o` and `o3`, and a quota that names all of them.
pub(crate) fn policy(provider: &FakeProvider) -> PodPolicy {
    let provider_of = |name: &str, protocol| Provider {
        name: name.into(),
        protocol,
        endpoint: format!("http://{}", provider.address),
        keys: Vec::new(),
        limits: vec![limit(name, "gpt-4o", &["gpt-4o*", "claude*"]), limit(name, "o3", &["o3*"])],
    };
    let using = |name: &str| Use {
        provider: name.into(),
        limit: None,
        guaranteed: BTreeMap::new(),
        ceiling: BTreeMap::new(),
    };
    let names: [Name; 2] = ["openai".into(), "claude".into()];
    PodPolicy {
        generation: 3,
        quota: Quota {
            namespace: "shop".into(),
            name: "chat".into(),
            selector: BTreeMap::new(),
            class: "interactive".into(),
            permitted: vec!["batch".into()],
            weight: 1,
            uses: names.iter().map(|name| using(name)).collect(),
            queue: QueueLimits { max_wait: Duration::from_secs(5), max_requests: 100 },
            per_request_max_tokens: None,
            on_allocator_loss: OnLoss::Floor,
            mode: Mode::Enforce,
        },
        providers: vec![
            provider_of("openai", Protocol::OpenAi),
            provider_of("claude", Protocol::Anthropic),
        ],
        classes: BTreeMap::from([("interactive".into(), 100), ("batch".into(), 10)]),
    }
}

fn limit(provider: &str, name: &str, models: &[&str]) -> Limit {
    let figures = [
        (Dimension::RequestsPerMinute, 600),
        (Dimension::TokensPerMinute, 60_000),
        (Dimension::ConcurrentRequests, 50),
    ];
    let budgets = figures.into_iter().map(|(dimension, figure)| {
        let id = BudgetId::new(provider, name, dimension);
        Budget::new(id, dimension, figure, Shape::default())
    });
    Limit {
        name: name.into(),
        models: models.iter().map(ToString::to_string).collect(),
        budgets: budgets.collect(),
    }
}

pub(crate) fn budget(dimension: Dimension) -> BudgetId {
    BudgetId::new("openai", "gpt-4o", dimension)
}

pub(crate) fn units(units: u64) -> Amount {
    Amount::from_units(units)
}
