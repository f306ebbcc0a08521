//! The process kit of the programs: clock, telemetry, metrics registry, admin listener, readiness,
//! drain, signals, build information.
//!
//! The sidecar, the allocator and the emulator use it. It knows nothing of quotas or providers, and
//! decides nothing. A `main` puts the parts together in this order: telemetry, readiness and admin,
//! the program itself, a signal, drain, flush, exit code.

pub mod admin;
pub mod build;
pub mod clock;
pub mod drain;
pub mod label;
pub mod metrics;
pub mod readiness;
pub mod signals;
pub mod telemetry;
pub mod trace_context;
