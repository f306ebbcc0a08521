//! A pod's application: it calls as an SDK does, and notes what became of each call.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::demo::bucket::Bucket;
use crate::demo::record::Outcome;
use crate::demo::scenario::{CLASSES, MODEL, PATIENCE};
use crate::demo::sdk::{self, Attempt};
use crate::demo::traffic::Arrival;

/// An application with its own connections.
#[derive(Debug)]
pub(crate) struct Pod {
    client: Client<HttpConnector, Full<Bytes>>,
    /// The whole URL of chat completions.
    url: String,
    /// What it may send by itself, if it holds itself back.
    bucket: Option<Bucket>,
    /// What a call takes of it.
    pricing: Pricing,
    /// Cancelled when the pod is killed.
    life: CancellationToken,
}

/// In what a pod counts what it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pricing {
    Requests,
    Tokens,
}

/// The first byte of a good answer.
struct FirstByte {
    at: Instant,
    /// What the provider says that it worked on it.
    worked: Duration,
    rest: Incoming,
    taken: f64,
}

/// For the rest of an answer once it has begun; the emulator needs half a second.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// An answer has some kilobytes; what is kept of it is its end, where its usage stands.
const TAIL_BYTES: usize = 2_048;

/// Any key is as good as another for an emulator.
const KEY: &str = "Bearer demo";

// === impl Pod ===

impl Pod {
    /// An application that calls `http://<address><path>`.
    pub(crate) fn new(
        address: SocketAddr,
        path: &str,
        bucket: Option<Bucket>,
        pricing: Pricing,
    ) -> Pod {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Pod {
            client: Client::builder(TokioExecutor::new()).build(connector),
            url: format!("http://{address}{path}"),
            bucket,
            pricing,
            life: CancellationToken::new(),
        }
    }

    /// Ends the pod with all its calls.
    pub(crate) fn kill(&self) {
        self.life.cancel();
    }

    /// Makes a call as an SDK does and reads its whole answer; `dice` decides the jitter of retries.
    /// `started` is when the run began.
    pub(crate) async fn call(&self, arrival: &Arrival, started: Instant, dice: u64) -> Outcome {
        // Dropping a call is what the death of its pod does to it.
        tokio::select! {
            outcome = self.call_alive(arrival, started, dice) => outcome,
            () = self.life.cancelled() => Outcome::Died,
        }
    }

    async fn call_alive(&self, arrival: &Arrival, started: Instant, dice: u64) -> Outcome {
        let called = Instant::now();
        let mut dice = SmallRng::seed_from_u64(dice);
        let first = timeout_at(called + PATIENCE, self.first_byte(arrival, &mut dice)).await;
        let Ok(Some(first)) = first else { return Outcome::Refused };
        let waited = (first.at - called).saturating_sub(first.worked);
        // An answer that is cut after its first byte was admitted, and has been counted as such.
        let tail = timeout(BODY_TIMEOUT, tail(first.rest)).await.unwrap_or_default();
        if let (Some(bucket), Pricing::Tokens) = (&self.bucket, self.pricing) {
            bucket.settle(first.taken, total_tokens(&tail).unwrap_or(first.taken));
        }
        Outcome::Answered { first_byte: first.at - started, waited }
    }

    /// The attempts, until one is answered well; `None` if the SDK gives up.
    async fn first_byte(&self, arrival: &Arrival, dice: &mut SmallRng) -> Option<FirstByte> {
        let body = body(arrival);
        for earlier in 0..sdk::ATTEMPTS {
            let taken = self.price(arrival);
            if let Some(bucket) = &self.bucket {
                // A caller that has waited for so long would not live to see its answer.
                timeout(PATIENCE / 2, bucket.take(taken)).await.ok()?;
            }
            let attempt = match self.attempt(arrival, body.clone(), earlier).await {
                Ok((headers, rest)) => {
                    let worked = headers.get("openai-processing-ms").and_then(|value| {
                        Some(Duration::from_millis(value.to_str().ok()?.parse().ok()?))
                    });
                    let worked = worked.unwrap_or_default();
                    return Some(FirstByte { at: Instant::now(), worked, rest, taken });
                }
                Err(attempt) => attempt,
            };
            sleep(sdk::retry_after(&attempt, earlier, dice)?).await;
        }
        None
    }

    /// One attempt: the head of a good answer, with which its first bytes come, or what there was
    /// instead.
    async fn attempt(
        &self,
        arrival: &Arrival,
        body: Bytes,
        earlier: u32,
    ) -> Result<(HeaderMap, Incoming), Attempt> {
        let request = Request::post(&self.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, KEY)
            .header("x-weir-priority", CLASSES[arrival.class].name)
            .header("x-stainless-retry-count", earlier)
            .header("x-stainless-read-timeout", PATIENCE.as_secs())
            .body(Full::new(body))
            .map_err(|_| Attempt::Broken)?;
        let response = self.client.request(request).await.map_err(|_| Attempt::Broken)?;
        let (head, body) = response.into_parts();
        if head.status.is_success() {
            return Ok((head.headers, body));
        }
        // Read to its end, so that the connection can be used again.
        let _ = timeout(BODY_TIMEOUT, tail(body)).await;
        Err(Attempt::Answered(head.status, head.headers))
    }

    /// What a call takes at admission, by OpenAI's rule: the larger of prompt and cap.
    fn price(&self, arrival: &Arrival) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "sizes of single calls")]
        match self.pricing {
            Pricing::Requests => 1.0,
            Pricing::Tokens => {
                (arrival.prompt_bytes as f64 / 4.0).ceil().max(arrival.max_tokens as f64)
            }
        }
    }
}

/// The request of a chat completion with a prompt of the arrival's size.
fn body(arrival: &Arrival) -> Bytes {
    const WORDS: &str = "Tell me a story of a weir on a quiet river in spring. ";
    let prompt: String = WORDS.chars().cycle().take(arrival.prompt_bytes).collect();
    let mut body = json!({
        "model": MODEL,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": arrival.max_tokens,
        "stream": arrival.stream,
    });
    if arrival.stream {
        body["stream_options"] = json!({"include_usage": true});
    }
    body.to_string().into()
}

/// Reads a body to its end, and keeps its last bytes.
async fn tail(mut body: Incoming) -> Vec<u8> {
    let mut tail = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        tail.extend_from_slice(&data);
        tail.drain(..tail.len().saturating_sub(TAIL_BYTES));
    }
    tail
}

/// What an answer says that it cost.
fn total_tokens(tail: &[u8]) -> Option<f64> {
    const FIELD: &str = "\"total_tokens\":";
    let text = String::from_utf8_lossy(tail);
    let (_, after) = text.rsplit_once(FIELD)?;
    let digits = after.trim_start().split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::total_tokens;

    #[test]
    fn the_usage_of_an_answer_is_found_at_its_end() {
        for (tail, expected) in [
            (r#"{"usage":{"prompt_tokens":3,"total_tokens":19}}"#, Some(19.0)),
            ("data: {\"usage\":{\"total_tokens\": 7,\"x\":1}}\n\ndata: [DONE]\n\n", Some(7.0)),
            (r#"{"choices":[]}"#, None),
        ] {
            assert_eq!(total_tokens(tail.as_bytes()), expected, "{tail}");
        }
    }
}
