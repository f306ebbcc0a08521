//! Learns how many tokens a prompt takes and how long answers are, by provider and model.
//!
//! A tokenizer for every model would cost 50 MB each and still be wrong for those whose tokenizer is
//! not public (`providers.md` 15); what the provider says afterwards is free. The sidecar asks before
//! each call and teaches after it. The workload is the pod's own, so it is no key here.

use std::collections::BTreeMap;

use quota::units::Tokens;

use crate::call::Call;
use crate::usage::Usage;

/// What OpenAI itself takes a token for at admission (`providers.md` 2.3); no estimate is below it.
pub const BYTES_PER_TOKEN: u64 = 4;

/// What a picture or a file is taken for: the most that Anthropic charges for a picture.
pub const TOKENS_PER_ATTACHMENT: u64 = 1_600;

/// The length of an answer of which nothing is known yet.
pub const SEED_OUTPUT: u64 = 512;

/// Models that are told apart; beyond it the one that was not used for the longest time is forgotten.
/// One takes at most 2.5 KiB.
const MAX_MODELS: usize = 64;

/// Calls that an estimate rests on: enough for a 95th percentile, few enough to follow a change.
const SAMPLES: usize = 64;

/// Prompts are rarely underestimated.
const INPUT_PERCENTILE: usize = 95;

/// Answers are as long as nine in ten (`leases.md` 4.6).
const OUTPUT_PERCENTILE: usize = 90;

/// A ratio is kept in tokens for so many bytes.
const RATIO_UNIT: u64 = 65_536;

/// Upper bounds of prompt sizes in bytes that learn apart: the shorter a prompt, the more weighs what
/// a provider adds to it.
const SIZES: [u64; 6] = [64, 256, 1_024, 4_096, 16_384, 65_536];

/// What a call is expected to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Estimate {
    /// Prompt tokens.
    pub input: Tokens,
    /// Tokens of all its answers; never more than its cap.
    pub output: Tokens,
}

/// What was learned.
#[derive(Clone, Debug, Default)]
pub struct Estimator {
    /// By provider, then by model.
    models: BTreeMap<String, BTreeMap<String, Model>>,
    /// Rises with each lesson.
    lessons: u64,
}

#[derive(Clone, Debug, Default)]
struct Model {
    /// Tokens for [`RATIO_UNIT`] bytes of text, by size of prompt.
    ratios: [Samples; SIZES.len() + 1],
    /// Tokens of one answer.
    outputs: Samples,
    /// The last lesson.
    last: u64,
}

/// The latest figures.
#[derive(Clone, Debug, Default)]
struct Samples {
    values: Vec<u32>,
    next: usize,
    /// The smallest value that the percentile does not exceed, found out with each lesson: estimates are
    /// asked for while a request waits.
    percentile: Option<u32>,
}

// === impl Estimator ===

impl Estimator {
    /// What `call` is expected to take.
    pub fn estimate(&self, provider: &str, call: &Call) -> Estimate {
        if !call.operation.runs_a_model() {
            return Estimate::default();
        }
        let model = self.models.get(provider).and_then(|models| models.get(name(call)));
        let ratio = model.and_then(|m| m.ratios[size(call)].percentile);
        let learned = u128::from(call.text_bytes) * u128::from(ratio.unwrap_or(0));
        let learned = u64::try_from(learned.div_ceil(u128::from(RATIO_UNIT))).unwrap_or(u64::MAX);
        let attachments = call.attachments.saturating_mul(TOKENS_PER_ATTACHMENT);
        let text = learned.max(call.text_bytes.div_ceil(BYTES_PER_TOKEN));

        let answer = model.and_then(|m| m.outputs.percentile);
        let answer = answer.map_or(SEED_OUTPUT, u64::from).min(call.output_cap.unwrap_or(u64::MAX));
        let answers = if call.operation.has_output() { call.choices } else { 0 };
        Estimate {
            input: Tokens(text.saturating_add(attachments)),
            output: Tokens(answer.saturating_mul(answers)),
        }
    }

    /// Learns from what a call used by the provider's own word. Answers with the error of the
    /// estimate of its prompt, relative to the truth: 0.1 is a tenth too much.
    pub fn learn(
        &mut self,
        provider: &str,
        call: &Call,
        estimate: Estimate,
        usage: &Usage,
    ) -> Option<f64> {
        let (input, output) = (usage.input().0, usage.output().0);
        if input == 0 {
            return None;
        }
        self.lessons += 1;
        self.make_room(provider, name(call));
        let models = self.models.entry(provider.to_owned()).or_default();
        let model = models.entry(name(call).to_owned()).or_default();
        model.last = self.lessons;
        // Where the provider adds a prompt that we do not see, the text says nothing of its tokens.
        if call.text_bytes > 0 && call.attachments == 0 && !call.stored_context {
            let ratio = u128::from(input) * u128::from(RATIO_UNIT) / u128::from(call.text_bytes);
            let ratio = u32::try_from(ratio).unwrap_or(u32::MAX);
            model.ratios[size(call)].add(ratio, INPUT_PERCENTILE);
        }
        if call.operation.has_output() {
            let answer = output.div_ceil(call.choices.max(1));
            model.outputs.add(u32::try_from(answer).unwrap_or(u32::MAX), OUTPUT_PERCENTILE);
        }
        Some((float(estimate.input.0) - float(input)) / float(input))
    }

