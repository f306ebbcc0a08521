//! `LLMQuota`: what a workload may take.
//!
//! Each CEL rule has its twin in [`crate::validate`], with the same message.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::{CustomResource, KubeSchema};
use quota::dimension::Dimension;
use quota::policy;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration;
use crate::figure::Figure;
use crate::status::QuotaStatus;

/// The longest wait of a request, six times the longest default timeout of an SDK.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(3_600);
pub(crate) const WAIT_MESSAGE: &str = "maxWait is at most 1h";

pub(crate) const BUDGETS_RULE: &str = "self.all(a, self.exists_one(b, a.provider == b.provider && \
     (has(a.limit) ? a.limit : '') == (has(b.limit) ? b.limit : '')))";
pub(crate) const BUDGETS_MESSAGE: &str =
    "two entries name the same provider and limit: write them as one";

pub(crate) const CEILING_MESSAGE: &str =
    "a guarantee is above its ceiling: raise the ceiling or lower the guarantee";

/// What a workload may take.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "weir.dev",
    version = "v1alpha1",
    kind = "LLMQuota",
    plural = "llmquotas",
    shortname = "llmq",
    category = "weir",
    namespaced,
    derive = "PartialEq",
    doc = "What a workload, the pods that the selector matches, may take of providers' limits. When several quotas match a pod exactly one applies: the one of the highest class, then of the most selector labels, then the first by name.",
    status = "QuotaStatus",
    printcolumn(name = "Class", type_ = "string", json_path = ".status.class"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.pods"),
    printcolumn(name = "Used", type_ = "string", json_path = ".status.used"),
    printcolumn(name = "Of", type_ = "string", json_path = ".status.binding"),
    printcolumn(name = "Waiting", type_ = "integer", json_path = ".status.waiting"),
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
    printcolumn(name = "Weight", type_ = "integer", json_path = ".spec.weight", priority = 1),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode", priority = 1),
    printcolumn(name = "Refused", type_ = "integer", json_path = ".status.refused", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct QuotaSpec {
    /// The pods of this namespace that share the quota.
    #[serde(default)]
    pub selector: Selector,

    /// The LLMPriorityClass of the pods' requests. Default: the class with globalDefault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,

    /// Other classes that a pod's annotation or a request's x-weir-priority header may choose.
    #[serde(default)]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub permitted_classes: Vec<String>,

    /// The workload's share among workloads of the same class.
    #[serde(default = "one")]
    #[schemars(with = "i32", range(min = 1, max = 1_000))]
    pub weight: u32,

    /// The providers and limits that the workload may use. It may use no other.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new(BUDGETS_RULE).message(BUDGETS_MESSAGE))]
    pub budgets: Vec<BudgetSpec>,

    /// How requests wait when they cannot be admitted at once.
    #[serde(default)]
    pub queue: QueueSpec,

    /// Bounds on a single request.
    #[serde(default)]
    pub per_request: PerRequest,

    /// What happens when no allocator answers, to a request that the pod's own lease and floor
    /// cannot serve. It waits first, within `queue.maxWait`: up to 60 s with Floor and Closed, which
    /// refuse it then, and up to 5 s with Open, which lets it through. Closed makes no use of
    /// floors.
    #[serde(default)]
    pub on_allocator_loss: OnAllocatorLoss,

    /// Whether limits are enforced: Enforce makes requests wait or refuses them, Shadow counts
    /// them and lets them pass, Off lets them pass uncounted.
    #[serde(default)]
    pub mode: Mode,
}

/// Which pods of the namespace share the quota.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels that a pod must carry; empty matches every pod of the namespace.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 32))]
    pub match_labels: BTreeMap<String, String>,
}

/// Permission to use a provider, or one limit of it.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(ceiling_rule()).message(CEILING_MESSAGE))]
pub struct BudgetSpec {
    /// The LLMProvider.
    #[schemars(length(min = 1, max = 63))]
    pub provider: String,

    /// One limit of the provider. Default: every limit of the provider; figures of an entry that
    /// names a limit go before those of one that does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub limit: Option<String>,

    /// What the workload gets before anybody's surplus. It is lent to others while idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guaranteed: Option<PerMinute>,

    /// What the workload never exceeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<PerMinute>,
}

/// Figures per minute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PerMinute {
    /// Requests per minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<Figure>,

    /// Input and output tokens per minute together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<Figure>,

    /// Input tokens per minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens_per_minute: Option<Figure>,

    /// Output tokens per minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens_per_minute: Option<Figure>,
}

