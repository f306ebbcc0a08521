//! A pod's own token bucket, as rate limiters within an application are: callers wait in the order in
//! which they came, whatever their class.

use parking_lot::Mutex;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

/// A bucket in the limit's unit.
#[derive(Debug)]
pub(crate) struct Bucket {
    per_second: f64,
    burst: f64,
    level: Mutex<Level>,
    /// Held by the caller whose turn it is; first come, first served.
    turn: Semaphore,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    value: f64,
    at: Instant,
}

// === impl Bucket ===

impl Bucket {
    /// A full one.
    pub(crate) fn new(per_second: f64, burst: f64, now: Instant) -> Bucket {
        let level = Mutex::new(Level { value: burst, at: now });
        Bucket { per_second, burst, level, turn: Semaphore::new(1) }
    }

    /// Waits for `cost`, and takes it. Dropped before, it takes nothing. What costs more than the
    /// bucket holds waits until it is full.
    pub(crate) async fn take(&self, cost: f64) {
        let _turn = self.turn.acquire().await.expect("it is never closed");
        let needed = cost.min(self.burst);
        loop {
            let missing = {
                let mut level = self.level.lock();
                self.refill(&mut level);
                if level.value >= needed {
                    level.value -= cost;
                    return;
                }
                needed - level.value
            };
            // A millisecond is what the timer can tell apart.
            let wait =
                Duration::try_from_secs_f64(missing / self.per_second).unwrap_or(Duration::MAX);
            sleep(wait.max(Duration::from_millis(1))).await;
        }
    }

    /// Corrects what a call has `taken` to what it really cost.
    pub(crate) fn settle(&self, taken: f64, actual: f64) {
        let mut level = self.level.lock();
        self.refill(&mut level);
        level.value = (level.value + taken - actual).min(self.burst);
    }

    fn refill(&self, level: &mut Level) {
        let now = Instant::now();
        let gained = (now - level.at).as_secs_f64() * self.per_second;
        *level = Level { value: (level.value + gained).min(self.burst), at: now };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn callers_wait_in_turn_for_what_refills() {
        let start = Instant::now();
        let bucket = Bucket::new(2.0, 3.0, start);
        let caller = async |cost| {
            bucket.take(cost).await;
            start.elapsed().as_millis()
        };
        let found = tokio::join!(caller(3.0), caller(2.0), caller(1.0));
        assert_eq!(found, (0, 1_000, 1_500));
        bucket.settle(3.0, 1.0);
        assert_eq!(caller(2.0).await, 1_500);
    }
}
