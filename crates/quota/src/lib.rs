//! Decisions, pure: units, budgets, leases, shares, the fair queue, the ledger.
//!
//! Nothing here reads a clock, draws a random number, does I/O, waits or logs. Time and randomness
//! are arguments, so that the sidecar, the allocator, the simulator and the model check run the very
//! same code.

pub mod accounts;
pub mod bucket;
pub mod budget;
pub mod charge;
pub mod dimension;
pub mod glob;
pub mod holder;
pub mod lease;
pub mod ledger;
pub mod message;
pub mod policy;
pub mod queue;
pub mod shares;
pub mod time;
pub mod timing;
pub mod units;
