//! The clocks of the process: the only place that reads them.
//!
//! Deciding code takes its time as an argument; the programs read it here, once per decision.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// Goes on while the machine sleeps, so that a lease cannot outlive its term in a suspended laptop.
#[cfg(any(target_os = "linux", target_os = "android"))]
const SINCE_BOOT: ClockId = ClockId::Boottime;

/// Elsewhere `CLOCK_MONOTONIC` is the nearest (on macOS it counts sleep as well).
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SINCE_BOOT: ClockId = ClockId::Monotonic;

/// Nanoseconds since the machine started; never goes back, and is no time of day.
pub fn boottime_nanos() -> u64 {
    let now = clock_gettime(SINCE_BOOT);
    let seconds = u64::try_from(now.tv_sec).expect("no machine started in its own future");
    let nanos = u64::try_from(now.tv_nsec).expect("a timespec has a positive fraction");
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// The time of day as a distance from the Unix epoch; zero if the clock is set before it.
///
/// It may jump. It is for what the outside world dates: days of stock budgets, provider headers,
/// status.
pub fn unix_now() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of the wall clock")]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{boottime_nanos, unix_now};

    #[test]
    fn the_boot_clock_never_goes_back() {
        let readings: Vec<u64> = (0..1_000).map(|_| boottime_nanos()).collect();
        assert!(readings.is_sorted());
        assert!(readings[0] > 0);
    }

    #[test]
    fn the_wall_clock_reads_a_date_after_this_was_written() {
        let start_of_2026 = 1_767_225_600;
        assert!(unix_now().as_secs() > start_of_2026);
    }
}
