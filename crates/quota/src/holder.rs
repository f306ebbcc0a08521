//! All that a pod decides: what it admits from its lease, what it draws, what it refuses, what it
//! gives back.
//!
//! The sidecar's `lease` task and the simulator drive it: they call it with the time, deliver what
//! [`Holder::poll`] returns, and call again at [`Holder::next_wakeup`]. It does no I/O. Fail open or
//! fail closed is decided here ([`Holder::lost`]) and nowhere else. The lease itself is in
//! [`crate::lease`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::budget::BudgetId;
use crate::charge::Vector;
use crate::lease::{Adoption, Lease};
use crate::message::{
    Credit, DrawId, Epoch, Holdings, LeaseSet, Nonce, Reason, Seen, ToAllocator, ToPod,
};
use crate::policy::{Name, OnLoss, PodPolicy};
use crate::time::Time;
use crate::timing::{LEASE_TTL, TRANSIT_MAX};
use crate::units::Amount;

mod admission;
mod books;
mod levels;
mod waiters;

pub use admission::{Admission, Ask, Event, Refused, Reservation, Source};
use books::Books;
use levels::Levels;
use waiters::{Waiter, Waiters};

/// For how long an allocator does not answer before the pod counts it as lost. Above the time that a
/// takeover needs after a confirmed death (`leases.md` 3.7: about 2 s).
const LOST_AFTER: Duration = Duration::from_secs(5);
/// For how long requests wait for one that nothing but an allocator can serve, if the quota does not
/// rather let them go: other pods' leases run as long, and every takeover is shorter.
const WAITED_OUT: Duration = LEASE_TTL;
/// What is given back or spent is told within this time: it is somebody else's to use.
const REPORT_CHANGED: Duration = Duration::from_millis(50);
/// While requests wait, the allocator needs a fresh echo to anchor credit at.
const REPORT_WAITING: Duration = Duration::from_millis(250);
/// While requests come.
const REPORT_ACTIVE: Duration = Duration::from_secs(1);
/// While nothing happens.
const REPORT_IDLE: Duration = Duration::from_secs(5);
/// When a request that found the queue full may try again.
const QUEUE_FULL_RETRY: Duration = Duration::from_secs(1);
/// Cancelled draws that are remembered, in case their credit is on its way.
const CANCELLED_MAX: usize = 1_024;

/// All that a pod decides.
#[derive(Debug)]
pub struct Holder {
    levels: Levels,
    books: Books,
    waiters: Waiters,
    cancelled: BTreeMap<DrawId, Vector>,
    link: Link,
    policy: Option<PodFacts>,
    events: Vec<Event>,
    last_draw: u64,
    report: Reporting,
}

/// The stream to the allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// None, since then.
    Down(Time),
    /// Open, but not welcome yet.
    Opening(Time),
    /// Draws may be sent.
    Up,
}

/// What of the policy is needed on every request.
#[derive(Debug)]
struct PodFacts {
    classes: BTreeMap<Name, i32>,
    max_requests: usize,
    on_loss: OnLoss,
}

/// When a report was sent, and what has happened since.
#[derive(Debug)]
struct Reporting {
    last: Time,
    changed_at: Option<Time>,
    active: bool,
}

// === impl Holder ===

impl Holder {
    /// A pod that has just started, with no policy, no lease and no allocator.
    pub fn new(now: Time) -> Holder {
        Holder {
            levels: Levels::new(now),
            books: Books::default(),
            waiters: Waiters::default(),
            cancelled: BTreeMap::new(),
            link: Link::Down(now),
            policy: None,
            events: Vec::new(),
            last_draw: 0,
            report: Reporting { last: now, changed_at: None, active: false },
        }
    }

    /// Takes the policy that applies to this pod.
    pub fn set_policy(&mut self, policy: &PodPolicy) {
        self.books.set_limits(policy.providers.iter().flat_map(|p| &p.limits));
        self.policy = Some(PodFacts {
            classes: policy.classes.clone(),
            max_requests: policy.quota.queue.max_requests as usize,
            on_loss: policy.quota.on_allocator_loss,
        });
    }

