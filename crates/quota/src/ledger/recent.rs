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

// === impl Recent ===

impl Recent {
    pub(super) fn add(&mut self, now: Time, amount: Amount) {
        let second = now.as_nanos() / 1_000_000_000;
        match self.seconds.back_mut() {
            Some((last, sum)) if *last == second => *sum += amount,
            _ => self.seconds.push_back((second, amount)),
        }
        self.forget(second);
    }

    /// The sum of the last minute.
    pub(super) fn sum(&mut self, now: Time) -> Amount {
        self.forget(now.as_nanos() / 1_000_000_000);
        self.seconds.iter().map(|(_, amount)| *amount).sum()
    }

    fn forget(&mut self, second: u64) {
        while self.seconds.front().is_some_and(|(at, _)| at + RECENT_SECONDS <= second) {
            self.seconds.pop_front();
        }
    }
}
