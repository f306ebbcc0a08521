//! One of the three runs: its pods, and the books of what became of their calls.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;

use crate::demo::pod::Pod;
use crate::demo::record::{Outcome, Record};
use crate::demo::scenario::CLASSES;
use crate::demo::traffic::Arrival;

/// Pods that all go the same way to the provider.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) way: Way,
    pub(crate) pods: Arc<[Pod]>,
    books: Arc<Mutex<Books>>,
}

/// How calls reach the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Straight.
    Direct,
    /// Each pod holds itself to its part of the budget.
    Static,
    /// Through a sidecar.
    Weir,
}

/// What is known of a run's calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Books {
    /// Calls that have ended.
    pub(crate) records: Vec<Record>,
    /// Calls that were made, by class.
    pub(crate) made: [u64; CLASSES.len()],
    /// Calls that were answered.
    pub(crate) answered: u64,
    /// Calls that have not ended.
    pub(crate) open: usize,
    /// Open calls by pod and class.
    open_of: Vec<[usize; CLASSES.len()]>,
}

/// Calls of one class that a pod has open at once: what an HTTP client's pool holds by default (httpx).
/// Further ones are given up at once.
const MAX_OPEN: usize = 1_000;

// === impl Way ===

impl Way {
    pub(crate) const ALL: [Way; 3] = [Way::Direct, Way::Static, Way::Weir];

    /// As in the JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Way::Direct => "direct",
            Way::Static => "static",
            Way::Weir => "weir",
        }
    }

    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Way::Direct => "straight, with\nSDK retries",
            Way::Static => "budget split\nover the pods",
            Way::Weir => "Weir",
        }
    }
}

// === impl Run ===

impl Run {
    pub(crate) fn new(way: Way, pods: Vec<Pod>) -> Run {
        let open_of = vec![[0; CLASSES.len()]; pods.len()];
        let books = Arc::new(Mutex::new(Books { open_of, ..Books::default() }));
        Run { way, pods: pods.into(), books }
    }

    /// Makes all calls when their time comes, each in a task of its own.
    pub(crate) async fn make_calls(&self, traffic: Arc<[Arrival]>, started: Instant) {
        let calls = TaskTracker::new();
        for (index, arrival) in traffic.iter().enumerate() {
            sleep_until(started + arrival.at).await;
            if self.books.lock().open(arrival) {
                let (run, arrival, dice) = (self.clone(), *arrival, index as u64);
                calls.spawn(async move {
                    let outcome = run.pods[arrival.pod].call(&arrival, started, dice).await;
                    run.books.lock().close(&arrival, outcome);
                });
            }
        }
    }

    /// What is known now.
    pub(crate) fn books(&self) -> Books {
        self.books.lock().clone()
    }

    /// Calls that were answered, and calls that have not ended.
    pub(crate) fn counts(&self) -> (u64, usize) {
        let books = self.books.lock();
        (books.answered, books.open)
    }
}

// === impl Books ===

impl Books {
    /// Notes that a call is made; false if its pod has too many open.
    fn open(&mut self, arrival: &Arrival) -> bool {
        let Arrival { pod, class, at, .. } = *arrival;
        self.made[class] += 1;
        if self.open_of[pod][class] >= MAX_OPEN {
            self.records.push(Record { pod, class, at, outcome: Outcome::Refused });
            return false;
        }
        self.open_of[pod][class] += 1;
        self.open += 1;
        true
    }

    fn close(&mut self, arrival: &Arrival, outcome: Outcome) {
        let Arrival { pod, class, at, .. } = *arrival;
        self.open_of[pod][class] -= 1;
        self.open -= 1;
        self.answered += u64::from(matches!(outcome, Outcome::Answered { .. }));
        self.records.push(Record { pod, class, at, outcome });
    }
}