    /// Admits a request from the lease, or draws, or refuses.
    pub fn admit(&mut self, now: Time, ask: Ask) -> Admission {
        self.levels.advance(now);
        let id = self.next_id();
        if ask.vector.is_empty() {
            let reservation = Reservation { id, vector: ask.vector, source: Source::Free, at: now };
            return Admission::Granted(reservation);
        }
        self.books.offered(&ask.vector);
        self.report.active = true;
        let class = self.class_value(&ask.class);
        if !self.waiters.any_at_or_above(class) && self.fits(now, &ask.vector) {
            return Admission::Granted(self.take(now, id, ask.vector));
        }
        if let Some(refused) = self.refusal(now, &ask) {
            self.books.refused += 1;
            return Admission::Refused(refused);
        }
        if self.is_waited_out(now) && self.on_loss() == OnLoss::Open {
            return Admission::Granted(self.force_as(now, id, ask.vector));
        }
        let waiter = Waiter { ask, class, since: now };
        if self.link == Link::Up {
            self.events.push(Event::Send(ToAllocator::Draw(waiter.draw(now, id))));
        }
        self.waiters.insert(id, waiter);
        Admission::Waiting(id)
    }

    /// Admits a request whatever the levels are (mode Shadow): it is counted as debt.
    pub fn force(&mut self, now: Time, vector: Vector) -> Reservation {
        let id = self.next_id();
        self.force_as(now, id, vector)
    }

    /// Forgets a waiting request: its client has gone.
    pub fn cancel(&mut self, id: DrawId) {
        if let Some(waiter) = self.waiters.remove(id) {
            self.cancel_draw(id, waiter.ask.vector);
        }
    }

    /// Ends a reservation with what was charged in the end; what is missing from `actual` was not
    /// charged at all. What was reserved too much goes back to everybody, what was too little is a
    /// debt.
    pub fn settle(&mut self, now: Time, reservation: Reservation, actual: &Vector) {
        self.levels.advance(now);
        let empty = Amount::ZERO;
        let more = actual.keys().filter(|budget| !reservation.vector.contains_key(*budget));
        for budget in reservation.vector.keys().chain(more) {
            let reserved = *reservation.vector.get(budget).unwrap_or(&empty);
            let charged = *actual.get(budget).unwrap_or(&empty);
            self.books.settled(budget, reserved, charged);
            let over = self.books.is_of_old_window(budget, reservation.at, now);
            let reserved = if over { reserved.min(charged) } else { reserved };
            // Without an allocator the local level is all there is to give to or to take from.
            let alone = self.link != Link::Up;
            if !(alone && self.levels.correct(budget, reserved, charged)) {
                self.books.difference(budget, reserved, charged);
            }
        }
        self.changed(now);
    }

    /// A request is about to be written, and is at the provider within `trip`. If that is later after
    /// its debit than the allocator allows for by what it was told, it is debited anew: the provider may
    /// have been full when it was debited first, so that the old debit bought nothing.
    pub fn sent(&mut self, now: Time, reservation: &mut Reservation, trip: Duration) {
        let transit = now.since(reservation.at) + trip;
        if transit > self.books.transit_allowed() {
            reservation.at = now;
            self.books.redebit(&reservation.vector);
            self.changed(now);
        }
        self.books.sent(now, transit.min(TRANSIT_MAX));
    }

    /// Takes note of a provider's headers.
    pub fn seen(&mut self, budget: &BudgetId, seen: Seen) {
        self.books.seen(budget, seen);
    }

    /// Takes note of a 429 of the provider.
    pub fn provider_429(&mut self, now: Time) {
        self.books.provider_429 += 1;
        self.changed(now);
    }

    /// A stream to an allocator is open.
    pub fn connected(&mut self, now: Time) {
        let since = self.down_since().unwrap_or(now);
        self.link = Link::Opening(since);
    }

    /// The stream has ended.
    pub fn disconnected(&mut self, now: Time) {
        self.link = Link::Down(self.down_since().unwrap_or(now));
        self.cancelled.clear();
        // What was to be said on this stream is said anew on the next, as far as it still holds.
        self.events.retain(|event| !matches!(event, Event::Send(_)));
    }

