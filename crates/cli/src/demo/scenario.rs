//! What is shown: the limit, the classes, how much is asked for. Everything else in the demo reads
//! its numbers here.

use std::time::Duration;

use emulator::config::{Config, Headers, Latency, LimitConfig, Output, Window};
use serde_json::json;

use crate::demo::args::{Args, Demand, Limit, Limiter};
use crate::demo::traffic;

/// One demo.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) args: Args,
    /// What a call takes of the limit on average.
    pub(crate) cost_per_call: f64,
}

/// A priority class of the demo.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Class {
    pub(crate) name: &'static str,
    pub(crate) value: i32,
    description: &'static str,
}

/// Sizes of calls: medians of log-normal distributions, and their spreads (the standard deviation of
/// the logarithm).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) prompt_bytes: (f64, f64),
    pub(crate) max_tokens: (f64, f64),
    pub(crate) output_tokens: (f64, f64),
}

/// The name of the LLMProvider, which is the first segment of paths on a sidecar.
pub(crate) const PROVIDER: &str = "openai";

/// What all calls ask for.
pub(crate) const MODEL: &str = "gpt-4o-mini";

/// From the highest to the lowest.
pub(crate) const CLASSES: [Class; 3] = [
    Class { name: "interactive", value: 1_000, description: "A person is waiting." },
    Class { name: "standard", value: 100, description: "The usual." },
    Class { name: "batch", value: 10, description: "Can wait." },
];

/// How long a caller waits for the first byte, retries included; then it gives up. SDKs are told so
/// as their timeout, and tell the server.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// What of each budget the lower classes get whatever the higher ones ask for.
pub(crate) const MIN_SHARE_PERCENT: u32 = 2;

/// What of the bucket the lower classes leave to the highest, in percent: its next call or two. With a
/// limit on tokens that is its largest call, which takes 2,000 of 10,000.
const HOLDBACK_PERCENT_REQUESTS: u32 = 3;
const HOLDBACK_PERCENT_TOKENS: u32 = 20;

/// Below this a run is shown, not judged (`design.md` 10.8).
pub(crate) const JUDGED_FROM: Duration = Duration::from_secs(60);

/// The limit on requests: the one that other gateways were measured with.
const REQUESTS_PER_MINUTE: u64 = 1_200;

/// The limit on tokens: OpenAI's first paid tier for small models (`providers.md` 2.1). Requests are
/// limited then as well, so far up that it does not matter.
const TOKENS_PER_MINUTE: u64 = 200_000;
const AMPLE_REQUESTS_PER_MINUTE: u64 = 20_000;

/// A bucket holds three seconds' worth. A full minute's worth would hide the overload of the first
/// minute.
const BURST_PERCENT: u32 = 5;

/// The highest class asks for less than a third of the budget: the overload comes from below
/// (`design.md` 10.9).
const INTERACTIVE_SHARE: f64 = 0.28;

/// Longer than the patience of callers helps nobody.
const QUEUE: (&str, u32) = ("10s", 200);

// === impl Scenario ===

impl Scenario {
    pub(crate) fn new(mut args: Args) -> Scenario {
        if args.hide_reset {
            // A bucket has no reset.
            args.limiter = Limiter::FixedWindow;
        }
        let cost_per_call = match args.limit {
            Limit::Requests => 1.0,
            Limit::Tokens => traffic::mean_tokens(sizes(args.limit), args.seed),
        };
        Scenario { args, cost_per_call }
    }

    /// The limit per minute, in [`Scenario::unit`].
    pub(crate) fn per_minute(&self) -> u64 {
        match self.args.limit {
            Limit::Requests => REQUESTS_PER_MINUTE,
            Limit::Tokens => TOKENS_PER_MINUTE,
        }
    }

