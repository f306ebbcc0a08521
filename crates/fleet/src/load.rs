//! What the applications behind the sidecars ask for.

use std::time::Duration;

use quota::charge::{Charge, Vector};
use quota::policy::PodPolicy;
use quota::units::{Requests, Tokens};
use rand::Rng as _;

/// How much is asked for, and by whom.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// One pod in so many makes requests; none at 0.
    every: usize,
    /// So many per second, each of them.
    rate: f64,
}

/// The model that the policy's one limit covers.
const MODEL: &str = "gpt-4o";
/// From when a request is sent to when it is known what it was charged.
pub(crate) const ANSWER: Duration = Duration::from_millis(200);
/// For how long a request waits for its turn (`queue.maxWait`).
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Tokens that a request reserves.
const RESERVED: std::ops::RangeInclusive<u64> = 500..=1_500;
/// And what of them is charged, in percent.
const CHARGED_PERCENT: u64 = 60;

// === impl Load ===

impl Load {
    /// `active` of `all` pods make `rate` requests per second each.
    pub(crate) fn new(active: usize, all: usize, rate: f64) -> Load {
        Load { every: all.checked_div(active).unwrap_or(0), rate }
    }

    /// The time to the next request of a pod: arrivals are independent of each other. `None` for a pod
    /// that makes none.
    pub(crate) fn next(&self, number: usize) -> Option<Duration> {
        if self.every == 0 || self.rate <= 0.0 || !number.is_multiple_of(self.every) {
            return None;
        }
        let unit: f64 = rand::rng().random_range(f64::EPSILON..1.0);
        Some(Duration::from_secs_f64(-unit.ln() / self.rate))
    }
}

/// What one request reserves, and what it is charged in the end.
pub(crate) fn request(policy: &PodPolicy) -> (Vector, Vector) {
    let tokens = rand::rng().random_range(RESERVED);
    let vector = |tokens| {
        let charge = Charge { requests: Requests(1), total: Tokens(tokens), ..Charge::default() };
        policy.providers.first().map(|it| it.vector(MODEL, &charge)).unwrap_or_default()
    };
    (vector(tokens), vector(tokens * CHARGED_PERCENT / 100))
}
