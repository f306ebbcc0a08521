//! OpenAI's API, and that of the many servers which speak it (`providers.md` 2 and 9).
//!
//! Chat completions, old completions, responses, embeddings and models; everything else passes as
//! one request. Azure is not among them: its paths name deployments and its limits are windows.

use std::time::Duration;

use quota::charge::Charge;
use quota::dimension::Dimension;
use quota::policy::Secret;
use quota::units::{Requests, Slots, Tokens};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::adapter::Adapter;
use crate::auth::Auth;
use crate::call::{BadBody, Call};
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
pub(crate) struct OpenAi;

const CHAT: Members = &[
    ("model", Member::Model),
    ("stream", Member::Stream),
    ("stream_options", Member::StreamOptions),
    ("max_completion_tokens", Member::OutputCap),
    ("max_tokens", Member::OutputCap),
    ("n", Member::Choices),
    ("messages", Member::Text),
    ("tools", Member::Schema),
    ("functions", Member::Schema),
    ("response_format", Member::Schema),
];

const COMPLETIONS: Members = &[
    ("model", Member::Model),
    ("stream", Member::Stream),
    ("stream_options", Member::StreamOptions),
    ("max_tokens", Member::OutputCap),
    ("n", Member::Choices),
    ("best_of", Member::Choices),
    ("prompt", Member::Inputs),
    ("suffix", Member::Text),
];

const RESPONSES: Members = &[
    ("model", Member::Model),
    ("stream", Member::Stream),
    ("max_output_tokens", Member::OutputCap),
    ("input", Member::Text),
    ("instructions", Member::Text),
    ("tools", Member::Schema),
    ("text", Member::Schema),
    ("previous_response_id", Member::Stored),
    ("conversation", Member::Stored),
    ("prompt", Member::Stored),
];

const EMBEDDINGS: Members = &[("model", Member::Model), ("input", Member::Inputs)];

/// Headers of a limit, and what it counts by the minute and by the day: the name does not tell which
/// of the two is shown.
const LIMITS: [([&str; 3], Dimension, Dimension); 3] = [
    (
        [
            "x-ratelimit-limit-requests",
            "x-ratelimit-remaining-requests",
            "x-ratelimit-reset-requests",
        ],
        Dimension::RequestsPerMinute,
        Dimension::RequestsPerDay,
    ),
    (
        ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
        Dimension::TokensPerMinute,
        Dimension::TokensPerDay,
    ),
    (
        [
            "x-ratelimit-limit-project-tokens",
            "x-ratelimit-remaining-project-tokens",
            "x-ratelimit-reset-project-tokens",
        ],
        Dimension::TokensPerMinute,
        Dimension::TokensPerDay,
    ),
];

/// Codes and types of errors about money: none comes back by waiting (`providers.md` 2.5).
const EXHAUSTED: [&str; 8] = [
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "billing_hard_limit_reached",
    "billing_not_active",
    "access_terminated",
];

/// Codes of errors about the size of a request.
const TOO_LARGE: [&str; 3] =
    ["context_length_exceeded", "max_tokens_per_request", "string_above_max_length"];

// === impl OpenAi ===

impl Adapter for OpenAi {
    fn operation(&self, method: &str, path: &str) -> Operation {
        let path = plain_path(path);
        match method {
            "POST" if path.ends_with("/chat/completions") => Operation::Chat,
            "POST" if path.ends_with("/completions") => Operation::Completions,
            "POST" if path.ends_with("/responses") => Operation::Responses,
            "POST" if path.ends_with("/responses/input_tokens") => Operation::CountTokens,
            "POST" if path.ends_with("/embeddings") => Operation::Embeddings,
            "GET" if path.ends_with("/models") || path.contains("/models/") => Operation::Models,
            _ => Operation::Other,
        }
    }

