//! What sidecar and allocator say to each other, without its encoding (`wire` has that).
//!
//! Durations and times are the sender's own; neither side ever compares wall clocks. `mono` is the
//! sidecar's boot-time clock, echoed by the allocator so that the sidecar can anchor an expiry at an
//! instant that surely came before the grant.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::budget::BudgetId;
use crate::charge::Vector;
use crate::policy::Name;
use crate::time::Time;
use crate::units::{Amount, Rate};

/// Who leads: raised at every takeover, before the first message of the new leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

/// The order of grants to one pod within an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u64);

/// Ties an answer to the challenge that asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Nonce(pub u64);

/// A draw's name within one run of a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DrawId(pub u64);

/// A pod's name for as long as it exists.
pub type PodId = Arc<str>;

/// What a lease lets a pod do, per budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Terms {
    /// What accrues locally until the lease ends.
    pub rate: Rate,
    /// What may be held locally, under lease and floor alike.
    pub cap: Amount,
    /// What accrues after the lease has ended; at most `rate`.
    pub floor: Rate,
    /// For how long, from the anchor, the floor lasts (T2).
    pub floor_ttl: Duration,
    /// What is put into the local level once, when this lease is adopted: what its cap took from a
    /// central level that was full.
    pub fill: Amount,
    /// When the level dies: just before each end of the provider's window.
    pub window_end: Option<WindowEnd>,
}

/// The ends of a provider's windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct WindowEnd {
    /// The next one, from the anchor.
    pub after: Duration,
    /// The time from one to the next.
    pub length: Duration,
}

/// A lease: all that one pod holds. It replaces every earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseSet {
    /// Who grants it.
    pub epoch: Epoch,
    /// Its place in the order of grants to this pod.
    pub version: Version,
    /// The anchor: the newest clock reading of the pod that the allocator had before it granted.
    pub echo: Time,
    /// For how long, from the anchor, the full rate lasts (T1).
    pub ttl: Duration,
    /// What it grants.
    pub items: BTreeMap<BudgetId, Terms>,
}

/// The answer to a challenge: what a pod holds at this instant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holdings {
    /// The challenge that it answers.
    pub nonce: Nonce,
    /// The pod's clock.
    pub mono: Time,
    /// How much longer the full rate lasts; zero if the lease has ended.
    pub ttl_left: Duration,
    /// What is held.
    pub items: BTreeMap<BudgetId, Held>,
    /// Cumulative figures, so that the successor counts from here.
    pub counters: BTreeMap<BudgetId, Counters>,
    /// Charges above their reservation that no allocator has confirmed.
    pub debts: Vector,
}

/// What a pod holds of one budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Held {
    /// The leased rate.
    pub rate: Rate,
    /// The cap of the local level.
    pub cap: Amount,
    /// The floor.
    pub floor: Rate,
    /// How much longer the floor lasts.
    pub floor_left: Duration,
    /// For concurrency: slots in use.
    pub in_use: Amount,
}

/// What happened at one pod with one budget since the sidecar started. Cumulative, so that a report
/// that is lost or doubled changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Counters {
    /// Reserved amounts of all requests that arrived.
    pub offered: Amount,
    /// Reserved amounts admitted from the lease.
    pub leased: Amount,
    /// Amounts of credits that arrived and were spent or given back: no longer outstanding.
    pub credited: Amount,
    /// Amounts of credits and reservations given back: unused, or reserved above what was charged.
    pub returned: Amount,
    /// Charges above their reservation.
    pub overdrawn: Amount,
    /// What was charged in the end.
    pub settled: Amount,
    /// The part of what was given back that no request had taken: unused credit, and levels.
    pub unspent: Amount,
}

impl Counters {
    /// What has been added since `before`.
    pub fn since(&self, before: &Counters) -> Counters {
        Counters {
            offered: self.offered - before.offered,
            leased: self.leased - before.leased,
            credited: self.credited - before.credited,
            returned: self.returned - before.returned,
            overdrawn: self.overdrawn - before.overdrawn,
            settled: self.settled - before.settled,
            unspent: self.unspent - before.unspent,
        }
    }
}

/// What a pod tells, every second while active.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Report {
    /// The pod's clock.
    pub mono: Time,
    /// Per budget.
    pub items: BTreeMap<BudgetId, ReportItem>,
    /// Requests that wait at the pod.
    pub waiting: u32,
    /// Requests refused since the sidecar started.
    pub refused: u64,
    /// 429s of the provider since the sidecar started.
    pub provider_429: u64,
    /// The longest time, in the last minute, from a debit to the moment when the request was surely
    /// at the provider. Zero if none was sent.
    pub transit: Duration,
}

