//! The simulator's random numbers: SplitMix64, and the few distributions that worlds need.
//!
//! Written out here, because a seed must mean the same world on every machine and after every update
//! of a library. Only additions, multiplications and comparisons are used: those of floating point
//! are exact everywhere, logarithms are not.

use std::time::Duration;

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Another stream, for a matter that must not depend on how often this one is asked.
    pub fn fork(&mut self) -> Random {
        Random(self.bits())
    }

    /// 64 random bits.
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// One of `least..=most`, all alike.
    pub fn range(&mut self, least: u64, most: u64) -> u64 {
        let span = u128::from(most.saturating_sub(least)) + 1;
        let offset = (u128::from(self.bits()) * span) >> 64;
        least + u64::try_from(offset).expect("a part of a span of 64 bits")
    }

    /// True in `percent` of all cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.range(0, 99) < percent
    }

    /// One of some, all alike.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let last = of.len() as u64 - 1;
        of[usize::try_from(self.range(0, last)).expect("an index")]
    }

    /// A time between two others, to the microsecond.
    pub fn duration(&mut self, least: Duration, most: Duration) -> Duration {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.range(micros(least), micros(most)))
    }

    /// A number of `0.0..1.0`.
    fn unit(&mut self) -> f64 {
        // 53 bits are what a double holds.
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The time until the next of events that come independently, `mean` apart (von Neumann's way:
    /// by the lengths of falling runs).
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        let mut whole = 0.0;
        loop {
            let first = self.unit();
            let (mut last, mut length) = (first, 1);
            loop {
                let next = self.unit();
                if next > last {
                    break;
                }
                (last, length) = (next, length + 1);
            }
            if length % 2 == 1 {
                return mean.mul_f64(whole + first);
            }
            whole += 1.0;
        }
    }

    /// A size whose logarithm is normal with a standard deviation of 1: the mean is 1.65 times the
    /// median, one of a hundred is ten times as large. At least 1.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size above 0")]
    pub fn lognormal(&mut self, median: u64) -> u64 {
        // The sum of twelve uniform numbers is nearly normal with a standard deviation of 1.
        let normal = (0..12).map(|_| self.unit()).sum::<f64>() - 6.0;
        // e^x = (1 + x / 2^20)^(2^20).
        let mut power = 1.0 + normal / f64::from(1 << 20);
        for _ in 0..20 {
            power *= power;
        }
        ((median as f64 * power) as u64).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distributions_have_the_means_that_they_promise() {
        let mut random = Random::new(1);
        let count = 100_000;
        let mean = Duration::from_millis(10);
        let sum: Duration = (0..count).map(|_| random.exponential(mean)).sum();
        let apart = sum / count;
        assert!(apart > mean * 99 / 100 && apart < mean * 101 / 100, "{apart:?}");
        let sum: u64 = (0..count).map(|_| random.lognormal(1_500)).sum();
        let size = sum / u64::from(count);
        assert!((2_400..2_550).contains(&size), "{size}");
    }
}
