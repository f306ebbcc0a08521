//! Why a provider refuses a call with 429. Words and headers are made of it by the emulator.

use std::sync::Arc;
use std::time::Duration;

use quota::dimension::Dimension;

/// The first figure, in the provider's order, that a call does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The name of the limit.
    pub limit_name: Arc<str>,
    /// What is counted.
    pub dimension: Dimension,
    /// The figure, in whole units.
    pub limit: u64,
    /// What is used of it, rounded to a whole unit as providers show it.
    pub used: u64,
    /// What the call asks for, in whole units.
    pub requested: u64,
    /// True if the call can never fit, however long it waits.
    pub too_large: bool,
    /// When it would fit if nobody else came; `None` if that is not known (slots) or never.
    pub wait: Option<Duration>,
}
