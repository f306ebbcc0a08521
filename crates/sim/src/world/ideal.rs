//! The ideal beside every world: one bucket, known to all without delay, and one queue in front of
//! it. What it admits of the same requests is what could be had at best.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use providers::enforce::rule::Limit;
use providers::enforce::{Limiter, Ticket};
use quota::dimension::Dimension;
use quota::time::Time;
use quota::units::Amount;

use super::request::Request;
use super::rules::{LIMIT, MODEL};

/// One queue in front of the provider.
#[derive(Debug)]
pub(super) struct Ideal {
    pub(super) limiter: Limiter,
    /// Higher class first, then as they came.
    queue: BTreeMap<(Reverse<usize>, u64), (Time, Request)>,
    calls: BTreeMap<u64, (Ticket, Request)>,
    last: u64,
    pub(super) admitted: u64,
    pub(super) rejected: u64,
}

/// When the ideal has something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Somebody may fit.
    Serve,
    /// A call ends.
    End(u64),
}

impl Ideal {
    pub(super) fn new(now: Time, limit: &Limit) -> Ideal {
        Ideal {
            limiter: Limiter::new(now, std::slice::from_ref(limit)),
            queue: BTreeMap::new(),
            calls: BTreeMap::new(),
            last: 0,
            admitted: 0,
            rejected: 0,
        }
    }

    /// A request arrives. Returns what is due and when.
    pub(super) fn arrive(&mut self, now: Time, request: Request) -> Vec<(Time, Due)> {
        self.last += 1;
        let place = (Reverse(request.class), self.last);
        let patience = request.leaves_after.unwrap_or(request.patience);
        self.queue.insert(place, (now + patience, request));
        self.serve(now)
    }

    pub(super) fn due(&mut self, now: Time, due: Due) -> Vec<(Time, Due)> {
        if let Due::End(id) = due
            && let Some((ticket, request)) = self.calls.remove(&id)
        {
            self.limiter.settle(now, ticket, &request.actual);
        }
        self.serve(now)
    }

    /// The provider admits more from now on.
    pub(super) fn raise(&mut self, now: Time, dimension: Dimension, limit: Amount) {
        self.limiter.change_limit(now, LIMIT, dimension, limit);
    }

    fn serve(&mut self, now: Time) -> Vec<(Time, Due)> {
        let mut due = Vec::new();
        while let Some(first) = self.queue.first_entry() {
            let (deadline, request) = *first.get();
            if deadline < now {
                first.remove();
                self.rejected += 1;
                continue;
            }
            if !request.is_sent {
                first.remove();
                self.admitted += 1;
                continue;
            }
            match self.limiter.admit(now, MODEL, &request.admitted) {
                Ok(ticket) => {
                    let ((_, id), _) = first.remove_entry();
                    self.admitted += 1;
                    self.calls.insert(id, (ticket, request));
                    due.push((now + request.service, Due::End(id)));
                }
                Err(denied) => {
                    // Slots come back when a call ends, which serves anyway.
                    due.extend(denied.wait.map(|wait| (now + wait, Due::Serve)));
                    break;
                }
            }
        }
        due
    }
}