/// What a pod tells about one budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ReportItem {
    /// Cumulative figures.
    pub counters: Counters,
    /// A large request of this pod (95th percentile).
    pub large: Amount,
    /// What the provider's headers said last.
    pub seen: Option<Seen>,
}

/// What a provider's headers said of one budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Seen {
    /// The earliest instant, on the pod's clock, at which the provider can have said so.
    pub at: Time,
    /// The earliest instant, on the pod's clock, at which the window can end.
    pub reset_lo: Time,
    /// The latest.
    pub reset_hi: Time,
    /// The limit in force.
    pub limit: Amount,
    /// What is left of it.
    pub remaining: Amount,
}

impl Seen {
    /// True if some window, of which one ends between `reset_lo` and `reset_hi` and each lasts
    /// `length`, may have ended after `from` and before `to`.
    pub fn edge_between(&self, from: Time, to: Time, length: Duration) -> bool {
        let nanos = |time: Time| i128::from(time.as_nanos());
        let length = i128::try_from(length.as_nanos()).unwrap_or(i128::MAX).max(1);
        // The first latest end after `from`: one length later at most.
        let ahead = match (nanos(self.reset_hi) - nanos(from)).rem_euclid(length) {
            0 => length,
            ahead => ahead,
        };
        ahead - (nanos(self.reset_hi) - nanos(self.reset_lo)) < nanos(to) - nanos(from)
    }
}

/// A request for credit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrawRequest {
    /// Its name; a retry has the same.
    pub id: DrawId,
    /// The pod's clock.
    pub mono: Time,
    /// What it needs, all or nothing.
    pub vector: Vector,
    /// Its priority class.
    pub class: Name,
    /// How much longer it may wait.
    pub max_wait: Duration,
    /// How long it has waited.
    pub waited: Duration,
    /// The trace it belongs to (W3C `traceparent`), if any.
    pub traceparent: Option<Arc<str>>,
}

/// Credit for one draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credit {
    /// The draw.
    pub id: DrawId,
    /// Who grants it.
    pub epoch: Epoch,
    /// The anchor of `spend_by`.
    pub echo: Time,
    /// From the anchor: later it is void.
    pub spend_by: Duration,
}

/// A refusal of a draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The draw.
    pub id: DrawId,
    /// Why.
    pub reason: Reason,
    /// When to come back; `None` for never.
    pub retry_after: Option<Duration>,
    /// Band, position, level and binding budget, for people.
    pub explain: String,
}

/// Why a request is refused. The labels are the closed list of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Its turn comes after its deadline.
    Deadline,
    /// It is larger than the budget can ever admit at once.
    TooLarge,
    /// The budget of the day or month is used up.
    Exhausted,
    /// Too many wait already.
    QueueFull,
    /// The quota does not permit it.
    NotPermitted,
    /// No allocator answers, and leases and floors have ended.
    AllocatorLost,
}

impl Reason {
    /// Its label in metrics, headers and traces.
    pub const fn label(self) -> &'static str {
        match self {
            Reason::Deadline => "deadline",
            Reason::TooLarge => "too_large",
            Reason::Exhausted => "exhausted",
            Reason::QueueFull => "queue_full",
            Reason::NotPermitted => "not_permitted",
            Reason::AllocatorLost => "allocator_lost",
        }
    }

    /// The reason of a label.
    pub fn from_label(label: &str) -> Option<Reason> {
        [
            Reason::Deadline,
            Reason::TooLarge,
            Reason::Exhausted,
            Reason::QueueFull,
            Reason::NotPermitted,
            Reason::AllocatorLost,
        ]
        .into_iter()
        .find(|reason| reason.label() == label)
    }
}

/// What a pod sends once its stream is open (`Hello` comes before, and is the shell's).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToAllocator {
    /// The answer to a challenge.
    Holdings(Holdings),
    /// Demand and usage.
    Report(Report),
    /// A request for credit.
    Draw(DrawRequest),
    /// A draw that is no longer wanted.
    Cancel(DrawId),
    /// A lease is in force: what it replaced is no longer held.
    Ack(Epoch, Version),
    /// The pod ends and holds nothing any more; its last figures.
    Bye(Report),
}

/// What the leader sends (`Policy`, `Drain` and `Redirect` are the shell's).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToPod {
    /// What do you hold? Answering binds the pod to refuse every older epoch.
    Challenge(Epoch, Nonce),
    /// The holdings are taken down: draws may be sent, pending ones again.
    Welcome(Epoch),
    /// A lease.
    Lease(LeaseSet),
    /// Credit for a draw.
    Credit(Credit),
    /// A refusal of a draw.
    Deny(Denial),
}
