//! Pieces of an answer's body, each with the step at which it is due, and what faults do to them.

use bytes::Bytes;

/// A piece of a body.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// When it is due, in steps of the answer's pace.
    pub(crate) step: u64,
    /// Tokens that it carries.
    pub(crate) tokens: u64,
    /// What it is.
    pub(crate) content: Content,
}

/// What a piece is.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Bytes.
    Bytes(Bytes),
    /// The connection is cut.
    Cut,
}

/// A body.
pub(crate) type Frames = Box<dyn Iterator<Item = Frame> + Send>;

// === impl Frame ===

impl Frame {
    /// Bytes that are due at `step`.
    pub(crate) fn new(step: u64, tokens: u64, bytes: impl Into<Bytes>) -> Frame {
        Frame { step, tokens, content: Content::Bytes(bytes.into()) }
    }
}

/// The same body, ended after so many tokens by what is given.
pub(crate) fn ended_after(frames: Frames, tokens: u64, end: Content) -> Frames {
    let (mut sent, mut last_step, mut ended) = (0, 0, false);
    let mut frames = frames;
    Box::new(std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let next = if sent < tokens { frames.next() } else { None };
        if let Some(frame) = next {
            sent += frame.tokens;
            last_step = frame.step;
            return Some(frame);
        }
        ended = true;
        Some(Frame { step: last_step, tokens: 0, content: end.clone() })
    }))
}
