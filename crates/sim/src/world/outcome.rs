//! What came out of a world.

use std::fmt;

use providers::enforce::figures::Figures;
use quota::dimension::Dimension;
use quota::time::Time;

use super::options::Options;

/// What came out of a world that went well.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Events.
    pub events: u64,
    /// Requests that came to a pod.
    pub offered: u64,
    /// Those that were admitted.
    pub admitted: u64,
    /// Those that were not, in time.
    pub rejected: u64,
    /// 429s of the provider in a world where nobody could know what it would charge.
    pub refused_by_provider: u64,
    /// The part of what was on offer that was used, of the limit that was used most.
    pub used: f64,
    /// The same of the ideal bucket.
    pub used_ideally: f64,
}

/// What was wrong in one that did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When.
    pub at: Time,
    /// What.
    pub what: String,
}

impl Outcome {
    pub(super) fn of(options: &Options) -> Outcome {
        Outcome {
            seed: options.seed,
            events: 0,
            offered: 0,
            admitted: 0,
            rejected: 0,
            refused_by_provider: 0,
            used: 0.0,
            used_ideally: 0.0,
        }
    }

    pub(super) fn measured(&mut self, ours: &[Figures], ideal: &[Figures]) {
        let used = |figures: &[Figures]| {
            let rates = figures.iter().filter(|of| of.dimension != Dimension::ConcurrentRequests);
            // What is in flight is not on offer; what was admitted is used.
            let part = |of: &Figures| {
                let on_offer = of.on_offer + of.in_flight;
                of.admitted.micros() as f64 / on_offer.micros().max(1) as f64
            };
            rates.map(part).fold(0.0, f64::max)
        };
        (self.used, self.used_ideally) = (used(ours), used(ideal));
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.at, self.what)
    }
}