    fn make_room(&mut self, provider: &str, model: &str) {
        let known = self.models.get(provider).is_some_and(|models| models.contains_key(model));
        let count: usize = self.models.values().map(BTreeMap::len).sum();
        if known || count < MAX_MODELS {
            return;
        }
        let oldest =
            |models: &BTreeMap<String, Model>| models.values().map(|model| model.last).min();
        let Some(last) = self.models.values().filter_map(oldest).min() else { return };
        for models in self.models.values_mut() {
            models.retain(|_, model| model.last != last);
        }
        self.models.retain(|_, models| !models.is_empty());
    }
}

fn name(call: &Call) -> &str {
    call.model.as_deref().unwrap_or_default()
}

fn size(call: &Call) -> usize {
    SIZES.iter().position(|bound| call.text_bytes < *bound).unwrap_or(SIZES.len())
}

/// Exact below 2^53; it is a figure for a metric.
#[expect(clippy::cast_precision_loss, reason = "a relative error needs no more than 53 bits")]
fn float(tokens: u64) -> f64 {
    tokens as f64
}

// === impl Samples ===

impl Samples {
    fn add(&mut self, value: u32, percent: usize) {
        if self.values.len() < SAMPLES {
            self.values.push(value);
        } else {
            self.values[self.next] = value;
            self.next = (self.next + 1) % SAMPLES;
        }
        let rank = (self.values.len() * percent).div_ceil(100) - 1;
        self.percentile = Some(*self.values.clone().select_nth_unstable(rank).1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Operation;

    fn call(text_bytes: u64) -> Call {
        Call { model: Some("m".into()), text_bytes, ..Call::of(Operation::Chat) }
    }

    fn used(input: u64, output: u64) -> Usage {
        Usage { input_uncached: Tokens(input), output_visible: Tokens(output), ..Usage::request() }
    }

    fn estimate(input: u64, output: u64) -> Estimate {
        Estimate { input: Tokens(input), output: Tokens(output) }
    }

    #[test]
    fn an_estimator_that_knows_nothing_uses_the_providers_formula() {
        let estimator = Estimator::default();
        let capped = Call { output_cap: Some(100), choices: 3, ..call(401) };
        assert_eq!(estimator.estimate("p", &call(401)), estimate(101, SEED_OUTPUT));
        assert_eq!(estimator.estimate("p", &capped), estimate(101, 300));
        let picture = Call { attachments: 2, ..call(0) };
        assert_eq!(estimator.estimate("p", &picture), estimate(3_200, SEED_OUTPUT));
        let embeddings = Call { operation: Operation::Embeddings, ..call(8) };
        assert_eq!(estimator.estimate("p", &embeddings), estimate(2, 0));
        let models = Call { operation: Operation::Models, ..call(8) };
        assert_eq!(estimator.estimate("p", &models), estimate(0, 0));
    }

    #[test]
    fn one_lesson_is_enough_to_correct_a_dense_language() {
        let mut estimator = Estimator::default();
        let error = estimator.learn("p", &call(2_000), estimate(500, 512), &used(1_000, 50));
        assert_eq!(error, Some(-0.5));
        assert_eq!(estimator.estimate("p", &call(3_000)), estimate(1_500, 50));
        assert_eq!(estimator.estimate("other", &call(3_000)), estimate(750, SEED_OUTPUT));
        // Another size of prompt learns for itself.
        assert_eq!(estimator.estimate("p", &call(100_000)).input, Tokens(25_000));
    }

    #[test]
    fn a_prompt_is_rarely_underestimated() {
        let mut estimator = Estimator::default();
        let mut below = 0;
        // Ratios between 2.5 and 5 bytes per token, as a generator of seed 1 draws them.
        let mut random = 1_u64;
        for turn in 0..2_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let call = call(1_024 + turn % 3_000);
            let truth = call.text_bytes * (200 + (random >> 33) % 200) / 1_000;
            let guess = estimator.estimate("p", &call);
            below += u64::from(turn >= 200 && guess.input.0 < truth);
            assert!(guess.input.0 >= call.text_bytes.div_ceil(BYTES_PER_TOKEN));
            estimator.learn("p", &call, guess, &used(truth, 10));
        }
        assert!(below < 1_800 * 8 / 100, "{below} of 1800 were underestimated");
    }

    #[test]
    fn an_answer_is_expected_as_long_as_nine_in_ten() {
        let mut estimator = Estimator::default();
        for length in 1..=50 {
            estimator.learn("p", &call(400), estimate(100, 0), &used(100, length * 10));
        }
        assert_eq!(estimator.estimate("p", &call(400)).output, Tokens(450));
        let two = Call { choices: 2, output_cap: Some(300), ..call(400) };
        assert_eq!(estimator.estimate("p", &two).output, Tokens(600));
    }

    #[test]
    fn what_the_text_does_not_tell_teaches_no_ratio() {
        let mut estimator = Estimator::default();
        for call in [
            Call { attachments: 1, ..call(400) },
            Call { stored_context: true, ..call(400) },
            call(0),
        ] {
            estimator.learn("p", &call, estimate(100, 1), &used(9_000, 1));
        }
        assert_eq!(estimator.estimate("p", &call(400)).input, Tokens(100));
        assert_eq!(estimator.learn("p", &call(400), estimate(1, 1), &used(0, 1)), None);
    }

    #[test]
    fn the_model_that_was_not_used_for_the_longest_time_is_forgotten() {
        let mut estimator = Estimator::default();
        let named = |n: usize| Call { model: Some(n.to_string()), ..call(400) };
        for n in 0..=MAX_MODELS {
            estimator.learn("p", &named(n), estimate(100, 1), &used(400, 7));
        }
        assert_eq!(estimator.models["p"].len(), MAX_MODELS);
        assert_eq!(estimator.estimate("p", &named(0)), estimate(100, SEED_OUTPUT));
        assert_eq!(estimator.estimate("p", &named(1)), estimate(400, 7));
    }
}
