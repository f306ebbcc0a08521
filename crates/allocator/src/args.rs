//! What a person says at the start. Made into a [`crate::config::Config`] before anything runs.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use clap::builder::FalseyValueParser;
use service::telemetry::Format;

/// Splits the rate limits of LLM providers among sidecars: by leases, by credit, by priority.
///
/// Policy is a directory of YAML files (kinds LLMProvider, LLMPriorityClass, LLMQuota, and Secret for
/// keys); it is read again whenever it changes.
#[derive(Clone, Debug, Parser)]
#[command(name = "weir-allocator", version = service::build::version())]
pub struct Args {
    /// The directory of the policy: its *.yaml and *.yml files.
    #[arg(long, env = "WEIR_ALLOCATOR_POLICY", value_name = "DIR")]
    pub policy: PathBuf,

    /// The directory of what must survive a restart; made if it is not there. One allocator at a time
    /// works on it, the next one waits.
    #[arg(long, env = "WEIR_ALLOCATOR_STATE", value_name = "DIR")]
    pub state: PathBuf,

    /// Where sidecars connect.
    #[arg(
        long,
        env = "WEIR_ALLOCATOR_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:7420"
    )]
    pub listen: SocketAddr,

    /// Where /live, /ready, /metrics, /config and /state are served.
    #[arg(
        long,
        env = "WEIR_ALLOCATOR_ADMIN",
        value_name = "ADDR",
        default_value = "127.0.0.1:7421"
    )]
    pub admin: SocketAddr,

    /// Serve without TLS and believe the names and labels that sidecars give themselves. Only for one
    /// machine: --listen must be a loopback address.
    #[arg(long, env = "WEIR_ALLOCATOR_INSECURE_PLAINTEXT", value_parser = FalseyValueParser::new())]
    pub insecure_plaintext: bool,

    /// How log lines look: human or json.
    #[arg(long, env = "WEIR_ALLOCATOR_LOG_FORMAT", value_name = "FORMAT", default_value = "human")]
    pub log_format: Format,
}
