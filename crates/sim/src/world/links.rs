//! The streams between pods and allocators: in order and without loss while they last, as TCP has
//! it; what is on its way when one breaks is lost, and each side notices in its own time.

use std::sync::Arc;
use std::time::Duration;

use quota::message::{ToAllocator, ToPod};
use quota::policy::PodPolicy;
use quota::time::Time;

use super::allocator::{Run, workload};
use super::options::Lie;
use super::{Event, World, rules};

/// One stream.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) pod: usize,
    pub(super) run: u64,
    pub(super) allocator: usize,
    /// What is sent on it arrives.
    pub(super) whole: bool,
    /// When what was sent last in each direction arrives: nothing overtakes it.
    up_at: Time,
    down_at: Time,
}

/// One end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Pod,
    Allocator,
}

/// What a pod sends.
#[derive(Debug)]
pub(super) enum Up {
    Lease(ToAllocator),
}

/// What an allocator sends.
#[derive(Debug)]
pub(super) enum Down {
    /// The stream is accepted.
    Accepted,
    Policy(Arc<PodPolicy>),
    Lease(ToPod),
}

/// Between two dials: short at first, because a successor is there soon.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

impl World {
    /// A pod dials whoever leads.
    pub(super) fn dial(&mut self, pod: usize, run: u64) {
        let of = &self.pods[pod];
        if of.run != run || !of.alive || of.link.is_some() {
            return;
        }
        let leader = self.allocators.len() - 1;
        if !self.allocators[leader].alive {
            return self.dial_again(pod);
        }
        // There and back, then there again.
        let at = self.now + self.delay() + self.delay() + self.delay();
        self.agenda.add(at, Event::Open { pod, run, allocator: leader });
    }

    /// A pod's greeting has reached an allocator.
    pub(super) fn open(&mut self, pod: usize, run: u64, allocator: usize) {
        let of = &self.pods[pod];
        if of.run != run || !of.alive || of.link.is_some() {
            return;
        }
        let before = self.record.pods.get(&pod).copied();
        let other = before.filter(|before| before.run != run);
        let is_open = self.allocators[allocator].sessions.contains_key(&pod);
        // Nobody knows whether an unwatched run has ended but by the end of its stream.
        let is_double = other.is_some_and(|before| !before.watched) && is_open;
        // Nobody is served who is not on record, and one that was given up for lost cannot write it.
        let is_unwritten = before.is_none_or(|before| before.run != run);
        let cannot_write = is_unwritten && allocator + 1 < self.allocators.len();
        if !self.allocators[allocator].alive || is_double || cannot_write {
            return self.dial_again(pod);
        }
        let watched = of.watched;
        let local = self.allocators[allocator].clock.read(self.now);
        let (name, workload_of) = (of.name.clone(), of.workload);
        let policy = self.rules.policy();
        let leader = &mut self.allocators[allocator];
        if other.is_some_and(|before| before.watched) {
            leader.ledger.gone(local, &name);
        }
        leader.silent.remove(&pod);
        self.record.pods.insert(pod, Run { run, watched });
        self.record.promise_floors(&policy);
        leader.ledger.connect(local, &name, run, workload(&policy, workload_of));
        let link = self.links.len();
        leader.sessions.insert(pod, link);
        let (up_at, down_at) = (self.now, self.now);
        self.links.push(Link { pod, run, allocator, whole: true, up_at, down_at });
        self.pods[pod].link = Some(link);
        self.note(|| format!("{name} run {run}: a stream opens"));
        self.send_down(link, Down::Accepted);
        self.send_policy(link);
        self.act(allocator);
    }

    pub(super) fn send_policy(&mut self, link: usize) {
        let labels = rules::labels(self.pods[self.links[link].pod].workload);
        let policy = self.rules.policy().for_pod(rules::NAMESPACE, &labels);
        if let Some(policy) = policy {
            self.send_down(link, Down::Policy(Arc::new(policy)));
        }
    }

    pub(super) fn send_up(&mut self, pod: usize, message: Up) {
        let Some(link) = self.pods[pod].link else { return };
        let delay = self.delay();
        let of = &mut self.links[link];
        of.up_at = of.up_at.max(self.now + delay);
        let at = of.up_at;
        self.agenda.add(at, Event::Up { link, message });
    }

    pub(super) fn send_down(&mut self, link: usize, message: Down) {
        let delay = self.delay();
        let of = &mut self.links[link];
        of.down_at = of.down_at.max(self.now + delay);
        let at = of.down_at;
        self.agenda.add(at, Event::Down { link, message });
    }

