//! An emulated provider as a pod, and what it knows to be true.

use std::ops::Sub;
use std::time::Duration;

use serde_json::Value;

use crate::course::{self, Recorder};
use crate::kubectl::Kubectl;
use crate::namespace::Namespace;

/// One account with one limit of requests per minute, in a bucket.
#[derive(Debug)]
pub struct Provider {
    namespace: Namespace,
    /// Where the cluster's own processes reach what it knows.
    address: String,
}

/// What an account was charged.
#[derive(Clone, Copy, Debug)]
pub struct Truth {
    /// Answers 429.
    pub refused: u64,
    /// Requests that were charged.
    pub settled: f64,
    /// What there was to take.
    pub on_offer: f64,
}

const STARTED: Duration = Duration::from_secs(90);

// === impl Truth ===

impl Truth {
    /// Of all that a provider says, what concerns calls in OpenAI's language.
    pub(crate) fn of(state: &Value) -> Truth {
        let mut limits = state["limits"].as_array().cloned().unwrap_or_default();
        // It speaks Anthropic's language too, with a limit of its own.
        limits.retain(|it| it["provider"] == "openai");
        assert!(limits.len() <= 1, "one account with one limit was to be used: {limits:?}");
        let sum = |field: &str| limits.iter().filter_map(|it| it[field].as_f64()).sum::<f64>();
        Truth {
            refused: state["answers"]["429"].as_u64().unwrap_or(0),
            settled: sum("settled"),
            on_offer: sum("on_offer"),
        }
    }
}

impl Sub for Truth {
    type Output = Truth;

    fn sub(self, before: Truth) -> Truth {
        Truth {
            refused: self.refused - before.refused,
            settled: self.settled - before.settled,
            on_offer: self.on_offer - before.on_offer,
        }
    }
}

// === impl Provider ===

impl Provider {
    /// Starts one in a namespace of its own.
    pub fn start(namespace: &str, rpm: u64) -> Provider {
        let namespace = Namespace::new(namespace);
        let yaml = include_str!("provider.yaml").replace("RPM", &rpm.to_string());
        namespace.kubectl(&["apply", "--filename", "-"]).with_input(&yaml).succeeds();
        let service = ["get", "service", "emulator", "--output=jsonpath={.spec.clusterIP}"];
        let address = format!("{}:7431", namespace.kubectl(&service).succeeds());
        let provider = Provider { namespace, address };
        provider.started();
        provider
    }

    /// Starts it anew with answers that take so long.
    pub fn answer_after(&self, latency: Duration) {
        let latency = format!("WEIR_EMULATOR_LATENCY_MS={}", latency.as_millis());
        self.namespace.kubectl(&["set", "env", "deployment/emulator", &latency]).succeeds();
        self.started();
    }

    fn started(&self) {
        let timeout = format!("--timeout={}s", STARTED.as_secs());
        let status = ["rollout", "status", "deployment/emulator", &timeout];
        self.namespace.kubectl(&status).succeeds();
    }

    /// Where sidecars reach it.
    pub fn endpoint(&self) -> String {
        format!("http://emulator.{}.svc:7430", self.namespace.name())
    }

    /// What it has counted since it started, of calls in OpenAI's language.
    pub fn truth(&self) -> Truth {
        let path = self.path("state");
        let state = Kubectl::new(&["get", "--raw", &path]).succeeds();
        let state: Value = serde_json::from_str(&state).expect("it tells JSON");
        Truth::of(&state)
    }

    /// Follows what it is charged, without the API server; the cluster must be ours.
    pub fn record(&self) -> Recorder {
        Recorder::start(self.address.clone())
    }

    /// Calls that it has taken since it started, asked without the API server too.
    pub fn calls(&self) -> impl Fn() -> u64 + use<> {
        let address = self.address.clone();
        move || course::ask(&address)["requests"].as_u64().expect("it counts them")
    }

    fn path(&self, what: &str) -> String {
        let namespace = self.namespace.name();
        format!("/api/v1/namespaces/{namespace}/services/emulator:7431/proxy/__emu/{what}")
    }
}
