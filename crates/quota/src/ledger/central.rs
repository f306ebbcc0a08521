//! What of one budget nobody holds: the central level, from which credit is granted.

use std::time::Duration;

use super::edges::Edges;
use super::headroom::Headroom;
use super::inherited::{Inherited, Proof};
use super::log::Log;
use super::recent::Recent;
use crate::accounts::Capacity;
use crate::bucket::Bucket;
use crate::budget::{Budget, Kind};
use crate::time::Time;
use crate::timing::{TRANSIT_AT_FIRST, TRANSIT_MARGIN, TRANSIT_MAX};
use crate::units::{Amount, Rate};

/// Of a window whose edges are unknown, what may be admitted at once; the rest is paced, so that any
/// 60 s hold no more than the limit (`leases.md` 3.1).
const BLIND_BURST_PERCENT: u64 = 2;
/// Part of a burst that local levels may hold together, in percent. The rest stays central, so that
/// the largest request always finds room.
const CAPS_PERCENT: u64 = 50;
/// Twice the time between two reports of a pod that is busy.
const TOLD_IN_TIME: Duration = Duration::from_secs(2);
/// So long before a level dies nothing is held back of it any more: the next one begins right after.
const HOLDBACK_ENDS: Duration = Duration::from_millis(500);

/// One budget at the centre.
#[derive(Debug)]
pub(super) struct Central {
    pub(super) budget: Budget,
    /// The level of what refills.
    bucket: Bucket,
    /// Slots that nobody holds.
    free: Amount,
    /// And that somebody does; too wide to saturate, so that what comes is right when it goes.
    in_use: u128,
    /// Of the last `advance`.
    at: Time,
    /// R, at the last change of what it rests on.
    full_rate: Rate,
    /// g.
    guard: Duration,
    edges: Option<Edges>,
    /// Since when the edges are not known.
    blind_since: Time,
    /// When the window that lasts now began, if its edges were known by then.
    window_began: Option<Time>,
    /// For a window of unknown edges: what was admitted in the last window's length.
    log: Option<Log>,
    /// Below the cap of a bucket.
    headroom: Headroom,
    /// For a bucket that others led before: what is known to be left of it, whatever the level says.
    inherited: Option<Inherited>,
    /// Draws wait that are larger than what is ever let through at once at a pace.
    pub(super) large_waiting: usize,
    /// What local levels may hold.
    caps: Amount,
    /// When the level of the present window dies.
    resets_at: Option<Time>,
    /// Credit that is granted, and not known to be spent or returned.
    outstanding: Amount,
    settled: Recent,
    /// A stock: what of the period was granted, and up to where that is on durable record.
    pub(super) stock: Stock,
}

/// A stock's place in its period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stock {
    pub(super) spent: Amount,
    pub(super) durable: Amount,
    /// The largest draw: the mark must be ahead by as much, or it would never be served.
    pub(super) largest: Amount,
}

// === impl Central ===

impl Central {
    /// A budget that starts full (first use) or empty (after a takeover, rule 8).
    pub(super) fn new(now: Time, budget: Budget, full: bool) -> Central {
        let mut central = Central {
            bucket: Bucket::new(now, Rate::ZERO, Amount::ZERO),
            free: Amount::ZERO,
            in_use: 0,
            at: now,
            full_rate: Rate::ZERO,
            guard: TRANSIT_AT_FIRST,
            edges: None,
            blind_since: now,
            window_began: None,
            log: match budget.kind {
                Kind::Window { length, .. } => Some(Log::new(now, length + TRANSIT_AT_FIRST, full)),
                _ => None,
            },
            headroom: Headroom::new(),
            inherited: match budget.kind {
                Kind::Bucket { .. } if !full => Some(Inherited::new(now)),
                _ => None,
            },
            large_waiting: 0,
            caps: Amount::ZERO,
            budget,
            resets_at: None,
            outstanding: Amount::ZERO,
            settled: Recent::default(),
            stock: Stock::default(),
        };
        let burst = central.burst();
        central.bucket.set_cap(burst);
        if full || central.inherited.is_some() {
            central.bucket.add(burst);
        }
        central
    }

