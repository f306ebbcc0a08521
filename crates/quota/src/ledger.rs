//! All that the allocator decides: who holds what, who is next, what is left.
//!
//! One task of the allocator owns it and the simulator drives the same code: deliver what has
//! arrived, send what [`Ledger::poll`] returns, call again at [`Ledger::next_wakeup`]. Leases are
//! accounted for in [`crate::accounts`], waiting draws in [`crate::queue`], shares in
//! [`crate::shares`]; here they meet the central levels.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::accounts::{Accounts, Registration, Takeover};
use crate::budget::BudgetId;
use crate::charge::Vector;
use crate::message::{
    Credit, Denial, DrawId, DrawRequest, Holdings, PodId, Reason, Report, ToAllocator, ToPod,
};
use crate::policy::{Name, Policy, Quota};
use crate::queue::{Config, Draw, FairQueue};
use crate::time::Time;
use crate::timing::Timing;
use crate::units::{Amount, Rate};

mod central;
mod due;
mod edges;
mod headroom;
mod inherited;
mod leasing;
mod levels;
mod log;
mod plan;
mod recent;
mod session;
mod status;

use central::Central;
use levels::Centre;
use recent::Recent;
use session::{Demand, Session};
pub use status::{BudgetStatus, PodStatus, Status, WorkloadStatus};

/// How often leases are planned anew. Draws do not wait for it.
const PLAN_EVERY: Duration = Duration::from_millis(100);
/// A stock's mark on durable record is moved on by this part of it, in percent.
const STOCK_BLOCK_PERCENT: u64 = 1;
/// A budget for which draws waited this long ago is still contended: queues run empty for moments.
const CONTENDED_FOR: Duration = Duration::from_secs(1);

/// A draw is known by its pod and its name there.
type Key = (PodId, DrawId);

/// All that the allocator decides.
#[derive(Debug)]
pub struct Ledger {
    timing: Timing,
    accounts: Accounts,
    policy: Arc<Policy>,
    /// Where in the policy the quota of each workload is.
    quotas: BTreeMap<Name, usize>,
    centre: Centre,
    queue: FairQueue<Key>,
    sessions: BTreeMap<PodId, Session>,
    /// Pods whose holdings are asked for, by when they are asked next.
    strangers: BTreeSet<(Time, PodId)>,
    /// Pods without a stream.
    away: BTreeSet<PodId>,
    /// When credit is surely void, in that order, and whose it is.
    voids: VecDeque<(Time, PodId)>,
    outbox: Vec<(PodId, ToPod)>,
    plan_at: Time,
    /// What workloads were charged lately, for people.
    used: BTreeMap<Name, BTreeMap<BudgetId, Recent>>,
    /// When draws waited for a budget last.
    contended: BTreeMap<BudgetId, Time>,
    /// Central levels start full: nobody has used this account through Weir before.
    first_use: bool,
}

/// A stock's mark: what of the period may have been granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StockMark {
    /// The stock.
    pub budget: BudgetId,
    /// Up to here.
    pub granted: Amount,
}

// === impl Ledger ===

impl Ledger {
    /// Begins an epoch. `first_use` lets central levels start full; otherwise they start empty,
    /// because nobody knows what the leader before has spent (rule 8).
    pub fn new(now: Time, timing: Timing, start: Takeover, first_use: bool) -> Ledger {
        Ledger {
            timing,
            accounts: Accounts::new(now, timing, start),
            policy: Arc::default(),
            quotas: BTreeMap::new(),
            centre: Centre::default(),
            queue: FairQueue::default(),
            sessions: BTreeMap::new(),
            strangers: BTreeSet::new(),
            away: BTreeSet::new(),
            voids: VecDeque::new(),
            outbox: Vec::new(),
            plan_at: now,
            used: BTreeMap::new(),
            contended: BTreeMap::new(),
            first_use,
        }
    }

