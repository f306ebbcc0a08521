//! The arguments, checked; logged once at the start and shown as `/config`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Serialize;

use crate::admission::SidecarArgs;
use crate::args::{Args, ClusterArgs};

/// What an allocator runs with. Has no secret in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) jaeger: Option<String>,
    pub(crate) place: Place,
}

/// Where policy, memory and authority are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Place {
    /// In directories of this machine.
    Directory { policy: PathBuf, state: PathBuf },
    /// In the cluster that the allocator runs in.
    Cluster(Box<Cluster>),
}

/// What an allocator in a cluster knows of itself, and of the sidecars that it injects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Cluster {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) pod_uid: String,
    pub(crate) pod_ip: IpAddr,
    pub(crate) webhook: SocketAddr,
    /// The Secret that others keep certificates in; `None` if the allocator makes them.
    pub(crate) certificate_secret: Option<String>,
    #[serde(skip)]
    pub(crate) sidecar: SidecarArgs,
}

/// An argument that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "TLS and the identity of pods need a cluster (--kubernetes): on one machine, give \
         --insecure-plaintext and a loopback address for --listen"
    )]
    NeedsPlaintext,
    #[error(
        "--listen {0} is not a loopback address: with --insecure-plaintext whoever connects gets \
         provider keys by saying a pod's name, so it serves this machine only (127.0.0.1 or [::1])"
    )]
    NotLoopback(SocketAddr),
    #[error("--{0} is missing: the chart gives it by the downward API")]
    Missing(&'static str),
}

// === impl Config ===

impl TryFrom<Args> for Config {
    type Error = Error;

    fn try_from(args: Args) -> Result<Config, Error> {
        let (listen, admin, jaeger) = (args.listen, args.admin, args.jaeger);
        if args.kubernetes {
            return Ok(Config {
                listen,
                admin,
                jaeger,
                place: Place::Cluster(Box::new(args.cluster.try_into()?)),
            });
        }
        if !args.insecure_plaintext {
            return Err(Error::NeedsPlaintext);
        }
        if !listen.ip().is_loopback() {
            return Err(Error::NotLoopback(listen));
        }
        let policy = args.policy.ok_or(Error::Missing("policy"))?;
        let state = args.state.ok_or(Error::Missing("state"))?;
        Ok(Config { listen, admin, jaeger, place: Place::Directory { policy, state } })
    }
}

impl TryFrom<ClusterArgs> for Cluster {
    type Error = Error;

    fn try_from(args: ClusterArgs) -> Result<Cluster, Error> {
        Ok(Cluster {
            namespace: args.namespace.ok_or(Error::Missing("namespace"))?,
            pod: args.pod.ok_or(Error::Missing("pod"))?,
            pod_uid: args.pod_uid.ok_or(Error::Missing("pod-uid"))?,
            pod_ip: args.pod_ip.ok_or(Error::Missing("pod-ip"))?,
            webhook: args.webhook,
            certificate_secret: args.certificate_secret,
            sidecar: args.sidecar,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn config(arguments: &str) -> Result<Config, Error> {
        let arguments = format!("weir-allocator --policy p --state s {arguments}");
        Args::try_parse_from(arguments.split_whitespace()).unwrap().try_into()
    }

    #[test]
    fn plaintext_is_asked_for_and_stays_on_loopback() {
        assert_eq!(config(""), Err(Error::NeedsPlaintext));
        for address in ["0.0.0.0:7420", "10.1.2.3:7420", "[::]:7420"] {
            let refused = config(&format!("--insecure-plaintext --listen {address}"));
            assert_eq!(refused, Err(Error::NotLoopback(address.parse().unwrap())));
        }
        for address in ["127.0.0.1:7420", "127.8.8.8:0", "[::1]:7420"] {
            assert!(config(&format!("--insecure-plaintext --listen {address}")).is_ok());
        }
    }
}
