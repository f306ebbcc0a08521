//! `LLMProvider`: an account at a provider, and what it allows.
//!
//! The structs are the schema: doc comments become `kubectl explain`, attributes become bounds,
//! defaults and CEL rules. Each CEL rule has its twin in [`crate::validate`], with the same message.

use std::time::Duration;

use kube::{CustomResource, KubeSchema};
use quota::budget::{Budget, BudgetId, Shape};
use quota::dimension::{self, Dimension};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration;
use crate::endpoint;
use crate::figure::Figure;
use crate::status::ProviderStatus;

/// The rule for names of keys and limits, which become part of budgets' names.
pub(crate) const NAME_RULE: &str = "self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')";
pub(crate) const NAME_MESSAGE: &str = "may hold lower-case letters, digits, - and . only, and must begin and end with a letter or digit";

pub(crate) const RESERVED_MESSAGE: &str = "an LLMProvider's name is the first path segment on the \
     sidecar: choose one of at most 63 characters, other than v1, which is taken";

pub(crate) const FIGURES_RULE: &str = "has(self.requestsPerMinute) || has(self.tokensPerMinute) || \
     has(self.inputTokensPerMinute) || has(self.outputTokensPerMinute) || \
     has(self.requestsPerDay) || has(self.tokensPerDay) || has(self.concurrentRequests)";
pub(crate) const FIGURES_MESSAGE: &str =
    "a limit needs at least one figure, for example requestsPerMinute";

pub(crate) const BURST_RULE: &str =
    "!has(self.burstPercent) || !has(self.window) || self.window == 'TokenBucket'";
pub(crate) const BURST_MESSAGE: &str =
    "burstPercent shapes a token bucket: remove it, or set window to TokenBucket";

pub(crate) const IMMUTABLE_MESSAGE: &str =
    "protocol cannot be changed: create another LLMProvider and move the quotas over";

/// The longest time on floors: a day without an allocator is an outage of its own.
pub(crate) const FLOOR_MAX: Duration = Duration::from_secs(24 * 3_600);
pub(crate) const FLOOR_MESSAGE: &str = "floorDuration is at most 24h";

/// An account at an LLM provider and what it allows.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "weir.dev",
    version = "v1alpha1",
    kind = "LLMProvider",
    plural = "llmproviders",
    shortname = "llmp",
    category = "weir",
    derive = "PartialEq",
    doc = "An account at an LLM provider and what it allows. Its name is the first path segment on the sidecar: http://127.0.0.1:7410/NAME/...",
    validation = Rule::new("self.metadata.name != 'v1' && size(self.metadata.name) <= 63")
        .message(RESERVED_MESSAGE),
    printcolumn(name = "Protocol", type_ = "string", json_path = ".spec.protocol"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec.endpoint", priority = 1),
    status = "ProviderStatus",
    printcolumn(name = "Used", type_ = "string", json_path = ".status.used"),
    printcolumn(name = "Of", type_ = "string", json_path = ".status.binding"),
    printcolumn(name = "Quotas", type_ = "integer", json_path = ".status.quotas"),
    printcolumn(
        name = "Throttled",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Throttled\")].status"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Limits", type_ = "string", json_path = ".spec.limits[*].name", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ProviderSpec {
    /// The language the provider speaks. It decides how requests are read and charged and which
    /// shape refusals have. It cannot be changed.
    #[x_kube(validation = Rule::new("self == oldSelf").message(IMMUTABLE_MESSAGE))]
    pub protocol: Protocol,

    /// Where the provider is: `https://`, host, and port and path if need be, without the /v1 that
    /// applications add themselves. `http://` is accepted for loopback and private addresses,
    /// localhost, and names inside the cluster.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new(endpoint::FORM_RULE).message(endpoint::FORM_MESSAGE))]
    #[x_kube(validation = Rule::new(endpoint::PLAIN_RULE).message(endpoint::PLAIN_MESSAGE))]
    pub endpoint: String,

    /// Keys of the account, in Secrets in the allocator's namespace. Sidecars use them in place of
    /// what the application sends. Without any, the application's own key passes through.
    #[serde(default)]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub keys: Vec<KeySpec>,

    /// The limits of the account. A call counts against every limit that names its model; a call
    /// of a model that no limit names passes, counted.
    #[serde(default)]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub limits: Vec<LimitSpec>,
}

/// The language a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// api.openai.com
    OpenAI,
    /// api.anthropic.com
    Anthropic,
    /// Any server that answers as OpenAI does.
    OpenAICompatible,
}

/// One key of the account.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeySpec {
    /// The alias of the key, which may be shown where the key itself may not.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new(NAME_RULE).message(NAME_MESSAGE))]
    pub name: String,

    /// Where the key is.
    pub secret_ref: SecretRef,

    /// The key's share of the calls, relative to the other keys that serve the model.
    #[serde(default = "one")]
    #[schemars(with = "i32", range(min = 1, max = 1_000))]
    pub weight: u32,

    /// Patterns (* stands for any run of characters) of the models that the key may be used for;
    /// empty for all.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub models: Vec<String>,
}

