//! The truth about one figure over a span of measurement (`design.md` 10.8): what was on offer, what
//! was taken, how often it refused, and for how long it was binding.

use std::sync::Arc;
use std::time::Duration;

use quota::dimension::Dimension;
use quota::time::Time;
use quota::units::Amount;

/// What a limit saw since its figures were last restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// The name of the limit.
    pub limit_name: Arc<str>,
    /// What is counted.
    pub dimension: Dimension,
    /// The figure as it is now, in whole units.
    pub limit: u64,
    /// What is left now, in whole units, rounded down.
    pub remaining: u64,
    /// How long the span is.
    pub span: Duration,
    /// What calls of the span were charged when they came in and while they produced.
    pub admitted: Amount,
    /// What calls that ended in the span really took; of calls begun before it, only what they took
    /// beyond what they held then.
    pub settled: Amount,
    /// What calls of the span hold that have not ended.
    pub in_flight: Amount,
    /// A bucket's level at the start and its refill; a window's limit pro rata of the span; a
    /// stock's level and what its edges brought; all slots. Without what is in flight.
    pub on_offer: Amount,
    /// Calls that this figure refused for want of budget: its 429s.
    pub refused: u64,
    /// Calls that it refused because they can never fit.
    pub too_large: u64,
    /// The furthest that settled and produced amounts took it beyond its limit.
    pub peak_debt: Amount,
    /// How long a call of usual size did not fit, or would not have but for one second's worth that
    /// careful callers keep back; in a window, how long use was ahead of an even pace.
    pub bound: Duration,
}

/// What [`Figures`] are made from.
#[derive(Clone, Debug)]
pub(super) struct Truth {
    since: Time,
    admitted: Amount,
    admitted_calls: u64,
    settled: Amount,
    in_flight: Amount,
    refunded: Amount,
    refused: u64,
    too_large: u64,
    peak_debt: Amount,
    bound: Duration,
}

// === impl Figures ===

impl Figures {
    /// The share of what was on offer that was really used; 0 if nothing was on offer.
    pub fn utilisation(&self) -> f64 {
        ratio(self.settled.micros(), self.on_offer.micros())
    }

    /// The share of the span in which the limit was binding.
    pub fn bound_share(&self) -> f64 {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        ratio(nanos(self.bound), nanos(self.span))
    }
}

// === impl Truth ===

impl Truth {
    pub(super) fn new(since: Time) -> Truth {
        Truth {
            since,
            admitted: Amount::ZERO,
            admitted_calls: 0,
            settled: Amount::ZERO,
            in_flight: Amount::ZERO,
            refunded: Amount::ZERO,
            refused: 0,
            too_large: 0,
            peak_debt: Amount::ZERO,
            bound: Duration::ZERO,
        }
    }

    /// The mean charge of a call at admission; zero before the first.
    pub(super) fn typical(&self) -> Amount {
        self.admitted.scale(1, self.admitted_calls)
    }

    pub(super) fn pass(&mut self, bound: Duration) {
        self.bound += bound;
    }

    pub(super) fn refuse(&mut self, too_large: bool) {
        if too_large {
            self.too_large += 1;
        } else {
            self.refused += 1;
        }
    }

    pub(super) fn admit(&mut self, charged: Amount) {
        self.admitted_calls += 1;
        self.admitted += charged;
        self.in_flight += charged;
    }

    pub(super) fn produce(&mut self, produced: Amount, debt: Amount, same_span: bool) {
        if same_span {
            self.admitted += produced;
            self.in_flight += produced;
        } else {
            self.settled += produced;
        }
        self.peak_debt = self.peak_debt.max(debt);
    }

    /// What an older call gives back comes on offer in this span; what it takes beyond is used in it.
    pub(super) fn settle(&mut self, held: Amount, taken: Amount, debt: Amount, same_span: bool) {
        if same_span {
            self.in_flight = self.in_flight - held;
            self.settled += taken;
        } else {
            self.refunded += held - taken;
            self.settled += taken - held;
        }
        self.peak_debt = self.peak_debt.max(debt);
    }

    /// The figures of the span up to `now`, given what came on offer by time alone and the level as
    /// headers show it.
    pub(super) fn figures(&self, now: Time, offered: Amount, level: super::Level) -> Figures {
        Figures {
            limit_name: level.limit_name,
            dimension: level.dimension,
            limit: level.limit,
            remaining: level.remaining,
            span: now.since(self.since),
            admitted: self.admitted,
            settled: self.settled,
            in_flight: self.in_flight,
            on_offer: offered + self.refunded - self.in_flight,
            refused: self.refused,
            too_large: self.too_large,
            peak_debt: self.peak_debt,
            bound: self.bound,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share for people")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
