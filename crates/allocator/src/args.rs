//! What a person says at the start. Made into a [`crate::config::Config`] before anything runs.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use clap::builder::FalseyValueParser;
use service::telemetry::Format;

use crate::admission::SidecarArgs;

/// Splits the rate limits of LLM providers among sidecars: by leases, by credit, by priority.
///
/// On one machine, policy is a directory of YAML files (kinds LLMProvider, LLMPriorityClass, LLMQuota,
/// and Secret for keys); it is read again whenever it changes. With --kubernetes it is the custom
/// resources of the cluster.
#[derive(Clone, Debug, Parser)]
#[command(name = "weir-allocator", version = service::build::version())]
pub struct Args {
    /// The directory of the policy: its *.yaml and *.yml files.
    #[arg(
        long,
        env = "WEIR_ALLOCATOR_POLICY",
        value_name = "DIR",
        required_unless_present = "kubernetes"
    )]
    pub policy: Option<PathBuf>,

    /// The directory of what must survive a restart; made if it is not there. One allocator at a time
    /// works on it, the next one waits.
    #[arg(
        long,
        env = "WEIR_ALLOCATOR_STATE",
        value_name = "DIR",
        required_unless_present = "kubernetes"
    )]
    pub state: Option<PathBuf>,

    /// Where sidecars connect.
    #[arg(
        long,
        env = "WEIR_ALLOCATOR_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:7420"
    )]
    pub listen: SocketAddr,

    /// Where people look (/), and where /live, /ready, /metrics, /config and /state are served.
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

    /// Policy from the cluster's custom resources, identity from pods' tokens, authority from a Lease
    /// object; serves the webhooks too.
    #[arg(
        long,
        env = "WEIR_ALLOCATOR_KUBERNETES",
        value_parser = FalseyValueParser::new(),
        conflicts_with_all = ["policy", "state", "insecure_plaintext"],
        requires_all = ["namespace", "pod", "pod_uid", "pod_ip"],
    )]
    pub kubernetes: bool,

    #[command(flatten)]
    // A doc comment here would become the program's own.
    pub cluster: ClusterArgs,

    /// Where Jaeger shows traces, for links from the page to the trace of a refused call.
    #[arg(long, env = "WEIR_ALLOCATOR_JAEGER", value_name = "URL")]
    pub jaeger: Option<String>,

    /// How log lines look: human or json.
    #[arg(long, env = "WEIR_ALLOCATOR_LOG_FORMAT", value_name = "FORMAT", default_value = "human")]
    pub log_format: Format,
}

/// What only counts with --kubernetes.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "In a cluster")]
pub struct ClusterArgs {
    /// The namespace that the allocator runs in: its Lease, its Secrets and those of provider keys.
    #[arg(long, env = "WEIR_ALLOCATOR_NAMESPACE", value_name = "NS")]
    pub namespace: Option<String>,

    /// The allocator's own pod.
    #[arg(long, env = "WEIR_ALLOCATOR_POD", value_name = "NAME")]
    pub pod: Option<String>,

    /// Its uid.
    #[arg(long, env = "WEIR_ALLOCATOR_POD_UID", value_name = "UID")]
    pub pod_uid: Option<String>,

    /// Its address, which other replicas send sidecars to.
    #[arg(long, env = "WEIR_ALLOCATOR_POD_IP", value_name = "IP")]
    pub pod_ip: Option<std::net::IpAddr>,

    /// Where the API server calls the webhooks.
    #[arg(
        long,
        env = "WEIR_ALLOCATOR_WEBHOOK",
        value_name = "ADDR",
        default_value = "0.0.0.0:7443"
    )]
    pub webhook: SocketAddr,

    /// A Secret with tls.crt, tls.key and ca.crt to serve with, as cert-manager keeps one. Without it
    /// the allocator makes its own certificates, and sets the webhooks' caBundle.
    #[arg(long, env = "WEIR_ALLOCATOR_CERTIFICATE_SECRET", value_name = "NAME")]
    pub certificate_secret: Option<String>,

    #[command(flatten)]
    pub sidecar: SidecarArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arguments that the manifests start an allocator with, without the environment's.
    fn manifest_arguments() -> Vec<String> {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/weir.yaml");
        let manifest = std::fs::read_to_string(manifest).unwrap();
        let mut lines = manifest.lines().skip_while(|line| line.trim() != "args:").skip(1);
        let arguments = std::iter::from_fn(|| lines.next()?.trim().strip_prefix("- --"));
        arguments.map(|argument| format!("--{argument}")).collect()
    }

    #[test]
    fn the_manifests_start_an_allocator_that_knows_its_arguments() {
        let arguments = manifest_arguments();
        assert!(arguments.iter().any(|it| it == "--kubernetes"), "{arguments:?}");
        let of_pod = ["--namespace=n", "--pod=p", "--pod-uid=u", "--pod-ip=10.0.0.1"];
        let all = std::iter::once("weir-allocator".to_owned())
            .chain(arguments)
            .chain(of_pod.map(str::to_owned))
            .chain(["--certificate-secret=weir-certificate".to_owned()]);
        let args = Args::try_parse_from(all).unwrap();
        assert!(args.kubernetes && args.listen.ip().is_unspecified());
    }
}
