//! What differs between the providers on the wire. `exchange` is the same for both; a skin puts its
//! facts into headers, bodies and streams.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use providers::enforce::Level;
use quota::time::Time;
use serde_json::Value;

use crate::anthropic::Anthropic;
use crate::config::Provider;
use crate::frame::Frames;
use crate::openai::OpenAi;
use crate::refusal::Refusal;
use crate::reply::Reply;

/// One provider's words.
pub(crate) trait Skin: Sync {
    /// Headers of every answer.
    fn identify(&self, exchange: &Exchange<'_>, headers: &mut HeaderMap);

    /// Headers about limits, from levels after admission.
    fn rate_limits(&self, now: Time, levels: &[Level], headers: &mut HeaderMap);

    /// The body of a refusal.
    fn refuse(&self, refusal: &Refusal, exchange: &Exchange<'_>) -> Value;

    /// A whole answer.
    fn whole(&self, reply: &Reply) -> Value;

    /// An answer as a stream of events.
    fn frames(&self, reply: Arc<Reply>) -> Frames;

    /// The event of an error in mid-stream.
    fn stream_error(&self, exchange: &Exchange<'_>) -> Bytes;

    /// The list of models, or one of them.
    fn models(&self, models: &[String], only: Option<&str>) -> Option<Value>;
}

/// What is known of an exchange whatever comes of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange<'a> {
    /// Makes the request's id.
    pub(crate) number: u64,
    /// Whose call it is; empty if that is not known.
    pub(crate) account: &'a str,
    /// How long the provider has worked on it.
    pub(crate) elapsed: Duration,
}

/// The skin of a provider.
pub(crate) fn of(provider: Provider) -> &'static dyn Skin {
    match provider {
        Provider::OpenAi => &OpenAi,
        Provider::Anthropic => &Anthropic,
    }
}

/// An event of a stream; without a name as OpenAI's chat sends it.
pub(crate) fn event(name: Option<&str>, data: &Value) -> Bytes {
    match name {
        Some(name) => format!("event: {name}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }
    .into()
}

/// Sets a header; a value that is none is left out.
pub(crate) fn set(headers: &mut HeaderMap, name: &str, value: &str) {
    let name = HeaderName::try_from(name);
    if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}

// === impl Exchange ===

impl Exchange<'_> {
    /// `req_` and 24 hexadecimal digits.
    pub(crate) fn request_id(&self) -> String {
        format!("req_{:024x}", self.number)
    }
}
