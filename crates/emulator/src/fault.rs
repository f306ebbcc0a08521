//! Faults on demand: which calls they strike, when, and how often. What a fault does to a call is in
//! `exchange`.

use quota::glob;
use quota::time::Time;
use serde::{Deserialize, Serialize};

use std::time::Duration;

use crate::config::Provider;
use crate::control::Change;
use crate::error::Error;

/// A fault, and the calls that it strikes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// What happens.
    pub kind: Kind,
    /// To calls of which provider; of both if absent.
    #[serde(default)]
    pub provider: Option<Provider>,
    /// To calls of which models, as a pattern.
    #[serde(default = "all_models")]
    pub models: String,
    /// To what share of them.
    #[serde(default = "hundred")]
    pub share_percent: u32,
    /// To how many of them at most.
    #[serde(default)]
    pub count: Option<u64>,
    /// How long after it was armed it begins.
    #[serde(default)]
    pub after_ms: u64,
    /// How long it lasts from then on.
    #[serde(default)]
    pub for_ms: Option<u64>,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Kind {
    /// 429 in the provider's own words for a limit on requests, without charging anything.
    RateLimit {
        /// The wait that it tells.
        wait_ms: u64,
    },
    /// Any status with an error body in the provider's shape: 5xx, 529, and the 429s that must not be
    /// retried. The call counts as one request and no tokens.
    Status {
        /// The status.
        status: u16,
        /// The error's `type`; by default what the provider says at this status.
        #[serde(default)]
        error_type: Option<String>,
        /// The error's `code`.
        #[serde(default)]
        code: Option<String>,
        /// The error's message.
        #[serde(default)]
        message: Option<String>,
        /// A `retry-after` in seconds.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// Nothing comes, not even headers.
    Hang,
    /// The connection is cut in the middle of the answer.
    Cut {
        /// After so many tokens.
        after_tokens: u64,
    },
    /// An error event in the stream, after a 200. Whole answers are left alone.
    StreamError {
        /// After so many tokens.
        after_tokens: u64,
    },
    /// The answer drips: so many bytes at a time, with a pause before each.
    Drip {
        /// At a time.
        bytes: usize,
        /// Before each.
        pause_ms: u64,
    },
    /// A 200 whose body is no JSON and no stream.
    Garbage,
    /// A limit silently changes, once; strikes no call.
    Limit(Change),
    /// Somebody else uses this share of every rate from then on; strikes no call.
    ExternalLoad {
        /// Of every rate.
        percent: u32,
    },
}

/// The faults that are armed.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    armed: Vec<Armed>,
}

#[derive(Debug)]
struct Armed {
    fault: Fault,
    begins: Time,
    ends: Time,
    left: u64,
}

/// More than any script needs; each is looked at by each call.
const MAX_FAULTS: usize = 100;

// === impl Faults ===

impl Faults {
    /// Arms a fault at `now`.
    pub(crate) fn arm(&mut self, now: Time, fault: Fault) -> Result<(), Error> {
        self.armed.retain(|armed| armed.left > 0 && armed.ends > now);
        if self.armed.len() >= MAX_FAULTS {
            return Err(Error::Config(format!("more than {MAX_FAULTS} faults")));
        }
        if matches!(fault.kind, Kind::Drip { bytes: 0, .. }) {
            return Err(Error::Config("a drip of 0 bytes never ends".to_owned()));
        }
        let begins = now + Duration::from_millis(fault.after_ms);
        let ends = fault.for_ms.map_or(Time::NEVER, |ms| begins + Duration::from_millis(ms));
        let left = fault.count.unwrap_or(u64::MAX);
        self.armed.push(Armed { fault, begins, ends, left });
        Ok(())
    }

    /// Disarms all.
    pub(crate) fn clear(&mut self) {
        self.armed.clear();
    }

    /// The first fault that strikes a call; `roll` is a random number below 100.
    pub(crate) fn strike(
        &mut self,
        now: Time,
        provider: Provider,
        model: &str,
        roll: u32,
    ) -> Option<Kind> {
        let armed = self.armed.iter_mut().find(|armed| {
            let fault = &armed.fault;
            armed.left > 0
                && armed.begins <= now
                && now < armed.ends
                && !fault.kind.strikes_no_call()
                && fault.provider.is_none_or(|only| only == provider)
                && glob::matches(&fault.models, model)
                && roll < fault.share_percent
        })?;
        armed.left -= 1;
        Some(armed.fault.kind.clone())
    }

    /// Takes out what changes limits and has become due.
    pub(crate) fn due(&mut self, now: Time) -> Vec<Fault> {
        let is_due = |armed: &Armed| armed.fault.kind.strikes_no_call() && armed.begins <= now;
        if !self.armed.iter().any(is_due) {
            return Vec::new();
        }
        let (due, rest) = std::mem::take(&mut self.armed).into_iter().partition(is_due);
        self.armed = rest;
        Vec::into_iter(due).map(|armed| armed.fault).collect()
    }
}

// === impl Kind ===

impl Kind {
    fn strikes_no_call(&self) -> bool {
        matches!(self, Kind::Limit(_) | Kind::ExternalLoad { .. })
    }
}

fn all_models() -> String {
    "*".to_owned()
}

fn hundred() -> u32 {
    100
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Fault {
        serde_json::from_str(text).expect("a fault")
    }

    #[test]
    fn a_fault_strikes_its_calls_in_its_time_and_as_often_as_it_was_told() {
        let mut faults = Faults::default();
        let text = r#"{"kind": "hang", "provider": "openai", "models": "gpt-*",
            "sharePercent": 50, "count": 2, "afterMs": 1000, "forMs": 1000}"#;
        faults.arm(Time::ZERO, fault(text)).unwrap();
        for (millis, provider, model, roll, strikes) in [
            (999, Provider::OpenAi, "gpt-4o", 0, false),
            (1_000, Provider::Anthropic, "gpt-4o", 0, false),
            (1_000, Provider::OpenAi, "o3", 0, false),
            (1_000, Provider::OpenAi, "gpt-4o", 50, false),
            (1_000, Provider::OpenAi, "gpt-4o", 49, true),
            (2_000, Provider::OpenAi, "gpt-4o", 0, false),
            (1_999, Provider::OpenAi, "gpt-4o", 0, true),
            (1_999, Provider::OpenAi, "gpt-4o", 0, false),
        ] {
            let struck = faults.strike(Time::from_millis(millis), provider, model, roll);
            assert_eq!(struck.is_some(), strikes, "{millis} {provider:?} {model} {roll}");
        }
    }

    #[test]
    fn a_change_of_limits_is_due_once() {
        let mut faults = Faults::default();
        let change = r#"{"kind": {"limit": {"limit": "gpt-4o", "dimension": "requestsPerMinute",
            "value": 5}}, "afterMs": 10}"#;
        faults.arm(Time::ZERO, fault(change)).unwrap();
        assert!(faults.strike(Time::from_millis(20), Provider::OpenAi, "gpt-4o", 0).is_none());
        assert_eq!(faults.due(Time::from_millis(9)).len(), 0);
        assert_eq!(faults.due(Time::from_millis(10)).len(), 1);
        assert_eq!(faults.due(Time::from_millis(11)).len(), 0);
    }

    #[test]
    fn a_fault_that_makes_no_sense_is_refused() {
        assert!(serde_json::from_str::<Fault>(r#"{"kind": "hang", "cuont": 1}"#).is_err());
        let drip = fault(r#"{"kind": {"drip": {"bytes": 0, "pauseMs": 1}}}"#);
        assert!(Faults::default().arm(Time::ZERO, drip).is_err());
    }
}
