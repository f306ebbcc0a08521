//! The clock of one machine: it began somewhere else, and runs a little fast or slow.

use std::time::Duration;

use quota::time::Time;

/// A clock that errs, as a function of the world's true time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// What it shows when the world begins.
    origin: Duration,
    /// How much it runs fast, in parts per million.
    ppm: i64,
}

impl Clock {
    pub(super) fn new(origin: Duration, ppm: i64) -> Clock {
        Clock { origin, ppm }
    }

    /// What it shows at `now`.
    pub(super) fn read(self, now: Time) -> Time {
        let passed = i128::from(now.as_nanos());
        let shown = passed + passed * i128::from(self.ppm) / 1_000_000;
        Time::from_nanos(u64::try_from(shown).unwrap_or(u64::MAX)) + self.origin
    }

    /// The first instant at which it shows `shown` or more.
    pub(super) fn when(self, shown: Time) -> Time {
        if shown == Time::NEVER {
            return Time::NEVER;
        }
        let passed = i128::from((shown - self.origin).as_nanos());
        let guess = passed * 1_000_000 / (1_000_000 + i128::from(self.ppm));
        // Both divisions round down; the guess is at most some nanoseconds off.
        let mut at = Time::from_nanos(u64::try_from(guess).unwrap_or(u64::MAX).saturating_sub(2));
        while self.read(at) < shown {
            at = at + Duration::from_nanos(1);
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_what_it_was_waited_for_and_not_before() {
        for ppm in [-500, 0, 500] {
            let clock = Clock::new(Duration::from_secs(77), ppm);
            for millis in [0, 1, 999, 59_999, 3_600_000] {
                let shown = Time::from_millis(77_000 + millis);
                let at = clock.when(shown);
                assert!(clock.read(at) >= shown);
                let before = Time::from_nanos(at.as_nanos().saturating_sub(1));
                assert!(at == Time::ZERO || clock.read(before) < shown, "{ppm} {millis}");
            }
        }
    }
}
