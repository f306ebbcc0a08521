//! A provider that behaves like the real ones: OpenAI and Anthropic on one listener, with limits that
//! are enforced, exact headers, errors, bodies and streams, faults on demand, and a truth ledger.
//!
//! `weir emulator` serves it for people, `weir demo` and the tests for themselves. The limits are
//! `providers::enforce`, which the simulator runs too. Nothing here knows of leases or sidecars.

pub mod args;
pub mod config;
pub mod control;
pub mod error;
pub mod fault;
pub mod server;
pub mod state;

mod anthropic;
mod ask;
mod body;
mod clock;
mod exchange;
mod frame;
mod journal;
mod openai;
mod prepared;
mod refusal;
mod reply;
mod skin;
mod truth;
mod words;

pub use crate::args::{Args, run};
pub use crate::config::Config;
pub use crate::error::Error;
pub use crate::server::serve;
