//! Reads a response as it passes through the sidecar: forwards its bytes as they came and learns from
//! them what the call used.
//!
//! Nothing is held back, with one exception: where we asked a stream for usage and the application
//! did not, the bytes of an event that is not complete wait until it is known whether it is the one
//! to be left out. Memory is bounded per event and per body (`sse`, `sieve`).

use bytes::Bytes;
use quota::units::Tokens;

use crate::call::Call;
use crate::estimator::{BYTES_PER_TOKEN, Estimate};
use crate::failure::Failure;
use crate::headers::Headers;
use crate::seen::{Reader, Seen, Standing};
use crate::sieve::Sieve;
use crate::sse::Scanner;
use crate::usage::Usage;

/// The beginning of a response.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// Its status.
    pub status: u16,
    /// Its headers; `content-type` and `content-encoding` are looked at.
    pub headers: &'a Headers<'a>,
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All of it came.
    Complete,
    /// The provider broke off, or the client went away.
    Cut,
}

/// What a call used, as far as the response told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metered {
    /// What it used.
    pub usage: Usage,
    /// True if the provider said so; else it is estimated (`providers.md` 11, settle rules).
    pub exact: bool,
    /// An error that came in the stream after status 200.
    pub error: Option<Failure>,
    /// Events of a stream that held output.
    pub deltas: u64,
}

/// One response on its way. Dropping it loses nothing but the figures.
#[derive(Debug)]
pub struct Meter {
    body: Body,
    reader: Reader,
    seen: Seen,
    /// What is charged where the response does not say.
    fallback: Usage,
    has_output: bool,
}

/// The bytes to forward, in order.
#[derive(Debug, Default)]
pub struct Forward {
    first: Option<Bytes>,
    rest: std::vec::IntoIter<Bytes>,
}

#[derive(Debug)]
enum Body {
    /// No usage is in it, or none that can be read; `true` if none was expected.
    Opaque(bool),
    Json(Sieve),
    Events(Scanner),
    /// Events, of which one that tells only usage is left out.
    Stripped(Stripper),
}

/// Leaves an event out.
#[derive(Debug, Default)]
struct Stripper {
    scanner: Scanner,
    /// The bytes of an event that is not complete.
    held: Vec<Bytes>,
    /// The last complete event was left out.
    has_dropped: bool,
}

// === impl Meter ===

impl Meter {
    /// A meter for the response to `call`. `strip` leaves out an event that tells only usage.
    pub(crate) fn new(
        call: &Call,
        estimate: Estimate,
        head: ResponseHead<'_>,
        reader: Reader,
        strip: bool,
    ) -> Meter {
        let has_usage = call.operation.runs_a_model() && head.status < 400;
        let fallback = if has_usage { Usage::estimated(estimate) } else { Usage::request() };
        let body = if has_usage { Body::of(call, head, strip) } else { Body::Opaque(true) };
        Meter { body, reader, seen: Seen::default(), fallback, has_output: false }
    }

    /// Takes the next bytes of the response and gives out what is to be forwarded now.
    pub fn push(&mut self, chunk: Bytes) -> Forward {
        let forward = match &mut self.body {
            Body::Opaque(_) => {
                self.has_output = true;
                Forward::from(chunk)
            }
            Body::Json(sieve) => {
                self.has_output = true;
                sieve.push(&chunk);
                Forward::from(chunk)
            }
            Body::Events(scanner) => {
                let mut at = 0;
                while let Some(end) = scanner.next_event(&chunk, at) {
                    read(self.reader, scanner, &mut self.seen);
                    at = end;
                }
                Forward::from(chunk)
            }
            Body::Stripped(stripper) => stripper.push(&chunk, self.reader, &mut self.seen),
        };
        self.has_output |= self.seen.deltas > 0;
        forward
    }

    /// Gives out what was held back. To be called when the provider has sent all, before `finish`.
    pub fn flush(&mut self) -> Forward {
        match &mut self.body {
            Body::Opaque(_) | Body::Json(_) => Forward::default(),
            Body::Events(scanner) => {
                scanner.end();
                read(self.reader, scanner, &mut self.seen);
                Forward::default()
            }
            Body::Stripped(stripper) => {
                stripper.scanner.end();
                let leave_out = read(self.reader, &stripper.scanner, &mut self.seen);
                let held = std::mem::take(&mut stripper.held);
                if leave_out { Forward::default() } else { Forward::from(held) }
            }
        }
    }

    /// True once the model has produced something that the client sees: the first token of a stream,
    /// the first byte of anything else.
    pub fn has_output(&self) -> bool {
        self.has_output
    }

