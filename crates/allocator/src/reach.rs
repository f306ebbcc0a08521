//! What a policy is for one pod, and whether it fits the wire.

use std::collections::BTreeMap;

use quota::policy::{Policy, Quota};
use wire::FromAllocator;

/// How many quotas a message to people names.
const NEAR_MAX: usize = 5;

/// What to send to a pod of these labels.
pub(crate) fn for_pod(
    policy: &Policy,
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> FromAllocator {
    match policy.for_pod(namespace, labels) {
        Some(policy) => FromAllocator::Policy(Box::new(policy)),
        None => FromAllocator::NoQuota {
            generation: policy.generation,
            explain: no_quota(policy, namespace),
        },
    }
}

/// Why no quota matches, and what to do about it.
fn no_quota(policy: &Policy, namespace: &str) -> String {
    let mut near = policy.quotas.iter().filter(|quota| *quota.namespace == *namespace).peekable();
    if near.peek().is_none() {
        return format!(
            "there is no LLMQuota in namespace {namespace}: create one whose selector matches the \
             pod's labels"
        );
    }
    let names: Vec<&str> = near.map(|quota| &*quota.name).take(NEAR_MAX).collect();
    format!(
        "no LLMQuota of namespace {namespace} ({}) has a selector that matches the pod's labels",
        names.join(", ")
    )
}

/// Quotas whose pods could not be told their policy, because it breaks a bound of the wire.
pub(crate) fn untold(policy: &Policy) -> Vec<String> {
    let problem = |quota: &Quota| {
        let problem = for_pod(policy, &quota.namespace, &quota.selector).check().err()?;
        Some(format!("LLMQuota {}: its policy cannot be sent to pods: {problem}", quota.key()))
    };
    policy.quotas.iter().filter_map(problem).collect()
}
