//! What was admitted in the last window's length, wherever the window's edges are.
//!
//! A provider whose edges are unknown admits a request if what was admitted since some instant less
//! than a window ago leaves room for it. If no span of a window's length holds more than the limit,
//! no window does.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Time;
use crate::units::{Amount, Rate};

/// Entries closer together than this are one, dated at the later: counted longer, never shorter.
const GRAIN: Duration = Duration::from_millis(100);

/// From a debit until something of it comes back: credit lives for a second, and a part of a request that
/// lies in a pod is swapped for credit within about as long.
const RETURNED_WITHIN: Duration = Duration::from_secs(2);

/// What was admitted in the last `span`.
#[derive(Clone, Debug)]
pub(super) struct Log {
    span: Duration,
    entries: VecDeque<(Time, Amount)>,
    sum: Amount,
    /// Before it, something may have been admitted that is not in the log.
    began: Time,
    /// When that is out of the span.
    complete_at: Time,
    /// What local levels may hold, and what they might earlier with the time up to which they did, the
    /// largest first: what accrued before the span may have been admitted in it.
    caps: Amount,
    caps_before: VecDeque<(Time, Amount)>,
    /// By how much some later span may hold more than the last one, if what is leased now goes on.
    ahead: Amount,
    looked_at: Time,
}

impl Log {
    /// A log over `span` that knows everything since `now`, and that nothing came before if `fresh`.
    pub(super) fn new(now: Time, span: Duration, fresh: bool) -> Log {
        let (began, complete_at) = if fresh { (Time::ZERO, now) } else { (now, now + span) };
        Log {
            span,
            entries: VecDeque::new(),
            sum: Amount::ZERO,
            began,
            complete_at,
            caps: Amount::ZERO,
            caps_before: VecDeque::new(),
            ahead: Amount::ZERO,
            looked_at: Time::ZERO,
        }
    }

    pub(super) fn advance(&mut self, now: Time) {
        while self.entries.front().is_some_and(|(at, _)| *at + self.span <= now) {
            if let Some((_, amount)) = self.entries.pop_front() {
                self.sum = self.sum - amount;
            }
        }
        while self.caps_before.front().is_some_and(|(until, _)| *until + self.span <= now) {
            self.caps_before.pop_front();
        }
    }

    /// Local levels may hold `caps` from now on.
    pub(super) fn set_caps(&mut self, now: Time, caps: Amount) {
        if caps < self.caps {
            self.caps_before.push_back((now, self.caps));
        }
        self.caps = caps;
        while self.caps_before.back().is_some_and(|(_, before)| *before <= caps) {
            self.caps_before.pop_back();
        }
    }

    /// The most that local levels may have held since the span began.
    pub(super) fn caps(&self) -> Amount {
        self.caps_before.front().map_or(self.caps, |(_, before)| *before)
    }

    pub(super) fn add(&mut self, now: Time, amount: Amount) {
        self.sum += amount;
        match self.entries.back_mut() {
            Some((at, sum))
                if at.since(Time::ZERO).as_nanos() / GRAIN.as_nanos()
                    == now.since(Time::ZERO).as_nanos() / GRAIN.as_nanos() =>
            {
                *at = now.max(*at);
                *sum += amount;
            }
            _ => self.entries.push_back((now, amount)),
        }
    }

    /// Something was not charged after all, which was not told up to `told`. Nobody says when it was
    /// debited: not long before, and what it takes the place of must not be forgotten earlier.
    pub(super) fn remove(&mut self, told: Time, mut amount: Amount) {
        let latest = told - RETURNED_WITHIN;
        for (_, entry) in self.entries.iter_mut().rev().skip_while(|(at, _)| *at > latest) {
            let part = amount.min(*entry);
            *entry = *entry - part;
            self.sum = self.sum - part;
            amount = amount - part;
            if amount.is_zero() {
                break;
            }
        }
    }

    /// What was admitted since `at`, if that is within the span.
    pub(super) fn since(&self, at: Time) -> Amount {
        let later = self.entries.iter().rev().take_while(|(entry, _)| *entry >= at);
        later.map(|(_, amount)| *amount).sum()
    }

    /// Notes what `rate` adds to later spans. Not each time: it takes a look at every entry.
    pub(super) fn look_ahead(&mut self, now: Time, rate: Rate) {
        if now.since(self.looked_at) >= GRAIN {
            self.looked_at = now;
            self.ahead = self.ahead_at(now, rate);
        }
    }

    /// How much more than the last span some later one may hold if `rate` goes on being admitted,
    /// whatever is left, while the oldest entries leave one by one.
    pub(super) fn ahead_at(&self, now: Time, rate: Rate) -> Amount {
        let (mut gone, mut worst) = (Amount::ZERO, Amount::ZERO);
        for (at, amount) in &self.entries {
            // Until just before it leaves; a grain longer, because this is not found out each time.
            let stay = (*at + self.span).since(now) + GRAIN;
            worst = worst.max(rate.over(stay) - gone);
            gone += *amount;
        }
        worst.max(rate.over(self.span) - gone)
    }

    /// As it was noted last.
    pub(super) fn ahead(&self) -> Amount {
        self.ahead
    }

    /// The same, and what others admitted before this log began, if they kept to `rate`.
    pub(super) fn since_with_others(&self, at: Time, rate: Rate) -> Amount {
        self.since(at) + rate.over(self.began.since(at))
    }

    /// What was admitted in the last span.
    pub(super) fn sum(&self) -> Amount {
        self.sum
    }

    /// True if nothing of the last span is missing.
    pub(super) fn is_complete(&self, now: Time) -> bool {
        now >= self.complete_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_admitted_counts_for_one_span() {
        let minute = Duration::from_secs(60);
        let mut log = Log::new(Time::ZERO, minute, true);
        log.add(Time::from_millis(10), Amount::from_units(3));
        log.add(Time::from_millis(30_000), Amount::from_units(4));
        // What was debited lately is not what comes back.
        log.remove(Time::from_millis(31_000), Amount::from_units(1));
        assert_eq!(log.sum(), Amount::from_units(6));
        log.remove(Time::from_millis(32_000), Amount::from_units(2));
        log.advance(Time::from_millis(60_009));
        assert_eq!(log.sum(), Amount::from_units(4));
        log.advance(Time::from_millis(60_010));
        assert_eq!(log.sum(), Amount::from_units(2));
    }

    #[test]
    fn what_levels_held_may_have_been_admitted_for_a_span_after() {
        let (seconds, units) = (|s: u64| Time::from_millis(s * 1_000), Amount::from_units);
        let mut log = Log::new(Time::ZERO, Duration::from_secs(60), true);
        for (at, caps, most) in [(1, 5, 5), (2, 9, 9), (3, 4, 9), (4, 6, 9), (5, 2, 9)] {
            log.set_caps(seconds(at), units(caps));
            assert_eq!(log.caps(), units(most), "{at}");
        }
        for (at, most) in [(62, 9), (63, 6), (64, 6), (65, 2)] {
            log.advance(seconds(at));
            assert_eq!(log.caps(), units(most), "{at}");
        }
    }

    #[test]
    fn what_goes_on_being_admitted_is_too_much_until_the_oldest_has_left() {
        let minute = Duration::from_secs(60);
        let mut log = Log::new(Time::ZERO, minute, true);
        log.add(Time::from_millis(20_000), Amount::from_units(100));
        log.look_ahead(Time::from_millis(50_000), Rate::per(Amount::from_units(1), GRAIN * 10));
        // For 30 s and a grain, one a second is added to the hundred.
        assert_eq!(log.ahead(), Amount::from_micros(30_100_000));
    }
}
