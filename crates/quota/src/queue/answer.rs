//! What a draw is told when it arrives.

use std::time::Duration;

use crate::budget::BudgetId;
use crate::message::Reason;

/// A place in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// How many draws are expected to be served before it.
    pub ahead: usize,
    /// How long it takes at least, at present rates and with what is ahead of it.
    pub wait: Duration,
    /// The budget that it will wait for longest; `None` if it need not wait.
    pub binding: Option<BudgetId>,
}

/// A refusal, at once instead of after a wait that would have been in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Why.
    pub reason: Reason,
    /// After what time the same request could succeed; `None` where time does not help.
    pub retry_after: Option<Duration>,
    /// Class, place, wait and binding budget, for people.
    pub explain: String,
}
