//! A person's way in, as the README tells it.

use std::time::Duration;

use cluster_tests::application::Application;
use cluster_tests::kubectl::Kubectl;
use cluster_tests::provider::Provider;
use cluster_tests::wait;
use cluster_tests::weir::Weir;

const ANSWERED: Duration = Duration::from_secs(120);
const WRITTEN: Duration = Duration::from_secs(30);

#[test]
fn an_annotation_and_the_samples_are_all_that_an_application_needs() {
    let weir = Weir::install();
    let provider = Provider::start("provider", 500);
    Kubectl::apply_file("manifests/samples").succeeds();
    // The samples are for api.openai.com, which a test does not call.
    let endpoint = format!("{{\"spec\":{{\"endpoint\":\"{}\"}}}}", provider.endpoint());
    let patch = ["patch", "llmprovider", "openai", "--type=merge", "--patch", &endpoint];
    Kubectl::new(&patch).succeeds();

    // It was there before, without a sidecar.
    let chat = Application {
        namespace: "default".to_owned(),
        name: "chat".to_owned(),
        replicas: 1,
        threads: 2,
        pause: Duration::from_millis(100),
        inject: false,
    };
    chat.apply();
    let patch = r#"{"spec":{"template":{"metadata":{"annotations":{"weir.dev/inject":"true"}}}}}"#;
    chat.kubectl(&["patch", "deployment", "chat", "-p", patch]).succeeds();
    chat.rolled_out();
    let log = wait::within(ANSWERED, "the application gets answers", || {
        let log = chat.logs();
        let has_answers = |line: &str| line.starts_with("so far") && !line.starts_with("so far 0 ");
        log.lines().any(has_answers).then_some(log)
    });
    assert!(log.contains(" 0 exceptions"), "{log}");
    assert_eq!(provider.truth().refused, 0);

    // What people look at.
    let listed = wait::within(WRITTEN, "the quota's status is written", || {
        let listed = Kubectl::new(&["get", "llmquota", "chat", "--namespace=default"]).succeeds();
        listed.contains("requestsPerMinute").then_some(listed)
    });
    let header = ["CLASS", "PODS", "USED", "OF", "WAITING", "THROTTLED", "READY"];
    assert!(header.iter().all(|column| listed.contains(column)), "{listed}");
    let ready = r#"--output=jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
    let ready = Kubectl::new(&["get", "llmquota", "chat", "--namespace=default", ready]);
    wait::within(WRITTEN, "the quota is ready", || {
        ready.attempt().filter(|status| status == "True")
    });

    // Image and code are as they were; the key is nowhere in the pod.
    let pod = chat.kubectl(&["get", "pods", "--selector=app=chat", "--output=yaml"]).succeeds();
    assert!(pod.contains("image: localhost/weir-python:dev"), "{pod}");
    assert!(!pod.contains("replace-me"), "{pod}");
    drop(chat);
    Kubectl::new(&["delete", "--filename", "manifests/samples"]).succeeds();
    assert!(weir.leads().is_some());
}
