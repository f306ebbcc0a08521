//! What the emulator is told: limits per provider, keys, latencies, lengths, faults.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use providers::enforce::admission::Admission;
use providers::enforce::rule::{Algorithm, Limit, Rule};
use quota::dimension::{Dimension, Protocol};
use quota::units::Amount;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::fault::Fault;

/// Everything, with the defaults of a small paid account.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Limits of each account at OpenAI.
    pub openai: Vec<LimitConfig>,
    /// Limits of each account at Anthropic.
    pub anthropic: Vec<LimitConfig>,
    /// The models that OpenAI lists.
    pub openai_models: Vec<String>,
    /// The models that Anthropic lists.
    pub anthropic_models: Vec<String>,
    /// Whether a model that is neither listed nor covered by a limit is answered with 404.
    pub reject_unknown_models: bool,
    /// Which key belongs to which account. Empty: any key will do, and all share one account.
    pub keys: BTreeMap<String, String>,
    /// How long answers take.
    pub latency: Latency,
    /// How long answers are.
    pub output: Output,
    /// Decides all that is drawn at random.
    pub seed: u64,
    /// Whether rate-limit headers are sent.
    pub headers: Headers,
    /// Whether 429s carry `retry-after-ms` and `x-should-retry: true` besides `retry-after`.
    pub retry_hints: bool,
    /// Whether refused calls are charged to limits on requests; by default as the protocol does.
    pub count_rejected: Option<bool>,
    /// What OpenAI charges at admission.
    pub admission: AdmissionRule,
    /// Whether a charge is corrected to what was really used.
    pub settle: bool,
    /// Faults that are armed from the start.
    pub faults: Vec<Fault>,
    /// Where each call leaves a line of JSON.
    pub journal: Option<PathBuf>,
    /// Answers fixed bytes at once, without limits, for benchmarks.
    pub prepared: bool,
    /// Whether the clock of the limits stands still but for `POST /__emu/clock`, for tests.
    pub manual_clock: bool,
    /// Connections served at once; further ones wait in the kernel's backlog.
    pub max_connections: usize,
}

/// One shared limit over the models it names: the fields of an LLMProvider's limit, and how exactly
/// it is enforced.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LimitConfig {
    /// Its name.
    pub name: String,
    /// Patterns of the models that share it.
    pub models: Vec<String>,
    /// Calls per minute.
    pub requests_per_minute: Option<u64>,
    /// Input and output tokens per minute.
    pub tokens_per_minute: Option<u64>,
    /// Prompt tokens per minute.
    pub input_tokens_per_minute: Option<u64>,
    /// Produced tokens per minute.
    pub output_tokens_per_minute: Option<u64>,
    /// Calls per day.
    pub requests_per_day: Option<u64>,
    /// Input and output tokens per day.
    pub tokens_per_day: Option<u64>,
    /// Calls in flight at once.
    pub concurrent_requests: Option<u64>,
    /// How figures per minute are enforced.
    pub window: Window,
    /// What a bucket holds, in percent of a minute's worth (and of a day's).
    pub burst_percent: u32,
    /// The length of a fixed window. A figure per minute is scaled to it, so that the rate stays.
    pub window_seconds: u64,
    /// How far after the full minute a fixed window begins.
    pub window_phase_ms: u64,
}

/// How figures per minute are enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
pub enum Window {
    /// A bucket that refills continuously; figures per day too.
    TokenBucket,
    /// A counter that starts from zero at each edge; figures per day at midnight UTC.
    FixedWindow,
}

/// How long answers take: the first token after a time drawn from a log-normal distribution, the
/// others evenly.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Latency {
    /// The median time to the first token.
    pub first_token_ms: u64,
    /// The spread: the standard deviation of the logarithm. 0 makes all answers alike.
    pub spread: f64,
    /// The speed after it; 0 for at once.
    pub tokens_per_second: u32,
}

/// How long answers are: drawn from a log-normal distribution, cut at the call's own cap.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Output {
    /// The median number of tokens.
    pub tokens: u64,
    /// The spread: the standard deviation of the logarithm. 0 makes all answers alike.
    pub spread: f64,
}

/// Which headers answers carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Headers {
    /// All that the provider sends.
    Full,
    /// Nothing about limits; a 429 still says `retry-after`.
    NoLimits,
    /// Neither limits nor `retry-after`.
    Missing,
}

