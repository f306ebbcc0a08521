//! The model check: every state that two pods, a leader and its successor can reach in a small world,
//! by the very code that runs in production (`quota::lease`, `quota::accounts`).
//!
//! In every state the rates that pods believe valid, each by its own clock, must add up to no more
//! than the budget. Messages may be lost, late, out of order and doubled; containers restart, pods
//! end and join, a clock errs, the budget is cut, and the leader dies in view or goes on after it was
//! given up for lost. Called by the binary `sim` and by tests. Not here: levels, credit and queues,
//! which the simulator checks ([`crate::world`]).

pub mod action;
pub mod counterexample;
pub mod mutation;
pub mod search;
pub mod size;

mod protocol;
mod state;

#[cfg(test)]
mod tests;

use self::counterexample::Counterexample;
use self::mutation::Mutation;
use self::protocol::Protocol;
use self::search::{Order, Outcome};
use self::size::Size;

/// Explores a world to its end with all rules in force. `progress` is told now and then how far it
/// is. If something is wrong, the shortest way to it is looked for.
pub fn check(size: &Size, progress: &mut dyn FnMut(&Outcome)) -> (Outcome, Option<Counterexample>) {
    let protocol = Protocol::new(size.clone(), None);
    let outcome = search::explore(&protocol, Order::DepthFirst, progress);
    let found = outcome.violation.is_some().then(|| shortest(size, None, progress));
    (outcome, found.flatten())
}

/// The shortest way to a violation, with all rules or with one taken away.
pub fn shortest(
    size: &Size,
    lie: Option<Mutation>,
    progress: &mut dyn FnMut(&Outcome),
) -> Option<Counterexample> {
    let protocol = Protocol::new(size.clone(), lie);
    let outcome = search::explore(&protocol, Order::BreadthFirst, progress);
    let (violation, steps) = outcome.violation?;
    Some(Counterexample { size: size.clone(), lie, violation, steps })
}
