//! What the allocator sends: the lease protocol, and what is around it.

use prost::Message as _;
use quota::message::{Epoch, Nonce, ToPod};
use quota::policy::PodPolicy;

use crate::MAX_MESSAGE_BYTES;
use crate::bounds::{self, EXPLAIN_MAX, URL_MAX, known};
use crate::error::Error;
use crate::generated as proto;
use crate::generated::to_sidecar::Message;

/// A message of the allocator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromAllocator {
    /// The lease protocol.
    Lease(ToPod),
    /// The policy for this pod; it replaces the one before.
    Policy(Box<PodPolicy>),
    /// No quota matches the pod: it has no policy until one does.
    NoQuota {
        /// Of the policy that has no quota for it.
        generation: u64,
        /// What to create, for people.
        explain: String,
    },
    /// The allocator ends; leases run on.
    Drain,
    /// Another allocator leads.
    Redirect {
        /// Where to dial.
        address: String,
    },
    /// Proof of the identity that was checked, for the next greeting.
    Ticket(Vec<u8>),
    /// The session is refused; the stream ends.
    Refused {
        /// Why.
        reason: RefusedReason,
        /// What to do about it, for people.
        explain: String,
    },
    /// What only a later version says; it changes nothing.
    Unknown,
}

/// Why a session is refused. The labels are the closed list of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusedReason {
    /// The allocator does not speak this version of the protocol.
    ProtocolVersion,
    /// The identity is not believed.
    Identity,
    /// Another process of the same name is alive.
    Duplicate,
    /// A message broke the contract.
    BadMessage,
    /// The allocator serves as many sessions as it can.
    Busy,
}

// === impl FromAllocator ===

impl FromAllocator {
    /// Whether a sidecar would take this message: what people wrote into a policy may break a bound of
    /// the wire.
    ///
    /// # Errors
    ///
    /// The first bound that it breaks.
    pub fn check(self) -> Result<(), Error> {
        let message = proto::ToSidecar::from(self);
        let (bytes, max) = (message.encoded_len(), MAX_MESSAGE_BYTES);
        if bytes > max {
            return Err(Error::TooLarge { bytes, max });
        }
        FromAllocator::try_from(message).map(drop)
    }
}

impl From<FromAllocator> for proto::ToSidecar {
    fn from(message: FromAllocator) -> proto::ToSidecar {
        let message = match message {
            FromAllocator::Lease(message) => message.into(),
            FromAllocator::Policy(policy) => Message::Policy((*policy).into()),
            FromAllocator::NoQuota { generation, explain } => {
                let explain = bounds::explain(explain);
                Message::NoQuota(proto::NoQuota { generation, explain })
            }
            FromAllocator::Drain => Message::Drain(proto::Drain {}),
            FromAllocator::Redirect { address } => Message::Redirect(proto::Redirect { address }),
            FromAllocator::Ticket(ticket) => Message::Ticket(proto::Ticket { ticket }),
            FromAllocator::Unknown => return proto::ToSidecar { message: None },
            FromAllocator::Refused { reason, explain } => {
                let reason = proto::RefusedReason::from(reason).into();
                Message::Refused(proto::Refused { reason, explain: bounds::explain(explain) })
            }
        };
        proto::ToSidecar { message: Some(message) }
    }
}

impl TryFrom<proto::ToSidecar> for FromAllocator {
    type Error = Error;

    fn try_from(message: proto::ToSidecar) -> Result<FromAllocator, Error> {
        let explain = |field, text| bounds::text(field, text, EXPLAIN_MAX);
        let Some(message) = message.message else { return Ok(FromAllocator::Unknown) };
        Ok(match message {
            Message::Challenge(challenge) => FromAllocator::Lease(ToPod::Challenge(
                Epoch(challenge.epoch),
                Nonce(challenge.nonce),
            )),
            Message::Welcome(welcome) => FromAllocator::Lease(ToPod::Welcome(Epoch(welcome.epoch))),
            Message::LeaseSet(lease) => FromAllocator::Lease(ToPod::Lease(lease.try_into()?)),
            Message::Credit(credit) => FromAllocator::Lease(ToPod::Credit(credit.into())),
            Message::Deny(deny) => FromAllocator::Lease(ToPod::Deny(deny.try_into()?)),
            Message::Policy(policy) => FromAllocator::Policy(Box::new(policy.try_into()?)),
            Message::NoQuota(none) => FromAllocator::NoQuota {
                generation: none.generation,
                explain: explain("no_quota.explain", none.explain)?,
            },
            Message::Drain(proto::Drain {}) => FromAllocator::Drain,
            Message::Redirect(redirect) => FromAllocator::Redirect {
                address: bounds::filled("redirect.address", redirect.address, URL_MAX)?,
            },
            Message::Ticket(proto::Ticket { ticket }) => {
                FromAllocator::Ticket(bounds::ticket("ticket.ticket", ticket)?)
            }
            Message::Refused(refused) => FromAllocator::Refused {
                reason: refused.reason.try_into()?,
                explain: explain("refused.explain", refused.explain)?,
            },
        })
    }
}

impl From<ToPod> for Message {
    fn from(message: ToPod) -> Message {
        match message {
            ToPod::Challenge(epoch, nonce) => {
                Message::Challenge(proto::Challenge { epoch: epoch.0, nonce: nonce.0 })
            }
            ToPod::Welcome(epoch) => Message::Welcome(proto::Welcome { epoch: epoch.0 }),
            ToPod::Lease(lease) => Message::LeaseSet(lease.into()),
            ToPod::Credit(credit) => Message::Credit(credit.into()),
            ToPod::Deny(denial) => Message::Deny(denial.into()),
        }
    }
}

// === impl RefusedReason ===

impl RefusedReason {
    /// Its label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            RefusedReason::ProtocolVersion => "protocol_version",
            RefusedReason::Identity => "identity",
            RefusedReason::Duplicate => "duplicate",
            RefusedReason::BadMessage => "bad_message",
            RefusedReason::Busy => "busy",
        }
    }
}

impl From<RefusedReason> for proto::RefusedReason {
    fn from(reason: RefusedReason) -> proto::RefusedReason {
        match reason {
            RefusedReason::ProtocolVersion => proto::RefusedReason::ProtocolVersion,
            RefusedReason::Identity => proto::RefusedReason::Identity,
            RefusedReason::Duplicate => proto::RefusedReason::Duplicate,
            RefusedReason::BadMessage => proto::RefusedReason::BadMessage,
            RefusedReason::Busy => proto::RefusedReason::Busy,
        }
    }
}

impl TryFrom<i32> for RefusedReason {
    type Error = Error;

    fn try_from(value: i32) -> Result<RefusedReason, Error> {
        let field = "refused.reason";
        match known(field, value)? {
            proto::RefusedReason::Unspecified => Err(Error::Missing { field }),
            proto::RefusedReason::ProtocolVersion => Ok(RefusedReason::ProtocolVersion),
            proto::RefusedReason::Identity => Ok(RefusedReason::Identity),
            proto::RefusedReason::Duplicate => Ok(RefusedReason::Duplicate),
            proto::RefusedReason::BadMessage => Ok(RefusedReason::BadMessage),
            proto::RefusedReason::Busy => Ok(RefusedReason::Busy),
        }
    }
}
