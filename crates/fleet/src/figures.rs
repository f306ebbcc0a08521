//! What is counted, over all sidecars.

use std::time::Duration;

use parking_lot::Mutex;
use quota::time::Time;
use serde::Serialize;

/// What is counted since the last mark.
#[derive(Debug)]
pub(crate) struct Figures {
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    marked_at: Time,
    /// Per sidecar: when it was welcomed since the mark.
    welcomed: Vec<Option<Time>>,
    /// Per sidecar: the policy that it has, and since when.
    policies: Vec<(u64, Time)>,
    leased: u64,
    refused: u64,
    sessions_lost: u64,
    /// Of requests that were drawn: class value and wait.
    waits: Vec<(i32, Duration)>,
    /// Admitted requests by tenths of a second since the mark.
    admitted: Vec<u64>,
}

/// Times of some or all sidecars, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Times {
    sidecars: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// What was admitted.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Admissions {
    seconds: f64,
    leased: u64,
    drawn: u64,
    refused: u64,
    sessions_lost: u64,
    classes: Vec<Waits>,
}

/// How long requests of one class waited for credit.
#[derive(Clone, Debug, Serialize)]
struct Waits {
    value: i32,
    drawn: usize,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// The width of a bar in the series.
const BAR: Duration = Duration::from_millis(100);
/// An hour of bars.
const BARS_MAX: usize = 36_000;

// === impl Figures ===

impl Figures {
    pub(crate) fn new(now: Time, sidecars: usize) -> Figures {
        let counts = Counts {
            marked_at: now,
            welcomed: vec![None; sidecars],
            policies: vec![(0, now); sidecars],
            leased: 0,
            refused: 0,
            sessions_lost: 0,
            waits: Vec::new(),
            admitted: Vec::new(),
        };
        Figures { counts: Mutex::new(counts) }
    }

    pub(crate) fn sidecars(&self) -> usize {
        self.counts.lock().welcomed.len()
    }

    /// Counts from `now` on.
    pub(crate) fn mark(&self, now: Time) {
        let mut counts = self.counts.lock();
        counts.marked_at = now;
        counts.welcomed.fill(None);
        (counts.leased, counts.refused, counts.sessions_lost) = (0, 0, 0);
        counts.waits.clear();
        counts.admitted.clear();
    }

    pub(crate) fn marked_at(&self) -> Time {
        self.counts.lock().marked_at
    }

    // --- what happens ---

    pub(crate) fn welcome(&self, now: Time, sidecar: usize) {
        self.counts.lock().welcomed[sidecar].get_or_insert(now);
    }

    pub(crate) fn policy(&self, now: Time, sidecar: usize, generation: u64) {
        self.counts.lock().policies[sidecar] = (generation, now);
    }

    /// A request was admitted, after `wait` if it was drawn.
    pub(crate) fn admitted(&self, now: Time, class: i32, wait: Option<Duration>) {
        let mut counts = self.counts.lock();
        match wait {
            Some(wait) => counts.waits.push((class, wait)),
            None => counts.leased += 1,
        }
        let bar = now.since(counts.marked_at).as_millis() / BAR.as_millis();
        let bar = usize::try_from(bar).unwrap_or(BARS_MAX).min(BARS_MAX);
        if counts.admitted.len() <= bar {
            counts.admitted.resize(bar + 1, 0);
        }
        counts.admitted[bar] += 1;
    }

    pub(crate) fn refused(&self) {
        self.counts.lock().refused += 1;
    }

    pub(crate) fn session_lost(&self) {
        self.counts.lock().sessions_lost += 1;
    }

    // --- what has happened ---

    pub(crate) fn all_welcome(&self) -> bool {
        self.counts.lock().welcomed.iter().all(Option::is_some)
    }

    /// From the mark to each sidecar's welcome.
    pub(crate) fn welcomed(&self) -> Times {
        let counts = self.counts.lock();
        let times = counts.welcomed.iter().flatten();
        Times::of(times.map(|at| at.since(counts.marked_at)).collect())
    }

    pub(crate) fn newest_policy(&self) -> u64 {
        self.counts.lock().policies.iter().map(|(generation, _)| *generation).max().unwrap_or(0)
    }

    /// How many sidecars have a newer policy.
    pub(crate) fn newer(&self, before: u64) -> usize {
        let counts = self.counts.lock();
        counts.policies.iter().filter(|(generation, _)| *generation > before).count()
    }

    /// From `start` to when each sidecar had a newer policy.
    pub(crate) fn policies(&self, start: Time, before: u64) -> Times {
        let counts = self.counts.lock();
        let newer = counts.policies.iter().filter(|(generation, _)| *generation > before);
        Times::of(newer.map(|(_, at)| at.since(start)).collect())
    }

    /// What was admitted since the mark.
    pub(crate) fn admissions(&self, now: Time) -> Admissions {
        let counts = self.counts.lock();
        let mut values: Vec<i32> = counts.waits.iter().map(|(class, _)| *class).collect();
        values.sort_unstable();
        values.dedup();
        let of = |value: i32| counts.waits.iter().filter(move |(class, _)| *class == value);
        Admissions {
            seconds: now.since(counts.marked_at).as_secs_f64(),
            leased: counts.leased,
            drawn: counts.waits.len() as u64,
            refused: counts.refused,
            sessions_lost: counts.sessions_lost,
            classes: values
                .into_iter()
                .map(|value| Waits::of(value, of(value).map(|(_, wait)| *wait).collect()))
                .collect(),
        }
    }

    /// Admitted requests by tenths of a second since the mark.
    pub(crate) fn series(&self) -> Vec<u64> {
        self.counts.lock().admitted.clone()
    }
}

// === impl Times ===

impl Times {
    fn of(mut times: Vec<Duration>) -> Times {
        times.sort_unstable();
        let [p50_ms, p99_ms, max_ms] = [50, 99, 100].map(|percent| quantile(&times, percent));
        Times { sidecars: times.len(), p50_ms, p99_ms, max_ms }
    }
}

// === impl Waits ===

impl Waits {
    fn of(value: i32, mut waits: Vec<Duration>) -> Waits {
        waits.sort_unstable();
        let [p50_ms, p90_ms, p99_ms, max_ms] =
            [50, 90, 99, 100].map(|percent| quantile(&waits, percent));
        Waits { value, drawn: waits.len(), p50_ms, p90_ms, p99_ms, max_ms }
    }
}

/// The smallest time that `percent` of all do not exceed, in milliseconds; zero if there are none.
fn quantile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_time_that_was_seen() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!([50, 99, 100].map(|it| quantile(&times, it)), [100.0, 198.0, 200.0]);
        assert_eq!(quantile(&[], 50), 0.0);
    }

    #[test]
    fn a_mark_forgets_welcomes_and_keeps_policies() {
        let figures = Figures::new(Time::ZERO, 2);
        figures.policy(Time::from_millis(5), 0, 3);
        figures.welcome(Time::from_millis(1), 0);
        figures.welcome(Time::from_millis(2), 1);
        assert!(figures.all_welcome() && figures.newer(0) == 1);
        figures.mark(Time::from_millis(10));
        assert!(!figures.all_welcome());
        assert_eq!(figures.newest_policy(), 3);
    }
}
