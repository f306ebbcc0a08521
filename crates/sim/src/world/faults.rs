//! What goes wrong in a world, and when: streams, pods, allocators, and the policy.

use std::time::Duration;

use quota::time::Time;
use quota::units::Amount;

use super::allocator::{Beginning, workload};
use super::clock::Clock;
use super::links::Up;
use super::options::Demand;
use super::pod::Pod;
use super::{Event, World};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A stream breaks.
    Break,
    /// A pod's process ends.
    Crash,
    /// A pod's machine is lost.
    Lose,
    /// A pod's container restarts.
    Restart,
    /// A pod joins.
    Join,
    /// A pod says goodbye, when its requests have ended.
    Leave,
    /// It does so now, if they have.
    Goodbye { pod: usize, run: u64 },
    /// The leader's process ends.
    Kill,
    /// The leader is given up for lost.
    Silence,
    /// One that was given up for lost ends.
    Vanish { allocator: usize },
    /// The next allocator begins.
    Begin(Beginning),
    /// The end of a process is seen.
    SeeEnd { pod: usize, run: u64 },
    /// The container of a pod has started again.
    StartAgain { pod: usize },
    /// The policy changes.
    Edit,
}

/// How long the kernel takes to tell that a process has ended.
const SEEN_WITHIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));
/// For how long a leader that was given up for lost may go on.
const ZOMBIE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));

