use std::time::Duration;

use quota::budget::Kind as BudgetKind;
use quota::dimension::{Dimension, Window};
use quota::policy::{Mode, OnLoss};
use quota::units::Amount;

use super::*;

mod refusals;
mod warnings;

const PROVIDER: &str = "\
apiVersion: weir.dev/v1alpha1
kind: LLMProvider
metadata: {name: openai}
spec:
  protocol: OpenAI
  endpoint: https://api.openai.com
  limits:
  - name: gpt-4o
    models: [gpt-4o*]
    requestsPerMinute: 600
    tokensPerMinute: 60000
";

const QUOTA: &str = "\
apiVersion: weir.dev/v1alpha1
kind: LLMQuota
metadata: {namespace: shop, name: chat}
spec:
  budgets:
  - provider: openai
";

fn class(name: &str, value: i32, rest: &str) -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: LLMPriorityClass\nmetadata: {{name: {name}}}\n\
         spec: {{value: {value}{rest}}}\n"
    )
}

fn quota(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: LLMQuota\n\
         metadata: {{namespace: shop, name: {name}}}\nspec: {{{spec}}}\n"
    )
}

fn join(documents: &[&str]) -> String {
    documents.join("---\n")
}

fn errors(text: &str) -> Vec<String> {
    let problems = read(&[("p.yaml", text)]).map(|_| ()).expect_err("the policy must be refused");
    problems.iter().map(ToString::to_string).collect()
}

fn compiled(text: &str) -> Compiled {
    read(&[("p.yaml", text)]).expect("the policy must be accepted")
}

fn warnings(text: &str) -> Vec<String> {
    compiled(text).warnings.iter().map(ToString::to_string).collect()
}

/// `text` with a piece replaced, which must be there.
fn with(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "{old}");
    text.replacen(old, new, 1)
}

#[test]
fn the_samples_compile_without_warnings() {
    let samples = [
        ("provider.yaml", include_str!("../../../../manifests/samples/provider.yaml")),
        ("classes.yaml", include_str!("../../../../manifests/samples/classes.yaml")),
        ("quotas.yaml", include_str!("../../../../manifests/samples/quotas.yaml")),
    ];
    let compiled = read(&samples).expect("the samples must be sound");
    assert_eq!(compiled.warnings, []);
    let policy = compiled.policy;
    let names: Vec<String> = policy.quotas.iter().map(quota::policy::Quota::key).collect();
    assert_eq!(names, ["default/chat", "default/summaries"]);
    assert_eq!(policy.class_value("interactive"), 1_000);
    assert_eq!(policy.providers["openai"].keys_of("gpt-4o").count(), 1);
}

#[test]
fn the_local_policy_compiles_without_warnings_and_matches_every_pod_of_its_namespace() {
    let text = include_str!("../../../../manifests/local/policy.yaml");
    let compiled = compiled(text);
    assert_eq!(compiled.warnings, []);
    let policy = compiled.policy;
    let labels = BTreeMap::from([("app".to_owned(), "any".to_owned())]);
    let quota = policy.quota_of("default", &labels).expect("it matches");
    assert!(quota.uses_provider("openai"));
    assert_eq!(&*quota.class, "normal");
    // The application's own key passes through.
    assert_eq!(policy.providers["openai"].keys, []);
    assert_eq!(policy.providers["openai"].endpoint, "http://127.0.0.1:8000");
}

#[test]
fn what_is_left_out_has_its_default() {
    let compiled = compiled(&join(&[PROVIDER, QUOTA]));
    assert_eq!(compiled.warnings, []);
    let policy = compiled.policy;
    let provider = &policy.providers["openai"];
    let budget = &provider.limits[0].budgets[0];
    assert_eq!(budget.id.as_str(), "openai/gpt-4o/requestsPerMinute");
    assert!(matches!(
        budget.kind,
        BudgetKind::Bucket { burst, .. } if burst == Amount::from_units(600)
    ));
    assert_eq!((budget.floor_percent, budget.floor_duration), (20, Duration::from_secs(3_600)));

    let quota = &policy.quotas[0];
    assert_eq!((&*quota.class, quota.weight, quota.permitted.len()), ("default", 1, 0));
    assert_eq!(quota.queue, quota::policy::QueueLimits::default());
    assert_eq!(quota.per_request_max_tokens, None);
    assert_eq!((quota.on_allocator_loss, quota.mode), (OnLoss::Floor, Mode::Enforce));
    assert!(quota.selector.is_empty());
    assert_eq!(quota.uses[0].limit, None);

    let class = &policy.classes["default"];
    assert_eq!((class.value, class.min_share_percent, class.holdback_percent), (0, 2, 0));
}

