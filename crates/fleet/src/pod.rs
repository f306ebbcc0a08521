//! One simulated sidecar: a holder, a stream, and an application that asks.
//!
//! What `sidecar::gate` and `sidecar::lease` do with a lock and two tasks, because requests come from
//! elsewhere there, one task does here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use quota::charge::Vector;
use quota::holder::{Admission, Ask, Event, Holder, Reservation};
use quota::message::{DrawId, Epoch, ToAllocator, ToPod};
use quota::policy::PodPolicy;
use quota::time::Time;
use rand::Rng as _;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use wire::{FromAllocator, Hello};

use crate::figures::Figures;
use crate::load::{self, ANSWER, Load, PATIENCE};
use crate::now;
use crate::stream::{self, BACKOFF_MAX, BACKOFF_MIN};

/// One simulated sidecar.
pub(crate) struct Pod {
    number: usize,
    namespace: String,
    labels: BTreeMap<String, String>,
    boot_id: u64,
    epoch: Epoch,
    holder: Holder,
    policy: Option<PodPolicy>,
    figures: Arc<Figures>,
    load: Load,
    /// When its application asks next.
    next_request: Option<Time>,
    /// Requests that wait: since when, and what they will be charged.
    waiting: BTreeMap<DrawId, (Time, Vector)>,
    /// Requests that are under way, by when their answer ends.
    under_way: VecDeque<(Time, Reservation, Vector)>,
    messages: Option<mpsc::Sender<ToAllocator>>,
}

/// What tokio's timers can tell apart.
const TIMER: Duration = Duration::from_millis(1);

// === impl Pod ===

impl Pod {
    pub(crate) fn new(
        number: usize,
        namespace: String,
        app: String,
        figures: &Arc<Figures>,
    ) -> Pod {
        Pod {
            number,
            namespace,
            labels: BTreeMap::from([("app".to_owned(), app)]),
            boot_id: rand::rng().random(),
            epoch: Epoch(0),
            holder: Holder::new(now()),
            policy: None,
            figures: figures.clone(),
            load: Load::default(),
            next_request: None,
            waiting: BTreeMap::new(),
            under_way: VecDeque::new(),
            messages: None,
        }
    }

    /// Runs for ever.
    pub(crate) async fn run(mut self, allocator: Uri, mut load: watch::Receiver<Load>) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let opening = stream::open(allocator.clone(), self.hello());
            if let Ok((messages, mut inbound)) = self.meanwhile(&mut load, opening).await {
                self.messages = Some(messages);
                self.holder.connected(now());
                self.act();
                while let Ok(Some(message)) = self.meanwhile(&mut load, inbound.message()).await {
                    let Ok(message) = FromAllocator::try_from(message) else { break };
                    self.receive(message);
                }
                if self.holder.is_connected() {
                    backoff = BACKOFF_MIN;
                }
                self.figures.session_lost();
            }
            self.messages = None;
            self.holder.disconnected(now());
            let pause = backoff.mul_f64(rand::rng().random_range(0.5..=1.0));
            self.meanwhile(&mut load, sleep(pause)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Waits for something and does what falls due meanwhile.
    async fn meanwhile<T>(
        &mut self,
        load: &mut watch::Receiver<Load>,
        something: impl Future<Output = T>,
    ) -> T {
        let mut something = std::pin::pin!(something);
        loop {
            let due = self.due().map_or(Duration::MAX, |due| due.since(now()).max(TIMER));
            // What does not complete is polled on in the next turn.
            tokio::select! {
                happened = &mut something => return happened,
                () = sleep(due) => self.act(),
                Ok(()) = load.changed() => {
                    self.load = *load.borrow_and_update();
                    self.next_request = self.load.next(self.number).map(|wait| now() + wait);
                }
            }
        }
    }

    fn due(&self) -> Option<Time> {
        let answer = self.under_way.front().map(|(at, ..)| *at);
        let holder = self.holder.next_wakeup(now());
        [answer, holder, self.next_request].into_iter().flatten().min()
    }

    /// Does what is due.
    fn act(&mut self) {
        let now = now();
        while let Some(at) = self.next_request.filter(|at| *at <= now) {
            self.next_request = self.load.next(self.number).map(|wait| at + wait);
            self.ask(now);
        }
        while self.under_way.front().is_some_and(|(at, ..)| *at <= now) {
            if let Some((_, reservation, charged)) = self.under_way.pop_front() {
                self.holder.settle(now, reservation, &charged);
            }
        }
        self.pump(now);
    }

    /// The application asks.
    fn ask(&mut self, now: Time) {
        let Some(policy) = &self.policy else { return };
        let (vector, charged) = load::request(policy);
        let class = policy.quota.class.clone();
        let ask = Ask { vector, class, deadline: now + PATIENCE, traceparent: None };
        match self.holder.admit(now, ask) {
            Admission::Granted(reservation) => self.send(now, reservation, charged, None),
            Admission::Waiting(id) => drop(self.waiting.insert(id, (now, charged))),
            Admission::Refused(_) => self.figures.refused(),
        }
    }

    /// An admitted request goes to the provider, whose answer is there after a while.
    fn send(
        &mut self,
        now: Time,
        mut reservation: Reservation,
        charged: Vector,
        wait: Option<Duration>,
    ) {
        self.figures.admitted(now, self.class_value(), wait);
        self.holder.sent(now, &mut reservation, Duration::ZERO);
        self.under_way.push_back((now + ANSWER, reservation, charged));
    }

    fn receive(&mut self, message: FromAllocator) {
        let now = now();
        match message {
            FromAllocator::Lease(message) => {
                if let ToPod::Welcome(epoch) = message {
                    self.epoch = epoch;
                    self.figures.welcome(now, self.number);
                }
                self.holder.receive(now, message);
            }
            FromAllocator::Policy(policy) => {
                self.figures.policy(now, self.number, policy.generation);
                self.holder.set_policy(&policy);
                self.policy = Some(*policy);
            }
            // The stream's end follows, and is seen by itself.
            FromAllocator::NoQuota { .. }
            | FromAllocator::Ticket(_)
            | FromAllocator::Drain
            | FromAllocator::Redirect { .. }
            | FromAllocator::Refused { .. }
            | FromAllocator::Unknown => {}
        }
        self.pump(now);
    }

    /// Delivers what the holder has decided.
    fn pump(&mut self, now: Time) {
        for event in self.holder.poll(now) {
            match event {
                Event::Send(message) => {
                    if let Some(messages) = &self.messages {
                        // One that is full belongs to a stream whose pings will fail.
                        let _ = messages.try_send(message);
                    }
                }
                Event::Admit(id, reservation) => {
                    let (since, charged) = self.waiting.remove(&id).unwrap_or_default();
                    self.send(now, reservation, charged, Some(now.since(since)));
                }
                Event::Refuse(id, _) => {
                    self.waiting.remove(&id);
                    self.figures.refused();
                }
            }
        }
    }

    fn class_value(&self) -> i32 {
        let Some(policy) = &self.policy else { return 0 };
        policy.classes.get(&policy.quota.class).copied().unwrap_or(0)
    }

    fn hello(&self) -> Hello {
        Hello {
            protocol_version: wire::PROTOCOL_VERSION,
            pod_uid: String::new(),
            boot_id: self.boot_id,
            namespace: self.namespace.clone(),
            pod: format!("pod-{}", self.number),
            labels: self.labels.clone(),
            highest_epoch_seen: self.epoch,
            mono: now(),
            // All of them are in one process, whose end is not theirs: they are known as pods in a
            // cluster are, by their streams.
            pid: None,
            resumption_ticket: Vec::new(),
        }
    }
}
