//! The model of an answer: what it says, how long it is, when each token comes, what it cost.
//!
//! Everything follows from the seed, the number of the call and the call itself.

use std::sync::Arc;
use std::time::Duration;

use providers::operation::Operation;
use quota::time::Time;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::ask::Ask;
use crate::config::{Latency, Output};
use crate::words::{Words, mix};

/// An answer before it is put into words of a protocol.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// What was asked.
    pub(crate) ask: Arc<Ask>,
    /// Makes ids.
    pub(crate) number: u64,
    /// When it was begun.
    pub(crate) created: Time,
    /// Prompt tokens.
    pub(crate) input: u64,
    /// One for each choice.
    pub(crate) choices: Vec<Choice>,
    /// When tokens come.
    pub(crate) pace: Pace,
}

/// One choice of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    /// Its text.
    pub(crate) words: Words,
    /// True if the call's cap ended it.
    pub(crate) capped: bool,
}

/// When tokens come: all choices advance by one token at each step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    first: Duration,
    per_token: Duration,
}

/// The parts of latency and length that one call draws.
#[derive(Debug)]
pub(crate) struct Dice(SmallRng);

/// An answer is never longer than this, whatever is drawn: the largest output of current models.
const MAX_OUTPUT: u64 = 128_000;

/// No answer makes its caller wait longer for its first token.
const MAX_FIRST_TOKEN: Duration = Duration::from_secs(600);

/// Tokens that the template around a prompt takes.
const TEMPLATE_TOKENS: u64 = 3;

// === impl Reply ===

impl Reply {
    /// Draws the answer to `ask`.
    pub(crate) fn draw(
        latency: Latency,
        output: Output,
        ask: Arc<Ask>,
        created: Time,
        dice: &mut Dice,
    ) -> Reply {
        let pace = dice.pace(latency);
        let count = match ask.call.operation {
            Operation::Chat => ask.call.choices.max(1),
            operation => u64::from(operation.has_output()),
        };
        let cap = ask.call.output_cap.unwrap_or(MAX_OUTPUT).clamp(1, MAX_OUTPUT);
        let choices = (0..count).map(|_| dice.choice(output, cap)).collect();
        let input = input_tokens(ask.call.text_bytes);
        Reply { ask, number: dice.number(), created, input, choices, pace }
    }

    /// Produced tokens of all choices.
    pub(crate) fn output(&self) -> u64 {
        self.choices.iter().map(|choice| choice.words.count).sum()
    }

    /// The number of steps until the longest choice is complete.
    pub(crate) fn steps(&self) -> u64 {
        self.choices.iter().map(|choice| choice.words.count).max().unwrap_or(0)
    }

    /// Tokens that are produced at `step`.
    pub(crate) fn produced_at(&self, step: u64) -> u64 {
        self.choices.iter().filter(|choice| choice.words.count > step).count() as u64
    }

    /// All tokens as (step, choice), in the order in which they come.
    pub(crate) fn tokens(self: Arc<Self>) -> impl Iterator<Item = (u64, usize)> + Send {
        let steps = self.steps();
        (0..steps).flat_map(move |step| {
            let reply = Arc::clone(&self);
            (0..reply.choices.len())
                .filter(move |&choice| reply.choices[choice].words.count > step)
                .map(move |choice| (step, choice))
        })
    }

    /// Seconds since the Unix epoch.
    pub(crate) fn created_seconds(&self) -> u64 {
        self.created.as_nanos() / 1_000_000_000
    }

    /// An id with the provider's prefix.
    pub(crate) fn id(&self, prefix: &str) -> String {
        format!("{prefix}{:016x}{:016x}", self.number, mix(self.number))
    }

    /// The operation that it answers.
    pub(crate) fn operation(&self) -> Operation {
        self.ask.call.operation
    }

    /// The model that it names.
    pub(crate) fn model(&self) -> &str {
        self.ask.model()
    }
}

// === impl Pace ===

impl Pace {
    /// The time from the call's admission to `step`; the first token comes at step 0.
    pub(crate) fn at(self, step: u64) -> Duration {
        let step = u32::try_from(step).unwrap_or(u32::MAX);
        self.first.saturating_add(self.per_token.saturating_mul(step))
    }
}

// === impl Dice ===

impl Dice {
    /// The dice of the call of this number.
    pub(crate) fn of_call(seed: u64, call: u64) -> Dice {
        Dice(SmallRng::seed_from_u64(seed ^ mix(call)))
    }

    /// A number below 100.
    pub(crate) fn percent(&mut self) -> u32 {
        self.0.random_range(0..100)
    }

    /// Any number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0.random()
    }

    fn pace(&mut self, latency: Latency) -> Pace {
        let millis = self.log_normal(latency.first_token_ms, latency.spread);
        let first = Duration::try_from_secs_f64(millis / 1e3).unwrap_or(Duration::MAX);
        let per_token = match latency.tokens_per_second {
            0 => Duration::ZERO,
            speed => Duration::from_secs(1) / speed,
        };
        Pace { first: first.min(MAX_FIRST_TOKEN), per_token }
    }

    fn choice(&mut self, output: Output, cap: u64) -> Choice {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float saturates, and a log-normal draw is positive"
        )]
        let drawn = self.log_normal(output.tokens, output.spread).round() as u64;
        let count = drawn.clamp(1, cap);
        Choice { words: Words { seed: self.number(), count }, capped: drawn > cap }
    }

    /// A draw from the log-normal distribution of this median (Box and Muller's transform).
    fn log_normal(&mut self, median: u64, spread: f64) -> f64 {
        let (radius, angle): (f64, f64) = (self.0.random(), self.0.random());
        let normal = (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos();
        #[expect(clippy::cast_precision_loss, reason = "medians are small")]
        let median = median as f64;
        median * (spread * normal).exp()
    }
}

/// What a prompt of so many bytes of text costs: near one token for 4.2 bytes, as English does, and up
/// to 8 % more or less, so that an estimator has something to learn and something to err by. The
/// deviation depends on the length alone: the same text costs the same on every way to the provider.
pub(crate) fn input_tokens(text_bytes: u64) -> u64 {
    let per_mille = 920 + mix(text_bytes) % 161;
    let tokens = u128::from(text_bytes) * u128::from(per_mille) / 4_200;
    TEMPLATE_TOKENS + u64::try_from(tokens).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_costs_about_a_token_for_four_bytes() {
        for bytes in [0, 13, 400, 2_000, 16_000, 400_000] {
            let (tokens, estimate) = (input_tokens(bytes), bytes.div_ceil(4));
            assert_eq!(tokens, input_tokens(bytes));
            assert!(tokens <= estimate * 108 / 100 + TEMPLATE_TOKENS, "{bytes} {tokens}");
            assert!(tokens + 1 >= estimate * 86 / 100, "{bytes} {tokens}");
        }
    }

    #[test]
    fn draws_repeat_with_their_seed_and_lie_around_their_median() {
        let draw = |seed, call| {
            let mut dice = Dice::of_call(seed, call);
            dice.choice(Output { tokens: 100, spread: 0.5 }, MAX_OUTPUT).words.count
        };
        let draws: Vec<u64> = (0..1_000).map(|call| draw(7, call)).collect();
        assert_eq!(draws, (0..1_000).map(|call| draw(7, call)).collect::<Vec<_>>());
        let below = draws.iter().filter(|&&count| count < 100).count();
        assert!((450..550).contains(&below), "{below}");
        let alike = Dice::of_call(1, 1).choice(Output { tokens: 100, spread: 0.0 }, 40);
        assert_eq!((alike.words.count, alike.capped), (40, true));
    }
}