    /// What may be granted of it, leases and credit together.
    pub(super) fn capacity(&self) -> Capacity {
        let rate = self.planned_rate();
        Capacity {
            rate,
            caps: self.burst().scale(CAPS_PERCENT, 100).min(rate.over(Duration::from_secs(4))),
            floors: rate.scale(u64::from(self.budget.floor_percent), 100),
        }
    }

    /// The same level under another figure: what was there stays, as far as it fits.
    pub(super) fn with_budget(self, budget: Budget) -> Central {
        let length = |kind: Kind| match kind {
            Kind::Window { length, .. } => length,
            _ => Duration::ZERO,
        };
        let edges = self.edges.filter(|_| length(self.budget.kind) == length(budget.kind));
        let forgets = self.edges.is_some() && edges.is_none();
        let blind_since = if forgets { self.at } else { self.blind_since };
        let window_began = self.window_began.filter(|_| !forgets);
        Central { budget, edges, blind_since, window_began, ..self }
    }

    /// Sets what of it is nobody's, and what local levels may hold, from the last `advance` on.
    pub(super) fn set_room(&mut self, room: Rate, caps: Amount) {
        if self.is_rate() {
            self.caps = caps;
            if let Some(log) = &mut self.log {
                log.set_caps(self.at, caps);
            }
            self.full_rate = self.planned_rate();
            self.bucket.set_rate(room);
            self.bucket.set_cap(self.burst() - caps - self.outstanding);
            if let Some(inherited) = &mut self.inherited {
                inherited.set_rate(room);
            }
        }
    }

    /// Accrues up to `now` what was nobody's.
    pub(super) fn advance(&mut self, now: Time) {
        if let Some(at) = self.resets_at.filter(|at| *at <= now) {
            self.bucket.advance(at);
            self.bucket.empty();
            // Credit of the old window may still be spent in the new one.
            self.bucket.take(self.outstanding);
            self.resets_at = None;
            self.window_began = Some(at);
        }
        self.bucket.advance(now);
        // What pods admit from their leases is not told at once: count what they may.
        let leased = self.full_rate - self.bucket.rate();
        let admitted = leased.over(now.since(self.at));
        if let Some(log) = &mut self.log {
            log.advance(now);
            log.add(now, admitted);
            if self.edges.is_none() {
                log.look_ahead(now, leased);
            }
        }
        if let Some(inherited) = &mut self.inherited {
            inherited.advance(now, admitted);
        }
        self.at = self.at.max(now);
        self.headroom.note(self.at, self.room());
        if let Some(edges) = &mut self.edges {
            edges.roll(now);
            let at = edges.lo() - self.guard;
            if at > now {
                self.resets_at = Some(at);
            }
        }
    }

    /// What the provider's headers said of its window, in the ledger's time.
    pub(super) fn observe_reset(&mut self, lo: Time, hi: Time, now: Time) {
        let Kind::Window { length, .. } = self.budget.kind else { return };
        // A reset further away than a window, or in the past, is not one of this window.
        if lo.since(now) > length || hi <= now {
            return;
        }
        match &mut self.edges {
            Some(edges) => edges.observe(lo, hi, now),
            None => {
                self.edges = Some(Edges::new(length, lo, hi, now));
                self.fit_into_window(now);
                self.large_waiting = 0;
            }
        }
        self.resets_at = self.edges.map(|edges| edges.lo() - self.guard).filter(|at| *at > now);
    }

    /// Takes from the level what the window that lasts now has no room for.
    fn fit_into_window(&mut self, now: Time) {
        let Kind::Window { limit, length } = self.budget.kind else { return };
        let (Some(edges), Some(log)) = (&self.edges, &self.log) else { return };
        let (end, rate) = (edges.lo() - self.guard, self.planned_rate());
        if let Some(began) = self.window_began {
            // It may now last longer than the rate allows for.
            self.bucket.take(rate.over(end.since(began)) - limit);
            return;
        }
        // Its edges were not known, and it was not let through at the pace that makes one last.
        let begin = end - length;
        let older = if self.blind_since < begin { log.caps() } else { Amount::ZERO };
        let used = log.since_with_others(begin, rate) + older + rate.over(end.since(now));
        let micros = |amount: Amount| i64::try_from(amount.micros()).unwrap_or(i64::MAX);
        let surplus =
            self.bucket.level().saturating_sub(micros(limit).saturating_sub(micros(used)));
        self.bucket.take(amount(surplus));
    }

