//! One figure that the rate-limit headers of a response tell.

use std::time::Duration;

use quota::dimension::Dimension;

/// A limit as the provider shows it. Tokens may be rounded (Anthropic: to 1,000).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitSeen {
    /// What is counted.
    pub dimension: Dimension,
    /// The figure itself.
    pub limit: u64,
    /// What is left of it.
    pub remaining: u64,
    /// The time until all of it is back.
    pub reset: Option<Duration>,
    /// By how much that may be off, either way.
    pub reset_grain: Duration,
}
