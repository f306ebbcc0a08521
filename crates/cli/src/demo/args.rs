//! The flags of `weir demo`.

use std::time::Duration;

use clap::builder::FalseyValueParser;

use crate::output::Output;

/// Show in one minute what Weir does: three ways to one rate limit, side by side.
///
/// Starts three emulated providers with the same limit, an allocator and some sidecars, all on this
/// machine. Then the same calls, about three times more than the limit allows, go to them in three
/// ways at the same time: straight to the provider with the retries of the official SDKs, through a
/// budget that is split evenly over the pods, and through Weir. Nothing leaves this machine, and no
/// key is needed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// How many pods there are; in Weir's run each has a sidecar.
    #[arg(long, env = "WEIR_DEMO_SIDECARS", value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=MAX_SIDECARS))]
    pub(crate) sidecars: u16,

    /// How many times more is asked for than the limit allows.
    #[arg(long, env = "WEIR_DEMO_OVERLOAD", value_name = "X", default_value = "3", value_parser = overload)]
    pub(crate) overload: f64,

    /// For how long; below a minute the figures are not to be judged by.
    #[arg(long, env = "WEIR_DEMO_DURATION", value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) duration: Duration,

    /// How the provider enforces its limit. A fixed window begins with the run, each minute: take
    /// --duration 2m to see one end under load.
    #[arg(long, env = "WEIR_DEMO_LIMITER", value_enum, default_value_t = Limiter::TokenBucket)]
    pub(crate) limiter: Limiter,

    /// What the provider limits.
    #[arg(long, env = "WEIR_DEMO_LIMIT", value_enum, default_value_t = Limit::Requests)]
    pub(crate) limit: Limit,

    /// Which pods ask.
    #[arg(long, env = "WEIR_DEMO_DEMAND", value_enum, default_value_t = Demand::Even)]
    pub(crate) demand: Demand,

    /// The provider sends no rate-limit headers: nobody is told what is left and when it comes back.
    #[arg(long, env = "WEIR_DEMO_HIDE_RESET", value_parser = FalseyValueParser::new())]
    pub(crate) hide_reset: bool,

    /// Kill the allocator in the middle, and start it again two seconds later.
    #[arg(long, env = "WEIR_DEMO_KILL_ALLOCATOR", value_parser = FalseyValueParser::new())]
    pub(crate) kill_allocator: bool,

    /// Kill half of the pods in the middle; the others get their calls from then on.
    #[arg(long, env = "WEIR_DEMO_KILL_SIDECARS", value_parser = FalseyValueParser::new())]
    pub(crate) kill_sidecars: bool,

    /// Decides when calls come and how large they are.
    #[arg(long, env = "WEIR_DEMO_SEED", value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,

    /// How the result is printed.
    #[arg(long, env = "WEIR_OUTPUT", value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// How the provider enforces its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Limiter {
    /// A bucket that refills continuously.
    TokenBucket,
    /// A counter that starts from zero each minute.
    FixedWindow,
}

/// What the provider limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Limit {
    /// Requests per minute.
    Requests,
    /// Tokens per minute.
    Tokens,
}

/// Which pods ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Demand {
    /// All alike.
    Even,
    /// One asks for everything, the others for nothing.
    OnePod,
}

/// Each is a process with about a dozen connections; more say nothing more on one machine.
const MAX_SIDECARS: i64 = 64;

/// Beyond it the load generator would be what is measured.
const MAX_OVERLOAD: f64 = 20.0;

/// So that there is a middle, and something to count.
const MIN_DURATION: Duration = Duration::from_secs(2);

/// Records of all calls are kept in memory until the end.
const MAX_DURATION: Duration = Duration::from_secs(3_600);

const EXAMPLES: &str = "\
Examples:
  weir demo                                  the main job, in about a minute
  weir demo --demand one-pod                 one pod wants it all
  weir demo --limiter fixed-window --hide-reset --duration 2m
                                             a limit that starts anew each minute, and nobody says when
  weir demo --limit tokens                   tokens per minute instead of requests
  weir demo --kill-allocator                 the allocator crashes in the middle
  weir demo --output json > result.json      the figures, for a program";

fn overload(text: &str) -> Result<f64, String> {
    let overload: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if (0.1..=MAX_OVERLOAD).contains(&overload) {
        Ok(overload)
    } else {
        Err(format!("{text} is not between 0.1 and {MAX_OVERLOAD}"))
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = crds::duration::parse(text)
        .ok_or_else(|| format!("`{text}` is no time such as 60s or 2m"))?;
    if (MIN_DURATION..=MAX_DURATION).contains(&duration) {
        Ok(duration)
    } else {
        Err(format!("{text} is not between {MIN_DURATION:?} and an hour"))
    }
}
