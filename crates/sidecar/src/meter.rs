//! The body of every answer. A provider's is passed on as it comes, read by the adapter's meter on
//! the way, and settled when it ends or is dropped.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, response};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use providers::meter::{End, Forward, Meter, ResponseHead};
use providers::refusal::Refusal;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tracing::Span;

use crate::gate::Hold;
use crate::proxy::Proxy;
use crate::record::Record;
use crate::route::Asked;
use crate::spans;
use crate::upstream::pool::Connection;
use crate::upstream::{Answer, plain};

/// The body of an answer: our own, or a provider's on its way.
pub(crate) enum Body {
    Own(Option<Bytes>),
    Metered(Box<Metered>),
}

/// A provider's body on its way to the client.
pub(crate) struct Metered {
    forward: Forward,
    /// Gone when it is settled.
    exchange: Option<Box<Exchange>>,
    /// Fails a body that has been silent for [`SILENCE`].
    silence: Pin<Box<Sleep>>,
    last_byte: Instant,
}

/// A body that the provider did not end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the provider broke off")]
    Upstream(#[from] hyper::Error),
    #[error("the provider sent nothing for {SILENCE:?}")]
    Silent,
}

/// What is settled at the end.
struct Exchange {
    proxy: Arc<Proxy>,
    upstream: Incoming,
    asked: Asked,
    meter: Meter,
    hold: Hold,
    record: Record,
    span: Span,
    /// Goes back to the pool with the end of the body.
    connection: Connection,
}

/// Between two chunks. OpenAI's flex tier may take 15 minutes before the first
/// (`providers.md` 2.1).
const SILENCE: Duration = Duration::from_secs(900);
/// A client that leaves in the middle leaves a call that the provider goes on charging; for so long,
/// and so many bytes, the rest is read to learn what it used. Then the provider is cut off, which
/// ends the charge.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const DRAIN_BYTES: usize = 256 * 1024;

/// The answer of a provider, metered.
pub(crate) fn forward(answer: Answer, record: Record, proxy: Arc<Proxy>) -> Response<Body> {
    let Answer { head, asked, hold, prefix, body, connection, span } = answer;
    let mut head = head;
    let mut meter = {
        let headers = plain(&head.headers);
        let start = ResponseHead { status: head.status.as_u16(), headers: &headers };
        asked.target.adapter.meter(&asked.call, asked.estimate, start)
    };
    adjust(&mut head, &asked);
    let early: Vec<Bytes> = prefix.into_iter().flat_map(|bytes| meter.push(bytes)).collect();
    let exchange = Exchange { proxy, upstream: body, asked, meter, hold, record, span, connection };
    let now = Instant::now();
    let metered = Metered {
        forward: Forward::from(early),
        exchange: Some(Box::new(exchange)),
        silence: Box::pin(sleep_until(now + SILENCE)),
        last_byte: now,
    };
    Response::from_parts(head, Body::Metered(Box::new(metered)))
}

/// Our own answer instead of a provider's.
pub(crate) fn refuse(refusal: Refusal, mut record: Record) -> Response<Body> {
    let answer = match record.adapter {
        Some(adapter) => adapter.refuse(&refusal),
        None => refusal.neutral(),
    };
    record.refused = Some(refusal);
    let mut response = Response::new(Body::Own(Some(Bytes::from(answer.body))));
    *response.status_mut() =
        http::StatusCode::from_u16(answer.status).expect("refusals have statuses of HTTP");
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    if let Some(reason) = record.reason() {
        response.headers_mut().insert(crate::headers::REASON, HeaderValue::from_static(reason));
    }
    response
}

/// A stream may lose an event on its way, so that its length is not known.
fn adjust(head: &mut response::Parts, asked: &Asked) {
    if asked.call.stream {
        head.headers.remove(header::CONTENT_LENGTH);
    }
}

