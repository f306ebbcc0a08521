//! Several programs at once, as a user has them: what no crate's own tests can see.

mod accounting;
mod chaos;
mod faults;
mod keys;
mod newcomer;
mod priority;
mod sdk;
mod streams;
