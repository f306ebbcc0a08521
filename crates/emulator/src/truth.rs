//! The truth: what every account was charged, what every call took, who was refused.
//!
//! One lock over all of it, held for microseconds and never across an await. An [`InFlight`] is a
//! call that was admitted; it is settled when it is dropped, however that comes about.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use providers::enforce::denied::Denied;
use providers::enforce::{Level, Limiter, Ticket};
use quota::charge::Charge;
use quota::time::Time;
use quota::units::{Amount, Requests, Slots, Tokens};
use tokio::sync::mpsc;

use crate::ask::Ask;
use crate::clock::Clock;
use crate::config::{Config, Provider};
use crate::control::Change;
use crate::journal::Line;
use crate::state::{LimitState, State, Totals};

/// The books of the emulator.
pub(crate) struct Truth {
    clock: Arc<Clock>,
    config: Config,
    books: Mutex<Books>,
    journal: Option<mpsc::Sender<Line>>,
}

/// Who calls what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Caller {
    pub(crate) account: Arc<str>,
    pub(crate) provider: Provider,
    pub(crate) model: String,
}

/// A call that was admitted, until it ends.
pub(crate) struct InFlight {
    truth: Arc<Truth>,
    caller: Caller,
    ticket: Option<Ticket>,
    reserved: Charge,
    input: u64,
    produced: u64,
    outcome: Outcome,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its answer was complete.
    Answered,
    /// A fault kept the model from running: one request, no tokens.
    Failed,
    /// A fault cut the answer.
    Cut,
    /// The client went away.
    Left,
}

#[derive(Debug)]
struct Books {
    limiters: BTreeMap<(Arc<str>, Provider), Limiter>,
    totals: BTreeMap<Caller, Totals>,
    since: Time,
    requests: u64,
    answers: BTreeMap<u16, u64>,
    in_flight: u64,
    peak_in_flight: u64,
    journal_lost: u64,
}

/// Names of models come from callers; further ones are counted as one.
const MAX_CALLERS: usize = 1_000;
const OTHER: &str = "other";

// === impl Truth ===

impl Truth {
    pub(crate) fn new(
        clock: Arc<Clock>,
        config: Config,
        journal: Option<mpsc::Sender<Line>>,
    ) -> Truth {
        let books = Mutex::new(Books::new(clock.now()));
        Truth { clock, config, books, journal }
    }

    /// Charges a call, or says which figure refuses it; and what headers tell then.
    pub(crate) fn admit(
        self: &Arc<Self>,
        caller: &Caller,
        ask: &Ask,
    ) -> (Vec<Level>, Result<InFlight, Denied>) {
        let now = self.clock.now();
        let rule = self.config.admission(caller.provider);
        let cap = ask.call.output_cap.unwrap_or(0);
        let reserved = rule.charge(ask.call.text_bytes, cap, ask.call.choices);
        let mut books = self.books.lock();
        let limiter = books.limiter(&self.config, now, caller);
        let admitted = limiter.admit(now, &caller.model, &reserved);
        let levels = limiter.levels(now, &caller.model);
        let ticket = match admitted {
            Ok(ticket) => ticket,
            Err(denied) => {
                books.totals_of(caller).refused += 1;
                drop(books);
                self.write(Line::refused(now, caller, &reserved, denied.wait));
                return (levels, Err(denied));
            }
        };
        books.in_flight += 1;
        books.peak_in_flight = books.peak_in_flight.max(books.in_flight);
        let in_flight = InFlight {
            truth: Arc::clone(self),
            caller: caller.clone(),
            ticket: Some(ticket),
            reserved,
            input: 0,
            produced: 0,
            outcome: Outcome::Left,
        };
        (levels, Ok(in_flight))
    }

    /// Counts a request that came.
    pub(crate) fn came(&self) {
        self.books.lock().requests += 1;
    }

    /// Counts the status that it was answered with.
    pub(crate) fn answered(&self, status: u16) {
        *self.books.lock().answers.entry(status).or_default() += 1;
    }

    /// Counts a call that was neither admitted nor refused by a limit.
    pub(crate) fn failed(&self, caller: &Caller) {
        self.books.lock().totals_of(caller).failed += 1;
    }

    /// Changes a figure; false if there is no such figure.
    pub(crate) fn change(&self, change: &Change) -> bool {
        let now = self.clock.now();
        let limit = Amount::from_units(change.value);
        let Some(dimension) = change.dimension() else { return false };
        let mut books = self.books.lock();
        let mut found = false;
        for ((account, provider), limiter) in &mut books.limiters {
            let named = change.account.as_ref().is_none_or(|only| **only == **account)
                && change.provider.is_none_or(|only| only == *provider);
            found |= named && limiter.change_limit(now, &change.limit, dimension, limit);
        }
        found
    }

    /// True if there is such a figure.
    pub(crate) fn has(&self, change: &Change) -> bool {
        let limits = Provider::ALL
            .into_iter()
            .filter(|provider| change.provider.is_none_or(|only| only == *provider))
            .flat_map(|provider| self.config.limits(provider));
        let mut named = limits.filter(|limit| *limit.name == *change.limit);
        named.any(|limit| limit.rules.iter().any(|rule| Some(rule.dimension) == change.dimension()))
    }