impl World {
    pub(super) fn plan_faults(&mut self) {
        let faults = self.options.faults.clone();
        let kinds = [
            (faults.breaks, Fault::Break),
            (faults.crashes, Fault::Crash),
            (faults.losses, Fault::Lose),
            (faults.restarts, Fault::Restart),
            (faults.joins, Fault::Join),
            (faults.leaves, Fault::Leave),
            (faults.kills, Fault::Kill),
            (faults.silences, Fault::Silence),
            (faults.edits, Fault::Edit),
        ];
        for (count, fault) in kinds {
            for _ in 0..count {
                let at = Time::ZERO + self.random.duration(Duration::ZERO, self.options.end);
                self.agenda.add(at, Event::Fault(fault));
            }
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        self.note(|| format!("fault: {fault:?}"));
        match fault {
            Fault::Break => self.break_one(),
            Fault::Crash => self.end_one(Duration::from_millis(50), true, false),
            Fault::Lose => self.end_one(Duration::from_secs(6), false, false),
            Fault::Restart => self.end_one(Duration::from_millis(50), true, true),
            Fault::Join => self.join(),
            Fault::Leave => {
                if let Some(pod) = self.any_pod() {
                    self.pods[pod].accepting = false;
                    let run = self.pods[pod].run;
                    self.goodbye(pod, run);
                }
            }
            Fault::Goodbye { pod, run } => self.goodbye(pod, run),
            Fault::Kill => self.kill(),
            Fault::Silence => self.silence(),
            Fault::Vanish { allocator } => self.end_allocator(allocator),
            Fault::Begin(beginning) => {
                self.is_succeeding = false;
                self.lead(beginning);
            }
            Fault::SeeEnd { pod, run } => self.see_end(pod, run),
            Fault::StartAgain { pod } => self.start_again(pod),
            Fault::Edit => self.edit(),
        }
    }

    // --- pods ---

    /// A pod joins.
    pub(super) fn join(&mut self) {
        let index = self.pods.len();
        let origin = self.random.duration(Duration::ZERO, Duration::from_secs(1_000));
        let drift = i64::try_from(self.options.drift_ppm).unwrap_or(0);
        let ppm = i64::try_from(self.random.range(0, self.options.drift_ppm * 2)).unwrap_or(0);
        let clock = Clock::new(origin, ppm - drift);
        let mut pod = Pod::new(self.now, index, index % self.options.workloads, clock);
        pod.watched = self.options.faults.losses == 0 || self.random.percent(50);
        pod.weight = match self.options.demand {
            Demand::Even | Demand::OnOff => 1_000,
            Demand::Skewed | Demand::Popular => 1_000 / (index as u64 + 1),
            Demand::OnePod => u64::from(index == 0),
        };
        self.pods.push(pod);
        // Pods do not all start in the same instant, and the first requests wait for a policy.
        let dial_at = self.now + self.random.duration(Duration::ZERO, Duration::from_millis(20));
        self.agenda.add(dial_at, Event::Dial { pod: index, run: 1 });
        self.plan_arrival(index);
        match self.options.demand {
            Demand::OnOff => {
                let at = self.now + self.demand.duration(Duration::ZERO, Duration::from_secs(3));
                self.agenda.add(at, Event::Toggle { pod: index });
            }
            // One in four is busy at any time.
            Demand::Popular if self.demand.percent(75) => self.toggle(index),
            Demand::Popular => {
                let stay = self.stay(index);
                self.agenda.add(self.now + stay, Event::Toggle { pod: index });
            }
            Demand::Even | Demand::Skewed | Demand::OnePod => {}
        }
    }

    fn any_pod(&mut self) -> Option<usize> {
        let alive: Vec<usize> = (0..self.pods.len()).filter(|pod| self.pods[*pod].alive).collect();
        (!alive.is_empty()).then(|| self.random.pick(&alive))
    }

    /// A pod ends without a word.
    fn end_one(&mut self, notice: Duration, process_only: bool, again: bool) {
        let Some(pod) = self.any_pod() else { return };
        let watched = self.pods[pod].watched;
        // What nobody sees happens to pods that nobody watches.
        if !process_only && watched {
            return;
        }
        let run = self.pods[pod].run;
        if let Some(link) = self.pods[pod].link {
            let notice = self.random.duration(Duration::ZERO, notice);
            self.break_link(link, [notice, notice]);
        }
        self.outcome.rejected += self.pods[pod].waiting.len() as u64;
        self.cut_calls(pod, run);
        self.pods[pod].end();
        self.checks.ended(pod);
        self.note(|| format!("pod-{pod:03} run {run} ends"));
        if watched {
            let at = self.now + self.random.duration(SEEN_WITHIN.0, SEEN_WITHIN.1);
            self.agenda.add(at, Event::Fault(Fault::SeeEnd { pod, run }));
        }
        if again {
            let pause = self.random.duration(Duration::from_millis(1), Duration::from_secs(2));
            self.agenda.add(self.now + pause, Event::Fault(Fault::StartAgain { pod }));
        }
    }

    fn start_again(&mut self, pod: usize) {
        self.pods[pod].restart(self.now);
        let run = self.pods[pod].run;
        self.dial(pod, run);
    }

    /// The end of a process is confirmed to all who watch it.
    fn see_end(&mut self, pod: usize, run: u64) {
        if self.record.pods.get(&pod).is_none_or(|on_record| on_record.run != run) {
            return;
        }
        for allocator in 0..self.allocators.len() {
            let of = &mut self.allocators[allocator];
            if of.alive {
                let local = of.clock.read(self.now);
                of.ledger.gone(local, &self.pods[pod].name);
                self.forget(allocator, pod);
                self.act(allocator);
            }
        }
    }

    fn goodbye(&mut self, pod: usize, run: u64) {
        let of = &mut self.pods[pod];
        if !of.alive || of.run != run {
            return;
        }
        if of.in_flight > 0 || !of.waiting.is_empty() {
            let soon = self.now + Duration::from_millis(50);
            return self.agenda.add(soon, Event::Fault(Fault::Goodbye { pod, run }));
        }
        let local = of.clock.read(self.now);
        let bye = of.holder.bye(local);
        self.checks.goodbye(self.now, pod, &bye);
        self.send_up(pod, Up::Lease(bye));
        if let Some(link) = self.pods[pod].link {
            // Closed behind the last message: both have read all by then.
            let second = Duration::from_secs(1);
            self.agenda.add(self.now + second, Event::Lost { link, side: super::Side::Allocator });
        }
        self.pods[pod].end();
        self.checks.ended(pod);
        if self.pods[pod].watched {
            let at = self.now + Duration::from_secs(1);
            self.agenda.add(at, Event::Fault(Fault::SeeEnd { pod, run }));
        }
    }

    // --- streams ---

    fn break_one(&mut self) {
        let Some(link) = self.any_pod().and_then(|pod| self.pods[pod].link) else { return };
        // Mostly both see it at once; sometimes one goes on talking to nobody until its pings fail.
        let longest = Duration::from_millis(self.random.pick(&[10, 10, 6_000]));
        let notice = [(); 2].map(|()| self.random.duration(Duration::ZERO, longest));
        self.break_link(link, notice);
    }

    // --- allocators ---

    fn kill(&mut self) {
        let leader = self.allocators.len() - 1;
        if self.is_succeeding {
            return;
        }
        self.is_succeeding = true;
        self.end_allocator(leader);
        // One that waits for this moment begins at once: nothing refills in between that nobody uses.
        let longest = Duration::from_millis(self.random.pick(&[20, 2_000]));
        let pause = self.random.duration(Duration::from_millis(1), longest);
        self.agenda.add(self.now + pause, Event::Fault(Fault::Begin(Beginning::Confirmed)));
    }

    fn end_allocator(&mut self, allocator: usize) {
        self.allocators[allocator].alive = false;
        let links: Vec<usize> = self.allocators[allocator].sessions.values().copied().collect();
        let longest = Duration::from_millis(self.random.pick(&[1, 50]));
        for link in links {
            let notice = self.random.duration(Duration::ZERO, longest);
            self.break_link(link, [notice, notice]);
        }
    }

    /// A leader is cut off, goes on for a while with the pods that still hear it, and its successor
    /// waits for as long.
    fn silence(&mut self) {
        let leader = self.allocators.len() - 1;
        if self.is_succeeding {
            return;
        }
        self.is_succeeding = true;
        let goes_on = self.random.duration(ZOMBIE.0, ZOMBIE.1);
        let vanish = Fault::Vanish { allocator: leader };
        self.agenda.add(self.now + goes_on, Event::Fault(vanish));
        let begins = self.random.duration(Duration::ZERO, goes_on);
        let short = self.options.timing.lease_ttl <= Duration::from_secs(10);
        let beginning = if short && self.random.percent(50) {
            Beginning::Lost
        } else {
            Beginning::Silent(goes_on.saturating_sub(begins) + Duration::from_millis(1))
        };
        self.agenda.add(self.now + begins, Event::Fault(Fault::Begin(beginning)));
        // Some pods lose it early.
        let links: Vec<usize> = self.allocators[leader].sessions.values().copied().collect();
        for link in links {
            if self.random.percent(50) {
                let notice = self.random.duration(Duration::ZERO, goes_on);
                self.break_link(link, [notice, notice]);
            }
        }
    }

    // --- policy ---

    fn edit(&mut self) {
        for raised in self.rules.edit(&mut self.random) {
            let limit = Amount::from_units(raised.limit);
            let (name, dimension) = (super::rules::LIMIT, raised.dimension);
            self.provider.change_limit(self.now, name, dimension, limit);
            self.ideal.raise(self.now, dimension, limit);
        }
        self.checks.edited(self.now, &self.options, &self.rules);
        let policy = self.rules.policy();
        self.record.promise_floors(&policy);
        for allocator in 0..self.allocators.len() {
            let of = &mut self.allocators[allocator];
            if !of.alive {
                continue;
            }
            let local = of.clock.read(self.now);
            of.ledger.set_policy(local, policy.clone());
            let sessions: Vec<(usize, usize)> =
                of.sessions.iter().map(|(pod, link)| (*pod, *link)).collect();
            for (pod, link) in sessions {
                let name = self.pods[pod].name.clone();
                let flow = workload(&policy, self.pods[pod].workload);
                self.allocators[allocator].ledger.set_quota(&name, flow);
                self.send_policy(link);
            }
            self.act(allocator);
        }
    }
}
