//! The simulator: pods, allocators and a provider under virtual time, with everything that goes
//! wrong between them.
//!
//! A world runs the code that decides in production: `quota::holder` for each pod, `quota::ledger`
//! for each allocator, and `providers::enforce` as the provider. What the shells around them do
//! (streams, timers, the record of an allocator) is restated here in its simplest form. After every
//! event the world is checked (`checks`); an ideal bucket beside it is asked for the same
//! (`ideal`). A seed gives the same world again, to the byte. Called by the binary `sim` and by
//! tests. Not here: which leases are safe in every order of events, which [`crate::model`] explores.

pub mod options;
pub mod outcome;
pub mod random;
pub mod trace;

mod agenda;
mod allocator;
mod checks;
mod clock;
mod faults;
mod ideal;
mod links;
mod pod;
mod request;
mod rules;
mod traffic;

#[cfg(test)]
mod tests;

use std::time::Duration;

use providers::enforce::Limiter as Enforcer;
use providers::enforce::figures::Figures;
use quota::holder::Event as Decision;
use quota::time::Time;

use self::agenda::Agenda;
use self::allocator::{Allocator, Beginning, Record};
use self::checks::Checks;
use self::clock::Clock;
use self::faults::Fault;
use self::ideal::{Due, Ideal};
use self::links::{Down, Link, Side, Up};
use self::options::{Limiter, Options};
use self::outcome::{Outcome, Violation};
use self::pod::Pod;
use self::random::Random;
use self::rules::Rules;
use self::trace::{Keep, Trace};
use self::traffic::Call;

/// One world.
struct World {
    options: Options,
    now: Time,
    agenda: Agenda<Event>,
    /// For the network and the faults; demand has its own.
    random: Random,
    demand: Random,
    rules: Rules,
    provider: Enforcer,
    ideal: Ideal,
    pods: Vec<Pod>,
    allocators: Vec<Allocator>,
    record: Record,
    links: Vec<Link>,
    calls: Vec<Call>,
    checks: Checks,
    /// The provider's figures when measuring began, and those of the ideal.
    begun: [Vec<Figures>; 2],
    outcome: Outcome,
    trace: Trace,
    /// A successor of the leader is about to begin.
    is_succeeding: bool,
    /// Arrivals have ended.
    is_ending: bool,
}

/// What happens in a world.
#[derive(Debug)]
enum Event {
    /// A pod's next request, unless it has become idle since.
    Arrival { pod: usize, phase: u64 },
    /// A pod becomes busy or idle.
    Toggle { pod: usize },
    /// A client leaves, if its request still waits.
    Leave { pod: usize, run: u64, draw: quota::message::DrawId },
    /// A request's head is written.
    Write { call: usize },
    /// It reaches the provider.
    Reach { call: usize },
    /// The provider has produced a part of the answer.
    Produce { call: usize, part: u64 },
    /// The head of an answer reaches the pod.
    Head { call: usize },
    /// The provider ends an answer.
    End { call: usize },
    /// The end reaches the pod.
    Ended { call: usize },
    /// A pod's timer.
    WakePod { pod: usize, run: u64 },
    /// An allocator's timer.
    WakeAllocator { allocator: usize },
    /// A pod dials.
    Dial { pod: usize, run: u64 },
    /// Its greeting reaches an allocator.
    Open { pod: usize, run: u64, allocator: usize },
    /// A message reaches an allocator.
    Up { link: usize, message: Up },
    /// A message reaches a pod.
    Down { link: usize, message: Down },
    /// One side notices that a stream has ended.
    Lost { link: usize, side: Side },
    /// Something goes wrong.
    Fault(Fault),
    /// The ideal has something to do.
    Ideal(Due),
    /// Measuring begins.
    Measure,
    /// Arrivals end.
    Finish,
}

/// Polls at one instant after which a machine that still wants to be woken at once is stuck.
const POLLS_MAX: usize = 16;
/// A poll without a result may have set free what the next one gives out; a second one may not.
const IDLE_MAX: usize = 1;
/// After the last arrival: the longest patience, service, silence of a leader and span of credit.
const DRAIN: Duration = Duration::from_secs(40);
/// Events of one world; one that reaches this many runs in circles.
const EVENTS_MAX: u64 = 20_000_000;

/// Runs a world to its end, or to the first thing that is wrong.
pub fn run(options: &Options, keep: Keep) -> (Result<Outcome, Violation>, Vec<String>) {
    let mut world = World::new(options, keep);
    world.begin();
    while let Some((at, event)) = world.agenda.next() {
        if world.is_ending && at > Time::ZERO + world.options.end + DRAIN {
            break;
        }
        world.now = at;
        world.outcome.events += 1;
        world.happen(event);
        if world.outcome.events > EVENTS_MAX {
            world.checks.fail(world.now, "the world does not come to an end".to_owned());
        }
        if world.checks.violation.is_some() {
            break;
        }
    }
    world.now = world.now.max(Time::ZERO + world.options.end + DRAIN);
    world.settle_up();
    let World { checks, outcome, trace, .. } = world;
    let result = match checks.violation {
        Some(violation) => Err(violation),
        None => Ok(outcome),
    };
    (result, trace.into_lines())
}

