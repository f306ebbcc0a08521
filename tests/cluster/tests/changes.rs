//! How soon a change of the policy is in force, among a thousand objects.

#![expect(clippy::disallowed_methods, reason = "a cluster has no clock but the machine's")]
#![expect(clippy::print_stdout, reason = "figures are what the test is for")]

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use cluster_tests::application::Application;
use cluster_tests::kubectl::Kubectl;
use cluster_tests::namespace::Namespace;
use cluster_tests::wait;
use cluster_tests::weir::Weir;
use serde_json::Value;

const QUOTAS: usize = 1_000;
const PODS: u32 = 10;
const ROUNDS: usize = 25;
const KNOWN: Duration = Duration::from_secs(120);
/// Ten connections each time: to look more often would slow down what is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A change of a limit is told in the status of a thousand quotas, which takes a while.
const BETWEEN: Duration = Duration::from_secs(4);
/// What is promised at the 99th percentile; the rest is for a machine with one node on two cores.
const IN_FORCE: Duration = Duration::from_millis(500);
const SLACK: Duration = Duration::from_secs(5);

const PROVIDER: &str = "apiVersion: weir.dev/v1alpha1
kind: LLMProvider
metadata: {name: changes}
spec:
  protocol: OpenAI
  endpoint: http://127.0.0.1:9
  limits: [{name: all, models: ['*'], requestsPerMinute: 600}]
";

#[test]
fn among_a_thousand_objects_a_change_is_soon_in_force_in_every_sidecar() {
    let _weir = Weir::install();
    let _namespace = Namespace::new("changes");
    Kubectl::apply(PROVIDER).succeeds();
    Kubectl::apply(&quotas()).succeeds();
    let application = Application {
        namespace: "changes".to_owned(),
        name: "app".to_owned(),
        replicas: PODS,
        threads: 1,
        pause: Duration::from_secs(3_600),
        inject: true,
    };
    application.apply();
    application.rolled_out();
    let pods = application.kubectl(&["get", "pods", "--selector=app=app"]).json();
    let address = |pod: &Value| pod["status"]["podIP"].as_str().map(str::to_owned);
    let sidecars: Vec<String> =
        pods["items"].as_array().into_iter().flatten().filter_map(address).collect();
    assert_eq!(sidecars.len(), PODS as usize);
    for sidecar in &sidecars {
        wait::within(KNOWN, "a sidecar has its policy", || generation(sidecar));
    }
    let mut times: Vec<(Duration, Duration)> = (0..ROUNDS).map(|n| change(n, &sidecars)).collect();
    times.sort();
    let (median, last) = (times[ROUNDS / 2], times[ROUNDS - 1]);
    println!(
        "{ROUNDS} changes among {QUOTAS} quotas, in force in the last of {PODS} sidecars: after \
         kubectl has returned p50 {:.0?}, slowest {:.0?}; since it was started {:.0?}, {:.0?}",
        median.0, last.0, median.1, last.1
    );
    assert!(last.0 <= IN_FORCE + SLACK, "{times:?}");
    Kubectl::new(&["delete", "llmprovider", "changes"]).succeeds();
}

fn quotas() -> String {
    let mut all = String::new();
    for n in 0..QUOTAS {
        let app = if n == 0 { "app".to_owned() } else { format!("other-{n}") };
        let _ = write!(
            all,
            "---
apiVersion: weir.dev/v1alpha1
kind: LLMQuota
metadata: {{name: quota-{n}, namespace: changes}}
spec: {{selector: {{matchLabels: {{app: {app}}}}}, budgets: [{{provider: changes}}]}}
"
        );
    }
    all
}

/// Changes the limit, and waits for all sidecars: how long after kubectl has returned, and since it was
/// started.
fn change(round: usize, sidecars: &[String]) -> (Duration, Duration) {
    let before: Vec<Option<u64>> = sidecars.iter().map(|sidecar| generation(sidecar)).collect();
    sleep(BETWEEN);
    let rpm = 601 + round;
    let limits = format!(
        r#"{{"spec":{{"limits":[{{"name":"all","models":["*"],"requestsPerMinute":{rpm}}}]}}}}"#
    );
    let start = Instant::now();
    let patch = ["patch", "llmprovider", "changes", "--type=merge", "--patch", &limits];
    let (returned, last) = thread::scope(|scope| {
        let watches: Vec<_> = sidecars
            .iter()
            .zip(&before)
            .map(|(sidecar, before)| scope.spawn(|| changed(sidecar, *before)))
            .collect();
        Kubectl::new(&patch).succeeds();
        let returned = Instant::now();
        let last = watches.into_iter().map(|watch| watch.join().expect("it changes")).max();
        (returned, last.expect("there are sidecars"))
    });
    (last.saturating_duration_since(returned), last - start)
}

fn changed(sidecar: &str, before: Option<u64>) -> Instant {
    let start = Instant::now();
    while generation(sidecar) <= before {
        assert!(start.elapsed() < KNOWN, "{sidecar} never hears of the change");
        sleep(LOOK_EVERY);
    }
    Instant::now()
}

/// Of the policy that a sidecar has.
fn generation(sidecar: &str) -> Option<u64> {
    let mut stream = TcpStream::connect((sidecar, 7411)).ok()?;
    stream.write_all(b"GET /config HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str::<Value>(body).ok()?["generation"].as_u64()
}
