//! Waiting for something to become true, with a limit.

use std::thread;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(100);

/// Asks `probe` until it answers with something; panics with `what` if it does not within `limit`.
#[expect(clippy::disallowed_methods, reason = "a cluster has no clock but the machine's")]
pub fn within<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        thread::sleep(INTERVAL);
    }
}