/// One entry of a Secret in the allocator's namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// The entry of its data that holds the key.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// One shared limit over the models it names.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(FIGURES_RULE).message(FIGURES_MESSAGE))]
#[x_kube(validation = Rule::new(BURST_RULE).message(BURST_MESSAGE))]
pub struct LimitSpec {
    /// The limit's name within the provider; LLMQuotas refer to it.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new(NAME_RULE).message(NAME_MESSAGE))]
    pub name: String,

    /// Patterns (* stands for any run of characters) of the models that share the limit; "*" for
    /// all.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub models: Vec<String>,

    /// Requests per minute (RPM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<Figure>,

    /// Input and output tokens per minute together (TPM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<Figure>,

    /// Input tokens per minute (ITPM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens_per_minute: Option<Figure>,

    /// Output tokens per minute (OTPM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens_per_minute: Option<Figure>,

    /// Requests per day (RPD), counted from midnight UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_day: Option<Figure>,

    /// Input and output tokens per day together (TPD), counted from midnight UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<Figure>,

    /// Requests in flight at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent_requests: Option<Figure>,

    /// How the provider enforces figures per minute: TokenBucket refills continuously, FixedWindow
    /// counts from zero at each edge. Default: what the protocol's provider does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,

    /// What a token bucket holds when full, in percent of a minute's worth. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 1_000))]
    pub burst_percent: Option<u32>,

    /// What active pods together may go on using when no allocator answers, in percent.
    #[serde(default = "floor_percent")]
    #[schemars(with = "i32", range(min = 0, max = 100))]
    pub floor_percent: u32,

    /// For how long they may: h, m, s and ms in this order, as in 1h or 1h30m; at most 24h.
    #[serde(default = "floor_duration")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new(duration::RULE).message(duration::MESSAGE))]
    #[x_kube(validation = Rule::new(duration::at_most(FLOOR_MAX)).message(FLOOR_MESSAGE))]
    pub floor_duration: String,
}

/// How a provider enforces figures per minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Window {
    /// Refills continuously.
    TokenBucket,
    /// Counts from zero at each edge.
    FixedWindow,
}

// === impl LimitSpec ===

impl LimitSpec {
    /// The figures that are set, in the order of [`Dimension::ALL`].
    pub fn figures(&self) -> impl Iterator<Item = (Dimension, Figure)> {
        Dimension::ALL.into_iter().filter_map(|dimension| {
            let figure = match dimension {
                Dimension::RequestsPerMinute => self.requests_per_minute,
                Dimension::TokensPerMinute => self.tokens_per_minute,
                Dimension::InputTokensPerMinute => self.input_tokens_per_minute,
                Dimension::OutputTokensPerMinute => self.output_tokens_per_minute,
                Dimension::RequestsPerDay => self.requests_per_day,
                Dimension::TokensPerDay => self.tokens_per_day,
                Dimension::ConcurrentRequests => self.concurrent_requests,
            };
            figure.map(|figure| (dimension, figure))
        })
    }

    /// The budgets that its figures make as a limit of `provider`.
    pub(crate) fn budgets(&self, provider: &LLMProvider) -> Vec<Budget> {
        let default = Shape::default();
        let protocol = dimension::Protocol::from(provider.spec.protocol);
        let shape = Shape {
            window: self.window.map_or_else(|| protocol.default_window(), Into::into),
            burst_percent: self.burst_percent.unwrap_or(default.burst_percent),
            floor_percent: self.floor_percent,
            floor_duration: duration::parse(&self.floor_duration).unwrap_or(default.floor_duration),
        };
        let provider = provider.metadata.name.as_deref().unwrap_or_default();
        self.figures()
            .map(|(dimension, figure)| {
                let id = BudgetId::new(provider, &self.name, dimension);
                Budget::new(id, dimension, figure.0, shape)
            })
            .collect()
    }
}

impl From<Protocol> for dimension::Protocol {
    fn from(protocol: Protocol) -> dimension::Protocol {
        match protocol {
            Protocol::OpenAI => dimension::Protocol::OpenAi,
            Protocol::Anthropic => dimension::Protocol::Anthropic,
            Protocol::OpenAICompatible => dimension::Protocol::OpenAiCompatible,
        }
    }
}

impl From<Window> for dimension::Window {
    fn from(window: Window) -> dimension::Window {
        match window {
            Window::TokenBucket => dimension::Window::TokenBucket,
            Window::FixedWindow => dimension::Window::FixedWindow,
        }
    }
}

fn one() -> u32 {
    1
}

fn floor_percent() -> u32 {
    20
}

fn floor_duration() -> String {
    "1h".into()
}
