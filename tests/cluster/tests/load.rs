//! Thirty pods of three priorities at three times the budget, and what may happen to allocators
//! meanwhile.

#![expect(clippy::disallowed_methods, reason = "a cluster has no clock but the machine's")]
#![expect(clippy::print_stdout, reason = "figures are what the test is for")]

use std::thread::sleep;
use std::time::{Duration, Instant};

use cluster_tests::application::Application;
use cluster_tests::kubectl::Kubectl;
use cluster_tests::namespace::Namespace;
use cluster_tests::part::Part;
use cluster_tests::process::Process;
use cluster_tests::provider::{Provider, Truth};
use cluster_tests::wait;
use cluster_tests::weir::Weir;

/// What the provider allows, in requests per minute.
pub(crate) const RPM: u64 = 600;
const CLASSES: [(&str, i32); 3] = [("interactive", 1000), ("standard", 500), ("bulk", 0)];
/// Ten pods of three callers each ask at most so often: together three times the budget.
const PODS: u32 = 10;
pub(crate) const THREADS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(2_500);
/// Three liveness probes fail in 30 s.
const BEFORE_PROBES: Duration = Duration::from_secs(15);
/// Long against the bucket, which holds a minute's worth.
const JUDGED: Duration = Duration::from_secs(90);

/// The load, for as long as it lives.
pub(crate) struct Load {
    pub(crate) weir: Weir,
    pub(crate) provider: Provider,
    namespace: Namespace,
    pub(crate) applications: Vec<Application>,
}

impl Load {
    /// Starts it, and waits until the limit binds.
    pub(crate) fn start() -> Load {
        let weir = Weir::install();
        let provider = Provider::start("load-provider", RPM);
        let namespace = Namespace::new("load");
        Kubectl::apply(&policy(&provider.endpoint(), RPM)).succeeds();
        let application = |(class, _): &(&str, i32)| Application {
            namespace: "load".to_owned(),
            name: (*class).to_owned(),
            replicas: PODS,
            threads: THREADS,
            pause: PAUSE,
            inject: true,
        };
        let applications: Vec<Application> = CLASSES.iter().map(application).collect();
        applications.iter().for_each(Application::apply);
        applications.iter().for_each(Application::rolled_out);
        let load = Load { weir, provider, namespace, applications };
        load.until_used_up();
        load
    }

    /// Waits until what a full bucket held at the start is used up: from then on the limit binds.
    fn until_used_up(&self) {
        wait::within(Duration::from_secs(240), "the limit binds", || {
            let truth = self.during(Duration::from_secs(5));
            #[expect(clippy::cast_precision_loss, reason = "a small figure")]
            let full = RPM as f64 / 60.0 * 5.0;
            (0.9 * full..=1.1 * full).contains(&truth.settled).then_some(())
        });
    }

    /// What the provider counts in a span from now on.
    pub(crate) fn during(&self, span: Duration) -> Truth {
        let before = self.provider.truth();
        sleep(span);
        self.provider.truth() - before
    }

    /// What the quotas say that they used in the last minute, together.
    fn told(&self) -> f64 {
        let quotas = self.namespace.kubectl(&["get", "llmquota"]).json();
        let quotas = quotas["items"].as_array().cloned().unwrap_or_default();
        let used = |quota: &serde_json::Value| {
            quota["status"]["budgets"][0]["usedLastMinute"].as_f64().unwrap_or(0.0)
        };
        quotas.iter().map(used).sum()
    }

    /// Waits until the budget is used fully again, in spans of two seconds.
    pub(crate) fn recovered(&self, within: Duration) -> Duration {
        let start = Instant::now();
        loop {
            let truth = self.during(Duration::from_secs(2));
            assert_eq!(truth.refused, 0);
            #[expect(clippy::cast_precision_loss, reason = "a small figure")]
            let full = RPM as f64 / 60.0 * 2.0;
            if truth.settled >= 0.9 * full {
                return start.elapsed();
            }
            assert!(start.elapsed() < within, "not used fully again within {within:?}: {truth:?}");
        }
    }
}

