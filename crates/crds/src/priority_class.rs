//! `LLMPriorityClass`: who goes first.

use crate::status::PriorityClassStatus;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// A priority class: who goes first.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "weir.dev",
    version = "v1alpha1",
    kind = "LLMPriorityClass",
    plural = "llmpriorityclasses",
    shortname = "llmpc",
    category = "weir",
    derive = "PartialEq",
    doc = "A priority class: who goes first when demand exceeds a limit. Guarantees and minimum shares come first, then every unit of surplus goes to the highest class that asks for it.",
    printcolumn(name = "Value", type_ = "integer", json_path = ".spec.value"),
    status = "PriorityClassStatus",
    printcolumn(name = "Quotas", type_ = "integer", json_path = ".status.quotas"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Default", type_ = "boolean", json_path = ".spec.globalDefault"),
    printcolumn(
        name = "Description",
        type_ = "string",
        json_path = ".spec.description",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct PriorityClassSpec {
    /// The rank of the class: a higher one goes first.
    #[schemars(range(min = -1_000_000_000, max = 1_000_000_000))]
    pub value: i32,

    /// What the class gets of each budget whatever higher classes demand, in percent. The minimum
    /// shares of all classes must not come to more than 100.
    #[serde(default = "min_share_percent")]
    #[schemars(with = "i32", range(min = 0, max = 100))]
    pub min_share_percent: u32,

    /// What of each budget's burst lower classes leave untouched for this one, in percent.
    #[serde(default)]
    #[schemars(with = "i32", range(min = 0, max = 100))]
    pub holdback_percent: u32,

    /// Whether this is the class of quotas that name none. At most one class may say so.
    #[serde(default)]
    pub global_default: bool,

    /// For whom the class is, in a sentence for people who choose one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1_024))]
    pub description: String,
}

/// What is wrong with a global default where `first` is one already.
pub fn second_default(first: &str) -> String {
    format!(
        "LLMPriorityClass {first} is the global default already, and only one can be: set its \
         globalDefault to false first"
    )
}

pub(crate) fn min_share_percent() -> u32 {
    2
}
