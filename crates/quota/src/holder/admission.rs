//! What goes into a holder and comes out of it: requests, reservations, refusals, events.

use std::sync::Arc;
use std::time::Duration;

use crate::charge::Vector;
use crate::message::{DrawId, Reason, ToAllocator};
use crate::policy::Name;
use crate::time::Time;

/// A request that wants to go to a provider.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What it takes, all or nothing. Empty if no limit applies.
    pub vector: Vector,
    /// Its priority class.
    pub class: Name,
    /// When it must have been admitted at the latest.
    pub deadline: Time,
    /// Its trace, if any.
    pub traceparent: Option<Arc<str>>,
}

/// The answer to an [`Ask`].
#[derive(Debug)]
pub enum Admission {
    /// It may go now.
    Granted(Reservation),
    /// It waits; [`super::Holder::poll`] will tell.
    Waiting(DrawId),
    /// It may not go.
    Refused(Refused),
}

/// What an admitted request has taken. It must come back through [`super::Holder::settle`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a reservation must be settled"]
pub struct Reservation {
    /// Its name.
    pub id: DrawId,
    /// What was taken.
    pub vector: Vector,
    /// Where it came from.
    pub source: Source,
    /// When it was debited: the request's head must be written soon after.
    pub at: Time,
}

/// Where an admitted request's budget came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The pod's own lease: nothing was asked.
    Lease,
    /// Credit of the allocator.
    Draw,
    /// Nothing applies, or limits are not enforced.
    Free,
}

/// Why a request may not go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The reason.
    pub reason: Reason,
    /// When to come back; `None` for never.
    pub retry_after: Option<Duration>,
    /// For people.
    pub explain: String,
}

/// What the caller must do.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Send a message.
    Send(ToAllocator),
    /// Let a waiting request go.
    Admit(DrawId, Reservation),
    /// Refuse a waiting request.
    Refuse(DrawId, Refused),
}
