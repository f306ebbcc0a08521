//! What a request takes from the limits that apply to it.

use std::collections::BTreeMap;

use crate::budget::BudgetId;
use crate::dimension::Unit;
use crate::units::{Amount, MicroUsd, Requests, Slots, Tokens};

/// What one request takes, by unit and before it is known which limits apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Charge {
    /// Calls: 1 for each attempt.
    pub requests: Requests,
    /// Prompt tokens.
    pub input: Tokens,
    /// Produced tokens.
    pub output: Tokens,
    /// What a limit on input and output together is charged; not always their sum.
    pub total: Tokens,
    /// Calls in flight.
    pub slots: Slots,
    /// Money.
    pub cost: MicroUsd,
}

/// What one request takes from each budget that applies to it: all of it, or nothing.
pub type Vector = BTreeMap<BudgetId, Amount>;

impl Charge {
    /// The part that counts against a budget of `unit`.
    pub fn of(&self, unit: Unit) -> Amount {
        Amount::from_units(match unit {
            Unit::Requests => self.requests.0,
            Unit::TotalTokens => self.total.0,
            Unit::InputTokens => self.input.0,
            Unit::OutputTokens => self.output.0,
            Unit::Slots => self.slots.0,
        })
    }
}
