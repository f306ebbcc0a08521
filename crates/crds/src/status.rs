//! What the leading allocator writes into the kinds' status: what people look at.
//!
//! Every figure is the one that the ledger decides with. Types of conditions are constants here, so that
//! whoever writes them and whoever reads them mean the same.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// All of the object is in force as it was written.
pub const READY: &str = "Ready";
/// Requests wait or are refused because a budget is used up.
pub const THROTTLED: &str = "Throttled";
/// Guarantees or minimum shares come to more than there is.
pub const OVERCOMMITTED: &str = "Overcommitted";
/// Some of the pods cannot be held to the quota, or go without an allocator.
pub const DEGRADED: &str = "Degraded";

/// What becomes of a quota.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuotaStatus {
    /// The generation of the specification that all of this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready, Throttled and Degraded, each with a reason.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The class of its pods' requests that choose none.
    #[serde(default)]
    pub class: String,

    /// Pods with a sidecar to which this quota applies.
    #[serde(default)]
    pub pods: u32,

    /// Those of them that are connected to the allocator.
    #[serde(default)]
    pub connected_pods: u32,

    /// Requests that wait at its pods now.
    #[serde(default)]
    pub waiting: u32,

    /// Requests that its pods have refused since they started.
    #[serde(default)]
    pub refused: u64,

    /// What it used in the last minute of the budget that is used most, of what that allows.
    #[serde(default)]
    pub used: String,

    /// The budget that is used most: PROVIDER/LIMIT/DIMENSION.
    #[serde(default)]
    pub binding: String,

    /// What it holds and uses of each budget.
    #[serde(default)]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub budgets: Vec<BudgetUse>,
}

/// What becomes of a provider.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProviderStatus {
    /// The generation of the specification that all of this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready, Throttled and Overcommitted, each with a reason.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// LLMQuotas that use it.
    #[serde(default)]
    pub quotas: u32,

    /// What all used in the last minute of the budget that is used most, of what that allows.
    #[serde(default)]
    pub used: String,

    /// The budget that is used most: PROVIDER/LIMIT/DIMENSION.
    #[serde(default)]
    pub binding: String,

    /// What all hold and use of each budget.
    #[serde(default)]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub budgets: Vec<BudgetUse>,
}

/// What becomes of a class.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PriorityClassStatus {
    /// The generation of the specification that all of this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready and Overcommitted, each with a reason.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// LLMQuotas whose pods have this class.
    #[serde(default)]
    pub quotas: u32,
}

/// One budget, as one holder or all of them see it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BudgetUse {
    /// PROVIDER/LIMIT/DIMENSION.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,

    /// What the budget allows: per minute, per day, or in flight, as its dimension says.
    #[serde(default)]
    pub limit: u64,

    /// What may be used of it without asking, per minute.
    #[serde(default)]
    pub leased_per_minute: u64,

    /// What was charged in the last minute.
    #[serde(default)]
    pub used_last_minute: u64,

    /// Requests in the allocator's queue that wait for it.
    #[serde(default)]
    pub waiting: u64,
}
