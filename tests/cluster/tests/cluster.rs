//! The tests on a real cluster, one file per subject.

mod identity;
mod load;
mod manifests;
mod person;
mod resources;
mod upgrade;
