//! Anthropic's API (`providers.md` 4): messages, counting of tokens, models; everything else passes
//! as one request.

use std::time::Duration;

use jiff::Timestamp;
use quota::charge::Charge;
use quota::dimension::Dimension;
use quota::policy::Secret;
use quota::units::{Requests, Slots, Tokens};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::adapter::Adapter;
use crate::auth::Auth;
use crate::call::{BadBody, Call};
use crate::duration::until;
use crate::error_text::ErrorText;
use crate::estimator::Estimate;
use crate::failure::Failure;
use crate::headers::Headers;
use crate::json::{self, Member, Members};
use crate::limit_seen::LimitSeen;
use crate::meter::{Meter, ResponseHead};
use crate::operation::{Operation, plain_path};
use crate::refusal::{Answer, Refusal};
use crate::seen::{Reader, Seen, Standing};
use crate::splice::Splice;
use crate::text::Text;
use crate::told::Told;
use crate::usage::Usage;

/// The adapter.
pub(crate) struct Anthropic;

const MESSAGES: Members = &[
    ("model", Member::Model),
    ("stream", Member::Stream),
    ("max_tokens", Member::OutputCap),
    ("system", Member::Text),
    ("messages", Member::Text),
    ("tools", Member::Schema),
];

/// The model whose limit on input counts what is read from the cache (`providers.md` 4.1).
const COUNTS_CACHE_READS: &str = "claude-3-5-haiku";

/// How a token begins that goes into `authorization`; every other key goes into `x-api-key`, which
/// all versions of the API take.
const OAUTH_TOKEN: &str = "sk-ant-oat";

const LIMITS: [([&str; 3], Dimension); 4] = [
    (
        [
            "anthropic-ratelimit-requests-limit",
            "anthropic-ratelimit-requests-remaining",
            "anthropic-ratelimit-requests-reset",
        ],
        Dimension::RequestsPerMinute,
    ),
    (
        [
            "anthropic-ratelimit-input-tokens-limit",
            "anthropic-ratelimit-input-tokens-remaining",
            "anthropic-ratelimit-input-tokens-reset",
        ],
        Dimension::InputTokensPerMinute,
    ),
    (
        [
            "anthropic-ratelimit-output-tokens-limit",
            "anthropic-ratelimit-output-tokens-remaining",
            "anthropic-ratelimit-output-tokens-reset",
        ],
        Dimension::OutputTokensPerMinute,
    ),
    (
        [
            "anthropic-ratelimit-tokens-limit",
            "anthropic-ratelimit-tokens-remaining",
            "anthropic-ratelimit-tokens-reset",
        ],
        Dimension::TokensPerMinute,
    ),
];

// === impl Anthropic ===

impl Adapter for Anthropic {
    fn operation(&self, method: &str, path: &str) -> Operation {
        let path = plain_path(path);
        match method {
            "POST" if path.ends_with("/messages") => Operation::Messages,
            "POST" if path.ends_with("/messages/count_tokens") => Operation::CountTokens,
            "GET" if path.ends_with("/models") || path.contains("/models/") => Operation::Models,
            _ => Operation::Other,
        }
    }

    fn read(&self, operation: Operation, body: &[u8]) -> Result<Call, BadBody> {
        match operation {
            Operation::Messages | Operation::CountTokens => json::read(operation, MESSAGES, body),
            _ => Ok(Call::of(operation)),
        }
    }

    fn edits(&self, _: &Call, _: &[u8]) -> Option<Splice> {
        None
    }

    /// Input at its estimate: what will be read from the cache is not known before, and comes back.
    /// Output is charged as it is produced, whatever `max_tokens` says.
    fn reserve(&self, call: &Call, estimate: Estimate) -> Charge {
        let slots = Slots(1);
        if !call.operation.runs_a_model() {
            return Charge { requests: requests(call), slots, ..Charge::default() };
        }
        let (input, output) = (estimate.input, estimate.output);
        let total = input + output;
        Charge { requests: requests(call), input, output, total, slots, ..Charge::default() }
    }