fn policy(endpoint: &str, rpm: u64) -> String {
    let mut documents = vec![format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: load, namespace: weir-system}}
stringData: {{key: the-key-that-nobody-may-see}}
---
apiVersion: weir.dev/v1alpha1
kind: LLMProvider
metadata: {{name: load}}
spec:
  protocol: OpenAI
  endpoint: {endpoint}
  keys: [{{name: key, secretRef: {{name: load, key: key}}}}]
  limits: [{{name: all, models: ['*'], requestsPerMinute: {rpm}}}]
"
    )];
    for (class, value) in CLASSES {
        documents.push(format!(
            "apiVersion: weir.dev/v1alpha1
kind: LLMPriorityClass
metadata: {{name: {class}}}
spec: {{value: {value}}}
---
apiVersion: weir.dev/v1alpha1
kind: LLMQuota
metadata: {{name: {class}, namespace: load}}
spec:
  selector: {{matchLabels: {{app: {class}}}}}
  priorityClassName: {class}
  budgets: [{{provider: load}}]
  queue: {{maxWait: 5m}}
"
        ));
    }
    documents.join("---\n")
}

#[test]
fn thirty_pods_stay_within_the_budget_and_use_it_whatever_happens_to_allocators() {
    let load = Load::start();

    // In peace.
    let truth = load.during(JUDGED);
    println!("in peace: {truth:?}, {:.4} used", truth.settled / truth.on_offer);
    assert_eq!(truth.refused, 0);
    // Measured: docs/evidence.md. A busy machine must not make it red.
    assert!(truth.settled >= 0.98 * truth.on_offer, "{truth:?}");
    let truth = load.during(Duration::from_secs(60));
    let told = load.told();
    #[expect(clippy::cast_precision_loss, reason = "a small figure")]
    let minute = truth.settled / truth.on_offer * RPM as f64;
    println!("the quotas tell {told} of a minute, the provider {minute:.1}");
    // Each of three figures is rounded down.
    assert!((told - minute).abs() <= 0.01 * minute + 3.0, "{told} {minute}");

    if Part::are_ours() {
        killed(&load);
        frozen(&load);
        api_server_away(&load);
    }
    rolled(&load);
    halved(&load);
    for application in &load.applications {
        let log = application.logs();
        assert!(!log.contains("exception "), "{}: {log}", application.name);
    }
}

#[test]
fn thirty_pods_go_on_while_weir_is_uninstalled_and_installed_again() {
    reinstalled(&Load::start());
}

/// The leader is killed: another leads in seconds, and no lease lapses.
fn killed(load: &Load) {
    let (leader, epoch) = (load.weir.leader(), load.weir.epoch());
    let before = load.provider.truth();
    Process::with(&format!("WEIR_ALLOCATOR_POD={leader}")).signal("-KILL");
    let start = Instant::now();
    wait::within(Duration::from_secs(30), "somebody leads again", || {
        (load.weir.epoch() > epoch).then_some(())
    });
    println!("after a kill: led again after {:.1} s", start.elapsed().as_secs_f64());
    assert_eq!((load.provider.truth() - before).refused, 0);
    println!("and used fully after {:?} more", load.recovered(Duration::from_secs(30)));
}

/// The leader is frozen, so that nobody confirms its end: its leases run on until another leads.
fn frozen(load: &Load) {
    let (leader, epoch) = (load.weir.leader(), load.weir.epoch());
    let before = load.provider.truth();
    let process = Process::with(&format!("WEIR_ALLOCATOR_POD={leader}"));
    process.signal("-STOP");
    let start = Instant::now();
    // The kubelet would kill it for its probes and report that. Away for longer than it must be, the
    // kubelet would take the whole node with it.
    sleep(BEFORE_PROBES);
    Part("kubelet").freeze();
    wait::within(Duration::from_secs(90), "somebody leads again", || {
        (load.weir.epoch() > epoch).then_some(())
    });
    println!("after silence: led again after {:.1} s", start.elapsed().as_secs_f64());
    assert_eq!((load.provider.truth() - before).refused, 0);
    let led = load.weir.epoch();
    process.signal("-CONT");
    Part("kubelet").thaw();
    println!("and used fully after {:?} more", load.recovered(Duration::from_secs(40)));
    let truth = load.during(Duration::from_secs(15));
    println!("after it thawed: {truth:?}");
    assert_eq!((truth.refused, load.weir.epoch()), (0, led));
}

