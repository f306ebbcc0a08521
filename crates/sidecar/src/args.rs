//! What a person or the injector says at the start. Made into a [`crate::config::Config`] before
//! anything runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use service::telemetry::Format;

/// Holds a pod's LLM traffic within its quota: a proxy on loopback with leases from an allocator.
///
/// Applications use it through their SDK's base URL, `http://127.0.0.1:7410/<LLMProvider name>/...`.
#[derive(Clone, Debug, Parser)]
#[command(name = "weir-sidecar", version = service::build::version())]
pub struct Args {
    /// Where the allocator listens, as `http://host:port` on this machine or `https://host:port` in a
    /// cluster.
    #[arg(long, env = "WEIR_SIDECAR_ALLOCATOR", value_name = "URL")]
    pub allocator: String,

    /// What the allocator's certificate is checked against: PEM text, not a file. For https.
    #[arg(long, env = "WEIR_SIDECAR_CA", value_name = "PEM", hide_env_values = true)]
    pub ca: Option<String>,

    /// The pod's token, which proves who it is; read anew for each session, because it is rotated. For
    /// https.
    #[arg(long, env = "WEIR_SIDECAR_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// The pod's namespace.
    #[arg(long, env = "WEIR_SIDECAR_NAMESPACE", value_name = "NS")]
    pub namespace: String,

    /// The pod's name, unique in its namespace.
    #[arg(long, env = "WEIR_SIDECAR_POD", value_name = "NAME")]
    pub pod: String,

    /// The pod's uid; only in Kubernetes.
    #[arg(long, env = "WEIR_SIDECAR_POD_UID", value_name = "UID", default_value = "")]
    pub pod_uid: String,

    /// The pod's labels, which decide the quota; believed only by an allocator with
    /// --insecure-plaintext.
    #[arg(long, env = "WEIR_SIDECAR_LABELS", value_name = "K=V,...", default_value = "")]
    pub labels: String,

    /// Where applications connect. 127.0.0.1 means ::1 too where the machine has it.
    #[arg(
        long,
        env = "WEIR_SIDECAR_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:7410"
    )]
    pub listen: SocketAddr,

    /// Where /live, /ready, /metrics and /config are served.
    #[arg(long, env = "WEIR_SIDECAR_ADMIN", value_name = "ADDR", default_value = "127.0.0.1:7411")]
    pub admin: SocketAddr,

    /// For how long the start, and each request, waits for the first policy; a request gets a 503 then
    /// that SDKs retry.
    #[arg(long, env = "WEIR_SIDECAR_START_WAIT", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub start_wait: Duration,

    /// For how long running requests may go on after SIGTERM. At least 6 s below the pod's grace
    /// period, which is 30 s unless set.
    #[arg(long, env = "WEIR_SIDECAR_DRAIN", value_name = "TIME", default_value = "24s", value_parser = duration)]
    pub drain: Duration,

    /// How log lines look: human or json.
    #[arg(long, env = "WEIR_SIDECAR_LOG_FORMAT", value_name = "FORMAT", default_value = "human")]
    pub log_format: Format,
}

fn duration(text: &str) -> Result<Duration, String> {
    providers::duration::go(text).ok_or_else(|| format!("`{text}` is no time such as 10s or 1m30s"))
}