/// What OpenAI charges at admission; its documents and its traces differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AdmissionRule {
    /// The larger of prompt estimate and output cap.
    Max,
    /// Their sum.
    Sum,
}

/// Which provider is emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// api.openai.com
    OpenAi,
    /// api.anthropic.com
    Anthropic,
}

/// Shorter windows than this are no limiter that any provider has, and would cost time.
const SHORTEST_WINDOW: Duration = Duration::from_secs(1);

// === impl Config ===

impl Config {
    /// The config if it can be served, or what is wrong with it.
    pub fn validated(self) -> Result<Config, Error> {
        for limit in self.openai.iter().chain(&self.anthropic) {
            limit.validate()?;
        }
        let Latency { spread, .. } = self.latency;
        for (field, spread) in [("latency.spread", spread), ("output.spread", self.output.spread)] {
            if !(0.0..=5.0).contains(&spread) {
                return Err(Error::Config(format!("{field} {spread} is not between 0 and 5")));
            }
        }
        if self.max_connections == 0 {
            return Err(Error::Config("maxConnections is 0".to_owned()));
        }
        Ok(self)
    }

    /// The limits of each account at `provider`.
    pub(crate) fn limits(&self, provider: Provider) -> Vec<Limit> {
        let limits = match provider {
            Provider::OpenAi => &self.openai,
            Provider::Anthropic => &self.anthropic,
        };
        limits.iter().map(|limit| limit.compile(provider, self.count_rejected)).collect()
    }

    /// The models that `provider` lists.
    pub(crate) fn models(&self, provider: Provider) -> &[String] {
        match provider {
            Provider::OpenAi => &self.openai_models,
            Provider::Anthropic => &self.anthropic_models,
        }
    }

    /// What `provider` charges at admission.
    pub(crate) fn admission(&self, provider: Provider) -> Admission {
        match (provider, self.admission) {
            (Provider::OpenAi, AdmissionRule::Sum) => Admission::Sum,
            _ => Admission::of(provider.protocol()),
        }
    }
}

impl Default for Config {
    /// OpenAI's tier 1 and Anthropic's Start tier (`providers.md` 2.1, 4.1).
    fn default() -> Config {
        let openai = ["gpt-4o", "gpt-4o-mini", "text-embedding-3-small", "text-embedding-3-large"];
        let anthropic = ["claude-sonnet-4-6", "claude-haiku-4-5"];
        Config {
            openai: vec![
                LimitConfig {
                    requests_per_minute: Some(500),
                    requests_per_day: Some(10_000),
                    tokens_per_minute: Some(200_000),
                    ..LimitConfig::named("gpt-4o-mini", &["gpt-4o-mini*"])
                },
                LimitConfig {
                    requests_per_minute: Some(500),
                    tokens_per_minute: Some(30_000),
                    ..LimitConfig::named("gpt-4o", &["gpt-4o", "gpt-4o-2024-*"])
                },
                LimitConfig {
                    requests_per_minute: Some(3_000),
                    tokens_per_minute: Some(1_000_000),
                    ..LimitConfig::named("text-embedding-3", &["text-embedding-3-*"])
                },
            ],
            anthropic: vec![LimitConfig {
                requests_per_minute: Some(1_000),
                input_tokens_per_minute: Some(2_000_000),
                output_tokens_per_minute: Some(400_000),
                ..LimitConfig::named("claude", &["claude-*"])
            }],
            openai_models: openai.map(str::to_owned).to_vec(),
            anthropic_models: anthropic.map(str::to_owned).to_vec(),
            reject_unknown_models: false,
            keys: BTreeMap::new(),
            latency: Latency::default(),
            output: Output::default(),
            seed: 1,
            headers: Headers::Full,
            retry_hints: false,
            count_rejected: None,
            admission: AdmissionRule::Max,
            settle: true,
            faults: Vec::new(),
            journal: None,
            prepared: false,
            manual_clock: false,
            max_connections: 10_000,
        }
    }
}

// === impl LimitConfig ===

impl LimitConfig {
    /// A limit without figures.
    pub fn named(name: &str, models: &[&str]) -> LimitConfig {
        LimitConfig {
            name: name.to_owned(),
            models: models.iter().map(|&model| model.to_owned()).collect(),
            ..LimitConfig::default()
        }
    }

