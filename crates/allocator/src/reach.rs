//! What a policy is for one pod, and whether it fits the wire.

use std::collections::BTreeMap;

use quota::policy::{Policy, Provider, Quota};
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

/// What to send to a pod that was sent what `before` is for it; `None` if it is the same. Most changes are
/// of one workload, and there are thousands of pods.
pub(crate) fn news(before: &Policy, policy: &Policy, pod: &Pod) -> Option<FromAllocator> {
    let is_same = match (parts(before, pod), parts(policy, pod)) {
        (Some(before), Some(now)) => before == now,
        (None, None) => no_quota(before, &pod.namespace) == no_quota(policy, &pod.namespace),
        _ => false,
    };
    (!is_same).then(|| for_pod(policy, pod))
}

/// All of a policy that decides what a pod is sent, but for its generation.
#[derive(PartialEq)]
struct Parts<'a> {
    quota: &'a Quota,
    providers: Vec<&'a Provider>,
    classes: Vec<(&'a str, i32)>,
}

fn parts<'a>(policy: &'a Policy, pod: &Pod) -> Option<Parts<'a>> {
    let quota = policy.quota_of(&pod.namespace, &pod.labels)?;
    let providers = policy.providers.values().filter(|it| quota.uses_provider(&it.name));
    let classes = policy.classes.values().filter(|class| quota.permits(&class.name));
    let classes = classes.map(|class| (&*class.name, class.value));
    Some(Parts { quota, providers: providers.collect(), classes: classes.collect() })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(workloads: &[(&str, u32)], class_value: i32) -> Policy {
        let quotas = workloads.iter().map(|(name, most)| {
            format!(
                "---\napiVersion: weir.dev/v1alpha1\nkind: LLMQuota\n\
                 metadata: {{namespace: shop, name: {name}}}\n\
                 spec: {{selector: {{matchLabels: {{app: {name}}}}}, budgets: [{{provider: openai}}], \
                 queue: {{maxRequests: {most}}}}}\n"
            )
        });
        let others = format!(
            "apiVersion: weir.dev/v1alpha1\nkind: LLMProvider\nmetadata: {{name: openai}}\n\
             spec: {{protocol: OpenAI, endpoint: \"https://api.openai.com\", \
             limits: [{{name: all, models: [\"*\"], requestsPerMinute: 60}}]}}\n\
             ---\napiVersion: weir.dev/v1alpha1\nkind: LLMPriorityClass\nmetadata: {{name: normal}}\n\
             spec: {{value: {class_value}, globalDefault: true}}\n"
        );
        let text: String = std::iter::once(others).chain(quotas).collect();
        crds::directory::read(&[("policy.yaml", &text)]).unwrap().policy
    }

    #[test]
    fn a_pod_is_told_of_a_change_that_concerns_it_and_of_no_other() {
        let pod = |app: &str| Pod {
            namespace: "shop".to_owned(),
            labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
            class: None,
        };
        let before = policy(&[("chat", 1), ("search", 1)], 0);
        let is_told = |after: &Policy, app: &str| news(&before, after, &pod(app)).is_some();
        let same = Policy { generation: 7, ..before.clone() };
        let [other, class, gone] = [
            policy(&[("chat", 2), ("search", 1)], 0),
            policy(&[("chat", 1), ("search", 1)], 5),
            policy(&[("chat", 1)], 0),
        ];
        for (after, app, expected) in [
            (&same, "chat", false),
            (&other, "chat", true),
            (&other, "search", false),
            (&class, "search", true),
            (&gone, "search", true),
            (&gone, "chat", false),
            // Its explanation names the quotas that there are.
            (&gone, "nobody", true),
            (&other, "nobody", false),
        ] {
            assert_eq!(is_told(after, app), expected, "{app}: {:?}", after.quotas);
        }
    }
}
