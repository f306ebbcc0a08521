//! The allocator as a process, from outside: sidecars that speak the wire, files, signals, two of it on
//! one state directory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;
mod page;
mod policy;
mod session;
mod takeover;
