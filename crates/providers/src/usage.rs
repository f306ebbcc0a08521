//! What a call used, in one form for all providers (`providers.md` 11).

use quota::units::{Requests, Tokens};

use crate::estimator::Estimate;

/// Tokens of one call, in disjoint parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Usage {
    /// Calls that count against the provider's limits: 1, also for those that failed.
    pub requests: Requests,
    /// Prompt tokens that were neither read from nor written to a cache.
    pub input_uncached: Tokens,
    /// Prompt tokens read from a cache.
    pub cache_read: Tokens,
    /// Prompt tokens written to a cache for five minutes, or for a time the provider does not name.
    pub cache_write_5m: Tokens,
    /// Prompt tokens written to a cache for an hour.
    pub cache_write_1h: Tokens,
    /// Tokens produced to be seen.
    pub output_visible: Tokens,
    /// Tokens produced in thinking.
    pub output_reasoning: Tokens,
}

impl Usage {
    /// One request without tokens: one that failed, or that runs no model.
    pub fn request() -> Usage {
        Usage { requests: Requests(1), ..Usage::default() }
    }

    /// One request that is taken to have used what was expected.
    pub fn estimated(estimate: Estimate) -> Usage {
        Usage {
            input_uncached: estimate.input,
            output_visible: estimate.output,
            ..Usage::request()
        }
    }

    /// All prompt tokens.
    pub fn input(&self) -> Tokens {
        self.input_uncached + self.cache_read + self.cache_write()
    }

    /// Prompt tokens written to a cache.
    pub fn cache_write(&self) -> Tokens {
        self.cache_write_5m + self.cache_write_1h
    }

    /// All tokens produced.
    pub fn output(&self) -> Tokens {
        self.output_visible + self.output_reasoning
    }
}
