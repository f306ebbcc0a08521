//! The custom resources, as the API server takes and shows them.

use std::time::Duration;

use cluster_tests::kubectl::Kubectl;
use cluster_tests::namespace::Namespace;

/// A definition is served within a second of its arrival.
const ESTABLISHED: Duration = Duration::from_secs(60);

/// Applies the definitions, and waits until they are served.
fn apply_definitions() {
    Kubectl::apply_file("manifests/crds").succeeds();
    let timeout = format!("--timeout={}s", ESTABLISHED.as_secs());
    let names = ["llmproviders", "llmpriorityclasses", "llmquotas"];
    for name in names.map(|name| format!("crd/{name}.weir.dev")) {
        Kubectl::new(&["wait", "--for=condition=Established", &name, &timeout]).succeeds();
    }
}

#[test]
fn the_samples_are_taken_and_listed() {
    apply_definitions();
    let _namespace = Namespace::new("weir-system");
    Kubectl::apply_file("manifests/samples").succeeds();
    let listed = Kubectl::new(&["get", "llmquota", "--namespace=default"]).succeeds();
    for name in ["chat", "summaries"] {
        assert!(listed.lines().any(|line| line.starts_with(name)), "{listed}");
    }
    // The classes and the provider belong to no namespace.
    Kubectl::new(&["delete", "--filename", "manifests/samples"]).succeeds();
}

#[test]
fn a_quota_whose_guarantee_is_above_its_ceiling_is_refused_with_what_to_do() {
    apply_definitions();
    let namespace = Namespace::new("refused");
    let yaml = format!(
        "apiVersion: weir.dev/v1alpha1
kind: LLMQuota
metadata: {{namespace: {}, name: wrong}}
spec:
  selector: {{matchLabels: {{app: chat}}}}
  priorityClassName: interactive
  budgets:
  - provider: openai
    limit: gpt-4o
    guaranteed: {{requestsPerMinute: 20}}
    ceiling: {{requestsPerMinute: 10}}
",
        namespace.name()
    );
    let error = Kubectl::apply(&yaml).fails();
    let expected = "a guarantee is above its ceiling: raise the ceiling or lower the guarantee";
    assert!(error.contains(expected), "{error}");
}
