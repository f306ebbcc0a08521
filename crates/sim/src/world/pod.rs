//! One pod: its holder, as the sidecar drives it, and what waits there.

use std::collections::BTreeMap;
use std::sync::Arc;

use quota::holder::Holder;
use quota::message::{DrawId, PodId};
use quota::policy::PodPolicy;
use quota::time::Time;

use super::clock::Clock;
use super::request::Request;

/// One pod. Its container may restart: then it is the same pod in another run.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) name: PodId,
    pub(super) workload: usize,
    /// Its present run; also its boot id.
    pub(super) run: u64,
    /// The process lives.
    pub(super) alive: bool,
    /// The allocator will see the end of the process.
    pub(super) watched: bool,
    /// It takes requests; one that is about to leave does not.
    pub(super) accepting: bool,
    pub(super) clock: Clock,
    pub(super) holder: Holder,
    pub(super) policy: Option<Arc<PodPolicy>>,
    /// The stream to an allocator, once it is open.
    pub(super) link: Option<usize>,
    /// Dials in a row that failed.
    pub(super) failures: u32,
    /// When it is to be woken.
    pub(super) wake_at: Time,
    pub(super) waiting: BTreeMap<DrawId, Waiting>,
    pub(super) in_flight: usize,
    /// Its part of all demand.
    pub(super) weight: u64,
    /// Requests come.
    pub(super) busy: bool,
    /// Raised whenever it becomes busy or idle: what was planned before is void.
    pub(super) phase: u64,
}

/// A request that waits for its turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) request: Request,
    /// On its pod's clock.
    pub(super) deadline: Time,
}

impl Pod {
    pub(super) fn new(now: Time, index: usize, workload: usize, clock: Clock) -> Pod {
        Pod {
            name: format!("pod-{index:03}").into(),
            workload,
            run: 1,
            alive: true,
            watched: true,
            accepting: true,
            clock,
            holder: Holder::new(clock.read(now)),
            policy: None,
            link: None,
            failures: 0,
            wake_at: Time::NEVER,
            waiting: BTreeMap::new(),
            in_flight: 0,
            weight: 1,
            busy: true,
            phase: 0,
        }
    }

    /// Its process has ended.
    pub(super) fn end(&mut self) {
        self.alive = false;
        self.link = None;
        self.wake_at = Time::NEVER;
        self.waiting.clear();
        self.in_flight = 0;
    }

    /// Its container has started again.
    pub(super) fn restart(&mut self, now: Time) {
        self.run += 1;
        self.alive = true;
        self.policy = None;
        self.failures = 0;
        self.holder = Holder::new(self.clock.read(now));
    }
}
