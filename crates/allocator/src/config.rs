//! The arguments, checked; logged once at the start and shown as `/config`.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

use crate::args::Args;

/// What an allocator runs with. Has no secret in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Config {
    pub(crate) policy: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// An argument that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "TLS and the identity of pods come with the cluster mode, which is not there yet: on one \
         machine, give --insecure-plaintext and a loopback address for --listen"
    )]
    NeedsPlaintext,
    #[error(
        "--listen {0} is not a loopback address: with --insecure-plaintext whoever connects gets \
         provider keys by saying a pod's name, so it serves this machine only (127.0.0.1 or [::1])"
    )]
    NotLoopback(SocketAddr),
}

// === impl Config ===

impl TryFrom<Args> for Config {
    type Error = Error;

    fn try_from(args: Args) -> Result<Config, Error> {
        if !args.insecure_plaintext {
            return Err(Error::NeedsPlaintext);
        }
        if !args.listen.ip().is_loopback() {
            return Err(Error::NotLoopback(args.listen));
        }
        let Args { policy, state, listen, admin, .. } = args;
        Ok(Config { policy, state, listen, admin })
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
