//! One pod as the ledger knows it: its stream, its demand, the credit it has not confirmed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::central::Central;
use crate::budget::BudgetId;
use crate::charge::Vector;
use crate::message::{Counters, DrawId, Seen, Terms};
use crate::policy::Name;
use crate::time::Time;
use crate::units::{Amount, Rate};

/// Demand rises at once and falls with this half-life while others wait.
const FALL_CONTENDED: Duration = Duration::from_secs(1);
/// And with this one while nobody does (`leases.md` 4.2).
const FALL_FREE: Duration = Duration::from_secs(30);
/// A report that comes sooner is added to the next: a rate over a few milliseconds says nothing.
const DEMAND_SPAN: Duration = Duration::from_millis(500);

/// One pod.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) boot: u64,
    /// The workload; `None` if no quota matches the pod.
    pub(super) flow: Option<Name>,
    pub(super) connected: bool,
    /// Its holdings are known: it may draw and be granted.
    pub(super) welcome: bool,
    /// When it is to be challenged next, while it is not welcome.
    pub(super) challenge_at: Time,
    /// This ledger has counted its figures from some point on.
    pub(super) known: bool,
    /// Its lease must be planned and granted anew.
    pub(super) changed: bool,
    /// The newest clock reading of the pod.
    pub(super) echo: Time,
    /// The smallest (ledger time - pod time) seen, as (ledger, pod): maps its clock to ours.
    clock: Option<(Time, Time)>,
    pub(super) counters: BTreeMap<BudgetId, Counters>,
    pub(super) demand: BTreeMap<BudgetId, Demand>,
    pub(super) slots: BTreeMap<BudgetId, Amount>,
    /// What was used from the lease since the last grant.
    pub(super) used: Vector,
    /// The last lease, as granted.
    pub(super) terms: BTreeMap<BudgetId, Terms>,
    pub(super) granted_at: Time,
    /// It has reported since: its lease can be renewed with a fresh anchor.
    pub(super) reported: bool,
    pub(super) last_report: Time,
    /// Up to when its figures are known, in our time.
    pub(super) told: Time,
    pub(super) waiting: u32,
    /// Requests that it has refused since it started.
    pub(super) refused: u64,
    /// 429s that it got from providers since then.
    pub(super) provider_429: u64,
    /// The longest time from a debit to its request's arrival.
    pub(super) transit: Duration,
    /// Credit that may still be spent, per budget, oldest first, with the time after which it is
    /// surely void.
    pub(super) credits: BTreeMap<BudgetId, VecDeque<(Time, Amount)>>,
    /// Draws that wait.
    pub(super) draws: BTreeSet<DrawId>,
    /// The draws that the credit was for, in case one is asked for again.
    pub(super) granted: BTreeMap<DrawId, (Time, Vector)>,
}

/// What a pod asks of one budget.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    /// What arrives, per second.
    pub(super) rate: Rate,
    /// A large request.
    pub(super) large: Amount,
    pending: Amount,
    since: Time,
}

// === impl Session ===

impl Session {
    pub(super) fn new(now: Time, boot: u64, flow: Option<Name>) -> Session {
        Session {
            boot,
            flow,
            connected: true,
            welcome: false,
            challenge_at: now,
            known: false,
            changed: false,
            echo: Time::ZERO,
            clock: None,
            counters: BTreeMap::new(),
            demand: BTreeMap::new(),
            slots: BTreeMap::new(),
            used: Vector::new(),
            terms: BTreeMap::new(),
            granted_at: now,
            reported: false,
            last_report: now,
            told: now,
            waiting: 0,
            refused: 0,
            provider_429: 0,
            transit: Duration::ZERO,
            credits: BTreeMap::new(),
            draws: BTreeSet::new(),
            granted: BTreeMap::new(),
        }
    }

    /// True while its holdings are asked for.
    pub(super) fn is_stranger(&self) -> bool {
        self.connected && !self.welcome
    }

    /// True if it holds a lease or asks for something.
    pub(super) fn is_active(&self) -> bool {
        !self.terms.is_empty() || self.demand.values().any(|demand| !demand.rate.is_zero())
    }

    /// Takes a clock reading of the pod that arrived at `now`.
    pub(super) fn heard(&mut self, now: Time, mono: Time) {
        self.echo = self.echo.max(mono);
        let later = |(ours, theirs): (Time, Time)| {
            // now - mono < ours - theirs, without negative numbers.
            u128::from(now.as_nanos()) + u128::from(theirs.as_nanos())
                <= u128::from(ours.as_nanos()) + u128::from(mono.as_nanos())
        };
        if self.clock.is_none_or(later) {
            self.clock = Some((now, mono));
        }
    }

    /// An instant of the pod's clock in the ledger's time.
    pub(super) fn to_ours(&self, theirs: Time) -> Option<Time> {
        let (ours, mono) = self.clock?;
        Some(if theirs >= mono { ours + theirs.since(mono) } else { ours - mono.since(theirs) })
    }

    /// Passes on what a provider's headers said, in our time.
    pub(super) fn note_seen(
        &self,
        now: Time,
        central: &mut Central,
        seen: &Seen,
        spend_by: Duration,
    ) {
        let ours = |theirs: Time| self.to_ours(theirs);
        let (Some(at), Some(lo), Some(hi)) =
            (ours(seen.at), ours(seen.reset_lo), ours(seen.reset_hi))
        else {
            return;
        };
        central.observe_reset(lo, hi, now);
        central.prove(now, at, seen.remaining, spend_by);
    }

