//! What a provider's error means for us. An adapter decides; the sidecar acts, reports and counts.

use std::time::Duration;

use crate::hint::Hint;
use crate::told::Told;

/// A class of error (`providers.md` 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A limit that comes back by itself.
    Retry {
        /// When to try again, if the provider says.
        after: Option<Duration>,
        /// True if traffic grew too fast rather than too far: cut the rate, the budget is untouched.
        ramp: bool,
        /// What its words tell of the limit.
        told: Option<Told>,
    },
    /// A budget that does not come back within a client's patience: spending, or a limit per day.
    BudgetExhausted {
        /// When it comes back, if the provider says.
        until: Option<Duration>,
    },
    /// The request can never fit.
    TooLarge {
        /// What its words tell of the limit.
        told: Option<Told>,
    },
    /// The provider has no room; our budget is untouched.
    Capacity {
        /// When to try again, if the provider says.
        after: Option<Duration>,
    },
    /// The key is wrong, or not allowed to do this.
    Auth,
    /// The request is wrong.
    BadRequest,
    /// The provider failed.
    Server,
    /// None of these.
    Unknown,
}

impl Failure {
    /// A name for metrics and spans.
    pub const fn name(&self) -> &'static str {
        match self {
            Failure::Retry { .. } => "rate_limit",
            Failure::BudgetExhausted { .. } => "budget_exhausted",
            Failure::TooLarge { .. } => "too_large",
            Failure::Capacity { .. } => "capacity",
            Failure::Auth => "auth",
            Failure::BadRequest => "bad_request",
            Failure::Server => "server",
            Failure::Unknown => "unknown",
        }
    }

    /// What the client is told when the error is forwarded (`providers.md` 13.2): a wait that no SDK
    /// takes for an error, and no retry of what cannot succeed.
    pub const fn hint(&self) -> Hint {
        match self {
            Failure::Retry { after: Some(after), .. }
            | Failure::Capacity { after: Some(after) } => Hint::After(*after),
            Failure::BudgetExhausted { .. } | Failure::TooLarge { .. } => Hint::Never,
            Failure::Retry { after: None, .. }
            | Failure::Capacity { after: None }
            | Failure::Auth
            | Failure::BadRequest
            | Failure::Server
            | Failure::Unknown => Hint::Unsaid,
        }
    }
}