    /// What the provider said, at `at` or later, was left. `spend_by` is how long credit lives.
    pub(super) fn prove(&mut self, now: Time, at: Time, remaining: Amount, spend_by: Duration) {
        let proof = Proof { at, remaining, reach: spend_by + self.guard, caps: self.caps };
        if let Some(inherited) = &mut self.inherited {
            inherited.prove(now, self.budget.dimension, &proof);
        }
    }

    /// The level of what refills, in millionths; below zero is debt.
    fn refilled(&self) -> i64 {
        let level = self.bucket.level();
        self.inherited.as_ref().map_or(level, |inherited| inherited.level().min(level))
    }

    /// What may be taken now of what refills.
    pub(super) fn available(&self) -> Amount {
        amount(self.level().min(self.refilled()))
    }

    /// True if refill is being lost. That of a window of unknown edges is, for its pace's sake.
    pub(super) fn is_full(&self) -> bool {
        let blind = self.log.is_some() && self.edges.is_none();
        self.is_rate() && !blind && amount(self.refilled()) >= self.bucket.cap()
    }

    /// When local levels die too, and how much later again.
    pub(super) fn window(&self) -> Option<(Time, Duration)> {
        let Kind::Window { length, .. } = self.budget.kind else { return None };
        self.resets_at.map(|at| (at, length))
    }

    /// Sets the longest transit that pods have seen; zero if they have seen none.
    pub(super) fn set_transit(&mut self, longest: Duration) {
        if longest.is_zero() {
            return;
        }
        let guard = longest.min(TRANSIT_MAX) + TRANSIT_MARGIN;
        // The provider's bucket can have lost at most what refilled while a request was on its way;
        // the level is by the rest of the guard below the provider's.
        if let Kind::Bucket { rate, .. } = self.budget.kind {
            let (less, more) = (self.guard.saturating_sub(guard), guard.saturating_sub(self.guard));
            self.guard = guard;
            self.bucket.set_cap(self.bucket.cap() + rate.over(less));
            self.bucket.add(rate.over(less));
            self.bucket.take(rate.over(more));
        }
        let is_less = guard < self.guard;
        self.guard = guard;
        if is_less {
            self.fit_into_window(self.at);
        }
    }

    /// What the level would lose if local levels held `caps`.
    pub(super) fn over(&self, caps: Amount) -> Amount {
        let fits = self.burst() - caps - self.outstanding;
        amount(self.refilled()) - fits
    }

    /// What may be taken now, in millionths; below zero is debt.
    pub(super) fn level(&self) -> i64 {
        match self.budget.kind {
            Kind::Stock { amount, .. } => {
                let left = self.stock.durable.min(amount) - self.stock.spent;
                i64::try_from(left.micros()).unwrap_or(i64::MAX)
            }
            Kind::Slots { .. } => i64::try_from(self.free.micros()).unwrap_or(i64::MAX),
            Kind::Bucket { .. } | Kind::Window { .. } => match self.unlogged() {
                Some(left) if self.large_waiting > 0 => left,
                Some(left) => left.min(self.refilled()),
                None => self.refilled(),
            },
        }
    }

    /// For a window of unknown edges: what any span of its length still admits.
    fn unlogged(&self) -> Option<i64> {
        let log = self.log.as_ref().filter(|_| self.edges.is_none())?;
        if !log.is_complete(self.at) {
            return (self.large_waiting > 0).then_some(0);
        }
        let Kind::Window { limit, .. } = self.budget.kind else { return None };
        let left = limit - log.sum() - log.ahead() - log.caps();
        Some(i64::try_from(left.micros()).unwrap_or(i64::MAX))
    }