    pub(super) fn reaches_allocator(&mut self, link: usize, message: Up) {
        let Link { pod, run, allocator, whole, .. } = self.links[link];
        let leader = &mut self.allocators[allocator];
        if !whole || !leader.alive || leader.sessions.get(&pod) != Some(&link) {
            return;
        }
        let local = leader.clock.read(self.now);
        let name = self.pods[pod].name.clone();
        let Up::Lease(message) = message;
        self.trace.note(self.now, || format!("{name} run {run} -> allocator: {message:?}"));
        let is_bye = matches!(message, ToAllocator::Bye(_));
        self.allocators[allocator].ledger.receive(local, &name, message);
        if is_bye {
            self.forget(allocator, pod);
        }
        self.act(allocator);
    }

    pub(super) fn reaches_pod(&mut self, link: usize, message: Down) {
        let Link { pod, run, whole, .. } = self.links[link];
        let of = &mut self.pods[pod];
        if !whole || !of.alive || of.run != run || of.link != Some(link) {
            return;
        }
        let local = of.clock.read(self.now);
        let name = of.name.clone();
        self.trace.note(self.now, || format!("allocator -> {name} run {run}: {message:?}"));
        match message {
            Down::Accepted => {
                of.failures = 0;
                of.holder.connected(local);
            }
            Down::Policy(policy) => {
                of.holder.set_policy(&policy);
                of.policy = Some(policy);
            }
            Down::Lease(message) => {
                let message = match self.options.lie {
                    Some(Lie::FullLevels) => filled(message),
                    None => message,
                };
                of.holder.receive(local, message);
            }
        }
        self.pump(pod);
    }

    /// One side has noticed the end of a stream.
    pub(super) fn lost(&mut self, link: usize, side: Side) {
        let Link { pod, run, allocator, .. } = self.links[link];
        match side {
            Side::Pod => {
                let of = &mut self.pods[pod];
                if of.alive && of.run == run && of.link == Some(link) {
                    of.link = None;
                    let local = of.clock.read(self.now);
                    of.holder.disconnected(local);
                    self.note(|| format!("pod-{pod:03} notices the end of its stream"));
                    self.pump(pod);
                    self.dial_again(pod);
                }
            }
            Side::Allocator => {
                let leader = &mut self.allocators[allocator];
                if leader.alive && leader.sessions.get(&pod) == Some(&link) {
                    leader.sessions.remove(&pod);
                    leader.ledger.disconnect(&self.pods[pod].name);
                    self.go_silent(allocator, pod);
                    self.note(|| format!("the allocator notices the end of pod-{pod:03}'s stream"));
                    self.act(allocator);
                }
            }
        }
    }

    /// A stream breaks; `notice` is how long either side takes to see it.
    pub(super) fn break_link(&mut self, link: usize, notice: [Duration; 2]) {
        self.links[link].whole = false;
        let [pod, allocator] = notice;
        self.agenda.add(self.now + pod, Event::Lost { link, side: Side::Pod });
        self.agenda.add(self.now + allocator, Event::Lost { link, side: Side::Allocator });
    }

    /// A pod holds nothing any more.
    pub(super) fn forget(&mut self, allocator: usize, pod: usize) {
        let leader = &mut self.allocators[allocator];
        leader.sessions.remove(&pod);
        leader.silent.remove(&pod);
        // One that was given up for lost cannot write any more: its successor must not miss the end.
        if allocator + 1 == self.allocators.len() {
            self.record.pods.remove(&pod);
        }
    }

    fn go_silent(&mut self, allocator: usize, pod: usize) {
        if self.record.pods.get(&pod).is_some_and(|run| !run.watched) {
            let hold = self.record.longest_hold(self.options.timing);
            let leader = &mut self.allocators[allocator];
            let until = leader.clock.read(self.now) + hold;
            leader.silent.insert(pod, until);
        }
    }

    fn dial_again(&mut self, pod: usize) {
        let of = &mut self.pods[pod];
        let backoff = (BACKOFF_MIN * 2u32.saturating_pow(of.failures)).min(BACKOFF_MAX);
        of.failures = (of.failures + 1).min(10);
        let run = of.run;
        let pause = self.random.duration(backoff / 2, backoff);
        self.agenda.add(self.now + pause, Event::Dial { pod, run });
    }

    fn delay(&mut self) -> Duration {
        let (least, most) = self.options.delay;
        self.random.duration(least, most)
    }
}

/// A lease whose levels start full.
fn filled(message: ToPod) -> ToPod {
    let ToPod::Lease(mut lease) = message else { return message };
    for terms in lease.items.values_mut() {
        terms.fill = terms.cap;
    }
    ToPod::Lease(lease)
}