// === impl Body ===

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Body::Own(body) => Poll::Ready(body.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Metered(metered) => metered.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        // A metered body that has ended must still be dropped by its reader, which settles it.
        matches!(self, Body::Own(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Own(body) => SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
            Body::Metered(_) => SizeHint::default(),
        }
    }
}

// === impl Metered ===

impl Metered {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            if let Some(bytes) = self.forward.next() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            let Some(exchange) = &mut self.exchange else { return Poll::Ready(None) };
            let frame = match Pin::new(&mut exchange.upstream).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    ready!(self.poll_silence(cx));
                    self.finish(End::Cut);
                    return Poll::Ready(Some(Err(Error::Silent)));
                }
            };
            self.last_byte = Instant::now();
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => self.push(bytes),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => {
                    self.finish(End::Cut);
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => self.end(),
            }
        }
    }

    fn push(&mut self, bytes: Bytes) {
        let Some(exchange) = &mut self.exchange else { return };
        self.forward = exchange.push(bytes);
        // A server that knows the length stops here and never asks for the end.
        if exchange.upstream.is_end_stream() {
            self.end();
        }
    }

    /// The provider has sent all.
    fn end(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            let rest = exchange.meter.flush();
            let waiting: Vec<Bytes> = std::mem::take(&mut self.forward).chain(rest).collect();
            self.forward = Forward::from(waiting);
        }
        self.finish(End::Complete);
    }

    /// Settles in a task of its own, which runs when this one has written what it has: the client
    /// does not wait for our accounts.
    fn finish(&mut self, end: End) {
        if let Some(exchange) = self.exchange.take() {
            let tasks = exchange.proxy.tasks.clone();
            tasks.spawn(async move { exchange.finish(end) });
        }
    }

    /// Ready when nothing came for [`SILENCE`]. The timer is set again only when it fires.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.silence.as_mut().poll(cx));
            let deadline = self.last_byte + SILENCE;
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            self.silence.as_mut().reset(deadline);
        }
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        if self.exchange.as_ref().is_some_and(|exchange| exchange.upstream.is_end_stream()) {
            return self.finish(End::Complete);
        }
        let Some(mut exchange) = self.exchange.take() else { return };
        exchange.record.left = true;
        let tasks = exchange.proxy.tasks.clone();
        tasks.spawn(exchange.drain());
    }
}

// === impl Exchange ===

impl Exchange {
    fn push(&mut self, bytes: Bytes) -> Forward {
        let forward = self.meter.push(bytes);
        if self.meter.has_output() && self.record.produced() {
            spans::first_output(&self.span);
        }
        forward
    }

    /// Reads the rest of an answer whose client has gone.
    async fn drain(mut self: Box<Self>) {
        let hurry = self.proxy.hurry.clone();
        let reading = async {
            let mut left = DRAIN_BYTES;
            while left > 0 {
                match self.upstream.frame().await {
                    Some(Ok(frame)) => {
                        let Ok(bytes) = frame.into_data() else { continue };
                        left = left.saturating_sub(bytes.len());
                        drop(self.push(bytes));
                    }
                    Some(Err(_)) => return End::Cut,
                    None => {
                        drop(self.meter.flush());
                        return End::Complete;
                    }
                }
            }
            End::Cut
        };
        let reading = timeout(DRAIN_TIMEOUT, hurry.run_until_cancelled(reading));
        let end = reading.await.ok().flatten().unwrap_or(End::Cut);
        self.finish(end);
    }

    fn finish(self, end: End) {
        let Exchange { proxy, upstream, asked, meter, hold, mut record, span, connection } = self;
        // Before the settlement, which may let the next request go: it finds a free connection.
        drop((upstream, connection));
        let metered = meter.finish(end);
        record.cut = end == End::Cut;
        hold.settle(&asked.charged(&metered.usage));
        if metered.exact {
            proxy.learn(&asked, &metered.usage);
        }
        record.metered = Some(metered);
        spans::finish_attempt(&span, &record, &metered);
    }
}
