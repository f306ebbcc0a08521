//! What became of one call, as its caller saw it.

use std::time::Duration;

/// A call that has ended, in whatever way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) pod: usize,
    pub(crate) class: usize,
    /// When it was made, after the start of the run.
    pub(crate) at: Duration,
    pub(crate) outcome: Outcome,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// The first byte of a good answer came.
    Answered {
        /// When, after the start of the run.
        first_byte: Duration,
        /// The time from the call to the first byte without what the provider worked on it, as its
        /// own header says: waits for a turn, and for retries.
        waited: Duration,
    },
    /// The SDK gave up after its attempts, or the caller after its patience.
    Refused,
    /// The pod was killed.
    Died,
}
