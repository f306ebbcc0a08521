//! Waiting for something to become true, instead of for a time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Longer than anything takes that these tests wait for, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

const INTERVAL: Duration = Duration::from_millis(10);

/// Polls `probe` until it answers with something; panics with `what` if it does not within
/// [`PATIENCE`].
pub async fn until<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    within(PATIENCE, what, probe).await
}

/// The same with a limit that is part of the promise.
pub async fn within<T>(
    limit: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        sleep(INTERVAL).await;
    }
}