    /// The sum.
    pub fn finish(self, end: End) -> Metered {
        let Meter { body, reader, seen, fallback, .. } = self;
        let (error, deltas) = (seen.error, seen.deltas);
        let (usage, exact) = match body {
            Body::Opaque(is_expected) => (fallback, is_expected),
            Body::Json(sieve) => {
                (reader.usage)(&sieve.finish()).map_or((fallback, false), |usage| (usage, true))
            }
            Body::Events(_) | Body::Stripped(_) => seen.sum(fallback, end),
        };
        Metered { usage, exact, error, deltas }
    }
}

/// Reads the event that is complete. True if it tells only usage.
fn read(reader: Reader, scanner: &Scanner, seen: &mut Seen) -> bool {
    seen.is_usage_only = false;
    if let Some(data) = scanner.data() {
        (reader.event)(data, seen);
    }
    seen.is_usage_only
}

// === impl Seen ===

impl Seen {
    /// What a stream used, and whether that is exact: the provider's word, or else the bytes seen,
    /// of which each event held one token at least.
    fn sum(&self, fallback: Usage, end: End) -> (Usage, bool) {
        let produced = Tokens(self.output_bytes.div_ceil(BYTES_PER_TOKEN).max(self.deltas));
        let with_output = |usage: Usage| {
            let visible = produced - usage.output_reasoning;
            Usage { output_visible: usage.output_visible.max(visible), ..usage }
        };
        match (self.usage, self.standing) {
            (Some(usage), Standing::Final) => (usage, true),
            (Some(usage), Standing::Running) if end == End::Complete => (usage, true),
            (Some(usage), Standing::Running | Standing::Opening) => (with_output(usage), false),
            (None, _) => (Usage { output_visible: produced, ..fallback }, false),
        }
    }
}

// === impl Body ===

impl Body {
    fn of(call: &Call, head: ResponseHead<'_>, strip: bool) -> Body {
        let encoding = head.headers.get("content-encoding").unwrap_or("identity");
        if !encoding.eq_ignore_ascii_case("identity") {
            return Body::Opaque(false);
        }
        // A server that names no type is taken to answer as it was asked.
        let default = if call.stream { "text/event-stream" } else { "application/json" };
        let media = head.headers.get("content-type").unwrap_or(default).to_ascii_lowercase();
        if media.starts_with("text/event-stream") {
            if strip {
                Body::Stripped(Stripper::default())
            } else {
                Body::Events(Scanner::default())
            }
        } else if media.contains("json") {
            Body::Json(Sieve::new(&["usage"]))
        } else {
            Body::Opaque(false)
        }
    }
}

// === impl Stripper ===

impl Stripper {
    fn push(&mut self, chunk: &Bytes, reader: Reader, seen: &mut Seen) -> Forward {
        let mut out = Vec::new();
        // Bytes before `kept` are left out or given out, those before `at` are decided.
        let mut kept = 0;
        let mut at = 0;
        if self.scanner.closes_previous(chunk) {
            at = 1;
            kept = usize::from(self.has_dropped);
        }
        let mut from = 0;
        while let Some(end) = self.scanner.next_event(chunk, from) {
            self.has_dropped = read(reader, &self.scanner, seen);
            if self.has_dropped {
                self.held.clear();
                put(&mut out, chunk.slice(kept..at));
                kept = end;
            } else {
                out.append(&mut self.held);
            }
            at = end;
            from = end;
        }
        if self.scanner.is_oversize() {
            // It cannot be the event that is left out, so it need not wait.
            out.append(&mut self.held);
            at = chunk.len();
        }
        put(&mut out, chunk.slice(kept..at));
        if at < chunk.len() {
            self.held.push(chunk.slice(at..));
        }
        Forward::from(out)
    }
}

fn put(out: &mut Vec<Bytes>, bytes: Bytes) {
    if !bytes.is_empty() {
        out.push(bytes);
    }
}

// === impl Forward ===

impl From<Bytes> for Forward {
    fn from(chunk: Bytes) -> Forward {
        Forward { first: Some(chunk).filter(|chunk| !chunk.is_empty()), ..Forward::default() }
    }
}

impl From<Vec<Bytes>> for Forward {
    fn from(chunks: Vec<Bytes>) -> Forward {
        Forward { first: None, rest: chunks.into_iter() }
    }
}

impl Iterator for Forward {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.first.take().or_else(|| self.rest.next())
    }
}

#[cfg(test)]
mod tests;
