//! A state of the model: pods, leaders, and what is on its way.
//!
//! Messages stay on their way until they can have no effect any more. So every message may be lost
//! (it is never delivered), late, out of order and doubled, without a step for any of these.

use std::hash::{BuildHasher, Hash, Hasher};
use std::rc::Rc;

use quota::accounts::Accounts;
use quota::lease::Lease;
use quota::message::{Epoch, Holdings, LeaseSet, Nonce, Version};
use quota::time::Time;

use super::size::seconds;

/// Pods there ever are: two, and one that may join.
pub(super) const PODS: usize = 3;

/// A state. Cheap to copy: its parts are shared, and each knows its own hash.
#[derive(Clone, Debug, Hash)]
pub(super) struct State {
    pub(super) tick: u8,
    pub(super) capacity: u8,
    /// The largest sum of floors promised; durable, beside the epoch.
    pub(super) stored_floors: u8,
    pub(super) pods: [Pod; PODS],
    pub(super) leaders: [Option<Leader>; 2],
    pub(super) succeeded: bool,
    /// In the order of their hashes.
    pub(super) net: Vec<Part<Message>>,
    pub(super) restarts_left: u8,
    pub(super) ends_left: u8,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Pod {
    pub(super) life: Life,
    /// The number of its present run.
    pub(super) boot: u8,
    /// Ticks of its own clock.
    pub(super) clock: u8,
    /// Ticks before its clock may err again.
    pub(super) steady_for: u8,
    pub(super) lease: Part<Lease>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Life {
    Absent,
    Present,
    Ended,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Leader {
    pub(super) accounts: Part<Accounts>,
    /// For each pod the run whose holdings were accepted last; leases go there.
    pub(super) runs: [u8; PODS],
    /// The ends of pods that it knows of.
    pub(super) confirmed: [bool; PODS],
    /// For each pod the nonce of the challenge that waits for its answer; 0 for none.
    pub(super) open: [u8; PODS],
    /// For each pod the newest version it confirmed.
    pub(super) acked: [u8; PODS],
    /// It acts before this tick only.
    pub(super) until: u8,
    pub(super) challenges_left: u8,
    pub(super) grants_left: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Message {
    /// To a run of a pod.
    Challenge { leader: u8, pod: u8, boot: u8, nonce: Nonce },
    /// To a leader.
    Holdings { leader: u8, pod: u8, boot: u8, clock: u8, holdings: Holdings },
    /// To a run of a pod.
    Lease { leader: u8, pod: u8, boot: u8, grant: LeaseSet },
    /// To a leader.
    Ack { leader: u8, pod: u8, version: Version },
}

/// A shared part of a state, and its hash.
#[derive(Debug)]
pub(super) struct Part<T> {
    hash: u64,
    value: Rc<T>,
}

// === impl State ===

impl State {
    /// The leaders' clock.
    pub(super) fn now(&self) -> Time {
        Time::ZERO + seconds(self.tick)
    }

    /// Stands for the state in the set of those that were seen.
    pub(super) fn fingerprint(&self) -> u64 {
        hash_of(self)
    }

    /// Puts a message on its way.
    pub(super) fn send(&mut self, message: Message) {
        let message = Part::new(message);
        if let Err(at) = self.net.binary_search_by_key(&message.hash, |sent| sent.hash) {
            self.net.insert(at, message);
        }
    }

    /// Takes away what can have no effect any more, because runs, epochs, versions and nonces only
    /// grow. `keep_leases` where a lie makes old leases look new.
    pub(super) fn forget_dead_messages(&mut self, keep_leases: bool) {
        let State { net, pods, leaders, .. } = self;
        net.retain(|message| match message.get() {
            Message::Challenge { leader, pod, boot, nonce } => {
                let pod_state = &pods[usize::from(*pod)];
                let fence = pod_state.lease.get().epoch();
                let asked = leaders[usize::from(*leader)].as_ref();
                let open = asked
                    .is_some_and(|leader| u64::from(leader.open[usize::from(*pod)]) == nonce.0);
                pod_state.runs(*boot) && fence <= epoch(*leader) && (open || fence < epoch(*leader))
            }
            Message::Lease { pod, boot, grant, .. } => {
                let pod = &pods[usize::from(*pod)];
                let lease = pod.lease.get();
                let held = lease.grant().map(|held| (held.epoch, held.version));
                let newer = grant.epoch >= lease.epoch()
                    && held.is_none_or(|held| (grant.epoch, grant.version) > held);
                pod.runs(*boot) && (newer || keep_leases)
            }
            Message::Holdings { leader, pod, holdings, .. } => {
                let asked = leaders[usize::from(*leader)].as_ref();
                asked.is_some_and(|leader| {
                    u64::from(leader.open[usize::from(*pod)]) == holdings.nonce.0
                })
            }
            Message::Ack { leader, pod, version } => {
                let sender = leaders[usize::from(*leader)].as_ref();
                sender.is_some_and(|leader| u64::from(leader.acked[usize::from(*pod)]) < version.0)
            }
        });
    }
}

// === impl Pod ===

impl Pod {
    pub(super) fn new(life: Life) -> Pod {
        Pod { life, boot: 1, clock: 0, steady_for: 0, lease: Part::new(Lease::default()) }
    }

    /// True if this run of the pod is the one there is.
    pub(super) fn runs(&self, boot: u8) -> bool {
        self.life == Life::Present && self.boot == boot
    }
}

/// A leader's epoch.
pub(super) fn epoch(leader: u8) -> Epoch {
    Epoch(u64::from(leader) + 1)
}

// === impl Part ===

impl<T: Hash> Part<T> {
    pub(super) fn new(value: T) -> Part<T> {
        Part { hash: hash_of(&value), value: Rc::new(value) }
    }

    pub(super) fn get(&self) -> &T {
        &self.value
    }
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Part<T> {
        Part { hash: self.hash, value: Rc::clone(&self.value) }
    }
}

impl<T> Hash for Part<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

fn hash_of<T: Hash>(value: &T) -> u64 {
    foldhash::quality::FixedState::default().hash_one(value)
}
