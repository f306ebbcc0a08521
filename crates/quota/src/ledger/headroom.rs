//! How much a level could have taken lately without being full.
//!
//! What is given back late must not be worth more than if it had been given back in time: a
//! provider's bucket that was full in between has lost it. So no more comes back than there was room
//! for ever since.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Time;
use crate::units::Amount;

/// How far back it is known; what comes back later than that is lost.
const SPAN: Duration = Duration::from_secs(10);

/// The room below a level's cap over the last [`SPAN`].
#[derive(Debug)]
pub(super) struct Headroom {
    /// The smallest room since each of these instants, ascending in both.
    minima: VecDeque<(Time, Amount)>,
    known_since: Time,
}

// === impl Headroom ===

impl Headroom {
    /// Of a level that nothing was taken from before.
    pub(super) fn new() -> Headroom {
        Headroom { minima: VecDeque::new(), known_since: Time::ZERO }
    }

    /// There is so much room now.
    pub(super) fn note(&mut self, now: Time, room: Amount) {
        while self.minima.back().is_some_and(|(_, before)| *before >= room) {
            self.minima.pop_back();
        }
        self.minima.push_back((now, room));
        let known_since = now - SPAN;
        while self.minima.front().is_some_and(|(at, _)| *at < known_since) {
            self.minima.pop_front();
        }
        self.known_since = self.known_since.max(known_since);
    }

    /// The least that there was at any time since `at`; nothing if that is too long ago to tell.
    pub(super) fn since(&self, at: Time) -> Amount {
        if at < self.known_since {
            return Amount::ZERO;
        }
        let later = self.minima.iter().find(|(noted, _)| *noted >= at);
        later.map_or(Amount::ZERO, |(_, room)| *room)
    }

    /// What has come back is as good as there all the time.
    pub(super) fn fill(&mut self, amount: Amount) {
        for (_, room) in &mut self.minima {
            *room = *room - amount;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_comes_back_than_there_was_room_for_ever_since() {
        let (seconds, units) = (|s: u64| Time::from_millis(s * 1_000), Amount::from_units);
        let mut headroom = Headroom::new();
        for (at, room) in [(1, 5), (2, 9), (3, 2), (4, 7), (5, 8)] {
            headroom.note(seconds(at), units(room));
        }
        for (since, least) in [(0, 2), (3, 2), (4, 7), (5, 8)] {
            assert_eq!(headroom.since(seconds(since)), units(least), "{since}");
        }
        headroom.fill(units(3));
        assert_eq!([1, 4].map(|at| headroom.since(seconds(at))), [units(0), units(4)]);
        headroom.note(seconds(14), units(9));
        assert_eq!([3, 4].map(|at| headroom.since(seconds(at))), [units(0), units(4)]);
    }
}