    /// True if pods may accrue `more` than they do. What leases accrue is admitted whatever the log
    /// says, so there must be room for it ahead.
    pub(super) fn bears(&self, more: Rate) -> bool {
        let Some(log) = self.log.as_ref().filter(|_| self.edges.is_none()) else { return true };
        let Kind::Window { limit, .. } = self.budget.kind else { return true };
        let leased = self.full_rate - self.bucket.rate() + more;
        log.sum() + log.ahead_at(self.at, leased) + log.caps() <= limit
    }

    /// The largest request that is let through at a pace; a larger one waits until what was admitted
    /// in the last window's length leaves room for it.
    pub(super) fn is_large(&self, amount: Amount) -> bool {
        self.edges.is_none() && self.log.is_some() && amount > self.paced_max()
    }

    fn paced_max(&self) -> Amount {
        self.burst() - self.burst().scale(CAPS_PERCENT, 100)
    }

    /// What it accrues at present.
    pub(super) fn rate(&self) -> Rate {
        self.bucket.rate()
    }

    /// The largest single request.
    pub(super) fn largest(&self) -> Amount {
        match self.budget.kind {
            Kind::Window { limit, .. } => limit.scale(CAPS_PERCENT, 100),
            Kind::Bucket { .. } => self.paced_max(),
            Kind::Stock { amount, .. } => amount,
            Kind::Slots { count } => count,
        }
    }

    /// What holdbacks are a part of. A window's limit is let through at a pace, and a level that is
    /// held back dies at its edge; of a stock nothing is held back.
    pub(super) fn paced(&self) -> Amount {
        match self.budget.kind {
            Kind::Window { .. } if self.dies_within(HOLDBACK_ENDS) => Amount::ZERO,
            Kind::Window { limit, .. } => limit.scale(BLIND_BURST_PERCENT, 100),
            Kind::Bucket { .. } => self.paced_max(),
            Kind::Stock { .. } => Amount::ZERO,
            Kind::Slots { count } => count,
        }
    }

    fn dies_within(&self, span: Duration) -> bool {
        self.resets_at.is_some_and(|at| at.since(self.at) < span)
    }

    /// What of a stock is left in this period; `None` for what comes back by itself.
    pub(super) fn left(&self) -> Option<Amount> {
        match self.budget.kind {
            Kind::Stock { amount, .. } => Some(amount - self.stock.spent),
            _ => None,
        }
    }

    /// Credit has been granted, and may be spent for a while.
    pub(super) fn grant(&mut self, amount: Amount) {
        self.outstanding += amount;
    }

    /// Credit has been spent or returned, or is void: its place in the burst is free.
    pub(super) fn no_longer_outstanding(&mut self, amount: Amount) {
        self.outstanding = self.outstanding - amount;
        if self.is_rate() {
            self.bucket.set_cap(self.burst() - self.caps - self.outstanding);
        }
    }

    /// Credit that may still be spent.
    pub(super) fn outstanding(&self) -> Amount {
        self.outstanding
    }

    /// Takes credit.
    pub(super) fn take(&mut self, amount: Amount) {
        self.stock.spent += amount;
        self.free = self.free - amount;
        if let Some(log) = &mut self.log {
            log.add(self.at, amount);
        }
        if let Some(inherited) = &mut self.inherited {
            inherited.take(self.at, amount);
        }
        let paced = if self.is_large(amount) { self.paced_max() } else { amount };
        self.bucket.take(paced);
    }

    /// What could be added to the level.
    fn room(&self) -> Amount {
        let cap = i64::try_from(self.bucket.cap().micros()).unwrap_or(i64::MAX);
        amount(cap.saturating_sub(self.refilled()))
    }

    /// True if what comes back after a report of then may have been debited in the window before: the
    /// provider's edge was not surely over, or what it changed was not yet told.
    pub(super) fn is_of_old_window(&self, reported: Time) -> bool {
        let spread = self.edges.map_or(Duration::ZERO, |edges| edges.spread());
        self.window_began.is_some_and(|began| reported < began + self.guard + spread)
    }