    fn read(&self, operation: Operation, body: &[u8]) -> Result<Call, BadBody> {
        let members = match operation {
            Operation::Chat => CHAT,
            Operation::Completions => COMPLETIONS,
            Operation::Responses | Operation::CountTokens => RESPONSES,
            Operation::Embeddings => EMBEDDINGS,
            Operation::Messages | Operation::Models | Operation::Other => {
                return Ok(Call::of(operation));
            }
        };
        let mut call = json::read(operation, members, body)?;
        if operation == Operation::Completions {
            // Each of several prompts is answered.
            call.choices = call.choices.saturating_mul(call.inputs.max(1));
        }
        Ok(call)
    }

    fn edits(&self, call: &Call, body: &[u8]) -> Option<Splice> {
        if !lacks_usage(call) {
            return None;
        }
        let Some(place) = call.stream_options.clone() else {
            // The body has members, as it asks for a stream.
            let at = memchr::memchr(b'{', body)? + 1;
            let insert = r#""stream_options":{"include_usage":true},"#.to_owned();
            return Some(Splice { at, remove: 0, insert });
        };
        let mut options: serde_json::Map<String, Value> =
            serde_json::from_slice(body.get(place.clone())?).unwrap_or_default();
        options.insert("include_usage".to_owned(), Value::Bool(true));
        let insert = Value::Object(options).to_string();
        Some(Splice { at: place.start, remove: place.len(), insert })
    }

    /// At least every rule that OpenAI is known or thought to have: the larger of prompt and output
    /// cap, or their sum, for each choice; and what it settles on.
    fn reserve(&self, call: &Call, estimate: Estimate) -> Charge {
        let slots = Slots(1);
        if !call.operation.runs_a_model() {
            return Charge { requests: requests(call), slots, ..Charge::default() };
        }
        let cap = call.output_cap.filter(|_| call.operation.has_output());
        let output = cap.map_or(estimate.output, |cap| Tokens(cap.saturating_mul(call.choices)));
        let prompts = Tokens(estimate.input.0.saturating_mul(call.choices));
        Charge {
            requests: requests(call),
            input: estimate.input,
            output,
            total: prompts + output,
            slots,
            ..Charge::default()
        }
    }

    /// Cached prompt tokens count in full (`providers.md` 0.4).
    fn settle(&self, call: &Call, usage: &Usage) -> Charge {
        Charge {
            requests: Requests(requests(call).0.min(usage.requests.0)),
            input: usage.input(),
            output: usage.output(),
            total: usage.input() + usage.output(),
            ..Charge::default()
        }
    }

    fn meter(&self, call: &Call, estimate: Estimate, head: ResponseHead<'_>) -> Meter {
        let event =
            if call.operation == Operation::Responses { responses_event } else { chat_event };
        Meter::new(call, estimate, head, Reader { event, usage: body_usage }, lacks_usage(call))
    }

    fn limits_seen(&self, headers: &Headers<'_>) -> Vec<LimitSeen> {
        LIMITS
            .iter()
            .filter_map(|(names, minute, day)| {
                let [limit, remaining, reset] = names;
                let (limit, remaining) = (headers.number(limit)?, headers.number(remaining)?);
                let (reset, reset_grain) = (headers.duration(reset), headers.grain(reset));
                let is_daily =
                    reset.is_some_and(|reset| counts_by_the_day(limit, remaining, reset));
                let dimension = if is_daily { *day } else { *minute };
                Some(LimitSeen { dimension, limit, remaining, reset, reset_grain })
            })
            .collect()
    }

    fn classify(&self, status: u16, headers: &Headers<'_>, body_prefix: &[u8]) -> Failure {
        failure(status, headers.retry_after(), &ErrorText::read(body_prefix))
    }

