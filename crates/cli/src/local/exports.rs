//! What an application is told: the variable that points its SDK at a provider through the sidecar.

use std::net::SocketAddr;

use allocator::admission::Sdk;
use quota::policy::Provider;
use serde::Serialize;

use crate::output::{self, Output};

/// One provider's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Export {
    provider: String,
    /// The variable that the provider's official SDK reads.
    variable: &'static str,
    base_url: String,
}

/// Prints them all, for a shell or a program.
pub(crate) fn print(exports: &[Export], form: Output) -> std::io::Result<()> {
    match form {
        Output::Json => output::print_json(&exports),
        Output::Table => exports.iter().try_for_each(|export| {
            output::print(&format!("export {}={}", export.variable, export.base_url))
        }),
    }
}

// === impl Export ===

impl Export {
    pub(crate) fn new(provider: &Provider, listen: SocketAddr) -> Export {
        let sdk = Sdk::of(provider.protocol);
        let name = provider.name.to_string();
        let base_url = sdk.base_url(listen, &name);
        Export { provider: name, variable: sdk.variable(), base_url }
    }
}