    /// Takes a policy. What it cuts is taken back as pods confirm.
    pub fn set_policy(&mut self, now: Time, policy: Arc<Policy>) {
        self.centre.advance(now);
        self.centre.configure(now, &policy, self.first_use);
        self.count_slots();
        for draw in self.queue.configure(Config::of(&policy)) {
            self.requeue(now, draw);
        }
        self.deny_hopeless();
        for (budget, capacity) in self.centre.capacities() {
            self.accounts.set_capacity(budget, capacity);
        }
        // Others are asked for nothing, and have nothing that could be too much.
        for session in self.sessions.values_mut().filter(|session| session.is_active()) {
            session.changed = true;
        }
        let quotas = policy.quotas.iter().enumerate();
        self.quotas = quotas.map(|(index, quota)| (quota.key().into(), index)).collect();
        self.used.retain(|flow, _| self.quotas.contains_key(flow));
        self.policy = policy;
        self.first_use = false;
        self.plan_at = now;
        self.refresh(now);
    }

    /// Sets what earlier leaders of this period may have granted of stocks, from durable record.
    pub fn set_stock_marks(&mut self, marks: &[StockMark]) {
        for mark in marks {
            self.centre.set_stock(&mark.budget, mark.granted);
        }
    }

    /// The period of stocks has ended: they begin anew.
    pub fn new_period(&mut self) {
        self.centre.new_period();
    }

    /// Marks that must be on durable record before more is granted of these stocks. The caller
    /// writes them down, then calls [`Ledger::stock_marks_written`].
    pub fn stock_marks_wanted(&self) -> Vec<StockMark> {
        self.centre.stock_marks_wanted(STOCK_BLOCK_PERCENT)
    }

    /// These marks are on durable record.
    pub fn stock_marks_written(&mut self, marks: &[StockMark]) {
        for mark in marks {
            self.centre.stock_mark_written(&mark.budget, mark.granted);
        }
    }

    /// A pod has opened a stream. `quota` is its workload (`namespace/name`), if one matches. Another
    /// `boot` than before says that its old run has surely ended.
    pub fn connect(&mut self, now: Time, pod: &PodId, boot: u64, quota: Option<Name>) {
        self.centre.advance(now);
        if self.sessions.get(pod).is_some_and(|session| session.boot != boot) {
            self.end(pod);
        }
        // What waits comes again after the welcome. Granted before, it would not be in the holdings.
        self.cancel_draws(pod);
        let session = self
            .sessions
            .entry(pod.clone())
            .or_insert_with(|| Session::new(now, boot, quota.clone()));
        session.flow = quota;
        session.connected = true;
        session.welcome = false;
        self.away.remove(pod);
        self.ask_at(now, pod);
    }

    /// A pod falls under another quota now.
    pub fn set_quota(&mut self, pod: &PodId, quota: Option<Name>) {
        if let Some(session) = self.sessions.get_mut(pod) {
            session.flow = quota;
        }
    }

    /// A pod's stream has ended. What it holds, it may still hold.
    pub fn disconnect(&mut self, pod: &PodId) {
        if let Some(session) = self.sessions.get_mut(pod) {
            session.connected = false;
            session.welcome = false;
            self.strangers.remove(&(session.challenge_at, pod.clone()));
            self.away.insert(pod.clone());
        }
        self.cancel_draws(pod);
    }

    /// A pod has surely ended. What it held is free.
    pub fn gone(&mut self, now: Time, pod: &PodId) {
        self.centre.advance(now);
        self.end(pod);
        self.accounts.gone(pod);
        self.refresh(now);
    }

    /// Takes a message of a pod.
    pub fn receive(&mut self, now: Time, pod: &PodId, message: ToAllocator) {
        self.centre.advance(now);
        match message {
            ToAllocator::Holdings(holdings) => self.register(now, pod, &holdings),
            ToAllocator::Report(report) => self.report(now, pod, &report),
            ToAllocator::Draw(draw) => self.draw(now, pod, draw),
            ToAllocator::Cancel(id) => {
                let draw = self.queue.cancel(&(pod.clone(), id));
                self.left_queue(draw.as_slice());
            }
            ToAllocator::Ack(epoch, version) => {
                self.accounts.acked(pod, epoch, version);
                self.refresh(now);
            }
            ToAllocator::Bye(report) => {
                self.report(now, pod, &report);
                self.gone(now, pod);
            }
        }
    }

    /// Does all that is due, and returns what is to be sent.
    pub fn poll(&mut self, now: Time) -> Vec<(PodId, ToPod)> {
        self.centre.advance(now);
        self.expire(now);
        self.challenge(now);
        self.dispatch(now);
        for budget in self.queue.waited_for() {
            match self.contended.get_mut(budget) {
                Some(at) => *at = now,
                None => drop(self.contended.insert(budget.clone(), now)),
            }
        }
        if now >= self.plan_at {
            self.forget_silent(now);
            self.plan(now);
            self.plan_at = now + PLAN_EVERY;
        }
        self.refresh(now);
        std::mem::take(&mut self.outbox)
    }

