//! What each provider's API says: bytes in, facts out.
//!
//! The sidecar asks an [`Adapter`] what a request is, what it will be charged, what its response
//! says about usage, limits and errors, and how to refuse it so that the caller's SDK behaves. The
//! emulator and the simulator run [`enforce`], the model of how a provider enforces its limits.
//!
//! Nothing here does I/O, reads a clock or logs, and nothing keeps a prompt or a completion: what is
//! read of a body is counted and forgotten.
//!
//! A further provider is one file that implements [`Adapter`] and one line in [`adapter()`].

pub mod adapter;
pub mod auth;
pub mod call;
pub mod duration;
pub mod enforce;
pub mod estimator;
pub mod failure;
pub mod headers;
pub mod hint;
pub mod limit_seen;
pub mod meter;
pub mod operation;
pub mod refusal;
pub mod splice;
pub mod told;
pub mod usage;

mod anthropic;
mod error_text;
mod json;
mod openai;
mod seen;
mod sieve;
mod sse;
mod text;

use quota::dimension::Protocol;

pub use crate::adapter::Adapter;

/// The adapter of a protocol: the one table.
pub fn adapter(protocol: Protocol) -> &'static dyn Adapter {
    match protocol {
        Protocol::OpenAi | Protocol::OpenAiCompatible => &openai::OpenAi,
        Protocol::Anthropic => &anthropic::Anthropic,
    }
}
