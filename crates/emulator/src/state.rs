//! What the admin listener tells as JSON: the truth ledger.

use std::collections::BTreeMap;

use providers::enforce::figures::Figures;
use quota::units::{Amount, MICRO};
use serde::{Deserialize, Serialize};

use crate::config::Provider;
use crate::truth::{Caller, Outcome};

/// Everything since the last reset. Amounts are in the limit's own unit and exact to a millionth.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct State {
    /// Since the last reset.
    pub span_seconds: f64,
    /// Requests that came, of any kind.
    pub requests: u64,
    /// How they were answered, by status.
    pub answers: BTreeMap<u16, u64>,
    /// Admitted calls that have not ended.
    pub in_flight: u64,
    /// The most of them at once.
    pub peak_in_flight: u64,
    /// Lines that the journal could not keep up with.
    pub journal_lost: u64,
    /// Every figure of every account that has called.
    pub limits: Vec<LimitState>,
    /// Every account and model that was called.
    pub totals: Vec<Totals>,
}

/// One figure of one account; `providers::enforce::figures` says what each number is.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct LimitState {
    /// Whose.
    pub account: String,
    /// At which provider.
    pub provider: Provider,
    /// The name of the limit.
    pub limit: String,
    /// What is counted, for example `requestsPerMinute`.
    pub dimension: String,
    /// The figure as it is now; of a shorter window, what one window admits.
    pub value: u64,
    /// What is left of it now.
    pub remaining: u64,
    /// Charged at admission and while producing.
    pub admitted: f64,
    /// Really taken by calls that ended.
    pub settled: f64,
    /// Held by calls that have not ended.
    pub in_flight: f64,
    /// What there was to take, without what is in flight.
    pub on_offer: f64,
    /// `settled` over `on_offer`.
    pub utilisation: f64,
    /// The share of the time in which the limit was binding.
    pub bound_share: f64,
    /// 429s for want of budget.
    pub refused: u64,
    /// 429s because a call can never fit.
    pub too_large: u64,
    /// The furthest it was taken beyond its limit.
    pub peak_over_admission: f64,
}

/// What one account called of one model.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Totals {
    /// Whose.
    pub account: String,
    /// At which provider.
    pub provider: Provider,
    /// The model.
    pub model: String,
    /// Calls answered completely.
    pub answered: u64,
    /// Calls that a limit refused.
    pub refused: u64,
    /// Calls that a fault made fail.
    pub failed: u64,
    /// Answers that a fault cut.
    pub cut: u64,
    /// Calls whose client went away.
    pub left: u64,
    /// Prompt tokens of all that ran.
    pub input_tokens: u64,
    /// Tokens produced.
    pub output_tokens: u64,
}

// === impl LimitState ===

impl LimitState {
    pub(crate) fn new(account: &str, provider: Provider, figures: &Figures) -> LimitState {
        LimitState {
            account: account.to_owned(),
            provider,
            limit: figures.limit_name.to_string(),
            dimension: figures.dimension.name().to_owned(),
            value: figures.limit,
            remaining: figures.remaining,
            admitted: units(figures.admitted),
            settled: units(figures.settled),
            in_flight: units(figures.in_flight),
            on_offer: units(figures.on_offer),
            utilisation: figures.utilisation(),
            bound_share: figures.bound_share(),
            refused: figures.refused,
            too_large: figures.too_large,
            peak_over_admission: units(figures.peak_debt),
        }
    }
}

// === impl Totals ===

impl Totals {
    pub(crate) fn new(caller: &Caller) -> Totals {
        Totals {
            account: caller.account.to_string(),
            provider: caller.provider,
            model: caller.model.clone(),
            answered: 0,
            refused: 0,
            failed: 0,
            cut: 0,
            left: 0,
            input_tokens: 0,
            output_tokens: 0,
        }
    }

    pub(crate) fn count(&mut self, outcome: Outcome, input: u64, output: u64) {
        match outcome {
            Outcome::Answered => self.answered += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Cut => self.cut += 1,
            Outcome::Left => self.left += 1,
        }
        self.input_tokens += input;
        self.output_tokens += output;
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people and tests, far below 2^52")]
fn units(amount: Amount) -> f64 {
    amount.micros() as f64 / MICRO as f64
}
