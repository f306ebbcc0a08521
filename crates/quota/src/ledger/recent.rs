//! What was charged in the last minute: for people, not for decisions.

use std::collections::VecDeque;

use crate::time::Time;
use crate::units::Amount;

/// Sums over the last minute, second by second.
#[derive(Debug, Default)]
pub(super) struct Recent {
    seconds: VecDeque<(u64, Amount)>,
}

/// For how many seconds figures of use are kept.
const RECENT_SECONDS: u64 = 60;
const SECOND: u64 = 1_000_000_000;

// === impl Recent ===

impl Recent {
    pub(super) fn add(&mut self, now: Time, amount: Amount) {
        let second = now.as_nanos() / SECOND;
        match self.seconds.back_mut() {
            Some((last, sum)) if *last == second => *sum += amount,
            _ => self.seconds.push_back((second, amount)),
        }
        self.forget(second);
    }

    /// The sum of the last minute. Of the second in which it began, the part that is in it.
    pub(super) fn sum(&mut self, now: Time) -> Amount {
        let (second, nanos) = (now.as_nanos() / SECOND, now.as_nanos() % SECOND);
        self.forget(second);
        let part = |(at, amount): &(u64, Amount)| {
            if at + RECENT_SECONDS == second {
                amount.scale(SECOND - nanos, SECOND)
            } else {
                *amount
            }
        };
        self.seconds.iter().map(part).sum()
    }

    fn forget(&mut self, second: u64) {
        while self.seconds.front().is_some_and(|(at, _)| at + RECENT_SECONDS < second) {
            self.seconds.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_rate_is_told_as_it_is_at_every_moment() {
        let mut recent = Recent::default();
        // Ten a second, for two minutes.
        for tenth in 0..1_200 {
            recent.add(Time::from_millis(tenth * 100), Amount::from_units(1));
        }
        for millis in [119_900, 119_950, 119_999] {
            let sum = recent.sum(Time::from_millis(millis));
            let even = Amount::from_units(600);
            assert!(even <= sum && sum <= even + Amount::from_units(1), "{millis}: {sum:?}");
        }
        // What has just come is in it, and what is a minute ago leaves bit by bit.
        recent.add(Time::from_millis(120_000), Amount::from_units(5));
        assert_eq!(recent.sum(Time::from_millis(120_000)), Amount::from_units(605));
        assert_eq!(recent.sum(Time::from_millis(120_500)), Amount::from_units(600));
        assert_eq!(recent.sum(Time::from_millis(200_000)), Amount::ZERO);
    }
}
