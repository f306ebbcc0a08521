//! The times of the lease protocol (`leases.md` 3.4, 3.7), in one place because both sides must use
//! the same: T1 is a constant of the protocol version.

use std::time::Duration;

/// g, the time from a debit to its request's arrival at the provider that is allowed for, and relied on,
/// before anything was told (`leases.md` 3.1).
pub const TRANSIT_AT_FIRST: Duration = Duration::from_millis(250);
/// The longest transit that is learned: whatever takes longer is debited anew, each time.
pub const TRANSIT_MAX: Duration = Duration::from_secs(1);
/// What the allocator allows for, and a pod relies on, beyond the longest transit that was told.
pub const TRANSIT_MARGIN: Duration = Duration::from_millis(50);

/// T1, so long that at least 50 s remain at any crash, and that no takeover takes longer
/// (`leases.md` 3.7: 34 s after silence).
pub const LEASE_TTL: Duration = Duration::from_secs(60);

/// The times of the lease protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// T1: for how long, from its anchor, a lease runs at its full rate.
    pub lease_ttl: Duration,
    /// For how long, from its anchor, credit may be spent.
    pub spend_by: Duration,
    /// rho: the largest difference in speed of two clocks, in parts per million.
    pub drift_ppm: u64,
    /// eps: what is added to every time that the allocator waits out.
    pub margin: Duration,
}

impl Default for Timing {
    /// Drift 0.1 % (NTP slews at most 0.05 %); margin 100 ms.
    fn default() -> Timing {
        Timing {
            lease_ttl: LEASE_TTL,
            spend_by: Duration::from_secs(1),
            drift_ppm: 1_000,
            margin: Duration::from_millis(100),
        }
    }
}

impl Timing {
    /// How long the allocator must wait, from the moment it sends, until a pod that was told `ttl`
    /// has surely stopped: `ttl * (1 + rho) + eps`.
    pub fn charged(&self, ttl: Duration) -> Duration {
        ttl.saturating_add(self.drift(ttl)).saturating_add(self.margin)
    }

    /// How long a pod that was told `ttl` surely still holds: `ttl * (1 - rho) - eps`.
    pub fn surely_held(&self, ttl: Duration) -> Duration {
        ttl.saturating_sub(self.drift(ttl)).saturating_sub(self.margin)
    }

    fn drift(&self, ttl: Duration) -> Duration {
        let nanos = ttl.as_nanos() * u128::from(self.drift_ppm) / 1_000_000;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}