    /// Takes a message of the allocator.
    pub fn receive(&mut self, now: Time, message: ToPod) {
        self.levels.advance(now);
        match message {
            ToPod::Challenge(epoch, nonce) => self.challenged(now, epoch, nonce),
            ToPod::Welcome(epoch) => self.welcome(now, epoch),
            ToPod::Lease(grant) => self.lease_granted(now, grant),
            ToPod::Credit(credit) => self.credited(now, &credit),
            ToPod::Deny(denial) => {
                if self.waiters.remove(denial.id).is_some() {
                    let (reason, retry_after) = (denial.reason, denial.retry_after);
                    let explain = denial.explain;
                    self.refuse(denial.id, Refused { reason, retry_after, explain });
                }
            }
        }
    }

    /// Does all that is due at `now`, and returns what the caller must do.
    pub fn poll(&mut self, now: Time) -> Vec<Event> {
        self.levels.advance(now);
        self.expire(now);
        self.serve_locally(now);
        self.give_up(now);
        if self.link == Link::Up && now >= self.report_due() {
            self.events
                .push(Event::Send(ToAllocator::Report(self.books.report(now, &self.waiters))));
            self.report = Reporting { last: now, changed_at: None, active: false };
        }
        std::mem::take(&mut self.events)
    }

    /// When `poll` has something to do next, if nothing else happens.
    pub fn next_wakeup(&self, now: Time) -> Option<Time> {
        if !self.events.is_empty() {
            return Some(now);
        }
        let report = (self.link == Link::Up).then(|| self.report_due());
        let refill = self.waiters.first().and_then(|w| self.levels.refilled_at(now, &w.ask.vector));
        let waiting = !self.waiters.is_empty();
        let lease = waiting.then(|| self.levels.lease().next_change(now)).flatten();
        let lost = self.waited_out_at().filter(|at| waiting && *at > now);
        let deadline = self.waiters.next_deadline();
        [report, refill, lease, lost, deadline].into_iter().flatten().min()
    }

    /// The last message of a pod that ends: what it has left goes back.
    pub fn bye(&mut self, now: Time) -> ToAllocator {
        self.levels.advance(now);
        for (budget, level) in self.levels.give_up() {
            self.books.given_up(&budget, level);
        }
        ToAllocator::Bye(self.books.report(now, &self.waiters))
    }

    /// True if no allocator has answered for a while.
    pub fn lost(&self, now: Time) -> bool {
        self.down_since().is_some_and(|since| now >= since + LOST_AFTER)
    }

    /// The lease, for status pages and the simulator's checks.
    pub fn lease(&self) -> &Lease {
        self.levels.lease()
    }

