//! The arithmetic of one figure: what is used of it now, and what time changes about that.
//!
//! Called by [`super::Limiter`] only. `used` is kept in millionths of a unit times nanoseconds of the
//! period, where a refill over `t` nanoseconds is exactly `limit * t`: nothing is ever rounded, so
//! it does not matter how often a level is looked at.

use std::time::Duration;

use quota::time::Time;
use quota::units::{Amount, MICRO};

use super::rule::{Algorithm, Rule};

/// A caller that keeps back what may be on its way (`leases.md` 3.1: at most one second's worth) is
/// bound by the limit although the level never falls to one request.
const BINDING_MARGIN: Duration = Duration::from_secs(1);
const SECOND: u128 = 1_000_000_000;

/// One figure's level.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    algorithm: Algorithm,
    limit: Amount,
    /// In millionths times nanoseconds of the period (times 1 for slots). May exceed the capacity.
    used: u128,
    /// What came on offer since [`Meter::restart_offer`], in the same measure.
    offered: u128,
    updated: Time,
    /// The number of the current window; 0 for what has none.
    window: u64,
    external_percent: u32,
}

// === impl Meter ===

impl Meter {
    pub(super) fn new(now: Time, rule: &Rule) -> Meter {
        let mut meter = Meter {
            algorithm: rule.algorithm,
            limit: rule.limit,
            used: 0,
            offered: 0,
            updated: now,
            window: 0,
            external_percent: 0,
        };
        meter.window = meter.window_at(now);
        meter.restart_offer();
        meter
    }

    /// Brings the level up to `now` and tells for how long of the time since the last look the limit
    /// was binding on calls of a `typical` size. Time that runs backwards changes nothing.
    pub(super) fn advance(&mut self, now: Time, typical: Amount) -> Duration {
        if now <= self.updated {
            return Duration::ZERO;
        }
        let bound = match self.algorithm {
            Algorithm::Bucket { .. } => self.refill(now, typical),
            Algorithm::Window { .. } | Algorithm::Stock { .. } => self.turn(now, typical),
            Algorithm::Slots if self.remaining().units() == 0 => now.since(self.updated),
            Algorithm::Slots => Duration::ZERO,
        };
        self.updated = now;
        bound
    }

    /// What a call may take at most.
    pub(super) fn capacity(&self) -> Amount {
        match self.algorithm {
            Algorithm::Bucket { burst_percent, .. } => {
                self.limit.scale(u64::from(burst_percent), 100)
            }
            Algorithm::Window { .. } | Algorithm::Stock { .. } | Algorithm::Slots => self.limit,
        }
    }

    pub(super) fn fits(&self, requested: Amount) -> bool {
        self.used + self.scaled(requested) <= self.scaled(self.capacity())
    }

    /// Takes an amount, if need be into debt.
    pub(super) fn charge(&mut self, amount: Amount) {
        self.used += self.scaled(amount);
    }

    /// Takes an amount, but no more than there is.
    pub(super) fn charge_saturating(&mut self, amount: Amount) {
        let full = self.scaled(self.capacity()).max(self.used);
        self.used = (self.used + self.scaled(amount)).min(full);
    }

    /// Gives back what was charged in `window`; too late once that window is over.
    pub(super) fn refund(&mut self, amount: Amount, window: u64) {
        if window == self.window {
            self.used = self.used.saturating_sub(self.scaled(amount));
        }
    }

    pub(super) fn change_limit(&mut self, limit: Amount) {
        self.limit = limit;
    }

    pub(super) fn external_load(&mut self, percent: u32) {
        self.external_percent = percent.min(100);
    }

    pub(super) const fn window(&self) -> u64 {
        self.window
    }

    /// What is left, rounded down to a millionth; zero in debt.
    pub(super) fn remaining(&self) -> Amount {
        let left = self.scaled(self.capacity()).saturating_sub(self.used);
        amount(left / self.period())
    }

    /// How far below zero the level is.
    pub(super) fn debt(&self) -> Amount {
        let over = self.used.saturating_sub(self.scaled(self.capacity()));
        amount(over / self.period())
    }

    /// What is used, in whole units, rounded to the nearest.
    pub(super) fn used_rounded(&self) -> u64 {
        let unit = self.period() * u128::from(MICRO);
        u64::try_from((self.used + unit / 2) / unit).unwrap_or(u64::MAX)
    }

    /// When `requested` fits if nobody else comes: `(used + requested - capacity) / limit * period`,
    /// rounded up to a nanosecond; for a window, its next edge.
    pub(super) fn wait(&self, requested: Amount) -> Option<Duration> {
        match self.algorithm {
            Algorithm::Bucket { .. } => {
                let wanted = self.used + self.scaled(requested);
                self.time_to_refill(wanted.saturating_sub(self.scaled(self.capacity())))
            }
            Algorithm::Window { .. } | Algorithm::Stock { .. } => {
                Some(self.edge().since(self.updated))
            }
            Algorithm::Slots => None,
        }
    }

