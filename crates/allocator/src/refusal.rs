//! Why a session is refused, in words for the log and for the sidecar.

use quota::message::{Epoch, PodId};
use wire::{FromAllocator, PROTOCOL_VERSION, RefusedReason};

/// Why a session is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("this allocator speaks version {PROTOCOL_VERSION} of the protocol, the sidecar {0}")]
    Version(u32),
    #[error("the peer is not on this machine, so its name is not believed")]
    NotLocal,
    #[error(
        "no token: the injector mounts one with the audience weir; was this sidecar written by hand?"
    )]
    NoToken,
    #[error("the API server does not accept the token: {0}")]
    BadToken(String),
    #[error("the token is not bound to a pod: it must be a projected one")]
    NoPodToken,
    #[error("the sidecar says it is {said}, its token is of {proven}")]
    WrongPod { said: String, proven: String },
    #[error(
        "there is no pod {0} with the label weir.dev/sidecar=true: it has been deleted, or was not \
         injected"
    )]
    NoSuchPod(String),
    #[error("the API server does not answer, so the token cannot be checked; trying again helps")]
    NoReview,
    #[error("another run of this sidecar has greeted since")]
    Stale,
    #[error("no allocator leads at this moment; trying again helps")]
    NoLeader,
    #[error("another sidecar of the name {pod} is alive{}: end it, or choose another --pod", of(*.pid))]
    Duplicate { pod: PodId, pid: Option<u32> },
    #[error("bad message: {0}")]
    BadMessage(#[from] wire::Error),
    #[error("bad message: {0}")]
    Broken(String),
    #[error("bad message: hello.highest_epoch_seen is {}, which no allocator ever led", .0.0)]
    Epoch(Epoch),
    #[error("bad message: the first one must be hello, and no other")]
    Hello,
    #[error("bad message: no hello came in time")]
    Silent,
    #[error("as many sidecars are connected as this allocator serves")]
    Busy,
}

fn of(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

// === impl Refusal ===

impl Refusal {
    /// For the wire and for metrics.
    pub(crate) fn reason(&self) -> RefusedReason {
        match self {
            Refusal::Version(_) => RefusedReason::ProtocolVersion,
            Refusal::NotLocal
            | Refusal::NoToken
            | Refusal::BadToken(_)
            | Refusal::NoPodToken
            | Refusal::WrongPod { .. }
            | Refusal::NoSuchPod(_) => RefusedReason::Identity,
            Refusal::Duplicate { .. } => RefusedReason::Duplicate,
            Refusal::BadMessage(_)
            | Refusal::Broken(_)
            | Refusal::Epoch(_)
            | Refusal::Hello
            | Refusal::Silent => RefusedReason::BadMessage,
            Refusal::Busy | Refusal::NoReview | Refusal::NoLeader | Refusal::Stale => {
                RefusedReason::Busy
            }
        }
    }
}

impl From<&Refusal> for FromAllocator {
    fn from(refusal: &Refusal) -> FromAllocator {
        FromAllocator::Refused { reason: refusal.reason(), explain: refusal.to_string() }
    }
}