    /// What the limit counts.
    pub(crate) fn unit(&self) -> &'static str {
        match self.args.limit {
            Limit::Requests => "requests",
            Limit::Tokens => "tokens",
        }
    }

    /// The dimension of the limit, as policies and emulators name it.
    pub(crate) fn dimension(&self) -> &'static str {
        match self.args.limit {
            Limit::Requests => "requestsPerMinute",
            Limit::Tokens => "tokensPerMinute",
        }
    }

    /// What the limit allows per second, in its unit.
    pub(crate) fn per_second(&self) -> f64 {
        as_float(self.per_minute()) / 60.0
    }

    /// What a full bucket holds.
    pub(crate) fn burst(&self) -> u64 {
        self.per_minute() * u64::from(BURST_PERCENT) / 100
    }

    /// Calls per second of a class, over all pods.
    pub(crate) fn calls_per_second(&self, class: usize) -> f64 {
        let overload = self.args.overload;
        let interactive = INTERACTIVE_SHARE.min(overload / 3.0);
        let share = match class {
            0 => interactive,
            _ => (overload - interactive) / as_float(CLASSES.len() as u64 - 1),
        };
        share * self.per_second() / self.cost_per_call
    }

    /// Which pods ask.
    pub(crate) fn asking_pods(&self) -> usize {
        match self.args.demand {
            Demand::Even => self.pods(),
            Demand::OnePod => 1,
        }
    }

    pub(crate) fn pods(&self) -> usize {
        usize::from(self.args.sidecars)
    }

    /// The middle, where things are killed.
    pub(crate) fn middle(&self) -> Duration {
        self.args.duration / 2
    }

    /// The pods that are killed in the middle: the first half, so that with one asking pod it is that
    /// one. At least one is left.
    pub(crate) fn dying_pods(&self) -> usize {
        if self.args.kill_sidecars { self.pods() / 2 } else { 0 }
    }

    pub(crate) fn sizes(&self) -> Sizes {
        sizes(self.args.limit)
    }

    /// The configuration of each emulator; windows begin `phase_ms` after the full minute.
    pub(crate) fn emulator(&self, phase_ms: u64) -> Config {
        let limit = LimitConfig {
            requests_per_minute: Some(match self.args.limit {
                Limit::Requests => REQUESTS_PER_MINUTE,
                Limit::Tokens => AMPLE_REQUESTS_PER_MINUTE,
            }),
            tokens_per_minute: (self.args.limit == Limit::Tokens).then_some(TOKENS_PER_MINUTE),
            window: match self.args.limiter {
                Limiter::TokenBucket => Window::TokenBucket,
                Limiter::FixedWindow => Window::FixedWindow,
            },
            burst_percent: BURST_PERCENT,
            window_phase_ms: phase_ms,
            ..LimitConfig::named(MODEL, &[MODEL])
        };
        let (tokens, spread) = self.sizes().output_tokens;
        Config {
            openai: vec![limit],
            anthropic: Vec::new(),
            // OpenAI's documents say that refused requests count as well. Then whoever retries hard
            // enough is never let in again: the demo does not need that to make its point.
            count_rejected: Some(false),
            headers: if self.args.hide_reset { Headers::NoLimits } else { Headers::Full },
            latency: Latency { first_token_ms: 200, spread: 0.3, tokens_per_second: 200 },
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a small positive constant"
            )]
            output: Output { tokens: tokens as u64, spread },
            seed: self.args.seed,
            ..Config::default()
        }
    }

    /// The policy of Weir's run: the same limit at `endpoint`, the classes, and one quota for all pods
    /// that permits all classes. JSON is YAML.
    pub(crate) fn policy(&self, endpoint: &str) -> Vec<(&'static str, String)> {
        let api = "weir.dev/v1alpha1";
        let mut limit = json!({
            "name": MODEL,
            "models": [MODEL],
            "requestsPerMinute": REQUESTS_PER_MINUTE,
        });
        if self.args.limit == Limit::Tokens {
            limit["requestsPerMinute"] = AMPLE_REQUESTS_PER_MINUTE.into();
            limit["tokensPerMinute"] = TOKENS_PER_MINUTE.into();
        }
        match self.args.limiter {
            Limiter::TokenBucket => {
                limit["window"] = "TokenBucket".into();
                limit["burstPercent"] = BURST_PERCENT.into();
            }
            Limiter::FixedWindow => limit["window"] = "FixedWindow".into(),
        }
        let provider = json!({
            "apiVersion": api, "kind": "LLMProvider", "metadata": {"name": PROVIDER},
            "spec": {"protocol": "OpenAI", "endpoint": endpoint, "limits": [limit]},
        });
        let highest = CLASSES[0].value;
        let holdback = match self.args.limit {
            Limit::Requests => HOLDBACK_PERCENT_REQUESTS,
            Limit::Tokens => HOLDBACK_PERCENT_TOKENS,
        };
        let classes = CLASSES.iter().map(|class| {
            json!({
                "apiVersion": api, "kind": "LLMPriorityClass", "metadata": {"name": class.name},
                "spec": {
                    "value": class.value,
                    "minSharePercent": MIN_SHARE_PERCENT,
                    "holdbackPercent": if class.value == highest { holdback } else { 0 },
                    "description": class.description,
                },
            })
        });
        let quota = json!({
            "apiVersion": api, "kind": "LLMQuota",
            "metadata": {"namespace": "demo", "name": "app"},
            "spec": {
                "selector": {"matchLabels": {"app": "demo"}},
                "priorityClassName": CLASSES[1].name,
                "permittedClasses": CLASSES.map(|class| class.name),
                "budgets": [{"provider": PROVIDER}],
                "queue": {"maxWait": QUEUE.0, "maxRequests": QUEUE.1},
            },
        });
        let classes = classes.map(|class| class.to_string()).collect::<Vec<_>>().join("\n---\n");
        vec![
            ("provider.yaml", provider.to_string()),
            ("classes.yaml", classes),
            ("quota.yaml", quota.to_string()),
        ]
    }
}

/// With a limit on tokens, sizes as those of chats, small against the bucket; else small ones, which
/// leave the processors to the parts that are shown.
fn sizes(limit: Limit) -> Sizes {
    match limit {
        Limit::Requests => Sizes {
            prompt_bytes: (400.0, 0.5),
            max_tokens: (64.0, 0.0),
            output_tokens: (16.0, 0.5),
        },
        Limit::Tokens => Sizes {
            prompt_bytes: (800.0, 0.8),
            max_tokens: (160.0, 0.5),
            output_tokens: (64.0, 0.5),
        },
    }
}

/// Limits and counts as numbers to reckon with.
#[expect(clippy::cast_precision_loss, reason = "they are far below 2^52")]
pub(crate) fn as_float(number: u64) -> f64 {
    number as f64
}
