//! What a provider counts, and in which window it counts it.

use std::fmt;
use std::time::Duration;

/// One figure of a limit: what it counts and over which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// RPM.
    RequestsPerMinute,
    /// TPM: input and output together.
    TokensPerMinute,
    /// ITPM.
    InputTokensPerMinute,
    /// OTPM.
    OutputTokensPerMinute,
    /// RPD.
    RequestsPerDay,
    /// TPD: input and output together.
    TokensPerDay,
    /// Requests in flight at once.
    ConcurrentRequests,
}

/// What a dimension is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// Calls.
    Requests,
    /// Input and output tokens together.
    TotalTokens,
    /// Prompt tokens.
    InputTokens,
    /// Produced tokens.
    OutputTokens,
    /// Calls in flight.
    Slots,
}

/// How a provider enforces its limits per minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    /// Refills continuously; holds `burstPercent` of a minute.
    TokenBucket,
    /// Counts from zero at each edge.
    FixedWindow,
}

/// The language a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// api.openai.com
    OpenAi,
    /// api.anthropic.com
    Anthropic,
    /// Any server that answers as OpenAI does, without a promise about its limiter.
    OpenAiCompatible,
}

impl Dimension {
    /// All dimensions, in the order in which a provider tests them.
    pub const ALL: [Dimension; 7] = [
        Dimension::RequestsPerMinute,
        Dimension::TokensPerMinute,
        Dimension::InputTokensPerMinute,
        Dimension::OutputTokensPerMinute,
        Dimension::RequestsPerDay,
        Dimension::TokensPerDay,
        Dimension::ConcurrentRequests,
    ];

    /// The field of an LLMProvider's limit that sets it; also its name in metrics and on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Dimension::RequestsPerMinute => "requestsPerMinute",
            Dimension::TokensPerMinute => "tokensPerMinute",
            Dimension::InputTokensPerMinute => "inputTokensPerMinute",
            Dimension::OutputTokensPerMinute => "outputTokensPerMinute",
            Dimension::RequestsPerDay => "requestsPerDay",
            Dimension::TokensPerDay => "tokensPerDay",
            Dimension::ConcurrentRequests => "concurrentRequests",
        }
    }

    /// The dimension of a field name.
    pub fn from_name(name: &str) -> Option<Dimension> {
        Dimension::ALL.into_iter().find(|dimension| dimension.name() == name)
    }

    /// What it counts.
    pub const fn unit(self) -> Unit {
        match self {
            Dimension::RequestsPerMinute | Dimension::RequestsPerDay => Unit::Requests,
            Dimension::TokensPerMinute | Dimension::TokensPerDay => Unit::TotalTokens,
            Dimension::InputTokensPerMinute => Unit::InputTokens,
            Dimension::OutputTokensPerMinute => Unit::OutputTokens,
            Dimension::ConcurrentRequests => Unit::Slots,
        }
    }

    /// The time over which it counts; `None` for what is counted at an instant.
    pub const fn period(self) -> Option<Duration> {
        match self {
            Dimension::RequestsPerMinute
            | Dimension::TokensPerMinute
            | Dimension::InputTokensPerMinute
            | Dimension::OutputTokensPerMinute => Some(Duration::from_secs(60)),
            Dimension::RequestsPerDay | Dimension::TokensPerDay => {
                Some(Duration::from_secs(86_400))
            }
            Dimension::ConcurrentRequests => None,
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Protocol {
    /// The alias that stands for the first provider of this protocol in a pod's quota.
    pub const fn alias(self) -> &'static str {
        match self {
            Protocol::OpenAi | Protocol::OpenAiCompatible => "openai",
            Protocol::Anthropic => "anthropic",
        }
    }

    /// How this provider enforces its limits where a policy does not say (`TokenBucket` for the two
    /// that document it; the same for compatible servers, which mostly copy it).
    pub const fn default_window(self) -> Window {
        match self {
            Protocol::OpenAi | Protocol::Anthropic | Protocol::OpenAiCompatible => {
                Window::TokenBucket
            }
        }
    }
}