    /// When `poll` has something to do next, if nothing else happens.
    pub fn next_wakeup(&self, now: Time) -> Option<Time> {
        let planned = (!self.sessions.is_empty()).then_some(self.plan_at);
        let challenge = self.strangers.first().map(|(at, _)| *at);
        let served = self.queue.next_wakeup(now, &self.centre);
        [planned, challenge, served].into_iter().flatten().min()
    }

    /// Who holds what, and what is left.
    pub fn status(&mut self, now: Time) -> Status {
        self.centre.advance(now);
        status::status(now, self)
    }

    /// The accounts, for status pages and the simulator's checks.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    // --- messages ---

    fn register(&mut self, now: Time, pod: &PodId, holdings: &Holdings) {
        let Some(session) = self.sessions.get_mut(pod).filter(|session| session.connected) else {
            return;
        };
        session.heard(now, holdings.mono);
        match self.accounts.register(now, pod, holdings) {
            Registration::Unasked => return,
            Registration::Stale => return self.ask_at(now, pod),
            Registration::Accepted => {}
        }
        self.strangers.remove(&(session.challenge_at, pod.clone()));
        if !session.known {
            session.known = true;
            session.counters = holdings.counters.clone();
            for (budget, debt) in &holdings.debts {
                self.centre.take(budget, *debt);
            }
        }
        // The slots in use say already what was given back since the last report.
        for (budget, counters) in &holdings.counters {
            if self.centre.get(budget).is_some_and(Central::is_slots) {
                session.counters.insert(budget.clone(), *counters);
            }
        }
        let in_use = holdings.items.iter().map(|(budget, held)| (budget.clone(), held.in_use));
        let slots: Vector = in_use.filter(|(_, in_use)| !in_use.is_zero()).collect();
        self.centre.slots_change(&session.slots, &slots);
        session.slots = slots;
        session.welcome = true;
        session.last_report = now;
        session.changed = true;
        self.plan_at = now;
        self.outbox.push((pod.clone(), ToPod::Welcome(self.accounts.epoch())));
        self.refresh(now);
    }

    fn report(&mut self, now: Time, pod: &PodId, report: &Report) {
        let Some(session) = self.sessions.get_mut(pod).filter(|session| session.welcome) else {
            return;
        };
        session.heard(now, report.mono);
        let told = session.to_ours(report.mono).unwrap_or(now);
        let last_told = std::mem::replace(&mut session.told, told);
        session.reported = true;
        session.waiting = report.waiting;
        session.refused = report.refused;
        session.provider_429 = report.provider_429;
        session.transit = report.transit;
        let (mut used, mut unused) = (Vector::new(), Vector::new());
        for (budget, item) in &report.items {
            let Some(central) = self.centre.get_mut(budget) else { continue };
            let before = session.counters.insert(budget.clone(), item.counters).unwrap_or_default();
            let since = item.counters.since(&before);
            central.no_longer_outstanding(session.confirm(budget, since.credited));
            if !central.is_of_old_window(last_told) {
                central.put_back(last_told, since.unspent);
                central.give(last_told, since.returned - since.unspent);
            }
            central.take(since.overdrawn);
            if central.is_slots() {
                let held = session.slots.entry(budget.clone()).or_default();
                let before = *held;
                *held = before + since.overdrawn - since.returned;
                central.slots_change(before, *held);
            }
            central.settle(now, since.settled);
            if let Some(flow) = &session.flow {
                let used = self.used.entry(flow.clone()).or_default();
                used.entry(budget.clone()).or_default().add(now, since.settled);
            }
            used.insert(budget.clone(), since.leased + since.overdrawn);
            unused.insert(budget.clone(), since.returned);
            let contended =
                self.contended.get(budget).is_some_and(|at| now.since(*at) < CONTENDED_FOR);
            let last = session.last_report;
            let demand = session.demand.entry(budget.clone()).or_insert_with(|| Demand::new(last));
            demand.arrived(now, since.offered, item.large, contended);
            *session.used.entry(budget.clone()).or_default() += since.leased;
            if let Some(seen) = item.seen {
                session.note_seen(now, central, &seen, self.timing.spend_by);
            }
        }
        session.last_report = now;
        if let Some(flow) = session.flow.clone() {
            self.correct(now, &flow, used, unused);
        }
        self.refresh(now);
    }

