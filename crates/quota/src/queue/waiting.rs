//! What waits, for a status and for people.

use crate::time::Time;
use crate::units::Amount;

/// What waits of one class, workload and budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// How many draws.
    pub count: usize,
    /// What they take of the budget.
    pub cost: Amount,
    /// Since when the oldest waits.
    pub oldest: Time,
}

// === impl Waiting ===

impl Waiting {
    pub(super) fn add(&mut self, more: &Waiting) {
        self.count += more.count;
        self.cost += more.cost;
        self.oldest = self.oldest.min(more.oldest);
    }
}
