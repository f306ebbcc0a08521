//! A request for credit that waits for its turn.

use std::sync::Arc;

use crate::charge::Vector;
use crate::policy::Name;
use crate::time::Time;

/// The workload that a draw belongs to: the key of its quota.
pub type FlowKey = Arc<str>;

/// A request for credit that waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw<K> {
    /// Its name; no two that wait have the same.
    pub key: K,
    /// Its workload.
    pub flow: FlowKey,
    /// Its priority class. One that is not configured has value 0 and no shares of its own.
    pub class: Name,
    /// What it takes, all or nothing.
    pub vector: Vector,
    /// Since when it waits; before now if it waited elsewhere.
    pub queued_at: Time,
    /// When waiting longer is of no use.
    pub deadline: Time,
}
