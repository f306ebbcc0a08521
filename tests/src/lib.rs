//! What the tests of several programs at once are written with: allocator and sidecars as processes,
//! an emulated provider in the test's own runtime, plain HTTP clients, and the official SDKs.
//!
//! Only `tests/tests.rs` calls it. Everything panics with what went wrong, and a process that is
//! dropped by a panic shows the end of its log. No crate's inside is looked at: only flags, files,
//! sockets and admin pages, as a user has them.

pub mod allocator;
pub mod answer;
pub mod client;
pub mod load;
pub mod metrics;
pub mod policy;
pub mod port;
pub mod process;
pub mod program;
pub mod provider;
pub mod sdk;
pub mod sidecar;
pub mod wait;
pub mod world;
