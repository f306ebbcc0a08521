//! Requests: their arrival at pods, their way to the provider and back, and their settlement.

use std::time::Duration;

use providers::enforce::{Level, Ticket};
use quota::budget::BudgetId;
use quota::charge::Vector;
use quota::dimension::Dimension;
use quota::holder::{Admission, Ask, Reservation};
use quota::message::{DrawId, Seen};
use quota::time::Time;
use quota::units::{Amount, Tokens};

use super::options::{Demand, Estimate, Limiter};
use super::pod::Waiting;
use super::request::Request;
use super::rules::{LIMIT, MODEL, PROVIDER, QUEUE_MAX, class_name};
use super::{Event, World};

/// An admitted request on its way.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) pod: usize,
    pub(super) run: u64,
    request: Request,
    /// Gone when the pod has settled it.
    reservation: Option<Reservation>,
    /// While the provider works on it.
    ticket: Option<Ticket>,
    /// The provider answered 429.
    denied: bool,
    /// When its head was written, on the pod's clock.
    sent: Time,
    /// What the head of the answer tells.
    levels: Vec<Level>,
}

/// In how many parts an answer is produced where that matters.
const PARTS: u64 = 4;

impl World {
    // --- arrivals ---

    pub(super) fn arrive(&mut self, pod: usize, phase: u64) {
        let of = &self.pods[pod];
        if self.is_ending || of.phase != phase || !of.busy {
            return;
        }
        self.plan_arrival(pod);
        let largest = self.rules.largest_tokens(&self.options);
        let request = Request::draw(&self.options, largest, &mut self.demand);
        let of = &self.pods[pod];
        if !of.alive || !of.accepting || of.policy.is_none() {
            return;
        }
        self.outcome.offered += 1;
        let due = self.ideal.arrive(self.now, request);
        self.add_ideal(due);
        self.ask(pod, request);
        self.pump(pod);
    }

    /// Plans a pod's next request.
    pub(super) fn plan_arrival(&mut self, pod: usize) {
        let total: u64 = self.pods.iter().map(|pod| pod.weight).sum();
        let of = &self.pods[pod];
        if !of.busy || of.weight == 0 {
            return;
        }
        let arrivals = self.options.capacity * self.options.load_percent * of.weight;
        let mean = Duration::from_secs(1).mul_f64((total * 100) as f64 / arrivals as f64);
        // Some of the pods are idle at any time.
        let mean = match self.options.demand {
            Demand::OnOff => mean / 2,
            Demand::Popular => mean / 4,
            Demand::Even | Demand::Skewed | Demand::OnePod => mean,
        };
        let phase = of.phase;
        let at = self.now + self.demand.exponential(mean);
        self.agenda.add(at, Event::Arrival { pod, phase });
    }

    pub(super) fn toggle(&mut self, pod: usize) {
        let of = &mut self.pods[pod];
        of.busy = !of.busy;
        of.phase += 1;
        let stay = self.stay(pod);
        self.agenda.add(self.now + stay, Event::Toggle { pod });
        self.plan_arrival(pod);
    }

    /// How long a pod stays busy or idle.
    pub(super) fn stay(&mut self, pod: usize) -> Duration {
        match (self.options.demand, self.pods[pod].busy) {
            (Demand::Popular, true) => {
                self.demand.duration(Duration::from_secs(10), Duration::from_secs(30))
            }
            (Demand::Popular, false) => {
                self.demand.duration(Duration::from_secs(30), Duration::from_secs(90))
            }
            _ => self.demand.duration(Duration::from_millis(500), Duration::from_secs(5)),
        }
    }

