//! The sidecar from outside: a real one in this process, between a client, a provider that does what
//! a test says, and an allocator that speaks the wire API.

#![allow(clippy::unwrap_used, reason = "all of this is tests, their helpers too")]

mod allocator;
mod client;
mod provider;
mod rig;

mod admission;
mod bad_input;
mod lifecycle;
mod passing;
mod tracing;
mod upstream_faults;
