//! Waiting for something to become true, with a limit.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// Asks `probe` again and again until it answers with something. An error ends the waiting at once.
pub(crate) fn within<T>(
    limit: Duration,
    what: &str,
    mut probe: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = now() + limit;
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if now() >= deadline {
            bail!("not within {} s: {what}", limit.as_secs());
        }
        pause(INTERVAL);
    }
}

/// For the times that a person is told.
#[expect(clippy::disallowed_methods, reason = "a command measures how long it takes")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "there is no runtime here that it could block")]
pub(crate) fn pause(time: Duration) {
    thread::sleep(time);
}
