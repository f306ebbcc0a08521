//! Anthropic's words: headers (`providers.md` 4.2), models and messages (4.4) here, errors below.

mod errors;

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use jiff::Timestamp;
use providers::enforce::Level;
use providers::operation::Operation;
use quota::dimension::Unit;
use quota::time::Time;
use serde_json::{Value, json};

use crate::frame::{Frame, Frames};
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::skin::{Exchange, Skin, event, set};
use crate::words::mix;

/// The skin of api.anthropic.com.
pub(crate) struct Anthropic;

/// When every model was made; any date will do.
const MODEL_CREATED: &str = "2026-02-17T00:00:00Z";

/// Remaining tokens are shown to the nearest so many.
const TOKENS_SHOWN: u64 = 1_000;

// === impl Anthropic ===

impl Skin for Anthropic {
    fn identify(&self, exchange: &Exchange<'_>, headers: &mut HeaderMap) {
        set(headers, "request-id", &exchange.request_id());
        if !exchange.account.is_empty() {
            set(headers, "anthropic-organization-id", &organisation(exchange.account));
        }
    }

    /// `tokens` shows the most restrictive token limit in force.
    fn rate_limits(&self, now: Time, levels: &[Level], headers: &mut HeaderMap) {
        let tightest = |units: &[Unit]| {
            levels
                .iter()
                .filter(|level| units.contains(&level.dimension.unit()))
                .min_by_key(|level| level.remaining)
        };
        let all_tokens = [Unit::TotalTokens, Unit::InputTokens, Unit::OutputTokens];
        for (units, name, rounding) in [
            (&[Unit::Requests][..], "requests", 1),
            (&[Unit::InputTokens], "input-tokens", TOKENS_SHOWN),
            (&[Unit::OutputTokens], "output-tokens", TOKENS_SHOWN),
            (&all_tokens, "tokens", TOKENS_SHOWN),
        ] {
            let Some(level) = tightest(units) else { continue };
            for (part, value) in [
                ("limit", level.limit.to_string()),
                ("remaining", rounded(level, rounding).to_string()),
                ("reset", date(now + level.reset)),
            ] {
                set(headers, &format!("anthropic-ratelimit-{name}-{part}"), &value);
            }
        }
    }

    fn refuse(&self, refusal: &Refusal, exchange: &Exchange<'_>) -> Value {
        errors::body(refusal, &organisation(exchange.account), &exchange.request_id())
    }

    fn whole(&self, reply: &Reply) -> Value {
        if reply.operation() == Operation::CountTokens {
            return json!({"input_tokens": reply.input});
        }
        let mut message = message(reply);
        message["content"] = json!([{"type": "text", "text": reply.choices[0].words.text()}]);
        message["stop_reason"] = stop_reason(reply).into();
        message["usage"] = usage(reply, reply.output());
        message
    }

    fn frames(&self, reply: Arc<Reply>) -> Frames {
        let steps = reply.steps();
        let opening = opening(&reply).into_iter().map(|bytes| Frame::new(0, 0, bytes));
        let shared = Arc::clone(&reply);
        let tokens = (0..steps).map(move |step| {
            let text = shared.choices[0].words.token(step);
            let delta = json!({"type": "text_delta", "text": text});
            let data = json!({"type": "content_block_delta", "index": 0, "delta": delta});
            Frame::new(step, 1, event(Some("content_block_delta"), &data))
        });
        let closing = closing(&reply).into_iter().map(move |bytes| Frame::new(steps, 0, bytes));
        Box::new(opening.chain(tokens).chain(closing))
    }

    fn stream_error(&self, exchange: &Exchange<'_>) -> Bytes {
        let id = exchange.request_id();
        event(Some("error"), &errors::object("overloaded_error", "Overloaded", &id))
    }

    fn models(&self, models: &[String], only: Option<&str>) -> Option<Value> {
        let model = |id: &String| json!({"type": "model", "id": id, "display_name": id, "created_at": MODEL_CREATED});
        match only {
            Some(only) => models.iter().find(|id| *id == only).map(model),
            None => {
                let data: Vec<Value> = models.iter().map(model).collect();
                let (first, last) = (models.first(), models.last());
                Some(json!({"data": data, "has_more": false, "first_id": first, "last_id": last}))
            }
        }
    }
}

fn message(reply: &Reply) -> Value {
    json!({
        "id": reply.id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": reply.model(),
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "usage": usage(reply, 1),
    })
}

fn opening(reply: &Reply) -> [Bytes; 3] {
    let block = json!({"type": "text", "text": ""});
    let start = json!({"type": "content_block_start", "index": 0, "content_block": block});
    [
        event(Some("message_start"), &json!({"type": "message_start", "message": message(reply)})),
        event(Some("content_block_start"), &start),
        event(Some("ping"), &json!({"type": "ping"})),
    ]
}

fn closing(reply: &Reply) -> [Bytes; 3] {
    let delta = json!({"stop_reason": stop_reason(reply), "stop_sequence": null});
    let usage = json!({"output_tokens": reply.output()});
    let message_delta = json!({"type": "message_delta", "delta": delta, "usage": usage});
    [
        event(Some("content_block_stop"), &json!({"type": "content_block_stop", "index": 0})),
        event(Some("message_delta"), &message_delta),
        event(Some("message_stop"), &json!({"type": "message_stop"})),
    ]
}

fn stop_reason(reply: &Reply) -> &'static str {
    if reply.choices[0].capped { "max_tokens" } else { "end_turn" }
}

fn usage(reply: &Reply, output: u64) -> Value {
    json!({
        "input_tokens": reply.input,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
    })
}

/// Never more than the limit, which may be no multiple of the rounding.
fn rounded(level: &Level, to: u64) -> u64 {
    let nearest = level.remaining.saturating_add(to / 2) / to * to;
    nearest.min(level.limit)
}

/// RFC 3339 in whole seconds, rounded up: full replenishment is not earlier.
fn date(time: Time) -> String {
    let seconds = time.as_nanos().div_ceil(1_000_000_000);
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX).to_string()
}

/// A UUID that belongs to the account.
fn organisation(account: &str) -> String {
    let number = account.bytes().fold(0, |sum, byte| mix(sum ^ u64::from(byte)));
    let (high, low) = (mix(number), mix(number ^ 1));
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0xfff,
        low & 0xffff_ffff_ffff
    )
}