    /// Tells the queue what a workload used from leases, and what it gave back, so that its place is
    /// fair over both.
    fn correct(&mut self, now: Time, flow: &Name, mut used: Vector, mut unused: Vector) {
        let Some(class) = self.quota(flow).map(|quota| quota.class.clone()) else { return };
        used.retain(|_, amount| !amount.is_zero());
        unused.retain(|_, amount| !amount.is_zero());
        if !used.is_empty() {
            self.queue.charge(now, &class, flow, &used);
        }
        if !unused.is_empty() {
            self.queue.settle(now, &class, flow, &unused, &Vector::new());
        }
    }

    fn draw(&mut self, now: Time, pod: &PodId, draw: DrawRequest) {
        let Some(session) = self.sessions.get_mut(pod).filter(|session| session.welcome) else {
            return;
        };
        session.heard(now, draw.mono);
        // Asked for again, so its credit has not arrived and never will.
        if let Some((_, vector)) = session.granted.remove(&draw.id) {
            for (budget, amount) in vector {
                let outstanding = session.confirm(&budget, amount);
                self.centre.reclaim(now, &budget, amount, outstanding);
            }
        }
        let id = draw.id;
        if let Err(denial) = self.enqueue(now, pod, draw) {
            let denial = Denial { id, ..denial };
            self.outbox.push((pod.clone(), ToPod::Deny(denial)));
        }
    }

    fn enqueue(&mut self, now: Time, pod: &PodId, draw: DrawRequest) -> Result<(), Denial> {
        let denied = |reason: Reason, explain: String| Denial {
            id: draw.id,
            reason,
            retry_after: None,
            explain,
        };
        let flow = self.sessions.get(pod).and_then(|session| session.flow.clone());
        let quota = flow.as_ref().and_then(|flow| self.quota(flow));
        let (Some(flow), Some(quota)) = (&flow, quota) else {
            return Err(denied(Reason::NotPermitted, "no LLMQuota matches this pod".to_owned()));
        };
        if !quota.permits(&draw.class) {
            let explain = format!("LLMQuota {flow} does not permit class {}", draw.class);
            return Err(denied(Reason::NotPermitted, explain));
        }
        // A budget that the policy no longer has limits nothing.
        let mut vector = draw.vector.clone();
        vector.retain(|budget, _| self.centre.get(budget).is_some());
        for (budget, amount) in &vector {
            if let Some((reason, explain)) = self.centre.hopeless(budget, *amount) {
                return Err(denied(reason, explain));
            }
        }
        let key = (pod.clone(), draw.id);
        let vector_of = vector.clone();
        let before = self.queue.cancel(&key);
        self.left_queue(before.as_slice());
        let queued = Draw {
            key,
            flow: flow.clone(),
            class: draw.class.clone(),
            vector,
            queued_at: now - draw.waited,
            deadline: now + draw.max_wait,
        };
        self.queue.push(now, queued, &self.centre).map_err(|refused| Denial {
            id: draw.id,
            reason: refused.reason,
            retry_after: refused.retry_after,
            explain: refused.explain,
        })?;
        if let Some(session) = self.sessions.get_mut(pod) {
            session.draws.insert(draw.id);
        }
        self.centre.count_large(&vector_of, 1);
        self.centre.note(&vector_of);
        Ok(())
    }

    /// Puts a draw back that a change of policy threw out; what is gone limits nothing any more.
    fn requeue(&mut self, now: Time, mut draw: Draw<Key>) {
        draw.vector.retain(|budget, _| self.centre.get(budget).is_some());
        let (pod, id) = draw.key.clone();
        if let Err(refused) = self.queue.push(now, draw, &self.centre) {
            let (reason, retry_after) = (refused.reason, refused.retry_after);
            let denial = Denial { id, reason, retry_after, explain: refused.explain };
            self.outbox.push((pod, ToPod::Deny(denial)));
        }
    }

