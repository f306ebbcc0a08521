//! The tests on a real cluster, one file per subject.

mod resources;