#[test]
fn everything_that_is_written_arrives() {
    let provider = with(
        PROVIDER,
        "    tokensPerMinute: 60000\n",
        "    window: FixedWindow\n    concurrentRequests: 4\n    requestsPerDay: 9000\n    \
         floorPercent: 5\n    floorDuration: 1h30m\n",
    );
    let provider = with(
        &provider,
        "  limits:",
        "  keys:\n  - {name: a, secretRef: {name: s, key: k}, weight: 70, models: [gpt-4o]}\n  limits:",
    );
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: weir-system}\n\
         data: {k: c2stYWJjCg==}\n";
    let quota = quota(
        "chat",
        "selector: {matchLabels: {app: chat}}, priorityClassName: high, permittedClasses: [low], \
         weight: 3, budgets: [{provider: openai, limit: gpt-4o, guaranteed: {requestsPerMinute: 60}, \
         ceiling: {requestsPerMinute: 120}}, {provider: openai, ceiling: {requestsPerMinute: 300}}], \
         queue: {maxWait: 500ms, maxRequests: 7}, perRequest: {maxTokens: 32000}, \
         onAllocatorLoss: Closed, mode: Shadow",
    );
    let high =
        class("high", 1_000, ", minSharePercent: 3, holdbackPercent: 4, globalDefault: true");
    let text = join(&[&provider, secret, &quota, &high, &class("low", -5, "")]);
    let compiled = compiled(&text);
    assert_eq!(compiled.warnings, []);
    let policy = compiled.policy;

    let provider = &policy.providers["openai"];
    let key = &provider.keys[0];
    assert_eq!((&*key.name, key.secret.expose(), key.weight), ("a", "sk-abc", 70));
    assert_eq!(key.models, ["gpt-4o"]);
    let budgets = &provider.limits[0].budgets;
    assert_eq!(
        budgets.iter().map(|b| b.dimension).collect::<Vec<_>>(),
        [Dimension::RequestsPerMinute, Dimension::RequestsPerDay, Dimension::ConcurrentRequests]
    );
    assert!(matches!(budgets[0].kind, BudgetKind::Window { .. }));
    assert_eq!(budgets[0].floor_duration, Duration::from_secs(5_400));

    let quota = &policy.quotas[0];
    // The entry that names the limit goes before the general one, wherever it stands.
    let bounds = quota.bounds(&budgets[0]);
    assert_eq!(bounds.guaranteed.over(Duration::from_secs(60)), Amount::from_units(60));
    assert_eq!(
        bounds.ceiling.map(|rate| rate.over(Duration::from_secs(60))),
        Some(Amount::from_units(120))
    );
    assert_eq!(quota.queue.max_wait, Duration::from_millis(500));
    assert_eq!((quota.queue.max_requests, quota.weight), (7, 3));
    assert_eq!(quota.per_request_max_tokens, Some(32_000));
    assert_eq!((quota.on_allocator_loss, quota.mode), (OnLoss::Closed, Mode::Shadow));
    assert!(quota.permits("low") && quota.permits("high"));
    let class = &policy.classes["high"];
    assert_eq!((class.value, class.min_share_percent, class.holdback_percent), (1_000, 3, 4));
    assert!(class.global_default);
    assert_eq!(policy.class_value("low"), -5);
}

#[test]
fn a_compatible_server_is_held_to_the_window_that_is_written() {
    let provider = with(PROVIDER, "protocol: OpenAI", "protocol: OpenAICompatible");
    let policy = compiled(&join(&[&provider, QUOTA])).policy;
    assert_eq!(policy.providers["openai"].protocol.default_window(), Window::TokenBucket);
    assert!(matches!(
        policy.providers["openai"].limits[0].budgets[0].kind,
        BudgetKind::Bucket { .. }
    ));
}

#[test]
fn slashes_at_the_end_of_an_endpoint_are_trimmed() {
    let provider = with(PROVIDER, "api.openai.com", "api.openai.com/base//");
    let policy = compiled(&join(&[&provider, QUOTA])).policy;
    assert_eq!(policy.providers["openai"].endpoint, "https://api.openai.com/base");
}

#[test]
fn every_problem_of_every_file_is_reported_at_once() {
    let broken_quota =
        quota("chat", "budgets: [{providr: openai, ceiling: {tokensPerMinute: 0}}], weight: 0");
    let broken_provider = with(PROVIDER, "https:", "http:");
    let problems =
        read(&[("b.yaml", &broken_quota), ("a.yaml", &broken_provider), ("c.yaml", "{")])
            .expect_err("nothing of it is sound");
    let places: Vec<String> = problems
        .iter()
        .map(|p| format!("{} {}", p.place.as_ref().expect("it came from a file"), p.path))
        .collect();
    assert_eq!(
        places,
        [
            "a.yaml:6 spec.endpoint",
            "b.yaml:4 spec.budgets[0].ceiling.tokensPerMinute",
            "b.yaml:4 spec.budgets[0].provider",
            "b.yaml:4 spec.budgets[0].providr",
            "b.yaml:4 spec.weight",
            "c.yaml:2 ",
        ]
    );
}

