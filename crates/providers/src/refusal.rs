//! Why we refuse a request ourselves, in words and headers that make every SDK behave. Adapters put
//! the words into their provider's shape (`providers.md` 13.1).

use std::time::Duration;

use serde::Serialize;

use crate::hint::{Hint, MAX_TOLD_WAIT};

/// Tells a person with `curl -i` that the answer is ours.
const DECISION: (&str, &str) = ("x-weir-decision", "denied");

/// How soon a client may come back when we cannot decide.
const UNAVAILABLE_WAIT: Duration = Duration::from_secs(1);

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The budget is in use and comes back.
    Busy {
        /// When there will be room. The caller adds the jitter: SDKs add none.
        wait: Duration,
    },
    /// The budget is used up for longer than a client can wait.
    Exhausted {
        /// Which.
        what: String,
    },
    /// The request can never fit.
    TooLarge {
        /// Which budget it does not fit.
        what: String,
        /// What it would be charged with.
        requested: u64,
        /// What the budget can ever admit at once.
        largest: u64,
    },
    /// This workload may not do that.
    NotPermitted {
        /// What is missing, and what to create or change.
        what: String,
    },
    /// The path names no provider.
    UnknownProvider {
        /// What it names.
        name: String,
    },
    /// The request cannot be understood.
    BadRequest {
        /// What is wrong, and where.
        message: String,
    },
    /// The body is larger than what is read.
    BodyTooLarge {
        /// The most that is read, in bytes.
        limit: u64,
    },
    /// We cannot decide now.
    Unavailable {
        /// Why.
        reason: String,
    },
    /// The provider could not be reached, or broke off before it answered.
    UpstreamFailed {
        /// What happened.
        reason: String,
    },
    /// The provider did not answer in time.
    UpstreamTimeout {
        /// How long it had.
        after: Duration,
    },
}

/// A response of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers, in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// Its body.
    pub body: String,
}

// === impl Refusal ===

impl Refusal {
    /// The status, the same for every provider.
    pub const fn status(&self) -> u16 {
        match self {
            Refusal::Busy { .. } | Refusal::Exhausted { .. } | Refusal::TooLarge { .. } => 429,
            Refusal::NotPermitted { .. } => 403,
            Refusal::UnknownProvider { .. } => 404,
            Refusal::BadRequest { .. } => 400,
            Refusal::BodyTooLarge { .. } => 413,
            Refusal::Unavailable { .. } => 503,
            Refusal::UpstreamFailed { .. } => 502,
            Refusal::UpstreamTimeout { .. } => 504,
        }
    }

    /// A name for metrics, spans and the header `x-weir-reason`.
    pub const fn name(&self) -> &'static str {
        match self {
            Refusal::Busy { .. } => "busy",
            Refusal::Exhausted { .. } => "exhausted",
            Refusal::TooLarge { .. } => "too_large",
            Refusal::NotPermitted { .. } => "not_permitted",
            Refusal::UnknownProvider { .. } => "unknown_provider",
            Refusal::BadRequest { .. } => "bad_request",
            Refusal::BodyTooLarge { .. } => "body_too_large",
            Refusal::Unavailable { .. } => "unavailable",
            Refusal::UpstreamFailed { .. } => "upstream_failed",
            Refusal::UpstreamTimeout { .. } => "upstream_timeout",
        }
    }

    /// What the client is told about trying again.
    pub fn hint(&self) -> Hint {
        match self {
            Refusal::Busy { wait } if *wait <= MAX_TOLD_WAIT => Hint::After(*wait),
            Refusal::Busy { .. }
            | Refusal::Exhausted { .. }
            | Refusal::TooLarge { .. }
            | Refusal::NotPermitted { .. }
            | Refusal::UnknownProvider { .. }
            | Refusal::BadRequest { .. }
            | Refusal::BodyTooLarge { .. } => Hint::Never,
            Refusal::Unavailable { .. } => Hint::After(UNAVAILABLE_WAIT),
            Refusal::UpstreamFailed { .. } | Refusal::UpstreamTimeout { .. } => Hint::Unsaid,
        }
    }

    /// Words for people, which some SDKs read too: LangChain JS waits for `try again in 1.2s`, one
    /// unit only, and gives up at `quota exhausted` and at any word about billing, so that a refusal
    /// which may be retried names nothing.
    pub fn message(&self) -> String {
        match self {
            Refusal::Busy { wait } if *wait <= MAX_TOLD_WAIT => {
                let wait = wait.as_millis().div_ceil(100).max(1);
                let (seconds, tenths) = (wait / 10, wait % 10);
                format!(
                    "Weir: the rate limit that this workload shares is in use. \
                     Please try again in {seconds}.{tenths}s."
                )
            }
            Refusal::Busy { .. } => {
                "Weir: the rate limit that this workload shares is in use for longer than this \
                 request can wait."
                    .to_owned()
            }
            Refusal::Exhausted { what } => format!("Weir: quota exhausted: {what}."),
            Refusal::TooLarge { what, requested, largest } => format!(
                "Weir: Request too large for {what}: it can admit {largest} at once, the request \
                 takes {requested}. Reduce the prompt or the output cap."
            ),
            Refusal::NotPermitted { what } => format!("Weir: not permitted: {what}"),
            Refusal::UnknownProvider { name } => format!(
                "Weir: no provider is called `{name}`. The first segment of the path is the name \
                 of an LLMProvider, or `openai` or `anthropic`."
            ),
            Refusal::BadRequest { message } => format!("Weir: {message}."),
            Refusal::BodyTooLarge { limit } => {
                format!("Weir: the body is larger than {limit} bytes.")
            }
            Refusal::Unavailable { reason } => {
                format!("Weir: cannot decide now: {reason}. Please try again in 1s.")
            }
            Refusal::UpstreamFailed { reason } => format!("Weir: the provider failed: {reason}."),
            Refusal::UpstreamTimeout { after } => {
                format!("Weir: the provider did not answer within {} s.", after.as_secs())
            }
        }
    }

    /// The answer where no provider is known, in a shape that both families of SDK read.
    pub fn neutral(&self) -> Answer {
        #[derive(Serialize)]
        struct Body<'a> {
            error: Error<'a>,
        }
        #[derive(Serialize)]
        struct Error<'a> {
            message: String,
            r#type: &'a str,
        }
        self.answer(&Body { error: Error { message: self.message(), r#type: self.name() } })
    }

    /// The answer with a body in a provider's shape.
    pub(crate) fn answer<B: Serialize>(&self, body: &B) -> Answer {
        let body = serde_json::to_string(body).expect("names and strings are JSON");
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            (DECISION.0, DECISION.1.to_owned()),
            ("x-weir-reason", self.name().to_owned()),
        ];
        headers.extend(self.hint().headers());
        Answer { status: self.status(), headers, body }
    }
}

#[cfg(test)]
mod tests;
