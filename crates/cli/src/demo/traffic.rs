//! The calls: when each comes, from which pod, in which class, how large. All three runs get the very
//! same; everything follows from the seed.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::demo::scenario::{self, CLASSES, Scenario, Sizes};

/// One call that an application makes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Arrival {
    /// After the start of the run.
    pub(crate) at: Duration,
    pub(crate) pod: usize,
    /// The index of its class.
    pub(crate) class: usize,
    pub(crate) prompt_bytes: usize,
    pub(crate) max_tokens: u64,
    /// Whether the answer is streamed.
    pub(crate) stream: bool,
}

/// The smallest prompt and cap that make sense, and the largest that the demo's bucket is meant for.
const PROMPT_BYTES: (f64, f64) = (40.0, 8_000.0);
const MAX_TOKENS: (f64, f64) = (16.0, 1_000.0);

/// The share of calls that are streamed.
const STREAMED: f64 = 0.5;

/// Draws from which the mean cost of a call is taken; its error is then below 1 %.
const COST_DRAWS: usize = 20_000;

/// What a token of English takes (`providers.md` 15).
const BYTES_PER_TOKEN: f64 = 4.2;

/// All calls in the order in which they come: for each pod and class a Poisson process, whether
/// earlier calls are answered or not.
pub(crate) fn draw(scenario: &Scenario) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    for pod in 0..scenario.asking_pods() {
        for class in 0..CLASSES.len() {
            let stream = (pod * CLASSES.len() + class) as u64;
            let mut dice = Dice::new(scenario.args.seed, stream);
            let rate = scenario.calls_per_second(class) / as_float(scenario.asking_pods());
            let mut at = 0.0;
            loop {
                at += dice.exponential(rate);
                let Ok(at) = Duration::try_from_secs_f64(at) else { break };
                if at >= scenario.args.duration {
                    break;
                }
                arrivals.push(dice.arrival(at, pod, class, scenario.sizes()));
            }
        }
    }
    arrivals.sort_by_key(|arrival| (arrival.at, arrival.pod, arrival.class));
    deal_again(scenario, &mut arrivals);
    arrivals
}

/// A small call, to see that the way to the provider stands.
pub(crate) fn smallest(pod: usize) -> Arrival {
    let (at, class) = (Duration::ZERO, 0);
    Arrival { at, pod, class, prompt_bytes: 40, max_tokens: 16, stream: true }
}

/// What a call of these sizes takes on average, in tokens.
pub(crate) fn mean_tokens(sizes: Sizes, seed: u64) -> f64 {
    let mut dice = Dice::new(seed, u64::MAX);
    let total: f64 = (0..COST_DRAWS)
        .map(|_| {
            let arrival = dice.arrival(Duration::ZERO, 0, 0, sizes);
            let (median, spread) = sizes.output_tokens;
            let output =
                dice.log_normal(median, spread).min(scenario::as_float(arrival.max_tokens));
            as_float(arrival.prompt_bytes) / BYTES_PER_TOKEN + output
        })
        .sum();
    total / as_float(COST_DRAWS)
}

/// Gives the calls of pods that have been killed to the others, in turn.
fn deal_again(scenario: &Scenario, arrivals: &mut [Arrival]) {
    let dying = scenario.dying_pods();
    let others = dying..scenario.pods();
    let late = arrivals.iter_mut().filter(|arrival| arrival.at >= scenario.middle());
    let orphans = late.filter(|arrival| arrival.pod < dying);
    for (arrival, pod) in orphans.zip(others.cycle()) {
        arrival.pod = pod;
    }
}

struct Dice(SmallRng);

// === impl Dice ===

impl Dice {
    /// Streams of one seed are independent.
    fn new(seed: u64, stream: u64) -> Dice {
        Dice(SmallRng::seed_from_u64(
            seed.rotate_left(32) ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        ))
    }

    fn arrival(&mut self, at: Duration, pod: usize, class: usize, sizes: Sizes) -> Arrival {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "both are bounded to small positive numbers"
        )]
        let (prompt_bytes, max_tokens) = (
            self.bounded(sizes.prompt_bytes, PROMPT_BYTES) as usize,
            self.bounded(sizes.max_tokens, MAX_TOKENS) as u64,
        );
        let stream = self.0.random_bool(STREAMED);
        Arrival { at, pod, class, prompt_bytes, max_tokens, stream }
    }

    fn bounded(&mut self, (median, spread): (f64, f64), (least, most): (f64, f64)) -> f64 {
        self.log_normal(median, spread).clamp(least, most)
    }

    /// The time to the next event of a Poisson process, in seconds.
    fn exponential(&mut self, per_second: f64) -> f64 {
        -(1.0 - self.0.random::<f64>()).ln() / per_second
    }

    /// Box and Muller's transform.
    fn log_normal(&mut self, median: f64, spread: f64) -> f64 {
        let (radius, angle): (f64, f64) = (self.0.random(), self.0.random());
        let normal = (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos();
        median * (spread * normal).exp()
    }
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn as_float(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::demo::args::Args;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn scenario(flags: &str) -> Scenario {
        let words = std::iter::once("demo").chain(flags.split_whitespace());
        Scenario::new(Cli::parse_from(words).args)
    }

    #[test]
    fn demand_is_the_overload_times_the_budget_and_the_highest_class_stays_below_a_third() {
        for (flags, per_minute) in [
            ("--duration 10m", 3_600.0),
            ("--duration 10m --overload 1.2 --seed 7", 1_440.0),
            ("--duration 10m --overload 10 --demand one-pod", 12_000.0),
        ] {
            let arrivals = draw(&scenario(flags));
            let found = as_float(arrivals.len()) / 10.0;
            assert!((found / per_minute - 1.0).abs() < 0.05, "{flags}: {found} a minute");
            let highest = arrivals.iter().filter(|arrival| arrival.class == 0).count();
            assert!(as_float(highest) / 10.0 < 400.0, "{flags}: {highest}");
            assert!(arrivals.is_sorted_by_key(|arrival| arrival.at));
        }
    }

    #[test]
    fn demand_in_tokens_is_the_overload_times_the_budget() {
        let scenario = scenario("--limit tokens --duration 20m");
        let calls = as_float(draw(&scenario).len());
        let tokens = calls * scenario.cost_per_call / 20.0;
        assert!((tokens / 600_000.0 - 1.0).abs() < 0.05, "{tokens} a minute");
    }

    #[test]
    fn the_same_seed_makes_the_same_calls_and_another_seed_others() {
        let calls = |flags| draw(&scenario(flags));
        assert_eq!(calls("--seed 3"), calls("--seed 3"));
        assert_ne!(calls("--seed 3"), calls("--seed 4"));
    }

    #[test]
    fn the_calls_of_killed_pods_go_to_the_others() {
        for flags in ["--kill-sidecars", "--kill-sidecars --demand one-pod"] {
            let scenario = scenario(flags);
            let (before, after): (Vec<_>, Vec<_>) =
                draw(&scenario).into_iter().partition(|arrival| arrival.at < scenario.middle());
            assert!(before.iter().any(|arrival| arrival.pod < 3), "{flags}");
            let pods = after.iter().map(|arrival| arrival.pod);
            assert_eq!(
                pods.collect::<std::collections::BTreeSet<_>>(),
                [3, 4, 5].into(),
                "{flags}"
            );
        }
    }
}