    /// Gives back what was not charged in the end, and was not told to come back up to `told`.
    pub(super) fn give(&mut self, told: Time, returned: Amount) {
        let amount = match self.budget.kind {
            Kind::Bucket { .. } => self.still_there(told, returned),
            _ => returned,
        };
        self.put_back(told, amount);
        self.headroom.fill(amount);
        if let Some(inherited) = &mut self.inherited {
            inherited.refunded(amount);
        }
    }

    /// What the provider still has of what came back to it since `told`. Told within moments it is all
    /// of it, unless the level was full; told late, what there was room for all along.
    fn still_there(&self, told: Time, returned: Amount) -> Amount {
        let room = self.headroom.since(told - self.guard);
        let in_time = self.at.since(told) <= TOLD_IN_TIME && !room.is_zero();
        if in_time { returned } else { returned.min(room) }
    }

    /// Puts back what was outstanding, so that its place was kept all the time, or what has no burst.
    pub(super) fn put_back(&mut self, taken: Time, amount: Amount) {
        self.stock.spent = self.stock.spent - amount;
        if let Some(log) = &mut self.log {
            log.remove(taken, amount);
        }
        if let Some(inherited) = &mut self.inherited {
            inherited.put_back(amount);
        }
        self.bucket.add(amount);
    }

    /// Slots: sets what is free; nothing is until every holder is known.
    pub(super) fn set_slots(&mut self, learning: bool) {
        if let Kind::Slots { count } = self.budget.kind {
            let held = Amount::from_micros(u64::try_from(self.in_use).unwrap_or(u64::MAX));
            self.free = if learning { Amount::ZERO } else { count - held };
        }
    }

    /// A pod that used so many slots uses so many now.
    pub(super) fn slots_change(&mut self, before: Amount, after: Amount) {
        self.in_use += u128::from(after.micros());
        self.in_use = self.in_use.saturating_sub(u128::from(before.micros()));
    }

    /// The slots in use are counted anew.
    pub(super) fn forget_slots(&mut self) {
        self.in_use = 0;
    }

    /// True for what is held until a request ends.
    pub(super) fn is_slots(&self) -> bool {
        matches!(self.budget.kind, Kind::Slots { .. })
    }

    /// True for what refills.
    pub(super) fn is_rate(&self) -> bool {
        matches!(self.budget.kind, Kind::Bucket { .. } | Kind::Window { .. })
    }

    /// Notes what was charged in the end.
    pub(super) fn settle(&mut self, now: Time, amount: Amount) {
        self.settled.add(now, amount);
    }

    /// What was charged in the last minute.
    pub(super) fn used_last_minute(&mut self, now: Time) -> Amount {
        self.settled.sum(now)
    }

    /// R: what all holders together may accrue.
    fn planned_rate(&self) -> Rate {
        match self.budget.kind {
            Kind::Bucket { rate, .. } => rate,
            Kind::Window { limit, length } => match &self.edges {
                // Whatever arrives between two edges was debited in this span.
                Some(edges) => Rate::per(limit, length + self.guard + edges.spread()),
                None => {
                    let paced = limit - limit.scale(BLIND_BURST_PERCENT, 100);
                    Rate::per(paced, length + self.guard)
                }
            },
            Kind::Stock { .. } | Kind::Slots { .. } => Rate::ZERO,
        }
    }

    /// B: what all levels together may hold.
    fn burst(&self) -> Amount {
        match self.budget.kind {
            // At least half: a guard must not eat a small burst whole.
            Kind::Bucket { rate, burst } => (burst - rate.over(self.guard)).max(burst.scale(1, 2)),
            Kind::Window { limit, .. } if self.edges.is_some() => limit,
            Kind::Window { limit, .. } => limit.scale(BLIND_BURST_PERCENT, 100),
            Kind::Stock { amount, .. } => amount,
            Kind::Slots { count } => count,
        }
    }
}

/// What a level of millionths has to give.
fn amount(level: i64) -> Amount {
    Amount::from_micros(u64::try_from(level).unwrap_or(0))
}

#[cfg(test)]
mod tests;
