//! Prepared answers for benchmarks: fixed bytes, no limits, no waiting but a moment after the first
//! event of a stream. What is left is the cost of HTTP itself, which bounds what a measurement against
//! this emulator can show.

use std::sync::Arc;

use bytes::Bytes;
use providers::call::Call;
use providers::operation::Operation;
use quota::time::Time;

use crate::ask::{Ask, Extras};
use crate::body::Body;
use crate::config::{Latency, Output, Provider};
use crate::frame::Content;
use crate::refusal::Refusal;
use crate::reply::{Dice, Reply};
use crate::skin;

/// The bytes of every kind of answer.
#[derive(Debug)]
pub(crate) struct Prepared {
    answers: Vec<Answer>,
}

#[derive(Debug)]
struct Answer {
    provider: Provider,
    operation: Operation,
    whole: Bytes,
    /// The first event, and all others.
    stream: (Bytes, Bytes),
}

/// How long a prepared answer is: about a kilobyte of JSON, or sixty-four events.
const TOKENS: u64 = 64;
const SEED: u64 = 1;

/// What a prepared answer is charged for: a short prompt.
const TEXT_BYTES: u64 = 256;

// === impl Prepared ===

impl Prepared {
    pub(crate) fn new() -> Prepared {
        let kinds = [
            (Provider::OpenAi, Operation::Chat, "gpt-4o-mini"),
            (Provider::OpenAi, Operation::Responses, "gpt-4o-mini"),
            (Provider::OpenAi, Operation::Embeddings, "text-embedding-3-small"),
            (Provider::Anthropic, Operation::Messages, "claude-haiku-4-5"),
        ];
        let answers = kinds
            .into_iter()
            .map(|(provider, operation, model)| Answer::new(provider, operation, model))
            .collect();
        Prepared { answers }
    }

    /// The body that answers a request, and whether it is one of events.
    pub(crate) fn answer(
        &self,
        provider: Provider,
        operation: Operation,
        body: &[u8],
    ) -> Result<(bool, Body), Refusal> {
        let adapter = providers::adapter(provider.protocol());
        let call = adapter.read(operation, body).map_err(Refusal::Body)?;
        let answer = self
            .answers
            .iter()
            .find(|answer| answer.provider == provider && answer.operation == operation)
            .ok_or_else(|| Refusal::NoPath { what: "no prepared answer".to_owned() })?;
        let stream = call.stream && operation.has_output();
        let (first, rest) = answer.stream.clone();
        let whole = answer.whole.clone();
        Ok((stream, if stream { Body::prepared(first, rest) } else { Body::whole(whole) }))
    }
}

// === impl Answer ===

impl Answer {
    fn new(provider: Provider, operation: Operation, model: &str) -> Answer {
        let call = Call {
            model: Some(model.to_owned()),
            text_bytes: TEXT_BYTES,
            wants_usage: true,
            ..Call::of(operation)
        };
        let ask = Arc::new(Ask { call, extras: Extras::default() });
        let latency = Latency { first_token_ms: 0, spread: 0.0, tokens_per_second: 0 };
        let output = Output { tokens: TOKENS, spread: 0.0 };
        let mut dice = Dice::of_call(SEED, 0);
        let reply = Arc::new(Reply::draw(latency, output, ask, Time::ZERO, &mut dice));
        let skin = skin::of(provider);
        let whole = skin.whole(&reply).to_string().into();
        let stream = if operation.has_output() {
            let bytes = |content| match content {
                Content::Bytes(bytes) => bytes,
                Content::Cut => Bytes::new(),
            };
            let mut events = skin.frames(reply).map(|frame| bytes(frame.content));
            (events.next().unwrap_or_default(), events.flatten().collect())
        } else {
            Default::default()
        };
        Answer { provider, operation, whole, stream }
    }
}
