//! What a policy is for one pod, and whether it fits the wire.

use std::collections::BTreeMap;

use quota::policy::{Policy, Quota};
use wire::FromAllocator;

/// How many quotas a message to people names.
const NEAR_MAX: usize = 5;

/// What decides a pod's policy.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// The class that the pod chooses for its requests, if its quota permits it.
    pub(crate) class: Option<String>,
}

/// What to send to a pod.
pub(crate) fn for_pod(policy: &Policy, pod: &Pod) -> FromAllocator {
    match policy.for_pod(&pod.namespace, &pod.labels) {
        Some(mut for_pod) => {
            let chosen = pod.class.as_deref().filter(|class| for_pod.quota.permits(class));
            if let Some((class, _)) = chosen.and_then(|class| policy.classes.get_key_value(class)) {
                // The quota's own class stays among those that a request may choose.
                let default = std::mem::replace(&mut for_pod.quota.class, class.clone());
                if !for_pod.quota.permitted.contains(&default) {
                    for_pod.quota.permitted.push(default);
                }
            }
            FromAllocator::Policy(Box::new(for_pod))
        }
        None => FromAllocator::NoQuota {
            generation: policy.generation,
            explain: no_quota(policy, &pod.namespace),
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

/// Quotas whose pods could not be told their policy, because it breaks a bound of the wire: their
/// places in the policy, and what is wrong.
pub(crate) fn untold(policy: &Policy) -> Vec<(usize, String)> {
    let problem = |quota: &Quota| {
        let problem = for_pod(policy, &pod_of(quota)).check().err()?;
        Some(format!("LLMQuota {}: its policy cannot be sent to pods: {problem}", quota.key()))
    };
    let problems = policy.quotas.iter().enumerate();
    problems.filter_map(|(index, quota)| Some((index, problem(quota)?))).collect()
}

/// A pod that the quota matches.
fn pod_of(quota: &Quota) -> Pod {
    Pod { namespace: quota.namespace.to_string(), labels: quota.selector.clone(), class: None }
}
