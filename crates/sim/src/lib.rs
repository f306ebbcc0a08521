//! The model check of the lease protocol, and the simulator.

pub mod model;
pub mod world;
