//! Units as types: what a budget is counted in.
//!
//! Everything that is leased is an [`Amount`] in millionths of the budget's own unit (a request, a
//! token, a slot, a US dollar), so that rates of less than one unit a second stay integers. Integers
//! only, as on the wire: two programs that add the same numbers get the same sum.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul, Sub};
use std::time::Duration;

/// Millionths in one unit.
pub const MICRO: u64 = 1_000_000;
const NANOS: u128 = 1_000_000_000;

/// A number of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Requests(pub u64);

/// A number of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tokens(pub u64);

/// A number of requests that are in flight at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Slots(pub u64);

/// An amount of money in millionths of a US dollar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MicroUsd(pub u64);

/// An amount of one budget, in millionths of its unit. Never negative; arithmetic saturates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(u64);

/// What accrues per second, in millionths of a unit per second. Arithmetic saturates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Rate(u64);

impl Add for Tokens {
    type Output = Tokens;
    fn add(self, rhs: Tokens) -> Tokens {
        Tokens(self.0.saturating_add(rhs.0))
    }
}

impl Sub for Tokens {
    type Output = Tokens;
    /// Stops at zero.
    fn sub(self, rhs: Tokens) -> Tokens {
        Tokens(self.0.saturating_sub(rhs.0))
    }
}

// === impl Amount ===

impl Amount {
    /// Nothing.
    pub const ZERO: Amount = Amount(0);
    /// The largest amount; stands for "no limit".
    pub const MAX: Amount = Amount(u64::MAX);

    /// `micros` millionths of a unit.
    pub const fn from_micros(micros: u64) -> Amount {
        Amount(micros)
    }

    /// `units` whole units; saturates.
    pub const fn from_units(units: u64) -> Amount {
        Amount(units.saturating_mul(MICRO))
    }

    /// Millionths of a unit.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Whole units, rounded down.
    pub const fn units(self) -> u64 {
        self.0 / MICRO
    }

    /// True for nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// `self * numerator / denominator`, rounded down; zero when `denominator` is zero.
    pub fn scale(self, numerator: u64, denominator: u64) -> Amount {
        Amount(scale(self.0, numerator, denominator))
    }

    /// How long `rate` takes to accrue this amount, rounded up; `None` at a rate of zero.
    pub fn time_at(self, rate: Rate) -> Option<Duration> {
        if rate.0 == 0 {
            return if self.0 == 0 { Some(Duration::ZERO) } else { None };
        }
        let nanos = (u128::from(self.0) * NANOS).div_ceil(u128::from(rate.0));
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

impl Add for Amount {
    type Output = Amount;
    fn add(self, rhs: Amount) -> Amount {
        Amount(self.0.saturating_add(rhs.0))
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, rhs: Amount) {
        *self = *self + rhs;
    }
}

impl Sub for Amount {
    type Output = Amount;
    /// Stops at zero.
    fn sub(self, rhs: Amount) -> Amount {
        Amount(self.0.saturating_sub(rhs.0))
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Amount>>(iter: I) -> Amount {
        iter.fold(Amount::ZERO, Add::add)
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        decimal(f, self.0)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        decimal(f, self.0)
    }
}

// === impl Rate ===

impl Rate {
    /// Nothing accrues.
    pub const ZERO: Rate = Rate(0);

    /// `micros` millionths of a unit per second.
    pub const fn from_micros(micros: u64) -> Rate {
        Rate(micros)
    }

    /// `amount` every `period`, rounded down; zero for a period of zero.
    pub fn per(amount: Amount, period: Duration) -> Rate {
        let nanos = period.as_nanos();
        if nanos == 0 {
            return Rate::ZERO;
        }
        Rate(u64::try_from(u128::from(amount.0) * NANOS / nanos).unwrap_or(u64::MAX))
    }

    /// Millionths of a unit per second.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// True if nothing accrues.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// What accrues in `period`, rounded down.
    pub fn over(self, period: Duration) -> Amount {
        let micros = u128::from(self.0) * period.as_nanos() / NANOS;
        Amount(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// `self * numerator / denominator`, rounded down; zero when `denominator` is zero.
    pub fn scale(self, numerator: u64, denominator: u64) -> Rate {
        Rate(scale(self.0, numerator, denominator))
    }
}

impl Add for Rate {
    type Output = Rate;
    fn add(self, rhs: Rate) -> Rate {
        Rate(self.0.saturating_add(rhs.0))
    }
}

impl AddAssign for Rate {
    fn add_assign(&mut self, rhs: Rate) {
        *self = *self + rhs;
    }
}

impl Sub for Rate {
    type Output = Rate;
    /// Stops at zero.
    fn sub(self, rhs: Rate) -> Rate {
        Rate(self.0.saturating_sub(rhs.0))
    }
}

impl Mul<u64> for Rate {
    type Output = Rate;
    fn mul(self, rhs: u64) -> Rate {
        Rate(self.0.saturating_mul(rhs))
    }
}

impl Sum for Rate {
    fn sum<I: Iterator<Item = Rate>>(iter: I) -> Rate {
        iter.fold(Rate::ZERO, Add::add)
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        decimal(f, self.0)?;
        f.write_str("/s")
    }
}

fn scale(value: u64, numerator: u64, denominator: u64) -> u64 {
    if denominator == 0 {
        return 0;
    }
    let scaled = u128::from(value) * u128::from(numerator) / u128::from(denominator);
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

fn decimal(f: &mut fmt::Formatter<'_>, micros: u64) -> fmt::Result {
    match (micros / MICRO, micros % MICRO) {
        (units, 0) => write!(f, "{units}"),
        (units, rest) => {
            let rest = format!("{rest:06}");
            write!(f, "{units}.{}", rest.trim_end_matches('0'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_accrues_what_it_says_per_minute() {
        let rate = Rate::per(Amount::from_units(1_200), Duration::from_secs(60));
        assert_eq!(rate.over(Duration::from_secs(1)), Amount::from_units(20));
        assert_eq!(Amount::from_units(1).time_at(rate), Some(Duration::from_millis(50)));
    }

    #[test]
    fn nothing_takes_no_time_and_something_never_comes_at_rate_zero() {
        assert_eq!(Amount::ZERO.time_at(Rate::ZERO), Some(Duration::ZERO));
        assert_eq!(Amount::from_units(1).time_at(Rate::ZERO), None);
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Amount::MAX + Amount::from_units(1), Amount::MAX);
        assert_eq!(Amount::ZERO - Amount::from_units(1), Amount::ZERO);
        assert_eq!(Rate::from_micros(u64::MAX).over(Duration::from_secs(9)), Amount::MAX);
    }
}