    /// Asks a pod's holder, as the sidecar does.
    fn ask(&mut self, pod: usize, request: Request) {
        let of = &mut self.pods[pod];
        let Some(policy) = &of.policy else { return };
        let local = of.clock.read(self.now);
        let vector = policy.providers[0].vector(MODEL, &request.reserved);
        let (class, deadline) = (class_name(request.class), local + request.patience);
        let ask = Ask { vector, class, deadline, traceparent: None };
        let name = of.name.clone();
        self.trace.note(self.now, || format!("{name}: asks for {:?} as {}", ask.vector, ask.class));
        match of.holder.admit(local, ask) {
            Admission::Granted(reservation) => self.start(pod, request, reservation),
            Admission::Waiting(draw) => {
                let run = of.run;
                of.waiting.insert(draw, Waiting { request, deadline });
                if of.waiting.len() > QUEUE_MAX as usize {
                    self.checks.fail(self.now, format!("{name}: more wait than may"));
                }
                if let Some(after) = request.leaves_after {
                    self.agenda.add(self.now + after, Event::Leave { pod, run, draw });
                }
            }
            Admission::Refused(refused) => {
                self.outcome.rejected += 1;
                self.note(|| format!("{name}: refuses at once: {}", refused.explain));
            }
        }
    }

    pub(super) fn client_leaves(&mut self, pod: usize, run: u64, draw: DrawId) {
        let of = &mut self.pods[pod];
        if of.run == run && of.waiting.remove(&draw).is_some() {
            of.holder.cancel(draw);
            self.note(|| format!("pod-{pod:03}: the client of {draw:?} leaves"));
            self.outcome.rejected += 1;
            self.pump(pod);
        }
    }

    // --- calls ---

    /// A request has been admitted.
    pub(super) fn start(&mut self, pod: usize, request: Request, reservation: Reservation) {
        let of = &mut self.pods[pod];
        of.in_flight += 1;
        let (run, name, call) = (of.run, of.name.clone(), self.calls.len());
        self.note(|| format!("{name}: admits call {call} by {:?}", reservation.source));
        self.outcome.admitted += 1;
        if self.options.unsent_percent == 0 {
            self.checks.debited(self.now, &reservation.vector);
        }
        self.calls.push(Call {
            pod,
            run,
            request,
            reservation: Some(reservation),
            ticket: None,
            denied: false,
            sent: Time::ZERO,
            levels: Vec::new(),
        });
        self.agenda.add(self.now + request.connecting, Event::Write { call });
    }

    /// The head of a request is written, or it turns out that it cannot be.
    pub(super) fn write(&mut self, call: usize) {
        let of = &mut self.calls[call];
        let pod = &mut self.pods[of.pod];
        if !pod.alive || pod.run != of.run {
            return;
        }
        let local = pod.clock.read(self.now);
        if !of.request.is_sent {
            let Some(reservation) = of.reservation.take() else { return };
            pod.holder.settle(local, reservation, &Vector::new());
            pod.in_flight -= 1;
            let pod = of.pod;
            self.note(|| format!("call {call} cannot be sent"));
            return self.pump(pod);
        }
        let Some(reservation) = &mut of.reservation else { return };
        let trip = self.options.trip.1 * 2;
        pod.holder.sent(local, reservation, trip);
        of.sent = local;
        let pod = of.pod;
        let way = self.trip();
        self.agenda.add(self.now + way, Event::Reach { call });
        self.pump(pod);
    }

    /// A request reaches the provider.
    pub(super) fn reach(&mut self, call: usize) {
        let request = self.calls[call].request;
        match self.provider.admit(self.now, MODEL, &request.admitted) {
            Ok(ticket) => {
                self.note(|| format!("the provider admits call {call}"));
                self.calls[call].ticket = Some(ticket);
                if !self.has_pod(call) {
                    return self.end(call);
                }
                self.calls[call].levels = match self.options.limiter {
                    Limiter::HiddenWindow(_) => Vec::new(),
                    Limiter::Bucket(_) | Limiter::Window(_) => {
                        self.provider.levels(self.now, MODEL)
                    }
                };
                let way = self.trip();
                self.agenda.add(self.now + way, Event::Head { call });
                if self.options.estimate == Estimate::Produced {
                    for part in 1..PARTS {
                        let after = request.service * u32::try_from(part).unwrap_or(1);
                        let at = self.now + after / u32::try_from(PARTS).unwrap_or(1);
                        self.agenda.add(at, Event::Produce { call, part });
                    }
                }
                self.agenda.add(self.now + request.service, Event::End { call });
            }
            Err(denied) => {
                self.note(|| format!("the provider answers call {call} with 429: {denied:?}"));
                self.outcome.refused_by_provider += 1;
                if self.options.is_exact() {
                    let what = format!("the provider answers 429 to call {call}: {denied:?}");
                    self.checks.fail(self.now, what);
                }
                self.calls[call].denied = true;
                let way = self.trip();
                self.agenda.add(self.now + way, Event::Ended { call });
            }
        }
    }

