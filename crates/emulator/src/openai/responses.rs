//! Responses, whole and as a stream (`providers.md` 2.6, 2.7): one message with one text.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::frame::{Frame, Frames};
use crate::reply::Reply;
use crate::skin::event;

/// How far an answer has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begun,
    Ended,
}

/// A whole answer.
pub(super) fn whole(reply: &Reply) -> Value {
    response(reply, Stage::Ended)
}

/// A stream of events, without a `[DONE]`.
pub(super) fn frames(reply: Arc<Reply>) -> Frames {
    let steps = reply.steps();
    let opening = opening(&reply);
    let tokens = {
        let shared = Arc::clone(&reply);
        (0..steps).map(move |step| {
            let delta = shared.choices[0].words.token(step);
            let name = "response.output_text.delta";
            let data = in_part(&shared, name, json!({"delta": delta, "logprobs": []}));
            (step, 1, name, data)
        })
    };
    let closing = closing(&reply);
    let events = (opening.into_iter().map(|(name, data)| (0, 0, name, data)))
        .chain(tokens)
        .chain(closing.into_iter().map(move |(name, data)| (steps, 0, name, data)));
    Box::new(events.enumerate().map(|(number, (step, tokens, name, mut data))| {
        data["sequence_number"] = number.into();
        Frame::new(step, tokens, event(Some(name), &data))
    }))
}

fn opening(reply: &Reply) -> Vec<(&'static str, Value)> {
    let begun = response(reply, Stage::Begun);
    let added = "response.output_item.added";
    let part_added = "response.content_part.added";
    vec![
        ("response.created", json!({"type": "response.created", "response": begun})),
        ("response.in_progress", json!({"type": "response.in_progress", "response": begun})),
        (added, json!({"type": added, "output_index": 0, "item": item(reply, Stage::Begun)})),
        (part_added, in_part(reply, part_added, json!({"part": part("")}))),
    ]
}

fn closing(reply: &Reply) -> Vec<(&'static str, Value)> {
    let text = reply.choices[0].words.text();
    let (text_done, part_done) = ("response.output_text.done", "response.content_part.done");
    let item_done = "response.output_item.done";
    let ended = if capped(reply) { "response.incomplete" } else { "response.completed" };
    vec![
        (text_done, in_part(reply, text_done, json!({"text": text, "logprobs": []}))),
        (part_done, in_part(reply, part_done, json!({"part": part(&text)}))),
        (
            item_done,
            json!({"type": item_done, "output_index": 0, "item": item(reply, Stage::Ended)}),
        ),
        (ended, json!({"type": ended, "response": response(reply, Stage::Ended)})),
    ]
}

fn in_part(reply: &Reply, kind: &str, mut data: Value) -> Value {
    data["type"] = kind.into();
    data["item_id"] = reply.id("msg_").into();
    data["output_index"] = 0.into();
    data["content_index"] = 0.into();
    data
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "annotations": [], "logprobs": [], "text": text})
}

fn item(reply: &Reply, stage: Stage) -> Value {
    let content = match stage {
        Stage::Begun => json!([]),
        Stage::Ended => json!([part(&reply.choices[0].words.text())]),
    };
    json!({
        "id": reply.id("msg_"),
        "type": "message",
        "status": status(reply, stage),
        "role": "assistant",
        "content": content,
    })
}

fn response(reply: &Reply, stage: Stage) -> Value {
    let ended = stage == Stage::Ended;
    let incomplete = (ended && capped(reply)).then(|| json!({"reason": "max_output_tokens"}));
    json!({
        "id": reply.id("resp_"),
        "object": "response",
        "created_at": reply.created_seconds(),
        "status": status(reply, stage),
        "background": false,
        "error": null,
        "incomplete_details": incomplete,
        "instructions": null,
        "max_output_tokens": reply.ask.call.output_cap,
        "model": reply.model(),
        "output": if ended { json!([item(reply, stage)]) } else { json!([]) },
        "parallel_tool_calls": true,
        "previous_response_id": null,
        "reasoning": {"effort": null, "summary": null},
        "service_tier": "default",
        "store": false,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": ended.then(|| usage(reply)),
        "metadata": {},
    })
}

fn status(reply: &Reply, stage: Stage) -> &'static str {
    match stage {
        Stage::Begun => "in_progress",
        Stage::Ended if capped(reply) => "incomplete",
        Stage::Ended => "completed",
    }
}

fn capped(reply: &Reply) -> bool {
    reply.choices[0].capped
}

fn usage(reply: &Reply) -> Value {
    json!({
        "input_tokens": reply.input,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": reply.output(),
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": reply.input + reply.output(),
    })
}
