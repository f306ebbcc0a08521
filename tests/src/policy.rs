//! A policy as people write it: documents in a directory.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use emulator::Config;
use emulator::config::LimitConfig;
use serde_json::{Map, Value, json};

/// Documents that a test may change before they are written. JSON is YAML.
#[derive(Clone, Debug)]
pub struct Policy {
    /// LLMProviders: `openai` and `anthropic`.
    pub providers: Vec<Value>,
    /// LLMPriorityClasses: `high` and `low`; the default is `low`.
    pub classes: Vec<Value>,
    /// LLMQuotas: one for all pods of namespace [`NAMESPACE`].
    pub quotas: Vec<Value>,
}

/// Where the sidecars of tests are.
pub const NAMESPACE: &str = "shop";

/// What only the emulator knows of a limit.
const EMULATOR_FIELDS: [&str; 2] = ["windowSeconds", "windowPhaseMs"];

// === impl Policy ===

impl Policy {
    /// The limits of an emulator, and a quota that lets everybody use all of it.
    pub fn of(config: &Config, endpoint: SocketAddr) -> Policy {
        let providers = [
            provider("openai", "OpenAI", endpoint, &config.openai),
            provider("anthropic", "Anthropic", endpoint, &config.anthropic),
        ];
        let spec = json!({
            "permittedClasses": ["high"],
            "budgets": [{"provider": "openai"}, {"provider": "anthropic"}],
            "queue": {"maxWait": "30s", "maxRequests": 200},
        });
        Policy {
            providers: providers.into(),
            classes: vec![
                document("LLMPriorityClass", "high", json!({"value": 1_000})),
                document("LLMPriorityClass", "low", json!({"value": 10, "globalDefault": true})),
            ],
            quotas: vec![document("LLMQuota", "all", spec)],
        }
    }

    /// The spec of the quota.
    pub fn quota(&mut self) -> &mut Value {
        &mut self.quotas[0]["spec"]
    }

    /// The text of its one file.
    pub fn to_yaml(&self) -> String {
        let documents = [&self.providers, &self.classes, &self.quotas].into_iter().flatten();
        documents.map(|document| format!("---\n{document:#}\n")).collect()
    }

    /// Puts it into `directory`, whole or not at all.
    pub fn write(&self, directory: &Path) {
        replace(directory, &self.to_yaml());
    }
}

/// Puts any text in the place of the policy in `directory`.
pub fn replace(directory: &Path, text: &str) {
    fs::create_dir_all(directory).expect("a directory");
    let (next, file) = (directory.join("policy.next"), directory.join("policy.yaml"));
    fs::write(&next, text).expect("a file");
    fs::rename(next, file).expect("a file");
}

fn provider(name: &str, protocol: &str, endpoint: SocketAddr, limits: &[LimitConfig]) -> Value {
    let limits: Vec<Value> = limits.iter().map(limit).collect();
    let endpoint = format!("http://{endpoint}");
    let spec = json!({"protocol": protocol, "endpoint": endpoint, "limits": limits});
    document("LLMProvider", name, spec)
}

fn limit(config: &LimitConfig) -> Value {
    let fields = serde_json::to_value(config).expect("plain fields are JSON");
    let Value::Object(fields) = fields else { return fields };
    let policy_has = |(name, value): &(String, Value)| {
        !value.is_null() && !EMULATOR_FIELDS.contains(&name.as_str())
    };
    Value::Object(fields.into_iter().filter(policy_has).collect::<Map<_, _>>())
}

fn document(kind: &str, name: &str, spec: Value) -> Value {
    let mut metadata = json!({"name": name});
    if kind == "LLMQuota" {
        metadata["namespace"] = NAMESPACE.into();
    }
    let (api, kind) = ("weir.dev/v1alpha1", kind.to_owned());
    json!({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec})
}
