//! One run of the allocator: its ledger, as the real program drives it, and the record that
//! outlives it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quota::accounts::Takeover;
use quota::budget::BudgetId;
use quota::ledger::Ledger;
use quota::message::{Epoch, PodId};
use quota::policy::{Name, Policy};
use quota::time::Time;
use quota::timing::Timing;
use quota::units::Rate;

use super::clock::Clock;
use super::rules;

/// One run of the allocator.
#[derive(Debug)]
pub(super) struct Allocator {
    pub(super) clock: Clock,
    pub(super) ledger: Ledger,
    pub(super) alive: bool,
    /// The stream of each pod that has one.
    pub(super) sessions: BTreeMap<usize, usize>,
    /// Pods whose end nobody will see, and when all that they may hold has surely ended. On its
    /// clock.
    pub(super) silent: BTreeMap<usize, Time>,
    pub(super) wake_at: Time,
}

/// What is known after the death of an allocator.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) epoch: u64,
    pub(super) pods: BTreeMap<usize, Run>,
    floors: BTreeMap<BudgetId, Rate>,
    floor_ttl: Duration,
    /// Until then an earlier leader may still act. In the world's time, as the next.
    quiet_until: Time,
    /// Until then pods that are not on record may hold something.
    unknown_until: Time,
}

/// A pod on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) run: u64,
    pub(super) watched: bool,
}

/// How a leader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// Nobody has led before.
    FirstUse,
    /// The leader before has surely ended. One before that may still go on, if that one waited for it.
    Confirmed,
    /// It may go on for so long.
    Silent(Duration),
    /// It may go on for as long as leases do, and nobody knows which pods there are.
    Lost,
}

/// Stands for pods that are not on record.
const UNKNOWN_PODS: &str = "?";

// === impl Allocator ===

impl Allocator {
    pub(super) fn new(
        now: Time,
        clock: Clock,
        (timing, beginning): (Timing, Beginning),
        mut roster: BTreeSet<PodId>,
        record: &mut Record,
    ) -> Allocator {
        record.epoch += 1;
        match beginning {
            Beginning::FirstUse | Beginning::Confirmed => {}
            Beginning::Silent(quiet) => record.quiet_until = now + quiet,
            Beginning::Lost => {
                record.quiet_until = now + timing.charged(timing.lease_ttl);
                record.unknown_until = record.quiet_until + record.longest_hold(timing);
                roster.clear();
            }
        }
        if now < record.unknown_until {
            roster.insert(UNKNOWN_PODS.into());
        }
        let quiet = record.quiet_until.since(now);
        let now = clock.read(now);
        let start = Takeover {
            epoch: Epoch(record.epoch),
            quiet_until: now + quiet,
            roster,
            floors: record.floors.clone(),
            floor_ttl: record.floor_ttl,
        };
        Allocator {
            clock,
            ledger: Ledger::new(now, timing, start, beginning == Beginning::FirstUse),
            alive: true,
            sessions: BTreeMap::new(),
            silent: BTreeMap::new(),
            wake_at: Time::NEVER,
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.ledger.accounts().epoch()
    }
}

// === impl Record ===

impl Record {
    /// Floors of these budgets may be promised from now on.
    pub(super) fn promise_floors(&mut self, policy: &Policy) {
        for budget in policy.budgets() {
            let floors = budget.rate().scale(u64::from(budget.floor_percent), 100);
            if !floors.is_zero() {
                let most = self.floors.entry(budget.id.clone()).or_default();
                *most = floors.max(*most);
                self.floor_ttl = self.floor_ttl.max(budget.floor_duration);
            }
        }
    }

    /// After this time in silence a pod surely holds nothing.
    pub(super) fn longest_hold(&self, timing: Timing) -> Duration {
        timing.charged(self.floor_ttl.max(timing.lease_ttl))
    }
}

/// The workload of a pod, as the policy has it.
pub(super) fn workload(policy: &Arc<Policy>, workload: usize) -> Option<Name> {
    policy.quota_of(rules::NAMESPACE, &rules::labels(workload)).map(|quota| quota.key().into())
}
