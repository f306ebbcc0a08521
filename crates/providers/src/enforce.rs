//! How a provider enforces its limits: the one model that the emulator serves over HTTP and the
//! simulator runs in virtual time.
//!
//! A [`Limiter`] is one account. Time is an argument and all arithmetic is exact (`meter.rs` says
//! how), so that a caller who keeps within `burst + rate * time` to the last millionth is never
//! refused by a rounding error. Not here: what a call is charged (`admission.rs` and the adapters),
//! headers and bodies (the emulator).

mod meter;

pub mod admission;
pub mod denied;
pub mod figures;
pub mod rule;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use quota::charge::Charge;
use quota::dimension::{Dimension, Unit};
use quota::glob;
use quota::time::Time;
use quota::units::{Amount, Tokens};

use self::denied::Denied;
use self::figures::{Figures, Truth};
use self::meter::Meter;
use self::rule::{Limit, Rule};

/// The limits of one account, and the truth about what was taken from them.
#[derive(Clone, Debug)]
pub struct Limiter {
    /// Sorted by dimension: the order in which a provider tests them.
    budgets: Vec<Budget>,
    /// Raised at each restart of the figures, so that a ticket knows whether it is older.
    span: u32,
}

/// A call that was admitted. It holds what it took until it is settled.
#[derive(Debug)]
#[must_use = "a ticket that is not settled keeps its slot and its reservation"]
pub struct Ticket {
    holds: Vec<Hold>,
    span: u32,
}

/// What a rate-limit header tells about one figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// The name of the limit.
    pub limit_name: Arc<str>,
    /// What is counted.
    pub dimension: Dimension,
    /// The figure itself, in whole units.
    pub limit: u64,
    /// What is left, in whole units, rounded down.
    pub remaining: u64,
    /// A bucket: until it is full again. A window or stock: until the next edge. Slots: zero.
    pub reset: Duration,
}

#[derive(Clone, Debug)]
struct Budget {
    limit_name: Arc<str>,
    models: Arc<[String]>,
    rule: Rule,
    meter: Meter,
    truth: Truth,
}

/// What a ticket took from one budget.
#[derive(Debug)]
struct Hold {
    budget: usize,
    charged: Amount,
    /// The window it was charged to.
    window: u64,
}

// === impl Limiter ===

impl Limiter {
    /// Limits with full buckets, untouched windows and free slots.
    pub fn new(now: Time, limits: &[Limit]) -> Limiter {
        let mut budgets: Vec<Budget> =
            limits.iter().flat_map(|limit| Budget::of_limit(now, limit)).collect();
        budgets.sort_by_key(|budget| budget.rule.dimension);
        Limiter { budgets, span: 0 }
    }

    /// Admits a call of `model`, or says which figure refuses it. All limits that cover the model are
    /// tested before any is charged; without one the call passes.
    pub fn admit(&mut self, now: Time, model: &str, charge: &Charge) -> Result<Ticket, Denied> {
        let applying: Vec<usize> = self.applying(now, model);
        let denied = applying
            .iter()
            .find_map(|&at| Some((at, self.budgets[at].too_large(charge)?)))
            .or_else(|| {
                applying.iter().find_map(|&at| Some((at, self.budgets[at].exhausted(charge)?)))
            });
        if let Some((at, denied)) = denied {
            self.budgets[at].truth.refuse(denied.too_large);
            for at in applying {
                self.budgets[at].count_rejected(charge);
            }
            return Err(denied);
        }
        let holds = applying
            .into_iter()
            .map(|at| {
                let budget = &mut self.budgets[at];
                let charged = charge.of(budget.rule.dimension.unit());
                budget.meter.charge(charged);
                budget.truth.admit(charged);
                Hold { budget: at, charged, window: budget.meter.window() }
            })
            .collect();
        Ok(Ticket { holds, span: self.span })
    }

    /// Charges output as it is produced, to limits on output and on input and output together
    /// (Anthropic, `providers.md` 4.1). Never refuses: what exceeds the limit is debt.
    pub fn produce(&mut self, now: Time, ticket: &mut Ticket, output: Tokens) {
        for hold in &mut ticket.holds {
            let budget = &mut self.budgets[hold.budget];
            if !matches!(budget.rule.dimension.unit(), Unit::OutputTokens | Unit::TotalTokens) {
                continue;
            }
            budget.advance(now);
            let produced = Amount::from_units(output.0);
            budget.meter.charge(produced);
            hold.charged += produced;
            hold.window = budget.meter.window();
            budget.truth.produce(produced, budget.meter.debt(), ticket.span == self.span);
        }
    }

