//! An upgrade from an earlier version under traffic, one step after the other: allocators first, then
//! sidecars, and allocators back again.

#![expect(clippy::disallowed_methods, reason = "a cluster has no clock but the machine's")]
#![expect(clippy::print_stdout, reason = "figures are what the test is for")]

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cluster_tests::application::Application;
use cluster_tests::kubectl::Kubectl;
use cluster_tests::namespace::Namespace;
use cluster_tests::part::Part;
use cluster_tests::provider::Provider;
use cluster_tests::wait;
use cluster_tests::weir::Weir;

/// What the provider allows, in requests per minute, and who asks: for less than three fifths of it.
const RPM: u64 = 600;
const PODS: u32 = 6;
const THREADS: u32 = 2;
const PAUSE: Duration = Duration::from_secs(2);
/// Longer than a lease lasts at its full rate (60 s): what the allocators before granted has ended.
const JUDGED: Duration = Duration::from_secs(75);
const SEEN: Duration = Duration::from_secs(60);

/// Where `cargo xtask cluster test` has put the files of the earlier version.
const EARLIER: &str = "WEIR_TEST_EARLIER";

/// The traffic, and what it meets.
struct Traffic {
    weir: Weir,
    provider: Provider,
    application: Application,
    _namespace: Namespace,
}

#[test]
fn an_upgrade_and_the_way_back_cost_applications_nothing() {
    let Some(sources) = earlier() else {
        println!("LEFT OUT: images of an earlier version cannot be loaded into this cluster");
        return;
    };
    let weir = Weir::install_chart(&sources.join("charts/weir"), "earlier");
    let traffic = Traffic::start(weir);
    let before = traffic.judge("before the upgrade", "earlier", "earlier");
    let judge = |what, allocators, sidecars| {
        let answers = traffic.judge(what, allocators, sidecars);
        assert!(answers >= 0.9 * before, "{what}: {answers} answers, {before} before");
    };

    Weir::install();
    judge("new allocators, old sidecars", "dev", "earlier");

    let leaving = traffic.application.follow();
    let restart = ["rollout", "restart", "deployment/upgraded"];
    traffic.application.kubectl(&restart).succeeds();
    traffic.application.rolled_out();
    assert!(!leaving.read().contains("exception "), "a pod that left met an exception");
    judge("new allocators, new sidecars", "dev", "dev");

    traffic.weir.roll_back();
    judge("old allocators, new sidecars", "earlier", "dev");

    Weir::install();
    judge("upgraded again", "dev", "dev");
    Kubectl::new(&["delete", "llmprovider", "upgraded"]).succeeds();
}

/// The earlier version's files; `None` in a cluster that takes no images from us.
fn earlier() -> Option<PathBuf> {
    let there = std::env::var_os(EARLIER).map(PathBuf::from);
    assert!(
        there.is_some() || !Part::are_ours(),
        "{EARLIER} is not set: run this test by `cargo xtask cluster test -- upgrade`, which makes \
         the earlier version's images first"
    );
    there
}

// === impl Traffic ===

impl Traffic {
    /// Starts it, and waits until all pods are answered.
    fn start(weir: Weir) -> Traffic {
        let provider = Provider::start("upgrade-provider", RPM);
        let namespace = Namespace::new("upgrade");
        Kubectl::apply(&policy(&provider.endpoint())).succeeds();
        let application = Application {
            namespace: "upgrade".to_owned(),
            name: "upgraded".to_owned(),
            replicas: PODS,
            threads: THREADS,
            pause: PAUSE,
            inject: true,
        };
        application.apply();
        application.rolled_out();
        Traffic { weir, provider, application, _namespace: namespace }
    }

    /// A span in which allocators and sidecars are of these versions: all are connected, the provider
    /// has never had to refuse, and nobody in any pod has met an exception since it started. Returns how
    /// many were answered.
    fn judge(&self, what: &str, allocators: &str, sidecars: &str) -> f64 {
        let tagged = |image: &str, tag: &str| image.ends_with(&format!(":{tag}"));
        let start = Instant::now();
        wait::within(SEEN, "only pods of these versions are there", || {
            let (ours, theirs) = self.images();
            let are = |images: &[String], tag| images.iter().all(|image| tagged(image, tag));
            (are(&ours, allocators) && are(&theirs, sidecars)).then_some(())
        });
        wait::within(SEEN, "all sidecars are at the new leader", || {
            (self.sessions()? == PODS).then_some(())
        });
        let connected = start.elapsed();
        let before = self.provider.truth();
        sleep(JUDGED);
        let truth = self.provider.truth() - before;
        let log = self.application.logs();
        println!(
            "{what}: all connected after {:.1} s, {} answers in {} s, 429s: {}, exceptions: {}",
            connected.as_secs_f64(),
            truth.settled,
            JUDGED.as_secs(),
            truth.refused,
            log.matches("exception ").count()
        );
        assert!(!log.contains("exception "), "{what}: {log}");
        assert_eq!(self.provider.truth().refused, 0, "{what}");
        truth.settled
    }

    /// Of the allocators, and of the sidecars.
    fn images(&self) -> (Vec<String>, Vec<String>) {
        let words = |text: String| text.split_whitespace().map(ToOwned::to_owned).collect();
        let path = "--output=jsonpath={.items[*].spec.containers[*].image}";
        let allocators = ["get", "pods", "--selector=app.kubernetes.io/component=allocator", path];
        let path = "--output=jsonpath={.items[*].spec.initContainers[*].image}";
        let sidecars = ["get", "pods", "--selector=app=upgraded", path];
        (
            words(self.weir.kubectl(&allocators).succeeds()),
            words(self.application.kubectl(&sidecars).succeeds()),
        )
    }

    /// How many sidecars the leader serves.
    fn sessions(&self) -> Option<u32> {
        let leader = self.weir.leads()?;
        let path = format!("/api/v1/namespaces/weir-system/pods/{leader}:7421/proxy/metrics");
        let metrics = Kubectl::new(&["get", "--raw", &path]).attempt()?;
        let line = metrics.lines().find_map(|it| it.strip_prefix("weir_allocator_sessions "))?;
        line.parse().ok()
    }
}

fn policy(endpoint: &str) -> String {
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: upgraded, namespace: weir-system}}
stringData: {{key: the-key-that-nobody-may-see}}
---
apiVersion: weir.dev/v1alpha1
kind: LLMProvider
metadata: {{name: upgraded}}
spec:
  protocol: OpenAI
  endpoint: {endpoint}
  keys: [{{name: key, secretRef: {{name: upgraded, key: key}}}}]
  limits: [{{name: all, models: ['*'], requestsPerMinute: {RPM}}}]
---
apiVersion: weir.dev/v1alpha1
kind: LLMQuota
metadata: {{name: upgraded, namespace: upgrade}}
spec:
  selector: {{matchLabels: {{app: upgraded}}}}
  budgets: [{{provider: upgraded}}]
"
    )
}