    fn refuse(&self, refusal: &Refusal) -> Answer {
        #[derive(Serialize)]
        struct Body<'a> {
            error: Error<'a>,
        }
        #[derive(Serialize)]
        struct Error<'a> {
            message: String,
            r#type: &'a str,
            param: Option<&'a str>,
            code: Option<&'a str>,
        }
        let (kind, code) = match refusal {
            Refusal::Busy { .. } => ("tokens", Some("rate_limit_exceeded")),
            Refusal::TooLarge { .. } => ("tokens", Some("rate_limit_exceeded")),
            Refusal::Exhausted { .. } => {
                ("insufficient_quota", Some("project_spend_limit_exceeded"))
            }
            Refusal::NotPermitted { .. } => ("invalid_request_error", Some("not_permitted")),
            Refusal::UnknownProvider { .. } => ("invalid_request_error", Some("unknown_provider")),
            Refusal::BadRequest { .. } => ("invalid_request_error", None),
            Refusal::BodyTooLarge { .. } => ("invalid_request_error", Some("request_too_large")),
            Refusal::Unavailable { .. } => ("service_unavailable_error", Some("unavailable")),
            Refusal::UpstreamFailed { .. } => ("server_error", Some("upstream_failed")),
            Refusal::UpstreamTimeout { .. } => ("server_error", Some("upstream_timeout")),
        };
        let message = refusal.message();
        refusal.answer(&Body { error: Error { message, r#type: kind, param: None, code } })
    }

    fn auth(&self, key: &Secret) -> Auth {
        Auth {
            remove: &["authorization", "api-key", "openai-organization", "openai-project"],
            header: "authorization",
            value: Secret::new(&format!("Bearer {}", key.expose())),
        }
    }
}

/// True for a stream that will not tell usage unless it is asked to. The responses API always does.
fn lacks_usage(call: &Call) -> bool {
    let is_chat = matches!(call.operation, Operation::Chat | Operation::Completions);
    is_chat && call.stream && !call.wants_usage
}

/// Counting tokens has limits of its own.
fn requests(call: &Call) -> Requests {
    Requests(u64::from(call.operation != Operation::CountTokens))
}

/// `reset = (limit - remaining) / limit * window`, so the window can be told from the three, unless
/// nothing is used. Half a day parts days from minutes, whatever was rounded.
fn counts_by_the_day(limit: u64, remaining: u64, reset: Duration) -> bool {
    let used = limit.saturating_sub(remaining);
    let half_a_day = Duration::from_secs(43_200).as_nanos();
    used > 0 && reset.as_nanos().saturating_mul(u128::from(limit)) >= half_a_day * u128::from(used)
}

// === Errors ===

fn failure(status: u16, retry_after: Option<Duration>, text: &ErrorText) -> Failure {
    let is = |codes: &[&str]| codes.contains(&&*text.code) || codes.contains(&&*text.kind);
    let after = retry_after.max(text.wait());
    let told = Told::by_openai(&text.message);
    let message = &text.message;
    if is(&EXHAUSTED) {
        Failure::BudgetExhausted { until: None }
    } else if is(&TOO_LARGE) || status == 413 || message.starts_with("Request too large") {
        Failure::TooLarge { told }
    } else if is(&["slow_down"]) {
        Failure::Retry { after, ramp: true, told }
    } else if is(&["resource_unavailable", "server_is_overloaded"])
        || matches!(status, 498 | 503 | 529)
        || message.contains("high demand")
    {
        Failure::Capacity { after }
    } else if status == 429 || is(&["rate_limit_exceeded"]) {
        if message.contains("per day (") {
            Failure::BudgetExhausted { until: after }
        } else {
            Failure::Retry { after, ramp: false, told }
        }
    } else {
        match status {
            401 | 403 => Failure::Auth,
            402 => Failure::BudgetExhausted { until: None },
            408 | 500..=599 => Failure::Server,
            400..=499 => Failure::BadRequest,
            _ if is(&["server_error"]) => Failure::Server,
            _ => Failure::Unknown,
        }
    }
}

/// The error of a stream that began with status 200.
fn stream_failure(error: &Value) -> Failure {
    failure(200, None, &ErrorText::of(error))
}

// === Responses ===

/// Usage by the names of chat completions and embeddings, or by those of responses.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Counts {
    prompt_tokens: Option<u64>,
    input_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    output_tokens: Option<u64>,
    prompt_tokens_details: Option<InputDetails>,
    input_tokens_details: Option<InputDetails>,
    completion_tokens_details: Option<OutputDetails>,
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct InputDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OutputDetails {
    reasoning_tokens: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ChatEvent {
    choices: Option<Vec<Choice>>,
    usage: Option<Counts>,
    error: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Choice {
    delta: Text,
    /// The piece of an old completion.
    text: Text,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponsesEvent<'a> {
    #[serde(borrow)]
    r#type: &'a str,
    delta: Text,
    response: Option<Response>,
    code: Option<Value>,
    message: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Response {
    usage: Option<Counts>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Body {
    usage: Option<Counts>,
}

impl Counts {
    /// Cached and written tokens lie inside the prompt, reasoning inside the output. `None` for a
    /// form that tells neither.
    fn usage(self) -> Option<Usage> {
        let input = self.prompt_tokens.or(self.input_tokens);
        let output = self.completion_tokens.or(self.output_tokens);
        input.or(output)?;
        let (input, output) = (Tokens(input.unwrap_or(0)), Tokens(output.unwrap_or(0)));
        let inside = self.prompt_tokens_details.or(self.input_tokens_details).unwrap_or_default();
        let cache_read = Tokens(inside.cached_tokens.unwrap_or(0)).min(input);
        let cache_write = Tokens(inside.cache_write_tokens.unwrap_or(0)).min(input - cache_read);
        let outside = self.completion_tokens_details.or(self.output_tokens_details);
        let reasoning = Tokens(outside.and_then(|o| o.reasoning_tokens).unwrap_or(0)).min(output);
        Some(Usage {
            input_uncached: input - cache_read - cache_write,
            cache_read,
            cache_write_5m: cache_write,
            output_visible: output - reasoning,
            output_reasoning: reasoning,
            ..Usage::request()
        })
    }
}

fn body_usage(body: &[u8]) -> Option<Usage> {
    serde_json::from_slice::<Body>(body).ok()?.usage?.usage()
}

/// A chunk of a chat or an old completion. What ends the stream, `[DONE]`, tells nothing.
fn chat_event(data: &[u8], seen: &mut Seen) {
    let Ok(event) = serde_json::from_slice::<ChatEvent>(data) else { return };
    let choices = event.choices.unwrap_or_default();
    for choice in &choices {
        let mut text = choice.delta;
        text += choice.text;
        seen.delta(text);
    }
    if let Some(error) = event.error {
        seen.error = Some(stream_failure(&error));
    }
    // Azure sends chunks without choices that tell no usage, vLLM usage with every choice: only what
    // has the one and not the other is the last word.
    if let Some(usage) = event.usage.and_then(Counts::usage) {
        seen.is_usage_only = choices.is_empty();
        let standing = if choices.is_empty() { Standing::Final } else { Standing::Running };
        seen.usage(usage, standing);
    }
}

fn responses_event(data: &[u8], seen: &mut Seen) {
    let Ok(event) = serde_json::from_slice::<ResponsesEvent<'_>>(data) else { return };
    match event.r#type {
        "response.completed" | "response.incomplete" | "response.failed" => {
            let response = event.response.unwrap_or_default();
            if let Some(usage) = response.usage.and_then(Counts::usage) {
                seen.usage(usage, Standing::Final);
            }
            if let Some(error) = response.error.filter(|error| !error.is_null()) {
                seen.error = Some(stream_failure(&error));
            }
        }
        "error" => {
            let error = serde_json::json!({ "code": event.code, "message": event.message });
            seen.error = Some(stream_failure(&error));
        }
        kind if kind.ends_with(".delta") => seen.delta(event.delta),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
