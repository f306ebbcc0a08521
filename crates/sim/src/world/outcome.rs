//! What came out of a world.

use std::fmt;

use providers::enforce::figures::Figures;
use quota::dimension::{Dimension, Unit};
use quota::time::Time;
use quota::units::Amount;

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
    /// The same of the ideal bucket.
    pub rejected_ideally: u64,
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
            rejected_ideally: 0,
            refused_by_provider: 0,
            used: 0.0,
            used_ideally: 0.0,
        }
    }

    /// Takes down what was used from `begin` on. Levels that a bucket held then are not counted as on
    /// offer: what of them is kept back, for guards and higher classes, is kept back once. Nor is what is
    /// being saved up at the end for the `largest` request that waits, in tokens.
    pub(super) fn measured(
        &mut self,
        [ours, ideal]: [[&[Figures]; 2]; 2],
        is_bucket: bool,
        largest: u64,
    ) {
        let used = |[begin, end]: [&[Figures]; 2]| {
            let mut most: f64 = 0.0;
            for (begin, end) in begin.iter().zip(end) {
                let is_tokens = end.dimension.unit() != Unit::Requests;
                let saved = end.remaining.min(if is_tokens { largest } else { 0 });
                let level = Amount::from_units(if is_bucket { begin.remaining + saved } else { 0 });
                // What is in flight is not in `on_offer`; what was admitted is used.
                let on_offer = (end.on_offer + end.in_flight - level).micros().max(1);
                if end.dimension != Dimension::ConcurrentRequests {
                    most = most.max(end.admitted.micros() as f64 / on_offer as f64);
                }
            }
            most
        };
        (self.used, self.used_ideally) = (used(ours), used(ideal));
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.at, self.what)
    }
}