    /// How long after the anchor, on the pod's clock, an instant of the ledger's comes.
    pub(super) fn after_echo(&self, ours: Time) -> Option<Duration> {
        let (at, mono) = self.clock?;
        let theirs = if ours >= at { mono + ours.since(at) } else { mono - at.since(ours) };
        (theirs > self.echo).then(|| theirs.since(self.echo))
    }

    /// Credit has been confirmed: the oldest of it is no longer outstanding. Returns how much.
    pub(super) fn confirm(&mut self, budget: &BudgetId, mut amount: Amount) -> Amount {
        let asked = amount;
        let Some(credits) = self.credits.get_mut(budget) else { return Amount::ZERO };
        while let Some((_, front)) = credits.front_mut() {
            if *front > amount {
                *front = *front - amount;
                return asked;
            }
            amount = amount - *front;
            credits.pop_front();
        }
        asked - amount
    }

    /// Credit that is surely void by now: what of each budget is no longer outstanding.
    pub(super) fn expire(&mut self, now: Time) -> Vector {
        self.granted.retain(|_, (until, _)| *until > now);
        let mut expired = Vector::new();
        for (budget, credits) in &mut self.credits {
            while credits.front().is_some_and(|(until, _)| *until <= now) {
                let amount = credits.pop_front().map_or(Amount::ZERO, |(_, amount)| amount);
                *expired.entry(budget.clone()).or_default() += amount;
            }
        }
        expired
    }

    /// All that is outstanding, which the pod will not spend any more.
    pub(super) fn drop_credits(&mut self) -> Vector {
        self.granted.clear();
        let credits = std::mem::take(&mut self.credits);
        let sum = |credits: VecDeque<(Time, Amount)>| credits.iter().map(|(_, a)| *a).sum();
        credits.into_iter().map(|(budget, credits)| (budget, sum(credits))).collect()
    }
}

// === impl Demand ===

impl Demand {
    /// Of a budget that nothing was asked of until `since`.
    pub(super) fn new(since: Time) -> Demand {
        Demand { rate: Rate::ZERO, large: Amount::ZERO, pending: Amount::ZERO, since }
    }

    /// Adds what arrived since the last report.
    pub(super) fn arrived(&mut self, now: Time, amount: Amount, large: Amount, contended: bool) {
        self.large = large;
        self.pending += amount;
        let span = now.since(self.since);
        if span < DEMAND_SPAN {
            return;
        }
        let last = Rate::per(self.pending, span);
        let fall = if contended { FALL_CONTENDED } else { FALL_FREE };
        self.rate = last.max(halve(self.rate, last, span, fall));
        self.pending = Amount::ZERO;
        self.since = now;
    }

    /// The demand at `now`, if nothing has been heard since the last report.
    pub(super) fn now(&self, now: Time, contended: bool) -> Rate {
        let fall = if contended { FALL_CONTENDED } else { FALL_FREE };
        let silent = now.since(self.since).saturating_sub(Duration::from_secs(2));
        halve(self.rate, Rate::ZERO, silent, fall)
    }
}

/// `from`, fallen towards `to` for `span` with a half-life. Linear between halvings: close enough
/// (within 6 %), and integers only.
fn halve(from: Rate, to: Rate, span: Duration, half_life: Duration) -> Rate {
    let halvings = u32::try_from(span.as_nanos() / half_life.as_nanos().max(1)).unwrap_or(u32::MAX);
    let above = (from - to).micros().checked_shr(halvings).unwrap_or(0);
    let rest = span.as_nanos() % half_life.as_nanos().max(1);
    let whole = half_life.as_nanos().max(1) * 2;
    let above = u128::from(above) * (whole - rest) / whole;
    to.min(from) + Rate::from_micros(u64::try_from(above).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(micros: u64) -> Rate {
        Rate::from_micros(micros)
    }

    #[test]
    fn demand_rises_at_once_and_falls_by_half_lives() {
        let second = Duration::from_secs(1);
        assert_eq!(halve(rate(800), rate(0), Duration::ZERO, second), rate(800));
        assert_eq!(halve(rate(800), rate(0), second, second), rate(400));
        assert_eq!(halve(rate(800), rate(0), second * 3 / 2, second), rate(300));
        assert_eq!(halve(rate(800), rate(400), second, second), rate(600));
        assert_eq!(halve(rate(800), rate(0), second * 100, second), rate(0));
    }

    #[test]
    fn confirmed_credit_is_taken_from_the_oldest() {
        let budget = BudgetId::from_wire("p/l/d");
        let mut session = Session::new(Time::ZERO, 1, None);
        let credits = session.credits.entry(budget.clone()).or_default();
        credits.push_back((Time::from_millis(10), Amount::from_units(2)));
        credits.push_back((Time::from_millis(20), Amount::from_units(3)));
        assert_eq!(session.confirm(&budget, Amount::from_units(3)), Amount::from_units(3));
        let expired = session.expire(Time::from_millis(20));
        assert_eq!(expired.get(&budget), Some(&Amount::from_units(2)));
        assert_eq!(session.confirm(&budget, Amount::from_units(1)), Amount::ZERO);
    }
}
