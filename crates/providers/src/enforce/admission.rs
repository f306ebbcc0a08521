//! What a provider charges a call with when it comes in, before its output is known.

use quota::charge::Charge;
use quota::dimension::Protocol;
use quota::units::{Requests, Slots, Tokens};

/// Characters that a provider takes for one token when it estimates a prompt (`providers.md` 2.3).
const CHARS_PER_TOKEN: u64 = 4;

/// A provider's rule of charging at admission (`providers.md` 0.2, 2.3 and 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The larger of the prompt's estimate and the output cap, for each choice (OpenAI's documents).
    Max,
    /// Their sum, for each choice (what some traces of OpenAI show).
    Sum,
    /// The prompt's estimate; output is charged as it is produced (Anthropic).
    InputOnly,
}

// === impl Admission ===

impl Admission {
    /// The rule of a protocol.
    pub const fn of(protocol: Protocol) -> Admission {
        match protocol {
            Protocol::OpenAi | Protocol::OpenAiCompatible => Admission::Max,
            Protocol::Anthropic => Admission::InputOnly,
        }
    }

    /// The charge of a call with `text_bytes` of prompt, an output cap (0 if it has none) and so many
    /// choices. Bytes stand for characters: the same for English.
    pub fn charge(self, text_bytes: u64, output_cap: u64, choices: u64) -> Charge {
        let input = text_bytes.div_ceil(CHARS_PER_TOKEN);
        let choices = choices.max(1);
        let (output, total) = match self {
            Admission::Max => (output_cap, input.max(output_cap)),
            Admission::Sum => (output_cap, input.saturating_add(output_cap)),
            Admission::InputOnly => (0, input),
        };
        Charge {
            requests: Requests(1),
            input: Tokens(input),
            output: Tokens(output.saturating_mul(choices)),
            total: Tokens(total.saturating_mul(choices)),
            slots: Slots(1),
            ..Charge::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_charges_its_own_total() {
        for (rule, bytes, cap, choices, output, total) in [
            (Admission::Max, 400, 512, 1, 512, 512),
            (Admission::Max, 4_001, 512, 1, 512, 1_001),
            (Admission::Max, 13, 0, 2, 0, 8),
            (Admission::Sum, 28, 512, 1, 512, 519),
            (Admission::InputOnly, 28, 512, 1, 0, 7),
        ] {
            let charge = rule.charge(bytes, cap, choices);
            assert_eq!((charge.output, charge.total), (Tokens(output), Tokens(total)), "{rule:?}");
            assert_eq!((charge.requests, charge.slots), (Requests(1), Slots(1)));
        }
    }
}