/// How requests wait.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueSpec {
    /// The longest wait of a request: h, m, s and ms in this order, as in 10s or 500ms; at most
    /// 1h. 0s refuses at once.
    #[serde(default = "max_wait")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new(duration::RULE).message(duration::MESSAGE))]
    #[x_kube(validation = Rule::new(duration::at_most(WAIT_MAX)).message(WAIT_MESSAGE))]
    pub max_wait: String,

    /// How many requests of one pod wait at once; further ones are refused.
    #[serde(default = "max_requests")]
    #[schemars(with = "i32", range(min = 0, max = 10_000))]
    pub max_requests: u32,
}

/// Bounds on a single request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PerRequest {
    /// The most tokens that one request may ask for: its prompt and the cap on its output
    /// together. Default: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<Figure>,
}

/// What happens to a request that neither lease nor floor serves, when no allocator answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnAllocatorLoss {
    /// Refuse what floors cannot serve.
    #[default]
    Floor,
    /// Refuse what leases cannot serve.
    Closed,
    /// Let it through: the provider may answer 429.
    Open,
}

/// Whether limits are enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Requests pass, uncounted.
    Off,
    /// Requests pass at once, counted as if they had been admitted.
    Shadow,
    /// Requests wait or are refused.
    #[default]
    Enforce,
}

// === impl PerMinute ===

impl PerMinute {
    /// The dimensions that it has figures for.
    pub(crate) const DIMENSIONS: [Dimension; 4] = [
        Dimension::RequestsPerMinute,
        Dimension::TokensPerMinute,
        Dimension::InputTokensPerMinute,
        Dimension::OutputTokensPerMinute,
    ];

    /// The figures that are set, in the order of [`Dimension::ALL`].
    pub fn figures(&self) -> impl Iterator<Item = (Dimension, Figure)> {
        PerMinute::DIMENSIONS
            .into_iter()
            .zip([
                self.requests_per_minute,
                self.tokens_per_minute,
                self.input_tokens_per_minute,
                self.output_tokens_per_minute,
            ])
            .filter_map(|(dimension, figure)| figure.map(|figure| (dimension, figure)))
    }

    /// The figure of one dimension.
    pub fn get(&self, dimension: Dimension) -> Option<Figure> {
        self.figures().find(|(other, _)| *other == dimension).map(|(_, figure)| figure)
    }
}

// === impl QueueSpec ===

impl Default for QueueSpec {
    fn default() -> QueueSpec {
        QueueSpec { max_wait: max_wait(), max_requests: max_requests() }
    }
}

// === impl OnAllocatorLoss ===

impl From<OnAllocatorLoss> for policy::OnLoss {
    fn from(loss: OnAllocatorLoss) -> policy::OnLoss {
        match loss {
            OnAllocatorLoss::Floor => policy::OnLoss::Floor,
            OnAllocatorLoss::Closed => policy::OnLoss::Closed,
            OnAllocatorLoss::Open => policy::OnLoss::Open,
        }
    }
}

// === impl Mode ===

impl From<Mode> for policy::Mode {
    fn from(mode: Mode) -> policy::Mode {
        match mode {
            Mode::Off => policy::Mode::Off,
            Mode::Shadow => policy::Mode::Shadow,
            Mode::Enforce => policy::Mode::Enforce,
        }
    }
}

/// No figure of `guaranteed` is above its figure of `ceiling`.
fn ceiling_rule() -> String {
    let parts = PerMinute::DIMENSIONS.map(|d| {
        format!(
            "(!has(self.guaranteed.{d}) || !has(self.ceiling.{d}) || \
             self.guaranteed.{d} <= self.ceiling.{d})"
        )
    });
    format!("!has(self.guaranteed) || !has(self.ceiling) || ({})", parts.join(" && "))
}

fn one() -> u32 {
    1
}

fn max_wait() -> String {
    "10s".into()
}

fn max_requests() -> u32 {
    200
}
