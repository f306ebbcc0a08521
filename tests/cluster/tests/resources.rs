//! The custom resources, as the API server takes and shows them.

#![expect(clippy::disallowed_methods, reason = "a cluster has no clock but the machine's")]

use std::thread::sleep;
use std::time::{Duration, Instant};

use cluster_tests::bad_input::{NAMESPACE, cases};
use cluster_tests::kubectl::Kubectl;
use cluster_tests::namespace::Namespace;
use cluster_tests::part::Part;
use cluster_tests::weir::Weir;

/// A definition is served within a second of its arrival.
const ESTABLISHED: Duration = Duration::from_secs(60);

/// A watch is milliseconds behind.
const SEEN: Duration = Duration::from_secs(10);

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
fn bad_input_is_answered_with_what_is_wrong_and_what_to_do() {
    let _weir = Weir::install();
    let _namespace = Namespace::new(NAMESPACE);
    if Part::are_ours() {
        // What other tests have left would be spoken of too.
        Kubectl::new(&["delete", "llmproviders,llmpriorityclasses", "--all"]).succeeds();
        Kubectl::new(&["delete", "llmquotas", "--all", "--all-namespaces"]).succeeds();
    }
    let mut wrong = Vec::new();
    for case in cases() {
        case.prepare();
        // The webhook learns of what is there by its watch.
        let deadline = Instant::now() + SEEN;
        let mut said = case.said();
        while said != case.says && Instant::now() < deadline {
            sleep(Duration::from_millis(500));
            said = case.said();
        }
        case.clear();
        if said != case.says {
            wrong.push(format!("{}\n  expected: {}\n  said:     {said}", case.about, case.says));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}