    /// Lets somebody else use this share of every rate.
    pub(crate) fn external_load(&self, percent: u32) {
        let now = self.clock.now();
        for limiter in self.books.lock().limiters.values_mut() {
            limiter.external_load(now, percent);
        }
    }

    /// Begins a new span of measurement.
    pub(crate) fn restart(&self) {
        let now = self.clock.now();
        let mut books = self.books.lock();
        for limiter in books.limiters.values_mut() {
            limiter.restart_figures(now);
        }
        let (limiters, in_flight) = (std::mem::take(&mut books.limiters), books.in_flight);
        *books = Books { limiters, in_flight, peak_in_flight: in_flight, ..Books::new(now) };
    }

    /// All of it, as the admin listener shows it.
    pub(crate) fn state(&self) -> State {
        let now = self.clock.now();
        let mut books = self.books.lock();
        let limits = books
            .limiters
            .iter_mut()
            .flat_map(|((account, provider), limiter)| {
                let figures = limiter.figures(now);
                figures.into_iter().map(|figures| LimitState::new(account, *provider, &figures))
            })
            .collect();
        State {
            span_seconds: now.since(books.since).as_secs_f64(),
            requests: books.requests,
            answers: books.answers.clone(),
            in_flight: books.in_flight,
            peak_in_flight: books.peak_in_flight,
            journal_lost: books.journal_lost,
            limits,
            totals: books.totals.values().cloned().collect(),
        }
    }

    /// Makes the books of an account before its first call, so that its limits are on offer from now.
    pub(crate) fn open(&self, account: &Arc<str>, provider: Provider) {
        let (account, model) = (Arc::clone(account), String::new());
        let caller = Caller { account, provider, model };
        let now = self.clock.now();
        self.books.lock().limiter(&self.config, now, &caller);
    }

    /// A journal that cannot keep up loses lines, and says how many.
    fn write(&self, line: Line) {
        let Some(journal) = &self.journal else { return };
        if journal.try_send(line).is_err() {
            self.books.lock().journal_lost += 1;
        }
    }
}

// === impl Books ===

impl Books {
    fn new(since: Time) -> Books {
        Books {
            limiters: BTreeMap::new(),
            totals: BTreeMap::new(),
            since,
            requests: 0,
            answers: BTreeMap::new(),
            in_flight: 0,
            peak_in_flight: 0,
            journal_lost: 0,
        }
    }

    fn limiter(&mut self, config: &Config, now: Time, caller: &Caller) -> &mut Limiter {
        let key = (Arc::clone(&caller.account), caller.provider);
        let limits = || Limiter::new(now, &config.limits(caller.provider));
        self.limiters.entry(key).or_insert_with(limits)
    }

    fn totals_of(&mut self, caller: &Caller) -> &mut Totals {
        let known = self.totals.len() < MAX_CALLERS || self.totals.contains_key(caller);
        let model = if known { caller.model.clone() } else { OTHER.to_owned() };
        let caller = Caller { model, ..caller.clone() };
        let totals = Totals::new(&caller);
        self.totals.entry(caller).or_insert(totals)
    }
}

// === impl InFlight ===

impl InFlight {
    /// The prompt has been read: it costs so much, whatever comes now.
    pub(crate) fn read(&mut self, input: u64) {
        self.input = input;
    }

    /// So many more tokens were produced. Anthropic charges them at once.
    pub(crate) fn produce(&mut self, tokens: u64) {
        self.produced += tokens;
        if self.caller.provider == Provider::Anthropic && tokens > 0 {
            let now = self.truth.clock.now();
            let mut books = self.truth.books.lock();
            let limiter = books.limiter(&self.truth.config, now, &self.caller);
            if let Some(ticket) = &mut self.ticket {
                limiter.produce(now, ticket, Tokens(tokens));
            }
        }
    }

    /// Ends the call.
    pub(crate) fn finish(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// What it took in the end.
    fn actual(&self) -> Charge {
        let (input, output) = match self.outcome {
            Outcome::Failed => (0, 0),
            Outcome::Answered | Outcome::Cut | Outcome::Left => (self.input, self.produced),
        };
        Charge {
            requests: Requests(1),
            input: Tokens(input),
            output: Tokens(output),
            total: Tokens(input.saturating_add(output)),
            slots: Slots(1),
            ..Charge::default()
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let now = self.truth.clock.now();
        let actual = self.actual();
        let settled = if self.truth.config.settle { actual } else { self.reserved };
        let mut books = self.truth.books.lock();
        if let Some(ticket) = self.ticket.take() {
            books.limiter(&self.truth.config, now, &self.caller).settle(now, ticket, &settled);
        }
        books.in_flight = books.in_flight.saturating_sub(1);
        books.totals_of(&self.caller).count(self.outcome, actual.input.0, actual.output.0);
        drop(books);
        let line = Line::ended(now, &self.caller, &self.reserved, &actual, self.outcome);
        self.truth.write(line);
    }
}
