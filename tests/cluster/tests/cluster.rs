//! The tests on a real cluster, one file per subject.

mod changes;
mod ends;
mod identity;
mod load;
mod manifests;
mod outage;
mod person;
mod resources;
mod upgrade;
