//! The body of an answer: whole, or in pieces at their pace. It holds the call that it answers, so
//! that a client who goes away settles it at what was produced until then.

use std::fmt;
use std::iter::Peekable;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::SizeHint;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::frame::{Content, Frame, Frames};
use crate::reply::Pace;
use crate::truth::{InFlight, Outcome};

/// The body of an answer.
pub(crate) enum Body {
    /// Sent at once; the call is settled already.
    Whole(Option<Bytes>),
    /// A prepared stream: its first event, and the rest a moment later.
    Prepared(Prepared),
    /// Sent in pieces.
    Paced(Box<Paced>),
}

/// A prepared stream.
pub(crate) struct Prepared {
    first: Option<Bytes>,
    timer: Option<Pin<Box<Sleep>>>,
    rest: Option<Bytes>,
}

/// A body in pieces.
pub(crate) struct Paced {
    frames: Peekable<Frames>,
    pace: Pace,
    started: Instant,
    timer: Pin<Box<Sleep>>,
    drip: Option<Drip>,
    /// What is left of a piece that drips.
    rest: Bytes,
    /// What the header promised, for a body that is not a stream.
    length: Option<u64>,
    /// Set when what is left is a cut.
    cutting: bool,
    call: Option<InFlight>,
}

/// So many bytes at a time, with a pause before each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drip {
    pub(crate) bytes: usize,
    pub(crate) pause: Duration,
}

/// A cut on purpose.
#[derive(Debug)]
pub(crate) struct Cut;

/// What came before a cut must reach the client first: hyper throws away what it has not yet written
/// when a body fails, and writes it when a body is not ready.
const FLUSH: Duration = Duration::from_millis(10);

/// What lies between the first event of a prepared stream and the others: models take time, so that
/// nobody who reads a real stream finds all of it at once. The least that timers can tell apart.
const PREPARED_PAUSE: Duration = Duration::from_millis(1);

// === impl Body ===

impl Body {
    /// A body that is sent at once.
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
        Body::Whole(Some(bytes.into()))
    }

    /// A stream that is sent in two pieces.
    pub(crate) fn prepared(first: Bytes, rest: Bytes) -> Body {
        Body::Prepared(Prepared { first: Some(first), timer: None, rest: Some(rest) })
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Cut>>> {
        let next = match &mut *self {
            Body::Whole(bytes) => bytes.take().map(Ok),
            Body::Prepared(prepared) => ready!(prepared.poll_next(context)).map(Ok),
            Body::Paced(paced) => ready!(paced.poll_next(context)),
        };
        Poll::Ready(next.map(|bytes| bytes.map(hyper::body::Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        let length = match self {
            Body::Whole(bytes) => Some(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Prepared(prepared) => Some(prepared.left()),
            Body::Paced(paced) => paced.length,
        };
        length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

// === impl Prepared ===

impl Prepared {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(first) = self.first.take() {
            self.timer = Some(Box::pin(sleep(PREPARED_PAUSE)));
            return Poll::Ready(Some(first));
        }
        if let Some(timer) = &mut self.timer {
            ready!(timer.as_mut().poll(context));
            self.timer = None;
        }
        Poll::Ready(self.rest.take())
    }

    fn left(&self) -> u64 {
        [&self.first, &self.rest].into_iter().flatten().map(|bytes| bytes.len() as u64).sum()
    }
}

// === impl Paced ===

impl Paced {
    /// A body of `frames` that answers `call`, whose pace began at `started`.
    pub(crate) fn new(frames: Frames, pace: Pace, started: Instant, call: InFlight) -> Paced {
        Paced {
            frames: frames.peekable(),
            pace,
            started,
            timer: Box::pin(sleep_until(started)),
            drip: None,
            rest: Bytes::new(),
            length: None,
            cutting: false,
            call: Some(call),
        }
    }

    /// Lets it drip.
    pub(crate) fn dripping(mut self, drip: Option<Drip>) -> Paced {
        self.drip = drip;
        self
    }

    /// Promises a length, whether it is kept or not.
    pub(crate) fn with_length(mut self, length: u64) -> Paced {
        self.length = Some(length);
        self
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        loop {
            if self.cutting {
                ready!(self.timer.as_mut().poll(context));
                self.end(Outcome::Cut);
                return Poll::Ready(Some(Err(Cut)));
            }
            if let (Some(drip), false) = (self.drip, self.rest.is_empty()) {
                ready!(self.timer.as_mut().poll(context));
                let drop = self.rest.split_to(drip.bytes.min(self.rest.len()));
                self.timer.as_mut().reset(Instant::now() + drip.pause);
                self.settle_at_the_end();
                return Poll::Ready(Some(Ok(drop)));
            }
            let Some(frame) = self.frames.peek() else { return Poll::Ready(None) };
            let due = self.started + self.pace.at(frame.step);
            if due > Instant::now() {
                if self.timer.deadline() != due {
                    self.timer.as_mut().reset(due);
                }
                ready!(self.timer.as_mut().poll(context));
            }
            let Some(Frame { tokens, content, .. }) = self.frames.next() else { continue };
            let Content::Bytes(bytes) = content else {
                self.cutting = true;
                self.timer.as_mut().reset(Instant::now() + FLUSH);
                continue;
            };
            if let Some(call) = &mut self.call {
                call.produce(tokens);
            }
            let Some(drip) = self.drip else {
                self.settle_at_the_end();
                return Poll::Ready(Some(Ok(bytes)));
            };
            self.rest = bytes;
            self.timer.as_mut().reset(Instant::now() + drip.pause);
        }
    }

    /// Settles before the last bytes leave: hyper does not look again at a body whose promised length
    /// is reached, and a client that has seen the end must find it in the books.
    fn settle_at_the_end(&mut self) {
        if self.rest.is_empty() && self.frames.peek().is_none() {
            self.end(Outcome::Answered);
        }
    }

    fn end(&mut self, outcome: Outcome) {
        if let Some(call) = self.call.take() {
            call.finish(outcome);
        }
    }
}

// === impl Cut ===

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut on purpose")
    }
}

impl std::error::Error for Cut {}
