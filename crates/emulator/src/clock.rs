//! The emulator's time: nanoseconds since the Unix epoch, so that windows are aligned as a server's
//! are and resets can be dated.
//!
//! The time of day is read once; from then on tokio's clock counts. A manual clock stands still until
//! it is told otherwise, so that a test over real sockets finds every level where it left it. Only the
//! limits follow it: answers take their time by tokio's clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quota::time::Time;
use tokio::time::Instant;

/// Tells the time.
#[derive(Debug)]
pub(crate) struct Clock {
    origin: Time,
    /// None if it is manual.
    started: Option<Instant>,
    /// By how much it was set forward, in nanoseconds.
    advanced: AtomicU64,
}

/// Where a manual clock begins: 2026-11-20T10:00:00Z, a full minute.
const MANUAL_ORIGIN: Time = Time::from_millis(1_795_168_800_000);

// === impl Clock ===

impl Clock {
    /// A clock that runs.
    pub(crate) fn running() -> Clock {
        let origin = Time::ZERO + service::clock::unix_now();
        Clock { origin, started: Some(Instant::now()), advanced: AtomicU64::new(0) }
    }

    /// A clock that stands.
    pub(crate) fn manual() -> Clock {
        Clock { origin: MANUAL_ORIGIN, started: None, advanced: AtomicU64::new(0) }
    }

    pub(crate) fn now(&self) -> Time {
        let elapsed = self.started.map_or(Duration::ZERO, |started| started.elapsed());
        let advanced = Duration::from_nanos(self.advanced.load(Ordering::Relaxed));
        self.origin + elapsed + advanced
    }

    /// Sets it forward.
    pub(crate) fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.advanced.fetch_add(nanos, Ordering::Relaxed);
    }
}
