//! Weir as helm installs it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::kubectl::{Kubectl, workspace_root};
use crate::wait;

/// The release, in `weir-system`.
#[derive(Clone, Copy, Debug)]
pub struct Weir;

/// Images are there; what takes time are probes on a busy machine.
const INSTALLED: Duration = Duration::from_secs(180);
/// A leader that ends in view is succeeded in two seconds, one that cannot give its Lease back in thirty.
const LED: Duration = Duration::from_secs(120);
/// Five seconds of grace for those who look for them, and five for streams.
const ENDED: Duration = Duration::from_secs(120);

// === impl Weir ===

impl Weir {
    /// Installs it, or upgrades what is there, and waits until somebody leads.
    pub fn install() -> Weir {
        Weir::install_chart(Path::new("charts/weir"), "dev")
    }

    /// The same with a chart and images of another version.
    pub fn install_chart(chart: &Path, tag: &str) -> Weir {
        let timeout = format!("{}s", INSTALLED.as_secs());
        let chart = chart.to_str().expect("its path is text");
        let chart = ["upgrade", "--install", "weir", chart, "--wait", "--timeout", &timeout];
        let place = ["--namespace", "weir-system", "--create-namespace"];
        let images = format!("image.registry=localhost,image.tag={tag},image.pullPolicy=Never");
        helm(&[&chart[..], &place, &["--set", &images]].concat());
        Weir.leader();
        Weir
    }

    /// Back to the revision before, and waits until somebody leads.
    pub fn roll_back(self) {
        let timeout = format!("{}s", INSTALLED.as_secs());
        let place = ["--namespace", "weir-system", "--wait", "--timeout", &timeout];
        helm(&[&["rollback", "weir"][..], &place].concat());
        self.leader();
    }

    /// Takes it away again.
    pub fn uninstall(self) {
        helm(&["uninstall", "weir", "--namespace", "weir-system", "--wait"]);
    }

    /// Takes away what an earlier test may have installed.
    pub fn uninstall_if_there() {
        let arguments = ["uninstall", "weir", "--namespace", "weir-system", "--wait"];
        helm(&[&arguments[..], &["--ignore-not-found"]].concat());
    }

    /// Asks for so many allocators, without waiting for them.
    pub fn scale(self, replicas: u32) {
        let replicas = format!("--replicas={replicas}");
        self.kubectl(&["scale", "deployment", "weir-allocator", &replicas]).succeeds();
    }

    /// Ends all allocators, and waits until they have.
    pub fn end_allocators(self) {
        self.scale(0);
        let component = "--selector=app.kubernetes.io/component=allocator";
        let pods = self.kubectl(&["get", "pods", component, "--output=name"]);
        // Controllers that were without an API server take their time.
        wait::within(ENDED, "all allocators have ended", || {
            pods.attempt().filter(|names| names.trim().is_empty())
        });
    }

    /// `kubectl --namespace weir-system` with these arguments.
    pub fn kubectl(self, arguments: &[&str]) -> Kubectl {
        Kubectl::new(&[&["--namespace", "weir-system"], arguments].concat())
    }

    /// The Lease object; null if there is none.
    pub fn lease(self) -> Value {
        let lease = self.kubectl(&["get", "lease", "weir-allocator", "--output=json"]);
        lease.attempt().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null)
    }

    /// The pod that leads, waiting until one does. A Lease may name a pod that is there no more: one
    /// that was uninstalled could not give it back, because its rights went with it.
    pub fn leader(self) -> String {
        wait::within(LED, "an allocator leads", || {
            let pod = self.leads()?;
            let phase = ["get", "pod", &pod, "--output=jsonpath={.status.phase}"];
            self.kubectl(&phase).attempt().filter(|phase| phase == "Running")?;
            Some(pod)
        })
    }

    /// The pod that leads at this moment, as the Lease says.
    pub fn leads(self) -> Option<String> {
        let lease = self.lease();
        let identity = lease["spec"]["holderIdentity"].as_str().filter(|it| !it.is_empty())?;
        identity.rsplit_once('_').map(|(pod, _)| pod.to_owned())
    }

    /// The leader's epoch.
    pub fn epoch(self) -> u64 {
        let record = &self.lease()["metadata"]["annotations"]["weir.dev/record"];
        let record: Value =
            serde_json::from_str(record.as_str().expect("it is there")).expect("it is JSON");
        record["epoch"].as_u64().expect("it is a number")
    }
}

/// helm; it must succeed.
fn helm(arguments: &[&str]) {
    let output = Command::new("helm").args(arguments).current_dir(workspace_root()).output();
    let output = output.expect("helm can be started");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "helm {arguments:?}: {error}");
}
