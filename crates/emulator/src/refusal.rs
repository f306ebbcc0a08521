//! Why a call is not answered, in nobody's words yet: each protocol has its own.

use std::time::Duration;

use http::StatusCode;
use providers::call::BadBody;
use providers::enforce::Level;
use providers::enforce::denied::Denied;

/// Why a call is not answered.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// No key.
    NoKey,
    /// A key that belongs to no account.
    WrongKey,
    /// A method and path that lead nowhere.
    NoPath {
        /// Both.
        what: String,
    },
    /// A body that is too large.
    BodyTooLarge,
    /// A body that ends early or takes too long.
    BodyLost,
    /// A body that cannot be understood.
    Body(BadBody),
    /// A member that the provider insists on.
    Missing(&'static str),
    /// Too many choices.
    TooManyChoices {
        /// The most.
        most: u64,
    },
    /// Too many inputs to embed.
    TooManyInputs {
        /// The most.
        most: u64,
    },
    /// Too much text to embed at once.
    InputsTooLong {
        /// How much it is.
        tokens: u64,
        /// The most.
        most: u64,
    },
    /// A model that does not exist.
    NoModel(String),
    /// A limit.
    Limited {
        /// Which, and by how much.
        denied: Denied,
        /// The model asked for.
        model: String,
        /// What headers tell afterwards.
        levels: Vec<Level>,
    },
    /// A fault in the shape of a limit.
    Storm {
        /// The model asked for.
        model: String,
        /// The wait that it tells.
        wait: Duration,
    },
    /// A fault with a status of its own.
    Fault {
        /// The status.
        status: StatusCode,
        /// The error's type, if not the usual one.
        error_type: Option<String>,
        /// The error's code.
        code: Option<String>,
        /// The error's message, if not the usual one.
        message: Option<String>,
        /// A `retry-after` in seconds.
        retry_after: Option<u64>,
    },
}

// === impl Refusal ===

impl Refusal {
    /// The status of a refusal; both providers use the same.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Refusal::NoKey | Refusal::WrongKey => StatusCode::UNAUTHORIZED,
            Refusal::NoPath { .. } | Refusal::NoModel(_) => StatusCode::NOT_FOUND,
            Refusal::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::BodyLost => StatusCode::REQUEST_TIMEOUT,
            Refusal::Body(_)
            | Refusal::Missing(_)
            | Refusal::TooManyChoices { .. }
            | Refusal::TooManyInputs { .. }
            | Refusal::InputsTooLong { .. } => StatusCode::BAD_REQUEST,
            Refusal::Limited { .. } | Refusal::Storm { .. } => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Fault { status, .. } => *status,
        }
    }

    /// The whole seconds of a `retry-after`, at least one, where trying again can help.
    pub(crate) fn wait(&self) -> Option<Duration> {
        match self {
            Refusal::Limited { denied, .. } if denied.too_large => None,
            Refusal::Limited { denied, .. } => Some(denied.wait.unwrap_or(UNKNOWN_WAIT)),
            Refusal::Storm { wait, .. } => Some(*wait),
            Refusal::Fault { retry_after, .. } => retry_after.map(Duration::from_secs),
            _ => None,
        }
    }
}

/// What is told where a limit on calls in flight refuses: nobody knows when one ends.
const UNKNOWN_WAIT: Duration = Duration::from_secs(1);
