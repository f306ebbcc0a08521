//! What `sim` can be asked for: one file for each command.

pub(crate) mod meta;
pub(crate) mod model;
pub(crate) mod mutations;
pub(crate) mod scenario;
pub(crate) mod worlds;
