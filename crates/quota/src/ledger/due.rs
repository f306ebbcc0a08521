//! What the ledger does because time has passed: it asks, it refuses, it forgets.
//!
//! There may be thousands of pods, and a poll for each message of one of them, so nothing here looks at
//! all of them: what falls due is kept in the order in which it does.

use std::time::Duration;

use super::Ledger;
use crate::message::{Denial, PodId, Reason, ToPod};
use crate::time::Time;

/// A challenge that nobody answered is repeated.
const CHALLENGE_AGAIN: Duration = Duration::from_secs(1);

impl Ledger {
    /// Asks pods what they hold whose time has come.
    pub(super) fn challenge(&mut self, now: Time) {
        let (epoch, quiet) = (self.accounts.epoch(), self.accounts.quiet_until());
        while self.strangers.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, pod)) = self.strangers.pop_first() else { return };
            // Until the leader before has surely ended there is nothing to ask; try again later. One by
            // one: a newer challenge makes the answer to the one before worthless.
            self.ask_at(if now < quiet { quiet } else { now + CHALLENGE_AGAIN }, &pod);
            let boot = self.sessions.get(&pod).map_or(0, |session| session.boot);
            if let Some(nonce) = self.accounts.challenge(now, &pod, boot) {
                self.outbox.push((pod, ToPod::Challenge(epoch, nonce)));
            }
        }
    }

    /// A pod whose holdings are not known is asked at `at`.
    pub(super) fn ask_at(&mut self, at: Time, pod: &PodId) {
        let Some(session) = self.sessions.get_mut(pod) else { return };
        self.strangers.remove(&(session.challenge_at, pod.clone()));
        session.challenge_at = at;
        if session.is_stranger() {
            self.strangers.insert((at, pod.clone()));
        }
    }

    /// Ends the wait of draws and the credit whose time is over.
    pub(super) fn expire(&mut self, now: Time) {
        let expired = self.queue.expire(now);
        self.left_queue(&expired);
        for draw in expired {
            let (pod, id) = draw.key;
            let denial = Denial {
                id,
                reason: Reason::Deadline,
                retry_after: Some(Duration::from_secs(1)),
                explain: format!("class {}: its turn did not come in time", draw.class),
            };
            self.outbox.push((pod, ToPod::Deny(denial)));
        }
        while let Some((_, pod)) = self.voids.pop_front_if(|(until, _)| *until <= now) {
            let Some(session) = self.sessions.get_mut(&pod) else { continue };
            for (budget, amount) in session.expire(now) {
                self.centre.no_longer_outstanding(&budget, amount);
            }
        }
        self.accounts.reap(now);
    }

    /// Forgets pods without a stream that hold nothing. What they held is free since it ended.
    pub(super) fn forget_silent(&mut self, now: Time) {
        let silent = |pod: &&PodId| {
            let slots = self.sessions.get(*pod).map(|session| &session.slots);
            let uses_slots = slots.is_some_and(|slots| slots.values().any(|it| !it.is_zero()));
            !uses_slots && self.accounts.holds_nothing(now, pod)
        };
        let silent: Vec<PodId> = self.away.iter().filter(silent).cloned().collect();
        for pod in silent {
            self.gone(now, &pod);
        }
    }
}
