//! What the tests on a real cluster are written with: `kubectl`, as a person has it, and a hand on the
//! parts of a cluster that is ours.
//!
//! Only `tests/cluster.rs` calls it, and `cargo xtask cluster test` runs that. Everything panics with
//! what went wrong. Subjects share one cluster, so each works in namespaces of its own.

pub mod application;
pub mod bad_input;
pub mod course;
pub mod kubectl;
pub mod namespace;
pub mod part;
pub mod process;
pub mod provider;
pub mod token;
pub mod wait;
pub mod weir;
