//! The figures of an account's limits, and by which arithmetic each is enforced.

use std::sync::Arc;
use std::time::Duration;

use quota::budget::Shape;
use quota::dimension::{Dimension, Protocol, Unit, Window};
use quota::units::Amount;

/// One shared limit over the models it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its name.
    pub name: Arc<str>,
    /// Patterns of the models that share it.
    pub models: Vec<String>,
    /// Its figures.
    pub rules: Vec<Rule>,
}

/// One figure of a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What is counted.
    pub dimension: Dimension,
    /// How much of it per period, or at once for slots.
    pub limit: Amount,
    /// How it is enforced.
    pub algorithm: Algorithm,
    /// Whether a refused call is charged too, up to the limit.
    pub count_rejected: bool,
}

/// The arithmetic of a limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Refills continuously at `limit` per `period` (OpenAI, Anthropic; `providers.md` 1.1).
    Bucket {
        /// The time in which `limit` accrues.
        period: Duration,
        /// What it holds, in percent of the limit; 2 models "60 a minute may be enforced as 1 a
        /// second".
        burst_percent: u32,
    },
    /// Counts from zero at each edge: `phase`, `phase + length`, and so on from the time's origin.
    Window {
        /// The time between two edges.
        length: Duration,
        /// Where the edges lie.
        phase: Duration,
    },
    /// The same arithmetic over a day. It differs in what is on offer: all that is left, at once.
    Stock {
        /// The time between two edges.
        period: Duration,
        /// Where the edges lie.
        phase: Duration,
    },
    /// Calls in flight at once.
    Slots,
}

// === impl Rule ===

impl Rule {
    /// A figure of `per_period` units, enforced as `quota::budget::Budget::new` takes it to be:
    /// figures per minute by the shape's window, figures per day as stocks. Refused calls are not
    /// counted.
    pub fn new(dimension: Dimension, per_period: u64, shape: &Shape) -> Rule {
        let phase = Duration::ZERO;
        let algorithm = match (dimension, dimension.period(), shape.window) {
            (Dimension::RequestsPerDay | Dimension::TokensPerDay, Some(period), _) => {
                Algorithm::Stock { period, phase }
            }
            (_, Some(period), Window::TokenBucket) => {
                Algorithm::Bucket { period, burst_percent: shape.burst_percent }
            }
            (_, Some(length), Window::FixedWindow) => Algorithm::Window { length, phase },
            (_, None, _) => Algorithm::Slots,
        };
        let limit = Amount::from_units(per_period);
        Rule { dimension, limit, algorithm, count_rejected: false }
    }

    /// The same figure, counting refused calls as this protocol is believed to: OpenAI charges them
    /// to its limits on requests ("unsuccessful requests contribute to your per-minute limit"),
    /// Anthropic does not say and is taken not to.
    pub fn counting_rejected_as(self, protocol: Protocol) -> Rule {
        let requests = self.dimension.unit() == Unit::Requests;
        let count_rejected = match protocol {
            Protocol::OpenAi => requests,
            Protocol::Anthropic | Protocol::OpenAiCompatible => false,
        };
        Rule { count_rejected, ..self }
    }
}