#[test]
fn a_name_that_is_taken_names_both_places() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n";
    let problems = read(&[
        ("a.yaml", &join(&[PROVIDER, QUOTA, secret])),
        ("b.yaml", &join(&[QUOTA, PROVIDER, secret])),
    ])
    .expect_err("names are unique");
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "b.yaml:3: LLMQuota shop/chat: metadata.name: stands also in a.yaml:15: remove one",
            "b.yaml:10: LLMProvider openai: metadata.name: stands also in a.yaml:3: remove one",
            "b.yaml:22: Secret s: metadata.name: stands also in a.yaml:22: remove one",
        ]
    );
}

#[test]
fn only_one_class_can_be_the_global_default() {
    let text =
        join(&[&class("b", 2, ", globalDefault: true"), &class("a", 1, ", globalDefault: true")]);
    assert_eq!(
        errors(&text),
        [
            "p.yaml:4: LLMPriorityClass b: spec.globalDefault: LLMPriorityClass a is the global default \
          already, and only one can be: set its globalDefault to false first"
        ]
    );
}

#[test]
fn a_list_is_read_item_by_item() {
    let text = "\
apiVersion: v1
kind: List
items:
- apiVersion: weir.dev/v1alpha1
  kind: LLMPriorityClass
  metadata: {name: a, uid: 1-2, creationTimestamp: null}
  spec: {value: 1}
  status: {}
- apiVersion: weir.dev/v1alpha1
  kind: LLMPriorityClass
  metadata: {name: b}
  spec:
    value: x
";
    assert_eq!(
        errors(text),
        ["p.yaml:13: LLMPriorityClass b: spec.value: must be a whole number, not a text"]
    );
    let policy = compiled(&with(text, "value: x", "value: 2")).policy;
    assert_eq!(policy.classes.len(), 2);
}

#[test]
fn an_empty_directory_is_an_empty_policy() {
    let empty = Compiled { policy: quota::policy::Policy::default(), warnings: Vec::new() };
    assert_eq!(read(&[]), Ok(empty.clone()));
    assert_eq!(read(&[("a.yaml", "# Nothing yet.\n---\n")]), Ok(empty));
}

#[test]
fn limits_on_size_and_on_the_number_of_problems_hold() {
    let large = "#".repeat(MAX_FILE_BYTES + 1);
    assert_eq!(errors(&large), ["p.yaml:1: holds more than 1048576 bytes: split it"]);

    let many: String =
        (0..MAX_PROBLEMS + 5).map(|i| class(&format!("c{i}"), 1, ", x: 1") + "---\n").collect();
    let errors = errors(&many);
    assert_eq!(errors.len(), MAX_PROBLEMS + 1);
    assert_eq!(errors.last().map(String::as_str), Some("5 more problems are not named"));
}

#[test]
fn no_error_and_no_debug_shows_a_key() {
    let key = "sk-very-secret";
    let secret =
        |body: &str| format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n{body}\n");
    let provider = with(
        PROVIDER,
        "  limits:",
        "  keys:\n  - {name: a, secretRef: {name: s, key: k}}\n  limits:",
    );
    let sound = secret(&format!("stringData: {{k: {key}}}"));
    let compiled = compiled(&join(&[&provider, QUOTA, &sound]));
    assert_eq!(compiled.policy.providers["openai"].keys[0].secret.expose(), key);
    assert!(!format!("{compiled:?}").contains(key));

    for text in [
        secret(&format!("data: {{k: {key}}}")),
        secret(&format!("data: {key}")),
        secret(&format!("stringData: [{key}]")),
        secret(&format!("stringData: {{k: {{{key}: 1}}}}")),
        secret(&format!("stringData: {{k: \"{key}}}")),
        secret(&format!("stringData:\n  k: {key}\n k2: {key}")),
        with(&provider, "{name: s, key: k}", key),
        with(PROVIDER, "https://api", &format!("https://{key}@api")),
        with(PROVIDER, "openai.com", &format!("openai.com?key={key}")),
        with(PROVIDER, "protocol: OpenAI", &format!("protocol: {key}")),
        with(PROVIDER, "600", key),
    ] {
        let problems = read(&[("p.yaml", &text)]).expect_err(&text);
        assert!(!format!("{problems:?}").contains(key), "{problems:?}");
    }
}

#[test]
fn a_mutilated_text_is_refused_or_read_but_never_a_panic() {
    let text = include_str!("../../../../manifests/local/policy.yaml");
    let marks =
        ["*x", "&x ", "[", "}", ": ", "- ", "\n", "'", "!t ", "\t", "---\n", "<<: *x\n", "? "];
    for (at, _) in text.char_indices() {
        let (head, tail) = text.split_at(at);
        let _ = read(&[("p.yaml", head)]);
        let mark = marks[at % marks.len()];
        let _ = read(&[("p.yaml", &format!("{head}{mark}{tail}"))]);
    }
}
