//! The one place where requests meet the lease: the pod's [`Holder`] behind a lock.
//!
//! Request tasks admit and settle here, and the `lease` task delivers what the allocator says. A
//! request that fits its lease therefore waits for no other task. The lock is held for the few
//! microseconds that a decision takes, never across an await. Whoever finds something to do sooner
//! than the `lease` task would wake up, wakes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quota::budget::BudgetId;
use quota::charge::Vector;
use quota::holder::{Admission, Ask, Event, Holder, Refused, Reservation, Source};
use quota::message::{DrawId, Epoch, Seen, ToAllocator, ToPod};
use quota::policy::PodPolicy;
use quota::time::Time;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// The pod's lease, shared; clones are the same.
#[derive(Clone)]
pub(crate) struct Gate {
    shared: Arc<Shared>,
}

/// An admitted request's hold on its budgets. Dropped, it is settled: with nothing if the request was
/// not sent, else with what `expect` was told.
#[must_use = "dropping it settles it"]
pub(crate) struct Hold {
    gate: Gate,
    /// `None` if nothing is counted, or when it is settled.
    reservation: Option<Reservation>,
    expected: Vector,
}

/// The way to the allocator, while there is one.
pub(crate) struct Stream {
    /// Bounded: what does not fit ends the stream.
    pub(crate) messages: mpsc::Sender<ToAllocator>,
    /// Told when the stream takes no more.
    pub(crate) stuck: CancellationToken,
}

/// What the lease is at this moment, for metrics and `/config`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Status {
    /// Draws can be sent.
    pub(crate) connected: bool,
    /// No allocator has answered for a while.
    pub(crate) lost: bool,
    /// The newest leader seen; 0 for none.
    pub(crate) epoch: Epoch,
    /// Requests that wait.
    pub(crate) waiting: usize,
    /// How much longer the lease runs at its full rate.
    pub(crate) lease_left: Duration,
}

/// What tokio's timers can tell apart; nothing is looked at more often.
const TIMER: Duration = Duration::from_millis(1);

type Verdict = Result<Reservation, Refused>;

struct Shared {
    state: Mutex<State>,
    wake: Notify,
}

struct State {
    holder: Holder,
    waiting: BTreeMap<DrawId, oneshot::Sender<Verdict>>,
    stream: Option<Stream>,
    /// When the `lease` task will look next.
    armed: Time,
}

/// A request in the queue; dropped, its draw is cancelled.
struct Waiting<'a> {
    gate: &'a Gate,
    id: DrawId,
    verdict: oneshot::Receiver<Verdict>,
}

/// The time of this process (CLOCK_BOOTTIME).
pub(crate) fn now() -> Time {
    Time::from_nanos(service::clock::boottime_nanos())
}

// === impl Gate ===

impl Gate {
    /// Of a pod that has just started.
    pub(crate) fn new() -> Gate {
        let state = State {
            holder: Holder::new(now()),
            waiting: BTreeMap::new(),
            stream: None,
            armed: Time::NEVER,
        };
        Gate { shared: Arc::new(Shared { state: Mutex::new(state), wake: Notify::new() }) }
    }

    /// Admits a request: at once, or when its turn comes. Cancelled by dropping it.
    pub(crate) async fn admit(&self, ask: Ask) -> Result<Hold, Refused> {
        let (id, verdict) = {
            let mut state = self.shared.state.lock();
            let id = match state.holder.admit(now(), ask) {
                Admission::Granted(reservation) => {
                    self.look_again(&mut state);
                    return Ok(self.hold(reservation));
                }
                Admission::Refused(refused) => {
                    self.look_again(&mut state);
                    return Err(refused);
                }
                Admission::Waiting(id) => id,
            };
            let (sender, verdict) = oneshot::channel();
            state.waiting.insert(id, sender);
            self.pump(&mut state);
            (id, verdict)
        };
        let mut waiting = Waiting { gate: self, id, verdict };
        let verdict = (&mut waiting.verdict).await;
        verdict.expect("a waiting request is answered before it is forgotten").map(|r| self.hold(r))
    }

    /// Admits a request whatever the lease says.
    pub(crate) fn force(&self, vector: Vector) -> Hold {
        let reservation = self.with(|holder| holder.force(now(), vector));
        self.hold(reservation)
    }

    /// Lets a request pass that is not counted.
    pub(crate) fn pass(&self) -> Hold {
        Hold { gate: self.clone(), reservation: None, expected: Vector::new() }
    }

    /// A provider answered 429.
    pub(crate) fn provider_429(&self) {
        self.with(|holder| holder.provider_429(now()));
    }

    /// A provider's headers told of these budgets.
    pub(crate) fn seen(&self, seen: &[(&BudgetId, Seen)]) {
        if !seen.is_empty() {
            self.with(|holder| seen.iter().for_each(|(budget, seen)| holder.seen(budget, *seen)));
        }
    }

    /// A policy has come.
    pub(crate) fn set_policy(&self, policy: &PodPolicy) {
        self.with(|holder| holder.set_policy(policy));
    }