    fn validate(&self) -> Result<(), Error> {
        let Self { name, .. } = self;
        if Duration::from_secs(self.window_seconds) < SHORTEST_WINDOW {
            return Err(Error::Config(format!("limit {name}: windowSeconds is 0")));
        }
        if self.burst_percent == 0 || self.burst_percent > 100 {
            return Err(Error::Config(format!("limit {name}: burstPercent is not 1 to 100")));
        }
        Ok(())
    }

    fn compile(&self, provider: Provider, count_rejected: Option<bool>) -> Limit {
        let rules = self
            .figures()
            .map(|(dimension, figure)| {
                let rule = self.rule(dimension, figure).counting_rejected_as(provider.protocol());
                Rule {
                    count_rejected: count_rejected.map_or(rule.count_rejected, |on| {
                        on && dimension.unit() == quota::dimension::Unit::Requests
                    }),
                    ..rule
                }
            })
            .collect();
        Limit { name: self.name.as_str().into(), models: self.models.clone(), rules }
    }

    /// True if it limits anything.
    pub(crate) fn has_figures(&self) -> bool {
        self.figures().next().is_some()
    }

    fn figures(&self) -> impl Iterator<Item = (Dimension, u64)> {
        let figure = |dimension| match dimension {
            Dimension::RequestsPerMinute => self.requests_per_minute,
            Dimension::TokensPerMinute => self.tokens_per_minute,
            Dimension::InputTokensPerMinute => self.input_tokens_per_minute,
            Dimension::OutputTokensPerMinute => self.output_tokens_per_minute,
            Dimension::RequestsPerDay => self.requests_per_day,
            Dimension::TokensPerDay => self.tokens_per_day,
            Dimension::ConcurrentRequests => self.concurrent_requests,
        };
        Dimension::ALL
            .into_iter()
            .filter_map(move |dimension| Some((dimension, figure(dimension)?)))
    }

    /// OpenAI's limits per day are continuous buckets like those per minute (`providers.md` 2.2).
    fn rule(&self, dimension: Dimension, figure: u64) -> Rule {
        let daily = matches!(dimension, Dimension::RequestsPerDay | Dimension::TokensPerDay);
        let whole = Amount::from_units(figure);
        let (limit, algorithm) = match (dimension.period(), self.window) {
            (None, _) => (whole, Algorithm::Slots),
            (Some(period), Window::TokenBucket) => {
                (whole, Algorithm::Bucket { period, burst_percent: self.burst_percent })
            }
            (Some(period), Window::FixedWindow) if daily => {
                (whole, Algorithm::Stock { period, phase: Duration::ZERO })
            }
            (Some(period), Window::FixedWindow) => {
                let length = Duration::from_secs(self.window_seconds);
                let phase = Duration::from_millis(self.window_phase_ms);
                let limit = whole.scale(self.window_seconds, period.as_secs());
                (limit, Algorithm::Window { length, phase })
            }
        };
        Rule { dimension, limit, algorithm, count_rejected: false }
    }
}

impl Default for LimitConfig {
    /// No figures, all models, a bucket of a full minute.
    fn default() -> LimitConfig {
        LimitConfig {
            name: "default".to_owned(),
            models: vec!["*".to_owned()],
            requests_per_minute: None,
            tokens_per_minute: None,
            input_tokens_per_minute: None,
            output_tokens_per_minute: None,
            requests_per_day: None,
            tokens_per_day: None,
            concurrent_requests: None,
            window: Window::TokenBucket,
            burst_percent: 100,
            window_seconds: 60,
            window_phase_ms: 0,
        }
    }
}

impl Default for Latency {
    /// A fast model: 300 ms, give or take a third, then 100 tokens a second.
    fn default() -> Latency {
        Latency { first_token_ms: 300, spread: 0.3, tokens_per_second: 100 }
    }
}

impl Default for Output {
    /// A short answer, give or take a half.
    fn default() -> Output {
        Output { tokens: 64, spread: 0.5 }
    }
}

// === impl Provider ===

impl Provider {
    /// Both.
    pub const ALL: [Provider; 2] = [Provider::OpenAi, Provider::Anthropic];

    /// The language it speaks.
    pub const fn protocol(self) -> Protocol {
        match self {
            Provider::OpenAi => Protocol::OpenAi,
            Provider::Anthropic => Protocol::Anthropic,
        }
    }
}