    /// The local level of a budget at the last call.
    pub fn level(&self, budget: &BudgetId) -> Amount {
        self.levels.available(budget)
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// True if draws can be sent.
    pub fn is_connected(&self) -> bool {
        self.link == Link::Up
    }

    // --- messages ---

    fn challenged(&mut self, now: Time, epoch: Epoch, nonce: Nonce) {
        if !self.levels.fence(epoch) {
            return;
        }
        let lease = self.levels.lease();
        let leased = lease.grant().into_iter().flat_map(|grant| grant.items.keys());
        let mut items: BTreeMap<_, _> =
            leased.map(|budget| (budget.clone(), lease.held(now, budget))).collect();
        for (budget, in_use) in self.books.slots_in_use() {
            items.entry(budget.clone()).or_default().in_use = in_use;
        }
        let holdings = Holdings {
            nonce,
            mono: now,
            ttl_left: lease.ttl_left(now),
            items,
            counters: self.books.counters().clone(),
            debts: self.books.debts(),
        };
        self.events.push(Event::Send(ToAllocator::Holdings(holdings)));
    }

    fn welcome(&mut self, now: Time, epoch: Epoch) {
        if !self.levels.lease().accepts(epoch) {
            return;
        }
        self.link = Link::Up;
        self.books.told_all();
        for (id, waiter) in self.waiters.oldest_first() {
            self.events.push(Event::Send(ToAllocator::Draw(waiter.draw(now, id))));
        }
        self.changed(now);
    }

    fn lease_granted(&mut self, now: Time, grant: LeaseSet) {
        self.books.confirmed(grant.echo);
        let (epoch, version) = (grant.epoch, grant.version);
        if self.levels.adopt(now, grant, &mut self.books) == Adoption::Adopted {
            self.changed(now);
            self.events.push(Event::Send(ToAllocator::Ack(epoch, version)));
        }
    }

    fn credited(&mut self, now: Time, credit: &Credit) {
        self.books.confirmed(credit.echo);
        if !self.levels.lease().accepts(credit.epoch) {
            return;
        }
        if let Some(vector) = self.cancelled.remove(&credit.id) {
            self.books.credit_returned(&vector);
            self.changed(now);
            return;
        }
        let Some(waiter) = self.waiters.remove(credit.id) else { return };
        if now >= credit.echo + credit.spend_by {
            // Void: it took too long to arrive. Ask again, under the same name.
            self.books.slots_returned(&waiter.ask.vector);
            self.changed(now);
            self.events.push(Event::Send(ToAllocator::Draw(waiter.draw(now, credit.id))));
            self.waiters.insert(credit.id, waiter);
            return;
        }
        self.books.credit_spent(&waiter.ask.vector);
        self.spend_local_first(&waiter.ask.vector);
        let vector = waiter.ask.vector;
        let reservation = Reservation { id: credit.id, vector, source: Source::Draw, at: now };
        self.events.push(Event::Admit(credit.id, reservation));
        self.changed(now);
    }

    // --- waiting requests ---

    fn expire(&mut self, now: Time) {
        for (id, waiter) in self.waiters.expired(now) {
            self.cancel_draw(id, waiter.ask.vector);
            let late = Refused {
                reason: Reason::Deadline,
                retry_after: Some(QUEUE_FULL_RETRY),
                explain: "the request's deadline passed before its turn came".to_owned(),
            };
            self.refuse(id, if self.lost(now) { allocator_lost() } else { late });
        }
    }

    /// Lets waiting requests go from the local level, in order; nobody passes a request that needs
    /// the same budget.
    fn serve_locally(&mut self, now: Time) {
        if self.levels.is_empty() {
            return;
        }
        let mut blocked: BTreeSet<BudgetId> = BTreeSet::new();
        for id in self.waiters.in_order() {
            let Some(waiter) = self.waiters.get(id) else { continue };
            let vector = &waiter.ask.vector;
            let free = vector.keys().all(|budget| !blocked.contains(budget));
            if !free || !self.fits(now, vector) {
                blocked.extend(vector.keys().cloned());
                if self.levels.budgets().all(|budget| blocked.contains(budget)) {
                    return;
                }
                continue;
            }
            let Some(waiter) = self.waiters.remove(id) else { continue };
            self.cancel_draw(id, waiter.ask.vector.clone());
            let reservation = self.take(now, id, waiter.ask.vector);
            self.events.push(Event::Admit(id, reservation));
        }
    }

    /// Ends the wait of requests that nothing can serve: the allocator is lost, and so is the lease.
    fn give_up(&mut self, now: Time) {
        if !self.is_waited_out(now) {
            return;
        }
        for id in self.waiters.in_order() {
            let Some(waiter) = self.waiters.get(id) else { continue };
            if self.floor_serves(now, &waiter.ask.vector) {
                continue;
            }
            let Some(waiter) = self.waiters.remove(id) else { continue };
            if self.on_loss() == OnLoss::Open {
                let reservation = self.force_as(now, id, waiter.ask.vector);
                self.events.push(Event::Admit(id, reservation));
            } else {
                self.refuse(id, allocator_lost());
            }
        }
    }

    /// Why a request that does not fit its lease must not wait either.
    fn refusal(&self, now: Time, ask: &Ask) -> Option<Refused> {
        let full = self.policy.as_ref().map_or(usize::MAX, |policy| policy.max_requests);
        if ask.deadline <= now {
            return Some(Refused {
                reason: Reason::Deadline,
                retry_after: Some(QUEUE_FULL_RETRY),
                explain: "the request may not wait, and its lease is used up".to_owned(),
            });
        }
        if self.waiters.len() >= full {
            return Some(Refused {
                reason: Reason::QueueFull,
                retry_after: Some(QUEUE_FULL_RETRY),
                explain: format!("{full} requests of this pod wait already (queue.maxRequests)"),
            });
        }
        let open = self.on_loss() == OnLoss::Open;
        let hopeless = self.is_waited_out(now) && !open && !self.floor_serves(now, &ask.vector);
        hopeless.then(allocator_lost)
    }

    /// True if a local level will serve this request without an allocator.
    fn floor_serves(&self, now: Time, vector: &Vector) -> bool {
        let closed = self.on_loss() == OnLoss::Closed;
        let in_time = !closed || !self.levels.lease().ttl_left(now).is_zero();
        in_time && self.levels.will_hold(now, vector)
    }

    fn cancel_draw(&mut self, id: DrawId, vector: Vector) {
        if self.link != Link::Up {
            return;
        }
        self.events.push(Event::Send(ToAllocator::Cancel(id)));
        self.cancelled.insert(id, vector);
        if self.cancelled.len() > CANCELLED_MAX {
            self.cancelled.pop_first();
        }
    }

    fn refuse(&mut self, id: DrawId, refused: Refused) {
        self.books.refused += 1;
        self.events.push(Event::Refuse(id, refused));
    }

    // --- taking ---

    fn take(&mut self, now: Time, id: DrawId, vector: Vector) -> Reservation {
        self.levels.take(&vector);
        self.books.leased(&vector);
        Reservation { id, vector, source: Source::Lease, at: now }
    }

    /// Of a credit that arrived, gives back what the local level holds, and spends that instead: a
    /// part of a request that lies in a pod is of use to nobody.
    fn spend_local_first(&mut self, vector: &Vector) {
        for (budget, amount) in vector {
            let local = self.levels.available(budget).min(*amount);
            self.levels.take(&Vector::from([(budget.clone(), local)]));
            self.books.swapped(budget, local);
        }
    }

    fn force_as(&mut self, now: Time, id: DrawId, vector: Vector) -> Reservation {
        self.books.forced(&vector);
        self.changed(now);
        Reservation { id, vector, source: Source::Free, at: now }
    }

    /// True if the local level holds `vector`, and may be spent.
    fn fits(&self, now: Time, vector: &Vector) -> bool {
        let spendable = self.on_loss() != OnLoss::Closed
            || self.down_since().is_none()
            || !self.levels.lease().ttl_left(now).is_zero();
        spendable && self.levels.hold(vector)
    }

    // --- small matters ---

    fn changed(&mut self, now: Time) {
        self.report.changed_at.get_or_insert(now);
    }

    fn report_due(&self) -> Time {
        let quiet = if !self.waiters.is_empty() {
            REPORT_WAITING
        } else if self.report.active {
            REPORT_ACTIVE
        } else {
            REPORT_IDLE
        };
        let regular = self.report.last + quiet;
        self.report.changed_at.map_or(regular, |at| regular.min(at + REPORT_CHANGED))
    }

    fn down_since(&self) -> Option<Time> {
        match self.link {
            Link::Down(since) | Link::Opening(since) => Some(since),
            Link::Up => None,
        }
    }

    /// True if requests wait no longer for an allocator.
    fn is_waited_out(&self, now: Time) -> bool {
        self.waited_out_at().is_some_and(|at| now >= at)
    }

    fn waited_out_at(&self) -> Option<Time> {
        let open = self.on_loss() == OnLoss::Open;
        Some(self.down_since()? + if open { LOST_AFTER } else { WAITED_OUT })
    }

    fn on_loss(&self) -> OnLoss {
        self.policy.as_ref().map_or(OnLoss::Floor, |policy| policy.on_loss)
    }

    fn class_value(&self, class: &str) -> i32 {
        let classes = self.policy.as_ref().map(|policy| &policy.classes);
        classes.and_then(|classes| classes.get(class)).copied().unwrap_or(0)
    }

    fn next_id(&mut self) -> DrawId {
        self.last_draw += 1;
        DrawId(self.last_draw)
    }
}

fn allocator_lost() -> Refused {
    Refused {
        reason: Reason::AllocatorLost,
        retry_after: Some(Duration::from_secs(1)),
        explain:
            "no allocator answers, and this pod's own lease or floor does not serve the request"
                .to_owned(),
    }
}

#[cfg(test)]
mod tests;
