//! When a provider's fixed window ends, as its headers tell.

use std::time::Duration;

use crate::time::Time;

/// What every reading is widened by on both sides: the shortest delay of the reports that carry it,
/// by which two clocks can be mapped to each other at best.
const CLOCK_SLACK: Duration = Duration::from_millis(5);
/// Two clocks drift apart: what is known of an edge widens by 0.1 % of its age.
const DRIFT_PER_MILLE: u32 = 1;

/// The next edge of a window lies between `lo` and `hi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edges {
    length: Duration,
    lo: Time,
    hi: Time,
    seen_at: Time,
}

impl Edges {
    pub(super) fn new(length: Duration, lo: Time, hi: Time, now: Time) -> Edges {
        let (lo, hi) = (lo - CLOCK_SLACK, hi + CLOCK_SLACK);
        Edges { length, lo, hi, seen_at: now }
    }

    /// Combines a new reading with what is known. Readings that contradict it replace it: the
    /// provider has moved its windows.
    pub(super) fn observe(&mut self, lo: Time, hi: Time, now: Time) {
        self.roll(now);
        let mut seen = Edges::new(self.length, lo, hi, now);
        while seen.hi < self.lo && seen.hi + self.length <= self.hi + self.length / 2 {
            seen.lo = seen.lo + self.length;
            seen.hi = seen.hi + self.length;
        }
        while seen.lo > self.hi && seen.lo.since(self.hi) > self.length / 2 {
            seen.lo = seen.lo - self.length;
            seen.hi = seen.hi - self.length;
        }
        let (lo, hi) = (self.lo.max(seen.lo), self.hi.min(seen.hi));
        *self = if lo <= hi { Edges { lo, hi, ..seen } } else { seen };
        self.roll(now);
    }

    /// Moves on to the first edge that is not surely over.
    pub(super) fn roll(&mut self, now: Time) {
        while self.hi < now && !self.length.is_zero() {
            let slip = self.lo.since(self.seen_at) * DRIFT_PER_MILLE / 1_000;
            self.seen_at = self.seen_at.max(self.lo);
            self.lo = self.lo + self.length - slip.min(CLOCK_SLACK);
            self.hi = self.hi + self.length + slip.min(CLOCK_SLACK);
        }
    }

    pub(super) fn lo(&self) -> Time {
        self.lo
    }

    pub(super) fn spread(&self) -> Duration {
        self.hi.since(self.lo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn minute() -> Duration {
        Duration::from_secs(60)
    }

    #[test]
    fn readings_of_later_windows_narrow_the_same_edge() {
        let mut edges = Edges::new(minute(), at(50_000), at(50_400), at(10_000));
        edges.observe(at(50_300), at(50_600), at(20_000));
        assert_eq!((edges.lo(), edges.spread()), (at(50_295), Duration::from_millis(110)));
    }

    #[test]
    fn an_edge_that_is_over_rolls_on_by_whole_windows() {
        let mut edges = Edges::new(minute(), at(50_000), at(50_000), at(10_000));
        edges.roll(at(50_100));
        assert!(edges.lo() > at(109_900) && edges.lo() < at(110_000));
    }

    #[test]
    fn a_reading_that_contradicts_what_is_known_replaces_it() {
        let mut edges = Edges::new(minute(), at(50_000), at(50_100), at(10_000));
        edges.observe(at(32_000), at(32_100), at(20_000));
        assert_eq!(edges.lo(), at(31_995));
    }
}
