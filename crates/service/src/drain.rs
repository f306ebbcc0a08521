//! Drain: one sequence that ends a process, with a deadline.
//!
//! `main` keeps the [`Trigger`], every task that must finish its work keeps a [`Watch`]. When the
//! trigger drains, the watches learn the deadline; the drain is over when the last watch is dropped
//! or the deadline has passed, whichever is first.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// Starts the drain and waits for its end. Dropped without a drain, it ends everything at once, so
/// that no watch waits for a signal that cannot come.
#[derive(Debug)]
pub struct Trigger {
    deadline: watch::Sender<Option<Instant>>,
}

/// Held by what must finish before the process may exit; a clone is one more that must.
#[derive(Clone, Debug)]
pub struct Watch {
    deadline: watch::Receiver<Option<Instant>>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every watch was dropped in time.
    Complete,
    /// The deadline passed while something was still at work; it is cut off.
    DeadlinePassed,
}

/// A trigger and the first of its watches.
pub fn new() -> (Trigger, Watch) {
    let (sender, receiver) = watch::channel(None);
    (Trigger { deadline: sender }, Watch { deadline: receiver })
}

// === impl Trigger ===

impl Trigger {
    /// Tells all watches to finish within `limit` and waits until they have, or it has passed.
    pub async fn drain(self, limit: Duration) -> Outcome {
        let deadline = Instant::now() + limit;
        self.deadline.send_replace(Some(deadline));
        match timeout_at(deadline, self.deadline.closed()).await {
            Ok(()) => Outcome::Complete,
            Err(_) => Outcome::DeadlinePassed,
        }
    }
}

// === impl Watch ===

impl Watch {
    /// Waits for the drain and answers its deadline. Safe to cancel and to call again.
    pub async fn started(&mut self) -> Instant {
        match self.deadline.wait_for(Option::is_some).await {
            Ok(deadline) => deadline.unwrap_or_else(Instant::now),
            Err(_) => Instant::now(),
        }
    }

    /// True once the drain has started.
    pub fn is_started(&self) -> bool {
        self.deadline.borrow().is_some() || self.deadline.has_changed().is_err()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::{Outcome, new};

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_when_the_last_watch_is_dropped() {
        let (trigger, watch) = new();
        let worker = |mut watch: super::Watch, work: Duration| async move {
            let deadline = watch.started().await;
            sleep(work).await;
            deadline
        };
        let start = Instant::now();
        let (outcome, first, second) = tokio::join!(
            trigger.drain(LIMIT),
            worker(watch.clone(), Duration::from_secs(1)),
            worker(watch, Duration::from_secs(3)),
        );
        assert_eq!(outcome, Outcome::Complete);
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        assert_eq!((first, second), (start + LIMIT, start + LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_does_not_wait_beyond_its_deadline() {
        let (trigger, watch) = new();
        let start = Instant::now();
        assert_eq!(trigger.drain(LIMIT).await, Outcome::DeadlinePassed);
        assert_eq!(start.elapsed(), LIMIT);
        assert!(watch.is_started());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_trigger_ends_everything_at_once() {
        let (trigger, mut watch) = new();
        assert!(!watch.is_started());
        drop(trigger);
        assert_eq!(watch.started().await, Instant::now());
        assert!(watch.is_started());
    }
}
