//! What the emulators know of the three runs: their truth ledgers, over one or more spans.
//!
//! A demo is one span, unless the allocator is killed in it: then the outage and the seconds after it
//! are a span of their own, which is shown and not judged. Each span is measured from its own start
//! (`design.md` 10.8), so that what was left unused in the outage is nobody's merit afterwards.

use std::net::SocketAddr;
use std::ops::Add;
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
    /// What there was to take, without what is in flight.
    pub(crate) on_offer: f64,
    /// Held by calls that have not ended.
    pub(crate) in_flight: f64,
    /// Seconds in which the limit was binding.
    pub(crate) bound: f64,
    pub(crate) seconds: f64,
}

// === impl Truth ===

impl Truth {
    /// Of the emulators with these admin listeners, in the order of [`Way::ALL`].
    pub(crate) fn new(admins: [SocketAddr; 3], dimension: &'static str) -> Truth {
        Truth { admins, dimension, spans: Mutex::default() }
    }

    /// Begins a span; what was before it is forgotten unless [`Truth::close`] was called.
    pub(crate) async fn begin(&self) -> Result<(), admin::Error> {
        let [direct, fixed, weir] = self.admins;
        let path = "/__emu/reset";
        tokio::try_join!(
            admin::post(direct, path),
            admin::post(fixed, path),
            admin::post(weir, path)
        )
        .map(drop)
    }

    /// Closes a span that began with [`Truth::begin`], at `end` after the start of the demo.
    pub(crate) async fn close(&self, is_judged: bool, end: Duration) -> Result<(), admin::Error> {
        let figures = self.ask().await?;
        self.spans.lock().push(Span { is_judged, end, figures });
        Ok(())
    }

    /// The figures up to now, over all spans.
    pub(crate) async fn now(&self) -> Result<[Figures; 3], admin::Error> {
        let now = self.ask().await?;
        let before = self.spans.lock().clone();
        let sum = |way: usize| before.iter().fold(now[way], |sum, span| sum + span.figures[way]);
        Ok([sum(0), sum(1), sum(2)])
    }

    /// The closed spans.
    pub(crate) fn into_spans(self) -> Vec<Span> {
        self.spans.into_inner()
    }

    async fn ask(&self) -> Result<[Figures; 3], admin::Error> {
        let [direct, fixed, weir] = self.admins;
        let ask = async |address| {
            let state: State = admin::get(address, "/__emu/state").await?;
            Ok(Figures::of(&state, self.dimension))
        };
        let (direct, fixed, weir) = tokio::try_join!(ask(direct), ask(fixed), ask(weir))?;
        Ok([direct, fixed, weir])
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
            on_offer: limit.on_offer,
            in_flight: limit.in_flight,
            bound: limit.bound_share * seconds,
            ..counts
        })
    }

    /// The settled cost over the smaller of `demanded` and what was on offer.
    pub(crate) fn utilisation(&self, demanded: f64) -> f64 {
        ratio(self.settled, self.on_offer.min(demanded))
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

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}
