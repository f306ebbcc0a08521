//! OpenAI's words: headers (`providers.md` 2.4) and models here; errors, chat, responses and
//! embeddings below.

mod chat;
mod embeddings;
mod errors;
mod responses;

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use providers::duration::format_go;
use providers::enforce::Level;
use providers::operation::Operation;
use quota::dimension::Unit;
use quota::time::Time;
use serde_json::{Value, json};

use crate::frame::Frames;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::skin::{Exchange, Skin, event, set};

/// The skin of api.openai.com.
pub(crate) struct OpenAi;

/// When every model was made; any date will do.
const MODEL_CREATED: u64 = 1_715_367_049;

// === impl OpenAi ===

impl Skin for OpenAi {
    fn identify(&self, exchange: &Exchange<'_>, headers: &mut HeaderMap) {
        set(headers, "x-request-id", &exchange.request_id());
        set(headers, "openai-processing-ms", &exchange.elapsed.as_millis().to_string());
        set(headers, "openai-version", "2020-10-01");
        if !exchange.account.is_empty() {
            set(headers, "openai-organization", &organisation(exchange));
            set(headers, "openai-project", &format!("proj_{}", exchange.account));
        }
    }

    /// Of several figures in the same unit the one with the least left is shown (`providers.md` 2.2).
    fn rate_limits(&self, _now: Time, levels: &[Level], headers: &mut HeaderMap) {
        for (unit, name) in [(Unit::Requests, "requests"), (Unit::TotalTokens, "tokens")] {
            let of_unit = levels.iter().filter(|level| level.dimension.unit() == unit);
            let Some(level) = of_unit.min_by_key(|level| level.remaining) else { continue };
            for (part, value) in [
                ("limit", level.limit.to_string()),
                ("remaining", level.remaining.to_string()),
                ("reset", format_go(level.reset)),
            ] {
                set(headers, &format!("x-ratelimit-{part}-{name}"), &value);
            }
        }
    }

    fn refuse(&self, refusal: &Refusal, exchange: &Exchange<'_>) -> Value {
        errors::body(refusal, &organisation(exchange))
    }

    fn whole(&self, reply: &Reply) -> Value {
        match reply.operation() {
            Operation::Responses => responses::whole(reply),
            Operation::Embeddings => embeddings::whole(reply),
            _ => chat::whole(reply),
        }
    }

    fn frames(&self, reply: Arc<Reply>) -> Frames {
        match reply.operation() {
            Operation::Responses => responses::frames(reply),
            _ => chat::frames(reply),
        }
    }

    fn stream_error(&self, _exchange: &Exchange<'_>) -> Bytes {
        let message = "The server had an error while processing your request. Sorry about that!";
        let error = errors::object("server_error", None, None, message);
        event(None, &json!({"error": error}))
    }

    fn models(&self, models: &[String], only: Option<&str>) -> Option<Value> {
        let model = |id: &String| json!({"id": id, "object": "model", "created": MODEL_CREATED, "owned_by": "openai"});
        match only {
            Some(only) => models.iter().find(|id| *id == only).map(model),
            None => {
                let data: Vec<Value> = models.iter().map(model).collect();
                Some(json!({"object": "list", "data": data}))
            }
        }
    }
}

fn organisation(exchange: &Exchange<'_>) -> String {
    format!("org-{}", exchange.account)
}
