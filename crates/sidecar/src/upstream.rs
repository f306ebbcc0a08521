//! Sends a request to its provider and brings the head of the answer.
//!
//! Each request is sent once: retries, breaker and fallback come as one piece later (design 10.5). A
//! provider's error is classified, reported and forwarded with its wait made safe for SDKs.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, Uri, Version, response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use providers::failure::Failure;
use providers::headers::Headers;
use providers::hint::{HINT_HEADERS, Hint, MAX_TOLD_WAIT};
use providers::limit_seen::LimitSeen;
use providers::refusal::Refusal;
use providers::usage::Usage;
use quota::budget::BudgetId;
use quota::message::Seen;
use quota::time::Time;
use quota::units::Amount;
use tokio::time::timeout;
use tracing::{Instrument, Span};

use crate::gate::{Gate, Hold, now};
use crate::headers::{Patience, strip_hop};
use crate::record::Record;
use crate::route::{Asked, Routed};
use crate::spans;
use crate::upstream::payload::Payload;
use crate::upstream::pool::{Connection, Outgoing, Pool};

pub(crate) mod payload;
pub(crate) mod pool;

/// Sends requests; shares its connections.
pub(crate) struct Upstream {
    pool: Pool,
    gate: Gate,
}

/// An answer whose head has come, and all that it takes to read and to settle it.
pub(crate) struct Answer {
    pub(crate) head: response::Parts,
    pub(crate) asked: Asked,
    pub(crate) hold: Hold,
    /// What was read of the body already.
    pub(crate) prefix: Vec<Bytes>,
    /// The rest of it.
    pub(crate) body: Incoming,
    /// Given back when the body has been read.
    pub(crate) connection: Connection,
    /// The CLIENT span, which ends with the body.
    pub(crate) span: Span,
}

/// How long a provider has for the head of its answer where the client does not say: OpenAI's flex
/// tier may take 15 minutes (`providers.md` 2.1).
const HEAD_TIMEOUT: Duration = Duration::from_secs(900);
/// Kept connections that the provider has closed, one after another, before a request gives up. The
/// first one empties the pool, so that a second is bad luck.
const MAX_STALE: usize = 3;
/// What of an error's body is read to classify it; providers' errors have below 1 KiB.
const ERROR_PREFIX_BYTES: usize = 8 * 1024;
/// And for how long; the head of the error waits for it.
const ERROR_PREFIX_TIMEOUT: Duration = Duration::from_secs(2);

// === impl Upstream ===

impl Upstream {
    pub(crate) fn new(gate: Gate) -> Upstream {
        Upstream { pool: Pool::new(), gate }
    }

    /// Closes idle connections.
    pub(crate) fn forget_idle(&self) {
        self.pool.forget_idle();
    }

    /// Sends the request and waits for the head of the answer.
    pub(crate) async fn send(
        &self,
        routed: Routed,
        mut hold: Hold,
        record: &mut Record,
    ) -> Result<Answer, Refusal> {
        let Routed { asked, mut head, body, memory, patience, .. } = routed;
        let span = spans::attempt(&asked);
        let uri = uri(&asked.target.endpoint, &head.uri)?;
        prepare(&mut head.headers, &asked, &span)?;
        head.version = Version::HTTP_11;
        let mut request = Request::from_parts(head, payload(&asked, body));
        *request.uri_mut() = uri;
        let limit = patience.head_timeout(record.age());
        let exchange = self.exchange(request, &mut hold, &asked).instrument(span.clone());
        let (sent, response, connection) = match timeout(limit, exchange).await {
            Ok(Ok(exchanged)) => exchanged,
            Ok(Err(refusal)) => return Err(failed(&span, refusal)),
            Err(_) => return Err(failed(&span, Refusal::UpstreamTimeout { after: limit })),
        };
        drop(memory);
        record.answered(now().since(sent));
        let (mut head, body) = response.into_parts();
        head.version = Version::HTTP_11;
        let mut answer = Answer { head, asked, hold, prefix: Vec::new(), body, connection, span };
        self.note_limits(&answer, sent);
        strip_hop(&mut answer.head.headers);
        if answer.head.status.as_u16() >= 400 {
            record.failure = Some(self.failure(&mut answer).await);
        }
        record.status = Some(answer.head.status.as_u16());
        Ok(answer)
    }

    /// One request and the head of its answer, on the first connection that takes it.
    async fn exchange(
        &self,
        mut request: Outgoing,
        hold: &mut Hold,
        asked: &Asked,
    ) -> Result<(Time, Response<Incoming>, Connection), Refusal> {
        let expected = asked.charged(&Usage::estimated(asked.estimate));
        let uri = request.uri().clone();
        for _ in 0..=MAX_STALE {
            let connection = self.pool.checkout(&uri).await;
            let mut connection = connection.map_err(|error| broken(&error))?;
            hold.sent(connection.trip(), expected.clone());
            let sent = now();
            let mut error = match connection.send(request).await {
                Ok(response) => return Ok((sent, response, connection)),
                Err(error) => error,
            };
            // Only what was surely not written is sent again.
            match error.take_message() {
                Some(unsent) if connection.is_reused() => {
                    self.pool.distrust(&uri);
                    hold.unsent();
                    request = unsent;
                    *request.uri_mut() = uri.clone();
                }
                unsent => {
                    if unsent.is_some() {
                        hold.unsent();
                    }
                    return Err(broken(&error.into_error()));
                }
            }
        }
        Err(Refusal::UpstreamFailed { reason: "it closes every connection".to_owned() })
    }

