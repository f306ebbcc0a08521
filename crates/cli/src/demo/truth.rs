//! What the emulators know of the three runs: their truth ledgers, over one or more spans.
//!
//! A demo is one span, unless the allocator is killed in it: then the outage and the seconds after it
//! are a span of their own, which is shown and not judged. What accrues and what is used in it is
//! taken out of both sides.

use std::net::SocketAddr;
use std::ops::{Add, Sub};
use std::time::Duration;

use emulator::state::State;
use parking_lot::Mutex;

use crate::admin;

/// Asks the emulators, and keeps what they have said.
#[derive(Debug)]
pub(crate) struct Truth {
    admins: [SocketAddr; 3],
    dimension: &'static str,
    spans: Mutex<Vec<Span>>,
    /// Of all closed spans together.
    closed: Mutex<[Figures; 3]>,
}

/// A part of the demo, and the figures of each run in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Whether it counts for utilisation and waits.
    pub(crate) is_judged: bool,
    /// After the start of the demo.
    pub(crate) end: Duration,
    pub(crate) figures: [Figures; 3],
}

/// Figures of one run. Amounts are in the limit's unit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    /// 429s.
    pub(crate) refused: u64,
    /// Calls that were answered completely.
    pub(crate) answered: u64,
    /// Charged at admission.
    pub(crate) admitted: f64,
    /// Really taken by calls that ended.
    pub(crate) settled: f64,
    /// What there was to take, with what is in flight.
    pub(crate) on_offer: f64,
    /// Change of what calls hold that have not ended.
    pub(crate) in_flight: f64,
    /// Seconds in which the limit was binding.
    pub(crate) bound: f64,
    pub(crate) seconds: f64,
}

// === impl Truth ===

impl Truth {
    /// Of the emulators with these admin listeners, in the order of `Way::ALL`.
    pub(crate) fn new(admins: [SocketAddr; 3], dimension: &'static str) -> Truth {
        Truth { admins, dimension, spans: Mutex::default(), closed: Mutex::default() }
    }

    /// Begins the first span; what was before it is forgotten.
    pub(crate) async fn begin(&self) -> Result<(), admin::Error> {
        let [direct, fixed, weir] = self.admins;
        let reset = async |address| admin::post(address, "/__emu/reset").await;
        tokio::try_join!(reset(direct), reset(fixed), reset(weir)).map(drop)
    }

    /// Closes a span at `end` after the start of the demo; the next one begins.
    pub(crate) async fn close(&self, is_judged: bool, end: Duration) -> Result<(), admin::Error> {
        let now = self.now().await?;
        let before = std::mem::replace(&mut *self.closed.lock(), now);
        let figures = [0, 1, 2].map(|way| now[way] - before[way]);
        self.spans.lock().push(Span { is_judged, end, figures });
        Ok(())
    }

    /// The figures since the start.
    pub(crate) async fn now(&self) -> Result<[Figures; 3], admin::Error> {
        let [direct, fixed, weir] = self.admins;
        let ask = async |address| {
            let state: State = admin::get(address, "/__emu/state").await?;
            Ok(Figures::of(&state, self.dimension))
        };
        let (direct, fixed, weir) = tokio::try_join!(ask(direct), ask(fixed), ask(weir))?;
        Ok([direct, fixed, weir])
    }

    /// The closed spans.
    pub(crate) fn into_spans(self) -> Vec<Span> {
        self.spans.into_inner()
    }
}

// === impl Figures ===

impl Figures {
    fn of(state: &State, dimension: &str) -> Figures {
        let refused = state.limits.iter().map(|limit| limit.refused + limit.too_large).sum();
        let answered = state.totals.iter().map(|totals| totals.answered).sum();
        let limit = state.limits.iter().find(|limit| limit.dimension == dimension);
        let seconds = state.span_seconds;
        let counts = Figures { refused, answered, seconds, ..Figures::default() };
        limit.map_or(counts, |limit| Figures {
            admitted: limit.admitted,
            settled: limit.settled,
            on_offer: limit.on_offer + limit.in_flight,
            in_flight: limit.in_flight,
            bound: limit.bound_share * seconds,
            ..counts
        })
    }

    /// The settled cost over the smaller of what was `demanded` and what was on offer, both without
    /// what is in flight (`design.md` 10.8).
    pub(crate) fn utilisation(&self, demanded: f64) -> f64 {
        ratio(self.settled, self.on_offer.min(demanded) - self.in_flight)
    }

    /// The share of the time in which the limit was binding.
    pub(crate) fn bound_share(&self) -> f64 {
        ratio(self.bound, self.seconds)
    }
}

impl Add for Figures {
    type Output = Figures;

    fn add(self, other: Figures) -> Figures {
        Figures {
            refused: self.refused + other.refused,
            answered: self.answered + other.answered,
            admitted: self.admitted + other.admitted,
            settled: self.settled + other.settled,
            on_offer: self.on_offer + other.on_offer,
            in_flight: self.in_flight + other.in_flight,
            bound: self.bound + other.bound,
            seconds: self.seconds + other.seconds,
        }
    }
}

impl Sub for Figures {
    type Output = Figures;

    /// What came since `earlier`.
    fn sub(self, earlier: Figures) -> Figures {
        Figures {
            refused: self.refused - earlier.refused,
            answered: self.answered - earlier.answered,
            admitted: self.admitted - earlier.admitted,
            settled: self.settled - earlier.settled,
            on_offer: self.on_offer - earlier.on_offer,
            in_flight: self.in_flight - earlier.in_flight,
            bound: self.bound - earlier.bound,
            seconds: self.seconds - earlier.seconds,
        }
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}