    fn settle(&self, call: &Call, usage: &Usage) -> Charge {
        let counts_reads =
            call.model.as_ref().is_some_and(|model| model.starts_with(COUNTS_CACHE_READS));
        let read = if counts_reads { usage.cache_read } else { Tokens(0) };
        let input = usage.input_uncached + usage.cache_write() + read;
        let output = usage.output();
        let requests = Requests(requests(call).0.min(usage.requests.0));
        Charge { requests, input, output, total: input + output, ..Charge::default() }
    }

    fn meter(&self, call: &Call, estimate: Estimate, head: ResponseHead<'_>) -> Meter {
        Meter::new(call, estimate, head, Reader { event, usage: body_usage }, false)
    }

    fn limits_seen(&self, headers: &Headers<'_>) -> Vec<LimitSeen> {
        LIMITS
            .iter()
            .filter_map(|([limit, remaining, reset], dimension)| {
                Some(LimitSeen {
                    dimension: *dimension,
                    limit: headers.number(limit)?,
                    remaining: headers.number(remaining)?,
                    reset: headers.duration(reset),
                    reset_grain: headers.grain(reset),
                })
            })
            .collect()
    }

    fn classify(&self, status: u16, headers: &Headers<'_>, body_prefix: &[u8]) -> Failure {
        failure(status, headers, &ErrorText::read(body_prefix))
    }

