//! One budget: one figure of one limit of one provider, and how it is enforced.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::dimension::{Dimension, Window};
use crate::units::{Amount, Rate};

/// The name of a budget, the same in every program and over restarts:
/// `<provider>/<limit>/<dimension>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BudgetId(Arc<str>);

/// One figure of one limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Its name.
    pub id: BudgetId,
    /// What it counts.
    pub dimension: Dimension,
    /// How the provider enforces it.
    pub kind: Kind,
    /// What active pods together may go on using when no allocator answers, in percent.
    pub floor_percent: u32,
    /// For how long they may (T2).
    pub floor_duration: Duration,
}

/// The four kinds of budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Refills at `rate` and holds at most `burst`.
    Bucket {
        /// What accrues per second.
        rate: Rate,
        /// What it holds when full.
        burst: Amount,
    },
    /// `limit` from one edge to the next, `length` apart.
    Window {
        /// What one window admits.
        limit: Amount,
        /// The time between two edges.
        length: Duration,
    },
    /// An amount that does not come back before the period ends (UTC day).
    Stock {
        /// What one period admits.
        amount: Amount,
        /// The period.
        period: Duration,
    },
    /// Requests in flight at once.
    Slots {
        /// How many.
        count: Amount,
    },
}

impl BudgetId {
    /// The id of one figure of one limit.
    pub fn new(provider: &str, limit: &str, dimension: Dimension) -> BudgetId {
        BudgetId(format!("{provider}/{limit}/{dimension}").into())
    }

    /// An id as it came over the wire or from a file.
    pub fn from_wire(id: &str) -> BudgetId {
        BudgetId(id.into())
    }

    /// `<provider>/<limit>/<dimension>`
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BudgetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for BudgetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Budget {
    /// The budget that a limit's figure of `per_period` units makes.
    ///
    /// A figure per minute is a bucket or a window, as the provider enforces it; one per day is a
    /// stock; one without a period is slots.
    pub fn new(id: BudgetId, dimension: Dimension, per_period: u64, shape: Shape) -> Budget {
        let amount = Amount::from_units(per_period);
        let kind = match (dimension, dimension.period(), shape.window) {
            (Dimension::RequestsPerDay | Dimension::TokensPerDay, Some(period), _) => {
                Kind::Stock { amount, period }
            }
            (_, Some(period), Window::TokenBucket) => Kind::Bucket {
                rate: Rate::per(amount, period),
                burst: amount.scale(u64::from(shape.burst_percent), 100),
            },
            (_, Some(length), Window::FixedWindow) => Kind::Window { limit: amount, length },
            (_, None, _) => Kind::Slots { count: amount },
        };
        Budget {
            id,
            dimension,
            kind,
            floor_percent: shape.floor_percent,
            floor_duration: shape.floor_duration,
        }
    }

    /// What accrues per second on average; zero for stocks and slots.
    pub fn rate(&self) -> Rate {
        match self.kind {
            Kind::Bucket { rate, .. } => rate,
            Kind::Window { limit, length } => Rate::per(limit, length),
            Kind::Stock { .. } | Kind::Slots { .. } => Rate::ZERO,
        }
    }

    /// The largest single request that it can ever admit: half of what a bucket or window holds (a
    /// larger one would stop everybody else), all of a stock or of the slots.
    pub fn largest_request(&self) -> Amount {
        match self.kind {
            Kind::Bucket { burst, .. } => burst.scale(1, 2),
            Kind::Window { limit, .. } => limit.scale(1, 2),
            Kind::Stock { amount, .. } => amount,
            Kind::Slots { count } => count,
        }
    }
}

/// How a limit shapes the budgets that its figures make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How figures per minute are enforced.
    pub window: Window,
    /// What a bucket holds, in percent of a minute's worth.
    pub burst_percent: u32,
    /// What active pods may go on using without an allocator, in percent.
    pub floor_percent: u32,
    /// For how long.
    pub floor_duration: Duration,
}

impl Default for Shape {
    /// `design.md`: a full minute of burst, 20 % of floor for an hour.
    fn default() -> Shape {
        Shape {
            window: Window::TokenBucket,
            burst_percent: 100,
            floor_percent: 20,
            floor_duration: Duration::from_secs(3_600),
        }
    }
}
