//! The emulated provider, in the runtime of its test.

use std::net::SocketAddr;
use std::time::Duration;

use emulator::Config;
use emulator::config::{Latency, LimitConfig, Output, Provider as Which};
use emulator::state::{LimitState, State};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::port;

/// OpenAI and Anthropic on one port; it ends with this.
#[derive(Debug)]
pub struct Provider {
    /// Where it serves.
    pub address: SocketAddr,
    admin: Client,
    shutdown: Option<oneshot::Sender<()>>,
    tasks: JoinSet<()>,
}

/// Answers of eight tokens within 50 ms, always the same for the same calls, and `limit` for both
/// providers.
pub fn quick(limit: LimitConfig) -> Config {
    Config {
        openai: vec![limit.clone()],
        anthropic: vec![limit],
        latency: Latency { first_token_ms: 20, spread: 0.0, tokens_per_second: 400 },
        output: Output { tokens: 8, spread: 0.0 },
        ..Config::default()
    }
}

/// A limit that no test reaches.
pub fn ample() -> LimitConfig {
    LimitConfig {
        requests_per_minute: Some(600_000),
        tokens_per_minute: Some(60_000_000),
        ..LimitConfig::default()
    }
}

// === impl Provider ===

impl Provider {
    /// Starts one.
    pub async fn start(config: Config) -> Provider {
        Provider::start_at(port::free(), config).await
    }

    /// Starts one where another was.
    pub async fn start_at(address: SocketAddr, config: Config) -> Provider {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let admin = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let admin_address = admin.local_addr().expect("it is bound");
        let (shutdown, ended) = oneshot::channel::<()>();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let ended = async { drop(ended.await) };
            emulator::serve(config, listener, admin, ended).await.expect("a sound configuration");
        });
        let admin = Client::new(admin_address, "");
        Provider { address, admin, shutdown: Some(shutdown), tasks }
    }

    /// The truth ledger.
    pub async fn state(&self) -> State {
        let answer = self.admin.get("/__emu/state").await.good();
        serde_json::from_slice(&answer.body).expect("the emulator's own form")
    }

    /// One figure of the truth ledger.
    pub async fn limit(&self, provider: Which, dimension: &str) -> LimitState {
        let limits = self.state().await.limits;
        let found = limits
            .into_iter()
            .find(|limit| limit.provider == provider && limit.dimension == dimension);
        found.unwrap_or_else(|| panic!("{provider:?} has no limit on {dimension}"))
    }

    /// Input and output tokens of all calls to one of the two.
    pub async fn tokens(&self, provider: Which) -> (u64, u64) {
        let totals = self.state().await.totals;
        let totals = totals.iter().filter(|total| total.provider == provider);
        totals.fold((0, 0), |(input, output), total| {
            (input + total.input_tokens, output + total.output_tokens)
        })
    }

    /// How many 429s it has sent.
    pub async fn refusals(&self) -> u64 {
        self.state().await.answers.get(&429).copied().unwrap_or(0)
    }

    /// Arms a fault.
    pub async fn arm(&self, fault: Value) {
        self.admin.post("/__emu/fault", &fault).await.good();
    }

    /// Disarms all faults.
    pub async fn disarm(&self) {
        self.admin.ask(http::Method::DELETE, "/__emu/fault", bytes::Bytes::new()).await.good();
    }

    /// Changes what may be changed while it runs.
    pub async fn configure(&self, change: Value) {
        self.admin.post("/__emu/config", &change).await.good();
    }

    /// Begins a new span of measurement.
    pub async fn restart_figures(&self) {
        self.admin.post("/__emu/reset", &Value::Null).await.good();
    }

    /// Ends it: from now on nobody listens there.
    pub async fn stop(&mut self) {
        drop(self.shutdown.take());
        let ended = tokio::time::timeout(Duration::from_secs(10), self.tasks.join_next()).await;
        assert!(ended.is_ok(), "the emulator ends");
    }
}
