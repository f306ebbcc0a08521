use std::sync::LazyLock;

use crds::compile::{Objects, compile};
use quota::ledger::BudgetStatus;
use serde_json::{Value, json};

use super::*;

const BUDGET: &str = "openai/gpt/requestsPerMinute";

fn object<K: serde::de::DeserializeOwned>(kind: &str, name: &str, spec: Value) -> K {
    serde_json::from_value(json!({
        "apiVersion": "weir.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop"},
        "spec": spec,
    }))
    .unwrap()
}

/// An account of 600 requests a minute, and quotas `chat` (in order), `lost` (of a class and a provider
/// that do not exist).
static COMPILED: LazyLock<(Policy, Vec<Problem>)> = LazyLock::new(|| {
    let limit = json!({"name": "gpt", "models": ["*"], "requestsPerMinute": 600});
    let provider = json!({
        "protocol": "OpenAI", "endpoint": "https://api.openai.com", "limits": [limit],
    });
    let guaranteed = json!({"requestsPerMinute": 700});
    let chat = json!({
        "selector": {"matchLabels": {"app": "chat"}},
        "budgets": [{"provider": "openai", "guaranteed": guaranteed}],
    });
    let lost = json!({
        "selector": {"matchLabels": {"app": "lost"}},
        "priorityClassName": "gone",
        "budgets": [{"provider": "opnai"}],
    });
    let objects = Objects {
        providers: vec![object("LLMProvider", "openai", provider)],
        quotas: vec![object("LLMQuota", "chat", chat), object("LLMQuota", "lost", lost)],
        ..Objects::default()
    };
    let (compiled, errors) = compile(&objects);
    assert!(errors.is_empty(), "{errors:?}");
    (compiled.policy, compiled.warnings)
});

/// What `chat` has used, and how many of its requests wait.
fn ledger(used: u64, all: u64, waiting: u32) -> Status {
    let id = BudgetId::from_wire(BUDGET);
    let budget = BudgetStatus {
        effective: Rate::from_micros(10_000_000),
        leased: Rate::from_micros(3_000_000),
        caps: Amount::ZERO,
        credited: Amount::ZERO,
        level: 0,
        used_last_minute: Amount::from_units(all),
        waiting: 2,
    };
    let workload = WorkloadStatus {
        connected: 3,
        waiting,
        refused: 0,
        provider_429: 0,
        leased: BTreeMap::from([(id.clone(), Rate::from_micros(1_000_000))]),
        used_last_minute: BTreeMap::from([(id.clone(), Amount::from_units(used))]),
    };
    Status {
        budgets: BTreeMap::from([(id, budget)]),
        workloads: BTreeMap::from([("shop/chat".into(), workload)]),
        ..Status::default()
    }
}

fn findings(ledger: &Status, name: &str, pods: u32) -> Vec<(bool, &'static str, String)> {
    let (policy, warnings) = &*COMPILED;
    let pods = BTreeMap::from([(format!("shop/{name}").into(), pods)]);
    let facts =
        Facts { policy, warnings, errors: &[], ledger, pods: &pods, bare: &BTreeMap::new() };
    let quota = policy.quotas.iter().find(|quota| *quota.name == *name).unwrap();
    let found = facts.quota_findings(quota, &facts.quota_use(quota));
    found.into_iter().map(|it| (it.holds, it.reason, it.message)).collect()
}

#[test]
fn a_quota_says_what_it_uses_of_the_budget_that_is_used_most() {
    let (policy, warnings) = &*COMPILED;
    let (status, pods) = (ledger(188, 590, 0), BTreeMap::new());
    let facts = Facts {
        policy,
        warnings,
        errors: &[],
        ledger: &status,
        pods: &pods,
        bare: &BTreeMap::new(),
    };
    let uses = facts.quota_use(&policy.quotas[0]);
    assert_eq!((uses.used.as_str(), uses.binding.as_str()), ("188/600", BUDGET));
    let expected = BudgetUse {
        name: BUDGET.into(),
        limit: 600,
        leased_per_minute: 60,
        used_last_minute: 188,
        waiting: 2,
    };
    assert_eq!(uses.budgets, [expected]);
    let all = facts.provider_use(&policy.providers["openai"]);
    assert_eq!((all.used.as_str(), all.budgets[0].leased_per_minute), ("590/600", 180));
}

#[test]
fn a_quota_in_order_is_ready_and_calm() {
    let found = findings(&ledger(10, 10, 0), "chat", 3);
    let short: Vec<_> = found.iter().map(|(holds, reason, _)| (*holds, *reason)).collect();
    assert_eq!(short, [(true, "InForce"), (false, "NothingWaits"), (false, "AllConnected")]);
}

#[test]
fn who_waits_is_told_by_what_and_how_full_it_is() {
    let (_, reason, message) = &findings(&ledger(200, 594, 7), "chat", 3)[1];
    assert_eq!(*reason, "BudgetUsedUp");
    assert_eq!(
        message,
        "7 requests wait; all workloads together used 99 percent of \
         openai/gpt/requestsPerMinute in the last minute"
    );
    assert_eq!(findings(&ledger(20, 59, 1), "chat", 3)[1].1, "RequestsWait");
}

#[test]
fn a_selector_without_pods_missing_references_and_pods_without_a_stream_are_told() {
    let none = &findings(&ledger(0, 0, 0), "chat", 0)[0];
    assert_eq!((none.0, none.1), (false, "NoPods"));
    let lost = &findings(&ledger(0, 0, 0), "lost", 1)[0];
    assert_eq!((lost.0, lost.1), (false, "MissingReference"));
    assert!(lost.2.contains("there is no LLMPriorityClass gone"), "{}", lost.2);
    assert!(lost.2.contains("there is no LLMProvider opnai"), "{}", lost.2);
    let (holds, reason, message) = &findings(&ledger(0, 0, 0), "chat", 5)[2];
    assert_eq!((*holds, *reason), (true, "PodsNotConnected"));
    assert!(message.starts_with("2 of 5 pods"), "{message}");
}

#[test]
fn a_provider_says_by_how_much_it_is_overcommitted() {
    let (policy, warnings) = &*COMPILED;
    let (status, pods) = (Status::default(), BTreeMap::new());
    let facts = Facts {
        policy,
        warnings,
        errors: &[],
        ledger: &status,
        pods: &pods,
        bare: &BTreeMap::new(),
    };
    let uses = facts.provider_use(&policy.providers["openai"]);
    let found = facts.provider_findings("openai", &uses);
    let over = found.iter().find(|it| it.kind == OVERCOMMITTED).unwrap();
    assert!(
        over.holds && over.message.contains("which is 100 more than the limit's 600"),
        "{over:?}"
    );
    // It is in force all the same.
    assert!(found[0].holds);
}

#[test]
fn pods_that_should_have_a_sidecar_and_have_none_are_named() {
    let (policy, warnings) = &*COMPILED;
    let (status, pods) = (Status::default(), BTreeMap::new());
    let bare = BTreeMap::from([("shop/chat".into(), vec!["chat-0".into(), "chat-1".into()])]);
    let facts = Facts { policy, warnings, errors: &[], ledger: &status, pods: &pods, bare: &bare };
    let quota = &policy.quotas[0];
    let found = facts.quota_findings(quota, &facts.quota_use(quota));
    assert_eq!((found[2].holds, found[2].reason), (true, "PodsWithoutSidecar"));
    assert!(found[2].message.contains("2 pods") && found[2].message.contains("chat-0, chat-1"));
}