    pub(super) fn produce(&mut self, call: usize, part: u64) {
        let of = &mut self.calls[call];
        let output = of.request.actual.total - of.request.admitted.total;
        let parts = Tokens(output.0 * part / PARTS) - Tokens(output.0 * (part - 1) / PARTS);
        if let Some(ticket) = &mut of.ticket {
            self.provider.produce(self.now, ticket, parts);
        }
    }

    pub(super) fn head(&mut self, call: usize) {
        if !self.has_pod(call) {
            return;
        }
        let of = &mut self.calls[call];
        let pod = &mut self.pods[of.pod];
        let received = pod.clock.read(self.now);
        for level in std::mem::take(&mut of.levels) {
            if level.dimension == Dimension::ConcurrentRequests {
                continue;
            }
            let seen = Seen {
                at: of.sent,
                reset_lo: of.sent + level.reset,
                reset_hi: received + level.reset,
                limit: Amount::from_units(level.limit),
                remaining: Amount::from_units(level.remaining),
            };
            pod.holder.seen(&BudgetId::new(PROVIDER, LIMIT, level.dimension), seen);
        }
        let pod = of.pod;
        self.pump(pod);
    }

    /// The provider has sent all, or sees that nobody listens any more.
    pub(super) fn end(&mut self, call: usize) {
        let Some(ticket) = self.calls[call].ticket.take() else { return };
        self.provider.settle(self.now, ticket, &self.calls[call].request.actual);
        if self.has_pod(call) {
            let way = self.trip();
            self.agenda.add(self.now + way, Event::Ended { call });
        }
        self.note(|| format!("the provider ends call {call}"));
    }

    /// The end of an answer reaches the pod, which settles it.
    pub(super) fn ended(&mut self, call: usize) {
        if !self.has_pod(call) {
            return;
        }
        let of = &mut self.calls[call];
        let Some(reservation) = of.reservation.take() else { return };
        let pod = &mut self.pods[of.pod];
        let local = pod.clock.read(self.now);
        let actual = match &pod.policy {
            Some(policy) if !of.denied => policy.providers[0].vector(MODEL, &of.request.actual),
            _ => Vector::new(),
        };
        if of.denied {
            pod.holder.provider_429(local);
        }
        pod.holder.settle(local, reservation, &actual);
        pod.in_flight -= 1;
        let pod = of.pod;
        self.checks.settled(pod, &actual);
        self.note(|| format!("pod-{pod:03} settles call {call} with {actual:?}"));
        self.pump(pod);
    }

    /// The provider sees that a pod's connections have ended, one trip after they did.
    pub(super) fn cut_calls(&mut self, pod: usize, run: u64) {
        let of_pod = |(call, of): (usize, &Call)| {
            let open = of.pod == pod && of.run == run && of.reservation.is_some();
            open.then_some(call)
        };
        let open: Vec<usize> = self.calls.iter().enumerate().filter_map(of_pod).collect();
        let way = self.options.trip.0;
        for call in open {
            self.agenda.add(self.now + way, Event::End { call });
        }
    }

    fn has_pod(&self, call: usize) -> bool {
        let of = &self.calls[call];
        let pod = &self.pods[of.pod];
        pod.alive && pod.run == of.run
    }

    fn trip(&mut self) -> Duration {
        let (least, most) = self.options.trip;
        self.random.duration(least, most)
    }
}