    /// Refuses waiting draws that a limit which was cut, or a longer guard, will never serve.
    fn deny_hopeless(&mut self) {
        let centre = &self.centre;
        let out =
            self.queue.cancel_where(|budget, amount| centre.hopeless(budget, amount).is_some());
        self.left_queue(&out);
        for draw in out {
            let why = draw
                .vector
                .iter()
                .find_map(|(budget, amount)| self.centre.hopeless(budget, *amount));
            let Some((reason, explain)) = why else { continue };
            let (pod, id) = draw.key;
            let denial = Denial { id, reason, retry_after: None, explain };
            self.outbox.push((pod, ToPod::Deny(denial)));
        }
    }

    // --- what is due ---

    /// Grants credit to whoever is next, as far as it reaches.
    fn dispatch(&mut self, now: Time) {
        let until = now + self.timing.charged(self.timing.spend_by);
        let granted = self.queue.dispatch(now, &mut self.centre);
        self.left_queue(&granted);
        for draw in granted {
            let (pod, id) = draw.key;
            let Some(session) = self.sessions.get_mut(&pod) else { continue };
            for (budget, amount) in &draw.vector {
                let Some(central) = self.centre.get_mut(budget) else { continue };
                if central.is_rate() {
                    central.grant(*amount);
                    let credits = session.credits.entry(budget.clone()).or_default();
                    credits.push_back((until, *amount));
                } else if central.is_slots() {
                    *session.slots.entry(budget.clone()).or_default() += *amount;
                    central.slots_change(Amount::ZERO, *amount);
                }
            }
            session.granted.insert(id, (until, draw.vector));
            self.voids.push_back((until, pod.clone()));
            let (epoch, echo) = (self.accounts.epoch(), session.echo);
            let credit = Credit { id, epoch, echo, spend_by: self.timing.spend_by };
            self.outbox.push((pod, ToPod::Credit(credit)));
        }
    }

    // --- small matters ---

    /// Brings the central levels in line with what pods may hold now.
    fn refresh(&mut self, now: Time) {
        self.refresh_rooms(now, |central, _, room, caps| central.set_room(room, caps));
    }

    fn refresh_rooms(
        &mut self,
        now: Time,
        mut set: impl FnMut(&mut Central, &BudgetId, Rate, Amount),
    ) {
        let learning = self.accounts.learning(now);
        for (budget, central) in self.centre.iter_mut() {
            if central.is_slots() {
                central.set_slots(learning);
                continue;
            }
            self.accounts.set_capacity(budget.clone(), central.capacity());
            let (room, caps) = (self.accounts.room(now, budget), self.accounts.caps(now, budget));
            set(central, budget, room, caps);
        }
    }

    /// Counts the slots in use under budgets that have changed.
    fn count_slots(&mut self) {
        self.centre.iter_mut().for_each(|(_, central)| central.forget_slots());
        for session in self.sessions.values() {
            self.centre.slots_change(&Vector::new(), &session.slots);
        }
    }

    fn end(&mut self, pod: &PodId) {
        self.cancel_draws(pod);
        self.away.remove(pod);
        if let Some(mut session) = self.sessions.remove(pod) {
            self.strangers.remove(&(session.challenge_at, pod.clone()));
            self.centre.slots_change(&session.slots, &Vector::new());
            for (budget, amount) in session.drop_credits() {
                self.centre.no_longer_outstanding(&budget, amount);
            }
        }
    }

    fn cancel_draws(&mut self, pod: &PodId) {
        let Some(session) = self.sessions.get_mut(pod) else { return };
        for id in std::mem::take(&mut session.draws) {
            let draw = self.queue.cancel(&(pod.clone(), id));
            self.left_queue(draw.as_slice());
        }
    }

    fn left_queue(&mut self, draws: &[Draw<Key>]) {
        for Draw { key: (pod, id), vector, .. } in draws {
            if let Some(session) = self.sessions.get_mut(pod) {
                session.draws.remove(id);
            }
            self.centre.count_large(vector, -1);
        }
    }

    fn contended(&self, now: Time, budget: &BudgetId) -> bool {
        self.contended.get(budget).is_some_and(|at| now.since(*at) < CONTENDED_FOR)
    }

    fn quota(&self, flow: &str) -> Option<&Quota> {
        self.policy.quotas.get(*self.quotas.get(flow)?)
    }
}

#[cfg(test)]
mod tests;