    /// The time that headers show: for a bucket `(capacity - remaining) / limit * period` of the
    /// *shown* whole remaining, for a window the time to its edge.
    pub(super) fn reset(&self, now: Time) -> Duration {
        match self.algorithm {
            Algorithm::Bucket { .. } => {
                let shown = Amount::from_units(self.remaining().units());
                let missing = self.scaled(self.capacity() - shown);
                self.time_to_refill(missing).unwrap_or(Duration::MAX)
            }
            Algorithm::Window { .. } | Algorithm::Stock { .. } => self.edge().since(now),
            Algorithm::Slots => Duration::ZERO,
        }
    }

    /// Begins to count anew what is on offer: a bucket's or a stock's level, all slots, nothing yet of
    /// a window (it is counted pro rata of time, `design.md` 10.8).
    pub(super) fn restart_offer(&mut self) {
        self.offered = match self.algorithm {
            Algorithm::Bucket { .. } | Algorithm::Stock { .. } => {
                self.scaled(self.capacity()).saturating_sub(self.used)
            }
            Algorithm::Window { .. } => 0,
            Algorithm::Slots => self.scaled(self.limit),
        };
    }

    /// What came on offer since then.
    pub(super) fn offered(&self) -> Amount {
        amount(self.offered / self.period())
    }

    fn refill(&mut self, now: Time, typical: Amount) -> Duration {
        let nanos = now.since(self.updated).as_nanos();
        let rate = u128::from(self.limit.micros()) * u128::from(100 - self.external_percent) / 100;
        let missing = (self.used + self.scaled(typical) + self.margin())
            .saturating_sub(self.scaled(self.capacity()));
        let bound = match missing {
            0 => 0,
            _ if rate == 0 => nanos,
            _ => missing.div_ceil(rate).min(nanos),
        };
        self.used = self.used.saturating_sub(rate * nanos);
        self.offered += rate * nanos;
        duration(bound)
    }

    /// Passes over the edges up to `now`.
    fn turn(&mut self, now: Time, typical: Amount) -> Duration {
        let mut bound = Duration::ZERO;
        let current = self.window_at(now);
        while self.window < current {
            bound += self.stay(self.edge(), typical);
            self.updated = self.edge();
            self.window += 1;
            self.used = 0;
            if matches!(self.algorithm, Algorithm::Stock { .. }) {
                self.offered += self.scaled(self.limit);
            }
        }
        bound + self.stay(now, typical)
    }

    /// A stretch within one window. A window binds while less is left than an even pace to its edge
    /// would use; a stock binds when a usual call does not fit. Somebody else's load is spread evenly.
    fn stay(&mut self, until: Time, typical: Amount) -> Duration {
        let nanos = until.since(self.updated).as_nanos();
        let limit = u128::from(self.limit.micros());
        let share = limit * u128::from(self.external_percent) / 100;
        let full = self.scaled(self.limit);
        let left = full.saturating_sub(self.used);
        self.used = (self.used + share * nanos).min(full.max(self.used));
        if matches!(self.algorithm, Algorithm::Stock { .. }) {
            self.offered = self.offered.saturating_sub(share * nanos);
            let bound = if left < self.scaled(typical) { nanos } else { 0 };
            return duration(bound);
        }
        self.offered += (limit - share) * nanos;
        let rest = self.edge().since(self.updated).as_nanos();
        let pace = limit * rest + self.scaled(typical) + self.margin();
        let ahead = pace.saturating_sub(left).checked_div(limit).unwrap_or(nanos);
        duration(ahead.min(nanos))
    }

    fn time_to_refill(&self, scaled: u128) -> Option<Duration> {
        let limit = u128::from(self.limit.micros());
        (limit > 0).then(|| duration(scaled.div_ceil(limit)))
    }

    fn margin(&self) -> u128 {
        u128::from(self.limit.micros()) * BINDING_MARGIN.as_nanos()
    }

    /// The period in nanoseconds: the factor between an amount and `used`.
    fn period(&self) -> u128 {
        match self.algorithm {
            Algorithm::Bucket { period, .. } | Algorithm::Stock { period, .. } => {
                period.as_nanos().max(1)
            }
            Algorithm::Window { length, .. } => length.as_nanos().max(1),
            Algorithm::Slots => 1,
        }
    }

    fn scaled(&self, amount: Amount) -> u128 {
        u128::from(amount.micros()) * self.period()
    }

    /// The number of edges up to `now`.
    fn window_at(&self, now: Time) -> u64 {
        let (Algorithm::Window { phase, .. } | Algorithm::Stock { phase, .. }) = self.algorithm
        else {
            return 0;
        };
        let before_first = self.period() - phase.as_nanos() % self.period();
        let windows = (u128::from(now.as_nanos()) + before_first) / self.period();
        u64::try_from(windows).unwrap_or(u64::MAX)
    }

    /// The end of the current window.
    fn edge(&self) -> Time {
        let (Algorithm::Window { phase, .. } | Algorithm::Stock { phase, .. }) = self.algorithm
        else {
            return Time::NEVER;
        };
        let nanos = u128::from(self.window) * self.period() + phase.as_nanos() % self.period();
        Time::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

fn amount(micros: u128) -> Amount {
    Amount::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// Nanoseconds as a duration; anything too long is the longest.
fn duration(nanos: u128) -> Duration {
    let seconds = u64::try_from(nanos / SECOND).unwrap_or(u64::MAX);
    let rest = u32::try_from(nanos % SECOND).unwrap_or(0);
    Duration::new(seconds, rest)
}