    fn refuse(&self, refusal: &Refusal) -> Answer {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: &'a str,
            error: Error<'a>,
        }
        #[derive(Serialize)]
        struct Error<'a> {
            r#type: &'a str,
            message: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            details: Option<Details<'a>>,
        }
        #[derive(Serialize)]
        struct Details<'a> {
            error_code: &'a str,
        }
        let (kind, error_code) = match refusal {
            Refusal::Busy { .. } | Refusal::TooLarge { .. } => ("rate_limit_error", None),
            Refusal::Exhausted { .. } => ("rate_limit_error", Some("enforced_spend_limit_reached")),
            Refusal::NotPermitted { .. } => ("permission_error", None),
            Refusal::UnknownProvider { .. } => ("not_found_error", None),
            Refusal::BadRequest { .. } => ("invalid_request_error", None),
            Refusal::BodyTooLarge { .. } => ("request_too_large", None),
            Refusal::Unavailable { .. } => ("overloaded_error", None),
            Refusal::UpstreamFailed { .. } => ("api_error", None),
            Refusal::UpstreamTimeout { .. } => ("timeout_error", None),
        };
        let details = error_code.map(|error_code| Details { error_code });
        let error = Error { r#type: kind, message: refusal.message(), details };
        refusal.answer(&Body { r#type: "error", error })
    }

    fn auth(&self, key: &Secret) -> Auth {
        let remove = &["authorization", "x-api-key"];
        if key.expose().starts_with(OAUTH_TOKEN) {
            let value = Secret::new(&format!("Bearer {}", key.expose()));
            Auth { remove, header: "authorization", value }
        } else {
            Auth { remove, header: "x-api-key", value: key.clone() }
        }
    }
}

/// Counting tokens is free and has limits of its own.
fn requests(call: &Call) -> Requests {
    Requests(u64::from(call.operation != Operation::CountTokens))
}

// === Errors ===

fn failure(status: u16, headers: &Headers<'_>, text: &ErrorText) -> Failure {
    let (kind, message) = (&*text.kind, &text.message);
    let after = headers.retry_after();
    let told = Told::by_anthropic(message);
    let exhausted = Failure::BudgetExhausted { until: regained(message, headers.date()) };
    match (status, kind) {
        _ if text.code.contains("spend_limit") => exhausted,
        _ if message.contains("API usage limits") || message.contains("credit balance") => {
            exhausted
        }
        _ if text.code == "ramp_limit_exceeded" => Failure::Retry { after, ramp: true, told },
        (402, _) | (_, "billing_error") => exhausted,
        // What a stream says after 200 carries no header.
        (200..=299, "rate_limit_error") => Failure::Retry { after, ramp: false, told },
        (429, _) if after.is_none() => exhausted,
        (429, _) => Failure::Retry { after, ramp: false, told },
        (413, _) | (_, "request_too_large") => Failure::TooLarge { told: None },
        (_, "invalid_request_error") if message.starts_with("prompt is too long") => {
            Failure::TooLarge { told: None }
        }
        (503 | 529, _) | (_, "overloaded_error") => Failure::Capacity { after },
        (401 | 403, _) | (_, "authentication_error" | "permission_error") => Failure::Auth,
        (500..=599, _) | (_, "api_error" | "timeout_error") => Failure::Server,
        (400..=499, _) | (_, "invalid_request_error") => Failure::BadRequest,
        _ => Failure::Unknown,
    }
}

/// Reads `... You will regain access on 2026-09-01 at 00:00 UTC.`.
fn regained(message: &str, now: Option<Timestamp>) -> Option<Duration> {
    let (_, day) = message.split_once("regain access on ")?;
    let then = format!("{}T00:00:00Z", day.get(..10)?).parse::<Timestamp>().ok()?;
    Some(until(then, now?))
}

// === Responses ===

/// Usage as it stands in a body and in two kinds of events; later figures replace earlier ones.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Counts {
    input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_creation: Option<CacheCreation>,
    output_tokens: Option<u64>,
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CacheCreation {
    ephemeral_5m_input_tokens: Option<u64>,
    ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OutputDetails {
    thinking_tokens: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Event<'a> {
    #[serde(borrow)]
    r#type: &'a str,
    message: Option<Body>,
    delta: Delta,
    usage: Option<Counts>,
    error: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Delta {
    text: Text,
    thinking: Text,
    partial_json: Text,
    stop_reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    usage: Option<Counts>,
}

impl Counts {
    /// Puts what is told here in place of what `usage` says.
    fn update(self, usage: &mut Usage) {
        let set = |tokens: &mut Tokens, told: Option<u64>| {
            *tokens = told.map_or(*tokens, Tokens);
        };
        set(&mut usage.input_uncached, self.input_tokens);
        set(&mut usage.cache_read, self.cache_read_input_tokens);
        if let Some(written) = self.cache_creation_input_tokens {
            let hour = self.cache_creation.and_then(|c| c.ephemeral_1h_input_tokens).unwrap_or(0);
            usage.cache_write_1h = Tokens(hour.min(written));
            usage.cache_write_5m = Tokens(written) - usage.cache_write_1h;
        }
        if let Some(output) = self.output_tokens {
            let thought = self.output_tokens_details.and_then(|o| o.thinking_tokens).unwrap_or(0);
            usage.output_reasoning = Tokens(thought.min(output));
            usage.output_visible = Tokens(output) - usage.output_reasoning;
        }
    }
}

fn body_usage(body: &[u8]) -> Option<Usage> {
    let counts = serde_json::from_slice::<Body>(body).ok()?.usage?;
    let mut usage = Usage::request();
    counts.update(&mut usage);
    Some(usage)
}

fn event(data: &[u8], seen: &mut Seen) {
    let Ok(event) = serde_json::from_slice::<Event<'_>>(data) else { return };
    let mut usage = seen.usage.unwrap_or_else(Usage::request);
    match event.r#type {
        "message_start" => {
            if let Some(counts) = event.message.and_then(|message| message.usage) {
                counts.update(&mut usage);
                seen.usage(usage, Standing::Opening);
            }
        }
        "content_block_delta" => {
            let mut text = event.delta.text;
            text += event.delta.thinking;
            text += event.delta.partial_json;
            seen.delta(text);
        }
        // Its figures are totals, not differences.
        "message_delta" => {
            if let Some(counts) = event.usage {
                counts.update(&mut usage);
                let is_last = event.delta.stop_reason.is_some();
                seen.usage(usage, if is_last { Standing::Final } else { Standing::Running });
            }
        }
        "error" => {
            let error = event.error.unwrap_or_default();
            seen.error = Some(failure(200, &Headers::default(), &ErrorText::of(&error)));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
