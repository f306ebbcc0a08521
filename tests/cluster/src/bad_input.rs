//! What people may write wrongly, and what they are told: the table `tests/bad_input.yaml`.

use serde_json::{Value, json};

use crate::kubectl::Kubectl;

/// One of them.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it is about.
    pub about: String,
    /// All that kubectl says to it.
    pub says: String,
    given: Vec<Value>,
    attempt: Attempt,
}

#[derive(Clone, Debug)]
enum Attempt {
    Apply(Value),
    Delete { kind: String, name: String },
}

/// Where objects are that say nothing else.
pub const NAMESPACE: &str = "bad-input";

const NAME: &str = "bad";

/// The table.
pub fn cases() -> Vec<Case> {
    let table: Vec<Value> =
        serde_yaml::from_str(include_str!("../tests/bad_input.yaml")).expect("the table is YAML");
    table.into_iter().map(Case::of).collect()
}

// === impl Case ===

impl Case {
    fn of(entry: Value) -> Case {
        let text = |value: &Value| value.as_str().expect("it is a text").trim().to_owned();
        let delete = &entry["delete"];
        let attempt = if delete.is_null() {
            Attempt::Apply(whole(entry["apply"].clone()))
        } else {
            Attempt::Delete { kind: text(&delete["kind"]), name: text(&delete["name"]) }
        };
        let given = entry["given"].as_array().cloned().unwrap_or_default();
        Case {
            about: text(&entry["about"]),
            says: text(&entry["says"]),
            given: given.into_iter().map(whole).collect(),
            attempt,
        }
    }

    /// Makes what is to be there before.
    pub fn prepare(&self) {
        for object in &self.given {
            Kubectl::apply(&object.to_string()).succeeds();
        }
    }

    /// What kubectl says now. Nothing is changed.
    pub fn said(&self) -> String {
        let dry = "--dry-run=server";
        let kubectl = match &self.attempt {
            Attempt::Apply(object) => {
                Kubectl::new(&["apply", dry, "--filename", "-"]).with_input(&object.to_string())
            }
            Attempt::Delete { kind, name } => Kubectl::new(&["delete", dry, kind, name]),
        };
        kubectl.said().trim().to_owned()
    }

    /// Takes away what was made.
    pub fn clear(&self) {
        for object in &self.given {
            let delete = ["delete", "--wait=false", "--filename", "-"];
            Kubectl::new(&delete).with_input(&object.to_string()).succeeds();
        }
    }
}

/// The object with what every case would have to repeat.
fn whole(mut object: Value) -> Value {
    let kind = object["kind"].as_str().expect("it has a kind").to_owned();
    let is_ours = kind.starts_with("LLM");
    object["apiVersion"] = json!(if is_ours { "weir.dev/v1alpha1" } else { "v1" });
    if object["metadata"]["name"].is_null() {
        object["metadata"]["name"] = json!(NAME);
    }
    let is_namespaced = kind == "LLMQuota" || kind == "Pod";
    if is_namespaced && object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = json!(NAMESPACE);
    }
    if kind == "Pod" && object["spec"]["containers"].is_null() {
        object["spec"]["containers"] = json!([{"name": "app", "image": "app"}]);
    }
    object
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::kubectl::workspace_root;

    /// The rules of a definition below a place in its schema: which field, and what is said.
    fn rules(schema: &Value, path: &str, found: &mut Vec<(String, String)>) {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let message = rule["message"].as_str().expect("every rule has a message");
            found.push((path.to_owned(), message.to_owned()));
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let dot = if path.is_empty() { "" } else { "." };
            rules(field, &format!("{path}{dot}{name}"), found);
        }
        if schema["items"].is_object() {
            rules(&schema["items"], &format!("{path}[0]"), found);
        }
    }

    #[test]
    fn every_rule_of_a_definition_has_a_case_with_its_field_and_its_message() {
        let cases = cases();
        let mut count = 0;
        for file in ["llmproviders", "llmpriorityclasses", "llmquotas"] {
            let file = workspace_root().join(format!("manifests/crds/{file}.yaml"));
            let definition = fs::read_to_string(file).expect("it is there");
            let definition: Value = serde_yaml::from_str(&definition).expect("it is YAML");
            let kind = definition["spec"]["names"]["kind"].as_str().expect("it has a kind");
            let mut found = Vec::new();
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            rules(schema, "", &mut found);
            count += found.len();
            for (path, message) in found {
                let shown = if path.is_empty() { "<nil>" } else { &path };
                let has = |case: &Case| {
                    case.says.starts_with(&format!("The {kind} "))
                        && case.says.contains(&format!("{shown}: Invalid value: "))
                        && case.says.contains(&message)
                };
                assert!(cases.iter().any(has), "no case has {kind} {shown}: {message}");
            }
        }
        assert!(count > 10, "only {count} rules were found");
    }
}