// === impl World ===

impl World {
    fn new(options: &Options, keep: Keep) -> World {
        let now = Time::ZERO;
        let mut random = Random::new(options.seed);
        let demand = random.fork();
        let rules = Rules::new(options);
        let limit = rules.enforced();
        World {
            now,
            agenda: Agenda::new(),
            demand,
            provider: Enforcer::new(now, std::slice::from_ref(&limit)),
            ideal: Ideal::new(now, &limit),
            pods: Vec::new(),
            allocators: Vec::new(),
            record: Record::default(),
            links: Vec::new(),
            calls: Vec::new(),
            checks: Checks::new(options, &rules),
            begun: [Vec::new(), Vec::new()],
            outcome: Outcome::of(options),
            trace: Trace::new(keep),
            is_succeeding: false,
            is_ending: false,
            options: options.clone(),
            random,
            rules,
        }
    }

    fn begin(&mut self) {
        self.lead(Beginning::FirstUse);
        for _ in 0..self.options.pods {
            self.join();
        }
        self.plan_faults();
        self.agenda.add(Time::ZERO + self.options.warm_up, Event::Measure);
        self.agenda.add(Time::ZERO + self.options.end, Event::Finish);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrival { pod, phase } => self.arrive(pod, phase),
            Event::Toggle { pod } => self.toggle(pod),
            Event::Leave { pod, run, draw } => self.client_leaves(pod, run, draw),
            Event::Write { call } => self.write(call),
            Event::Reach { call } => self.reach(call),
            Event::Produce { call, part } => self.produce(call, part),
            Event::Head { call } => self.head(call),
            Event::End { call } => self.end(call),
            Event::Ended { call } => self.ended(call),
            Event::WakePod { pod, run } => self.wake_pod(pod, run),
            Event::WakeAllocator { allocator } => self.wake_allocator(allocator),
            Event::Dial { pod, run } => self.dial(pod, run),
            Event::Open { pod, run, allocator } => self.open(pod, run, allocator),
            Event::Up { link, message } => self.reaches_allocator(link, message),
            Event::Down { link, message } => self.reaches_pod(link, message),
            Event::Lost { link, side } => self.lost(link, side),
            Event::Fault(fault) => self.fault(fault),
            Event::Ideal(due) => {
                let due = self.ideal.due(self.now, due);
                self.add_ideal(due);
            }
            Event::Measure => self.measure(),
            Event::Finish => self.finish(),
        }
    }

    fn note(&mut self, words: impl FnOnce() -> String) {
        self.trace.note(self.now, words);
    }

    // --- pods ---

    fn wake_pod(&mut self, pod: usize, run: u64) {
        let of = &mut self.pods[pod];
        if of.run == run && of.alive && of.wake_at <= self.now {
            of.wake_at = Time::NEVER;
            self.pump(pod);
        }
    }

    /// Does what a pod's holder decides, and sets its timer.
    fn pump(&mut self, pod: usize) {
        let mut idle = 0;
        for _ in 0..POLLS_MAX {
            let local = self.pods[pod].clock.read(self.now);
            let decisions = self.pods[pod].holder.poll(local);
            let decisions_made = !decisions.is_empty();
            for decision in decisions {
                self.carry_out(pod, decision);
            }
            let of = &mut self.pods[pod];
            let next = of.holder.next_wakeup(local).unwrap_or(Time::NEVER);
            if next > local {
                let at = of.clock.when(next);
                if at < of.wake_at || of.wake_at <= self.now {
                    of.wake_at = at;
                    let run = of.run;
                    if at < Time::NEVER {
                        self.agenda.add(at, Event::WakePod { pod, run });
                    }
                }
                self.checks.pod(self.now, &self.pods[pod]);
                return;
            }
            idle = if decisions_made { 0 } else { idle + 1 };
            if idle > IDLE_MAX {
                break;
            }
        }
        let name = &self.pods[pod].name;
        let what = format!("{name}: polled, its holder wants to be polled again at once");
        self.checks.fail(self.now, what);
    }

    fn carry_out(&mut self, pod: usize, decision: Decision) {
        match decision {
            Decision::Send(message) => self.send_up(pod, Up::Lease(message)),
            Decision::Admit(draw, reservation) => {
                let waiting = self.pods[pod].waiting.remove(&draw);
                let Some(waiting) = waiting else {
                    let what = format!("{} admits {draw:?}, which waits no longer", pod);
                    return self.checks.fail(self.now, what);
                };
                self.start(pod, waiting.request, reservation);
            }
            Decision::Refuse(draw, refused) => {
                let name = self.pods[pod].name.clone();
                self.note(|| format!("{name}: refuses {draw:?}: {}", refused.explain));
                self.pods[pod].waiting.remove(&draw);
                self.outcome.rejected += 1;
            }
        }
    }

    // --- allocators ---

    fn wake_allocator(&mut self, allocator: usize) {
        let of = &mut self.allocators[allocator];
        if of.alive && of.wake_at <= self.now {
            of.wake_at = Time::NEVER;
            self.act(allocator);
        }
    }

    /// Does what is due at an allocator, and sets its timer.
    fn act(&mut self, allocator: usize) {
        let mut idle = 0;
        for _ in 0..POLLS_MAX {
            let local = self.allocators[allocator].clock.read(self.now);
            self.prepare(allocator, local);
            let messages = self.allocators[allocator].ledger.poll(local);
            idle = if messages.is_empty() { idle + 1 } else { 0 };
            for (name, message) in messages {
                let known = &self.allocators[allocator].sessions;
                let link = known.iter().find(|(pod, _)| self.pods[**pod].name == name);
                if let Some(link) = link.map(|(_, link)| *link) {
                    self.send_down(link, Down::Lease(message));
                }
            }
            let of = &mut self.allocators[allocator];
            let next = of.ledger.next_wakeup(local).unwrap_or(Time::NEVER);
            let silent = of.silent.values().copied().min().unwrap_or(Time::NEVER);
            let next = next.min(silent);
            if next > local {
                let at = of.clock.when(next);
                if at < of.wake_at || of.wake_at <= self.now {
                    of.wake_at = at;
                    if at < Time::NEVER {
                        self.agenda.add(at, Event::WakeAllocator { allocator });
                    }
                }
                return self.check_sums();
            }
            if idle > IDLE_MAX {
                break;
            }
        }
        let what = "polled, the ledger wants to be polled again at once".to_owned();
        self.checks.fail(self.now, what);
    }

    /// Forgets pods that surely hold nothing any more.
    fn prepare(&mut self, allocator: usize, local: Time) {
        let of = &mut self.allocators[allocator];
        let over: Vec<usize> =
            of.silent.iter().filter(|(_, until)| **until <= local).map(|(pod, _)| *pod).collect();
        for pod in over {
            self.note(|| format!("pod-{pod:03} has been silent for long enough"));
            let name = self.pods[pod].name.clone();
            self.allocators[allocator].ledger.gone(local, &name);
            self.forget(allocator, pod);
        }
    }

    /// A new run of the allocator begins.
    fn lead(&mut self, beginning: Beginning) {
        let clock = match self.allocators.is_empty() {
            true => Clock::new(Duration::ZERO, 0),
            // Another machine may have booted at another time.
            false => Clock::new(self.random.duration(Duration::ZERO, Duration::from_secs(99)), 0),
        };
        let alive = |(pod, run): (&usize, &allocator::Run)| {
            let of = &self.pods[*pod];
            let ended = run.watched && !(of.alive && of.run == run.run);
            (!ended).then(|| of.name.clone())
        };
        let roster = self.record.pods.iter().filter_map(alive).collect();
        let timing = self.options.timing;
        let start = (timing, beginning);
        let mut leader = Allocator::new(self.now, clock, start, roster, &mut self.record);
        let policy = self.rules.policy();
        leader.ledger.set_policy(clock.read(self.now), policy.clone());
        self.record.promise_floors(&policy);
        let hold = self.record.longest_hold(timing);
        for (pod, run) in &self.record.pods {
            if !run.watched {
                leader.silent.insert(*pod, clock.read(self.now) + hold);
            }
        }
        let epoch = leader.epoch();
        self.note(|| format!("an allocator begins epoch {}: {beginning:?}", epoch.0));
        self.allocators.push(leader);
        self.act(self.allocators.len() - 1);
    }

    // --- measuring ---

    fn measure(&mut self) {
        self.provider.restart_figures(self.now);
        self.ideal.limiter.restart_figures(self.now);
        self.begun = [self.provider.figures(self.now), self.ideal.limiter.figures(self.now)];
    }

    fn finish(&mut self) {
        self.note(|| "arrivals end".to_owned());
        self.is_ending = true;
        let ended = [self.provider.figures(self.now), self.ideal.limiter.figures(self.now)];
        let spans = [0, 1].map(|of| [self.begun[of].as_slice(), ended[of].as_slice()]);
        let is_bucket = matches!(self.options.limiter, Limiter::Bucket(_));
        let waiting = self.pods.iter().flat_map(|pod| pod.waiting.values());
        let largest = waiting.map(|waiting| waiting.request.reserved.total.0).max();
        self.outcome.measured(spans, is_bucket, largest.unwrap_or_default());
        self.checks.used(self.now, &self.options, &self.outcome);
    }

    fn add_ideal(&mut self, due: Vec<(Time, Due)>) {
        self.outcome.rejected_ideally = self.ideal.rejected;
        for (at, due) in due {
            self.agenda.add(at, Event::Ideal(due));
        }
    }
}
