//! What of the chart can be held to without a helm.

use std::collections::BTreeSet;
use std::fs;

use serde::Deserialize;
use serde_json::Value;

use super::{CHART, RENDERED, readme};

fn read(path: &str) -> String {
    let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_yaml::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn rendered() -> Vec<Value> {
    let text = read(RENDERED);
    let documents = serde_yaml::Deserializer::from_str(&text);
    let documents: Vec<Value> =
        documents.map(|document| Value::deserialize(document).expect("it is YAML")).collect();
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn chart_and_application_have_the_version_of_the_workspace() {
    let chart = yaml(&format!("{CHART}/Chart.yaml"));
    for field in ["version", "appVersion"] {
        assert_eq!(chart[field], env!("CARGO_PKG_VERSION"), "{field}");
    }
}

#[test]
fn the_readme_has_the_values_of_today() {
    let (text, values) =
        (read(&format!("{CHART}/README.md")), read(&format!("{CHART}/values.yaml")));
    let expected = readme::with_table(&text, &values).expect("it has marks");
    assert!(text == expected, "{CHART}/README.md is old: run `cargo xtask gen`");
}

#[test]
fn each_value_is_described_and_in_the_schema_and_the_schema_takes_no_other() {
    let values = read(&format!("{CHART}/values.yaml"));
    let entries = readme::entries(&values).expect("they are well formed");
    let described: BTreeSet<String> = entries.into_iter().map(|entry| entry.key).collect();
    let schema: Value =
        serde_json::from_str(&read(&format!("{CHART}/values.schema.json"))).expect("it is JSON");
    let values: Value = serde_yaml::from_str(&values).expect("it is YAML");
    hold(&values, "", &schema, &schema, &described);
}

/// Goes down to described values, and compares keys on the way.
fn hold(value: &Value, path: &str, node: &Value, root: &Value, described: &BTreeSet<String>) {
    if described.contains(path) {
        return;
    }
    let node = match node["$ref"].as_str() {
        Some(reference) => {
            root.pointer(reference.trim_start_matches('#')).expect("it leads somewhere")
        }
        None => node,
    };
    let fields = value.as_object().unwrap_or_else(|| panic!("{path} has no description"));
    assert_eq!(node["additionalProperties"], false, "the schema of {path:?} is open");
    let properties = node["properties"].as_object().expect("an object has properties");
    // Only a parent chart sets it.
    let known: BTreeSet<&String> = properties.keys().filter(|key| *key != "global").collect();
    assert_eq!(fields.keys().collect::<BTreeSet<_>>(), known, "in {path:?}");
    for (key, value) in fields {
        let path = format!("{path}.{key}");
        hold(value, path.trim_start_matches('.'), &properties[key], root, described);
    }
}

#[test]
fn the_plain_manifests_are_these_objects() {
    let objects: BTreeSet<String> = rendered()
        .iter()
        .map(|object| {
            let name = object["metadata"]["name"].as_str().expect("it has a name");
            format!("{} {name}", object["kind"].as_str().expect("it has a kind"))
        })
        .collect();
    let expected = [
        "ClusterRole weir-allocator",
        "ClusterRoleBinding weir-allocator",
        "Deployment weir-allocator",
        "MutatingWebhookConfiguration weir-injector",
        "NetworkPolicy weir-allocator",
        "PodDisruptionBudget weir-allocator",
        "Role weir-allocator",
        "RoleBinding weir-allocator",
        "Service weir-allocator",
        "Service weir-webhook",
        "ServiceAccount weir-allocator",
        "ValidatingWebhookConfiguration weir-policy",
    ];
    assert_eq!(objects, expected.map(str::to_owned).into());
    let kustomization = yaml("manifests/kustomization.yaml");
    let mut resources = texts(&kustomization["resources"]);
    resources.sort_unstable();
    let definitions =
        ["crds/llmpriorityclasses.yaml", "crds/llmproviders.yaml", "crds/llmquotas.yaml"];
    assert_eq!(resources, [&definitions[..], &["namespace.yaml", "weir.yaml"]].concat());
}

/// Each right by verb and resource, and by name where Kubernetes can tell names apart.
#[test]
fn the_allocator_has_these_rights_and_none_by_wildcard() {
    let mut rights = BTreeSet::new();
    for role in rendered().iter().filter(|object| object["kind"].as_str().is_some_and(is_role)) {
        let scope = if role["kind"] == "Role" { "in weir-system: " } else { "" };
        for rule in role["rules"].as_array().expect("a role has rules") {
            for resource in texts(&rule["resources"]) {
                let names = texts(&rule["resourceNames"]).join(" ");
                let verbs = texts(&rule["verbs"]).join(" ");
                rights.insert(format!("{scope}{resource} {names}: {verbs}").replace(" :", ":"));
            }
        }
    }
    let expected = [
        "events: create patch",
        "in weir-system: leases weir-allocator: get list watch update patch",
        "in weir-system: leases: create",
        "in weir-system: secrets weir-ca: update patch",
        "in weir-system: secrets: get list watch create",
        "llmpriorityclasses/status: patch",
        "llmpriorityclasses: get list watch",
        "llmproviders/status: patch",
        "llmproviders: get list watch",
        "llmquotas/status: patch",
        "llmquotas: get list watch",
        "mutatingwebhookconfigurations weir-injector: get list watch patch",
        "namespaces: get list watch",
        "pods: get list watch",
        "tokenreviews: create",
        "validatingwebhookconfigurations weir-policy: get list watch patch",
    ];
    assert_eq!(rights, expected.map(str::to_owned).into());
}

fn is_role(kind: &str) -> bool {
    ["Role", "ClusterRole"].contains(&kind)
}

/// Whoever applies the manifests again would take away what the allocator wrote into them.
#[test]
fn no_manifest_has_a_ca_bundle_of_its_own() {
    assert!(!read(RENDERED).contains("caBundle:"));
}
