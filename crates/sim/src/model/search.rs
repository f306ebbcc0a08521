//! The search of all states: depth first to see them all with little memory, breadth first where the
//! first violation found is to be one of the shortest.

use std::collections::{HashSet, VecDeque};

use super::action::Action;
use super::protocol::Protocol;
use super::state::State;

/// Which of the states that wait is explored next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The newest: few wait at any time.
    DepthFirst,
    /// The oldest: the shortest way to every state is found.
    BreadthFirst,
}

/// What a search has seen so far, or in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Different states.
    pub states: usize,
    /// Steps tried.
    pub steps: usize,
    /// The most steps to a state on the way it was found.
    pub depth: usize,
    /// States that are still to be explored.
    pub waiting: usize,
    /// What went wrong, and the steps to it.
    pub violation: Option<(String, Vec<Action>)>,
}

/// A state that waits: its place among the origins, and its distance from the start.
struct Waiting {
    index: u32,
    depth: usize,
    state: State,
}

/// Steps between two calls of `progress`: about twice a second.
const PROGRESS_STEPS: usize = 1 << 18;

/// Explores everything that can be reached, or stops at the first violation.
pub(super) fn explore(
    protocol: &Protocol,
    order: Order,
    progress: &mut dyn FnMut(&Outcome),
) -> Outcome {
    let start = protocol.start();
    // 64 bits stand for a state. With ten million states, two of them share theirs with a chance of
    // three in a million.
    let mut seen = HashSet::with_hasher(foldhash::fast::FixedState::default());
    seen.insert(start.fingerprint());
    // How each state was reached: from which, by what.
    let mut origins: Vec<(u32, Action)> = vec![(0, Action::Tick { advance: 1 })];
    let mut waiting = VecDeque::from([Waiting { index: 0, depth: 0, state: start }]);
    let mut outcome = Outcome { states: 1, steps: 0, depth: 0, waiting: 1, violation: None };
    while let Some(from) = order.next(&mut waiting) {
        outcome.waiting = waiting.len();
        for action in protocol.actions(&from.state) {
            outcome.steps += 1;
            if outcome.steps.is_multiple_of(PROGRESS_STEPS) {
                progress(&outcome);
            }
            let Some(state) = protocol.apply(&from.state, action) else { continue };
            if !seen.insert(state.fingerprint()) {
                continue;
            }
            let index = u32::try_from(origins.len()).expect("memory ends before four billion");
            let depth = from.depth + 1;
            origins.push((from.index, action));
            outcome.states = origins.len();
            outcome.depth = outcome.depth.max(depth);
            if let Some(violation) = protocol.violation(&from.state, &state) {
                outcome.violation = Some((violation, path(&origins, index)));
                return outcome;
            }
            waiting.push_back(Waiting { index, depth, state });
        }
    }
    outcome
}

impl Order {
    fn next(self, waiting: &mut VecDeque<Waiting>) -> Option<Waiting> {
        match self {
            Order::DepthFirst => waiting.pop_back(),
            Order::BreadthFirst => waiting.pop_front(),
        }
    }
}

fn path(origins: &[(u32, Action)], to: u32) -> Vec<Action> {
    let mut steps = Vec::new();
    let mut index = to;
    while index != 0 {
        let (from, action) = origins[index as usize];
        steps.push(action);
        index = from;
    }
    steps.reverse();
    steps
}
