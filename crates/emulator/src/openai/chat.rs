//! Chat completions, whole and as a stream (`providers.md` 2.6, 2.7).

use std::sync::Arc;

use serde_json::{Value, json};

use crate::frame::{Frame, Frames};
use crate::reply::{Choice, Reply};
use crate::skin::event;
use crate::words::mix;

const FINGERPRINT: &str = "fp_weir";

/// The longest padding of a chunk.
const MAX_PADDING: u64 = 12;

/// A whole answer.
pub(super) fn whole(reply: &Reply) -> Value {
    let choices: Vec<Value> = reply
        .choices
        .iter()
        .enumerate()
        .map(|(index, choice)| {
            json!({
                "index": index,
                "message": {
                    "role": "assistant",
                    "content": choice.words.text(),
                    "refusal": null,
                    "annotations": [],
                },
                "logprobs": null,
                "finish_reason": finish_reason(choice),
            })
        })
        .collect();
    json!({
        "id": reply.id("chatcmpl-"),
        "object": "chat.completion",
        "created": reply.created_seconds(),
        "model": reply.model(),
        "choices": choices,
        "usage": usage(reply),
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    })
}

/// A stream: a role for each choice, its tokens, its end; usage if it was asked for; `[DONE]`.
pub(super) fn frames(reply: Arc<Reply>) -> Frames {
    let steps = reply.steps();
    let count = reply.choices.len();
    let opening = {
        let reply = Arc::clone(&reply);
        (0..count).map(move |choice| {
            let delta = json!({"role": "assistant", "content": "", "refusal": null});
            Frame::new(0, 0, chunk(&reply, choice, &delta, None))
        })
    };
    let tokens = {
        let shared = Arc::clone(&reply);
        Arc::clone(&reply).tokens().map(move |(step, choice)| {
            let delta = json!({"content": shared.choices[choice].words.token(step)});
            Frame::new(step, 1, chunk(&shared, choice, &delta, None))
        })
    };
    let closing = {
        let reply = Arc::clone(&reply);
        (0..count).map(move |choice| {
            let reason = finish_reason(&reply.choices[choice]);
            Frame::new(steps, 0, chunk(&reply, choice, &json!({}), Some(reason)))
        })
    };
    let usage = reply.ask.call.wants_usage.then(|| {
        let mut chunk = envelope(&reply);
        chunk["choices"] = json!([]);
        chunk["usage"] = usage(&reply);
        Frame::new(steps, 0, event(None, &chunk))
    });
    let done = Frame::new(steps, 0, "data: [DONE]\n\n");
    Box::new(opening.chain(tokens).chain(closing).chain(usage).chain([done]))
}

fn chunk(reply: &Reply, choice: usize, delta: &Value, finish: Option<&str>) -> bytes::Bytes {
    let mut chunk = envelope(reply);
    chunk["choices"] =
        json!([{"index": choice, "delta": delta, "logprobs": null, "finish_reason": finish}]);
    if reply.ask.call.wants_usage {
        chunk["usage"] = Value::Null;
    }
    if reply.ask.extras.obfuscates() {
        chunk["obfuscation"] = padding(reply.number, delta).into();
    }
    event(None, &chunk)
}

fn envelope(reply: &Reply) -> Value {
    json!({
        "id": reply.id("chatcmpl-"),
        "object": "chat.completion.chunk",
        "created": reply.created_seconds(),
        "model": reply.model(),
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    })
}

/// Letters that hide how long the token is.
fn padding(number: u64, delta: &Value) -> String {
    let length = delta["content"].as_str().map_or(0, str::len) as u64;
    let random = mix(number ^ length);
    let letter = |at: u64| char::from(b'a' + u8::try_from(mix(random + at) % 26).unwrap_or(0));
    (0..MAX_PADDING.saturating_sub(length)).map(letter).collect()
}

fn finish_reason(choice: &Choice) -> &'static str {
    if choice.capped { "length" } else { "stop" }
}

fn usage(reply: &Reply) -> Value {
    json!({
        "prompt_tokens": reply.input,
        "completion_tokens": reply.output(),
        "total_tokens": reply.input + reply.output(),
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}