    /// Tells the lease what the provider's headers say about its limits. The window ends at the
    /// earliest `reset` after the request was written, at the latest `reset` after the head came.
    fn note_limits(&self, answer: &Answer, sent: Time) {
        let received = now();
        let headers = plain(&answer.head.headers);
        let told = answer.asked.target.adapter.limits_seen(&headers);
        let seen = told.iter().filter_map(|told| {
            let (budget, reset) = (budget(&answer.asked, told)?, told.reset?);
            spans::limit_seen(&answer.span, told);
            let seen = Seen {
                at: sent,
                reset_lo: sent + reset - told.reset_grain,
                reset_hi: received + reset + told.reset_grain,
                limit: Amount::from_units(told.limit),
                remaining: Amount::from_units(told.remaining),
            };
            Some((budget, seen))
        });
        self.gate.seen(&seen.collect::<Vec<_>>());
    }

    /// Classifies an error and makes what it tells about trying again safe (`providers.md` 13.2).
    async fn failure(&self, answer: &mut Answer) -> Failure {
        read_prefix(answer).await;
        let prefix = answer.prefix.concat();
        let status = answer.head.status.as_u16();
        let headers = plain(&answer.head.headers);
        let failure = answer.asked.target.adapter.classify(status, &headers, &prefix);
        let too_long = headers.retry_after().is_some_and(|wait| wait > MAX_TOLD_WAIT);
        if status == 429 {
            self.gate.provider_429();
        }
        let hint = failure.hint();
        if hint != Hint::Unsaid || too_long {
            for name in HINT_HEADERS {
                answer.head.headers.remove(name);
            }
        }
        for (name, value) in hint.headers() {
            if let Ok(value) = HeaderValue::try_from(value) {
                answer.head.headers.insert(HeaderName::from_static(name), value);
            }
        }
        failure
    }
}

// === impl Patience ===

impl Patience {
    /// How long the provider has for the head of its answer to a request of this age.
    fn head_timeout(&self, age: Duration) -> Duration {
        let said = self.deadline.into_iter().chain(self.read_timeout);
        said.map(|patience| patience.saturating_sub(age)).fold(HEAD_TIMEOUT, Duration::min)
    }
}

/// Scheme, host and base path of the endpoint, then the request's own path.
fn uri(endpoint: &Uri, path: &Uri) -> Result<Uri, Refusal> {
    let base = endpoint.path().trim_end_matches('/');
    let path = path.path_and_query().map_or("/", PathAndQuery::as_str);
    let path = if base.is_empty() { path.parse() } else { format!("{base}{path}").parse() };
    let mut parts = endpoint.clone().into_parts();
    parts.path_and_query = path.ok();
    Uri::from_parts(parts).map_err(|_| Refusal::BadRequest {
        message: "the path is not one that can be sent to the provider".to_owned(),
    })
}

/// Makes the application's headers the provider's.
fn prepare(headers: &mut HeaderMap, asked: &Asked, span: &Span) -> Result<(), Refusal> {
    for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT] {
        headers.remove(name);
    }
    // Usage can be read only in the clear.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    service::trace_context::inject(span, headers);
    let Some(key) = asked.target.next_key(asked.model()) else { return Ok(()) };
    let auth = asked.target.adapter.auth(&key.secret);
    for name in auth.remove {
        headers.remove(*name);
    }
    let mut value = HeaderValue::from_str(auth.value.expose()).map_err(|_| {
        let what = format!("key {} of {} fits no header", key.name, asked.target.provider.name);
        Refusal::NotPermitted { what }
    })?;
    value.set_sensitive(true);
    headers.insert(HeaderName::from_static(auth.header), value);
    spans::key(span, &key.name);
    Ok(())
}

/// The body as it came, but for what the adapter changes.
fn payload(asked: &Asked, body: Bytes) -> Full<Payload> {
    Full::new(match asked.target.adapter.edits(&asked.call, &body) {
        Some(splice) => Payload::from(splice.apply(&body)),
        None => Payload::from(body),
    })
}

/// The budget that a figure of the provider's headers is about; `None` where several may be meant.
fn budget<'a>(asked: &'a Asked, seen: &LimitSeen) -> Option<&'a BudgetId> {
    let limits = asked.target.provider.limits_of(asked.model());
    let mut named =
        limits.flat_map(|limit| &limit.budgets).filter(|b| b.dimension == seen.dimension);
    match (named.next(), named.next()) {
        (Some(budget), None) => Some(&budget.id),
        _ => None,
    }
}

/// Reads the beginning of an error's body.
async fn read_prefix(answer: &mut Answer) {
    let reading = async {
        let mut bytes = 0;
        while bytes < ERROR_PREFIX_BYTES && !answer.body.is_end_stream() {
            let Some(Ok(frame)) = answer.body.frame().await else { return };
            if let Ok(data) = frame.into_data() {
                bytes += data.len();
                answer.prefix.push(data);
            }
        }
    };
    // What did not come in time is forwarded when it comes.
    let _ = timeout(ERROR_PREFIX_TIMEOUT, reading).await;
}

/// Headers as plain strings; one that is not text tells nothing.
pub(crate) fn plain(headers: &HeaderMap) -> Headers<'_> {
    headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect()
}

fn failed(span: &Span, refusal: Refusal) -> Refusal {
    spans::attempt_failed(span, refusal.name());
    refusal
}

/// What went wrong, in the words of the error and of what caused it.
fn broken(error: &dyn std::error::Error) -> Refusal {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        reason.push_str(": ");
        reason.push_str(&error.to_string());
        cause = error.source();
    }
    Refusal::UpstreamFailed { reason }
}
