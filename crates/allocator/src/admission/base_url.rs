//! `Sdk`: how the SDKs of a protocol are told where to send their requests.

use std::fmt::Display;

use quota::dimension::Protocol;

/// What the SDKs of one protocol read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sdk {
    /// The variables that are set, the official SDK's first.
    pub(super) variables: &'static [&'static str],
    /// Variables that some frameworks read before those: whoever sets one has an arrangement of its
    /// own.
    pub(super) others: &'static [&'static str],
    /// What an SDK wants at the end of its base URL.
    version: &'static str,
}

// === impl Sdk ===

impl Sdk {
    /// One protocol for each alias that the sidecar knows.
    pub(super) const PROTOCOLS: [Protocol; 2] = [Protocol::OpenAi, Protocol::Anthropic];

    /// The SDKs of `protocol`.
    ///
    /// OpenAI's wants the version in its base URL, Anthropic's adds it itself. LangChain, LlamaIndex
    /// and LiteLLM read `OPENAI_API_BASE`; `langchain-anthropic` reads `ANTHROPIC_API_URL` first and
    /// is content with `ANTHROPIC_BASE_URL`.
    pub const fn of(protocol: Protocol) -> Sdk {
        match protocol {
            Protocol::OpenAi | Protocol::OpenAiCompatible => Sdk {
                variables: &["OPENAI_BASE_URL", "OPENAI_API_BASE"],
                others: &[],
                version: "/v1",
            },
            Protocol::Anthropic => Sdk {
                variables: &["ANTHROPIC_BASE_URL"],
                others: &["ANTHROPIC_API_URL"],
                version: "",
            },
        }
    }

    /// The variable that the provider's official SDK reads.
    pub fn variable(&self) -> &'static str {
        self.variables.first().copied().expect("each protocol has an SDK with a variable")
    }

    /// The base URL of the provider called `name`, or of an alias, on a sidecar at `address`.
    pub fn base_url(&self, address: impl Display, name: &str) -> String {
        format!("http://{address}/{name}{}", self.version)
    }

    /// True for a variable that decides where the SDKs send their requests.
    pub(super) fn reads(&self, variable: &str) -> bool {
        self.variables.iter().chain(self.others).any(|name| *name == variable)
    }
}

#[cfg(test)]
mod tests {
    use super::Sdk;
    use quota::dimension::Protocol;

    #[test]
    fn base_urls_have_the_version_that_the_sdk_leaves_out() {
        for (protocol, variable, url) in [
            (Protocol::OpenAi, "OPENAI_BASE_URL", "http://127.0.0.1:7410/openai/v1"),
            (Protocol::OpenAiCompatible, "OPENAI_BASE_URL", "http://127.0.0.1:7410/openai/v1"),
            (Protocol::Anthropic, "ANTHROPIC_BASE_URL", "http://127.0.0.1:7410/anthropic"),
        ] {
            let sdk = Sdk::of(protocol);
            assert_eq!(sdk.variable(), variable);
            assert_eq!(sdk.base_url("127.0.0.1:7410", protocol.alias()), url);
        }
    }
}
