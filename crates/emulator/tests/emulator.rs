//! The emulator over real sockets: limits, headers, errors, bodies, streams, faults, the truth.
//!
//! Where a level matters the limits run by a manual clock, so that every figure is exact.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panic, as tests do")]

#[path = "emulator/rig.rs"]
mod rig;

#[path = "emulator/control.rs"]
mod control;
#[path = "emulator/faults.rs"]
mod faults;
#[path = "emulator/limits.rs"]
mod limits;
#[path = "emulator/requests.rs"]
mod requests;
#[path = "emulator/streams.rs"]
mod streams;
