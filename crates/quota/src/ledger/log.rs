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
    /// By how much some later span may hold more than the last one, if what is leased now goes on.
    ahead: Amount,
    looked_at: Time,
}

impl Log {
    /// A log over `span` that knows everything since `now`, and that nothing came before if `fresh`.
    pub(super) fn new(now: Time, span: Duration, fresh: bool) -> Log {
        let (began, complete_at) = if fresh { (Time::ZERO, now) } else { (now, now + span) };
        let (entries, sum, ahead) = (VecDeque::new(), Amount::ZERO, Amount::ZERO);
        Log { span, entries, sum, began, complete_at, ahead, looked_at: Time::ZERO }
    }

    pub(super) fn advance(&mut self, now: Time) {
        while self.entries.front().is_some_and(|(at, _)| *at + self.span <= now) {
            if let Some((_, amount)) = self.entries.pop_front() {
                self.sum = self.sum - amount;
            }
        }
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

    /// Something of the latest was not charged after all.
    pub(super) fn remove(&mut self, mut amount: Amount) {
        while let Some((_, last)) = self.entries.back_mut() {
            let part = amount.min(*last);
            *last = *last - part;
            self.sum = self.sum - part;
            amount = amount - part;
            if !last.is_zero() || amount.is_zero() {
                return;
            }
            self.entries.pop_back();
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
        log.remove(Amount::from_units(1));
        log.advance(Time::from_millis(60_009));
        assert_eq!(log.sum(), Amount::from_units(6));
        log.advance(Time::from_millis(60_010));
        assert_eq!(log.sum(), Amount::from_units(3));
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
