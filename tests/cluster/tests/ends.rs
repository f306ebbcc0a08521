//! What a pod held when it ended: who may use it, and how soon.

#![expect(clippy::disallowed_methods, reason = "a cluster has no clock but the machine's")]
#![expect(clippy::print_stdout, reason = "figures are what the test is for")]

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use cluster_tests::application::Application;
use cluster_tests::kubectl::Kubectl;
use cluster_tests::namespace::Namespace;
use cluster_tests::part::Part;
use cluster_tests::process::Process;
use cluster_tests::provider::Provider;
use cluster_tests::wait;
use cluster_tests::weir::Weir;

/// Longer than the test: whoever has the only slot keeps it.
const ANSWER: Duration = Duration::from_secs(300);
const STARTED: Duration = Duration::from_secs(120);
/// A request that could be sent would be by then.
const SURELY_SENT: Duration = Duration::from_secs(5);
/// What is promised from the kubelet's report on, and what a busy machine may add.
const REUSED: Duration = Duration::from_millis(300);
const SLACK: Duration = Duration::from_millis(1_000);
const LOOK_EVERY: Duration = Duration::from_millis(2);

const POLICY: &str = "apiVersion: weir.dev/v1alpha1
kind: LLMProvider
metadata: {name: ends}
spec:
  protocol: OpenAI
  endpoint: ENDPOINT
  limits: [{name: all, models: ['*'], concurrentRequests: 1}]
---
apiVersion: weir.dev/v1alpha1
kind: LLMQuota
metadata: {name: ends, namespace: ends}
spec:
  selector: {}
  budgets: [{provider: ends}]
  queue: {maxWait: 10m}
";

/// One caller.
fn application(name: &str) -> Application {
    let application = Application {
        namespace: "ends".to_owned(),
        name: name.to_owned(),
        replicas: 1,
        threads: 1,
        pause: Duration::from_secs(1),
        inject: true,
    };
    application.apply();
    application.rolled_out();
    application
}

/// Says when the kubelet has reported the end of a pod's sidecar, as a watch of its own shows it.
fn reported_end(namespace: &Namespace, pod: &str) -> Receiver<Instant> {
    let state = "{.status.initContainerStatuses[0].state.terminated.exitCode}";
    let watch = format!("--output=jsonpath=ended:{state}{{'\\n'}}");
    let mut command = namespace.kubectl(&["get", "pod", pod, "--watch", &watch]).command();
    let mut child = command.stdout(Stdio::piped()).spawn().expect("kubectl can be started");
    let lines = BufReader::new(child.stdout.take().expect("it was piped")).lines();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let has_ended =
            |line: &String| line.strip_prefix("ended:").is_some_and(|it| !it.is_empty());
        if lines.map_while(Result::ok).any(|line| has_ended(&line)) {
            // A test that has failed meanwhile does not wait for it.
            let _ = sender.send(Instant::now());
        }
        let _ = child.kill();
        let _ = child.wait();
    });
    receiver
}

#[test]
fn what_a_pod_held_is_used_by_another_once_the_kubelet_has_seen_its_end() {
    // Processes of another cluster's node cannot be frozen.
    if !Part::are_ours() {
        return;
    }
    let _weir = Weir::install();
    let namespace = Namespace::new("ends");
    let provider = Provider::start("ends-provider", 600);
    provider.answer_after(ANSWER);
    Kubectl::apply(&POLICY.replace("ENDPOINT", &provider.endpoint())).succeeds();
    let calls = provider.calls();
    let first = application("first");
    wait::within(STARTED, "the first pod has the slot", || (calls() == 1).then_some(()));
    let _second = application("second");
    sleep(SURELY_SENT);
    assert_eq!(calls(), 1, "the second pod waits for the slot");

    // A frozen sidecar says no goodbye: only the kubelet can tell of its end.
    let pod = first.pods().remove(0);
    Process::with(&format!("WEIR_SIDECAR_POD={pod}")).signal("-STOP");
    let reported = reported_end(&namespace, &pod);
    sleep(SURELY_SENT);
    assert_eq!(calls(), 1, "a silent pod keeps what it holds");
    let delete = ["delete", "deployment", "first", "--wait=false"];
    namespace.kubectl(&delete).succeeds();
    let start = Instant::now();
    while calls() == 1 {
        assert!(start.elapsed() < STARTED, "nobody got the slot");
        sleep(LOOK_EVERY);
    }
    let used = Instant::now();
    let reported = reported.recv_timeout(SURELY_SENT).expect("the kubelet reports the end");
    let after = used.saturating_duration_since(reported);
    println!("from the kubelet's report to the next pod's call at the provider: {after:.1?}");
    println!("from the deletion on: {:.1?}", used - start);
    assert!(after <= REUSED + SLACK, "{after:?}");
    assert_eq!(provider.truth().refused, 0);
    Kubectl::new(&["delete", "llmprovider", "ends"]).succeeds();
}