    /// Ends a call: what it really took replaces what was charged. A difference to the caller's
    /// favour comes back (in a window only before its edge), one to its disfavour is charged and may
    /// leave a debt. A slot is always given back.
    pub fn settle(&mut self, now: Time, ticket: Ticket, actual: &Charge) {
        for hold in ticket.holds {
            let budget = &mut self.budgets[hold.budget];
            budget.advance(now);
            let unit = budget.rule.dimension.unit();
            let taken = actual.of(unit);
            if unit == Unit::Slots {
                budget.meter.refund(hold.charged, hold.window);
            } else if taken < hold.charged {
                budget.meter.refund(hold.charged - taken, hold.window);
            } else {
                budget.meter.charge(taken - hold.charged);
            }
            let same_span = ticket.span == self.span;
            budget.truth.settle(hold.charged, taken, budget.meter.debt(), same_span);
        }
    }

    /// Changes a figure without telling anybody. What is used stays used; a bucket keeps its burst
    /// in percent. False if there is no such figure.
    pub fn change_limit(
        &mut self,
        now: Time,
        limit_name: &str,
        dimension: Dimension,
        limit: Amount,
    ) -> bool {
        let mut found = false;
        for budget in &mut self.budgets {
            if *budget.limit_name == *limit_name && budget.rule.dimension == dimension {
                budget.advance(now);
                budget.rule.limit = limit;
                budget.meter.change_limit(limit);
                found = true;
            }
        }
        found
    }

    /// Lets somebody else use `percent` of every rate from now on: other clusters, batch jobs.
    pub fn external_load(&mut self, now: Time, percent: u32) {
        for budget in &mut self.budgets {
            budget.advance(now);
            budget.meter.external_load(percent);
        }
    }

    /// The figures that apply to `model` as headers tell them, in the order of dimensions.
    pub fn levels(&mut self, now: Time, model: &str) -> Vec<Level> {
        let applying = self.applying(now, model);
        applying.into_iter().map(|at| self.budgets[at].level(now)).collect()
    }

    /// The truth about every figure since the figures were last restarted.
    pub fn figures(&mut self, now: Time) -> Vec<Figures> {
        self.budgets
            .iter_mut()
            .map(|budget| {
                budget.advance(now);
                budget.truth.figures(now, budget.meter.offered(), budget.level(now))
            })
            .collect()
    }

    /// Begins a new span of measurement; levels, debts and calls in flight stay.
    pub fn restart_figures(&mut self, now: Time) {
        self.span = self.span.wrapping_add(1);
        for budget in &mut self.budgets {
            budget.advance(now);
            budget.meter.restart_offer();
            budget.truth = Truth::new(now);
        }
    }

    /// The budgets of `model`, brought up to `now`.
    fn applying(&mut self, now: Time, model: &str) -> Vec<usize> {
        let mut applying = Vec::with_capacity(self.budgets.len());
        for (at, budget) in self.budgets.iter_mut().enumerate() {
            if budget.models.iter().any(|pattern| glob::matches(pattern, model)) {
                budget.advance(now);
                applying.push(at);
            }
        }
        applying
    }
}

// === impl Budget ===

impl Budget {
    fn of_limit(now: Time, limit: &Limit) -> impl Iterator<Item = Budget> {
        let models: Arc<[String]> = limit.models.clone().into();
        limit.rules.iter().map(move |rule| {
            let meter = Meter::new(now, rule);
            let (limit_name, models) = (Arc::clone(&limit.name), Arc::clone(&models));
            Budget { limit_name, models, rule: rule.clone(), meter, truth: Truth::new(now) }
        })
    }

    fn advance(&mut self, now: Time) {
        let bound = self.meter.advance(now, self.truth.typical());
        self.truth.pass(bound);
    }

    fn too_large(&self, charge: &Charge) -> Option<Denied> {
        let requested = charge.of(self.rule.dimension.unit());
        let too_large = requested > self.rule.limit || requested > self.meter.capacity();
        too_large.then(|| self.denied(requested, true))
    }

    fn exhausted(&self, charge: &Charge) -> Option<Denied> {
        let requested = charge.of(self.rule.dimension.unit());
        (!self.meter.fits(requested)).then(|| self.denied(requested, false))
    }

    fn denied(&self, requested: Amount, too_large: bool) -> Denied {
        Denied {
            limit_name: Arc::clone(&self.limit_name),
            dimension: self.rule.dimension,
            limit: self.rule.limit.units(),
            used: self.meter.used_rounded(),
            requested: requested.units(),
            too_large,
            wait: if too_large { None } else { self.meter.wait(requested) },
        }
    }

    /// The published waits of request limits are always one full request (`providers.md` 2.2): a
    /// refused request is charged, and the bucket saturates at its limit.
    fn count_rejected(&mut self, charge: &Charge) {
        if self.rule.count_rejected {
            self.meter.charge_saturating(charge.of(self.rule.dimension.unit()));
        }
    }

    fn level(&self, now: Time) -> Level {
        Level {
            limit_name: Arc::clone(&self.limit_name),
            dimension: self.rule.dimension,
            limit: self.rule.limit.units(),
            remaining: self.meter.remaining().units(),
            reset: self.meter.reset(now),
        }
    }
}
