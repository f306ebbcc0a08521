//! What a leader knows to be left of a bucket that others led before it (rule 8).
//!
//! Nothing at first, because nobody knows what they have spent; then what has refilled since, and what
//! the provider says is left. No burst limits it: that is the business of the level beside it, which
//! begins full, as if the bucket were new. What may be granted is the smaller of the two. They are
//! apart because a guard that changes moves the one and not the other.

use std::time::Duration;

use super::log::Log;
use crate::bucket::Bucket;
use crate::dimension::{Dimension, Unit};
use crate::time::Time;
use crate::units::{Amount, Rate};

/// For how long the provider's word on what is left is taken, from the first time that it proved
/// something.
const PROOF_SPAN: Duration = Duration::from_secs(5);
/// How far back grants are kept for such a proof: the guard, the life of credit, and a slow answer.
const PROOF_REACH: Duration = Duration::from_secs(30);

/// What is known to be left of a bucket that others led before.
#[derive(Debug)]
pub(super) struct Inherited {
    level: Bucket,
    began: Time,
    /// What was granted lately, leases and credit, while proofs are taken.
    granted: Option<Log>,
    proven_until: Time,
}

/// What a provider said was left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proof {
    /// When it was so, at the earliest.
    pub(super) at: Time,
    pub(super) remaining: Amount,
    /// The longest time from a grant until the request is at the provider.
    pub(super) reach: Duration,
    /// What pods may have admitted from local levels that they hold now.
    pub(super) caps: Amount,
}

// === impl Inherited ===

impl Inherited {
    /// A bucket of which nothing is known.
    pub(super) fn new(now: Time) -> Inherited {
        Inherited {
            level: Bucket::new(now, Rate::ZERO, Amount::MAX),
            began: now,
            granted: Some(Log::new(now, PROOF_REACH, false)),
            proven_until: Time::NEVER,
        }
    }

    /// What is known to be left, in millionths; below zero is debt.
    pub(super) fn level(&self) -> i64 {
        self.level.level()
    }

    pub(super) fn set_rate(&mut self, rate: Rate) {
        self.level.set_rate(rate);
    }

    /// Accrues what is nobody's, and notes what pods may have admitted from their leases.
    pub(super) fn advance(&mut self, now: Time, leased: Amount) {
        self.level.advance(now);
        if let Some(granted) = &mut self.granted {
            granted.advance(now);
            granted.add(now, leased);
        }
    }

    pub(super) fn take(&mut self, now: Time, amount: Amount) {
        self.level.take(amount);
        if let Some(granted) = &mut self.granted {
            granted.add(now, amount);
        }
    }

    /// Puts back what was taken.
    pub(super) fn put_back(&mut self, amount: Amount) {
        self.level.add(amount);
    }

    /// What was put back was a settlement's. After a proof it is there already: the provider has not
    /// counted it either.
    pub(super) fn refunded(&mut self, amount: Amount) {
        if self.proven_until != Time::NEVER && self.granted.is_some() {
            self.level.take(amount);
        }
    }

    /// Takes the provider's word: whatever was not granted since then, and is not held by pods, is
    /// ours.
    pub(super) fn prove(&mut self, now: Time, dimension: Dimension, proof: &Proof) {
        let Some(granted) = &self.granted else { return };
        // The last proof's credit is surely known by then to be spent or given back.
        if now >= self.proven_until + proof.reach + proof.reach {
            self.granted = None;
            return;
        }
        // Tokens in flight may cost more in the end than the provider has counted so far.
        let is_known = dimension.unit() == Unit::Requests && proof.at >= self.began + proof.reach;
        if !is_known || now >= self.proven_until {
            return;
        }
        let proven = proof.remaining - granted.since(proof.at - proof.reach) - proof.caps;
        let known = Amount::from_micros(u64::try_from(self.level.level()).unwrap_or(0));
        if proven > known {
            self.level.add(proven - known);
            self.proven_until = self.proven_until.min(now + PROOF_SPAN);
        }
    }
}
