//! `weir-sidecar` as a process.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitStatus;

use crate::client::Client;
use crate::metrics::Metrics;
use crate::policy::NAMESPACE;
use crate::port;
use crate::process::Process;
use crate::program::Program;

/// One pod's sidecar.
#[derive(Debug)]
pub struct Sidecar {
    /// Where applications connect.
    pub address: SocketAddr,
    /// The pod's name as the allocator shows it.
    pub pod: String,
    admin: SocketAddr,
    process: Process,
}

/// What each sidecar counts of requests.
const REQUESTS: &str = "weir_sidecar_requests_total";
const REFUSALS: &str = "weir_sidecar_refusals_total";
const TOKENS: &str = "weir_sidecar_tokens_total";

// === impl Sidecar ===

impl Sidecar {
    /// Starts the sidecar of pod `name`, with further flags, and does not wait.
    pub fn launch(folder: &Path, allocator: SocketAddr, name: &str, more: &[&str]) -> Sidecar {
        let (address, admin) = (port::free(), port::free());
        let mut arguments: Vec<String> = [
            ("--allocator", format!("http://{allocator}")),
            ("--pod", name.to_owned()),
            ("--listen", address.to_string()),
            ("--admin", admin.to_string()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        if !more.contains(&"--namespace") {
            arguments.extend(["--namespace", NAMESPACE].map(str::to_owned));
        }
        arguments.extend(more.iter().map(ToString::to_string));
        let process = Process::start(Program::Sidecar, name, arguments, folder);
        Sidecar { address, pod: format!("{NAMESPACE}/{name}"), admin, process }
    }

    /// Waits until it is ready: it knows its policy, or waits no longer for one.
    pub async fn ready(&mut self) {
        self.process.ready(self.admin).await;
    }

    /// An application of its pod, for one provider (`openai` or `anthropic`).
    pub fn client(&self, provider: &str) -> Client {
        Client::new(self.address, &format!("/{provider}"))
    }

    /// What it counts.
    pub async fn metrics(&self) -> Metrics {
        Metrics(self.page("/metrics").await)
    }

    /// A page of its admin listener.
    pub async fn page(&self, path: &str) -> String {
        Client::new(self.admin, "").get(path).await.good().text()
    }

    /// What it has said.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Input and output tokens that it has settled with a provider.
    pub async fn tokens(&self, provider: &str) -> (u64, u64) {
        let metrics = self.metrics().await;
        let count = |kind| metrics.count(TOKENS, &[("provider", provider), ("kind", kind)]);
        (count("input"), count("output"))
    }

    /// Requests that ended so.
    pub async fn requests(&self, outcome: &str) -> u64 {
        self.metrics().await.count(REQUESTS, &[("outcome", outcome)])
    }

    /// Requests that it refused itself.
    pub async fn refusals(&self) -> u64 {
        self.metrics().await.count(REFUSALS, &[])
    }

    /// Ends it as a crash would.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// Asks it to end, and waits for that.
    pub async fn stop(&mut self) -> ExitStatus {
        self.process.stop().await
    }
}