    /// A stream is open: from now on messages go to `stream`.
    pub(crate) fn connected(&self, stream: Stream) {
        let mut state = self.shared.state.lock();
        state.stream = Some(stream);
        state.holder.connected(now());
        self.pump(&mut state);
    }

    /// The stream has ended.
    pub(crate) fn disconnected(&self) {
        let mut state = self.shared.state.lock();
        state.stream = None;
        state.holder.disconnected(now());
        self.pump(&mut state);
    }

    /// A message of the allocator.
    pub(crate) fn receive(&self, message: ToPod) {
        let mut state = self.shared.state.lock();
        state.holder.receive(now(), message);
        self.pump(&mut state);
    }

    /// The last message: the pod ends. What it holds goes back.
    pub(crate) fn bye(&self) -> ToAllocator {
        self.with(|holder| holder.bye(now()))
    }

    /// What the lease is at this moment.
    pub(crate) fn status(&self) -> Status {
        let state = self.shared.state.lock();
        let now = now();
        Status {
            connected: state.holder.is_connected(),
            lost: state.holder.lost(now),
            epoch: state.holder.lease().epoch(),
            waiting: state.holder.waiting(),
            lease_left: state.holder.lease().ttl_left(now),
        }
    }

    /// Does what falls due, for ever: the `lease` task's clock.
    pub(crate) async fn tick(&self) {
        loop {
            let pause = {
                let mut state = self.shared.state.lock();
                self.pump(&mut state);
                let now = now();
                state.armed = state.holder.next_wakeup(now).unwrap_or(Time::NEVER);
                (state.armed != Time::NEVER).then(|| state.armed.since(now).max(TIMER))
            };
            // Both arms are cancel-safe: a notification that comes between two waits is kept.
            tokio::select! {
                () = sleep(pause.unwrap_or(Duration::MAX)) => {}
                () = self.shared.wake.notified() => {}
            }
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Holder) -> T) -> T {
        let mut state = self.shared.state.lock();
        let result = act(&mut state.holder);
        self.look_again(&mut state);
        result
    }

    fn hold(&self, reservation: Reservation) -> Hold {
        Hold { gate: self.clone(), reservation: Some(reservation), expected: Vector::new() }
    }

    fn settle(&self, reservation: Reservation, actual: &Vector) {
        self.with(|holder| holder.settle(now(), reservation, actual));
    }

    /// Delivers what the holder has decided.
    fn pump(&self, state: &mut State) {
        for event in state.holder.poll(now()) {
            match event {
                Event::Send(message) => state.send(message),
                Event::Admit(id, reservation) => {
                    let left = match state.waiting.remove(&id) {
                        Some(sender) => sender.send(Ok(reservation)),
                        None => Err(Ok(reservation)),
                    };
                    if let Err(Ok(reservation)) = left {
                        state.holder.settle(now(), reservation, &Vector::new());
                    }
                }
                Event::Refuse(id, refused) => {
                    // A client that has left does not miss its refusal.
                    let _ = state.waiting.remove(&id).map(|sender| sender.send(Err(refused)));
                }
            }
        }
        self.look_again(state);
    }

    /// Wakes the `lease` task if something falls due before it would wake up.
    fn look_again(&self, state: &mut State) {
        let due = state.holder.next_wakeup(now()).unwrap_or(Time::NEVER);
        if due < state.armed {
            state.armed = due;
            self.shared.wake.notify_one();
        }
    }
}

// === impl State ===

impl State {
    fn send(&mut self, message: ToAllocator) {
        let Some(stream) = &self.stream else { return };
        if stream.messages.try_send(message).is_err() {
            stream.stuck.cancel();
            self.stream = None;
        }
    }
}

// === impl Waiting ===

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.shared.state.lock();
        if state.waiting.remove(&self.id).is_some() {
            state.holder.cancel(self.id);
            self.gate.pump(&mut state);
        } else if let Ok(Ok(reservation)) = self.verdict.try_recv() {
            // It was admitted in the moment in which its client left.
            state.holder.settle(now(), reservation, &Vector::new());
            self.gate.look_again(&mut state);
        }
    }
}

// === impl Hold ===

impl Hold {
    /// Where it came from.
    pub(crate) fn source(&self) -> Source {
        self.reservation.as_ref().map_or(Source::Free, |reservation| reservation.source)
    }

    /// The request is about to be written, and is at the provider within `trip`. Takes `expected` for
    /// what will be charged unless `settle` says better.
    pub(crate) fn sent(&mut self, trip: Duration, expected: Vector) {
        let Some(reservation) = &mut self.reservation else { return };
        self.gate.with(|holder| holder.sent(now(), reservation, trip));
        self.expected = expected;
    }

    /// The request was not sent after all.
    pub(crate) fn unsent(&mut self) {
        self.expected.clear();
    }

    /// Ends it with what the provider charged.
    pub(crate) fn settle(mut self, actual: &Vector) {
        if let Some(reservation) = self.reservation.take() {
            self.gate.settle(reservation, actual);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            self.gate.settle(reservation, &self.expected);
        }
    }
}

#[cfg(test)]
mod tests;