/// The API server is away for a moment: nobody notices.
fn api_server_away(load: &Load) {
    let epoch = load.weir.epoch();
    let before = load.provider.truth();
    Part("kube-apiserver").stop();
    sleep(Duration::from_secs(15));
    Part("kube-apiserver").start();
    wait::within(Duration::from_secs(60), "the API server is back", || {
        Kubectl::new(&["get", "--raw", "/readyz"]).attempt()
    });
    let truth = wait::within(Duration::from_secs(60), "the provider is reached again", || {
        Some(load.provider.truth() - before)
    });
    println!("with the API server away: {truth:?}");
    assert_eq!((truth.refused, load.weir.epoch()), (0, epoch));
    assert!(truth.settled >= 0.9 * truth.on_offer, "{truth:?}");
}

/// A limit is halved: the new one holds within a second.
fn halved(load: &Load) {
    let patch = format!(
        r#"{{"spec":{{"limits":[{{"name":"all","models":["*"],"requestsPerMinute":{}}}]}}}}"#,
        RPM / 2
    );
    Kubectl::new(&["patch", "llmprovider", "load", "--type=merge", "--patch", &patch]).succeeds();
    sleep(Duration::from_secs(1));
    let truth = load.during(Duration::from_secs(60));
    println!("with half the limit: {truth:?}");
    #[expect(clippy::cast_precision_loss, reason = "a small figure")]
    let most = RPM as f64 / 2.0;
    assert!(truth.settled <= 1.02 * most, "{truth:?}");
    assert!(truth.settled >= 0.95 * most, "{truth:?}");
}

/// A rolling update of an application: pods leave and come.
fn rolled(load: &Load) {
    let before = load.provider.truth();
    let application = &load.applications[1];
    let name = format!("deployment/{}", application.name);
    application.kubectl(&["rollout", "restart", &name]).succeeds();
    application.rolled_out();
    let truth = load.provider.truth() - before;
    println!("in a rolling update: {truth:?}, {:.4} used", truth.settled / truth.on_offer);
    assert_eq!(truth.refused, 0);
    assert!(truth.settled >= 0.9 * truth.on_offer, "{truth:?}");
}

/// Weir is uninstalled and installed again: applications go on, and what people wrote stays.
fn reinstalled(load: &Load) {
    let epoch = load.weir.epoch();
    let before = load.provider.truth();
    load.weir.uninstall();
    sleep(Duration::from_secs(20));
    for kept in ["lease/weir-allocator", "secret/weir-ca"] {
        load.weir.kubectl(&["get", kept]).succeeds();
    }
    let quotas = load.namespace.kubectl(&["get", "llmquota", "--output=name"]).succeeds();
    assert_eq!(quotas.lines().count(), CLASSES.len());
    let truth = load.provider.truth() - before;
    println!("without allocators: {truth:?}");
    assert_eq!(truth.refused, 0);
    // Leases run on, and what had to be drawn waits.
    assert!(truth.settled >= 0.15 * truth.on_offer, "{truth:?}");
    let start = Instant::now();
    Weir::install();
    assert!(load.weir.epoch() > epoch);
    println!("after reinstalling: led again after {:.1} s", start.elapsed().as_secs_f64());
    let truth = load.during(Duration::from_secs(60));
    println!("then: {truth:?}");
    let logs: String = load.applications.iter().map(Application::logs).collect();
    println!("calls that failed: {}", logs.matches("exception ").count());
    assert_eq!(truth.refused, 0);
    assert!(truth.settled >= 0.9 * truth.on_offer, "{truth:?}");
}
