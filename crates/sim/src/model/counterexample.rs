//! A list of steps that ends in a violation: told in words, written to a file, read back, replayed.

use std::fmt;
use std::str::FromStr;

use super::action::{Action, Unreadable};
use super::mutation::Mutation;
use super::protocol::Protocol;
use super::size::Size;

/// A list of steps that ends in a violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counterexample {
    /// The world it happens in.
    pub size: Size,
    /// The rule that was taken away, if any.
    pub lie: Option<Mutation>,
    /// What is wrong in the end.
    pub violation: String,
    /// What leads to it.
    pub steps: Vec<Action>,
}

/// Between a step and its words.
const WORDS: &str = " | ";

impl Counterexample {
    /// What is wrong after some of the steps when they are taken with this lie or none; `None` if
    /// nothing is. Steps that cannot happen are left out.
    pub fn replay(size: &Size, lie: Option<Mutation>, steps: &[Action]) -> Option<String> {
        let protocol = Protocol::new(size.clone(), lie);
        let mut state = protocol.start();
        for step in steps {
            let Some(next) = protocol.apply(&state, *step) else { continue };
            if let Some(violation) = protocol.violation(&state, &next) {
                return Some(violation);
            }
            state = next;
        }
        None
    }

    /// The steps of a file that [`Counterexample`]'s `Display` wrote.
    pub fn read_steps(text: &str) -> Result<Vec<Action>, Unreadable> {
        let steps = text.lines().filter_map(|line| line.split_once(WORDS));
        steps.map(|(step, _)| Action::from_str(step.trim())).collect()
    }
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lie {
            Some(lie) => writeln!(f, "Without {}, {}.", lie.name(), lie.words())?,
            None => writeln!(f, "With all rules.")?,
        }
        let Size { name, lease_ticks, floor_ticks, zombie_ticks, .. } = self.size;
        write!(f, "World: {name}; a budget of 2, leases of {lease_ticks} s")?;
        if floor_ticks > 0 {
            write!(f, ", floors of {floor_ticks} s")?;
        }
        writeln!(f, "; a leader given up for lost goes on for {zombie_ticks} s.")?;
        writeln!(f, "After {} steps: {}.\n", self.steps.len(), self.violation)?;
        let protocol = Protocol::new(self.size.clone(), self.lie);
        let mut state = protocol.start();
        for step in &self.steps {
            if let Some(next) = protocol.apply(&state, *step) {
                state = next;
            }
            let (step, words) = (step.to_string(), step.words());
            writeln!(f, "{step:<18}{WORDS}{words} [{}]", protocol.believed(&state))?;
        }
        Ok(())
    }
}
