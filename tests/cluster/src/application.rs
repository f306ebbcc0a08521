//! An unmodified Python program with the official `openai` package, as a Deployment.

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::kubectl::Kubectl;
use crate::wait;

/// A Deployment of such programs. Its pods carry the label `app: NAME`.
#[derive(Clone, Debug)]
pub struct Application {
    /// Where it lives.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How many pods.
    pub replicas: u32,
    /// Callers in each, one request at a time.
    pub threads: u32,
    /// Between an answer and the next request.
    pub pause: Duration,
    /// Whether its pods ask for a sidecar.
    pub inject: bool,
}

/// What reads along.
#[derive(Debug)]
pub struct Follower(Child);

const ROLLED_OUT: Duration = Duration::from_secs(240);
const LOGGED: Duration = Duration::from_secs(30);

// === impl Application ===

impl Application {
    /// Makes or changes the Deployment, without waiting for it.
    pub fn apply(&self) {
        let annotations = if self.inject { json!({"weir.dev/inject": "true"}) } else { json!({}) };
        let variable = |name: &str, value: String| json!({"name": name, "value": value});
        let environment = [
            variable("OPENAI_API_KEY", "the-application-has-none".to_owned()),
            variable("THREADS", self.threads.to_string()),
            variable("PAUSE", self.pause.as_secs_f64().to_string()),
            variable("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ];
        let container = json!({
            "name": "app",
            "image": "localhost/weir-python:dev",
            "imagePullPolicy": "Never",
            "env": environment,
            "command": ["python3", "-u", "-c", include_str!("application.py")],
        });
        let deployment = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": {"app": self.name}},
                "template": {
                    "metadata": {"labels": {"app": self.name}, "annotations": annotations},
                    "spec": {"containers": [container], "terminationGracePeriodSeconds": 10},
                },
            },
        });
        Kubectl::apply(&deployment.to_string()).succeeds();
    }

    /// Waits until all pods of its present form are Ready, and those of an earlier one are gone.
    pub fn rolled_out(&self) {
        let timeout = format!("--timeout={}s", ROLLED_OUT.as_secs());
        let name = format!("deployment/{}", self.name);
        self.kubectl(&["rollout", "status", &name, &timeout]).succeeds();
        let pods = self.kubectl(&["get", "pods", &self.selector(), "--output=name"]);
        wait::within(ROLLED_OUT, "only pods of the present form are there", || {
            let count = pods.attempt()?.lines().count();
            (count == usize::try_from(self.replicas).ok()?).then_some(())
        });
    }

    /// What all of its pods have printed.
    pub fn logs(&self) -> String {
        let selector = self.selector();
        let all = ["logs", &selector, "--container=app", "--tail=-1", "--max-log-requests=60"];
        let logs = self.kubectl(&all);
        // A pod may go between the list and its log.
        wait::within(LOGGED, "the logs can be read", || logs.attempt())
    }

    /// Reads along what its present pods print until they end, which one that is replaced says last.
    pub fn follow(&self) -> Follower {
        let selector = self.selector();
        let all = ["logs", "--follow", &selector, "--container=app", "--tail=-1"];
        let mut command = self.kubectl(&[&all[..], &["--max-log-requests=60"]].concat()).command();
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        Follower(command.spawn().expect("kubectl can be started"))
    }

    /// The names of its pods.
    pub fn pods(&self) -> Vec<String> {
        let names = "--output=jsonpath={range .items[*]}{.metadata.name}{'\\n'}{end}";
        let names = self.kubectl(&["get", "pods", &self.selector(), names]).succeeds();
        names.lines().map(str::to_owned).collect()
    }

    fn selector(&self) -> String {
        format!("--selector=app={}", self.name)
    }

    /// `kubectl --namespace ITS` with these arguments.
    pub fn kubectl(&self, arguments: &[&str]) -> Kubectl {
        Kubectl::new(&[&["--namespace", self.namespace.as_str()], arguments].concat())
    }
}

// === impl Follower ===

impl Follower {
    /// All that was printed, after the last of the pods has ended.
    pub fn read(self) -> String {
        let output = self.0.wait_with_output().expect("kubectl can be waited for");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        // The cluster may be what is broken; the test has said so.
        let name = self.name.as_str();
        let _gone = self
            .kubectl(&["delete", "deployment", name, "--ignore-not-found", "--wait=false"])
            .attempt();
    }
}
