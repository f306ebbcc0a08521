//! A level that refills at a rate, up to a cap. Debt is a level below zero; it is paid by the refill
//! and never forgiven.
//!
//! The sidecar keeps one per leased budget, the ledger one for what is not leased.

use std::time::Duration;

use crate::time::Time;
use crate::units::{Amount, Rate};

const NANOS: u128 = 1_000_000_000;

/// A level that refills at a rate, up to a cap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bucket {
    rate: Rate,
    cap: Amount,
    /// Millionths of a unit; below zero is debt.
    level: i64,
    /// What has accrued of the next millionth, in 1e-9 of it, so that frequent updates lose nothing.
    rest: u128,
    at: Time,
}

impl Bucket {
    /// A bucket that starts at level 0 (a local level is never assumed, only accrued or given).
    pub fn new(now: Time, rate: Rate, cap: Amount) -> Bucket {
        Bucket { rate, cap, level: 0, rest: 0, at: now }
    }

    /// Accrues up to `now`. A `now` before the last one changes nothing.
    pub fn advance(&mut self, now: Time) {
        let accrued = u128::from(self.rate.micros()) * now.since(self.at).as_nanos() + self.rest;
        self.at = self.at.max(now);
        self.rest = accrued % NANOS;
        self.add(Amount::from_micros(u64::try_from(accrued / NANOS).unwrap_or(u64::MAX)));
    }

    /// The level at the last `advance`, in millionths; below zero is debt.
    pub fn level(&self) -> i64 {
        self.level
    }

    /// What may be taken now.
    pub fn available(&self) -> Amount {
        Amount::from_micros(u64::try_from(self.level).unwrap_or(0))
    }

    /// What it accrues.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// What it holds when full.
    pub fn cap(&self) -> Amount {
        self.cap
    }

    /// Changes the rate from the last `advance` on.
    pub fn set_rate(&mut self, rate: Rate) {
        self.rate = rate;
    }

    /// Changes the cap; a level above a smaller cap is lost (rule 8).
    pub fn set_cap(&mut self, cap: Amount) {
        self.cap = cap;
        self.level = self.level.min(micros(cap));
    }

    /// Takes `amount`, into debt if need be.
    pub fn take(&mut self, amount: Amount) {
        self.level = self.level.saturating_sub(micros(amount));
    }

    /// Adds `amount`, up to the cap.
    pub fn add(&mut self, amount: Amount) {
        let full = micros(self.cap);
        if self.level < full {
            self.level = self.level.saturating_add(micros(amount)).min(full);
        }
        if self.level >= full {
            self.rest = 0;
        }
    }

    /// Drops what is there; debt stays.
    pub fn empty(&mut self) {
        self.level = self.level.min(0);
        self.rest = 0;
    }

    /// How long until `amount` may be taken; `None` if never at this rate and cap.
    pub fn time_until(&self, amount: Amount) -> Option<Duration> {
        if self.level >= micros(amount) {
            return Some(Duration::ZERO);
        }
        if amount > self.cap {
            return None;
        }
        let missing = micros(amount).saturating_sub(self.level);
        Amount::from_micros(missing.unsigned_abs()).time_at(self.rate)
    }
}

fn micros(amount: Amount) -> i64 {
    i64::try_from(amount.micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn it_starts_empty_refills_at_its_rate_and_stops_at_its_cap() {
        let mut bucket = Bucket::new(at(0), Rate::from_micros(2_000_000), Amount::from_units(5));
        assert_eq!(bucket.available(), Amount::ZERO);
        bucket.advance(at(1_500));
        assert_eq!(bucket.available(), Amount::from_units(3));
        bucket.advance(at(60_000));
        assert_eq!(bucket.available(), Amount::from_units(5));
    }

    #[test]
    fn debt_is_paid_by_the_refill_before_anything_can_be_taken() {
        let mut bucket = Bucket::new(at(0), Rate::from_micros(1_000_000), Amount::from_units(5));
        bucket.take(Amount::from_units(2));
        assert_eq!(bucket.time_until(Amount::from_units(1)), Some(Duration::from_secs(3)));
        bucket.empty();
        bucket.advance(at(2_000));
        assert_eq!(bucket.level(), 0);
    }

    #[test]
    fn many_small_steps_accrue_as_much_as_one_large_step() {
        let rate = Rate::from_micros(16_667);
        let mut small = Bucket::new(at(0), rate, Amount::from_units(5));
        for nanos in (0..=1_000_000_000u64).step_by(997) {
            small.advance(Time::from_nanos(nanos));
        }
        small.advance(at(1_000));
        assert_eq!(small.available(), Amount::from_micros(16_667));
    }

    #[test]
    fn a_smaller_cap_clamps_the_level() {
        let mut bucket = Bucket::new(at(0), Rate::from_micros(1_000_000), Amount::from_units(9));
        bucket.advance(at(9_000));
        bucket.set_cap(Amount::from_units(4));
        bucket.set_cap(Amount::from_units(9));
        assert_eq!(bucket.available(), Amount::from_units(4));
    }
}
