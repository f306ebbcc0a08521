//! What an application is told: the variable that points its SDK at a provider through the sidecar.

use std::net::SocketAddr;

use quota::dimension::Protocol;
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
    /// OpenAI's SDK wants the version in its base URL, Anthropic's adds it itself (`providers.md` 14).
    pub(crate) fn new(provider: &Provider, listen: SocketAddr) -> Export {
        let (variable, version) = match provider.protocol {
            Protocol::OpenAi | Protocol::OpenAiCompatible => ("OPENAI_BASE_URL", "/v1"),
            Protocol::Anthropic => ("ANTHROPIC_BASE_URL", ""),
        };
        let name = provider.name.to_string();
        let base_url = format!("http://{listen}/{name}{version}");
        Export { provider: name, variable, base_url }
    }
}
